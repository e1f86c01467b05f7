//! Reads what an update needs from CPUID and MSRs.

use core::fmt;

use tdx_seamldr_core::preflight::Facts;
use tdx_seamldr_core::{CurrentVmcs, SharedMemory};

/// The registers of CPUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)] // the registers' own names
pub struct CpuidResult {
    pub eax: u32,
    pub ebx: u32,
    pub ecx: u32,
    pub edx: u32,
}

/// The source of CPUID and MSRs: a processor, or a test.
pub trait Registers {
    /// Returns CPUID of a leaf and subleaf.
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult;

    /// Returns a model-specific register. `None` if the processor does not have it (#GP).
    fn msr(&self, index: u32) -> Option<u64>;
}

/// The calling processor. The embedder's function reads the MSRs, because only the embedder can
/// handle the #GP of an absent MSR.
#[derive(Clone, Copy, Debug)]
pub struct Hardware<F> {
    rdmsr: F,
}

impl<F: Fn(u32) -> Option<u64>> Hardware<F> {
    /// Takes the function that reads MSRs: a kernel's function that survives #GP, or [`rdmsr`] if
    /// the MSRs are known to exist.
    #[must_use]
    pub const fn new(rdmsr: F) -> Self {
        Self { rdmsr }
    }
}

impl<F: Fn(u32) -> Option<u64>> Registers for Hardware<F> {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        #[allow(unused_unsafe)] // this function is safe in newer compilers
        // SAFETY: every x86_64 processor has CPUID.
        let result = unsafe { core::arch::x86_64::__cpuid_count(leaf, subleaf) };
        CpuidResult { eax: result.eax, ebx: result.ebx, ecx: result.ecx, edx: result.edx }
    }

    fn msr(&self, index: u32) -> Option<u64> {
        (self.rdmsr)(index)
    }
}

/// Executes RDMSR.
///
/// # Safety
///
/// The caller must be in ring 0, and the MSR must exist. Otherwise the instruction raises #GP.
#[must_use]
pub unsafe fn rdmsr(index: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: the caller guarantees that the MSR exists and may be read. Reading changes only EAX
    // and EDX.
    unsafe {
        core::arch::asm!("rdmsr", in("ecx") index, out("eax") low, out("edx") high,
            options(nomem, nostack, preserves_flags));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// The division of the KeyIDs. Source: IA32_MKTME_KEYID_PARTITIONING (MSR 0x87).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyIds {
    /// The number of KeyIDs for MKTME, which are shared, without KeyID 0.
    pub mktme: u32,
    /// The number of KeyIDs for TDX, which are private.
    pub private: u32,
}

impl KeyIds {
    /// Returns the first private KeyID.
    #[must_use]
    pub const fn first_private(self) -> u32 {
        self.mktme.saturating_add(1)
    }
}

/// The SEAM range. Source: IA32_SEAMRR_PHYS_BASE and IA32_SEAMRR_PHYS_MASK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeamRange {
    /// The first byte.
    pub base: u64,
    /// The size in bytes.
    pub size: u64,
    /// Whether the range is enabled and locked: bits 11 and 10 of the mask.
    pub enabled: bool,
}

impl SeamRange {
    /// Reads the values of IA32_SEAMRR_PHYS_BASE (MSR 0x1400) and IA32_SEAMRR_PHYS_MASK (MSR
    /// 0x1401). The lowest address bit of the mask is the size. `None` for a mask without
    /// address bits.
    #[must_use]
    pub const fn from_msrs(base: u64, mask: u64) -> Option<Self> {
        let addresses = mask & SEAMRR_ADDRESS;
        let size = addresses & addresses.wrapping_neg();
        if size == 0 {
            return None;
        }
        Some(Self { base: base & SEAMRR_ADDRESS, size, enabled: mask >> 10 & 3 == 3 })
    }
}

/// Returns how many LPs could share the level-3 cache, by EAX of CPUID leaf 4, subleaf 3: bits
/// 25:14, plus 1. `None` if there is no such cache (bits 4:0 are 0).
#[must_use]
pub const fn addressable_lps(eax: u32) -> Option<u32> {
    if eax & 0x1f == 0 {
        return None;
    }
    Some((eax >> 14 & 0xfff).saturating_add(1))
}

/// Whether the platform is unlocked for debug modules, by the value of IA32_SGX_DEBUG_MODE (MSR
/// 0x503).
#[must_use]
pub const fn debug_unlocked(debug_mode: u64) -> bool {
    debug_mode & 1 << 1 != 0
}

