//! Intel's definitions: leaves, status codes, structures in memory, metadata fields. Layout and
//! numbers, no logic.
//!
//! Every structure has little-endian fields and alignment 1. The compiler checks its size and the
//! offset of each field. The buffers around structures have the alignment that firmware asks for.

mod buffer;
mod features;
mod handoff;
mod info;
mod leaf;
mod metadata;
mod params;
mod seamldr_status;
mod sigstruct;
mod sysinfo;
mod tdx_status;

pub use buffer::{PSysInfoBuffer, SeamldrInfoBuffer, SeamldrParamsBuffer};
pub use features::{SeamldrFeatures0, TdxFeatures0};
pub use handoff::HandoffHeader;
pub use info::{SeamExtend, SeamldrInfo};
pub use leaf::{SeamldrLeaf, ShutdownRequest, TdxLeaf};
pub use metadata::{FieldId, FieldInfo};
pub use params::{Scenario, SeamldrParams, MAX_MODULE_PAGES};
pub use seamldr_status::{SeamldrStatus, SeamldrStatusClass, SeamldrStatusInfo};
pub use sigstruct::{SeamSigstruct, MAX_CPUID_ENTRIES};
pub use sysinfo::{Cmr, PSysInfo, MAX_SOCKETS};
pub use tdx_status::{OperandId, SensitiveReason, TdxStatus, TdxStatusInfo};

/// Bytes of a page for P-SEAMLDR and the TDX module. The host's own pages may be larger.
pub const PAGE_SIZE: usize = 4096;

/// The vendor number of Intel in all structures.
pub const INTEL_VENDOR_ID: u32 = 0x8086;

/// The bits of a processor signature (CPUID.1:EAX) that count in a list of CPUs: all except the
/// stepping, bits 3:0.
pub const FMS_MASK: u32 = !0xf;

/// IA32_VMX_BASIC (MSR 0x480) bit 60: a return from SEAM mode leaves the current-VMCS pointer
/// alone.
pub const VMX_BASIC_SEAMRET_PRESERVES_VMCS: u64 = 1 << 60;

/// A security version number. In an update the major half must stay the same and the minor half
/// must not fall.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Svn {
    /// The line of modules, e.g. 1 for 1.5.x.
    pub major: u8,
    /// The security version inside the line.
    pub minor: u8,
}

impl core::fmt::Display for Svn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

impl core::fmt::Debug for Svn {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, f)
    }
}

/// Fails to compile unless the structure has this size and alignment 1, and each field this offset.
macro_rules! assert_layout {
    ($type:ty, $size:expr, { $($field:ident: $offset:expr),* $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(core::mem::align_of::<$type>() == 1);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}
pub(crate) use assert_layout;
