//! TDH.SYS.INIT's checks of the processor, and TDH.SYS.LP.INIT's comparison of each LP.
//!
//! Recordings give the order of the checks and the details of each error. The masks are those of
//! the published module 1.5.01.

use tdx_seamldr_core::abi::{Cmr, PSysInfo, TdxStatus};
use tdx_seamldr_core::SeamcallRegs;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::super::cpu::Cpu;
use super::cpuid_rules::{self, pair, CpuidRule, CPUID_ENTRIES};
use super::vmx_rules;
use super::Fatal;

/// Number of packages that the module supports.
const MAX_PACKAGES: u32 = 8;
/// Number of KeyIDs that the module supports.
const MAX_HKIDS: u64 = 2048;

/// IA32_ARCH_CAPABILITIES.
const ARCH_CAPABILITIES: u32 = 0x10a;
/// IA32_MISC_ENABLE, which has the bit that limits CPUID.
const MISC_ENABLE: u32 = 0x1a0;
const BOOT_NT4: u64 = 1 << 22;
/// IA32_MTRRCAP: bits for SMRR, SMRR2, and the lock of both.
const MTRR_CAP: u32 = 0xfe;
const SMRR_SUPPORTED: u64 = 1 << 11;
const SMRR2_SUPPORTED: u64 = 1 << 13;
const SMRR_LOCK_SUPPORTED: u64 = 1 << 14;
/// Base and mask of SMRR and of SMRR2.
const SMRRS: [(u32, u32); 2] = [(0x1f2, 0x1f3), (0x1f6, 0x1f7)];
/// IA32_TME_CAPABILITY, IA32_TME_ACTIVATE, IA32_MKTME_KEYID_PARTITIONING, IA32_WBINVDP and
/// IA32_WBNOINVDP.
const TME_CAPABILITY: u32 = 0x981;
const TME_ACTIVATE: u32 = 0x982;
const KEYID_PARTITIONING: u32 = 0x87;
const WBINVDP: u32 = 0x98;
const WBNOINVDP: u32 = 0x99;
/// IA32_SEAMRR_BASE and IA32_SEAMRR_MASK, and their address bits.
const SEAMRR_BASE: u32 = 0x1400;
const SEAMRR_MASK: u32 = 0x1401;
const SEAMRR_BITS: u64 = 0xf_ffff_fe00_0000;

/// MSRs that TDH.SYS.LP.INIT compares before CPUID.
const COMPARED_FIRST: [u32; 4] = [0xcf, ARCH_CAPABILITIES, 0xbc, 0xbd];
/// IA32_TSC_ADJUST, compared after CPUID.
const TSC_ADJUST: u32 = 0x3b;
/// MSRs that TDH.SYS.LP.INIT compares last.
const COMPARED_LAST: [u32; 19] = [
    0x480,
    0x48d,
    0x48e,
    0x48b,
    0x492,
    0x48f,
    0x490,
    0x485,
    0x48c,
    0x486,
    0x487,
    0x488,
    0x489,
    0x345,
    TME_CAPABILITY,
    TME_ACTIVATE,
    KEYID_PARTITIONING,
    WBINVDP,
    WBNOINVDP,
];

/// Number of MSRs that TDH.SYS.LP.INIT compares.
const COMPARED: usize = 4 + 1 + 1 + 4 + 19;

fn compared() -> impl Iterator<Item = u32> {
    let smrrs = SMRRS.into_iter().flat_map(|(base, mask)| [base, mask]);
    let middle = [TSC_ADJUST, MTRR_CAP].into_iter().chain(smrrs);
    COMPARED_FIRST.into_iter().chain(middle).chain(COMPARED_LAST)
}

/// The values that TDH.SYS.INIT read and keeps for comparison.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(in super::super) struct Sampled {
    /// In the order of the comparison.
    msrs: [u64; COMPARED],
    cpuid: [[u32; 4]; CPUID_ENTRIES],
}

