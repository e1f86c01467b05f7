//! Tests of the instructions after SEAMCALL that read the flags.

use super::*;
use crate::encoding::Segment;
use proptest::prelude::*;
use std::collections::BTreeMap;

const START: u64 = 0xffff_ffff_8100_0000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cpu {
    registers: [u64; 16],
    memory: BTreeMap<u64, u8>,
}

impl Machine for Cpu {
    fn register(&self, number: u8) -> u64 {
        self.registers[usize::from(number)]
    }
    fn set_register(&mut self, number: u8, value: u64) {
        self.registers[usize::from(number)] = value;
    }
    fn rflags(&self) -> u64 {
        0x1_0246
    }
    fn segment_base(&self, _: Segment) -> u64 {
        0x10_0000
    }
    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        if address == 0xdead {
            return false;
        }
        let addresses = (0..8).map(|offset| address.wrapping_add(offset));
        self.memory.extend(addresses.zip(bytes.iter().copied()));
        true
    }
}

fn follow(code: &[u8]) -> Followers {
    followers(START, |address| {
        let offset = usize::try_from(address.checked_sub(START)?).ok()?;
        let mut bytes = [0xcc; MAX_LENGTH];
        let rest = code.get(offset..)?;
        let count = rest.len().min(MAX_LENGTH);
        bytes[..count].copy_from_slice(&rest[..count]);
        Some(bytes)
    })
}

/// Runs all consumers. Returns the offset of the next instruction, and the CPU.
fn run(code: &[u8], flags: Flags, mut cpu: Cpu) -> (u64, Cpu) {
    let followers = follow(code);
    assert_eq!(followers.uncovered, None, "{code:x?}");
    assert_eq!(followers.consumers.iter().filter(|consumer| consumer.is_last).count(), 1);
    let mut state = (0, flags);
    for consumer in &followers.consumers {
        state = consumer.execute(state.1, &mut cpu).unwrap();
    }
    (state.0 - START, cpu)
}

#[test]
fn jumps_on_carry_go_where_the_processor_goes() {
    for (code, failed, succeeded) in [
        (&[0x72, 0x10][..], 0x12, 2),
        (&[0x73, 0x10], 2, 0x12),
        (&[0x0f, 0x82, 0, 1, 0, 0], 0x106, 6),
        (&[0x0f, 0x83, 0, 1, 0, 0], 6, 0x106),
        (&[0x76, 0x10], 0x12, 2),
        (&[0x77, 0x10], 2, 0x12),
        // mov [rsp+8],rax; mov rbx,rcx; jc
        (&[0x48, 0x89, 0x44, 0x24, 0x08, 0x48, 0x89, 0xcb, 0x72, 0x10], 0x1a, 10),
        // jmp +2 over two bytes; jc
        (&[0xeb, 0x02, 0xcc, 0xcc, 0x72, 0x10], 0x16, 6),
    ] {
        assert_eq!(run(code, Flags::FAIL_INVALID, Cpu::default()).0, failed, "{code:x?}");
        assert_eq!(run(code, Flags::SUCCESS, Cpu::default()).0, succeeded, "{code:x?}");
    }
}

#[test]
fn registers_get_the_carry_as_on_the_processor() {
    let cpu = Cpu { registers: [0x1122_3344_5566_7788; 16], ..Cpu::default() };
    let rax = |code: &[u8], flags| run(code, flags, cpu.clone()).1.registers[0];
    for (code, failed, succeeded) in [
        (&[0x0f, 0x92, 0xc0][..], 0x1122_3344_5566_7701, 0x1122_3344_5566_7700), // setc al
        (&[0x0f, 0x93, 0xc4], 0x1122_3344_5566_0088, 0x1122_3344_5566_0188),     // setnc ah
        (&[0x48, 0x19, 0xc0], u64::MAX, 0),                                      // sbb rax,rax
        (&[0x19, 0xc0], 0xffff_ffff, 0),                                         // sbb eax,eax
        (&[0x83, 0xd0, 0x00], 0x5566_7789, 0x5566_7788),                         // adc eax,0
        (&[0x48, 0x83, 0xd8, 0xff], 0x1122_3344_5566_7788, 0x1122_3344_5566_7789), // sbb rax,-1
        (&[0x15, 1, 0, 0, 0], 0x5566_778a, 0x5566_7789),                         // adc eax,1
        (&[0x9f], 0x1122_3344_5566_0388, 0x1122_3344_5566_0288),                 // lahf
    ] {
        assert_eq!(rax(code, Flags::FAIL_INVALID), failed, "{code:x?}");
        assert_eq!(rax(code, Flags::SUCCESS), succeeded, "{code:x?}");
    }
    let mut other = cpu.clone();
    other.registers[3] = 7;
    // cmovc eax,ebx: the upper half is cleared even if nothing is moved.
    let code = [0x0f, 0x42, 0xc3];
    assert_eq!(run(&code, Flags::FAIL_INVALID, other.clone()).1.registers[0], 7);
    assert_eq!(run(&code, Flags::SUCCESS, other).1.registers[0], 0x5566_7788);
}

