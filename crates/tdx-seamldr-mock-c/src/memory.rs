//! The host's memory: pieces of the caller's.

use std::collections::BTreeMap;
use std::ffi::c_void;
use std::ptr;

use tdx_seamldr_mock::model::PhysMemory;

use crate::registry::with;
use crate::status::guarded;
use crate::{TdxSim, TdxSimStatus};

/// Bytes of a page.
pub const TDX_SIM_PAGE_SIZE: usize = 4096;

const PAGE: u64 = 4096;

/// Memory of the caller, by physical address. Pieces are of whole pages, and do not overlap.
///
/// Each piece is there, and may be read and written, until it is unmapped: the one who maps it guarantees that.
#[derive(Debug, Default)]
pub(crate) struct MappedMemory {
    pieces: BTreeMap<u64, Piece>,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its address in this process. The provenance of the pointer was exposed.
    start: usize,
    len: usize,
}

impl MappedMemory {
    /// Adds a piece.
    ///
    /// # Safety
    ///
    /// Until it is unmapped, or `self` is no more, `memory` leads to `len` bytes that may be read and written whenever
    /// `self` is used as [`PhysMemory`], and nobody holds a reference to them then that this would invalidate.
    pub(crate) unsafe fn map(
        &mut self,
        address: u64,
        memory: *mut u8,
        len: usize,
    ) -> Result<(), TdxSimStatus> {
        if memory.is_null() {
            return Err(TdxSimStatus::Null);
        }
        if !address.is_multiple_of(PAGE) {
            return Err(TdxSimStatus::Unaligned);
        }
        let whole = len != 0 && len.is_multiple_of(TDX_SIM_PAGE_SIZE) && isize::try_from(len).is_ok();
        let last = u64::try_from(len).ok().and_then(|len| address.checked_add(len.checked_sub(1)?));
        let (Some(last), Some(_), true) = (last, memory.addr().checked_add(len), whole) else {
            return Err(TdxSimStatus::BadLength);
        };
        // The last piece that begins before the end of the new one: if that one ends before its start, so do all others.
        if self.pieces.range(..=last).next_back().is_some_and(|(start, piece)| piece.reaches(*start, address))
        {
            return Err(TdxSimStatus::Overlap);
        }
        self.pieces.insert(address, Piece { start: memory.expose_provenance(), len });
        Ok(())
    }

    /// Removes the piece that begins here.
    pub(crate) fn unmap(&mut self, address: u64) -> Result<(), TdxSimStatus> {
        self.pieces.remove(&address).map(|_| ()).ok_or(TdxSimStatus::NotMapped)
    }

    /// The address in this process of `len` bytes at a physical address, if all of them lie in one piece.
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let (start, piece) = self.pieces.range(..=address).next_back()?;
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        (offset.checked_add(len)? <= piece.len).then(|| piece.start.checked_add(offset))?
    }
}

impl Piece {
    /// Whether the piece, which begins at `start`, has bytes at `address` or after it.
    fn reaches(&self, start: u64, address: u64) -> bool {
        let last = u64::try_from(self.len).ok().and_then(|len| start.checked_add(len.checked_sub(1)?));
        last.is_none_or(|last| last >= address)
    }
}

