//! Build-time properties of a module, and what P-SEAMLDR tells a module.

use tdx_seamldr_core::abi::{SeamSigstruct, TdxFeatures0};
use tdx_seamldr_core::TdxVersion;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::FromBytes as _;
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::releases;
use crate::model::HandoffForm;

/// Build-time properties of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModuleBuild {
    /// Version.
    pub version: TdxVersion,
    /// Internal version.
    pub internal_version: u16,
    /// Build date, YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// Features that the module supports (TDX_FEATURES0).
    pub features0: TdxFeatures0,
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Whether the module writes its highest handoff version only.
    pub no_downgrade: bool,
    /// Form of the handoff data.
    pub handoff_form: HandoffForm,
    /// Behaviour of the module's leaves.
    pub generation: ModuleGeneration,
    /// Version of the contexts of hashes and MACs in progress. A module cannot continue contexts
    /// of another version. It is assumed that it cannot continue those of a module that
    /// reports none (`None`) either.
    pub crypto_context: Option<u8>,
}

/// The oldest public release with a given behaviour. A 2.0 module behaves as the 1.5 module of the
/// same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ModuleGeneration {
    /// 1.5.01, which was recorded.
    V1_5_01,
    /// 1.5.05 and 2.0.02: TDH.SYS.RD also has the field that Linux 7.2 reads.
    V1_5_05,
    /// 1.5.28 and 2.0.16: TDH.SYS.UPDATE does not check the size of the handoff data.
    V1_5_28,
    /// 1.5.34 and 2.0.18: TDH.SYS.UPDATE checks its operands first, and TDH.SYS.INIT has a version
    /// 1.
    V1_5_34,
}

impl ModuleGeneration {
    /// All generations, in the order of their numbers in an image.
    const ALL: [Self; 4] = [Self::V1_5_01, Self::V1_5_05, Self::V1_5_28, Self::V1_5_34];
}

/// Build-time properties that an image made for this simulation contains. A real module has them in
/// its code.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(crate) struct Description {
    magic: [u8; 8],
    version: [U16; 4],
    build_date: U32,
    build_num: U16,
    module_hv: U16,
    min_update_hv: U16,
    no_downgrade: u8,
    handoff_form: u8,
    features0: U64,
    generation: u8,
    /// 0: not reported.
    crypto_context: u8,
    reserved: [u8; 2],
}

impl Description {
    /// Offset in the image.
    pub(crate) const OFFSET: usize = 0x180;
    const MAGIC: [u8; 8] = *b"TDXMODEL";

    #[cfg(any(feature = "std", test))]
    pub(crate) fn new(build: &ModuleBuild) -> Self {
        let TdxVersion { major, minor, update } = build.version;
        Self {
            magic: Self::MAGIC,
            version: [major, minor, update, build.internal_version].map(U16::new),
            build_date: U32::new(build.build_date),
            build_num: U16::new(build.build_num),
            module_hv: U16::new(build.module_hv),
            min_update_hv: U16::new(build.min_update_hv),
            no_downgrade: build.no_downgrade.into(),
            handoff_form: match build.handoff_form {
                HandoffForm::Plain => 0,
                HandoffForm::Connect => 1,
                HandoffForm::Counting => 2,
                HandoffForm::Rounded => 3,
            },
            features0: U64::new(build.features0.bits()),
            generation: (0u8..)
                .zip(ModuleGeneration::ALL)
                .find(|(_, generation)| *generation == build.generation)
                .map_or(0, |(number, _)| number),
            crypto_context: build.crypto_context.unwrap_or(0),
            reserved: [0; 2],
        }
    }

    fn build(&self) -> ModuleBuild {
        let [major, minor, update, internal_version] = self.version.map(U16::get);
        ModuleBuild {
            version: TdxVersion { major, minor, update },
            internal_version,
            build_date: self.build_date.get(),
            build_num: self.build_num.get(),
            features0: TdxFeatures0::from_bits_retain(self.features0.get()),
            module_hv: self.module_hv.get(),
            min_update_hv: self.min_update_hv.get(),
            no_downgrade: self.no_downgrade != 0,
            handoff_form: match self.handoff_form {
                0 => HandoffForm::Plain,
                1 => HandoffForm::Connect,
                2 => HandoffForm::Counting,
                _ => HandoffForm::Rounded,
            },
            generation: *ModuleGeneration::ALL
                .get(usize::from(self.generation))
                .unwrap_or(&ModuleGeneration::V1_5_34),
            crypto_context: Some(self.crypto_context).filter(|context| *context != 0),
        }
    }
}

