//! P-SEAMLDR: entry, sessions, and the leaves about P-SEAMLDR itself.

mod cleanup;
mod install;

use tdx_seamldr_core::abi::{
    SeamExtend, SeamSigstruct, SeamldrFeatures0, SeamldrInfo, SeamldrLeaf,
};
use tdx_seamldr_core::abi::{SeamldrStatus, INTEL_VENDOR_ID};
use tdx_seamldr_core::preflight::space::Layout;
use tdx_seamldr_core::{Crypto, SeamcallRegs};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::lp::{contains, insert, members, LpSet};
use super::module::SysInfo;
use super::{handoff, Config, ConfigError, Fatal, ModuleBuild, PhysMemory, SeamMemory};

/// Number of x2APIC ids that P-SEAMLDR supports.
const MAX_LP_ID: u32 = 1024;
/// Number of packages that P-SEAMLDR supports.
const MAX_PACKAGES: usize = 8;
const PAGE: u64 = 4096;

/// The processor's database of modules that were installed since boot (SEAMDB).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeamDb {
    /// Number of entries.
    pub size: u32,
    /// Number of used entries.
    pub used: u32,
    /// How many of the next insertions fail for lack of entropy.
    pub insert_failures: u32,
}

impl SeamDb {
    /// Checks the database for contradictions.
    ///
    /// # Errors
    ///
    /// There are more used entries than entries.
    pub const fn check(&self) -> Result<(), ConfigError> {
        if self.used > self.size {
            return Err(ConfigError::SeamDb { size: self.size, used: self.used });
        }
        Ok(())
    }
}

/// What P-SEAMLDR wrote into the information page of the installed module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleSysInfo {
    /// Layout of the module's memory.
    pub layout: Layout,
    /// Number of pages of an LP's stack, minus one.
    pub num_stack_pages: u64,
    /// Number of pages of an LP's local memory, minus one.
    pub num_tls_pages: u64,
    /// Highest handoff version. P-SEAMLDR writes this field and those below only if the
    /// installation succeeds.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// 1 if the module may write its highest handoff version only.
    pub no_downgrade: u8,
    /// Number of pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// Whether P-SEAMLDR copied the platform's table into the page.
    pub has_platform_table: bool,
}

/// Effects of one call on the processor and the SEAM database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Address of the VMCS that was evicted.
    pub vmclear: Option<u64>,
    /// How often the database was cleared.
    pub seamdb_clears: u32,
    /// How often an insertion was attempted.
    pub seamdb_inserts: u32,
}

/// The flow that is in progress, in a generation with SEAMLDR.CLEANUP. Other generations allow
/// several flows at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Ready,
    Install,
    Shutdown,
    Cleanup,
}

/// P-SEAMLDR and its state.
#[derive(Clone, Debug)]
pub struct Loader {
    pub(super) seamextend: SeamExtend,
    pub(super) seamdb: SeamDb,
    /// Whether P-SEAMLDR was entered. The first entry draws a random number.
    pub(super) entered: bool,
    pub(super) num_remaining_updates: u32,
    session: LpSet,
    lps_in_session: u32,
    /// SEAMEXTEND at the beginning of the session.
    snapshot: SeamExtend,
    shutdown: LpSet,
    lps_in_shutdown: u32,
    /// Whether P-SEAMLDR has written to the module's range, and made a VMCS for each LP there.
    module_range_initialized: bool,
    sysinfo: Option<ModuleSysInfo>,
    effects: Effects,
    flow: Flow,
    cleanup: LpSet,
    lps_in_cleanup: u32,
    /// Number of LPs of each package, counted in the first session since boot.
    lps_of_package: [u32; MAX_PACKAGES],
    lps_cleaned: [u32; MAX_PACKAGES],
    lps_ever: u32,
    /// Packages whose keys and caches a module may have used.
    dirty: [bool; MAX_PACKAGES],
    /// How often the next steps of SEAMLDR.CLEANUP find a pending interrupt.
    pub(super) interrupts_pending: u32,
}

/// What P-SEAMLDR can read and write during a call.
pub(super) struct LoaderContext<'a> {
    pub(super) config: &'a mut Config,
    pub(super) x2apic_id: u32,
    pub(super) host: &'a dyn PhysMemory,
    pub(super) crypto: &'a dyn Crypto,
    pub(super) memory: &'a mut SeamMemory,
}

