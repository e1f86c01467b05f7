//! The reasons why P-SEAMLDR cannot relocate an image.

use core::fmt;

use super::{ElfHeader, IDENT, R_X86_64_RELATIVE};
use crate::count::Count;
use crate::preflight::finding::write_hex;

/// The reason why P-SEAMLDR cannot relocate an image. Relocations are numbered from 0 in their
/// section.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElfRefusal {
    /// The image is shorter than an ELF header.
    TooShort {
        /// The image's length in bytes.
        found: usize,
    },
    /// The image does not begin with magic, class, byte order and version of a 64-bit
    /// little-endian ELF file ([`IDENT`]).
    Ident {
        /// The first bytes of the image.
        found: [u8; 16],
    },
    /// The header of a section does not lie in the image.
    SectionOutside {
        /// The section.
        section: u16,
        /// The offset of its header.
        found: u64,
        /// The highest offset that it could have.
        limit: u64,
    },
    /// The header of this section announces relocations of 0 bytes.
    EntrySize(u16),
    /// A relocation does not lie in the image.
    RelocationOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// Its offset.
        found: u64,
        /// The highest offset that it could have.
        limit: u64,
    },
    /// A relocation is not R_X86_64_RELATIVE without a symbol.
    RelocationType {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// Its type and symbol.
        found: u64,
    },
    /// The 8 bytes that a relocation changes do not lie in the image.
    TargetOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset of these bytes.
        found: u64,
        /// The highest offset possible.
        limit: u64,
    },
    /// The address that a relocation refers to does not lie in the image.
    AddendOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset that it refers to.
        found: u64,
        /// The highest offset possible.
        limit: u64,
    },
    /// A relocation changes bytes of the ELF header, of a section header or of a relocation.
    /// P-SEAMLDR reads these bytes while it relocates the image in place.
    TargetInUse {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset of the 8 bytes that it changes.
        found: u64,
        /// The offset of the header or relocation that it changes.
        begin: u64,
        /// The offset after that header or relocation.
        end: u64,
    },
    /// The check would take more steps than the image's length allows. Each relocation takes one
    /// step. A relocation that changes bytes between the first and the last relocation table takes
    /// one more step for each section.
    ///
    /// An image of at most 191 sections whose relocations do not overlap stays below the limit.
    TooManyRelocations {
        /// The highest number of steps: 8 for each byte of the image.
        limit: u64,
    },
}

impl fmt::Display for ElfRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { found } => write!(
                f,
                "the image has {}, but an ELF header has {}",
                Count(*found, "byte"),
                size_of::<ElfHeader>()
            ),
            Self::Ident { found } => {
                f.write_str("the image begins with ")?;
                write_hex(f, found)?;
                f.write_str(", but a 64-bit little-endian ELF file begins with ")?;
                write_hex(f, &IDENT)
            }
            Self::SectionOutside { section, found, limit } => write!(
                f,
                "the header of section {section} lies at offset {found:#x}, but should lie at \
                 {limit:#x} at most"
            ),
            Self::EntrySize(section) => {
                write!(f, "the relocations of section {section} have 0 bytes, but should have 24")
            }
            Self::RelocationOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} lies at offset {found:#x}, but should \
                 lie at {limit:#x} at most"
            ),
            Self::RelocationType { section, index, found } => write!(
                f,
                "relocation {index} of section {section} has the type {found:#x}, but should have \
                 {R_X86_64_RELATIVE:#x} (R_X86_64_RELATIVE)"
            ),
            Self::TargetOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} changes offset {found:#x}, but should \
                 change {limit:#x} at most"
            ),
            Self::AddendOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} refers to offset {found:#x}, but should \
                 refer to {limit:#x} at most"
            ),
            Self::TargetInUse { section, index, found, begin, end } => write!(
                f,
                "relocation {index} of section {section} changes the 8 bytes at offset \
                 {found:#x}, but P-SEAMLDR reads {begin:#x} to {end:#x} while it relocates; no \
                 relocation may change these bytes"
            ),
            Self::TooManyRelocations { limit } => {
                write!(
                    f,
                    "the check of the relocations takes more than {limit} steps, 8 for each byte \
                     of the image: relocations overlap, or the image has too many sections"
                )
            }
        }
    }
}

impl core::error::Error for ElfRefusal {}
