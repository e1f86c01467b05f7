//! See `tdx_seamldr_worlds::fuzz::host_tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_worlds::fuzz::host_tree(input));
