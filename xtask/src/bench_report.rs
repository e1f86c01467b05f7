//! `cargo xtask bench-report`: measures everything and writes docs/performance.md.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tdx_seamldr_mock::released_images;

use crate::document;
use crate::embed_check::{self, Linked};
use crate::figures::{number, Figure, Table};
use crate::process::{call, printed};
use crate::{instructions, window};

const REPORT: &str = "docs/performance.md";

/// Outputs of the program `compare` on other machines. The first line of each file names the
/// machine.
const ELSEWHERE: &str = "benches/compare/elsewhere";

const VERIFY_HOW: &str = "\
The time of `verify`, divided by the time of OpenSSL's SHA-384 of the same module and its RSA
verification of the same signature. One program runs both in turns. The figure is the median of 101
ratios. OpenSSL has its key ready; `verify` reads the key from the image.";

const LOCK_HOW: &str = "\
Several threads call `seamldr_call` at once, on firmware that does nothing. The other columns
divide the time with another lock by the time with `SpinLock`. One program runs all of them in
turns. The figures are medians of 15 rounds of 800,000 calls. With more threads than CPUs, a thread
also waits for threads that the operating system has suspended.";

/// The target and the limit for the time of `verify`, relative to OpenSSL's.
const VERIFY_TO_OPENSSL: f64 = 1.3;
const VERIFY_TO_OPENSSL_AT_MOST: f64 = 1.6;

/// The number of functions in the list of each program, which leaves out the smallest.
const LARGEST: usize = 40;

pub(crate) fn run() -> Result<()> {
    let images = released_images()?.context("the report needs Intel's released images")?;
    let instructions = instructions::measure(Some(&images))?;
    let linked = embed_check::run()?;
    let compared = compared()?;
    let times = times()?;
    let limits = limits(instructions.iter().chain([&compared.verify]), &linked);
    let is_slower = compared.verify.figures.iter().any(Figure::is_above_target);

    let mut text = "# Performance\n\n".to_owned();
    let _ = writeln!(
        text,
        "`cargo xtask bench-report` writes this file; do not edit it. The machine:\n{}.\n",
        machine()?
    );
    let _ = writeln!(text, "## Figures and their limits\n\n{}", limits.text);
    let _ = writeln!(text, "{}", window::section()?);
    let _ =
        writeln!(text, "## Compared with others\n\n### Verification\n\n{}", compared.verify.text());
    if is_slower {
        let _ = writeln!(text, "{WHY_SLOWER}\n");
    }
    let _ = writeln!(text, "### The lock\n\n{LOCK_HOW}\n\n{}", compared.locks);
    text.push_str(&elsewhere(&crate::root().join(ELSEWHERE))?);
    text.push_str(
        "## Instructions\n\ncallgrind counts the instructions. The counts are the same in every run \
         with the same compiler.\n",
    );
    for table in &instructions {
        let _ = write!(text, "\n### {}\n\n{}", table.title, table.text());
    }
    let _ = writeln!(text, "\n## Text and stack\n\n{}", text_and_stack(&linked));
    let _ = writeln!(text, "## Times\n\n{times}");
    std::fs::write(crate::root().join(REPORT), text.trim_end().to_owned() + "\n")?;
    document::fill("README.md", "size", &size(&linked)?)?;
    println!("{REPORT} written, and the size in README.md");
    for what in limits.above_target {
        println!("above the target: {what}");
    }
    ensure!(limits.above.is_empty(), "above the limit: {}", limits.above.join("; "));
    Ok(())
}

const WHY_SLOWER: &str = "\
The processor decides whether `verify` meets the target. It does on the Xeon below, of a
generation that has TDX. The difference is SHA-384: OpenSSL's assembly with AVX2 and BMI2 takes
three quarters of the time of `sha2`. RSA takes two or three times as long as OpenSSL's, but it is a
tenth of the whole. No crate is faster: the SHA-384 of `ring` 0.17, `aws-lc-rs` 1 and `graviola` 0.4
takes as long as that of `sha2`, within 6%. Built for `x86-64-v3`, `verify` takes 1.4 times as long
as OpenSSL. We measured these figures by hand on 2026-11-23; no command repeats them. OpenSSL itself
needs an operating system, so we do not use it. The host verifies once for each update, before the
shutdown, in about a millisecond. An embedder with a faster implementation, such as Linux, passes it
as `Crypto`.";

