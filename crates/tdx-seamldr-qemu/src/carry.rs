//! Finds and executes the instructions after SEAMCALL that read the flags.
//!
//! A plugin cannot write the arithmetic flags of a QEMU CPU. So the plugin follows the code after
//! SEAMCALL up to the first conditional jump, or until the flags are dead. It executes each
//! instruction there that reads the flags. QEMU executes the others.

use crate::encoding::{Cursor, Operand, Prefixes, Short, MAX_LENGTH};
use crate::flags::{with_carry, Flags, ARITHMETIC};

/// The most instructions that are followed.
const MAX_INSTRUCTIONS: u32 = 32;

/// The number of the stack pointer.
const RSP: u8 = 4;

/// The right operand of ADC or SBB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// A general-purpose register.
    Register(u8),
    /// A number.
    Immediate(i32),
}

/// What an instruction does with the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Jcc.
    Jump {
        /// The condition, as in the opcode.
        condition: u8,
        /// The address of the target.
        target: u64,
    },
    /// SETcc to a register of 8 bits: bits 7:0 of one, or bits 15:8 if `high`.
    Set {
        /// The condition, as in the opcode.
        condition: u8,
        /// The register.
        register: u8,
        /// Whether the register is AH, CH, DH or BH.
        high: bool,
    },
    /// SETcc to memory.
    SetMemory {
        /// The condition, as in the opcode.
        condition: u8,
        /// The operand.
        memory: crate::encoding::Memory,
    },
    /// CMOVcc between registers.
    Move {
        /// The condition, as in the opcode.
        condition: u8,
        /// Bytes of the operands.
        size: u8,
        /// The register that is written.
        to: u8,
        /// The register that is read.
        from: u8,
    },
    /// ADC or SBB on registers.
    Arithmetic {
        /// Whether the instruction is SBB.
        subtract: bool,
        /// Bytes of the operands.
        size: u8,
        /// The left operand, which gets the result.
        left: u8,
        /// The right operand.
        right: Right,
    },
    /// LAHF.
    LoadAh,
    /// PUSHFQ.
    Push,
}

/// An instruction that reads the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Consumer {
    /// The address of its first byte.
    pub address: u64,
    /// The address of the next instruction.
    pub next: u64,
    /// The operation.
    pub operation: Operation,
    /// Whether no later instruction that was followed reads these flags.
    pub is_last: bool,
}

/// Code that may read the flags, and that the plugin does not cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncovered {
    /// The address.
    pub address: u64,
    /// Its first bytes.
    pub bytes: [u8; MAX_LENGTH],
}

impl std::fmt::Display for Uncovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {:#x}:", self.address)?;
        self.bytes.iter().try_for_each(|byte| write!(f, " {byte:02x}"))
    }
}

/// The code after an instruction that sets the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Followers {
    /// The instructions that read the flags, in order.
    pub consumers: Vec<Consumer>,
    /// The first code that the plugin does not cover: an unknown instruction, or an instruction
    /// after the conditional jump that reads the flags again.
    pub uncovered: Option<Uncovered>,
}

/// What one instruction means for the flags.
enum Meaning {
    /// It leaves them alone.
    Neutral,
    /// It leaves them alone and jumps.
    GoTo(u64),
    /// It reads them.
    Reads(Operation),
    /// They are dead: it overwrites them, or calls or returns.
    Dead,
    /// The plugin does not know.
    Unknown,
}

/// Follows the code from `start` on. `code` returns the bytes at an address.
pub fn followers(start: u64, code: impl Fn(u64) -> Option<[u8; MAX_LENGTH]>) -> Followers {
    let mut followers = Followers::default();
    let mut address = start;
    for _ in 0..MAX_INSTRUCTIONS {
        let bytes = code(address);
        let read = bytes.as_ref().and_then(|bytes| meaning(address, bytes).ok());
        let (meaning, next) = read.unwrap_or((Meaning::Unknown, address));
        address = match meaning {
            Meaning::Neutral => next,
            Meaning::GoTo(target) => target,
            Meaning::Dead => break,
            Meaning::Unknown => {
                followers.uncovered = Some(Uncovered { address, bytes: bytes.unwrap_or_default() });
                break;
            }
            Meaning::Reads(operation) => {
                followers.consumers.push(Consumer { address, next, operation, is_last: false });
                if let Operation::Jump { target, .. } = operation {
                    let mut ways = [next, target].into_iter();
                    followers.uncovered = ways.find_map(|way| next_reader(way, &code));
                    break;
                }
                next
            }
        };
    }
    if let Some(last) = followers.consumers.last_mut() {
        last.is_last = true;
    }
    followers
}

