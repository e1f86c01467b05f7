//! What became of an update.

use core::fmt;

use super::recover::{classify, Class};
use super::run::Kind;
use super::Stage;
use crate::abi::{SeamldrLeaf, SeamldrStatus, SensitiveReason, TdxLeaf, TdxStatus};
use crate::debug::debug_fields;
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
    /// A module is ready and has TDs, which resuming or loading would end.
    StillReady,
    /// All LPs that take part are in the INSTALL session, and it waits for more.
    LpsMissing,
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
            Self::StillReady => f.write_str("a TDX module is ready and has TDs that must not be touched"),
            Self::LpsMissing => {
                f.write_str("the platform has more LPs than take part: bring all of them online")
            }
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

impl FailureCause {
    /// P-SEAMLDR measures the handoff data by the module that it put in place last.
    pub(super) fn is_bad_handoff(&self) -> bool {
        matches!(self, Self::Seamldr { status: SeamldrStatus::EBADHANDOFF, .. })
    }

    /// A word for it that does not change from release to release: the name of the status or trap, or what else happened.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownLp => "unknown-lp",
            Self::GaveUp => "gave-up",
            Self::StillReady => "still-ready",
            Self::LpsMissing => "lps-missing",
            Self::Trap(_, Trap::VmFailInvalid) => "VMFAILINVALID",
            Self::Trap(_, Trap::GeneralProtection) => "GP",
            Self::Trap(_, Trap::UndefinedOpcode) => "UD",
            Self::Tdx(_, status) => status.name().unwrap_or("unknown-status"),
            Self::Seamldr { status, .. } => status.name().unwrap_or("unknown-status"),
        }
    }
}

/// What became of the TDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdFate {
    /// Nothing was shut down: they run as before.
    NeverAtRisk,
    /// They run under the module that has taken them over.
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
    /// The one that [`Outcome::image`] names.
    New,
    /// None: an INSTALL session is open and waits for LPs.
    SessionOpen,
    /// None, or none that has said how it stands: it may have answered something else, and as long as the [`stage`](Outcome::stage)
    /// is `Start` nobody may have asked it.
    Nothing,
}

/// What may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Nothing: the update is complete.
    Nothing,
    /// The same update again, once the reason has been dealt with. No harm is done.
    Retry,
    /// The same update again in a while: the operations that it must not come in between of have ended then. No harm is done.
    RetryLater,
    /// [`Update::resume`](super::Update::resume), with this image or another one, by every LP of the platform.
    InstallAgain,
    /// [`Update::resume`](super::Update::resume), with those LPs of the platform, too, that have not called SEAMLDR.INSTALL in the
    /// session that is open.
    CompleteSession,
    /// [`Update::finish`](super::Update::finish): the module is in place, and what kept it from coming up may have passed.
    Finish,
    /// [`Update::load`](super::Update::load): TDX comes back, without the TDs.
    Load,
    /// TDH.SYS.CONFIG and what follows it at boot: the module was loaded afresh.
    Configure,
    /// A reboot: every LP has looked, and neither a module nor P-SEAMLDR has answered any of them.
    Reboot,
}

/// How an update ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// What became of the TDs.
    pub tds: TdFate,
    /// Which module can be called.
    pub running: RunningModule,
    /// What may be tried next.
    pub next: NextStep,
    /// The new module's version; `None` also if it could not be read.
    pub version: Option<TdxVersion>,
    /// The image that was installed last, or was to be: 0 for the update's own, 1 for the first to fall back on, and so on.
    pub image: u8,
    /// The first failure, if there was one. What followed may have overcome it.
    pub failure: Option<Failure>,
    /// The failure that ended the update; `None` if none did.
    pub last_failure: Option<Failure>,
    /// The stage in which the update ended.
    pub stage: Stage,
    /// How many rounds there were: 1, and 1 more for each failure that was dealt with.
    pub rounds: u32,
    /// How many LPs took part.
    pub lps: u32,
    /// How many of them had finished the stage in which the update ended.
    pub finished_last_stage: u32,
}

