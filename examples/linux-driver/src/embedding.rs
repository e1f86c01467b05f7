// SPDX-License-Identifier: MIT OR Apache-2.0

//! The library in a driver, from an uploaded image to the answer for user space.

use core::cell::UnsafeCell;
use core::ffi::c_char;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use tdx_seamldr_core::abi::{SeamldrInfo, SeamldrInfoBuffer, TdxFeatures0};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, NotPassed, PassedImage, PassedUpdate, Purpose,
};
use tdx_seamldr_core::update::linux::{Dialect, Errno, UploadError};
use tdx_seamldr_core::update::{Cpu, NextStep, Outcome, Update};
use tdx_seamldr_core::{
    Crypto, CurrentVmcs, LpBits, ModuleState, SeamcallBackend, SeamcallRegs, Seamldr, TdxImage,
    TdxModule, TdxVersion, Trap, VmcsErratum,
};
use tdx_seamldr_x86_64::{Hardware, LinuxTable, Processor, Seamcall};

use crate::kernel_side::{
    self, highest_apic_id, online_cpus, pinned, CpusHeld, ImageCopy, Kernel, KernelCrypto, Page,
    SeamldrLock, Shown, Text,
};
use crate::linux_policy;
use crate::simulated::{self, Simulated};

extern "C" {
    fn tdx_lock_updates();
    fn tdx_unlock_updates();
    static tdx_backend: [c_char; 16];
    static tdx_image: [c_char; 64];
    static tdx_policy: [c_char; 16];
    static tdx_try_seamcall: bool;
}

/// The memory of the TDX module's state, for each CPU that could ever come online.
static STATE: &ModuleState = &BITS;
static BITS: ModuleState<[LpBits; 128]> = ModuleState::new();

/// The firmware that answers SEAMCALL, from the parameter `backend`.
enum Backend {
    Processor(Seamcall<LinuxTable>),
    Simulated(Simulated),
}

// SAFETY: passes the call to an implementation that holds the contract.
unsafe impl SeamcallBackend for Backend {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        match self {
            Self::Processor(backend) => unsafe { backend.seamcall(regs) },
            Self::Simulated(backend) => unsafe { backend.seamcall(regs) },
        }
    }
}

/// The state of the driver between `start` and `stop`.
pub(crate) struct Driver {
    backend: Backend,
    current_vmcs: CurrentVmcs,
    /// The image of the running module, as a fallback. `None` if this driver did not install the
    /// module.
    running: Option<ImageCopy>,
    /// The step that the last outcome asks for.
    next: NextStep,
    /// The version of the handoff data that the last update requested from the old module.
    handoff_version: Option<u16>,
    /// Whether updates follow Linux's own driver.
    as_linux: bool,
}

/// The driver, behind the lock for updates.
struct Locked(UnsafeCell<Option<Driver>>);

// SAFETY: only used with the lock held.
unsafe impl Sync for Locked {}

static DRIVER: Locked = Locked(UnsafeCell::new(None));

fn with_slot<T>(work: impl FnOnce(&mut Option<Driver>) -> T) -> T {
    // SAFETY: unlocked below.
    unsafe { tdx_lock_updates() };
    // SAFETY: the lock is held.
    let result = work(unsafe { &mut *DRIVER.0.get() });
    // SAFETY: pairs with the above.
    unsafe { tdx_unlock_updates() };
    result
}

/// Calls `work` with exclusive access to the driver.
pub(crate) fn with<T: FromNothing>(work: impl FnOnce(&mut Driver) -> T) -> T {
    with_slot(|slot| slot.as_mut().map_or_else(T::nothing, work))
}

