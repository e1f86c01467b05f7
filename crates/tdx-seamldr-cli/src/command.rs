//! What every subcommand does.

use std::io::Write;

use crate::error::Error;
use crate::exit::Exit;

/// The arguments of a subcommand, and what it does with them.
pub(crate) trait Run {
    /// Runs the subcommand. It prints its report to `out`, and warnings to `complaints`.
    ///
    /// # Errors
    ///
    /// The subcommand has not printed why it failed: the caller prints the error.
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error>;

    /// Whether the report is a JSON object.
    fn json(&self) -> bool;

    /// Checks that the arguments go together, as far as the parser cannot.
    ///
    /// # Errors
    ///
    /// They do not; the text says why.
    fn check(&self) -> Result<(), String> {
        Ok(())
    }

    /// Whether an image goes to standard output, so that nothing else may go there.
    fn writes_to_stdout(&self) -> bool {
        false
    }
}
