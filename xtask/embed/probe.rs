//! What a kernel does with the library, and Linux's `seamldr.c` does in C: get P-SEAMLDR's information, parse a v2 image,
//! build the parameters, run the per-CPU machine under `stop_machine`.
//!
//! `cargo xtask embed-check` links this without a standard library. The functions of the kernel are only declared. The panic
//! handler calls a function that exists nowhere, so that the link fails if any panic can be reached.
#![no_std]
#![no_main]

mod kernel;

use core::ffi::c_void;
use core::sync::atomic::AtomicU64;

use kernel::Kernel;
use tdx_seamldr_core::abi::{Scenario, SeamldrInfoBuffer, SeamldrParams};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::update::{Cpu, Options, Update};
use tdx_seamldr_core::{CurrentVmcs, Host, InstallRequest, ModuleState, Seamldr, TdxImage};

extern "C" {
    fn kernel_params_page() -> *mut SeamldrParams;
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
static STATE: ModuleState<[AtomicU64; 128]> = ModuleState::new();

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
        Ok(seamldr) => seamldr.info(&KERNEL, buffer).map_or(EIO, |_| 0),
        Err(error) => error,
    }
}

extern "C" fn run_cpu(update: *mut c_void) -> i32 {
    // SAFETY: `probe_install` passes a reference that outlives `stop_machine`.
    let update = unsafe { &*update.cast::<Update<'_>>() };
    if let Ok(seamldr) = seamldr() {
        Cpu::new(update, seamldr, &KERNEL).run();
    }
    0
}

/// # Safety
///
/// `data` has `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn probe_install(data: *const u8, len: usize) -> i32 {
    // SAFETY: the caller's.
    let data = unsafe { core::slice::from_raw_parts(data, len) };
    #[cfg(plant_a_panic)]
    assert!(len != 12288);
    let Ok(image) = TdxImage::parse_only(ImageFormat::ImageV2, data) else { return EINVAL };
    // SAFETY: a page of this function's own.
    let params = unsafe { &mut *kernel_params_page() };
    let Ok(request) = InstallRequest::build(params, &image, Scenario::Update, &KERNEL) else { return EINVAL };
    let Ok(mut update) = Update::new(request, &STATE, Options::default(), KERNEL.num_lps()) else {
        return EINVAL;
    };
    // SAFETY: runs `run_cpu` on all CPUs and returns when all have.
    unsafe { kernel_stop_machine(run_cpu, (&raw mut update).cast()) };
    if update.is_updated() {
        0
    } else {
        EIO
    }
}
