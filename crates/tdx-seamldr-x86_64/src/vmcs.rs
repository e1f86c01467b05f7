//! Keeps the current VMCS on processors that lose it when P-SEAMLDR returns.

use core::sync::atomic::{AtomicBool, Ordering};

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};

use crate::table::{outcome, Table};
use crate::Seamcall;

/// The pointer that VMPTRST stores if the LP has no current VMCS.
const NONE: u64 = u64::MAX;

/// Reads and sets the current-VMCS pointer of the calling LP.
///
/// # Safety
///
/// An implementor must read and set the pointer of the LP on which [`SeamcallBackend::seamcall`] of
/// the same value executes its call.
pub unsafe trait CurrentVmcsPointer {
    /// VMPTRST: returns the address of the current VMCS, all ones if there is none.
    ///
    /// # Errors
    ///
    /// The instruction raised an exception: the LP is not in VMX root operation.
    fn current(&self) -> Result<u64, Trap>;

    /// VMPTRLD: makes a VMCS current.
    ///
    /// # Errors
    ///
    /// The processor refused the address. The current VMCS has not changed.
    ///
    /// # Safety
    ///
    /// `address` must be that of a VMCS of this hypervisor, which is not active on another LP.
    unsafe fn make_current(&self, address: u64) -> Result<(), Trap>;
}

// SAFETY: both instructions act on the LP that executes them, as SEAMCALL does.
unsafe impl<T: Table> CurrentVmcsPointer for Seamcall<T> {
    fn current(&self) -> Result<u64, Trap> {
        let mut pointer = NONE;
        // SAFETY: `pointer` is a local variable.
        outcome(unsafe { T::vmptrst(&mut pointer) })?;
        Ok(pointer)
    }

    unsafe fn make_current(&self, address: u64) -> Result<(), Trap> {
        // SAFETY: the caller guarantees that the VMCS at the address may become current.
        outcome(unsafe { T::vmptrld(&address) })
    }
}

/// Keeps the current VMCS across calls of P-SEAMLDR, by VMPTRST before and VMPTRLD after the call.
/// Processors whose IA32_VMX_BASIC has bit 60 clear lose it there. Calls of the TDX module are
/// passed on unchanged. An embedder that wraps its backend in this type may pass
/// [`CurrentVmcs::Preserved`](tdx_seamldr_core::CurrentVmcs::Preserved).
///
/// Between the two instructions the LP may have no current VMCS. Interrupts must be off. NMI
/// handlers must not use VMREAD, VMWRITE, VMLAUNCH, VMRESUME or VMPTRLD while
/// [`is_inside`](Self::is_inside) is true. Each LP needs its own value.
#[derive(Debug)]
pub struct KeepVmcs<B> {
    backend: B,
    inside: AtomicBool,
    lost: AtomicBool,
}

impl<B> KeepVmcs<B> {
    /// Wraps this backend, for one LP.
    ///
    /// # Safety
    ///
    /// During a call of P-SEAMLDR through this value, no other code on that LP may use or change
    /// the current VMCS.
    #[must_use]
    pub const unsafe fn new(backend: B) -> Self {
        Self { backend, inside: AtomicBool::new(false), lost: AtomicBool::new(false) }
    }

    /// Whether this LP is between saving and restoring the pointer. An NMI handler asks this before
    /// it uses the current VMCS.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Whether the processor refused to restore a VMCS. The LP then has no current VMCS, and the
    /// hypervisor must load one before it enters a virtual machine.
    #[must_use]
    pub fn has_lost_vmcs(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

// SAFETY: the call is passed once, with the same registers, to a backend that keeps the contract.
// If the VMCS pointer cannot be read, no call is made.
unsafe impl<B: SeamcallBackend + CurrentVmcsPointer> SeamcallBackend for KeepVmcs<B> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // All leaves of P-SEAMLDR have bit 63 set.
        if regs.rax >> 63 == 0 {
            // SAFETY: the caller's.
            return unsafe { self.backend.seamcall(regs) };
        }
        let before = self.backend.current()?;
        self.inside.store(true, Ordering::Relaxed);
        // SAFETY: the caller's.
        let result = unsafe { self.backend.seamcall(regs) };
        if before != NONE {
            // SAFETY: this VMCS was current on this LP before the call, and no other code has used
            // it since (contract of `new`).
            let restored = unsafe { self.backend.make_current(before) };
            if restored.is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
        self.inside.store(false, Ordering::Relaxed);
        result
    }
}
