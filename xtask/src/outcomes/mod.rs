//! `cargo xtask outcomes`: what becomes of the TDs wherever an update fails, with this library and with Linux 7.2's policy.

mod case;
mod linux;
mod misuse;
mod recorded;
#[cfg(test)]
mod schedules;
mod sweep;
mod world;

use std::path::Path;

use anyhow::{ensure, Result};

pub(crate) fn run(recorded: Option<&Path>, pairs: Option<u64>, readme: bool) -> Result<()> {
    if let Some(count) = pairs {
        return sweep::pairs(count);
    }
    match recorded {
        Some(folder) => recorded::run(folder),
        None => {
            let tables = format!("{}\n\n{}", sweep::run()?, misuse::run()?);
            println!("{tables}");
            if readme {
                write_readme(&tables)?;
            }
            Ok(())
        }
    }
}

/// Puts the tables between their marks in the README.
fn write_readme(tables: &str) -> Result<()> {
    const BEGIN: &str = "<!-- outcomes -->\n";
    const END: &str = "<!-- /outcomes -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let text = std::fs::read_to_string(&path)?;
    let marks = text.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    ensure!(marks.is_some(), "the README has no place for the tables");
    if let Some((before, after)) = marks {
        std::fs::write(&path, format!("{before}{BEGIN}{tables}\n{END}{after}"))?;
    }
    Ok(())
}
