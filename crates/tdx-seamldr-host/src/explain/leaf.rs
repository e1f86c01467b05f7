//! Leaves of SEAMCALL by name and number, of P-SEAMLDR and the TDX module.

use std::fmt;

use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};

/// A leaf of SEAMCALL, by RAX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// A leaf of P-SEAMLDR.
    Seamldr(SeamldrLeaf),
    /// A leaf of the TDX module, with or without a known name.
    Tdx(TdxLeaf),
    /// A number with bit 63 set that is not a leaf of P-SEAMLDR.
    UnknownSeamldr(u64),
}

/// A text that is not a leaf.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a leaf: expected a number such as 0x22 or a name such as TDH.SYS.RD")]
pub struct NotALeaf {
    /// The text, at most 40 characters of it.
    pub found: String,
}

/// Leaves of the TDX module that an update does not call. [`TdxLeaf::TABLE`] does not have them.
const OTHERS: &[(u16, &str)] = &[
    (0, "TDH.VP.ENTER"),
    (1, "TDH.MNG.ADDCX"),
    (2, "TDH.MEM.PAGE.ADD"),
    (3, "TDH.MEM.SEPT.ADD"),
    (4, "TDH.VP.ADDCX"),
    (5, "TDH.MEM.PAGE.RELOCATE"),
    (6, "TDH.MEM.PAGE.AUG"),
    (7, "TDH.MEM.RANGE.BLOCK"),
    (8, "TDH.MNG.KEY.CONFIG"),
    (9, "TDH.MNG.CREATE"),
    (10, "TDH.VP.CREATE"),
    (11, "TDH.MNG.RD"),
    (12, "TDH.MEM.RD"),
    (13, "TDH.MNG.WR"),
    (14, "TDH.MEM.WR"),
    (15, "TDH.MEM.PAGE.DEMOTE"),
    (16, "TDH.MR.EXTEND"),
    (17, "TDH.MR.FINALIZE"),
    (18, "TDH.VP.FLUSH"),
    (19, "TDH.MNG.VPFLUSHDONE"),
    (20, "TDH.MNG.KEY.FREEID"),
    (21, "TDH.MNG.INIT"),
    (22, "TDH.VP.INIT"),
    (23, "TDH.MEM.PAGE.PROMOTE"),
    (24, "TDH.PHYMEM.PAGE.RDMD"),
    (25, "TDH.MEM.SEPT.RD"),
    (26, "TDH.VP.RD"),
    (27, "TDH.MNG.KEY.RECLAIMID"),
    (28, "TDH.PHYMEM.PAGE.RECLAIM"),
    (29, "TDH.MEM.PAGE.REMOVE"),
    (30, "TDH.MEM.SEPT.REMOVE"),
    (38, "TDH.MEM.TRACK"),
    (39, "TDH.MEM.RANGE.UNBLOCK"),
    (40, "TDH.PHYMEM.CACHE.WB"),
    (41, "TDH.PHYMEM.PAGE.WBINVD"),
    (42, "TDH.MEM.SEPT.WR"),
    (43, "TDH.VP.WR"),
    (48, "TDH.SERVTD.BIND"),
    (49, "TDH.SERVTD.PREBIND"),
    (64, "TDH.EXPORT.ABORT"),
    (65, "TDH.EXPORT.BLOCKW"),
    (66, "TDH.EXPORT.RESTORE"),
    (68, "TDH.EXPORT.MEM"),
    (70, "TDH.EXPORT.PAUSE"),
    (71, "TDH.EXPORT.TRACK"),
    (72, "TDH.EXPORT.STATE.IMMUTABLE"),
    (73, "TDH.EXPORT.STATE.TD"),
    (74, "TDH.EXPORT.STATE.VP"),
    (75, "TDH.EXPORT.UNBLOCKW"),
    (80, "TDH.IMPORT.ABORT"),
    (81, "TDH.IMPORT.END"),
    (82, "TDH.IMPORT.COMMIT"),
    (83, "TDH.IMPORT.MEM"),
    (84, "TDH.IMPORT.TRACK"),
    (85, "TDH.IMPORT.STATE.IMMUTABLE"),
    (86, "TDH.IMPORT.STATE.TD"),
    (87, "TDH.IMPORT.STATE.VP"),
    (96, "TDH.MIG.STREAM.CREATE"),
];

