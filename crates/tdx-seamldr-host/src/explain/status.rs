//! The table of all published status words of the TDX module.

use std::sync::LazyLock;

use tdx_seamldr_core::abi::TdxStatus;

/// A status word of the TDX module, without details.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Status {
    /// The name, e.g. `SYS_BUSY`.
    pub(super) name: &'static str,
    /// The word with details 0.
    pub(super) code: u64,
    /// The meaning, in plain words.
    pub(super) meaning: &'static str,
}

static TABLE: LazyLock<Vec<Status>> =
    LazyLock::new(|| include_str!("../../data/tdx-status.csv").lines().filter_map(row).collect());

/// Reads a line of the table. `None` for comments and the header line.
fn row(line: &'static str) -> Option<Status> {
    let mut columns = line.splitn(3, ',');
    let (name, value, meaning) = (columns.next()?, columns.next()?, columns.next()?);
    let code = u64::from_str_radix(value.strip_prefix("0x")?, 16).ok()?;
    let core = || TdxStatus(code).info().map_or("", |row| row.meaning);
    Some(Status { name, code, meaning: if meaning.is_empty() { core() } else { meaning } })
}

/// Returns all status words in the order of the table.
pub(super) fn all() -> &'static [Status] {
    &TABLE
}

/// Returns the status with the upper half of this word.
pub(super) fn of(word: u64) -> Option<Status> {
    let code = TdxStatus(word).code().0;
    all().iter().find(|status| status.code == code).copied()
}

/// Returns at most `most` likely corrections of an unknown word: words of the same class and code
/// with other flags, then words of the class with the nearest codes.
pub(super) fn nearest(word: u64, most: usize) -> Vec<Status> {
    let class = |word: u64| word >> 40 & 0xff;
    let code = |word: u64| word >> 32 & 0xff;
    let mut near: Vec<Status> = all()
        .iter()
        .filter(|status| status.code != 0 && class(status.code) == class(word))
        .copied()
        .collect();
    near.sort_by_key(|status| code(status.code).abs_diff(code(word)));
    near.truncate(most);
    near
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_every_published_word_once_with_a_meaning() {
        let table = include_str!("../../data/tdx-status.csv");
        for line in table.lines().filter(|line| !line.starts_with('#')) {
            assert_eq!((line.matches(',').count(), line.matches('"').count()), (2, 0), "{line}");
        }
        assert_eq!(all().len(), 186);
        for status in all() {
            assert!(!status.meaning.is_empty(), "{} has no meaning", status.name);
            assert_eq!(of(status.code), Some(*status));
            assert_eq!(of(status.code | 0xffff_ffff), Some(*status), "details do not count");
            assert_eq!(all().iter().filter(|other| other.name == status.name).count(), 1);
        }
    }

    #[test]
    fn table_and_core_agree_on_names() {
        for row in TdxStatus::TABLE.iter().filter(|row| row.status.details() == 0) {
            let found = of(row.status.0).map(|status| status.name);
            let linux = row.status == TdxStatus::NON_RECOVERABLE_TD_LINUX;
            assert_eq!(found, if linux { None } else { Some(row.name) });
        }
    }

    #[test]
    fn nearest_words_have_the_same_class() {
        let names: Vec<_> =
            nearest(0xc000050400000000, 2).iter().map(|status| status.name).collect();
        assert_eq!(names, ["SYS_LP_INIT_DONE", "SYS_NOT_READY"]);
        assert!(nearest(0x8000770000000000, 3).is_empty(), "class 0x77 does not exist");
    }
}
