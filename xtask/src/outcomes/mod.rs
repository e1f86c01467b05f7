//! `cargo xtask outcomes`: what becomes of the TDs wherever an update fails, with this library and with Linux 7.2's policy.

mod case;
mod linux;
mod misuse;
mod recorded;
#[cfg(test)]
mod schedules;
mod sweep;

use std::path::Path;

use anyhow::{ensure, Context, Result};

pub(crate) use recorded::run as recorded;
pub(crate) use sweep::pairs;

/// Prints the tables of all single faults and of misuse; puts them into the README, or sees that they are there.
pub(crate) fn tables(write: bool, check: bool) -> Result<()> {
    const BEGIN: &str = "<!-- outcomes -->\n";
    const END: &str = "<!-- /outcomes -->";
    let tables = format!("{}\n\n{}", sweep::run()?, misuse::run()?);
    println!("{tables}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let old = std::fs::read_to_string(&path)?;
    let marks = old.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = marks.context("the README has no place for the tables")?;
    let new = format!("{before}{BEGIN}{tables}\n{END}{after}");
    if write {
        std::fs::write(&path, &new)?;
    }
    ensure!(!check || new == old, "the README has other tables: write them with --readme");
    Ok(())
}
