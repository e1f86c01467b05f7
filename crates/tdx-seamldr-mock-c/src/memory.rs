//! The host's memory: pieces of the caller's memory, and callbacks for the rest.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr;

use tdx_seamldr_mock::model::PhysMemory;

use crate::pointer::{self, Growing};
use crate::registry::{in_callback, with};
use crate::status::{guarded, Failure};
use crate::{TdxSim, TdxSimStatus};

/// Size of a page in bytes.
pub const TDX_SIM_PAGE_SIZE: usize = 4096;

const PAGE: u64 = 4096;

/// The caller's memory, by physical address. Pieces consist of whole pages and do not overlap.
/// Callbacks read and write all memory outside the pieces.
///
/// Each piece is valid for reads and writes until it is unmapped, as `map`'s caller guarantees.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    pieces: BTreeMap<u64, Piece>,
    callbacks: Option<Callbacks>,
    /// Whether a callback has failed.
    failed: Cell<bool>,
}

/// Callbacks with their context. Their owner guarantees that they can be called until they are
/// replaced.
#[derive(Clone, Copy, Debug)]
struct Callbacks {
    read: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> c_int,
    write: unsafe extern "C" fn(*mut c_void, u64, *const c_void, usize) -> c_int,
    /// The context pointer, with exposed provenance.
    context: usize,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Address in this process, with exposed provenance.
    start: usize,
    len: usize,
}

impl HostMemory {
    /// Adds a piece.
    ///
    /// # Safety
    ///
    /// Until the piece is unmapped or `self` is dropped, `memory` points to `len` bytes that are
    /// valid for reads and writes whenever `self` is used as [`PhysMemory`]. No reference exists
    /// then that this would invalidate.
    pub(crate) unsafe fn map(
        &mut self,
        address: u64,
        memory: *mut u8,
        len: usize,
    ) -> Result<(), Failure> {
        if memory.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        if !address.is_multiple_of(PAGE) {
            let text =
                format!("physical_address is {address:#x}, but should be a multiple of 4096");
            return Err(Failure::new(TdxSimStatus::Unaligned, text));
        }
        let whole =
            len != 0 && len.is_multiple_of(TDX_SIM_PAGE_SIZE) && isize::try_from(len).is_ok();
        let last = u64::try_from(len).ok().and_then(|len| address.checked_add(len.checked_sub(1)?));
        let (Some(last), Some(_), true) = (last, memory.addr().checked_add(len), whole) else {
            let text = format!(
                "len is {len}, but should be a multiple of 4096 above 0 and fit the address space"
            );
            return Err(Failure::new(TdxSimStatus::BadLength, text));
        };
        // The last piece that begins before the end of the new piece. If it ends before the start
        // of the new piece, all earlier pieces do, too.
        if self
            .pieces
            .range(..=last)
            .next_back()
            .is_some_and(|(start, piece)| piece.reaches(*start, address))
        {
            return Err(TdxSimStatus::Overlap.into());
        }
        self.pieces.insert(address, Piece { start: memory.expose_provenance(), len });
        Ok(())
    }

    /// Removes the piece that begins at this address.
    pub(crate) fn unmap(&mut self, address: u64) -> Result<(), Failure> {
        self.pieces.remove(&address).map(|_| ()).ok_or_else(|| TdxSimStatus::NotMapped.into())
    }

    /// Returns whether a callback has failed since the last call of this function.
    pub(crate) fn take_failure(&self) -> bool {
        self.callbacks.is_some() && self.failed.replace(false)
    }

    /// Returns the address in this process of `len` bytes at a physical address, if all of them lie
    /// in one piece.
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let (start, piece) = self.pieces.range(..=address).next_back()?;
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        (offset.checked_add(len)? <= piece.len).then(|| piece.start.checked_add(offset))?
    }
}

impl Piece {
    /// Returns whether the piece that begins at `start` has bytes at or after `address`.
    fn reaches(&self, start: u64, address: u64) -> bool {
        let last =
            u64::try_from(self.len).ok().and_then(|len| start.checked_add(len.checked_sub(1)?));
        last.is_none_or(|last| last >= address)
    }
}

