// SPDX-License-Identifier: MIT OR Apache-2.0

//! The library in a driver: everything from an image to what user space is told.

use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use tdx_seamldr_core::abi::{PSysInfoBuffer, Scenario, SeamldrInfo, SeamldrInfoBuffer, TdxFeatures0};
use tdx_seamldr_core::preflight::{preflight, preflight_image, Facts, Finding};
use tdx_seamldr_core::update::linux::{Dialect, Errno, UploadError};
use tdx_seamldr_core::update::{Cpu, NextStep, Options, Update, UpdateError};
use tdx_seamldr_core::{
    Crypto, CurrentVmcs, Host, InstallRequest, ModuleState, SeamcallBackend, SeamcallRegs, Seamldr,
    Sha384Digest, TdxImage, TdxModule, TdxVersion, Trap, INTEL_PRODUCTION_SIGNER,
};
use tdx_seamldr_x86_64::{Hardware, LinuxTable, Processor, Seamcall};

use crate::kernel_side::{
    self, online_cpus, pinned, HotplugOff, ImageCopy, Kernel, KernelCrypto, Page, SeamldrLock, Shown, Text,
};
use crate::simulated::{self, Simulated};

extern "C" {
    fn tdx_lock_updates();
    fn tdx_unlock_updates();
    static tdx_backend: [c_char; 16];
    static tdx_image: [c_char; 64];
    static tdx_try_seamcall: bool;
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
pub(crate) struct Driver {
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
pub(crate) fn with<T: FromNothing>(work: impl FnOnce(&mut Driver) -> T) -> T {
    with_slot(|slot| slot.as_mut().map_or_else(T::nothing, work))
}

/// What there is to say without a driver.
pub(crate) trait FromNothing {
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

impl FromNothing for Result<(), UploadFailed> {
    fn nothing() -> Self {
        Err(Errno::ENODEV.into())
    }
}

/// Begins with what the parameter `backend` says; says whether there is something to drive.
pub(crate) fn start() -> bool {
    // SAFETY: text that does not change after the module was loaded.
    let backend = unsafe { Text::read(&raw const tdx_backend) };
    let driver = match backend.get() {
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
pub(crate) fn stop() {
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
    let driver = Driver::new(backend, processor.current_vmcs(), INTEL_PRODUCTION_SIGNER);
    if driver.module_version().is_some() {
        // Whoever has initialised it has done so on all CPUs.
        STATE.set_ready();
    }
    Some(driver)
}

/// A platform with as many LPs as there are CPUs, on which a module runs, and TDs.
fn on_a_simulated_one() -> Option<Driver> {
    let name = (&raw const tdx_image).cast();
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
    let hotplug = HotplugOff::new();
    driver.load(&image).ok()?;
    drop(hotplug);
    driver.running = Some(copy);
    Some(driver)
}

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
    pub(crate) fn module_version(&self) -> Option<TdxVersion> {
        pinned(|| TdxModule::new(&self.backend).version().ok())
    }

    /// The version of P-SEAMLDR.
    pub(crate) fn seamldr_version(&self) -> Option<impl fmt::Display> {
        self.info(|info| Version(info.major.get(), info.minor.get(), info.update.get())).ok()
    }

    /// How many updates P-SEAMLDR can still make before a reboot.
    pub(crate) fn num_remaining_updates(&self) -> Option<u32> {
        self.info(|info| info.num_remaining_updates.get()).ok()
    }

    /// Whether there is a module that can hand its TDs over, and P-SEAMLDR can be called.
    pub(crate) fn updates_are_possible(&self) -> bool {
        let features = pinned(|| TdxModule::new(&self.backend).features0());
        self.seamldr().is_ok() && features.is_ok_and(|known| known.contains(TdxFeatures0::TD_PRESERVING))
    }

    /// What an upload does: an update, or whatever the last one has left to do.
    pub(crate) fn update(&mut self, file: &[u8]) -> Result<(), UploadFailed> {
        let image = TdxImage::parse(file).map_err(|error| refused(&error, Errno::EINVAL))?;
        let copy = ImageCopy::new(file).ok_or(NO_MEMORY)?;
        if matches!(self.backend, Backend::Simulated(_)) {
            simulated::learn(&image);
            simulated::plan_fault();
        }
        // From preflight to the end of the update no CPU comes or goes.
        let _hotplug = HotplugOff::new();
        match self.next {
            NextStep::Reboot => {
                pr_err!("refused: the module cannot be brought back without a reboot\n");
                return Err(UploadFailed::from(Errno::ENODEV));
            }
            NextStep::Load | NextStep::Configure => self.load(&image)?,
            NextStep::InstallAgain | NextStep::CompleteSession => {
                // The TDs stand still: a bad image would end them.
                self.check(&image, Question::WithoutModule(None))?;
                self.install(&image, &[], |request, cpus| {
                    Update::resume(request, STATE, Options::default(), cpus)
                })?;
            }
            NextStep::Nothing | NextStep::Retry | NextStep::RetryLater | NextStep::Finish => {
                let finished = self.next == NextStep::Finish;
                if finished {
                    self.finish()?;
                    self.running = None;
                }
                // What was in place may have been this very image.
                if !(finished && self.runs(&image)) {
                    self.update_running(&image)?;
                }
            }
        }
        self.running = Some(copy);
        Ok(())
    }

    /// Whether this image's module runs.
    fn runs(&self, image: &TdxImage<'_>) -> bool {
        self.info(|info| info.seamextend.mrseam == image.sigstruct().seamhash).unwrap_or(false)
    }

    /// Replaces a module that runs, with the image of that one to fall back on.
    fn update_running(&mut self, image: &TdxImage<'_>) -> Result<(), UploadFailed> {
        let options = self.check(image, Question::Everything)?;
        let running = self.running.take();
        let fallback = running.as_ref().and_then(|copy| TdxImage::parse_without_checksum(copy.bytes()).ok());
        let question = Question::WithoutModule(options.handoff_version);
        let fallback = fallback.filter(|fallback| self.check(fallback, question).is_ok());
        let updated = self
            .install(image, fallback.as_slice(), |request, cpus| Update::new(request, STATE, options, cpus));
        self.running = running;
        updated
    }

    /// Asks everything that can be asked before anything is shut down or installed, and prints every reason against the image.
    fn check(&self, image: &TdxImage<'_>, question: Question) -> Result<Options, UploadFailed> {
        let (mut info, mut sysinfo) = (Page::new().ok_or(NO_MEMORY)?, Page::new().ok_or(NO_MEMORY)?);
        let info: &mut SeamldrInfoBuffer = info.get();
        let sysinfo: &mut PSysInfoBuffer = sysinfo.get();
        let seamldr = self.seamldr().map_err(|error| refused(&error, Errno::EINVAL))?;
        let host = Kernel::new(online_cpus());
        let gathered = pinned(|| Facts::gather(&seamldr, &host, info, sysinfo, &self.signer));
        let mut facts = gathered.map_err(|error| refused(&error, Errno::EIO))?;
        match self.backend {
            Backend::Processor(_) => {
                pinned(|| Processor::probe(&Hardware::new(kernel_side::rdmsr))).complete(&mut facts);
            }
            // KVM knows how many TDs it is building on a real machine.
            Backend::Simulated(_) => simulated::complete(&mut facts),
        }
        let mut first = None;
        let mut report = |finding: Finding| {
            pr_err!("{}: {}\n", finding.code(), Shown(finding));
            if let (None, Finding::Refusal(refusal)) = (first, finding) {
                first = Some(refusal.errno());
            }
        };
        let policy = kernel_side::policy();
        let verdict = match question {
            Question::Everything => preflight(image, &facts, &KernelCrypto, policy, &mut report),
            Question::WithoutModule(handoff_version) => {
                preflight_image(image, &facts, handoff_version, &KernelCrypto, policy, &mut report)
            }
        };
        if !verdict.passed() {
            pr_err!(
                "refused, and nothing was done (reasons: {}, not known: {})\n",
                verdict.refusals,
                verdict.unknowns
            );
            return Err(first.unwrap_or(Errno::EINVAL).into());
        }
        Ok(facts.options(image))
    }

    /// Has all CPUs put this image in place, or one of those to fall back on, and take the TDs over.
    fn install(
        &mut self,
        image: &TdxImage<'_>,
        fallback: &[TdxImage<'_>],
        make: impl for<'a> Fn(InstallRequest<'a>, u32) -> Result<Update<'a>, UpdateError>,
    ) -> Result<(), UploadFailed> {
        let (mut params, mut fallback_params) =
            (Page::new().ok_or(NO_MEMORY)?, Page::new().ok_or(NO_MEMORY)?);
        let host = Kernel::new(online_cpus());
        let request = InstallRequest::build(params.get(), image, Scenario::Update, &host)
            .map_err(|error| refused(&error, Errno::EINVAL))?;
        // What cannot be fallen back on is no reason against the update.
        let fallback = fallback.first().and_then(|image| {
            InstallRequest::build(fallback_params.get(), image, Scenario::Update, &host).ok()
        });
        let update = make(request, host.num_lps())
            .and_then(|update| update.with_fallbacks(fallback.as_slice()))
            .map_err(|error| refused(&error, Errno::EINVAL))?;
        self.on_all_cpus(update)
    }

    /// Has all CPUs bring up the module that is in place.
    fn finish(&mut self) -> Result<(), UploadFailed> {
        let update = Update::finish(STATE, Options::default(), online_cpus())
            .map_err(|error| refused(&error, Errno::EINVAL))?;
        self.on_all_cpus(update)
    }

    /// Puts a module in place afresh, as at boot: no TD is there afterwards, but those of the simulation.
    fn load(&mut self, image: &TdxImage<'_>) -> Result<(), UploadFailed> {
        let mut params = Page::new().ok_or(NO_MEMORY)?;
        let host = Kernel::new(online_cpus());
        let request = InstallRequest::build(params.get(), image, Scenario::Load, &host)
            .map_err(|error| refused(&error, Errno::EINVAL))?;
        let update =
            Update::load(request, STATE, host.num_lps()).map_err(|error| refused(&error, Errno::EINVAL))?;
        self.on_all_cpus(update)?;
        match self.backend {
            // Memory for the module, keys, and the metadata of all memory: the kernel does this at boot, for the one module that was
            // there then. Without its help it cannot be done here.
            Backend::Processor(_) => {
                pr_err!("the module was loaded, but only a reboot configures it\n");
                self.next = NextStep::Reboot;
                return Err(Errno::ENODEV.into());
            }
            Backend::Simulated(_) => {
                if !simulated::configure(&TdxModule::new(&self.backend)) {
                    return Err(Errno::EIO.into());
                }
            }
        }
        STATE.set_ready();
        self.next = NextStep::Nothing;
        pr_info!("a module was loaded and configured\n");
        Ok(())
    }

    /// Stops all CPUs and has them make an update; says how it ended.
    fn on_all_cpus(&mut self, update: Update<'_>) -> Result<(), UploadFailed> {
        let (begin, end) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        let host = Kernel::new(online_cpus());
        simulated::take_time();
        let seamldr = self.seamldr().map_err(|error| refused(&error, Errno::EINVAL))?;
        let seamldr = &seamldr;
        kernel_side::stop_machine(&|| {
            begin.fetch_min(kernel_side::now(), Ordering::Relaxed);
            Cpu::new(&update, *seamldr, &Kernel::new(host.num_lps())).run();
            end.fetch_max(kernel_side::now(), Ordering::Relaxed);
        });
        kernel_side::set_times(end.into_inner().saturating_sub(begin.into_inner()), simulated::take_time());
        let outcome = update.outcome();
        simulated::count_tds();
        self.next = outcome.next;
        // As long as the TDs stand still, this driver is the one that knows how to wake them.
        kernel_side::keep_module(matches!(
            outcome.next,
            NextStep::InstallAgain | NextStep::CompleteSession | NextStep::Finish
        ));
        if outcome.next == NextStep::Configure {
            return Ok(());
        }
        let Some(errno) = outcome.errno() else {
            pr_info!("{}\n", Shown(outcome));
            return Ok(());
        };
        pr_err!("{}\n", Shown(outcome));
        if outcome.next == NextStep::Load {
            pr_err!("the next image that is uploaded will be loaded afresh\n");
        }
        Err(errno.into())
    }
}

/// What is asked of an image.
#[derive(Clone, Copy)]
enum Question {
    /// Whether it may replace the module that runs.
    Everything,
    /// Whether it may be installed where none runs, to take handoff data of this version, if that is known.
    WithoutModule(Option<u16>),
}

/// What the kernel is told about an upload.
pub(crate) struct UploadFailed(pub(crate) bindings::fw_upload_err);

const NO_MEMORY: UploadFailed = UploadFailed(bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR);

impl From<Errno> for UploadFailed {
    fn from(errno: Errno) -> Self {
        Self(match errno.upload_error(Dialect::V6) {
            UploadError::HwError => bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR,
            UploadError::Timeout => bindings::fw_upload_err_FW_UPLOAD_ERR_TIMEOUT,
            UploadError::Busy => bindings::fw_upload_err_FW_UPLOAD_ERR_BUSY,
            UploadError::RwError => bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR,
            UploadError::Wearout => bindings::fw_upload_err_FW_UPLOAD_ERR_WEAROUT,
            UploadError::FwInvalid => bindings::fw_upload_err_FW_UPLOAD_ERR_FW_INVALID,
        })
    }
}

/// Prints why nothing is done.
fn refused(error: &dyn fmt::Display, errno: Errno) -> UploadFailed {
    pr_err!("refused: {}\n", Shown(error));
    errno.into()
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
