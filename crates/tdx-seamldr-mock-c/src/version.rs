//! The version of the interface.

/// Version of this header: major << 16 | minor << 8 | patch, as in semver.org.
pub const TDX_SIM_VERSION: u32 = 0x0000_0100;

/// Returns the version of the library at run time, in the form of TDX_SIM_VERSION. Header and
/// library match if the versions are equal. They also match if the first number that is not 0 is
/// equal, and the rest is not lower than the header's.
#[no_mangle]
pub extern "C" fn tdx_sim_version() -> u32 {
    TDX_SIM_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_equals_that_of_the_crate() {
        let numbers: Vec<u32> =
            env!("CARGO_PKG_VERSION").split('.').map(|part| part.parse().unwrap()).collect();
        assert_eq!(TDX_SIM_VERSION, numbers[0] << 16 | numbers[1] << 8 | numbers[2]);
        assert_eq!(tdx_sim_version(), TDX_SIM_VERSION);
    }
}
