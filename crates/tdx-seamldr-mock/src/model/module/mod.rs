//! The TDX module: its states, and the leaves that bring it up, shut it down and hand TDs over.

mod build;
mod fields;
mod info;
mod tdmr;

#[cfg(any(feature = "std", test))]
pub(crate) use build::Description;
pub use build::{ModuleBuild, SysInfo};

use tdx_seamldr_core::abi::{FieldId, HandoffHeader, OperandId, PSysInfo, ShutdownRequest};
use tdx_seamldr_core::abi::{TdxFeatures0, TdxLeaf, TdxStatus};
use tdx_seamldr_core::SeamcallRegs;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use self::fields::{Reading, View};
use self::tdmr::{TdmrInfo, TDMR_UNIT};
use super::handoff::{self, HandoffForm, KeyOwner, MAX_TDMRS};
use super::lp::{contains, deviation, insert, LpSet, MsrDeviations};
use super::{about, Config, Fatal, PhysMemory, SeamMemory};

/// How far a module has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleState {
    /// Just installed.
    SysInitPending,
    /// After TDH.SYS.INIT.
    SysInitDone,
    /// After TDH.SYS.CONFIG.
    SysConfigDone,
    /// TDs can run.
    Ready,
    /// After TDH.SYS.SHUTDOWN, for good.
    Shutdown,
}

impl ModuleState {
    /// All of them, with the names of the specification.
    pub const ALL: [(Self, &'static str); 5] = [
        (Self::SysInitPending, "SYSINIT_PENDING"),
        (Self::SysInitDone, "SYSINIT_DONE"),
        (Self::SysConfigDone, "SYSCONFIG_DONE"),
        (Self::Ready, "SYS_READY"),
        (Self::Shutdown, "SYS_SHUTDOWN"),
    ];
}

/// The module's global lock, as another LP holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GlobalLock {
    /// Nobody holds it.
    #[default]
    Free,
    /// Held together with others.
    Shared,
    /// Held alone.
    Exclusive,
}

/// A TDX module in the SEAM range.
#[derive(Clone, Debug)]
pub struct TdxModule {
    build: ModuleBuild,
    told: SysInfo,
    state: ModuleState,
    lps_initialized: LpSet,
    num_lps_initialized: u32,
    num_packages_configured: u32,
    /// SEAMOPS capabilities where TDH.SYS.INIT ran.
    capabilities: u64,
    /// MSRs where TDH.SYS.INIT ran.
    msrs: MsrDeviations,
    lock: GlobalLock,
    /// TDMRs that another LP is initialising.
    tdmrs_locked: u64,
    update_compatibility: bool,
}

/// Who calls, and what the module can see of the platform.
pub(super) struct CallContext<'a> {
    /// The calling LP's place in the platform's list.
    pub(super) lp: u32,
    pub(super) config: &'a mut Config,
    pub(super) host: &'a dyn PhysMemory,
    pub(super) memory: &'a mut SeamMemory,
}

impl CallContext<'_> {
    fn capabilities(&self) -> u64 {
        self.this_lp().map_or(0, |lp| lp.seamops_capabilities)
    }

    fn msrs(&self) -> MsrDeviations {
        self.this_lp().map_or_else(MsrDeviations::default, |lp| lp.msrs)
    }

    /// Whether another LP is inside the module, counted or not.
    fn others_are_inside(&self) -> bool {
        let others = (0u32..).zip(&self.memory.lps).filter(|(lp, _)| *lp != self.lp);
        others.map(|(_, lp)| lp).any(super::lp::Lp::is_in_module)
    }

    fn this_lp(&self) -> Option<&super::lp::Lp> {
        self.memory.lps.get(usize::try_from(self.lp).ok()?)
    }
}

