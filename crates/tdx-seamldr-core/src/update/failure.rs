//! The failures of an update: cause, call, and the record that one LP writes for all LPs.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::stage::Stage;
use crate::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use crate::backend::Trap;
use crate::debug::debug_fields;
use crate::seamldr::{InstallError, SeamldrError};
use crate::tdx_module::TdxError;

/// A call that can fail during an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A call of P-SEAMLDR.
    Seamldr(SeamldrLeaf),
    /// A call of the TDX module.
    Tdx(TdxLeaf),
}

impl Call {
    pub(super) fn from_rax(rax: u64) -> Self {
        match SeamldrLeaf::from_rax(rax) {
            Some(leaf) => Self::Seamldr(leaf),
            None => Self::Tdx(TdxLeaf::from_rax(rax)),
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seamldr(leaf) => f.write_str(leaf.name()),
            Self::Tdx(leaf) => fmt::Debug::fmt(leaf, f),
        }
    }
}

/// The cause of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// The [`ModuleState`](crate::ModuleState) has no bits for this LP: it is smaller than the
    /// number of possible LPs.
    UnknownLp,
    /// This LP waited for other LPs until its host gave up
    /// ([`Patience::GiveUp`](crate::Patience::GiveUp)).
    GaveUp,
    /// A module is ready and may have TDs, which a resumed update or a load would end.
    StillReady,
    /// No module answers, and the session of SEAMLDR.INSTALL waits for more LPs.
    LpsMissing,
    /// The number of LPs that take part is not the one that preflight saw.
    LpsChanged {
        /// LPs that take part.
        found: u32,
        /// LPs that took part when preflight passed.
        wanted: u32,
    },
    /// The running module is not the one that preflight saw: its MRSEAM or SVN differs.
    ModuleChanged,
    /// No updates remain, although preflight saw some.
    NoRemainingUpdates,
    /// The images were prepared for another machine than this LP's.
    OtherMachine,
    /// The instruction failed.
    Trap(Call, Trap),
    /// The TDX module refused.
    Tdx(TdxLeaf, TdxStatus),
    /// P-SEAMLDR refused.
    Seamldr {
        /// The leaf that was called.
        leaf: SeamldrLeaf,
        /// RAX.
        status: SeamldrStatus,
        /// RDX. For SEAMLDR.INSTALL it is 0 if P-SEAMLDR kept the old module.
        rdx: u64,
    },
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLp => f.write_str(
                "the module state has no bits for this LP: make it as large as the number of \
                 possible LPs",
            ),
            Self::GaveUp => f.write_str("the LP gave up waiting for another LP"),
            Self::StillReady => f.write_str(
                "a TDX module is ready and may have TDs, so the update left it unchanged",
            ),
            Self::LpsMissing => f.write_str(
                "the session of SEAMLDR.INSTALL waits for more LPs: bring all LPs of the platform \
                 online",
            ),
            Self::LpsChanged { found, wanted } => write!(
                f,
                "LPs that take part: {found}, but preflight counted {wanted}: keep the number of \
                 online LPs constant, and repeat preflight"
            ),
            Self::ModuleChanged => f.write_str(
                "the running module is not the one that preflight saw: repeat preflight",
            ),
            Self::NoRemainingUpdates => {
                f.write_str("no updates remain, although preflight saw some: repeat preflight")
            }
            Self::OtherMachine => f.write_str(
                "the images were prepared for another machine: prepare them with this host",
            ),
            Self::Trap(call, trap) => write!(f, "{call}: {trap}"),
            Self::Tdx(leaf, status) => write!(f, "{leaf:?}: {status}"),
            Self::Seamldr { leaf, status, rdx } => {
                write!(f, "{}: {status}, RDX {rdx}", leaf.name())
            }
        }
    }
}

/// A failure on one LP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The stage of the failure.
    pub stage: Stage,
    /// The number of the LP.
    pub lp: u32,
    /// The cause.
    pub cause: FailureCause,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}, LP {}: {}", self.stage, self.lp, self.cause)
    }
}

impl FailureCause {
    /// Whether P-SEAMLDR refused the handoff data (EBADHANDOFF).
    pub(super) fn is_bad_handoff(&self) -> bool {
        matches!(self, Self::Seamldr { status: SeamldrStatus::EBADHANDOFF, .. })
    }