/// Every figure that has a limit or a target.
#[derive(Default)]
struct Limits {
    /// The table, with the figures nearest to their limits first.
    text: String,
    /// Figures that are above only their targets.
    above_target: Vec<String>,
    /// Figures that are above their limits.
    above: Vec<String>,
}

fn limits<'a>(tables: impl Iterator<Item = &'a Table>, linked: &[Linked]) -> Limits {
    let size = |Linked { what, text, max_text, frame, max_frame, .. }: &Linked| {
        [("Text", text, max_text), ("Largest stack frame", frame, max_frame)].map(
            |(title, bytes, limit)| {
                let [bytes, limit] = [bytes, limit].map(|bytes| Figure::count("", *bytes).value);
                (title, Figure::new(what.to_owned(), bytes).at_most(limit))
            },
        )
    };
    let of_tables =
        tables.flat_map(|table| table.figures.iter().map(|figure| (table.title, figure.clone())));
    let mut rows: Vec<(f64, String)> = Vec::new();
    let mut limits = Limits::default();
    for (title, figure) in of_tables.chain(linked.iter().flat_map(size)) {
        let Figure { what, value, target, limit } = &figure;
        for (bound, kind) in [(target, " (target)"), (limit, "")] {
            let Some(bound) = bound else { continue };
            let (part, shown) = (value / bound, number(*value));
            let row = format!(
                "| {:.0}% | {title}: {what} | {shown} | {}{kind} |",
                part * 100.0,
                number(*bound)
            );
            rows.push((part, row));
        }
        let name = format!("{title}: {what}, {}", number(*value));
        if figure.is_too_much() {
            limits.above.push(name);
        } else if figure.is_above_target() {
            limits.above_target.push(name);
        }
    }
    rows.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    let rows: Vec<_> = rows.into_iter().map(|(_, row)| row).collect();
    limits.text =
        format!("| of the limit | | | at most |\n|---:|---|---:|---:|\n{}\n", rows.join("\n"));
    limits
}

/// The output of the program `compare`.
struct Compared {
    /// The machine, if not this one.
    machine: Option<String>,
    verify: Table,
    locks: String,
}

impl Compared {
    fn read(output: &str) -> Result<Self> {
        let mut machine = None;
        let mut verify = Vec::new();
        let mut locks: BTreeMap<u32, Vec<(&str, f64)>> = BTreeMap::new();
        for line in output.lines() {
            match *line.split(' ').collect::<Vec<_>>() {
                ["machine", ..] => machine = line.strip_prefix("machine ").map(str::to_owned),
                ["verify", version, bytes, ratio] => verify.push(
                    Figure::ratio(format!("{version}, {bytes} bytes"), ratio.parse()?, 1000)
                        .should_be(VERIFY_TO_OPENSSL)
                        .at_most(VERIFY_TO_OPENSSL_AT_MOST),
                ),
                ["lock", name, threads, time] => {
                    locks.entry(threads.parse()?).or_default().push((name, time.parse()?));
                }
                _ => anyhow::bail!("compare says {line:?}"),
            }
        }
        let verify = Table {
            title: "Verification, to OpenSSL",
            how: VERIFY_HOW.to_owned(),
            figures: verify,
        };
        Ok(Self { machine, verify, locks: lock_table(&locks) })
    }
}

fn compared() -> Result<Compared> {
    Compared::read(&printed(&mut Command::new(crate::bench_program("compare")?))?)
}

/// Returns the outputs of `compare` on other machines.
fn elsewhere(folder: &Path) -> Result<String> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    let section = |file: &PathBuf| of_machine(&std::fs::read_to_string(file)?);
    files.iter().map(|file| section(file).with_context(|| file.display().to_string())).collect()
}

