//! `cargo xtask spec-map`: every rule in the project's tables names an item that implements it and a test that holds it, and all
//! of them exist; of the simulated firmware, no numbered rule is left out.
//!
//! A row of a table has three columns: rule, items, tests. Items and tests are written as `` `core/src/lock.rs::Lock` ``: a
//! crate's name without its prefix, a file in it, and what is defined there. A test can also be a recording, by its name:
//! `` `p-seamldr/happy/pages-8` ``.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{ensure, Context, Result};
use serde_json::Value;

/// The tables.
const LIBRARY: &str = "docs/spec-map.md";
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

pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let recordings = recordings(&root.join("crates/tdx-seamldr-mock/vectors"))?;
    let library = Table::read(root, LIBRARY)?;
    let firmware = Table::read(root, FIRMWARE)?;
    let mut problems = library.problems(root, &recordings);
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
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty(), "{} problems in the tables of rules", problems.len());
    let (of_library, of_firmware) = (library.rows.len(), firmware.rows.len());
    ensure!(of_library > 0 && of_firmware > 0, "a table has no rules");
    println!("{of_library} rules of the library and {of_firmware} of the firmware, all of them implemented and tested");
    Ok(())
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
}

impl Table {
    fn read(root: &Path, name: &'static str) -> Result<Self> {
        let text =
            std::fs::read_to_string(root.join(name)).with_context(|| format!("{name} cannot be read"))?;
        let mut rows = Vec::new();
        for (line, text) in (1..).zip(text.lines()) {
            let cells: Vec<_> = text.trim().trim_matches('|').split('|').map(str::trim).collect();
            let [rule, items, tests] = cells[..] else { continue };
            if rule != "rule" && !rule.starts_with("---") {
                let spans = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
                rows.push(Row { line, rule: rule.to_owned(), items: spans(items), tests: spans(tests) });
            }
        }
        Ok(Self { name, rows })
    }

    fn problems(&self, root: &Path, recordings: &BTreeSet<String>) -> Vec<String> {
        let mut problems = Vec::new();
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
        let before = lines.get(at.saturating_sub(2)..at).unwrap_or_default();
        // A file with a `main` of its own has a list of its tests.
        let listed = format!("(\"{name}\", {name}),");
        ensure!(before.contains(&"#[test]") || lines.contains(&listed.as_str()), "not a test");
    }
    Ok(())
}
