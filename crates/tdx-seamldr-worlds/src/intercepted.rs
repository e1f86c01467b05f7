//! An LP whose calls go through a function.

use tdx_seamldr_core::{Host, MachineId, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_mock::SimLp;

/// When something happens at a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// Right before firmware is entered.
    Before,
    /// After firmware has done what it was asked, and before the caller hears of it.
    Inside,
    /// After the caller has finished the step that the call was part of.
    After,
}

/// A simulated LP that says when it calls firmware, and may count other LPs than there are.
pub(crate) struct Intercepted<'a, F> {
    lp: SimLp<'a>,
    /// Called at each SEAMCALL with its moment: [`Moment::Before`] and [`Moment::Inside`].
    hook: F,
    lps: u32,
}

impl<'a, F: Fn(Moment)> Intercepted<'a, F> {
    pub(crate) fn new(lp: SimLp<'a>, hook: F) -> Self {
        let lps = lp.num_lps();
        Self { lp, hook, lps }
    }

    /// The same on a host that counts this number of LPs.
    pub(crate) fn counting(self, lps: u32) -> Self {
        Self { lps, ..self }
    }
}

// SAFETY: each call is passed on to the simulated LP, once, with the registers given.
unsafe impl<F: Fn(Moment)> SeamcallBackend for Intercepted<'_, F> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        (self.hook)(Moment::Before);
        // SAFETY: the caller's guarantees.
        let result = unsafe { self.lp.seamcall(regs) };
        (self.hook)(Moment::Inside);
        result
    }
}

// SAFETY: the simulated LP's own answers. The number of LPs is no part of the contract.
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
