//! CPUID leaves that module 1.5.01 reads: required values, values that all LPs have to share, and
//! bits that the host can configure for a TD.

pub(super) use super::super::cpu::NO_SUBLEAF as NONE;

const ZERO: [u32; 4] = [0; 4];
const ALL: [u32; 4] = [u32::MAX; 4];

/// Extended states of user and supervisor that the module supports.
pub(super) const USER_STATES: u32 = 0x602ff;
pub(super) const SUPERVISOR_STATES: u32 = 0x1fd00;
/// Extended states that a TD may have.
const TD_STATES: u32 = 0x6dbe7;

/// The module's rules for a leaf, or for several subleaves. Masks are for EAX, EBX, ECX and EDX.
pub(super) struct CpuidRule {
    pub(super) leaf: u32,
    subleaves: (u32, u32),
    /// Bits that TDH.SYS.INIT checks, and their required values.
    pub(super) mask: [u32; 4],
    pub(super) expected: [u32; 4],
    /// Bits that TDH.SYS.LP.INIT compares.
    pub(super) same: [u32; 4],
}

const fn rule(
    leaf: u32,
    subleaf: u32,
    mask: [u32; 4],
    expected: [u32; 4],
    same: [u32; 4],
) -> CpuidRule {
    CpuidRule { leaf, subleaves: (subleaf, subleaf), mask, expected, same }
}

/// Returns the rule of a leaf that is only compared.
const fn compared(leaf: u32, subleaf: u32, same: [u32; 4]) -> CpuidRule {
    rule(leaf, subleaf, ZERO, ZERO, same)
}

const fn compared_each(leaf: u32, first: u32, last: u32, same: [u32; 4]) -> CpuidRule {
    CpuidRule { leaf, subleaves: (first, last), mask: ZERO, expected: ZERO, same }
}

/// Returns the rule of a leaf that is only sampled.
const fn sampled(leaf: u32, subleaf: u32) -> CpuidRule {
    rule(leaf, subleaf, ZERO, ZERO, ZERO)
}

/// Number of leaves and subleaves.
pub(super) const CPUID_ENTRIES: usize = 64;

const LINE: [u32; 4] = [0, 0xfff, 0, 0];
const LINE_OF_64: [u32; 4] = [0, 0x3f, 0, 0];
/// All bits of EAX, EBX and ECX. CPUID.1FH.EDX is the x2APIC id.
const TOPOLOGY: [u32; 4] = [u32::MAX, u32::MAX, u32::MAX, 0];

/// All rules, in the order in which the module checks them.
const RULES: [CpuidRule; 40] = [
    rule(
        0x1,
        NONE,
        [0, 0xff00, 0x47faa217, 0x1fa9fbff],
        [0, 0x800, 0x47faa217, 0x1fa9fbff],
        [0xf000c000, 0xffff, 0xf7ffff9f, u32::MAX],
    ),
    CpuidRule { leaf: 0x4, subleaves: (0, 2), mask: LINE, expected: LINE_OF_64, same: ALL },
    rule(0x4, 3, [0xe0, 0xfff, 0, 0x1], [0x60, 0x3f, 0, 0], ALL),
    rule(
        0x7,
        0,
        [u32::MAX, 0x219424c3, 0x99000000, 0xfc082600],
        [0x2, 0x219424c3, 0x99000000, 0xfc080400],
        [u32::MAX, 0xfffffffb, 0xbfc1ff6f, 0xffebffff],
    ),
    compared(0x7, 1, ALL),
    rule(0xa, NONE, [0xff00, 0, 0xffffff80, 0x8000], [0x800, 0, 0, 0x8000], ALL),
    compared(0x1c, NONE, ALL),
    rule(0x80000008, NONE, [0xff, 0x200, 0, 0], [0x34, 0x200, 0, 0], ALL),
    rule(
        0x0,
        NONE,
        [0, u32::MAX, u32::MAX, u32::MAX],
        [0, 0x756e6547, 0x6c65746e, 0x49656e69],
        ALL,
    ),
    sampled(0x3, NONE),
    rule(0x4, 4, [0x1f, 0, 0, 0], ZERO, ALL),
    rule(0x6, NONE, [0x800000, 0, 0, 0], ZERO, [0x800000, 0, 0, 0]),
    rule(0x7, 2, [0, 0, 0, 0x17], [0, 0, 0, 0x17], ALL),
    sampled(0x8, NONE),
    rule(0xd, 0x0, [0x3, 0, 0, 0], [0x3, 0, 0, 0], [u32::MAX, 0, u32::MAX, u32::MAX]),
    rule(0xd, 0x1, [0xf, 0, 0x1800, 0], [0xf, 0, 0x1800, 0], [u32::MAX, 0, u32::MAX, u32::MAX]),
    compared_each(0xd, 0x2, 0x12, ALL),
    sampled(0xe, NONE),
    sampled(0x11, NONE),
    sampled(0x12, NONE),
    sampled(0x13, NONE),
    rule(0x14, 0, [u32::MAX, 0, 0, 0], [0x1, 0, 0, 0], ALL),
    compared(0x14, 1, ALL),
    compared(0x15, NONE, ALL),
    compared(0x19, NONE, [u32::MAX, 0xfffffffe, u32::MAX, u32::MAX]),
    compared_each(0x1d, 0, 1, ALL),
    compared(0x1e, NONE, ALL),
    compared_each(0x1f, 0, 4, TOPOLOGY),
    rule(0x1f, 5, [0, 0, 0xff00, 0], ZERO, TOPOLOGY),
    sampled(0x20, NONE),
    sampled(0x21, 0),
    compared(0x80000000, NONE, ALL),
    rule(0x80000001, NONE, [0, 0, 0x121, 0x2c100800], [0, 0, 0x121, 0x2c100800], ALL),
    rule(0x80000006, NONE, [0, 0, 0xff, 0], [0, 0, 0x40, 0], [0, 0, 0xff, 0]),
    rule(0x80000007, NONE, [0, 0, 0, 0x100], [0, 0, 0, 0x100], [0, 0, 0, 0x100]),
    sampled(0x22, NONE),
    compared(0x23, 0, ALL),
    rule(0x23, 1, [0xffffff00, 0xfffffff0, 0, 0], ZERO, ALL),
    compared_each(0x23, 2, 3, ALL),
    compared(0x5, NONE, ALL),
];

