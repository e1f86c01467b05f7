//! See `tdx_seamldr_worlds::fuzz::vector`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::vector(input));
