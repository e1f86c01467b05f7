//! Output of commands: lines for people, one JSON object for programs.

use std::fmt::Display;
use std::io::Write;

use serde::Serialize;

use crate::error::Error;

/// A report with the name of its schema.
#[derive(Serialize)]
struct Named<'a, T> {
    schema: String,
    #[serde(flatten)]
    report: &'a T,
}

/// Prints the report of a command as a JSON object. Its first key is `schema`:
/// `tdx-seamldr/COMMAND/1`.
pub(crate) fn print_json(
    out: &mut dyn Write,
    command: &str,
    report: &impl Serialize,
) -> Result<(), Error> {
    let named = Named { schema: format!("tdx-seamldr/{command}/1"), report };
    print(out, &serde_json::to_string_pretty(&named)?)
}

/// Prints lines. A closed output is an error, not a panic.
pub(crate) fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    Ok(writeln!(out, "{text}")?)
}

/// Returns a number with the name of what it counts: `1 LP`, `2 LPs`.
pub(crate) fn counted(count: impl Display, name: &str) -> String {
    let count = count.to_string();
    let ending = if count == "1" { "" } else { "s" };
    format!("{count} {name}{ending}")
}
