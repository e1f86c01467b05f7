//! `cargo xtask publish-check`: packs each published crate as crates.io would get it, and builds it
//! from its package alone, in the order of publication. Publishes nothing.

use anyhow::Result;

pub(crate) fn run() -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.args(["publish", "--locked", "--workspace", "--dry-run"]);
    crate::process::call(cargo.current_dir(crate::root()))
}