impl PhysMemory for HostMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        match self.locate(address, out.len()) {
            // SAFETY: the bytes lie in a piece. `map`'s caller guarantees that the piece is
            // readable now; its provenance was exposed. The bytes belong to the caller, so they do
            // not overlap with `out`, which belongs to the library.
            Some(source) => unsafe {
                ptr::copy_nonoverlapping(
                    ptr::with_exposed_provenance::<u8>(source),
                    out.as_mut_ptr(),
                    out.len(),
                );
            },
            None => self.read_by_callback(address, out),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if let Some(target) = self.locate(address, bytes.len()) {
            // SAFETY: as in `read`. `map`'s caller also guarantees that the piece is writable.
            unsafe {
                ptr::copy_nonoverlapping(
                    bytes.as_ptr(),
                    ptr::with_exposed_provenance_mut::<u8>(target),
                    bytes.len(),
                );
            }
        } else {
            self.write_by_callback(address, bytes);
        }
    }
}

impl HostMemory {
    fn read_by_callback(&self, address: u64, out: &mut [u8]) {
        // No old byte remains, whatever the callback does.
        out.fill(0);
        let Some(Callbacks { read, context, .. }) = self.callbacks else { return };
        let (context, buffer) =
            (ptr::with_exposed_provenance_mut(context), out.as_mut_ptr().cast());
        // SAFETY: the owner of the callback guarantees that it can be called with this context. The
        // buffer has the given length.
        let result = in_callback(|| unsafe { read(context, address, buffer, out.len()) });
        if result != 0 {
            out.fill(0);
            self.failed.set(true);
        }
    }

    fn write_by_callback(&self, address: u64, bytes: &[u8]) {
        let Some(Callbacks { write, context, .. }) = self.callbacks else { return };
        let (context, start) = (ptr::with_exposed_provenance_mut(context), bytes.as_ptr().cast());
        // SAFETY: as for reads. The bytes have the given length.
        let result = in_callback(|| unsafe { write(context, address, start, bytes.len()) });
        if result != 0 {
            self.failed.set(true);
        }
    }
}

/// Maps `len` bytes at `memory` as host memory at `physical_address`, including the KeyID, until
/// tdx_sim_unmap() or tdx_sim_free(). Firmware reads and writes these bytes.
///
/// The callbacks of tdx_sim_set_memory_callbacks() handle all other memory. Without callbacks it
/// reads as 0, and writes have no effect. The same memory may be mapped at several physical
/// addresses.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNALIGNED: `physical_address` is not a multiple of 4096
/// (`memory` may have any alignment); BAD_LENGTH: `len` is 0, not a multiple of 4096, or too large;
/// OVERLAP: some of the physical addresses are already mapped.
///
/// # Safety
///
/// Until the memory is unmapped or the platform is freed, `memory` points to `len` readable and
/// writable bytes. While a tdx_sim_seamcall() runs, no other thread writes the bytes that this call
/// reads, nor reads or writes the bytes that it writes. The leaf and its operands determine these
/// bytes: SEAMLDR_PARAMS, the SIGSTRUCT and the module's pages that it names, or the result buffer.
/// Other threads may use all other mapped bytes meanwhile.
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

/// Unmaps the memory that tdx_sim_map() mapped at `physical_address`. The library no longer uses
/// this memory.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; NOT_MAPPED: no mapped memory begins there.
#[no_mangle]
pub extern "C" fn tdx_sim_unmap(sim: *mut TdxSim, physical_address: u64) -> TdxSimStatus {
    guarded(|| with(sim, |sim| sim.memory.unmap(physical_address)))
}

/// Reads `len` bytes of host memory at `physical_address`, including the KeyID, into `buffer`. The
/// bytes lie in one page. Returns 0 on success. Missing memory reads as 0 and is not an error.
pub type TdxSimReadCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        physical_address: u64,
        buffer: *mut c_void,
        len: usize,
    ) -> c_int,
>;

/// Writes `len` bytes to host memory at `physical_address`, including the KeyID. The bytes lie in
/// one page. Returns 0 on success. Writes to missing memory have no effect and are not an error.
pub type TdxSimWriteCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        physical_address: u64,
        bytes: *const c_void,
        len: usize,
    ) -> c_int,
>;