/// An answer that exists without a driver.
pub(crate) trait FromNothing {
    /// The answer.
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

/// Makes the driver for the parameter `backend`. `false` if no firmware exists.
pub(crate) fn start() -> bool {
    // SAFETY: the text does not change after the module was loaded.
    let backend = unsafe { Text::read(&raw const tdx_backend) };
    // SAFETY: as above.
    let policy = unsafe { Text::read(&raw const tdx_policy) };
    let as_linux = match policy.get() {
        "preflight" => false,
        "linux" => true,
        other => {
            pr_err!("policy={}, but should be preflight or linux\n", other);
            return false;
        }
    };
    let driver = match backend.get() {
        "seamcall" => on_this_machine(),
        "mock" => on_a_simulated_one(),
        other => {
            pr_err!("backend={}, but should be seamcall or mock\n", other);
            None
        }
    };
    let driver = driver.map(|driver| Driver { as_linux, ..driver });
    let started = driver.is_some();
    with_slot(|slot| *slot = driver);
    started
}

/// Drops the driver.
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
            let driver = Driver::new(backend, CurrentVmcs::Preserved);
            match driver.info(|_| ()) {
                Ok(()) => pr_err!("and yet P-SEAMLDR answers\n"),
                Err(error) => pr_err!("{}\n", Shown(error)),
            }
        }
        return None;
    }
    let driver = Driver::new(backend, processor.current_vmcs());
    if driver.module_version().is_some() {
        // The kernel initialises a module on all CPUs.
        STATE.set_ready();
    }
    Some(driver)
}

/// Makes a simulated platform with one LP for each CPU, a running module, and TDs.
fn on_a_simulated_one() -> Option<Driver> {
    let name = (&raw const tdx_image).cast();
    let mut firmware = core::ptr::null();
    // SAFETY: the name ends in a zero; the file is released below.
    if unsafe { bindings::request_firmware(&mut firmware, name, core::ptr::null_mut()) } != 0 {
        pr_err!("the firmware file for the simulated platform is missing\n");
        return None;
    }
    // SAFETY: the kernel has read the file.
    let file = unsafe { core::slice::from_raw_parts((*firmware).data, (*firmware).size) };
    let copy = ImageCopy::new(file);
    // SAFETY: requested above.
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
    let mut driver = Driver::new(Backend::Simulated(Simulated), CurrentVmcs::Preserved);
    driver.load(&image, &CpusHeld::new()).ok()?;
    driver.running = Some(copy);
    Some(driver)
}

impl Driver {
    fn new(backend: Backend, current_vmcs: CurrentVmcs) -> Self {
        Self {
            backend,
            current_vmcs,
            running: None,
            next: NextStep::Done,
            handoff_version: None,
            as_linux: false,
        }
    }

