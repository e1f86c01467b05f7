//! Tests of the real backend with the real instruction in user mode. SEAMCALL raises an exception,
//! which arrives as a signal. The handler passes the registers to the simulated platform,
//! overwrites every register that the call may change, and continues after the instruction.
//!
//! The tests have their own `main`, which reports them as ignored if the instruction raises no
//! exception on this machine.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

use std::hint::black_box;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};
use tdx_seamldr_core::preflight::{preflight, Facts, Policy};
use tdx_seamldr_core::update::{Cpu, Outcome, Update};
use tdx_seamldr_core::{CurrentVmcs, Host, MachineId, Patience, PhysAddr, SharedInfo};
use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Seamldr, SpinLock, TdxImage, Trap};
use tdx_seamldr_mock::{Builder, PageBuf, SimLp, SimPlatform, TestImage};
use tdx_seamldr_user_mode::{self as handler, answered_by, calls, from_array, Answerer};
use tdx_seamldr_verify::RustCrypto;
use tdx_seamldr_x86_64::{
    fixup, CurrentVmcsPointer, KeepVmcs, LinuxTable, NoTable, SeamTable, Seamcall, Table,
};

fn main() -> ExitCode {
    // The tests count the calls of the whole process, so one test runs at a time.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    handler::install();
    let traps = handler::instruction_traps();
    if !traps {
        eprintln!("skipped: SEAMCALL raises no exception here that arrives as SIGILL or SIGSEGV");
    }
    let tests: [(&str, fn()); 10] = [
        ("seamcall_passes_and_returns_all_registers", seamcall_passes_and_returns_all_registers),
        ("seamcall_keeps_the_callers_values", seamcall_keeps_the_callers_values),
        ("carry_flag_becomes_vmfailinvalid", carry_flag_becomes_vmfailinvalid),
        ("exception_with_seam_table_becomes_a_trap", exception_with_seam_table_becomes_a_trap),
        ("exception_with_linux_table_becomes_a_trap", exception_with_linux_table_becomes_a_trap),
        ("update_on_eight_threads_keeps_the_tds", update_on_eight_threads_keeps_the_tds),
        ("update_with_erratum_keeps_current_vmcs", update_with_erratum_keeps_current_vmcs),
        ("unsaved_vmcs_prevents_the_call", unsaved_vmcs_prevents_the_call),
        ("unrestored_vmcs_is_reported_as_lost", unrestored_vmcs_is_reported_as_lost),
        (
            "calls_of_many_threads_return_their_own_registers",
            calls_of_many_threads_return_their_own_registers,
        ),
    ];
    let count = tests.len();
    let trials = tests.map(|(name, test)| {
        Trial::test(name, move || {
            test();
            Ok(())
        })
        .with_ignored_flag(!traps)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.into());
    if traps {
        println!(
            "{} of {count} tests with the real instruction, {} SEAMCALLs",
            conclusion.num_passed,
            calls()
        );
    }
    conclusion.exit_code()
}

fn call(backend: &impl SeamcallBackend, regs: &mut SeamcallRegs) -> Result<(), Trap> {
    // SAFETY: the handler executes the call. It reads and writes only buffers of the platform.
    unsafe { backend.seamcall(regs) }
}

fn seamcall_passes_and_returns_all_registers() {
    fn with<T: Table>() {
        for seed in 1u64..50 {
            let input = std::array::from_fn(|index| {
                seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index as u64
            });
            let (seen, found) = answered_by(Answerer::Mirror, || {
                let mut regs = from_array(input);
                assert_eq!(call(&Seamcall::<T>::new(), &mut regs), Ok(()));
                (handler::last_seen(), regs)
            });
            assert_eq!(seen, input, "the registers that the handler saw");
            assert_eq!(
                found,
                from_array(handler::mirrored(input)),
                "the registers that the handler stored"
            );
        }
    }
    with::<NoTable>();
    with::<SeamTable>();
    with::<LinuxTable>();
}

/// Keeps enough values in use to fill every register that the compiler may use.
#[inline(never)]
fn with_full_registers(backend: &impl SeamcallBackend, seed: u64) -> (u64, f64) {
    let ints: [u64; 15] = std::array::from_fn(|index| black_box(seed ^ (index as u64) << 32));
    let floats: [f64; 15] = std::array::from_fn(|index| black_box(seed as f64 + index as f64));
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o] = ints;
    let [p, q, r, s, t, u, v, w, x, y, z, aa, bb, cc, dd] = floats;
    let mut regs = from_array([seed; 14]);
    let result = call(backend, &mut regs);
    assert!(result.is_ok());
    let sum = a
        ^ b.rotate_left(1)
        ^ c.rotate_left(2)
        ^ d.rotate_left(3)
        ^ e.rotate_left(4)
        ^ f.rotate_left(5);
    let sum = sum
        ^ g.rotate_left(6)
        ^ h.rotate_left(7)
        ^ i.rotate_left(8)
        ^ j.rotate_left(9)
        ^ k.rotate_left(10);
    let sum = sum ^ l.rotate_left(11) ^ m.rotate_left(12) ^ n.rotate_left(13) ^ o.rotate_left(14);
    let float = p
        + q * 2.0
        + r * 3.0
        + s * 4.0
        + t * 5.0
        + u * 6.0
        + v * 7.0
        + w * 8.0
        + x * 9.0
        + y * 10.0;
    (sum, float + z * 11.0 + aa * 12.0 + bb * 13.0 + cc * 14.0 + dd * 15.0)
}

