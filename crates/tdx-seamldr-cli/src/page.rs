//! Text in two columns, at most 80 characters wide.

use std::fmt::Display;

use tdx_seamldr_host::text::printable;

const WIDTH: usize = 80;
const NAME: usize = 16;

/// A text of rows (name and value), lines and list items.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
}

impl Page {
    /// Adds a name and its value. An empty value is `-`.
    pub(crate) fn row(&mut self, name: &str, value: impl Display) {
        let value = value.to_string();
        let value = if value.is_empty() { "-" } else { &value };
        self.wrapped(&format!("{name:<NAME$} "), &" ".repeat(NAME + 1), value);
    }

    /// Adds a line of its own.
    pub(crate) fn line(&mut self, line: impl Display) {
        self.wrapped("", "", &line.to_string());
    }

    /// Adds an item of a list.
    pub(crate) fn item(&mut self, item: impl Display) {
        self.wrapped("  - ", "    ", &item.to_string());
    }

    /// Adds advice on the item above.
    pub(crate) fn advice(&mut self, advice: impl Display) {
        self.wrapped("    => ", "       ", &advice.to_string());
    }

    /// Adds an empty line, unless the text is empty.
    pub(crate) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    fn wrapped(&mut self, first: &str, others: &str, text: &str) {
        wrap(&mut self.text, first, others, text);
    }

    /// Returns the text without the last newline.
    pub(crate) fn into_text(self) -> String {
        self.text.trim_end().to_owned()
    }
}

/// Appends a text in lines of at most 80 characters. Longer words stay whole. Control characters
/// are escaped.
pub(crate) fn wrap(out: &mut String, first: &str, others: &str, text: &str) {
    let options = textwrap::Options::new(WIDTH)
        .initial_indent(first)
        .subsequent_indent(others)
        .break_words(false)
        .word_splitter(textwrap::WordSplitter::NoHyphenation);
    for line in textwrap::wrap(&printable(text), options) {
        out.push_str(line.trim_end());
        out.push('\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_most_80_wide_and_values_stay_in_their_column() {
        let mut page = Page::default();
        page.row("name", "word ".repeat(40));
        page.row("none", "");
        page.row("whole", "x".repeat(100));
        page.item("word ".repeat(40));
        let text = page.into_text();
        assert!(
            text.lines().all(|line| line.len() <= 80 || line.contains(&"x".repeat(100))),
            "{text}"
        );
        assert!(text.contains("none             -\n"), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with(&" ".repeat(17)));
    }
}
