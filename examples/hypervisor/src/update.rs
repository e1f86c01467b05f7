//! All code that a hypervisor needs to embed the library. `docs/embedding-hypervisor.md` explains
//! the code.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tdx_seamldr_core::abi::{PSysInfoBuffer, SeamldrInfoBuffer, SeamldrParamsBuffer};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, NotPassed, PassedImage, PassedUpdate, Policy,
    PreparedImage, Purpose,
};
use tdx_seamldr_core::update::{Cpu, NextStep, Outcome, Progress, Stage, Update};
use tdx_seamldr_core::{
    Host, LpBits, ModuleState, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, Seamldr,
    SharedInfo, SpinLock, TdxImage, TdxModule, Trap,
};
use tdx_seamldr_verify::RustCrypto;
use tdx_seamldr_x86_64::{Processor, SeamTable, Seamcall};

use crate::firmware::{self, TdxProcessor};
use crate::machine::{cpus, memory};

/// SEAMCALL on this CPU. If the instruction raises #UD or #GP, the handler continues at the address
/// of `fixup`.
static BACKEND: Seamcall<SeamTable> = Seamcall::new();

/// P-SEAMLDR takes one CPU at a time. All CPUs that wait for the lock have interrupts off, so a
/// plain spin lock is enough.
static LOCK: SpinLock = SpinLock::new();

/// The module's state since boot, with bits for each CPU that can come online.
static STATE: &ModuleState = &BITS;
static BITS: ModuleState<[LpBits; 1]> = ModuleState::new();

/// Whether the hypervisor has loaded a module since boot.
static LOADED: AtomicBool = AtomicBool::new(false);

/// The buffer in which the lead CPU asks P-SEAMLDR during an update. One update runs at a time.
static INFO: SharedInfo = SharedInfo::new();

/// One CPU's view of the hypervisor, with a count of the CPU's waits.
struct Hypervisor {
    looks: AtomicU32,
}

impl Hypervisor {
    const fn new() -> Self {
        Self { looks: AtomicU32::new(0) }
    }
}

// SAFETY: the backend keeps the contract.
unsafe impl SeamcallBackend for Hypervisor {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        unsafe { BACKEND.seamcall(regs) }
    }
}

// SAFETY: a CPU's number never changes, and no CPU goes online or offline. The page tables in use
// translate the addresses. No code changes them, so memory does not move.
unsafe impl Host for Hypervisor {
    fn current_lp(&self) -> u32 {
        cpus::current()
    }

    fn num_lps(&self) -> u32 {
        cpus::count()
    }

    fn relax(&self) -> Patience {
        // Touch watchdogs here. With a limit, a CPU that hangs leads to an outcome.
        core::hint::spin_loop();
        if self.looks.fetch_add(1, Ordering::Relaxed) < 100_000_000 {
            Patience::Wait
        } else {
            Patience::GiveUp
        }
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        memory::physical(address.addr() as u64)
    }
}

/// P-SEAMLDR on this CPU.
fn seamldr(host: &Hypervisor) -> Seamldr<'_, Hypervisor, SpinLock> {
    // On a processor with TDX this is `Hardware::new(rdmsr)`.
    let processor = Processor::probe(&TdxProcessor);
    processor.check().expect("a processor with TDX");
    Seamldr::new(host, &LOCK, processor.current_vmcs()).expect("no VMCS erratum")
}

/// A page for parameters. The library fills it in where it is.
fn params_page() -> &'static mut SeamldrParamsBuffer {
    SeamldrParamsBuffer::in_memory(&mut memory::pages(1)[0].0).expect("a page")
}

/// Runs the update on all CPUs, while each does no other work. CPU 0 shows the progress.
fn run(update: &Update<'_>) -> Outcome {
    cpus::on_all(&|| {
        let host = Hypervisor::new();
        let mut cpu = Cpu::new(update, seamldr(&host));
        // `cpu.run()` would be enough. Steps allow other work in between.
        let mut shown = None;
        loop {
            let now = (update.progress().0, update.round());
            if cpus::current() == 0 && shown != Some(now) && now.0 != Stage::Done {
                crate::print!("  stage {}, round {}", now.0, now.1);
                shown = Some(now);
            }
            match cpu.step() {
                Progress::Worked => {}
                Progress::Finished => break,
                Progress::Waiting if host.relax() == Patience::GiveUp => cpu.abandon(),
                Progress::Waiting => {}
            }
        }
    });
    update.outcome()
}

