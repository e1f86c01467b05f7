//! One LP: executes SEAMCALL, and is the host for code that runs on it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::MutexGuard;

use tdx_seamldr_core::{Host, MachineId, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, Trap};

use super::platform::{Inner, SimPlatform};
use crate::TraceEntry;

/// One LP of a [`SimPlatform`].
#[derive(Debug)]
pub struct SimLp<'p> {
    pub(super) platform: &'p SimPlatform,
    pub(super) lp: u32,
    /// Called when the LP enters firmware, inside firmware, and while the LP waits.
    pub(super) yielding: fn(),
    pub(super) looks: AtomicU32,
}

// SAFETY: the model makes the call once, with the given registers. `Err` means that firmware was
// not entered. The model reads and writes only what the leaf's operands name, through `HostMemory`.
unsafe impl SeamcallBackend for SimLp<'_> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        let platform = self.platform;
        let input = *regs;
        (self.yielding)();
        let mut inner = platform.inner();
        inner.calls = inner.calls.wrapping_add(1);
        let result = match inner.model.enter(self.lp, regs) {
            Err(trap) => Err(trap),
            Ok(entered) => {
                if input.rax >> 63 == 1 || entered.delay != 0 {
                    // Other LPs may call meanwhile, and find this LP inside firmware.
                    let until = inner.calls.wrapping_add(entered.delay.into());
                    drop(inner);
                    (self.yielding)();
                    inner = self.wait_for_calls(until);
                }
                inner.model.leave(entered, regs, &platform.memory, platform.crypto.0)
            }
        };
        inner.trace.push(TraceEntry { lp: self.lp, input, output: result.map(|()| *regs) });
        result
    }
}

impl SimLp<'_> {
    /// Counts one look at the other LPs, and returns whether this LP may look once more.
    pub(super) fn look_once_more(&self) -> Patience {
        if self.looks.fetch_add(1, Ordering::Relaxed) >= self.platform.patience {
            Patience::GiveUp
        } else {
            Patience::Wait
        }
    }

    /// Waits until the platform has seen `until` calls, or until this LP's patience ends.
    fn wait_for_calls(&self, until: u64) -> MutexGuard<'_, Inner> {
        for _ in 0..self.platform.patience {
            let inner = self.platform.inner();
            if inner.calls >= until {
                return inner;
            }
            drop(inner);
            self.platform.let_others_come();
        }
        self.platform.inner()
    }
}

// SAFETY: `HostMemory` translates each page to one frame and back, and borrowed memory does not
// move. Each platform has its own machine number. A `SimLp` always stands for the same LP; two
// `SimLp`s of one LP call one after the other, because the platform has a lock.
unsafe impl Host for SimLp<'_> {
    fn current_lp(&self) -> u32 {
        self.lp
    }

    fn num_lps(&self) -> u32 {
        u32::try_from(self.platform.num_online()).unwrap_or(u32::MAX)
    }

    fn relax(&self) -> Patience {
        self.platform.let_others_come();
        self.look_once_more()
    }

    // Not inlined, like a kernel's address translation: its instructions do not count as the
    // library's.
    #[inline(never)]
    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        self.platform.memory.phys_addr(address)
    }

    fn machine(&self) -> MachineId {
        self.platform.machine
    }
}
