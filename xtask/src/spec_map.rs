//! `cargo xtask spec-map`: every rule in `docs/spec-map.md` names an item that implements it and a test that holds it, and
//! all of them exist.
//!
//! A row of a table has three columns: rule, items, tests. Items and tests are written as `` `core/src/lock.rs::Lock` ``: a
//! crate's name without its prefix, a file in it, and what is defined there.

use std::path::Path;

use anyhow::{ensure, Context, Result};

pub(crate) fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace's folder")?;
    let map = std::fs::read_to_string(root.join("docs/spec-map.md"))?;
    let (mut rules, mut problems) = (0u32, Vec::new());
    for (number, line) in (1..).zip(map.lines()) {
        let cells: Vec<_> = line.trim().trim_matches('|').split('|').map(str::trim).collect();
        let [rule, items, tests] = cells[..] else { continue };
        if rule == "rule" || rule.starts_with("---") {
            continue;
        }
        rules = rules.saturating_add(1);
        for (cell, is_test) in [(items, false), (tests, true)] {
            let spans: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
            if spans.is_empty() {
                problems.push(format!("line {number}: {rule}: no {}", if is_test { "test" } else { "item" }));
            }
            for span in spans {
                if let Err(problem) = check(root, span, is_test) {
                    problems.push(format!("line {number}: {rule}: {span}: {problem}"));
                }
            }
        }
    }
    for problem in &problems {
        eprintln!("docs/spec-map.md, {problem}");
    }
    ensure!(problems.is_empty(), "{} problems in docs/spec-map.md", problems.len());
    ensure!(rules > 0, "no rules in docs/spec-map.md");
    println!("{rules} rules, all of them implemented and tested");
    Ok(())
}

/// Whether the file defines the name, as a test if it has to be one.
fn check(root: &Path, span: &str, is_test: bool) -> Result<()> {
    let (file, name) = span.split_once("::").context("not of the form file::name")?;
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
        ensure!(before.contains(&"#[test]"), "not a test");
    }
    Ok(())
}