/// Values that TDH.SYS.INIT derives from the processor's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Enumerated {
    /// Number of low bits of an x2APIC id that do not belong to the package number.
    package_shift: u32,
    /// First KeyID bit of a physical address.
    hkid_start: u32,
    /// First and last private KeyID.
    private_hkids: (u64, u64),
    seamrr: (u64, u64),
}

impl Enumerated {
    /// Returns whether the host may pass this address to the module, for an object with this
    /// alignment.
    pub(super) fn is_shared(&self, address: u64, alignment: u64, max_pa: u32) -> bool {
        let hkid = address.checked_shr(self.hkid_start).unwrap_or(0);
        let (first_private, last_private) = self.private_hkids;
        let plain = address & self.address_limit().wrapping_sub(1);
        let (base, size) = self.seamrr;
        address & alignment.wrapping_sub(1) == 0
            && address.checked_shr(max_pa).unwrap_or(0) == 0
            && !(first_private..=last_private).contains(&hkid)
            && plain.wrapping_sub(base) >= size
    }

    /// Returns whether a KeyID is private.
    pub(super) fn is_private(&self, hkid: u16) -> bool {
        let (first, last) = self.private_hkids;
        (first..=last).contains(&u64::from(hkid))
    }

    /// Returns the end of physical memory, without KeyID bits.
    pub(super) fn address_limit(&self) -> u64 {
        1u64.checked_shl(self.hkid_start).unwrap_or(0)
    }
}

impl Sampled {
    /// Returns a sampled CPUID leaf.
    #[inline(never)]
    pub(super) fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut entries = cpuid_rules::entries().zip(self.cpuid);
        entries
            .find(|((rule, sub), _)| rule.leaf == leaf && *sub == subleaf)
            .map_or([0; 4], |(_, v)| v)
    }
}

/// Returns a status with details in its low half.
fn detailed(status: TdxStatus, details: u64) -> TdxStatus {
    TdxStatus(status.0 | details)
}

/// Why a check ends: with a status, or with a fatal error.
pub(super) enum Stop {
    Error(TdxStatus),
    Fatal,
}

impl From<TdxStatus> for Stop {
    fn from(status: TdxStatus) -> Self {
        Self::Error(status)
    }
}

impl From<Fatal> for Stop {
    fn from(Fatal: Fatal) -> Self {
        Self::Fatal
    }
}

fn incorrect(msr: u32) -> Stop {
    Stop::Error(detailed(TdxStatus::INCORRECT_MSR_VALUE, msr.into()))
}

/// Checks the processor. An error about CPUID returns the leaf, the mask and the required bits in
/// RCX to R10.
pub(super) fn check(
    cpu: &Cpu<'_>,
    table: &PSysInfo,
    sampled: &mut Sampled,
    regs: &mut SeamcallRegs,
) -> Result<Enumerated, Stop> {
    for (slot, msr) in sampled.msrs.iter_mut().zip(compared()) {
        *slot = cpu.msr(msr);
    }
    check_msrs(cpu)?;
    let package_shift = check_cpuid(cpu, table, &mut sampled.cpuid, regs)?;
    vmx_rules::check(|msr| cpu.msr(msr), sampled.cpuid(7, 0))?;
    let mut enumerated = check_keys(cpu, table)?;
    enumerated.package_shift = package_shift;
    check_cmrs(&table.cmrs, enumerated.hkid_start)?;
    check_smrrs(cpu, table)?;
    Ok(enumerated)
}

