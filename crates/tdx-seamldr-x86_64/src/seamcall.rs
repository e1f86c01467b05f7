//! The backend that executes SEAMCALL.

use core::fmt;
use core::marker::PhantomData;

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};

use crate::table::{outcome, Table};

/// Executes SEAMCALL on the calling processor, with all 14 registers. `T` selects the handling of
/// #GP and #UD.
///
/// The call may change RBP, the vector registers and the arithmetic flags. It changes no other
/// state of the caller.
pub struct Seamcall<T> {
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Seamcall<T> {
    /// Returns the backend. With an exception table, the handlers of #GP and #UD must search it: by
    /// [`fixup`](crate::fixup), or as Linux does. Without a table, the handlers treat the exception
    /// like any other.
    #[must_use]
    pub const fn new() -> Self {
        Self { table: PhantomData }
    }
}

impl<T: Table> Default for Seamcall<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Clone for Seamcall<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Seamcall<T> {}

impl<T> fmt::Debug for Seamcall<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seamcall")
    }
}

// SAFETY: the instruction is executed once, on the calling CPU, with the registers given. If it
// returns with CF clear, all 14 registers are stored. With CF set, and after a fixed-up exception,
// the instruction has not entered the firmware.
unsafe impl<T: Table> SeamcallBackend for Seamcall<T> {
    #[inline]
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: `regs` is borrowed exclusively; the rest is the caller's.
        outcome(unsafe { T::seamcall(regs) })
    }
}
