//! The trait of all subcommands.

use std::io::Write;

use crate::error::Error;
use crate::exit::Exit;

/// A subcommand with its arguments.
pub(crate) trait Run {
    /// Runs the subcommand. Prints the report to `out`, and warnings to `complaints`.
    ///
    /// # Errors
    ///
    /// The subcommand failed. The caller prints the error.
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error>;

    /// Whether the report is a JSON object.
    fn json(&self) -> bool;

    /// Checks the rules between arguments that the parser does not know.
    ///
    /// # Errors
    ///
    /// The arguments do not fit together. The text says why.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether the subcommand writes an image to standard output. Then nothing else may go there.
    fn writes_to_stdout(&self) -> bool {
        false
    }
}
