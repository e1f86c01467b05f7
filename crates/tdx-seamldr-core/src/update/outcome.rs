//! What became of an update.

use core::fmt;

use super::Stage;
use crate::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use crate::{TdxVersion, Trap};

/// A call that can fail during an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// Of P-SEAMLDR.
    Seamldr(SeamldrLeaf),
    /// Of the TDX module.
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

/// What stopped an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureCause {
    /// This LP's number is not below that of all possible LPs.
    UnknownLp,
    /// This LP waited for the others until its host said that it was enough.
    GaveUp,
    /// The instruction failed.
    Trap(Call, Trap),
    /// The TDX module refused.
    Tdx(TdxLeaf, TdxStatus),
    /// P-SEAMLDR refused.
    Seamldr {
        /// What it was asked to do.
        leaf: SeamldrLeaf,
        /// RAX.
        status: SeamldrStatus,
        /// RDX: for SEAMLDR.INSTALL 0 if the old module is still there.
        rdx: u64,
    },
}

impl fmt::Display for FailureCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownLp => f.write_str("its number is out of the range of possible LPs"),
            Self::GaveUp => f.write_str("it waited in vain for another LP"),
            Self::Trap(call, trap) => write!(f, "{call}: {trap}"),
            Self::Tdx(leaf, status) => write!(f, "{leaf:?}: {status}"),
            Self::Seamldr { leaf, status, rdx } => write!(f, "{}: {status}, RDX {rdx}", leaf.name()),
        }
    }
}

/// The first failure of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In which stage.
    pub stage: Stage,
    /// On which LP.
    pub lp: u32,
    /// What happened there.
    pub cause: FailureCause,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "stage {}, LP {}: {}", self.stage, self.lp, self.cause)
    }
}

/// What became of the TDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdFate {
    /// Nothing was shut down: they run as before.
    NeverAtRisk,
    /// They run under the new module.
    Preserved,
    /// They stand still, and the handoff data is intact: they live on if a module takes it over in this boot.
    Held,
    /// They are gone.
    Lost,
    /// It cannot be told: the firmware gave no answer, or one that leaves it open.
    Unknown,
}

/// Which module can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunningModule {
    /// The one that ran before, as before.
    Old,
    /// The one that ran before, shut down for good.
    OldShutDown,
    /// The new one, which has not taken the handoff data over.
    NewNotReady,
    /// The new one.
    New,
    /// None: an INSTALL session is open and waits for LPs.
    SessionOpen,
    /// None.
    Nothing,
}

/// What may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Nothing: the update is complete.
    Nothing,
    /// The same update again, once the reason has been dealt with. No harm is done.
    Retry,
    /// An INSTALL session for an update, with this image or another one, by every LP of the platform.
    InstallAgain,
    /// SEAMLDR.INSTALL by those LPs of the platform that have not called in the session that is open, and after that the
    /// rest of the update. LPs that have called get EBADCALL until then.
    CompleteSession,
    /// An INSTALL session that loads a module afresh. It brings TDX back, without the TDs.
    Load,
    /// A reboot.
    Reboot,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What became of the TDs.
    pub tds: TdFate,
    /// Which module can be called.
    pub running: RunningModule,
    /// What may be tried next.
    pub next: NextStep,
    /// The new module's version; `None` also if it could not be read.
    pub version: Option<TdxVersion>,
    /// The first failure, if there was one.
    pub failure: Option<Failure>,
    /// The stage in which the update ended.
    pub stage: Stage,
    /// How many LPs took part.
    pub lps: u32,
    /// How many of them had finished the stage in which the update ended.
    pub finished_last_stage: u32,
}

impl Outcome {
    /// Whether the new module runs and the TDs with it.
    #[must_use]
    pub const fn is_updated(&self) -> bool {
        matches!(self.tds, TdFate::Preserved)
    }

    /// How many LPs finished this stage.
    #[must_use]
    pub fn finished(&self, stage: Stage) -> u32 {
        match stage.cmp(&self.stage) {
            core::cmp::Ordering::Less => self.lps,
            core::cmp::Ordering::Equal => self.finished_last_stage,
            core::cmp::Ordering::Greater => 0,
        }
    }

    /// A word for it that does not change from release to release: `updated`, `refused`, `held`, `lost` or `unknown`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.tds {
            TdFate::Preserved => "updated",
            TdFate::NeverAtRisk => "refused",
            TdFate::Held => "held",
            TdFate::Lost => "lost",
            TdFate::Unknown => "unknown",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.tds {
            TdFate::NeverAtRisk => "not updated; nothing was shut down and the TDs run as before",
            TdFate::Preserved => "updated; the TDs live on",
            TdFate::Held => "not updated; the TDs stand still, but their handoff data is intact",
            TdFate::Lost => "not updated; the TDs are lost",
            TdFate::Unknown => "not updated; what became of the TDs cannot be told",
        })?;
        if let Some(version) = self.version {
            write!(f, "; TDX module {version}")?;
        }
        if let Some(failure) = self.failure {
            write!(f, "; {failure}")?;
        }
        f.write_str(match self.next {
            NextStep::Nothing => "",
            NextStep::Retry => "; it may be tried again",
            NextStep::InstallAgain => "; next: install a module again, on every LP",
            NextStep::CompleteSession => "; next: let the LPs that have not called SEAMLDR.INSTALL call it",
            NextStep::Load => "; next: load a module afresh, to have TDX again",
            NextStep::Reboot => "; next: reboot",
        })
    }
}

