//! TDH.SYS.INIT's checks of IA32_VMX_* MSRs: what the module needs for TDs (L1), and for virtual
//! machines inside TDs (L2).

use tdx_seamldr_core::abi::TdxStatus;

use super::enumeration::Stop;
use super::Fatal;

const BASIC: u32 = 0x480;
const MISC: u32 = 0x485;
const CR0_FIXED0: u32 = 0x486;
const CR0_FIXED1: u32 = 0x487;
const CR4_FIXED0: u32 = 0x488;
const CR4_FIXED1: u32 = 0x489;
const PROCBASED2: u32 = 0x48b;
const EPT_VPID: u32 = 0x48c;
const PINBASED: u32 = 0x48d;
const PROCBASED: u32 = 0x48e;
const EXIT: u32 = 0x48f;
const ENTRY: u32 = 0x490;
const PROCBASED3: u32 = 0x492;

/// How the module sets the controls of one MSR.
struct Controls {
    msr: u32,
    /// Controls that are 1.
    ones: u64,
    /// Controls that are 0 for some TDs and 1 for others.
    variable: u64,
    /// Controls that are set as the processor requires.
    unknown: u64,
}

const fn controls(msr: u32, ones: u64, variable: u64, unknown: u64) -> Controls {
    Controls { msr, ones, variable, unknown }
}

/// Controls of TDs, in the order of the checks.
const L1: [Controls; 6] = [
    controls(PINBASED, 0x00000029, 0x00000080, 0xffffff16),
    controls(PROCBASED, 0x91220088, 0x20400c00, 0x04046173),
    controls(PROCBASED2, 0x133cb3fa, 0xcc000400, 0),
    controls(PROCBASED3, 0, 0xa0, 0xffffffffffffff40),
    controls(EXIT, 0x1f3c8204, 0x40001000, 0x00036dfb),
    controls(ENTRY, 0x003ec004, 0x00402200, 0xff8011fb),
];
/// Controls of virtual machines inside TDs.
const L2: [Controls; 6] = [
    controls(PINBASED, 0x00000029, 0, 0xffffff16),
    controls(PROCBASED, 0x91220088, 0x68f81e04, 0x04046173),
    controls(PROCBASED2, 0x1338b3fa, 0x0c513f0c, 0),
    controls(PROCBASED3, 0, 0xae, 0xffffffffffffff40),
    controls(EXIT, 0x1f3c8204, 0x40001000, 0x00036dfb),
    controls(ENTRY, 0x003ec004, 0x00402200, 0xff8011fb),
];
/// Secondary controls that depend on the processor: user-level wait (TPAUSE), and ENCLV exiting.
const USER_WAIT: u64 = 1 << 26;
const ENCLV_EXITING: u64 = 1 << 28;
/// CR0 of TDs: bits that are 1, and bits that a TD may choose.
const CR0_ONES: u64 = 0x21;
const CR0_VARIABLE: u64 = 0x8005001f;
/// CR4 of TDs: bits that are 1.
const CR4_ONES: u64 = 0x2040;
/// Protection and paging, which unrestricted guests may disable.
const PE_PG: u64 = 1 << 31 | 1;

impl Controls {
    /// Returns whether the processor lets the module set its controls. The low half of an MSR has
    /// the controls that have to be 1, the high half those that may be 1. The MSR of the tertiary
    /// controls has only the latter.
    fn fit(&self, value: u64, has_user_wait: bool) -> Result<bool, Fatal> {
        let (must, may) = match self.msr {
            PROCBASED3 => (0, value),
            _ => (value & 0xffff_ffff, value >> 32),
        };
        if must & !may != 0 {
            return Err(Fatal);
        }
        let mut ones = self.ones;
        if self.msr == PROCBASED2 {
            ones = ones & !USER_WAIT | if has_user_wait { USER_WAIT } else { 0 };
            ones &= may | !ENCLV_EXITING;
        }
        Ok(must & !(ones | self.unknown) == 0
            && !may & ones == 0
            && (must | !may) & self.variable == 0)
    }
}

/// Checks all MSRs. `features` is CPUID.07H.0.
pub(super) fn check(msr: impl Fn(u32) -> u64, features: [u32; 4]) -> Result<(), Stop> {
    /// Size of the module's VMCS in bytes.
    const VMCS_SIZE: u64 = 2048;
    /// IA32_VMX_BASIC: information about INS and OUTS, and the "true" MSRs.
    const BASIC_BITS: u64 = 1 << 54 | 1 << 55;
    /// IA32_VMX_MISC: unrestricted guests, HLT, shutdown, Processor Trace, and VMWRITE to every
    /// field.
    const MISC_BITS: u64 = 1 << 5 | 1 << 6 | 1 << 7 | 1 << 14 | 1 << 29;
    const CR3_TARGETS: u64 = 4;
    const EPT_VPID_BITS: u64 = 0x10106334041;
    let require = |fits: bool, number: u32| {
        let error = TdxStatus(TdxStatus::INCORRECT_MSR_VALUE.0 | u64::from(number));
        if fits {
            Ok(())
        } else {
            Err(Stop::Error(error))
        }
    };
    let [_, _, ecx, _] = features;
    let has_user_wait = ecx >> 5 & 1 == 1;
    let all = |list: &[Controls]| {
        list.iter().try_for_each(|controls| {
            require(controls.fit(msr(controls.msr), has_user_wait)?, controls.msr)
        })
    };

    let basic = msr(BASIC);
    require(basic >> 32 & 0x1fff <= VMCS_SIZE && basic & BASIC_BITS == BASIC_BITS, BASIC)?;
    all(&L1)?;
    let misc = msr(MISC);
    require(misc & MISC_BITS == MISC_BITS && misc >> 16 & 0x1ff >= CR3_TARGETS, MISC)?;
    require(msr(EPT_VPID) & EPT_VPID_BITS == EPT_VPID_BITS, EPT_VPID)?;
    let (cr0_must, cr0_may) = (msr(CR0_FIXED0) & !PE_PG, msr(CR0_FIXED1));
    require(cr0_must & !CR0_ONES == 0, CR0_FIXED0)?;
    require(!cr0_may & CR0_ONES == 0, CR0_FIXED1)?;
    require(msr(CR4_FIXED0) & !CR4_ONES == 0, CR4_FIXED0)?;
    require(!msr(CR4_FIXED1) & CR4_ONES == 0, CR4_FIXED1)?;

    all(&L2)?;
    // Check CR0 again, with the bits that a TD may choose. CR4 has no such bits here.
    if cr0_must & !cr0_may != 0 {
        return Err(Stop::Fatal);
    }
    require((cr0_must | !cr0_may) & CR0_VARIABLE == 0, CR0_FIXED0)
}
