//! Lines of Rust have at most 100 columns. Parts that cannot be broken do not count: text between
//! quotes, a raw string, an address, a row of a table in a comment.

use anyhow::{ensure, Result};

/// The most columns of a line.
const WIDTH: usize = 100;

/// Returns the columns of a line, without the parts that cannot be broken.
fn columns(line: &str) -> usize {
    let text = line.trim_start();
    let is_row =
        text.starts_with("//") && text.trim_start_matches(['/', '!', ' ']).starts_with('|');
    if is_row || text.contains("://") || text.contains("r#\"") {
        return 0;
    }
    // Every second part is between quotes.
    let all = line.chars().count();
    let quoted: usize = line.split('"').skip(1).step_by(2).map(|text| text.chars().count()).sum();
    all.saturating_sub(quoted)
}

pub(super) fn check() -> Result<()> {
    let mut found = Vec::new();
    for name in super::files(&["*.rs"])? {
        let text = std::fs::read_to_string(crate::root().join(&name))?;
        for (line, number) in text.lines().zip(1_u32..) {
            if line.chars().count() > WIDTH && columns(line) > WIDTH {
                found.push(format!("{name}:{number}"));
            }
        }
    }
    ensure!(
        found.is_empty(),
        "{} lines have more than {WIDTH} columns, break them:\n{}",
        found.len(),
        found.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_between_quotes_rows_and_addresses_do_not_count() {
        let long = "x".repeat(120);
        assert!(columns(&format!("let a = b + {long};")) > WIDTH);
        assert!(columns(&format!("// {long}")) > WIDTH);
        assert!(columns(&format!("let a = \"{long}\";")) <= WIDTH);
        assert_eq!(columns(&format!("    //! | {long} |")), 0);
        assert_eq!(columns(&format!("// https://example.org/{long}")), 0);
    }
}
