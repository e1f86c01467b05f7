//! The types that implement each trait of an embedding, by `docs/api` and the examples.

use anyhow::{ensure, Result};
use tdx_seamldr_cli::picture::{number, Anchor, Font, Picture, Tone};

/// The traits of an embedding and what they are for.
const TRAITS: [(&str, &str); 4] = [
    ("SeamcallBackend", "executes SEAMCALL"),
    ("Host", "knows LPs and addresses, waits"),
    ("Lock", "one LP at a time in P-SEAMLDR"),
    ("Crypto", "SHA-384 and RSA-3072"),
];

/// The columns: the title, and the files with the implementations.
const COLUMNS: [(&str, &[&str]); 4] = [
    (
        "these crates",
        &[
            "docs/api/tdx-seamldr-core.txt",
            "docs/api/tdx-seamldr-x86_64.txt",
            "docs/api/tdx-seamldr-verify.txt",
        ],
    ),
    ("the simulated platform", &["docs/api/tdx-seamldr-mock.txt"]),
    ("the example driver", &["examples/linux-driver/src/kernel_side.rs"]),
    ("the example hypervisor", &["examples/hypervisor/src/update.rs"]),
];

const LEFT: f64 = 220.0;
const COLUMN: f64 = 155.0;
const ROW: f64 = 66.0;
const TOP: f64 = 84.0;

/// Returns the types in a text that implement a trait, without paths and parameters.
fn implementors(text: &str, name: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for line in text.lines() {
        let Some((head, of)) = line.split_once(" for ") else { continue };
        let is_impl = head.trim_start_matches("unsafe ").starts_with("impl");
        let implemented = head.rsplit([' ', ':']).next();
        if !is_impl || implemented != Some(name) || of.starts_with('&') {
            continue;
        }
        let of = of.trim_end_matches(" {").split('<').next().unwrap_or_default();
        let of = of.rsplit("::").next().unwrap_or_default().to_owned();
        if !found.contains(&of) {
            found.push(of);
        }
    }
    found
}

pub(super) fn draw() -> Result<String> {
    let mut picture = Picture::new("traits", 860.0, "Who brings which trait");
    let at = (16.0, 28.0);
    picture.text(at, Anchor::Start, Font::TITLE, Tone::Plain, "Who brings which trait");
    let note = "An embedder brings the four traits: types of these crates, or its own.";
    picture.text((16.0, 48.0), Anchor::Start, Font::WORDS, Tone::Muted, note);
    for (index, (title, _)) in COLUMNS.iter().enumerate() {
        let x = LEFT + COLUMN * (number(index) + 0.5);
        picture.text((x, TOP - 8.0), Anchor::Middle, Font::SMALL.bold(), Tone::Plain, title);
    }
    for (row, (name, what)) in TRAITS.iter().enumerate() {
        let y = TOP + ROW * number(row);
        picture.rule((16.0, y), (844.0, y));
        let words = [
            (28.0, Font::CODE.bold(), Tone::Loader, *name),
            (45.0, Font::SMALL, Tone::Plain, *what),
        ];
        for (down, font, tone, text) in words {
            picture.text((16.0, y + down), Anchor::Start, font, tone, text);
        }
        let mut all = 0_usize;
        for (column, (_, files)) in COLUMNS.iter().enumerate() {
            let mut types = Vec::new();
            for file in *files {
                types.extend(implementors(&super::source(file)?, name));
            }
            all = all.saturating_add(types.len());
            let none = if column == 0 { "the embedder's own" } else { "from these crates" };
            draw_types(&mut picture, (LEFT + COLUMN * number(column), y), &types, none);
        }
        ensure!(all >= 2, "{name}: found {all} types that implement it, expected 2 or more");
    }
    Ok(picture.finish(TOP + ROW * number(TRAITS.len()) + 10.0))
}

/// Draws the types as boxes, one below the other, in the middle of a cell.
fn draw_types(picture: &mut Picture, (x, y): (f64, f64), types: &[String], none: &str) {
    const BOX: f64 = 24.0;
    let first = y + (ROW - (BOX + 4.0) * number(types.len()) + 4.0) / 2.0;
    for (index, name) in types.iter().enumerate() {
        let area = (x + 6.0, first + (BOX + 4.0) * number(index), COLUMN - 12.0, BOX);
        picture.label(area, Font::CODE, Tone::Module, name);
    }
    if types.is_empty() {
        let at = (x + COLUMN / 2.0, y + ROW / 2.0 + 4.0);
        picture.text(at, Anchor::Middle, Font::SMALL, Tone::Muted, none);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn implementors_have_neither_paths_nor_parameters() {
        let text =
            "impl a::b::Host for c::SimLp<'_>\nunsafe impl<B: Host> Host for Kernel<'_, B> {\n\
                    impl<B: a::Host> a::Host for &B\nimpl a::Lock for c::SpinLock\n";
        assert_eq!(implementors(text, "Host"), ["SimLp", "Kernel"]);
        assert_eq!(implementors(text, "Lock"), ["SpinLock"]);
    }
}
