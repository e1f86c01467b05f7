//! `cargo xtask packages`: each published crate is packed and built from its package alone, in the
//! order in which they would be published.

use anyhow::{ensure, Result};

pub(crate) fn run() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.args(["publish", "--locked", "--workspace", "--dry-run"]);
    let status = cargo.current_dir(crate::root()).status()?;
    ensure!(status.success(), "cargo publish --dry-run ended with {status}");
    Ok(())
}
