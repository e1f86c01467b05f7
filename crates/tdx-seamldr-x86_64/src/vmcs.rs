//! The current VMCS, for processors that lose it on the way back from P-SEAMLDR.

use core::sync::atomic::{AtomicBool, Ordering};

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};

use crate::table::{outcome, Table};
use crate::Seamcall;

/// What VMPTRST stores while there is no current VMCS.
const NONE: u64 = u64::MAX;

/// The pointer to the current VMCS of the LP that calls.
///
/// # Safety
///
/// An implementor reads and sets the pointer of the very LP that [`SeamcallBackend::seamcall`] of
/// the same value would make its call on.
pub unsafe trait CurrentVmcsPointer {
    /// VMPTRST: the address of the current VMCS, all ones if there is none.
    ///
    /// # Errors
    ///
    /// The instruction raised an exception: the LP is not in VMX root operation.
    fn current(&self) -> Result<u64, Trap>;

    /// VMPTRLD: makes a VMCS current.
    ///
    /// # Errors
    ///
    /// The processor did not take it. No other one has become current.
    ///
    /// # Safety
    ///
    /// It is the address of a VMCS of this hypervisor's, which is not active on another LP.
    unsafe fn make_current(&self, address: u64) -> Result<(), Trap>;
}

// SAFETY: both instructions are about the LP that executes them, as SEAMCALL is.
unsafe impl<T: Table> CurrentVmcsPointer for Seamcall<T> {
    fn current(&self) -> Result<u64, Trap> {
        let mut pointer = NONE;
        // SAFETY: `pointer` is ours to write.
        outcome(unsafe { T::vmptrst(&mut pointer) })?;
        Ok(pointer)
    }

    unsafe fn make_current(&self, address: u64) -> Result<(), Trap> {
        // SAFETY: the address is one that may become current (caller).
        outcome(unsafe { T::vmptrld(&address) })
    }
}

/// Keeps the current VMCS across calls of P-SEAMLDR, by VMPTRST before and VMPTRLD afterwards: on
/// processors whose IA32_VMX_BASIC has bit 60 clear it is lost there. Calls of the TDX module go
/// straight on. With this around its backend an embedder may say
/// [`CurrentVmcs::Preserved`](tdx_seamldr_core::CurrentVmcs::Preserved).
///
/// Between the two instructions the LP may have no current VMCS. So that nobody notices, interrupts
/// have to be off, and NMI handlers must not use VMREAD, VMWRITE, VMLAUNCH, VMRESUME or VMPTRLD
/// while [`is_inside`](Self::is_inside) says so; each LP needs a value of its own for that.
#[derive(Debug)]
pub struct KeepVmcs<B> {
    backend: B,
    inside: AtomicBool,
    lost: AtomicBool,
}

impl<B> KeepVmcs<B> {
    /// Around this backend, for one LP.
    ///
    /// # Safety
    ///
    /// While a P-SEAMLDR leaf is being called through this value, nothing else on that LP uses or
    /// changes the current VMCS.
    #[must_use]
    pub const unsafe fn new(backend: B) -> Self {
        Self { backend, inside: AtomicBool::new(false), lost: AtomicBool::new(false) }
    }

    /// Whether this LP is between saving and restoring: what an NMI handler asks that wants to use
    /// the current VMCS.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        self.inside.load(Ordering::Relaxed)
    }

    /// Whether the processor once refused to take its VMCS back. The LP has no current VMCS then:
    /// the hypervisor has to load one before it enters a virtual machine.
    #[must_use]
    pub fn has_lost_vmcs(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }
}

// SAFETY: the call goes on to a backend that holds the contract, once and with the same registers;
// if the VMCS cannot be asked for, no call is made.
unsafe impl<B: SeamcallBackend + CurrentVmcsPointer> SeamcallBackend for KeepVmcs<B> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // Leaves of P-SEAMLDR have bit 63 set, known ones and others.
        if regs.rax >> 63 == 0 {
            // SAFETY: the caller's.
            return unsafe { self.backend.seamcall(regs) };
        }
        let before = self.backend.current()?;
        self.inside.store(true, Ordering::Relaxed);
        // SAFETY: the caller's.
        let result = unsafe { self.backend.seamcall(regs) };
        if before != NONE {
            // SAFETY: it was current on this LP a moment ago, and nothing else has used it since
            // (contract of `new`).
            let restored = unsafe { self.backend.make_current(before) };
            if restored.is_err() {
                self.lost.store(true, Ordering::Relaxed);
            }
        }
        self.inside.store(false, Ordering::Relaxed);
        result
    }
}
