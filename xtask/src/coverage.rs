//! `cargo xtask coverage`: measures which lines and regions of the core its tests reach, without
//! the tests' own lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::process::{call, printed};

/// The percentage of lines that must be reached.
const WANTED: f64 = 95.0;

/// The measured sources.
const SOURCES: &str = "crates/tdx-seamldr-core/src/";

/// The packages whose tests run: the core's own, and whole updates on the simulated platform.
const PACKAGES: [&str; 4] = ["-p", "tdx-seamldr-core", "-p", "tdx-seamldr-mock"];

/// loom's tests take minutes with counters, and reach no further lines.
const WITHOUT_LOOM: [&str; 3] = ["--", "--skip", "in_every_order"];

/// Whether each line, region and branch of a file has been reached, in any copy of the code.
#[derive(Default)]
struct Reached {
    lines: BTreeMap<u64, bool>,
    /// Regions, by start and end.
    regions: BTreeMap<[u64; 4], bool>,
    /// Branches, by line and number.
    branches: BTreeMap<(u64, String), bool>,
}

type Files = BTreeMap<String, Reached>;

pub(crate) fn run(branches: bool) -> Result<()> {
    let known = crate::cargo().args(["llvm-cov", "--version"]).output()?;
    ensure!(
        known.status.success(),
        "cargo-llvm-cov is missing: cargo install --locked cargo-llvm-cov"
    );
    let tools = [
        ("LLVM_COV", tool("llvm-cov", branches)?),
        ("LLVM_PROFDATA", tool("llvm-profdata", branches)?),
    ];
    let llvm_cov = |arguments: &[&str]| -> Result<()> {
        // Only the nightly compiler measures branches.
        let mut cargo = if branches { crate::nightly("cargo") } else { crate::cargo() };
        cargo.arg("llvm-cov").args(branches.then_some("--branch")).args(arguments);
        cargo.env("CARGO_LLVM_COV_SETUP", "no").envs(tools.iter().map(|(name, path)| (name, path)));
        call(cargo.current_dir(crate::root()))
    };
    let report = |form: &str| -> Result<String> {
        let path = crate::target().join(format!("coverage{form}"));
        let output = path.to_str().context("the path of the project is not UTF-8")?;
        llvm_cov(&[&["report", form, "--output-path", output], &PACKAGES[..]].concat())?;
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    };
    // Programs of an earlier run have other line numbers.
    call(crate::cargo().args(["llvm-cov", "clean", "--workspace"]).current_dir(crate::root()))?;
    llvm_cov(&[&["--no-report", "--locked"], &PACKAGES[..], &WITHOUT_LOOM[..]].concat())?;
    let mut files = Files::new();
    read_lines(&report("--lcov")?, &mut files);
    read_regions(&serde_json::from_str(&report("--json")?)?, &mut files);
    for (name, file) in &mut files {
        file.forget_tests(&fs::read_to_string(crate::root().join(SOURCES).join(name))?);
    }
    files.retain(|_, file| !file.lines.is_empty());
    ensure!(!files.is_empty(), "the report has no file of {SOURCES}");
    print_table(&files)
}

/// Returns a tool of the compiler's LLVM: from the environment, else from the path by its major
/// version, else from the toolchain.
fn tool(name: &str, is_nightly: bool) -> Result<PathBuf> {
    let variable = name.to_uppercase().replace('-', "_");
    if let Some(path) = std::env::var_os(&variable) {
        return Ok(path.into());
    }
    let rustc = |arguments: &[&str]| -> Result<String> {
        let mut rustc = if is_nightly { crate::nightly("rustc") } else { Command::new("rustc") };
        Ok(printed(rustc.args(arguments))?.trim().to_owned())
    };
    let about = rustc(&["-vV"])?;
    let line = |key: &str| {
        let found = about.lines().find_map(|line| line.strip_prefix(key));
        found.with_context(|| format!("rustc -vV prints no line {key:?}"))
    };
    let version = line("LLVM version: ")?;
    let versioned = format!("{name}-{}", version.split('.').next().unwrap_or_default());
    let of_toolchain = PathBuf::from(rustc(&["--print", "sysroot"])?)
        .join("lib/rustlib")
        .join(line("host: ")?)
        .join("bin")
        .join(name);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(&versioned));
    on_path.chain([of_toolchain]).find(|path| path.is_file()).with_context(|| {
        format!(
            "{versioned} is not on the path (rustc has LLVM {version}), the toolchain has no \
             component llvm-tools, and {variable} is not set"
        )
    })
}

/// Reads lines and branches from a report in the format of lcov.
fn read_lines(report: &str, files: &mut Files) {
    let mut file = None;
    for line in report.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if key == "SF" {
            file = value
                .split_once(SOURCES)
                .map(|(_, name)| files.entry(name.to_owned()).or_default());
        }
        let Some(file) = &mut file else { continue };
        let Some((place, count)) = value.rsplit_once(',') else { continue };
        let is_reached = !matches!(count, "0" | "-");
        match (key, place.split_once(',')) {
            ("DA", None) => {
                *file.lines.entry(place.parse().unwrap_or_default()).or_default() |= is_reached
            }
            ("BRDA", Some((line, number))) => {
                let place = (line.parse().unwrap_or_default(), number.to_owned());
                *file.branches.entry(place).or_default() |= is_reached;
            }
            _ => {}
        }
    }
}

