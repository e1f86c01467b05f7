//! Measured figures and their limits.

use std::fmt::Write as _;

use anyhow::{ensure, Result};

/// One measured figure.
#[derive(Clone)]
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) value: f64,
    /// The target. A higher value is reported, but is not a failure.
    pub(crate) target: Option<f64>,
    /// The limit. A higher value is a failure.
    pub(crate) limit: Option<f64>,
}

/// Figures that were measured in one way.
pub(crate) struct Table {
    pub(crate) title: &'static str,
    /// The method, in a sentence or two.
    pub(crate) how: String,
    pub(crate) figures: Vec<Figure>,
}

/// A number of things: `1 LP`, `2 LPs`.
pub(crate) fn counted(number: u64, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, value: impl Into<f64>) -> Self {
        Self { what: what.into(), value: value.into(), target: None, limit: None }
    }

    #[allow(clippy::as_conversions, clippy::cast_precision_loss)] // counts far below 2^53
    pub(crate) fn count(what: impl Into<String>, value: u64) -> Self {
        Self::new(what, value as f64)
    }

    pub(crate) fn ratio(what: impl Into<String>, of: u64, to: u64) -> Self {
        let [of, to] = [of, to].map(|count| Self::count("", count).value);
        Self::new(what, of / to)
    }

    pub(crate) fn at_most(self, limit: impl Into<f64>) -> Self {
        Self { limit: Some(limit.into()), ..self }
    }

    pub(crate) fn should_be(self, target: impl Into<f64>) -> Self {
        Self { target: Some(target.into()), ..self }
    }

    /// NaN also exceeds the limit.
    pub(crate) fn is_too_much(&self) -> bool {
        self.is_above(self.limit)
    }

    pub(crate) fn is_above_target(&self) -> bool {
        self.is_above(self.target)
    }

    fn is_above(&self, bound: Option<f64>) -> bool {
        bound.is_some_and(|bound| self.value > bound || self.value.is_nan())
    }
}

impl Table {
    /// Returns the table in Markdown, without its title.
    pub(crate) fn text(&self) -> String {
        format!("{}\n\n{}", self.how, self.rows())
    }

    /// Returns only the figures, in Markdown.
    pub(crate) fn rows(&self) -> String {
        let mut text = "| | | at most |\n|---|---:|---:|\n".to_owned();
        for Figure { what, value, target, limit } in &self.figures {
            let target = target.map(|target| format!("{} as a target, ", number(target)));
            let (target, limit) =
                (target.unwrap_or_default(), limit.map(number).unwrap_or_default());
            let _ = writeln!(text, "| {what} | {} | {target}{limit} |", number(*value));
        }
        text
    }
}

/// Fails with all figures that are above their limits.
pub(crate) fn check(tables: &[Table]) -> Result<()> {
    let too_much: Vec<_> = tables
        .iter()
        .flat_map(|table| &table.figures)
        .filter(|figure| figure.is_too_much())
        .map(|Figure { what, value, limit, .. }| {
            format!(
                "{what}: {}, but should be at most {}",
                number(*value),
                number(limit.unwrap_or_default())
            )
        })
        .collect();
    ensure!(too_much.is_empty(), "{}", too_much.join("\n"));
    Ok(())
}

/// Formats whole numbers with commas, other numbers with three digits.
pub(crate) fn number(value: f64) -> String {
    if value.fract() != 0.0 {
        return if value.abs() < 10.0 { format!("{value:.3}") } else { format!("{value:.1}") };
    }
    let digits = format!("{value:.0}");
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_commas_or_three_digits() {
        let shown = [0.0, 7.0, 999.0, 1000.0, 1234567.0, 0.23475, 28.025].map(number);
        assert_eq!(shown, ["0", "7", "999", "1,000", "1,234,567", "0.235", "28.0"]);
    }

    #[test]
    fn figure_above_its_limit_fails_the_check_by_name() {
        let table = |value: f64| Table {
            title: "t",
            how: "h".to_owned(),
            figures: vec![Figure::new("other", 9.0), Figure::new("cost", value).at_most(3.0)],
        };
        assert!(check(&[table(3.0)]).is_ok());
        let errors = [3.5, f64::NAN].map(|value| check(&[table(value)]).unwrap_err().to_string());
        assert_eq!(errors[0], "cost: 3.500, but should be at most 3");
        assert!(errors[1].starts_with("cost: NaN"));
    }

    #[test]
    fn figure_above_only_its_target_is_not_a_failure() {
        let figure = |value: f64| Figure::new("ratio", value).should_be(1.25).at_most(1.5);
        let found = [1.25, 1.4, 1.5, 1.6]
            .map(|value| (figure(value).is_above_target(), figure(value).is_too_much()));
        assert_eq!(found, [(false, false), (true, false), (true, false), (true, true)]);
        let table = Table { title: "t", how: "h".to_owned(), figures: vec![figure(1.4)] };
        assert!(
            table.text().ends_with("| ratio | 1.400 | 1.250 as a target, 1.500 |\n"),
            "{}",
            table.text()
        );
        assert!(check(&[table]).is_ok());
    }
}