/// Callbacks that read and write the host's memory.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimMemoryCallbacks {
    /// sizeof(tdx_sim_memory_callbacks), set by the caller.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// Passed to the functions as `context`. May be NULL.
    pub context: *mut c_void,
    /// Read function. Not NULL.
    pub read: TdxSimReadCallback,
    /// Write function. Not NULL.
    pub write: TdxSimWriteCallback,
}

// SAFETY: `repr(C)`; integers, pointers, and function pointers that may be NULL; it begins with its
// size.
unsafe impl Growing for TdxSimMemoryCallbacks {
    const NAME: &'static str = "tdx_sim_memory_callbacks";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Sets the functions with which firmware reads and writes host memory that tdx_sim_map() has not
/// mapped. NULL removes the functions. An emulator uses this to provide all of its memory.
///
/// The thread that makes the SEAMCALL calls the functions. They have to return, and must not wait
/// for another thread that uses the same platform. Functions that take a platform return REENTRANT
/// inside them. If a callback returns a value other than 0, the SEAMCALL continues with zeros
/// instead of the bytes, and tdx_sim_seamcall() returns CALLBACK_FAILED.
///
/// Errors: NULL: also if `read` or `write` is NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `reserved`
/// is not 0; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// `callbacks` points to a readable tdx_sim_memory_callbacks whose `size` is set, or is NULL. Until
/// the callbacks are replaced or the platform is freed, each thread that makes SEAMCALLs on this
/// platform may call them with `context`. `read` writes at most `len` bytes of `buffer`, and
/// `write` reads at most `len` bytes.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_set_memory_callbacks(
    sim: *mut TdxSim,
    callbacks: *const TdxSimMemoryCallbacks,
) -> TdxSimStatus {
    guarded(|| {
        let callbacks = if callbacks.is_null() {
            None
        } else {
            // SAFETY: this function's contract.
            let given = unsafe { pointer::read_sized(callbacks) }?;
            let (Some(read), Some(write)) = (given.read, given.write) else {
                return Err(Failure::new(TdxSimStatus::Null, "read or write is NULL"));
            };
            if given.reserved != 0 {
                return Err(Failure::argument("reserved is not 0; set it to 0"));
            }
            Some(Callbacks { read, write, context: given.context.expose_provenance() })
        };
        with(sim, |sim| {
            sim.memory.callbacks = callbacks;
            Ok(())
        })
    })
}

/// Makes firmware read the byte of host memory at `physical_address` with the bits of `mask`
/// flipped. A mask of 0 restores the byte. At most 8 bytes can be flipped at the same time.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; NO_ROOM.
#[no_mangle]
pub extern "C" fn tdx_sim_flip_memory(
    sim: *mut TdxSim,
    physical_address: u64,
    mask: u8,
) -> TdxSimStatus {
    guarded(|| {
        with(sim, |sim| {
            let done = sim.platform.tamper(physical_address, mask);
            done.then_some(()).ok_or_else(|| TdxSimStatus::NoRoom.into())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x10_0000;

    fn map(memory: &mut HostMemory, address: u64, bytes: &mut [u8]) -> Result<(), TdxSimStatus> {
        // SAFETY: the tests keep the bytes as long as the memory, and access them only between
        // calls.
        unsafe { memory.map(address, bytes.as_mut_ptr(), bytes.len()) }
            .map_err(|failure| failure.status)
    }

    #[test]
    fn mapped_memory_is_accessed_in_place_and_other_memory_reads_as_0() {
        let mut bytes = vec![7u8; 8192 + 1];
        let mut memory = HostMemory::default();
        // The memory of the caller may be misaligned.
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
    fn pieces_may_be_adjacent_but_not_overlap() {
        let mut memory = HostMemory::default();
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
        // The new piece contains another piece.
        assert_eq!(map(&mut memory, BASE - 4096, &mut four), Err(TdxSimStatus::Overlap));
        map(&mut memory, u64::MAX - 8191, &mut four[..8192]).unwrap();
        assert_eq!(
            map(&mut memory, u64::MAX - 4095, &mut four[..4096]),
            Err(TdxSimStatus::Overlap)
        );
        memory.unmap(u64::MAX - 8191).unwrap();
        assert_eq!(
            map(&mut memory, u64::MAX - 4095, &mut four[..8192]),
            Err(TdxSimStatus::BadLength)
        );
    }
}
