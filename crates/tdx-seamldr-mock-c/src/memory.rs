//! The host's memory: pieces of the caller's, and callbacks for the rest.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr;

use tdx_seamldr_mock::model::PhysMemory;

use crate::pointer::{self, Growing};
use crate::registry::{in_callback, with};
use crate::status::{guarded, Failure};
use crate::{TdxSim, TdxSimStatus};

/// Bytes of a page.
pub const TDX_SIM_PAGE_SIZE: usize = 4096;

const PAGE: u64 = 4096;

/// Memory of the caller, by physical address. Pieces are of whole pages, and do not overlap. What
/// lies in no piece is for the callbacks.
///
/// Each piece is there, and may be read and written, until it is unmapped: the one who maps it
/// guarantees that.
#[derive(Debug, Default)]
pub(crate) struct HostMemory {
    pieces: BTreeMap<u64, Piece>,
    callbacks: Option<Callbacks>,
    /// A callback has failed.
    failed: Cell<bool>,
}

/// Callbacks that may be called with their context until they are replaced: the one who sets them
/// guarantees that.
#[derive(Clone, Copy, Debug)]
struct Callbacks {
    read: unsafe extern "C" fn(*mut c_void, u64, *mut c_void, usize) -> c_int,
    write: unsafe extern "C" fn(*mut c_void, u64, *const c_void, usize) -> c_int,
    /// The pointer that they get, whose provenance was exposed.
    context: usize,
}

#[derive(Clone, Copy, Debug)]
struct Piece {
    /// Its address in this process. The provenance of the pointer was exposed.
    start: usize,
    len: usize,
}

impl HostMemory {
    /// Adds a piece.
    ///
    /// # Safety
    ///
    /// Until it is unmapped, or `self` is no more, `memory` leads to `len` bytes that may be read
    /// and written whenever `self` is used as [`PhysMemory`], and nobody holds a reference to
    /// them then that this would invalidate.
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
            return Err(Failure::new(
                TdxSimStatus::BadLength,
                format!("len is {len}, but should be a multiple of 4096 within addresses"),
            ));
        };
        // The last piece that begins before the end of the new one: if that one ends before its
        // start, so do all others.
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

    /// Removes the piece that begins here.
    pub(crate) fn unmap(&mut self, address: u64) -> Result<(), Failure> {
        self.pieces.remove(&address).map(|_| ()).ok_or_else(|| TdxSimStatus::NotMapped.into())
    }

    /// Whether a callback has failed since this was last asked.
    pub(crate) fn take_failure(&self) -> bool {
        self.callbacks.is_some() && self.failed.replace(false)
    }

    /// The address in this process of `len` bytes at a physical address, if all of them lie in one
    /// piece.
    fn locate(&self, address: u64, len: usize) -> Option<usize> {
        let (start, piece) = self.pieces.range(..=address).next_back()?;
        let offset = usize::try_from(address.checked_sub(*start)?).ok()?;
        (offset.checked_add(len)? <= piece.len).then(|| piece.start.checked_add(offset))?
    }
}

impl Piece {
    /// Whether the piece, which begins at `start`, has bytes at `address` or after it.
    fn reaches(&self, start: u64, address: u64) -> bool {
        let last =
            u64::try_from(self.len).ok().and_then(|len| start.checked_add(len.checked_sub(1)?));
        last.is_none_or(|last| last >= address)
    }
}

