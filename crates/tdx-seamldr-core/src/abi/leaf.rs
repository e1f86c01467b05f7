//! Leaf numbers of SEAMCALL, in RAX.

use core::fmt;

/// A leaf of P-SEAMLDR: all 64 bits of RAX. Bit 63 routes the call to P-SEAMLDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum SeamldrLeaf {
    /// SEAMLDR.INFO: describe P-SEAMLDR and the module that it runs.
    Info = 0x8000000000000000,
    /// SEAMLDR.INSTALL: take part in installing a module. Every LP calls once.
    Install = 0x8000000000000001,
    /// SEAMLDR.SHUTDOWN: take part in ending P-SEAMLDR.
    Shutdown = 0x8000000000000002,
    /// SEAMLDR.SEAMINFO: copy the platform table, P_SYSINFO, to the caller.
    SeamInfo = 0x8000000000000003,
    /// SEAMLDR.CLEANUP: take part in wiping keys and caches. See
    /// [`SeamldrFeatures0::CLEANUP`](super::SeamldrFeatures0::CLEANUP).
    Cleanup = 0x8000000000000004,
}

impl SeamldrLeaf {
    /// All leaves in the order of their numbers.
    pub const ALL: [Self; 5] =
        [Self::Info, Self::Install, Self::Shutdown, Self::SeamInfo, Self::Cleanup];

    /// Returns the value for RAX.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u64) enum
    pub const fn rax(self) -> u64 {
        self as u64
    }

    /// Returns the leaf with this value of RAX. `None` if there is no such leaf.
    #[must_use]
    pub fn from_rax(rax: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|leaf| leaf.rax() == rax)
    }

    /// Returns the name in the specification, e.g. `SEAMLDR.INSTALL`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "SEAMLDR.INFO",
            Self::Install => "SEAMLDR.INSTALL",
            Self::Shutdown => "SEAMLDR.SHUTDOWN",
            Self::SeamInfo => "SEAMLDR.SEAMINFO",
            Self::Cleanup => "SEAMLDR.CLEANUP",
        }
    }
}

/// A host-side leaf of the TDX module: bits 15:0 of RAX. Can hold leaves that have no name here.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TdxLeaf(pub u16);

macro_rules! tdx_leaves {
    ($($(#[$doc:meta])* $constant:ident = $number:expr, $name:expr;)*) => {
        impl TdxLeaf {
            $($(#[$doc])* pub const $constant: Self = Self($number);)*

            /// The leaves with a name here, and their names in the specification.
            pub const TABLE: &'static [(Self, &'static str)] = &[$((Self::$constant, $name)),*];
        }
    };
}

tdx_leaves! {
    /// TDH.SYS.KEY.CONFIG: set up the module's global key on one package.
    SYS_KEY_CONFIG = 31, "TDH.SYS.KEY.CONFIG";
    /// TDH.SYS.INFO: read the module's description in its older form.
    SYS_INFO = 32, "TDH.SYS.INFO";
    /// TDH.SYS.INIT: initialise the module, once.
    SYS_INIT = 33, "TDH.SYS.INIT";
    /// TDH.SYS.RD: read one global metadata field.
    SYS_RD = 34, "TDH.SYS.RD";
    /// TDH.SYS.LP.INIT: initialise the module on the calling logical processor.
    SYS_LP_INIT = 35, "TDH.SYS.LP.INIT";
    /// TDH.SYS.TDMR.INIT: initialise the next part of a TDMR.
    SYS_TDMR_INIT = 36, "TDH.SYS.TDMR.INIT";
    /// TDH.SYS.RDALL: read all global metadata fields.
    SYS_RDALL = 37, "TDH.SYS.RDALL";
    /// TDH.SYS.LP.SHUTDOWN: deprecated; does nothing and succeeds.
    SYS_LP_SHUTDOWN = 44, "TDH.SYS.LP.SHUTDOWN";
    /// TDH.SYS.CONFIG: configure the module with TDMRs and a global KeyID.
    SYS_CONFIG = 45, "TDH.SYS.CONFIG";
    /// TDH.SYS.SHUTDOWN: stop the module for good and write handoff data.
    SYS_SHUTDOWN = 52, "TDH.SYS.SHUTDOWN";
    /// TDH.SYS.UPDATE: take over the handoff data of the module that ran before.
    SYS_UPDATE = 53, "TDH.SYS.UPDATE";
    /// TDH.SYS.DISABLE: turn TDX off. Only modules with the feature SYS_DISABLE have it.
    SYS_DISABLE = 69, "TDH.SYS.DISABLE";
}

impl TdxLeaf {
    /// Returns the value for RAX: the leaf and, in bits 23:16, the version of its interface. The
    /// other bits are 0.
    #[must_use]
    pub fn rax(self, version: u8) -> u64 {
        u64::from(self.0) | u64::from(version) << 16
    }

    /// Returns the leaf in RAX. Ignores the version.
    #[must_use]
    #[allow(clippy::as_conversions)] // 16 bits remain
    pub const fn from_rax(rax: u64) -> Self {
        Self((rax & 0xffff) as u16)
    }

    /// Returns the name in the specification. `None` if [`TABLE`](Self::TABLE) does not have the
    /// leaf.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(leaf, _)| *leaf == self).map(|(_, name)| *name)
    }
}

impl fmt::Debug for TdxLeaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "TdxLeaf({})", self.0),
        }
    }
}