fn seamcall_keeps_the_callers_values() {
    fn with<T: Table>(seed: u64) -> (u64, f64) {
        answered_by(Answerer::Mirror, || with_full_registers(&Seamcall::<T>::new(), seed))
    }
    for seed in 1u64..200 {
        let expected =
            (0..15).fold(0u64, |sum, index| sum ^ (seed ^ index << 32).rotate_left(index as u32));
        let float = (0..15)
            .fold(0.0, |sum, index| sum + (seed as f64 + f64::from(index)) * f64::from(index + 1));
        for found in [with::<NoTable>(seed), with::<SeamTable>(seed), with::<LinuxTable>(seed)] {
            assert_eq!(found, (expected, float));
        }
    }
}

fn carry_flag_becomes_vmfailinvalid() {
    let result = answered_by(Answerer::Carry, || {
        call(&Seamcall::<NoTable>::new(), &mut from_array([7; 14]))
    });
    assert_eq!(result, Err(Trap::VmFailInvalid));
    // The old value of the flag does not matter.
    let result = answered_by(Answerer::Mirror, || {
        call(&Seamcall::<NoTable>::new(), &mut from_array([7; 14]))
    });
    assert_eq!(result, Ok(()));
}

const EXCEPTIONS: [(u64, Trap); 2] = [(6, Trap::UndefinedOpcode), (13, Trap::GeneralProtection)];

fn exception_with_seam_table_becomes_a_trap() {
    for (vector, trap) in EXCEPTIONS {
        for seed in 0..50 {
            let (result, after) = answered_by(Answerer::SeamTable(vector), || {
                let mut regs = from_array([seed; 14]);
                // The stack is unchanged.
                let after = black_box([seed; 8]);
                (call(&Seamcall::<SeamTable>::new(), &mut regs), black_box(after))
            });
            assert_eq!((result, after), (Err(trap), [seed; 8]));
        }
    }
    assert_eq!(fixup(main as fn() -> ExitCode as usize as u64), None);
    assert_eq!((fixup(0), fixup(u64::MAX)), (None, None));
}

fn exception_with_linux_table_becomes_a_trap() {
    for (vector, trap) in EXCEPTIONS {
        let result = answered_by(Answerer::LinuxTable(vector), || {
            call(&Seamcall::<LinuxTable>::new(), &mut from_array([1; 14]))
        });
        assert_eq!(result, Err(trap));
    }
}

/// A platform with three TDs, and its facts for preflight.
fn boot(builder: Builder) -> (SimPlatform, Facts) {
    let old = TestImage::default().build();
    let platform = builder.boot(&TdxImage::parse(old.as_bytes()).unwrap()).unwrap();
    for _ in 0..3 {
        platform.create_td().unwrap();
    }
    let facts = platform.facts().unwrap();
    platform.clear_trace();
    (platform, facts)
}

/// An LP that makes its SEAMCALLs by this backend.
struct ByInstruction<'p, B> {
    lp: SimLp<'p>,
    backend: B,
}

// SAFETY: the backend's own.
unsafe impl<B: SeamcallBackend> SeamcallBackend for ByInstruction<'_, B> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        unsafe { self.backend.seamcall(regs) }
    }
}

// SAFETY: the handler passes the backend's registers to the LP's platform, to which the addresses
// belong.
unsafe impl<B: SeamcallBackend> Host for ByInstruction<'_, B> {
    fn current_lp(&self) -> u32 {
        self.lp.current_lp()
    }

    fn num_lps(&self) -> u32 {
        self.lp.num_lps()
    }

    fn relax(&self) -> Patience {
        self.lp.relax()
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        self.lp.phys_addr(address)
    }

    fn machine(&self) -> MachineId {
        self.lp.machine()
    }
}

/// Runs an update with a thread for each LP. Backends of this kind make all SEAMCALLs.
fn update<B: SeamcallBackend>(
    (platform, facts): &(SimPlatform, Facts),
    lps: u32,
    backend: impl Fn() -> B + Sync,
) -> Outcome {
    let new = TestImage { svn_minor: 6, ..TestImage::default() }.build();
    let new = TdxImage::parse(new.as_bytes()).unwrap();
    let passed = preflight(&new, facts, &RustCrypto, Policy::default(), &mut |_| ()).unwrap();
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let update =
        Update::new(&passed, params.as_params(), &info, &platform.lp(0), platform.module_state())
            .unwrap();
    let lock = SpinLock::new();
    std::thread::scope(|threads| {
        for number in 0..lps {
            let (update, lock, backend) = (&update, &lock, &backend);
            threads.spawn(move || {
                answered_by(Answerer::Platform(platform, number), || {
                    let host = ByInstruction { lp: platform.lp(number), backend: backend() };
                    let seamldr = Seamldr::new(&host, lock, CurrentVmcs::Preserved).unwrap();
                    Cpu::new(update, seamldr).run();
                });
            });
        }
    });
    update.outcome()
}