    /// Returns a name for the cause: that of the status or the trap if there is one. The name does
    /// not change between releases.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownLp => "unknown-lp",
            Self::GaveUp => "gave-up",
            Self::StillReady => "still-ready",
            Self::LpsMissing => "lps-missing",
            Self::LpsChanged { .. } => "lps-changed",
            Self::ModuleChanged => "module-changed",
            Self::NoRemainingUpdates => "no-remaining-updates",
            Self::OtherMachine => "other-machine",
            Self::Trap(_, Trap::VmFailInvalid) => "VMFAILINVALID",
            Self::Trap(_, Trap::GeneralProtection) => "GP",
            Self::Trap(_, Trap::UndefinedOpcode) => "UD",
            Self::Tdx(_, status) => status.name().unwrap_or("unknown-status"),
            Self::Seamldr { status, .. } => status.name().unwrap_or("unknown-status"),
        }
    }
}

/// A failure as three words. A trap is kept as the status word that Linux has for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RawFailure {
    call: u64,
    status: u64,
    rdx: u64,
}

/// Values of [`RawFailure::call`] for causes without a call.
const GAVE_UP: u64 = 0xffff_ffff_ffff_fff0;
const UNKNOWN_LP: u64 = 0xffff_ffff_ffff_fff1;
const STILL_READY: u64 = 0xffff_ffff_ffff_fff2;
const LPS_MISSING: u64 = 0xffff_ffff_ffff_fff3;
const LPS_CHANGED: u64 = 0xffff_ffff_ffff_fff4;
const MODULE_CHANGED: u64 = 0xffff_ffff_ffff_fff5;
const NO_REMAINING_UPDATES: u64 = 0xffff_ffff_ffff_fff6;
const OTHER_MACHINE: u64 = 0xffff_ffff_ffff_fff7;

impl RawFailure {
    pub(super) const GAVE_UP: Self = Self::without_call(GAVE_UP);
    pub(super) const UNKNOWN_LP: Self = Self::without_call(UNKNOWN_LP);
    pub(super) const STILL_READY: Self = Self::without_call(STILL_READY);
    pub(super) const LPS_MISSING: Self = Self::without_call(LPS_MISSING);
    pub(super) const MODULE_CHANGED: Self = Self::without_call(MODULE_CHANGED);
    pub(super) const NO_REMAINING_UPDATES: Self = Self::without_call(NO_REMAINING_UPDATES);
    pub(super) const OTHER_MACHINE: Self = Self::without_call(OTHER_MACHINE);

    /// P-SEAMLDR does not answer.
    pub(super) const SILENCE: Self =
        Self { call: SeamldrLeaf::Info.rax(), status: Trap::VmFailInvalid.status().0, rdx: 0 };

    const fn without_call(call: u64) -> Self {
        Self { call, status: 0, rdx: 0 }
    }

    pub(super) fn lps_changed(found: u32, wanted: u32) -> Self {
        Self { call: LPS_CHANGED, status: found.into(), rdx: wanted.into() }
    }

    pub(super) fn info(error: SeamldrError) -> Self {
        let status = match error {
            // The machine that the update was prepared for has an address for the buffer.
            SeamldrError::NotMapped => return Self::OTHER_MACHINE,
            SeamldrError::Trap(trap) => trap.status().0,
            SeamldrError::Status(status) => status.0,
        };
        Self { call: SeamldrLeaf::Info.rax(), status, rdx: 0 }
    }

    pub(super) fn tdx(leaf: TdxLeaf, error: TdxError) -> Self {
        Self { call: leaf.rax(0), status: error.status().0, rdx: 0 }
    }

    pub(super) fn install(error: InstallError) -> Self {
        let (status, rdx) = match error {
            InstallError::OtherMachine => return Self::OTHER_MACHINE,
            InstallError::Trap(trap) => (trap.status().0, 0),
            InstallError::Refused { status, rdx } => (status.0, rdx),
        };
        Self { call: SeamldrLeaf::Install.rax(), status, rdx }
    }