/// The properties of one processor. A property that the processor does not report is `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Processor {
    /// Family, model and stepping as CPUID.1:EAX has them.
    pub fms: u32,
    /// VMX: CPUID.1:ECX bit 5.
    pub vmx: bool,
    /// IA32_VMX_BASIC (MSR 0x480).
    pub vmx_basic: Option<u64>,
    /// The SEAM range: MSRs 0x1400 and 0x1401. `None` unless CPUID.1:EDX bit 12 and IA32_MTRRCAP
    /// bit 15 announce these MSRs.
    pub seam_range: Option<SeamRange>,
    /// The division of the KeyIDs: MSR 0x87.
    pub key_ids: Option<KeyIds>,
    /// This LP's x2APIC ID: EDX of CPUID.1F, or of CPUID.0B if the processor does not have leaf
    /// 1F.
    pub x2apic_id: Option<u32>,
    /// LPs that could share the level-3 cache: CPUID.4, subleaf 3, EAX bits 25:14, plus 1.
    pub addressable_lps_per_socket: Option<u32>,
    /// Bits of a physical address, with those of the KeyID: CPUID.80000008:EAX bits 7:0.
    pub max_physical_bits: Option<u32>,
    /// How many of these bits are the KeyID: IA32_TME_ACTIVATE (MSR 0x982) bits 35:32. `None`
    /// unless CPUID.7:ECX bit 13 announces this MSR.
    pub keyid_bits: Option<u32>,
    /// Whether the platform is unlocked for debug modules: IA32_SGX_DEBUG_MODE (MSR 0x503) bit 1.
    pub debug_unlocked: Option<bool>,
}

const IA32_MTRRCAP: u32 = 0xfe;
const IA32_MKTME_KEYID_PARTITIONING: u32 = 0x87;
const IA32_VMX_BASIC: u32 = 0x480;
const IA32_SGX_DEBUG_MODE: u32 = 0x503;
const IA32_SEAMRR_PHYS_BASE: u32 = 0x1400;
const IA32_SEAMRR_PHYS_MASK: u32 = 0x1401;
const IA32_TME_ACTIVATE: u32 = 0x982;
/// The address bits of the SEAM range's MSRs: 51:25.
const SEAMRR_ADDRESS: u64 = (1 << 52) - (1 << 25);

impl Processor {
    /// Reads the processor's properties. Reads only MSRs that CPUID or other MSRs announce, and
    /// MSRs 0x87 and 0x503. [`Registers::msr`] must return `None` if these two do not exist.
    pub fn probe<R: Registers + ?Sized>(registers: &R) -> Self {
        let max_leaf = registers.cpuid(0, 0).eax;
        let leaf = |number: u32, subleaf| {
            let base = number & 0x8000_0000;
            let highest = if base == 0 { max_leaf } else { registers.cpuid(base, 0).eax };
            (number <= highest).then(|| registers.cpuid(number, subleaf))
        };
        let one = leaf(1, 0).unwrap_or_default();
        let vmx = one.ecx & 1 << 5 != 0;
        let mtrr = one.edx & 1 << 12 != 0;
        let max_physical_bits = leaf(0x8000_0008, 0).map(|result| result.eax & 0xff);
        Self {
            fms: one.eax,
            vmx,
            vmx_basic: if vmx { registers.msr(IA32_VMX_BASIC) } else { None },
            seam_range: if mtrr { seam_range(registers) } else { None },
            key_ids: registers
                .msr(IA32_MKTME_KEYID_PARTITIONING)
                .map(|value| KeyIds { mktme: low(value), private: low(value >> 32) }),
            x2apic_id: [0x1f, 0xb]
                .into_iter()
                .find_map(|number| leaf(number, 0).filter(|result| result.ebx != 0))
                .map(|result| result.edx),
            addressable_lps_per_socket: leaf(4, 3).and_then(|result| addressable_lps(result.eax)),
            max_physical_bits,
            keyid_bits: leaf(7, 0)
                .filter(|result| result.ecx & 1 << 13 != 0)
                .and_then(|_| registers.msr(IA32_TME_ACTIVATE))
                .map(|value| low(value >> 32 & 0xf)),
            debug_unlocked: registers.msr(IA32_SGX_DEBUG_MODE).map(debug_unlocked),
        }
    }

