//! What the model needs of its surroundings: memory that the host owns, and room for what lies out
//! of the host's reach.

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

/// Bytes of the code region: 2 MiB below P-SEAMLDR.
pub const CODE_SIZE: usize = 2 << 20;

/// Bytes kept of the handoff area: 32 pages, more than any module is known to use.
pub const HANDOFF_STORAGE: usize = 32 * 4096;

/// The host's memory, by physical address with its KeyID. An address with another KeyID is other
/// memory.
pub trait PhysMemory {
    /// Reads bytes that lie in one page. What is not there reads as 0.
    fn read(&self, address: u64, out: &mut [u8]);

    /// Writes bytes that lie in one page. What is not there stays so.
    fn write(&self, address: u64, bytes: &[u8]);
}

/// Room for everything of a platform that is more than a few words: the parts of the SEAM range
/// whose bytes matter, LPs, TDs, tables. It is about 2.3 MiB, far more than a stack, so it is made
/// where it stays: as a static with the value [`SeamMemory::ZEROED`], on the heap by `zerocopy`'s
/// `new_box_zeroed`, or out of bytes that are zero by
/// [`FromBytes::mut_from_bytes`](zerocopy::FromBytes::mut_from_bytes).
#[derive(Clone, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SeamMemory {
    pub(super) lps: [Lp; MAX_LPS],
    /// Where LPs read other MSRs and CPUID leaves than the processor's.
    pub(super) deviations: Deviations,
    /// What TDH.SYS.INIT read of them.
    pub(super) sampled: Sampled,
    pub(super) tds: [Td; MAX_TDS],
    /// What SEAMLDR.SEAMINFO copies out, and modules are told.
    pub(super) mcheck_table: PSysInfo,
    pub(super) params: SeamldrParams,
    pub(super) sigstruct: SeamSigstruct,
    /// A page that a module puts together for the host.
    pub(super) page: [u8; 4096],
    /// What TDH.SYS.CONFIG copies of the host's memory.
    pub(super) tdmr_infos: [TdmrInfo; MAX_TDMRS],
    /// What the module knows.
    pub(super) tables: Tables,
    /// The tables have an odd size.
    spare: u8,
    /// Header and data that one module hands to the next.
    pub(super) handoff: [u8; HANDOFF_STORAGE],
    /// Bytes at the start of the code region that are not zero.
    code_used: U64,
    pub(super) code: [u8; CODE_SIZE],
}

impl SeamMemory {
    /// Nothing but zeros.
    pub const ZEROED: Self = zerocopy::transmute!([0u8; size_of::<Self>()]);

    /// Makes everything zero again, without touching what is zero anyway.
    pub(super) fn clear(&mut self) {
        self.lps.zero();
        self.deviations.restore_all();
        self.sampled.zero();
        self.tds.zero();
        self.mcheck_table.zero();
        self.tables.clear();
        self.handoff.zero();
        self.clear_code();
    }

    pub(super) fn clear_code(&mut self) {
        let used = usize::try_from(self.code_used.get()).unwrap_or(CODE_SIZE).min(CODE_SIZE);
        self.code.iter_mut().take(used).for_each(|byte| *byte = 0);
        self.code_used = U64::new(0);
    }

    /// From now on so many bytes of the code region may not be zero.
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
