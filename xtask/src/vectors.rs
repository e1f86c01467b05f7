//! `cargo xtask vectors`: compares the simulated platform with recordings of real firmware.

use std::path::Path;

use anyhow::{bail, Result};
use tdx_seamldr_mock::vectors::{replay_folder, Replay};

pub(crate) fn run(folder: &Path, group: Option<&str>) -> Result<()> {
    let (mut passed, mut failed, mut skipped) = (0u32, 0u32, 0u32);
    replay_folder(folder, group, |replayed| match &replayed.replay {
        Replay::Passed => passed = passed.saturating_add(1),
        Replay::Skipped { .. } => skipped = skipped.saturating_add(1),
        Replay::Failed { .. } => {
            failed = failed.saturating_add(1);
            println!("{replayed}");
        }
    })?;
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed != 0 {
        bail!("the simulated platform differs from {failed} recordings");
    }
    Ok(())
}