impl PhysMemory for HostMemory {
    fn read(&self, address: u64, out: &mut [u8]) {
        match self.locate(address, out.len()) {
            // SAFETY: the bytes lie in a piece, of which `map`'s caller guarantees that it is there
            // now and may be read; its provenance was exposed. They are the caller's
            // memory, so they do not overlap with `out`, which is the library's.
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
            // SAFETY: as in `read`; `map`'s caller guarantees that the piece may be written, too.
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
        // Nothing of it is left as it was, whatever a callback does.
        out.fill(0);
        let Some(Callbacks { read, context, .. }) = self.callbacks else { return };
        let (context, buffer) =
            (ptr::with_exposed_provenance_mut(context), out.as_mut_ptr().cast());
        // SAFETY: whoever set the callback guarantees that it may be called with this context. The
        // buffer has the length that is given.
        let result = in_callback(|| unsafe { read(context, address, buffer, out.len()) });
        if result != 0 {
            out.fill(0);
            self.failed.set(true);
        }
    }

    fn write_by_callback(&self, address: u64, bytes: &[u8]) {
        let Some(Callbacks { write, context, .. }) = self.callbacks else { return };
        let (context, start) = (ptr::with_exposed_provenance_mut(context), bytes.as_ptr().cast());
        // SAFETY: as for reading; the bytes have the length that is given.
        let result = in_callback(|| unsafe { write(context, address, start, bytes.len()) });
        if result != 0 {
            self.failed.set(true);
        }
    }
}

/// Makes `len` bytes at `memory` the host's memory at `physical_address`, KeyID included: what
/// firmware reads and writes there, until tdx_sim_unmap() or tdx_sim_free(). What is not mapped is
/// read and written by the callbacks of tdx_sim_set_memory_callbacks(); without them it reads as 0
/// and takes no writes. The same memory may be mapped at several physical addresses.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNALIGNED: `physical_address` is not a multiple of 4096
/// (`memory` may have any alignment); BAD_LENGTH: `len` is 0, not a multiple of 4096, or too much;
/// OVERLAP: some of the physical addresses are mapped already.
///
/// # Safety
///
/// Until it is unmapped or the platform is freed, `memory` leads to `len` bytes that may be read
/// and written. While a tdx_sim_seamcall() runs, no other thread writes the bytes that this call
/// reads, nor reads or writes the bytes that it writes. Which these are follows from the leaf and
/// its operands: SEAMLDR_PARAMS, the SIGSTRUCT and the pages of the module that it names, or
/// the buffer that it fills in. All else that is mapped may be used by other threads meanwhile.
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

/// Takes back what was mapped at `physical_address` by tdx_sim_map(), all of it. The memory then
/// belongs to the caller alone.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; NOT_MAPPED: nothing is mapped that begins there.
#[no_mangle]
pub extern "C" fn tdx_sim_unmap(sim: *mut TdxSim, physical_address: u64) -> TdxSimStatus {
    guarded(|| with(sim, |sim| sim.memory.unmap(physical_address)))
}

/// Reads `len` bytes of the host's memory at `physical_address`, KeyID included, into `buffer`. The
/// bytes lie in one page. 0: done; anything else: they cannot be read. Memory that is not there
/// reads as 0, and is no error.
pub type TdxSimReadCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        physical_address: u64,
        buffer: *mut c_void,
        len: usize,
    ) -> c_int,
>;

/// Writes `len` bytes to the host's memory at `physical_address`, KeyID included. The bytes lie in
/// one page. 0: done; anything else: they cannot be written. Writes to memory that is not there are
/// dropped, and are no error.
pub type TdxSimWriteCallback = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        physical_address: u64,
        bytes: *const c_void,
        len: usize,
    ) -> c_int,
>;

/// The host's memory, as functions of the caller.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimMemoryCallbacks {
    /// sizeof(tdx_sim_memory_callbacks), set by the caller.
    pub size: u32,
    /// 0.
    pub reserved: u32,
    /// What the functions get as `context`. It may be NULL.
    pub context: *mut c_void,
    /// Reads. Not NULL.
    pub read: TdxSimReadCallback,
    /// Writes. Not NULL.
    pub write: TdxSimWriteCallback,
}

// SAFETY: `repr(C)`; integers, pointers, and pointers to functions of which NULL is a value; it
// begins with its size.
unsafe impl Growing for TdxSimMemoryCallbacks {
    const NAME: &'static str = "tdx_sim_memory_callbacks";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// From now on firmware reads and writes the host's memory by these functions, where nothing is
/// mapped by tdx_sim_map(). `callbacks` may be NULL: no more. This is how an emulator gives all of
/// its memory.
///
/// The functions are called in the thread that makes the SEAMCALL. They must return, and must not
/// wait for another thread that uses the same platform. Functions that take a platform return
/// REENTRANT there. If one returns something other than 0, the SEAMCALL goes on, with zeros for
/// what could not be read, and tdx_sim_seamcall() returns CALLBACK_FAILED.
///
/// Errors: NULL: also if `read` or `write` is NULL; UNALIGNED; BAD_SIZE; BAD_ARGUMENT: `reserved`
/// is not 0; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// `callbacks` leads to a tdx_sim_memory_callbacks with its `size` set that may be read, or
/// nowhere. Until they are replaced or the platform is freed, its functions may be called with
/// `context` from each thread that makes SEAMCALLs on this platform. `read` writes `len` bytes of
/// `buffer` at most, and `write` reads `len` bytes at most.
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
                return Err(Failure::argument("reserved is not 0"));
            }
            Some(Callbacks { read, write, context: given.context.expose_provenance() })
        };
        with(sim, |sim| {
            sim.memory.callbacks = callbacks;
            Ok(())
        })
    })
}

/// From now on firmware reads the byte of the host's memory at `physical_address` with the bits of
/// `mask` flipped, whatever is there. A mask of 0 puts it right. At most 8 bytes can be so at the
/// same time.
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
        // SAFETY: the tests keep the bytes until they are done with the memory, and look at them in
        // between only.
        unsafe { memory.map(address, bytes.as_mut_ptr(), bytes.len()) }
            .map_err(|failure| failure.status)
    }

    #[test]
    fn what_is_mapped_is_read_and_written_in_place_and_the_rest_is_a_hole() {
        let mut bytes = vec![7u8; 8192 + 1];
        let mut memory = HostMemory::default();
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
        // One that has another inside.
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
