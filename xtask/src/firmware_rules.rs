//! The firmware's rules in docs/firmware: their numbers, and their citations in sources and
//! documents. `cargo xtask spec-map` checks all tables against these numbers.
//!
//! A number is an anchor, `<a id="8.5.27"></a>`, followed by the same number. In a heading the
//! number is a section, at the start of a table's row a step, elsewhere a statement. A citation is
//! `firmware rule` or `firmware rules` with numbers, as in `firmware rules 8.5.10-11 and 8.6`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The folder of the rules.
const FOLDER: &str = "docs/firmware";
/// The files and folders that may cite rules.
const CITING: [&str; 8] =
    ["crates", "examples", "fuzz", "benches", "xtask", "docs", "README.md", "CONTRIBUTING.md"];
/// Folders below these without sources of the project: build output and recordings.
const SKIPPED: [&str; 3] = ["target", "vectors", "api"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Section,
    Step,
    Statement,
}

/// The numbers of all rules, and the problems of the pages.
pub(crate) struct Rules {
    kinds: BTreeMap<String, Kind>,
    pub(crate) problems: Vec<String>,
}

impl Rules {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let mut pages = Vec::new();
        for entry in fs::read_dir(root.join(FOLDER)).context(FOLDER)? {
            let path = entry?.path();
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            pages.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), text));
        }
        pages.sort();
        Ok(Self::parse(&pages))
    }

    /// Reads the rules of pages, given by name and text.
    pub(crate) fn parse(pages: &[(String, String)]) -> Self {
        let mut rules = Self { kinds: BTreeMap::new(), problems: Vec::new() };
        for (page, text) in pages {
            for (line, text) in (1..).zip(text.lines()) {
                for (at, id, behind) in anchors(text) {
                    let kind = match text.get(..at).unwrap_or_default() {
                        before if before.starts_with('#') => Kind::Section,
                        "| " => Kind::Step,
                        _ => Kind::Statement,
                    };
                    if !is_number(id) {
                        continue;
                    }
                    if kind != Kind::Statement && behind.split(' ').next() != Some(id) {
                        rules.problems.push(format!(
                            "{FOLDER}/{page}:{line}: another number behind the anchor {id}"
                        ));
                    }
                    if rules.kinds.insert(id.to_owned(), kind).is_some() {
                        rules.problems.push(format!("{FOLDER}/{page}:{line}: {id} occurs twice"));
                    }
                }
            }
        }
        rules
    }

    pub(crate) fn has(&self, number: &str) -> bool {
        self.kinds.contains_key(number)
    }

    pub(crate) fn steps(&self) -> impl Iterator<Item = &str> {
        self.of(Kind::Step)
    }

    pub(crate) fn sections(&self) -> impl Iterator<Item = &str> {
        self.of(Kind::Section)
    }

    /// Returns the statements of a section.
    pub(crate) fn statements<'a>(&'a self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.of(Kind::Statement).filter(move |number| is_below(number, section))
    }

    fn of(&self, wanted: Kind) -> impl Iterator<Item = &str> {
        self.kinds
            .iter()
            .filter(move |(_, kind)| **kind == wanted)
            .map(|(number, _)| number.as_str())
    }

    /// Returns the citations of numbers that do not exist, in all sources and documents.
    pub(crate) fn wrong_citations(&self, root: &Path) -> Result<(usize, Vec<String>)> {
        let (mut count, mut problems) = (0_usize, Vec::new());
        for path in CITING.iter().try_fold(Vec::new(), |mut files, path| {
            collect(&root.join(path), &mut files)?;
            anyhow::Ok(files)
        })? {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            for number in cited(&text) {
                count = count.saturating_add(1);
                if !self.has(&number) {
                    let name = path.strip_prefix(root).unwrap_or(&path).display();
                    problems.push(format!("{name}: no firmware rule {number}"));
                }
            }
        }
        Ok((count, problems))
    }
}

