//! Writes image files.

use core::fmt;

use zerocopy::little_endian::{U16, U32};
use zerocopy::FromBytes;

use super::header::{Header, HeaderV1, HeaderV2, SIGNATURE};
use super::{pages, pages_limit, sum16, ImageFormat, Need};
use crate::abi::{MAX_MODULE_PAGES, PAGE_SIZE};
use crate::count::Count;

/// The parts of an image file.
#[derive(Clone, Copy, Debug)]
pub struct ImageParts<'a> {
    /// The SIGSTRUCT. The writer pads it with zeros to whole 4 KiB pages.
    pub sigstruct: &'a [u8],
    /// The module's binary, 1 to 496 pages of 4 KiB.
    pub module: &'a [u8],
}

/// Copies bytes to a slice of the same length. `copy_from_slice` contains a panic that the compiler
/// does not remove for every caller.
fn copy(to: &mut [u8], from: &[u8]) {
    debug_assert_eq!(to.len(), from.len());
    if to.len() == from.len() {
        to.copy_from_slice(from);
    }
}

/// The reason why these parts cannot be written as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The SIGSTRUCT is shorter than 2048 bytes.
    SigstructLength {
        /// Its bytes.
        found: usize,
    },
    /// The SIGSTRUCT has more pages than the format allows.
    SigstructPages {
        /// Its pages.
        found: u32,
        /// The pages that the format allows.
        wanted: Need,
    },
    /// The length of the module is not a multiple of 4096. The writer does not pad the module,
    /// because that would change its hash.
    ModuleLength {
        /// Its bytes.
        found: usize,
    },
    /// The module has too few pages, or too many.
    ModulePages {
        /// Its pages.
        found: u32,
        /// The pages that the format allows.
        wanted: Need,
    },
    /// The file would have 4 GiB or more.
    TooLong,
    /// The buffer is not as long as the file.
    Buffer {
        /// Bytes of the buffer.
        found: usize,
        /// Bytes of the file.
        wanted: usize,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SigstructLength { found } => {
                write!(
                    f,
                    "the SIGSTRUCT has {}, but should have at least 2048",
                    Count(*found, "byte")
                )
            }
            Self::SigstructPages { found, wanted } => {
                write!(
                    f,
                    "the SIGSTRUCT has {}, but should have {wanted} in this format",
                    Count(*found, "page")
                )
            }
            Self::ModuleLength { found } => {
                write!(
                    f,
                    "the module has {}, but should have a multiple of 4096",
                    Count(*found, "byte")
                )
            }
            Self::ModulePages { found, wanted } => {
                write!(f, "the module has {}, but should have {wanted}", Count(*found, "page"))
            }
            Self::TooLong => f.write_str("the file would have 4 GiB or more, but should have less"),
            Self::Buffer { found, wanted } => {
                write!(f, "the buffer has {}, but the file needs {wanted}", Count(*found, "byte"))
            }
        }
    }
}

impl core::error::Error for WriteError {}

impl ImageParts<'_> {
    /// Returns the length of the file in bytes, the same in both formats.
    ///
    /// # Errors
    ///
    /// These parts cannot be written as a file.
    pub fn file_len(&self) -> Result<usize, WriteError> {
        if self.sigstruct.len() < crate::abi::SeamSigstruct::SIZE {
            return Err(WriteError::SigstructLength { found: self.sigstruct.len() });
        }
        match self.module.len() {
            0 => return Err(WriteError::ModulePages { found: 0, wanted: Need::AtLeast(1) }),
            len if len % PAGE_SIZE != 0 => return Err(WriteError::ModuleLength { found: len }),
            len if len / PAGE_SIZE > MAX_MODULE_PAGES => {
                return Err(WriteError::ModulePages {
                    found: pages(len),
                    wanted: Need::AtMost(pages_limit()),
                })
            }
            _ => {}
        }
        self.sigstruct_len()
            .and_then(|len| len.checked_add(self.module.len())?.checked_add(PAGE_SIZE))
            .filter(|len| u32::try_from(*len).is_ok())
            .ok_or(WriteError::TooLong)
    }

    /// Writes the file into `out`, which must be [`file_len`](Self::file_len) bytes long. The
    /// checksum of v2 is 0.
    ///
    /// # Errors
    ///
    /// These parts cannot be written as a file, or `out` has another length. `out` is then
    /// unchanged.
    pub fn write(&self, format: ImageFormat, out: &mut [u8]) -> Result<(), WriteError> {
        let file_len = self.file_len()?;
        let wrong_buffer = WriteError::Buffer { found: out.len(), wanted: file_len };
        let sigstruct_len = self.sigstruct_len().ok_or(WriteError::TooLong)?;
        let (Ok(length), Ok(sigstruct_end)) =
            (u32::try_from(file_len), u32::try_from(sigstruct_len))
        else {
            return Err(WriteError::TooLong);
        };
        let limit = format.max_sigstruct_pages();
        if pages(sigstruct_len) > limit {
            return Err(WriteError::SigstructPages {
                found: pages(sigstruct_len),
                wanted: Need::AtMost(limit),
            });
        }
        if out.len() != file_len {
            return Err(wrong_buffer);
        }
        let (header, payload) = Header::mut_from_prefix(out).map_err(|_| wrong_buffer)?;
        let (sigstruct_area, module) =
            payload.split_at_mut_checked(sigstruct_len).ok_or(wrong_buffer)?;
        let (sigstruct, padding) =
            sigstruct_area.split_at_mut_checked(self.sigstruct.len()).ok_or(wrong_buffer)?;

        zerocopy::FromZeros::zero(header);
        header.version = U16::new(format.version());
        header.fields = match format {
            ImageFormat::BlobV1 => zerocopy::transmute!(HeaderV1 {
                offset_of_module: U32::new(sigstruct_end.wrapping_add(4096)), // below `length`
                signature: SIGNATURE,
                length: U32::new(length),
            }),
            ImageFormat::ImageV2 => zerocopy::transmute!(HeaderV2 {
                signature: SIGNATURE,
                sigstruct_nr_pages: U32::new(pages(sigstruct_len)),
                module_nr_pages: U32::new(pages(self.module.len())),
            }),
        };
        copy(sigstruct, self.sigstruct);
        padding.fill(0);
        copy(module, self.module);
        if format == ImageFormat::BlobV1 {
            let sum = sum16(out);
            if let Ok((header, _)) = Header::mut_from_prefix(out) {
                header.checksum = U16::new(sum.wrapping_neg());
            }
        }
        Ok(())
    }

    /// Returns the bytes of the SIGSTRUCT area.
    fn sigstruct_len(&self) -> Option<usize> {
        self.sigstruct.len().checked_next_multiple_of(PAGE_SIZE)
    }
}
