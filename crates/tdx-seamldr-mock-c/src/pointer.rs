//! Pointers of the caller: what can be checked is, before they are used.

use std::ffi::c_char;
use std::mem::MaybeUninit;
use std::ptr;

use crate::status::Failure;
use crate::TdxSimStatus;

/// The largest structure that is believed, far above all that this library has.
const MAX_SIZE: usize = 1 << 16;

/// A structure that begins with its size, a `u32`, so that it can grow.
///
/// Whoever calls has the size of the header that it was compiled with. If that is less than the
/// library's, the fields that the caller does not know are taken as 0, which has to mean what was
/// so before there was the field; and they are not written. If it is more, what the library does
/// not know has to be 0; and it is written as 0.
///
/// # Safety
///
/// It is `repr(C)`, begins with a `u32`, and any bytes are a value of it.
pub(crate) unsafe trait Growing: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// The size that it had in the first version that was published: nobody has less.
    const FIRST_SIZE: usize;
}

/// A pointer that is neither NULL nor unaligned.
pub(crate) fn checked<T>(pointer: *const T) -> Result<(), Failure> {
    if pointer.is_null() {
        Err(TdxSimStatus::Null.into())
    } else if !pointer.is_aligned() {
        Err(TdxSimStatus::Unaligned.into())
    } else {
        Ok(())
    }
}

/// What the pointer leads to.
///
/// # Safety
///
/// If it is neither NULL nor unaligned, it leads to a `T` that may be read.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T) -> Result<T, Failure> {
    checked(pointer)?;
    // SAFETY: it is aligned and not NULL, so by this function's contract there is a `T` that may be
    // read.
    Ok(unsafe { pointer.read() })
}

/// Puts a value where the pointer leads to. What was there is not dropped.
///
/// # Safety
///
/// If it is neither NULL nor unaligned, it leads to room for a `T` that may be written.
pub(crate) unsafe fn write<T: Copy>(pointer: *mut T, value: T) -> Result<(), Failure> {
    checked(pointer)?;
    // SAFETY: it is aligned and not NULL, so by this function's contract there is room for a `T`
    // that may be written.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Puts a value where the pointer leads to, unless it is NULL.
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

/// The size in the first field of a structure, if it is one that can be.
///
/// # Safety
///
/// If the pointer is neither NULL nor unaligned, a `u32` may be read there.
pub(crate) unsafe fn sized<T: Growing>(pointer: *const T) -> Result<usize, Failure> {
    checked(pointer)?;
    // SAFETY: it is aligned for a `T`, which begins with a `u32`, and not NULL.
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

/// What is in a structure with a size.
///
/// # Safety
///
/// If the pointer is neither NULL nor unaligned, it leads to as many bytes that may be read as its
/// first field says, which is a `u32`.
pub(crate) unsafe fn read_sized<T: Growing>(pointer: *const T) -> Result<T, Failure> {
    // SAFETY: this function's contract.
    let size = unsafe { sized(pointer) }?;
    let known = size_of::<T>();
    let mut value = MaybeUninit::<T>::zeroed();
    let count = size.min(known);
    // SAFETY: `count` bytes may be read by this function's contract and written to `value`, which
    // is the library's own.
    unsafe { ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast(), count) };
    for offset in known..size {
        // SAFETY: the offset is below the size, so it is within the caller's structure.
        let unknown = unsafe { pointer.cast::<u8>().add(offset) };
        // SAFETY: as above; the byte may be read by this function's contract.
        if unsafe { unknown.read() } != 0 {
            let (name, text) = (T::NAME, "it is older than the header");
            let text = format!(
                "{name} has data at offset {offset}, but this library knows {known} bytes of it; \
                 {text}"
            );
            return Err(Failure::new(TdxSimStatus::BadSize, text));
        }
    }
    // SAFETY: any bytes are a value of a structure with a size, and all of them are initialised.
    Ok(unsafe { value.assume_init() })
}

/// Fills a structure in, but for its size.
///
/// # Safety
///
/// If the pointer is neither NULL nor unaligned, it leads to as many bytes that may be read and
/// written as its first field says, which is a `u32`.
pub(crate) unsafe fn write_sized<T: Growing>(pointer: *mut T, value: &T) -> Result<(), Failure> {
    const OFFSET: usize = size_of::<u32>();
    // SAFETY: this function's contract.
    let size = unsafe { sized(pointer) }?;
    let known = size_of::<T>();
    let target = pointer.cast::<u8>();
    let count = size.min(known).saturating_sub(OFFSET);
    let source = ptr::from_ref(value).cast::<u8>().wrapping_add(OFFSET);
    // SAFETY: `size` is not less than that of the first version, so the offset is within the
    // structure.
    let fields = unsafe { target.add(OFFSET) };
    // SAFETY: `count` bytes after the size are within both; the library's own value does not
    // overlap with the caller's.
    unsafe { ptr::copy_nonoverlapping(source, fields, count) };
    if let Some(rest) = size.checked_sub(known) {
        // SAFETY: the structure has `size` bytes that may be written, and `known` is not more.
        let unknown = unsafe { target.add(known) };
        // SAFETY: as above: the last `rest` bytes of them.
        unsafe { ptr::write_bytes(unknown, 0, rest) };
    }
    Ok(())
}

/// Puts bytes where the pointer leads to.
///
/// # Safety
///
/// It leads to as many bytes that may be written, and that are no memory of this library.
pub(crate) unsafe fn copy_out(bytes: &[u8], target: *mut u8) {
    // SAFETY: the contract says that the target has room for all of them, and that it does not
    // overlap with the slice, which is the library's own.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
}

/// A copy of what lies at a pointer. No bytes need no pointer.
///
/// # Safety
///
/// If it is neither NULL nor unaligned, it leads to `len` values that may be read.
pub(crate) unsafe fn copy_in<T: Copy>(pointer: *const T, len: usize) -> Result<Vec<T>, Failure> {
    if len == 0 {
        return Ok(Vec::new());
    }
    checked(pointer)?;
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| isize::try_from(bytes).is_err()) {
        return Err(TdxSimStatus::BadLength.into());
    }
    // SAFETY: it is aligned and not NULL, the length is possible, and the contract says that so
    // many may be read. Nobody writes them while the function runs: the caller gives them to
    // it.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) }.to_vec())
}

