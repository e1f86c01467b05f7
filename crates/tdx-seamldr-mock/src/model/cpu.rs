//! MSRs and CPUID: the processor's values, and deviations of single LPs.

use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::Config;

/// The subleaf of CPUID leaves that have no subleaves.
pub(super) const NO_SUBLEAF: u32 = u32::MAX;

/// A register that software on an LP reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CpuRegister {
    /// An MSR, by its number.
    Msr(u32),
    /// One of the four registers that CPUID writes.
    Cpuid {
        /// The leaf.
        leaf: u32,
        /// The subleaf; `u32::MAX` for leaves that have none.
        subleaf: u32,
        /// EAX, EBX, ECX or EDX, counted from 0.
        output: u8,
    },
}

/// A register whose bits differ from the processor's, on one LP or on all LPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Deviation {
    lp: u32,
    /// 0: MSR. 1 to 4: EAX to EDX of CPUID.
    kind: u32,
    number: u32,
    subleaf: u32,
    bits: u64,
}

impl Deviation {
    /// The LP number that means all LPs.
    const ALL_LPS: u32 = u32::MAX;

    fn new(lp: Option<u32>, register: CpuRegister, bits: u64) -> Self {
        let lp = lp.unwrap_or(Self::ALL_LPS);
        match register {
            CpuRegister::Msr(number) => Self { lp, kind: 0, number, subleaf: 0, bits },
            CpuRegister::Cpuid { leaf, subleaf, output } => {
                Self { lp, kind: u32::from(output).saturating_add(1), number: leaf, subleaf, bits }
            }
        }
    }

    /// Returns whether both are about the same register.
    fn is_about(&self, other: &Self) -> bool {
        (self.kind, self.number, self.subleaf) == (other.kind, other.number, other.subleaf)
    }
}

/// The most deviations, over all LPs.
const MAX_DEVIATIONS: usize = 2048;

/// All deviations. Each register occurs once per LP; the first `used` entries are valid.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Deviations {
    used: u64,
    entries: [Deviation; MAX_DEVIATIONS],
}

impl Deviations {
    fn used(&self) -> usize {
        usize::try_from(self.used).unwrap_or(MAX_DEVIATIONS).min(MAX_DEVIATIONS)
    }

    fn entries(&self) -> &[Deviation] {
        self.entries.get(..self.used()).unwrap_or_default()
    }

    /// Returns the bits in which an LP's register differs.
    #[inline(never)]
    fn bits(&self, lp: u32, register: CpuRegister) -> u64 {
        let wanted = Deviation::new(Some(lp), register, 0);
        let of_lp = |entry: &&Deviation| entry.lp == lp || entry.lp == Deviation::ALL_LPS;
        let about = self.entries().iter().filter(of_lp).filter(|entry| entry.is_about(&wanted));
        about.fold(0, |bits, entry| bits ^ entry.bits)
    }

    /// Flips bits of a register on one LP, or on all LPs. Flipping the same bits twice cancels.
    /// Returns `false` if no entry is free.
    pub(super) fn add(&mut self, lp: Option<u32>, register: CpuRegister, bits: u64) -> bool {
        self.put(Deviation::new(lp, register, bits))
    }

    fn put(&mut self, new: Deviation) -> bool {
        let used = self.used();
        let known =
            self.entries().iter().position(|entry| entry.lp == new.lp && entry.is_about(&new));
        if let Some(entry) = known.and_then(|index| self.entries.get_mut(index)) {
            entry.bits ^= new.bits;
            self.retain(|entry| entry.bits != 0);
        } else if new.bits != 0 {
            let Some(entry) = self.entries.get_mut(used) else { return false };
            *entry = new;
            self.used = self.used.saturating_add(1);
        }
        true
    }

    fn retain(&mut self, keep: impl Fn(&Deviation) -> bool) {
        let mut kept = 0usize;
        for index in 0..self.used() {
            let Some(entry) = self.entries.get(index).copied().filter(&keep) else { continue };
            if let Some(slot) = self.entries.get_mut(kept) {
                *slot = entry;
            }
            kept = kept.saturating_add(1);
        }
        self.used = u64::try_from(kept).unwrap_or(0);
    }

    /// Removes the deviations of one LP.
    pub(super) fn restore(&mut self, lp: u32) {
        self.retain(|entry| entry.lp != lp);
        // Deviations of all LPs remain for the others: this LP gets the same bits a second time,
        // which cancels them.
        for index in 0..self.used() {
            let of_all =
                self.entries.get(index).copied().filter(|entry| entry.lp == Deviation::ALL_LPS);
            let fits = of_all.is_none_or(|entry| self.put(Deviation { lp, ..entry }));
            if !fits {
                return;
            }
        }
    }

    /// Removes all deviations.
    pub(super) fn restore_all(&mut self) {
        self.used = 0;
    }
}

