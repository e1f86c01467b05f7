//! Numbers with their nouns, for messages.

use core::fmt;

/// Shows a number with its noun: "1 page", "2 pages".
pub(crate) struct Count<N>(pub(crate) N, pub(crate) &'static str);

impl<N: fmt::Display + PartialEq + From<u8>> fmt::Display for Count<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(number, noun) = self;
        let plural = if *number == N::from(1) { "" } else { "s" };
        write!(f, "{number} {noun}{plural}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_plural_unless_the_number_is_1() {
        let shown = [0, 1, 2].map(|number: u32| format!("{}", Count(number, "LP")));
        assert_eq!(shown, ["0 LPs", "1 LP", "2 LPs"]);
    }
}