/// What happened on the way, whichever failure came first: LPs may still be inside a call when another one fails.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milestones(pub(super) u32);

impl Milestones {
    /// TDH.SYS.SHUTDOWN succeeded.
    pub(super) const SHUT_DOWN: u32 = 1;
    /// SEAMLDR.INSTALL failed with RDX other than 0: the old module is gone, and the handoff data with it.
    pub(super) const HANDOFF_LOST: u32 = 1 << 1;
    /// TDH.SYS.UPDATE failed with VMfailInvalid: the module was entered and never came back.
    pub(super) const UPDATE_UNANSWERED: u32 = 1 << 2;
    /// TDH.SYS.UPDATE succeeded.
    pub(super) const UPDATED: u32 = 1 << 3;
    /// SEAMLDR.INSTALL gave an answer that only the last LP of a session hears, with RDX 0.
    pub(super) const SESSION_REFUSED: u32 = 1 << 4;

    const fn has(self, milestone: u32) -> bool {
        self.0 & milestone != 0
    }
}

/// What the way of an update means for TDs, module and what comes next. `finished` of `lps` LPs have finished `stage`.
pub(super) fn consequences(
    failure: Option<&Failure>,
    reached: Milestones,
    stage: Stage,
    finished: u32,
    lps: u32,
) -> (TdFate, RunningModule, NextStep) {
    if reached.has(Milestones::UPDATED) {
        return (TdFate::Preserved, RunningModule::New, NextStep::Nothing);
    }
    if reached.has(Milestones::HANDOFF_LOST) {
        return (TdFate::Lost, RunningModule::Nothing, NextStep::Load);
    }
    if reached.has(Milestones::UPDATE_UNANSWERED) {
        return (TdFate::Unknown, RunningModule::Nothing, NextStep::Reboot);
    }
    let cause = failure.map(|failure| failure.cause);
    if !reached.has(Milestones::SHUT_DOWN) {
        return before_shutdown(cause);
    }
    let running = match (stage, cause) {
        (Stage::Start | Stage::Shutdown, _) => RunningModule::OldShutDown,
        (Stage::CpuInstall, cause) => session(cause, reached, finished, lps),
        // No module answers after all LPs here have called INSTALL: the platform counts more LPs than took part.
        (Stage::CpuInit, Some(FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_INIT), Trap::VmFailInvalid))) => {
            RunningModule::SessionOpen
        }
        // It has answered TDH.SYS.INIT, so it was there.
        (Stage::CpuInit, Some(FailureCause::Trap(_, Trap::VmFailInvalid))) => {
            return (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain);
        }
        // The module itself says that there is nothing to take over.
        (Stage::RunUpdate, Some(FailureCause::Tdx(_, status)))
            if status.code() == TdxStatus::SYS_INVALID_HANDOFF =>
        {
            return (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
        }
        _ => RunningModule::NewNotReady,
    };
    match running {
        RunningModule::SessionOpen => (TdFate::Held, running, NextStep::CompleteSession),
        _ => (TdFate::Held, running, NextStep::InstallAgain),
    }
}

/// This update has shut nothing down. What it found tells whether somebody else had.
fn before_shutdown(cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match cause {
        Some(FailureCause::Trap(_, Trap::VmFailInvalid)) => {
            (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain)
        }
        Some(FailureCause::Tdx(_, status)) => match status.code() {
            TdxStatus::SYS_SHUTDOWN => (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain),
            // Left behind by an update that ended early, or this LP alone is not initialised.
            TdxStatus::SYS_NOT_READY | TdxStatus::SYS_LP_INIT_NOT_DONE => {
                (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain)
            }
            _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        },
        _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
    }
}

/// What an INSTALL session has left that `finished` of `lps` LPs have called in with success.
fn session(cause: Option<FailureCause>, reached: Milestones, finished: u32, lps: u32) -> RunningModule {
    let is_last = finished.saturating_add(1) == lps;
    match cause {
        _ if finished == lps => RunningModule::NewNotReady,
        _ if reached.has(Milestones::SESSION_REFUSED) => RunningModule::OldShutDown,
        // The last LP hears this at the end of the session; any other one because it is in an open session already.
        Some(FailureCause::Seamldr { status: SeamldrStatus::EBADCALL, .. }) if is_last => {
            RunningModule::OldShutDown
        }
        Some(FailureCause::Seamldr { status: SeamldrStatus::EBADCALL, .. }) => RunningModule::SessionOpen,
        // Nobody has got in.
        _ if finished == 0 => RunningModule::OldShutDown,
        _ => RunningModule::SessionOpen,
    }
}

