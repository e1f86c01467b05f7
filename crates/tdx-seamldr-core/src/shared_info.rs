//! SEAMLDR_INFO in memory that the LPs of an update share.

use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use zerocopy_derive::FromBytes;

use crate::abi::{SeamExtend, SeamldrInfo, Svn};
use crate::crypto::Sha384Digest;

const WORDS: usize = size_of::<SeamldrInfo>() / 8;
const SEAMEXTEND: usize = offset_of!(SeamldrInfo, seamextend);
const SVN: usize = SEAMEXTEND + offset_of!(SeamExtend, tee_tcb_svn);
const MRSEAM: usize = SEAMEXTEND + offset_of!(SeamExtend, mrseam);
const REMAINING: usize = offset_of!(SeamldrInfo, num_remaining_updates);
const _: () = assert!(SVN % 8 == 0 && MRSEAM % 8 == 0 && REMAINING % 8 == 4);

/// A buffer for SEAMLDR_INFO that LPs share: 256 bytes, aligned to 256. The lead LP calls
/// SEAMLDR.INFO with it while no LP does other work.
#[derive(Debug, FromBytes)]
#[repr(C, align(256))]
pub struct SharedInfo([AtomicU64; WORDS]);

const _: () = assert!(size_of::<SharedInfo>() == 256 && align_of::<SharedInfo>() == 256);

impl SharedInfo {
    /// Returns a buffer full of zeros.
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; WORDS])
    }

    /// Returns the little-endian word at this offset, a multiple of 8.
    #[inline]
    fn word(&self, offset: usize) -> u64 {
        self.0.get(offset / 8).map_or(0, |word| u64::from_le(word.load(Ordering::Relaxed)))
    }

    #[inline]
    pub(crate) fn svn(&self) -> Svn {
        let [minor, major, ..] = self.word(SVN).to_le_bytes();
        Svn { major, minor }
    }

    pub(crate) fn has_mrseam(&self, wanted: &Sha384Digest) -> bool {
        let (offsets, wanted) = ((MRSEAM..).step_by(8), wanted.chunks_exact(8));
        offsets.zip(wanted).all(|(offset, bytes)| self.word(offset).to_le_bytes() == bytes)
    }

    #[inline]
    pub(crate) fn remaining_updates(&self) -> u64 {
        self.word(REMAINING - 4) >> 32
    }
}

impl Default for SharedInfo {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::SeamldrInfoBuffer;
    use zerocopy::little_endian::U32;
    use zerocopy::IntoBytes;

    #[test]
    fn fields_are_read_at_their_offsets() {
        let SeamldrInfoBuffer(mut info) = SeamldrInfoBuffer::zeroed();
        info.num_remaining_updates = U32::new(7);
        (info.seamextend.tee_tcb_svn[0], info.seamextend.tee_tcb_svn[1]) = (5, 1);
        info.seamextend.mrseam = core::array::from_fn(|byte| byte as u8);
        let shared = SharedInfo::default();
        for (word, bytes) in shared.0.iter().zip(info.as_bytes().chunks(8)) {
            word.store(u64::from_ne_bytes(bytes.try_into().unwrap()), Ordering::Relaxed);
        }
        assert_eq!((shared.svn(), shared.remaining_updates()), (Svn { major: 1, minor: 5 }, 7));
        assert!(shared.has_mrseam(&info.seamextend.mrseam));
        info.seamextend.mrseam[47] ^= 1;
        assert!(!shared.has_mrseam(&info.seamextend.mrseam));
    }
}