#[test]
fn setc_with_rex_means_another_register() {
    let cpu = run(&[0x40, 0x0f, 0x92, 0xc6], Flags::FAIL_INVALID, Cpu::default()).1;
    assert_eq!((cpu.registers[6], cpu.registers[2]), (1, 0), "sil, not dh");
}

#[test]
fn memory_gets_the_carry() {
    let mut cpu = Cpu::default();
    (cpu.registers[5], cpu.registers[4]) = (0x2000, 0x3000);
    // setc byte [rbp-1]
    let (_, after) = run(&[0x0f, 0x92, 0x45, 0xff], Flags::FAIL_INVALID, cpu.clone());
    assert_eq!(after.memory, BTreeMap::from([(0x1fff, 1)]));
    // pushfq: RF is 0, bit 1 is 1, the arithmetic flags are those given.
    let (_, after) = run(&[0x9c], Flags::FAIL_INVALID, cpu.clone());
    let image: Vec<u8> = after.memory.into_values().collect();
    assert_eq!((image, after.registers[4]), (0x203u64.to_le_bytes().to_vec(), 0x2ff8));
    cpu.registers[5] = 0xdeae;
    let consumer = follow(&[0x0f, 0x92, 0x45, 0xff]).consumers[0];
    assert_eq!(consumer.execute(Flags::SUCCESS, &mut cpu), Err(NotMapped));
}

#[test]
fn several_instructions_read_the_flags_and_the_last_is_marked() {
    // setc al; mov ecx,5; sbb edx,edx; jc: SBB of a register from itself keeps the carry.
    let code = [0x0f, 0x92, 0xc0, 0xb9, 5, 0, 0, 0, 0x19, 0xd2, 0x72, 0x10];
    let marks: Vec<bool> =
        follow(&code).consumers.iter().map(|consumer| consumer.is_last).collect();
    assert_eq!(marks, [false, false, true]);
    let (end, cpu) = run(&code, Flags::FAIL_INVALID, Cpu::default());
    assert_eq!((end, cpu.registers[0], cpu.registers[2]), (0x1c, 1, 0xffff_ffff));
}

#[test]
fn flags_are_dead_where_they_are_overwritten_or_the_function_ends() {
    for code in [
        &[0x48, 0x85, 0xc0, 0x72, 0x10][..],         // test rax,rax; jc
        &[0xc3],                                     // ret
        &[0xe8, 0, 0, 0, 0],                         // call
        &[0x48, 0x83, 0xc4, 0x08],                   // add rsp,8
        &[0x31, 0xc0],                               // xor eax,eax
        &[0x66, 0x0f, 0x01, 0xcf],                   // another SEAMCALL
        &[0x5b, 0x41, 0x5c, 0xc9, 0xc3],             // pop, pop, leave, ret
        &[0x49, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8, 0xc3], // mov r8,imm64; ret
        &[0x0f, 0x0b],                               // ud2
        &[0x48, 0xc1, 0xee, 0x08],                   // shr rsi,8
    ] {
        assert_eq!(follow(code), Followers::default(), "{code:x?}");
    }
}

#[test]
fn code_that_is_not_covered_is_named_with_its_bytes() {
    for (code, offset) in [
        (&[0xfd][..], 0),         // std
        (&[0x90, 0xff, 0xc0], 1), // inc eax keeps the carry
        (&[0x11, 0x03], 0),       // adc [rbx],eax
        (&[0x0f, 0x42, 0x03], 0), // cmovc eax,[rbx]
        (&[0xf5], 0),             // cmc
        (&[0xd1, 0xd0], 0),       // rcl eax,1
        // ja; nop; setc al: a second reader, where the jump is not taken.
        (&[0x77, 0x04, 0x90, 0x0f, 0x92, 0xc0, 0xc3], 3),
        // jc; ret; jc: a second reader, where the jump is taken.
        (&[0x72, 0x01, 0xc3, 0x72, 0x10], 3),
    ] {
        let uncovered = follow(code).uncovered.unwrap();
        assert_eq!(uncovered.address, START + offset, "{code:x?}");
        assert!(uncovered.bytes.starts_with(&code[offset as usize..]));
    }
    let text = follow(&[0xf5]).uncovered.unwrap().to_string();
    assert!(text.starts_with("at 0xffffffff81000000: f5 cc"), "{text}");
}

#[test]
fn code_that_is_not_mapped_is_not_covered() {
    let found = followers(START, |address| (address == START).then_some([0x90; MAX_LENGTH]));
    assert_eq!(found.uncovered.unwrap().address, START + 1);
}

#[test]
fn a_loop_without_an_end_is_followed_for_a_while_only() {
    assert_eq!(follow(&[0xeb, 0xfe]), Followers::default());
}

proptest! {
    #[test]
    fn any_code_is_followed_and_carried_out(code in proptest::collection::vec(any::<u8>(), 0..64),
        carry: bool) {
        let mut cpu = Cpu::default();
        let mut flags = if carry { Flags::FAIL_INVALID } else { Flags::SUCCESS };
        for consumer in follow(&code).consumers {
            if let Ok((_, after)) = consumer.execute(flags, &mut cpu) {
                flags = after;
            }
        }
    }
}
