//! The platform behind a lock: one thread per LP can call at the same time.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tdx_seamldr_core::abi::{PSysInfoBuffer, Scenario, SeamldrInfoBuffer, Svn};
use tdx_seamldr_core::preflight::Facts;
use tdx_seamldr_core::SharedMemory;
use tdx_seamldr_core::{
    CurrentVmcs, InstallRequest, LpBits, MachineId, ModuleState, PhysAddr, Seamldr, Sha384Digest,
};
use tdx_seamldr_core::{SeamldrError, SpinLock, TdxImage, TdxModule, TdxVersion};

use super::builder::{BootError, Builder, NoMemory, Provider};
use super::host_memory::HostMemory;
use super::lp::SimLp;
use super::tds::{NoRoomForTd, Tds};
use crate::model::{self, FaultId, SeamMemory, TdError, TdId, TdPhase};
use crate::{Fault, PageBuf, TraceEntry};

pub(super) struct Inner {
    pub(super) model: model::Platform<Box<SeamMemory>>,
    /// Number of SEAMCALLs since the platform was made.
    pub(super) calls: u64,
    pub(super) trace: Vec<TraceEntry>,
    pub(super) tds: Tds,
}

/// A simulated platform that threads share. Each thread calls through its own [`SimLp`].
pub struct SimPlatform {
    pub(super) num_lps: u32,
    pub(super) patience: u32,
    pub(super) yielding: Option<fn()>,
    pub(super) crypto: Provider,
    pub(super) offline: BTreeSet<u32>,
    pub(super) inner: Mutex<Inner>,
    pub(super) memory: HostMemory,
    pub(super) module_state: ModuleState<[LpBits; 16]>,
    pub(super) machine: MachineId,
}

impl core::fmt::Debug for SimPlatform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SimPlatform")
            .field("num_lps", &self.num_lps)
            .field("truth", &self.truth())
            .finish_non_exhaustive()
    }
}

/// The real state of the module, which may differ from what the host believes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleTruth {
    /// Version of the module.
    pub version: TdxVersion,
    /// State of the module.
    pub state: model::ModuleState,
    /// Whether SEAMCALL reaches the module.
    pub callable: bool,
}

/// The real state of the platform, which may differ from what the host believes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The module in the SEAM range, if there is one.
    pub module: Option<ModuleTruth>,
    /// SVN in SEAMEXTEND.
    pub svn: Svn,
    /// Hash of the module in SEAMEXTEND.
    pub mrseam: Sha384Digest,
    /// Number of TDs that were made.
    pub tds: usize,
    /// Number of TDs that can run and whose memory is intact.
    pub tds_alive: usize,
    /// Whether the handoff data is valid.
    pub handoff_valid: bool,
    /// Number of LPs in the open INSTALL session; 0 if no session is open.
    pub lps_in_session: u32,
    /// Number of remaining updates that P-SEAMLDR remembers.
    pub remaining_updates: u32,
}

impl Truth {
    /// Returns the real state of a platform that has these TDs.
    #[must_use]
    pub fn of(platform: &model::Platform<Box<SeamMemory>>, tds: &Tds) -> Self {
        let seamextend = platform.loader().seamextend();
        Self {
            module: platform.module().map(|module| ModuleTruth {
                version: module.build().version,
                state: module.state(),
                callable: platform.module_is_callable(),
            }),
            svn: seamextend.svn(),
            mrseam: seamextend.mrseam,
            tds: tds.count(),
            tds_alive: tds.count_alive(platform),
            handoff_valid: platform.handoff_header().valid != 0,
            lps_in_session: platform.loader().lps_in_session(),
            remaining_updates: platform.loader().num_remaining_updates(),
        }
    }
}

impl SimPlatform {
    /// Returns a builder: 4 LPs, 1 socket of Sapphire Rapids, and P-SEAMLDR 1.5.00 that trusts the
    /// test key.
    #[must_use]
    pub const fn builder() -> Builder {
        Builder::new()
    }