/// SEAMOPS capabilities that the module cannot do without: GETREF and the report of the database.
const NEEDED_CAPABILITIES: u64 = 1 << 4 | 1 << 5;
/// The SEAMOPS capability behind local attestation: SEAMVERIFYREPORT.
const SEAMVERIFYREPORT: u64 = 1 << 6;
/// MSRs that have to be the same on all LPs, in the order in which they are compared.
const COMPARED_MSRS: [u32; 30] = [
    0xcf, 0x10a, 0xbc, 0xbd, 0x3b, 0xfe, 0x1f2, 0x1f3, 0x1f6, 0x1f7, 0x480, 0x48d, 0x48e, 0x48b, 0x492,
    0x48f, 0x490, 0x485, 0x48c, 0x486, 0x487, 0x488, 0x489, 0x345, 0x981, 0x982, 0x87, 0x98, 0x99, 0x122,
];
/// Packages that the module has room for.
const MAX_PACKAGES: u32 = 8;
/// Bytes of memory whose metadata one call of TDH.SYS.TDMR.INIT sets up.
const TDMR_INIT_STEP: u64 = 4 << 20;

impl TdxModule {
    pub(super) fn new(build: ModuleBuild, told: SysInfo) -> Self {
        Self {
            build,
            told,
            state: ModuleState::SysInitPending,
            lps_initialized: [0; 16],
            num_lps_initialized: 0,
            num_packages_configured: 0,
            capabilities: 0,
            msrs: MsrDeviations::default(),
            lock: GlobalLock::Free,
            tdmrs_locked: 0,
            update_compatibility: false,
        }
    }

    /// How far it has come.
    #[must_use]
    pub const fn state(&self) -> ModuleState {
        self.state
    }

    /// What is fixed about it.
    #[must_use]
    pub const fn build(&self) -> &ModuleBuild {
        &self.build
    }

    /// What P-SEAMLDR told it.
    #[must_use]
    pub const fn sysinfo(&self) -> &SysInfo {
        &self.told
    }

    /// Whether it was told, by TDH.SYS.UPDATE version 1, to find damage that an update did.
    #[must_use]
    pub const fn update_compatibility(&self) -> bool {
        self.update_compatibility
    }

    /// How many LPs it has initialised.
    #[must_use]
    pub const fn num_lps_initialized(&self) -> u32 {
        self.num_lps_initialized
    }

    /// Whether it has initialised the LP with this place in the platform's list.
    #[must_use]
    pub fn is_lp_initialized(&self, lp: u32) -> bool {
        contains(&self.lps_initialized, lp)
    }

    /// How many packages it gave its key to, itself.
    #[must_use]
    pub const fn num_packages_configured(&self) -> u32 {
        self.num_packages_configured
    }

    /// Whether it counts compatibility-sensitive operations.
    #[must_use]
    pub const fn has_update_compatibility(&self) -> bool {
        self.build.features0.contains(TdxFeatures0::UPDATE_COMPATIBILITY)
    }

    /// The global lock, as another LP holds it.
    #[must_use]
    pub const fn lock(&self) -> GlobalLock {
        self.lock
    }

    /// Another LP takes or releases the global lock.
    pub fn set_lock(&mut self, lock: GlobalLock) {
        self.lock = lock;
    }

    /// Another LP begins or ends to initialise a TDMR.
    pub fn set_tdmr_lock(&mut self, index: u32, held: bool) {
        let bit = 1u64.checked_shl(index).unwrap_or(0);
        self.tdmrs_locked = self.tdmrs_locked & !bit | if held { bit } else { 0 };
    }

    fn is_all_lps_initialized(&self) -> bool {
        self.num_lps_initialized >= self.told.tot_num_lps
    }

