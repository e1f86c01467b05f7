//! `cargo xtask c-tests`: tests the library as a C project uses it. Installs the library into a
//! fresh prefix, checks the installed files, and builds and runs all C programs of the project
//! there: plain, under valgrind, and with gcc's sanitizers.

mod prefix;
mod programs;
mod symbols;

use std::process::Command;
use std::time::Instant;

use anyhow::Result;

use crate::{c_header, c_recorded, target};
use prefix::Prefix;

pub(crate) fn run() -> Result<()> {
    c_header::run(true)?;
    c_recorded::run(true)?;
    let folder = target().join("c-tests");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;

    let start = Instant::now();
    let prefix = Prefix::install(folder.join("prefix"))?;
    println!("installed with cargo-c ({} s)", start.elapsed().as_secs());
    prefix.check_header(&folder)?;
    symbols::check(&prefix, &folder)?;
    programs::run(&prefix, &folder)
}

/// Whether the program is installed.
fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