/// Reads regions from a report in LLVM's own format.
fn read_regions(report: &Value, files: &mut Files) {
    let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
    for function in list(report.pointer("/data/0/functions")) {
        let names = list(function.get("filenames"));
        for region in list(function.get("regions")) {
            let numbers: Vec<u64> = list(Some(&region)).iter().filter_map(Value::as_u64).collect();
            // Start and end (4 numbers), count of executions, file, expanded file, kind (0 for
            // code).
            let [line, column, end_line, end_column, count, file, _, 0] = numbers[..] else {
                continue;
            };
            let name = usize::try_from(file).ok().and_then(|file| names.get(file)?.as_str());
            if let Some((_, name)) = name.and_then(|name| name.split_once(SOURCES)) {
                let regions = &mut files.entry(name.to_owned()).or_default().regions;
                *regions.entry([line, column, end_line, end_column]).or_default() |= count != 0;
            }
        }
    }
}

impl Reached {
    /// Removes the lines of the file's tests: a module at its end, or the whole file.
    fn forget_tests(&mut self, source: &str) {
        let begins = |marks: &[&str]| {
            source.lines().zip(1..).find(|(line, _)| marks.contains(line)).map(|(_, number)| number)
        };
        let module = begins(&["mod tests {"]).unwrap_or(u64::MAX);
        let end = if begins(&["#[test]"]).is_some() { 0 } else { module };
        self.lines.retain(|line, _| *line < end);
        self.regions.retain(|[line, ..], _| *line < end);
        self.branches.retain(|(line, _), _| *line < end);
    }
}

/// A number of items, and how many of them were reached.
#[derive(Clone, Copy, Default)]
struct Count {
    reached: u32,
    all: u32,
}

impl Count {
    fn of<K>(places: &BTreeMap<K, bool>) -> Self {
        places.values().fold(Self::default(), |count, reached| {
            count.and(Self { reached: (*reached).into(), all: 1 })
        })
    }

    fn and(self, other: Self) -> Self {
        Self {
            reached: self.reached.saturating_add(other.reached),
            all: self.all.saturating_add(other.all),
        }
    }

    fn percent(self) -> f64 {
        100.0 * f64::from(self.reached) / f64::from(self.all.max(1))
    }

    fn show(self) -> String {
        if self.all == 0 {
            return "-".to_owned();
        }
        format!("{} of {} ({:.1}%)", self.reached, self.all, self.percent())
    }
}

/// Prints a table. Fails if too few lines were reached.
fn print_table(files: &Files) -> Result<()> {
    let has_branches = files.values().any(|file| !file.branches.is_empty());
    let print = |name: &str, cells: [String; 3], not_reached: &str| {
        let [lines, regions, branches] = cells;
        let branches = if has_branches { format!(" {branches} |") } else { String::new() };
        println!("| {name} | {lines} | {regions} |{branches} {not_reached} |");
    };
    print(
        "file",
        ["lines", "regions", "branches"].map(str::to_owned),
        "lines that are not reached",
    );
    print("---", ["---"; 3].map(str::to_owned), "---");
    let mut total = [Count::default(); 3];
    for (name, file) in files {
        let counts = [Count::of(&file.lines), Count::of(&file.regions), Count::of(&file.branches)];
        let not_reached: Vec<String> = file
            .lines
            .iter()
            .filter(|(_, reached)| !**reached)
            .map(|(line, _)| line.to_string())
            .collect();
        print(&format!("`{name}`"), counts.map(Count::show), &not_reached.join(", "));
        total.iter_mut().zip(counts).for_each(|(sum, count)| *sum = sum.and(count));
    }
    print("all", total.map(Count::show), "");
    let [lines, ..] = total;
    ensure!(
        lines.percent() >= WANTED,
        "{:.1}% of the core's lines are reached, but {WANTED}% should be",
        lines.percent()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]
    use super::*;

    const SOURCE: &str =
        "fn a() {\n}\n\n#[cfg(test)]\nmod tests {\n    #[test]\n    fn b() {}\n}\n";

    #[test]
    fn lines_count_once_and_lines_of_tests_do_not_count() {
        let mut files = Files::new();
        let report = [
            "SF:/x/crates/tdx-seamldr-core/src/a.rs",
            "DA:1,3\nDA:2,0\nDA:7,1\nBRDA:1,0,0,4\nBRDA:1,0,1,-\nend_of_record",
            "SF:/x/crates/tdx-seamldr-mock/src/lib.rs",
            "DA:9,1\nend_of_record",
            "SF:/x/crates/tdx-seamldr-core/src/a.rs",
            "DA:2,1\nDA:3,0\nend_of_record\n",
        ];
        read_lines(&report.join("\n"), &mut files);
        assert_eq!(files.len(), 1);
        let file = files.get_mut("a.rs").unwrap();
        file.forget_tests(SOURCE);
        let (lines, branches) = (Count::of(&file.lines), Count::of(&file.branches));
        assert_eq!((lines.reached, lines.all, branches.reached, branches.all), (2, 3, 1, 2));
        file.forget_tests("#[test]\nfn whole_file() {}\n");
        assert_eq!(Count::of(&file.lines).all, 0);
    }

    #[test]
    fn region_is_reached_if_one_copy_is_reached() {
        let mut files = Files::new();
        let function = |count: u32| {
            serde_json::json!({
                "filenames": ["/x/crates/tdx-seamldr-core/src/a.rs"],
                "regions": [
                    [1, 1, 2, 2, count, 0, 0, 0],
                    [1, 5, 1, 9, 0, 0, 0, 0],
                    [1, 1, 1, 1, 0, 0, 0, 3],
                ],
            })
        };
        read_regions(
            &serde_json::json!({ "data": [{ "functions": [function(0), function(7)] }] }),
            &mut files,
        );
        let regions = Count::of(&files["a.rs"].regions);
        assert_eq!((regions.reached, regions.all), (1, 2), "a gap (kind 3) is not code");
    }
}
