//! Memory traits and storage: the host's memory, and the platform's own.

use core::fmt;

use tdx_seamldr_core::abi::{PSysInfo, SeamSigstruct, SeamldrParams};
use zerocopy::little_endian::U64;
use zerocopy::FromZeros as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::cpu::Deviations;
use super::handoff::{Tables, MAX_TDMRS};
use super::lp::Lp;
use super::module::{Sampled, TdmrInfo};
use super::td::{Td, MAX_TDS};
use super::MAX_LPS;

/// Size in bytes of the code region: 2 MiB below P-SEAMLDR.
pub const CODE_SIZE: usize = 2 << 20;

/// Bytes of the handoff area that the model stores: 32 pages, more than any known module uses.
pub const HANDOFF_STORAGE: usize = 32 * 4096;

/// The host's memory, by physical address with KeyID. An address with another KeyID is other
/// memory.
pub trait PhysMemory {
    /// Reads bytes that lie in one page. Missing memory reads as 0.
    fn read(&self, address: u64, out: &mut [u8]);

    /// Writes bytes that lie in one page. Writes to missing memory have no effect.
    fn write(&self, address: u64, bytes: &[u8]);
}

/// Storage of a platform: the parts of the SEAM range whose bytes matter, LPs, TDs, tables.
///
/// The size is about 2.3 MiB, far more than a stack has. So make it in its final place: as a static
/// with the value [`SeamMemory::ZEROED`], on the heap with `zerocopy`'s `new_box_zeroed`, or from
/// zeroed bytes with [`FromBytes::mut_from_bytes`](zerocopy::FromBytes::mut_from_bytes).
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SeamMemory {
    pub(super) lps: [Lp; MAX_LPS],
    /// Deviations of LPs from the processor's MSRs and CPUID.
    pub(super) deviations: Deviations,
    /// The MSRs and CPUID leaves that TDH.SYS.INIT read.
    pub(super) sampled: Sampled,
    pub(super) tds: [Td; MAX_TDS],
    /// The table that SEAMLDR.SEAMINFO returns and that P-SEAMLDR gives to modules.
    pub(super) mcheck_table: PSysInfo,
    pub(super) params: SeamldrParams,
    pub(super) sigstruct: SeamSigstruct,
    /// A page that a module prepares for the host.
    pub(super) page: [u8; 4096],
    /// TDH.SYS.CONFIG's copy of the host's TDMR_INFOs.
    pub(super) tdmr_infos: [TdmrInfo; MAX_TDMRS],
    /// The module's tables.
    pub(super) tables: Tables,
    /// Padding: the tables have an odd size.
    spare: u8,
    /// Handoff header and data.
    pub(super) handoff: [u8; HANDOFF_STORAGE],
    /// Length of the code region's start that may contain bytes other than zero.
    code_used: U64,
    pub(super) code: [u8; CODE_SIZE],
}

impl SeamMemory {
    /// All zeros.
    pub const ZEROED: Self = zerocopy::transmute!([0u8; size_of::<Self>()]);

    /// Sets all bytes to zero. Skips memory that is known to be zero.
    pub(super) fn clear(&mut self) {
        self.lps.zero();
        self.deviations.restore_all();
        self.sampled.zero();
        self.tds.zero();
        self.mcheck_table.zero();
        self.tables.zero();
        self.handoff.zero();
        self.clear_code();
    }

    pub(super) fn clear_code(&mut self) {
        let used = usize::try_from(self.code_used.get()).unwrap_or(CODE_SIZE).min(CODE_SIZE);
        self.code.iter_mut().take(used).for_each(|byte| *byte = 0);
        self.code_used = U64::new(0);
    }

    /// Declares that this number of bytes of the code region may be other than zero.
    pub(super) fn new_code(&mut self, size: usize) {
        self.clear_code();
        self.code_used = U64::new(u64::try_from(size).unwrap_or(u64::MAX));
    }
}

impl fmt::Debug for SeamMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeamMemory").finish_non_exhaustive()
    }
}
