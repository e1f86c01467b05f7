//! How x86-64 instructions are encoded, as far as the plugin has to read them: prefixes, ModRM,
//! SIB, displacement and immediate.
//!
//! Source: Intel SDM, volume 2, chapter 2.

/// The most bytes that an instruction can have.
pub const MAX_LENGTH: usize = 15;

/// A segment register whose base counts in 64-bit mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// FS.
    Fs,
    /// GS.
    Gs,
}

/// The base of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// No base.
    None,
    /// A general-purpose register, by its number.
    Register(u8),
    /// The address of the next instruction.
    NextInstruction,
}

/// An operand in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The base.
    pub base: Base,
    /// The number of the index register, and its scale as a power of two.
    pub index: Option<(u8, u8)>,
    /// The displacement.
    pub displacement: i32,
    /// The segment whose base is added.
    pub segment: Option<Segment>,
    /// Addresses are cut to 32 bits (prefix 0x67).
    pub is_32_bit: bool,
}

impl Memory {
    /// Returns the linear address. `next` is the address of the next instruction.
    pub fn address(
        &self,
        next: u64,
        register: impl Fn(u8) -> u64,
        segment_base: impl Fn(Segment) -> u64,
    ) -> u64 {
        let base = match self.base {
            Base::None => 0,
            Base::Register(number) => register(number),
            Base::NextInstruction => next,
        };
        let index =
            self.index.map_or(0, |(number, scale)| register(number).wrapping_shl(scale.into()));
        let mut offset = base.wrapping_add(index).wrapping_add_signed(self.displacement.into());
        if self.is_32_bit {
            offset &= 0xffff_ffff;
        }
        offset.wrapping_add(self.segment.map_or(0, segment_base))
    }
}

/// The operand that ModRM.rm names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand {
    /// A general-purpose register, by its number.
    Register(u8),
    /// Memory.
    Memory(Memory),
}

/// The bytes end before the instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// The prefixes of an instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    /// 0x66.
    pub operand_size: bool,
    /// 0x67.
    pub address_size: bool,
    /// 0xF0.
    pub lock: bool,
    /// 0xF2 or 0xF3, whichever comes last; or 0.
    pub repeat: u8,
    /// 0x64 or 0x65.
    pub segment: Option<Segment>,
    /// 0x40 to 0x4F, if it stands directly before the opcode; or 0.
    pub rex: u8,
}

impl Prefixes {
    /// REX.W: operands have 64 bits.
    #[must_use]
    pub const fn is_wide(self) -> bool {
        self.rex & 8 != 0
    }

    /// Bytes of an operand of an instruction that has no form for single bytes.
    #[must_use]
    pub const fn size(self) -> u8 {
        match (self.is_wide(), self.operand_size) {
            (true, _) => 8,
            (false, true) => 2,
            (false, false) => 4,
        }
    }
}

