//! Checks of the caller's pointers before the library uses them.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use crate::status::Failure;
use crate::TdxSimStatus;

/// The largest size of a structure that is accepted, far above every structure of this library.
const MAX_SIZE: usize = 1 << 16;

/// A structure that begins with its size, a `u32`, so that later versions can add fields.
///
/// The caller has the size from the header that it was compiled with. If this size is smaller than
/// the library's, the library reads the missing fields as 0 and does not write them. So 0 has to
/// mean the behaviour before the field existed. If the size is larger, the bytes that the library
/// does not know have to be 0, and are written as 0.
///
/// # Safety
///
/// The structure is `repr(C)`, begins with a `u32`, and any bytes are a value of it.
pub(crate) unsafe trait Growing: Copy {
    /// Name in C.
    const NAME: &'static str;
    /// Size in the first published version, the smallest valid size.
    const FIRST_SIZE: usize;
}

/// Checks that a pointer is neither NULL nor misaligned.
pub(crate) fn checked<T>(pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(TdxSimStatus::Null.into())
    } else if !pointer.is_aligned() {
        Err(TdxSimStatus::Unaligned.into())
    } else {
        Ok(())
    }
}

/// Reads the value that the pointer points to.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, it points to a readable `T`.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T) -> Result<T, Failure> {
    checked(pointer)?;
    // SAFETY: the pointer is aligned and not NULL, so by this function's contract it points to a
    // readable `T`.
    Ok(unsafe { pointer.read() })
}

/// Writes a value where the pointer points to. The old value is not dropped.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, it points to writable room for a `T`.
pub(crate) unsafe fn write<T: Copy>(pointer: *mut T, value: T) -> Result<(), Failure> {
    checked(pointer)?;
    // SAFETY: the pointer is aligned and not NULL, so by this function's contract it points to
    // writable room for a `T`.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Writes a value where the pointer points to, unless the pointer is NULL.
///
/// # Safety
///
/// As for `write`.
pub(crate) unsafe fn write_if_wanted<T: Copy>(pointer: *mut T, value: T) -> Result<(), Failure> {
    if pointer.is_null() {
        return Ok(());
    }
    // SAFETY: this function's contract.
    unsafe { write(pointer, value) }
}

/// Returns the size in the first field of a structure, if the size is valid.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, it points to a readable `u32`.
pub(crate) unsafe fn sized<T: Growing>(pointer: *const T) -> Result<usize, Failure> {
    checked(pointer)?;
    // SAFETY: the pointer is not NULL and aligned for a `T`, which begins with a `u32`.
    let size = unsafe { pointer.cast::<u32>().read() };
    usize::try_from(size)
        .ok()
        .filter(|size| (T::FIRST_SIZE..=MAX_SIZE).contains(size) && size.is_multiple_of(4))
        .ok_or_else(|| {
            let (name, known) = (T::NAME, size_of::<T>());
            let text = format!(
                "{name}.size is {size}, but should be sizeof({name}), which is {known} here"
            );
            Failure::new(TdxSimStatus::BadSize, text)
        })
}

/// Reads a structure with a size.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, its first field is a `u32`, and it points to as
/// many readable bytes as this field says.
pub(crate) unsafe fn read_sized<T: Growing>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: this function's contract.
    let size = unsafe { sized(pointer) }?;
    let known = size_of::<T>();
    let mut value = MaybeUninit::<T>::zeroed();
    let count = size.min(known);
    // SAFETY: `count` bytes are readable by this function's contract, and writable in `value`,
    // which belongs to the library.
    unsafe { ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), count) };
    for offset in known..size {
        // SAFETY: the offset is below the size, so it is within the caller's structure.
        let unknown = unsafe { pointer.cast::<u8>().add(offset) };
        // SAFETY: as above; the byte is readable by this function's contract.
        if unsafe { unknown.read() } != 0 {
            let text = format!(
                "{} has data at offset {offset}, but this library knows {known} bytes of it; it \
                 is older than the header",
                T::NAME
            );
            return Err(Failure::new(TdxSimStatus::BadSize, text));
        }
    }
    // SAFETY: any bytes are a value of a structure with a size, and all of them are initialised.
    Ok(unsafe { value.assume_init() })
}

