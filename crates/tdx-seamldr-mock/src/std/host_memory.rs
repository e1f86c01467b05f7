//! The memory of this process as the platform's host memory. Physical and virtual addresses differ.

use std::collections::HashMap;
use std::ptr;
use std::sync::{Mutex, PoisonError};

use tdx_seamldr_core::PhysAddr;

use crate::model::PhysMemory;

/// Start of physical memory.
const BASE: u64 = 0x1_0000_0000;
/// Number of frames, a prime. A hole of one frame's size follows each frame.
const FRAMES: u64 = 65_521;
/// Distance between two frames that are given out in turn. It does not divide the number of frames,
/// so adjacent pages get frames that are not adjacent.
const STRIDE: u64 = 40_503;

/// Gives each page of the process that firmware is told about a frame of physical memory. The order
/// is always the same.
#[derive(Debug)]
pub(super) struct HostMemory {
    page_size: usize,
    pages: Mutex<Pages>,
}

#[derive(Debug, Default)]
struct Pages {
    frame_of_page: HashMap<usize, u64>,
    page_of_frame: HashMap<u64, usize>,
}

impl HostMemory {
    /// Returns the memory of a host with this page size: a power of two from 4096 to 65536. All
    /// frames then lie below the SEAM range.
    #[must_use]
    pub(super) fn new(page_size: usize) -> Self {
        Self {
            page_size: page_size.clamp(4096, 65536).next_power_of_two(),
            pages: Mutex::default(),
        }
    }

    /// Returns the physical address of a byte of this process. The caller exposes the pointer's
    /// provenance. Returns `None` if all frames are taken.
    #[must_use]
    pub(super) fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        let offset = address.addr() & self.page_size.wrapping_sub(1);
        let page = address.addr().wrapping_sub(offset);
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = u64::try_from(pages.frame_of_page.len()).ok()?;
        let frame = match pages.frame_of_page.get(&page) {
            Some(frame) => *frame,
            None if taken >= FRAMES => return None,
            None => {
                let number = taken.checked_mul(STRIDE)? % FRAMES;
                let frame =
                    number.checked_mul(2)?.checked_mul(self.frame_size())?.checked_add(BASE)?;
                pages.frame_of_page.insert(page, frame);
                pages.page_of_frame.insert(frame, page);
                frame
            }
        };
        frame.checked_add(u64::try_from(offset).ok()?).map(PhysAddr)
    }

    /// Returns the physical address of a byte of this process, if its page has a frame.
    #[must_use]
    pub(super) fn known_address(&self, address: *const u8) -> Option<PhysAddr> {
        let offset = address.addr() & self.page_size.wrapping_sub(1);
        let page = address.addr().wrapping_sub(offset);
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = pages.frame_of_page.get(&page)?;
        frame.checked_add(u64::try_from(offset).ok()?).map(PhysAddr)
    }

    /// Takes all frames back, because the pages behind them may be freed.
    pub(super) fn forget(&self) {
        *self.pages.lock().unwrap_or_else(PoisonError::into_inner) = Pages::default();
    }

    fn frame_size(&self) -> u64 {
        u64::try_from(self.page_size).unwrap_or(4096)
    }

    /// Returns the address in this process of `len` bytes at a physical address, if they lie in one
    /// frame that was given out.
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let offset = address & self.frame_size().wrapping_sub(1);
        let frame = address.checked_sub(offset)?;
        let offset = usize::try_from(offset).ok()?;
        if offset.checked_add(len)? > self.page_size {
            return None;
        }
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.page_of_frame.get(&frame)?.checked_add(offset)
    }
}

impl PhysMemory for HostMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        match self.locate(address, out.len()) {
            // SAFETY: a frame is known only if `phys_addr` was called with an address in its page.
            // By the contract of `SeamcallBackend::seamcall`, the caller of this SEAMCALL vouches
            // for every address that it passes: the memory exists, may be read, and its provenance
            // was exposed.
            Some(source) => unsafe {
                ptr::copy_nonoverlapping(
                    ptr::with_exposed_provenance::<u8>(source),
                    out.as_mut_ptr(),
                    out.len(),
                );
            },
            None => out.fill(0),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if let Some(target) = self.locate(address, bytes.len()) {
            // SAFETY: as in `read`. The caller of the SEAMCALL also vouches that the leaf may write
            // there.
            unsafe {
                ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    ptr::with_exposed_provenance_mut::<u8>(target),
                    bytes.len(),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address_of(memory: &HostMemory, byte: &u8) -> u64 {
        let byte = ptr::from_ref(byte);
        let _ = byte.expose_provenance();
        memory.phys_addr(byte).unwrap().0
    }

    #[test]
    fn adjacent_pages_get_separate_frames_and_physical_addresses_differ_from_virtual_ones() {
        let memory = HostMemory::new(4096);
        let bytes = crate::PageBuf::zeroed(3);
        let at = |offset: usize| address_of(&memory, &bytes.as_bytes()[offset]);
        let pages = [at(0), at(4096), at(8192)];
        assert!(pages.iter().all(|page| page % 4096 == 0));
        assert!(pages.windows(2).all(|pair| pair[0].abs_diff(pair[1]) > 4096));
        assert_eq!(at(5), pages[0] + 5);
        assert_ne!(pages[0], u64::try_from(bytes.as_bytes().as_ptr().addr()).unwrap());
    }

    #[test]
    fn a_read_at_the_physical_address_returns_the_bytes_of_the_process() {
        let memory = HostMemory::new(65536);
        let bytes = crate::PageBuf::copy_of(&[1, 2, 3, 4]);
        let address = address_of(&memory, &bytes.as_bytes()[0]);
        let mut out = [0; 2];
        memory.read(address + 1, &mut out);
        assert_eq!(out, [2, 3]);
        memory.read(address + 65536, &mut out);
        assert_eq!(out, [0, 0], "a hole");
    }
}
