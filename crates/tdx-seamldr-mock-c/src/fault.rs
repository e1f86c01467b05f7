//! Planned faults: calls that return a wrong answer, fail or take long.

use tdx_seamldr_mock::model::{Answer, Fault, FaultId};

use crate::number::{enumeration, flag, Enumeration, TdxSimBool};
use crate::pointer::Growing;
use crate::registry::with;
use crate::status::{guarded, Failure};
use crate::{pointer, TdxSim, TdxSimStatus, TdxSimTrap, TdxSimTrapNumber};

/// Any LP, or no LP.
pub const TDX_SIM_ANY_LP: u32 = 0xffff_ffff;

/// The number of times of a permanent fault: 4,294,967,295.
pub const TDX_SIM_ALWAYS: u32 = 0xffff_ffff;

/// The most faults that can be planned at the same time.
pub const TDX_SIM_MAX_FAULTS: u32 = 32;

/// The longest time that a delayed call waits for other calls, in milliseconds.
pub const TDX_SIM_DELAY_LIMIT_MS: u32 = 1000;

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimFaultKind {
    /// Sets RAX and RDX. Firmware does nothing. Exception: SEAMLDR.INSTALL with RDX not 0 destroys
    /// the module and all TDs, because RDX says so.
    Return = 1,
    /// Makes the instruction fail. Firmware is not entered.
    Trap = 2,
    /// Enters firmware, and returns only after `delay` calls of other threads, or after
    /// TDX_SIM_DELAY_LIMIT_MS. The other calls find the LP inside firmware.
    Delay = 3,
}

enumeration!(TdxSimFaultKind, "tdx_sim_fault_kind", [Return, Trap, Delay]);

/// A tdx_sim_fault_kind from C: any number.
pub type TdxSimFaultKindNumber = u32;

/// A fault and the calls that it affects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimFault {
    /// sizeof(tdx_sim_fault), set by the caller.
    pub size: u32,
    /// The LP, or TDX_SIM_ANY_LP.
    pub lp: u32,
    /// RAX before the call, all 64 bits. Ignored if `any_rax` is true.
    pub rax: u64,
    /// Whether RAX may have any value.
    pub any_rax: TdxSimBool,
    /// 0.
    pub reserved: [u8; 3],
    /// Number of matching calls that pass before the fault.
    pub after: u32,
    /// Number of matching calls that the fault then affects; not 0. TDX_SIM_ALWAYS: practically
    /// all.
    pub times: u32,
    /// What the fault does.
    pub kind: TdxSimFaultKindNumber,
    /// TDX_SIM_FAULT_KIND_TRAP: the trap, other than TDX_SIM_TRAP_NONE.
    pub trap: TdxSimTrapNumber,
    /// TDX_SIM_FAULT_KIND_DELAY: number of calls; not 0.
    pub delay: u32,
    /// TDX_SIM_FAULT_KIND_RETURN: RAX after the call.
    pub answer_rax: u64,
    /// TDX_SIM_FAULT_KIND_RETURN: RDX after the call.
    pub answer_rdx: u64,
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimFault {
    const NAME: &'static str = "tdx_sim_fault";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl TdxSimFault {
    fn answer(&self) -> Result<Answer, Failure> {
        match TdxSimFaultKind::of_number(self.kind)? {
            TdxSimFaultKind::Return => {
                Ok(Answer::Return { rax: self.answer_rax, rdx: self.answer_rdx })
            }
            TdxSimFaultKind::Trap => {
                let trap = TdxSimTrap::of_number(self.trap)?.trap();
                trap.map(Answer::Trap).ok_or_else(|| {
                    Failure::argument("trap is TDX_SIM_TRAP_NONE, but should be a trap")
                })
            }
            TdxSimFaultKind::Delay if self.delay == 0 => {
                Err(Failure::argument("delay is 0, but should be a number of calls"))
            }
            TdxSimFaultKind::Delay => Ok(Answer::Delay(self.delay)),
        }
    }

    fn fault(&self) -> Result<Fault, Failure> {
        let answer = self.answer()?;
        if self.times == 0 {
            return Err(Failure::argument("times is 0, but should be a number of calls"));
        }
        if self.reserved != [0; 3] {
            return Err(Failure::argument("reserved is not 0; set it to 0"));
        }
        Ok(Fault {
            lp: (self.lp != TDX_SIM_ANY_LP).then_some(self.lp),
            rax: (!flag(self.any_rax, "any_rax")?).then_some(self.rax),
            after: self.after,
            times: self.times,
            answer,
        })
    }
}

