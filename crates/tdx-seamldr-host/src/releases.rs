//! The public releases of the TDX module.

use std::path::Path;

use serde::Deserialize;
use tdx_seamldr_core::abi::{Svn, TdxFeatures0, FMS_MASK};
use tdx_seamldr_core::preflight::HandoffRange;
use tdx_seamldr_core::{Sha384Digest, TdxVersion};

use crate::catalogue::{read_text, FileError};
use crate::trust::check_trusted;
use crate::version::parse_version;

/// The largest table, in bytes.
const MAX_TABLE: u64 = 1 << 20;

/// A family of server processors with TDX.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Platform {
    /// Sapphire Rapids.
    Spr,
    /// Emerald Rapids.
    Emr,
    /// Sierra Forest.
    Srf,
    /// Granite Rapids.
    Gnr,
    /// Clearwater Forest.
    Cwf,
}

impl Platform {
    /// All platforms.
    pub const ALL: [Self; 5] = [Self::Spr, Self::Emr, Self::Srf, Self::Gnr, Self::Cwf];

    /// Returns the platform of a processor, by CPUID.1:EAX. The stepping does not count.
    #[must_use]
    pub const fn of_processor(cpuid_1_eax: u32) -> Option<Self> {
        Some(match cpuid_1_eax & FMS_MASK {
            0x806f0 => Self::Spr,
            0xc06f0 => Self::Emr,
            0xa06f0 => Self::Srf,
            0xa06d0 | 0xa06e0 => Self::Gnr,
            0xd06d0 => Self::Cwf,
            _ => return None,
        })
    }

    /// Returns a processor of this platform, by CPUID.1:EAX.
    #[must_use]
    pub const fn processor(self) -> u32 {
        match self {
            Self::Spr => 0x806f8,
            Self::Emr => 0xc06f2,
            Self::Srf => 0xa06f3,
            Self::Gnr => 0xa06d1,
            Self::Cwf => 0xd06d0,
        }
    }

    /// Returns the name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Spr => "Sapphire Rapids",
            Self::Emr => "Emerald Rapids",
            Self::Srf => "Sierra Forest",
            Self::Gnr => "Granite Rapids",
            Self::Cwf => "Clearwater Forest",
        }
    }

    /// Returns the code that the table of releases uses.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Spr => "SPR",
            Self::Emr => "EMR",
            Self::Srf => "SRF",
            Self::Gnr => "GNR",
            Self::Cwf => "CWF",
        }
    }
}

/// A public release of the TDX module. Facts that no public source has are `None` or empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The version.
    pub version: TdxVersion,
    /// The SVN in the SIGSTRUCT.
    pub svn: Svn,
    /// Whether Intel publishes a signed image.
    pub image: bool,
    /// The platforms of the release.
    pub platforms: Vec<Platform>,
    /// The handoff versions of the build.
    pub handoff: Option<HandoffRange>,
    /// The version of the crypto contexts. An update that changes it breaks a TD in build.
    pub crypto_context: Option<u32>,
    /// The oldest running module that may be updated to this release, from Intel's
    /// `mapping_file.json`.
    pub min_module: Option<TdxVersion>,
    /// The oldest P-SEAMLDR of each line for this release, from Intel's `mapping_file.json` or the
    /// release notes.
    pub min_seamldr: Vec<TdxVersion>,
    /// TDX_FEATURES0.
    pub features0: Option<TdxFeatures0>,
    /// The SHA-384 of the module.
    pub mrseam: Sha384Digest,
}

/// Why a table of releases cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the table of releases: {problem}")]
pub struct TableError {
    /// The line, from 1.
    pub line: u64,
    /// What was found and what was expected.
    pub problem: String,
}

/// A table of releases.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Releases {
    all: Vec<Release>,
}

/// A line of the table. Other columns are ignored.
#[derive(Deserialize)]
struct Row<'a> {
    version: &'a str,
    svn: &'a str,
    image: &'a str,
    cpus: &'a str,
    hv: &'a str,
    ctx: &'a str,
    #[serde(default)]
    min_module: &'a str,
    #[serde(default)]
    min_seamldr: &'a str,
    #[serde(default)]
    features0: &'a str,
    mrseam: &'a str,
}

impl Releases {
    /// Returns the releases that were public in November 2026.
    ///
    /// # Panics
    ///
    /// Never: a test reads the table.
    #[must_use]
    #[allow(clippy::expect_used)]
    pub fn built_in() -> Self {
        Self::parse(include_str!("../data/releases.csv"))
            .expect("the table is a part of the program")
    }

