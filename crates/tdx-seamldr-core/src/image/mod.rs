//! Reads and writes image files of both formats.
//!
//! | | `tdx_blob` v1 | `tdx_image` v2 |
//! |---|---|---|
//! | version | 0x0100 | 0x0200 |
//! | used by | Intel's releases, Linux patches up to v8 | Linux 7.2 |
//! | header | 4096 bytes | 4096 bytes |
//! | sizes | offset of the module, length of the file | page counts |
//! | checksum | the file's 16-bit words add up to 0 | rule not published; 0 is written, any value is accepted |
//!
//! In both formats the SIGSTRUCT area follows the header, and the module's binary follows the
//! SIGSTRUCT area.
#![cfg_attr(doc, doc = include_str!("../../pictures/layouts.svg"))]

mod error;
mod header;
mod write;

pub use error::{ImageError, Need};
pub use write::{ImageParts, WriteError};

use core::fmt;

use zerocopy::little_endian::U16;
use zerocopy::FromBytes;

use crate::abi::{SeamSigstruct, MAX_MODULE_PAGES, PAGE_SIZE};
use header::{Header, HeaderV1, HeaderV2, SIGNATURE};

/// The format of an image file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ImageFormat {
    /// `tdx_blob`, version 0x0100.
    BlobV1,
    /// `tdx_image`, version 0x0200.
    ImageV2,
}

impl ImageFormat {
    /// Both formats.
    pub const ALL: [Self; 2] = [Self::BlobV1, Self::ImageV2];

    /// Returns the version number in the header.
    #[must_use]
    pub const fn version(self) -> u16 {
        match self {
            Self::BlobV1 => 0x0100,
            Self::ImageV2 => 0x0200,
        }
    }

    /// Returns the format with this version number.
    #[must_use]
    pub const fn from_version(version: u16) -> Option<Self> {
        match version {
            0x0100 => Some(Self::BlobV1),
            0x0200 => Some(Self::ImageV2),
            _ => None,
        }
    }

    /// Returns the highest number of pages of the SIGSTRUCT area. SEAMLDR.INSTALL takes 1.
    #[must_use]
    pub const fn max_sigstruct_pages(self) -> u32 {
        match self {
            Self::BlobV1 => 4,
            Self::ImageV2 => 1,
        }
    }

    /// Returns Linux's name of the format.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BlobV1 => "tdx_blob",
            Self::ImageV2 => "tdx_image",
        }
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The result of the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// All 16-bit words of the file add up to 0.
    Ok,
    /// The field is 0 in v2, whose rule is not published.
    Zero,
    /// The words add up to another value. In v1 this is an error. In v2 the field may follow a
    /// rule that is not published.
    Bad {
        /// The value of the field.
        found: u16,
        /// The value that would make the sum 0.
        wanted: u16,
    },
}

/// An image file, as views into the caller's bytes. Each function that makes an image says which
/// rules it checks.
#[derive(Clone, Copy)]
pub struct TdxImage<'a> {
    format: ImageFormat,
    bytes: &'a [u8],
    sigstruct: &'a SeamSigstruct,
    sigstruct_area: &'a [u8],
    module: &'a [u8],
}

impl fmt::Debug for TdxImage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TdxImage")
            .field("format", &self.format)
            .field("length", &self.bytes.len())
            .field("sigstruct_pages", &self.sigstruct_pages())
            .field("module_pages", &self.module_pages())
            .finish_non_exhaustive()
    }
}

