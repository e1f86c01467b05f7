//! The use of the library by a kernel, with the steps of Linux's `seamldr.c`: get P-SEAMLDR's
//! information, parse a v2 image, build the parameters, run the update under `stop_machine`. Linux
//! has no preflight, so a caller provides the passed value.
//!
//! `cargo xtask embed-check` links this without a standard library. The functions of the kernel are
//! only declared. The panic handler calls an undefined function, so the link fails if the code can
//! reach a panic.
#![no_std]
#![no_main]

mod kernel;

use core::ffi::c_void;
use core::mem::MaybeUninit;

use kernel::Kernel;
use tdx_seamldr_core::abi::{SeamldrInfoBuffer, SeamldrParamsBuffer};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::preflight::PassedUpdate;
use tdx_seamldr_core::update::{Cpu, Update};
use tdx_seamldr_core::{CurrentVmcs, LpBits, ModuleState, Seamldr, SharedInfo, TdxImage};

extern "C" {
    fn kernel_params_page() -> *mut SeamldrParamsBuffer;
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
/// `buffer` must be valid, and no other code may use it.
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
/// `data` must have `len` bytes, which do not change.
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
    // SAFETY: the kernel returns pages that no other code uses.
    let (params, info) = unsafe { (&mut *kernel_params_page(), &*kernel_info_page()) };
    let Ok(mut update) = Update::new(passed, params, info, &KERNEL, &STATE) else { return EINVAL };
    // SAFETY: the kernel runs `run_cpu` on all CPUs and returns after all have returned.
    unsafe { kernel_stop_machine(run_cpu, (&raw mut update).cast()) };
    if update.is_updated() {
        0
    } else {
        EIO
    }
}
