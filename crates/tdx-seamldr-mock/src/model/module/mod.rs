//! The TDX module: its states, and the leaves that bring it up, shut it down and hand TDs over.

mod bring_up;
mod build;
mod cpuid_rules;
mod enumeration;
mod fields;
mod info;
mod releases;
mod tdmr;
mod vmx_rules;

#[cfg(any(feature = "std", test))]
pub(crate) use build::Description;
pub use build::{ModuleBuild, ModuleGeneration, SysInfo};
pub(super) use enumeration::Sampled;

use tdx_seamldr_core::abi::{FieldId, HandoffHeader, OperandId, PSysInfo, ShutdownRequest};
use tdx_seamldr_core::abi::{TdxFeatures0, TdxLeaf, TdxStatus};
use tdx_seamldr_core::SeamcallRegs;
use zerocopy::little_endian::{U16, U32};

use self::enumeration::{Enumerated, Stop};
use self::fields::{Reading, View};
pub(super) use self::tdmr::TdmrInfo;
use super::cpu::Cpu;
use super::handoff::{self, HandoffForm, KeyOwner, MAX_TDMRS};
use super::lp::{contains, insert, LpSet};
use super::{about, Config, Fatal, PhysMemory, SeamMemory};

/// State of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ModuleState {
    /// Installed.
    SysInitPending,
    /// After TDH.SYS.INIT.
    SysInitDone,
    /// After TDH.SYS.CONFIG.
    SysConfigDone,
    /// TDs can run.
    Ready,
    /// After TDH.SYS.SHUTDOWN. No call leaves this state.
    Shutdown,
}

impl ModuleState {
    /// All states, with their names in the specification.
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
    /// Not held.
    #[default]
    Free,
    /// Held shared.
    Shared,
    /// Held exclusively.
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
    /// SEAMOPS capabilities of the LP on which TDH.SYS.INIT ran.
    capabilities: u64,
    /// What TDH.SYS.INIT read from the processor.
    enumerated: Enumerated,
    lock: GlobalLock,
    /// TDMRs that another LP is initialising, a bit each.
    tdmrs_locked: u64,
    update_compatibility: bool,
}

/// The calling LP, and what the module can access during a call.
pub(super) struct CallContext<'a> {
    /// The calling LP, by its place in the platform's list.
    pub(super) lp: u32,
    pub(super) config: &'a mut Config,
    pub(super) host: &'a dyn PhysMemory,
    pub(super) memory: &'a mut SeamMemory,
}

impl CallContext<'_> {
    fn capabilities(&self) -> u64 {
        self.this_lp().map_or(0, |lp| lp.seamops_capabilities)
    }

    /// Returns whether another LP is inside the module. LPs that the firmware did not count are
    /// included.
    fn others_are_inside(&self) -> bool {
        let others = (0u32..).zip(&self.memory.lps).filter(|(lp, _)| *lp != self.lp);
        others.map(|(_, lp)| lp).any(super::lp::Lp::is_in_module)
    }

    fn x2apic_id(&self) -> u32 {
        self.this_lp().map_or(0, |lp| lp.x2apic_id)
    }

    fn this_lp_mut(&mut self) -> Option<&mut super::lp::Lp> {
        self.memory.lps.get_mut(usize::try_from(self.lp).ok()?)
    }

    fn this_lp(&self) -> Option<&super::lp::Lp> {
        self.memory.lps.get(usize::try_from(self.lp).ok()?)
    }
}