/// Why an installation failed: with a status and RDX, or with a fatal error.
#[derive(Clone, Copy, Debug)]
enum Refusal {
    Status { status: SeamldrStatus, unrecoverable: bool },
    Fatal,
}

const fn recoverable(status: SeamldrStatus) -> Refusal {
    Refusal::Status { status, unrecoverable: false }
}

const fn unrecoverable(status: SeamldrStatus) -> Refusal {
    Refusal::Status { status, unrecoverable: true }
}

/// What a call did to the module.
#[derive(Debug)]
pub(super) enum Installed {
    /// The module is unchanged.
    Nothing,
    /// The module was removed.
    ModuleGone,
    /// A new module was installed.
    Module(SysInfo, ModuleBuild),
}

/// State of P-SEAMLDR between two sessions. A test uses it to set up a platform that has run
/// before.
#[derive(Clone, Copy, Debug)]
pub struct LoaderState {
    /// The SEAMEXTEND register.
    pub seamextend: SeamExtend,
    /// Whether P-SEAMLDR was entered since boot.
    pub entered: bool,
    /// Number of remaining updates that P-SEAMLDR remembers.
    pub num_remaining_updates: u32,
    /// Whether P-SEAMLDR has written to the module's range since boot.
    pub module_range_initialized: bool,
    /// What P-SEAMLDR told the installed module.
    pub sysinfo: Option<ModuleSysInfo>,
}

impl Loader {
    pub(super) fn new(seamdb: SeamDb) -> Self {
        let mut seamextend = SeamExtend::new_zeroed();
        seamextend.p_seamldr_ready = 1;
        Self {
            seamextend,
            seamdb,
            entered: false,
            num_remaining_updates: 0,
            session: [0; 16],
            lps_in_session: 0,
            snapshot: seamextend,
            shutdown: [0; 16],
            lps_in_shutdown: 0,
            module_range_initialized: false,
            sysinfo: None,
            effects: Effects::default(),
            flow: Flow::Ready,
            cleanup: [0; 16],
            lps_in_cleanup: 0,
            lps_of_package: [0; MAX_PACKAGES],
            lps_cleaned: [0; MAX_PACKAGES],
            lps_ever: 0,
            dirty: [false; MAX_PACKAGES],
            interrupts_pending: 0,
        }
    }

    /// Returns the SEAMEXTEND register.
    #[must_use]
    pub const fn seamextend(&self) -> &SeamExtend {
        &self.seamextend
    }

    /// Returns the processor's SEAM database.
    #[must_use]
    pub const fn seamdb(&self) -> &SeamDb {
        &self.seamdb
    }

    /// Returns the number of remaining updates that P-SEAMLDR remembers.
    #[must_use]
    pub const fn num_remaining_updates(&self) -> u32 {
        self.num_remaining_updates
    }

    /// Returns the number of LPs in the open session; 0 if no session is open.
    #[must_use]
    pub const fn lps_in_session(&self) -> u32 {
        self.lps_in_session
    }

