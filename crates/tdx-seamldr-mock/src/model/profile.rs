//! Generations of P-SEAMLDR, and their differences.

use tdx_seamldr_core::abi::{SeamSigstruct, SeamldrStatus};

/// How P-SEAMLDR compares the SVN of an update with that of the running module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvnRule {
    /// The SVN is one 16-bit number, which must not decrease.
    OneNumber,
    /// The major SVN has to be the same, or P-SEAMLDR returns this status. The minor SVN must not
    /// decrease.
    SameMajor(SeamldrStatus),
}

/// The properties of a generation of P-SEAMLDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoaderProfile {
    /// Major version, as SEAMLDR.INFO reports it.
    pub major: u16,
    /// Minor version, as SEAMLDR.INFO reports it.
    pub minor: u16,
    /// Build date, YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// Whether SEAMLDR.INFO reports a debug build.
    pub debug: bool,
    /// The fewest pages of a module that P-SEAMLDR accepts.
    pub min_module_pages: u64,
    /// How P-SEAMLDR compares the SVN of an update with that of the running module.
    pub svn_rule: SvnRule,
    /// Whether modules with major SVN 0 are refused with EUNSUPPORTED.
    pub refuses_major_0: bool,
    /// Whether an update keeps the handoff data and inserts the module into the processor's
    /// database.
    pub preserves_tds: bool,
    /// Whether P-SEAMLDR applies relocations and sets interrupt gates, and checks their places.
    pub relocates: bool,
    /// Whether production modules have to list the CPUs that they run on.
    pub needs_cpu_list: bool,
    /// Whether bytes 1000 to 1023 of a SIGSTRUCT have to be zero.
    pub reserved3_is_zero: bool,
    /// Whether there is SEAMLDR.CLEANUP. Flows (INSTALL, SHUTDOWN, CLEANUP) then exclude each
    /// other.
    pub has_cleanup: bool,
}

impl LoaderProfile {
    /// Generation 1.0, which cannot preserve TDs.
    pub const V1_0: Self = Self {
        major: 1,
        minor: 0,
        build_date: 20211231,
        build_num: 1,
        debug: false,
        min_module_pages: 0,
        svn_rule: SvnRule::OneNumber,
        refuses_major_0: false,
        preserves_tds: false,
        relocates: false,
        needs_cpu_list: false,
        reserved3_is_zero: true,
        has_cleanup: false,
    };

    /// Generation 1.5.00, for processors that run 1.5 modules.
    pub const V1_5_00: Self = Self {
        minor: 5,
        build_date: 20250131,
        build_num: 77,
        svn_rule: SvnRule::SameMajor(SeamldrStatus::EBADCALL),
        preserves_tds: true,
        relocates: true,
        needs_cpu_list: true,
        ..Self::V1_0
    };

    /// The generation after 1.5.00, with SEAMLDR.CLEANUP.
    pub const NEWER: Self = Self {
        build_num: 102,
        min_module_pages: 1,
        svn_rule: SvnRule::SameMajor(SeamldrStatus::EUNSUPPORTED),
        refuses_major_0: true,
        has_cleanup: true,
        ..Self::V1_5_00
    };

    /// Generation 2.0.00, for processors that run 2.0 modules. Its sources are not published. Here
    /// it behaves as 1.5.00, and accepts the SIGSTRUCTs of 2.0 modules.
    pub const V2_0_00: Self = Self {
        major: 2,
        minor: 0,
        build_date: 20250325,
        build_num: 1,
        reserved3_is_zero: false,
        ..Self::V1_5_00
    };

    /// All generations, with their names.
    pub const ALL: [(&'static str, Self); 4] = [
        ("1.0", Self::V1_0),
        ("1.5.00", Self::V1_5_00),
        ("newer", Self::NEWER),
        ("2.0.00", Self::V2_0_00),
    ];

    /// Returns the generation that fits an image: 2.0.00 if the SIGSTRUCT uses bytes that older
    /// generations reserve, else 1.5.00.
    #[must_use]
    pub fn fitting(sigstruct: &SeamSigstruct) -> Self {
        let line_2_0 = sigstruct.reserved3.iter().any(|byte| *byte != 0);
        if line_2_0 {
            Self::V2_0_00
        } else {
            Self::V1_5_00
        }
    }
}
