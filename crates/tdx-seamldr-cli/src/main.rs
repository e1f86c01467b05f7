//! The command `tdx-seamldr`: images of the Intel TDX module, and updates on a simulated platform.

mod convert;
mod error;
mod file;
mod inspect;
mod simulate;
mod verify;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use error::Error;

/// Inspect, verify, convert and pack images of the Intel TDX module, and try out updates on a simulated platform.
///
/// Exit status: 0 done, 1 refused or failed, 2 wrong usage.
#[derive(Parser)]
#[command(name = "tdx-seamldr", version)]
struct Arguments {
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
}

impl Command {
    fn run(&self) -> Result<(), Error> {
        match self {
            Self::Simulate(arguments) => simulate::run(arguments),
            Self::Inspect(arguments) => inspect::run(arguments),
            Self::Verify(arguments) => verify::run(arguments),
            Self::Convert(arguments) => convert::convert(arguments),
            Self::Pack(arguments) => convert::pack(arguments),
        }
    }

    fn wants_json(&self) -> bool {
        match self {
            Self::Simulate(arguments) => arguments.json,
            Self::Inspect(arguments) => arguments.json,
            Self::Verify(arguments) => arguments.json,
            Self::Convert(arguments) => arguments.json,
            Self::Pack(arguments) => arguments.json,
        }
    }
}

fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if let Command::Simulate(arguments) = &command {
        if let Err(message) = arguments.check() {
            Arguments::command().error(ErrorKind::ValueValidation, message).exit();
        }
    }
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Refused) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("tdx-seamldr: {error}");
            if command.wants_json() {
                // If standard output is what failed, there is nobody to tell.
                let _ = file::print_json(&serde_json::json!({ "error": error.to_string() }));
            }
            ExitCode::FAILURE
        }
    }
}
