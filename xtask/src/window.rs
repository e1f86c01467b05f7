//! `cargo xtask window`: counts the SEAMCALLs of an update while all CPUs are stopped.

use anyhow::{Context, Result};

use crate::document;

const REPORT: &str = "docs/performance.md";
const PLACE: &str = "window";

const HOW: &str = "\
While all CPUs are stopped, an update by N LPs makes these calls and no others. The handoff version
comes from preflight. The library reads the version after the CPUs continue. \"Parallel\" calls
take the time of one call, for any N.";

/// Returns the section of the report. [`run`] fills in the text between its marks.
pub(crate) fn section() -> Result<String> {
    let tables = tdx_seamldr_worlds::window::tables()?;
    Ok(format!(
        "## While all CPUs are stopped\n\n{HOW}\n\n<!-- {PLACE} -->\n{tables}\n<!-- /{PLACE} -->\n"
    ))
}

/// Writes the tables into the report, or checks them.
pub(crate) fn run(check: bool) -> Result<()> {
    let tables = tdx_seamldr_worlds::window::tables()?;
    println!("{tables}");
    if check {
        return document::check(REPORT, PLACE, &tables)
            .context("write the tables with `cargo xtask window`");
    }
    document::fill(REPORT, PLACE, &tables)
}
