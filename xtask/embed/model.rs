//! The use of the simulated platform by a kernel or a bare-metal test: it makes a platform in its
//! own memory, and calls it.
//!
//! `cargo xtask embed-check` links this without a standard library and without an allocator. This
//! code may reach a panic.
#![no_std]
#![no_main]

mod kernel;

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;

use kernel::Kernel;
use tdx_seamldr_core::SeamcallRegs;
use tdx_seamldr_mock::model::{Config, LoaderProfile, PhysMemory, Platform, SeamDb, SeamMemory};

extern "C" {
    fn kernel_phys_to_virt(address: u64) -> *mut u8;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

impl PhysMemory for Kernel {
    fn read(&self, address: u64, out: &mut [u8]) {
        // SAFETY: the probe is never run. A kernel would translate the address.
        unsafe {
            core::ptr::copy_nonoverlapping(
                kernel_phys_to_virt(address),
                out.as_mut_ptr(),
                out.len(),
            )
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        // SAFETY: as in `read`.
        unsafe {
            core::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                kernel_phys_to_virt(address),
                bytes.len(),
            )
        }
    }
}

/// A value that only one CPU uses.
struct Alone<T>(UnsafeCell<T>);

// SAFETY: the probe has one CPU.
unsafe impl<T> Sync for Alone<T> {}

static MEMORY: Alone<SeamMemory> = Alone(UnsafeCell::new(SeamMemory::ZEROED));
static PLATFORM: Alone<MaybeUninit<Platform<&'static mut SeamMemory>>> =
    Alone(UnsafeCell::new(MaybeUninit::uninit()));

/// Makes the platform. Returns 0 on success.
///
/// # Safety
///
/// One CPU calls this once, before all other functions.
#[no_mangle]
pub unsafe extern "C" fn probe_boot(num_lps: u32) -> i32 {
    let Ok(config) = Config::new(num_lps, 1, 0x806f8, [0; 48], LoaderProfile::V1_5_00) else {
        return -22;
    };
    let seamdb = SeamDb { size: 64, used: 0, insert_failures: 0 };
    // SAFETY: the caller's: no other reference to the statics exists.
    unsafe {
        let memory = &mut *MEMORY.0.get();
        (*PLATFORM.0.get()).write(Platform::new(config, seamdb, memory));
    }
    0
}

/// Executes one SEAMCALL.
///
/// # Safety
///
/// The caller must have called `probe_boot`, and `regs` must be valid.
#[no_mangle]
pub unsafe extern "C" fn probe_seamcall(lp: u32, regs: *mut SeamcallRegs) -> u32 {
    // SAFETY: the caller's.
    let (platform, regs) = unsafe { ((*PLATFORM.0.get()).assume_init_mut(), &mut *regs) };
    platform.seamcall(lp, regs, &Kernel, &Kernel).map_or(1, |()| 0)
}
