//! Memory: a mapping of all physical memory at other virtual addresses, and the page tables.

use core::sync::atomic::{AtomicU64, Ordering};

use tdx_seamldr_core::PhysAddr;
use x86_64::registers::control::Cr3;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first virtual address of the mapping.
const WINDOW: u64 = 0xffff_8000_0000_0000;
/// The first free physical address.
static NEXT: AtomicU64 = AtomicU64::new(64 << 20);
/// The size of the physical memory.
pub const END: u64 = 256 << 20;

/// A page of memory.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; 4096]);

/// Allocates zeroed pages, which are never freed.
pub fn pages(count: usize) -> &'static mut [Page] {
    let start = NEXT.fetch_add(count as u64 * 4096, Ordering::Relaxed);
    assert!(start + count as u64 * 4096 <= END, "out of memory");
    let start = (WINDOW + start) as *mut Page;
    // SAFETY: the mapping covers the memory. No other caller gets these pages, and a page may be
    // all zeros.
    unsafe {
        start.write_bytes(0, count);
        core::slice::from_raw_parts_mut(start, count)
    }
}

/// Returns a copy of these bytes at a page boundary.
pub fn copy(bytes: &[u8]) -> &'static [u8] {
    let pages = pages(bytes.len().div_ceil(4096));
    for (page, bytes) in pages.iter_mut().zip(bytes.chunks(4096)) {
        page.0[..bytes.len()].copy_from_slice(bytes);
    }
    &pages.as_bytes()[..bytes.len()]
}

/// Returns the physical address of a virtual address, by the page tables. `None` if it is not
/// mapped.
pub fn physical(address: u64) -> Option<PhysAddr> {
    let mut table = Cr3::read().0.start_address().as_u64();
    for shift in [39, 30, 21, 12] {
        let slot = table + (address >> shift & 0x1ff) * 8;
        // SAFETY: page tables are also mapped at their physical addresses. An entry has 8 bytes.
        let entry = unsafe { *(slot as *const u64) };
        if entry & 1 == 0 {
            return None;
        }
        let base = entry & 0x000f_ffff_ffff_f000;
        if shift == 12 || entry & 0x80 != 0 {
            let offset = (1 << shift) - 1;
            return Some(PhysAddr(base & !offset | address & offset));
        }
        table = base;
    }
    None
}
