//! `cargo xtask outcomes`: shows the fate of the TDs for every point of failure of an update, with
//! this library and with Linux 7.2's policy.

use anyhow::{Context, Result};

use crate::document;

pub(crate) use tdx_seamldr_worlds::outcomes::{changes, pairs, recorded};

/// Prints the tables of all single faults and of misuse. Writes them into the README, or checks the
/// README.
pub(crate) fn tables(write: bool, check: bool) -> Result<()> {
    let tables = tdx_seamldr_worlds::outcomes::Tables::compute()?.to_string();
    println!("{tables}");
    if write {
        document::fill("README.md", "outcomes", &tables)?;
    }
    if check {
        document::check("README.md", "outcomes", &tables)
            .context("write the tables with --readme")?;
    }
    Ok(())
}
