//! `cargo xtask outcomes`: what becomes of the TDs wherever an update fails, with this library and with Linux 7.2's policy.

mod case;
mod linux;
mod misuse;
mod recorded;
#[cfg(test)]
mod schedules;
mod sweep;

use anyhow::{Context, Result};

use crate::document;

pub(crate) use recorded::run as recorded;
pub(crate) use sweep::pairs;

/// Prints the tables of all single faults and of misuse; puts them into the README, or sees that they are there.
pub(crate) fn tables(write: bool, check: bool) -> Result<()> {
    let tables = format!("{}\n\n{}", sweep::run()?, misuse::run()?);
    println!("{tables}");
    if write {
        document::fill("README.md", "outcomes", &tables)?;
    }
    if check {
        document::check("README.md", "outcomes", &tables).context("write the tables with --readme")?;
    }
    Ok(())
}