impl ModuleBuild {
    /// 1.5.01, which was recorded.
    pub const V1_5_01: Self = Self {
        version: TdxVersion { major: 1, minor: 5, update: 1 },
        internal_version: 0,
        build_date: 20230808,
        build_num: 451,
        features0: TdxFeatures0::from_bits_retain(0xF0FBF),
        module_hv: 0,
        min_update_hv: 0,
        no_downgrade: false,
        handoff_form: HandoffForm::Plain,
        generation: ModuleGeneration::V1_5_01,
        crypto_context: None,
    };

    /// Returns the build of a public release, or `None` if there is no such release.
    ///
    /// Handoff versions and the date are 0 if no public source gives them. Features that no public
    /// source gives are those of the release before.
    #[must_use]
    pub fn of_release(version: TdxVersion) -> Option<Self> {
        releases::by_version(version)
    }

    /// Returns the build of an image.
    ///
    /// An image made for this simulation contains its build. A released image is known by its hash,
    /// or else by its SVN. For other images the SIGSTRUCT is the only source; the rest is assumed:
    /// version 1.5 with the minor SVN, and support for preserving TDs.
    #[must_use]
    pub fn of_image(sigstruct: &SeamSigstruct, image: &[u8]) -> Self {
        let described = image
            .get(Description::OFFSET..)
            .and_then(|rest| Description::read_from_prefix(rest).ok())
            .filter(|(description, _)| description.magic == Description::MAGIC);
        if let Some((description, _)) = described {
            return description.build();
        }
        let known = releases::by_image(sigstruct).unwrap_or(Self {
            version: TdxVersion { major: 1, minor: 5, update: sigstruct.svn_minor.into() },
            build_date: 0,
            build_num: 0,
            ..Self::V1_5_01
        });
        let build_date = match known.build_date {
            0 => bcd_to_decimal(sigstruct.date.get()),
            date => date,
        };
        Self {
            build_date,
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
            ..known
        }
    }
}

fn bcd_to_decimal(bcd: u32) -> u32 {
    (0..8).rev().fold(0u32, |sum, digit| {
        sum.wrapping_mul(10).wrapping_add(bcd >> (4u32.wrapping_mul(digit)) & 0xf)
    })
}

/// What P-SEAMLDR tells a module through its system information page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SysInfo {
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Whether the module may write its highest handoff version only.
    pub no_downgrade: bool,
    /// Number of pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// Number of LPs that have to be initialised.
    pub tot_num_lps: u32,
    /// Number of packages that have to get the module's key.
    pub num_packages: u32,
}

impl SysInfo {
    /// Returns the largest size of the handoff data in bytes.
    pub(super) fn handoff_limit(&self) -> usize {
        Self::room_in(usize::from(self.num_handoff_pages).saturating_add(1))
    }

    /// Returns how many bytes after the header fit into this number of pages.
    pub(super) const fn room_in(pages: usize) -> usize {
        pages.saturating_mul(4096).saturating_sub(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::{FromZeros, IntoBytes};

    #[test]
    fn a_date_is_decimal_in_the_module_and_hexadecimal_digits_in_the_sigstruct() {
        assert_eq!(bcd_to_decimal(0x20250219), 20250219);
    }

    #[test]
    fn an_image_describes_its_build_and_a_released_one_is_known_by_its_svn() {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        (sigstruct.svn_major, sigstruct.svn_minor) = (3, 5);
        let mut image = vec![0; 4096];
        let released = ModuleBuild::of_image(&sigstruct, &image);
        assert_eq!(
            (released.version.to_string().as_str(), released.handoff_form),
            ("2.0.08", HandoffForm::Connect)
        );
        let build = ModuleBuild {
            module_hv: 7,
            handoff_form: HandoffForm::Rounded,
            generation: ModuleGeneration::V1_5_28,
            crypto_context: Some(7),
            features0: TdxFeatures0::UPDATE_COMPATIBILITY,
            ..ModuleBuild::V1_5_01
        };
        Description::new(&build).write_to_prefix(&mut image[Description::OFFSET..]).unwrap();
        assert_eq!(ModuleBuild::of_image(&sigstruct, &image), build);
    }
}
