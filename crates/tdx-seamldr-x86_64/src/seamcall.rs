//! The backend that executes SEAMCALL.

use core::fmt;
use core::marker::PhantomData;

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};

use crate::table::{outcome, Table};

/// Executes SEAMCALL on the processor that runs this, with all fourteen registers. `T` says what
/// becomes of #GP and #UD.
///
/// RBP, the vector registers and the arithmetic flags may come back changed, as with any call;
/// everything else as it was.
pub struct Seamcall<T> {
    table: PhantomData<fn() -> T>,
}

impl<T: Table> Seamcall<T> {
    /// The backend. With an exception table, the environment's handler of #GP and #UD has to look
    /// there ([`fixup`](crate::fixup), or Linux's own); otherwise the exception is one like any
    /// other in that environment.
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

// SAFETY: the instruction is executed once, on the CPU that calls, with the registers given, and
// all fourteen are stored when it returns with CF clear. With CF set, and after an exception that
// was fixed up, it has not entered the firmware.
unsafe impl<T: Table> SeamcallBackend for Seamcall<T> {
    #[inline]
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: `regs` is borrowed exclusively; the rest is the caller's.
        outcome(unsafe { T::seamcall(regs) })
    }
}