/// Returns the first instruction from `start` on that reads the flags again. Returns `None` if the
/// flags are dead before, or at code that the plugin does not know.
fn next_reader(start: u64, code: &impl Fn(u64) -> Option<[u8; MAX_LENGTH]>) -> Option<Uncovered> {
    let mut address = start;
    for _ in 0..MAX_INSTRUCTIONS {
        let bytes = code(address)?;
        address = match meaning(address, &bytes).ok()? {
            (Meaning::Neutral, next) => next,
            (Meaning::GoTo(target), _) => target,
            (Meaning::Reads(_), _) => return Some(Uncovered { address, bytes }),
            (Meaning::Dead | Meaning::Unknown, _) => return None,
        };
    }
    None
}

/// Reads one instruction. Returns what it means, and the address of the next.
fn meaning(address: u64, bytes: &[u8]) -> Result<(Meaning, u64), Short> {
    let mut cursor = Cursor::new(bytes);
    let prefixes = cursor.prefixes()?;
    let opcode = cursor.byte()?;
    let meaning = match opcode {
        0x0f => return two_bytes(address, &mut cursor, prefixes),
        0x00..=0x3f => match (opcode >> 3 & 7, opcode & 7) {
            (2 | 3, form) => adc_or_sbb(&mut cursor, prefixes, opcode >> 3 & 7 == 3, form)?,
            _ => Meaning::Dead,
        },
        0x50..=0x5f | 0x90..=0x99 | 0xc9 => Meaning::Neutral,
        0x63 | 0x86..=0x8b | 0x8d | 0x8f => neutral_modrm(&mut cursor, prefixes, 0)?,
        0x68 => neutral(&mut cursor, if prefixes.operand_size { 2 } else { 4 })?,
        0x6a | 0xb0..=0xb7 => neutral(&mut cursor, 1)?,
        0x70..=0x7f => {
            let offset = cursor.signed_8()?;
            jump(address, &cursor, opcode, offset)
        }
        0x80 | 0x81 | 0x83 => immediate_group(&mut cursor, prefixes, opcode)?,
        0xb8..=0xbf => neutral(&mut cursor, prefixes.size())?,
        0xc6 => neutral_modrm(&mut cursor, prefixes, 1)?,
        0xc7 => neutral_modrm(&mut cursor, prefixes, if prefixes.operand_size { 2 } else { 4 })?,
        0x9c if !prefixes.operand_size => Meaning::Reads(Operation::Push),
        0x9f => Meaning::Reads(Operation::LoadAh),
        0xe9 => {
            let offset = cursor.signed_32()?;
            Meaning::GoTo(relative(address, &cursor, offset))
        }
        0xeb => {
            let offset = cursor.signed_8()?;
            Meaning::GoTo(relative(address, &cursor, offset))
        }
        // SHL, SHR and SAR; a count of 0 leaves the flags alone. Rotations leave some.
        0xc0 | 0xc1 | 0xd0 | 0xd1 => {
            let (digit, _) = cursor.modrm(prefixes)?;
            let count = if opcode & 0x10 == 0 { cursor.byte()? & 0x1f } else { 1 };
            if digit & 7 >= 4 && count != 0 {
                Meaning::Dead
            } else {
                Meaning::Unknown
            }
        }
        0xf6 | 0xf7 => match cursor.modrm(prefixes)?.0 & 7 {
            2 => Meaning::Neutral,
            _ => Meaning::Dead,
        },
        0xff => match cursor.modrm(prefixes)?.0 & 7 {
            2..=5 => Meaning::Dead,
            6 => Meaning::Neutral,
            _ => Meaning::Unknown,
        },
        // TEST, IMUL, POPF, SAHF, RET, INT3, CALL.
        0x84 | 0x85 | 0x69 | 0x6b | 0x9d | 0x9e | 0xa8 | 0xa9 | 0xc2 | 0xc3 | 0xcc | 0xe8 => {
            Meaning::Dead
        }
        _ => Meaning::Unknown,
    };
    Ok((meaning, address.wrapping_add(cursor.length().into())))
}

