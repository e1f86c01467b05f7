//! What a kernel does with the library, and Linux's `seamldr.c` does in C: get P-SEAMLDR's
//! information, parse a v2 image, build the parameters, run the per-CPU machine under
//! `stop_machine`. Linux has no preflight, so the passed value comes from elsewhere.
//!
//! `cargo xtask embed-check` links this without a standard library. The functions of the kernel are
//! only declared. The panic handler calls a function that exists nowhere, so that the link fails if
//! any panic can be reached.
#![no_std]
#![no_main]

mod kernel;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use kernel::Kernel;
use tdx_seamldr_core::abi::{SeamldrInfoBuffer, SeamldrParams};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::preflight::PassedUpdate;
use tdx_seamldr_core::update::{Cpu, Update};
use tdx_seamldr_core::{CurrentVmcs, LpBits, ModuleState, Seamldr, SharedInfo, TdxImage};

extern "C" {
    fn kernel_params_page() -> *mut SeamldrParams;
    fn kernel_info_page() -> *const SharedInfo;
    fn kernel_vmx_basic() -> u64;
    fn kernel_stop_machine(function: extern "C" fn(*mut c_void) -> i32, data: *mut c_void) -> i32;
    fn a_panic_can_be_reached() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { a_panic_can_be_reached() }
}

static KERNEL: Kernel = Kernel;
static STATE: ModuleState<[LpBits; 128]> = ModuleState::new();

const ENODEV: i32 = -19;
const EINVAL: i32 = -22;
const EIO: i32 = -5;

fn seamldr() -> Result<Seamldr<'static, Kernel, Kernel>, i32> {
    // SAFETY: reads an MSR.
    let vmx_basic = unsafe { kernel_vmx_basic() };
    Seamldr::new(&KERNEL, &KERNEL, CurrentVmcs::from_vmx_basic(vmx_basic)).map_err(|_| ENODEV)
}

/// # Safety
///
/// `buffer` is valid and nobody else's.
#[no_mangle]
pub unsafe extern "C" fn probe_get_info(buffer: *mut SeamldrInfoBuffer) -> i32 {
    // SAFETY: the caller's.
    let buffer = unsafe { &mut *buffer };
    match seamldr() {
        Ok(seamldr) => seamldr.info(buffer).map_or(EIO, |_| 0),
        Err(error) => error,
    }
}

extern "C" fn run_cpu(update: *mut c_void) -> i32 {
    // SAFETY: `probe_install` passes a reference that outlives `stop_machine`.
    let update = unsafe { &*update.cast::<Update<'_>>() };
    if let Ok(seamldr) = seamldr() {
        Cpu::new(update, seamldr).run();
    }
    0
}

/// # Safety
///
/// `data` has `len` bytes, which stay as they are.
#[no_mangle]
pub unsafe extern "C" fn probe_parse(
    data: *const u8,
    len: usize,
    out: &mut MaybeUninit<TdxImage<'static>>,
) -> i32 {
    // SAFETY: the caller's.
    let data = unsafe { core::slice::from_raw_parts(data, len) };
    #[cfg(plant_a_panic)]
    assert!(len != 12288);
    let Ok(image) = TdxImage::parse_only(ImageFormat::ImageV2, data) else { return EINVAL };
    out.write(image);
    0
}

#[no_mangle]
pub extern "C" fn probe_install(passed: &'static PassedUpdate<'static>) -> i32 {
    // SAFETY: pages of this function's own.
    let (params, info) = unsafe { (&mut *kernel_params_page(), &*kernel_info_page()) };
    let Ok(mut update) = Update::new(passed, params, info, &KERNEL, &STATE) else { return EINVAL };
    // SAFETY: runs `run_cpu` on all CPUs and returns when all have.
    unsafe { kernel_stop_machine(run_cpu, (&raw mut update).cast()) };
    if update.is_updated() {
        0
    } else {
        EIO
    }
}
