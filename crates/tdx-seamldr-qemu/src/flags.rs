//! The arithmetic flags, which QEMU's plugin interface cannot write, and what instructions do with
//! them.

/// The arithmetic flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools)] // the flags of the processor
pub struct Flags {
    /// CF, bit 0.
    pub carry: bool,
    /// PF, bit 2.
    pub parity: bool,
    /// AF, bit 4.
    pub auxiliary: bool,
    /// ZF, bit 6.
    pub zero: bool,
    /// SF, bit 7.
    pub sign: bool,
    /// OF, bit 11.
    pub overflow: bool,
}

/// The bits of RFLAGS that are arithmetic flags.
pub const ARITHMETIC: u64 = 0x8d5;

impl Flags {
    /// VMsucceed: all flags are 0.
    pub const SUCCESS: Self = Self {
        carry: false,
        parity: false,
        auxiliary: false,
        zero: false,
        sign: false,
        overflow: false,
    };
    /// VMfailInvalid: CF is 1, all others are 0.
    pub const FAIL_INVALID: Self = Self { carry: true, ..Self::SUCCESS };

    /// Returns the flags as they stand in RFLAGS.
    #[must_use]
    pub fn bits(self) -> u64 {
        u64::from(self.carry)
            | u64::from(self.parity) << 2
            | u64::from(self.auxiliary) << 4
            | u64::from(self.zero) << 6
            | u64::from(self.sign) << 7
            | u64::from(self.overflow) << 11
    }

    /// Returns the flags that stand in RFLAGS.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        const fn bit(bits: u64, number: u32) -> bool {
            bits >> number & 1 == 1
        }
        Self {
            carry: bit(bits, 0),
            parity: bit(bits, 2),
            auxiliary: bit(bits, 4),
            zero: bit(bits, 6),
            sign: bit(bits, 7),
            overflow: bit(bits, 11),
        }
    }

    /// Whether the condition in the low four bits of an opcode (Jcc, SETcc, CMOVcc) holds.
    #[must_use]
    pub const fn hold(self, condition: u8) -> bool {
        let holds = match condition >> 1 & 7 {
            0 => self.overflow,
            1 => self.carry,
            2 => self.zero,
            3 => self.carry || self.zero,
            4 => self.sign,
            5 => self.parity,
            6 => self.sign != self.overflow,
            _ => self.zero || self.sign != self.overflow,
        };
        holds != (condition & 1 == 1)
    }
}

/// Computes ADC, or SBB if `subtract`, on operands of `size` bytes. Returns the result and its
/// flags.
#[must_use]
pub fn with_carry(subtract: bool, size: u8, left: u64, right: u64, carry: bool) -> (u64, Flags) {
    let bits = u32::from(size).saturating_mul(8).clamp(8, 64);
    let mask = u64::MAX.checked_shr(64u32.saturating_sub(bits)).unwrap_or(u64::MAX);
    let (left, right) = (left & mask, right & mask);
    let (wide_left, wide_right) = (u128::from(left), u128::from(right).wrapping_add(carry.into()));
    let wide = if subtract {
        wide_left.wrapping_sub(wide_right)
    } else {
        wide_left.wrapping_add(wide_right)
    };
    let result = low_half(wide) & mask;
    let sign_bit = bits.saturating_sub(1);
    let top = |value: u64| value >> sign_bit & 1 == 1;
    let differ = |one: u64, other: u64| top(one) != top(other);
    let flags = Flags {
        carry: wide > u128::from(mask),
        parity: (result & 0xff).count_ones().is_multiple_of(2),
        auxiliary: (left ^ right ^ result) & 0x10 != 0,
        zero: result == 0,
        sign: top(result),
        overflow: differ(left, result) && (differ(left, right) == subtract),
    };
    (result, flags)
}

#[allow(clippy::as_conversions)] // 64 bits remain
const fn low_half(value: u128) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn conditions_tell_success_from_failure() {
        let holding =
            |flags: Flags| (0..16).filter(|condition| flags.hold(*condition)).collect::<Vec<_>>();
        // NO, NC, NZ, A, NS, NP, GE, G
        assert_eq!(holding(Flags::SUCCESS), [1, 3, 5, 7, 9, 11, 13, 15]);
        // C and BE in the place of NC and A
        assert_eq!(holding(Flags::FAIL_INVALID), [1, 2, 5, 6, 9, 11, 13, 15]);
    }

    /// What this processor says.
    #[cfg(target_arch = "x86_64")]
    fn hardware(subtract: bool, size: u8, left: u64, right: u64, carry: bool) -> (u64, u64) {
        let mut value = left;
        let flags: u64;
        let input = u64::from(carry);
        macro_rules! run {
            ($instruction:literal, $operands:literal) => {
                // SAFETY: registers alone are changed, and what is pushed is popped.
                unsafe {
                    core::arch::asm!(
                        "bt {input}, 0", concat!($instruction, " ", $operands), "pushfq", "pop {flags}",
                        input = in(reg) input, value = inout(reg) value, right = in(reg) right,
                            flags = lateout(reg) flags)
                }
            };
        }
        match (subtract, size) {
            (false, 8) => run!("adc", "{value}, {right}"),
            (false, 4) => run!("adc", "{value:e}, {right:e}"),
            (false, 2) => run!("adc", "{value:x}, {right:x}"),
            (false, _) => run!("adc", "{value:l}, {right:l}"),
            (true, 8) => run!("sbb", "{value}, {right}"),
            (true, 4) => run!("sbb", "{value:e}, {right:e}"),
            (true, 2) => run!("sbb", "{value:x}, {right:x}"),
            (true, _) => run!("sbb", "{value:l}, {right:l}"),
        }
        let mask = u64::MAX >> (64 - u32::from(size) * 8);
        (value & mask, flags & ARITHMETIC)
    }

    #[cfg(target_arch = "x86_64")]
    proptest! {
        #[test]
        fn results_and_flags_are_those_of_this_processor(
            subtract: bool,
            size in prop_oneof![Just(1u8), Just(2), Just(4), Just(8)],
            left in prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1 << 63), Just(0x7f)],
            right in prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(1 << 63), Just(0x80)],
            carry: bool,
        ) {
            let (result, flags) = with_carry(subtract, size, left, right, carry);
            prop_assert_eq!((result, flags.bits()), hardware(subtract, size, left, right, carry));
            prop_assert_eq!(Flags::from_bits(flags.bits()), flags);
        }
    }
}
