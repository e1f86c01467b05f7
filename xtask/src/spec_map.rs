//! `cargo xtask spec-map`: checks the project's tables of rules. Every rule names an existing item
//! that implements it and an existing test that checks it. Every number in the tables and in
//! sources is a rule of docs/firmware. The table of the simulated firmware has every step.
//!
//! A row has three columns: rule, items, tests. Items and tests have the form ``
//! `core/src/lock.rs::Lock` ``: a crate's name without its prefix, a file in the crate, and a name
//! that the file defines. A test can also be the name of a recording: `` `p-seamldr/happy/pages-8`
//! ``. A rule of the library ends with its sources in brackets: sections of docs/firmware, their
//! steps and statements, and traces, as in `(1.2, 8.5.13-18, T3)`. A rule of the simulated firmware
//! begins with its number.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

use crate::firmware_rules::{is_below, is_number, numbers, Rules};

/// The tables.
const LIBRARY: &str = "docs/spec-map.md";
const SCRIPT: &str = "docs/reference-script.md";
const FIRMWARE: &str = "crates/tdx-seamldr-mock/src/model/rules.md";

/// Sections without rows in the tables: the history of Linux, its documentation, and explanations.
const EXPLANATIONS: [&str; 7] = ["0", "3.1", "6.1", "6.2", "7.1", "7.9", "7.10"];

/// The number of rows for each rule in the library's table, so that a lost row is noticed. Rules
/// are sections of docs/firmware, their steps and statements, and traces.
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
    let root = &crate::root();
    let recordings = recordings(&root.join("crates/tdx-seamldr-mock/vectors"))?;
    let library = Table::read(root, LIBRARY)?;
    let firmware = Table::read(root, FIRMWARE)?;
    let rules = Rules::read(root)?;
    let mut problems = library.problems(root, &recordings);
    problems.extend(library.incomplete(&RULES));
    problems.extend(firmware.problems(root, &recordings));
    problems.extend(rules.problems.iter().cloned());
    problems.extend(unknown_or_missing(&rules, &library, &firmware));
    let (citations, wrong) = rules.wrong_citations(root)?;
    problems.extend(wrong);
    problems.extend(faults(root, rules.statements(SCRIPT_FAULTS).count())?);
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty(), "{} problems in the tables of rules", problems.len());
    let (of_library, of_firmware) = (library.rows.len(), firmware.rows.len());
    println!(
        "{of_library} rules of the library and {of_firmware} of the firmware, all of them \
         implemented and tested"
    );
    println!("{citations} citations of rules, all of them in docs/firmware");
    Ok(())
}

/// Returns numbers of the tables that are not rules, steps that the firmware's table lacks, and
/// sections that neither table has.
fn unknown_or_missing(rules: &Rules, library: &Table, firmware: &Table) -> Vec<String> {
    let steps: BTreeSet<_> = firmware.rows.iter().filter_map(Row::first_number).collect();
    let mut numbers: Vec<_> = steps.iter().map(|number| (firmware.name, number.clone())).collect();
    // In the firmware's table, brackets at a rule's end can also hold words.
    let sources = library.rows.iter().flat_map(Row::sources);
    numbers.extend(sources.map(|number| (library.name, number)));
    for table in [library, firmware] {
        let of_headings = table.headings.iter().flat_map(|heading| numbers_in_brackets(heading));
        numbers.extend(of_headings.map(|number| (table.name, number)));
    }
    let unknown = numbers.iter().filter(|(_, number)| !rules.has(number));
    let mut problems: Vec<_> = unknown
        .map(|(name, number)| format!("{name}: {number} is not a rule of docs/firmware"))
        .collect();
    let missing = rules.steps().filter(|step| !steps.contains(*step));
    problems.extend(missing.map(|step| format!("{}: no rule {step}", firmware.name)));
    let is_there = |section: &str| numbers.iter().any(|(_, number)| is_below(number, section));
    let missing =
        rules.sections().filter(|section| !is_there(section) && !EXPLANATIONS.contains(section));
    problems.extend(
        missing.map(|section| format!("{}, {}: no rule of {section}", library.name, firmware.name)),
    );
    problems
}

/// The section of docs/firmware with the faults of the reference script.
const SCRIPT_FAULTS: &str = "6.3";

