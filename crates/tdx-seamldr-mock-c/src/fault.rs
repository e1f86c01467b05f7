//! Faults that are planned: calls that end otherwise than they should.

use tdx_seamldr_mock::model::{Answer, Fault};

use crate::registry::with;
use crate::status::guarded;
use crate::{pointer, TdxSim, TdxSimStatus, TdxSimTrap};

/// A fault is for every LP.
pub const TDX_SIM_ANY_LP: u32 = 0xffff_ffff;

/// The longest that a delayed call waits for others, in milliseconds.
pub const TDX_SIM_DELAY_LIMIT_MS: u32 = 1000;

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TdxSimFaultKind {
    /// A status in RAX, and RDX. Firmware does nothing.
    Return = 1,
    /// The instruction fails. Firmware is not entered.
    Trap = 2,
    /// Firmware is entered, and answers only after so many other calls were made, by other threads; but after
    /// TDX_SIM_DELAY_LIMIT_MS at the latest.
    Delay = 3,
}

impl TdxSimFaultKind {
    /// The number that C gives.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u32) enum
    pub const fn number(self) -> u32 {
        self as u32
    }
}

/// Calls that go wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimFault {
    /// On which LP, or TDX_SIM_ANY_LP.
    pub lp: u32,
    /// 1: whatever RAX is. 0: with the RAX that follows.
    pub any_rax: u32,
    /// RAX at the call.
    pub rax: u64,
    /// How many such calls pass before.
    pub after: u32,
    /// How many such calls go wrong then; not 0.
    pub times: u32,
    /// What they get: a tdx_sim_fault_kind.
    pub kind: u32,
    /// With TDX_SIM_FAULT_KIND_TRAP: which, a tdx_sim_trap other than none.
    pub trap: u32,
    /// With TDX_SIM_FAULT_KIND_DELAY: how many calls; not 0.
    pub delay: u32,
    /// 0.
    pub reserved: u32,
    /// With TDX_SIM_FAULT_KIND_RETURN: RAX.
    pub answer_rax: u64,
    /// With TDX_SIM_FAULT_KIND_RETURN: RDX.
    pub answer_rdx: u64,
}

impl TdxSimFault {
    fn answer(&self) -> Option<Answer> {
        let kinds = [TdxSimFaultKind::Return, TdxSimFaultKind::Trap, TdxSimFaultKind::Delay];
        match kinds.into_iter().find(|kind| kind.number() == self.kind)? {
            TdxSimFaultKind::Return => Some(Answer::Return { rax: self.answer_rax, rdx: self.answer_rdx }),
            TdxSimFaultKind::Trap => TdxSimTrap::of_number(self.trap).map(Answer::Trap),
            TdxSimFaultKind::Delay => (self.delay != 0).then_some(Answer::Delay(self.delay)),
        }
    }

    fn fault(&self) -> Result<Fault, TdxSimStatus> {
        let answer = self.answer().ok_or(TdxSimStatus::BadFault)?;
        if self.any_rax > 1 || self.times == 0 || self.reserved != 0 {
            return Err(TdxSimStatus::BadFault);
        }
        Ok(Fault {
            lp: (self.lp != TDX_SIM_ANY_LP).then_some(self.lp),
            rax: (self.any_rax == 0).then_some(self.rax),
            after: self.after,
            times: self.times,
            answer,
        })
    }
}

/// Plans a fault, in addition to those there are. The first that strikes a call decides about it.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; BAD_FAULT: a field has a value that it cannot have; UNKNOWN_LP; NO_ROOM: 32 faults are
/// planned already that have not done all that they were to do.
///
/// # Safety
///
/// `fault` leads to a tdx_sim_fault that may be read.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_add_fault(sim: *mut TdxSim, fault: *const TdxSimFault) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let fault = unsafe { pointer::read(fault) }?;
        with(sim, |sim| {
            let fault = fault.fault()?;
            if fault.lp.is_some_and(|lp| sim.platform.x2apic_id(lp).is_none()) {
                return Err(TdxSimStatus::UnknownLp);
            }
            sim.platform.faults_mut().add(fault).map_err(|_| TdxSimStatus::NoRoom)
        })
    })
}

/// Takes back all faults. Calls that are delayed already stay so.
///
/// Errors: NULL; BAD_HANDLE.
#[no_mangle]
pub extern "C" fn tdx_sim_clear_faults(sim: *mut TdxSim) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            sim.platform.faults_mut().clear();
            Ok(())
        })
    })
}