    /// Returns one LP: the SEAMCALL backend and the host for code that runs on this LP.
    #[must_use]
    pub fn lp(&self, lp: u32) -> SimLp<'_> {
        self.lp_that_yields(lp, std::thread::yield_now)
    }

    /// Returns one LP whose thread keeps its CPU during a call, unless the builder sets a callback.
    /// A thread that yields at each call waits for other processes at each call.
    pub(super) fn lp_that_keeps_its_cpu(&self, lp: u32) -> SimLp<'_> {
        self.lp_that_yields(lp, || {})
    }

    fn lp_that_yields(&self, lp: u32, by_default: fn()) -> SimLp<'_> {
        let yielding = self.yielding.unwrap_or(by_default);
        SimLp { platform: self, lp, yielding, looks: AtomicU32::new(0) }
    }

    /// Lets other threads run while an LP waits for them.
    pub(super) fn let_others_come(&self) {
        self.yielding.unwrap_or(std::thread::yield_now)();
    }

    /// Returns the number of online LPs.
    pub(super) fn num_online(&self) -> usize {
        let lps = usize::try_from(self.num_lps).unwrap_or(usize::MAX);
        lps.saturating_sub(self.offline.range(..self.num_lps).count())
    }

    /// Iterates over the online LPs.
    pub fn online(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.num_lps).filter(|lp| !self.offline.contains(lp))
    }

    /// Returns what the host's software remembers about the module.
    #[must_use]
    pub const fn module_state(&self) -> &ModuleState {
        &self.module_state
    }

    /// Returns all facts that preflight asks for. The first online LP reads the firmware's facts;
    /// [`complete`](Self::complete) adds the others.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR does not answer.
    pub fn facts(&self) -> Result<Facts, SeamldrError> {
        let (lp, lock) = (self.lp(self.online().next().unwrap_or(0)), SpinLock::new());
        let (mut info, mut sysinfo) =
            (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::zeroed()));
        let mut facts = Facts::new();
        facts.gather(&seamldr(&lp, &lock), &mut info, &mut sysinfo)?;
        self.complete(&mut facts);
        Ok(facts)
    }

    /// Adds the facts that the host's software reads or counts itself: MSRs, CPUID, and TDs in
    /// build.
    pub fn complete(&self, facts: &mut Facts) {
        let inner = self.inner();
        let config = inner.model.config();
        facts.signer = Some(config.signer);
        facts.highest_x2apic_id =
            (0..config.num_lps).filter_map(|lp| inner.model.x2apic_id(lp)).max();
        facts.shared_memory = Some(SharedMemory {
            address_bits: u8::try_from(config.max_pa).unwrap_or(u8::MAX),
            keyid_bits: u8::try_from(config.keyid_bits).unwrap_or(u8::MAX),
            first_private_keyid: u32::try_from(config.private_hkid_min).unwrap_or(u32::MAX),
            seam_range_base: config.seamrr_base,
            seam_range_size: config.seamrr_size,
        });
        facts.debug_unlocked = Some(config.debug_unlocked);
        facts.addressable_lps_per_socket = Some(config.addressable_lps_per_socket);
        facts.seamrr_base = Some(config.seamrr_base);
        let sensitive = inner.model.tds().filter(|(_, td)| td.phase() != TdPhase::Running).count();
        facts.sensitive_operations = u32::try_from(sensitive).ok();
    }

    /// Plans a fault. Returns its number, for [`end_fault`](Self::end_fault). At the end of a test,
    /// [`unfired_faults`](Self::unfired_faults) says whether the fault has affected a call.
    ///
    /// # Panics
    ///
    /// [`model::MAX_FAULTS`] are planned already.
    #[allow(clippy::expect_used)] // misuse in a test's own code
    pub fn inject(&self, fault: Fault) -> FaultId {
        self.inner().model.faults_mut().add(fault).expect("room for a fault")
    }

    /// Ends one fault: it affects no further call. Returns `false` if this platform never had the
    /// fault.
    pub fn end_fault(&self, fault: FaultId) -> bool {
        self.inner().model.faults_mut().end(fault)
    }

    /// Returns how many more calls a fault affects, or 0 if the fault is over. Returns `None` if
    /// this platform never had the fault.
    #[must_use]
    pub fn fault_times_left(&self, fault: FaultId) -> Option<u32> {
        self.inner().model.faults_mut().times_left(fault)
    }

    /// Returns the faults that have affected no call yet, in the order in which they were planned.
    /// If a fault has affected no call, the test has not tested it.
    #[must_use]
    pub fn unfired_faults(&self) -> Vec<(FaultId, Fault)> {
        let mut unfired: Vec<_> = self.inner().model.faults_mut().unfired().collect();
        unfired.sort_unstable_by_key(|(id, _)| *id);
        unfired
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.inner().model.faults_mut().clear();
    }

    /// Makes firmware read this byte with the bits of `mask` flipped, from now on. A mask of 0
    /// restores the byte. Returns `false` if there is no room for another byte, or if firmware was
    /// never given the address of this page.
    #[must_use]
    pub fn tamper(&self, byte: &u8, mask: u8) -> bool {
        let address = self.memory.known_address(byte);
        address.is_some_and(|address| self.inner().model.tamper(address.0, mask))
    }

    /// Gives access to the model itself, for changes that no call can make.
    pub fn with_model<R>(
        &self,
        change: impl FnOnce(&mut model::Platform<Box<SeamMemory>>) -> R,
    ) -> R {
        change(&mut self.inner().model)
    }

    /// Returns whether an LP is inside P-SEAMLDR now. Other LPs then get VMfailInvalid.
    #[must_use]
    pub fn seamldr_is_entered(&self) -> bool {
        self.inner().model.lp_in_seamldr().is_some()
    }

    /// Returns the calls since the platform came up, in the order in which they ended.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.inner().trace.clone()
    }

    /// Returns the number of calls in [`trace`](Self::trace).
    #[must_use]
    pub fn num_calls(&self) -> usize {
        self.inner().trace.len()
    }

    /// Clears the trace.
    pub fn clear_trace(&self) {
        self.inner().trace.clear();
    }

    /// Makes a TD that runs.
    ///
    /// # Errors
    ///
    /// No module is ready, or there is no room for another TD.
    pub fn create_td(&self) -> Result<TdId, NoRoomForTd> {
        self.create_td_in(TdPhase::Running)
    }

    /// Makes a TD in this phase.
    ///
    /// # Errors
    ///
    /// No module is ready, or there is no room for another TD.
    pub fn create_td_in(&self, phase: TdPhase) -> Result<TdId, NoRoomForTd> {
        let Inner { model, tds, .. } = &mut *self.inner();
        tds.create(model, phase)
    }

    /// Adds a page with this content to a TD in build, and to its MRTD.
    ///
    /// # Errors
    ///
    /// See [`TdError`].
    pub fn extend_td(&self, td: TdId, data: &[u8]) -> Result<(), TdError> {
        let Inner { model, tds, .. } = &mut *self.inner();
        tds.extend(model, td, data)
    }

    /// Completes a TD's build or its migration. Returns whether the measurement or MAC is correct.
    ///
    /// # Errors
    ///
    /// See [`TdError`].
    pub fn finish_td(&self, td: TdId) -> Result<bool, TdError> {
        let Inner { model, tds, .. } = &mut *self.inner();
        tds.finish(model, td)
    }

    /// Returns whether a TD can run and its memory is intact.
    #[must_use]
    pub fn td_is_alive(&self, td: TdId) -> bool {
        let inner = self.inner();
        inner.tds.is_alive(&inner.model, td)
    }

    /// Returns whether a TD's measurement so far, or the MAC of its migration so far, is correct.
    /// Returns `None` if this platform never made the TD.
    #[must_use]
    pub fn td_measurement_is_right(&self, td: TdId) -> Option<bool> {
        let inner = self.inner();
        inner.tds.measurement_is_right(&inner.model, td)
    }

    /// Returns the real state of the platform.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let inner = self.inner();
        Truth::of(&inner.model, &inner.tds)
    }

    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Boots: does what firmware and kernel do.
    pub(super) fn load(&self, image: &TdxImage<'_>) -> Result<(), BootError> {
        let image = PageBuf::copy_of(image.as_bytes());
        let image = TdxImage::parse_without_checksum(image.as_bytes())?;
        let mut params = PageBuf::zeroed(1);
        let request =
            InstallRequest::build(params.as_params(), &image, Scenario::Load, &self.lp(0))?;
        let lock = SpinLock::new();
        let lps: Vec<SimLp<'_>> =
            (0..self.num_lps).map(|lp| self.lp_that_keeps_its_cpu(lp)).collect();
        for lp in &lps {
            seamldr(lp, &lock).install(&request)?;
        }
        self.bring_up()?;
        if let Some(lp) = lps.first() {
            seamldr(lp, &lock).info(&mut SeamldrInfoBuffer::zeroed())?;
        }
        Ok(())
    }

    /// Initialises the installed module on all LPs and gives it memory and a key, as a kernel does
    /// at boot. The module then has no TDs.
    ///
    /// # Errors
    ///
    /// The module does not become ready.
    pub fn bring_up(&self) -> Result<(), BootError> {
        self.module_state().reset();
        for lp in 0..self.num_lps {
            let module = self.lp_that_keeps_its_cpu(lp);
            TdxModule::new(&module)
                .enable_lp(&self.module_state, lp)
                .map_err(|(_, error)| error)?;
        }
        let list = self.tdmr_list().ok_or(NoMemory)?;
        // SAFETY: the list and the page that it points to are alive. The simulated module does not
        // touch TDMRs and PAMTs.
        unsafe {
            TdxModule::new(&self.lp_that_keeps_its_cpu(0)).sys_config(
                list.address(),
                1,
                GLOBAL_HKID,
                false,
            )
        }?;
        for lp in 0..self.num_lps {
            if !self.module_is_ready() {
                TdxModule::new(&self.lp_that_keeps_its_cpu(lp)).sys_key_config()?;
            }
        }
        if !self.module_is_ready() {
            return Err(BootError::NotReady);
        }
        self.module_state().set_ready();
        Ok(())
    }

    /// Returns memory for TDs, as an argument of TDH.SYS.CONFIG: 1 GiB that nothing else uses,
    /// followed by its PAMTs. Returns `None` if the host's memory is full.
    #[must_use]
    pub fn tdmr_list(&self) -> Option<TdmrList> {
        const TDMR: u64 = 32 << 30;
        const SIZE: u64 = 1 << 30;
        const PAMT_SIZES: [u64; 3] = [0x1000, 0x2000, 0x40_0000];
        let mut next = TDMR + SIZE;
        let pamts = PAMT_SIZES.into_iter().flat_map(|size| {
            let base = next;
            next = next.saturating_add(size);
            [base, size]
        });
        let info = self.host_page([TDMR, SIZE].into_iter().chain(pamts))?;
        let list = self.host_page([info.address.0])?;
        Some(TdmrList { list, _info: info })
    }

    /// Returns a page of the host's memory that contains these words.
    fn host_page(&self, words: impl IntoIterator<Item = u64>) -> Option<HostPage> {
        let mut page = PageBuf::zeroed(1);
        for (slot, word) in page.as_mut_bytes().chunks_exact_mut(8).zip(words) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        let start = page.as_bytes().as_ptr();
        let _ = start.expose_provenance();
        Some(HostPage { address: self.memory.phys_addr(start)?, _page: page })
    }

    fn module_is_ready(&self) -> bool {
        let inner = self.inner();
        inner.model.module().is_some_and(|module| module.state() == model::ModuleState::Ready)
    }
}

/// Returns P-SEAMLDR on an LP of the simulation, which has no VMCS to lose.
#[allow(clippy::expect_used)] // `CurrentVmcs::Preserved` is never refused
fn seamldr<'a>(lp: &'a SimLp<'a>, lock: &'a SpinLock) -> Seamldr<'a, SimLp<'a>, SpinLock> {
    Seamldr::new(lp, lock, CurrentVmcs::Preserved).expect("no erratum")
}

/// The global KeyID that the module gets at boot.
const GLOBAL_HKID: u64 = 0x20;

/// A list of one TDMR in the host's memory.
#[derive(Debug)]
pub struct TdmrList {
    list: HostPage,
    /// The page that the list points to.
    _info: HostPage,
}

impl TdmrList {
    /// Returns the physical address of the list.
    #[must_use]
    pub const fn address(&self) -> PhysAddr {
        self.list.address
    }
}

/// A page of the host's memory that firmware can read.
#[derive(Debug)]
struct HostPage {
    address: PhysAddr,
    _page: PageBuf,
}