/// Non-zero MSRs of a processor that module 1.5.01 accepts. [`Cpu::msr`] adds what depends on the
/// platform.
const MSRS: [(u32, u64); 30] = [
    (0x98, 0x10),
    (0x99, 0x10),
    (0xbc, 0x1),
    (0xbd, 0x1),
    (0xcf, 0x20),
    (0xfe, 0xfd0a),
    (0x10a, 0x12afdeb),
    (0x1a0, 0x850089),
    (0x1f2, 0x7f800006),
    (0x1f3, 0xff800c00),
    (0x1f6, 0x7f000006),
    (0x1f7, 0xff800c00),
    (0x345, 0xb4c5),
    (0x480, 0xda040000000012),
    (0x485, 0x200441e5),
    (0x486, 0x80000021),
    (0x487, 0xffffffff),
    (0x488, 0x2000),
    (0x489, 0x3ff7fff),
    (0x48b, 0xffffffff00000000),
    (0x48c, 0xf0106f34141),
    (0x48d, 0xff00000016),
    (0x48e, 0xfffbfffe04006172),
    (0x48f, 0x7fffffff00036dfb),
    (0x490, 0x7fffff000011fb),
    (0x492, 0xff),
    (0x981, 0x3f68000000f),
    (0x982, 0xf005000000003),
    (0x1400, 0x8),
    (0x1401, 0xffffffe000c00),
];

const fn leaf(leaf: u32, subleaf: u32, values: [u32; 4]) -> ((u32, u32), [u32; 4]) {
    ((leaf, subleaf), values)
}

/// Non-zero CPUID leaves of the same processor, in ascending order: EAX, EBX, ECX and EDX. The
/// processor is a Sapphire Rapids, whatever the sockets are. It has 52 address bits, whatever
/// [`Config::max_pa`] is, because the module accepts no other width.
const CPUID: [((u32, u32), [u32; 4]); 41] = [
    leaf(0x0, NO_SUBLEAF, [0x20, 0x756e6547, 0x6c65746e, 0x49656e69]),
    leaf(0x1, NO_SUBLEAF, [0x806f8, 0x800, 0x47faa2b7, 0x1fa9fbff]),
    leaf(0x4, 0, [0x4121, 0x2c0003f, 0x3f, 0]),
    leaf(0x4, 1, [0x4122, 0x1c0003f, 0x3f, 0]),
    leaf(0x4, 2, [0x4143, 0x3c0003f, 0x7ff, 0]),
    leaf(0x4, 3, [0x3c000163, 0x380003f, 0x1bfff, 0x4]),
    leaf(0x6, NO_SUBLEAF, [0x77, 0, 0x9, 0]),
    leaf(0x7, 0, [0x2, 0xf1bf27eb, 0x990100a4, 0xfc080400]),
    leaf(0x7, 1, [0x1c30, 0, 0, 0]),
    leaf(0x7, 2, [0, 0, 0, 0x17]),
    leaf(0xa, NO_SUBLEAF, [0x7300805, 0, 0, 0x8604]),
    leaf(0xd, 0x0, [0x602e7, 0xa88, 0x2b00, 0]),
    leaf(0xd, 0x1, [0x1f, 0x2b00, 0x1900, 0]),
    leaf(0xd, 0x2, [0x100, 0x240, 0, 0]),
    leaf(0xd, 0x5, [0x40, 0x440, 0, 0]),
    leaf(0xd, 0x6, [0x200, 0x480, 0, 0]),
    leaf(0xd, 0x7, [0x400, 0x680, 0, 0]),
    leaf(0xd, 0x8, [0x80, 0, 0x1, 0]),
    leaf(0xd, 0x9, [0x8, 0xa80, 0, 0]),
    leaf(0xd, 0xb, [0x10, 0, 0x1, 0]),
    leaf(0xd, 0xc, [0x18, 0, 0x1, 0]),
    leaf(0xd, 0x11, [0x40, 0xac0, 0x2, 0]),
    leaf(0xd, 0x12, [0x2000, 0xb00, 0x6, 0]),
    leaf(0x14, 0, [0x1, 0x5f, 0x7, 0]),
    leaf(0x14, 1, [0x2490002, 0x3f3fff, 0, 0]),
    leaf(0x15, NO_SUBLEAF, [0x2, 0xa0, 0x17d7840, 0]),
    leaf(0x1c, NO_SUBLEAF, [0x4000000b, 0x7, 0x7, 0]),
    leaf(0x1d, 0, [0x1, 0, 0, 0]),
    leaf(0x1d, 1, [0x4002000, 0x80040, 0x10, 0]),
    leaf(0x1e, NO_SUBLEAF, [0, 0x4010, 0, 0]),
    leaf(0x1f, 0, [0, 0x2, 0x100, 0]),
    leaf(0x1f, 1, [0, 0, 0x201, 0]),
    leaf(0x1f, 2, [0, 0, 0x2, 0]),
    leaf(0x1f, 3, [0, 0, 0x3, 0]),
    leaf(0x1f, 4, [0, 0, 0x4, 0]),
    leaf(0x1f, 5, [0, 0, 0x5, 0]),
    leaf(0x80000000, NO_SUBLEAF, [0x80000008, 0, 0, 0]),
    leaf(0x80000001, NO_SUBLEAF, [0, 0, 0x121, 0x2c100800]),
    leaf(0x80000006, NO_SUBLEAF, [0, 0, 0x8007040, 0]),
    leaf(0x80000007, NO_SUBLEAF, [0, 0, 0, 0x100]),
    leaf(0x80000008, NO_SUBLEAF, [0x3934, 0x200, 0, 0]),
];