debug_fields! {
    Outcome, tds, running, next, version, image, failure, last_failure, stage, rounds, lps,
    finished_last_stage
}

impl Outcome {
    /// Whether the update's own image runs and the TDs with it.
    #[must_use]
    pub const fn is_updated(&self) -> bool {
        self.tds_live_on() && self.image == 0
    }

    /// Whether the TDs run under a module that has taken them over, be it the update's own or one to fall back on.
    #[must_use]
    pub const fn tds_live_on(&self) -> bool {
        matches!(self.tds, TdFate::Preserved)
    }

    /// Why and how often the old module refused to shut down because an update would come in between of something.
    #[must_use]
    pub fn sensitive(&self) -> Option<(SensitiveReason, u16)> {
        match self.last_failure?.cause {
            FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, status) => status.sensitive(),
            _ => None,
        }
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

    /// A word for it that does not change from release to release: `updated`, `fallback`, `refused`, `held`, `lost` or `unknown`.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self.tds {
            TdFate::Preserved if self.image != 0 => "fallback",
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
            TdFate::Preserved if self.image != 0 => {
                "not updated; the TDs live on under a module to fall back on"
            }
            TdFate::Preserved => "updated; the TDs live on",
            TdFate::Held => "not updated; the TDs stand still, but their handoff data is intact",
            TdFate::Lost if self.next == NextStep::Configure => "loaded afresh, without the TDs",
            TdFate::Lost => "not updated; the TDs are lost",
            TdFate::Unknown => "not updated; what became of the TDs cannot be told",
        })?;
        if let Some(version) = self.version {
            write!(f, "; TDX module {version}")?;
        }
        if let Some(failure) = self.failure {
            write!(f, "; {failure}")?;
        }
        if let Some(last) = self.last_failure.filter(|last| self.failure != Some(*last)) {
            write!(f, "; in the end {last}")?;
        }
        f.write_str(match self.next {
            NextStep::Nothing => "",
            NextStep::Retry => "; it may be tried again",
            NextStep::RetryLater => "; it may be tried again in a while",
            NextStep::Finish => "; next: let the module that is in place come up",
            NextStep::Configure => "; next: configure the module that was loaded, as at boot",
            NextStep::InstallAgain => "; next: install a module again, on every LP",
            NextStep::CompleteSession => "; next: let the LPs that have not called SEAMLDR.INSTALL call it",
            NextStep::Load => "; next: load a module afresh, to have TDX again",
            NextStep::Reboot => "; next: reboot",
        })
    }
}

/// What happened on the way, whichever failure came last: LPs may still be inside a call when another one gives up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Milestones(pub(super) u32);

impl Milestones {
    /// TDH.SYS.SHUTDOWN succeeded.
    pub(super) const SHUT_DOWN: u32 = 1;
    /// SEAMLDR.INSTALL failed with RDX other than 0: the old module is gone, and the handoff data with it.
    pub(super) const HANDOFF_LOST: u32 = 1 << 1;
    /// A session of INSTALL has put a module in place.
    pub(super) const INSTALLED: u32 = 1 << 2;
    /// TDH.SYS.UPDATE succeeded.
    pub(super) const UPDATED: u32 = 1 << 3;
    /// Some LP has found a module that serves TDs.
    pub(super) const FOUND_READY: u32 = 1 << 4;
    /// Some LP has found a module that has been shut down.
    pub(super) const FOUND_SHUT_DOWN: u32 = 1 << 5;
    /// Some LP has found a module that has not come up.
    pub(super) const FOUND_NOT_READY: u32 = 1 << 6;
    /// Some LP has found no module, and P-SEAMLDR has answered it.
    pub(super) const LOADER_ANSWERED: u32 = 1 << 7;
    /// Whichever shows that there is a module to be replaced, or one that has replaced it.
    pub(super) const MODULE_THERE: u32 =
        Self::SHUT_DOWN | Self::INSTALLED | Self::FOUND_SHUT_DOWN | Self::FOUND_NOT_READY;

