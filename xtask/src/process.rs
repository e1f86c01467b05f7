//! Other programs.

use std::process::Command;

use anyhow::{ensure, Context, Result};

/// Runs a command. Fails if the command fails.
pub(crate) fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}
