//! Parses words: decimal and hexadecimal numbers of either sign, and names.

use tdx_seamldr_core::abi::{SeamldrStatus, TdxStatus};

use super::linux;
use super::status;

/// A word to explain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Word {
    /// A status word, in RAX.
    Status(u64),
    /// A Linux error number, positive.
    Errno(i32),
}

/// A text that is not a word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{found:?} is not a status word: expected 0x and up to 16 hexadecimal digits, a decimal \
     number of 64 bits, or a name such as SYS_NOT_READY, EBADSIG or EIO{}",
    hint(near)
)]
pub struct NotAWord {
    /// The text, cut to 60 characters.
    pub found: String,
    /// At most three similar names.
    pub near: Vec<&'static str>,
}

fn hint(near: &[&str]) -> String {
    if near.is_empty() {
        return String::new();
    }
    format!("; similar names: {}", near.join(", "))
}

/// Reads a number: hexadecimal after `0x`, else decimal. Allows `_` between digits. Negative
/// numbers are two's complement.
pub(super) fn number(text: &str) -> Option<u64> {
    let digits = |text: &str| text.replace('_', "");
    let is_number = |text: &str| text.starts_with(|first: char| first.is_ascii_hexdigit());
    let lower = text.to_ascii_lowercase();
    if let Some(hex) = lower.strip_prefix("0x") {
        let hex = digits(hex);
        return is_number(&hex).then(|| u64::from_str_radix(&hex, 16).ok()).flatten();
    }
    if let Some(negative) = lower.strip_prefix('-') {
        let magnitude =
            is_number(negative).then(|| digits(negative).parse::<u64>().ok()).flatten()?;
        return (magnitude <= 1 << 63).then(|| magnitude.wrapping_neg());
    }
    is_number(&lower).then(|| digits(&lower).parse().ok()).flatten()
}

/// The highest error number in Linux.
const MAX_ERRNO: u64 = 4095;

impl Word {
    /// Makes a word from a number. Numbers from -1 to -4095 are Linux's error numbers, which
    /// firmware never returns.
    #[must_use]
    pub fn from_number(number: u64) -> Self {
        let magnitude = number.wrapping_neg();
        match i32::try_from(magnitude) {
            Ok(errno) if (1..=MAX_ERRNO).contains(&magnitude) => Self::Errno(errno),
            _ => Self::Status(number),
        }
    }

    /// Reads a word: a number (`0xc000050500000000`, `-4611680499394412544`), or a name of
    /// P-SEAMLDR, the TDX module or Linux (`EBADSIG`, `SYS_NOT_READY`, `TDX_SYS_NOT_READY`,
    /// `EIO`), in any case.
    ///
    /// # Errors
    ///
    /// The text is neither a number nor a name.
    pub fn parse(text: &str) -> Result<Self, NotAWord> {
        let text = text.trim();
        if let Some(number) = number(text) {
            return Ok(Self::from_number(number));
        }
        let upper = text.to_ascii_uppercase();
        let bare = upper.strip_prefix("TDX_").unwrap_or(&upper);
        by_name(&upper)
            .or_else(|| by_name(bare))
            .ok_or_else(|| NotAWord { found: text.chars().take(60).collect(), near: near(bare) })
    }
}

/// Returns the word with exactly this name.
fn by_name(name: &str) -> Option<Word> {
    let tdx = || status::all().iter().find(|row| row.name == name).map(|row| row.code);
    let core = || TdxStatus::TABLE.iter().find(|row| row.name == name).map(|row| row.status.0);
    let seamldr =
        || SeamldrStatus::TABLE.iter().find(|row| row.name == name).map(|row| row.status.0);
    let synonym = || SYNONYMS.iter().find(|(other, _)| *other == name).map(|(_, word)| *word);
    let found = tdx().or_else(core).or_else(seamldr).or_else(synonym).map(Word::Status);
    found.or_else(|| linux::errno_by_name(name).map(Word::Errno))
}

