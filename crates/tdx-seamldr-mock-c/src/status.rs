//! Statuses of the functions, and their descriptions.

use std::cell::RefCell;
use std::ffi::{c_char, CStr, CString};
use std::panic::{catch_unwind, AssertUnwindSafe};

/// Result of a function of this library: 0, or a negative number. After an error the function has
/// done and written nothing, unless its description says otherwise. tdx_sim_last_error() gives the
/// details.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimStatus {
    /// Success.
    Ok = 0,
    /// A pointer is NULL.
    Null = -1,
    /// A pointer or a physical address is misaligned.
    Unaligned = -2,
    /// The field `size` of a structure is wrong. Set it to `sizeof` of the structure.
    BadSize = -3,
    /// An argument or a field has an invalid value.
    BadArgument = -4,
    /// The handle was never given out, or was freed.
    BadHandle = -5,
    /// The function was called from a callback.
    Reentrant = -6,
    /// The description is not UTF-8.
    NotUtf8 = -7,
    /// The description is not JSON of the right form.
    BadDescription = -8,
    /// The arguments contradict each other.
    Contradiction = -9,
    /// The platform has no such LP.
    UnknownLp = -10,
    /// Another thread's SEAMCALL on this LP has not ended.
    LpBusy = -11,
    /// No such TD was made.
    UnknownTd = -12,
    /// No such fault was planned.
    UnknownFault = -13,
    /// A length is 0, not a multiple of 4096, or exceeds the address space.
    BadLength = -14,
    /// Some of the physical addresses are already mapped.
    Overlap = -15,
    /// No mapped memory begins at this address.
    NotMapped = -16,
    /// There is no room for another object.
    NoRoom = -17,
    /// A buffer is too small.
    BufferTooSmall = -18,
    /// There is no module.
    NoModule = -19,
    /// No module is ready.
    NotReady = -20,
    /// The TD is in another phase.
    BadPhase = -21,
    /// No ready module knows the TD: the TD is lost, or the module is not ready yet.
    TdGone = -22,
    /// The module found that an update left a measurement or a MAC of this TD that it cannot
    /// continue.
    TdIncompatible = -23,
    /// Firmware refused a call that the library made.
    Refused = -24,
    /// The file is not an image of a TDX module.
    BadImage = -25,
    /// A callback returned something other than 0.
    CallbackFailed = -26,
    /// No call is left in the trace.
    NoCall = -27,
    /// The library failed internally, in this call or in an earlier call for the same platform.
    /// The platform can only be freed.
    Internal = -28,
}

impl TdxSimStatus {
    /// All statuses, with their names in C and their default descriptions.
    const ALL: [(Self, &'static CStr, &'static str); 29] = [
        (Self::Ok, c"TDX_SIM_STATUS_OK", "done"),
        (Self::Null, c"TDX_SIM_STATUS_NULL", "a pointer is NULL"),
        (
            Self::Unaligned,
            c"TDX_SIM_STATUS_UNALIGNED",
            "a pointer or a physical address is misaligned",
        ),
        (Self::BadSize, c"TDX_SIM_STATUS_BAD_SIZE", "the field size of a structure is wrong"),
        (Self::BadArgument, c"TDX_SIM_STATUS_BAD_ARGUMENT", "an argument has an invalid value"),
        (
            Self::BadHandle,
            c"TDX_SIM_STATUS_BAD_HANDLE",
            "the handle was never given out, or was freed",
        ),
        (
            Self::Reentrant,
            c"TDX_SIM_STATUS_REENTRANT",
            "a callback called a function that takes a platform",
        ),
        (Self::NotUtf8, c"TDX_SIM_STATUS_NOT_UTF8", "the description is not UTF-8"),
        (
            Self::BadDescription,
            c"TDX_SIM_STATUS_BAD_DESCRIPTION",
            "the description is not JSON of the right form",
        ),
        (
            Self::Contradiction,
            c"TDX_SIM_STATUS_CONTRADICTION",
            "the arguments contradict each other",
        ),
        (Self::UnknownLp, c"TDX_SIM_STATUS_UNKNOWN_LP", "the platform has no such LP"),
        (
            Self::LpBusy,
            c"TDX_SIM_STATUS_LP_BUSY",
            "a SEAMCALL of another thread on this LP has not ended",
        ),
        (Self::UnknownTd, c"TDX_SIM_STATUS_UNKNOWN_TD", "no such TD was made"),
        (Self::UnknownFault, c"TDX_SIM_STATUS_UNKNOWN_FAULT", "no such fault was planned"),
        (
            Self::BadLength,
            c"TDX_SIM_STATUS_BAD_LENGTH",
            "a length is 0, not a multiple of 4096, or exceeds the address space",
        ),
        (
            Self::Overlap,
            c"TDX_SIM_STATUS_OVERLAP",
            "some of the physical addresses are already mapped",
        ),
        (Self::NotMapped, c"TDX_SIM_STATUS_NOT_MAPPED", "no mapped memory begins at this address"),
        (Self::NoRoom, c"TDX_SIM_STATUS_NO_ROOM", "there is no room for another object"),
        (Self::BufferTooSmall, c"TDX_SIM_STATUS_BUFFER_TOO_SMALL", "a buffer is too small"),
        (Self::NoModule, c"TDX_SIM_STATUS_NO_MODULE", "there is no module"),
        (Self::NotReady, c"TDX_SIM_STATUS_NOT_READY", "no module is ready"),
        (Self::BadPhase, c"TDX_SIM_STATUS_BAD_PHASE", "the TD is in another phase"),
        (Self::TdGone, c"TDX_SIM_STATUS_TD_GONE", "no ready module knows the TD"),
        (
            Self::TdIncompatible,
            c"TDX_SIM_STATUS_TD_INCOMPATIBLE",
            "an update left a measurement or a MAC that the module cannot continue",
        ),
        (Self::Refused, c"TDX_SIM_STATUS_REFUSED", "firmware refused a call that the library made"),
        (Self::BadImage, c"TDX_SIM_STATUS_BAD_IMAGE", "the file is not an image of a TDX module"),
        (
            Self::CallbackFailed,
            c"TDX_SIM_STATUS_CALLBACK_FAILED",
            "a callback returned something other than 0",
        ),
        (Self::NoCall, c"TDX_SIM_STATUS_NO_CALL", "no call is left in the trace"),
        (
            Self::Internal,
            c"TDX_SIM_STATUS_INTERNAL",
            "the library failed internally; the platform can only be freed",
        ),
    ];

