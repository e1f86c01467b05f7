// SPDX-License-Identifier: MIT OR Apache-2.0

//! The library in a driver: everything from an image to what user space is told.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_ulong};
use core::fmt;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use tdx_seamldr_core::abi::{
    PSysInfoBuffer, Scenario, SeamldrInfo, SeamldrInfoBuffer, SeamldrParams, TdxFeatures0,
};
use tdx_seamldr_core::preflight::{preflight, Facts, Policy};
use tdx_seamldr_core::update::linux::{Dialect, Errno, UploadError};
use tdx_seamldr_core::update::{Cpu, NextStep, Options, Outcome, Update};
use tdx_seamldr_core::{
    Crypto, CurrentVmcs, InstallRequest, ModuleState, SeamcallBackend, SeamcallRegs, Seamldr, Sha384Digest,
    TdxImage, TdxModule, TdxVersion, Trap, INTEL_PRODUCTION_SIGNER,
};
use tdx_seamldr_x86_64::{Hardware, LinuxTable, Processor, Seamcall};

use crate::kernel_side::{self, online_cpus, pinned, text, ImageCopy, Kernel, KernelCrypto, Page, SeamldrLock, Shown};
use crate::simulated::{self, Simulated};

extern "C" {
    fn tdx_lock_updates();
    fn tdx_unlock_updates();
    static tdx_backend: [c_char; 16];
    static tdx_image: [c_char; 64];
    static tdx_try_seamcall: bool;
    static tdx_skip_preflight: bool;
    static mut tdx_stopped_ns: c_ulong;
    static mut tdx_firmware_ns: c_ulong;
}

/// What is known about the module: one bit for each CPU that could ever come online.
static STATE: &ModuleState = &BITS;
static BITS: ModuleState<[AtomicU64; 128]> = ModuleState::new();

/// Who executes SEAMCALL: chosen when the module is loaded.
enum Backend {
    Processor(Seamcall<LinuxTable>),
    Simulated(Simulated),
}

// SAFETY: hands everything on to an implementation that holds the contract.
unsafe impl SeamcallBackend for Backend {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        match self {
            Self::Processor(backend) => unsafe { backend.seamcall(regs) },
            Self::Simulated(backend) => unsafe { backend.seamcall(regs) },
        }
    }
}

/// The driver, between `start` and `stop`.
pub struct Driver {
    backend: Backend,
    current_vmcs: CurrentVmcs,
    signer: Sha384Digest,
    /// The image of the module that runs, to fall back on; not known of one that somebody else has put in place.
    running: Option<ImageCopy>,
    /// What the last outcome asks for.
    next: NextStep,
}

/// Behind the lock for updates.
struct Locked(UnsafeCell<Option<Driver>>);

// SAFETY: only used with the lock held.
unsafe impl Sync for Locked {}

static DRIVER: Locked = Locked(UnsafeCell::new(None));

fn with_slot<T>(work: impl FnOnce(&mut Option<Driver>) -> T) -> T {
    // SAFETY: released below.
    unsafe { tdx_lock_updates() };
    // SAFETY: the lock is held.
    let result = work(unsafe { &mut *DRIVER.0.get() });
    // SAFETY: pairs with the above.
    unsafe { tdx_unlock_updates() };
    result
}

/// Something with the driver, while nobody else is at it.
pub fn with<T: FromNothing>(work: impl FnOnce(&mut Driver) -> T) -> T {
    with_slot(|slot| slot.as_mut().map_or_else(T::nothing, work))
}

/// What there is to say without a driver.
pub trait FromNothing {
    /// It.
    fn nothing() -> Self;
}

impl<T> FromNothing for Option<T> {
    fn nothing() -> Self {
        None
    }
}

impl FromNothing for bool {
    fn nothing() -> Self {
        false
    }
}

impl FromNothing for Result<(), bindings::fw_upload_err> {
    fn nothing() -> Self {
        Err(bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR)
    }
}

/// Begins with what the parameter `backend` says; says whether there is something to drive.
pub fn start() -> bool {
    // SAFETY: text that does not change after the module was loaded.
    let driver = match text(unsafe { &*(&raw const tdx_backend) }) {
        "seamcall" => on_this_machine(),
        "mock" => on_a_simulated_one(),
        other => {
            pr_err!("backend={}, but should be seamcall or mock\n", other);
            None
        }
    };
    let started = driver.is_some();
    with_slot(|slot| *slot = driver);
    started
}

/// Ends.
pub fn stop() {
    with_slot(|slot| *slot = None);
}

