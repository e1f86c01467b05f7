//! Calls of undefined functions, one after each answer that a kernel can give the library. `cargo
//! xtask embed-check` checks that the link fails for each of them. If the compiler took an answer
//! for impossible, it would remove the code after it, and also a panic there.
#![no_std]
#![no_main]

mod kernel;

use kernel::Kernel;
use tdx_seamldr_core::abi::{Scenario, SeamldrInfoBuffer, SeamldrParamsBuffer};
use tdx_seamldr_core::{BuildError, Crypto, CryptoUnavailable, Host, InstallRequest, Patience};
use tdx_seamldr_core::{
    SeamcallBackend, SeamcallRegs, Seamldr, SeamldrError, Sha384Digest, TdxImage, Trap,
};

extern "C" {
    fn behind_wait() -> u32;
    fn behind_giving_up() -> u32;
    fn behind_an_address() -> u32;
    fn behind_no_address() -> u32;
    fn behind_a_return() -> u32;
    fn behind_vmfailinvalid() -> u32;
    fn behind_gp() -> u32;
    fn behind_ud() -> u32;
    fn behind_a_digest() -> u32;
    fn behind_no_digest() -> u32;
    fn behind_a_valid_signature() -> u32;
    fn behind_an_invalid_signature() -> u32;
    fn behind_no_verification() -> u32;
    // After answers that come through the library.
    fn behind_not_mapped() -> u32;
    fn behind_misaligned() -> u32;
    fn behind_a_trap() -> u32;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// # Safety
///
/// No code calls this function or the others.
#[no_mangle]
unsafe extern "C" fn probe_host(address: *const u8) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let patience = match Kernel.relax() {
            Patience::Wait => behind_wait(),
            Patience::GiveUp => behind_giving_up(),
        };
        let found = match Kernel.phys_addr(address) {
            Some(_) => behind_an_address(),
            None => behind_no_address(),
        };
        patience ^ found
    }
}

/// # Safety
///
/// No code calls this function.
#[no_mangle]
unsafe extern "C" fn probe_backend(regs: &mut SeamcallRegs) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        match Kernel.seamcall(regs) {
            Ok(()) => behind_a_return(),
            Err(Trap::VmFailInvalid) => behind_vmfailinvalid(),
            Err(Trap::GeneralProtection) => behind_gp(),
            Err(Trap::UndefinedOpcode) => behind_ud(),
        }
    }
}

/// # Safety
///
/// No code calls this function.
#[no_mangle]
unsafe extern "C" fn probe_crypto(
    key: &[u8; 384],
    signature: &[u8; 384],
    digest: &Sha384Digest,
) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let hashed = match Kernel.sha384(&[key]) {
            Ok(_) => behind_a_digest(),
            Err(CryptoUnavailable) => behind_no_digest(),
        };
        let verified = match Kernel.rsa3072_verify(key, signature, digest) {
            Ok(true) => behind_a_valid_signature(),
            Ok(false) => behind_an_invalid_signature(),
            Err(CryptoUnavailable) => behind_no_verification(),
        };
        hashed ^ verified
    }
}

/// # Safety
///
/// No code calls this function.
#[no_mangle]
unsafe fn probe_library(
    params: &'static mut SeamldrParamsBuffer,
    image: &TdxImage<'static>,
    seamldr: &Seamldr<'_, Kernel, Kernel>,
    buffer: &mut SeamldrInfoBuffer,
) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let built = match InstallRequest::build(params, image, Scenario::Update, &Kernel) {
            Err(BuildError::NotMapped(_)) => behind_not_mapped(),
            Err(BuildError::Misaligned(..)) => behind_misaligned(),
            _ => 0,
        };
        let asked = match seamldr.info(buffer) {
            Err(SeamldrError::Trap(_)) => behind_a_trap(),
            _ => 0,
        };
        built ^ asked
    }
}