    /// Returns the number in C.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of an enum of C
    pub const fn number(self) -> i32 {
        self as i32
    }

    fn meaning(self) -> &'static str {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(.., meaning)| meaning)
    }
}

/// A tdx_sim_status from C: any number.
pub type TdxSimStatusNumber = i32;

/// Returns the name of a status, e.g. "TDX_SIM_STATUS_NULL". The text is static and never NULL; the
/// name of an unknown number is "unknown status".
#[no_mangle]
pub extern "C" fn tdx_sim_status_name(status: TdxSimStatusNumber) -> *const c_char {
    let known = TdxSimStatus::ALL.iter().find(|(known, ..)| known.number() == status);
    known.map_or(c"unknown status", |(_, name, _)| name).as_ptr()
}

/// Why a function failed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) status: TdxSimStatus,
    text: Option<String>,
}

impl Failure {
    pub(crate) fn new(status: TdxSimStatus, text: impl Into<String>) -> Self {
        Self { status, text: Some(text.into()) }
    }

    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(TdxSimStatus::BadArgument, text)
    }
}

impl From<TdxSimStatus> for Failure {
    fn from(status: TdxSimStatus) -> Self {
        Self { status, text: None }
    }
}

thread_local! {
    /// Description of the last failure in this thread.
    static LAST: RefCell<CString> = RefCell::default();
}

/// Returns a description of the last call of this thread that did not return TDX_SIM_STATUS_OK:
/// what was found, and what was expected. The text is empty if no call has failed, and never NULL.
/// It is valid until the next call of this library in this thread.
#[no_mangle]
pub extern "C" fn tdx_sim_last_error() -> *const c_char {
    // The text does not move until this thread replaces it.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

fn remember(failure: Failure) -> TdxSimStatus {
    let text = failure.text.unwrap_or_else(|| failure.status.meaning().to_owned());
    let text = CString::new(text.replace('\0', "")).unwrap_or_default();
    // A thread that is about to end stores no failure.
    let _ = LAST.try_with(|last| *last.borrow_mut() = text);
    failure.status
}

/// Runs the body of an interface function, and turns a panic into a status.
pub(crate) fn guarded(run: impl FnOnce() -> Result<(), Failure>) -> TdxSimStatus {
    // A panic can only leave a platform inconsistent. The platform's poisoned lock then refuses
    // further calls.
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(())) => TdxSimStatus::Ok,
        Ok(Err(failure)) => remember(failure),
        Err(payload) => {
            // Dropping the payload of a panic might panic again.
            std::mem::forget(payload);
            remember(TdxSimStatus::Internal.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(status: i32) -> String {
        // SAFETY: the function returns a static C string.
        unsafe { CStr::from_ptr(tdx_sim_status_name(status)) }.to_str().unwrap().to_owned()
    }

    fn last_error() -> String {
        // SAFETY: the function returns a C string that is valid until the next call.
        unsafe { CStr::from_ptr(tdx_sim_last_error()) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn statuses_have_descending_numbers_from_0_and_the_names_of_the_header() {
        let header = include_str!("../include/tdx_sim.h");
        for (index, (status, ..)) in (0..).zip(TdxSimStatus::ALL) {
            assert_eq!(status.number(), -index);
            assert!(header.contains(&format!("{} = {},", name(-index), -index)), "{status:?}");
        }
        let last = TdxSimStatus::ALL.map(|(status, ..)| status.number()).into_iter().min().unwrap();
        for unknown in [1, last - 1, i32::MIN, i32::MAX] {
            assert_eq!(name(unknown), "unknown status");
        }
    }

    #[test]
    fn a_panic_with_any_payload_becomes_a_status() {
        struct Nasty;
        impl Drop for Nasty {
            fn drop(&mut self) {
                panic!("once more");
            }
        }
        assert_eq!(guarded(|| panic!("of the test")), TdxSimStatus::Internal);
        assert_eq!(guarded(|| std::panic::panic_any(Nasty)), TdxSimStatus::Internal);
        assert_eq!(guarded(|| Err(TdxSimStatus::NoRoom.into())), TdxSimStatus::NoRoom);
    }

    #[test]
    fn the_last_error_belongs_to_this_thread_and_survives_successful_calls() {
        assert_eq!(
            guarded(|| Err(Failure::argument("pages is 0\0, but"))),
            TdxSimStatus::BadArgument
        );
        assert_eq!(last_error(), "pages is 0, but", "a NUL does not end the text");
        assert_eq!(guarded(|| Ok(())), TdxSimStatus::Ok);
        assert_eq!(last_error(), "pages is 0, but");
        std::thread::spawn(|| assert_eq!(last_error(), "")).join().unwrap();
        assert_eq!(guarded(|| Err(TdxSimStatus::NoModule.into())), TdxSimStatus::NoModule);
        assert_eq!(last_error(), "there is no module");
    }
}
