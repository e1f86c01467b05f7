//! Writes a folder that looks like the root of a TDX host, and plays its kernel until standard
//! input ends.
//!
//! `tdx-seamldr --root FOLDER` then makes whole updates there, on any machine and without root. The
//! tests of the roll-out use it. The kernel is a script: it answers each upload as `--answer` says,
//! and checks nothing.
//!
//!     cargo run -p tdx-seamldr-cli --example host-folder -- FOLDER --answer installs=1.5.16
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::fs;
use std::io::{self, Read};
use std::path::PathBuf;

use clap::Parser;
use tdx_seamldr_host::testing::HostTree;

#[path = "../tests/host/kernel.rs"]
#[allow(dead_code)]
mod kernel;
#[path = "../tests/host/patience.rs"]
mod patience;

use kernel::{Does, Kernel};

/// A Sapphire Rapids with Linux 7.2, as a folder.
#[derive(Parser)]
struct Arguments {
    /// An empty folder, or one to be made
    folder: PathBuf,
    /// The running module
    #[arg(long, default_value = "1.5.05")]
    module: String,
    /// LPs of the platform
    #[arg(long, default_value_t = 4)]
    lps: u32,
    /// LPs that are offline
    #[arg(long, value_delimiter = ',')]
    offline: Vec<u32>,
    /// Updates that remain
    #[arg(long, default_value_t = 8)]
    remaining: u32,
    /// The kernel's release
    #[arg(long, default_value = "7.2.1-amd64")]
    kernel: String,
    /// What the kernel does with each upload: installs=VERSION, refuses=WORD, loses=WORD
    #[arg(long = "answer", value_parser = parse_answer)]
    answers: Vec<Does>,
}

fn parse_answer(text: &str) -> Result<Does, String> {
    // The process lives as long as its answers.
    let leaked = |text: &str| -> &'static str { text.to_owned().leak() };
    match text.split_once('=') {
        Some(("installs", version)) => Ok(Does::Installs(leaked(version))),
        Some(("refuses", word)) => Ok(Does::Refuses(leaked(word))),
        Some(("loses", word)) => Ok(Does::Loses(leaked(word))),
        _ => Err(format!("{text:?} is none of installs=VERSION, refuses=WORD, loses=WORD")),
    }
}

fn main() -> io::Result<()> {
    let arguments = Arguments::parse();
    fs::create_dir_all(&arguments.folder)?;
    HostTree::linux_7_2()
        .module(&arguments.module)
        .remaining(arguments.remaining)
        .sockets(&[(0x806f8, arguments.lps)])
        .offline(&arguments.offline)
        .kernel(&arguments.kernel)
        .write(&arguments.folder)?;
    let _kernel = Kernel::new(&arguments.folder, &arguments.answers);
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}
