//! `cargo xtask fuzz`: builds the fuzz targets, runs each for a time, one on each CPU, and prints
//! the results.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Instant;

use anyhow::{bail, ensure, Context, Result};
use tdx_seamldr_worlds::fuzz::TARGETS;

use crate::fuzz_seeds;
use crate::process::call;

/// The longest inputs of targets, if not the length of the longest first input.
const LONGEST: [(&str, u32); 8] = [
    ("explain_log", 4096),
    ("operator_files", 8192),
    ("image", 40_960),
    ("update_ops", 512),
    ("status", 32),
    ("params_roundtrip", 4096),
    ("sigstruct", 2048),
    ("host_tree", 4096),
];

pub(crate) fn run(seconds: u32, only: &[String]) -> Result<()> {
    let mut targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    if let Some(unknown) = only.iter().find(|only| !targets.contains(&only.as_str())) {
        bail!("the target {unknown} does not exist; the targets are {}", targets.join(", "));
    }
    targets.retain(|target| only.is_empty() || only.iter().any(|only| only == target));
    let root = crate::root().join("fuzz");
    build(&root)?;
    // An old corpus also gets the inputs that changed since the last run.
    fuzz_seeds::run()?;
    println!(
        "| target | seconds | executions | executions/s | coverage | features | crashes \
         |\n|---|---|---|---|---|---|---|"
    );
    let mut crashes = Vec::new();
    for together in targets.chunks(thread::available_parallelism()?.get()) {
        for (target, run) in together.iter().zip(fuzz_together(&root, together, seconds)) {
            let run = run?;
            println!("{}", run.row(target));
            crashes.extend(run.artifact.map(|artifact| format!("{target}: {artifact}")));
        }
    }
    ensure!(crashes.is_empty(), "findings (inputs):\n{}", crashes.join("\n"));
    Ok(())
}

/// Returns `cargo fuzz`, of the nightly toolchain or of this process.
fn cargo_fuzz(is_nightly: bool, command: &str) -> Command {
    let mut cargo = if is_nightly { crate::nightly("cargo") } else { crate::cargo() };
    cargo.args(["fuzz", command]);
    cargo
}

fn build(root: &Path) -> Result<()> {
    let version = crate::nightly("cargo").arg("--version").output();
    let is_nightly = version.is_ok_and(|output| output.status.success());
    let known = cargo_fuzz(is_nightly, "--version").output()?;
    ensure!(known.status.success(), "cargo-fuzz is missing: cargo install --locked cargo-fuzz");
    let mut cargo = cargo_fuzz(is_nightly, "build");
    if !is_nightly {
        println!("no nightly compiler: fuzzing without the address sanitizer");
        cargo.args(["--sanitizer", "none"]);
    }
    call(cargo.arg("--target-dir").arg(root.join("target")).current_dir(root))
}

/// Returns the program of a target.
fn program(root: &Path, target: &str) -> Result<PathBuf> {
    let folders = fs::read_dir(root.join("target"))?;
    let programs =
        folders.filter_map(|folder| Some(folder.ok()?.path().join("release").join(target)));
    programs
        .filter(|program| program.is_file())
        .max_by_key(|program| program.metadata().and_then(|metadata| metadata.modified()).ok())
        .with_context(|| format!("the program of {target} does not exist"))
}

/// Runs these targets at the same time, one on each CPU.
fn fuzz_together(root: &Path, targets: &[&str], seconds: u32) -> Vec<Result<Run>> {
    thread::scope(|scope| {
        let running: Vec<_> =
            targets.iter().map(|target| scope.spawn(|| fuzz(root, target, seconds))).collect();
        let ended = running.into_iter().map(thread::ScopedJoinHandle::join);
        ended.map(|run| run.unwrap_or_else(|_| bail!("a thread panicked"))).collect()
    })
}

fn fuzz(root: &Path, target: &str, seconds: u32) -> Result<Run> {
    let artifacts = root.join("artifacts").join(target);
    fs::create_dir_all(&artifacts)?;
    let log = root.join("target").join(format!("{target}.log"));
    let mut command = Command::new(program(root, target)?);
    command
        .arg(fuzz_seeds::corpus().join(target))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", "-timeout=20"])
        .env("ASAN_OPTIONS", "detect_odr_violation=0")
        .stdout(File::create(log.with_extension("out"))?)
        .stderr(File::create(&log)?);
    if let Some((_, longest)) = LONGEST.iter().find(|(known, _)| *known == target) {
        command.arg(format!("-max_len={longest}"));
    }
    let start = Instant::now();
    let status = command.status()?;
    let seconds = start.elapsed().as_secs();
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let run = Run::read(&text)
        .with_context(|| format!("{target}: {} is not as expected", log.display()))?;
    run.check(status.success())
        .with_context(|| format!("{target} ended with {status}: see {}", log.display()))?;
    Ok(Run { seconds, ..run })
}

/// libFuzzer's figures of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Run {
    /// The time of the run in seconds. A finding ends the run early.
    seconds: u64,
    executions: u64,
    per_second: u64,
    /// Covered edges after the first inputs, and at the end.
    coverage: (u64, u64),
    /// Features after the first inputs, and at the end. Features also count how often edges were
    /// taken.
    features: (u64, u64),
    /// The input of a finding.
    artifact: Option<String>,
}

