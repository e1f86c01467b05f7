//! The real state of a platform, which may differ from what its software believes.

use tdx_seamldr_mock::model::{GlobalLock, ModuleState};

use crate::number::{enumeration, TdxSimBool};
use crate::platform::Sim;
use crate::pointer::Growing;
use crate::registry::with;
use crate::status::guarded;
use crate::{pointer, TdxSim, TdxSimStatus, TdxSimTrap, TdxSimTrapNumber, TDX_SIM_ANY_LP};

/// State of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimModuleState {
    /// There is no module.
    None = 0,
    /// Installed.
    SysInitPending = 1,
    /// After TDH.SYS.INIT.
    SysInitDone = 2,
    /// After TDH.SYS.CONFIG.
    SysConfigDone = 3,
    /// TDs can run.
    Ready = 4,
    /// After TDH.SYS.SHUTDOWN. No call leaves this state.
    Shutdown = 5,
}

enumeration!(
    TdxSimModuleState,
    "tdx_sim_module_state",
    [None, SysInitPending, SysInitDone, SysConfigDone, Ready, Shutdown]
);

/// A tdx_sim_module_state from C: any number.
pub type TdxSimModuleStateNumber = u32;

impl TdxSimModuleState {
    /// Returns the state of the simulation.
    pub(crate) const fn state(self) -> Option<ModuleState> {
        match self {
            Self::None => None,
            Self::SysInitPending => Some(ModuleState::SysInitPending),
            Self::SysInitDone => Some(ModuleState::SysInitDone),
            Self::SysConfigDone => Some(ModuleState::SysConfigDone),
            Self::Ready => Some(ModuleState::Ready),
            Self::Shutdown => Some(ModuleState::Shutdown),
        }
    }
}

impl From<Option<ModuleState>> for TdxSimModuleState {
    fn from(state: Option<ModuleState>) -> Self {
        match state {
            None => Self::None,
            Some(ModuleState::SysInitPending) => Self::SysInitPending,
            Some(ModuleState::SysInitDone) => Self::SysInitDone,
            Some(ModuleState::SysConfigDone) => Self::SysConfigDone,
            Some(ModuleState::Ready) => Self::Ready,
            Some(ModuleState::Shutdown) => Self::Shutdown,
        }
    }
}

/// The module's global lock, as another LP holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimLock {
    /// No LP holds it.
    Free = 0,
    /// Held shared.
    Shared = 1,
    /// Held exclusively.
    Exclusive = 2,
}

enumeration!(TdxSimLock, "tdx_sim_lock", [Free, Shared, Exclusive]);

/// A tdx_sim_lock from C: any number.
pub type TdxSimLockNumber = u32;

impl TdxSimLock {
    /// Returns the lock of the simulation.
    pub(crate) const fn lock(self) -> GlobalLock {
        match self {
            Self::Free => GlobalLock::Free,
            Self::Shared => GlobalLock::Shared,
            Self::Exclusive => GlobalLock::Exclusive,
        }
    }
}

impl From<GlobalLock> for TdxSimLock {
    fn from(lock: GlobalLock) -> Self {
        match lock {
            GlobalLock::Free => Self::Free,
            GlobalLock::Shared => Self::Shared,
            GlobalLock::Exclusive => Self::Exclusive,
        }
    }
}

