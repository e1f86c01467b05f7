//! Text in two columns, at most 80 characters wide.

use std::fmt::Display;

use tdx_seamldr_host::text::printable;

const WIDTH: usize = 80;
const NAME: usize = 16;

/// Lines of names and values, and of items below them.
#[derive(Debug, Default)]
pub(super) struct Table {
    text: String,
}

impl Table {
    /// Adds a name and its value.
    pub(super) fn row(&mut self, name: &str, value: impl Display) {
        self.wrapped(&format!("{name:<NAME$}"), &" ".repeat(NAME), &value.to_string());
    }

    /// Adds a line for itself.
    pub(super) fn line(&mut self, line: impl Display) {
        self.wrapped("", "", &line.to_string());
    }

    /// Adds an item of a list.
    pub(super) fn item(&mut self, item: impl Display) {
        self.wrapped("  - ", "    ", &item.to_string());
    }

    /// Adds what to do about the item above.
    pub(super) fn advice(&mut self, advice: impl Display) {
        self.wrapped("    => ", "       ", &advice.to_string());
    }

    /// Adds an empty line, unless the text is empty.
    pub(super) fn gap(&mut self) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
    }

    fn wrapped(&mut self, first: &str, others: &str, text: &str) {
        let options = textwrap::Options::new(WIDTH)
            .initial_indent(first)
            .subsequent_indent(others)
            .break_words(false)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for line in textwrap::wrap(&printable(text), options) {
            self.text.push_str(line.trim_end());
            self.text.push('\n');
        }
    }

    /// Returns the text without the last newline.
    pub(super) fn into_text(self) -> String {
        self.text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_at_most_80_wide_and_values_stay_in_their_column() {
        let mut table = Table::default();
        table.row("name", "word ".repeat(40));
        table.item("word ".repeat(40));
        let text = table.into_text();
        assert!(text.lines().all(|line| line.len() <= 80), "{text}");
        assert!(text.lines().nth(1).unwrap().starts_with(&" ".repeat(16)));
    }
}
