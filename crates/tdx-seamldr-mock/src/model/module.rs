//! The TDX module: its states, and the leaves that an update goes through.

use tdx_seamldr_core::abi::{FieldId, HandoffHeader, OperandId, SeamSigstruct, ShutdownRequest};
use tdx_seamldr_core::abi::{TdxFeatures0, TdxLeaf, TdxStatus, PAGE_SIZE};
use tdx_seamldr_core::{SeamcallRegs, TdxVersion};
use zerocopy::little_endian::{U16, U32};

use super::handoff::{self, KotEntry, Tables, DATA_SIZE, HEADER_SIZE};
use super::{about, Fatal};

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

/// What is fixed when a module is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleBuild {
    /// Its version.
    pub version: TdxVersion,
    /// YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// What it can do.
    pub features0: TdxFeatures0,
    /// The handoff version that it was built for.
    pub module_hv: u16,
    /// The lowest one.
    pub min_update_hv: u16,
    /// It was built to write its own version only.
    pub no_downgrade: bool,
}

/// Released modules: SVN, version, TDX_FEATURES0.
const RELEASES: [((u8, u8), TdxVersion, u64); 10] = [
    release(1, 0x04, 1, 5, 1, 0xF0FBF),
    release(1, 0x05, 1, 5, 5, 0x61F0FBF),
    release(1, 0x06, 1, 5, 6, 0x2E1F0FBF),
    release(1, 0x07, 1, 5, 8, 0x22E1F0FBF),
    release(1, 0x08, 1, 5, 9, 0x26F1F0FBF),
    release(1, 0x0a, 1, 5, 13, 0x226F1F0FBF),
    release(1, 0x0b, 1, 5, 16, 0x226F3F0FBF),
    release(3, 0x03, 2, 0, 2, 0x22E1F0FBF),
    release(3, 0x04, 2, 0, 4, 0x12AF1F0FBF),
    release(3, 0x05, 2, 0, 8, 0x32A71F0FBF),
];

const fn release(
    svn_major: u8,
    svn_minor: u8,
    major: u16,
    minor: u16,
    update: u16,
    features0: u64,
) -> ((u8, u8), TdxVersion, u64) {
    ((svn_major, svn_minor), TdxVersion { major, minor, update }, features0)
}

impl ModuleBuild {
    /// The build behind an image. A SIGSTRUCT does not say everything; the rest is known of released modules by their SVN,
    /// and made up for others: their version is 1.5 and the minor SVN, and they can preserve TDs.
    #[must_use]
    pub fn of_image(sigstruct: &SeamSigstruct) -> Self {
        let svn = (sigstruct.svn_major, sigstruct.svn_minor);
        let (version, features0) = RELEASES.iter().find(|(key, ..)| *key == svn).map_or_else(
            || {
                let version = TdxVersion { major: 1, minor: 5, update: sigstruct.svn_minor.into() };
                (version, 0xF0FBF)
            },
            |(_, version, features0)| (*version, *features0),
        );
        Self {
            version,
            build_date: bcd_to_decimal(sigstruct.date.get()),
            features0: TdxFeatures0::from_bits_retain(features0),
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
        }
    }
}

fn bcd_to_decimal(bcd: u32) -> u32 {
    (0..8)
        .rev()
        .fold(0u32, |sum, digit| sum.wrapping_mul(10).wrapping_add(bcd >> (4u32.wrapping_mul(digit)) & 0xf))
}

/// What P-SEAMLDR tells a module through its system information page.
#[derive(Clone, Copy, Debug)]
pub(super) struct SysInfo {
    pub(super) module_hv: u16,
    pub(super) min_update_hv: u16,
    pub(super) no_downgrade: bool,
    pub(super) num_handoff_pages: u16,
    pub(super) tot_num_lps: u32,
    pub(super) num_packages: u32,
}

impl SysInfo {
    pub(super) fn new(sigstruct: &SeamSigstruct, tot_num_lps: u32, num_packages: u32) -> Self {
        Self {
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
            num_handoff_pages: sigstruct.num_handoff_pages.get(),
            tot_num_lps,
            num_packages,
        }
    }

    /// Bytes that the handoff data may have.
    fn handoff_limit(&self) -> u64 {
        handoff_area(self.num_handoff_pages).saturating_sub(u64::try_from(HEADER_SIZE).unwrap_or(0))
    }
}