fn on_this_machine() -> Option<Driver> {
    let processor = pinned(|| Processor::probe(&Hardware::new(kernel_side::rdmsr)));
    let backend = Backend::Processor(Seamcall::new());
    if let Err(error) = processor.check() {
        pr_err!("no TDX: {}\n", Shown(error));
        // SAFETY: a flag.
        if unsafe { tdx_try_seamcall } {
            let driver = Driver::new(backend, CurrentVmcs::Preserved, INTEL_PRODUCTION_SIGNER);
            match driver.info(|_| ()) {
                Ok(()) => pr_err!("and yet P-SEAMLDR answers\n"),
                Err(error) => pr_err!("{}\n", Shown(error)),
            }
        }
        return None;
    }
    Some(Driver::new(backend, processor.current_vmcs(), INTEL_PRODUCTION_SIGNER))
}

/// A platform with as many LPs as there are CPUs, on which a module runs, and TDs.
fn on_a_simulated_one() -> Option<Driver> {
    let name = unsafe { &raw const tdx_image }.cast();
    let mut firmware = core::ptr::null();
    // SAFETY: text that ends in a zero; the file is let go below.
    if unsafe { bindings::request_firmware(&mut firmware, name, core::ptr::null_mut()) } != 0 {
        pr_err!("there is no firmware file for the simulated platform\n");
        return None;
    }
    // SAFETY: the kernel has read the file.
    let file = unsafe { core::slice::from_raw_parts((*firmware).data, (*firmware).size) };
    let copy = ImageCopy::new(file);
    // SAFETY: got above.
    unsafe { bindings::release_firmware(firmware) };
    let copy = copy?;
    let image = match TdxImage::parse(copy.bytes()) {
        Ok(image) => image,
        Err(error) => {
            pr_err!("the image for the simulated platform: {}\n", Shown(error));
            return None;
        }
    };
    let signer = KernelCrypto.sha384(&[&image.sigstruct().modulus]).ok()?;
    if !simulated::start(online_cpus(), &image, signer) {
        return None;
    }
    simulated::learn(&image);
    STATE.reset();
    let mut driver = Driver::new(Backend::Simulated(Simulated), CurrentVmcs::Preserved, signer);
    driver.load(&image).ok()?;
    driver.running = Some(copy);
    Some(driver)
}

/// Prints a line about an outcome.
fn report(outcome: &Outcome) {
    if outcome.is_updated() {
        pr_info!("{}\n", Shown(outcome));
    } else {
        pr_err!("{}\n", Shown(outcome));
    }
}

fn upload_error(errno: Errno) -> bindings::fw_upload_err {
    match errno.upload_error(Dialect::V6) {
        UploadError::HwError => bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR,
        UploadError::Timeout => bindings::fw_upload_err_FW_UPLOAD_ERR_TIMEOUT,
        UploadError::Busy => bindings::fw_upload_err_FW_UPLOAD_ERR_BUSY,
        UploadError::RwError => bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR,
        UploadError::Wearout => bindings::fw_upload_err_FW_UPLOAD_ERR_WEAROUT,
        UploadError::FwInvalid => bindings::fw_upload_err_FW_UPLOAD_ERR_FW_INVALID,
    }
}

const INVALID: bindings::fw_upload_err = bindings::fw_upload_err_FW_UPLOAD_ERR_FW_INVALID;
const NO_MEMORY: bindings::fw_upload_err = bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR;

impl Driver {
    fn new(backend: Backend, current_vmcs: CurrentVmcs, signer: Sha384Digest) -> Self {
        Self { backend, current_vmcs, signer, running: None, next: NextStep::Nothing }
    }

