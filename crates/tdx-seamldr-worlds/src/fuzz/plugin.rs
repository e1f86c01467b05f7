//! Decodes any bytes as code of a guest, and parses them as options of the plugin for QEMU.

use tdx_seamldr_qemu::carry::{followers, Machine};
use tdx_seamldr_qemu::decode::{decode, Decoded};
use tdx_seamldr_qemu::encoding::{Segment, MAX_LENGTH};
use tdx_seamldr_qemu::flags::Flags;
use tdx_seamldr_qemu::options::Options;

/// A CPU that accepts all accesses except writes to odd addresses.
struct Cpu([u64; 16]);

impl Machine for Cpu {
    fn register(&self, number: u8) -> u64 {
        self.0[usize::from(number)]
    }
    fn set_register(&mut self, number: u8, value: u64) {
        self.0[usize::from(number)] = value;
    }
    fn rflags(&self) -> u64 {
        2
    }
    fn segment_base(&self, _: Segment) -> u64 {
        0
    }
    fn write(&mut self, address: u64, _: &[u8]) -> bool {
        address & 1 == 0
    }
}

/// Takes code. Decodes an instruction at each byte, and follows the code behind SEAMCALL.
pub fn decode_instruction(code: &[u8]) {
    for start in 0..code.len() {
        if let Ok(Some(Decoded { length, .. })) = decode(&code[start..]) {
            let end = start + usize::from(length);
            assert!((2..=MAX_LENGTH).contains(&usize::from(length)) && end <= code.len());
            assert_eq!(decode(&code[start..end]), decode(&code[start..]));
            assert!(decode(&code[start..end - 1]).is_err());
        }
    }
    let at = |address: u64| {
        let rest = code.get(usize::try_from(address).ok()?..)?;
        let mut bytes = [0; MAX_LENGTH];
        bytes.iter_mut().zip(rest).for_each(|(slot, byte)| *slot = *byte);
        Some(bytes)
    };
    let found = followers(0, at);
    let (mut cpu, mut flags) = (Cpu([0x1234_5678; 16]), Flags::FAIL_INVALID);
    for (index, consumer) in found.consumers.iter().enumerate() {
        assert_eq!(consumer.is_last, index + 1 == found.consumers.len());
        if let Ok((_, after)) = consumer.execute(flags, &mut cpu) {
            flags = after;
        }
    }
}

/// Takes the options of the plugin, one per line.
pub fn plugin_options(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Err(error) = Options::parse(text.lines()) {
        assert!(!error.to_string().is_empty());
    }
}
