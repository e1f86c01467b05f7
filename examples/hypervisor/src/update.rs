//! How a hypervisor embeds the library: the whole of it. `docs/embedding-hypervisor.md` goes through this file.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use tdx_seamldr_core::abi::{PSysInfoBuffer, Scenario, SeamldrInfoBuffer, SeamldrParams};
use tdx_seamldr_core::preflight::{preflight, Facts, Policy};
use tdx_seamldr_core::update::{Cpu, NextStep, Options, Outcome, Progress, Stage, Update};
use tdx_seamldr_core::{
    Host, InstallRequest, ModuleState, Patience, PhysAddr, Seamldr, SpinLock, TdxImage, TdxModule,
};
use tdx_seamldr_verify::RustCrypto;
use tdx_seamldr_x86_64::{Processor, SeamTable, Seamcall};
use zerocopy::{FromBytes, FromZeros};

use crate::firmware::{self, TdxProcessor};
use crate::machine::{cpus, memory};

/// SEAMCALL on this CPU. If it raises #UD or #GP, the handler finds the way back by `fixup`.
static BACKEND: Seamcall<SeamTable> = Seamcall::new();

/// P-SEAMLDR takes one CPU at a time. All CPUs that wait for it have interrupts off, so a plain spin lock does.
static LOCK: SpinLock = SpinLock::new();

/// What is known about the module, from boot on: one bit for each CPU that could ever come online.
static STATE: &ModuleState = &BITS;
static BITS: ModuleState<[AtomicU64; 1]> = ModuleState::new();

/// One CPU's view of the hypervisor. It counts how often this CPU has waited.
struct Hypervisor {
    looks: AtomicU32,
}

impl Hypervisor {
    const fn new() -> Self {
        Self { looks: AtomicU32::new(0) }
    }
}

// SAFETY: a CPU's number never changes, and CPUs neither come nor go; addresses are translated by the page tables in use, which
// nobody changes, so memory stays where it is.
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
fn seamldr() -> Seamldr<'static, Seamcall<SeamTable>, SpinLock> {
    // On a processor with TDX this is `Hardware::new(rdmsr)`.
    let processor = Processor::probe(&TdxProcessor);
    processor.check().expect("a processor with TDX");
    Seamldr::new(&BACKEND, &LOCK, processor.current_vmcs()).expect("no VMCS erratum")
}

/// A page for parameters. The library fills it in where it is.
fn params_page() -> &'static mut SeamldrParams {
    SeamldrParams::mut_from_bytes(&mut memory::pages(1)[0].0).expect("a page")
}

/// Stops all CPUs, and has each do its part. One of them shows how far they are.
fn run(update: &Update<'_>) -> Outcome {
    cpus::on_all(&|| {
        let host = Hypervisor::new();
        let mut cpu = Cpu::new(update, seamldr(), &host);
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

/// Puts a module in place afresh, at boot or when there is nothing left to update: all TDs are gone then.
pub fn load(image: &TdxImage<'static>) -> Outcome {
    let request = InstallRequest::build(params_page(), image, Scenario::Load, &Hypervisor::new())
        .expect("an image that can be installed");
    let update = Update::load(request, STATE, cpus::count()).expect("a request to load");
    let outcome = run(&update);
    if outcome.next != NextStep::Configure {
        crate::print!("  {outcome}");
    }
    outcome
}

/// After a module was loaded: gives it memory and a key, as at boot.
pub fn configure() {
    let module = TdxModule::new(&BACKEND);
    // SAFETY: the list and what it leads to were made for this, and the hypervisor keeps out of the memory it names.
    unsafe { module.sys_config(firmware::tdmr_list(), 1, 0x20, false) }.expect("memory for the module");
    // Once for each package; this machine has one.
    module.sys_key_config().expect("a key");
    STATE.set_ready();
}

/// Asks everything that can be asked before anything is shut down. Prints every reason against the update; says how it is to be
/// made if there is none.
pub fn check(image: &TdxImage<'_>) -> Option<Options> {
    let host = Hypervisor::new();
    let (mut info, mut sysinfo) = (SeamldrInfoBuffer::zeroed(), PSysInfoBuffer::new_zeroed());
    let mut facts = match Facts::gather(&seamldr(), &host, &mut info, &mut sysinfo, &firmware::SIGNER) {
        Ok(facts) => facts,
        Err(error) => {
            crate::print!("  {error}");
            return None;
        }
    };
    // What only the processor knows, and only the hypervisor.
    Processor::probe(&TdxProcessor).complete(&mut facts);
    facts.sensitive_operations = Some(0);
    let verdict = preflight(image, &facts, &RustCrypto, Policy::default(), &mut |finding| {
        crate::print!("  refused: {finding}");
    });
    verdict.passed().then_some(facts.options(image))
}

/// Updates to this image; `running` is the one of the module that runs, to fall back on.
pub fn update(image: &TdxImage<'static>, running: &TdxImage<'static>, options: Options) -> Outcome {
    let host = Hypervisor::new();
    let build = |image| {
        InstallRequest::build(params_page(), image, Scenario::Update, &host)
            .expect("an image that can be installed")
    };
    let fallbacks = [build(running)];
    let update = Update::new(build(image), STATE, options, cpus::count())
        .and_then(|update| update.with_fallbacks(&fallbacks))
        .expect("requests to update");
    let outcome = run(&update);
    crate::print!("  {outcome}");
    outcome
}
