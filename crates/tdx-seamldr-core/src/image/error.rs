//! The errors of image files.

use core::fmt;

use super::ImageFormat;
use crate::count::Count;

/// The bound that a number must keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The number must be this or more.
    AtLeast(u32),
    /// The number must be this or less.
    AtMost(u32),
}

impl fmt::Display for Need {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bound) => write!(f, "at least {bound}"),
            Self::AtMost(bound) => write!(f, "at most {bound}"),
        }
    }
}

/// The rule of its format that a file breaks.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImageError {
    /// The file is shorter than the header, or than the header with the SIGSTRUCT area that it
    /// announces.
    TooShort {
        /// Bytes of the file.
        found: usize,
        /// Bytes that the file must have at least.
        wanted: usize,
    },
    /// The version is that of no format, or of another format than the caller asked for.
    Version {
        /// The version in the header.
        found: u16,
        /// The format that the caller asked for. `None` if the caller takes both.
        wanted: Option<ImageFormat>,
    },
    /// The header's signature is not `TDX-BLOB`.
    Signature {
        /// The signature in the header.
        found: [u8; 8],
    },
    /// A reserved byte of the header is not zero.
    ReservedNotZero {
        /// Its offset in the file.
        offset: u32,
        /// Its value.
        found: u8,
    },
    /// The header announces another length than the file has.
    Length {
        /// Bytes that the header announces.
        found: u64,
        /// Bytes of the file.
        wanted: usize,
    },
    /// v1: the offset of the module is not valid.
    ModuleOffset {
        /// The offset in the header.
        found: u32,
        /// The rule that the offset breaks.
        wanted: &'static str,
    },
    /// The length of the module is not a multiple of 4096.
    ModuleLength {
        /// Bytes of the module.
        found: usize,
    },
    /// The SIGSTRUCT area has too few pages, or too many for its format.
    SigstructPages {
        /// Its pages.
        found: u32,
        /// The number of pages that the format allows.
        wanted: Need,
    },
    /// The module has too few pages, or too many.
    ModulePages {
        /// Its pages.
        found: u32,
        /// The number of pages that the format allows.
        wanted: Need,
    },
    /// v1: the file's words do not add up to 0.
    Checksum {
        /// The checksum in the header.
        found: u16,
        /// The right checksum.
        wanted: u16,
    },
}

impl ImageError {
    /// Returns a name for the rule. The name does not change between releases.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooShort { .. } => "image-too-short",
            Self::Version { .. } => "image-version",
            Self::Signature { .. } => "image-signature-string",
            Self::ReservedNotZero { .. } => "image-reserved-not-zero",
            Self::Length { .. } => "image-length",
            Self::ModuleOffset { .. } => "image-module-offset",
            Self::ModuleLength { .. } => "image-module-length",
            Self::SigstructPages { .. } => "image-sigstruct-pages",
            Self::ModulePages { .. } => "image-module-pages",
            Self::Checksum { .. } => "image-checksum",
        }
    }
}

impl fmt::Debug for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageError({self})")
    }
}

impl fmt::Display for ImageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { found, wanted } => {
                write!(f, "the file has {}, but needs at least {wanted}", Count(*found, "byte"))
            }
            Self::Version { found, wanted } => {
                write!(f, "the header's version is {found:#06x}, but should be ")?;
                match wanted {
                    None => f.write_str("0x0100 (tdx_blob) or 0x0200 (tdx_image)"),
                    Some(format) => write!(f, "{:#06x} ({format})", format.version()),
                }
            }
            Self::Signature { found } => {
                write!(
                    f,
                    "the header's signature is \"{}\", but should be \"TDX-BLOB\"",
                    found.escape_ascii()
                )
            }
            Self::ReservedNotZero { offset, found } => {
                write!(
                    f,
                    "the reserved byte at offset {offset} of the header is {found:#04x}, but \
                     should be 0"
                )
            }
            Self::Length { found, wanted } => {
                write!(
                    f,
                    "the header announces {}, but the file has {wanted}",
                    Count(*found, "byte")
                )
            }
            Self::ModuleOffset { found, wanted } => {
                write!(f, "the header's offset of the module is {found:#x}, but should be {wanted}")
            }
            Self::ModuleLength { found } => {
                write!(
                    f,
                    "the module has {}, but should have a multiple of 4096",
                    Count(*found, "byte")
                )
            }
            Self::SigstructPages { found, wanted } => {
                write!(
                    f,
                    "the SIGSTRUCT area has {}, but should have {wanted}",
                    Count(*found, "page")
                )
            }
            Self::ModulePages { found, wanted } => {
                write!(f, "the module has {}, but should have {wanted}", Count(*found, "page"))
            }
            Self::Checksum { found, wanted } => {
                write!(f, "the header's checksum is {found:#06x}, but should be {wanted:#06x}")
            }
        }
    }
}

impl core::error::Error for ImageError {}
