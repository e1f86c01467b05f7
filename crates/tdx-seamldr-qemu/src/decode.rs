//! Decodes the instructions of the guest that the plugin executes: bytes in, instruction and length
//! out.

use crate::encoding::{Cursor, Memory, Operand, Short};

/// An instruction that QEMU does not know, or whose result the plugin completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// SEAMCALL.
    Seamcall,
    /// VMXON, with the place of the VMXON region's address.
    Vmxon(Memory),
    /// VMXOFF.
    Vmxoff,
    /// CPUID.
    Cpuid,
    /// RDMSR.
    Rdmsr,
    /// MOV to CR4 from the register with this number.
    MovToCr4(u8),
    /// MOV from CR4 to the register with this number.
    MovFromCr4(u8),
    /// MOVDIR64B: 64 bytes of memory go to the address in a register.
    Movdir64b {
        /// The number of the register.
        address: u8,
        /// The 64 bytes.
        source: Memory,
    },
}

/// An instruction, and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// The instruction.
    pub instruction: Instruction,
    /// The length in bytes, prefixes included.
    pub length: u8,
}

/// Reads the instruction that begins at the first of these bytes, in 64-bit mode. `Ok(None)` is any
/// other instruction.
///
/// # Errors
///
/// The bytes end before the instruction is known.
pub fn decode(bytes: &[u8]) -> Result<Option<Decoded>, Short> {
    let mut cursor = Cursor::new(bytes);
    let prefixes = cursor.prefixes()?;
    if cursor.byte()? != 0x0f || prefixes.lock {
        return Ok(None);
    }
    let found = |instruction, cursor: &Cursor<'_>| {
        Ok(Some(Decoded { instruction, length: cursor.length() }))
    };
    // 0x66 selects an instruction only where neither 0xF2 nor 0xF3 does.
    let selector = (prefixes.operand_size, prefixes.repeat);
    match cursor.byte()? {
        0xa2 => found(Instruction::Cpuid, &cursor),
        0x32 => found(Instruction::Rdmsr, &cursor),
        0x01 => {
            let instruction = match (cursor.byte()?, selector) {
                (0xcf, (true, 0)) => Instruction::Seamcall,
                (0xc4, (false, 0)) => Instruction::Vmxoff,
                _ => return Ok(None),
            };
            found(instruction, &cursor)
        }
        0xc7 if prefixes.repeat == 0xf3 => match cursor.modrm(prefixes)? {
            (digit, Operand::Memory(memory)) if digit & 7 == 6 => {
                found(Instruction::Vmxon(memory), &cursor)
            }
            _ => Ok(None),
        },
        opcode @ (0x20 | 0x22) => {
            // ModRM.mod does not count: the operand is always a register.
            let modrm = cursor.byte()?;
            let control = modrm >> 3 & 7 | if prefixes.rex & 4 != 0 { 8 } else { 0 };
            let register = modrm & 7 | if prefixes.rex & 1 != 0 { 8 } else { 0 };
            match (control, opcode) {
                (4, 0x20) => found(Instruction::MovFromCr4(register), &cursor),
                (4, _) => found(Instruction::MovToCr4(register), &cursor),
                _ => Ok(None),
            }
        }
        0x38 if selector == (true, 0) => {
            if cursor.byte()? != 0xf8 {
                return Ok(None);
            }
            match cursor.modrm(prefixes)? {
                (address, Operand::Memory(source)) => {
                    found(Instruction::Movdir64b { address, source }, &cursor)
                }
                _ => Ok(None),
            }
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoding::{Base, Segment};
    use proptest::prelude::*;

    fn name(bytes: &[u8]) -> Option<(Instruction, usize)> {
        decode(bytes).unwrap().map(|decoded| (decoded.instruction, decoded.length.into()))
    }

    fn at(base: Base, displacement: i32) -> Memory {
        Memory { base, index: None, displacement, segment: None, is_32_bit: false }
    }

    #[test]
    fn each_instruction_is_known_by_its_bytes_and_has_all_of_them() {
        for (bytes, instruction) in [
            (&[0x66, 0x0f, 0x01, 0xcf][..], Instruction::Seamcall),
            (&[0x66, 0x48, 0x0f, 0x01, 0xcf], Instruction::Seamcall),
            (&[0x2e, 0x66, 0x66, 0x0f, 0x01, 0xcf], Instruction::Seamcall),
            (&[0x0f, 0x01, 0xc4], Instruction::Vmxoff),
            (&[0x0f, 0xa2], Instruction::Cpuid),
            (&[0x48, 0x0f, 0xa2], Instruction::Cpuid),
            (&[0x0f, 0x32], Instruction::Rdmsr),
            (&[0xf3, 0x0f, 0xc7, 0x30], Instruction::Vmxon(at(Base::Register(0), 0))),
            (&[0xf3, 0x0f, 0xc7, 0x75, 0xf8], Instruction::Vmxon(at(Base::Register(5), -8))),
            (
                &[0xf3, 0x41, 0x0f, 0xc7, 0xb4, 0x24, 0, 1, 0, 0],
                Instruction::Vmxon(at(Base::Register(12), 0x100)),
            ),
            (
                &[0xf3, 0x0f, 0xc7, 0x35, 4, 0, 0, 0],
                Instruction::Vmxon(at(Base::NextInstruction, 4)),
            ),
            (&[0x0f, 0x22, 0xe0], Instruction::MovToCr4(0)),
            (&[0x41, 0x0f, 0x22, 0xe7], Instruction::MovToCr4(15)),
            (&[0x0f, 0x20, 0xe3], Instruction::MovFromCr4(3)),
            (
                &[0x66, 0x0f, 0x38, 0xf8, 0x07],
                Instruction::Movdir64b { address: 0, source: at(Base::Register(7), 0) },
            ),
            (
                &[0x65, 0x66, 0x44, 0x0f, 0x38, 0xf8, 0x4e, 0x40],
                Instruction::Movdir64b {
                    address: 9,
                    source: Memory { segment: Some(Segment::Gs), ..at(Base::Register(6), 0x40) },
                },
            ),
        ] {
            assert_eq!(name(bytes), Some((instruction, bytes.len())), "{bytes:x?}");
        }
    }

    #[test]
    fn instructions_that_differ_in_a_prefix_or_a_digit_are_others() {
        for bytes in [
            &[0x0f, 0x01, 0xcf][..],         // ENCLS
            &[0xf3, 0x66, 0x0f, 0x01, 0xcf], // F3 wins over 66
            &[0xf0, 0x66, 0x0f, 0x01, 0xcf], // LOCK
            &[0x66, 0x0f, 0x01, 0xcc],       // TDCALL
            &[0x66, 0x0f, 0xc7, 0x30],       // VMCLEAR
            &[0x0f, 0xc7, 0x30],             // VMPTRLD
            &[0xf3, 0x0f, 0xc7, 0xf0],       // register form: another instruction
            &[0xf3, 0x0f, 0xc7, 0x38],       // RDPID's digit
            &[0x44, 0x0f, 0x22, 0xe0],       // CR12
            &[0x0f, 0x22, 0xd8],             // CR3
            &[0x66, 0x0f, 0x38, 0xf8, 0xc7], // register form
            &[0x0f, 0x38, 0xf8, 0x07],       // no 66
            &[0x90],
        ] {
            assert_eq!(name(bytes), None, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_alike_however_many_follow(
            bytes in proptest::collection::vec(any::<u8>(), 0..20)
        ) {
            let whole = decode(&bytes);
            if let Ok(Some(Decoded { length, .. })) = whole {
                let length = usize::from(length);
                prop_assert!((2..=15).contains(&length));
                prop_assert_eq!(decode(&bytes[..length]), whole);
                prop_assert_eq!(decode(&bytes[..length - 1]), Err(Short));
            }
        }
    }
}
