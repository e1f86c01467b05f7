//! What commands print: lines for people, one object with `--json` for programs.

use std::io::Write;

use serde::Serialize;

use crate::error::Error;

/// A report under the name of its schema.
#[derive(Serialize)]
struct Named<'a, T> {
    schema: String,
    #[serde(flatten)]
    report: &'a T,
}

/// Prints the report of a command as a JSON object. Its first key is `schema`: `tdx-seamldr/COMMAND/1`.
pub(crate) fn print_json(out: &mut dyn Write, command: &str, report: &impl Serialize) -> Result<(), Error> {
    let named = Named { schema: format!("tdx-seamldr/{command}/1"), report };
    print(out, &serde_json::to_string_pretty(&named)?)
}

/// Prints lines. A reader that has gone away is an error, not a panic.
pub(crate) fn print(out: &mut dyn Write, text: &str) -> Result<(), Error> {
    Ok(writeln!(out, "{text}")?)
}

/// The width of the text that commands print.
const WIDTH: usize = 80;

/// The width of the names of rows.
const NAMES: usize = 16;

/// Rows of a name and a value. Values that are too long for a line go on below, where words end.
#[derive(Default)]
pub(crate) struct Table(String);

impl Table {
    /// Adds a row. An empty value is `-`.
    pub(crate) fn row(&mut self, name: &str, value: impl std::fmt::Display) {
        let value = value.to_string();
        let mut column = NAMES;
        self.0.push_str(&format!("{name:<NAMES$}"));
        for word in value.split(' ') {
            let width = word.chars().count();
            if column > NAMES && column.saturating_add(width) >= WIDTH {
                self.0.push_str(&format!("\n{:NAMES$}", ""));
                column = NAMES;
            }
            self.0.push(' ');
            self.0.push_str(if value.is_empty() { "-" } else { word });
            column = column.saturating_add(width).saturating_add(1);
        }
        self.0.push('\n');
    }

    /// Returns the lines.
    pub(crate) fn lines(&self) -> &str {
        self.0.trim_end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_values_go_on_below_where_words_end() {
        let mut table = Table::default();
        table.row("name", "short");
        table.row("none", "");
        table.row("long", "word ".repeat(30).trim_end());
        table.row("whole", "x".repeat(100));
        let lines: Vec<&str> = table.lines().lines().collect();
        assert_eq!(lines[..2], ["name             short", "none             -"]);
        assert!(lines[2..lines.len() - 1].iter().all(|line| line.len() <= WIDTH), "{lines:?}");
        assert_eq!(lines.iter().map(|line| line.matches("word").count()).sum::<usize>(), 30);
        assert_eq!(lines[lines.len() - 1].split_whitespace().nth(1).unwrap().len(), 100);
    }
}
