//! The command `tdx-seamldr` as a library, so that it can be run in the process of a fuzz target.

mod convert;
mod error;
mod explain;
mod file;
mod inspect;
mod simulate;
mod verify;

use std::io::Write;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use error::Error;

/// Inspect, verify, convert and pack images of the Intel TDX module, and try out updates on a simulated platform.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "tdx-seamldr", version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Update a simulated platform from one module to another, and see whether its TDs survive
    Simulate(simulate::Arguments),
    /// Show what is in an image
    Inspect(inspect::Arguments),
    /// Verify signature, signer and hash of an image
    Verify(verify::Arguments),
    /// Write an image in the other format
    Convert(convert::ConvertArguments),
    /// Make an image from a SIGSTRUCT and a module's binary
    Pack(convert::PackArguments),
    /// Explain status words and lines of the kernel's log, and say what to do
    Explain(explain::Arguments),
}

impl Command {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<(), Error> {
        match self {
            Self::Simulate(arguments) => simulate::run(arguments, out),
            Self::Inspect(arguments) => inspect::run(arguments, out),
            Self::Verify(arguments) => verify::run(arguments, out),
            Self::Convert(arguments) => convert::convert(arguments, out, complaints),
            Self::Pack(arguments) => convert::pack(arguments, out, complaints),
            Self::Explain(arguments) => explain::run(arguments, out),
        }
    }

    fn wants_json(&self) -> bool {
        match self {
            Self::Simulate(arguments) => arguments.json,
            Self::Inspect(arguments) => arguments.json,
            Self::Verify(arguments) => arguments.json,
            Self::Convert(arguments) => arguments.json,
            Self::Pack(arguments) => arguments.json,
            Self::Explain(arguments) => arguments.json,
        }
    }

    /// Whether standard output is for an image, and for nothing else.
    fn writes_to_stdout(&self) -> bool {
        match self {
            Self::Convert(arguments) => file::is_stdout(&arguments.output),
            Self::Pack(arguments) => file::is_stdout(&arguments.output),
            Self::Simulate(_) | Self::Inspect(_) | Self::Verify(_) | Self::Explain(_) => false,
        }
    }
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").finish_non_exhaustive()
    }
}

impl Arguments {
    /// Sees that the arguments go together, as far as the parser cannot.
    ///
    /// # Errors
    ///
    /// They do not: wrong usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        match &self.command {
            Command::Simulate(arguments) => arguments
                .check()
                .map_err(|message| Self::command().error(ErrorKind::ValueValidation, message)),
            _ => Ok(()),
        }
    }

    /// Does what they say, and prints to `out`. `true`: done; `false`: refused or failed, and `complaints` has the reason if `out`
    /// has not. An image for the process's standard output goes to `out`, and all else to `complaints`.
    pub fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> bool {
        match self.command.run(out, complaints) {
            Ok(()) => true,
            Err(Error::Refused) => false,
            Err(error) => {
                // If these cannot be written, there is nobody to tell.
                let _ = writeln!(complaints, "tdx-seamldr: {error}");
                if self.command.wants_json() {
                    let out: &mut dyn Write = if self.command.writes_to_stdout() { complaints } else { out };
                    let _ = file::print_json(out, &serde_json::json!({ "error": error.to_string() }));
                }
                false
            }
        }
    }
}