fn check_msrs(cpu: &Cpu<'_>) -> Result<(), Stop> {
    /// Bits of IA32_ARCH_CAPABILITIES that have to be 1, and the bit that has to be 0.
    const NEEDED: u64 = 0x20_fd6b;
    const RSBA: u64 = 1 << 2;
    /// IA32_XAPIC_DISABLE_STATUS: legacy xAPIC disabled; all other bits 0.
    const XAPIC_DISABLED: u64 = 1;
    /// IA32_MISC_PACKAGE_CTLS: energy filtering.
    const ENERGY_FILTERING: u64 = 1;
    /// IA32_PERF_CAPABILITIES: full-width writes to counters.
    const FULL_WRITE: u64 = 1 << 13;
    if cpu.msr(ARCH_CAPABILITIES) & (NEEDED | RSBA) != NEEDED {
        return Err(incorrect(ARCH_CAPABILITIES));
    }
    if cpu.msr(0xbd) != XAPIC_DISABLED {
        return Err(incorrect(0xbd));
    }
    if cpu.msr(0xbc) & ENERGY_FILTERING == 0 {
        return Err(incorrect(0xbc));
    }
    if cpu.msr(0x345) & FULL_WRITE == 0 {
        return Err(incorrect(0x345));
    }
    if cpu.msr(MISC_ENABLE) & BOOT_NT4 != 0 {
        return Err(TdxStatus::LIMIT_CPUID_MAXVAL_SET.into());
    }
    Ok(())
}

/// Samples and checks CPUID. Returns how far to shift an x2APIC id to get the package number.
fn check_cpuid(
    cpu: &Cpu<'_>,
    table: &PSysInfo,
    sampled: &mut [[u32; 4]; CPUID_ENTRIES],
    regs: &mut SeamcallRegs,
) -> Result<u32, Stop> {
    /// The lowest values of CPUID's last leaf that are sufficient.
    const LAST_BASE_LEAF: u32 = 0x1f;
    const FIRST_EXTENDED_LEAF: u32 = 0x80000000;
    const LAST_EXTENDED_LEAF: u32 = 0x80000008;
    let missing =
        |leaf: u32| Stop::Error(detailed(TdxStatus::CPUID_LEAF_NOT_SUPPORTED, leaf.into()));
    let [last_base, ..] = cpu.cpuid(0, cpuid_rules::NONE);
    if last_base < LAST_BASE_LEAF {
        return Err(missing(LAST_BASE_LEAF));
    }
    let [last_extended, ..] = cpu.cpuid(FIRST_EXTENDED_LEAF, cpuid_rules::NONE);
    if last_extended < LAST_EXTENDED_LEAF {
        return Err(missing(LAST_EXTENDED_LEAF));
    }
    let mut topology = Topology::default();
    let mut states = ExtendedStates::default();
    let mut has_la57 = false;
    for ((rule, subleaf), slot) in cpuid_rules::entries().zip(sampled) {
        let is_there =
            rule.leaf <= last_base || (FIRST_EXTENDED_LEAF..=last_extended).contains(&rule.leaf);
        let mut values = if is_there { cpu.cpuid(rule.leaf, subleaf) } else { [0; 4] };
        let mut expect = |mask: [u32; 4], value: [u32; 4]| {
            let [low, high] = cpuid_rules::halves(mask);
            regs.rcx = pair(rule.leaf, subleaf);
            (regs.rdx, regs.r8) = (low, high);
            [regs.r9, regs.r10] = cpuid_rules::halves(value);
            Stop::Error(TdxStatus::INCORRECT_CPUID_VALUE)
        };
        let CpuidRule { mask, expected, .. } = *rule;
        if values
            .iter()
            .zip(mask)
            .zip(expected)
            .any(|((value, mask), wanted)| value & mask != wanted)
        {
            return Err(expect(mask, expected));
        }
        let [eax, ebx, ecx, edx] = values;
        match (rule.leaf, subleaf) {
            // The lowest stepping of all packages counts.
            (0x1, _) => values = [lowest_fms(table), ebx, ecx, edx],
            (0x4, 3) => topology.lps_sharing_cache = eax >> 14 & 0xfff,
            (0x7, 0) => has_la57 = ecx >> 16 & 1 == 1,
            // Performance monitoring needs at least version 5, and at most the fixed counters that
            // the module knows.
            (0xa, _) if eax & 0xff < 5 => return Err(expect([0xf, 0, 0, 0], [5, 0, 0, 0])),
            (0xa, _) if edx & 0x1f > 7 => return Err(expect([0, 0, 0, 0x1f], [0, 0, 0, 7])),
            (0xd, _) => states.take(subleaf, values)?,
            (0x15, _) => check_tsc(values)?,
            // Fatal if the last branch records have no depth.
            (0x1c, _) if eax & 0xff == 0 => return Err(Stop::Fatal),
            (0x1f, _) => topology.take(subleaf, values)?,
            (0x80000008, _) => {
                let wanted = if has_la57 { 57 } else { 48 };
                if eax >> 8 & 0xff != wanted {
                    return Err(expect([0xff00, 0, 0, 0], [wanted << 8, 0, 0, 0]));
                }
            }
            _ => {}
        }
        *slot = values;
    }
    Ok(topology.package_shift)
}