/// Returns the problems of the table of the reference script's faults. Each row must have a number
/// and end with existing tests.
fn faults(root: &Path, count: usize) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join(SCRIPT)).with_context(|| SCRIPT.to_owned())?;
    let rows: Vec<_> =
        text.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once(" | ")).collect();
    let mut problems = Vec::new();
    for number in 1..=count {
        let Some((_, tests)) =
            rows.iter().find(|(row, _)| row.starts_with(&format!("| {number} |")))
        else {
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

impl Row {
    /// Returns the number at the rule's start.
    fn first_number(&self) -> Option<String> {
        self.rule.split(' ').next().filter(|word| is_number(word)).map(str::to_owned)
    }

    /// Returns the numbers in brackets at the rule's end.
    fn sources(&self) -> Vec<String> {
        let sources = self.rule.strip_suffix(')').and_then(|rule| rule.rsplit_once('('));
        sources.iter().flat_map(|(_, sources)| sources.split(", ")).flat_map(numbers).collect()
    }
}

/// Returns the numbers of a heading: `8.1` and `8.4` of "Entry (8.1 to 8.4)".
fn numbers_in_brackets(heading: &str) -> Vec<String> {
    let brackets = heading.split('(').skip(1).filter_map(|rest| rest.split_once(')'));
    let words = brackets.flat_map(|(within, _)| within.split([' ', ',']));
    words.filter(|word| is_number(word)).map(str::to_owned).collect()
}

struct Table {
    name: &'static str,
    headings: Vec<String>,
    rows: Vec<Row>,
    /// Lines that are not rows.
    odd: Vec<String>,
}

impl Table {
    fn read(root: &Path, name: &'static str) -> Result<Self> {
        let text = std::fs::read_to_string(root.join(name))
            .with_context(|| format!("{name} cannot be read"))?;
        Ok(Self::parse(name, &text))
    }

    fn parse(name: &'static str, text: &str) -> Self {
        let mut table = Self { name, headings: Vec::new(), rows: Vec::new(), odd: Vec::new() };
        for (line, text) in (1..).zip(text.lines()) {
            if text.starts_with('#') {
                table.headings.push(text.to_owned());
            }
            let Some(row) = text.trim().strip_prefix('|') else { continue };
            let cells: Vec<_> =
                row.strip_suffix('|').unwrap_or(row).split('|').map(str::trim).collect();
            let [rule, items, tests] = cells[..] else {
                table.odd.push(format!("{name}:{line}: {} cells instead of 3", cells.len()));
                continue;
            };
            if rule != "rule" && !rule.starts_with("---") {
                let spans =
                    |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
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
            let mut report =
                |what: String| problems.push(format!("{}:{line}: {rule}: {what}", self.name));
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

    /// Returns the rules with a wrong number of rows, and the rows of unknown rules.
    fn incomplete(&self, rules: &[(&str, usize)]) -> Vec<String> {
        let mut problems = Vec::new();
        let mut found: BTreeMap<String, usize> = BTreeMap::new();
        for row in &self.rows {
            let (Row { line, rule, .. }, sources) = (row, row.sources());
            if sources.is_empty() {
                problems.push(format!(
                    "{}:{line}: {rule}: no section in brackets at the end",
                    self.name
                ));
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
                    problems
                        .push(format!("{}: {found} rows of {rule} instead of {wanted}", self.name));
                }
            }
        }
        problems.extend(
            found.keys().map(|rule| format!("{}: {rule} is not in the list of rules", self.name)),
        );
        problems
    }
}

/// Returns the names of all recordings, each with its folder.
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
                let name = vector
                    .get("name")
                    .and_then(Value::as_str)
                    .context("a recording without a name")?;
                names.insert(format!("{kind}/{name}"));
            }
        }
    }
    Ok(names)
}

