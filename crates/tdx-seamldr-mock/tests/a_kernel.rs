//! An embedding in the order of a kernel driver: a kernel of four CPUs on the simulated platform,
//! with facts from CPUID and MSRs.
#![cfg(target_arch = "x86_64")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs)]

use std::cell::Cell;
use std::fmt::Display;
use std::sync::{LazyLock, Mutex, RwLock, RwLockReadGuard};

use tdx_seamldr_core::abi::{PSysInfoBuffer, SeamldrInfoBuffer};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, NotPassed, Policy, Purpose,
};
use tdx_seamldr_core::update::{Cpu, Outcome, Update};
use tdx_seamldr_core::{
    Error, LpBits, ModuleState, Seamldr, SharedInfo, SpinLock, TdxImage, TdxModule, VmcsErratum,
};
use tdx_seamldr_mock::{PageBuf, SimLp, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use tdx_seamldr_x86_64::{CpuidResult, Processor, Registers};

// for 1,024 possible CPUs, in use from boot on
static STATE: ModuleState<[LpBits; 16]> = ModuleState::new();
static LOCK: SpinLock = SpinLock::new(); // one CPU at a time calls P-SEAMLDR

fn update_tdx_module(file: &[u8], running: &[u8], memory: &mut Memory) -> Result<Outcome, Error> {
    let (image, running) = (TdxImage::parse(file)?, TdxImage::parse(running)?);

    // 1. Hold the CPUs: none comes or goes until this function returns.
    let _held = cpus_read_lock();

    // 2. Gather facts, each from whoever knows it.
    let host = this_cpu(); // your Host: SEAMCALL, CPUs, addresses
    let processor = Processor::probe(&ThisProcessor);
    let seamldr = Seamldr::new(&host, &LOCK, processor.current_vmcs())?;
    let mut facts = Facts::new();
    // P-SEAMLDR and the running module
    facts.gather(&seamldr, &mut memory.info, &mut memory.sysinfo)?;
    processor.complete(&mut facts); // CPUID and MSRs
    facts.highest_x2apic_id = Some(highest_x2apic_id()); // the kernel
    facts.sensitive_operations = Some(tds_in_build()); // KVM
    facts.signer = Some(TEST_SIGNER);

    // 3. Preflight: no refusal, no unknown. Nothing has been shut down.
    let report: &mut dyn FnMut(Finding) = &mut |finding| log(&finding);
    let passed = preflight(&image, &facts, &RustCrypto, Policy::default(), report)?;
    let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
    let fallback =
        preflight_image(&running, &facts, purpose, &RustCrypto, Policy::default(), report)?;
    let fallbacks = [fallback.prepare(memory.fallback_params.as_params(), &host)?];

    // 4. Update: every CPU takes part, with interrupts off.
    let params = memory.params.as_params();
    let update = Update::new(&passed, params, &memory.shared_info, &host, &STATE)?
        .with_fallbacks(&fallbacks)?;
    stop_machine(|| {
        let host = this_cpu();
        Cpu::new(&update, Seamldr::new(&host, &LOCK, processor.current_vmcs())?).run();
        Ok(())
    })?;

    // 5. The CPUs run again. The outcome says what became of the TDs, and what to do next.
    let outcome = update.outcome();
    log(&outcome);
    if let Ok(version) = TdxModule::new(&host).version() {
        log(&version);
    }
    Ok(outcome)
}

/// Memory that P-SEAMLDR reads and writes.
struct Memory {
    params: PageBuf,
    fallback_params: PageBuf,
    info: SeamldrInfoBuffer,
    sysinfo: Box<PSysInfoBuffer>,
    shared_info: SharedInfo,
}

impl Memory {
    fn new() -> Self {
        Self {
            params: PageBuf::zeroed(1),
            fallback_params: PageBuf::zeroed(1),
            info: SeamldrInfoBuffer::zeroed(),
            sysinfo: Box::new(PSysInfoBuffer::zeroed()),
            shared_info: SharedInfo::new(),
        }
    }
}

/// Images of three modules, each newer than the one before.
static IMAGES: LazyLock<[PageBuf; 3]> = LazyLock::new(|| {
    [5, 6, 7].map(|svn_minor| TestImage { svn_minor, ..TestImage::default() }.build())
});

/// The machine, on which the first module runs.
static MACHINE: LazyLock<SimPlatform> = LazyLock::new(|| {
    SimPlatform::builder().lps(4).boot(&TdxImage::parse(IMAGES[0].as_bytes()).unwrap()).unwrap()
});

thread_local! {
    static CPU: Cell<u32> = const { Cell::new(0) };
}

fn this_cpu() -> SimLp<'static> {
    MACHINE.lp(CPU.get())
}

