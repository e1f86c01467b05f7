//! See `tdx_seamldr_worlds::fuzz::update_ops`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::update_ops(input));
