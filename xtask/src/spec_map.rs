//! `cargo xtask spec-map`: every rule in the project's tables names an item that implements it and a test that holds it, and all
//! of them exist; of the simulated firmware, no numbered rule is left out.
//!
//! A row of a table has three columns: rule, items, tests. Items and tests are written as `` `core/src/lock.rs::Lock` ``: a
//! crate's name without its prefix, a file in it, and what is defined there. A test can also be a recording, by its name:
//! `` `p-seamldr/happy/pages-8` ``. A rule of the library says in brackets at its end where it comes from: sections of the collection
//! of facts, numbered rules and points of them, worked traces, as in `(1.2, 8.5.13-18, T3)`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

/// The tables.
const LIBRARY: &str = "docs/spec-map.md";
const SCRIPT: &str = "docs/reference-script.md";
const FIRMWARE: &str = "crates/tdx-seamldr-mock/src/model/rules.md";

/// Sections of the collection of facts whose numbered rules have to be in the table of the firmware, and how many they have; 0 for
/// a section without numbers.
const SECTIONS: [(&str, u32); 11] = [
    ("7.2", 6),
    ("7.3", 9),
    ("7.4", 8),
    ("7.5", 7),
    ("7.6", 8),
    ("8.1", 0),
    ("8.2", 0),
    ("8.3", 0),
    ("8.4", 0),
    ("8.5", 35),
    ("8.9", 0),
];

/// What the table of the library has to have, and in how many rows: sections of the collection of facts, numbered rules and points of
/// them, and worked traces. What is not here is for others: the history and the inside of Linux (0, 2.2 to 2.9 in part, 3.1), what its
/// documentation says (5 in part, 6.1, 6.2), and what only firmware does (7.1, 7.2, 8.1, 8.10), which the other table has.
const RULES: [(&str, usize); 71] = [
    ("1.1", 1),
    ("1.2", 1),
    ("1.3", 4),
    ("1.4", 2),
    ("1.5", 4),
    ("1.6", 2),
    ("1.7", 4),
    ("1.8", 5),
    ("1.9", 8),
    ("2.1", 11),
    ("2.2", 2),
    ("2.3", 2),
    ("2.4", 5),
    ("2.5", 2),
    ("2.6", 1),
    ("2.7", 1),
    ("2.8", 11),
    ("2.9", 1),
    ("3.2", 5),
    ("3.3", 4),
    ("3.4", 2),
    ("4", 5),
    ("5.1", 3),
    ("5.2", 3),
    ("5.3", 3),
    ("5.4", 1),
    ("5.5", 1),
    ("5.6", 4),
    ("5.7", 1),
    ("5.9", 2),
    ("5.10", 1),
    ("5.11", 1),
    ("6.3", 5),
    ("7.3", 2),
    ("7.4", 1),
    ("7.5", 3),
    ("7.6", 9),
    ("7.7", 1),
    ("7.8", 3),
    ("8.1", 1),
    ("8.2", 2),
    ("8.3", 1),
    ("8.4", 1),
    ("8.5", 5),
    ("8.5.1", 2),
    ("8.5.3-4", 1),
    ("8.5.5", 2),
    ("8.5.6-9", 1),
    ("8.5.10-11", 2),
    ("8.5.12-35", 1),
    ("8.6", 1),
    ("8.7", 3),
    ("8.8", 2),
    ("8.9", 1),
    ("8.11", 1),
    ("9", 2),
    ("10", 19),
    ("11", 23),
    ("T0", 2),
    ("T1", 2),
    ("T2", 4),
    ("T3", 2),
    ("T4", 4),
    ("T5", 1),
    ("T6", 1),
    ("T7", 1),
    ("T8", 2),
    ("T9", 1),
    ("T10", 2),
    ("T11", 2),
    ("T12", 1),
];

pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let recordings = recordings(&root.join("crates/tdx-seamldr-mock/vectors"))?;
    let library = Table::read(root, LIBRARY)?;
    let firmware = Table::read(root, FIRMWARE)?;
    let mut problems = library.problems(root, &recordings);
    problems.extend(library.incomplete(&RULES));
    problems.extend(firmware.problems(root, &recordings));
    for (section, count) in SECTIONS {
        let wanted = (1..=count).map(|number| format!("{section}.{number}"));
        let wanted: Vec<String> = if count == 0 { vec![section.to_owned()] } else { wanted.collect() };
        let is_there =
            |rule: &String| firmware.rows.iter().any(|row| row.rule.split(' ').next() == Some(rule));
        problems.extend(
            wanted.iter().filter(|rule| !is_there(rule)).map(|rule| format!("{FIRMWARE}: no rule {rule}")),
        );
    }
    problems.extend(faults(root)?);
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty(), "{} problems in the tables of rules", problems.len());
    let (of_library, of_firmware) = (library.rows.len(), firmware.rows.len());
    println!("{of_library} rules of the library and {of_firmware} of the firmware, all of them implemented and tested");
    Ok(())
}

/// How many faults the reference script has.
const FAULTS: usize = 14;

/// What is wrong with the table of the reference script's faults: each row has a number, and ends with tests that exist.
fn faults(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join(SCRIPT)).with_context(|| SCRIPT.to_owned())?;
    let rows: Vec<_> = text.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | ")).collect();
    let mut problems = Vec::new();
    for number in 1..=FAULTS {
        let Some((_, tests)) = rows.iter().find(|(row, _)| row.starts_with(&format!("| {number} |"))) else {
            problems.push(format!("{SCRIPT}: no fault {number}"));
            continue;
        };
        let spans: Vec<_> = tests.split('`').skip(1).step_by(2).collect();
        if spans.is_empty() {
            problems.push(format!("{SCRIPT}: no test of fault {number}"));
        }
        for span in spans {
            if let Err(problem) = check(root, span, true) {
                problems.push(format!("{SCRIPT}: fault {number}: {span}: {problem}"));
            }
        }
    }
    Ok(problems)
}

struct Row {
    line: usize,
    rule: String,
    items: Vec<String>,
    tests: Vec<String>,
}

struct Table {
    name: &'static str,
    rows: Vec<Row>,
    /// Lines that are no rows.
    odd: Vec<String>,
}

impl Table {
    fn read(root: &Path, name: &'static str) -> Result<Self> {
        let text =
            std::fs::read_to_string(root.join(name)).with_context(|| format!("{name} cannot be read"))?;
        Ok(Self::parse(name, &text))
    }

    fn parse(name: &'static str, text: &str) -> Self {
        let mut table = Self { name, rows: Vec::new(), odd: Vec::new() };
        for (line, text) in (1..).zip(text.lines()) {
            let Some(row) = text.trim().strip_prefix('|') else { continue };
            let cells: Vec<_> = row.strip_suffix('|').unwrap_or(row).split('|').map(str::trim).collect();
            let [rule, items, tests] = cells[..] else {
                table.odd.push(format!("{name}:{line}: {} cells instead of 3", cells.len()));
                continue;
            };
            if rule != "rule" && !rule.starts_with("---") {
                let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                table.rows.push(Row {
                    line,
                    rule: rule.to_owned(),
                    items: spans(items),
                    tests: spans(tests),
                });
            }
        }
        table
    }

    fn problems(&self, root: &Path, recordings: &BTreeSet<String>) -> Vec<String> {
        let mut problems = self.odd.clone();
        for Row { line, rule, items, tests } in &self.rows {
            let mut report = |what: String| problems.push(format!("{}:{line}: {rule}: {what}", self.name));
            if items.is_empty() {
                report("no item".to_owned());
            }
            if tests.is_empty() {
                report("no test".to_owned());
            }
            for span in items {
                if let Err(problem) = check(root, span, false) {
                    report(format!("{span}: {problem}"));
                }
            }
            for span in tests.iter().filter(|span| !recordings.contains(*span)) {
                if let Err(problem) = check(root, span, true) {
                    report(format!("{span}: {problem}"));
                }
            }
        }
        problems
    }