impl<'a> TdxImage<'a> {
    /// Reads a file of either format and checks all rules, also those that the Linux kernel skips.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let image = Self::parse_without_checksum(bytes)?;
        if image.format == ImageFormat::BlobV1 {
            if let Checksum::Bad { found, wanted } = image.checksum() {
                return Err(ImageError::Checksum { found, wanted });
            }
        }
        Ok(image)
    }

    /// Reads a file of either format and checks all rules except the checksum of v1, which takes
    /// the most time.
    ///
    /// This is for tools that show a damaged file, and for callers that verify signature and hash.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break.
    pub fn parse_without_checksum(bytes: &'a [u8]) -> Result<Self, ImageError> {
        let (header, payload) = Self::split_header(bytes)?;
        let found = header.version.get();
        let format =
            ImageFormat::from_version(found).ok_or(ImageError::Version { found, wanted: None })?;
        Self::parse_payload(format, bytes, header, payload)
    }

    /// Reads a file of one format and checks all rules except the checksum. A kernel that takes one
    /// format does not link the code of the other.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break. The version of the other format is an error too.
    #[inline]
    pub fn parse_only(format: ImageFormat, bytes: &'a [u8]) -> Result<Self, ImageError> {
        let (header, payload) = Self::split_header(bytes)?;
        let found = header.version.get();
        if found != format.version() {
            return Err(ImageError::Version { found, wanted: Some(format) });
        }
        Self::parse_payload(format, bytes, header, payload)
    }

    #[inline]
    fn split_header(bytes: &'a [u8]) -> Result<(&'a Header, &'a [u8]), ImageError> {
        Header::ref_from_prefix(bytes)
            .map_err(|_| ImageError::TooShort { found: bytes.len(), wanted: PAGE_SIZE })
    }

    #[inline]
    fn parse_payload(
        format: ImageFormat,
        bytes: &'a [u8],
        header: &'a Header,
        payload: &'a [u8],
    ) -> Result<Self, ImageError> {
        let (signature, sigstruct_len) = match format {
            ImageFormat::BlobV1 => {
                let fields: &HeaderV1 = zerocopy::transmute_ref!(&header.fields);
                (fields.signature, fields.sigstruct_len(bytes.len())?)
            }
            ImageFormat::ImageV2 => {
                let fields: &HeaderV2 = zerocopy::transmute_ref!(&header.fields);
                (fields.signature, fields.sigstruct_len(bytes.len())?)
            }
        };
        if signature != SIGNATURE {
            return Err(ImageError::Signature { found: signature });
        }
        if let Some(offset) = header.first_reserved_not_zero() {
            let found = usize::try_from(offset)
                .ok()
                .and_then(|at| bytes.get(at))
                .copied()
                .unwrap_or_default();
            return Err(ImageError::ReservedNotZero { offset, found });
        }
        let (sigstruct_area, module) =
            payload.split_at_checked(sigstruct_len).ok_or(ImageError::TooShort {
                found: bytes.len(),
                wanted: sigstruct_len.saturating_add(PAGE_SIZE),
            })?;
        let (sigstruct, _) = SeamSigstruct::ref_from_prefix(sigstruct_area)
            .map_err(|_| ImageError::SigstructPages { found: 0, wanted: Need::AtLeast(1) })?;
        let limit = format.max_sigstruct_pages();
        if pages(sigstruct_len) > limit {
            return Err(ImageError::SigstructPages {
                found: pages(sigstruct_len),
                wanted: Need::AtMost(limit),
            });
        }
        match module.len() {
            0 => return Err(ImageError::ModulePages { found: 0, wanted: Need::AtLeast(1) }),
            len if len % PAGE_SIZE != 0 => return Err(ImageError::ModuleLength { found: len }),
            len if len / PAGE_SIZE > MAX_MODULE_PAGES => {
                return Err(ImageError::ModulePages {
                    found: pages(len),
                    wanted: Need::AtMost(pages_limit()),
                })
            }
            _ => {}
        }
        Ok(Self { format, bytes, sigstruct, sigstruct_area, module })
    }

    /// Returns the format.
    #[must_use]
    pub const fn format(&self) -> ImageFormat {
        self.format
    }

    /// Returns the whole file.
    #[must_use]
    pub const fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the SIGSTRUCT, the first 2048 bytes of its area. Its fields have not been checked.
    #[must_use]
    pub const fn sigstruct(&self) -> &'a SeamSigstruct {
        self.sigstruct
    }

    /// Returns the whole SIGSTRUCT area, in whole 4 KiB pages.
    #[must_use]
    pub const fn sigstruct_area(&self) -> &'a [u8] {
        self.sigstruct_area
    }

    /// Returns the number of 4 KiB pages of the SIGSTRUCT area. SEAMLDR.INSTALL takes 1.
    #[must_use]
    pub fn sigstruct_pages(&self) -> u32 {
        pages(self.sigstruct_area.len())
    }

    /// Returns the module's binary, 1 to 496 pages of 4 KiB.
    #[must_use]
    pub const fn module(&self) -> &'a [u8] {
        self.module
    }

    /// Returns the number of 4 KiB pages of the module's binary.
    #[must_use]
    pub fn module_pages(&self) -> u32 {
        pages(self.module.len())
    }

    /// Returns the sum of the file, compared with its checksum.
    #[must_use]
    pub fn checksum(&self) -> Checksum {
        let found =
            Header::ref_from_prefix(self.bytes).map_or(0, |(header, _)| header.checksum.get());
        match (sum16(self.bytes), self.format) {
            (0, ImageFormat::BlobV1) => Checksum::Ok,
            (_, ImageFormat::ImageV2) if found == 0 => Checksum::Zero,
            (0, _) => Checksum::Ok,
            (sum, _) => Checksum::Bad { found, wanted: found.wrapping_sub(sum) },
        }
    }

    /// Returns the parts of the file, from which it can be written again.
    #[must_use]
    pub const fn parts(&self) -> ImageParts<'a> {
        ImageParts { sigstruct: self.sigstruct_area, module: self.module }
    }
}

/// Returns the sum of all little-endian 16-bit words. An odd last byte counts as the low byte of a
/// word.
fn sum16(bytes: &[u8]) -> u16 {
    let (words, rest) =
        <[U16]>::ref_from_prefix_with_elems(bytes, bytes.len() / 2).unwrap_or((&[], &[]));
    let odd = rest.first().copied().map_or(0, u16::from);
    words.iter().fold(odd, |sum, word| sum.wrapping_add(word.get()))
}

/// Returns the number of whole 4 KiB pages in `len` bytes. For the lengths that the callers pass,
/// the number fits.
fn pages(len: usize) -> u32 {
    u32::try_from(len / PAGE_SIZE).unwrap_or(u32::MAX)
}

#[allow(clippy::as_conversions)] // 496
const fn pages_limit() -> u32 {
    MAX_MODULE_PAGES as u32
}

#[cfg(test)]
mod tests;
