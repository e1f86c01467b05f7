//! An image with the result of its verification.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tdx_seamldr_core::image::{Checksum, ImageError, ImageFormat};
use tdx_seamldr_core::{Sha384Digest, TdxImage, TdxVersion};
use tdx_seamldr_verify::{verify, Verification};

use super::crypto::Verified;
use super::read::FileError;
use crate::releases::{Platform, Releases};
use crate::version::parse_version;

/// An image in memory. An update uploads the same bytes that were verified.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    bytes: Vec<u8>,
    format: ImageFormat,
    verification: Verification,
    checksum: Checksum,
    mrseam: Sha384Digest,
    version: Option<(TdxVersion, VersionSource)>,
    platforms: Vec<Platform>,
}

/// The source of an image's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum VersionSource {
    /// The table of public releases has the hash of the module.
    Hash,
    /// The name of the file says the version. The table does not have the hash.
    FileName,
}

impl Image {
    pub(super) fn new(
        path: PathBuf,
        bytes: Vec<u8>,
        releases: &Releases,
    ) -> Result<Self, FileError> {
        let image = TdxImage::parse_without_checksum(&bytes)
            .map_err(|error| FileError::new(&path, error))?;
        let (format, verification, checksum) = (image.format(), verify(&image), image.checksum());
        let mrseam = image.sigstruct().seamhash;
        let release = releases.by_mrseam(&mrseam);
        let version = match release {
            Some(release) => Some((release.version, VersionSource::Hash)),
            None => version_of_name(&path).map(|version| (version, VersionSource::FileName)),
        };
        let platforms = release.map(|release| release.platforms.clone()).unwrap_or_default();
        Ok(Self { path, bytes, format, verification, checksum, mrseam, version, platforms })
    }

    /// Returns the path of the file; for a pair, of the module's binary.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the image.
    ///
    /// # Errors
    ///
    /// Never for an image of a [`Catalogue`](super::Catalogue), which has parsed the same bytes
    /// before.
    pub fn parse(&self) -> Result<TdxImage<'_>, ImageError> {
        TdxImage::parse_without_checksum(&self.bytes)
    }

    /// Returns the image and the result of its verification, for preflight.
    ///
    /// # Errors
    ///
    /// As [`parse`](Self::parse).
    pub fn verified(&self) -> Result<(TdxImage<'_>, Verified<'_>), ImageError> {
        let image = self.parse()?;
        Ok((image, Verified { image, verification: self.verification }))
    }

    /// Returns the result of the verification.
    #[must_use]
    pub const fn verification(&self) -> &Verification {
        &self.verification
    }

    /// Whether Intel signed exactly this.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.verification.is_genuine()
    }

    /// Returns the result of the file's checksum.
    #[must_use]
    pub const fn checksum(&self) -> Checksum {
        self.checksum
    }

    /// Returns the format of the bytes. A pair of module and SIGSTRUCT has format v2.
    #[must_use]
    pub const fn format(&self) -> ImageFormat {
        self.format
    }

    /// Returns the signed hash, which quotes show as MRSEAM when the module runs.
    #[must_use]
    pub const fn mrseam(&self) -> &Sha384Digest {
        &self.mrseam
    }

    /// Returns the version, if the table of releases has the hash or the file's name has a version.
    #[must_use]
    pub fn version(&self) -> Option<TdxVersion> {
        self.version.map(|(version, _)| version)
    }

    /// Returns the source of the version.
    #[must_use]
    pub fn version_source(&self) -> Option<VersionSource> {
        self.version.map(|(_, source)| source)
    }

    /// Returns the platforms of the release, from the table. Empty if the table does not list them.
    #[must_use]
    pub fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// Returns the bytes of the image in a format.
    ///
    /// # Errors
    ///
    /// The image does not fit into the format.
    pub fn in_format(&self, format: ImageFormat) -> Result<Cow<'_, [u8]>, FileError> {
        if format == self.format {
            return Ok(Cow::Borrowed(&self.bytes));
        }
        let parts = self.parse().map_err(|error| FileError::new(&self.path, error))?.parts();
        let written = parts.file_len().and_then(|len| {
            let mut bytes = vec![0; len];
            parts.write(format, &mut bytes)?;
            Ok(bytes)
        });
        written.map(Cow::Owned).map_err(|error| FileError::new(&self.path, error))
    }

    /// Whether both are genuine images of the same module.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.is_genuine() && other.is_genuine() && self.mrseam == other.mrseam
    }
}

/// Returns the version in a name such as `tdx_module_1.5.05.blob`.
fn version_of_name(path: &Path) -> Option<TdxVersion> {
    let name = path.file_stem()?.to_str()?;
    parse_version(name.strip_prefix("tdx_module_")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_names_of_intels_form_only() {
        let version = |name| version_of_name(Path::new(name)).map(|version| version.to_string());
        assert_eq!(version("/images/tdx_module_1.5.05.blob").as_deref(), Some("1.5.05"));
        for name in ["tdx_module_1.5.blob", "module_1.5.05.blob", "tdx_module_1.5.05", "", ".."] {
            assert_eq!(version(name), None, "{name}");
        }
    }
}
