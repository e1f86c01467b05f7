//! One row of the tables of advice, which the files for the two firmwares and for Linux fill.

use super::step::Relation;

/// What a status word asks of the operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    /// The word. Details do not count for words of the TDX module.
    pub(super) code: u64,
    /// More than the meaning's short form. Empty if there is no more to say.
    pub(super) meaning: &'static str,
    /// Whether the word has to do with an update, where no leaf tells.
    pub(super) relation: Relation,
    /// What became of the TDs if the word came during an update, where no leaf tells.
    pub(super) fate: &'static str,
    /// What to do, the most likely first.
    pub(super) actions: &'static [&'static str],
}

/// Advice for a class of words, where a word has none of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassAdvice {
    /// Bits 47:40.
    pub(super) class: u8,
    /// The name of the class.
    pub(super) name: &'static str,
    /// Whether the class has to do with an update.
    pub(super) relation: Relation,
    /// What to do.
    pub(super) actions: &'static [&'static str],
}

/// Finds the advice for a word in a table.
pub(super) fn find(table: &[Advice], code: u64) -> Option<&Advice> {
    table.iter().find(|row| row.code == code)
}