/// Returns the output of `compare` on another machine.
fn of_machine(output: &str) -> Result<String> {
    let Compared { machine, verify, locks } = Compared::read(output)?;
    let machine = machine.context("the file does not name its machine")?;
    let rows = verify.rows();
    Ok(format!(
        "### Both on another machine\n\n{machine}.\nThe comparison is \
         the same.\n\n{rows}\n{locks}\n"
    ))
}

/// Returns the times of other locks, relative to the library's lock.
fn lock_table(times: &BTreeMap<u32, Vec<(&str, f64)>>) -> String {
    let names: Vec<_> =
        times.values().next().into_iter().flatten().map(|(name, _)| *name).collect();
    let others = names.iter().skip(1).map(|name| format!(" {name} |")).collect::<String>();
    let lines = "---:|".repeat(names.len());
    let mut text = format!("| threads | SpinLock, for each call |{others}\n|---:|{lines}\n");
    for (threads, times) in times {
        let Some((_, ours)) = times.first() else { continue };
        let others = times
            .iter()
            .skip(1)
            .map(|(_, time)| format!(" {:.2} |", time / ours))
            .collect::<String>();
        let _ = writeln!(text, "| {threads} | {ours:.1} ns |{others}");
    }
    text
}

/// Returns the size of the code in a kernel, as a line for the README.
fn size(linked: &[Linked]) -> Result<String> {
    let core = linked.first().context("nothing was linked")?;
    let [text, frame] = [core.text, core.frame].map(|bytes| number(Figure::count("", bytes).value));
    Ok(format!(
        "{text} bytes of text, and no stack frame above {frame} bytes, with {}",
        version("rustc", "--version")
    ))
}

fn text_and_stack(linked: &[Linked]) -> String {
    let mut text =
        "The parts that a kernel links, measured by `cargo xtask embed-check`: bytes of \
                    text, and of the\nlargest stack frame.\n\n\
                    | | text | largest frame |\n|---|---:|---:|\n"
            .to_owned();
    for Linked { what, text: bytes, frame, .. } in linked {
        let [bytes, frame] = [bytes, frame].map(|bytes| number(Figure::count("", *bytes).value));
        let _ = writeln!(text, "| {what} | {bytes} | {frame} |");
    }
    for Linked { what, functions, .. } in linked.iter().filter(|linked| linked.is_listed) {
        let _ = writeln!(
            text,
            "\nThe largest functions of {what}:\n\n| text | frame | |\n|---:|---:|---|"
        );
        for function in functions.iter().take(LARGEST) {
            let _ =
                writeln!(text, "| {} | {} | `{}` |", function.text, function.frame, function.name);
        }
    }
    text
}

/// Runs the benchmarks of criterion.
fn times() -> Result<String> {
    let folder = crate::target().join("criterion");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    call(
        crate::cargo()
            .args(["bench", "--quiet", "--locked", "-p", "tdx-seamldr-benches"])
            .args(["--bench", "library", "--bench", "platform", "--"])
            .args(["--quiet", "--noplot", "--warm-up-time=1", "--measurement-time=2"])
            .current_dir(crate::root()),
    )?;
    let mut rows = BTreeMap::new();
    collect(&folder, &mut rows)?;
    ensure!(!rows.is_empty(), "no results in {}", folder.display());
    let rows: Vec<_> = rows.into_values().collect();
    Ok(format!(
        "Medians by criterion, on the machine above. If a benchmark repeats its work within a \
         round, the time\nis that of the round.\n\n| | time | \
         |\n|---|---:|---:|\n{}\n",
        rows.join("\n")
    ))
}

