//! Buffers that firmware reads or writes, with the alignment that it asks for in their types.

use super::{PSysInfo, SeamldrInfo, SeamldrParams, PAGE_SIZE};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A buffer for a [`SeamldrInfo`], aligned to 256 bytes as SEAMLDR.INFO requires.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(256))]
pub struct SeamldrInfoBuffer(pub SeamldrInfo);

/// A buffer for a [`PSysInfo`], aligned to 2048 bytes as SEAMLDR.SEAMINFO requires. It is too large
/// for a kernel's stack: put it into a static or into a page ([`in_memory`](Self::in_memory)).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(2048))]
pub struct PSysInfoBuffer(pub PSysInfo);

/// A page for [`SeamldrParams`], aligned to 4096 bytes as SEAMLDR.INSTALL requires. It is too large
/// for a kernel's stack: put it into a static or into a page ([`in_memory`](Self::in_memory)).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
pub struct SeamldrParamsBuffer(pub SeamldrParams);

/// Constructors of a buffer with this size, which is its alignment, too.
macro_rules! constructors {
    ($name:ident, $size:expr) => {
        const _: () = assert!(size_of::<$name>() == $size && align_of::<$name>() == $size);

        impl $name {
            /// Returns a buffer full of zeros.
            #[must_use]
            pub const fn zeroed() -> Self {
                zerocopy::transmute!([0_u8; $size])
            }

            /// Makes a buffer full of zeros at the start of `memory`. `None` if `memory` is too
            /// short or not aligned.
            #[must_use]
            pub fn in_memory(memory: &mut [u8]) -> Option<&mut Self> {
                let bytes = memory.get_mut(..$size)?;
                bytes.fill(0);
                zerocopy::FromBytes::mut_from_bytes(bytes).ok()
            }
        }
    };
}

constructors!(SeamldrInfoBuffer, 256);
constructors!(PSysInfoBuffer, 2048);
constructors!(SeamldrParamsBuffer, PAGE_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[repr(C, align(4096))]
    struct Page([u8; 2 * PAGE_SIZE]);

    #[test]
    fn buffers_in_aligned_memory_are_zero_and_other_memory_is_refused() {
        let mut page = std::boxed::Box::new(Page([0xff; 2 * PAGE_SIZE]));
        let start = page.0.as_ptr();
        let params = SeamldrParamsBuffer::in_memory(&mut page.0).unwrap();
        assert!((&raw const *params).cast() == start && params.0.reserved == [0; 104]);
        assert_eq!(page.0[PAGE_SIZE], 0xff, "what follows stays");
        assert!(SeamldrParamsBuffer::in_memory(&mut page.0[..PAGE_SIZE - 1]).is_none());
        assert!(SeamldrParamsBuffer::in_memory(&mut page.0[2048..]).is_none());
        assert!(PSysInfoBuffer::in_memory(&mut page.0[2048..]).is_some());
        assert!(PSysInfoBuffer::in_memory(&mut page.0[256..]).is_none());
        assert!(SeamldrInfoBuffer::in_memory(&mut page.0[256..]).is_some());
        assert!(SeamldrInfoBuffer::in_memory(&mut page.0[8..]).is_none());
    }
}