    pub(super) const fn has(self, milestone: u32) -> bool {
        self.0 & milestone != 0
    }
}

/// How an update stands.
pub(super) struct Situation {
    pub(super) kind: Kind,
    /// What went wrong first.
    pub(super) first: Option<FailureCause>,
    /// What ended it.
    pub(super) last: Option<FailureCause>,
    pub(super) reached: Milestones,
    pub(super) stage: Stage,
    /// LPs are in an INSTALL session.
    pub(super) is_session_open: bool,
    /// As many LPs are in it as it takes, so that it has ended and put a module in place.
    pub(super) is_complete: bool,
    /// The old module has left handoff data, and nobody has taken it.
    pub(super) is_handoff_pending: bool,
}

/// What the way of an update means for TDs, module and what comes next.
pub(super) fn consequences(situation: &Situation) -> (TdFate, RunningModule, NextStep) {
    let (tds, running, next) = of_any_kind(situation);
    let goes_on = matches!(next, NextStep::InstallAgain | NextStep::CompleteSession | NextStep::Finish);
    if situation.kind == Kind::Load && goes_on && tds != TdFate::Held {
        // There are no TDs to hand over.
        return (tds, running, NextStep::Load);
    }
    (tds, running, next)
}

fn of_any_kind(situation: &Situation) -> (TdFate, RunningModule, NextStep) {
    let Situation { kind, first, last, reached, stage, .. } = *situation;
    if reached.has(Milestones::UPDATED) {
        return (TdFate::Preserved, RunningModule::New, NextStep::Nothing);
    }
    if reached.has(Milestones::HANDOFF_LOST) {
        return (TdFate::Lost, RunningModule::Nothing, NextStep::Load);
    }
    if reached.has(Milestones::FOUND_READY) {
        return (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
    }
    if kind == Kind::Update && !reached.has(Milestones::SHUT_DOWN) {
        if reached.has(Milestones::FOUND_SHUT_DOWN) {
            return (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        }
        // Where nobody has asked the module, what is remembered of it counts.
        if stage != Stage::Start || !situation.is_handoff_pending {
            // A module that has answered once is there, whatever stands in the way of asking it again.
            let answered = matches!(first, Some(FailureCause::Tdx(..)));
            let gave_up = last == Some(FailureCause::GaveUp);
            return before_shutdown(if answered || gave_up { first } else { last });
        }
    }
    if kind == Kind::Load && stage == Stage::Done {
        return (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure);
    }
    let held = match (situation.is_handoff_pending, kind) {
        (true, _) => TdFate::Held,
        (false, Kind::Load) if reached.has(Milestones::INSTALLED) => TdFate::Lost,
        (false, _) => TdFate::Unknown,
    };
    // What is there apart from an open session.
    let there = if reached.has(Milestones::INSTALLED) {
        RunningModule::NewNotReady
    } else if reached.has(Milestones::SHUT_DOWN) || reached.has(Milestones::FOUND_SHUT_DOWN) {
        RunningModule::OldShutDown
    } else if reached.has(Milestones::FOUND_NOT_READY) {
        RunningModule::NewNotReady
    } else {
        RunningModule::Nothing
    };
    match (stage, last) {
        // Nothing has been done yet, and nothing has to be installed.
        (Stage::Start, _) if kind == Kind::Finish && there != RunningModule::OldShutDown => {
            (held, there, NextStep::Finish)
        }
        // Neither a module nor P-SEAMLDR answers this LP. If nobody had an answer when all looked, SEAM has been shut down, perhaps by a module that
        // was entered and never came back.
        (_, Some(FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), _))) => {
            let answered = Milestones::MODULE_THERE | Milestones::LOADER_ANSWERED;
            let next = match stage {
                _ if kind != Kind::Update && !reached.has(answered) => NextStep::Reboot,
                Stage::CpuInstall => NextStep::InstallAgain,
                _ => NextStep::Finish,
            };
            (TdFate::Unknown, RunningModule::Nothing, next)
        }
        (Stage::CpuInstall, _) if situation.is_complete => {
            (held, RunningModule::NewNotReady, NextStep::Finish)
        }
        (Stage::CpuInstall, Some(cause)) if cause.is_bad_handoff() && there == RunningModule::NewNotReady => {
            (TdFate::Unknown, there, NextStep::InstallAgain)
        }
        (Stage::CpuInstall, _) if situation.is_session_open => {
            (held, RunningModule::SessionOpen, NextStep::CompleteSession)
        }
        // Refused, which leaves what is in place as it was: that may come up yet.
        (Stage::CpuInstall, Some(FailureCause::Seamldr { .. })) if there == RunningModule::NewNotReady => {
            (held, there, NextStep::Finish)
        }
        (Stage::CpuInit, Some(FailureCause::LpsMissing)) => {
            (held, RunningModule::SessionOpen, NextStep::CompleteSession)
        }
        // The module itself says that there is nothing to take over.
        (Stage::RunUpdate, Some(FailureCause::Tdx(_, status)))
            if status.code() == TdxStatus::SYS_INVALID_HANDOFF =>
        {
            (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain)
        }
        // There is nothing to finish: no module has come in its place.
        (Stage::CpuInit | Stage::RunUpdate, _) if there == RunningModule::OldShutDown => {
            (held, there, NextStep::InstallAgain)
        }
        (Stage::CpuInit | Stage::RunUpdate, last) => {
            let passes = last.is_some_and(|cause| classify(stage, cause) == Class::Transient);
            let gave_up = last == Some(FailureCause::GaveUp);
            let next = if passes || gave_up { NextStep::Finish } else { NextStep::InstallAgain };
            (held, RunningModule::NewNotReady, next)
        }
        _ => (held, there, NextStep::InstallAgain),
    }
}