    /// One SEAMCALL.
    pub(super) fn call(&mut self, regs: &mut SeamcallRegs, context: CallContext<'_>) -> Result<(), Fatal> {
        const RESERVED: u64 = !0x00ff_ffff;
        /// Leaves that take versions: MEM.SEPT.ADD, MNG.RD, PROMOTE, VP.RD and SEPT.REMOVE.
        const VERSIONED: [u16; 5] = [3, 11, 23, 26, 30];
        /// Leaves for which the module need not be ready.
        const ANY_STATE: [TdxLeaf; 9] = [
            TdxLeaf::SYS_INFO,
            TdxLeaf::SYS_RD,
            TdxLeaf::SYS_RDALL,
            TdxLeaf::SYS_INIT,
            TdxLeaf::SYS_LP_INIT,
            TdxLeaf::SYS_CONFIG,
            TdxLeaf::SYS_KEY_CONFIG,
            TdxLeaf::SYS_LP_SHUTDOWN,
            TdxLeaf::SYS_UPDATE,
        ];
        let leaf = TdxLeaf::from_rax(regs.rax);
        let version = regs.rax >> 16 & 0xff;
        let update_v1 = leaf == TdxLeaf::SYS_UPDATE && self.has_update_compatibility();
        let status = if regs.rax & RESERVED != 0 || version > 0 && !VERSIONED.contains(&leaf.0) && !update_v1
        {
            about(TdxStatus::OPERAND_INVALID, OperandId::RAX)
        } else if self.state == ModuleState::Shutdown && leaf != TdxLeaf::SYS_LP_SHUTDOWN {
            TdxStatus::SYS_SHUTDOWN
        } else if self.state != ModuleState::Ready && !ANY_STATE.contains(&leaf) {
            TdxStatus::SYS_NOT_READY
        } else {
            self.dispatch(leaf, regs, context)?
        };
        regs.rax = status.0;
        Ok(())
    }

    fn dispatch(
        &mut self,
        leaf: TdxLeaf,
        regs: &mut SeamcallRegs,
        mut context: CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let context = &mut context;
        let result = match leaf {
            TdxLeaf::SYS_INIT => return self.sys_init(regs, context),
            TdxLeaf::SYS_SHUTDOWN => return self.sys_shutdown(regs, context),
            TdxLeaf::SYS_UPDATE => return self.sys_update(regs, context),
            TdxLeaf::SYS_KEY_CONFIG => return self.sys_key_config(context),
            TdxLeaf::SYS_RD => return self.sys_rd(regs, context),
            TdxLeaf::SYS_RDALL => return self.sys_rdall(regs, context),
            TdxLeaf::SYS_INFO => self.sys_info(regs, context),
            TdxLeaf::SYS_LP_INIT => self.sys_lp_init(regs, context),
            TdxLeaf::SYS_CONFIG => self.sys_config(regs, context),
            TdxLeaf::SYS_TDMR_INIT => self.sys_tdmr_init(regs, context),
            TdxLeaf::SYS_LP_SHUTDOWN => Ok(()),
            _ => Err(about(TdxStatus::OPERAND_INVALID, OperandId::RAX)),
        };
        Ok(result.err().unwrap_or(TdxStatus::SUCCESS))
    }

    fn is_locked(&self) -> bool {
        self.lock != GlobalLock::Free
    }

