//! See `tdx_seamldr_worlds::fuzz::plugin_options`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::plugin_options(input));
