//! The platform behind a lock, for as many threads as there are LPs.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tdx_seamldr_core::abi::{PSysInfoBuffer, Scenario, SeamldrInfoBuffer, Svn};
use tdx_seamldr_core::image::ImageError;
use tdx_seamldr_core::preflight::{Facts, SharedMemory};
use tdx_seamldr_core::{
    BuildError, Crypto, CurrentVmcs, Host, InstallError, InstallRequest, LpBits, MachineId, ModuleState,
    Patience,
};
use tdx_seamldr_core::{
    PhysAddr, SeamcallBackend, SeamcallRegs, Seamldr, SeamldrError, Sha384Digest, SpinLock,
};
use tdx_seamldr_core::{TdxError, TdxImage, TdxModule, TdxVersion, Trap};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

use super::host_memory::HostMemory;
use crate::model::{self, Config, ConfigError, LoaderProfile, SeamDb, SeamMemory, TdError, TdId, TdPhase};
use crate::{Fault, PageBuf, TraceEntry, TEST_SIGNER};

/// Why a platform did not come up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootError {
    /// There is no such platform.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The copy of the image that firmware reads is no image.
    #[error("the boot image cannot be read: {0}")]
    Image(#[from] ImageError),
    /// The image cannot be handed to P-SEAMLDR.
    #[error("the boot image cannot be installed: {0}")]
    Build(#[from] BuildError),
    /// There is no memory for the platform.
    #[error(transparent)]
    Memory(#[from] NoMemory),
    /// P-SEAMLDR refused the image.
    #[error("the boot image was not installed: {0}")]
    Install(#[from] InstallError),
    /// P-SEAMLDR could not be asked.
    #[error("P-SEAMLDR could not be asked after booting: {0}")]
    Seamldr(#[from] SeamldrError),
    /// The module did not come up.
    #[error("the boot module did not come up: {0}")]
    Module(#[from] TdxError),
    /// The module waits for a package that has no LP.
    #[error("the boot module is not ready after every LP has called TDH.SYS.KEY.CONFIG")]
    NotReady,
}

/// The platform has no room for another TD, or no module that could run it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the platform has no module that is ready, or no room for another TD")]
pub struct NoRoomForTd;

/// What a platform is to be like.
#[derive(Clone, Debug)]
pub struct Builder {
    lps: u32,
    sockets: u32,
    fms: u32,
    signer: Sha384Digest,
    profile: LoaderProfile,
    seamdb: SeamDb,
    host_page_size: usize,
    patience: u32,
    yielding: Option<fn()>,
    crypto: Provider,
    offline: BTreeSet<u32>,
}

/// Whoever hashes and verifies for the firmware.
#[derive(Clone, Copy)]
struct Provider(&'static (dyn Crypto + Sync));

impl core::fmt::Debug for Provider {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Provider").finish_non_exhaustive()
    }
}

impl Builder {
    /// So many LPs; otherwise 4.
    #[must_use]
    pub const fn lps(mut self, lps: u32) -> Self {
        self.lps = lps;
        self
    }

    /// So many sockets; otherwise 1.
    #[must_use]
    pub const fn sockets(mut self, sockets: u32) -> Self {
        self.sockets = sockets;
        self
    }

    /// Processors of this kind (CPUID.1:EAX); otherwise 0x806F8.
    #[must_use]
    pub const fn fms(mut self, fms: u32) -> Self {
        self.fms = fms;
        self
    }

    /// Processors of the first kind in the image's list, and a P-SEAMLDR of the image's line. Whom it trusts remains as it is.
    #[must_use]
    pub fn fitting(self, image: &TdxImage<'_>) -> Self {
        let sigstruct = image.sigstruct();
        let line_2_0 = sigstruct.reserved3.iter().any(|byte| *byte != 0);
        let fms = sigstruct.cpus().first().map_or(self.fms, |cpu| cpu.get());
        self.fms(fms).profile(if line_2_0 { LoaderProfile::V2_0_00 } else { LoaderProfile::V1_5_00 })
    }

    /// P-SEAMLDR trusts this signer; otherwise [`TEST_SIGNER`].
    #[must_use]
    pub const fn signer(mut self, signer: Sha384Digest) -> Self {
        self.signer = signer;
        self
    }

    /// This generation of P-SEAMLDR; otherwise 1.5.00.
    #[must_use]
    pub const fn profile(mut self, profile: LoaderProfile) -> Self {
        self.profile = profile;
        self
    }

    /// So many modules can be installed, the one at boot included; otherwise 64.
    #[must_use]
    pub const fn seamdb_size(mut self, size: u32) -> Self {
        self.seamdb.size = size;
        self
    }

    /// The host's own pages have this size, 4096 to 65536; otherwise 4096.
    #[must_use]
    pub const fn host_page_size(mut self, size: usize) -> Self {
        self.host_page_size = size;
        self
    }

    /// An LP that waits gives up after so many looks at the others; otherwise after 100 million.
    #[must_use]
    pub const fn patience(mut self, looks: u32) -> Self {
        self.patience = looks;
        self
    }

    /// What an LP calls where others may come before it: on the way into firmware and inside of it, and while it waits. Otherwise
    /// [`std::thread::yield_now`]; [`boot`](Self::boot), [`run_on_threads`](crate::run_on_threads) and
    /// [`run_stepped`](crate::run_stepped) then call it only while an LP waits. The place for a scheduler that tries orders out.
    #[must_use]
    pub const fn yielding(mut self, yielding: fn()) -> Self {
        self.yielding = Some(yielding);
        self
    }

    /// Firmware hashes and verifies with this; otherwise with [`RustCrypto`]. For tests that do the same many times, and remember.
    #[must_use]
    pub const fn crypto(mut self, crypto: &'static (dyn Crypto + Sync)) -> Self {
        self.crypto = Provider(crypto);
        self
    }

    /// This LP is there when firmware counts, and takes part in booting, but goes offline then.
    #[must_use]
    pub fn offline(mut self, lp: u32) -> Self {
        self.offline.insert(lp);
        self
    }

    /// Boots: firmware loads `image`, which passes all of P-SEAMLDR's checks, and the module comes up on every LP.
    ///
    /// # Errors
    ///
    /// See [`BootError`].
    pub fn boot(self, image: &TdxImage<'_>) -> Result<SimPlatform, BootError> {
        let config = Config::new(self.lps, self.sockets, self.fms, self.signer, self.profile)?;
        let platform = SimPlatform {
            num_lps: self.lps,
            patience: self.patience,
            yielding: self.yielding,
            crypto: self.crypto,
            offline: self.offline,
            inner: Mutex::new(Inner {
                model: model::Platform::new(config, self.seamdb, seam_memory()?),
                calls: 0,
                trace: Vec::new(),
                secrets: Vec::new(),
            }),
            memory: HostMemory::new(self.host_page_size),
            module_state: ModuleState::new(),
            machine: next_machine(),
        };
        platform.load(image)?;
        platform.memory.forget();
        platform.clear_trace();
        Ok(platform)
    }
}

/// A number that no other platform of this process has. Nothing that a platform answers depends on it.
fn next_machine() -> MachineId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    MachineId(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Memory for a platform, from the heap.
pub(super) fn seam_memory() -> Result<Box<SeamMemory>, NoMemory> {
    SeamMemory::new_box_zeroed().map_err(|_| NoMemory)
}

/// There is no memory for a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for another platform; each takes 2.3 MiB")]
pub struct NoMemory;

struct Inner {
    model: model::Platform<Box<SeamMemory>>,
    /// Calls that were made, at all.
    calls: u64,
    trace: Vec<TraceEntry>,
    /// What each TD's private memory has to hold.
    secrets: Vec<(TdId, [u8; 32])>,
}

/// A simulated platform. Share it between threads, one for each LP, and let each of them call through its own [`SimLp`].
pub struct SimPlatform {
    num_lps: u32,
    patience: u32,
    yielding: Option<fn()>,
    crypto: Provider,
    offline: BTreeSet<u32>,
    inner: Mutex<Inner>,
    memory: HostMemory,
    module_state: ModuleState<[LpBits; 16]>,
    machine: MachineId,
}

impl core::fmt::Debug for SimPlatform {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("SimPlatform")
            .field("num_lps", &self.num_lps)
            .field("truth", &self.truth())
            .finish_non_exhaustive()
    }
}

/// The module as the platform knows it, whatever anybody claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleTruth {
    /// Its version.
    pub version: TdxVersion,
    /// How far it has come.
    pub state: model::ModuleState,
    /// Whether SEAMCALL reaches it.
    pub callable: bool,
}

/// How things stand on the platform, whatever anybody claims.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truth {
    /// The module in the SEAM range.
    pub module: Option<ModuleTruth>,
    /// SVN in SEAMEXTEND.
    pub svn: Svn,
    /// Hash of the module in SEAMEXTEND.
    pub mrseam: Sha384Digest,
    /// TDs that were made.
    pub tds: usize,
    /// TDs that can run and find their memory as it was.
    pub tds_alive: usize,
    /// The handoff data is there for a module to take.
    pub handoff_valid: bool,
    /// LPs in an INSTALL session that has not ended; 0 if none is open.
    pub lps_in_session: u32,
    /// Updates that remain, as P-SEAMLDR remembers.
    pub remaining_updates: u32,
}

impl SimPlatform {
    /// A platform of 4 LPs on one socket of Sapphire Rapids, with P-SEAMLDR 1.5.00 that trusts the test key.
    #[must_use]
    pub const fn builder() -> Builder {
        Builder {
            lps: 4,
            sockets: 1,
            fms: 0x806f8,
            signer: TEST_SIGNER,
            profile: LoaderProfile::V1_5_00,
            seamdb: SeamDb { size: 64, used: 0, insert_failures: 0 },
            host_page_size: 4096,
            patience: 100_000_000,
            yielding: None,
            crypto: Provider(&RustCrypto),
            offline: BTreeSet::new(),
        }
    }

    /// One LP: the backend and the host for code that runs on it.
    #[must_use]
    pub fn lp(&self, lp: u32) -> SimLp<'_> {
        self.lp_that_yields(lp, std::thread::yield_now)
    }

    /// One LP whose thread keeps its CPU during a call, unless the builder sets what to call. A thread that gives its CPU away at each
    /// call waits for the rest of the machine as often.
    pub(super) fn lp_that_keeps_its_cpu(&self, lp: u32) -> SimLp<'_> {
        self.lp_that_yields(lp, || {})
    }

    fn lp_that_yields(&self, lp: u32, by_default: fn()) -> SimLp<'_> {
        let yielding = self.yielding.unwrap_or(by_default);
        SimLp { platform: self, lp, yielding, looks: AtomicU32::new(0) }
    }

    /// Lets other threads come while an LP waits for them.
    pub(super) fn let_others_come(&self) {
        self.yielding.unwrap_or(std::thread::yield_now)();
    }

    /// The number of LPs that are online.
    fn num_online(&self) -> usize {
        let lps = usize::try_from(self.num_lps).unwrap_or(usize::MAX);
        lps.saturating_sub(self.offline.range(..self.num_lps).count())
    }

    /// The LPs that are online.
    pub fn online(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.num_lps).filter(|lp| !self.offline.contains(lp))
    }

    /// What the host's software remembers about the module.
    #[must_use]
    pub const fn module_state(&self) -> &ModuleState {
        &self.module_state
    }

    /// All facts that preflight asks for: what the firmware tells the first LP that is online, and what [`complete`](Self::complete)
    /// adds.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR does not answer.
    pub fn facts(&self) -> Result<Facts, SeamldrError> {
        let (lp, lock) = (self.lp(self.online().next().unwrap_or(0)), SpinLock::new());
        let (mut info, mut sysinfo) = (SeamldrInfoBuffer::zeroed(), Box::new(PSysInfoBuffer::new_zeroed()));
        let mut facts = Facts::new();
        facts.gather(&seamldr(&lp, &lock), &mut info, &mut sysinfo)?;
        self.complete(&mut facts);
        Ok(facts)
    }

    /// Adds the facts that the host's software reads or counts itself: MSRs, CPUID, and TDs in build.
    pub fn complete(&self, facts: &mut Facts) {
        let inner = self.inner();
        let config = inner.model.config();
        facts.signer = Some(config.signer);
        facts.highest_x2apic_id = config.num_lps.checked_sub(1);
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

    /// Plans a fault.
    ///
    /// # Panics
    ///
    /// [`model::MAX_FAULTS`] are planned already.
    #[allow(clippy::expect_used)] // misuse in a test's own code
    pub fn inject(&self, fault: Fault) {
        self.inner().model.faults_mut().add(fault).expect("room for a fault");
    }

    /// Takes back all faults.
    pub fn clear_faults(&self) {
        self.inner().model.faults_mut().clear();
    }

    /// From now on firmware reads this byte with these bits changed; with a mask of 0, as it is. `false`: there is no room for
    /// another byte, or firmware was never told of the page.
    #[must_use]
    pub fn tamper(&self, byte: &u8, mask: u8) -> bool {
        let address = self.memory.known_address(byte);
        address.is_some_and(|address| self.inner().model.tamper(address.0, mask))
    }

    /// Changes the model itself: what is not possible by a call.
    pub fn with_model<R>(&self, change: impl FnOnce(&mut model::Platform<Box<SeamMemory>>) -> R) -> R {
        change(&mut self.inner().model)
    }

    /// Whether an LP is inside P-SEAMLDR at this moment, so that others get VMfailInvalid.
    #[must_use]
    pub fn seamldr_is_entered(&self) -> bool {
        self.inner().model.lp_in_seamldr().is_some()
    }

    /// The calls since the platform has come up, in the order in which they came to their ends.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.inner().trace.clone()
    }

    /// How many calls there were since then.
    #[must_use]
    pub fn num_calls(&self) -> usize {
        self.inner().trace.len()
    }

    /// Forgets the calls so far.
    pub fn clear_trace(&self) {
        self.inner().trace.clear();
    }

    /// Makes a TD that runs.
    ///
    /// # Errors
    ///
    /// There is no module that is ready, or no room.
    pub fn create_td(&self) -> Result<TdId, NoRoomForTd> {
        self.create_td_in(TdPhase::Running)
    }

    /// Makes a TD that has come so far.
    ///
    /// # Errors
    ///
    /// There is no module that is ready, or no room.
    pub fn create_td_in(&self, phase: TdPhase) -> Result<TdId, NoRoomForTd> {
        let mut inner = self.inner();
        let number = inner.secrets.len().to_le_bytes();
        let mut secret = [0x5a; 32];
        secret.iter_mut().zip(number.iter().cycle()).for_each(|(byte, number)| *byte ^= number);
        let td = inner.model.create_td(phase, secret).ok_or(NoRoomForTd)?;
        inner.secrets.push((td, secret));
        Ok(td)
    }

    /// A TD's build, or its migration, comes to its end. `Ok(true)`: with the measurement or MAC that it has to have.
    ///
    /// # Errors
    ///
    /// See [`TdError`].
    pub fn finish_td(&self, td: TdId) -> Result<bool, TdError> {
        let mut inner = self.inner();
        let phase = inner.model.td(td).map(model::Td::phase).ok_or(TdError::Gone)?;
        let secret = inner.secrets.iter().find(|(id, _)| *id == td).map(|(_, secret)| *secret);
        let expected = secret.map(|secret| model::Td::measurement_of(&[&secret]));
        Ok(Some(inner.model.finish_td(td, phase)?) == expected)
    }

    /// Whether a TD can run and finds its memory as it was.
    #[must_use]
    pub fn td_is_alive(&self, td: TdId) -> bool {
        let inner = self.inner();
        inner.secrets.iter().any(|(id, secret)| *id == td && inner.model.td_secret(td) == Some(*secret))
    }

    /// How things stand.
    #[must_use]
    pub fn truth(&self) -> Truth {
        let inner = self.inner();
        let model = &inner.model;
        let handoff_valid = model.handoff_header().valid != 0;
        let seamextend = model.loader().seamextend();
        let alive = |(td, secret): &&(TdId, [u8; 32])| model.td_secret(*td) == Some(*secret);
        Truth {
            module: model.module().map(|module| ModuleTruth {
                version: module.build().version,
                state: module.state(),
                callable: model.module_is_callable(),
            }),
            svn: seamextend.svn(),
            mrseam: seamextend.mrseam,
            tds: inner.secrets.len(),
            tds_alive: inner.secrets.iter().filter(alive).count(),
            handoff_valid,
            lps_in_session: model.loader().lps_in_session(),
            remaining_updates: model.loader().num_remaining_updates(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What firmware and kernel do at boot.
    fn load(&self, image: &TdxImage<'_>) -> Result<(), BootError> {
        let image = PageBuf::copy_of(image.as_bytes());
        let image = TdxImage::parse_without_checksum(image.as_bytes())?;
        let mut params = PageBuf::zeroed(1);
        let request = InstallRequest::build(params.as_params(), &image, Scenario::Load, &self.lp(0))?;
        let lock = SpinLock::new();
        let lps: Vec<SimLp<'_>> = (0..self.num_lps).map(|lp| self.lp_that_keeps_its_cpu(lp)).collect();
        for lp in &lps {
            seamldr(lp, &lock).install(&request)?;
        }
        self.bring_up()?;
        if let Some(lp) = lps.first() {
            seamldr(lp, &lock).info(&mut SeamldrInfoBuffer::zeroed())?;
        }
        Ok(())
    }

    /// What a kernel does at boot: initialises the module that was put in place, on all LPs that there are, and gives it memory
    /// and a key. The module then has no TDs.
    ///
    /// # Errors
    ///
    /// The module does not become ready.
    pub fn bring_up(&self) -> Result<(), BootError> {
        self.module_state().reset();
        for lp in 0..self.num_lps {
            let module = self.lp_that_keeps_its_cpu(lp);
            TdxModule::new(&module).enable_lp(&self.module_state, lp).map_err(|(_, error)| error)?;
        }
        let list = self.tdmr_list().ok_or(NoMemory)?;
        // SAFETY: the list and what it leads to are alive. The simulated module does not touch TDMRs and PAMTs.
        unsafe {
            TdxModule::new(&self.lp_that_keeps_its_cpu(0)).sys_config(list.address(), 1, GLOBAL_HKID, false)
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

    /// Memory for TDs, to be given to TDH.SYS.CONFIG: a gigabyte that nothing else here is in, with its PAMTs behind it. `None`
    /// if the host's memory is full.
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

    /// A page of the host's memory with these words in it.
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

/// P-SEAMLDR on an LP of the simulation, which has no VMCS to lose.
#[allow(clippy::expect_used)] // `CurrentVmcs::Preserved` is never refused
fn seamldr<'a>(lp: &'a SimLp<'a>, lock: &'a SpinLock) -> Seamldr<'a, SimLp<'a>, SpinLock> {
    Seamldr::new(lp, lock, CurrentVmcs::Preserved).expect("no erratum")
}

/// One LP of a [`SimPlatform`], as code that runs on it sees it.
#[derive(Debug)]
pub struct SimLp<'p> {
    platform: &'p SimPlatform,
    lp: u32,
    /// Called on the way into firmware and inside of it.
    yielding: fn(),
    looks: AtomicU32,
}

// SAFETY: the model makes the call once, with the registers given; `Err` means that it was not entered; it reads and writes
// only what the leaf's operands name, through `HostMemory`.
unsafe impl SeamcallBackend for SimLp<'_> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        let platform = self.platform;
        let input = *regs;
        (self.yielding)();
        let mut inner = platform.inner();
        inner.calls = inner.calls.wrapping_add(1);
        let result = match inner.model.enter(self.lp, regs) {
            Err(trap) => Err(trap),
            Ok(entered) => {
                if input.rax >> 63 == 1 || entered.delay != 0 {
                    // Others may come meanwhile, and find this LP inside.
                    let until = inner.calls.wrapping_add(entered.delay.into());
                    drop(inner);
                    (self.yielding)();
                    inner = self.wait_for_calls(until);
                }
                inner.model.leave(entered, regs, &platform.memory, platform.crypto.0)
            }
        };
        inner.trace.push(TraceEntry { lp: self.lp, input, output: result.map(|()| *regs) });
        result
    }
}

impl SimLp<'_> {
    /// Counts a look at the others, and says whether there is patience for one more.
    pub(super) fn look_once_more(&self) -> Patience {
        if self.looks.fetch_add(1, Ordering::Relaxed) >= self.platform.patience {
            Patience::GiveUp
        } else {
            Patience::Wait
        }
    }

    /// Waits until so many calls were made at all, or for as long as this LP is patient.
    fn wait_for_calls(&self, until: u64) -> MutexGuard<'_, Inner> {
        for _ in 0..self.platform.patience {
            let inner = self.platform.inner();
            if inner.calls >= until {
                return inner;
            }
            drop(inner);
            self.platform.let_others_come();
        }
        self.platform.inner()
    }
}