    /// Checks that the processor can execute SEAMCALL.
    ///
    /// # Errors
    ///
    /// The first feature that the processor lacks.
    pub const fn check(&self) -> Result<(), ProcessorError> {
        if !self.vmx {
            return Err(ProcessorError::NoVmx);
        }
        match self.seam_range {
            None => return Err(ProcessorError::NoSeam),
            Some(SeamRange { enabled: false, .. }) => return Err(ProcessorError::SeamNotEnabled),
            Some(_) => {}
        }
        match self.key_ids {
            None | Some(KeyIds { private: 0, .. }) => Err(ProcessorError::NoPrivateKeyIds),
            Some(_) => Ok(()),
        }
    }

    /// Returns what a return from P-SEAMLDR does to the current VMCS. If IA32_VMX_BASIC is unknown,
    /// this assumes the erratum.
    #[must_use]
    pub const fn current_vmcs(&self) -> CurrentVmcs {
        match self.vmx_basic {
            Some(vmx_basic) => CurrentVmcs::from_vmx_basic(vmx_basic),
            None => CurrentVmcs::Invalidated,
        }
    }

    /// Returns the settings by which P-SEAMLDR decides whether it reads memory. `None` if one of
    /// them is unknown.
    #[must_use]
    pub fn shared_memory(&self) -> Option<SharedMemory> {
        let SeamRange { base, size, .. } = self.seam_range.filter(|range| range.enabled)?;
        Some(SharedMemory {
            address_bits: u8::try_from(self.max_physical_bits?).ok()?,
            keyid_bits: u8::try_from(self.keyid_bits?).ok()?,
            first_private_keyid: self.key_ids?.first_private(),
            seam_range_base: base,
            seam_range_size: size,
        })
    }

    /// Fills in the facts that this processor reports. Other facts keep their values, also
    /// [`Facts::highest_x2apic_id`]. The host sets that fact to the maximum of
    /// [`x2apic_id`](Self::x2apic_id) over all LPs.
    pub fn complete(&self, facts: &mut Facts) {
        let range = self.seam_range.filter(|range| range.enabled);
        facts.addressable_lps_per_socket =
            self.addressable_lps_per_socket.or(facts.addressable_lps_per_socket);
        facts.debug_unlocked = self.debug_unlocked.or(facts.debug_unlocked);
        facts.seamrr_base = range.map(|range| range.base).or(facts.seamrr_base);
        facts.seamrr_end =
            range.map(|range| range.base.saturating_add(range.size)).or(facts.seamrr_end);
        facts.shared_memory = self.shared_memory().or(facts.shared_memory);
    }
}

fn seam_range<R: Registers + ?Sized>(registers: &R) -> Option<SeamRange> {
    if registers.msr(IA32_MTRRCAP)? & 1 << 15 == 0 {
        return None;
    }
    SeamRange::from_msrs(
        registers.msr(IA32_SEAMRR_PHYS_BASE)?,
        registers.msr(IA32_SEAMRR_PHYS_MASK)?,
    )
}

#[allow(clippy::as_conversions)] // the low half
const fn low(value: u64) -> u32 {
    value as u32
}

/// A feature that a processor lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessorError {
    /// VMX.
    NoVmx,
    /// The SEAM range MSRs.
    NoSeam,
    /// The SEAM range is not set up and locked.
    SeamNotEnabled,
    /// KeyIDs for TDX.
    NoPrivateKeyIds,
}

impl fmt::Display for ProcessorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoVmx => "the processor has no VMX (CPUID.1:ECX bit 5 is 0)",
            Self::NoSeam => {
                "the processor has no SEAM range (CPUID.1:EDX bit 12 or IA32_MTRRCAP bit 15 is 0)"
            }
            Self::SeamNotEnabled => {
                "the SEAM range is not set up and locked (IA32_SEAMRR_PHYS_MASK bits 11:10 should \
                 be 3): enable TDX in the BIOS"
            }
            Self::NoPrivateKeyIds => {
                "there are no KeyIDs for TDX (IA32_MKTME_KEYID_PARTITIONING bits 63:32 are 0): \
                 enable TDX in the BIOS"
            }
        })
    }
}