/// Iterates over all leaves and subleaves, with their rules.
pub(super) fn entries() -> impl Iterator<Item = (&'static CpuidRule, u32)> {
    RULES.iter().flat_map(|rule| {
        let (first, last) = rule.subleaves;
        (first..=last).map(move |subleaf| (rule, subleaf))
    })
}

/// Returns EAX and EBX, and ECX and EDX, as 64-bit words. The module stores them so.
pub(super) fn halves([eax, ebx, ecx, edx]: [u32; 4]) -> [u64; 2] {
    [pair(eax, ebx), pair(ecx, edx)]
}

pub(super) fn pair(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// A leaf with configurable bits: those that the host chooses freely, and those that it chooses if
/// the processor has them.
pub(super) struct CpuidConfig {
    pub(super) leaf: u32,
    pub(super) subleaf: u32,
    pub(super) direct: [u32; 4],
    allowed: [u32; 4],
}

const fn configurable(leaf: u32, subleaf: u32, direct: [u32; 4], allowed: [u32; 4]) -> CpuidConfig {
    CpuidConfig { leaf, subleaf, direct, allowed }
}

const CACHE: [u32; 4] = [0xffffc3ff, 0xfffff000, u32::MAX, 0xfffffffb];

pub(super) const CPUID_CONFIGS: [CpuidConfig; 12] = [
    configurable(0x1, NONE, [0x0fff3fff, 0x00ff0000, 0, 0], [0, 0, 0x31044d88, 0xb8440000]),
    configurable(0x4, 0, CACHE, ZERO),
    configurable(0x4, 1, CACHE, ZERO),
    configurable(0x4, 2, CACHE, ZERO),
    configurable(0x4, 3, [0xffffc3ff, 0xfffff000, u32::MAX, 0x7], ZERO),
    configurable(0x7, 0, ZERO, [0, 0xdc2b9b18, 0x02417f65, 0x0005411c]),
    configurable(0x7, 1, ZERO, [0x1d30, 0, 0, 0]),
    configurable(0xa, NONE, ZERO, ZERO),
    configurable(0x1c, NONE, ZERO, [0xff, 0, 0, 0]),
    configurable(0x80000008, NONE, ZERO, [0, 0x200, 0, 0]),
    configurable(0x7, 2, ZERO, [0, 0, 0, 0x28]),
    configurable(0x23, 0, ZERO, [0xf, 0, 0, 0]),
];

impl CpuidConfig {
    /// Returns the configurable bits, given the processor's values.
    pub(super) fn bits(&self, native: [u32; 4]) -> [u32; 4] {
        let mut bits = self.direct;
        for ((slot, allowed), native) in bits.iter_mut().zip(self.allowed).zip(native) {
            *slot |= allowed & native;
        }
        bits
    }
}

/// Returns the extended states that a TD may have, given subleaves 0 and 1 of CPUID.0DH.
pub(super) fn td_states([user, ..]: [u32; 4], [_, _, supervisor, _]: [u32; 4]) -> u64 {
    u64::from(TD_STATES & (user & USER_STATES | supervisor & SUPERVISOR_STATES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_64_leaves_and_subleaves_and_no_duplicates() {
        let mut keys: Vec<_> = entries().map(|(rule, subleaf)| (rule.leaf, subleaf)).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!((keys.len(), entries().count()), (CPUID_ENTRIES, CPUID_ENTRIES));
    }

    #[test]
    fn no_rule_expects_a_bit_that_it_does_not_check() {
        for (rule, subleaf) in entries() {
            let beyond =
                rule.expected.iter().zip(rule.mask).any(|(expected, mask)| expected & !mask != 0);
            assert!(!beyond, "{:#x}.{subleaf:#x}", rule.leaf);
        }
    }
}
