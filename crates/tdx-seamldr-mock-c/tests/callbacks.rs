//! Callbacks: functions that read and write host memory, and the trace of calls.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
#![allow(clippy::multiple_unsafe_ops_per_block)] // values from C are taken apart; tables of calls

mod support;

use std::ffi::{c_int, c_void, CStr};
use std::ptr;
use std::sync::Mutex;

use support::{
    fault, filled, image, platform, update_memory, Sim, HOST, INSTALL, LPS, SYS_RD, SYS_SHUTDOWN,
};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// Host memory from [`HOST`] on, and the results of library calls from inside a callback.
struct Host {
    bytes: Mutex<Vec<u8>>,
    /// The platform that the callbacks try to use.
    sim: Mutex<Option<usize>>,
    /// The statuses that they got.
    told: Mutex<Vec<TdxSimStatus>>,
    /// Reads and writes from this address on fail.
    fails_from: u64,
    /// Each access: whether it is a write, its address, its length.
    accesses: Mutex<Vec<(bool, u64, usize)>>,
}

impl Host {
    fn new(bytes: Vec<u8>) -> Self {
        let (told, accesses) = (Mutex::default(), Mutex::default());
        Self {
            bytes: Mutex::new(bytes),
            sim: Mutex::new(None),
            told,
            fails_from: u64::MAX,
            accesses,
        }
    }

    fn access(&self, write: bool, address: u64, len: usize, run: impl FnOnce(&mut [u8])) -> c_int {
        self.accesses.lock().unwrap().push((write, address, len));
        if let Some(number) = *self.sim.lock().unwrap() {
            let sim = ptr::without_provenance_mut(number);
            let found = [tdx_sim_clear_faults(sim), tdx_sim_free(sim)];
            self.told.lock().unwrap().extend(found);
        }
        if address >= self.fails_from {
            return -1;
        }
        let start = usize::try_from(address.wrapping_sub(HOST)).unwrap();
        if let Some(part) = self.bytes.lock().unwrap().get_mut(start..start.saturating_add(len)) {
            run(part);
        }
        0
    }

    fn set_on(&self, sim: &Sim) -> TdxSimStatus {
        let callbacks = TdxSimMemoryCallbacks {
            size: size_of::<TdxSimMemoryCallbacks>() as u32,
            reserved: 0,
            context: ptr::from_ref(self).cast_mut().cast(),
            read: Some(read),
            write: Some(write),
        };
        // SAFETY: the tests keep the host as long as the platform makes calls, and its functions
        // respect the lengths.
        unsafe { tdx_sim_set_memory_callbacks(sim.0, &callbacks) }
    }
}

unsafe extern "C" fn read(
    context: *mut c_void,
    address: u64,
    buffer: *mut c_void,
    len: usize,
) -> c_int {
    // SAFETY: the context is the test's host, and the buffer has `len` bytes.
    let (host, out) =
        unsafe { (&*context.cast::<Host>(), std::slice::from_raw_parts_mut(buffer.cast(), len)) };
    host.access(false, address, len, |part| out.copy_from_slice(part))
}

unsafe extern "C" fn write(
    context: *mut c_void,
    address: u64,
    bytes: *const c_void,
    len: usize,
) -> c_int {
    // SAFETY: the context is the test's host, and the source has `len` bytes.
    let (host, source) =
        unsafe { (&*context.cast::<Host>(), std::slice::from_raw_parts(bytes.cast(), len)) };
    host.access(true, address, len, |part| part.copy_from_slice(source))
}

#[test]
fn an_update_reads_host_memory_by_callbacks_at_most_a_page_at_a_time() {
    let host = Host::new(update_memory(&TdxSimImage { svn_minor: 6, ..image() }));
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(host.set_on(&sim), Ok);
    sim.succeed(0, SYS_SHUTDOWN, 0);
    (0..LPS).for_each(|lp| sim.succeed(lp, INSTALL, HOST));
    assert_eq!(sim.truth().svn_minor, 6);
    let accesses = std::mem::take(&mut *host.accesses.lock().unwrap());
    assert!(accesses.len() > 8);
    for (write, address, len) in accesses {
        assert!(!write && len > 0 && address % 4096 + len as u64 <= 4096, "{address:#x}, {len}");
    }
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST + 0x100);
    assert_eq!(*host.accesses.lock().unwrap(), [(true, HOST + 0x100, 256)]);
    assert_eq!(host.bytes.lock().unwrap()[0x108..0x10c], 0x8086u32.to_le_bytes());
}

