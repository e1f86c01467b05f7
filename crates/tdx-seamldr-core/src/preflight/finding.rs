//! The findings of preflight: a reason for a refusal, or an unknown fact.

use core::fmt;

use super::elf::ElfRefusal;
use super::facts::{HandoffRange, SeamldrVersion};
pub use super::unknown::{Unknown, Unknowns};
use crate::abi::{Svn, TdxFeatures0, FMS_MASK};
use crate::count::Count;
use crate::crypto::Sha384Digest;
use crate::debug::debug_fields;

/// A field of the SIGSTRUCT that does not have its only valid value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldMismatch {
    /// The field's name.
    pub name: &'static str,
    /// Its value.
    pub found: u64,
    /// The valid value.
    pub wanted: u64,
}

debug_fields! { FieldMismatch, found, wanted; name }

/// One reason why an update would be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The SIGSTRUCT area has this many pages; P-SEAMLDR takes 1.
    SigstructPages(u32),
    /// A field of the SIGSTRUCT is wrong.
    SigstructField(FieldMismatch),
    /// A reserved byte of the SIGSTRUCT is not zero.
    SigstructReserved {
        /// Its offset.
        offset: u32,
        /// Its value.
        found: u8,
    },
    /// The SIGSTRUCT uses bytes that P-SEAMLDR 2.0 added. This older P-SEAMLDR takes only zeros
    /// there.
    SeamldrTooOld {
        /// The version of the machine's P-SEAMLDR.
        found: SeamldrVersion,
    },
    /// The list of CPUs announces this many entries, more than the 255 that it has room for.
    CpuListLength(u32),
    /// The new module's lowest handoff version is above its highest.
    HandoffVersionsReversed {
        /// The lowest.
        min_update_hv: u16,
        /// The highest.
        module_hv: u16,
    },
    /// The offset of GDT and IDT is not a multiple of 4096.
    GdtOffsetMisaligned(u32),
    /// Only one of the offsets of GDT and fault wrappers is 0.
    GdtWithoutFaultWrapper {
        /// Offset of GDT and IDT.
        gdt_idt: u32,
        /// Offset of the fault wrappers.
        fault_wrapper: u32,
    },
    /// GDT and IDT do not lie inside the image.
    GdtOutside {
        /// Their offset.
        found: u32,
        /// The highest offset possible.
        limit: u32,
    },
    /// The fault wrappers do not lie inside the image.
    FaultWrapperOutside {
        /// Their offset.
        found: u32,
        /// The highest offset possible.
        limit: u32,
    },
    /// The SIGSTRUCT is signed by another key.
    Signer {
        /// The SHA-384 of the modulus of the image's key.
        found: Sha384Digest,
        /// The SHA-384 of the modulus of the key that P-SEAMLDR trusts.
        wanted: Sha384Digest,
    },
    /// The signature does not match the SIGSTRUCT.
    Signature,
    /// The module does not have the hash that was signed.
    ImageHash {
        /// The module's SHA-384.
        found: Sha384Digest,
        /// The SHA-384 in the SIGSTRUCT.
        wanted: Sha384Digest,
    },
    /// The image is a debug module and the platform is not unlocked.
    DebugModule,
    /// The image's major SVN is 0. Such a module cannot take TDs over, and a P-SEAMLDR with
    /// SEAMLDR.CLEANUP never takes it.
    MajorSvnZero,
    /// The image's major SVN is not the running module's.
    MajorSvn {
        /// The image's.
        found: Svn,
        /// The running module's.
        running: Svn,
    },
    /// The image's minor SVN is below the running module's.
    MinorSvn {
        /// The image's.
        found: Svn,
        /// The running module's.
        running: Svn,
    },
    /// The processor of this socket is not in the image's list of CPUs.
    Cpu {
        /// The socket's number.
        socket: u32,
        /// The socket's processor, by CPUID.1:EAX.
        cpuid: u32,
    },
    /// The image is a production module without a list of CPUs.
    NoCpuList,
    /// P-SEAMLDR refuses to load this SVN over the SVN of the module in place before every LP has
    /// called SEAMLDR.CLEANUP.
    CleanupRequired {
        /// The image's.
        found: Svn,
        /// The SVN of the module in place.
        running: Svn,
    },
    /// This P-SEAMLDR clears the handoff data when it installs a module.
    SeamldrWithoutHandoff {
        /// The version of the machine's P-SEAMLDR.
        found: SeamldrVersion,
    },
    /// P-SEAMLDR can install no more modules before a reboot.
    NoRemainingUpdates,
    /// For an update: no module runs. To take TDs over: no module is in place.
    NoModule,
    /// The number of LPs that take part is not the number of LPs of the platform, for which
    /// P-SEAMLDR waits.
    LpsMissing {
        /// LPs that take part.
        found: u32,
        /// LPs of the platform.
        wanted: u32,
    },
    /// An LP has a higher x2APIC ID than P-SEAMLDR takes.
    LpId {
        /// The highest x2APIC ID of an LP.
        found: u32,
        /// The highest that P-SEAMLDR takes.
        limit: u32,
    },
    /// The running module cannot hand its TDs over. The value is its TDX_FEATURES0.
    NotTdPreserving(TdxFeatures0),
    /// The running module writes no handoff version that the image takes.
    HandoffVersion {
        /// The versions that the running module writes.
        running: HandoffRange,
        /// The lowest that the new module takes.
        min_update_hv: u16,
        /// The highest that the new module takes.
        module_hv: u16,
    },
    /// The handoff data has a version that the image does not take.
    HandoffDataVersion {
        /// The version of the handoff data.
        found: u16,
        /// The lowest that the new module takes.
        min_update_hv: u16,
        /// The highest that the new module takes.
        module_hv: u16,
    },
    /// The image is the running module.
    SameModule,
    /// The SEAM range has no room for the module.
    Memory {
        /// Bytes that the SEAM range has for modules.
        found: u64,
        /// Bytes that the module needs.
        wanted: u64,
    },
    /// P-SEAMLDR would accept the module, destroy the old module, and then run out of memory for
    /// page tables. P-SEAMLDR's estimate of the page tables is too low.
    PageTables {
        /// Bytes that the SEAM range has for modules.
        found: u64,
        /// Bytes that the module needs with its page tables.
        wanted: u64,
    },
    /// The image cannot be relocated.
    Elf(ElfRefusal),
    /// The handoff data needs more pages than the new module has.
    HandoffPages {
        /// Pages that the new module has.
        found: u32,
        /// Pages that the handoff data needs.
        wanted: u32,
    },
    /// This many TDs are in build or migrations interrupted. The update would damage them.
    SensitiveOperations(u32),
}

