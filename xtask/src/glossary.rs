//! `cargo xtask glossary`: writes the glossary of docs/ into the core's rustdoc. Rustdoc cannot
//! link to the files of docs/firmware, so each link becomes the number of its rule.

use std::fs;

use anyhow::{ensure, Context, Result};

const DOCUMENT: &str = "docs/glossary.md";
const RUSTDOC: &str = "crates/tdx-seamldr-core/glossary.md";

/// Writes the file, or with `check` compares it.
pub(crate) fn run(check: bool) -> Result<()> {
    let document = fs::read_to_string(crate::root().join(DOCUMENT)).context(DOCUMENT)?;
    let text = without_links(&document).with_context(|| format!("{DOCUMENT}: a broken link"))?;
    let path = crate::root().join(RUSTDOC);
    if !check {
        return fs::write(&path, text).context(RUSTDOC);
    }
    let found = fs::read_to_string(&path).context(RUSTDOC)?;
    ensure!(found == text, "{RUSTDOC} differs from {DOCUMENT}: run `cargo xtask glossary`");
    Ok(())
}

/// Returns the document from its first part on, with `(firmware rule 1.1, 1.3)` in place of
/// `([1.1](leaves.md#1.1), [1.3](leaves.md#1.3))`. Returns `None` if a link has no end.
fn without_links(document: &str) -> Option<String> {
    let mut rest = document.get(document.find("\n## ")?..)?;
    let mut text = String::new();
    while let Some((before, link)) = rest.split_once('[') {
        let (rule, target) = link.split_once("](")?;
        text.push_str(before);
        if before.ends_with('(') {
            text.push_str("firmware rule ");
        }
        text.push_str(rule);
        rest = target.split_once(')')?.1;
    }
    text.push_str(rest);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_become_the_numbers_of_their_rules() {
        let document = "# Title\n\n## A\n1 ([1.1](a.md#1.1),\n[T2](b.md#T2)), 2 ([3](c.md#3)).\n";
        let text = "\n## A\n1 (firmware rule 1.1,\nT2), 2 (firmware rule 3).\n";
        assert_eq!(without_links(document).as_deref(), Some(text));
        assert_eq!(without_links("# Title\n\n## A\n1 ([1.1](a.md#1.1"), None);
    }
}
