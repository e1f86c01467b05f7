//! What can be wrong with an image file.

use core::fmt;

use super::ImageFormat;

/// The bound that a number missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It has to be this or more.
    AtLeast(u32),
    /// It has to be this or less.
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
    /// There are fewer bytes than the header alone, or the header and the SIGSTRUCT area it announces, would take.
    TooShort {
        /// Bytes there are.
        found: usize,
        /// Bytes there should be at least.
        wanted: usize,
    },
    /// The version is that of no format, or of another one than was asked for.
    Version {
        /// The version in the header.
        found: u16,
        /// The format that it should be of; `None` if either will do.
        wanted: Option<ImageFormat>,
    },
    /// The header does not say `TDX-BLOB`.
    Signature {
        /// What it says.
        found: [u8; 8],
    },
    /// A reserved byte of the header is not zero.
    ReservedNotZero {
        /// Its offset in the file.
        offset: u32,
        /// Its value.
        found: u8,
    },
    /// The length that the header announces is not that of the file.
    Length {
        /// What the header announces.
        found: u64,
        /// Bytes there are.
        wanted: usize,
    },
    /// v1: the module does not start where a module could.
    ModuleOffset {
        /// The offset in the header.
        found: u32,
        /// What it has to be.
        wanted: &'static str,
    },
    /// The module is not a number of whole pages.
    ModuleLength {
        /// Its bytes.
        found: usize,
    },
    /// The SIGSTRUCT area has too few pages, or too many for its format.
    SigstructPages {
        /// Its pages.
        found: u32,
        /// How many it has to have.
        wanted: Need,
    },
    /// The module has too few pages, or too many.
    ModulePages {
        /// Its pages.
        found: u32,
        /// How many it has to have.
        wanted: Need,
    },
    /// v1: the file's words do not add up to 0.
    Checksum {
        /// The checksum in the header.
        found: u16,
        /// The one that would be right.
        wanted: u16,
    },
}

impl ImageError {
    /// A name for the rule that does not change from release to release.
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
                write!(f, "the file has {found} bytes, but needs at least {wanted}")
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
                    "the reserved byte at offset {offset} of the header is {found:#04x}, but should be 0"
                )
            }
            Self::Length { found, wanted } => {
                write!(f, "the header announces {found} bytes, but the file has {wanted}")
            }
            Self::ModuleOffset { found, wanted } => {
                write!(f, "the header's offset of the module is {found:#x}, but should be {wanted}")
            }
            Self::ModuleLength { found } => {
                write!(f, "the module has {found} bytes, but should have a multiple of 4096")
            }
            Self::SigstructPages { found, wanted } => {
                write!(f, "the SIGSTRUCT area has {found} pages, but should have {wanted}")
            }
            Self::ModulePages { found, wanted } => {
                write!(f, "the module has {found} pages, but should have {wanted}")
            }
            Self::Checksum { found, wanted } => {
                write!(f, "the header's checksum is {found:#06x}, but should be {wanted:#06x}")
            }
        }
    }
}

impl core::error::Error for ImageError {}