/// This update has shut nothing down. What stopped it tells whether somebody else had.
fn before_shutdown(cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match cause {
        Some(FailureCause::Trap(_, Trap::VmFailInvalid)) => {
            (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain)
        }
        Some(FailureCause::Tdx(_, status)) => match status.code() {
            // It says so, and then does not.
            TdxStatus::SYS_SHUTDOWN => (TdFate::Unknown, RunningModule::Old, NextStep::Retry),
            // Left behind by an update that ended early, or this LP alone is not initialised.
            TdxStatus::SYS_NOT_READY | TdxStatus::SYS_LP_INIT_NOT_DONE => {
                (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain)
            }
            TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE | TdxStatus::SYS_BUSY => {
                (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater)
            }
            _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        },
        _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHUT_DOWN: u32 = Milestones::SHUT_DOWN;

    /// An update that shut the old module down (or did not) and was ended like this.
    fn situation(stage: Stage, last: FailureCause, reached: u32) -> Situation {
        Situation {
            kind: Kind::Update,
            first: Some(last),
            last: Some(last),
            reached: Milestones(reached),
            stage,
            is_session_open: false,
            is_complete: false,
            is_handoff_pending: reached & SHUT_DOWN != 0,
        }
    }

    fn after(stage: Stage, last: FailureCause, reached: u32) -> (TdFate, RunningModule, NextStep) {
        consequences(&situation(stage, last, reached))
    }

    fn install(status: SeamldrStatus, rdx: u64) -> FailureCause {
        FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx }
    }

    fn refused(leaf: TdxLeaf, status: TdxStatus) -> FailureCause {
        FailureCause::Tdx(leaf, status)
    }

    #[test]
    fn a_refused_shutdown_leaves_everything_as_it_was() {
        let shutdown = |status| after(Stage::Shutdown, refused(TdxLeaf::SYS_SHUTDOWN, status), 0);
        let untouched = |next| (TdFate::NeverAtRisk, RunningModule::Old, next);
        assert_eq!(shutdown(TdxStatus::OPERAND_INVALID), untouched(NextStep::Retry));
        assert_eq!(shutdown(TdxStatus::SYS_BUSY), untouched(NextStep::RetryLater));
        let in_build = TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | 3 << 16);
        assert_eq!(shutdown(in_build), untouched(NextStep::RetryLater));
        assert_eq!(after(Stage::Shutdown, FailureCause::GaveUp, 0), untouched(NextStep::Retry));
    }

    #[test]
    fn an_lp_that_gives_up_does_not_hide_what_the_lead_has_done() {
        let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        assert_eq!(after(Stage::Shutdown, FailureCause::GaveUp, SHUT_DOWN), held);
        let done = (TdFate::Preserved, RunningModule::New, NextStep::Nothing);
        assert_eq!(after(Stage::RunUpdate, FailureCause::GaveUp, SHUT_DOWN | Milestones::UPDATED), done);
        let lost = (TdFate::Lost, RunningModule::Nothing, NextStep::Load);
        let unrecoverable = SHUT_DOWN | Milestones::HANDOFF_LOST;
        assert_eq!(after(Stage::CpuInstall, FailureCause::GaveUp, unrecoverable), lost);
        let finish = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        assert_eq!(after(Stage::CpuInit, FailureCause::GaveUp, installed), finish);
    }

    #[test]
    fn a_refusal_with_rdx_0_leaves_the_old_module_shut_down() {
        let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        for status in [SeamldrStatus::EBADSIG, SeamldrStatus::EBADCALL, SeamldrStatus::EBADHANDOFF] {
            assert_eq!(after(Stage::CpuInstall, install(status, 0), SHUT_DOWN), held);
        }
    }

    #[test]
    fn handoff_data_that_does_not_fit_the_module_before_is_not_called_intact() {
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        let (tds, running, _) = after(Stage::CpuInstall, install(SeamldrStatus::EBADHANDOFF, 0), installed);
        assert_eq!((tds, running), (TdFate::Unknown, RunningModule::NewNotReady));
    }

    #[test]
    fn a_session_is_open_once_an_lp_is_in_it() {
        let trap = FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::GeneralProtection);
        for cause in [trap, FailureCause::GaveUp, FailureCause::LpsMissing] {
            let open = Situation { is_session_open: true, ..situation(Stage::CpuInstall, cause, SHUT_DOWN) };
            let expected = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
            assert_eq!(consequences(&open), expected, "{cause}");
            assert_eq!(after(Stage::CpuInstall, cause, SHUT_DOWN).1, RunningModule::OldShutDown, "{cause}");
        }
        // P-SEAMLDR does not answer any more, whoever has got in before.
        let silence = FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid);
        let open = Situation { is_session_open: true, ..situation(Stage::CpuInstall, silence, SHUT_DOWN) };
        let again = (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain);
        assert_eq!(consequences(&open), again);
    }

    #[test]
    fn a_module_that_does_not_answer_after_install_waits_for_more_lps() {
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        let trap = |leaf| FailureCause::Trap(Call::Tdx(leaf), Trap::VmFailInvalid);
        let open = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
        assert_eq!(after(Stage::CpuInit, FailureCause::LpsMissing, installed), open);
        let answered = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
        assert_eq!(after(Stage::CpuInit, trap(TdxLeaf::SYS_INIT), installed), answered, "asked twice");
        assert_eq!(after(Stage::CpuInit, trap(TdxLeaf::SYS_LP_INIT), installed), answered);
    }

    #[test]
    fn a_module_that_was_not_ready_before_is_not_called_the_old_one() {
        for status in [TdxStatus::SYS_NOT_READY, TdxStatus::SYS_LP_INIT_NOT_DONE] {
            let (tds, running, _) = after(Stage::Shutdown, refused(TdxLeaf::SYS_RD, status), 0);
            assert_eq!((tds, running), (TdFate::Unknown, RunningModule::NewNotReady));
        }
        let shut_down =
            |reached| after(Stage::Shutdown, refused(TdxLeaf::SYS_RD, TdxStatus::SYS_SHUTDOWN), reached).0;
        assert_eq!(shut_down(Milestones::FOUND_SHUT_DOWN), TdFate::Held);
        assert_eq!(shut_down(0), TdFate::Unknown, "said once, and not the second time");
    }

    #[test]
    fn what_may_pass_is_finished_and_what_does_not_is_installed_again() {
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        let next = |stage, leaf, status| after(stage, refused(leaf, status), installed).2;
        assert_eq!(next(Stage::RunUpdate, TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY), NextStep::Finish);
        assert_eq!(next(Stage::CpuInit, TdxLeaf::SYS_LP_INIT, TdxStatus::RND_NO_ENTROPY), NextStep::Finish);
        let other = TdxStatus(TdxStatus::INCONSISTENT_MSR.0 | 0xfe);
        assert_eq!(next(Stage::CpuInit, TdxLeaf::SYS_LP_INIT, other), NextStep::InstallAgain);
    }

    #[test]
    fn handoff_data_that_the_module_denies_is_not_called_intact() {
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        let denied = refused(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_INVALID_HANDOFF);
        assert_eq!(after(Stage::RunUpdate, denied, installed).0, TdFate::Unknown);
        let busy = refused(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY);
        assert_eq!(after(Stage::RunUpdate, busy, installed).0, TdFate::Held);
    }

    #[test]
    fn giving_up_does_not_hide_that_no_module_answers() {
        let silence = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_RD), Trap::VmFailInvalid);
        let given_up =
            Situation { first: Some(silence), ..situation(Stage::Shutdown, FailureCause::GaveUp, 0) };
        let unknown = (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain);
        assert_eq!(consequences(&given_up), unknown);
        let broken = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_RD), Trap::UndefinedOpcode);
        let untouched = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
        assert_eq!(consequences(&Situation { first: Some(broken), ..given_up }), untouched);
    }

    #[test]
    fn a_module_that_was_shut_down_cannot_be_finished() {
        let refused = refused(TdxLeaf::SYS_INIT, TdxStatus::SYS_SHUTDOWN);
        for last in [refused, FailureCause::GaveUp] {
            let finish = Situation {
                kind: Kind::Finish,
                is_handoff_pending: true,
                ..situation(Stage::CpuInit, last, Milestones::FOUND_SHUT_DOWN)
            };
            let held = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
            assert_eq!(consequences(&finish), held, "{last}");
            assert_eq!(consequences(&Situation { stage: Stage::Start, ..finish }), held, "{last}");
        }
        let found = |kind, found| Situation {
            kind,
            is_handoff_pending: true,
            is_session_open: kind == Kind::Resume,
            ..situation(Stage::CpuInstall, FailureCause::GaveUp, found)
        };
        let open = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
        assert_eq!(consequences(&found(Kind::Resume, Milestones::FOUND_SHUT_DOWN)), open, "but by an image");
        let not_ready =
            Situation { stage: Stage::CpuInit, ..found(Kind::Finish, Milestones::FOUND_NOT_READY) };
        let finish = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
        assert_eq!(consequences(&not_ready), finish);
    }

    #[test]
    fn resuming_what_nobody_remembers_claims_nothing() {
        let nobody = Situation {
            kind: Kind::Resume,
            is_handoff_pending: false,
            ..situation(Stage::CpuInstall, install(SeamldrStatus::EBADSIG, 0), Milestones::FOUND_SHUT_DOWN)
        };
        assert_eq!(
            consequences(&nobody),
            (TdFate::Unknown, RunningModule::OldShutDown, NextStep::InstallAgain)
        );
        let remembered = Situation { is_handoff_pending: true, ..nobody };
        assert_eq!(consequences(&remembered).0, TdFate::Held);
        let untouched = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
        // Whichever LP's failure came first.
        for last in [FailureCause::StillReady, FailureCause::GaveUp] {
            let reached = Milestones(Milestones::FOUND_READY | Milestones::FOUND_SHUT_DOWN);
            let ready = Situation { last: Some(last), stage: Stage::Start, reached, ..remembered };
            assert_eq!(consequences(&ready), untouched, "{last}");
        }
    }

    #[test]
    fn a_module_that_is_shut_down_says_so_twice_before_it_is_believed() {
        let lost_module = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_SHUTDOWN), Trap::VmFailInvalid);
        let nothing = (TdFate::Unknown, RunningModule::Nothing, NextStep::InstallAgain);
        assert_eq!(after(Stage::Shutdown, lost_module, 0), nothing);
        let other_trap = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_SHUTDOWN), Trap::GeneralProtection);
        let untouched = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
        assert_eq!(after(Stage::Shutdown, other_trap, 0), untouched);
        // It has answered before, so it is there.
        let answered = Situation {
            first: Some(refused(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY)),
            ..situation(Stage::Shutdown, lost_module, 0)
        };
        let later = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater);
        assert_eq!(consequences(&answered), later);
        let claimed = refused(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_SHUTDOWN);
        let unclear = (TdFate::Unknown, RunningModule::Old, NextStep::Retry);
        assert_eq!(after(Stage::Shutdown, claimed, 0), unclear);
    }

    #[test]
    fn a_module_that_was_loaded_afresh_is_configured() {
        let load = Situation {
            kind: Kind::Load,
            is_handoff_pending: false,
            ..situation(Stage::Done, FailureCause::GaveUp, Milestones::INSTALLED)
        };
        let done = (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure);
        assert_eq!(consequences(&load), done);
        let not_up = Situation { stage: Stage::CpuInit, ..load };
        assert_eq!(consequences(&not_up), (TdFate::Lost, RunningModule::NewNotReady, NextStep::Load));
        let not_installed = Situation { stage: Stage::CpuInstall, reached: Milestones(0), ..not_up };
        let nothing = (TdFate::Unknown, RunningModule::Nothing, NextStep::Load);
        assert_eq!(consequences(&not_installed), nothing);
        let update =
            Situation { kind: Kind::Resume, ..situation(Stage::Done, FailureCause::GaveUp, SHUT_DOWN) };
        assert_eq!(consequences(&update).2, NextStep::InstallAgain);
    }

    #[test]
    fn what_an_update_found_is_what_there_is() {
        let found = |found| {
            let resumed =
                Situation { kind: Kind::Resume, ..situation(Stage::CpuInstall, FailureCause::GaveUp, found) };
            consequences(&resumed).1
        };
        assert_eq!(found(Milestones::FOUND_SHUT_DOWN), RunningModule::OldShutDown);
        assert_eq!(found(Milestones::FOUND_NOT_READY), RunningModule::NewNotReady);
        assert_eq!(found(0), RunningModule::Nothing);
        let all = [
            Milestones::SHUT_DOWN,
            Milestones::HANDOFF_LOST,
            Milestones::INSTALLED,
            Milestones::UPDATED,
            Milestones::FOUND_READY,
            Milestones::FOUND_SHUT_DOWN,
            Milestones::FOUND_NOT_READY,
            Milestones::LOADER_ANSWERED,
        ];
        assert_eq!(all.into_iter().fold(0, |all, milestone| all | milestone), 0xff, "a bit each");
    }

    #[test]
    fn a_module_that_never_came_back_is_a_matter_for_a_reboot_once_p_seamldr_is_silent_too() {
        let installed = SHUT_DOWN | Milestones::INSTALLED;
        let silence = FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid);
        let trap = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_UPDATE), Trap::VmFailInvalid);
        let finish = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
        assert_eq!(after(Stage::RunUpdate, trap, installed), finish);
        let unknown = |next| (TdFate::Unknown, RunningModule::Nothing, next);
        for stage in [Stage::CpuInit, Stage::RunUpdate] {
            assert_eq!(after(stage, silence, installed), unknown(NextStep::Finish), "it may be this LP");
            let looked = |reached| Situation { kind: Kind::Finish, ..situation(stage, silence, reached) };
            assert_eq!(consequences(&looked(0)), unknown(NextStep::Reboot), "all have looked");
            for answered in [Milestones::LOADER_ANSWERED, Milestones::FOUND_NOT_READY] {
                assert_eq!(consequences(&looked(answered)), unknown(NextStep::Finish));
            }
        }
        let resumed = Situation { kind: Kind::Resume, ..situation(Stage::CpuInstall, silence, 0) };
        assert_eq!(consequences(&resumed), unknown(NextStep::Reboot));
        let reached = Milestones(Milestones::LOADER_ANSWERED);
        assert_eq!(consequences(&Situation { reached, ..resumed }), unknown(NextStep::InstallAgain));
    }

    #[test]
    fn a_session_that_is_complete_has_put_a_module_in_place() {
        for (kind, last) in [(Kind::Update, FailureCause::GaveUp), (Kind::Resume, FailureCause::LpsMissing)] {
            let complete = Situation {
                kind,
                is_complete: true,
                is_session_open: true,
                is_handoff_pending: true,
                ..situation(Stage::CpuInstall, last, SHUT_DOWN)
            };
            let finish = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
            assert_eq!(consequences(&complete), finish);
        }
    }

    #[test]
    fn an_image_that_is_refused_leaves_the_module_in_place_to_be_finished() {
        let refused = |status, reached| {
            let resumed = Situation {
                kind: Kind::Resume,
                is_handoff_pending: true,
                ..situation(Stage::CpuInstall, install(status, 0), reached)
            };
            consequences(&resumed)
        };
        let finish = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
        let again = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
        let too_long = (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
        for reached in [Milestones::FOUND_NOT_READY, Milestones::INSTALLED] {
            assert_eq!(refused(SeamldrStatus::EBADCALL, reached), finish);
            assert_eq!(refused(SeamldrStatus::EBADHANDOFF, reached), too_long);
        }
        assert_eq!(refused(SeamldrStatus::EBADCALL, Milestones::FOUND_SHUT_DOWN), again);
        assert_eq!(refused(SeamldrStatus::EBADHANDOFF, Milestones::FOUND_SHUT_DOWN), again);
    }

    #[test]
    fn what_is_remembered_counts_until_the_module_has_been_asked() {
        let begun = |kind, is_handoff_pending| {
            let situation = situation(Stage::Start, FailureCause::GaveUp, 0);
            consequences(&Situation { kind, is_handoff_pending, ..situation })
        };
        let untouched = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
        assert_eq!(begun(Kind::Update, false), untouched);
        let held = |next| (TdFate::Held, RunningModule::Nothing, next);
        assert_eq!(begun(Kind::Update, true), held(NextStep::InstallAgain));
        assert_eq!(begun(Kind::Resume, true), held(NextStep::InstallAgain));
        assert_eq!(begun(Kind::Finish, true), held(NextStep::Finish), "nothing has to be installed");
        // Whatever stands in the way of asking again.
        let busy = refused(TdxLeaf::SYS_RD, TdxStatus::SYS_BUSY);
        let found = situation(Stage::Shutdown, busy, Milestones::FOUND_SHUT_DOWN);
        assert_eq!(consequences(&found), (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain));
    }
}
