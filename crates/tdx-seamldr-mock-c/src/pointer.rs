//! Pointers of the caller: what can be checked is, before they are used.

use std::ffi::c_char;
use std::ptr;

use crate::TdxSimStatus;

/// A pointer that is neither NULL nor unaligned.
pub(crate) fn checked<T>(pointer: *const T) -> Result<(), TdxSimStatus> {
    if pointer.is_null() {
        Err(TdxSimStatus::Null)
    } else if !pointer.is_aligned() {
        Err(TdxSimStatus::Unaligned)
    } else {
        Ok(())
    }
}

/// What the pointer leads to.
///
/// # Safety
///
/// If it is neither NULL nor unaligned, it leads to a `T` that may be read.
pub(crate) unsafe fn read<T: Copy>(pointer: *const T) -> Result<T, TdxSimStatus> {
    checked(pointer)?;
    // SAFETY: it is aligned and not NULL, so by this function's contract there is a `T` that may be read.
    Ok(unsafe { pointer.read() })
}

/// Puts a value where the pointer leads to. What was there is not dropped.
///
/// # Safety
///
/// If it is neither NULL nor unaligned, it leads to room for a `T` that may be written.
pub(crate) unsafe fn write<T: Copy>(pointer: *mut T, value: T) -> Result<(), TdxSimStatus> {
    checked(pointer)?;
    // SAFETY: it is aligned and not NULL, so by this function's contract there is room for a `T` that may be written.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Puts bytes where the pointer leads to.
///
/// # Safety
///
/// It leads to as many bytes that may be written, and that are no memory of this library.
pub(crate) unsafe fn copy_out(bytes: &[u8], target: *mut u8) {
    // SAFETY: the contract says that the target has room for all of them, and that it does not overlap with the slice, which
    // is the library's own.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) };
}

/// Puts text into a buffer of characters, with a NUL at its end. If there is not enough room, the text is cut off between two
/// characters.
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
    // SAFETY: these are at most `room` + 1 = `size` bytes, and the contract says that so many may be written.
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
        // SAFETY: neither of them is followed.
        assert_eq!(unsafe { read::<u64>(ptr::null()) }, Err(TdxSimStatus::Null));
        // SAFETY: as above.
        assert_eq!(unsafe { read(unaligned) }, Err(TdxSimStatus::Unaligned));
        // SAFETY: as above.
        assert_eq!(unsafe { write(unaligned.cast_mut(), 1) }, Err(TdxSimStatus::Unaligned));
    }
}
