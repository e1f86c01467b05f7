//! TDs, which an update has to preserve.

use std::ffi::c_void;

use tdx_seamldr_mock::model::{ModuleState, TdError, TdId, TdPhase};

use crate::number::{enumeration, Enumeration, TdxSimBool};
use crate::platform::Sim;
use crate::pointer::Growing;
use crate::registry::with;
use crate::status::{guarded, Failure};
use crate::{pointer, TdxSim, TdxSimStatus};

/// Phase of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimTdPhase {
    /// Running.
    Running = 0,
    /// In build, between TDH.MNG.INIT and TDH.MR.FINALIZE; the measurement is not complete.
    InBuild = 1,
    /// A step of the TD's migration was interrupted.
    InterruptedMigration = 2,
}

enumeration!(TdxSimTdPhase, "tdx_sim_td_phase", [Running, InBuild, InterruptedMigration]);

/// A tdx_sim_td_phase from C: any number.
pub type TdxSimTdPhaseNumber = u32;

impl TdxSimTdPhase {
    const fn phase(self) -> TdPhase {
        match self {
            Self::Running => TdPhase::Running,
            Self::InBuild => TdPhase::Build,
            Self::InterruptedMigration => TdPhase::InterruptedMigration,
        }
    }
}

impl From<TdPhase> for TdxSimTdPhase {
    fn from(phase: TdPhase) -> Self {
        match phase {
            TdPhase::Running => Self::Running,
            TdPhase::Build => Self::InBuild,
            TdPhase::InterruptedMigration => Self::InterruptedMigration,
        }
    }
}

/// State of a TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimTd {
    /// sizeof(tdx_sim_td), set by the caller.
    pub size: u32,
    /// Phase.
    pub phase: TdxSimTdPhaseNumber,
    /// Whether a ready module knows the TD's KeyID, and the TD's memory is intact.
    pub alive: TdxSimBool,
    /// Whether the measurement (MRTD) so far, or the MAC of the migration so far, is correct.
    pub measurement_right: TdxSimBool,
    /// 0.
    pub reserved: [u8; 6],
    /// The measurement or MAC so far. Not a real hash.
    pub measurement: [u8; 32],
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimTd {
    const NAME: &'static str = "tdx_sim_td";
    const FIRST_SIZE: usize = size_of::<Self>();
}

fn failure(error: TdError) -> Failure {
    match error {
        TdError::Gone => TdxSimStatus::TdGone,
        TdError::Phase => TdxSimStatus::BadPhase,
        TdError::IncompatibleContext => TdxSimStatus::TdIncompatible,
    }
    .into()
}

impl Sim {
    fn create_td(&mut self, phase: TdPhase) -> Result<TdId, Failure> {
        let module = self.platform.module();
        if !module.is_some_and(|module| module.state() == ModuleState::Ready)
            || !self.platform.module_is_callable()
        {
            return Err(TdxSimStatus::NotReady.into());
        }
        Ok(self.tds.create(&mut self.platform, phase).map_err(|_| TdxSimStatus::NoRoom)?)
    }

    fn known_td(&self, td: u32) -> Result<TdId, Failure> {
        let known = self.tds.with_number(td);
        known.ok_or_else(|| {
            Failure::new(TdxSimStatus::UnknownTd, format!("the platform has no TD {td}"))
        })
    }

    fn td(&self, id: TdId) -> Result<TdxSimTd, Failure> {
        let td = self.platform.td(id).ok_or(TdxSimStatus::UnknownTd)?;
        let right = self.tds.measurement_is_right(&self.platform, id).unwrap_or(false);
        Ok(TdxSimTd {
            size: 0,
            phase: TdxSimTdPhase::from(td.phase()).number(),
            alive: self.tds.is_alive(&self.platform, id).into(),
            measurement_right: right.into(),
            reserved: [0; 6],
            measurement: td.measurement(),
        })
    }
}

/// Makes a TD in this phase. `*td` is its number on this platform, from 0; `td` may be NULL.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `phase` is not a tdx_sim_td_phase;
/// NOT_READY: no module is ready; NO_ROOM: no room or no KeyID is left.
///
/// # Safety
///
/// `td` points to a writable number, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_create_td(
    sim: *mut TdxSim,
    phase: TdxSimTdPhaseNumber,
    td: *mut u32,
) -> TdxSimStatus {
    guarded(|| {
        if !td.is_null() {
            pointer::checked(td)?;
        }
        let id = with(sim, |sim| sim.create_td(TdxSimTdPhase::of_number(phase)?.phase()))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_if_wanted(td, id.number().into()) }
    })
}

/// Returns the state of a TD.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_TD.
///
/// # Safety
///
/// `state` points to a writable tdx_sim_td whose `size` is set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_td(
    sim: *mut TdxSim,
    td: u32,
    state: *mut TdxSimTd,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::sized(state) }?;
        let found = with(sim, |sim| sim.td(sim.known_td(td)?))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(state, &found) }
    })
}

/// Adds a page with these bytes to a TD in build, and to its measurement, as TDH.MEM.PAGE.ADD and
/// TDH.MR.EXTEND do.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_LENGTH: `len` is above 4096; BAD_PHASE: the
/// TD is not in build; TD_GONE; TD_INCOMPATIBLE.
///
/// # Safety
///
/// `bytes` points to `len` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_extend_td(
    sim: *mut TdxSim,
    td: u32,
    bytes: *const c_void,
    len: usize,
) -> TdxSimStatus {
    guarded(|| {
        if bytes.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        if len > 4096 {
            let text = format!("len is {len}, but should be at most 4096");
            return Err(Failure::new(TdxSimStatus::BadLength, text));
        }
        // SAFETY: this function's contract.
        let page = unsafe { pointer::copy_in(bytes.cast::<u8>(), len) }?;
        with(sim, |sim| {
            let id = sim.known_td(td)?;
            sim.tds.extend(&mut sim.platform, id, &page).map_err(failure)
        })
    })
}

/// Completes the build of a TD, or its interrupted migration; the TD then runs. `*right` says
/// whether the measurement or the MAC is correct; `right` may be NULL.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_TD; BAD_PHASE: the TD already runs; TD_GONE;
/// TD_INCOMPATIBLE.
///
/// # Safety
///
/// `right` points to a writable bool, or is NULL.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_finish_td(
    sim: *mut TdxSim,
    td: u32,
    right: *mut TdxSimBool,
) -> TdxSimStatus {
    guarded(|| {
        let is_right = with(sim, |sim| {
            let id = sim.known_td(td)?;
            sim.tds.finish(&mut sim.platform, id).map_err(failure)
        })?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_if_wanted(right, is_right.into()) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::tests::sim;

    #[test]
    fn creating_a_td_without_a_module_fails() {
        assert_eq!(sim().create_td(TdPhase::Running), Err(TdxSimStatus::NotReady.into()));
    }
}