/// Fills in a structure, except its size.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, its first field is a `u32`, and it points to as
/// many readable and writable bytes as this field says.
pub(crate) unsafe fn write_sized<T: Growing>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    const OFFSET: usize = size_of::<u32>();
    // SAFETY: this function's contract.
    let size = unsafe { sized(pointer) }?;
    let known = size_of::<T>();
    let target = pointer.cast::<u8>();
    let count = size.min(known).saturating_sub(OFFSET);
    let source = ptr::from_ref(value).cast::<u8>().wrapping_add(OFFSET);
    // SAFETY: `size` is at least that of the first version, so the offset is within the structure.
    let fields = unsafe { target.add(OFFSET) };
    // SAFETY: `count` bytes after the size are within both structures. The library's value does not
    // overlap with the caller's.
    unsafe { ptr::copy_nonoverlapping(source, fields, count) };
    if let Some(rest) = size.checked_sub(known) {
        // SAFETY: the structure has `size` writable bytes, and `known` is at most `size`.
        let unknown = unsafe { target.add(known) };
        // SAFETY: as above: these are the last `rest` bytes.
        unsafe { ptr::write_bytes(unknown, 0, rest) };
    }
    Ok(())
}

/// Writes bytes where the pointer points to.
///
/// # Safety
///
/// The pointer points to as many writable bytes, which are not memory of this library.
pub(crate) unsafe fn copy_out(bytes: &[u8], target: *mut u8) {
    // SAFETY: by the contract, the target has room for all bytes, and does not overlap with the
    // slice, which belongs to the library.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
}

/// Returns a copy of `len` values at a pointer. With `len` 0 the pointer is not used.
///
/// # Safety
///
/// If the pointer is neither NULL nor misaligned, it points to `len` readable values.
pub(crate) unsafe fn copy_in<T: Copy>(pointer: *const T, len: usize) -> Result<Vec<T>, Failure> {
    if len == 0 {
        return Ok(Vec::new());
    }
    checked(pointer)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(TdxSimStatus::BadLength.into());
    }
    // SAFETY: the pointer is aligned and not NULL, the length is possible, and by the contract
    // `len` values are readable. No thread writes them while the function runs, because the caller
    // lends them to it.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) }.to_vec())
}

