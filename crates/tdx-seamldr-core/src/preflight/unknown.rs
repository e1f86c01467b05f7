//! The questions that preflight could not answer.

use core::fmt;

/// A question that preflight cannot answer: a fact is absent, or the cryptography provider could
/// not compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum Unknown {
    /// Whether P-SEAMLDR trusts the signer.
    Signer,
    /// Whether the signature is valid.
    Signature,
    /// Whether the module's binary has the hash that was signed.
    ImageHash,
    /// Whether the platform is unlocked for debug modules. Reported for debug modules only.
    DebugUnlocked,
    /// The version of P-SEAMLDR. Reported for images of the 2.0 line only.
    SeamldrVersion,
    /// How many updates remain.
    RemainingUpdates,
    /// Whether a module runs.
    RunningModule,
    /// The SVN of the running module.
    RunningSvn,
    /// Whether the image is the running module.
    SameModule,
    /// The features of the running module (TDX_FEATURES0).
    Features,
    /// Which handoff versions the running module writes.
    HandoffVersions,
    /// Whether the handoff data of the running module fits into the new module's pages.
    HandoffData,
    /// How many LPs take part, or how many P-SEAMLDR waits for.
    Lps,
    /// Whether P-SEAMLDR takes the x2APIC ID of every LP.
    LpIds,
    /// Which processors the sockets have.
    Sockets,
    /// Whether the SEAM range has room for the module.
    Memory,
    /// Whether TDs are in build or migrations interrupted.
    SensitiveOperations,
    /// Whether P-SEAMLDR loads the image without a SEAMLDR.CLEANUP. Reported for
    /// [`Purpose::Load`](super::Purpose::Load) only.
    Cleanup,
}

/// A set of [`Unknown`]s that a [`Policy`](super::Policy) allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unknowns(u32);

impl Unknowns {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// Every unknown about the machine and the running module. [`Unknown::Signer`],
    /// [`Unknown::Signature`] and [`Unknown::ImageHash`] are not in this set. A caller that allows
    /// an unverified image adds them by [`with`](Self::with).
    pub const OF_PLATFORM: Self = Self(u32::MAX)
        .without(Unknown::Signer)
        .without(Unknown::Signature)
        .without(Unknown::ImageHash);

    /// Returns the set with this unknown.
    #[must_use]
    pub const fn with(self, unknown: Unknown) -> Self {
        Self(self.0 | unknown.bit())
    }

    /// Returns the set without this unknown.
    #[must_use]
    pub const fn without(self, unknown: Unknown) -> Self {
        Self(self.0 & !unknown.bit())
    }

    /// Whether the unknown is in the set.
    #[must_use]
    pub const fn contains(self, unknown: Unknown) -> bool {
        self.0 & unknown.bit() != 0
    }
}

impl Unknown {
    /// All unknowns.
    pub const ALL: [Self; 18] = [
        Self::Signer,
        Self::Signature,
        Self::ImageHash,
        Self::DebugUnlocked,
        Self::SeamldrVersion,
        Self::RemainingUpdates,
        Self::RunningModule,
        Self::RunningSvn,
        Self::SameModule,
        Self::Features,
        Self::HandoffVersions,
        Self::HandoffData,
        Self::Lps,
        Self::LpIds,
        Self::Sockets,
        Self::Memory,
        Self::SensitiveOperations,
        Self::Cleanup,
    ];

    #[allow(clippy::as_conversions)] // the discriminants are 0 to 17
    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Returns a name for the unknown. The name does not change between releases.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Signer => "unknown-signer",
            Self::Signature => "unknown-signature",
            Self::ImageHash => "unknown-image-hash",
            Self::DebugUnlocked => "unknown-debug-unlocked",
            Self::SeamldrVersion => "unknown-seamldr-version",
            Self::RemainingUpdates => "unknown-remaining-updates",
            Self::RunningModule => "unknown-running-module",
            Self::RunningSvn => "unknown-running-svn",
            Self::SameModule => "unknown-same-module",
            Self::Features => "unknown-features",
            Self::HandoffVersions => "unknown-handoff-versions",
            Self::HandoffData => "unknown-handoff-data",
            Self::Lps => "unknown-lps",
            Self::LpIds => "unknown-lp-ids",
            Self::Sockets => "unknown-sockets",
            Self::Memory => "unknown-memory",
            Self::SensitiveOperations => "unknown-sensitive-operations",
            Self::Cleanup => "unknown-cleanup",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signer => "the signer could not be checked",
            Self::Signature => "the signature could not be checked",
            Self::ImageHash => "the module's hash could not be checked",
            Self::DebugUnlocked => "whether the platform is unlocked for debug modules is unknown",
            Self::SeamldrVersion => "the version of P-SEAMLDR is unknown",
            Self::RemainingUpdates => "the number of remaining updates is unknown",
            Self::RunningModule => "whether a module runs is unknown",
            Self::RunningSvn => "the SVN of the running module is unknown",
            Self::SameModule => {
                "the hash of the running module is unknown, so it may be this image"
            }
            Self::Features => "the features of the running module (TDX_FEATURES0) are unknown",
            Self::HandoffVersions => "the handoff versions of the running module are unknown",
            Self::HandoffData => {
                "whether the handoff data fits into the new module's pages is unknown"
            }
            Self::Lps => {
                "the number of LPs that take part, or that P-SEAMLDR waits for, is unknown"
            }
            Self::LpIds => {
                "the highest x2APIC ID of the LPs is unknown, and P-SEAMLDR takes at most 1023"
            }
            Self::Sockets => "the processors of the sockets are unknown",
            Self::Memory => {
                "the room in the SEAM range is unknown: it depends on the range, P-SEAMLDR's base, \
                 the sockets and their LPs"
            }
            Self::SensitiveOperations => {
                "the number of TDs in build and interrupted migrations is unknown"
            }
            Self::Cleanup => {
                "whether P-SEAMLDR loads this image before a SEAMLDR.CLEANUP is unknown"
            }
        })
    }
}

impl core::error::Error for Unknown {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unknown_has_its_own_bit() {
        for (number, unknown) in Unknown::ALL.into_iter().enumerate() {
            let only = Unknowns::NONE.with(unknown);
            assert_eq!(only.0.trailing_zeros() as usize, number);
            for other in Unknown::ALL {
                assert_eq!(only.contains(other), other == unknown);
            }
            assert_eq!(only.with(unknown), only);
            assert_eq!(only.without(unknown), Unknowns::NONE);
        }
    }

    #[test]
    fn platform_set_contains_all_unknowns_except_those_of_verification() {
        let unverified = [Unknown::Signer, Unknown::Signature, Unknown::ImageHash];
        for unknown in Unknown::ALL {
            assert_eq!(Unknowns::OF_PLATFORM.contains(unknown), !unverified.contains(&unknown));
        }
    }
}