    /// Iterates over the x2APIC ids of the LPs in the open session.
    pub fn session(&self) -> impl Iterator<Item = u32> + '_ {
        members(&self.session)
    }

    /// Returns the number of LPs that have called SEAMLDR.SHUTDOWN.
    #[must_use]
    pub const fn lps_in_shutdown(&self) -> u32 {
        self.lps_in_shutdown
    }

    /// Iterates over the x2APIC ids of the LPs that have called SEAMLDR.SHUTDOWN.
    pub fn shutdown(&self) -> impl Iterator<Item = u32> + '_ {
        members(&self.shutdown)
    }

    /// Returns whether P-SEAMLDR has written to the module's range since boot.
    #[must_use]
    pub const fn module_range_initialized(&self) -> bool {
        self.module_range_initialized
    }

    /// Returns whether P-SEAMLDR was entered since boot.
    #[must_use]
    pub const fn entered(&self) -> bool {
        self.entered
    }

    /// Returns what P-SEAMLDR told the module in the SEAM range. Returns `None` if the module's
    /// information page is empty.
    #[must_use]
    pub const fn module_sysinfo(&self) -> Option<&ModuleSysInfo> {
        self.sysinfo.as_ref()
    }

    /// Returns the effects of the last call on the processor and the SEAM database.
    #[must_use]
    pub const fn effects(&self) -> &Effects {
        &self.effects
    }

    /// Returns the state, without the open session.
    #[must_use]
    pub const fn state(&self) -> LoaderState {
        LoaderState {
            seamextend: self.seamextend,
            entered: self.entered,
            num_remaining_updates: self.num_remaining_updates,
            module_range_initialized: self.module_range_initialized,
            sysinfo: self.sysinfo,
        }
    }

    /// Sets the state, and closes an open session.
    pub(super) fn restore(&mut self, state: &LoaderState) {
        *self = Self {
            seamextend: state.seamextend,
            entered: state.entered,
            num_remaining_updates: state.num_remaining_updates,
            module_range_initialized: state.module_range_initialized,
            sysinfo: state.sysinfo,
            ..Self::new(self.seamdb)
        };
    }

    /// Executes one SEAMCALL.
    pub(super) fn call(
        &mut self,
        regs: &mut SeamcallRegs,
        mut context: LoaderContext<'_>,
    ) -> Result<Installed, Fatal> {
        self.effects = Effects::default();
        if !self.entered {
            if !context.config.rdrand() || context.config.rdrand_value == 0 {
                regs.rax = SeamldrStatus::EUNSPECERR.0;
                return Ok(Installed::Nothing);
            }
            self.entered = true;
        }
        let mut installed = Installed::Nothing;
        let status = match SeamldrLeaf::from_rax(regs.rax) {
            Some(SeamldrLeaf::Info) => self.info(regs.rcx, &context),
            Some(SeamldrLeaf::SeamInfo) => seam_info(regs.rcx, &context),
            Some(SeamldrLeaf::Shutdown) => self.shut_down(&context),
            Some(SeamldrLeaf::Install) => {
                let (status, unrecoverable) =
                    match self.install(regs.rcx, &mut context, &mut installed) {
                        Ok(()) => (SeamldrStatus::SUCCESS, false),
                        Err(Refusal::Status { status, unrecoverable }) => (status, unrecoverable),
                        Err(Refusal::Fatal) => return Err(Fatal),
                    };
                regs.rdx = unrecoverable.into();
                status
            }
            Some(SeamldrLeaf::Cleanup) if context.config.profile.has_cleanup => {
                self.clean_up(&mut context, &mut installed)
            }
            Some(SeamldrLeaf::Cleanup) | None => SeamldrStatus::EBADPARAM,
        };
        regs.rax = status.0;
        Ok(installed)
    }

    fn info(&mut self, address: u64, context: &LoaderContext<'_>) -> SeamldrStatus {
        if !context.config.is_shared(address, 256) {
            return SeamldrStatus::EBADPARAM;
        }
        if self.num_remaining_updates == 0 && context.config.profile.preserves_tds {
            self.recount_remaining_updates();
        }
        let profile = &context.config.profile;
        let mut info = SeamldrInfo::new_zeroed();
        info.attributes = U32::new(if profile.debug { SeamldrInfo::ATTRIBUTE_DEBUG } else { 0 });
        info.vendor = U32::new(INTEL_VENDOR_ID);
        info.build_date = U32::new(profile.build_date);
        info.build_num = U16::new(profile.build_num);
        info.minor = U16::new(profile.minor);
        info.major = U16::new(profile.major);
        info.acm_x2apicid = U32::new(context.config.acm_x2apicid);
        info.num_remaining_updates = U32::new(self.num_remaining_updates);
        info.seamextend = self.seamextend;
        if profile.has_cleanup {
            info.features0 = U64::new(SeamldrFeatures0::CLEANUP.bits());
        }
        context.host.write(address, info.as_bytes());
        SeamldrStatus::SUCCESS
    }

    fn recount_remaining_updates(&mut self) {
        self.num_remaining_updates = self.seamdb.size.saturating_sub(self.seamdb.used);
    }

    fn clear_seamdb(&mut self) {
        self.seamdb.used = 0;
        self.effects.seamdb_clears = self.effects.seamdb_clears.saturating_add(1);
        self.recount_remaining_updates();
    }

    fn shut_down(&mut self, context: &LoaderContext<'_>) -> SeamldrStatus {
        if context.x2apic_id >= MAX_LP_ID {
            return SeamldrStatus::EUNSPECERR;
        }
        if context.config.profile.has_cleanup {
            if !matches!(self.flow, Flow::Ready | Flow::Shutdown) {
                return SeamldrStatus::EBADCALL;
            }
            if self.is_dirty() {
                return SeamldrStatus::ECLEANUPREQ;
            }
            self.flow = Flow::Shutdown;
        }
        if insert(&mut self.shutdown, context.x2apic_id) {
            self.lps_in_shutdown = self.lps_in_shutdown.saturating_add(1);
        }
        self.seamextend.seam_ready = 0;
        if self.lps_in_shutdown < context.config.num_lps {
            return SeamldrStatus::SUCCESS;
        }
        if context.x2apic_id != context.config.acm_x2apicid {
            return SeamldrStatus::EBADCALL;
        }
        self.seamextend.zero();
        SeamldrStatus::SUCCESS
    }

    /// Executes firmware rules 8.5.1-4, and the end of a session.
    fn install(
        &mut self,
        params: u64,
        context: &mut LoaderContext<'_>,
        installed: &mut Installed,
    ) -> Result<(), Refusal> {
        if context.x2apic_id >= MAX_LP_ID {
            return Err(recoverable(SeamldrStatus::EUNSPECERR)); // 1
        }
        let has_cleanup = context.config.profile.has_cleanup;
        let busy = has_cleanup && !matches!(self.flow, Flow::Ready | Flow::Install); // 2b
        if busy || self.lps_in_shutdown != 0 || contains(&self.session, context.x2apic_id) {
            return Err(recoverable(SeamldrStatus::EBADCALL)); // 2, 3
        }
        if self.lps_in_session == 0 {
            self.snapshot = self.seamextend;
            self.seamextend.seam_ready = 0;
            self.flow = Flow::Install;
        }
        insert(&mut self.session, context.x2apic_id);
        self.lps_in_session = self.lps_in_session.saturating_add(1);
        self.count_package(context);
        if self.module_range_initialized {
            let vmcs = u64::from(context.x2apic_id).saturating_add(1).saturating_mul(PAGE);
            self.effects.vmclear = Some(context.config.seamrr_base.wrapping_add(vmcs));
        }
        if self.lps_in_session < context.config.num_lps {
            return Ok(()); // 4
        }
        let result = self.complete(params, context);
        self.end_session();
        match result {
            Ok(()) => {
                let sigstruct = &context.memory.sigstruct;
                let sysinfo =
                    SysInfo::new(sigstruct, context.config.num_lps, context.config.num_sockets);
                *installed = Installed::Module(
                    sysinfo,
                    ModuleBuild::of_image(sigstruct, &context.memory.code),
                );
            }
            Err(Refusal::Fatal) => {}
            Err(Refusal::Status { unrecoverable: false, .. }) => self.seamextend = self.snapshot,
            Err(Refusal::Status { status, .. }) => {
                *installed = Installed::ModuleGone;
                // Without entropy for SEAMDB, SEAMEXTEND keeps the new module's values, although
                // the module is not ready.
                if status != SeamldrStatus::ENOENTROPY {
                    self.forget_module();
                }
            }
        }
        result
    }

    fn end_session(&mut self) {
        self.session = [0; 16];
        self.lps_in_session = 0;
        self.flow = Flow::Ready;
    }

    /// Removes the module from SEAMEXTEND.
    fn forget_module(&mut self) {
        let (debug, ready) = (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready);
        self.seamextend.zero();
        (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready) = (debug, ready);
    }

    /// Ends a session with an unrecoverable failure.
    pub(super) fn lose_module(&mut self) {
        self.end_session();
        self.forget_module();
        self.sysinfo = None;
    }
}

fn seam_info(address: u64, context: &LoaderContext<'_>) -> SeamldrStatus {
    if !context.config.is_shared(address, 2048) {
        return SeamldrStatus::EBADPARAM;
    }
    context.host.write(address, context.memory.mcheck_table.as_bytes());
    SeamldrStatus::SUCCESS
}

/// Returns the size in bytes of the handoff area, from the SIGSTRUCT's number of pages minus one.
fn handoff_area(num_handoff_pages: u16) -> u64 {
    u64::from(num_handoff_pages).saturating_add(1).saturating_mul(PAGE)
}

impl SysInfo {
    fn new(sigstruct: &SeamSigstruct, tot_num_lps: u32, num_packages: u32) -> Self {
        Self {
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
            num_handoff_pages: sigstruct.num_handoff_pages.get(),
            tot_num_lps,
            num_packages,
        }
    }
}