    /// Reads a table from a file. Only root may be able to change the file, because SVN and handoff
    /// versions of the running module come from it.
    ///
    /// # Errors
    ///
    /// The file is not regular, has more than 1 MiB, is writable for users other than root, or is
    /// not a [table](Self::parse).
    pub fn read(path: &Path) -> Result<Self, FileError> {
        check_trusted(path).map_err(|error| FileError::new(path, error))?;
        let table = read_text(path, MAX_TABLE, "table of releases")?;
        Self::parse(&table).map_err(|error| FileError::new(path, error))
    }

    /// Reads a table in the form of `data/releases.csv`: lines of comma-separated values under a
    /// line of names. The columns `min_module`, `min_seamldr` and `features0` may be absent.
    /// Lines that begin with `#` are comments.
    ///
    /// # Errors
    ///
    /// A value does not fit its column, or a version or hash occurs twice.
    pub fn parse(table: &str) -> Result<Self, TableError> {
        let mut reader = csv::ReaderBuilder::new()
            .comment(Some(b'#'))
            .trim(csv::Trim::All)
            .from_reader(table.as_bytes());
        let wrong = |error: &csv::Error| TableError {
            line: error.position().map_or(0, csv::Position::line),
            problem: error.to_string(),
        };
        let names = reader.headers().map_err(|error| wrong(&error))?.clone();
        let mut all: Vec<Release> = Vec::new();
        let mut record = csv::StringRecord::new();
        while reader.read_record(&mut record).map_err(|error| wrong(&error))? {
            let line = record.position().map_or(0, csv::Position::line);
            let row: Row<'_> = record.deserialize(Some(&names)).map_err(|error| wrong(&error))?;
            let release = row.release().map_err(|problem| TableError { line, problem })?;
            if let Some(same) = all
                .iter()
                .find(|known| known.version == release.version || known.mrseam == release.mrseam)
            {
                let problem =
                    format!("{} has the version or the hash of {}", release.version, same.version);
                return Err(TableError { line, problem });
            }
            all.push(release);
        }
        Ok(Self { all })
    }

    /// Returns all releases, in the order of the table.
    #[must_use]
    pub fn all(&self) -> &[Release] {
        &self.all
    }

    /// Returns the release with this version.
    #[must_use]
    pub fn by_version(&self, version: TdxVersion) -> Option<&Release> {
        self.all.iter().find(|release| release.version == version)
    }

    /// Returns the release with this SHA-384 of its module.
    #[must_use]
    pub fn by_mrseam(&self, mrseam: &Sha384Digest) -> Option<&Release> {
        self.all.iter().find(|release| release.mrseam == *mrseam)
    }
}

impl Row<'_> {
    fn release(&self) -> Result<Release, String> {
        let svn = hex(self.svn)?;
        let [minor, major, 0, 0, 0, 0, 0, 0] = svn.to_le_bytes() else {
            return Err(format!("the SVN is {}, but should be at most 0xffff", self.svn));
        };
        Ok(Release {
            version: version(self.version)?,
            svn: Svn { major, minor },
            image: match self.image {
                "yes" => true,
                "" => false,
                other => return Err(format!("image is {other:?}, but should be \"yes\" or empty")),
            },
            platforms: self.cpus.split_whitespace().map(platform).collect::<Result<_, _>>()?,
            handoff: known(self.hv).map(handoff).transpose()?,
            crypto_context: known(self.ctx)
                .map(|text| {
                    text.parse().map_err(|_| format!("ctx is {text:?}, but should be a number"))
                })
                .transpose()?,
            min_module: known(self.min_module).map(version).transpose()?,
            min_seamldr: self
                .min_seamldr
                .split_whitespace()
                .map(version)
                .collect::<Result<_, _>>()?,
            features0: known(self.features0)
                .map(hex)
                .transpose()?
                .map(TdxFeatures0::from_bits_retain),
            mrseam: parse_digest(self.mrseam)?,
        })
    }
}

fn known(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

/// Reads a version.
pub(crate) fn version(text: &str) -> Result<TdxVersion, String> {
    parse_version(text).map_err(|error| error.to_string())
}

/// Reads a number of hexadecimal digits after `0x`.
pub(crate) fn hex(text: &str) -> Result<u64, String> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    digits
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .ok_or_else(|| format!("{text:?} is not a number: expected hexadecimal digits after 0x"))
}

fn platform(code: &str) -> Result<Platform, String> {
    Platform::ALL
        .into_iter()
        .find(|platform| platform.code() == code)
        .ok_or_else(|| format!("{code:?} is not a platform: expected SPR, EMR, SRF, GNR or CWF"))
}

