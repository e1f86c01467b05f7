//! Which version of the interface this is.

/// Version of this header: major << 16 | minor << 8 | patch. It is a version in the sense of
/// semver.org.
pub const TDX_SIM_VERSION: u32 = 0x0000_0100;

/// The version of the library that the program runs with, in the form of TDX_SIM_VERSION. If it is
/// the same, header and library fit; as they do if the first number that is not 0 is the same, and
/// the rest is not lower than that of the header.
#[no_mangle]
pub extern "C" fn tdx_sim_version() -> u32 {
    TDX_SIM_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_crate() {
        let numbers: Vec<u32> =
            env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(TDX_SIM_VERSION, numbers[0] << 16 | numbers[1] << 8 | numbers[2]);
        assert_eq!(tdx_sim_version(), TDX_SIM_VERSION);
    }
}