/// The real state of a platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimTruth {
    /// sizeof(tdx_sim_truth), set by the caller.
    pub size: u32,
    /// State of the module.
    pub module_state: TdxSimModuleStateNumber,
    /// Whether there is a module in the SEAM range.
    pub module_present: TdxSimBool,
    /// Whether SEAMCALL reaches the module.
    pub module_callable: TdxSimBool,
    /// Whether SEAM_READY in SEAMEXTEND is 1.
    pub seam_ready: TdxSimBool,
    /// Whether P_SEAMLDR_READY in SEAMEXTEND is 1: P-SEAMLDR can be called.
    pub p_seamldr_ready: TdxSimBool,
    /// Whether the handoff data is valid.
    pub handoff_valid: TdxSimBool,
    /// Whether firmware hit a fatal error. No SEAMCALL succeeds until the next boot.
    pub dead: TdxSimBool,
    /// Whether debug modules may be installed.
    pub debug_unlocked: TdxSimBool,
    /// Whether P-SEAMLDR was entered since boot.
    pub p_seamldr_entered: TdxSimBool,
    /// Major SVN in SEAMEXTEND.
    pub svn_major: u8,
    /// Minor SVN in SEAMEXTEND.
    pub svn_minor: u8,
    /// Version of the handoff data.
    pub handoff_hv: u16,
    /// Size of the handoff data in bytes, without its header.
    pub handoff_size: u32,
    /// Major version of the module, or 0.
    pub version_major: u16,
    /// Minor version of the module, or 0.
    pub version_minor: u16,
    /// Update version of the module, or 0.
    pub version_update: u16,
    /// Internal version of the module, or 0.
    pub version_internal: u16,
    /// Highest handoff version that P-SEAMLDR told the module, or 0.
    pub module_hv: u16,
    /// Lowest handoff version that P-SEAMLDR told the module, or 0.
    pub min_update_hv: u16,
    /// Number of handoff pages that P-SEAMLDR told the module, minus one, or 0.
    pub num_handoff_pages: u16,
    /// The module's own KeyID, or 0.
    pub module_hkid: u16,
    /// Number of LPs that the module has initialised. tdx_sim_get_lp() says which.
    pub lps_initialized: u32,
    /// Packages that have the module's key, a bit each.
    pub packages_configured: u32,
    /// Number of TDMRs of the module.
    pub tdmrs: u32,
    /// The module's global lock.
    pub global_lock: TdxSimLockNumber,
    /// Number of remaining updates that P-SEAMLDR remembers.
    pub remaining_updates: u32,
    /// Number of LPs in the open INSTALL session; 0 if no session is open.
    pub lps_in_session: u32,
    /// Number of LPs that have called SEAMLDR.SHUTDOWN.
    pub lps_in_shutdown: u32,
    /// The LP that is inside P-SEAMLDR, or TDX_SIM_ANY_LP.
    pub lp_in_p_seamldr: u32,
    /// Number of entries of the SEAM database.
    pub seamdb_size: u32,
    /// Number of used entries.
    pub seamdb_used: u32,
    /// How many of the next insertions fail.
    pub seamdb_failures: u32,
    /// Number of LPs that firmware counts.
    pub num_lps: u32,
    /// Number of TDs that were made.
    pub tds: u32,
    /// Number of TDs that can run and whose memory is intact.
    pub tds_alive: u32,
    /// TDX_FEATURES0 of the module's build, or 0.
    pub features0: u64,
    /// Number of SEAMCALLs that were begun.
    pub calls: u64,
    /// The VMCS that the last call evicted, or 0xffffffffffffffff.
    pub evicted_vmcs: u64,
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimTruth {
    const NAME: &'static str = "tdx_sim_truth";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl Sim {
    fn truth(&self) -> TdxSimTruth {
        let platform = &self.platform;
        let (module, loader, seamdb) =
            (platform.module(), platform.loader(), platform.loader().seamdb());
        let (build, told) =
            (module.map(|module| module.build()), module.map(|module| module.sysinfo()));
        let version = build.map(|build| build.version);
        let (svn, handoff) = (loader.seamextend().svn(), platform.handoff_header());
        let (packages_configured, tdmrs, module_hkid) =
            module.map_or((0, 0, 0), |_| platform.tables());
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        TdxSimTruth {
            size: 0,
            module_state: TdxSimModuleState::from(module.map(|module| module.state())).number(),
            module_present: module.is_some().into(),
            module_callable: platform.module_is_callable().into(),
            seam_ready: (loader.seamextend().seam_ready == 1).into(),
            p_seamldr_ready: (loader.seamextend().p_seamldr_ready != 0).into(),
            handoff_valid: (handoff.valid != 0).into(),
            dead: platform.is_dead().into(),
            debug_unlocked: platform.config().debug_unlocked.into(),
            p_seamldr_entered: loader.entered().into(),
            svn_major: svn.major,
            svn_minor: svn.minor,
            handoff_hv: handoff.hv.get(),
            handoff_size: handoff.size.get(),
            version_major: version.map_or(0, |version| version.major),
            version_minor: version.map_or(0, |version| version.minor),
            version_update: version.map_or(0, |version| version.update),
            version_internal: build.map_or(0, |build| build.internal_version),
            module_hv: told.map_or(0, |told| told.module_hv),
            min_update_hv: told.map_or(0, |told| told.min_update_hv),
            num_handoff_pages: told.map_or(0, |told| told.num_handoff_pages),
            module_hkid,
            lps_initialized: module.map_or(0, |module| module.num_lps_initialized()),
            packages_configured,
            tdmrs,
            global_lock: TdxSimLock::from(module.map_or(GlobalLock::Free, |module| module.lock()))
                .number(),
            remaining_updates: loader.num_remaining_updates(),
            lps_in_session: loader.lps_in_session(),
            lps_in_shutdown: loader.lps_in_shutdown(),
            lp_in_p_seamldr: platform.lp_in_seamldr().unwrap_or(TDX_SIM_ANY_LP),
            seamdb_size: seamdb.size,
            seamdb_used: seamdb.used,
            seamdb_failures: seamdb.insert_failures,
            num_lps: platform.config().num_lps,
            tds: count(self.tds.count()),
            tds_alive: count(self.tds.count_alive(platform)),
            features0: build.map_or(0, |build| build.features0.bits()),
            calls: self.calls,
            evicted_vmcs: loader.effects().vmclear.unwrap_or(u64::MAX),
        }
    }
}