    fn sys_init(
        &mut self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let attributes = regs.rcx;
        (regs.rcx, regs.rdx, regs.r8, regs.r9, regs.r10) = (0, 0, 0, 0, 0);
        if self.is_locked() {
            return Ok(TdxStatus::SYS_BUSY);
        }
        if attributes != 0 {
            return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::RCX));
        }
        if self.state != ModuleState::SysInitPending {
            return Ok(TdxStatus::SYS_INIT_NOT_PENDING);
        }
        let capabilities = context.capabilities();
        if capabilities & NEEDED_CAPABILITIES != NEEDED_CAPABILITIES {
            return Ok(TdxStatus::INCOMPATIBLE_SEAM_CAPABILITIES);
        }
        let (build, told) = (&self.build, &self.told);
        if told.module_hv != build.module_hv
            || told.min_update_hv < build.min_update_hv
            || build.no_downgrade && !told.no_downgrade
            || told.handoff_limit() < build.handoff_form.least_area()
        {
            return Ok(TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT);
        }
        if context.config.seamdb_getref_error != 0 {
            return Err(Fatal);
        }
        if !context.config.rdrand() {
            return Ok(TdxStatus::RND_NO_ENTROPY);
        }
        (self.capabilities, self.msrs) = (capabilities, context.msrs());
        self.num_lps_initialized = 0;
        context.memory.tables.packages_configured = U32::new(0);
        self.state = ModuleState::SysInitDone;
        Ok(TdxStatus::SUCCESS)
    }

    fn sys_lp_init(
        &mut self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<(), TdxStatus> {
        (regs.rcx, regs.rdx, regs.r8) = (0, 0, 0);
        if self.lock == GlobalLock::Exclusive {
            return Err(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysInitDone {
            return Err(TdxStatus::SYS_LP_INIT_NOT_PENDING);
        }
        if contains(&self.lps_initialized, context.lp) {
            return Err(TdxStatus::SYS_LP_INIT_DONE);
        }
        // A seed of 32 bits that must not be 0.
        if !context.config.rdrand() || context.config.rdrand_value & 0xffff_ffff == 0 {
            return Err(TdxStatus::RND_NO_ENTROPY);
        }
        if context.capabilities() != self.capabilities {
            return Err(TdxStatus::INCOMPATIBLE_SEAM_CAPABILITIES);
        }
        let msrs = context.msrs();
        let differs = |msr: &u32| deviation(&msrs, *msr) != deviation(&self.msrs, *msr);
        if let Some(msr) = COMPARED_MSRS.into_iter().find(differs) {
            return Err(TdxStatus(TdxStatus::INCONSISTENT_MSR.0 | u64::from(msr)));
        }
        if self.package(context) >= MAX_PACKAGES {
            return Err(TdxStatus::INVALID_PKG_ID);
        }
        insert(&mut self.lps_initialized, context.lp);
        self.num_lps_initialized = self.num_lps_initialized.saturating_add(1);
        Ok(())
    }

    /// The package that an LP is in.
    fn package(&self, context: &CallContext<'_>) -> u32 {
        let id = context.this_lp().map_or(0, |lp| lp.x2apic_id);
        id.checked_shr(context.config.package_shift).unwrap_or(0)
    }

    fn sys_rd(&self, regs: &mut SeamcallRegs, context: &CallContext<'_>) -> Result<TdxStatus, Fatal> {
        let id = regs.rdx;
        (regs.rdx, regs.r8) = (FieldId::NULL.0, 0);
        if !contains(&self.lps_initialized, context.lp) {
            return Ok(TdxStatus::SYS_LP_INIT_NOT_DONE);
        }
        let view = self.view(&context.memory.mcheck_table, &context.memory.handoff);
        Ok(match fields::element(&view, id)? {
            Reading::None => TdxStatus::METADATA_FIELD_ID_INCORRECT,
            Reading::First(first) => {
                regs.rdx = first;
                TdxStatus::METADATA_FIRST_FIELD_ID_IN_CONTEXT
            }
            Reading::Element { value, next, .. } => {
                (regs.r8, regs.rdx) = (value, next);
                TdxStatus::SUCCESS
            }
        })
    }

    /// What metadata fields are read from.
    fn view<'a>(&'a self, platform: &'a PSysInfo, handoff: &[u8]) -> View<'a> {
        let mut features0 = self.build.features0;
        if self.capabilities & SEAMVERIFYREPORT == 0 {
            features0.remove(TdxFeatures0::LOCAL_ATTESTATION);
        }
        View { build: &self.build, told: &self.told, platform, header: handoff::header(handoff), features0 }
    }

    fn sys_config(&mut self, regs: &SeamcallRegs, context: &mut CallContext<'_>) -> Result<(), TdxStatus> {
        /// TDMR_INFO structures, and the list of them, are aligned to this.
        const ALIGNMENT: u64 = 512;
        let invalid = |operand| Err(about(TdxStatus::OPERAND_INVALID, operand));
        if self.is_locked() {
            return Err(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysInitDone || !self.is_all_lps_initialized() {
            return Err(TdxStatus::SYS_CONFIG_NOT_PENDING);
        }
        let config = &*context.config;
        if !config.is_shared(regs.rcx, ALIGNMENT) {
            return invalid(OperandId::RCX);
        }
        let Some(count) = usize::try_from(regs.rdx).ok().filter(|count| (1..=MAX_TDMRS).contains(count))
        else {
            return invalid(OperandId::RDX);
        };
        let dynamic_pamt =
            if self.build.features0.contains(TdxFeatures0::DYNAMIC_PAMT) { 1 << 16 } else { 0 };
        let hkid = u16::try_from(regs.r8 & !dynamic_pamt).ok();
        let private = config.private_hkid_min..1u64.checked_shl(config.keyid_bits).unwrap_or(0);
        let Some(hkid) = hkid.filter(|hkid| private.contains(&u64::from(*hkid))) else {
            return invalid(OperandId::R8);
        };
        let mut list = [U64::new(0); MAX_TDMRS];
        context.host.read(regs.rcx, list.as_mut_bytes());
        let list = list.get(..count).unwrap_or_default();
        if !list.iter().all(|address| config.is_shared(address.get(), ALIGNMENT)) {
            return invalid(OperandId::RCX);
        }
        let host = context.host;
        let info = |index: usize| {
            let mut info = TdmrInfo::new_zeroed();
            if let Some(address) = list.get(index) {
                host.read(address.get(), info.as_mut_bytes());
            }
            info
        };
        // The KeyID stays even if the regions are not accepted.
        context.memory.tables.module_hkid = U16::new(hkid);
        tdmr::check(count, info, &context.memory.mcheck_table.cmrs, config.address_limit())?;
        let tables = &mut context.memory.tables;
        for (index, entry) in tables.tdmrs.iter_mut().enumerate().take(count) {
            let info = info(index);
            (entry.base, entry.size, entry.steps) = (info.base, info.size, U64::new(0));
        }
        tables.num_tdmrs = U32::new(u32::try_from(count).unwrap_or(u32::MAX));
        if tables.own(hkid, KeyOwner::Module).is_none() {
            return invalid(OperandId::R8);
        }
        self.num_packages_configured = 0;
        self.state = ModuleState::SysConfigDone;
        Ok(())
    }

    fn sys_key_config(&mut self, context: &mut CallContext<'_>) -> Result<TdxStatus, Fatal> {
        /// PCONFIG's results, and the operand that stands for the key table.
        const NO_ENTROPY: u32 = 2;
        const BUSY: u32 = 5;
        const KEY_TABLE: OperandId = OperandId(0xbb);
        if self.is_locked() {
            return Ok(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysConfigDone {
            return Ok(TdxStatus::SYS_KEY_CONFIG_NOT_PENDING);
        }
        // An LP that was never initialised is taken to be in package 0.
        let initialized = contains(&self.lps_initialized, context.lp);
        let package = if initialized { self.package(context) } else { 0 };
        let bit = 1u32.checked_shl(package).unwrap_or(0);
        let configured = &mut context.memory.tables.packages_configured;
        if configured.get() & bit != 0 {
            return Ok(TdxStatus::KEY_CONFIGURED);
        }
        match context.config.pconfig_error {
            0 => {}
            BUSY => return Ok(about(TdxStatus::OPERAND_BUSY, KEY_TABLE)),
            NO_ENTROPY => return Ok(TdxStatus::KEY_GENERATION_FAILED),
            _ => return Err(Fatal),
        }
        *configured = U32::new(configured.get() | bit);
        self.num_packages_configured = self.num_packages_configured.saturating_add(1);
        if self.num_packages_configured >= self.told.num_packages {
            self.state = ModuleState::Ready;
        }
        Ok(TdxStatus::SUCCESS)
    }

    fn sys_tdmr_init(&self, regs: &mut SeamcallRegs, context: &mut CallContext<'_>) -> Result<(), TdxStatus> {
        let base = regs.rcx;
        regs.rdx = 0;
        let tables = &mut context.memory.tables;
        let count = usize::try_from(tables.num_tdmrs.get()).unwrap_or(usize::MAX);
        let tdmr = tables.tdmrs.iter_mut().take(count).enumerate().find(|(_, tdmr)| tdmr.base.get() == base);
        let Some((index, tdmr)) = tdmr.filter(|_| base % TDMR_UNIT == 0) else {
            return Err(about(TdxStatus::OPERAND_INVALID, OperandId::RCX));
        };
        let locked = u32::try_from(index).ok().and_then(|index| self.tdmrs_locked.checked_shr(index));
        if locked.is_some_and(|bits| bits & 1 == 1) {
            return Err(about(TdxStatus::OPERAND_BUSY, OperandId::RCX));
        }
        let done = tdmr.steps.get().saturating_mul(TDMR_INIT_STEP);
        if done >= tdmr.size.get() {
            return Err(TdxStatus::TDMR_ALREADY_INITIALIZED);
        }
        tdmr.steps = U64::new(tdmr.steps.get().saturating_add(1));
        let next = base.saturating_add(done).saturating_add(TDMR_INIT_STEP);
        regs.rdx = next & !TDMR_UNIT.wrapping_sub(1);
        Ok(())
    }

    fn sys_shutdown(
        &mut self,
        regs: &SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let (hv, avoid_sensitive) = if self.has_update_compatibility() {
            let avoid = regs.rcx & ShutdownRequest::AVOID_COMPAT_SENSITIVE != 0;
            (regs.rcx & !ShutdownRequest::AVOID_COMPAT_SENSITIVE, avoid)
        } else {
            (regs.rcx, false)
        };
        let (lowest, highest) = (self.told.min_update_hv, self.told.module_hv);
        let hv = u16::try_from(hv).ok().filter(|hv| (lowest..=highest).contains(hv));
        let Some(hv) = hv.filter(|hv| !self.told.no_downgrade || *hv == highest) else {
            return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::RCX));
        };
        if self.is_locked() || context.others_are_inside() {
            return Ok(TdxStatus::SYS_BUSY);
        }
        let tables = &context.memory.tables;
        if avoid_sensitive {
            for (reason, count) in [(0, tables.tds_in_build), (1, tables.migrations_interrupted)] {
                if count.get() != 0 {
                    let details = u64::from(count.get()) << 16 | reason;
                    return Ok(TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | details));
                }
            }
        }
        let form = self.build.handoff_form;
        let size = form.size(hv);
        if size > self.told.handoff_limit() {
            return Err(Fatal);
        }
        self.state = ModuleState::Shutdown;
        tables.write(form, hv, &mut context.memory.handoff);
        let size = U32::new(u32::try_from(size).unwrap_or(u32::MAX));
        let header = HandoffHeader { valid: 1, reserved: 0, hv: U16::new(hv), size };
        handoff::set_header(&mut context.memory.handoff, &header);
        Ok(TdxStatus::SUCCESS)
    }

    fn sys_update(&mut self, regs: &SeamcallRegs, context: &mut CallContext<'_>) -> Result<TdxStatus, Fatal> {
        if self.is_locked() {
            return Ok(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysInitDone || !self.is_all_lps_initialized() {
            return Ok(TdxStatus::SYS_STATE_INCORRECT);
        }
        let header = handoff::header(&context.memory.handoff);
        let hv = header.hv.get();
        if header.valid == 0 || !(self.told.min_update_hv..=self.told.module_hv).contains(&hv) {
            return Ok(TdxStatus::SYS_INVALID_HANDOFF);
        }
        let form = self.build.handoff_form;
        let size = usize::try_from(header.size.get()).unwrap_or(usize::MAX);
        let limit = match (form, hv) {
            // The newest modules know of 2.0 ones that leave more than they themselves have pages for.
            (HandoffForm::Counting, 0) => SysInfo::room_in(25),
            _ => self.told.handoff_limit(),
        };
        if size < form.least_read(hv) || size > limit {
            return Err(Fatal);
        }
        context.memory.tables.read(form, hv, &context.memory.handoff);
        match regs.rax >> 16 & 0xff {
            0 => {}
            1 if !self.build.features0.contains(TdxFeatures0::from_bits_retain(regs.r9)) => {
                return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::R9));
            }
            1 if regs.r10 != 0 => return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::R10)),
            1 => self.update_compatibility = regs.r9 & TdxFeatures0::UPDATE_COMPATIBILITY.bits() != 0,
            _ => return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::RAX)),
        }
        let used = HandoffHeader { valid: 0, size: U32::new(0), ..header };
        handoff::set_header(&mut context.memory.handoff, &used);
        self.num_packages_configured = 0;
        self.state = ModuleState::Ready;
        context.memory.tds.iter_mut().for_each(super::Td::change_library);
        Ok(TdxStatus::SUCCESS)
    }
}
