//! Code blocks of documents: each command of this project exists with its options, TOML and JSON
//! can be read, and a test compiles Rust and C.

use anyhow::{ensure, Result};
use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// Documents whose code a test compiles: doc tests of the crates, and two tests by name.
const COMPILED: [(&str, &str); 8] = [
    ("crates/tdx-seamldr-core/README.md", "rust"),
    ("crates/tdx-seamldr-x86_64/README.md", "rust"),
    ("crates/tdx-seamldr-verify/README.md", "rust"),
    ("crates/tdx-seamldr-mock/README.md", "rust"),
    ("crates/tdx-seamldr-host/README.md", "rust"),
    // crates/tdx-seamldr-mock/tests/readme.rs
    ("README.md", "rust"),
    // crates/tdx-seamldr-mock-c/tests/c_programs.rs
    ("crates/tdx-seamldr-mock-c/README.md", "c"),
    ("docs/testing-in-c.md", "c"),
];

/// A piece of code in a document.
struct Code {
    language: String,
    text: String,
}

/// Returns the code blocks of a document, and the code in its lines.
fn codes(document: &str) -> Vec<Code> {
    let mut codes = Vec::new();
    let mut block: Option<Code> = None;
    for event in Parser::new_ext(document, pulldown_cmark::Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let language = match kind {
                    CodeBlockKind::Fenced(info) => {
                        info.split([',', ' ']).next().unwrap_or_default().to_owned()
                    }
                    CodeBlockKind::Indented => "sh".to_owned(),
                };
                let language = if language.is_empty() { "sh".to_owned() } else { language };
                block = Some(Code { language, text: String::new() });
            }
            Event::Text(text) => {
                if let Some(block) = &mut block {
                    block.text.push_str(&text);
                }
            }
            Event::End(TagEnd::CodeBlock) => codes.extend(block.take()),
            Event::Code(text) => {
                codes.push(Code { language: "inline".to_owned(), text: text.to_string() });
            }
            _ => {}
        }
    }
    codes
}

/// Returns the words of each command of a text. Lines, pipes, `;` and `&&` separate commands. A
/// backslash at the end of a line continues it.
fn commands(text: &str) -> Vec<Vec<String>> {
    let text = text.replace("\\\n", " ");
    let lines =
        text.lines().flat_map(|line| line.split(['|', ';'])).flat_map(|line| line.split("&&"));
    let split = |line: &str| {
        let line = line.trim().trim_start_matches("$ ").trim_start_matches("# ");
        shlex::split(line).filter(|words| !words.is_empty())
    };
    lines.filter_map(split).collect()
}

/// Returns the problem of a command of this project. Does not check other commands.
fn wrong(words: &[String]) -> Option<String> {
    let is_prefix = |word: &&String| {
        ["sudo", "nice", "time"].contains(&word.as_str())
            || word.split_once('=').is_some_and(|(name, _)| {
                name.chars().all(|letter| letter.is_ascii_uppercase() || letter == '_')
            })
    };
    let words: Vec<&str> = words.iter().skip_while(is_prefix).map(String::as_str).collect();
    match words.as_slice() {
        ["tdx-seamldr", rest @ ..] => unknown(&tdx_seamldr_cli::command(), rest),
        ["cargo", "xtask", rest @ ..] => unknown(&crate::command(), rest),
        ["cargo", "run", rest @ ..] => {
            let of_program = rest.iter().skip_while(|word| **word != "--").skip(1).copied();
            let others = ["-p", "--package", "--manifest-path", "--bin", "--example"];
            if rest.iter().any(|word| others.contains(word)) {
                return None;
            }
            unknown(&tdx_seamldr_cli::command(), &of_program.collect::<Vec<_>>())
        }
        _ => None,
    }
}

/// Returns a subcommand or an option that a command does not have. Other words are values.
fn unknown(command: &clap::Command, words: &[&str]) -> Option<String> {
    let mut command = command.clone();
    command.build();
    let mut at = &command;
    for word in words {
        // Brackets are around placeholders.
        let word = word.trim_matches(['[', ']']);
        if [">", "<", "2>", "--"].contains(&word) {
            break;
        }
        if let Some(option) = word.strip_prefix("--") {
            let name = option.split('=').next().unwrap_or_default();
            let has = |argument: &clap::Arg| argument.get_long() == Some(name);
            if !at.get_arguments().any(has) {
                return Some(format!("{} has no option --{name}", at.get_name()));
            }
        } else if let Some(next) = at.find_subcommand(word) {
            at = next;
        } else if at.has_subcommands() && is_name(word) {
            return Some(format!("{} has no command {word}", at.get_name()));
        }
    }
    None
}

/// Whether a word can be the name of a command. Words in capitals are placeholders.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|letter| letter.is_ascii_lowercase() || letter == '-')
}

/// Returns the problem of a piece of code of a document.
fn problem(name: &str, code: &Code) -> Option<String> {
    match code.language.as_str() {
        "sh" | "console" | "inline" => commands(&code.text).iter().find_map(|words| wrong(words)),
        "toml" => toml::from_str::<toml::Table>(&code.text).err().map(|error| error.to_string()),
        "json" => serde_json::from_str::<serde_json::Value>(&code.text)
            .err()
            .map(|error| error.to_string()),
        // No crate of the project reads YAML; ansible-lint reads the files of `deploy`.
        "text" | "diff" | "ignore" | "yaml" => None,
        language if COMPILED.contains(&(name, language)) => None,
        language => Some(format!("no test compiles its {language}")),
    }
}

pub(super) fn check() -> Result<()> {
    let mut problems = Vec::new();
    for name in super::files(&["*.md"])? {
        let text = std::fs::read_to_string(crate::root().join(&name))?;
        for code in codes(&text) {
            if let Some(problem) = problem(&name, &code) {
                let first = code.text.lines().next().unwrap_or_default();
                problems.push(format!("{name}: {problem}: {first}"));
            }
        }
    }
    ensure!(problems.is_empty(), "{}", problems.join("\n"));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(document: &str) -> Vec<String> {
        codes(document).iter().filter_map(|code| problem("README.md", code)).collect()
    }

    #[test]
    fn commands_and_options_that_do_not_exist_are_found() {
        assert_eq!(found("`tdx-seamldr fly`"), ["tdx-seamldr has no command fly"]);
        assert_eq!(found("    tdx-seamldr plan --wings\n"), ["plan has no option --wings"]);
        assert_eq!(found("    cargo xtask fly\n"), ["cargo xtask has no command fly"]);
        assert_eq!(
            found("    cargo run -- simulate --wings\n"),
            ["simulate has no option --wings"]
        );
    }

    #[test]
    fn commands_that_exist_pass_with_placeholders_pipes_and_variables() {
        for code in [
            "tdx-seamldr update [VERSION\\|FILE]",
            "dmesg | tdx-seamldr explain -",
            "RUSTFLAGS='-C a' sudo tdx-seamldr plan --json > out",
            "cargo xtask tdx-host FOLDER prepare",
            "make -j fly",
        ] {
            assert_eq!(found(&format!("    {code}\n")), [""; 0], "{code}");
        }
    }

    #[test]
    fn data_is_read_and_code_that_nothing_compiles_is_found() {
        assert_eq!(
            found("```toml\na = 1\n```\n```json\n{}\n```\n```rust\nfn a() {}\n```"),
            [""; 0]
        );
        assert_eq!(found("```toml\na = \n```").len(), 1);
        assert_eq!(found("```c\nint a;\n```"), ["no test compiles its c"]);
    }
}