/// Whether a number is the section or a part of it.
pub(crate) fn is_below(number: &str, section: &str) -> bool {
    number.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a word has the form of a rule's number: `8`, `8.5`, `8.5.23b`, `T3`.
pub(crate) fn is_number(word: &str) -> bool {
    let mut parts = word.strip_prefix('T').unwrap_or(word).split('.');
    let all_digits =
        |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let last = parts.next_back().unwrap_or_default();
    all_digits(last.strip_suffix('b').unwrap_or(last)) && parts.all(all_digits)
}

/// Returns the numbers of a range such as `8.5.13-18` or `T0-T12`. Returns other words unchanged.
pub(crate) fn numbers(source: &str) -> Vec<String> {
    let range = |prefix: &str, first: &str, last: &str| {
        let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        Some((first..=last).map(|number| format!("{prefix}{number}")).collect::<Vec<_>>())
    };
    let of_traces = || {
        let (first, last) = source.strip_prefix('T')?.split_once("-T")?;
        range("T", first, last)
    };
    let of_steps = || {
        let (section, steps) = source.rsplit_once('.')?;
        let (first, last) = steps.split_once('-')?;
        range(&format!("{section}."), first, last)
    };
    of_traces().or_else(of_steps).unwrap_or_else(|| vec![source.to_owned()])
}

/// Returns the numbers that a text cites.
fn cited(text: &str) -> Vec<String> {
    // The text as one line, without comment marks.
    let words = text.lines().flat_map(|line| {
        line.trim_start()
            .trim_start_matches(['/', '!', '*', '#'])
            .split_whitespace()
            .filter(|word| !word.is_empty())
    });
    let words: Vec<_> = words.collect();
    let mut found = Vec::new();
    for (at, pair) in words.windows(2).enumerate() {
        let [first, second] = pair else { continue };
        let begins = first.trim_start_matches(|letter: char| !letter.is_alphanumeric());
        if !begins.eq_ignore_ascii_case("firmware") || !matches!(*second, "rule" | "rules") {
            continue;
        }
        for word in words.iter().skip(at.saturating_add(2)).filter(|word| **word != "and") {
            let number = word.trim_end_matches(|letter: char| !letter.is_alphanumeric());
            let expanded = numbers(number);
            if !expanded.iter().all(|number| is_number(number)) {
                // "8.5.5 to 8.5.35" would cite the first number only: a range has a hyphen.
                if *word == "to" {
                    found.push("to".to_owned());
                }
                break;
            }
            found.extend(expanded);
            if word.strip_prefix(number).is_some_and(|rest| !matches!(rest, "" | ",")) {
                break;
            }
        }
    }
    found
}

/// Returns the anchors of a line: offset, id, and the text after the anchor.
fn anchors(line: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    const BEGIN: &str = "<a id=\"";
    line.match_indices(BEGIN).filter_map(|(at, _)| {
        let (id, behind) = line.get(at..)?.strip_prefix(BEGIN)?.split_once("\"></a>")?;
        Some((at, id, behind))
    })
}

/// Adds a file, or the sources and documents of a folder.
fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        let extension =
            path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if ["rs", "c", "h", "md", "toml"].contains(&extension) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let entry = entry?;
        let is_skipped = SKIPPED.iter().any(|name| entry.file_name() == *name);
        if !is_skipped && !entry.file_type()?.is_symlink() {
            collect(&entry.path(), files)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const PAGE: &str = "# Title\n\n## <a id=\"8.5\"></a>8.5 A call\n\n| step | |\n|---|---|\n| <a \
                        id=\"8.5.1\"></a>8.5.1 | one |\n| | an action |\n| <a \
                        id=\"8.5.2b\"></a>8.5.2b | two |\n\n- <a id=\"8.5.7\"></a>a statement, <a \
                        id=\"name\"></a>a name\n\n## <a id=\"T3\"></a>T3 A trace\n";

    fn rules(text: &str) -> Rules {
        Rules::parse(&[("page.md".to_owned(), text.to_owned())])
    }

    #[test]
    fn place_of_an_anchor_makes_it_a_section_step_or_statement() {
        let rules = rules(PAGE);
        assert_eq!(rules.problems, Vec::<String>::new());
        assert_eq!(rules.sections().collect::<Vec<_>>(), ["8.5", "T3"]);
        assert_eq!(rules.steps().collect::<Vec<_>>(), ["8.5.1", "8.5.2b"]);
        assert_eq!(rules.statements("8.5").collect::<Vec<_>>(), ["8.5.7"]);
        assert!(rules.has("8.5.1") && !rules.has("8.5.2") && !rules.has("name"));
    }

    #[test]
    fn number_that_occurs_twice_or_differs_from_its_anchor_is_a_problem() {
        let twice = rules(&format!("{PAGE}| <a id=\"8.5.1\"></a>8.5.1 | again |\n"));
        assert_eq!(twice.problems, ["docs/firmware/page.md:14: 8.5.1 occurs twice"]);
        let other = rules("| <a id=\"8.5.1\"></a>8.5.11 | one |\n");
        assert_eq!(
            other.problems,
            ["docs/firmware/page.md:1: another number behind the anchor 8.5.1"]
        );
    }

    #[test]
    fn words_that_are_not_numbers_of_rules_are_recognised() {
        for number in ["8", "8.5", "8.5.27", "8.5.23b", "T0", "T12"] {
            assert!(is_number(number), "{number}");
        }
        for word in ["", "T", "8.", ".5", "8..5", "8b.5", "a", "8.5.x", "shared-hpa", "1,024", "b"]
        {
            assert!(!is_number(word), "{word}");
        }
        assert!(is_below("8.5.1", "8.5") && is_below("8.5", "8.5") && !is_below("8.51", "8.5"));
    }

    #[test]
    fn range_is_expanded_to_its_numbers() {
        assert_eq!(numbers("8.5.9-11"), ["8.5.9", "8.5.10", "8.5.11"]);
        assert_eq!(numbers("T0-T2"), ["T0", "T1", "T2"]);
        assert_eq!(numbers("8.5.23b"), ["8.5.23b"]);
    }

    #[test]
    fn citations_are_found_across_lines_and_end_with_their_numbers() {
        // The words are in two parts, so that this file does not cite missing rules.
        let of = |text: &str| cited(&text.replace('@', "firmware rule"));
        assert_eq!(
            of("/// Checks it (@s 8.5.5, 8.5.10-11 and T3). 9.9 is none.\n"),
            ["8.5.5", "8.5.10", "8.5.11", "T3"]
        );
        assert_eq!(of("/// Source: firmware\n    /// rule 8.5.5.\n"), ["8.5.5"]);
        assert_eq!(of("# @ 8.5.23b: 7 of them.\n"), ["8.5.23b"]);
        assert_eq!(of("@s 8.5.5 to 8.5.35"), ["8.5.5", "to"], "no rule is called so");
        assert_eq!(of("The @s of 1.5.00. The @s, 3 in all."), Vec::<String>::new());
    }

    #[test]
    fn citation_of_a_missing_number_is_found() {
        let root = tempfile::tempdir().unwrap();
        for path in CITING {
            let path = root.path().join(path);
            if path.extension().is_some() {
                fs::write(path, "nothing").unwrap();
            } else {
                fs::create_dir(path).unwrap();
            }
        }
        let rule = "firmware rule";
        fs::write(root.path().join("crates/a.rs"), format!("//! {rule}s 8.5.1 and 8.5.2.\n"))
            .unwrap();
        fs::write(root.path().join("crates/a.bin"), format!("{rule} 9.9")).unwrap();
        let (count, problems) = rules(PAGE).wrong_citations(root.path()).unwrap();
        assert_eq!((count, problems), (2, vec!["crates/a.rs: no firmware rule 8.5.2".to_owned()]));
    }
}
