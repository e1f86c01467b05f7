//! `cargo xtask pictures`: draws the pictures of README and rustdoc from the project's own data.

mod crates;
mod ends;
mod layouts;
mod session;
mod stages;
mod traits;

use std::fs;

use anyhow::{ensure, Context, Result};
use tdx_seamldr_worlds::outcomes::Tables;

/// The folder of the pictures.
const FOLDER: &str = "docs/pictures";

/// Writes the pictures, or checks that they are up to date.
pub(crate) fn run(check: bool, record: bool) -> Result<()> {
    if record {
        session::record()?;
    }
    let tables = Tables::compute()?;
    let pictures = [
        ("stages", stages::draw()?),
        ("outcomes", ends::flow(&tables)?),
        ("losses", ends::bars(&tables)),
        ("traits", traits::draw()?),
        ("crates", crates::draw()?),
        ("layouts", layouts::draw()?),
        ("session", session::draw()?),
    ];
    let folder = crate::root().join(FOLDER);
    fs::create_dir_all(&folder)?;
    let mut old = Vec::new();
    for (name, picture) in pictures {
        let path = folder.join(format!("{name}.svg"));
        if !check {
            fs::write(&path, picture).with_context(|| path.display().to_string())?;
        } else if fs::read_to_string(&path).ok().as_deref() != Some(picture.as_str()) {
            old.push(format!("{FOLDER}/{name}.svg"));
        }
    }
    ensure!(old.is_empty(), "{}: not what `cargo xtask pictures` draws", old.join(", "));
    Ok(())
}

/// Returns the text of a file of the project.
fn source(name: &str) -> Result<String> {
    fs::read_to_string(crate::root().join(name)).with_context(|| name.to_owned())
}
