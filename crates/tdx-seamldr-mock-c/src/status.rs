//! What the functions return.

use std::ffi::{c_char, CStr};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// What came of a call of this library: 0, or a negative number. Unless something else is said, nothing was done then, and
/// nothing was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum TdxSimStatus {
    /// Done.
    Ok = 0,
    /// A pointer is NULL.
    Null = -1,
    /// The description is not UTF-8.
    NotUtf8 = -2,
    /// The description is not JSON of the right form, or there is no such platform.
    BadDescription = -3,
    /// The handle was never given out, or was freed.
    BadHandle = -4,
    /// The platform has no such LP.
    UnknownLp = -5,
    /// A pointer or a physical address is not a multiple of what it has to be.
    Unaligned = -6,
    /// A length is 0, not a multiple of 4096, or goes beyond the end of addresses.
    BadLength = -7,
    /// Something else is mapped there.
    Overlap = -8,
    /// Nothing is mapped that begins there.
    NotMapped = -9,
    /// There is no room for another one.
    NoRoom = -10,
    /// No module is ready.
    NotReady = -11,
    /// There is no such fault.
    BadFault = -12,
    /// A buffer is too small.
    BufferTooSmall = -13,
    /// Another argument has no meaning.
    BadArgument = -14,
    /// The library failed inside, now or in an earlier call for the same platform. The platform can only be freed.
    Panic = -15,
}

impl TdxSimStatus {
    /// All of them, with their names in C.
    const ALL: [(Self, &'static CStr); 16] = [
        (Self::Ok, c"TDX_SIM_STATUS_OK"),
        (Self::Null, c"TDX_SIM_STATUS_NULL"),
        (Self::NotUtf8, c"TDX_SIM_STATUS_NOT_UTF8"),
        (Self::BadDescription, c"TDX_SIM_STATUS_BAD_DESCRIPTION"),
        (Self::BadHandle, c"TDX_SIM_STATUS_BAD_HANDLE"),
        (Self::UnknownLp, c"TDX_SIM_STATUS_UNKNOWN_LP"),
        (Self::Unaligned, c"TDX_SIM_STATUS_UNALIGNED"),
        (Self::BadLength, c"TDX_SIM_STATUS_BAD_LENGTH"),
        (Self::Overlap, c"TDX_SIM_STATUS_OVERLAP"),
        (Self::NotMapped, c"TDX_SIM_STATUS_NOT_MAPPED"),
        (Self::NoRoom, c"TDX_SIM_STATUS_NO_ROOM"),
        (Self::NotReady, c"TDX_SIM_STATUS_NOT_READY"),
        (Self::BadFault, c"TDX_SIM_STATUS_BAD_FAULT"),
        (Self::BufferTooSmall, c"TDX_SIM_STATUS_BUFFER_TOO_SMALL"),
        (Self::BadArgument, c"TDX_SIM_STATUS_BAD_ARGUMENT"),
        (Self::Panic, c"TDX_SIM_STATUS_PANIC"),
    ];

    /// The number that C sees.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(i32) enum
    pub const fn number(self) -> i32 {
        self as i32
    }
}

/// The name of a status, for messages. It stays where it is. Never NULL: other numbers have the name "unknown status".
#[no_mangle]
pub extern "C" fn tdx_sim_status_name(status: i32) -> *const c_char {
    let known = TdxSimStatus::ALL.iter().find(|(known, _)| known.number() == status);
    known.map_or(c"unknown status", |(_, name)| name).as_ptr()
}

/// Runs what one function of the interface does. No panic gets out.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), TdxSimStatus>) -> TdxSimStatus {
    // What a panic may leave half done is a platform, which refuses further calls by its poisoned lock.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => TdxSimStatus::Ok,
        Ok(Err(status)) => status,
        Err(payload) => {
            // Dropping what somebody panicked with might panic again.
            std::mem::forget(payload);
            TdxSimStatus::Panic
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(status: i32) -> String {
        // SAFETY: the function returns a C string that stays where it is.
        unsafe { CStr::from_ptr(tdx_sim_status_name(status)) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn numbers_go_down_from_0_and_have_the_names_of_the_header() {
        let header = include_str!("../include/tdx_sim.h");
        for (index, (status, _)) in (0..).zip(TdxSimStatus::ALL) {
            assert_eq!(status.number(), -index);
            assert!(header.contains(&format!("{} = {},", name(-index), -index)), "{status:?}");
        }
        for unknown in [1, -16, i32::MIN, i32::MAX] {
            assert_eq!(name(unknown), "unknown status");
        }
    }

    #[test]
    fn a_panic_becomes_a_status_whatever_it_was_raised_with() {
        struct Nasty;
        impl Drop for Nasty {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        assert_eq!(guarded(|| panic!("of the test")), TdxSimStatus::Panic);
        assert_eq!(guarded(|| std::panic::panic_any(Nasty)), TdxSimStatus::Panic);
        assert_eq!(guarded(|| Err(TdxSimStatus::NoRoom)), TdxSimStatus::NoRoom);
    }
}
