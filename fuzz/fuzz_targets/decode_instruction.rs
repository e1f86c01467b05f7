//! See `tdx_seamldr_worlds::fuzz::decode_instruction`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::decode_instruction(input));