/// Returns family and model of the first package, with the lowest stepping of all packages.
fn lowest_fms(table: &PSysInfo) -> u32 {
    let sockets = table.sockets();
    let first = sockets.first().map_or(0, |fms| fms.get());
    let stepping = sockets.iter().map(|fms| fms.get() & 0xf).min().unwrap_or(0);
    first & !0xf | stepping
}

/// Checks CPUID.15H, the frequency of the TSC.
fn check_tsc([eax, ebx, ecx, _]: [u32; 4]) -> Result<(), Stop> {
    /// The lowest frequency with which the module can calculate.
    const LOWEST_FREQUENCY: u64 = 0x2540c;
    if ebx == 0 {
        return Err(Stop::Error(detailed(TdxStatus::CPUID_LEAF_NOT_SUPPORTED, 0x15)));
    }
    let product = u64::from(ecx).saturating_mul(ebx.into());
    // A division by 0 is fatal as well.
    let frequency = product.checked_div(eax.into()).ok_or(Stop::Fatal)?;
    if frequency < LOWEST_FREQUENCY {
        return Err(Stop::Fatal);
    }
    Ok(())
}

/// XCR0 and IA32_XSS, as far as module and processor support them.
#[derive(Default)]
struct ExtendedStates {
    user: u32,
    supervisor: u32,
}

impl ExtendedStates {
    fn take(&mut self, subleaf: u32, [eax, _, ecx, _]: [u32; 4]) -> Result<(), Stop> {
        match subleaf {
            0 => self.user = eax & cpuid_rules::USER_STATES,
            1 => self.supervisor = ecx & cpuid_rules::SUPERVISOR_STATES,
            _ => {
                // The subleaf of a state says whether this is a user or a supervisor state.
                let others = if ecx & 1 == 1 { self.user } else { self.supervisor };
                if others.checked_shr(subleaf).unwrap_or(0) & 1 == 1 {
                    return Err(Stop::Fatal);
                }
            }
        }
        Ok(())
    }
}

/// Levels of CPUID.1FH, in order.
#[derive(Default)]
struct Topology {
    lps_sharing_cache: u32,
    level: u32,
    shift: u32,
    smt_shift: u32,
    has_cores: bool,
    package_shift: u32,
}

impl Topology {
    fn take(&mut self, subleaf: u32, [eax, _, ecx, _]: [u32; 4]) -> Result<(), Stop> {
        const SMT: u32 = 1;
        const CORE: u32 = 2;
        /// The first type that is not a valid level.
        const END: u32 = 6;
        let level = ecx >> 8 & 0xff;
        if level != 0 {
            if level <= self.level || level >= END {
                return Err(TdxStatus::CPUID_LEAF_1F_FORMAT_UNRECOGNIZED.into());
            }
            self.shift = eax & 0x1f;
            match level {
                SMT => self.smt_shift = self.shift,
                CORE => self.has_cores = true,
                _ => {}
            }
        } else if subleaf == 0 || !self.has_cores {
            return Err(TdxStatus::CPUID_LEAF_NOT_SUPPORTED.into());
        } else if self.level != 0 {
            // The first invalid level: the shift of the level before leads to the package.
            self.package_shift = self.shift;
            if self.shift.wrapping_sub(self.smt_shift) >= 32 {
                return Err(Stop::Fatal);
            }
            // The last-level cache belongs to the package. (No real package has room for a single
            // LP only.)
            let is_shared = |shift| self.lps_sharing_cache.checked_shr(shift) == Some(1);
            if self.shift.checked_sub(1).is_some_and(|shift| !is_shared(shift)) {
                return Err(TdxStatus::INVALID_WBINVD_SCOPE.into());
            }
        }
        self.level = level;
        Ok(())
    }
}

