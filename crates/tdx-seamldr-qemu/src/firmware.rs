//! SEAMCALL on the platform, from as many vCPU threads as there are.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{LeafName, PhysMemory};
use tdx_seamldr_mock::TraceEntry;
use tdx_seamldr_verify::RustCrypto;

use crate::platform::{Settings, Simulated, StartError};
use crate::report;
use crate::trace::Trace;

/// The longest that a delayed call waits for others. A vCPU in a callback holds up whatever QEMU
/// wants all vCPUs to stop for.
const DELAY_LIMIT: Duration = Duration::from_secs(1);

/// Counters since the start of QEMU.
#[derive(Debug, Default)]
pub struct Counters {
    /// SEAMCALLs.
    pub seamcalls: AtomicU64,
    /// SEAMCALLs that found another LP inside P-SEAMLDR.
    pub busy: AtomicU64,
    /// Resets of the machine.
    pub resets: AtomicU64,
}

/// The platform behind a lock.
#[derive(Debug)]
pub struct Firmware {
    settings: Settings,
    simulated: Mutex<Simulated>,
    /// Notified when a call begins.
    changed: Condvar,
    /// Whether an LP is inside P-SEAMLDR. Other LPs do not wait for it, as they would for the lock.
    in_seamldr: AtomicBool,
    trace: Mutex<Trace>,
    /// The counters.
    pub counters: Counters,
}

/// An LP is inside P-SEAMLDR until this is dropped.
struct Inside<'a>(&'a AtomicBool);

impl<'a> Inside<'a> {
    /// Enters P-SEAMLDR. `None` if another LP is inside.
    fn enter(flag: &'a AtomicBool) -> Option<Self> {
        (!flag.swap(true, Ordering::Acquire)).then(|| Self(flag))
    }
}

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Firmware {
    /// Switches the platform on.
    ///
    /// # Errors
    ///
    /// The platform cannot be switched on.
    pub fn new(settings: Settings, trace: Trace) -> Result<Self, StartError> {
        let simulated = Mutex::new(settings.power_on()?);
        Ok(Self {
            settings,
            simulated,
            changed: Condvar::new(),
            in_seamldr: AtomicBool::new(false),
            trace: Mutex::new(trace),
            counters: Counters::default(),
        })
    }

    /// Returns what every power-on begins with.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Locks the platform. No call proceeds until the lock is dropped.
    pub fn simulated(&self) -> MutexGuard<'_, Simulated> {
        self.simulated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the trace.
    pub fn trace(&self) -> MutexGuard<'_, Trace> {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the platform back to power-on, after a reset of the machine.
    ///
    /// # Errors
    ///
    /// The platform cannot be switched on.
    pub fn reset(&self) -> Result<(), StartError> {
        let new = self.settings.power_on()?;
        *self.simulated() = new;
        self.counters.resets.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Executes SEAMCALL on an LP.
    ///
    /// # Errors
    ///
    /// The instruction fails. The registers are unchanged.
    pub fn seamcall(
        &self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
    ) -> Result<(), Trap> {
        let input = *regs;
        self.counters.seamcalls.fetch_add(1, Ordering::Relaxed);
        let result = if !LeafName(input.rax).is_for_seamldr() {
            self.call(lp, regs, memory)
        } else if let Some(_inside) = Inside::enter(&self.in_seamldr) {
            self.call(lp, regs, memory)
        } else {
            self.counters.busy.fetch_add(1, Ordering::Relaxed);
            Err(Trap::VmFailInvalid)
        };
        self.trace().push(TraceEntry { lp, input, output: result.map(|()| *regs) });
        result
    }

    fn call(&self, lp: u32, regs: &mut SeamcallRegs, memory: &dyn PhysMemory) -> Result<(), Trap> {
        let mut simulated = self.simulated();
        // The lock is held, so each delayed call either waits already or sees the new count.
        self.changed.notify_all();
        let entered = simulated.model.enter(lp, regs)?;
        if entered.delay != 0 {
            let now = self.counters.seamcalls.load(Ordering::Relaxed);
            let until = now.saturating_add(entered.delay.into());
            let waits = |_: &mut Simulated| self.counters.seamcalls.load(Ordering::Relaxed) < until;
            let waited = self.changed.wait_timeout_while(simulated, DELAY_LIMIT, waits);
            (simulated, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        let rax = regs.rax;
        simulated.model.leave(entered, regs, memory, &RustCrypto)?;
        let without_room = simulated.after_call(rax);
        if without_room != 0 {
            report::message(format_args!(
                "{without_room} of the TDs that were asked for have no KeyID"
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "firmware_tests.rs"]
mod tests;
