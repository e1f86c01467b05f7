//! `cargo xtask prose`: checks the project's texts. Each check is a tool with its configuration in
//! `.ci/prose`, or a file here.

mod commands;
mod links;
mod width;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::process::{call, printed};

/// The tools, with the versions that this project uses.
const TOOLS: [&str; 2] = ["cspell@9.8.0", "markdownlint-cli2@0.20.0"];

/// A check of texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Check {
    /// Lines have at most 100 columns
    Width,
    /// Links between files lead to a file and to a heading in it
    Links,
    /// Words are spelled right, or in the list of the field's words
    Words,
    /// Commands in code blocks exist, with their options; TOML and JSON can be read
    Commands,
}

impl Check {
    const ALL: [Self; 4] = [Self::Width, Self::Links, Self::Words, Self::Commands];

    fn run(self) -> Result<()> {
        match self {
            Self::Width => {
                width::check()?;
                tool("markdownlint-cli2", &["--config", ".ci/prose/.markdownlint-cli2.jsonc"], &[])
            }
            Self::Links => links::check(),
            Self::Words => tool(
                "cspell",
                &["lint", "--config", ".ci/prose/cspell.json", "--no-progress", "--no-summary"],
                &["*.md", "*.rs", "*.c", "*.h", "*.sh", "*.toml", ".ci/run"],
            ),
            Self::Commands => commands::check(),
        }
    }
}

/// Makes all checks, or one, and fails with the names of those that failed.
pub(crate) fn run(only: Option<Check>) -> Result<()> {
    let mut failed = Vec::new();
    for check in Check::ALL.into_iter().filter(|check| only.is_none_or(|only| only == *check)) {
        if let Err(error) = check.run() {
            eprintln!("{check:?}: {error:#}");
            failed.push(format!("{check:?}"));
        }
    }
    ensure!(failed.is_empty(), "these failed: {}", failed.join(", "));
    Ok(())
}

/// Returns the files of the project whose paths match one of these patterns, relative to its
/// folder, but no symbolic links: their targets are checked once.
fn files(patterns: &[&str]) -> Result<Vec<String>> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard", "--"]).args(patterns);
    let names = printed(git.current_dir(crate::root()))?;
    let is_file = |name: &&str| {
        fs::symlink_metadata(crate::root().join(name)).is_ok_and(|found| found.is_file())
    };
    Ok(names.lines().filter(is_file).map(str::to_owned).collect())
}

/// Returns the folder of the tools.
fn tools() -> PathBuf {
    crate::target().join("prose")
}

/// Installs the tools, unless these versions are there.
fn install() -> Result<()> {
    let (folder, wanted) = (tools(), TOOLS.join("\n"));
    let stamp = folder.join("installed");
    if fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
        return Ok(());
    }
    fs::create_dir_all(&folder)?;
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-fund", "--no-audit", "--silent", "--prefix"]).arg(&folder);
    call(npm.args(TOOLS)).context("the tools come from npm")?;
    Ok(fs::write(stamp, wanted)?)
}

/// Runs a tool on the files with these patterns.
fn tool(name: &str, arguments: &[&str], patterns: &[&str]) -> Result<()> {
    install()?;
    let mut command = Command::new(tools().join("node_modules/.bin").join(name));
    command.args(arguments);
    if !patterns.is_empty() {
        command.args(files(patterns)?);
    }
    let status = command.current_dir(crate::root()).status().with_context(|| name.to_owned())?;
    ensure!(status.success(), "{name} ended with {status}");
    Ok(())
}