/// The operand of TDH.SYS.SHUTDOWN, in RCX.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownRequest {
    /// Bits 15:0: the handoff version in which the module writes the handoff data.
    pub hv: u16,
    /// Bit 16, AVOID_COMPAT_SENSITIVE: the module refuses while a TD is in build or a migration
    /// step is interrupted. Modules without UPDATE_COMPATIBILITY answer OPERAND_INVALID to this
    /// bit.
    pub avoid_compat_sensitive: bool,
}

impl ShutdownRequest {
    /// The bit of `avoid_compat_sensitive`.
    pub const AVOID_COMPAT_SENSITIVE: u64 = 1 << 16;

    /// Returns the value for RCX.
    #[must_use]
    pub fn rcx(self) -> u64 {
        u64::from(self.hv)
            | if self.avoid_compat_sensitive { Self::AVOID_COMPAT_SENSITIVE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seamldr_leaf_is_found_by_its_number() {
        for leaf in SeamldrLeaf::ALL {
            assert_eq!(SeamldrLeaf::from_rax(leaf.rax()), Some(leaf));
            assert!(leaf.name().starts_with("SEAMLDR."));
        }
        assert_eq!(SeamldrLeaf::from_rax(0x8000000000000005), None);
        assert_eq!(SeamldrLeaf::from_rax(1), None, "a leaf of the TDX module");
    }

    #[test]
    fn tdx_leaf_carries_its_version_in_bits_23_16() {
        assert_eq!(TdxLeaf::SYS_UPDATE.rax(0), 53);
        assert_eq!(TdxLeaf::SYS_UPDATE.rax(1), 0x1_0035);
        assert_eq!(TdxLeaf::from_rax(0x1_0035), TdxLeaf::SYS_UPDATE);
        assert_eq!(TdxLeaf::from_rax(999).name(), None);
    }

    #[test]
    fn shutdown_request_has_the_flag_in_bit_16_and_the_version_below() {
        assert_eq!(ShutdownRequest { hv: 0xffff, avoid_compat_sensitive: false }.rcx(), 0xffff);
        assert_eq!(ShutdownRequest { hv: 1, avoid_compat_sensitive: true }.rcx(), 0x1_0001);
    }

    #[test]
    fn tdx_leaf_name_is_that_of_the_specification() {
        assert_eq!(TdxLeaf::SYS_UPDATE.name(), Some("TDH.SYS.UPDATE"));
        for (leaf, name) in TdxLeaf::TABLE {
            assert_eq!(leaf.name(), Some(*name));
        }
    }
}