impl PhysMemory for MappedMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        match self.locate(address, out.len()) {
            // SAFETY: the bytes lie in a piece, of which `map`'s caller guarantees that it is there now and may be read; its
            // provenance was exposed. They are the caller's memory, so they do not overlap with `out`, which is the library's.
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
            // SAFETY: as in `read`; `map`'s caller guarantees that the piece may be written, too.
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

/// Makes `len` bytes at `memory` the host's memory at `physical_address`, KeyID included: what firmware reads and writes
/// there, until tdx_sim_unmap() or tdx_sim_free(). What is not mapped reads as 0 and takes no writes. The same memory may be
/// mapped at several physical addresses.
///
/// Errors: NULL; BAD_HANDLE; UNALIGNED: `physical_address` is not a multiple of 4096 (`memory` may have any alignment);
/// BAD_LENGTH: `len` is 0, not a multiple of 4096, or too much; OVERLAP: some of the physical addresses are mapped already.
///
/// # Safety
///
/// Until it is unmapped or the platform is freed, `memory` leads to `len` bytes that may be read and written. While
/// tdx_sim_seamcall() runs for this platform, no other thread accesses them, nor does firmware of another platform.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_map(
    sim: *mut TdxSim,
    physical_address: u64,
    memory: *mut c_void,
    len: usize,
) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            // SAFETY: this function's contract. The platform's memory is used in SEAMCALLs only.
            unsafe { sim.memory.map(physical_address, memory.cast(), len) }
        })
    })
}

/// Takes back what was mapped at `physical_address` by tdx_sim_map(), all of it. The memory then belongs to the caller alone.
///
/// Errors: NULL; BAD_HANDLE; NOT_MAPPED: nothing is mapped that begins there.
#[no_mangle]
pub extern "C" fn tdx_sim_unmap(sim: *mut TdxSim, physical_address: u64) -> TdxSimStatus {
    guarded(|| with(sim, |sim| sim.memory.unmap(physical_address)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x10_0000;

    fn map(memory: &mut MappedMemory, address: u64, bytes: &mut [u8]) -> Result<(), TdxSimStatus> {
        // SAFETY: the tests keep the bytes until they are done with the memory, and look at them in between only.
        unsafe { memory.map(address, bytes.as_mut_ptr(), bytes.len()) }
    }

    #[test]
    fn what_is_mapped_is_read_and_written_in_place_and_the_rest_is_a_hole() {
        let mut bytes = vec![7u8; 8192 + 1];
        let mut memory = MappedMemory::default();
        // The caller's own alignment does not matter.
        map(&mut memory, BASE, &mut bytes[1..]).unwrap();
        memory.write(BASE + 4096, &[1, 2, 3]);
        memory.write(BASE + 8192, &[9]);
        memory.write(BASE - 1, &[9]);
        let mut out = [0xff; 4];
        memory.read(BASE + 4095, &mut out);
        assert_eq!(out, [7, 1, 2, 3]);
        for hole in [BASE - 4, BASE + 8192, 0, u64::MAX - 3] {
            memory.read(hole, &mut out);
            assert_eq!(out, [0; 4], "{hole:#x}");
        }
        memory.unmap(BASE).unwrap();
        memory.read(BASE, &mut out);
        assert_eq!(out, [0; 4]);
        assert_eq!(bytes[4097..4100], [1, 2, 3]);
    }

    #[test]
    fn pieces_may_touch_but_not_overlap() {
        let mut memory = MappedMemory::default();
        let (mut two, mut four) = (vec![0u8; 8192], vec![0u8; 16384]);
        map(&mut memory, BASE, &mut two).unwrap();
        for (address, fits) in [
            (BASE - 8192, true),
            (BASE - 4096, false),
            (BASE, false),
            (BASE + 4096, false),
            (BASE + 8192, true),
        ] {
            let result = map(&mut memory, address, &mut vec![0u8; 8192]);
            assert_eq!(result.is_ok(), fits, "{address:#x}");
            if fits {
                memory.unmap(address).unwrap();
            }
        }
        // One that has another inside.
        assert_eq!(map(&mut memory, BASE - 4096, &mut four), Err(TdxSimStatus::Overlap));
        map(&mut memory, u64::MAX - 8191, &mut four[..8192]).unwrap();
        assert_eq!(map(&mut memory, u64::MAX - 4095, &mut four[..4096]), Err(TdxSimStatus::Overlap));
        memory.unmap(u64::MAX - 8191).unwrap();
        assert_eq!(map(&mut memory, u64::MAX - 4095, &mut four[..8192]), Err(TdxSimStatus::BadLength));
    }
}