/// Puts text into a buffer of characters, with a NUL at its end. If there is not enough room, the
/// text is cut off between two characters.
///
/// # Safety
///
/// `buffer` leads to `size` bytes that may be written, or is NULL.
pub(crate) unsafe fn write_text(text: &str, buffer: *mut c_char, size: usize) {
    let Some(room) = size.checked_sub(1).filter(|_| !buffer.is_null()) else { return };
    // A NUL in the middle would end it.
    let text = text.split('\0').next().unwrap_or_default();
    let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut bytes = text.as_bytes().get(..end).unwrap_or_default().to_vec();
    bytes.push(0);
    // SAFETY: these are at most `room` + 1 = `size` bytes, and the contract says that so many may
    // be written.
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
    fn null_and_unaligned_pointers_are_never_followed() {
        let words = [0u64; 2];
        let unaligned = ptr::from_ref(&words).cast::<u8>().wrapping_add(1).cast::<u64>();
        let status = |result: Result<(), Failure>| result.unwrap_err().status;
        // SAFETY: neither of them is followed.
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

    /// A structure as the library knows it: the third field is new.
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
        // SAFETY: there are as many words as the first one says, or it is refused.
        unsafe { read_sized(words.as_ptr().cast::<Known>()) }.map_err(|failure| failure.status)
    }

    #[test]
    fn an_older_caller_has_0_in_the_new_field_and_a_newer_one_must_have_0_where_nothing_is_known() {
        assert_eq!(read_words(&[8, 7, 99]), Ok(Known { size: 8, first: 7, new: 0 }));
        assert_eq!(read_words(&[12, 7, 9]), Ok(Known { size: 12, first: 7, new: 9 }));
        assert_eq!(read_words(&[16, 7, 9, 0]), Ok(Known { size: 16, first: 7, new: 9 }));
        assert_eq!(read_words(&[16, 7, 9, 1 << 24]), Err(TdxSimStatus::BadSize));
        for wrong in [0, 4, 7, 9, 0x1_0004, u32::MAX] {
            assert_eq!(read_words(&[wrong, 7, 9]), Err(TdxSimStatus::BadSize), "{wrong}");
        }
    }

    #[test]
    fn what_an_older_caller_has_no_room_for_is_not_written_and_what_a_newer_one_has_more_becomes_0()
    {
        for (size, expected) in
            [(8, [8, 7, 0xee, 0xee]), (12, [12, 7, 9, 0xee]), (16, [16, 7, 9, 0])]
        {
            let mut words = [size, 0xee, 0xee, 0xee];
            // SAFETY: there are as many words as the first one says.
            let written = unsafe {
                write_sized(words.as_mut_ptr().cast(), &Known { size: 1, first: 7, new: 9 })
            };
            assert_eq!((written, words), (Ok(()), expected));
        }
        let mut words = [4, 0xee];
        // SAFETY: it is refused.
        let refused =
            unsafe { write_sized(words.as_mut_ptr().cast(), &Known { size: 1, first: 7, new: 9 }) };
        assert_eq!((refused.unwrap_err().status, words), (TdxSimStatus::BadSize, [4, 0xee]));
    }
}
