//! The project's C programs: the examples, the tests in C, and the programs in the page for C
//! programmers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{ensure, Context, Result};

use super::is_there;
use super::prefix::{Linking, Prefix, WARNINGS};
use crate::process::{output, printed};
use crate::root;

/// Folders with programs: each file is a program, and all files of a subfolder form one program.
const FOLDERS: [&str; 2] = ["examples/c", "crates/tdx-seamldr-mock-c/tests/c"];

/// The page with programs as blocks of C.
const PAGE: &str = "docs/testing-in-c.md";

struct Program {
    name: String,
    sources: Vec<PathBuf>,
    /// The expected output, if the page shows it.
    prints: Option<String>,
}

/// A way to build and run a program.
struct Manner {
    name: &'static str,
    compiler: &'static str,
    flags: &'static [&'static str],
    linking: Linking,
    /// The program that runs it.
    under: &'static [&'static str],
}

const MANNERS: [Manner; 5] = [
    Manner {
        name: "shared",
        compiler: "gcc",
        flags: &["-O2"],
        linking: Linking::Shared,
        under: &[],
    },
    Manner {
        name: "static",
        compiler: "gcc",
        flags: &["-O2"],
        linking: Linking::Static,
        under: &[],
    },
    Manner {
        name: "clang",
        compiler: "clang",
        flags: &["-O2"],
        linking: Linking::Shared,
        under: &[],
    },
    Manner {
        name: "valgrind",
        compiler: "gcc",
        flags: &["-O1", "-g"],
        linking: Linking::Archive,
        under: &[
            "valgrind",
            "--quiet",
            "--error-exitcode=99",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite,indirect,possible",
        ],
    },
    Manner {
        name: "sanitizers",
        compiler: "gcc",
        flags: &["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        linking: Linking::Archive,
        under: &[],
    },
];

pub(super) fn run(prefix: &Prefix, folder: &Path) -> Result<()> {
    let mut programs = page(folder)?;
    for folder in FOLDERS {
        programs.extend(in_folder(&root().join(folder))?);
    }
    for manner in &MANNERS {
        if manner.compiler == "clang" && !is_there(manner.compiler) {
            println!("clang: not installed, skipped");
            continue;
        }
        let start = Instant::now();
        for program in &programs {
            manner
                .try_with(program, prefix, folder)
                .with_context(|| format!("{} ({})", program.name, manner.name))?;
        }
        println!(
            "{}: {} programs, {:.1} s",
            manner.name,
            programs.len(),
            start.elapsed().as_secs_f32()
        );
    }
    Ok(())
}

impl Manner {
    fn try_with(&self, program: &Program, prefix: &Prefix, folder: &Path) -> Result<()> {
        let binary = folder.join(format!("{}-{}", program.name, self.name));
        let mut compile = Command::new(self.compiler);
        compile.arg("-std=c11").args(WARNINGS).args(self.flags).arg("-o").arg(&binary);
        compile.args(prefix.pkg_config(&["--cflags"])?).args(&program.sources);
        output(compile.args(prefix.linking(self.linking)?))?;
        let mut run = match self.under {
            [] => prefix.program(&binary),
            [under, arguments @ ..] => {
                let mut run = prefix.program(Path::new(under));
                run.args(arguments).arg(&binary);
                run
            }
        };
        let printed = printed(&mut run)?;
        if let Some(prints) = &program.prints {
            ensure!(printed == *prints, "prints\n{printed}\nbut the page says\n{prints}");
        }
        Ok(())
    }
}

fn in_folder(folder: &Path) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for entry in sorted(folder)? {
        let name = entry.file_name().context("no name")?.to_string_lossy().replace('.', "-");
        let sources = if entry.is_dir() { sorted(&entry)? } else { vec![entry] };
        let is_source = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "c");
        let sources: Vec<_> = sources.into_iter().filter(is_source).collect();
        if !sources.is_empty() {
            programs.push(Program { name, sources, prints: None });
        }
    }
    ensure!(!programs.is_empty(), "{} has no programs", folder.display());
    Ok(programs)
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

/// Returns the programs in the page. Each prints the text of the next block.
fn page(folder: &Path) -> Result<Vec<Program>> {
    let text = std::fs::read_to_string(root().join(PAGE)).with_context(|| PAGE)?;
    let mut blocks =
        blocks(&text).into_iter().filter(|(language, _)| ["c", "text"].contains(language));
    let mut programs = Vec::new();
    for number in 1.. {
        let Some((language, code)) = blocks.next() else { break };
        let (after, prints) = blocks.next().unwrap_or_default();
        ensure!(
            (language, after) == ("c", "text"),
            "{PAGE}: each program must be followed by its output, but program {number} is \
             {language}, then {after:?}"
        );
        let name = format!("page-{number}");
        let source = folder.join(format!("{name}.c"));
        std::fs::write(&source, code)?;
        programs.push(Program { name, sources: vec![source], prints: Some(prints) });
    }
    ensure!(!programs.is_empty(), "{PAGE} has no programs");
    Ok(programs)
}

/// Returns the fenced blocks of a page: language and text.
fn blocks(page: &str) -> Vec<(&str, String)> {
    let mut blocks: Vec<(&str, String)> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(language) if !is_inside => {
                blocks.push((language, String::new()));
                is_inside = true;
            }
            Some(_) => is_inside = false,
            None if is_inside => {
                if let Some((_, text)) = blocks.last_mut() {
                    text.push_str(line);
                    text.push('\n');
                }
            }
            None => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_the_texts_between_fences() {
        let page = "a\n```c\nint main(void);\n\nb\n```\nc\n```text\nd\n```\n";
        let wanted = [("c", "int main(void);\n\nb\n".to_owned()), ("text", "d\n".to_owned())];
        assert_eq!(blocks(page), wanted);
    }
}
