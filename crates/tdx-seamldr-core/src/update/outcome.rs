//! What became of an update, and what that means for the TDs.

use core::fmt;

use super::failure::{Call, Failure, FailureCause};
use super::known::{Handoff, Kind, Known, Module, Session};
use super::recover::{classify, Class};
use super::stage::Stage;
use crate::abi::{SeamldrLeaf, SensitiveReason, TdxLeaf, TdxStatus};
use crate::backend::Trap;
use crate::debug::debug_fields;

/// What became of the TDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdFate {
    /// Nothing was shut down: they run as before.
    NeverAtRisk,
    /// They run under the module that has taken them over.
    Preserved,
    /// They are paused and their handoff data is intact: they live on if a module takes it over in this boot.
    Held,
    /// They are gone.
    Lost,
    /// The firmware gave no answer, or one that does not tell.
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
    /// No module is known to run: none was asked, or none answered how far it has come.
    NoneKnown,
}

/// What may be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// Nothing: the update is complete.
    Done,
    /// The same update again, from preflight on, once the reason has been dealt with. No harm is done.
    Retry,
    /// The same update again in a while, when the TDs in build and the interrupted migrations have ended. No harm is done.
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
    Outcome, tds, running, next, image, failure, last_failure, stage, rounds, lps,
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

    /// Why the old module refused to shut down, and how many TDs or migrations the update would have damaged.
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
            TdFate::Preserved if self.image != 0 => "not updated; the TDs live on under a fallback module",
            TdFate::Preserved => "updated; the TDs live on",
            TdFate::Held => "not updated; the TDs are paused and their handoff data is intact",
            TdFate::Lost if self.next == NextStep::Configure => "loaded afresh, without the TDs",
            TdFate::Lost => "not updated; the TDs are lost",
            TdFate::Unknown => "not updated; it is unknown what became of the TDs",
        })?;
        if let Some(failure) = self.failure {
            write!(f, "; {failure}")?;
        }
        if let Some(last) = self.last_failure.filter(|last| self.failure != Some(*last)) {
            write!(f, "; in the end {last}")?;
        }
        f.write_str(match self.next {
            NextStep::Done => "",
            NextStep::Retry => "; next: repeat preflight and the update",
            NextStep::RetryLater => "; next: repeat preflight and the update later",
            NextStep::Finish => "; next: initialise the module that is in place",
            NextStep::Configure => "; next: configure the module that was loaded, as at boot",
            NextStep::InstallAgain => "; next: install a module again, on every LP",
            NextStep::CompleteSession => "; next: call SEAMLDR.INSTALL on the LPs that have not called it",
            NextStep::Load => "; next: load a module afresh, to have TDX again without these TDs",
            NextStep::Reboot => "; next: reboot",
        })
    }
}

/// How an update ended: what is known of the platform, where it stopped, and why.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) kind: Kind,
    pub(super) known: Known,
    pub(super) stage: Stage,
    /// The failure that ended it.
    pub(super) cause: Option<FailureCause>,
}

/// What an ending means for the TDs, the module, and what to do next.
pub(super) fn meaning(ending: &Ending) -> (TdFate, RunningModule, NextStep) {
    let Ending { kind, known, stage, cause } = *ending;
    match known.module {
        Module::Ready => (TdFate::Preserved, RunningModule::New, NextStep::Done),
        Module::Destroyed => (TdFate::Lost, RunningModule::NoneKnown, NextStep::Load),
        Module::Running => of_a_running_module(cause),
        Module::Unasked if kind == Kind::Update => unasked(known.handoff, cause),
        Module::ShutDown if kind == Kind::Update && stage <= Stage::Shutdown => {
            (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain)
        }
        Module::NotReady if kind == Kind::Load && stage == Stage::Done => {
            (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure)
        }
        Module::Unasked | Module::NotReady | Module::ShutDown => {
            let (tds, running, next) = after_shutdown(ending);
            let goes_on =
                matches!(next, NextStep::InstallAgain | NextStep::CompleteSession | NextStep::Finish);
            // A load has no TDs to hand over.
            let next =
                if kind == Kind::Load && goes_on && tds != TdFate::Held { NextStep::Load } else { next };
            (tds, running, next)
        }
    }
}

/// The module runs as it did before.
fn of_a_running_module(cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match cause {
        Some(FailureCause::Tdx(_, status)) => match status.code() {
            // The module says that it is shut down, and then does not.
            TdxStatus::SYS_SHUTDOWN => (TdFate::Unknown, RunningModule::Old, NextStep::Retry),
            TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE | TdxStatus::SYS_BUSY => {
                (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater)
            }
            _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        },
        _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
    }
}

