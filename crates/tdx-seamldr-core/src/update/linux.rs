//! Linux's error codes for a refusal or an outcome: errno, and the error of a firmware upload.

use core::fmt;

use super::failure::FailureCause;
use super::outcome::{NextStep, Outcome};
use crate::abi::{TdxLeaf, TdxStatus};
use crate::backend::Trap;
use crate::preflight::Refusal;

/// A Linux error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Errno(pub i32);

impl Errno {
    /// Input/output error: firmware refused.
    pub const EIO: Self = Self(5);
    /// Device or resource busy: try again later, or bring all CPUs online.
    pub const EBUSY: Self = Self(16);
    /// No such device: no module can be called.
    pub const ENODEV: Self = Self(19);
    /// Invalid argument: preflight refused the image, or the update was set up for another machine
    /// or fewer LPs.
    pub const EINVAL: Self = Self(22);
    /// No space left: no updates remain.
    pub const ENOSPC: Self = Self(28);
    /// Operation not supported: SEAMCALL raised #GP, or the module cannot hand its TDs over.
    pub const EOPNOTSUPP: Self = Self(95);
    /// Permission denied: SEAMCALL raised #UD.
    pub const EACCES: Self = Self(13);
    /// Timed out: an LP gave up waiting for another LP.
    pub const ETIMEDOUT: Self = Self(110);
}

/// An error of Linux's firmware-upload interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UploadError {
    /// The hardware or the firmware failed.
    HwError,
    /// The update timed out.
    Timeout,
    /// The device is busy.
    Busy,
    /// Reading or writing failed.
    RwError,
    /// No updates remain. Only the patches up to version 5 return it.
    Wearout,
    /// The image is not valid. Linux 7.2 returns it for every error.
    FwInvalid,
}

impl UploadError {
    /// Returns the string that Linux shows in the file `error`, after the colon.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HwError => "hw-error",
            Self::Timeout => "timeout",
            Self::Busy => "device-busy",
            Self::RwError => "read-write-error",
            Self::Wearout => "flash-wearout",
            Self::FwInvalid => "firmware-invalid",
        }
    }
}

impl fmt::Display for UploadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The Linux version whose strings user space expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Version 6 of the patches, which has a string for each kind of error.
    V6,
    /// Linux 7.2, which has `firmware-invalid` for every error.
    Mainline,
}

impl Errno {
    /// Returns the upload error that Linux returns for this number.
    #[must_use]
    pub const fn upload_error(self, dialect: Dialect) -> UploadError {
        match (dialect, self) {
            (Dialect::Mainline, _) => UploadError::FwInvalid,
            (Dialect::V6, Self::EBUSY) => UploadError::Busy,
            // Version 6 has no `flash-wearout`: it returns EIO for P-SEAMLDR's EBADCALL.
            (Dialect::V6, Self::EIO | Self::ENOSPC) => UploadError::HwError,
            (Dialect::V6, Self::ETIMEDOUT) => UploadError::Timeout,
            (Dialect::V6, _) => UploadError::FwInvalid,
        }
    }
}

impl Refusal {
    /// Returns the error number that Linux, or an earlier version of its patches, has for this
    /// refusal.
    #[must_use]
    pub const fn errno(&self) -> Errno {
        match self {
            Self::NoModule => Errno::ENODEV,
            Self::NotTdPreserving(_) => Errno::EOPNOTSUPP,
            Self::NoRemainingUpdates => Errno::ENOSPC,
            Self::LpsMissing { .. } | Self::SensitiveOperations(_) => Errno::EBUSY,
            _ => Errno::EINVAL,
        }
    }
}

impl FailureCause {
    /// Returns the error number for this cause. It is Linux's, where Linux has one, except EBUSY
    /// for SYS_BUSY: a shutdown that can be repeated later. Linux has EIO there.
    #[must_use]
    pub fn errno(&self) -> Errno {
        match self {
            Self::UnknownLp | Self::OtherMachine => Errno::EINVAL,
            Self::GaveUp => Errno::ETIMEDOUT,
            Self::StillReady | Self::LpsChanged { .. } | Self::ModuleChanged => Errno::EBUSY,
            Self::NoRemainingUpdates => Errno::ENOSPC,
            Self::LpsMissing | Self::Trap(_, Trap::VmFailInvalid) => Errno::ENODEV,
            Self::Trap(_, Trap::GeneralProtection) => Errno::EOPNOTSUPP,
            Self::Trap(_, Trap::UndefinedOpcode) => Errno::EACCES,
            Self::Tdx(TdxLeaf::SYS_SHUTDOWN, status)
                if matches!(
                    status.code(),
                    TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE | TdxStatus::SYS_BUSY
                ) =>
            {
                Errno::EBUSY
            }
            Self::Tdx(..) | Self::Seamldr { .. } => Errno::EIO,
        }
    }
}

