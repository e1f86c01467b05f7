//! See `tdx_seamldr_worlds::fuzz::explain_log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::explain_log(input));
