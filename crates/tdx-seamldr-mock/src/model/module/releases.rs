//! Public releases of the module, as far as the simulation distinguishes them.
//!
//! The facts are in one table, in the crate `tdx-seamldr-host`; `data/releases.csv` here is a link
//! to it. This file adds the behaviour of releases, which the table does not contain.

use tdx_seamldr_core::abi::{SeamSigstruct, TdxFeatures0};
use tdx_seamldr_core::TdxVersion;

use super::{ModuleBuild, ModuleGeneration};
use crate::model::HandoffForm;

const TABLE: &str = include_str!("../../../data/releases.csv");

/// A line of the table. `None` means that no public source gives the value.
struct Release {
    version: TdxVersion,
    /// Highest and lowest handoff version, and whether the module writes the highest only.
    hv: Option<(u16, u16, bool)>,
    crypto_context: Option<u8>,
    build_date: Option<u32>,
    features0: Option<u64>,
}

fn hexadecimal(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

fn version(text: &str) -> Option<TdxVersion> {
    let mut numbers = text.split('.').map(str::parse);
    let mut next = || numbers.next()?.ok();
    Some(TdxVersion { major: next()?, minor: next()?, update: next()? })
}

impl Release {
    fn parse(line: &'static str) -> Option<Self> {
        let mut fields = line.split(',');
        let [Some(number), _, _, _, Some(hv), Some(context), Some(date), _, _, Some(features0)] =
            core::array::from_fn(|_| fields.next())
        else {
            return None;
        };
        let mut versions = hv.split('/').map(str::parse::<u16>);
        let mut hv = || versions.next()?.ok();
        Some(Self {
            version: version(number)?,
            hv: hv().and_then(|highest| Some((highest, hv()?, hv()? != 0))),
            crypto_context: context.parse().ok(),
            build_date: date.parse().ok(),
            features0: hexadecimal(features0),
        })
    }

    /// Returns the features. If the table does not give them, they are those of the previous
    /// release on the same line. UPDATE_COMPATIBILITY follows from the release notes: it is set in
    /// the first release whose notes mention it, and in all later ones.
    fn features0(&self) -> TdxFeatures0 {
        let bits = self.features0.or_else(|| {
            let TdxVersion { major, minor, update } = self.version;
            let line = releases()
                .filter(|other| (other.version.major, other.version.minor) == (major, minor));
            let before = line.filter(|other| other.version.update <= update);
            before.filter_map(|other| other.features0).last()
        });
        let mut features0 = TdxFeatures0::from_bits_retain(bits.unwrap_or(0));
        features0.set(TdxFeatures0::UPDATE_COMPATIBILITY, self.counts());
        features0
    }

    /// Returns whether the module counts compatibility-sensitive operations: 1.5.24, 2.0.14 and
    /// later.
    const fn counts(&self) -> bool {
        matches!(
            self.version,
            TdxVersion { major: 1, minor: 5, update: 24.. }
                | TdxVersion { major: 2, minor: 0, update: 14.. }
        )
    }

    const fn generation(&self) -> ModuleGeneration {
        match self.version {
            TdxVersion { major: 1, update: 34.., .. }
            | TdxVersion { major: 2, update: 18.., .. } => ModuleGeneration::V1_5_34,
            TdxVersion { major: 1, update: 28.., .. }
            | TdxVersion { major: 2, update: 16.., .. } => ModuleGeneration::V1_5_28,
            TdxVersion { major: 1, update: ..=1, .. } => ModuleGeneration::V1_5_01,
            _ => ModuleGeneration::V1_5_05,
        }
    }

    const fn handoff_form(&self) -> HandoffForm {
        match self.generation() {
            ModuleGeneration::V1_5_28 | ModuleGeneration::V1_5_34 => HandoffForm::Rounded,
            _ if self.counts() => HandoffForm::Counting,
            _ if self.version.major == 2 => HandoffForm::Connect,
            _ => HandoffForm::Plain,
        }
    }

    fn build(&self) -> ModuleBuild {
        let (module_hv, min_update_hv, no_downgrade) = self.hv.unwrap_or_default();
        ModuleBuild {
            version: self.version,
            internal_version: 0,
            build_date: self.build_date.unwrap_or(0),
            build_num: 0,
            features0: self.features0(),
            module_hv,
            min_update_hv,
            no_downgrade,
            handoff_form: self.handoff_form(),
            generation: self.generation(),
            crypto_context: self.crypto_context,
        }
    }
}

fn releases() -> impl Iterator<Item = Release> {
    // Comments and the line of column names are not releases.
    TABLE.lines().filter_map(Release::parse)
}

/// Returns the build of a release, by its version. Values that no public source gives are 0.
pub(super) fn by_version(version: TdxVersion) -> Option<ModuleBuild> {
    releases().find(|release| release.version == version).map(|release| release.build())
}

/// Returns the release with the hash of this image, or else the first release with its SVN. The
/// handoff versions come from the SIGSTRUCT.
///
/// Only the matching line is parsed, because P-SEAMLDR calls this at every update.
pub(super) fn by_image(sigstruct: &SeamSigstruct) -> Option<ModuleBuild> {
    let mrseam = sigstruct.seamhash.map(digits);
    let svn = u64::from(u16::from_be_bytes([sigstruct.svn_major, sigstruct.svn_minor]));
    let has_svn = |line: &str| line.split(',').nth(1).and_then(hexadecimal) == Some(svn);
    let known = TABLE.lines().find(|line| line.as_bytes().ends_with(mrseam.as_flattened()));
    let line = known.or_else(|| TABLE.lines().find(|line| has_svn(line)));
    line.and_then(Release::parse).map(|release| release.build())
}

/// Returns the two hexadecimal digits of a byte, as in the table.
fn digits(byte: u8) -> [u8; 2] {
    [byte >> 4, byte & 0xf]
        .map(|digit| digit.wrapping_add(if digit < 10 { b'0' } else { b'a' - 10 }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros as _;

    fn of(major: u16, minor: u16, update: u16) -> ModuleBuild {
        by_version(TdxVersion { major, minor, update }).unwrap()
    }

    #[test]
    fn the_table_has_every_column_that_the_code_reads() {
        let names = TABLE.lines().find(|line| line.starts_with("version,"));
        let expected =
            "version,svn,image,cpus,hv,ctx,build_date,min_module,min_seamldr,features0,mrseam";
        assert_eq!(names, Some(expected));
        let lines =
            TABLE.lines().filter(|line| !line.starts_with('#') && !line.starts_with("version,"));
        assert_eq!(releases().count(), lines.count());
    }

    #[test]
    fn builds_of_the_first_release_and_of_the_table_are_the_same() {
        let recorded = ModuleBuild { build_date: 0, build_num: 0, ..ModuleBuild::V1_5_01 };
        assert_eq!(of(1, 5, 1), recorded);
    }

    #[test]
    fn releases_have_the_generations_forms_and_contexts_that_are_published() {
        use HandoffForm::{Connect, Counting, Plain, Rounded};
        use ModuleGeneration::{V1_5_01, V1_5_05, V1_5_28, V1_5_34};
        for ((major, minor, update), generation, form, context, hv, bits) in [
            ((1, 5, 1), V1_5_01, Plain, None, (0, false), 0xF0FBF),
            ((1, 5, 16), V1_5_05, Plain, None, (0, false), 0x226F3F0FBF),
            ((1, 5, 20), V1_5_05, Plain, None, (0, false), 0x226F3F0FBF),
            ((1, 5, 24), V1_5_05, Counting, None, (0, false), 0x226F3F0FBF | 1 << 47),
            ((1, 5, 28), V1_5_28, Rounded, Some(1), (1, true), 0x226F3F0FBF | 1 << 47),
            ((1, 5, 34), V1_5_34, Rounded, Some(2), (2, true), 0x226F3F0FBF | 1 << 47),
            ((2, 0, 5), V1_5_05, Connect, None, (0, false), 0x226F3F0FBF),
            ((2, 0, 12), V1_5_05, Connect, None, (0, false), 0x32A71F0FBF),
            ((2, 0, 14), V1_5_05, Counting, None, (0, false), 0x32A71F0FBF | 1 << 47),
            ((2, 0, 16), V1_5_28, Rounded, Some(1), (1, true), 0x32A71F0FBF | 1 << 47),
            ((2, 0, 18), V1_5_34, Rounded, Some(1), (2, true), 0x32A71F0FBF | 1 << 47),
        ] {
            let build = of(major, minor, update);
            let found = (build.generation, build.handoff_form, build.crypto_context);
            assert_eq!(found, (generation, form, context), "{}", build.version);
            assert_eq!((build.module_hv, build.no_downgrade), hv, "{}", build.version);
            assert_eq!(build.features0.bits(), bits, "{}", build.version);
        }
        assert_eq!(by_version(TdxVersion { major: 1, minor: 5, update: 29 }), None);
    }

    #[test]
    fn the_hash_decides_and_the_svn_only_if_no_release_has_the_hash() {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        (sigstruct.svn_major, sigstruct.svn_minor) = (3, 4);
        let name =
            |sigstruct: &SeamSigstruct| by_image(sigstruct).map(|build| build.version.to_string());
        assert_eq!(name(&sigstruct).as_deref(), Some("2.0.04"), "the first with this SVN");
        let line = TABLE.lines().find(|line| line.starts_with("2.0.05,")).unwrap();
        let (_, mrseam) = line.rsplit_once(',').unwrap();
        for (byte, pair) in sigstruct.seamhash.iter_mut().zip(mrseam.as_bytes().chunks(2)) {
            *byte = u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
        }
        assert_eq!(name(&sigstruct).as_deref(), Some("2.0.05"));
        sigstruct.seamhash[47] ^= 1;
        (sigstruct.svn_major, sigstruct.svn_minor) = (1, 0x7f);
        assert_eq!(name(&sigstruct), None);
    }
}