impl Leaf {
    /// Returns the leaf in RAX. Ignores the version of a TDX leaf.
    #[must_use]
    pub fn from_rax(rax: u64) -> Self {
        if rax >> 63 == 0 {
            return Self::Tdx(TdxLeaf::from_rax(rax));
        }
        SeamldrLeaf::from_rax(rax).map_or(Self::UnknownSeamldr(rax), Self::Seamldr)
    }

    /// Reads a leaf: a number, or a name with or without `TDH.`, with dots or underscores, in any
    /// case.
    ///
    /// # Errors
    ///
    /// The text is neither a number nor a name.
    pub fn parse(text: &str) -> Result<Self, NotALeaf> {
        let trimmed = text.trim();
        let found = super::word::number(trimmed).map(Self::from_rax);
        found
            .or_else(|| Self::from_name(trimmed))
            .ok_or_else(|| NotALeaf { found: text.chars().take(40).collect() })
    }

    /// Returns the leaf with this name.
    pub(super) fn from_name(text: &str) -> Option<Self> {
        let wanted = text.to_ascii_uppercase().replace('_', ".");
        let is_wanted = |name: &str| name == wanted || name.strip_prefix("TDH.") == Some(&wanted);
        let tdx = TdxLeaf::TABLE.iter().map(|(leaf, name)| (*leaf, *name));
        let others = OTHERS.iter().map(|(number, name)| (TdxLeaf(*number), *name));
        let seamldr = || SeamldrLeaf::ALL.into_iter().find(|leaf| leaf.name() == wanted);
        let found =
            tdx.chain(others).find(|(_, name)| is_wanted(name)).map(|(leaf, _)| Self::Tdx(leaf));
        found.or_else(|| seamldr().map(Self::Seamldr))
    }

    /// Returns the name in the specification. `None` if the leaf is unknown.
    #[must_use]
    pub fn known_name(self) -> Option<&'static str> {
        match self {
            Self::Seamldr(leaf) => Some(leaf.name()),
            Self::Tdx(leaf) => leaf.name().or_else(|| {
                OTHERS.iter().find(|(number, _)| *number == leaf.0).map(|(_, name)| *name)
            }),
            Self::UnknownSeamldr(_) => None,
        }
    }
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.known_name(), self) {
            (Some(name), _) => f.write_str(name),
            (None, Self::Tdx(leaf)) => write!(f, "leaf {} of the TDX module", leaf.0),
            (None, Self::UnknownSeamldr(rax)) => write!(f, "leaf {rax:#x} of P-SEAMLDR"),
            (None, Self::Seamldr(leaf)) => f.write_str(leaf.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_leaf_is_found_by_number_and_by_name() {
        let numbers = OTHERS.iter().map(|(number, name)| (u64::from(*number), *name));
        let core = TdxLeaf::TABLE.iter().map(|(leaf, name)| (leaf.rax(0), *name));
        let seamldr = SeamldrLeaf::ALL.into_iter().map(|leaf| (leaf.rax(), leaf.name()));
        for (number, name) in numbers.chain(core).chain(seamldr) {
            let leaf = Leaf::from_rax(number);
            assert_eq!(leaf.known_name(), Some(name));
            assert_eq!(Leaf::parse(name), Ok(leaf));
            assert_eq!(Leaf::parse(&name.to_lowercase().replace('.', "_")), Ok(leaf));
            assert_eq!(Leaf::parse(&format!("{number:#x}")), Ok(leaf));
        }
    }

    #[test]
    fn tables_have_no_leaf_in_common() {
        for (number, name) in OTHERS {
            assert_eq!(TdxLeaf(*number).name(), None, "{name}");
            assert_eq!(OTHERS.iter().filter(|(other, _)| other == number).count(), 1, "{name}");
        }
    }

    #[test]
    fn leaf_without_a_name_is_shown_by_its_number() {
        assert_eq!(Leaf::from_rax(999).to_string(), "leaf 999 of the TDX module");
        assert_eq!(
            Leaf::from_rax(0x80000000000000fe).to_string(),
            "leaf 0x80000000000000fe of P-SEAMLDR"
        );
        assert_eq!(Leaf::from_rax(0x1_0016).to_string(), "TDH.VP.INIT", "version 1");
        assert!(Leaf::parse("TDH.NO.SUCH").is_err());
    }
}
