//! What a kernel does with the backend for real processors: SEAMCALL with Linux's exception table,
//! the VMCS kept, a processor probed.
//!
//! `cargo xtask embed-check` links this as it does `probe.rs`: no panic may be reached.
#![no_std]
#![no_main]

use core::mem::MaybeUninit;

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_x86_64::{Hardware, KeepVmcs, LinuxTable, Processor, Seamcall};

extern "C" {
    static __start___ex_table: [i32; 3];
    /// 0 if there is no such MSR.
    fn kernel_rdmsr_safe(index: u32, value: *mut u64) -> u32;
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { a_panic_can_be_reached() }
}

const fn word(result: Result<(), Trap>) -> u64 {
    match result {
        Ok(()) => 0,
        Err(trap) => trap.status().0,
    }
}

#[no_mangle]
extern "C" fn probe_seamcall(regs: &mut SeamcallRegs) -> u64 {
    // SAFETY: the probe is never run.
    word(unsafe { Seamcall::<LinuxTable>::new().seamcall(regs) })
}

#[no_mangle]
extern "C" fn probe_keep_vmcs(regs: &mut SeamcallRegs) -> u64 {
    // SAFETY: the probe is never run.
    let backend = unsafe { KeepVmcs::new(Seamcall::<LinuxTable>::new()) };
    // SAFETY: as above.
    word(unsafe { backend.seamcall(regs) })
}

#[no_mangle]
extern "C" fn probe_processor(out: &mut MaybeUninit<Processor>) -> bool {
    let rdmsr = |index| {
        let mut value = 0;
        // SAFETY: the kernel writes the value, or returns 0.
        (unsafe { kernel_rdmsr_safe(index, &mut value) } != 0).then_some(value)
    };
    out.write(Processor::probe(&Hardware::new(rdmsr))).check().is_ok()
}

/// The exception table.
#[no_mangle]
extern "C" fn probe_table() -> *const [i32; 3] {
    &raw const __start___ex_table
}