/// Loads a module without TDs, at boot or after the TDs are lost. `None` if preflight does not
/// pass.
pub fn load(image: &TdxImage<'static>) -> Option<Outcome> {
    let host = Hypervisor::new();
    // The keys are clean only before the first load after boot.
    let facts = Facts { keys_are_clean: Some(!LOADED.load(Ordering::Relaxed)), ..facts()? };
    let passed =
        preflight_image(image, &facts, Purpose::Load, &RustCrypto, Policy::default(), &mut show);
    let prepared = prepare(&shown(passed)?, &host);
    let update = Update::load(prepared, &host, STATE).expect("an image to load");
    LOADED.store(true, Ordering::Relaxed);
    let outcome = run(&update);
    if outcome.next != NextStep::Configure {
        crate::print!("  {outcome}");
    }
    Some(outcome)
}

/// Configures a loaded module as at boot: gives it memory and a key.
pub fn configure() {
    let module = TdxModule::new(&BACKEND);
    // SAFETY: `tdmr_list` returns a valid list, and the hypervisor does not use the memory that the
    // list names.
    unsafe { module.sys_config(firmware::tdmr_list(), 1, 0x20, false) }
        .expect("memory for the module");
    // Each package needs this call once. This machine has one package.
    module.sys_key_config().expect("a key");
    STATE.set_ready();
}

/// Returns the facts for preflight, from the firmware, the processor and the hypervisor. Prints the
/// error if a call fails.
fn facts() -> Option<Facts> {
    let host = Hypervisor::new();
    let (mut info, mut sysinfo) = (SeamldrInfoBuffer::zeroed(), PSysInfoBuffer::zeroed());
    let mut facts = Facts::new();
    if let Err(error) = facts.gather(&seamldr(&host), &mut info, &mut sysinfo) {
        crate::print!("  {error}");
        return None;
    }
    Processor::probe(&TdxProcessor).complete(&mut facts);
    facts.highest_x2apic_id = highest_x2apic_id();
    // A test key signed the images of this machine. No TD is in build.
    facts.signer = Some(firmware::SIGNER);
    facts.sensitive_operations = Some(0);
    Some(facts)
}

/// Returns the highest x2APIC ID of all CPUs. `None` if a CPU does not know its ID. No CPU has the
/// ID of all ones, which addresses every CPU.
fn highest_x2apic_id() -> Option<u32> {
    let highest = AtomicU32::new(0);
    cpus::on_all(&|| {
        let id = Processor::probe(&TdxProcessor).x2apic_id.unwrap_or(u32::MAX);
        highest.fetch_max(id, Ordering::Relaxed);
    });
    Some(highest.into_inner()).filter(|id| *id != u32::MAX)
}

/// Checks the image before the running module is shut down. Prints each reason for a refusal.
pub fn check(image: &TdxImage<'static>) -> Option<PassedUpdate<'static>> {
    shown(preflight(image, &facts()?, &RustCrypto, Policy::default(), &mut show))
}

fn show(finding: Finding) {
    crate::print!("  refused: {finding}");
}

fn shown<T>(passed: Result<T, NotPassed>) -> Option<T> {
    passed.inspect_err(|not_passed| crate::print!("  {not_passed}")).ok()
}

/// Fills in a page of parameters for a fallback image or an image to load.
fn prepare(passed: &PassedImage<'static>, host: &Hypervisor) -> PreparedImage<'static> {
    passed.prepare(params_page(), host).expect("an image in mapped memory")
}

/// Updates to the image that passed. `running` is the image of the running module. If it passes its
/// own preflight, the update has it as a fallback.
pub fn update(passed: &PassedUpdate<'static>, running: &TdxImage<'static>) -> Outcome {
    let host = Hypervisor::new();
    let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
    let fallback = facts()
        .and_then(|facts| {
            shown(preflight_image(
                running,
                &facts,
                purpose,
                &RustCrypto,
                Policy::default(),
                &mut show,
            ))
        })
        .map(|passed| prepare(&passed, &host));
    let update = Update::new(passed, params_page(), &INFO, &host, STATE)
        .and_then(|update| update.with_fallbacks(fallback.as_slice()))
        .expect("the CPUs that preflight counted");
    let outcome = run(&update);
    crate::print!("  {outcome}");
    // All CPUs run again, so reading the version does not delay them.
    if let Ok(version) = TdxModule::new(&host).version() {
        crate::print!("  the module has version {version}");
    }
    outcome
}