#[test]
fn mapped_memory_has_priority_over_callbacks_and_other_memory_reads_as_0() {
    let host = Host::new(vec![0x55; 0x2000]);
    let mut memory = vec![0x77; 0x1000];
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(host.set_on(&sim), Ok);
    assert_eq!(sim.map(HOST, &mut memory), Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(host.accesses.lock().unwrap().len(), 0);
    assert_eq!(memory[8..12], 0x8086u32.to_le_bytes());
    assert_eq!(tdx_sim_unmap(sim.0, HOST), Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(host.accesses.lock().unwrap().len(), 1);
    // SAFETY: NULL removes the callbacks.
    assert_eq!(unsafe { tdx_sim_set_memory_callbacks(sim.0, ptr::null()) }, Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(host.accesses.lock().unwrap().len(), 1);
}

#[test]
fn a_failed_callback_is_reported_and_firmware_reads_zeros_or_loses_its_write() {
    let host = Host { fails_from: HOST + 0x1000, ..Host::new(update_memory(&image())) };
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(host.set_on(&sim), Ok);
    let info = |rcx| TdxSimRegs { rax: TDX_SIM_SEAMLDR_INFO, rcx, ..TdxSimRegs::default() };
    let (status, trap, regs) = sim.try_call(0, info(HOST + 0x1000));
    assert_eq!(
        (status, trap, regs.rax),
        (CallbackFailed, TdxSimTrap::None, 0),
        "the registers are set nevertheless"
    );
    assert_eq!(sim.try_call(0, info(HOST + 0x800)).0, Ok, "the next call succeeds");
    drop(sim);
    // Now reads of the SIGSTRUCT fail.
    let host = Host { fails_from: HOST + 0x1000, ..Host::new(update_memory(&image())) };
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(host.set_on(&sim), Ok);
    sim.succeed(0, SYS_SHUTDOWN, 0);
    (0..LPS - 1).for_each(|lp| sim.succeed(lp, INSTALL, HOST));
    let regs = TdxSimRegs { rax: INSTALL, rcx: HOST, ..TdxSimRegs::default() };
    let (status, _, regs) = sim.try_call(LPS - 1, regs);
    assert_eq!((status, regs.rax), (CallbackFailed, TDX_SIM_SEAMLDR_EBADSIG));
}

#[test]
fn inside_a_memory_callback_all_platforms_are_refused_and_the_call_continues() {
    let host = Host::new(vec![0; 0x1000]);
    let (sim, other) = (Sim::booted(&platform(), &image()), Sim::ready());
    assert_eq!(host.set_on(&sim), Ok);
    for used in [&sim, &other] {
        *host.sim.lock().unwrap() = Some(used.0.addr());
        sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    }
    assert_eq!(*host.told.lock().unwrap(), [Reentrant; 4]);
    assert_eq!([&sim, &other].map(|sim| tdx_sim_clear_faults(sim.0)), [Ok; 2]);
}

#[test]
fn invalid_callbacks_are_refused_and_the_old_ones_stay() {
    let host = Host::new(vec![0; 0x1000]);
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(host.set_on(&sim), Ok);
    let size = size_of::<TdxSimMemoryCallbacks>() as u32;
    let good = TdxSimMemoryCallbacks {
        size,
        reserved: 0,
        context: ptr::null_mut(),
        read: Some(read),
        write: Some(write),
    };
    for (wrong, status) in [
        (TdxSimMemoryCallbacks { read: None, ..good }, Null),
        (TdxSimMemoryCallbacks { write: None, ..good }, Null),
        (TdxSimMemoryCallbacks { size: 0, ..good }, BadSize),
        (TdxSimMemoryCallbacks { size: size - 8, ..good }, BadSize),
        (TdxSimMemoryCallbacks { reserved: 1, ..good }, BadArgument),
    ] {
        // SAFETY: the function refuses the callbacks.
        assert_eq!(unsafe { tdx_sim_set_memory_callbacks(sim.0, &wrong) }, status);
    }
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(host.accesses.lock().unwrap().len(), 1);
}

/// The calls that a callback got, and a platform that it tries to use.
#[derive(Default)]
struct Told {
    calls: Mutex<Vec<TdxSimCall>>,
    sim: Mutex<Option<usize>>,
    statuses: Mutex<Vec<TdxSimStatus>>,
}

unsafe extern "C" fn tell(context: *mut c_void, call: *const TdxSimCall) {
    // SAFETY: the context is the test's, and the call is valid.
    let (told, call) = unsafe { (&*context.cast::<Told>(), *call) };
    told.calls.lock().unwrap().push(call);
    if let Some(number) = *told.sim.lock().unwrap() {
        let (mut regs, mut trap) = (TdxSimRegs::default(), TdxSimTrap::None);
        // SAFETY: both are writable.
        let status = unsafe {
            tdx_sim_seamcall(ptr::without_provenance_mut(number), 0, &mut regs, &mut trap)
        };
        told.statuses.lock().unwrap().push(status);
    }
}

fn next(sim: &Sim) -> Result<TdxSimCall, TdxSimStatus> {
    // SAFETY: the structure is writable, and its size is set.
    match filled(|call| unsafe { tdx_sim_next_call(sim.0, call) }) {
        (Ok, call) => Result::Ok(call),
        (status, _) => Err(status),
    }
}

fn text(call: &TdxSimCall) -> String {
    let mut line = [1; 200];
    // SAFETY: the buffer has this number of writable characters.
    assert_eq!(unsafe { tdx_sim_call_text(call, line.as_mut_ptr(), line.len()) }, Ok);
    // SAFETY: the function has written a NUL.
    unsafe { CStr::from_ptr(line.as_ptr()) }.to_str().unwrap().to_owned()
}

#[test]
fn the_trace_callback_gets_the_registers_before_and_after_each_call() {
    let told = Told::default();
    let sim = Sim::booted(&platform(), &image());
    let context = ptr::from_ref(&told).cast_mut().cast();
    // SAFETY: the context outlives the calls.
    assert_eq!(unsafe { tdx_sim_set_trace_callback(sim.0, Some(tell), context) }, Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    sim.add_fault(TdxSimFault { kind: TdxSimFaultKind::Trap.number(), trap: 2, ..fault() });
    let read = TdxSimRegs { rax: SYS_RD, rdx: 7, ..TdxSimRegs::default() };
    assert_eq!(sim.call(3, read).0, TdxSimTrap::Gp);
    assert_eq!(sim.try_call(99, read).0, UnknownLp);
    // SAFETY: NULL removes the callback.
    assert_eq!(unsafe { tdx_sim_set_trace_callback(sim.0, None, ptr::null_mut()) }, Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    let calls = told.calls.lock().unwrap();
    let lines: Vec<_> = calls.iter().map(text).collect();
    assert_eq!(
        lines,
        [
            "LP    0  SEAMLDR.INFO         rcx=0x100000000 rdx=0x0  ->  SUCCESS",
            "LP    3  TDH.SYS.RD           rcx=0x0 rdx=0x7  ->  GeneralProtection",
        ]
    );
    assert_eq!(
        calls.iter().map(|call| (call.number, call.trap)).collect::<Vec<_>>(),
        [(1, 0), (2, 2)]
    );
    assert_eq!(calls[1].output, read, "after a trap the registers are as before");
}

#[test]
fn inside_the_trace_callback_calls_are_refused() {
    let told = Told::default();
    let sim = Sim::booted(&platform(), &image());
    *told.sim.lock().unwrap() = Some(sim.0.addr());
    // SAFETY: the context outlives the calls.
    let status = unsafe {
        tdx_sim_set_trace_callback(sim.0, Some(tell), ptr::from_ref(&told).cast_mut().cast())
    };
    assert_eq!(status, Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(*told.statuses.lock().unwrap(), [Reentrant]);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
}

#[test]
fn the_platform_stores_the_last_calls_and_returns_the_oldest_first() {
    let sim = Sim::booted(&platform(), &image());
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(next(&sim), Err(NoCall), "no call is stored by default");
    assert_eq!(tdx_sim_keep_calls(sim.0, 2), Ok);
    for lp in 0..LPS {
        sim.succeed(lp, TDX_SIM_SEAMLDR_INFO, HOST);
    }
    let kept = [(); 3].map(|()| next(&sim).map(|call| (call.number, call.lp)));
    assert_eq!(
        kept,
        [Result::Ok((4, 2)), Result::Ok((5, 3)), Err(NoCall)],
        "the gap shows that 2 calls were not stored"
    );
    sim.succeed(1, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(tdx_sim_keep_calls(sim.0, 0), Ok);
    sim.succeed(2, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(next(&sim), Err(NoCall));
    assert_eq!(tdx_sim_keep_calls(sim.0, TDX_SIM_TRACE_LIMIT + 1), BadArgument);
    let mut call = TdxSimCall::default();
    // SAFETY: the function refuses the structure.
    assert_eq!(unsafe { tdx_sim_next_call(sim.0, &mut call) }, BadSize);
    call.size = size_of::<TdxSimCall>() as u32;
    call.trap = 4;
    let mut line = [0; 8];
    // SAFETY: the buffers have these numbers of writable characters.
    let statuses = unsafe {
        [
            tdx_sim_call_text(&call, line.as_mut_ptr(), 8),
            tdx_sim_call_text(&TdxSimCall { trap: 0, ..call }, line.as_mut_ptr(), 0),
        ]
    };
    assert_eq!(statuses, [BadArgument, BufferTooSmall]);
    assert_eq!(line, [0; 8]);
}

#[test]
fn answer_text_names_a_status_by_the_firmware_that_returned_it() {
    let name = |leaf, answer| {
        let mut text = [1; 64];
        // SAFETY: the buffer has this number of writable characters.
        assert_eq!(unsafe { tdx_sim_answer_text(leaf, answer, text.as_mut_ptr(), text.len()) }, Ok);
        // SAFETY: the function has written a NUL.
        unsafe { CStr::from_ptr(text.as_ptr()) }.to_str().unwrap().to_owned()
    };
    assert_eq!(name(INSTALL, TDX_SIM_SEAMLDR_EBADSIG), "EBADSIG");
    assert_eq!(name(SYS_SHUTDOWN, TDX_SIM_TDX_SYS_BUSY), "SYS_BUSY");
    assert_eq!(name(INSTALL, 0x8000000000070001), "0x8000000000070001");
    // SAFETY: the function writes nothing.
    assert_eq!(unsafe { tdx_sim_answer_text(0, 0, ptr::null_mut(), 1) }, Null);
}