/// Adds a fault. The first fault that matches a call decides. `*id` is the number of the fault on
/// this platform: never 0, and never used again. `id` may be NULL. A fault that affects no call
/// gives no error: see tdx_sim_count_unfired_faults().
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: a field has an invalid
/// value; UNKNOWN_LP; NO_ROOM: TDX_SIM_MAX_FAULTS faults are planned and not over.
///
/// # Safety
///
/// `fault` points to a readable tdx_sim_fault whose `size` is set. `id` points to a writable
/// number, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_add_fault(
    sim: *mut TdxSim,
    fault: *const TdxSimFault,
    id: *mut u64,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let fault = unsafe { pointer::read_sized(fault) }?;
        if !id.is_null() {
            pointer::checked(id)?;
        }
        let FaultId(added) = with(sim, |sim| {
            let fault = fault.fault()?;
            if let Some(lp) = fault.lp {
                sim.known_lp(lp)?;
            }
            Ok(sim.platform.faults_mut().add(fault).map_err(|_| TdxSimStatus::NoRoom)?)
        })?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_if_wanted(id, added) }
    })
}

/// Ends a fault: it affects no further call. Has no effect on a fault that is over, and on calls
/// that are already delayed.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault with this
/// number.
#[no_mangle]
pub extern "C" fn tdx_sim_end_fault(sim: *mut TdxSim, id: u64) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            let known = sim.platform.faults_mut().end(FaultId(id));
            known.then_some(()).ok_or_else(|| TdxSimStatus::UnknownFault.into())
        })
    })
}

/// Returns how many more calls a fault affects. `*times` is 0 if the fault is over or was ended.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_FAULT: this platform never had a fault
/// with this number.
///
/// # Safety
///
/// `times` points to a writable number.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_fault(
    sim: *mut TdxSim,
    id: u64,
    times: *mut u32,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(times)?;
        let left = with(sim, |sim| {
            let left = sim.platform.faults_mut().times_left(FaultId(id));
            left.ok_or_else(|| TdxSimStatus::UnknownFault.into())
        })?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(times, left) }
    })
}

/// Counts the faults that have affected no call yet and were not ended. `*first` is the lowest
/// number of such a fault, or 0. `first` may be NULL. Call this at the end of a test: if a fault
/// has affected no call, the test has not tested it.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// `count` points to a writable number. `first` points to a writable number, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_count_unfired_faults(
    sim: *mut TdxSim,
    count: *mut u32,
    first: *mut u64,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(count)?;
        if !first.is_null() {
            pointer::checked(first)?;
        }
        let (unfired, lowest) = with(sim, |sim| {
            let unfired = sim.platform.faults_mut().unfired();
            Ok(unfired.fold((0_u32, 0), |(count, lowest), (FaultId(id), _)| {
                (count.saturating_add(1), if lowest == 0 { id } else { id.min(lowest) })
            }))
        })?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(count, unfired) }?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_if_wanted(first, lowest) }
    })
}

/// Ends all faults. Calls that are already delayed stay delayed.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_clear_faults(sim: *mut TdxSim) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            sim.platform.faults_mut().clear();
            Ok(())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_mock::model::MAX_FAULTS;

    #[test]
    fn the_number_of_faults_equals_that_of_the_simulation() {
        assert_eq!(usize::try_from(TDX_SIM_MAX_FAULTS), Ok(MAX_FAULTS));
    }
}