/// A row for each result below the folder, by the benchmark's name.
fn collect(folder: &Path, rows: &mut BTreeMap<String, String>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.ends_with("new") {
            let [benchmark, estimates] = ["benchmark.json", "estimates.json"].map(|name| {
                let text = std::fs::read(path.join(name))?;
                anyhow::Ok(serde_json::from_slice::<Value>(&text)?)
            });
            let (benchmark, estimates) = (benchmark?, estimates?);
            let name = benchmark
                .pointer("/full_id")
                .and_then(Value::as_str)
                .context("a benchmark without a name")?
                .to_owned();
            let time = estimates
                .pointer("/median/point_estimate")
                .and_then(Value::as_f64)
                .context("no median")?;
            let throughput = |unit| benchmark.pointer(unit).and_then(Value::as_f64);
            let rate = match (throughput("/throughput/Bytes"), throughput("/throughput/Elements")) {
                (Some(bytes), _) => format!("{:.0} MB/s", bytes / time * 1e3),
                (_, Some(elements)) => format!("{:.1} ns each", time / elements),
                _ => String::new(),
            };
            let row = format!("| {name} | {} | {rate} |", duration(time));
            rows.insert(name, row);
        } else if path.is_dir() {
            collect(&path, rows)?;
        }
    }
    Ok(())
}

/// Formats nanoseconds.
fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        few if few < 1e3 => format!("{few:.1} ns"),
        some if some < 1e6 => format!("{:.1} µs", some / 1e3),
        many => format!("{:.2} ms", many / 1e6),
    }
}

/// Returns the processor and the versions of the tools.
fn machine() -> Result<String> {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name| {
        let line = cpus.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let model = field("model name").unwrap_or_else(|| "an unknown processor".to_owned());
    let (family, number) =
        (field("cpu family").unwrap_or_default(), field("model\t").unwrap_or_default());
    let threads = std::thread::available_parallelism()?;
    let versions = [("rustc", "--version"), ("valgrind", "--version"), ("openssl", "version")]
        .map(|(tool, argument)| version(tool, argument));
    Ok(format!(
        "{model} (family {family}, model {number}), {threads} CPUs,\nwith {}",
        versions.join(", ")
    ))
}

/// Returns the version that a tool prints.
fn version(tool: &str, argument: &str) -> String {
    let output = Command::new(tool).arg(argument).output().ok();
    let output =
        output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
    output.split(" (").next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_another_machine_are_named_after_it() {
        let text =
            of_machine("machine A B\nverify 1.5.05 100 1250\nlock Ours 2 4.0\nlock Other 2 8.0\n")
                .unwrap();
        for wanted in
            ["A B.\nThe comparison", "| 1.5.05, 100 bytes | 1.250 |", "| 2 | 4.0 ns | 2.00 |"]
        {
            assert!(text.contains(wanted), "{text}");
        }
        for (wrong, said) in
            [("verify 1.5.05 100 1250\n", "does not name"), ("machine A\nlook\n", "look")]
        {
            let error = of_machine(wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        assert_eq!([5.04, 1234.0, 2_345_678.0].map(duration), ["5.0 ns", "1.2 µs", "2.35 ms"]);
    }

    #[test]
    fn figures_nearest_to_their_limits_come_first_and_excesses_are_listed() {
        let figures = vec![
            Figure::new("low", 1.0).at_most(4.0),
            Figure::new("high", 6.0).at_most(4.0),
            Figure::new("slow", 6.0).should_be(5.0).at_most(8.0),
            Figure::new("free", 9.0),
            Figure::new("none", f64::NAN).at_most(8.0),
        ];
        let table = Table { title: "T", how: String::new(), figures };
        let Limits { text, above_target, above } = limits([&table].into_iter(), &[]);
        assert_eq!(
            (above, above_target),
            (
                vec!["T: high, 6".to_owned(), "T: none, NaN".to_owned()],
                vec!["T: slow, 6".to_owned()]
            )
        );
        let rows: Vec<_> = text.lines().skip(2).collect();
        let expected = [
            "| NaN% | T: none | NaN | 8 |",
            "| 150% | T: high | 6 | 4 |",
            "| 120% | T: slow | 6 | 5 (target) |",
            "| 75% | T: slow | 6 | 8 |",
            "| 25% | T: low | 1 | 4 |",
        ];
        assert_eq!(rows, expected);
    }
}
