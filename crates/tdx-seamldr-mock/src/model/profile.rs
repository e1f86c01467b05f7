//! What tells one generation of P-SEAMLDR from another.

use tdx_seamldr_core::abi::SeamldrStatus;

/// A generation of P-SEAMLDR, as data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderProfile {
    /// Major version that SEAMLDR.INFO reports.
    pub major: u16,
    /// Minor version.
    pub minor: u16,
    /// YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// The fewest pages that a module may have.
    pub min_module_pages: u64,
    /// What it answers to an update with another major SVN.
    pub major_svn_mismatch: SeamldrStatus,
    /// Bytes 1000 to 1023 of a SIGSTRUCT have to be zero.
    pub reserved3_is_zero: bool,
}

impl LoaderProfile {
    /// 1.5.00, for processors that run 1.5 modules.
    pub const V1_5_00: Self = Self {
        major: 1,
        minor: 5,
        build_date: 20250131,
        build_num: 77,
        min_module_pages: 0,
        major_svn_mismatch: SeamldrStatus::EBADCALL,
        reserved3_is_zero: true,
    };

    /// 2.0.00, for processors that run 2.0 modules. Its sources are not published; it is 1.5.00 as far as is known, and takes
    /// the SIGSTRUCTs of the 2.0 modules.
    pub const V2_0_00: Self = Self {
        major: 2,
        minor: 0,
        build_date: 20250325,
        build_num: 1,
        reserved3_is_zero: false,
        ..Self::V1_5_00
    };
}
