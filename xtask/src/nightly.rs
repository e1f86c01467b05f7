//! `cargo xtask nightly`: runs all slow checks, one after the other.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{bail, Context, Result};

use crate::document;

/// Commands of `cargo xtask`, from cheap to expensive. Commands with a given amount of work follow.
const COMMANDS: [&[&str]; 10] = [
    &["public-api", "--check"],
    &["semver"],
    &["publish-check"],
    &["package", "--test"],
    &["rollout"],
    &["c-tests"],
    &["versions"],
    &["bench-report"],
    &["coverage", "--branches"],
    &["mutants"],
];

/// The document with the tables of some commands, each in the place with the command's name.
const DOCUMENT: &str = "docs/verification.md";
const SHOWN: [&str; 3] = ["coverage", "mutants", "fuzz"];

pub(crate) fn run(linux_tree: Option<&Path>, fuzz_seconds: u32) -> Result<()> {
    let fuzz_seconds = fuzz_seconds.to_string();
    let linux_tree = linux_tree.map(|folder| folder.display().to_string());
    let mut commands = COMMANDS.map(<[&str]>::to_vec).to_vec();
    commands.push(vec!["fuzz", "--seconds", &fuzz_seconds]);
    if let Some(folder) = linux_tree.as_deref() {
        commands.push(vec!["linux-driver", "test", folder]);
        commands.push(vec!["tdx-host", folder, "prepare"]);
        commands.push(vec!["tdx-host", folder, "smoke"]);
        commands.push(vec!["rollout", "--machines", folder]);
    }
    let mut failed = Vec::new();
    for command in commands {
        let start = Instant::now();
        println!("\n== {}", command.join(" "));
        if let Err(error) = call(&command) {
            println!("{error:#}");
            failed.push(command.join(" "));
        }
        println!("({} s)", start.elapsed().as_secs());
    }
    if !failed.is_empty() {
        bail!("these failed: {}", failed.join("; "));
    }
    Ok(())
}

/// Runs a command, shows its output, and writes its table into the document if the document has a
/// place for it.
fn call(command: &[&str]) -> Result<()> {
    let mut child =
        Command::new(std::env::current_exe()?).args(command).stdout(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("the output of the command")?;
    let mut table = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        if line.starts_with('|') {
            table.push(line);
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("it ended with {status}");
    }
    let name = command.first().context("a name")?;
    if SHOWN.contains(name) {
        document::fill(DOCUMENT, name, &table.join("\n"))?;
    }
    Ok(())
}
