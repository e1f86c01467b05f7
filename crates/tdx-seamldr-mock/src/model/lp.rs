//! Logical processors: what differs from one to the next.

use tdx_seamldr_core::Trap;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most LPs of a platform.
pub const MAX_LPS: usize = 1024;

/// MSRs in which an LP can differ from the others at the same time.
const MAX_DEVIATIONS: usize = 4;

/// The current-VMCS pointer of an LP that has none.
pub const NO_VMCS: u64 = u64::MAX;

/// A set of LPs, or of x2APIC ids.
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

/// The numbers in a set.
pub(super) fn members(set: &LpSet) -> impl Iterator<Item = u32> + '_ {
    (0..1024).filter(|number| contains(set, *number))
}

/// Where reads of an MSR give another value than on other LPs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct MsrDeviation {
    msr: u64,
    /// The bits that differ; none if this slot is free.
    bits: u64,
}

/// The MSRs of one LP, as far as they differ from those of other LPs.
pub(super) type MsrDeviations = [MsrDeviation; MAX_DEVIATIONS];

/// The bits in which an MSR differs from that of other LPs.
pub(super) fn deviation(deviations: &MsrDeviations, msr: u32) -> u64 {
    deviations.iter().filter(|slot| slot.msr == u64::from(msr)).fold(0, |bits, slot| bits ^ slot.bits)
}

/// One LP.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Lp {
    pub(super) x2apic_id: u32,
    flags: u32,
    pub(super) seamops_capabilities: u64,
    pub(super) current_vmcs: u64,
    pub(super) msrs: MsrDeviations,
}

impl Lp {
    const PRESENT: u32 = 1 << 0;
    const GP: u32 = 1 << 1;
    const UD: u32 = 1 << 2;
    const IN_MODULE: u32 = 1 << 3;
    const IN_CALL: u32 = 1 << 4;

    pub(super) fn new(x2apic_id: u32, seamops_capabilities: u64) -> Self {
        let msrs = [MsrDeviation::default(); MAX_DEVIATIONS];
        Self { x2apic_id, flags: Self::PRESENT, seamops_capabilities, current_vmcs: NO_VMCS, msrs }
    }

    pub(super) const fn is_present(&self) -> bool {
        self.flags & Self::PRESENT != 0
    }

    pub(super) fn trap(&self) -> Option<Trap> {
        let traps = [(Self::UD, Trap::UndefinedOpcode), (Self::GP, Trap::GeneralProtection)];
        traps.into_iter().find(|(flag, _)| self.flags & flag != 0).map(|(_, trap)| trap)
    }

    pub(super) fn set_trap(&mut self, trap: Option<Trap>) {
        self.flags &= !(Self::GP | Self::UD);
        self.flags |= match trap {
            Some(Trap::GeneralProtection) => Self::GP,
            Some(_) => Self::UD,
            None => 0,
        };
    }

    pub(super) const fn is_in_module(&self) -> bool {
        self.flags & Self::IN_MODULE != 0
    }

    pub(super) fn set_in_module(&mut self, inside: bool) {
        self.set_flag(Self::IN_MODULE, inside);
    }

    /// Whether a SEAMCALL of this LP has not ended.
    pub(super) const fn is_in_call(&self) -> bool {
        self.flags & Self::IN_CALL != 0
    }

    pub(super) fn set_in_call(&mut self, inside: bool) {
        self.set_flag(Self::IN_CALL, inside);
    }

    fn set_flag(&mut self, flag: u32, on: bool) {
        self.flags = self.flags & !flag | if on { flag } else { 0 };
    }

    /// Adds to what differs in an MSR; `false` if no slot is free.
    pub(super) fn deviate(&mut self, msr: u32, bits: u64) -> bool {
        let msr = u64::from(msr);
        let slots = &mut self.msrs;
        let known = slots.iter().position(|slot| slot.bits != 0 && slot.msr == msr);
        let Some(index) = known.or_else(|| slots.iter().position(|slot| slot.bits == 0)) else {
            return false;
        };
        if let Some(slot) = slots.get_mut(index) {
            *slot = MsrDeviation { msr, bits: slot.bits ^ bits };
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_hold_numbers_up_to_1023() {
        let mut set = [0; 16];
        assert!(insert(&mut set, 1023) && !insert(&mut set, 1023));
        assert!(contains(&set, 1023) && !contains(&set, 1022));
        assert!(!insert(&mut set, 1024) && !contains(&set, 1024));
        assert!(members(&set).eq([1023]));
    }

    #[test]
    fn deviations_add_up_and_the_same_one_twice_cancels() {
        let mut lp = Lp::new(0, 0);
        for (msr, bits) in [(0x3b, 1), (0xfe, 2), (0x3b, 4), (0x10a, 8), (0xcf, 16)] {
            assert!(lp.deviate(msr, bits));
        }
        assert_eq!(deviation(&lp.msrs, 0x3b), 5);
        assert!(!lp.deviate(0x982, 1), "no room for a fifth");
        assert!(lp.deviate(0xfe, 2) && lp.deviate(0x982, 1));
        assert_eq!((deviation(&lp.msrs, 0xfe), deviation(&lp.msrs, 0x982)), (0, 1));
    }
}