/// Returns the real state of a platform.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// `truth` points to a writable tdx_sim_truth whose `size` is set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_truth(
    sim: *mut TdxSim,
    truth: *mut TdxSimTruth,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::sized(truth) }?;
        let found = with(sim, |sim| Ok(sim.truth()))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(truth, &found) }
    })
}

/// The real state of an LP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimLp {
    /// sizeof(tdx_sim_lp), set by the caller.
    pub size: u32,
    /// x2APIC id.
    pub x2apic_id: u32,
    /// Package.
    pub package: u32,
    /// The trap that tdx_sim_set_lp_trap() has set.
    pub trap: TdxSimTrapNumber,
    /// Physical address of the current VMCS; 0xffffffffffffffff: none.
    pub current_vmcs: u64,
    /// SEAMOPS capabilities.
    pub capabilities: u64,
    /// Whether the module has initialised the LP.
    pub initialized: TdxSimBool,
    /// Whether the LP is inside the module.
    pub in_module: TdxSimBool,
    /// Whether the LP is inside a SEAMCALL.
    pub in_call: TdxSimBool,
    /// Whether the LP takes part in the open INSTALL session.
    pub in_session: TdxSimBool,
    /// Whether firmware counts the LP.
    pub counted: TdxSimBool,
    /// 0.
    pub reserved: [u8; 3],
}

// SAFETY: `repr(C)`, integers only, the first of them the size.
unsafe impl Growing for TdxSimLp {
    const NAME: &'static str = "tdx_sim_lp";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl Sim {
    fn lp(&self, lp: u32) -> TdxSimLp {
        let platform = &self.platform;
        let (config, x2apic_id) = (platform.config(), platform.x2apic_id(lp).unwrap_or(0));
        let initialized = platform.module().is_some_and(|module| module.is_lp_initialized(lp));
        TdxSimLp {
            size: 0,
            x2apic_id,
            package: x2apic_id.checked_shr(config.package_shift).unwrap_or(0),
            trap: TdxSimTrap::from(platform.trap(lp)).number(),
            current_vmcs: platform.current_vmcs(lp),
            capabilities: platform.capabilities(lp),
            initialized: initialized.into(),
            in_module: platform.is_in_module(lp).into(),
            in_call: platform.is_in_call(lp).into(),
            in_session: platform.loader().session().any(|id| id == x2apic_id).into(),
            counted: (lp < config.num_lps).into(),
            reserved: [0; 3],
        }
    }
}

/// Returns the real state of one LP.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
///
/// # Safety
///
/// `state` points to a writable tdx_sim_lp whose `size` is set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_lp(
    sim: *mut TdxSim,
    lp: u32,
    state: *mut TdxSimLp,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::sized(state) }?;
        let found = with(sim, |sim| {
            sim.known_lp(lp)?;
            Ok(sim.lp(lp))
        })?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(state, &found) }
    })
}
