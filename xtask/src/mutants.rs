//! `cargo xtask mutants`: checks that each of many small changes of the core makes a test fail.
//!
//! Each change first runs the core's own tests, which are quick. Changes that pass them run whole
//! updates on the simulated platform. `docs/mutants.md` must explain each change that no test
//! notices.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::process::{call, printed};

/// The highest percentage of compiled changes that no test notices.
const MAX_PERCENT: f64 = 3.0;

/// The document that explains each change that no test notices.
const EXPLAINED: &str = "docs/mutants.md";

const CORE: &str = "tdx-seamldr-core";
const PLATFORM: &str = "tdx-seamldr-mock";
const SOURCES: &str = "crates/tdx-seamldr-core/src/";

/// The core's own tests without loom's, which are slow, and the simulated platform's tests of whole
/// updates.
const OWN_TESTS: [&str; 5] =
    ["--lib", "--test=calls", "--test=messages", "--test=preflight", "--test=specification"];
const UPDATES: [&str; 6] = [
    "--test=checked_then_changed",
    "--test=doubtful_answers",
    "--test=next_steps",
    "--test=recovery",
    "--test=whole_update",
    "--test=worked_traces",
];

/// The exit codes of cargo-mutants for: all changes noticed, a change not noticed, a timeout.
const WELL_ENDED: [i32; 3] = [0, 2, 3];

/// Tests all changes, or with `since` only changes in lines that differ from that commit.
pub(crate) fn run(jobs: u32, since: Option<&str>) -> Result<()> {
    let known = crate::cargo().args(["mutants", "--version"]).output()?;
    ensure!(
        known.status.success(),
        "cargo-mutants is missing: cargo install --locked cargo-mutants"
    );
    let folder = crate::target().join("mutants.out");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let diff = since.map(differences).transpose()?;
    let part: Vec<&str> = diff.iter().flat_map(|diff| ["--in-diff", diff]).collect();
    let changes = all_changes()?;
    test(jobs, &part, &OWN_TESTS)?;
    let first = Lists::read(&folder)?;
    ensure!(
        all_changes()? == changes,
        "the core was edited during the run, so its changes have other names: start again"
    );
    // Changes that time out also count as noticed, and are not tested again.
    let caught = folder.join("caught.txt");
    let settled: String =
        first.caught.iter().chain(&first.endless).map(|name| format!("{name}\n")).collect();
    fs::write(caught, settled)?;
    // cargo-mutants expects these tests in the core for its baseline, so the baseline runs here.
    call(
        crate::cargo()
            .args(["test", "--locked", "--profile=mutants", "--package", PLATFORM])
            .args(UPDATES)
            .current_dir(crate::root()),
    )
    .context("the tests fail without any change of the core")?;
    let elsewhere = ["--iterate", "--test-package", PLATFORM, "--baseline=skip", "--timeout=60"];
    test(jobs, &[&part[..], &elsewhere].concat(), &UPDATES)?;
    let second = Lists::read(&folder)?;
    let lists = Lists {
        caught: [first.caught, second.caught].concat(),
        endless: [first.endless, second.endless].concat(),
        missed: second.missed,
    };
    let explained = explained(&fs::read_to_string(crate::root().join(EXPLAINED))?);
    lists.judge(&explained, since.is_none())
}

/// Returns the names of all changes, with their places.
fn all_changes() -> Result<String> {
    printed(
        crate::cargo().args(["mutants", "--package", CORE, "--list"]).current_dir(crate::root()),
    )
}

/// Writes a file with the core's difference from a commit. Returns its path.
fn differences(since: &str) -> Result<String> {
    let diff = printed(
        Command::new("git").args(["diff", since, "--", SOURCES]).current_dir(crate::root()),
    )?;
    ensure!(!diff.is_empty(), "{SOURCES} does not differ from {since}");
    let path = crate::target().join("mutants.diff");
    fs::create_dir_all(crate::target())?;
    fs::write(&path, diff)?;
    Ok(path.to_str().context("the path of the project is not UTF-8")?.to_owned())
}

/// Runs these tests for all changes without a result.
fn test(jobs: u32, arguments: &[&str], tests: &[&str]) -> Result<()> {
    let mut cargo = crate::cargo();
    cargo.args(["mutants", "--package", CORE, "--jobs"]).arg(jobs.to_string());
    cargo.arg("--output").arg(crate::target());
    cargo.args(arguments).args(tests.iter().flat_map(|test| ["--cargo-arg", test]));
    let status = cargo.current_dir(crate::root()).status()?;
    ensure!(
        status.code().is_some_and(|code| WELL_ENDED.contains(&code)),
        "cargo mutants ended with {status}"
    );
    Ok(())
}

/// The results of all compiled changes, by name.
struct Lists {
    caught: Vec<String>,
    endless: Vec<String>,
    missed: Vec<String>,
}