fn update_on_eight_threads_keeps_the_tds() {
    // N LPs make 2 N + 3 calls for the update, and N + 1 calls that check the machine before the
    // shutdown.
    const CALLS: u64 = 3 * 8 + 4;
    let before = calls();
    for _ in 0..5 {
        let booted = boot(SimPlatform::builder().lps(8));
        let outcome = update(&booted, 8, Seamcall::<NoTable>::new);
        assert!(outcome.is_updated(), "{outcome}");
        let truth = booted.0.truth();
        let made = u64::try_from(booted.0.trace().len()).unwrap();
        assert_eq!((truth.tds_alive, truth.svn.minor, made), (3, 6, CALLS));
    }
    assert!(calls() - before >= 5 * CALLS, "the instruction makes all of the calls");
}

/// Returns the address of each LP's VMCS.
fn vmcs_of(lp: u32) -> u64 {
    0x10_0000 + u64::from(lp) * 4096
}

/// Returns a platform with the erratum. Each LP has a current VMCS.
fn with_erratum(lps: u32) -> (SimPlatform, Facts) {
    let (platform, facts) = boot(SimPlatform::builder().lps(lps));
    platform.with_model(|model| {
        model.config_mut().seamret_clears_vmcs = true;
        (0..lps).for_each(|lp| model.load_vmcs(lp, vmcs_of(lp)));
    });
    (platform, facts)
}

fn update_with_erratum_keeps_current_vmcs() {
    const LPS: u32 = 4;
    let kept = |platform: &SimPlatform| {
        platform.with_model(|model| {
            (0..LPS).filter(|lp| model.current_vmcs(*lp) == vmcs_of(*lp)).count()
        })
    };
    let booted = with_erratum(LPS);
    assert!(update(&booted, LPS, Seamcall::<NoTable>::new).is_updated());
    assert_eq!(kept(&booted.0), 0, "without KeepVmcs every LP loses its VMCS");

    let booted = with_erratum(LPS);
    // SAFETY: no other code uses a VMCS.
    let keeping = || unsafe { KeepVmcs::new(Seamcall::<SeamTable>::new()) };
    let outcome = update(&booted, LPS, keeping);
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((kept(&booted.0), booted.0.truth().tds_alive), (4, 3));
}

fn unsaved_vmcs_prevents_the_call() {
    for (vector, trap) in EXCEPTIONS {
        // SAFETY: no other code uses a VMCS.
        let backend = unsafe { KeepVmcs::new(Seamcall::<SeamTable>::new()) };
        answered_by(Answerer::SeamTable(vector), || {
            let before = calls();
            assert_eq!(call(&backend, &mut from_array([1 << 63; 14])), Err(trap));
            assert_eq!(calls(), before, "the backend makes no call");
            assert!(!backend.is_inside() && !backend.has_lost_vmcs());
        });
    }
}

fn unrestored_vmcs_is_reported_as_lost() {
    let (platform, _) = with_erratum(1);
    // SAFETY: no other code uses a VMCS.
    let backend = unsafe { KeepVmcs::new(Seamcall::<SeamTable>::new()) };
    answered_by(Answerer::Platform(&platform, 0), || {
        handler::refuse_vmptrld(true);
        // An unknown leaf of P-SEAMLDR also returns from P-SEAMLDR.
        assert_eq!(call(&backend, &mut from_array([1 << 63 | 77; 14])), Ok(()));
        handler::refuse_vmptrld(false);
        assert!(backend.has_lost_vmcs());
        let pointer = Seamcall::<SeamTable>::new();
        assert_eq!(pointer.current(), Ok(u64::MAX));
        // SAFETY: this is this LP's VMCS.
        assert_eq!(unsafe { pointer.make_current(vmcs_of(0)) }, Ok(()));
        assert_eq!(pointer.current(), Ok(vmcs_of(0)));
        // Leaves of the module are passed on unchanged.
        let mut regs = from_array([33; 14]);
        assert_eq!(call(&backend, &mut regs), Ok(()));
        assert_eq!(pointer.current(), Ok(vmcs_of(0)));
    });
}

fn calls_of_many_threads_return_their_own_registers() {
    std::thread::scope(|threads| {
        for thread in 0..4u64 {
            threads.spawn(move || {
                answered_by(Answerer::Mirror, || {
                    for round in 0..5_000 {
                        let input =
                            std::array::from_fn(|index| thread << 48 | round << 16 | index as u64);
                        let mut regs = from_array(input);
                        call(&Seamcall::<NoTable>::new(), &mut regs).unwrap();
                        assert_eq!(regs, from_array(handler::mirrored(input)));
                    }
                });
            });
        }
    });
}