/// The KeyID that the module gets at boot.
const GLOBAL_HKID: u64 = 0x20;

/// A list of one TDMR in the host's memory.
#[derive(Debug)]
pub struct TdmrList {
    list: HostPage,
    /// What the list leads to.
    _info: HostPage,
}

impl TdmrList {
    /// Where it lies.
    #[must_use]
    pub const fn address(&self) -> PhysAddr {
        self.list.address
    }
}

/// A page of the host's memory that firmware can be told about.
#[derive(Debug)]
struct HostPage {
    address: PhysAddr,
    _page: PageBuf,
}

// SAFETY: `HostMemory` translates each page to one frame and back; the process's memory stays where it is while borrowed. Each platform
// has a machine number of its own. A `SimLp` always speaks for the same LP; who makes two of them calls in turn, by the platform's lock.
unsafe impl Host for SimLp<'_> {
    fn current_lp(&self) -> u32 {
        self.lp
    }

    fn num_lps(&self) -> u32 {
        u32::try_from(self.platform.num_online()).unwrap_or(u32::MAX)
    }

    fn relax(&self) -> Patience {
        self.platform.let_others_come();
        self.look_once_more()
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        self.platform.memory.phys_addr(address)
    }

    fn machine(&self) -> MachineId {
        self.platform.machine
    }
}
