//! Tests of SEAMCALL from several threads.

use super::*;
use crate::options::Options;
use std::time::Instant;

struct Memory<F: Fn()>(F);

impl<F: Fn()> PhysMemory for Memory<F> {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }
    fn write(&self, _: u64, _: &[u8]) {
        (self.0)();
    }
}

const INFO: u64 = 0x8000_0000_0000_0000;

fn firmware(options: &[&str]) -> Firmware {
    let options =
        Options::parse(["image=test"].into_iter().chain(options.iter().copied())).unwrap();
    Firmware::new(Settings::new(options, 2, 2).unwrap(), Trace::default()).unwrap()
}

fn call(firmware: &Firmware, lp: u32, rax: u64, memory: &dyn PhysMemory) -> Result<u64, Trap> {
    let mut regs =
        SeamcallRegs { rax, rcx: if rax == INFO { 0x1000 } else { 0 }, ..SeamcallRegs::default() };
    firmware.seamcall(lp, &mut regs, memory).map(|()| regs.rax)
}

#[test]
fn the_second_lp_in_p_seamldr_fails_at_once() {
    let firmware = firmware(&[]);
    let second = std::cell::Cell::new(None);
    // SEAMLDR.INFO writes to memory while the LP is inside.
    let memory = Memory(|| second.set(Some(call(&firmware, 1, INFO, &Memory(|| {})))));
    assert_eq!(call(&firmware, 0, INFO, &memory), Ok(0));
    assert_eq!(second.get(), Some(Err(Trap::VmFailInvalid)));
    assert_eq!(firmware.counters.busy.load(Ordering::Relaxed), 1);
    assert_eq!(call(&firmware, 1, INFO, &Memory(|| {})), Ok(0), "P-SEAMLDR is free again");
    let outcomes: Vec<_> =
        firmware.trace().last(3).map(|entry| (entry.lp, entry.output.is_ok())).collect();
    assert_eq!(outcomes, [(1, false), (0, true), (1, true)]);
}

#[test]
fn a_delayed_call_waits_for_others_but_not_for_ever() {
    let firmware = firmware(&["fault=leaf=TDH.SYS.INIT:delay=1:times=2"]);
    let start = Instant::now();
    assert_eq!(call(&firmware, 0, 33, &Memory(|| {})), Ok(0), "nobody comes");
    let alone = start.elapsed();
    assert!((DELAY_LIMIT..DELAY_LIMIT * 5).contains(&alone), "{alone:?}");
    let start = Instant::now();
    std::thread::scope(|scope| {
        let delayed = scope.spawn(|| call(&firmware, 0, 33, &Memory(|| {})));
        while !delayed.is_finished() {
            let _ = call(&firmware, 1, 34, &Memory(|| {}));
        }
    });
    assert!(start.elapsed() < DELAY_LIMIT);
}

#[test]
fn a_reset_brings_the_platform_back_to_power_on() {
    let firmware = firmware(&[]);
    assert_eq!(call(&firmware, 0, 33, &Memory(|| {})), Ok(0));
    assert_ne!(call(&firmware, 0, 33, &Memory(|| {})), Ok(0));
    firmware.reset().unwrap();
    assert_eq!(call(&firmware, 0, 33, &Memory(|| {})), Ok(0));
    assert_eq!(firmware.counters.resets.load(Ordering::Relaxed), 1);
}

#[test]
fn an_lp_that_does_not_exist_gets_ud() {
    assert_eq!(call(&firmware(&[]), 2, 33, &Memory(|| {})), Err(Trap::UndefinedOpcode));
}
