//! The command `tdx-seamldr`.

use std::process::ExitCode;

use clap::Parser;
use tdx_seamldr_cli::Arguments;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.check() {
        error.exit();
    }
    arguments.run(&mut std::io::stdout(), &mut std::io::stderr()).into()
}