static HOTPLUG: RwLock<()> = RwLock::new(());

fn cpus_read_lock() -> RwLockReadGuard<'static, ()> {
    HOTPLUG.read().unwrap()
}

/// A byte that the firmware reads with another bit from the next stop on.
static FLIPS: Mutex<Option<&u8>> = Mutex::new(None);

fn stop_machine(work: impl Fn() -> Result<(), VmcsErratum> + Sync) -> Result<(), VmcsErratum> {
    assert!(HOTPLUG.try_write().is_err(), "CPUs are held");
    if let Some(byte) = FLIPS.lock().unwrap().take() {
        assert!(MACHINE.tamper(byte, 1));
    }
    let work = &work;
    std::thread::scope(|threads| {
        let on = |cpu| {
            threads.spawn(move || {
                CPU.set(cpu);
                work()
            })
        };
        let cpus: Vec<_> = MACHINE.online().map(on).collect();
        cpus.into_iter().try_for_each(|cpu| cpu.join().unwrap())
    })
}

/// CPUID and MSRs of the simulated machine.
struct ThisProcessor;

impl Registers for ThisProcessor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        MACHINE.with_model(|model| {
            let config = model.config();
            let (eax, ecx, edx) = match (leaf, subleaf) {
                (0, _) => (0x1f, 0, 0),
                (1, _) => (config.socket_fms[0], 1 << 5, 1 << 12),
                (4, 3) => ((config.addressable_lps_per_socket.wrapping_sub(1)) << 14 | 3, 0, 0),
                (7, _) => (0, 1 << 13, 0),
                (0x8000_0000, _) => (0x8000_0008, 0, 0),
                (0x8000_0008, _) => (config.max_pa, 0, 0),
                _ => (0, 0, 0),
            };
            CpuidResult { eax, ebx: 0, ecx, edx }
        })
    }

    fn msr(&self, index: u32) -> Option<u64> {
        MACHINE.with_model(|model| {
            let config = model.config();
            Some(match index {
                0xfe => 1 << 15,
                0x87 => 32 << 32 | config.private_hkid_min.wrapping_sub(1),
                0x480 => 1 << 60,
                0x503 => u64::from(config.debug_unlocked) << 1,
                0x982 => u64::from(config.keyid_bits) << 32,
                0x1400 => config.seamrr_base,
                0x1401 => config.seamrr_size.wrapping_neg() & ((1 << 52) - 1) | 3 << 10,
                _ => return None,
            })
        })
    }
}

fn highest_x2apic_id() -> u32 {
    3
}

fn tds_in_build() -> u32 {
    0
}

static LOG: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn log(line: &dyn Display) {
    LOG.lock().unwrap().push(line.to_string());
}

fn take_log() -> Vec<String> {
    std::mem::take(&mut *LOG.lock().unwrap())
}

#[test]
fn kernel_updates_falls_back_and_refuses() {
    let [first, second, third] = (*IMAGES).each_ref().map(PageBuf::as_bytes);
    let mut memory = Memory::new();
    let state: &ModuleState = &STATE;
    state.set_ready(); // the kernel has initialised the first module
    for _ in 0..3 {
        MACHINE.create_td().unwrap();
    }

    let outcome = update_tdx_module(second, first, &mut memory).unwrap();
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!(take_log(), ["updated; the TDs live on", "1.5.06"]);

    // A bit of the signature flips in memory after preflight: P-SEAMLDR refuses the image.
    let third_image = TdxImage::parse(third).unwrap();
    *FLIPS.lock().unwrap() = Some(&third_image.sigstruct().signature[0]);
    let outcome = update_tdx_module(third, second, &mut memory).unwrap();
    assert!(outcome.tds_live_on() && outcome.image == 1, "{outcome}");
    assert_eq!(take_log()[1..], ["1.5.06"]);

    let (calls, older) =
        (MACHINE.num_calls(), update_tdx_module(first, second, &mut memory).unwrap_err());
    assert_eq!(older, NotPassed { refusals: 1, unknowns: 0 }.into());
    assert!(
        matches!(&*take_log(), [refusal] if refusal.contains("older than the running module's 1.6"))
    );
    assert!(MACHINE.num_calls() > calls && MACHINE.truth().tds_alive == 3);
}