fn handoff(text: &str) -> Result<HandoffRange, String> {
    let wrong = || {
        format!("hv is {text:?}, but should be module_hv/min_update_hv/no_downgrade as in 1/0/1")
    };
    let mut numbers = text.split('/').map(|number| number.parse::<u16>().map_err(|_| wrong()));
    let mut next = || numbers.next().unwrap_or_else(|| Err(wrong()));
    let (module_hv, min_update_hv, no_downgrade) = (next()?, next()?, next()?);
    if no_downgrade > 1 || numbers.next().is_some() {
        return Err(wrong());
    }
    Ok(HandoffRange { module_hv, min_update_hv, no_downgrade: no_downgrade == 1 })
}

/// Reads a SHA-384 of 96 hexadecimal digits.
///
/// # Errors
///
/// The text is not a SHA-384. The error says what was found.
pub fn parse_digest(text: &str) -> Result<Sha384Digest, String> {
    let wrong = || {
        format!(
            "a SHA-384 has 96 hexadecimal digits, but {} characters were found",
            text.chars().count()
        )
    };
    if text.len() != 96 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let mut digest = [0; 48];
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *slot = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn each_platform_has_a_processor_of_its_own() {
        for platform in Platform::ALL {
            assert_eq!(Platform::of_processor(platform.processor()), Some(platform));
        }
    }

    #[test]
    fn built_in_table_has_twenty_releases_and_each_is_found_by_version_and_hash() {
        let releases = Releases::built_in();
        assert_eq!(releases.all().len(), 20);
        for release in releases.all() {
            assert_eq!(releases.by_version(release.version), Some(release));
            assert_eq!(releases.by_mrseam(&release.mrseam), Some(release));
        }
        let newest = releases.by_version(parse_version("1.5.34").unwrap()).unwrap();
        assert_eq!(newest.svn, Svn { major: 1, minor: 15 });
        assert_eq!(
            newest.handoff,
            Some(HandoffRange { module_hv: 2, min_update_hv: 0, no_downgrade: true })
        );
        assert_eq!((newest.crypto_context, newest.min_module), (Some(2), None));
    }

    #[test]
    fn table_without_optional_columns_is_read() {
        let table = format!(
            "version,svn,image,cpus,hv,ctx,build_date,mrseam\n9.9.01,0x0909,,GNR CWF,,,,{}\n",
            "ab".repeat(48)
        );
        let releases = Releases::parse(&table).unwrap();
        assert_eq!(releases.all()[0].platforms, [Platform::Gnr, Platform::Cwf]);
        assert_eq!(releases.all()[0].mrseam, [0xab; 48]);
    }

    #[test]
    fn wrong_value_is_named_with_its_line() {
        let table = include_str!("../data/releases.csv");
        let changes = [
            ("1.5.05,0x0105", "1.5.x5,0x0105", "\"1.5.x5\" is not a version"),
            ("1.5.05,0x0105", "1.5.05,0x10105", "should be at most 0xffff"),
            ("1.5.05,0x0105", "1.5.05,0105", "expected hexadecimal digits after 0x"),
            ("1.5.05,0x0105,yes", "1.5.05,0x0105,maybe", "image is \"maybe\""),
            ("1.5.05,0x0105,yes,SPR", "1.5.05,0x0105,yes,ICX", "\"ICX\" is not a platform"),
            ("1.5.05,0x0105", "1.5.01,0x0105", "1.5.01 has the version or the hash of 1.5.01"),
            ("1/0/1,1,20251126", "1/0/2,1,20251126", "hv is \"1/0/2\""),
            ("1cc6a17a", "1cc6a1", "94 characters were found"),
            ("1.5.05,0x0105,yes", "1.5.05,0x0105", "found record with"),
        ];
        for (from, to, message) in changes {
            let error = Releases::parse(&table.replacen(from, to, 1)).unwrap_err();
            assert!(error.to_string().contains(message), "{error}");
            assert!((7..30).contains(&error.line), "{error}");
        }
    }

    #[test]
    fn processors_of_any_stepping_belong_to_their_platform() {
        assert_eq!(Platform::of_processor(0x806f8), Some(Platform::Spr));
        assert_eq!(Platform::of_processor(0xa06d1), Some(Platform::Gnr));
        assert_eq!(Platform::of_processor(0x906ea), None);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,400}") {
            let _ = Releases::parse(&text);
            let _ = Releases::parse(&format!("version,svn,image,cpus,hv,ctx,mrseam\n{text}"));
        }
    }
}