/// Reads an instruction from its first byte on.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// Returns a cursor on an instruction that begins at the first byte. Bytes beyond
    /// [`MAX_LENGTH`] do not count.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes: bytes.get(..MAX_LENGTH).unwrap_or(bytes), at: 0 }
    }

    /// Returns the number of bytes that were read.
    #[must_use]
    #[allow(clippy::as_conversions)] // at most 15
    pub const fn length(&self) -> u8 {
        self.at as u8
    }

    /// Returns the next byte, which is read again by the next call that reads.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn peek(&self) -> Result<u8, Short> {
        self.bytes.get(self.at).copied().ok_or(Short)
    }

    /// Reads a byte.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn byte(&mut self) -> Result<u8, Short> {
        let byte = self.peek()?;
        self.at = self.at.saturating_add(1);
        Ok(byte)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let array = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk::<N>).ok_or(Short)?;
        self.at = self.at.saturating_add(N);
        Ok(*array)
    }

    /// Reads a signed number of one byte.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn signed_8(&mut self) -> Result<i32, Short> {
        Ok(i8::from_le_bytes(self.array()?).into())
    }

    /// Reads a signed number of four bytes.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn signed_32(&mut self) -> Result<i32, Short> {
        Ok(i32::from_le_bytes(self.array()?))
    }

    /// Skips bytes.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn skip(&mut self, count: u8) -> Result<(), Short> {
        (0..count).try_for_each(|_| self.byte().map(drop))
    }

    /// Reads all prefixes. The next byte is the opcode's.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn prefixes(&mut self) -> Result<Prefixes, Short> {
        let mut prefixes = Prefixes::default();
        loop {
            let byte = self.peek()?;
            match byte {
                0x66 => prefixes.operand_size = true,
                0x67 => prefixes.address_size = true,
                0xf0 => prefixes.lock = true,
                0xf2 | 0xf3 => prefixes.repeat = byte,
                0x64 => prefixes.segment = Some(Segment::Fs),
                0x65 => prefixes.segment = Some(Segment::Gs),
                0x2e | 0x36 | 0x3e | 0x26 => {}
                0x40..=0x4f => {
                    prefixes.rex = byte;
                    self.byte()?;
                    continue;
                }
                _ => return Ok(prefixes),
            }
            // A REX that another prefix follows has no effect.
            prefixes.rex = 0;
            self.byte()?;
        }
    }

    /// Reads ModRM and what belongs to it. Returns the register that ModRM.reg names, or the digit
    /// of the opcode, and the operand that ModRM.rm names.
    ///
    /// # Errors
    ///
    /// The bytes end.
    pub fn modrm(&mut self, prefixes: Prefixes) -> Result<(u8, Operand), Short> {
        let extended =
            |bits: u8, rex_bit: u8| bits & 7 | if prefixes.rex & rex_bit != 0 { 8 } else { 0 };
        let modrm = self.byte()?;
        let (mode, reg, rm) = (modrm >> 6, extended(modrm >> 3, 4), modrm & 7);
        if mode == 3 {
            return Ok((reg, Operand::Register(extended(rm, 1))));
        }
        let mut memory = Memory {
            base: Base::Register(extended(rm, 1)),
            index: None,
            displacement: 0,
            segment: prefixes.segment,
            is_32_bit: prefixes.address_size,
        };
        let mut has_long_displacement = mode == 2;
        if rm == 4 {
            let sib = self.byte()?;
            let index = extended(sib >> 3, 2);
            memory.index = (index != 4).then_some((index, sib >> 6));
            memory.base = Base::Register(extended(sib, 1));
            if sib & 7 == 5 && mode == 0 {
                memory.base = Base::None;
                has_long_displacement = true;
            }
        } else if rm == 5 && mode == 0 {
            memory.base = Base::NextInstruction;
            has_long_displacement = true;
        }
        if has_long_displacement {
            memory.displacement = self.signed_32()?;
        } else if mode == 1 {
            memory.displacement = self.signed_8()?;
        }
        Ok((reg, Operand::Memory(memory)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operand(bytes: &[u8]) -> (u8, Operand, u8) {
        let mut cursor = Cursor::new(bytes);
        let prefixes = cursor.prefixes().unwrap();
        assert_eq!(cursor.byte(), Ok(0x8b));
        let (reg, operand) = cursor.modrm(prefixes).unwrap();
        (reg, operand, cursor.length())
    }

    fn address(bytes: &[u8]) -> u64 {
        let (_, Operand::Memory(memory), length) = operand(bytes) else { panic!("no memory") };
        let register = |number: u8| 0x1000 + u64::from(number) * 0x100;
        memory.address(0x50_0000 + u64::from(length), register, |segment| match segment {
            Segment::Fs => 0xf000_0000,
            Segment::Gs => 0x6000_0000,
        })
    }

    #[test]
    fn every_form_of_address_is_computed_with_the_length_that_it_has() {
        for (bytes, expected) in [
            // mov eax,[...] with [rax]; [r11+0x10]; [rbx-0x80000000]; [rip+0x10]; [rsp].
            (&[0x8b, 0x00][..], 0x1000),
            (&[0x41, 0x8b, 0x43, 0x10], 0x1b10),
            (&[0x8b, 0x83, 0, 0, 0, 0x80], 0xffff_ffff_8000_1300),
            (&[0x8b, 0x05, 0x10, 0, 0, 0], 0x50_0016),
            (&[0x8b, 0x04, 0x24], 0x1400),
            // [rax+rcx*8-1]; [rax+r12*4]; [0x12345678]; gs:[8]; fs:[rax]; [eax-0x1001].
            (&[0x8b, 0x44, 0xc8, 0xff], 0x1000 + 0x1100 * 8 - 1),
            (&[0x42, 0x8b, 0x04, 0xa0], 0x1000 + 0x1c00 * 4),
            (&[0x8b, 0x04, 0x25, 0x78, 0x56, 0x34, 0x12], 0x1234_5678),
            (&[0x65, 0x8b, 0x04, 0x25, 0x08, 0, 0, 0], 0x6000_0008),
            (&[0x64, 0x8b, 0x00], 0xf000_1000),
            (&[0x67, 0x8b, 0x80, 0xff, 0xef, 0xff, 0xff], 0xffff_ffff),
        ] {
            assert_eq!(address(bytes), expected, "{bytes:x?}");
            assert_eq!(usize::from(operand(bytes).2), bytes.len(), "{bytes:x?}");
        }
    }

    #[test]
    fn bytes_that_end_inside_an_instruction_are_short() {
        let full = [0x65, 0x48, 0x8b, 0x84, 0x24, 1, 2, 3, 4];
        for end in 0..full.len() {
            let mut cursor = Cursor::new(&full[..end]);
            let read = cursor.prefixes().and_then(|prefixes| {
                cursor.byte()?;
                cursor.modrm(prefixes)
            });
            assert_eq!(read, Err(Short), "{end} bytes");
        }
    }

    #[test]
    fn a_rex_before_another_prefix_does_not_count() {
        let prefixes = Cursor::new(&[0x48, 0x66, 0x0f]).prefixes().unwrap();
        assert_eq!((prefixes.rex, prefixes.operand_size), (0, true));
        let prefixes = Cursor::new(&[0x66, 0x48, 0x0f]).prefixes().unwrap();
        assert_eq!((prefixes.rex, prefixes.is_wide()), (0x48, true));
    }

    #[test]
    fn more_than_fifteen_bytes_are_no_instruction() {
        assert_eq!(Cursor::new(&[0x66; 20]).prefixes(), Err(Short));
    }
}