    /// Where the table does not have as many rows of each rule as it should, or rows of no known rule.
    fn incomplete(&self, rules: &[(&str, usize)]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for Row { line, rule, .. } in &self.rows {
            let sources = rule.strip_suffix(')').and_then(|rule| rule.rsplit_once('('));
            let sources: Vec<_> =
                sources.iter().flat_map(|(_, sources)| sources.split(", ")).flat_map(numbers).collect();
            if sources.is_empty() {
                problems.push(format!("{}:{line}: {rule}: no section in brackets at the end", self.name));
            }
            for source in sources {
                let count = found.entry(source).or_default();
                *count = count.saturating_add(1);
            }
        }
        for (rule, wanted) in rules {
            for rule in numbers(rule) {
                let found = found.remove(&rule).unwrap_or_default();
                if found != *wanted {
                    problems.push(format!("{}: {found} rows of {rule} instead of {wanted}", self.name));
                }
            }
        }
        problems
            .extend(found.keys().map(|rule| format!("{}: {rule} is not in the list of rules", self.name)));
        problems
    }
}

/// The numbers that `8.5.13-18` stands for; others stand for themselves.
fn numbers(source: &str) -> Vec<String> {
    let range = source.rsplit_once('.').and_then(|(section, range)| {
        let (first, last) = range.split_once('-')?;
        Some((section, first.parse::<u32>().ok()?, last.parse::<u32>().ok()?))
    });
    match range {
        Some((section, first, last)) => (first..=last).map(|number| format!("{section}.{number}")).collect(),
        None => vec![source.to_owned()],
    }
}

/// The names of all recordings, each after the folder that it is in.
fn recordings(folder: &Path) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for kind in ["p-seamldr", "tdx-module"] {
        for entry in std::fs::read_dir(folder.join(kind))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "jsonl") {
                continue;
            }
            for line in std::fs::read_to_string(&path)?.lines() {
                let vector: Value = serde_json::from_str(line)?;
                let name =
                    vector.get("name").and_then(Value::as_str).context("a recording without a name")?;
                names.insert(format!("{kind}/{name}"));
            }
        }
    }
    Ok(names)
}

/// Whether the file defines the name, as a test if it has to be one.
fn check(root: &Path, span: &str, is_test: bool) -> Result<()> {
    let (file, name) = span.split_once("::").context("no recording, and not of the form file::name")?;
    let path = root.join("crates").join(format!("tdx-seamldr-{file}"));
    let source =
        std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
    defines(&source, name, is_test)
}

