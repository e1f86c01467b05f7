//! README and the front page of the core show the first program with the library. The page of the
//! core is a doc test, which runs it.
#![allow(clippy::unwrap_used, missing_docs)]

const PROGRAM: &str = include_str!("../../../examples/first-use/src/main.rs");

/// The first code block in Rust.
fn first_block(text: &str) -> &str {
    let (_, rest) = text.split_once("```rust\n").unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn readme_shows_the_first_program() {
    let readme = include_str!("../../../README.md");
    assert!(first_block(readme) == PROGRAM, "copy this into README.md:\n{PROGRAM}");
}

#[test]
fn front_page_of_the_core_shows_the_first_program() {
    let source = include_str!("../../tdx-seamldr-core/src/lib.rs");
    let page: String = source
        .lines()
        .filter_map(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let shown: String = PROGRAM
        .lines()
        .map(|line| if line.is_empty() { "//!\n".to_owned() } else { format!("//! {line}\n") })
        .collect();
    assert!(first_block(&page) == PROGRAM, "copy this into the core's lib.rs:\n{shown}");
}
