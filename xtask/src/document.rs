//! Fills in the marked places of the project's documents.

use std::fs;

use anyhow::{ensure, Context, Result};

/// Returns the document with this text between the marks `<!-- place -->` and `<!-- /place -->`.
fn filled(document: &str, place: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {place} -->\n"), format!("<!-- /{place} -->"));
    let (before, rest) = document.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}{text}\n{end}{after}"))
}

/// Writes a text into its place in a document.
pub(crate) fn fill(name: &str, place: &str, text: &str) -> Result<()> {
    let path = crate::root().join(name);
    let old = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let new =
        filled(&old, place, text).with_context(|| format!("{name} has no place for {place}"))?;
    Ok(fs::write(&path, new)?)
}

/// Checks that a text is in its place in a document.
pub(crate) fn check(name: &str, place: &str, text: &str) -> Result<()> {
    let old = fs::read_to_string(crate::root().join(name))?;
    let new =
        filled(&old, place, text).with_context(|| format!("{name} has no place for {place}"))?;
    ensure!(new == old, "{name} is out of date at {place}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_text_between_the_marks_changes() {
        let document = "a\n<!-- b -->\nold\n<!-- /b -->\nc\n";
        assert_eq!(
            filled(document, "b", "new").as_deref(),
            Some("a\n<!-- b -->\nnew\n<!-- /b -->\nc\n")
        );
        assert_eq!(filled(document, "c", "new"), None);
    }
}