    fn host(&self) -> Kernel<'_, Backend> {
        Kernel::new(&self.backend)
    }

    fn seamldr<'a>(
        &self,
        host: &'a Kernel<'_, Backend>,
    ) -> Result<Seamldr<'a, Kernel<'a, Backend>, SeamldrLock>, VmcsErratum> {
        Seamldr::new(host, &SeamldrLock, self.current_vmcs)
    }

    /// Asks P-SEAMLDR for its data and the module's.
    fn info<T>(&self, ask: impl FnOnce(&SeamldrInfo) -> T) -> Result<T, impl fmt::Display> {
        let refuse = |reason| Err::<T, _>(reason);
        let Some(mut page) = Page::new() else { return refuse(Refused::Memory) };
        let host = self.host();
        let seamldr = match self.seamldr(&host) {
            Ok(seamldr) => seamldr,
            Err(error) => return refuse(Refused::Erratum(error)),
        };
        let buffer: &mut SeamldrInfoBuffer = page.get();
        match pinned(|| seamldr.info(buffer)) {
            Ok(info) => Ok(ask(info)),
            Err(error) => refuse(Refused::Seamldr(error)),
        }
    }

    /// The version of the running module.
    pub(crate) fn module_version(&self) -> Option<TdxVersion> {
        // Linux does not call a module that a failed update left in another state.
        if self.as_linux && !STATE.is_ready() {
            return None;
        }
        pinned(|| TdxModule::new(&self.backend).version().ok())
    }

    /// The version of P-SEAMLDR.
    pub(crate) fn seamldr_version(&self) -> Option<impl fmt::Display> {
        self.info(|info| Version(info.major.get(), info.minor.get(), info.update.get())).ok()
    }

    /// The number of updates that P-SEAMLDR can make before a reboot.
    pub(crate) fn num_remaining_updates(&self) -> Option<u32> {
        self.info(|info| info.num_remaining_updates.get()).ok()
    }

    /// Whether P-SEAMLDR can be called and the module can hand its TDs over.
    pub(crate) fn updates_are_possible(&self) -> bool {
        let features = pinned(|| TdxModule::new(&self.backend).features0());
        self.seamldr(&self.host()).is_ok()
            && features.is_ok_and(|known| known.contains(TdxFeatures0::TD_PRESERVING))
    }

    /// One upload: an update, or the step that the last outcome asks for.
    pub(crate) fn update(&mut self, file: &[u8]) -> Result<(), UploadFailed> {
        if self.as_linux {
            return self.update_as_linux(file);
        }
        let image = TdxImage::parse(file).map_err(|error| refused(&error, Errno::EINVAL))?;
        let copy = ImageCopy::new(file).ok_or(NO_MEMORY)?;
        if matches!(self.backend, Backend::Simulated(_)) {
            simulated::learn(&image);
            simulated::plan_fault(&image);
        }
        // The CPUs are held first, because preflight counts the CPUs of the update.
        let held = CpusHeld::new();
        match self.next {
            NextStep::Reboot => {
                pr_err!("refused: the module cannot be brought back without a reboot\n");
                return Err(UploadFailed::from(Errno::ENODEV));
            }
            NextStep::Load | NextStep::Configure => self.load(&image, &held)?,
            NextStep::InstallAgain | NextStep::CompleteSession => self.resume(&image, &held)?,
            NextStep::Done | NextStep::Retry | NextStep::RetryLater | NextStep::Finish => {
                let finished = self.next == NextStep::Finish;
                if finished {
                    self.finish(&held)?;
                    self.running = None;
                }
                // The installed module may be the module of this image.
                if !(finished && self.runs(&image)) {
                    self.update_running(&image, &held)?;
                }
            }
        }
        self.running = Some(copy);
        Ok(())
    }

    /// One upload as in Linux's own driver, which reports a single error to user space.
    fn update_as_linux(&mut self, file: &[u8]) -> Result<(), UploadFailed> {
        if let (Backend::Simulated(_), Ok(image)) =
            (&self.backend, TdxImage::parse_without_checksum(file))
        {
            simulated::learn(&image);
            simulated::plan_fault(&image);
        }
        let result = linux_policy::update(&self.backend, self.current_vmcs, file, STATE);
        simulated::count_tds();
        result.map_err(|errno| UploadFailed::new(errno, Dialect::Mainline))
    }

    /// Whether this image's module runs.
    fn runs(&self, image: &TdxImage<'_>) -> bool {
        self.info(|info| info.seamextend.mrseam == image.sigstruct().seamhash).unwrap_or(false)
    }

    /// Replaces the running module, with the image of that module as a fallback.
    fn update_running(
        &mut self,
        image: &TdxImage<'_>,
        held: &CpusHeld,
    ) -> Result<(), UploadFailed> {
        let facts = self.facts(held)?;
        let mut log = FindingsLog::default();
        let policy = kernel_side::policy();
        let passed =
            preflight(image, &facts, &KernelCrypto, policy, &mut |finding| log.add(finding));
        let passed = passed.map_err(|not_passed| log.refusal(not_passed))?;
        self.handoff_version = passed.handoff_version();
        let outcome = self.install(&passed, &facts, held)?;
        self.conclude(outcome)
    }

    /// Runs the update that passed preflight on all CPUs.
    fn install(
        &self,
        passed: &PassedUpdate<'_>,
        facts: &Facts,
        held: &CpusHeld,
    ) -> Result<Outcome, UploadFailed> {
        let (mut params, mut fallback_params, mut info) = (
            Page::new().ok_or(NO_MEMORY)?,
            Page::new().ok_or(NO_MEMORY)?,
            Page::new().ok_or(NO_MEMORY)?,
        );
        let host = self.host();
        // If the fallback image does not pass preflight, the update runs without a fallback.
        let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
        let fallback = self
            .running
            .as_ref()
            .and_then(|copy| TdxImage::parse_without_checksum(copy.bytes()).ok())
            .and_then(|image| check_image(&image, facts, purpose).ok())
            .and_then(|passed| passed.prepare(fallback_params.get(), &host).ok());
        let update = Update::new(passed, params.get(), info.get(), &host, STATE)
            .and_then(|update| update.with_fallbacks(fallback.as_slice()))
            .map_err(|error| refused(&error, Errno::EINVAL))?;
        self.on_all_cpus(&update, held)
    }

    /// Installs a module that takes over the TDs of a failed update.
    fn resume(&mut self, image: &TdxImage<'_>, held: &CpusHeld) -> Result<(), UploadFailed> {
        let purpose = Purpose::TakeOver { handoff_version: self.handoff_version };
        let outcome = self.install_without_module(image, purpose, held)?;
        self.conclude(outcome)
    }

    /// Initialises the installed module on all CPUs.
    fn finish(&mut self, held: &CpusHeld) -> Result<(), UploadFailed> {
        let outcome = {
            let update = Update::finish(&self.host(), STATE)
                .map_err(|error| refused(&error, Errno::EINVAL))?;
            self.on_all_cpus(&update, held)?
        };
        self.conclude(outcome)
    }

    /// Installs a module without TDs, as at boot. All earlier TDs are lost; the simulation starts
    /// new ones.
    fn load(&mut self, image: &TdxImage<'_>, held: &CpusHeld) -> Result<(), UploadFailed> {
        let outcome = self.install_without_module(image, Purpose::Load, held)?;
        self.conclude(outcome)?;
        match self.backend {
            // A module needs memory, keys, and metadata of all memory. The kernel gives them to one
            // module at boot, and exports no function for a second module.
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
        self.next = NextStep::Done;
        pr_info!("a module was loaded and configured\n");
        Ok(())
    }

    /// Checks an image and installs it on all CPUs, while no module runs.
    fn install_without_module(
        &self,
        image: &TdxImage<'_>,
        purpose: Purpose,
        held: &CpusHeld,
    ) -> Result<Outcome, UploadFailed> {
        let passed = check_image(image, &self.facts(held)?, purpose)?;
        let mut params = Page::new().ok_or(NO_MEMORY)?;
        let host = self.host();
        let prepared =
            passed.prepare(params.get(), &host).map_err(|error| refused(&error, Errno::EINVAL))?;
        let update = match purpose {
            Purpose::TakeOver { .. } => Update::resume(prepared, &host, STATE),
            Purpose::Load => Update::load(prepared, &host, STATE),
        }
        .map_err(|error| refused(&error, Errno::EINVAL))?;
        self.on_all_cpus(&update, held)
    }

    /// Returns facts for preflight. They are valid while the CPUs are held.
    fn facts(&self, _held: &CpusHeld) -> Result<Facts, UploadFailed> {
        let (mut info, mut sysinfo) =
            (Page::new().ok_or(NO_MEMORY)?, Page::new().ok_or(NO_MEMORY)?);
        let host = self.host();
        let seamldr = self.seamldr(&host).map_err(|error| refused(&error, Errno::EINVAL))?;
        let mut facts = Facts::new();
        pinned(|| facts.gather(&seamldr, info.get(), sysinfo.get()))
            .map_err(|error| refused(&error, Errno::EIO))?;
        match self.backend {
            // Only KVM knows the number of TDs in build.
            Backend::Processor(_) => {
                pinned(|| Processor::probe(&Hardware::new(kernel_side::rdmsr)))
                    .complete(&mut facts);
                facts.highest_x2apic_id = Some(highest_apic_id());
            }
            Backend::Simulated(_) => simulated::complete(&mut facts),
        }
        Ok(facts)
    }

    /// Stops all CPUs and runs an update on them.
    fn on_all_cpus(&self, update: &Update<'_>, _held: &CpusHeld) -> Result<Outcome, UploadFailed> {
        let (begin, end) = (AtomicU64::new(u64::MAX), AtomicU64::new(0));
        simulated::take_time();
        self.seamldr(&self.host()).map_err(|error| refused(&error, Errno::EINVAL))?;
        kernel_side::stop_machine(&|| {
            begin.fetch_min(kernel_side::now(), Ordering::Relaxed);
            let host = self.host();
            // If this call fails, an earlier call has failed in the same way and ended the upload.
            if let Ok(seamldr) = self.seamldr(&host) {
                Cpu::new(update, seamldr).run();
            }
            end.fetch_max(kernel_side::now(), Ordering::Relaxed);
        });
        kernel_side::set_times(
            end.into_inner().saturating_sub(begin.into_inner()),
            simulated::take_time(),
        );
        Ok(update.outcome())
    }

    /// Stores and logs how an update ended. The CPUs run again, so reading the version does not
    /// delay them.
    fn conclude(&mut self, outcome: Outcome) -> Result<(), UploadFailed> {
        simulated::count_tds();
        self.next = outcome.next;
        // While the TDs are paused, only this driver can resume them.
        kernel_side::keep_module(matches!(
            outcome.next,
            NextStep::InstallAgain | NextStep::CompleteSession | NextStep::Finish
        ));
        if outcome.next == NextStep::Configure {
            return Ok(());
        }
        let errno = outcome.errno();
        match errno {
            None => pr_info!("{}\n", Shown(outcome)),
            Some(_) => pr_err!("{}\n", Shown(outcome)),
        }
        if let Some(version) = self.module_version() {
            pr_info!("the TDX module has version {}\n", Shown(version));
        }
        if outcome.next == NextStep::Load {
            pr_err!("the next image that is uploaded will be loaded afresh\n");
        }
        errno.map_or(Ok(()), |errno| Err(errno.into()))
    }
}