impl core::error::Error for ProcessorError {}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::{NotShared, PhysAddr};

    /// A processor with fixed CPUID leaves and MSRs.
    #[derive(Clone)]
    struct Paper {
        cpuid: [(u32, u32, CpuidResult); 8],
        msrs: [(u32, u64); 7],
    }

    impl Registers for Paper {
        fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
            let found =
                self.cpuid.iter().find(|(number, sub, _)| (*number, *sub) == (leaf, subleaf));
            found.map(|(_, _, result)| *result).unwrap_or_default()
        }

        fn msr(&self, index: u32) -> Option<u64> {
            self.msrs.iter().find(|(number, _)| *number == index).map(|(_, value)| *value)
        }
    }

    /// Sapphire Rapids with TDX: 52 address bits, 6 of them for the KeyID, a SEAM range of 32 MiB
    /// at 128 GiB, 31 shared and 32 private KeyIDs.
    fn sapphire_rapids() -> Paper {
        let eax = |eax| CpuidResult { eax, ..CpuidResult::default() };
        Paper {
            cpuid: [
                (0, 0, eax(0x20)),
                (
                    1,
                    0,
                    CpuidResult {
                        eax: 0x806f8,
                        ecx: 1 << 5,
                        edx: 1 << 12,
                        ..CpuidResult::default()
                    },
                ),
                (4, 3, eax(127 << 14 | 0x163)),
                (0xb, 0, CpuidResult { ebx: 2, edx: 7, ..CpuidResult::default() }),
                (0x1f, 0, CpuidResult { ebx: 2, edx: 0x85, ..CpuidResult::default() }),
                (0x8000_0000, 0, eax(0x8000_0008)),
                (0x8000_0008, 0, eax(0x3934)),
                (7, 0, CpuidResult { ecx: 1 << 13, ..CpuidResult::default() }),
            ],
            msrs: [
                (IA32_MTRRCAP, 0xd0a | 1 << 15),
                (IA32_MKTME_KEYID_PARTITIONING, 32 << 32 | 31),
                (IA32_VMX_BASIC, 1 << 60 | 0x13),
                (IA32_SGX_DEBUG_MODE, 0),
                (IA32_SEAMRR_PHYS_BASE, 0x20_0000_0000 | 1 << 3),
                (IA32_SEAMRR_PHYS_MASK, 0xf_ffff_fe00_0000 | 3 << 10),
                (IA32_TME_ACTIVATE, 6 << 32 | 3),
            ],
        }
    }

    #[test]
    fn probe_reads_all_properties_of_a_processor_with_tdx() {
        let processor = Processor::probe(&sapphire_rapids());
        let range = SeamRange { base: 0x20_0000_0000, size: 32 << 20, enabled: true };
        let expected = Processor {
            fms: 0x806f8,
            vmx: true,
            vmx_basic: Some(1 << 60 | 0x13),
            seam_range: Some(range),
            key_ids: Some(KeyIds { mktme: 31, private: 32 }),
            x2apic_id: Some(0x85),
            addressable_lps_per_socket: Some(128),
            max_physical_bits: Some(52),
            keyid_bits: Some(6),
            debug_unlocked: Some(false),
        };
        assert_eq!(processor, expected);
        assert_eq!((processor.check(), processor.current_vmcs()), (Ok(()), CurrentVmcs::Preserved));
        assert_eq!(processor.key_ids.unwrap().first_private(), 32);

        let mut facts = Facts::new();
        processor.complete(&mut facts);
        assert_eq!(facts.seamrr_base, Some(range.base));
        assert_eq!(
            (facts.addressable_lps_per_socket, facts.debug_unlocked),
            (Some(128), Some(false))
        );
        assert_eq!(facts.highest_x2apic_id, None, "this processor's own need not be the highest");

        let memory = facts.shared_memory.unwrap();
        let check = |address| memory.check(PhysAddr(address));
        assert_eq!((check(range.base - 4096), check(range.base + range.size)), (Ok(()), Ok(())));
        assert_eq!(check(range.base), Err(NotShared::InSeamRange));
        assert_eq!((check(31 << 46), check(32 << 46)), (Ok(()), Err(NotShared::PrivateKeyId)));
        assert_eq!(check(1 << 52), Err(NotShared::AboveMaxAddress));
    }

    #[test]
    fn shared_memory_is_none_if_one_value_is_unknown() {
        let changes: [fn(&mut Paper); 6] = [
            |cpu| cpu.cpuid[7].2.ecx = 0,
            |cpu| cpu.cpuid[5].2.eax = 0,
            |cpu| cpu.msrs[1].0 = 0,
            |cpu| cpu.msrs[4].0 = 0,
            |cpu| cpu.msrs[5].1 &= !(1 << 11),
            |cpu| cpu.msrs[6].0 = 0,
        ];
        assert!(Processor::probe(&sapphire_rapids()).shared_memory().is_some());
        for change in changes {
            let mut cpu = sapphire_rapids();
            change(&mut cpu);
            assert_eq!(Processor::probe(&cpu).shared_memory(), None);
        }
    }

    #[test]
    fn check_names_the_feature_that_the_processor_lacks() {
        type Change = fn(&mut Paper);
        let rows: [(ProcessorError, Change); 7] = [
            (ProcessorError::NoVmx, |cpu| cpu.cpuid[1].2.ecx = 0),
            (ProcessorError::NoSeam, |cpu| cpu.cpuid[1].2.edx = 0),
            (ProcessorError::NoSeam, |cpu| cpu.msrs[0].1 = 0xd0a),
            (ProcessorError::NoSeam, |cpu| cpu.msrs[4].0 = 0),
            (ProcessorError::SeamNotEnabled, |cpu| cpu.msrs[5].1 &= !(1 << 11)),
            (ProcessorError::NoPrivateKeyIds, |cpu| cpu.msrs[1].1 = 31),
            (ProcessorError::NoPrivateKeyIds, |cpu| cpu.msrs[1].0 = 0),
        ];
        for (expected, change) in rows {
            let mut cpu = sapphire_rapids();
            change(&mut cpu);
            assert_eq!(Processor::probe(&cpu).check(), Err(expected));
        }
    }

    #[test]
    fn probe_returns_none_for_leaves_and_msrs_that_are_absent() {
        let mut cpu = sapphire_rapids();
        cpu.cpuid[0].2.eax = 3;
        let old = Processor::probe(&cpu);
        assert_eq!((old.x2apic_id, old.addressable_lps_per_socket), (None, None));
        cpu.cpuid[0].2.eax = 0x1e;
        assert_eq!(Processor::probe(&cpu).x2apic_id, Some(7), "CPUID.0B");
        cpu.cpuid[2].2.eax = 0;
        assert_eq!(Processor::probe(&cpu).addressable_lps_per_socket, None, "no level-3 cache");
        cpu.msrs[2].1 = 0x13;
        assert_eq!(Processor::probe(&cpu).current_vmcs(), CurrentVmcs::Invalidated);
        cpu.msrs[2].0 = 0;
        assert_eq!(
            Processor::probe(&cpu).current_vmcs(),
            CurrentVmcs::Invalidated,
            "IA32_VMX_BASIC is unknown"
        );
        cpu.msrs[3].1 = 2;
        assert_eq!(Processor::probe(&cpu).debug_unlocked, Some(true));
    }

    #[test]
    fn lowest_address_bit_of_the_mask_is_the_size_of_the_seam_range() {
        let range = |mask| {
            SeamRange::from_msrs(0x20_0000_0c05, mask).map(|range| (range.size, range.enabled))
        };
        assert_eq!(range(0x3fff_f000_0c00), Some((256 << 20, true)));
        assert_eq!(
            range(0xf_ffff_f000_0c00),
            Some((256 << 20, true)),
            "the mask has more address bits"
        );
        assert_eq!(range(0x3fff_fe00_0800), Some((32 << 20, false)));
        assert_eq!((range(0xc00), range(0x1ff_fc00)), (None, None));
        assert_eq!(
            SeamRange::from_msrs(0x20_0000_0c05, u64::MAX).map(|range| range.base),
            Some(0x20_0000_0000)
        );
    }

    #[test]
    fn probe_reads_no_unannounced_msr_except_0x87_and_0x503() {
        struct Old;

        impl Registers for Old {
            fn cpuid(&self, _: u32, _: u32) -> CpuidResult {
                CpuidResult::default()
            }

            fn msr(&self, index: u32) -> Option<u64> {
                assert!([0x87, 0x503].contains(&index), "{index:#x} was read");
                None
            }
        }

        assert_eq!(Processor::probe(&Old).check(), Err(ProcessorError::NoVmx));
    }

    #[test]
    fn probe_reads_this_processor() {
        let here = Processor::probe(&Hardware::new(|_| None));
        assert_ne!((here.fms, here.max_physical_bits), (0, None));
        assert!(here.check().is_err(), "without MSRs there is no SEAM range");
    }
}
