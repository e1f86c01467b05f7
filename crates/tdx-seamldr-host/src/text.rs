//! Text from files, made safe to print, and bytes as text.

/// Returns the text with unsafe characters escaped: control characters, and characters that change
/// the direction of writing. Quotes and backslashes stay.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '"' | '\'' | '\\' => shown.push(character),
            _ => shown.extend(character.escape_debug()),
        }
    }
    shown
}

/// Returns the first line of the text, cut to `limit` characters and made [`printable`].
#[must_use]
pub fn first_line(text: &str, limit: usize) -> String {
    let line = text.trim_start().lines().next().unwrap_or_default().trim_end();
    let cut: String = line.chars().take(limit).collect();
    let mark = if cut.len() < line.len() { "..." } else { "" };
    printable(&cut) + mark
}

/// Returns bytes as lower-case hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_a_terminal_obeys_are_escaped_and_others_are_not() {
        assert_eq!(printable("a \"b\" 'c' \\ d \u{e9}"), "a \"b\" 'c' \\ d \u{e9}");
        assert_eq!(printable("\u{1b}[2J\r\n\u{202e}"), "\\u{1b}[2J\\r\\n\\u{202e}");
    }

    #[test]
    fn first_line_is_cut_with_a_mark() {
        assert_eq!(first_line("\n  404: Not Found\nmore", 40), "404: Not Found");
        assert_eq!(first_line("abcdef", 3), "abc...");
        assert_eq!(first_line("", 3), "");
    }
}