/// Checks that the file defines the name, as a test if `is_test` is set.
fn check(root: &Path, span: &str, is_test: bool) -> Result<()> {
    let (file, name) =
        span.split_once("::").context("no recording, and not of the form file::name")?;
    let path = root.join("crates").join(format!("tdx-seamldr-{file}"));
    let source = std::fs::read_to_string(&path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    defines(&source, name, is_test)
}

fn defines(source: &str, name: &str, is_test: bool) -> Result<()> {
    let lines: Vec<_> = source.lines().map(str::trim_start).collect();
    let defines = |line: &str| {
        let words = line.split(|letter: char| !letter.is_alphanumeric() && letter != '_');
        let words: Vec<_> = words.filter(|word| !word.is_empty()).collect();
        const KEYWORDS: [&str; 6] = ["fn", "struct", "enum", "trait", "const", "type"];
        let named = |pair: &[&str]| {
            matches!(pair, [keyword, it] if KEYWORDS.contains(keyword)
            && *it == name)
        };
        words.windows(2).any(named) && !line.starts_with("//")
    };
    let at = lines.iter().position(|line| defines(line)).context("not defined there")?;
    if is_test {
        // The attributes, with the comments between them.
        let before = lines.get(..at).unwrap_or_default().iter().rev();
        let attributes: Vec<_> =
            before.take_while(|line| line.starts_with("#[") || line.starts_with("//")).collect();
        // A file with its own `main` has a list of its tests.
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

    const TABLE: &str = "| rule | items | tests |\n|---|---|---|\n| one (1.1, 2.5.3-4) | `a` | \
                         `b` |\n| another (1.1) | `a` | `b` |\n| a (b) trace (T3) | `a` | `b` |\n";
    const LISTED: [(&str, usize); 4] = [("1.1", 2), ("2.5.3", 1), ("2.5.4", 1), ("T3", 1)];

    #[test]
    fn table_with_all_its_rules_is_complete() {
        let none: Vec<String> = Vec::new();
        assert_eq!(Table::parse("t", TABLE).incomplete(&LISTED), none);
        assert_eq!(
            Table::parse("t", TABLE).incomplete(&[("1.1", 2), ("2.5.3-4", 1), ("T3", 1)]),
            none
        );
    }

    #[test]
    fn table_without_one_of_its_rows_is_incomplete() {
        for row in 2..5 {
            let lines: Vec<_> = TABLE
                .lines()
                .enumerate()
                .filter(|(line, _)| *line != row)
                .map(|(_, line)| line)
                .collect();
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
    fn rule_without_a_section_or_not_in_the_list_is_a_problem() {
        let table = |row: &str| Table::parse("t", &format!("{TABLE}{row}\n")).incomplete(&LISTED);
        assert_eq!(table("| new (1.2) | `a` | `b` |"), ["t: 1.2 is not in the list of rules"]);
        assert_eq!(table("| more (1.1) | `a` | `b` |"), ["t: 3 rows of 1.1 instead of 2"]);
        for rule in ["no section", "a section (1.1) in the middle"] {
            let problem = format!("t:6: {rule}: no section in brackets at the end");
            assert_eq!(table(&format!("| {rule} | `a` | `b` |")), [problem]);
        }
    }

    #[test]
    fn number_that_is_not_a_rule_and_step_without_a_row_are_problems() {
        let page = "## <a id=\"1.1\"></a>1.1 Numbers\n## <a id=\"7.2\"></a>7.2 A call\n\n| <a \
                    id=\"7.2.1\"></a>7.2.1 | a |\n| <a id=\"7.2.2b\"></a>7.2.2b | b |\n";
        let of = |library: &str, firmware: &str| {
            let rules = Rules::parse(&[("page.md".to_owned(), page.to_owned())]);
            unknown_or_missing(&rules, &Table::parse("l", library), &Table::parse("f", firmware))
        };
        let library = "| a leaf (1.1) | `a` | `b` |\n";
        let firmware = "## A call (7.2)\n| 7.2.1 a | `a` | `b` |\n| 7.2.2b b (of it) | `a` | `b` \
                        |\n| other | `a` | `b` |\n";
        assert_eq!(of(library, firmware), Vec::<String>::new());
        assert_eq!(of("", firmware), ["l, f: no rule of 1.1"]);
        assert_eq!(
            of(library, &firmware.replace("7.2.2b", "7.2.2")),
            ["f: 7.2.2 is not a rule of docs/firmware", "f: no rule 7.2.2b"]
        );
        assert_eq!(
            of(library, &firmware.replace("(7.2)", "(7.2 to 7.3)")),
            ["f: 7.3 is not a rule of docs/firmware"]
        );
        assert_eq!(
            of(&library.replace("(1.1)", "(1.1, 1.2)"), firmware),
            ["l: 1.2 is not a rule of docs/firmware"]
        );
        assert_eq!(
            of(&format!("## Of (3)\n{library}"), firmware),
            ["l: 3 is not a rule of docs/firmware"]
        );
    }

    #[test]
    fn row_without_three_cells_is_a_problem() {
        for (row, cells) in [
            ("| a (1.1) | `b` |", 2),
            ("| a (1.1) | `b` | `c` | d |", 4),
            ("|| a | `b` | `c` |", 4),
        ] {
            let table = Table::parse("t", &format!("{TABLE}\nText, with a | in it.\n\n{row}\n"));
            assert_eq!(
                (table.rows.len(), table.odd),
                (3, vec![format!("t:9: {cells} cells instead of 3")])
            );
        }
    }

    #[test]
    fn ignored_test_or_comment_is_not_a_test() {
        let as_test = |before: &str| {
            let source = format!("#[test]\nfn other() {{}}\n\n{before}\n    fn it() {{}}\n");
            defines(&source, "it", true).map_err(|error| error.to_string())
        };
        assert_eq!(as_test("#[test]"), Ok(()));
        assert_eq!(
            as_test("    #[test]\n    #[should_panic]\n    // Why.\n    #[allow(dead_code)]"),
            Ok(())
        );
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
