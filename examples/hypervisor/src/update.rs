//! A hypervisor's embedding of the library, whole. `docs/embedding-hypervisor.md` explains it.

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
use zerocopy::{FromBytes, FromZeros};

use crate::firmware::{self, TdxProcessor};
use crate::machine::{cpus, memory};

/// SEAMCALL on this CPU. If it raises #UD or #GP, the handler finds the way back by `fixup`.
static BACKEND: Seamcall<SeamTable> = Seamcall::new();

/// P-SEAMLDR takes one CPU at a time. All CPUs that wait for it have interrupts off, so a plain
/// spin lock does.
static LOCK: SpinLock = SpinLock::new();

/// The memory of the module's state, from boot on, for each CPU that could ever come online.
static STATE: &ModuleState = &BITS;
static BITS: ModuleState<[LpBits; 1]> = ModuleState::new();

/// P-SEAMLDR was asked to load a module since boot.
static LOADED: AtomicBool = AtomicBool::new(false);

/// Where the lead CPU asks P-SEAMLDR while all CPUs stand still. One update runs at a time.
static INFO: SharedInfo = SharedInfo::new();

/// One CPU's view of the hypervisor. It counts how often this CPU has waited.
struct Hypervisor {
    looks: AtomicU32,
}

impl Hypervisor {
    const fn new() -> Self {
        Self { looks: AtomicU32::new(0) }
    }
}

// SAFETY: hands the call to the instruction itself.
unsafe impl SeamcallBackend for Hypervisor {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        unsafe { BACKEND.seamcall(regs) }
    }
}

// SAFETY: a CPU's number never changes, and CPUs neither come nor go; addresses are translated by
// the page tables in use, which nobody changes, so memory stays where it is.
unsafe impl Host for Hypervisor {
    fn current_lp(&self) -> u32 {
        cpus::current()
    }

    fn num_lps(&self) -> u32 {
        cpus::count()
    }

    fn relax(&self) -> Patience {
        // The place to touch watchdogs. An end to patience turns a CPU that hangs into an outcome.
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

/// Stops all CPUs, and has each do its part. One of them shows how far they are.
fn run(update: &Update<'_>) -> Outcome {
    cpus::on_all(&|| {
        let host = Hypervisor::new();
        let mut cpu = Cpu::new(update, seamldr(&host));
        // `cpu.run()` is all that is needed. Steps leave room for something in between.
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

/// Puts a module in place afresh, at boot or after the TDs are lost. `None` if preflight does not
/// pass.
pub fn load(image: &TdxImage<'static>) -> Option<Outcome> {
    let host = Hypervisor::new();
    // The first load after boot finds clean keys.
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

/// After a module was loaded: gives it memory and a key, as at boot.
pub fn configure() {
    let module = TdxModule::new(&BACKEND);
    // SAFETY: the list and what it leads to were made for this, and the hypervisor keeps out of the
    // memory it names.
    unsafe { module.sys_config(firmware::tdmr_list(), 1, 0x20, false) }
        .expect("memory for the module");
    // Once for each package; this machine has one.
    module.sys_key_config().expect("a key");
    STATE.set_ready();
}

/// Facts for preflight: what the firmware, the processor and the hypervisor know. Prints why there
/// are none.
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
    // Images for this machine are signed with a test key. No TD is in build.
    facts.signer = Some(firmware::SIGNER);
    facts.sensitive_operations = Some(0);
    Some(facts)
}

/// Each CPU knows its own x2APIC ID. `None` if one does not. An ID of all ones addresses every CPU,
/// so no CPU has it.
fn highest_x2apic_id() -> Option<u32> {
    let highest = AtomicU32::new(0);
    cpus::on_all(&|| {
        let id = Processor::probe(&TdxProcessor).x2apic_id.unwrap_or(u32::MAX);
        highest.fetch_max(id, Ordering::Relaxed);
    });
    Some(highest.into_inner()).filter(|id| *id != u32::MAX)
}

/// Asks, before anything is shut down, what P-SEAMLDR and the new module will ask. Prints each
/// reason for a refusal.
pub fn check(image: &TdxImage<'static>) -> Option<PassedUpdate<'static>> {
    shown(preflight(image, &facts()?, &RustCrypto, Policy::default(), &mut show))
}

fn show(finding: Finding) {
    crate::print!("  refused: {finding}");
}

fn shown<T>(passed: Result<T, NotPassed>) -> Option<T> {
    passed.inspect_err(|not_passed| crate::print!("  {not_passed}")).ok()
}

/// Fills in a page of parameters for an image that is loaded, or fallen back on.
fn prepare(passed: &PassedImage<'static>, host: &Hypervisor) -> PreparedImage<'static> {
    passed.prepare(params_page(), host).expect("an image in mapped memory")
}

/// Updates to the image that passed. `running` is the image of the module that runs: if it passes,
/// too, the update falls back on it.
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
    // All CPUs go on: the version costs no time of theirs.
    if let Ok(version) = TdxModule::new(&host).version() {
        crate::print!("  the module has version {version}");
    }
    outcome
}