/// Checks memory encryption and the partition of KeyIDs.
fn check_keys(cpu: &Cpu<'_>, table: &PSysInfo) -> Result<Enumerated, Stop> {
    /// AES-XTS of 128 and of 256 bits, without and with integrity. The bits are those of
    /// IA32_TME_CAPABILITY; IA32_TME_ACTIVATE has them 48 bits higher.
    const PLAIN: u64 = 1 << 0 | 1 << 2;
    const INTEGRITY: u64 = 1 << 1 | 1 << 3;
    let algorithms = if table.tdx_without_integrity != 0 { PLAIN } else { INTEGRITY };
    let activated = cpu.msr(TME_ACTIVATE);
    if activated & 1 == 0 {
        return Err(incorrect(TME_ACTIVATE));
    }
    if cpu.msr(TME_CAPABILITY) & algorithms == 0 {
        return Err(incorrect(TME_CAPABILITY));
    }
    if activated >> 48 & algorithms == 0 {
        return Err(incorrect(TME_ACTIVATE));
    }
    let keyid_bits = u32::try_from(activated >> 32 & 0xf).unwrap_or(0);
    let partitioning = cpu.msr(KEYID_PARTITIONING);
    let (host, tds) = (partitioning & 0xffff_ffff, partitioning >> 32);
    let last = host.saturating_add(tds);
    if last >= MAX_HKIDS {
        return Err(detailed(TdxStatus::NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, MAX_HKIDS).into());
    }
    if cpu.msr(WBNOINVDP) != cpu.msr(WBINVDP) {
        return Err(incorrect(WBNOINVDP));
    }
    let config = cpu.config;
    // A mask without deviations follows from the platform's configuration.
    let mask = cpu.msr(SEAMRR_MASK) & SEAMRR_BITS;
    let size = match cpu.deviation(SEAMRR_MASK) & SEAMRR_BITS {
        0 => config.seamrr_size,
        _ => 1u64.checked_shl(mask.trailing_zeros()).unwrap_or(0),
    };
    Ok(Enumerated {
        package_shift: 0,
        hkid_start: config.max_pa.saturating_sub(keyid_bits),
        private_hkids: (host.saturating_add(1), last),
        seamrr: (config.seamrr_base ^ (cpu.deviation(SEAMRR_BASE) & SEAMRR_BITS), size),
    })
}

/// Checks convertible memory: whole pages, in ascending order, without KeyIDs. Empty entries may be
/// anywhere.
fn check_cmrs(cmrs: &[Cmr], hkid_start: u32) -> Result<(), Stop> {
    let mut lowest = 0;
    for cmr in cmrs.iter().filter(|cmr| cmr.size.get() != 0) {
        let (base, size) = (cmr.base.get(), cmr.size.get());
        let last = base.checked_add(size).and_then(|end| end.checked_sub(1));
        let fits = |address: u64| address.checked_shr(hkid_start).unwrap_or(0) == 0;
        let last = last.filter(|last| fits(base) && fits(*last) && (base | size) % 4096 == 0);
        match last.filter(|_| base >= lowest) {
            Some(last) => lowest = last,
            None => return Err(TdxStatus::CMR_LIST_INVALID.into()),
        }
    }
    Ok(())
}

fn has_smrr2(mtrr_cap: u64, table: &PSysInfo) -> bool {
    table.smrr2_not_supported == 0 && mtrr_cap & SMRR2_SUPPORTED != 0
}