/// Preflight of an image that needs no running module.
fn check_image<'a>(
    image: &TdxImage<'a>,
    facts: &Facts,
    purpose: Purpose,
) -> Result<PassedImage<'a>, UploadFailed> {
    let mut log = FindingsLog::default();
    let policy = kernel_side::policy();
    let passed = preflight_image(image, facts, purpose, &KernelCrypto, policy, &mut |finding| {
        log.add(finding)
    });
    passed.map_err(|not_passed| log.refusal(not_passed))
}

/// Logs the findings of a preflight, and keeps the errno of the first refusal.
#[derive(Default)]
struct FindingsLog {
    first: Option<Errno>,
}

impl FindingsLog {
    fn add(&mut self, finding: Finding) {
        pr_err!("{}: {}\n", finding.code(), Shown(finding));
        if let (None, Finding::Refusal(refusal)) = (self.first, finding) {
            self.first = Some(refusal.errno());
        }
    }

    fn refusal(&self, not_passed: NotPassed) -> UploadFailed {
        pr_err!("refused, and nothing was done: {}\n", Shown(not_passed));
        self.first.unwrap_or(Errno::EINVAL).into()
    }
}

/// The error of an upload, as the kernel's firmware upload names it.
pub(crate) struct UploadFailed(pub(crate) bindings::fw_upload_err);