impl Run {
    /// Reads libFuzzer's log. `None` if the run ended before its first inputs without a finding.
    fn read(log: &str) -> Option<Self> {
        let mut run = Self::default();
        let mut first = None;
        for line in log.lines() {
            let words: Vec<&str> = line.split_ascii_whitespace().collect();
            let after = |name: &str| {
                let at = words.iter().position(|word| *word == name)?;
                words.get(at.checked_add(1)?)?.parse::<u64>().ok()
            };
            if let (true, Some(coverage), Some(features)) =
                (line.starts_with('#'), after("cov:"), after("ft:"))
            {
                if first.is_none() || words.get(1) == Some(&"INITED") {
                    first = Some((coverage, features));
                }
                (run.coverage.1, run.features.1) = (coverage, features);
            }
            run.executions = after("stat::number_of_executed_units:").unwrap_or(run.executions);
            run.per_second = after("stat::average_exec_per_sec:").unwrap_or(run.per_second);
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                // A slow unit is not a finding.
                if !path.contains("slow-unit-") {
                    run.artifact = Some(path.trim().to_owned());
                }
            }
        }
        (run.coverage.0, run.features.0) = first.unwrap_or_default();
        (first.is_some() || run.artifact.is_some()).then_some(run)
    }

    /// Checks that the run is valid: it has a finding, or it succeeded and executed inputs.
    fn check(&self, succeeded: bool) -> Result<()> {
        if self.artifact.is_none() {
            ensure!(succeeded, "the run failed without a finding");
            ensure!(self.executions != 0, "the run executed no input");
        }
        Ok(())
    }

    fn row(&self, target: &str) -> String {
        let Self { seconds, executions, per_second, coverage, features, artifact } = self;
        format!(
            "| {target} | {seconds} | {executions} | {per_second} | {} to {} | {} to {} | {} |",
            coverage.0,
            coverage.1,
            features.0,
            features.1,
            u32::from(artifact.is_some())
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LOG: &str =
        "INFO: Running with entropic power schedule (0xFF, 100).\nINFO: seed corpus: files: 166 \
         min: 1b max: 24b total: 3000b rss: 62Mb\n#64\tpulse  cov: 90 ft: 95 corp: 9/10b exec/s: \
         32 rss: 60Mb\n#167\tINITED cov: 412 ft: 702 corp: 61/1234b exec/s: 0 rss: \
         63Mb\n#171\tNEW    cov: 413 ft: 703 corp: 62/1258b lim: 24 exec/s: 0 rss: 63Mb L: 24/24 \
         MS: 1 ChangeBit-\n\tNEW_FUNC[1/1]: 0x55d8 in core::fmt::num (a/status+0x1) (BuildId: \
         1)\n#65536\tpulse  cov: 420 ft: 730 corp: 70/1300b lim: 24 exec/s: 32768 rss: 90Mb\n";

    #[test]
    fn successful_run_is_counted() {
        let end = "#131072\tDONE   cov: 421 ft: 733 corp: 71/1304b lim: 24 exec/s: 32768 rss: \
                   99Mb\nDone 131072 runs in 4 second(s)\nstat::number_of_executed_units: \
                   131072\nstat::average_exec_per_sec:     32768\nstat::new_units_added:          \
                   10\nstat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              99\n";
        let run = Run::read(&format!("{LOG}{end}")).unwrap();
        let expected = Run {
            seconds: 0,
            executions: 131_072,
            per_second: 32_768,
            coverage: (412, 421),
            features: (702, 733),
            artifact: None,
        };
        assert_eq!(run, expected);
        let run = Run { seconds: 4, ..run };
        assert_eq!(
            run.row("status"),
            "| status | 4 | 131072 | 32768 | 412 to 421 | 702 to 733 | 0 |"
        );
    }

    #[test]
    fn crash_is_a_finding_and_a_slow_unit_is_not() {
        let slow = "artifact_prefix='a/'; Test unit written to a/slow-unit-77\n";
        assert_eq!(Run::read(&format!("{LOG}{slow}")).unwrap().artifact, None);
        let end = "==123== ERROR: libFuzzer: deadly signal\nstat::number_of_executed_units: \
                   70000\nstat::average_exec_per_sec:     0\nartifact_prefix='a/'; Test unit \
                   written to a/crash-da39a3ee\nBase64: AAAA\n";
        let run = Run::read(&format!("{LOG}{end}")).unwrap();
        assert_eq!((run.executions, run.artifact.as_deref()), (70_000, Some("a/crash-da39a3ee")));
        assert_eq!(run.coverage, (412, 420));
        // The finding is among the first inputs.
        let run = Run::read(end).unwrap();
        assert_eq!(run.artifact.as_deref(), Some("a/crash-da39a3ee"));
    }

    #[test]
    fn run_without_executed_inputs_is_a_failure() {
        let run = Run::read(&format!("{LOG}stat::number_of_executed_units: 0\n")).unwrap();
        assert_eq!(run.check(true).unwrap_err().to_string(), "the run executed no input");
        // The statistics are missing.
        assert!(Run::read(LOG).unwrap().check(true).is_err());
        let run = Run { executions: 1, ..run };
        run.check(true).unwrap();
        assert_eq!(run.check(false).unwrap_err().to_string(), "the run failed without a finding");
        // The first executed input may be a finding.
        let found = Run { executions: 0, artifact: Some("a/crash-77".to_owned()), ..run };
        found.check(false).unwrap();
    }

    #[test]
    fn time_of_a_run_must_not_be_zero() {
        use clap::Parser;
        let is_right = |arguments: [&str; 3]| {
            crate::Arguments::try_parse_from(["cargo xtask"].into_iter().chain(arguments)).is_ok()
        };
        for [command, option] in [["fuzz", "--seconds"], ["nightly", "--fuzz-seconds"]] {
            assert!(is_right([command, option, "1"]));
            assert!(!is_right([command, option, "0"]), "libFuzzer takes 0 for no limit");
        }
    }

    #[test]
    fn text_that_is_not_a_log_is_refused() {
        assert_eq!(Run::read(""), None);
        assert_eq!(Run::read("error: the corpus is not there\n"), None);
    }
}
