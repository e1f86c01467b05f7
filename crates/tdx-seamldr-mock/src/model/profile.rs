//! What tells one generation of P-SEAMLDR from another.

use tdx_seamldr_core::abi::{SeamSigstruct, SeamldrStatus};

/// What an update has to look like beside what runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SvnRule {
    /// The SVN is one number of 16 bits that must not become lower.
    OneNumber,
    /// The major SVN has to be the same, or this is the answer; the minor SVN must not become
    /// lower.
    SameMajor(SeamldrStatus),
}

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
    /// It reports itself as a debug build.
    pub debug: bool,
    /// The fewest pages that a module may have.
    pub min_module_pages: u64,
    /// What an update has to look like beside what runs.
    pub svn_rule: SvnRule,
    /// Modules with major SVN 0 are refused: EUNSUPPORTED.
    pub refuses_major_0: bool,
    /// An update leaves the handoff data alone, and the processor's database counts it.
    pub preserves_tds: bool,
    /// The image's relocations and interrupt gates are put right, and their places are checked.
    pub relocates: bool,
    /// Production modules have to name the CPUs they run on.
    pub needs_cpu_list: bool,
    /// Bytes 1000 to 1023 of a SIGSTRUCT have to be zero.
    pub reserved3_is_zero: bool,
    /// There is SEAMLDR.CLEANUP, and with it the order of one thing after the other that it needs.
    pub has_cleanup: bool,
}

impl LoaderProfile {
    /// 1.0, which cannot preserve TDs.
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

    /// 1.5.00, for processors that run 1.5 modules.
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

    /// The generation after it, with SEAMLDR.CLEANUP.
    pub const NEWER: Self = Self {
        build_num: 102,
        min_module_pages: 1,
        svn_rule: SvnRule::SameMajor(SeamldrStatus::EUNSUPPORTED),
        refuses_major_0: true,
        has_cleanup: true,
        ..Self::V1_5_00
    };

    /// 2.0.00, for processors that run 2.0 modules. Its sources are not published; it is 1.5.00 as
    /// far as is known, and takes the SIGSTRUCTs of the 2.0 modules.
    pub const V2_0_00: Self = Self {
        major: 2,
        minor: 0,
        build_date: 20250325,
        build_num: 1,
        reserved3_is_zero: false,
        ..Self::V1_5_00
    };

    /// All of them, with a name for each.
    pub const ALL: [(&'static str, Self); 4] = [
        ("1.0", Self::V1_0),
        ("1.5.00", Self::V1_5_00),
        ("newer", Self::NEWER),
        ("2.0.00", Self::V2_0_00),
    ];

    /// The generation of the image's line: 2.0.00 for a SIGSTRUCT that uses what older generations
    /// reserve, else 1.5.00.
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