impl Outcome {
    /// Returns the error number that a driver returns. `None` (success) if the update's own image
    /// runs, or was loaded without TDs.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        let is_loaded = matches!(self.next, NextStep::Configure) && self.image == 0;
        if self.is_updated() || is_loaded {
            return None;
        }
        let failure = self.last_failure.or(self.failure);
        Some(failure.map_or(Errno::EIO, |failure| failure.cause.errno()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{SeamldrLeaf, SeamldrStatus, TdxFeatures0};
    use crate::update::{Call, Failure, NextStep, RunningModule, Stage, TdFate};

    #[test]
    fn each_cause_has_the_errno_and_the_string_of_linux() {
        let in_build = TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | 1 << 16);
        let install = |status| FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx: 0 };
        let trap = |trap| FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), trap);
        let rows = [
            (FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, in_build), Errno::EBUSY, "device-busy"),
            (
                FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY),
                Errno::EBUSY,
                "device-busy",
            ),
            (
                FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::OPERAND_INVALID),
                Errno::EIO,
                "hw-error",
            ),
            (FailureCause::Tdx(TdxLeaf::SYS_INIT, TdxStatus::SYS_BUSY), Errno::EIO, "hw-error"),
            (install(SeamldrStatus::EBADSIG), Errno::EIO, "hw-error"),
            (trap(Trap::VmFailInvalid), Errno::ENODEV, "firmware-invalid"),
            (trap(Trap::GeneralProtection), Errno::EOPNOTSUPP, "firmware-invalid"),
            (trap(Trap::UndefinedOpcode), Errno::EACCES, "firmware-invalid"),
            (FailureCause::GaveUp, Errno::ETIMEDOUT, "timeout"),
            (FailureCause::UnknownLp, Errno::EINVAL, "firmware-invalid"),
            (FailureCause::StillReady, Errno::EBUSY, "device-busy"),
            (FailureCause::LpsMissing, Errno::ENODEV, "firmware-invalid"),
            (FailureCause::LpsChanged { found: 2, wanted: 3 }, Errno::EBUSY, "device-busy"),
            (FailureCause::ModuleChanged, Errno::EBUSY, "device-busy"),
            (FailureCause::NoRemainingUpdates, Errno::ENOSPC, "hw-error"),
            (FailureCause::OtherMachine, Errno::EINVAL, "firmware-invalid"),
        ];
        let refusals = [
            (Refusal::NoRemainingUpdates, Errno::ENOSPC, "hw-error"),
            (Refusal::LpsMissing { found: 3, wanted: 4 }, Errno::EBUSY, "device-busy"),
            (Refusal::SensitiveOperations(1), Errno::EBUSY, "device-busy"),
            (Refusal::NoModule, Errno::ENODEV, "firmware-invalid"),
            (
                Refusal::NotTdPreserving(TdxFeatures0::empty()),
                Errno::EOPNOTSUPP,
                "firmware-invalid",
            ),
            (Refusal::Signature, Errno::EINVAL, "firmware-invalid"),
        ];
        for (refusal, errno, string) in refusals {
            assert_eq!(refusal.errno(), errno, "{refusal}");
            assert_eq!(errno.upload_error(Dialect::V6).as_str(), string, "{refusal}");
        }
        for (cause, errno, string) in rows {
            assert_eq!(cause.errno(), errno, "{cause}");
            assert_eq!(errno.upload_error(Dialect::V6).as_str(), string, "{cause}");
            assert_eq!(errno.upload_error(Dialect::Mainline), UploadError::FwInvalid);
        }
    }

    #[test]
    fn outcome_errno_is_that_of_the_last_failure() {
        let updated = Outcome {
            tds: TdFate::Preserved,
            running: RunningModule::New,
            next: NextStep::Done,
            image: 0,
            failure: None,
            last_failure: None,
            stage: Stage::Done,
            rounds: 1,
            lps: 1,
            finished_last_stage: 1,
        };
        let failure = |cause| Some(Failure { stage: Stage::CpuInit, lp: 0, cause });
        let (first, last) = (failure(FailureCause::GaveUp), failure(FailureCause::LpsMissing));
        assert_eq!(Outcome { failure: first, ..updated }.errno(), None, "it was overcome");
        let loaded = Outcome { tds: TdFate::Lost, next: NextStep::Configure, ..updated };
        assert_eq!(loaded.errno(), None);
        assert_eq!(
            Outcome { image: 1, ..loaded }.errno(),
            Some(Errno::EIO),
            "another image than it was to be"
        );
        assert_eq!(
            std::format!("{loaded}"),
            "loaded afresh, without the TDs; next: configure the module that was loaded, as at \
             boot"
        );
        let held = Outcome { tds: TdFate::Held, ..updated };
        assert_eq!(held.errno(), Some(Errno::EIO));
        assert_eq!(Outcome { failure: first, ..held }.errno(), Some(Errno::ETIMEDOUT));
        let both = Outcome { failure: first, last_failure: last, ..held };
        assert_eq!(both.errno(), Some(Errno::ENODEV));
        assert_eq!(
            Outcome { image: 1, ..both }.errno(),
            Some(Errno::ENODEV),
            "another image than it was to be"
        );
    }
}