/// The registers of one LP.
pub(super) struct Cpu<'a> {
    pub(super) lp: u32,
    pub(super) x2apic_id: u32,
    pub(super) config: &'a Config,
    pub(super) deviations: &'a Deviations,
}

impl Cpu<'_> {
    /// Executes RDMSR.
    #[inline(never)]
    pub(super) fn msr(&self, number: u32) -> u64 {
        let config = self.config;
        let known = MSRS.binary_search_by_key(&number, |(number, _)| *number).ok();
        let native = known.and_then(|index| MSRS.get(index)).map_or(0, |(_, value)| *value);
        let of_platform = match number {
            // The host's KeyIDs come first, the TDs' KeyIDs follow.
            0x87 => {
                let key_ids = 1u64.checked_shl(config.keyid_bits).unwrap_or(0);
                let host = config.private_hkid_min.saturating_sub(1);
                key_ids.saturating_sub(config.private_hkid_min) << 32 | host & 0xffff_ffff
            }
            0x982 => u64::from(config.keyid_bits & 0xf) << 32,
            0x1400 => config.seamrr_base,
            _ => 0,
        };
        (native | of_platform) ^ self.deviations.bits(self.lp, CpuRegister::Msr(number))
    }

    /// Executes CPUID; returns EAX, EBX, ECX and EDX.
    #[inline(never)]
    pub(super) fn cpuid(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let known = CPUID.binary_search_by_key(&(leaf, subleaf), |(key, _)| *key).ok();
        let [mut eax, mut ebx, ecx, mut edx] =
            known.and_then(|index| CPUID.get(index)).map_or([0; 4], |(_, values)| *values);
        let shift = self.config.package_shift;
        let lps = 1u32.checked_shl(shift).unwrap_or(0);
        match (leaf, subleaf) {
            (0x1, _) => ebx |= (lps & 0xff) << 16 | (self.x2apic_id & 0xff) << 24,
            (0x4, 3) => eax |= (lps.wrapping_sub(1) & 0xfff) << 14,
            (0x1f, 0) => eax = shift.min(1),
            (0x1f, 1) => (eax, ebx) = (shift, lps),
            _ => {}
        }
        if leaf == 0x1f {
            edx = self.x2apic_id;
        }
        let mut values = [eax, ebx, ecx, edx];
        if self.deviations.used != 0 {
            for (output, value) in (0u8..).zip(&mut values) {
                let bits =
                    self.deviations.bits(self.lp, CpuRegister::Cpuid { leaf, subleaf, output });
                *value ^= u32::try_from(bits & 0xffff_ffff).unwrap_or(0);
            }
        }
        values
    }

    /// Returns the bits in which an MSR differs from the processor's.
    pub(super) fn deviation(&self, msr: u32) -> u64 {
        self.deviations.bits(self.lp, CpuRegister::Msr(msr))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    const MSR: CpuRegister = CpuRegister::Msr(0x3b);

    #[test]
    fn tables_are_in_ascending_order() {
        assert!(MSRS.is_sorted_by(|one, other| one.0 < other.0));
        assert!(CPUID.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn deviations_of_a_register_combine_and_the_same_bits_twice_cancel() {
        let mut deviations = Deviations::new_zeroed();
        for (lp, bits) in [(0, 1), (1, 2), (0, 4)] {
            assert!(deviations.add(Some(lp), MSR, bits));
        }
        assert_eq!(
            (deviations.bits(0, MSR), deviations.bits(1, MSR), deviations.bits(2, MSR)),
            (5, 2, 0)
        );
        assert!(deviations.add(Some(0), MSR, 5) && deviations.add(Some(1), MSR, 2));
        assert_eq!(deviations.used, 0);
    }

    #[test]
    fn a_deviation_of_all_lps_affects_each_lp_and_one_lp_can_be_restored() {
        let mut deviations = Deviations::new_zeroed();
        assert!(deviations.add(None, MSR, 6) && deviations.add(Some(3), MSR, 1));
        assert_eq!((deviations.bits(0, MSR), deviations.bits(3, MSR)), (6, 7));
        deviations.restore(3);
        assert_eq!((deviations.bits(0, MSR), deviations.bits(3, MSR)), (6, 0));
        deviations.restore_all();
        assert_eq!((deviations.bits(0, MSR), deviations.bits(3, MSR)), (0, 0));
    }

    #[test]
    fn add_uses_the_last_free_entry_and_then_returns_false() {
        let mut deviations = Deviations::new_zeroed();
        for lp in 0..2048 {
            assert!(deviations.add(Some(lp), MSR, 1));
        }
        assert!(!deviations.add(Some(5000), MSR, 1));
        assert!(deviations.add(Some(7), MSR, 1) && deviations.add(Some(5000), MSR, 1));
    }
}