const NO_MEMORY: UploadFailed = UploadFailed(bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR);

impl From<Errno> for UploadFailed {
    fn from(errno: Errno) -> Self {
        Self::new(errno, Dialect::V6)
    }
}

impl UploadFailed {
    fn new(errno: Errno, dialect: Dialect) -> Self {
        Self(match errno.upload_error(dialect) {
            UploadError::HwError => bindings::fw_upload_err_FW_UPLOAD_ERR_HW_ERROR,
            UploadError::Timeout => bindings::fw_upload_err_FW_UPLOAD_ERR_TIMEOUT,
            UploadError::Busy => bindings::fw_upload_err_FW_UPLOAD_ERR_BUSY,
            UploadError::RwError => bindings::fw_upload_err_FW_UPLOAD_ERR_RW_ERROR,
            UploadError::Wearout => bindings::fw_upload_err_FW_UPLOAD_ERR_WEAROUT,
            UploadError::FwInvalid => bindings::fw_upload_err_FW_UPLOAD_ERR_FW_INVALID,
        })
    }
}

/// Logs why the driver refuses.
fn refused(error: &dyn fmt::Display, errno: Errno) -> UploadFailed {
    pr_err!("refused: {}\n", Shown(error));
    errno.into()
}

/// Why P-SEAMLDR cannot be called.
enum Refused {
    Memory,
    Erratum(VmcsErratum),
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

/// A version in Linux's form.
struct Version(u16, u16, u16);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:02}", self.0, self.1, self.2)
    }
}
