//! `cargo xtask outcomes`: what becomes of the TDs wherever an update fails, with this library and
//! with Linux 7.2's policy.

use anyhow::{Context, Result};

use crate::document;

pub(crate) use tdx_seamldr_worlds::outcomes::{changes, pairs, recorded};

/// Prints the tables of all single faults and of misuse; puts them into the README, or checks that
/// they are there.
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
