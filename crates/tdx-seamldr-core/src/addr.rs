//! Physical addresses.

use core::fmt;

use crate::abi::PAGE_SIZE;

/// A host-physical address as SEAMCALL takes it, with its KeyID bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PhysAddr(pub u64);

impl PhysAddr {
    /// Whether the address is a multiple of `alignment`, a power of two.
    #[must_use]
    pub const fn is_aligned(self, alignment: usize) -> bool {
        #[allow(clippy::as_conversions)] // usize is at most 64 bits wide
        let mask = (alignment as u64).wrapping_sub(1);
        self.0 & mask == 0
    }
}

impl fmt::Debug for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for PhysAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The physical address of a 4 KiB page: a multiple of 4096 by construction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct PageAddr(PhysAddr);

impl PageAddr {
    /// Takes the address of a page. `None` if the address is not a multiple of 4096.
    #[must_use]
    pub const fn new(address: PhysAddr) -> Option<Self> {
        if address.is_aligned(PAGE_SIZE) {
            Some(Self(address))
        } else {
            None
        }
    }

    /// Returns the address.
    #[must_use]
    pub const fn get(self) -> PhysAddr {
        self.0
    }
}

impl fmt::Debug for PageAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for PageAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_addr_rejects_an_address_that_is_not_a_multiple_of_4096() {
        assert!(PageAddr::new(PhysAddr(0x1234_5000)).is_some());
        assert!(PageAddr::new(PhysAddr(0x1234_5800)).is_none());
        assert!(PageAddr::new(PhysAddr(1)).is_none());
        assert!(PageAddr::new(PhysAddr(0)).is_some(), "firmware takes page 0");
    }

    #[test]
    fn address_is_aligned_if_its_lower_bits_are_zero() {
        assert!(PhysAddr(0x1800).is_aligned(2048) && PhysAddr(0).is_aligned(4096));
        assert!(!PhysAddr(0x1800).is_aligned(4096) && !PhysAddr(0x1801).is_aligned(2));
        assert_eq!(PageAddr::new(PhysAddr(0x7000)).map(PageAddr::get), Some(PhysAddr(0x7000)));
    }
}
