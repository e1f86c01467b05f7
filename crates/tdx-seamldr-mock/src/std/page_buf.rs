//! Page-aligned bytes.

use tdx_seamldr_core::abi::{SeamldrParamsBuffer, PAGE_SIZE};
use zerocopy::{FromZeros as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout};

#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C, align(4096))]
struct Page([u8; PAGE_SIZE]);

/// 4 KiB pages that firmware reads in place.
#[derive(Clone)]
pub struct PageBuf {
    pages: Vec<Page>,
    len: usize,
}

impl core::fmt::Debug for PageBuf {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("PageBuf").field("len", &self.len).finish_non_exhaustive()
    }
}

impl PageBuf {
    /// Returns this number of pages, filled with zeros.
    ///
    /// # Panics
    ///
    /// There is no memory.
    #[must_use]
    #[allow(clippy::expect_used)] // as every allocation of the standard library
    pub fn zeroed(pages: usize) -> Self {
        // No page is built on the stack.
        let zeroed = Page::new_vec_zeroed(pages).expect("memory for pages");
        Self { pages: zeroed, len: pages.saturating_mul(PAGE_SIZE) }
    }

    /// Returns a page-aligned copy of these bytes.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut copy = Self::zeroed(bytes.len().div_ceil(PAGE_SIZE));
        copy.len = bytes.len();
        copy.as_mut_bytes().copy_from_slice(bytes);
        copy
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.pages.as_bytes().get(..self.len).unwrap_or_default()
    }

    /// Returns the bytes.
    #[must_use]
    pub fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.pages.as_mut_bytes().get_mut(..self.len).unwrap_or_default()
    }

    /// Returns the first page as SEAMLDR_PARAMS.
    ///
    /// # Panics
    ///
    /// There is no page.
    #[must_use]
    #[allow(clippy::expect_used)] // misuse in a test's own code
    pub fn as_params(&mut self) -> &mut SeamldrParamsBuffer {
        let page = self.pages.first_mut().expect("a page for SEAMLDR_PARAMS");
        zerocopy::transmute_mut!(page)
    }
}