fn check_smrrs(cpu: &Cpu<'_>, table: &PSysInfo) -> Result<(), Stop> {
    const LOCKED: u64 = 1 << 10;
    const VALID: u64 = 1 << 11;
    const ADDRESS: u64 = 0xffff_f000;
    let mtrr_cap = cpu.msr(MTRR_CAP);
    if mtrr_cap & SMRR_SUPPORTED == 0 {
        return Err(TdxStatus::SMRR_NOT_SUPPORTED.into());
    }
    if mtrr_cap & SMRR_LOCK_SUPPORTED == 0 {
        return Err(TdxStatus::SMRR_LOCK_NOT_SUPPORTED.into());
    }
    let count = if has_smrr2(mtrr_cap, table) { 2 } else { 1 };
    let smrrs = || (0u64..).zip(SMRRS).take(count);
    if let Some((index, _)) = smrrs().find(|(_, (_, mask))| cpu.msr(*mask) & LOCKED == 0) {
        return Err(detailed(TdxStatus::SMRR_NOT_LOCKED, index).into());
    }
    for (index, (base, mask)) in smrrs() {
        let (base, mask) = (cpu.msr(base) & ADDRESS, cpu.msr(mask));
        if mask & VALID == 0 {
            continue;
        }
        // The mask has ones from some bit up to bit 31, and the base is a multiple of that bit.
        let mask = mask & ADDRESS;
        let size = 1u64.checked_shl(mask.trailing_zeros()).unwrap_or(0);
        let contiguous = 0x1_0000_0000u64.wrapping_sub(size) & 0xffff_ffff;
        if mask == 0 || mask != contiguous || base & !mask != 0 {
            return Err(detailed(TdxStatus::INVALID_SMRR_CONFIGURATION, index).into());
        }
        let end = base.saturating_add(size);
        let overlaps = |cmr: &Cmr| {
            let (start, size) = (cmr.base.get(), cmr.size.get());
            size != 0 && base < start.saturating_add(size) && start < end
        };
        if let Some((cmr, _)) = (0u64..).zip(&table.cmrs).find(|(_, cmr)| overlaps(cmr)) {
            return Err(detailed(TdxStatus::SMRR_OVERLAPS_CMR, index | cmr << 8).into());
        }
    }
    Ok(())
}

/// Compares an LP with the LP on which TDH.SYS.INIT ran. Returns the package of this LP. An error
/// about CPUID returns the leaf and the bits in RCX to R8.
pub(super) fn compare(
    cpu: &Cpu<'_>,
    table: &PSysInfo,
    sampled: &Sampled,
    enumerated: &Enumerated,
    regs: &mut SeamcallRegs,
) -> Result<u32, TdxStatus> {
    let same = |(msr, before): (u32, u64)| match cpu.msr(msr) == before {
        true => Ok(()),
        false => Err(detailed(TdxStatus::INCONSISTENT_MSR, msr.into())),
    };
    let mut msrs = compared().zip(sampled.msrs);
    msrs.by_ref().take(COMPARED_FIRST.len()).try_for_each(same)?;
    if cpu.msr(MISC_ENABLE) & BOOT_NT4 != 0 {
        return Err(TdxStatus::LIMIT_CPUID_MAXVAL_SET);
    }
    let mut package = 0;
    for ((rule, subleaf), before) in cpuid_rules::entries().zip(&sampled.cpuid) {
        let values = cpu.cpuid(rule.leaf, subleaf);
        if values
            .iter()
            .zip(before)
            .zip(rule.same)
            .any(|((now, before), mask)| (now ^ before) & mask != 0)
        {
            regs.rcx = pair(rule.leaf, subleaf);
            [regs.rdx, regs.r8] = cpuid_rules::halves(rule.same);
            return Err(TdxStatus::INCONSISTENT_CPUID_FIELD);
        }
        if (rule.leaf, subleaf) == (0x1f, 0) {
            let [.., x2apic_id] = values;
            package = x2apic_id.checked_shr(enumerated.package_shift).unwrap_or(0);
            if package >= MAX_PACKAGES {
                return Err(detailed(TdxStatus::INVALID_PKG_ID, package.into()));
            }
        }
    }
    // SMRR2 is compared only if the processor has it.
    let [_, (base, mask)] = SMRRS;
    let has_smrr2 = has_smrr2(cpu.msr(MTRR_CAP), table);
    msrs.filter(|(msr, _)| has_smrr2 || ![base, mask].contains(msr)).try_for_each(same)?;
    Ok(package)
}