/// The same for an opcode that begins with 0x0F.
fn two_bytes(
    address: u64,
    cursor: &mut Cursor<'_>,
    prefixes: Prefixes,
) -> Result<(Meaning, u64), Short> {
    let opcode = cursor.byte()?;
    let condition = opcode & 0xf;
    let meaning = match opcode {
        0x40..=0x4f => match cursor.modrm(prefixes)? {
            (to, Operand::Register(from)) => {
                Meaning::Reads(Operation::Move { condition, size: prefixes.size(), to, from })
            }
            _ => Meaning::Unknown,
        },
        0x80..=0x8f => {
            let offset = cursor.signed_32()?;
            jump(address, cursor, opcode, offset)
        }
        0x90..=0x9f => Meaning::Reads(match cursor.modrm(prefixes)?.1 {
            Operand::Register(number) => {
                let high = prefixes.rex == 0 && (4..8).contains(&number);
                Operation::Set { condition, register: if high { number & 3 } else { number }, high }
            }
            Operand::Memory(memory) => Operation::SetMemory { condition, memory },
        }),
        // Moves and prefetches of SSE, NOP and ENDBR64, fences, MOVZX and MOVSX.
        0x10 | 0x11 | 0x18..=0x1f | 0x28 | 0x29 | 0x6e | 0x6f | 0x7e | 0x7f | 0xae | 0xd6 => {
            neutral_modrm(cursor, prefixes, 0)?
        }
        0xb6 | 0xb7 | 0xbe | 0xbf => neutral_modrm(cursor, prefixes, 0)?,
        // RDTSC, CPUID, BSWAP.
        0x31 | 0xa2 | 0xc8..=0xcf => Meaning::Neutral,
        // UD2, IMUL, CMPXCHG, XADD; another SEAMCALL. BT is not among them: it leaves ZF alone.
        0x0b | 0xaf | 0xb0 | 0xb1 | 0xc0 | 0xc1 => Meaning::Dead,
        0x01 if cursor.byte()? == 0xcf => Meaning::Dead,
        _ => Meaning::Unknown,
    };
    Ok((meaning, address.wrapping_add(cursor.length().into())))
}

fn relative(address: u64, cursor: &Cursor<'_>, offset: i32) -> u64 {
    address.wrapping_add(cursor.length().into()).wrapping_add_signed(offset.into())
}

fn jump(address: u64, cursor: &Cursor<'_>, opcode: u8, offset: i32) -> Meaning {
    let target = relative(address, cursor, offset);
    Meaning::Reads(Operation::Jump { condition: opcode & 0xf, target })
}

fn neutral(cursor: &mut Cursor<'_>, immediate: u8) -> Result<Meaning, Short> {
    cursor.skip(immediate)?;
    Ok(Meaning::Neutral)
}

fn neutral_modrm(
    cursor: &mut Cursor<'_>,
    prefixes: Prefixes,
    immediate: u8,
) -> Result<Meaning, Short> {
    cursor.modrm(prefixes)?;
    neutral(cursor, immediate)
}

/// ADC and SBB with two operands, and with the accumulator. The forms for single bytes are not
/// covered.
fn adc_or_sbb(
    cursor: &mut Cursor<'_>,
    prefixes: Prefixes,
    subtract: bool,
    form: u8,
) -> Result<Meaning, Short> {
    let size = prefixes.size();
    let arithmetic =
        |left, right| Meaning::Reads(Operation::Arithmetic { subtract, size, left, right });
    Ok(match form {
        1 | 3 => match cursor.modrm(prefixes)? {
            (reg, Operand::Register(rm)) if form == 1 => arithmetic(rm, Right::Register(reg)),
            (reg, Operand::Register(rm)) => arithmetic(reg, Right::Register(rm)),
            _ => Meaning::Unknown,
        },
        5 if !prefixes.operand_size => arithmetic(0, Right::Immediate(cursor.signed_32()?)),
        _ => Meaning::Unknown,
    })
}

