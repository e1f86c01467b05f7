//! See `tdx_seamldr_worlds::fuzz::params_roundtrip`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::params_roundtrip(input));
