//! `cargo xtask semver`: compares the public interface of each library with the last tag, and
//! checks that the version allows the changes.

use std::process::Command;

use anyhow::{Context, Result};

use crate::process::{call, printed};
use crate::public_api::LIBRARIES;

pub(crate) fn run() -> Result<()> {
    let Some(tag) = last_tag()? else {
        println!("no version has a tag yet, so there is nothing to compare with");
        return Ok(());
    };
    // docs/api has the output of cargo-public-api, in each commit.
    let mut git = Command::new("git");
    call(git.args(["diff", "--stat", &tag, "--", "docs/api"]).current_dir(crate::root()))?;
    let mut checks = crate::cargo();
    checks.args(["semver-checks", "--baseline-rev", &tag, "--all-features"]);
    for library in LIBRARIES {
        checks.args(["--package", library]);
    }
    call(checks.current_dir(crate::root()))
        .context("the versions are too low for the changes, or cargo-semver-checks is missing")
}

/// Returns the newest tag that this commit contains.
fn last_tag() -> Result<Option<String>> {
    let git = |arguments: &[&str]| {
        printed(Command::new("git").args(arguments).current_dir(crate::root()))
    };
    if git(&["tag", "--merged"])?.is_empty() {
        return Ok(None);
    }
    Ok(Some(git(&["describe", "--tags", "--abbrev=0"])?.trim().to_owned()))
}
