//! `cargo xtask public-api`: writes the public interface of each library to docs/api, so that a
//! review shows its changes.

use std::path::Path;

use anyhow::{ensure, Context, Result};

/// All published libraries.
pub(crate) const LIBRARIES: [&str; 7] = [
    "tdx-seamldr-core",
    "tdx-seamldr-verify",
    "tdx-seamldr-x86_64",
    "tdx-seamldr-mock",
    "tdx-seamldr-mock-c",
    "tdx-seamldr-host",
    "tdx-seamldr-cli",
];
const FOLDER: &str = "docs/api";

/// Writes the interfaces, or with `check` compares them with the files.
pub(crate) fn run(check: bool) -> Result<()> {
    let folder = crate::root().join(FOLDER);
    std::fs::create_dir_all(&folder)?;
    let mut differs = Vec::new();
    for name in LIBRARIES {
        let path = folder.join(name).with_extension("txt");
        let wanted = interface(name)?;
        if !check {
            std::fs::write(&path, wanted)?;
            println!("{FOLDER}/{name}.txt written");
        } else if !is_same(&path, &wanted)? {
            differs.push(format!("{FOLDER}/{name}.txt"));
        }
    }
    ensure!(
        differs.is_empty(),
        "the public interface differs from {}; if the change is intended, run `cargo xtask \
         public-api`",
        differs.join(", ")
    );
    Ok(())
}

/// Returns one line for each item, with all features. Leaves out blanket and auto traits.
fn interface(name: &str) -> Result<String> {
    let output = crate::nightly("cargo")
        .args(["public-api", "--color=never", "--all-features", "-ss", "-p", name])
        .current_dir(crate::root())
        .output()
        .context("cargo does not run")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "`cargo +nightly public-api` failed; it needs rustup's nightly and `cargo install \
         --locked cargo-public-api`:\n{errors}"
    );
    Ok(String::from_utf8(output.stdout)?)
}

fn is_same(path: &Path, wanted: &str) -> Result<bool> {
    let found = std::fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
    let (old, new): (Vec<_>, Vec<_>) = (found.lines().collect(), wanted.lines().collect());
    for gone in old.iter().filter(|line| !new.contains(line)) {
        println!("- {gone}");
    }
    for added in new.iter().filter(|line| !old.contains(line)) {
        println!("+ {added}");
    }
    Ok(found == wanted)
}