/// Names of words in Linux.
const SYNONYMS: &[(&str, u64)] = &[
    ("UPDATE_COMPAT_SENSITIVE", TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0),
    ("VMFAILINVALID", TdxStatus::SEAMCALL_VMFAILINVALID.0),
    ("SW_ERROR", linux::SW_ERROR),
    ("ERROR", TdxStatus::ERROR),
];

/// Returns the names that contain the text or are contained in it.
fn near(text: &str) -> Vec<&'static str> {
    if text.len() < 3 {
        return Vec::new();
    }
    let tdx = status::all().iter().map(|row| row.name);
    let seamldr = SeamldrStatus::TABLE.iter().map(|row| row.name);
    let mut near: Vec<&'static str> = seamldr
        .chain(tdx)
        .filter(|name| name.contains(text) || (name.len() > 4 && text.contains(name)))
        .collect();
    near.sort_by_key(|name| name.len().abs_diff(text.len()));
    near.truncate(3);
    near
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn word_is_read_in_every_form_of_logs_and_people() {
        let word = Ok(Word::Status(0xc000050500000000));
        for text in [
            "0xc000050500000000",
            "0XC000050500000000",
            "0xC000_0505_0000_0000",
            "0x0000c000050500000000",
            " 0xc000050500000000 ",
            "13835063574315139072",
            "-4611680499394412544",
            "SYS_NOT_READY",
            "sys_not_ready",
            "TDX_SYS_NOT_READY",
        ] {
            assert_eq!(Word::parse(text), word, "{text}");
        }
        assert_eq!(Word::parse("EBADSIG"), Ok(Word::Status(0x8000000000020000)));
        assert_eq!(Word::parse("TDX_SEAMCALL_VMFAILINVALID"), Ok(Word::Status(0x8000ff00ffff0000)));
        assert_eq!(
            Word::parse("TDX_UPDATE_COMPAT_SENSITIVE"),
            Ok(Word::Status(0x8000051200000000))
        );
    }

    #[test]
    fn small_negative_numbers_are_linux_error_numbers() {
        assert_eq!(Word::parse("-5"), Ok(Word::Errno(5)));
        assert_eq!(Word::parse("EIO"), Ok(Word::Errno(5)));
        assert_eq!(Word::parse("-ENODEV"), Ok(Word::Errno(19)));
        assert_eq!(Word::parse("0xfffffffffffffffb"), Ok(Word::Errno(5)));
        assert_eq!(Word::parse("-4096"), Ok(Word::Status(0xfffffffffffff000)));
        assert_eq!(Word::parse("5"), Ok(Word::Status(5)));
    }

    #[test]
    fn wrong_word_is_refused_with_similar_names() {
        for text in [
            "",
            "0x",
            "-",
            "0x_",
            "_1",
            "0xg",
            "--5",
            "1e5",
            "0x1ffffffffffffffff",
            "18446744073709551616",
            "-9223372036854775809",
            "c000050500000000",
        ] {
            assert!(Word::parse(text).is_err(), "{text}");
        }
        let error = Word::parse("NOT_READY").unwrap_err();
        assert_eq!(error.near, ["SYS_NOT_READY"]);
        assert!(error.to_string().contains("\"NOT_READY\" is not a status word"), "{error}");
    }

    #[test]
    fn every_name_of_the_tables_is_read() {
        for row in status::all() {
            assert_eq!(Word::parse(row.name), Ok(Word::Status(row.code)));
        }
        for row in SeamldrStatus::TABLE {
            assert_eq!(Word::parse(row.name), Ok(Word::Status(row.status.0)));
        }
    }

    proptest! {
        #[test]
        fn every_number_is_read_back_from_hexadecimal_and_decimal(word: u64) {
            let expected = Ok(Word::from_number(word));
            prop_assert_eq!(Word::parse(&format!("{word:#x}")), expected.clone());
            prop_assert_eq!(Word::parse(&format!("{word}")), expected.clone());
            prop_assert_eq!(Word::parse(&format!("{}", word.cast_signed())), expected);
        }

        #[test]
        fn any_text_is_a_word_or_an_error(text: String) {
            let _ = Word::parse(&text).map_err(|error| error.to_string());
        }
    }
}