/// A finding of preflight: a refusal or an unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// A reason for a refusal by P-SEAMLDR or a module, or TDs that the update would damage.
    Refusal(Refusal),
    /// A question that preflight could not answer.
    Unknown(Unknown),
}

impl Refusal {
    /// Returns a name for the reason. The name does not change between releases.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SigstructPages(_) => "sigstruct-pages",
            Self::SigstructField(_) => "sigstruct-field",
            Self::SigstructReserved { .. } => "sigstruct-reserved-not-zero",
            Self::SeamldrTooOld { .. } => "seamldr-too-old",
            Self::CpuListLength(_) => "cpu-list-length",
            Self::HandoffVersionsReversed { .. } => "handoff-versions-reversed",
            Self::GdtOffsetMisaligned(_) => "gdt-offset-misaligned",
            Self::GdtWithoutFaultWrapper { .. } => "gdt-without-fault-wrapper",
            Self::GdtOutside { .. } => "gdt-outside",
            Self::FaultWrapperOutside { .. } => "fault-wrapper-outside",
            Self::Signer { .. } => "signer",
            Self::Signature => "signature",
            Self::ImageHash { .. } => "image-hash",
            Self::DebugModule => "debug-module",
            Self::MajorSvnZero => "major-svn-zero",
            Self::MajorSvn { .. } => "major-svn",
            Self::MinorSvn { .. } => "minor-svn",
            Self::Cpu { .. } => "cpu",
            Self::NoCpuList => "no-cpu-list",
            Self::CleanupRequired { .. } => "cleanup-required",
            Self::SeamldrWithoutHandoff { .. } => "seamldr-without-handoff",
            Self::NoRemainingUpdates => "no-remaining-updates",
            Self::NoModule => "no-module",
            Self::LpsMissing { .. } => "lps-missing",
            Self::LpId { .. } => "lp-id",
            Self::NotTdPreserving(_) => "not-td-preserving",
            Self::HandoffVersion { .. } => "handoff-version",
            Self::HandoffDataVersion { .. } => "handoff-data-version",
            Self::SameModule => "same-module",
            Self::Memory { .. } => "memory",
            Self::PageTables { .. } => "page-tables",
            Self::Elf(_) => "elf",
            Self::HandoffPages { .. } => "handoff-pages",
            Self::SensitiveOperations(_) => "sensitive-operations",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SigstructPages(found) => {
                write!(f, "the SIGSTRUCT area has {}, but P-SEAMLDR takes 1", Count(*found, "page"))
            }
            Self::SigstructField(FieldMismatch { name, found, wanted }) => {
                write!(f, "the SIGSTRUCT's {name} is {found:#x}, but should be {wanted:#x}")
            }
            Self::SigstructReserved { offset, found } => write!(
                f,
                "the reserved byte at offset {offset} of the SIGSTRUCT is {found:#04x}, but \
                 should be 0"
            ),
            Self::SeamldrTooOld { found } => write!(
                f,
                "the image needs P-SEAMLDR 2.0 or later, but the machine has {found}: use an \
                 image of the 1.5 line"
            ),
            Self::CpuListLength(found) => {
                write!(
                    f,
                    "the SIGSTRUCT's list of CPUs has {found} entries, but should have \
                     at most 255"
                )
            }
            Self::HandoffVersionsReversed { min_update_hv, module_hv } => write!(
                f,
                "the SIGSTRUCT's lowest handoff version is {min_update_hv}, but should be at most \
                 its highest version, {module_hv}"
            ),
            Self::GdtOffsetMisaligned(found) => {
                write!(
                    f,
                    "the SIGSTRUCT's offset of the GDT is {found:#x}, but should be a multiple of \
                     4096"
                )
            }
            Self::GdtWithoutFaultWrapper { gdt_idt, fault_wrapper } => write!(
                f,
                "the SIGSTRUCT's offsets of GDT ({gdt_idt:#x}) and fault wrappers \
                 ({fault_wrapper:#x}) should both be 0 or neither"
            ),
            Self::GdtOutside { found, limit } => {
                write!(
                    f,
                    "the GDT is at offset {found:#x} of the image, but should be at {limit:#x} at \
                     most"
                )
            }
            Self::FaultWrapperOutside { found, limit } => write!(
                f,
                "the fault wrappers are at offset {found:#x} of the image, but should be at \
                 {limit:#x} at most"
            ),
            Self::Signer { found, wanted } => {
                f.write_str("another key signed the image: the SHA-384 of its modulus is ")?;
                write_hex(f, found)?;
                f.write_str(", but P-SEAMLDR trusts ")?;
                write_hex(f, wanted)
            }
            Self::Signature => f.write_str(
                "the signature does not match the SIGSTRUCT: the file is damaged, get it again",
            ),
            Self::ImageHash { found, wanted } => {
                f.write_str("the module's SHA-384 is ")?;
                write_hex(f, found)?;
                f.write_str(", but the SIGSTRUCT has ")?;
                write_hex(f, wanted)?;
                f.write_str(": the file is damaged, get it again")
            }
            Self::DebugModule => f.write_str(
                "the image is a debug module, and the platform is not unlocked for debug modules",
            ),
            Self::MajorSvnZero => {
                f.write_str("the image's major SVN is 0, but should be at least 1")
            }
            Self::MajorSvn { found, running } => write!(
                f,
                "the image's SVN is {found}, but the running module's is {running}: the major SVN \
                 must be the same"
            ),
            Self::MinorSvn { found, running } => {
                write!(
                    f,
                    "the image's SVN {found} is older than the running module's {running}: \
                     P-SEAMLDR refuses downgrades"
                )
            }
            Self::Cpu { socket, cpuid } => write!(
                f,
                "the processor {:#010x} of socket {socket} is not in the image's list of CPUs: use \
                 an image for this processor",
                cpuid & FMS_MASK
            ),
            Self::NoCpuList => {
                f.write_str("the image has no list of CPUs, but a production module needs one")
            }
            Self::CleanupRequired { found, running } => write!(
                f,
                "the image's SVN is {found}, but the module in place has {running}: P-SEAMLDR \
                 loads another major SVN or a lower minor SVN only after every LP has called \
                 SEAMLDR.CLEANUP, or after a reboot"
            ),
            Self::SeamldrWithoutHandoff { found } => write!(
                f,
                "P-SEAMLDR {found} cannot keep TDs in an update, but 1.5 and later can: update \
                 the BIOS"
            ),
            Self::NoRemainingUpdates => {
                f.write_str("no updates remain (0 left, 1 needed): reboot first")
            }
            Self::NoModule => f.write_str(
                "no module can hand TDs over, because none runs or is in place: load a module, or \
                 reboot",
            ),
            Self::LpsMissing { found, wanted } => {
                write!(f, "LPs that take part: {found}, but P-SEAMLDR waits for {wanted}: ")?;
                f.write_str(if found < wanted { "bring all LPs online" } else { "check the count" })
            }
            Self::LpId { found, limit } => {
                write!(f, "an LP has the x2APIC ID {found}, but P-SEAMLDR takes at most {limit}")
            }
            Self::NotTdPreserving(features) => write!(
                f,
                "the running module cannot hand its TDs over: TDX_FEATURES0 is {:#x}, but bit 1 \
                 (TD_PRESERVING) should be set",
                features.bits()
            ),
            Self::HandoffVersion { running, min_update_hv, module_hv } => write!(
                f,
                "the running module writes handoff versions {} to {}, but the image takes \
                 {min_update_hv} to {module_hv}",
                running.lowest_written(),
                running.module_hv
            ),
            Self::HandoffDataVersion { found, min_update_hv, module_hv } => write!(
                f,
                "the handoff data has version {found}, but the image takes {min_update_hv} to \
                 {module_hv}"
            ),
            Self::SameModule => f.write_str(
                "the image is the running module: an update would only use up a remaining one",
            ),
            Self::Memory { found, wanted } => {
                write!(
                    f,
                    "the module needs {} in the SEAM range, but only {found} are available",
                    Count(*wanted, "byte")
                )
            }
            Self::PageTables { found, wanted } => write!(
                f,
                "the module and its page tables need {} in the SEAM range, but only {found} are \
                 available: P-SEAMLDR would fail after it destroyed the old module",
                Count(*wanted, "byte")
            ),
            Self::Elf(refusal) => write!(f, "P-SEAMLDR cannot relocate the module: {refusal}"),
            Self::HandoffPages { found, wanted } => {
                write!(
                    f,
                    "the new module has {} for handoff data, but the running module leaves \
                     {wanted}",
                    Count(*found, "page")
                )
            }
            Self::SensitiveOperations(count) => write!(
                f,
                "TDs in build or interrupted migrations: {count}, which the update would damage: \
                 wait until they end"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

pub(super) fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl Finding {
    /// Returns a name for the finding. The name does not change between releases.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refusal(refusal) => refusal.code(),
            Self::Unknown(unknown) => unknown.code(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::Unknown(unknown) => unknown.fmt(f),
        }
    }
}
