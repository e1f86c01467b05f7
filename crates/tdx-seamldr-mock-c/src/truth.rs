//! How things stand on a platform, whatever anybody claims.

use tdx_seamldr_mock::model::ModuleState;

use crate::platform::Sim;
use crate::registry::with;
use crate::status::guarded;
use crate::{pointer, TdxSim, TdxSimStatus};

/// How far a module has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TdxSimModuleState {
    /// There is no module.
    None = 0,
    /// Just installed.
    SysInitPending = 1,
    /// After TDH.SYS.INIT.
    SysInitDone = 2,
    /// After TDH.SYS.CONFIG.
    SysConfigDone = 3,
    /// TDs can run.
    Ready = 4,
    /// After TDH.SYS.SHUTDOWN, for good.
    Shutdown = 5,
}

impl From<ModuleState> for TdxSimModuleState {
    fn from(state: ModuleState) -> Self {
        match state {
            ModuleState::SysInitPending => Self::SysInitPending,
            ModuleState::SysInitDone => Self::SysInitDone,
            ModuleState::SysConfigDone => Self::SysConfigDone,
            ModuleState::Ready => Self::Ready,
            ModuleState::Shutdown => Self::Shutdown,
        }
    }
}

/// How things stand on a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimTruth {
    /// There is a module in the SEAM range.
    pub module_present: bool,
    /// SEAMCALL reaches it.
    pub module_callable: bool,
    /// SEAM_READY in SEAMEXTEND is 1.
    pub seam_ready: bool,
    /// The handoff data is there for a module to take.
    pub handoff_valid: bool,
    /// Firmware has hit a fatal error: nothing can be called until the next boot.
    pub dead: bool,
    /// Major SVN in SEAMEXTEND.
    pub svn_major: u8,
    /// Minor SVN in SEAMEXTEND.
    pub svn_minor: u8,
    /// How far the module has come.
    pub module_state: TdxSimModuleState,
    /// Major version of the module, or 0.
    pub version_major: u16,
    /// Minor version of the module, or 0.
    pub version_minor: u16,
    /// Update version of the module, or 0.
    pub version_update: u16,
    /// Updates that remain, as P-SEAMLDR remembers.
    pub remaining_updates: u32,
    /// LPs in an INSTALL session that has not ended; 0 if none is open.
    pub lps_in_session: u32,
    /// TDs that were made.
    pub tds: u32,
    /// TDs that can run and find their memory as it was.
    pub tds_alive: u32,
}

impl Sim {
    fn truth(&self) -> TdxSimTruth {
        let platform = &self.platform;
        let (module, loader) = (platform.module(), platform.loader());
        let version = module.map(|module| module.build().version);
        let svn = loader.seamextend().svn();
        let alive = |(td, secret): &&(_, [u8; 32])| platform.td_secret(*td) == Some(*secret);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        TdxSimTruth {
            module_present: module.is_some(),
            module_callable: platform.module_is_callable(),
            seam_ready: loader.seamextend().seam_ready == 1,
            handoff_valid: platform.handoff_header().valid != 0,
            dead: platform.is_dead(),
            svn_major: svn.major,
            svn_minor: svn.minor,
            module_state: module.map_or(TdxSimModuleState::None, |module| module.state().into()),
            version_major: version.map_or(0, |version| version.major),
            version_minor: version.map_or(0, |version| version.minor),
            version_update: version.map_or(0, |version| version.update),
            remaining_updates: loader.num_remaining_updates(),
            lps_in_session: loader.lps_in_session(),
            tds: count(self.secrets.len()),
            tds_alive: count(self.secrets.iter().filter(alive).count()),
        }
    }
}

/// Says how things stand.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE.
///
/// # Safety
///
/// `truth` leads to a tdx_sim_truth that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_truth(sim: *mut TdxSim, truth: *mut TdxSimTruth) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(truth)?;
        let found = with(sim, |sim| Ok(sim.truth()))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(truth, found) }
    })
}
