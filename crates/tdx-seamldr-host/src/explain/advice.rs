//! The rows of the tables of advice. The tables are in the files for P-SEAMLDR, the TDX module and
//! Linux.

use super::step::Relation;

/// Advice for a status word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Advice {
    /// The word. For words of the TDX module, without details.
    pub(super) code: u64,
    /// Text after the short meaning. May be empty.
    pub(super) meaning: &'static str,
    /// The relation to an update if the leaf is unknown.
    pub(super) relation: Relation,
    /// The fate of the TDs after this word in an update, if the leaf is unknown. Empty: the text
    /// follows from the relation.
    pub(super) fate: &'static str,
    /// What to do, the most likely action first.
    pub(super) actions: &'static [&'static str],
}

/// Advice for a class of words, used for words without their own advice.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClassAdvice {
    /// Bits 47:40.
    pub(super) class: u8,
    /// The name of the class.
    pub(super) name: &'static str,
    /// The relation of the class to an update.
    pub(super) relation: Relation,
    /// What to do.
    pub(super) actions: &'static [&'static str],
}

/// Finds the advice for a word in a table.
pub(super) fn find(table: &[Advice], code: u64) -> Option<&Advice> {
    table.iter().find(|row| row.code == code)
}