fn defines(source: &str, name: &str, is_test: bool) -> Result<()> {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let defines = |line: &str| {
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        const KEYWORDS: [&str; 6] = ["fn", "struct", "enum", "trait", "const", "type"];
        let named =
            |pair: &[&str]| matches!(pair, [keyword, it] if KEYWORDS.contains(keyword) && *it == name);
        words.windows(2).any(named) && !line.starts_with("//")
    };
    let at = lines.iter().position(|line| defines(line)).context("not defined there")?;
    if is_test {
        // Its attributes, with the comments between them.
        let before = lines.get(..at).unwrap_or_default().iter().rev();
        let attributes: Vec<_> =
            before.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
        // A file with a `main` of its own has a list of its tests.
        let listed = format!("(\"{name}\", {name}),");
        ensure!(attributes.contains(&&"#[test]") || lines.contains(&listed.as_str()), "not a test");
        let is_ignored = |line: &&str| line.starts_with("#[") && line.contains("ignore");
        ensure!(!attributes.into_iter().any(is_ignored), "a test that is ignored");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const TABLE: &str = "| rule | items | tests |\n|---|---|---|\n\
                         | one (1.1, 2.5.3-4) | `a` | `b` |\n| another (1.1) | `a` | `b` |\n\
                         | a (b) trace (T3) | `a` | `b` |\n";
    const LISTED: [(&str, usize); 4] = [("1.1", 2), ("2.5.3", 1), ("2.5.4", 1), ("T3", 1)];

    #[test]
    fn a_table_with_all_its_rules_is_complete() {
        let none: Vec<String> = Vec::new();
        assert_eq!(Table::parse("t", TABLE).incomplete(&LISTED), none);
        assert_eq!(Table::parse("t", TABLE).incomplete(&[("1.1", 2), ("2.5.3-4", 1), ("T3", 1)]), none);
    }

    #[test]
    fn a_table_without_any_of_its_rows_is_not_complete() {
        for row in 2..5 {
            let lines: Vec<_> =
                TABLE.lines().enumerate().filter(|(line, _)| *line != row).map(|(_, line)| line).collect();
            assert_ne!(
                Table::parse("t", &lines.join("\n")).incomplete(&LISTED),
                Vec::<String>::new(),
                "{row}"
            );
        }
        let problems = Table::parse("t", "").incomplete(&LISTED);
        let expected = [
            "t: 0 rows of 1.1 instead of 2",
            "t: 0 rows of 2.5.3 instead of 1",
            "t: 0 rows of 2.5.4 instead of 1",
        ];
        assert_eq!(problems.get(..3).unwrap(), expected);
        assert_eq!(problems.len(), 4);
    }

    #[test]
    fn a_rule_that_is_not_listed_or_of_no_section_is_a_problem() {
        let table = |row: &str| Table::parse("t", &format!("{TABLE}{row}\n")).incomplete(&LISTED);
        assert_eq!(table("| new (1.2) | `a` | `b` |"), ["t: 1.2 is not in the list of rules"]);
        assert_eq!(table("| more (1.1) | `a` | `b` |"), ["t: 3 rows of 1.1 instead of 2"]);
        for rule in ["no section", "a section (1.1) in the middle"] {
            let problem = format!("t:6: {rule}: no section in brackets at the end");
            assert_eq!(table(&format!("| {rule} | `a` | `b` |")), [problem]);
        }
    }

    #[test]
    fn a_line_of_a_table_without_three_cells_is_a_problem() {
        for (row, cells) in
            [("| a (1.1) | `b` |", 2), ("| a (1.1) | `b` | `c` | d |", 4), ("|| a | `b` | `c` |", 4)]
        {
            let table = Table::parse("t", &format!("{TABLE}\nText, with a | in it.\n\n{row}\n"));
            assert_eq!((table.rows.len(), table.odd), (3, vec![format!("t:9: {cells} cells instead of 3")]));
        }
    }

    #[test]
    fn a_test_that_is_ignored_or_a_comment_is_none() {
        let as_test = |before: &str| {
            let source = format!("#[test]\nfn other() {{}}\n\n{before}\n    fn it() {{}}\n");
            defines(&source, "it", true).map_err(|error| error.to_string())
        };
        assert_eq!(as_test("#[test]"), Ok(()));
        assert_eq!(as_test("    #[test]\n    #[should_panic]\n    // Why.\n    #[allow(dead_code)]"), Ok(()));
        for ignored in [
            "#[test]\n#[ignore]",
            "#[ignore = \"slow\"]\n#[test]",
            "#[test]\n// Slow.\n#[cfg_attr(all(), ignore)]",
        ] {
            assert_eq!(as_test(ignored).unwrap_err(), "a test that is ignored");
        }
        for none in ["", "// #[test]", "#[inline]"] {
            assert_eq!(as_test(none).unwrap_err(), "not a test");
        }
        assert!(defines("fn it() {}", "it", false).is_ok());
        assert!(defines("// fn it() {}", "it", false).is_err());
    }
}
