//! The leaves that bring up a module without handoff data: TDH.SYS.CONFIG, TDH.SYS.KEY.CONFIG and
//! TDH.SYS.TDMR.INIT.

use tdx_seamldr_core::abi::{OperandId, TdxFeatures0, TdxStatus};
use tdx_seamldr_core::SeamcallRegs;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::tdmr::{self, TdmrInfo, TDMR_UNIT};
use super::{about, CallContext, Fatal, KeyOwner, ModuleState, SeamMemory, TdxModule, MAX_TDMRS};

/// Bytes of memory whose metadata one call of TDH.SYS.TDMR.INIT initialises.
const TDMR_INIT_STEP: u64 = 4 << 20;

impl TdxModule {
    pub(super) fn sys_config(
        &mut self,
        regs: &SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<(), TdxStatus> {
        /// Alignment of TDMR_INFO structures and of their list.
        const ALIGNMENT: u64 = 512;
        let invalid = |operand| Err(about(TdxStatus::OPERAND_INVALID, operand));
        if self.is_locked() {
            return Err(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysInitDone || !self.is_all_lps_initialized() {
            return Err(TdxStatus::SYS_CONFIG_NOT_PENDING);
        }
        if !self.is_shared(context, regs.rcx, ALIGNMENT) {
            return invalid(OperandId::RCX);
        }
        let Some(count) =
            usize::try_from(regs.rdx).ok().filter(|count| (1..=MAX_TDMRS).contains(count))
        else {
            return invalid(OperandId::RDX);
        };
        let dynamic_pamt =
            if self.build.features0.contains(TdxFeatures0::DYNAMIC_PAMT) { 1 << 16 } else { 0 };
        let hkid = u16::try_from(regs.r8 & !dynamic_pamt).ok();
        let Some(hkid) = hkid.filter(|hkid| self.enumerated.is_private(*hkid)) else {
            return invalid(OperandId::R8);
        };
        // The KeyID is set from here on, even if the TDMRs are not accepted.
        context.memory.tables.module_hkid = U16::new(hkid);
        context
            .memory
            .tables
            .own(hkid, KeyOwner::Module)
            .ok_or(about(TdxStatus::OPERAND_INVALID, OperandId::R8))?;
        let mut list = [U64::new(0); MAX_TDMRS];
        context.host.read(regs.rcx, list.as_mut_bytes());
        for (index, address) in list.iter().enumerate().take(count) {
            if !self.is_shared(context, address.get(), ALIGNMENT) {
                return invalid(OperandId::RCX);
            }
            let mut info = TdmrInfo::new_zeroed();
            context.host.read(address.get(), info.as_mut_bytes());
            let SeamMemory { tdmr_infos, mcheck_table, tables, .. } = &mut *context.memory;
            let Some((slot, before)) = tdmr_infos.get_mut(..=index).and_then(<[_]>::split_last_mut)
            else {
                return invalid(OperandId::RDX);
            };
            *slot = info;
            tdmr::check(slot, before, &mcheck_table.cmrs, self.enumerated.address_limit())?;
            // TDMRs that were accepted before a bad one stay in the table. The number of TDMRs does
            // not count them.
            if let Some(entry) = tables.tdmrs.get_mut(index) {
                (entry.base, entry.size, entry.steps) = (info.base, info.size, U64::new(0));
            }
        }
        context.memory.tables.num_tdmrs = U32::new(u32::try_from(count).unwrap_or(u32::MAX));
        self.num_packages_configured = 0;
        self.state = ModuleState::SysConfigDone;
        Ok(())
    }

    pub(super) fn sys_key_config(
        &mut self,
        context: &mut CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        /// Results of PCONFIG, and the operand id of the key table.
        const NO_ENTROPY: u32 = 2;
        const BUSY: u32 = 5;
        const KEY_TABLE: OperandId = OperandId(0xbb);
        if self.is_locked() {
            return Ok(TdxStatus::SYS_BUSY);
        }
        if self.state != ModuleState::SysConfigDone {
            return Ok(TdxStatus::SYS_KEY_CONFIG_NOT_PENDING);
        }
        // An LP that was never initialised counts as an LP of package 0.
        let package = context.this_lp().map_or(0, |lp| lp.package);
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

    pub(super) fn sys_tdmr_init(
        &self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<(), TdxStatus> {
        let base = regs.rcx;
        regs.rdx = 0;
        let tables = &mut context.memory.tables;
        let count = usize::try_from(tables.num_tdmrs.get()).unwrap_or(usize::MAX);
        let tdmr = tables
            .tdmrs
            .iter_mut()
            .take(count)
            .enumerate()
            .find(|(_, tdmr)| tdmr.base.get() == base);
        let Some((index, tdmr)) = tdmr.filter(|_| base % TDMR_UNIT == 0) else {
            return Err(about(TdxStatus::OPERAND_INVALID, OperandId::RCX));
        };
        let locked =
            u32::try_from(index).ok().and_then(|index| self.tdmrs_locked.checked_shr(index));
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
}