    fn seamldr(&self) -> Result<Seamldr<'_, Backend, SeamldrLock>, tdx_seamldr_core::VmcsErratum> {
        Seamldr::new(&self.backend, &SeamldrLock, self.current_vmcs)
    }

    /// What P-SEAMLDR says about itself.
    fn info<T>(&self, ask: impl FnOnce(&SeamldrInfo) -> T) -> Result<T, impl fmt::Display> {
        let refuse = |reason| Err::<T, _>(reason);
        let Some(mut page) = Page::new() else { return refuse(Refused::Memory) };
        let seamldr = match self.seamldr() {
            Ok(seamldr) => seamldr,
            Err(error) => return refuse(Refused::Erratum(error)),
        };
        let buffer: &mut SeamldrInfoBuffer = page.get();
        match pinned(|| seamldr.info(&Kernel::new(online_cpus()), buffer)) {
            Ok(info) => Ok(ask(info)),
            Err(error) => refuse(Refused::Seamldr(error)),
        }
    }

    /// The version of the module that runs.
    pub fn module_version(&self) -> Option<TdxVersion> {
        pinned(|| TdxModule::new(&self.backend).version().ok())
    }

    /// The version of P-SEAMLDR.
    pub fn seamldr_version(&self) -> Option<impl fmt::Display> {
        self.info(|info| Version(info.major.get(), info.minor.get(), info.update.get())).ok()
    }

    /// How many updates P-SEAMLDR can still make before a reboot.
    pub fn num_remaining_updates(&self) -> Option<u32> {
        self.info(|info| info.num_remaining_updates.get()).ok()
    }

    /// Whether there is a module that can hand its TDs over, and P-SEAMLDR can be called.
    pub fn updates_are_possible(&self) -> bool {
        let features = pinned(|| TdxModule::new(&self.backend).features0());
        self.seamldr().is_ok() && features.is_ok_and(|known| known.contains(TdxFeatures0::TD_PRESERVING))
    }

    /// What an upload does: an update, or whatever the last one has left to do.
    pub fn update(&mut self, file: &[u8]) -> Result<(), bindings::fw_upload_err> {
        let image = match TdxImage::parse(file) {
            Ok(image) => image,
            Err(error) => {
                pr_err!("refused: {}\n", Shown(error));
                return Err(INVALID);
            }
        };
        let Some(copy) = ImageCopy::new(file) else { return Err(NO_MEMORY) };
        if matches!(self.backend, Backend::Simulated(_)) {
            simulated::learn(&image);
            simulated::plan_fault();
        }
        let outcome = match self.next {
            NextStep::Load => return self.load(&image).map(|()| self.running = Some(copy)),
            NextStep::InstallAgain | NextStep::CompleteSession => self.install(&image, None, Options::default()),
            _ => {
                let options = self.check(&image)?;
                self.install(&image, self.running.as_ref(), options)
            }
        };
        let Some(outcome) = outcome else { return Err(NO_MEMORY) };
        report(&outcome);
        simulated::count_tds();
        self.next = outcome.next;
        if outcome.next == NextStep::Load {
            pr_err!("the next image that is uploaded will be loaded afresh\n");
        }
        if outcome.is_updated() && outcome.image == 0 {
            self.running = Some(copy);
            return Ok(());
        }
        Err(upload_error(outcome.errno().unwrap_or(Errno::EIO)))
    }

    /// Asks everything that can be asked before anything is shut down, and prints every reason against the update.
    fn check(&self, image: &TdxImage<'_>) -> Result<Options, bindings::fw_upload_err> {
        let (Some(mut info), Some(mut sysinfo)) = (Page::new(), Page::new()) else { return Err(NO_MEMORY) };
        let info: &mut SeamldrInfoBuffer = info.get();
        let sysinfo: &mut PSysInfoBuffer = sysinfo.get();
        let Ok(seamldr) = self.seamldr() else { return Err(INVALID) };
        let host = Kernel::new(online_cpus());
        let gathered = pinned(|| Facts::gather(&seamldr, &host, info, sysinfo, &self.signer));
        let mut facts = match gathered {
            Ok(facts) => facts,
            Err(error) => {
                pr_err!("refused: {}\n", Shown(error));
                return Err(bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR);
            }
        };
        match self.backend {
            Backend::Processor(_) => {
                pinned(|| Processor::probe(&Hardware::new(kernel_side::rdmsr))).complete(&mut facts);
            }
            Backend::Simulated(_) => {
                if let Some((base, lps)) = simulated::processor() {
                    facts.seamrr_base = Some(base);
                    facts.addressable_lps_per_socket = Some(lps);
                    facts.debug_unlocked = Some(false);
                }
            }
        }
        // A driver that builds TDs would count them here.
        facts.sensitive_operations = Some(0);
        let policy = Policy { allow_same_module: true, ..Policy::default() };
        let verdict = preflight(image, &facts, &KernelCrypto, policy, &mut |finding| {
            pr_err!("refused: {}\n", Shown(finding));
        });
        // SAFETY: a flag.
        let go_on = unsafe { core::ptr::read_volatile(&raw const tdx_skip_preflight) };
        if !verdict.passed() && !go_on {
            return Err(INVALID);
        }
        let compatibility =
            facts.features0.is_some_and(|known| known.contains(TdxFeatures0::UPDATE_COMPATIBILITY));
        Ok(Options {
            handoff_version: facts.handoff.and_then(|running| running.negotiate(image.sigstruct())),
            avoid_compat_sensitive: compatibility,
            ..Options::default()
        })
    }

    /// From the module that runs, or from what it has left, to this image. `None`: there is no memory.
    fn install(&self, image: &TdxImage<'_>, fallback: Option<&ImageCopy>, options: Options) -> Option<Outcome> {
        let (mut params, mut fallback_params) = (Page::new()?, Page::new()?);
        let host = Kernel::new(online_cpus());
        let params: &mut SeamldrParams = params.get();
        let request = InstallRequest::build(params, image, Scenario::Update, &host).ok()?;
        let fallback = fallback
            .and_then(|copy| TdxImage::parse_without_checksum(copy.bytes()).ok())
            .and_then(|image| InstallRequest::build(fallback_params.get(), &image, Scenario::Update, &host).ok());
        let fallbacks = fallback.as_slice();
        self.on_all_cpus(|cpus| {
            let update = match self.next {
                NextStep::InstallAgain | NextStep::CompleteSession => {
                    Update::resume(request, STATE, options, cpus)
                }
                _ => Update::new(request, STATE, options, cpus),
            };
            update.and_then(|update| update.with_fallbacks(fallbacks)).ok()
        })
    }

    /// Puts a module in place afresh, as at boot: no TD is there afterwards, but those of the simulation.
    fn load(&mut self, image: &TdxImage<'_>) -> Result<(), bindings::fw_upload_err> {
        let (Some(mut params), Some(mut list), Some(mut info)) = (Page::new(), Page::new(), Page::new()) else {
            return Err(NO_MEMORY);
        };
        let host = Kernel::new(online_cpus());
        let Ok(request) = InstallRequest::build(params.get(), image, Scenario::Load, &host) else {
            return Err(INVALID);
        };
        let outcome = self.on_all_cpus(|cpus| Update::load(request, STATE, cpus).ok()).ok_or(NO_MEMORY)?;
        if outcome.next != NextStep::Configure {
            report(&outcome);
            self.next = outcome.next;
            return Err(upload_error(outcome.errno().unwrap_or(Errno::EIO)));
        }
        // A driver for real machines gives the module memory here, as the kernel does at boot.
        let address = |page: &mut [u64; 512]| tdx_seamldr_core::Host::phys_addr(&host, page.as_ptr().cast());
        let Some(info_address) = address(info.get()) else { return Err(INVALID) };
        simulated::fill_tdmr_list(list.get(), info.get(), info_address);
        let Some(list_address) = address(list.get()) else { return Err(INVALID) };
        let module = TdxModule::new(&self.backend);
        // SAFETY: the list was made for this; the memory that it names is nobody's.
        let configured = pinned(|| unsafe { module.sys_config(list_address, 1, 0x20, false) })
            .and_then(|()| pinned(|| module.sys_key_config()));
        if let Err(error) = configured {
            pr_err!("the module cannot be configured: {}\n", Shown(error));
            return Err(bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR);
        }
        STATE.set_ready();
        simulated::start_tds();
        self.next = NextStep::Nothing;
        pr_info!("a module was loaded\n");
        Ok(())
    }

    /// Stops all CPUs and has them make an update, for as many as there are then. `None`: there is no such update.
    fn on_all_cpus<'a>(&self, make: impl Fn(u32) -> Option<Update<'a>>) -> Option<Outcome> {
        // CPUs come and go until they are stopped; `stop_machine` keeps them from that itself.
        for _ in 0..100 {
            let cpus = online_cpus();
            let update = make(cpus)?;
            let changed = AtomicBool::new(false);
            let (begin, end) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
            simulated::take_time();
            kernel_side::stop_machine(&|| {
                if online_cpus() != cpus {
                    changed.store(true, Ordering::Relaxed);
                    return;
                }
                begin.fetch_min(kernel_side::now(), Ordering::Relaxed);
                if let Ok(seamldr) = self.seamldr() {
                    Cpu::new(&update, seamldr, &Kernel::new(cpus)).run();
                }
                end.fetch_max(kernel_side::now(), Ordering::Relaxed);
            });
            if !changed.load(Ordering::Relaxed) {
                // SAFETY: only written with the driver's lock held.
                unsafe {
                    tdx_stopped_ns = end.into_inner().saturating_sub(begin.into_inner()) as c_ulong;
                    tdx_firmware_ns = simulated::take_time() as c_ulong;
                }
                return Some(update.outcome());
            }
        }
        None
    }
}

/// Why P-SEAMLDR says nothing.
enum Refused {
    Memory,
    Erratum(tdx_seamldr_core::VmcsErratum),
    Seamldr(tdx_seamldr_core::SeamldrError),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("no memory"),
            Self::Erratum(error) => error.fmt(f),
            Self::Seamldr(error) => error.fmt(f),
        }
    }
}

/// A version as Linux shows it.
struct Version(u16, u16, u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:02}", self.0, self.1, self.2)
    }
}
