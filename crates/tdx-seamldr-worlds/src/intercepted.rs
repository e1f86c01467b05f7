//! An LP whose calls go through a function.

use tdx_seamldr_core::{Host, MachineId, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_mock::SimLp;

/// The moment of an event during a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Right before firmware is entered.
    Before,
    /// After firmware has executed the call, before the caller gets the result.
    Inside,
    /// After the caller has finished the step with this call.
    After,
}

/// A simulated LP that reports each SEAMCALL, and may report a wrong number of LPs.
pub(crate) struct Intercepted<'a, F> {
    lp: SimLp<'a>,
    /// Called at each SEAMCALL with [`Moment::Before`] and [`Moment::Inside`].
    hook: F,
    lps: u32,
}

impl<'a, F: Fn(Moment)> Intercepted<'a, F> {
    pub(crate) fn new(lp: SimLp<'a>, hook: F) -> Self {
        let lps = lp.num_lps();
        Self { lp, hook, lps }
    }

    /// Returns the same LP on a host that reports this number of LPs.
    pub(crate) fn counting(self, lps: u32) -> Self {
        Self { lps, ..self }
    }
}

// SAFETY: each call is passed to the simulated LP once, with the given registers.
unsafe impl<F: Fn(Moment)> SeamcallBackend for Intercepted<'_, F> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        (self.hook)(Moment::Before);
        // SAFETY: as promised by the caller.
        let result = unsafe { self.lp.seamcall(regs) };
        (self.hook)(Moment::Inside);
        result
    }
}

// SAFETY: the simulated LP itself answers. The contract does not cover the number of LPs.
unsafe impl<F: Fn(Moment)> Host for Intercepted<'_, F> {
    fn current_lp(&self) -> u32 {
        self.lp.current_lp()
    }

    fn num_lps(&self) -> u32 {
        self.lps
    }

    fn relax(&self) -> Patience {
        self.lp.relax()
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        self.lp.phys_addr(address)
    }

    fn machine(&self) -> MachineId {
        self.lp.machine()
    }
}