impl Lists {
    fn read(folder: &Path) -> Result<Self> {
        let list = |name: &str| -> Result<Vec<String>> {
            let path = folder.join(name);
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            Ok(text.lines().map(str::to_owned).collect())
        };
        Ok(Self {
            caught: list("caught.txt")?,
            endless: list("timeout.txt")?,
            missed: list("missed.txt")?,
        })
    }

    /// Prints a table. Fails for too many survivors and for survivors without explanation. After a
    /// complete run, also fails for explanations of other changes.
    fn judge(&self, explained: &BTreeMap<String, usize>, is_everything: bool) -> Result<()> {
        let viable = [&self.caught, &self.endless, &self.missed]
            .map(Vec::len)
            .into_iter()
            .fold(0, usize::saturating_add);
        let count = |count: usize| u32::try_from(count).map(f64::from).unwrap_or(f64::MAX);
        let percent = 100.0 * count(self.missed.len()) / count(viable).max(1.0);
        println!(
            "| that can be compiled | a test fails | a test never ends | survive | percent \
             |\n|---|---|---|---|---|"
        );
        println!(
            "| {viable} | {} | {} | {} | {percent:.1} |",
            self.caught.len(),
            self.endless.len(),
            self.missed.len()
        );
        let mut survivors: BTreeMap<String, usize> = BTreeMap::new();
        for name in &self.missed {
            let times = survivors.entry(without_place(name)).or_default();
            *times = times.saturating_add(1);
        }
        let mut problems = Vec::new();
        for name in
            survivors.keys().chain(explained.keys().filter(|name| !survivors.contains_key(*name)))
        {
            let [found, wanted] =
                [&survivors, explained].map(|names| names.get(name).copied().unwrap_or_default());
            if found > wanted || is_everything && found != wanted {
                problems.push(format!("{name}: {found} survive, and {wanted} are explained"));
            }
        }
        ensure!(
            problems.is_empty(),
            "{EXPLAINED} does not match the results:\n{}",
            problems.join("\n")
        );
        ensure!(percent <= MAX_PERCENT, "{percent:.1}% survive, but {MAX_PERCENT}% may");
        Ok(())
    }
}

/// Returns a change's name without line and column, which change with every edit.
fn without_place(name: &str) -> String {
    let name = name.strip_prefix(SOURCES).unwrap_or(name);
    match name.splitn(4, ':').collect::<Vec<_>>()[..] {
        [file, _, _, change] => format!("{file}:{change}"),
        _ => name.to_owned(),
    }
}

/// Returns the changes that a document explains, each in its own line, such as ``- `lock.rs:
/// replace ...` (2 places): because``.
fn explained(document: &str) -> BTreeMap<String, usize> {
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("- `")?.split_once('`')?;
        let places =
            rest.strip_prefix(" (").and_then(|rest| rest.split_once(" places)")?.0.parse().ok());
        Some((name.to_owned(), places.unwrap_or(1)))
    };
    document.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const MISSED: &str =
        "crates/tdx-seamldr-core/src/abi/leaf.rs:97:27: replace | with ^ in TdxLeaf::rax";

    fn lists(missed: &[&str]) -> Lists {
        let caught = (0..99).map(|number| number.to_string()).collect();
        Lists {
            caught,
            missed: missed.iter().map(|name| (*name).to_owned()).collect(),
            endless: Vec::new(),
        }
    }

    #[test]
    fn exactly_the_survivors_must_be_explained() {
        let document =
            "Text\n\n- `abi/leaf.rs: replace | with ^ in TdxLeaf::rax`: no bit is in both.\n";
        let one = explained(document);
        assert!(lists(&[MISSED]).judge(&one, true).is_ok());
        assert!(lists(&[MISSED]).judge(&BTreeMap::new(), true).is_err());
        assert!(lists(&[]).judge(&one, true).is_err(), "it does not survive");
        assert!(lists(&[MISSED, MISSED]).judge(&one, true).is_err(), "one of them is explained");
        let two = explained(
            "- `abi/leaf.rs: replace | with ^ in TdxLeaf::rax` (2 places): no bit is in both.",
        );
        assert!(lists(&[MISSED, MISSED]).judge(&two, true).is_ok());
        assert!(lists(&[]).judge(&BTreeMap::new(), true).is_ok());
        assert!(lists(&[]).judge(&one, false).is_ok(), "it was not tried");
        assert!(lists(&[MISSED, MISSED]).judge(&one, false).is_err());
    }

    #[test]
    fn too_many_survivors_fail_even_if_explained() {
        let four = explained(
            "- `abi/leaf.rs: replace | with ^ in TdxLeaf::rax` (4 places): no bit is in both.",
        );
        assert!(lists(&[MISSED; 4])
            .judge(&four, true)
            .unwrap_err()
            .to_string()
            .contains("3.9% survive"));
    }
}