/// Bytes of a handoff area of `pages` plus one pages.
pub(super) fn handoff_area(pages: u16) -> u64 {
    u64::from(pages).saturating_add(1).saturating_mul(u64::try_from(PAGE_SIZE).unwrap_or(0))
}

/// One LP at a time, by its place in the platform's list.
pub(super) type LpSet = [u64; 16];

/// Adds a number to a set; `false` if it was there already or is out of range.
pub(super) fn insert(set: &mut LpSet, number: u32) -> bool {
    let word = usize::try_from(number >> 6).ok().and_then(|index| set.get_mut(index));
    word.is_some_and(|word| {
        let bit = 1 << (number & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    })
}

/// Whether a number is in a set.
pub(super) fn contains(set: &LpSet, number: u32) -> bool {
    let word = usize::try_from(number >> 6).ok().and_then(|index| set.get(index));
    word.is_some_and(|word| word >> (number & 63) & 1 == 1)
}

/// A TDX module in the SEAM range.
#[derive(Clone, Debug)]
pub struct TdxModule {
    build: ModuleBuild,
    sysinfo: SysInfo,
    state: ModuleState,
    lps_initialized: LpSet,
    num_lps_initialized: u32,
    packages_configured_now: LpSet,
    update_compatibility: bool,
    pub(super) tables: Tables,
}

/// Who calls, and what the module can see of the platform.
#[derive(Debug)]
pub(super) struct CallContext<'a> {
    pub(super) lp: u32,
    pub(super) package: u32,
    pub(super) handoff: &'a mut [u8],
    pub(super) rdrand_ok: bool,
    pub(super) tds_in_build: u16,
    pub(super) migrations_interrupted: u16,
}

/// The global KeyID of modules that the platform boots.
const GLOBAL_HKID: u16 = 0x20;