/// Writes text into a buffer of characters, with a NUL at its end. If the buffer is too small, the
/// text is cut between two characters.
///
/// # Safety
///
/// `buffer` points to `size` writable bytes, or is NULL.
pub(crate) unsafe fn write_text(text: &str, buffer: *mut c_char, size: usize) {
    let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else { return };
    // A NUL inside the text would end it.
    let text = text.split('\0').next().unwrap_or_default();
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut bytes = text.as_bytes().get(..end).unwrap_or_default().to_vec();
    bytes.push(0);
    // SAFETY: these are at most `room` + 1 = `size` bytes, which are writable by the contract.
    unsafe { copy_out(&bytes, buffer.cast()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, size: usize) -> Vec<u8> {
        let mut buffer = vec![0xffu8; 8];
        // SAFETY: the buffer has more than `size` bytes.
        unsafe { write_text(text, buffer.as_mut_ptr().cast(), size) };
        buffer
    }

    #[test]
    fn text_ends_with_a_nul_and_is_cut_between_characters() {
        assert_eq!(&written("abc", 8)[..5], b"abc\0\xff");
        assert_eq!(&written("abc", 4)[..5], b"abc\0\xff");
        assert_eq!(&written("abc", 3)[..4], b"ab\0\xff");
        assert_eq!(&written("a\u{e4}", 3)[..3], b"a\0\xff");
        assert_eq!(&written("a\0b", 8)[..3], b"a\0\xff");
        assert_eq!(&written("abc", 1)[..2], b"\0\xff");
        assert_eq!(&written("abc", 0)[..1], b"\xff");
    }

    #[test]
    fn null_and_misaligned_pointers_are_refused() {
        let words = [0u64; 2];
        let unaligned = ptr::from_ref(&words).cast::<u8>().wrapping_add(1).cast::<u64>();
        let status = |result: Result<(), Failure>| result.unwrap_err().status;
        // SAFETY: the function follows neither pointer.
        assert_eq!(status(unsafe { read::<u64>(ptr::null()) }.map(drop)), TdxSimStatus::Null);
        // SAFETY: as above.
        assert_eq!(status(unsafe { read(unaligned) }.map(drop)), TdxSimStatus::Unaligned);
        // SAFETY: as above.
        assert_eq!(status(unsafe { write(unaligned.cast_mut(), 1) }), TdxSimStatus::Unaligned);
        // SAFETY: as above.
        assert_eq!(status(unsafe { copy_in(unaligned, 1) }.map(drop)), TdxSimStatus::Unaligned);
        // SAFETY: the length exceeds the address space, so the function reads nothing.
        let too_long = unsafe { copy_in(words.as_ptr(), usize::MAX) };
        assert_eq!(status(too_long.map(drop)), TdxSimStatus::BadLength);
        // SAFETY: nothing is read.
        assert_eq!(unsafe { copy_in::<u64>(ptr::null(), 0) }, Ok(Vec::new()));
    }

    /// A structure as the library knows it. The third field is new.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    #[repr(C)]
    struct Known {
        size: u32,
        first: u32,
        new: u32,
    }

    // SAFETY: three `u32`, of which the first is the size.
    unsafe impl Growing for Known {
        const NAME: &'static str = "known";
        const FIRST_SIZE: usize = 8;
    }

    fn read_words(words: &[u32]) -> Result<Known, TdxSimStatus> {
        // SAFETY: there are as many words as the first word says, or the function refuses the
        // structure.
        unsafe { read_sized(words.as_ptr().cast::<Known>()) }.map_err(|failure| failure.status)
    }

    #[test]
    fn new_fields_read_as_0_from_an_older_caller_and_unknown_fields_have_to_be_0() {
        assert_eq!(read_words(&[8, 7, 99]), Ok(Known { size: 8, first: 7, new: 0 }));
        assert_eq!(read_words(&[12, 7, 9]), Ok(Known { size: 12, first: 7, new: 9 }));
        assert_eq!(read_words(&[16, 7, 9, 0]), Ok(Known { size: 16, first: 7, new: 9 }));
        assert_eq!(read_words(&[16, 7, 9, 1 << 24]), Err(TdxSimStatus::BadSize));
        for wrong in [0, 4, 7, 9, 0x1_0004, u32::MAX] {
            assert_eq!(read_words(&[wrong, 7, 9]), Err(TdxSimStatus::BadSize), "{wrong}");
        }
    }

    #[test]
    fn new_fields_are_not_written_for_an_older_caller_and_unknown_fields_become_0() {
        for (size, expected) in
            [(8, [8, 7, 0xee, 0xee]), (12, [12, 7, 9, 0xee]), (16, [16, 7, 9, 0])]
        {
            let mut words = [size, 0xee, 0xee, 0xee];
            // SAFETY: there are as many words as the first word says.
            let written = unsafe {
                write_sized(words.as_mut_ptr().cast(), &Known { size: 1, first: 7, new: 9 })
            };
            assert_eq!((written, words), (Ok(()), expected));
        }
        let mut words = [4, 0xee];
        // SAFETY: the function refuses the structure.
        let refused =
            unsafe { write_sized(words.as_mut_ptr().cast(), &Known { size: 1, first: 7, new: 9 }) };
        assert_eq!((refused.unwrap_err().status, words), (TdxSimStatus::BadSize, [4, 0xee]));
    }
}