/// Arithmetic with a number.
fn immediate_group(
    cursor: &mut Cursor<'_>,
    prefixes: Prefixes,
    opcode: u8,
) -> Result<Meaning, Short> {
    let (digit, operand) = cursor.modrm(prefixes)?;
    let subtract = match digit & 7 {
        2 => false,
        3 => true,
        _ => return Ok(Meaning::Dead),
    };
    let Operand::Register(left) = operand else { return Ok(Meaning::Unknown) };
    let immediate = match opcode {
        0x83 => cursor.signed_8()?,
        0x81 if !prefixes.operand_size => cursor.signed_32()?,
        _ => return Ok(Meaning::Unknown),
    };
    let right = Right::Immediate(immediate);
    Ok(Meaning::Reads(Operation::Arithmetic { subtract, size: prefixes.size(), left, right }))
}

/// The CPU that carries out an instruction.
pub trait Machine {
    /// Returns a general-purpose register.
    fn register(&self, number: u8) -> u64;
    /// Writes a general-purpose register.
    fn set_register(&mut self, number: u8, value: u64);
    /// Returns RFLAGS. Its arithmetic flags may be wrong.
    fn rflags(&self) -> u64;
    /// Returns the base of a segment.
    fn segment_base(&self, segment: crate::encoding::Segment) -> u64;
    /// Writes memory at a linear address. `false`: nothing is mapped there.
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool;
}

/// Memory that an instruction would write is not mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotMapped;

impl Consumer {
    /// Carries out the instruction with these flags. Returns the address of the instruction that
    /// follows, and the flags then.
    ///
    /// # Errors
    ///
    /// Memory is not mapped. Nothing has changed.
    pub fn execute(
        &self,
        flags: Flags,
        machine: &mut dyn Machine,
    ) -> Result<(u64, Flags), NotMapped> {
        let mut after = flags;
        match self.operation {
            Operation::Jump { condition, target } => {
                return Ok((if flags.hold(condition) { target } else { self.next }, flags));
            }
            Operation::Set { condition, register, high } => {
                let (mask, shift) = if high { (0xff00, 8) } else { (0xff, 0) };
                let value = u64::from(flags.hold(condition)) << shift;
                machine.set_register(register, machine.register(register) & !mask | value);
            }
            Operation::SetMemory { condition, memory } => {
                let address = memory.address(
                    self.next,
                    |number| machine.register(number),
                    |segment| machine.segment_base(segment),
                );
                if !machine.write(address, &[flags.hold(condition).into()]) {
                    return Err(NotMapped);
                }
            }
            Operation::Move { condition, size, to, from } => {
                let value = machine.register(if flags.hold(condition) { from } else { to });
                set_sized(machine, to, size, value);
            }
            Operation::Arithmetic { subtract, size, left, right } => {
                let right = match right {
                    Right::Register(number) => machine.register(number),
                    Right::Immediate(number) => 0u64.wrapping_add_signed(number.into()),
                };
                let (result, flags) =
                    with_carry(subtract, size, machine.register(left), right, flags.carry);
                set_sized(machine, left, size, result);
                after = flags;
            }
            Operation::LoadAh => {
                // Bit 1 of RFLAGS is 1.
                let ah = (flags.bits() & 0xff | 2) << 8;
                machine.set_register(0, machine.register(0) & !0xff00 | ah);
            }
            Operation::Push => {
                // VM and RF are pushed as 0.
                let image = machine.rflags() & !(ARITHMETIC | 3 << 16) | flags.bits() | 2;
                let top = machine.register(RSP).wrapping_sub(8);
                if !machine.write(top, &image.to_le_bytes()) {
                    return Err(NotMapped);
                }
                machine.set_register(RSP, top);
            }
        }
        Ok((self.next, after))
    }
}

/// Writes the low bytes of a register. As always, 4 bytes clear the rest, and 2 leave it.
fn set_sized(machine: &mut dyn Machine, number: u8, size: u8, value: u64) {
    let value = match size {
        2 => machine.register(number) & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
    machine.set_register(number, value);
}

#[cfg(test)]
#[path = "carry_tests.rs"]
mod tests;