/// Whether only the LP that ends a session hears this status of SEAMLDR.INSTALL.
pub(super) fn ends_session(status: SeamldrStatus) -> bool {
    !matches!(status, SeamldrStatus::EBADCALL | SeamldrStatus::EUNSPECERR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(
        stage: Stage,
        cause: FailureCause,
        reached: u32,
        finished: u32,
    ) -> (TdFate, RunningModule, NextStep) {
        let failure = Failure { stage, lp: 0, cause };
        consequences(Some(&failure), Milestones(reached), stage, finished, 4)
    }

    fn install(status: SeamldrStatus, rdx: u64) -> FailureCause {
        FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx }
    }

    #[test]
    fn a_refused_shutdown_leaves_everything_as_it_was() {
        let busy = FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY);
        let untouched = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
        assert_eq!(after(Stage::Shutdown, busy, 0, 3), untouched);
        assert_eq!(after(Stage::Shutdown, FailureCause::GaveUp, 0, 3), untouched);
    }

    #[test]
    fn an_lp_that_gives_up_does_not_hide_what_the_lead_has_done() {
        let (shut_down, updated) = (Milestones::SHUT_DOWN, Milestones::SHUT_DOWN | Milestones::UPDATED);
        let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        assert_eq!(after(Stage::Shutdown, FailureCause::GaveUp, shut_down, 4), held);
        let done = (TdFate::Preserved, RunningModule::New, NextStep::Nothing);
        assert_eq!(after(Stage::RunUpdate, FailureCause::GaveUp, updated, 3), done);
        let lost = (TdFate::Lost, RunningModule::Nothing, NextStep::Load);
        let unrecoverable = shut_down | Milestones::HANDOFF_LOST;
        assert_eq!(after(Stage::CpuInstall, FailureCause::GaveUp, unrecoverable, 2), lost);
    }

    #[test]
    fn rdx_decides_over_the_tds() {
        let shut_down = Milestones::SHUT_DOWN;
        let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        let refused = shut_down | Milestones::SESSION_REFUSED;
        assert_eq!(after(Stage::CpuInstall, install(SeamldrStatus::EBADSIG, 0), refused, 3), held);
        assert_eq!(after(Stage::CpuInstall, install(SeamldrStatus::EBADCALL, 0), shut_down, 3), held);
    }

    #[test]
    fn a_session_is_open_once_an_lp_is_in_it() {
        let running = |cause, finished| after(Stage::CpuInstall, cause, Milestones::SHUT_DOWN, finished).1;
        let trap = FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::VmFailInvalid);
        for cause in [trap, FailureCause::GaveUp, install(SeamldrStatus::EUNSPECERR, 0)] {
            assert_eq!(running(cause, 0), RunningModule::OldShutDown, "{cause}");
            assert_eq!(running(cause, 2), RunningModule::SessionOpen, "{cause}");
        }
        // An LP that is turned away by EBADCALL is in a session that somebody else has begun.
        assert_eq!(running(install(SeamldrStatus::EBADCALL, 0), 0), RunningModule::SessionOpen);
    }

    #[test]
    fn an_lp_that_gives_up_does_not_hide_that_the_session_was_refused() {
        let refused = Milestones::SHUT_DOWN | Milestones::SESSION_REFUSED;
        let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        assert_eq!(after(Stage::CpuInstall, FailureCause::GaveUp, refused, 3), held);
    }

    #[test]
    fn a_module_that_does_not_answer_after_install_waits_for_more_lps() {
        let trap = |leaf| FailureCause::Trap(Call::Tdx(leaf), Trap::VmFailInvalid);
        let open = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
        assert_eq!(after(Stage::CpuInit, trap(TdxLeaf::SYS_INIT), Milestones::SHUT_DOWN, 0), open);
        let died = (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain);
        assert_eq!(after(Stage::CpuInit, trap(TdxLeaf::SYS_LP_INIT), Milestones::SHUT_DOWN, 2), died);
    }

    #[test]
    fn a_module_that_was_not_ready_before_is_not_called_the_old_one() {
        for status in [TdxStatus::SYS_NOT_READY, TdxStatus::SYS_LP_INIT_NOT_DONE] {
            let (tds, running, _) = after(Stage::Shutdown, FailureCause::Tdx(TdxLeaf::SYS_RD, status), 0, 0);
            assert_eq!((tds, running), (TdFate::Unknown, RunningModule::NewNotReady));
        }
        let (tds, ..) =
            after(Stage::Shutdown, FailureCause::Tdx(TdxLeaf::SYS_RD, TdxStatus::SYS_SHUTDOWN), 0, 0);
        assert_eq!(tds, TdFate::Held);
    }

    #[test]
    fn handoff_data_that_the_module_denies_is_not_called_intact() {
        let denied = FailureCause::Tdx(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_INVALID_HANDOFF);
        assert_eq!(after(Stage::RunUpdate, denied, Milestones::SHUT_DOWN, 3).0, TdFate::Unknown);
        let busy = FailureCause::Tdx(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY);
        assert_eq!(after(Stage::RunUpdate, busy, Milestones::SHUT_DOWN, 3).0, TdFate::Held);
    }
}