/// No LP had an answer from the module that was to be replaced.
fn unasked(handoff: Handoff, cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match (handoff, cause) {
        (Handoff::Pending, _) => (TdFate::Held, RunningModule::NoneKnown, NextStep::InstallAgain),
        (_, Some(FailureCause::Trap(_, Trap::VmFailInvalid))) => {
            (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain)
        }
        _ => of_a_running_module(cause),
    }
}

/// The old module is shut down, or an earlier update left the platform without a module that runs.
fn after_shutdown(ending: &Ending) -> (TdFate, RunningModule, NextStep) {
    let Ending { kind, known, stage, cause } = *ending;
    let tds = match known.handoff {
        Handoff::Pending => TdFate::Held,
        Handoff::Lost => TdFate::Lost,
        Handoff::Unknown | Handoff::Taken => TdFate::Unknown,
    };
    let running = match known.module {
        Module::ShutDown => RunningModule::OldShutDown,
        Module::NotReady => RunningModule::NewNotReady,
        _ => RunningModule::NoneKnown,
    };
    let in_place = known.module == Module::NotReady;
    if is_silence(cause) {
        return (TdFate::Unknown, RunningModule::NoneKnown, after_silence(ending));
    }
    match stage {
        // Nothing was done, and nothing has to be installed.
        Stage::Start if kind == Kind::Finish && known.module != Module::ShutDown => {
            (tds, running, NextStep::Finish)
        }
        Stage::CpuInstall => match (known.session, cause) {
            (Session::Complete, _) => (tds, RunningModule::NewNotReady, NextStep::Finish),
            // P-SEAMLDR measures the handoff data by the module that is in place, which has no room for it.
            (_, Some(cause)) if in_place && cause.is_bad_handoff() => {
                (TdFate::Unknown, running, NextStep::InstallAgain)
            }
            (Session::Open, _) => (tds, RunningModule::SessionOpen, NextStep::CompleteSession),
            // P-SEAMLDR refused the image and left what is in place as it was.
            (Session::Closed, Some(FailureCause::Seamldr { .. })) if in_place => {
                (tds, running, NextStep::Finish)
            }
            (Session::Closed, _) => (tds, running, NextStep::InstallAgain),
        },
        Stage::CpuInit if cause == Some(FailureCause::LpsMissing) => {
            (tds, RunningModule::SessionOpen, NextStep::CompleteSession)
        }
        // All LPs called SEAMLDR.INSTALL, and no LP reached a module to ask it.
        Stage::CpuInit if matches!(known.session, Session::Open) => {
            (tds, RunningModule::NoneKnown, NextStep::Finish)
        }
        Stage::CpuInit | Stage::RunUpdate if known.module == Module::ShutDown => {
            (tds, running, NextStep::InstallAgain)
        }
        Stage::CpuInit | Stage::RunUpdate => in_place_and_not_up(tds, stage, cause),
        Stage::Start | Stage::Shutdown | Stage::Done => (tds, running, NextStep::InstallAgain),
    }
}

/// A module is in place, and did not come up or did not take the handoff data.
fn in_place_and_not_up(
    tds: TdFate,
    stage: Stage,
    cause: Option<FailureCause>,
) -> (TdFate, RunningModule, NextStep) {
    let may_pass = match cause {
        // The module itself says that there is nothing to take over.
        Some(FailureCause::Tdx(_, status))
            if stage == Stage::RunUpdate && status.code() == TdxStatus::SYS_INVALID_HANDOFF =>
        {
            return (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
        }
        Some(FailureCause::GaveUp) => true,
        Some(cause) => classify(stage, cause) == Class::Transient,
        None => false,
    };
    let next = if may_pass { NextStep::Finish } else { NextStep::InstallAgain };
    (tds, RunningModule::NewNotReady, next)
}

/// Neither a module nor P-SEAMLDR answered the LP that ended the update.
const fn is_silence(cause: Option<FailureCause>) -> bool {
    matches!(cause, Some(FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), _)))
}

/// If no LP had an answer when all of them looked, SEAM was shut down: perhaps by a module that was entered and never came back.
fn after_silence(ending: &Ending) -> NextStep {
    let Ending { kind, known, stage, .. } = *ending;
    let answered = known.module != Module::Unasked || known.seamldr_answered;
    match stage {
        _ if kind != Kind::Update && !answered => NextStep::Reboot,
        Stage::CpuInstall => NextStep::InstallAgain,
        _ => NextStep::Finish,
    }
}

#[cfg(test)]
#[path = "outcome_tests.rs"]
mod tests;
