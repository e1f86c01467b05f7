//! The command `tdx-seamldr` as a library, so that it can be run in the process of a fuzz target.
//!
//! A new subcommand is a file with its arguments, which implement `Run`, and two lines below:
//! a variant of `Command`, and the same in `Command::as_run`.
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod command;
mod convert;
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
mod simulate;
mod verify;
mod write;

use std::io::Write;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use command::Run;
pub use exit::Exit;

/// Replace the Intel TDX module of this host while its TDs run, and look into images of the module.
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
  1  refused: a check said no, and nothing was touched
  2  wrong usage
  3  failed: the TDs are kept
  4  failed: the TDs are lost, or their fate is unknown";

#[derive(Subcommand)]
enum Command {
    /// Show what runs on this host, and whether it can be replaced
    Status(on_host::Status),
    /// List the public releases and the images at hand
    List(on_host::List),
    /// Say which image comes next on this host, and what speaks against each other one
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
    /// Explain status words or lines of the kernel's log, and say what to do
    Explain(explain::Arguments),
    /// Update a simulated platform from one module to another, and see whether its TDs survive
    Simulate(simulate::Arguments),
    /// Say what a file is: a genuine image or not, which release, and what is in it
    Inspect(inspect::Arguments),
    /// Check that Intel, or another signer, signed exactly these images
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

/// What every command prints with `--json` if it has an error.
#[derive(serde::Serialize)]
struct ErrorReport {
    error: String,
}

impl Arguments {
    /// Checks that the arguments go together, as far as the parser cannot.
    ///
    /// # Errors
    ///
    /// They do not: wrong usage.
    pub fn check(&self) -> Result<(), clap::Error> {
        self.command
            .as_run()
            .check()
            .map_err(|message| Self::command().error(ErrorKind::ValueValidation, message))
    }

    /// Runs the command and prints to `out`. Errors and warnings go to `complaints`. If an image
    /// goes to the process's standard output, it goes to `out` alone, and the report goes to
    /// `complaints` too.
    pub fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Exit {
        let command = self.command.as_run();
        match command.run(out, complaints) {
            Ok(exit) => exit,
            Err(error) => {
                // If these cannot be written, there is nobody to tell.
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
