//! A platform's life: made, given TDs, freed.

use std::ffi::{c_char, CStr};
use std::ptr;

use tdx_seamldr_mock::model::{ModuleState, Platform, SeamMemory, TdId, TdPhase};
use tdx_seamldr_mock::vectors::platform_of_json;

use crate::memory::MappedMemory;
use crate::registry::{add, remove, with};
use crate::status::guarded;
use crate::{pointer, TdxSim, TdxSimStatus};

/// A platform, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) platform: Platform<Box<SeamMemory>>,
    pub(crate) memory: MappedMemory,
    /// What each TD's private memory has to hold.
    pub(crate) secrets: Vec<(TdId, [u8; 32])>,
    /// SEAMCALLs that were made.
    pub(crate) calls: u64,
}

impl Sim {
    pub(crate) fn new(platform: Platform<Box<SeamMemory>>) -> Self {
        Self { platform, memory: MappedMemory::default(), secrets: Vec::new(), calls: 0 }
    }

    fn create_td(&mut self, phase: TdPhase) -> Result<(), TdxSimStatus> {
        let module = self.platform.module();
        if !module.is_some_and(|module| module.state() == ModuleState::Ready) {
            return Err(TdxSimStatus::NotReady);
        }
        let number = self.secrets.len().to_le_bytes();
        let mut secret = [0x5a; 32];
        secret.iter_mut().zip(number.iter().cycle()).for_each(|(byte, number)| *byte ^= number);
        let td = self.platform.create_td(phase, secret).ok_or(TdxSimStatus::NoRoom)?;
        self.secrets.push((td, secret));
        Ok(())
    }
}

/// How far a TD has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TdxSimTdPhase {
    /// It runs.
    Running = 0,
    /// Its measurement is under way: between TDH.MNG.INIT and TDH.MR.FINALIZE.
    InBuild = 1,
    /// A step of its migration was interrupted.
    InterruptedMigration = 2,
}

impl TdxSimTdPhase {
    /// The number that C gives.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u32) enum
    pub const fn number(self) -> u32 {
        self as u32
    }

    fn of_number(number: u32) -> Result<TdPhase, TdxSimStatus> {
        let all = [
            (Self::Running, TdPhase::Running),
            (Self::InBuild, TdPhase::Build),
            (Self::InterruptedMigration, TdPhase::InterruptedMigration),
        ];
        let known = all.into_iter().find(|(phase, _)| phase.number() == number);
        known.map(|(_, phase)| phase).ok_or(TdxSimStatus::BadArgument)
    }
}

/// Makes a platform of a description: a JSON object with `platform` and `initial`, in the form of the recordings of the crate
/// tdx-seamldr-mock. The files README.md below its folder `vectors` describe it. On success `*sim` is the platform's handle, to
/// be given to tdx_sim_free() in the end; otherwise it becomes NULL.
///
/// `message` is room for `message_size` characters. It gets what is wrong with the description as text that ends with a NUL,
/// cut off if it is too long; or an empty text. It may be NULL if `message_size` is 0.
///
/// Errors: NULL, UNALIGNED: `sim` is not set then; NOT_UTF8; BAD_DESCRIPTION; NO_ROOM: handles have come to an end.
///
/// # Safety
///
/// `description` leads to text with a NUL at its end, `message` to `message_size` bytes that may be written, `sim` to a
/// pointer that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_create(
    description: *const c_char,
    message: *mut c_char,
    message_size: usize,
    sim: *mut *mut TdxSim,
) -> TdxSimStatus {
    let status = guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, ptr::null_mut()) }?;
        if description.is_null() || (message.is_null() && message_size != 0) {
            return Err(TdxSimStatus::Null);
        }
        // SAFETY: this function's contract, and it is not NULL.
        let bytes = unsafe { CStr::from_ptr(description) };
        let made = match bytes.to_str() {
            Err(error) => Err((TdxSimStatus::NotUtf8, format!("the description is no text: {error}"))),
            Ok(text) => {
                platform_of_json(text).map_err(|error| (TdxSimStatus::BadDescription, error.to_string()))
            }
        };
        let text = made.as_ref().map_or_else(|(_, text)| text.as_str(), |_| "");
        // SAFETY: this function's contract.
        unsafe { pointer::write_text(text, message, message_size) };
        let handle = add(Sim::new(made.map_err(|(status, _)| status)?))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, handle) }
    });
    if status == TdxSimStatus::Panic {
        // SAFETY: this function's contract; `message` may be NULL.
        unsafe { pointer::write_text("the library failed at this description", message, message_size) };
    }
    status
}

/// Makes a TD that has come so far (`phase`: a tdx_sim_td_phase). tdx_sim_get_truth() says how many TDs live.
///
/// Errors: NULL; BAD_HANDLE; BAD_ARGUMENT: there is no such phase; NOT_READY: no module is ready; NO_ROOM: there is no room,
/// or no KeyID, for another TD.
#[no_mangle]
pub extern "C" fn tdx_sim_create_td(sim: *mut TdxSim, phase: u32) -> TdxSimStatus {
    guarded(|| with(sim, |sim| sim.create_td(TdxSimTdPhase::of_number(phase)?)))
}

/// Frees a platform. If it is inside a SEAMCALL, that one is waited for; one that is delayed ends with BAD_HANDLE. Then all
/// memory that was mapped belongs to the caller alone again.
///
/// Errors: NULL; BAD_HANDLE: also if it was freed before.
#[no_mangle]
pub extern "C" fn tdx_sim_free(sim: *mut TdxSim) -> TdxSimStatus {
    guarded(|| remove(sim))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use tdx_seamldr_mock::model::{Config, LoaderProfile, SeamDb};
    use tdx_seamldr_mock::TEST_SIGNER;
    use zerocopy::FromZeros;

    /// A platform of two LPs without a module.
    pub(crate) fn sim() -> Sim {
        let config = Config::new(2, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).unwrap();
        let seamdb = SeamDb { size: 64, used: 0, insert_failures: 0 };
        Sim::new(Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap()))
    }

    #[test]
    fn a_platform_without_a_module_gets_no_td() {
        assert_eq!(sim().create_td(TdPhase::Running), Err(TdxSimStatus::NotReady));
    }
}
