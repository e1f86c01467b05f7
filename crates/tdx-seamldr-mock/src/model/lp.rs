//! Logical processors: the state that each LP has of its own.

use tdx_seamldr_core::Trap;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The most LPs of a platform.
pub const MAX_LPS: usize = 1024;

/// The current-VMCS pointer of an LP without a current VMCS.
pub const NO_VMCS: u64 = u64::MAX;

/// A set of LPs, or of x2APIC ids.
pub(super) type LpSet = [u64; 16];

/// Adds a number to a set. Returns `false` if the set has it already, or if it is out of range.
pub(super) fn insert(set: &mut LpSet, number: u32) -> bool {
    let word = usize::try_from(number >> 6).ok().and_then(|index| set.get_mut(index));
    word.is_some_and(|word| {
        let bit = 1 << (number & 63);
        let new = *word & bit == 0;
        *word |= bit;
        new
    })
}

/// Returns whether a set contains a number.
pub(super) fn contains(set: &LpSet, number: u32) -> bool {
    let word = usize::try_from(number >> 6).ok().and_then(|index| set.get(index));
    word.is_some_and(|word| word >> (number & 63) & 1 == 1)
}

/// Iterates over the numbers in a set.
pub(super) fn members(set: &LpSet) -> impl Iterator<Item = u32> + '_ {
    (0..1024).filter(|number| contains(set, *number))
}

/// One LP.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub(super) struct Lp {
    pub(super) x2apic_id: u32,
    flags: u32,
    pub(super) seamops_capabilities: u64,
    pub(super) current_vmcs: u64,
    /// The package of this LP, as TDH.SYS.LP.INIT found it.
    pub(super) package: u32,
    spare: u32,
}

impl Lp {
    const PRESENT: u32 = 1 << 0;
    const GP: u32 = 1 << 1;
    const UD: u32 = 1 << 2;
    const IN_MODULE: u32 = 1 << 3;
    const IN_CALL: u32 = 1 << 4;

    pub(super) fn new(x2apic_id: u32, seamops_capabilities: u64) -> Self {
        let (flags, current_vmcs) = (Self::PRESENT, NO_VMCS);
        Self { x2apic_id, flags, seamops_capabilities, current_vmcs, package: 0, spare: 0 }
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

    /// Returns whether this LP is inside a SEAMCALL.
    pub(super) const fn is_in_call(&self) -> bool {
        self.flags & Self::IN_CALL != 0
    }

    pub(super) fn set_in_call(&mut self, inside: bool) {
        self.set_flag(Self::IN_CALL, inside);
    }

    fn set_flag(&mut self, flag: u32, on: bool) {
        self.flags = self.flags & !flag | if on { flag } else { 0 };
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
}
