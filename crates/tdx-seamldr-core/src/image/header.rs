//! The header of a file, 4096 bytes, in both formats.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::{ImageError, Need};
use crate::abi::{assert_layout, PAGE_SIZE};

/// The signature of an image file, in both formats.
pub(super) const SIGNATURE: [u8; 8] = *b"TDX-BLOB";

/// The header of both formats.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Header {
    /// 0: version of the format.
    pub(super) version: U16,
    /// 2: the checksum, which makes the sum of all 16-bit words of the file 0 (v1).
    pub(super) checksum: U16,
    /// 4: [`HeaderV1`] or [`HeaderV2`].
    pub(super) fields: [u8; 16],
    /// 20: zero.
    pub(super) reserved0: U32,
    /// 24: zero.
    pub(super) reserved1: [U64; 509],
}

assert_layout!(Header, PAGE_SIZE, {
    version: 0, checksum: 2, fields: 4, reserved0: 20, reserved1: 24,
});

impl Header {
    /// Returns the offset of the first reserved byte that is not zero.
    pub(super) fn first_reserved_not_zero(&self) -> Option<u32> {
        // The usual case first, without branches: all words are zero.
        let any = self
            .reserved1
            .iter()
            .fold(u64::from(self.reserved0.get()), |any, word| any | word.get());
        if any == 0 {
            return None;
        }
        let bytes = zerocopy::IntoBytes::as_bytes(self);
        bytes.iter().zip(0..).skip(20).find(|(byte, _)| **byte != 0).map(|(_, offset)| offset)
    }
}

/// `tdx_blob`, bytes 4 to 19 of the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct HeaderV1 {
    /// 4: offset of the module in the file.
    pub(super) offset_of_module: U32,
    /// 8.
    pub(super) signature: [u8; 8],
    /// 16: length of the file in bytes.
    pub(super) length: U32,
}

assert_layout!(HeaderV1, 16, { offset_of_module: 0, signature: 4, length: 12 });

impl HeaderV1 {
    /// Returns the bytes of the SIGSTRUCT area in a file of `file_len` bytes.
    pub(super) fn sigstruct_len(&self, file_len: usize) -> Result<usize, ImageError> {
        let length = self.length.get();
        if usize::try_from(length) != Ok(file_len) {
            return Err(ImageError::Length { found: u64::from(length), wanted: file_len });
        }
        let found = self.offset_of_module.get();
        let offset = usize::try_from(found).ok().filter(|offset| offset % PAGE_SIZE == 0);
        let offset =
            offset.ok_or(ImageError::ModuleOffset { found, wanted: "a multiple of 4096" })?;
        match offset.checked_sub(PAGE_SIZE) {
            None | Some(0) => Err(ImageError::ModuleOffset {
                found,
                wanted: "at least 8192: a header and a page of SIGSTRUCT",
            }),
            Some(_) if offset >= file_len => {
                Err(ImageError::ModuleOffset { found, wanted: "less than the length of the file" })
            }
            Some(len) => Ok(len),
        }
    }
}

/// `tdx_image`, bytes 4 to 19 of the file.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct HeaderV2 {
    /// 4.
    pub(super) signature: [u8; 8],
    /// 12: pages of the SIGSTRUCT area.
    pub(super) sigstruct_nr_pages: U32,
    /// 16: pages of the module.
    pub(super) module_nr_pages: U32,
}

assert_layout!(HeaderV2, 16, { signature: 0, sigstruct_nr_pages: 8, module_nr_pages: 12 });

impl HeaderV2 {
    /// Returns the bytes of the SIGSTRUCT area in a file of `file_len` bytes.
    pub(super) fn sigstruct_len(&self, file_len: usize) -> Result<usize, ImageError> {
        const PAGE: u64 = 4096;
        let sigstruct = self.sigstruct_nr_pages.get();
        if sigstruct == 0 {
            return Err(ImageError::SigstructPages { found: 0, wanted: Need::AtLeast(1) });
        }
        // No overflow: two 32-bit numbers and 1, times 4096, need 46 bits.
        let pages = u64::from(sigstruct)
            .wrapping_add(u64::from(self.module_nr_pages.get()))
            .wrapping_add(1);
        let found = pages.wrapping_mul(PAGE);
        let wrong_length = ImageError::Length { found, wanted: file_len };
        if usize::try_from(found) != Ok(file_len) {
            return Err(wrong_length);
        }
        // The number is less than `file_len`.
        usize::try_from(u64::from(sigstruct).wrapping_mul(PAGE)).map_err(|_| wrong_length)
    }
}
