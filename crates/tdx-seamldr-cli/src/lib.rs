//! The command `tdx-seamldr` as a library. A fuzz target runs the command in its own process.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! A new subcommand is a file with its arguments, which implement `Run`, and two lines below:
//! a variant of `Command`, and the same in `Command::as_run`.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod command;
mod convert;
pub mod drawing;
mod error;
mod examined;
mod exit;
mod explain;
mod file;
mod inspect;
mod on_host;
mod output;
mod pack;
mod page;
pub mod picture;
mod simulate;
mod verify;
mod write;

use std::io::Write;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use command::Run;
pub use exit::Exit;

/// Replace the Intel TDX module of this host while its TDs run, and inspect images of the module.
#[derive(Parser)]
#[command(name = "tdx-seamldr", version, max_term_width = 80, after_help = EXIT_STATUS)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The end of the help.
const EXIT_STATUS: &str = "\
Exit status:
  0  done, or nothing to do
  1  refused by a check: nothing was touched
  2  wrong usage
  3  failed: the TDs are kept
  4  failed: the TDs are lost, or their fate is unknown";

#[derive(Subcommand)]
enum Command {
    /// Show which module runs on this host, and whether it can be replaced
    Status(on_host::Status),
    /// List the public releases and the images in the image folders
    List(on_host::List),
    /// Show which image an update would install, and why each other image is rejected
    Plan(on_host::Plan),
    /// Replace the running module
    Update(on_host::Update),
    /// Replace the running module by the one that the configuration names; for the boot
    Apply(on_host::Apply),
    /// Show the record of updates
    History(on_host::History),
    /// Print a text to paste into a bug report
    Report(on_host::Report),
    /// Write metrics of this host for Prometheus
    Metrics(on_host::Metrics),
    /// Explain status words and lines of the kernel's log, and what to do about them
    Explain(explain::Arguments),
    /// Update a simulated platform from one module to another, and show whether its TDs survive
    Simulate(simulate::Arguments),
    /// Show what a file is: genuine or not, which release, and its contents
    Inspect(inspect::Arguments),
    /// Check that Intel, or a signer that you name, signed exactly these images
    Verify(verify::Arguments),
    /// Write an image in the other format
    Convert(convert::Arguments),
    /// Make an image from a module's binary and its SIGSTRUCT
    Pack(pack::Arguments),
}

impl Command {
    fn as_run(&self) -> &dyn Run {
        match self {
            Self::Status(arguments) => arguments,
            Self::List(arguments) => arguments,
            Self::Plan(arguments) => arguments,
            Self::Update(arguments) => arguments,
            Self::Apply(arguments) => arguments,
            Self::History(arguments) => arguments,
            Self::Report(arguments) => arguments,
            Self::Metrics(arguments) => arguments,
            Self::Explain(arguments) => arguments,
            Self::Simulate(arguments) => arguments,
            Self::Inspect(arguments) => arguments,
            Self::Verify(arguments) => arguments,
            Self::Convert(arguments) => arguments,
            Self::Pack(arguments) => arguments,
        }
    }
}

/// Returns the command with all its subcommands and options, for shell completions and man pages.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

impl std::fmt::Debug for Arguments {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arguments").finish_non_exhaustive()
    }
}

/// The JSON object that a command prints with `--json` when it fails.
#[derive(serde::Serialize)]
struct ErrorReport {
    error: String,
}

impl Arguments {
    /// Checks the rules between arguments that the parser does not know.
    ///
    /// # Errors
    ///
    /// The arguments do not fit together: wrong usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        self.command
            .as_run()
            .check()
            .map_err(|message| Self::command().error(ErrorKind::ValueValidation, message))
    }

    /// Runs the command. The report goes to `out`; errors and warnings go to `complaints`. If the
    /// command writes an image to standard output, `out` gets only the image, and `complaints` also
    /// gets the report.
    pub fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Exit {
        let command = self.command.as_run();
        match command.run(out, complaints) {
            Ok(exit) => exit,
            Err(error) => {
                // No channel is left to report a failed write.
                let _ = writeln!(complaints, "tdx-seamldr: {error}");
                if command.json() {
                    let out: &mut dyn Write =
                        if command.writes_to_stdout() { complaints } else { out };
                    let _ =
                        output::print_json(out, "error", &ErrorReport { error: error.to_string() });
                }
                error.exit()
            }
        }
    }
}