/// SEAMOPS capabilities that the module needs: GETREF and the report of the database.
const NEEDED_CAPABILITIES: u64 = 1 << 4 | 1 << 5;
/// The SEAMOPS capability for local attestation: SEAMVERIFYREPORT.
const SEAMVERIFYREPORT: u64 = 1 << 6;

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
            enumerated: Enumerated::default(),
            lock: GlobalLock::Free,
            tdmrs_locked: 0,
            update_compatibility: false,
        }
    }

    /// Returns the state.
    #[must_use]
    pub const fn state(&self) -> ModuleState {
        self.state
    }

    /// Returns the build-time properties.
    #[must_use]
    pub const fn build(&self) -> &ModuleBuild {
        &self.build
    }

    /// Returns what P-SEAMLDR told the module.
    #[must_use]
    pub const fn sysinfo(&self) -> &SysInfo {
        &self.told
    }

    /// Returns whether TDH.SYS.UPDATE version 1 told the module to detect incompatible contexts.
    #[must_use]
    pub const fn update_compatibility(&self) -> bool {
        self.update_compatibility
    }

    /// Returns the number of initialised LPs.
    #[must_use]
    pub const fn num_lps_initialized(&self) -> u32 {
        self.num_lps_initialized
    }

    /// Returns whether an LP, by its place in the platform's list, is initialised.
    #[must_use]
    pub fn is_lp_initialized(&self, lp: u32) -> bool {
        contains(&self.lps_initialized, lp)
    }

    /// Returns the number of packages to which this module itself gave its key.
    #[must_use]
    pub const fn num_packages_configured(&self) -> u32 {
        self.num_packages_configured
    }

    /// Returns whether the module counts compatibility-sensitive operations.
    #[must_use]
    pub const fn has_update_compatibility(&self) -> bool {
        self.build.features0.contains(TdxFeatures0::UPDATE_COMPATIBILITY)
    }

    /// Returns the global lock, as another LP holds it.
    #[must_use]
    pub const fn lock(&self) -> GlobalLock {
        self.lock
    }

    /// Takes or releases the global lock, as another LP.
    pub fn set_lock(&mut self, lock: GlobalLock) {
        self.lock = lock;
    }

    /// Begins or ends the initialisation of a TDMR, as another LP.
    pub fn set_tdmr_lock(&mut self, index: u32, held: bool) {
        let bit = 1u64.checked_shl(index).unwrap_or(0);
        self.tdmrs_locked = self.tdmrs_locked & !bit | if held { bit } else { 0 };
    }

    fn is_all_lps_initialized(&self) -> bool {
        self.num_lps_initialized >= self.told.tot_num_lps
    }

    /// Executes one SEAMCALL.
    pub(super) fn call(
        &mut self,
        regs: &mut SeamcallRegs,
        context: CallContext<'_>,
    ) -> Result<(), Fatal> {
        const RESERVED: u64 = !0x00ff_ffff;
        /// Leaves that have versions: MEM.SEPT.ADD, MNG.RD, PROMOTE, VP.RD and SEPT.REMOVE.
        const VERSIONED: [u16; 5] = [3, 11, 23, 26, 30];
        /// Leaves that do not need a ready module.
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
        let has_versions = match leaf {
            TdxLeaf::SYS_UPDATE => self.has_update_compatibility(),
            TdxLeaf::SYS_INIT => version == 1 && self.build.generation >= ModuleGeneration::V1_5_34,
            _ => VERSIONED.contains(&leaf.0),
        };
        let status = if regs.rax & RESERVED != 0 || version > 0 && !has_versions {
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
        // Version 1 takes a page for information about fatal errors, and an interrupt vector. Only
        // the page is checked here.
        let fatal_error_page = if regs.rax >> 16 & 0xff == 1 { regs.r8 & !0xfff } else { 0 };
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
        match self.look_at_processor(regs, context) {
            Ok(enumerated) => self.enumerated = enumerated,
            Err(Stop::Error(status)) => return Ok(status),
            Err(Stop::Fatal) => return Err(Fatal),
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
        if !self.is_shared(context, fatal_error_page, 4096) {
            return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::R8));
        }
        self.capabilities = capabilities;
        self.num_lps_initialized = 0;
        context.memory.tables.packages_configured = U32::new(0);
        self.state = ModuleState::SysInitDone;
        Ok(TdxStatus::SUCCESS)
    }

    fn look_at_processor(
        &self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<Enumerated, Stop> {
        let (lp, x2apic_id) = (context.lp, context.x2apic_id());
        let SeamMemory { deviations, sampled, mcheck_table, .. } = &mut *context.memory;
        let cpu = Cpu { lp, x2apic_id, config: context.config, deviations };
        enumeration::check(&cpu, mcheck_table, sampled, regs)
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
        if self.is_lp_initialized(context.lp) {
            return Err(TdxStatus::SYS_LP_INIT_DONE);
        }
        // A 32-bit seed, which must not be 0.
        if !context.config.rdrand() || context.config.rdrand_value & 0xffff_ffff == 0 {
            return Err(TdxStatus::RND_NO_ENTROPY);
        }
        if context.capabilities() != self.capabilities {
            return Err(TdxStatus::INCOMPATIBLE_SEAM_CAPABILITIES);
        }
        let (lp, x2apic_id) = (context.lp, context.x2apic_id());
        let SeamMemory { deviations, sampled, mcheck_table, .. } = &*context.memory;
        let cpu = Cpu { lp, x2apic_id, config: context.config, deviations };
        let package = enumeration::compare(&cpu, mcheck_table, sampled, &self.enumerated, regs)?;
        if let Some(lp) = context.this_lp_mut() {
            lp.package = package;
        }
        insert(&mut self.lps_initialized, context.lp);
        self.num_lps_initialized = self.num_lps_initialized.saturating_add(1);
        Ok(())
    }

    fn sys_rd(
        &self,
        regs: &mut SeamcallRegs,
        context: &CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let id = regs.rdx;
        (regs.rdx, regs.r8) = (FieldId::NULL.0, 0);
        if !self.is_lp_initialized(context.lp) {
            return Ok(TdxStatus::SYS_LP_INIT_NOT_DONE);
        }
        let view = self.view(context.memory);
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

    /// Returns the sources of metadata fields.
    fn view<'a>(&'a self, memory: &'a SeamMemory) -> View<'a> {
        self.view_of(&memory.mcheck_table, &memory.sampled, &memory.handoff)
    }

    fn view_of<'a>(
        &'a self,
        platform: &'a PSysInfo,
        sampled: &'a Sampled,
        handoff: &[u8],
    ) -> View<'a> {
        let mut features0 = self.build.features0;
        if self.capabilities & SEAMVERIFYREPORT == 0 {
            features0.remove(TdxFeatures0::LOCAL_ATTESTATION);
        }
        let header = handoff::header(handoff);
        View { build: &self.build, told: &self.told, platform, sampled, header, features0 }
    }

    /// Returns whether the host may pass this address to the module.
    fn is_shared(&self, context: &CallContext<'_>, address: u64, alignment: u64) -> bool {
        self.enumerated.is_shared(address, alignment, context.config.max_pa)
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

    fn sys_update(
        &mut self,
        regs: &SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let generation = self.build.generation;
        let operands = self.check_update_operands(regs);
        if let Err(status) = operands {
            if generation >= ModuleGeneration::V1_5_34 {
                return Ok(status);
            }
        }
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
            // Modules with later handoff versions accept 2.0 data that is larger than their own
            // pages.
            (HandoffForm::Counting, 0) => SysInfo::room_in(25),
            _ => self.told.handoff_limit(),
        };
        if generation < ModuleGeneration::V1_5_28 && (size < form.least_read(hv) || size > limit) {
            return Err(Fatal);
        }
        context.memory.tables.read(form, hv, &context.memory.handoff);
        match operands {
            // The data was restored, but the header is still valid: the host may call again.
            Err(status) => return Ok(status),
            Ok(detects) => self.update_compatibility = detects,
        }
        let used = HandoffHeader { valid: 0, size: U32::new(0), ..header };
        handoff::set_header(&mut context.memory.handoff, &used);
        self.num_packages_configured = 0;
        self.state = ModuleState::Ready;
        let context_version = self.build.crypto_context;
        context.memory.tds.iter_mut().for_each(|td| td.change_library(context_version));
        Ok(TdxStatus::SUCCESS)
    }

    /// Checks the operands of TDH.SYS.UPDATE version 1. Returns whether the module is to detect
    /// incompatible contexts.
    fn check_update_operands(&self, regs: &SeamcallRegs) -> Result<bool, TdxStatus> {
        let invalid = |operand| Err(about(TdxStatus::OPERAND_INVALID, operand));
        match regs.rax >> 16 & 0xff {
            0 => Ok(false),
            1 if !self.build.features0.contains(TdxFeatures0::from_bits_retain(regs.r9)) => {
                invalid(OperandId::R9)
            }
            1 if regs.r10 != 0 => invalid(OperandId::R10),
            1 => Ok(regs.r9 & TdxFeatures0::UPDATE_COMPATIBILITY.bits() != 0),
            _ => invalid(OperandId::RAX),
        }
    }
}
