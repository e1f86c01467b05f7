//! What went wrong, written by whichever LP it happened to.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::outcome::{Call, Failure, FailureCause};
use super::Stage;
use crate::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use crate::debug::debug_fields;
use crate::{InstallError, TdxError, Trap};

/// Which call failed, and how: a trap is kept as the status word that Linux has for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawFailure {
    call: u64,
    status: u64,
    rdx: u64,
}

/// Values of [`RawFailure::call`] that are no leaf.
const GAVE_UP: u64 = 0xffff_ffff_ffff_fff0;
const UNKNOWN_LP: u64 = 0xffff_ffff_ffff_fff1;
const STILL_READY: u64 = 0xffff_ffff_ffff_fff2;
const LPS_MISSING: u64 = 0xffff_ffff_ffff_fff3;

impl RawFailure {
    pub(super) const GAVE_UP: Self = Self::without_call(GAVE_UP);
    pub(super) const UNKNOWN_LP: Self = Self::without_call(UNKNOWN_LP);
    pub(super) const STILL_READY: Self = Self::without_call(STILL_READY);
    pub(super) const LPS_MISSING: Self = Self::without_call(LPS_MISSING);

    /// P-SEAMLDR does not answer.
    pub(super) const SILENCE: Self =
        Self { call: SeamldrLeaf::Info.rax(), status: Trap::VmFailInvalid.status().0, rdx: 0 };

    const fn without_call(call: u64) -> Self {
        Self { call, status: 0, rdx: 0 }
    }

    pub(super) fn tdx(leaf: TdxLeaf, error: TdxError) -> Self {
        Self { call: leaf.rax(0), status: error.status().0, rdx: 0 }
    }

    pub(super) fn install(error: InstallError) -> Self {
        let (status, rdx) = match error {
            InstallError::Trap(trap) => (trap.status().0, 0),
            InstallError::Refused { status, rdx } => (status.0, rdx),
        };
        Self { call: SeamldrLeaf::Install.rax(), status, rdx }
    }

    pub(super) fn cause(self) -> FailureCause {
        match (self.call, Trap::from_status(TdxStatus(self.status))) {
            (GAVE_UP, _) => FailureCause::GaveUp,
            (UNKNOWN_LP, _) => FailureCause::UnknownLp,
            (STILL_READY, _) => FailureCause::StillReady,
            (LPS_MISSING, _) => FailureCause::LpsMissing,
            (call, Some(trap)) => FailureCause::Trap(Call::from_rax(call), trap),
            (call, None) => match Call::from_rax(call) {
                Call::Seamldr(leaf) => {
                    FailureCause::Seamldr { leaf, status: SeamldrStatus(self.status), rdx: self.rdx }
                }
                Call::Tdx(leaf) => FailureCause::Tdx(leaf, TdxStatus(self.status)),
            },
        }
    }
}

/// The first failure since the record was made or cleared. One LP claims it and writes it.
pub(super) struct Record {
    state: AtomicU32,
    lp: AtomicU32,
    stage: AtomicU32,
    call: AtomicU64,
    status: AtomicU64,
    rdx: AtomicU64,
}

debug_fields! { Record, state, lp, stage, call, status, rdx }

/// Values of [`Record::state`].
const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const WRITTEN: u32 = 2;

impl Record {
    pub(super) const fn new() -> Self {
        Self {
            state: AtomicU32::new(FREE),
            lp: AtomicU32::new(0),
            stage: AtomicU32::new(0),
            call: AtomicU64::new(0),
            status: AtomicU64::new(0),
            rdx: AtomicU64::new(0),
        }
    }

    /// Writes the failure if it is the first one.
    pub(super) fn write(&self, lp: u32, stage: Stage, raw: RawFailure) {
        if self.state.compare_exchange(FREE, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.lp.store(lp, Ordering::Relaxed);
            self.stage.store(u32::from(stage.number()), Ordering::Relaxed);
            self.call.store(raw.call, Ordering::Relaxed);
            self.status.store(raw.status, Ordering::Relaxed);
            self.rdx.store(raw.rdx, Ordering::Relaxed);
            self.state.store(WRITTEN, Ordering::Release);
        }
    }

    /// Makes room for another one. Only while nobody writes.
    pub(super) fn clear(&self) {
        self.state.store(FREE, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Option<Failure> {
        if self.state.load(Ordering::Acquire) != WRITTEN {
            return None;
        }
        let raw = RawFailure {
            call: self.call.load(Ordering::Relaxed),
            status: self.status.load(Ordering::Relaxed),
            rdx: self.rdx.load(Ordering::Relaxed),
        };
        Some(Failure {
            stage: Stage::from_number(self.stage.load(Ordering::Relaxed)),
            lp: self.lp.load(Ordering::Relaxed),
            cause: raw.cause(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_comes_back_as_it_was_written() {
        let status = SeamldrStatus::EBADSIG;
        let rows = [
            (RawFailure::GAVE_UP, FailureCause::GaveUp),
            (RawFailure::UNKNOWN_LP, FailureCause::UnknownLp),
            (RawFailure::STILL_READY, FailureCause::StillReady),
            (RawFailure::LPS_MISSING, FailureCause::LpsMissing),
            (
                RawFailure::install(InstallError::Trap(Trap::UndefinedOpcode)),
                FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::UndefinedOpcode),
            ),
            (RawFailure::SILENCE, FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid)),
            (
                RawFailure::install(InstallError::Refused { status, rdx: 7 }),
                FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx: 7 },
            ),
            (
                RawFailure::tdx(TdxLeaf::SYS_INIT, TdxError::Trap(Trap::GeneralProtection)),
                FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_INIT), Trap::GeneralProtection),
            ),
            (
                RawFailure::tdx(TdxLeaf::SYS_UPDATE, TdxError::Status(TdxStatus::SYS_BUSY)),
                FailureCause::Tdx(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY),
            ),
        ];
        for (raw, cause) in rows {
            let record = Record::new();
            assert_eq!(record.read(), None);
            record.write(5, Stage::CpuInit, raw);
            assert_eq!(record.read(), Some(Failure { stage: Stage::CpuInit, lp: 5, cause }));
        }
    }

    #[test]
    fn the_first_failure_stays_until_there_is_room_again() {
        let record = Record::new();
        record.write(1, Stage::CpuInstall, RawFailure::GAVE_UP);
        record.write(2, Stage::CpuInit, RawFailure::LPS_MISSING);
        assert_eq!(record.read().map(|failure| failure.lp), Some(1));
        record.clear();
        assert_eq!(record.read(), None);
        record.write(2, Stage::CpuInit, RawFailure::LPS_MISSING);
        assert_eq!(record.read().map(|failure| failure.cause), Some(FailureCause::LpsMissing));
    }
}
