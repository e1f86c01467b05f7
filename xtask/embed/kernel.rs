//! What a kernel brings. Its own functions are only declared, and each answer that the library can
//! get depends on one of them: what the compiler knew never to come would not be linked, and a
//! panic behind it would not be found.

use tdx_seamldr_core::{Crypto, CryptoUnavailable, Host, Lock, Patience, PhysAddr};
use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Sha384Digest, Trap};

extern "C" {
    /// 0, or 1 for VMfailInvalid, 2 for #GP, 3 for #UD.
    fn kernel_seamcall(regs: *mut SeamcallRegs) -> u32;
    fn kernel_spin_lock_irqsave() -> usize;
    fn kernel_spin_unlock_irqrestore(flags: usize);
    fn kernel_smp_processor_id() -> u32;
    fn kernel_num_online_cpus() -> u32;
    /// Whether to go on waiting.
    fn kernel_cpu_relax() -> bool;
    /// 0 if there is none.
    fn kernel_virt_to_phys(address: *const u8) -> u64;
    /// 0, or an error.
    fn kernel_sha384(data: *const u8, len: usize, digest: *mut u8) -> i32;
    /// 0, or 1 if the signature is not valid, or an error.
    fn kernel_rsa_verify(modulus: *const u8, signature: *const u8, digest: *const u8) -> i32;
}

pub struct Kernel;

// SAFETY: the kernel's own SEAMCALL does as the contract says.
unsafe impl SeamcallBackend for Kernel {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        match unsafe { kernel_seamcall(regs) } {
            0 => Ok(()),
            1 => Err(Trap::VmFailInvalid),
            2 => Err(Trap::GeneralProtection),
            _ => Err(Trap::UndefinedOpcode),
        }
    }
}

impl Lock for Kernel {
    type Held<'a> = usize;

    fn acquire(&self) -> usize {
        // SAFETY: takes the one lock that there is.
        unsafe { kernel_spin_lock_irqsave() }
    }

    fn release(&self, flags: usize) {
        // SAFETY: `flags` come from `acquire`.
        unsafe { kernel_spin_unlock_irqrestore(flags) }
    }
}

// SAFETY: kernel memory does not move.
unsafe impl Host for Kernel {
    fn current_lp(&self) -> u32 {
        // SAFETY: no preconditions.
        unsafe { kernel_smp_processor_id() }
    }

    fn num_lps(&self) -> u32 {
        // SAFETY: no preconditions.
        unsafe { kernel_num_online_cpus() }
    }

    fn relax(&self) -> Patience {
        // SAFETY: no preconditions.
        match unsafe { kernel_cpu_relax() } {
            true => Patience::Wait,
            false => Patience::GiveUp,
        }
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        // SAFETY: only looks the address up.
        match unsafe { kernel_virt_to_phys(address) } {
            0 => None,
            physical => Some(PhysAddr(physical)),
        }
    }
}

impl Crypto for Kernel {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        let mut digest = [0; 48];
        for part in parts {
            // SAFETY: the part is readable, and the digest has 48 bytes.
            if unsafe { kernel_sha384(part.as_ptr(), part.len(), digest.as_mut_ptr()) } != 0 {
                return Err(CryptoUnavailable);
            }
        }
        Ok(digest)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        // SAFETY: the arrays have the sizes that the function reads.
        match unsafe { kernel_rsa_verify(modulus.as_ptr(), signature.as_ptr(), digest.as_ptr()) } {
            0 => Ok(true),
            1 => Ok(false),
            _ => Err(CryptoUnavailable),
        }
    }
}