    #[inline(always)] // for `Record::cause`
    fn cause(self) -> FailureCause {
        match self.call {
            GAVE_UP => FailureCause::GaveUp,
            UNKNOWN_LP => FailureCause::UnknownLp,
            STILL_READY => FailureCause::StillReady,
            LPS_MISSING => FailureCause::LpsMissing,
            LPS_CHANGED => {
                let number = |word| u32::try_from(word).unwrap_or(u32::MAX);
                FailureCause::LpsChanged { found: number(self.status), wanted: number(self.rdx) }
            }
            MODULE_CHANGED => FailureCause::ModuleChanged,
            NO_REMAINING_UPDATES => FailureCause::NoRemainingUpdates,
            OTHER_MACHINE => FailureCause::OtherMachine,
            rax => match (Call::from_rax(rax), Trap::from_status(TdxStatus(self.status))) {
                (call, Some(trap)) => FailureCause::Trap(call, trap),
                (Call::Seamldr(leaf), None) => FailureCause::Seamldr {
                    leaf,
                    status: SeamldrStatus(self.status),
                    rdx: self.rdx,
                },
                (Call::Tdx(leaf), None) => FailureCause::Tdx(leaf, TdxStatus(self.status)),
            },
        }
    }
}

/// The first failure since the record was made or cleared. One LP claims the record and writes it.
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
    #[inline(never)] // one copy for both records
    pub(super) fn write(&self, lp: u32, stage: Stage, raw: &RawFailure) {
        if self.state.compare_exchange(FREE, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            self.lp.store(lp, Ordering::Relaxed);
            self.stage.store(u32::from(stage.number()), Ordering::Relaxed);
            self.call.store(raw.call, Ordering::Relaxed);
            self.status.store(raw.status, Ordering::Relaxed);
            self.rdx.store(raw.rdx, Ordering::Relaxed);
            self.state.store(WRITTEN, Ordering::Release);
        }
    }

    /// Clears the record. Call this only while no LP writes it.
    #[inline]
    pub(super) fn clear(&self) {
        self.state.store(FREE, Ordering::Relaxed);
    }

    #[inline]
    pub(super) fn is_written(&self) -> bool {
        self.state.load(Ordering::Acquire) == WRITTEN
    }

    /// Returns the cause of the failure.
    #[inline(always)] // the compiler drops the parts of the cause that a caller does not use
    pub(super) fn cause(&self) -> Option<FailureCause> {
        if !self.is_written() {
            return None;
        }
        let raw = RawFailure {
            call: self.call.load(Ordering::Relaxed),
            status: self.status.load(Ordering::Relaxed),
            rdx: self.rdx.load(Ordering::Relaxed),
        };
        Some(raw.cause())
    }

    pub(super) fn read(&self) -> Option<Failure> {
        let cause = self.cause()?;
        Some(Failure {
            stage: Stage::from_number(self.stage.load(Ordering::Relaxed)),
            lp: self.lp.load(Ordering::Relaxed),
            cause,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_returns_the_failure_that_was_written() {
        let status = SeamldrStatus::EBADSIG;
        let rows = [
            (RawFailure::GAVE_UP, FailureCause::GaveUp),
            (RawFailure::UNKNOWN_LP, FailureCause::UnknownLp),
            (RawFailure::STILL_READY, FailureCause::StillReady),
            (RawFailure::LPS_MISSING, FailureCause::LpsMissing),
            (RawFailure::MODULE_CHANGED, FailureCause::ModuleChanged),
            (RawFailure::NO_REMAINING_UPDATES, FailureCause::NoRemainingUpdates),
            (RawFailure::OTHER_MACHINE, FailureCause::OtherMachine),
            (RawFailure::install(InstallError::OtherMachine), FailureCause::OtherMachine),
            (RawFailure::lps_changed(2, 3), FailureCause::LpsChanged { found: 2, wanted: 3 }),
            (
                RawFailure::info(SeamldrError::Trap(Trap::VmFailInvalid)),
                RawFailure::SILENCE.cause(),
            ),
            (
                RawFailure::install(InstallError::Trap(Trap::UndefinedOpcode)),
                FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::UndefinedOpcode),
            ),
            (
                RawFailure::SILENCE,
                FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid),
            ),
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
            record.write(5, Stage::CpuInit, &raw);
            assert_eq!(record.read(), Some(Failure { stage: Stage::CpuInit, lp: 5, cause }));
        }
    }

    #[test]
    fn record_keeps_the_first_failure_until_cleared() {
        let record = Record::new();
        record.write(1, Stage::CpuInstall, &RawFailure::GAVE_UP);
        record.write(2, Stage::CpuInit, &RawFailure::LPS_MISSING);
        assert_eq!(record.read().map(|failure| failure.lp), Some(1));
        record.clear();
        assert_eq!(record.read(), None);
        record.write(2, Stage::CpuInit, &RawFailure::LPS_MISSING);
        assert_eq!(record.read().map(|failure| failure.cause), Some(FailureCause::LpsMissing));
    }
}
