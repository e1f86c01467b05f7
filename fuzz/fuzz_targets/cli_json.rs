//! See `tdx_seamldr_worlds::fuzz::cli_json`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::cli_json(input));