impl TdxModule {
    pub(super) const fn new(build: ModuleBuild, sysinfo: SysInfo) -> Self {
        Self {
            build,
            sysinfo,
            state: ModuleState::SysInitPending,
            lps_initialized: [0; 16],
            num_lps_initialized: 0,
            packages_configured_now: [0; 16],
            update_compatibility: false,
            tables: Tables::EMPTY,
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

    /// Whether it was told, by TDH.SYS.UPDATE version 1, to find damage that an update did.
    #[must_use]
    pub const fn update_compatibility(&self) -> bool {
        self.update_compatibility
    }

    /// The KeyID of this TD, if it has one.
    pub(super) fn hkid_of(&self, td: u16) -> Option<u16> {
        (0..).zip(&self.tables.kot).find(|(_, entry)| **entry == KotEntry::Td(td)).map(|(hkid, _)| hkid)
    }

    fn is_all_lps_initialized(&self) -> bool {
        self.num_lps_initialized >= self.sysinfo.tot_num_lps
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
        context: CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        Ok(match leaf {
            TdxLeaf::SYS_INIT => self.sys_init(regs, &context),
            TdxLeaf::SYS_LP_INIT => self.sys_lp_init(regs, &context),
            TdxLeaf::SYS_RD => self.sys_rd(regs, &context),
            TdxLeaf::SYS_CONFIG => self.sys_config(regs),
            TdxLeaf::SYS_KEY_CONFIG => self.sys_key_config(&context),
            TdxLeaf::SYS_SHUTDOWN => self.sys_shutdown(regs, context),
            TdxLeaf::SYS_UPDATE => return self.sys_update(regs, context),
            TdxLeaf::SYS_LP_SHUTDOWN => TdxStatus::SUCCESS,
            _ => about(TdxStatus::OPERAND_INVALID, OperandId::RAX),
        })
    }

    fn has_update_compatibility(&self) -> bool {
        self.build.features0.contains(TdxFeatures0::UPDATE_COMPATIBILITY)
    }

    fn sys_init(&mut self, regs: &mut SeamcallRegs, context: &CallContext<'_>) -> TdxStatus {
        let attributes = regs.rcx;
        (regs.rcx, regs.rdx, regs.r8, regs.r9, regs.r10) = (0, 0, 0, 0, 0);
        if attributes != 0 {
            return about(TdxStatus::OPERAND_INVALID, OperandId::RCX);
        }
        if self.state != ModuleState::SysInitPending {
            return TdxStatus::SYS_INIT_NOT_PENDING;
        }
        let (build, told) = (&self.build, &self.sysinfo);
        if told.module_hv != build.module_hv
            || told.min_update_hv < build.min_update_hv
            || build.no_downgrade && !told.no_downgrade
            || told.handoff_limit() < u64::from(DATA_SIZE)
        {
            return TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT;
        }
        if !context.rdrand_ok {
            return TdxStatus::RND_NO_ENTROPY;
        }
        self.num_lps_initialized = 0;
        self.state = ModuleState::SysInitDone;
        TdxStatus::SUCCESS
    }

    fn sys_lp_init(&mut self, regs: &mut SeamcallRegs, context: &CallContext<'_>) -> TdxStatus {
        (regs.rcx, regs.rdx, regs.r8) = (0, 0, 0);
        if self.state != ModuleState::SysInitDone {
            return TdxStatus::SYS_LP_INIT_NOT_PENDING;
        }
        if contains(&self.lps_initialized, context.lp) {
            return TdxStatus::SYS_LP_INIT_DONE;
        }
        if !context.rdrand_ok {
            return TdxStatus::RND_NO_ENTROPY;
        }
        insert(&mut self.lps_initialized, context.lp);
        self.num_lps_initialized = self.num_lps_initialized.saturating_add(1);
        TdxStatus::SUCCESS
    }

    fn sys_rd(&self, regs: &mut SeamcallRegs, context: &CallContext<'_>) -> TdxStatus {
        let field = FieldId(regs.rdx);
        (regs.rdx, regs.r8) = (FieldId::NULL.0, 0);
        if !contains(&self.lps_initialized, context.lp) {
            return TdxStatus::SYS_LP_INIT_NOT_DONE;
        }
        let header = handoff::header(context.handoff);
        let values = [
            (FieldId::MINOR_VERSION, self.build.version.minor.into()),
            (FieldId::MAJOR_VERSION, self.build.version.major.into()),
            (FieldId::UPDATE_VERSION, self.build.version.update.into()),
            (FieldId::INTERNAL_VERSION, 0),
            (FieldId::VENDOR_ID, 0x8086),
            (FieldId::TDX_FEATURES0, self.build.features0.bits()),
            (FieldId::BUILD_DATE, self.build.build_date.into()),
            (FieldId::BUILD_NUM, 0),
            // These three are what the module was built with, whatever it was told.
            (FieldId::MODULE_HV, self.build.module_hv.into()),
            (FieldId::MIN_UPDATE_HV, self.build.min_update_hv.into()),
            (FieldId::NO_DOWNGRADE, self.build.no_downgrade.into()),
            (FieldId::NUM_HANDOFF_PAGES, self.sysinfo.num_handoff_pages.into()),
            (FieldId::HANDOFF_DATA_VALID, header.valid.into()),
            (FieldId::HANDOFF_DATA_HV, header.hv.get().into()),
            (FieldId::HANDOFF_DATA_SIZE, header.size.get().into()),
        ];
        if field == FieldId::NULL {
            regs.rdx = values.first().map_or(FieldId::NULL.0, |(id, _)| id.0);
            return TdxStatus::METADATA_FIRST_FIELD_ID_IN_CONTEXT;
        }
        let mut from_here = values.iter().skip_while(|(id, _)| *id != field);
        let Some((_, value)) = from_here.next() else {
            return TdxStatus::METADATA_FIELD_ID_INCORRECT;
        };
        regs.r8 = *value;
        regs.rdx = from_here.next().map_or(FieldId::NULL.0, |(id, _)| id.0);
        TdxStatus::SUCCESS
    }

    /// The list of TDMRs is not looked at.
    fn sys_config(&mut self, regs: &SeamcallRegs) -> TdxStatus {
        if self.state != ModuleState::SysInitDone || !self.is_all_lps_initialized() {
            return TdxStatus::SYS_CONFIG_NOT_PENDING;
        }
        self.tables = Tables::EMPTY;
        self.tables.num_tdmrs = u32::try_from(regs.rdx).unwrap_or(u32::MAX);
        self.tables.module_hkid = GLOBAL_HKID;
        if let Some(entry) = self.tables.kot.get_mut(usize::from(GLOBAL_HKID)) {
            *entry = KotEntry::Module;
        }
        self.state = ModuleState::SysConfigDone;
        TdxStatus::SUCCESS
    }

    fn sys_key_config(&mut self, context: &CallContext<'_>) -> TdxStatus {
        if self.state != ModuleState::SysConfigDone {
            return TdxStatus::SYS_KEY_CONFIG_NOT_PENDING;
        }
        if !insert(&mut self.packages_configured_now, context.package) {
            return TdxStatus::KEY_CONFIGURED;
        }
        self.tables.packages_configured |= 1u32.checked_shl(context.package).unwrap_or(0);
        if self.tables.packages_configured.count_ones() >= self.sysinfo.num_packages {
            self.state = ModuleState::Ready;
        }
        TdxStatus::SUCCESS
    }

    fn sys_shutdown(&mut self, regs: &SeamcallRegs, context: CallContext<'_>) -> TdxStatus {
        let (hv, avoid_sensitive) = if self.has_update_compatibility() {
            let avoid = regs.rcx & ShutdownRequest::AVOID_COMPAT_SENSITIVE != 0;
            (regs.rcx & !ShutdownRequest::AVOID_COMPAT_SENSITIVE, avoid)
        } else {
            (regs.rcx, false)
        };
        let (lowest, highest) = (u64::from(self.sysinfo.min_update_hv), u64::from(self.sysinfo.module_hv));
        let Some(hv) = u16::try_from(hv).ok().filter(|hv| (lowest..=highest).contains(&u64::from(*hv)))
        else {
            return about(TdxStatus::OPERAND_INVALID, OperandId::RCX);
        };
        if self.sysinfo.no_downgrade && u64::from(hv) != highest {
            return about(TdxStatus::OPERAND_INVALID, OperandId::RCX);
        }
        if avoid_sensitive {
            for (reason, count) in [(0, context.tds_in_build), (1, context.migrations_interrupted)] {
                if count != 0 {
                    let details = u64::from(count) << 16 | reason;
                    return TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | details);
                }
            }
        }
        self.state = ModuleState::Shutdown;
        self.tables.write(context.handoff);
        let header = HandoffHeader { valid: 1, reserved: 0, hv: U16::new(hv), size: U32::new(DATA_SIZE) };
        handoff::set_header(context.handoff, &header);
        TdxStatus::SUCCESS
    }

    fn sys_update(&mut self, regs: &SeamcallRegs, context: CallContext<'_>) -> Result<TdxStatus, Fatal> {
        if self.state != ModuleState::SysInitDone || !self.is_all_lps_initialized() {
            return Ok(TdxStatus::SYS_STATE_INCORRECT);
        }
        let header = handoff::header(context.handoff);
        let range = self.sysinfo.min_update_hv..=self.sysinfo.module_hv;
        if header.valid == 0 || !range.contains(&header.hv.get()) {
            return Ok(TdxStatus::SYS_INVALID_HANDOFF);
        }
        let size = header.size.get();
        if size < DATA_SIZE || u64::from(size) > self.sysinfo.handoff_limit() {
            return Err(Fatal);
        }
        self.tables = Tables::read(context.handoff);
        match regs.rax >> 16 & 0xff {
            0 => {}
            1 if !self.build.features0.contains(TdxFeatures0::from_bits_retain(regs.r9)) => {
                return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::R9));
            }
            1 if regs.r10 != 0 => return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::R10)),
            1 => self.update_compatibility = regs.r9 & TdxFeatures0::UPDATE_COMPATIBILITY.bits() != 0,
            _ => return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::RAX)),
        }
        let used = HandoffHeader { valid: 0, reserved: header.reserved, hv: header.hv, size: U32::new(0) };
        handoff::set_header(context.handoff, &used);
        self.state = ModuleState::Ready;
        Ok(TdxStatus::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_decimal_numbers_in_the_module_and_hexadecimal_digits_in_the_sigstruct() {
        assert_eq!(bcd_to_decimal(0x20250219), 20250219);
    }

    #[test]
    fn sets_hold_numbers_up_to_1023() {
        let mut set = [0; 16];
        assert!(insert(&mut set, 1023) && !insert(&mut set, 1023));
        assert!(contains(&set, 1023) && !contains(&set, 1022));
        assert!(!insert(&mut set, 1024) && !contains(&set, 1024));
    }
}
