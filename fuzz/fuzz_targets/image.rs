//! See `tdx_seamldr_trials::fuzz::image`.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| tdx_seamldr_trials::fuzz::image(input));
