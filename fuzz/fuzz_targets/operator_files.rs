//! See `tdx_seamldr_worlds::fuzz::operator_files`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::operator_files(input));
