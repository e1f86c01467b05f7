//! The result of an update: the fate of the TDs, the module that runs, and the next step.

use core::fmt;

use super::failure::{Call, Failure, FailureCause};
use super::known::{Handoff, Kind, Known, Module, Session};
use super::recover::{classify, Class};
use super::stage::Stage;
use crate::abi::{SeamldrLeaf, SensitiveReason, TdxLeaf, TdxStatus};
use crate::backend::Trap;
use crate::count::Count;
use crate::debug::debug_fields;

/// The fate of the TDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TdFate {
    /// This update shut no module down: the TDs are as before it.
    NeverAtRisk,
    /// The TDs run under the module that has taken them over.
    Preserved,
    /// The TDs are paused and their handoff data is intact. They live on if a module takes it over
    /// in this boot.
    Held,
    /// The TDs are lost.
    Lost,
    /// The fate is unknown: the firmware gave no answer, or an unclear answer.
    Unknown,
}

/// Which module can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunningModule {
    /// The old module, which this update has not changed. An update may end before an LP asks the
    /// module.
    Old,
    /// The old module, which is shut down for good.
    OldShutDown,
    /// The new module, which is not ready yet: it has not taken the handoff data over, or waits to
    /// be configured.
    NewNotReady,
    /// The module of [`Outcome::image`], which has taken the handoff data over.
    New,
    /// No module: an INSTALL session is open and waits for LPs.
    SessionOpen,
    /// No module is known to run: the LPs asked none, or none answered with its state.
    NoneKnown,
}

/// What the caller can do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextStep {
    /// No step is needed: the update is complete.
    Done,
    /// Remove the reason and repeat the update, with preflight. The update has changed nothing.
    Retry,
    /// Repeat the update later, with preflight: the module was busy, TDs were in build, or
    /// migrations interrupted. The update has changed nothing.
    RetryLater,
    /// Call [`Update::resume`](super::Update::resume) on every LP of the platform, with this image
    /// or another one.
    InstallAgain,
    /// Call [`Update::resume`](super::Update::resume) on every LP of the platform. Some LPs have
    /// not called SEAMLDR.INSTALL in the open session.
    CompleteSession,
    /// Call [`Update::finish`](super::Update::finish). The module is in place, and its failure may
    /// have been temporary.
    Finish,
    /// Call [`Update::load`](super::Update::load). TDX then works again, without the TDs. A
    /// P-SEAMLDR with SEAMLDR.CLEANUP may refuse the load until every LP has called that leaf.
    Load,
    /// Configure the module as at boot, from TDH.SYS.CONFIG on: it was loaded without TDs.
    Configure,
    /// Reboot: neither a module nor P-SEAMLDR has answered any LP.
    Reboot,
}

/// The result of an update.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// The fate of the TDs.
    pub tds: TdFate,
    /// Which module can be called.
    pub running: RunningModule,
    /// What the caller can do next.
    pub next: NextStep,
    /// The image that the update installed last, or was about to install. 0 is the update's own
    /// image, 1 the first fallback, and so on.
    pub image: u8,
    /// The first failure. `None` if there was none. A later round may have succeeded.
    pub failure: Option<Failure>,
    /// The failure that ended the update. `None` if no failure ended it.
    pub last_failure: Option<Failure>,
    /// The stage in which the update ended.
    pub stage: Stage,
    /// How many rounds the update took: 1, and 1 more for each retry after a failure.
    pub rounds: u32,
    /// How many LPs took part.
    pub lps: u32,
    /// How many LPs had finished the stage in which the update ended.
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

    /// Whether the TDs run under a module that has taken them over: the update's own or a fallback.
    #[must_use]
    pub const fn tds_live_on(&self) -> bool {
        matches!(self.tds, TdFate::Preserved)
    }

    /// Returns the first failure if the update went on from it and its own image runs. `None` if
    /// nothing failed, or if the update did not succeed.
    #[must_use]
    pub const fn overcome(&self) -> Option<Failure> {
        match self.last_failure {
            None if self.is_updated() => self.failure,
            _ => None,
        }
    }

    /// Returns why the old module refused the shutdown, and how many TDs or migrations the update
    /// would have damaged. `None` if the update did not end by such a refusal
    /// (UPDATE_COMPATIBILITY_SENSITIVE).
    #[must_use]
    pub fn sensitive(&self) -> Option<(SensitiveReason, u16)> {
        match self.last_failure?.cause {
            FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, status) => status.sensitive(),
            _ => None,
        }
    }

    /// Returns how many LPs finished this stage. An update that resumes, finishes or loads does not
    /// have every stage; a stage that it passed over counts as finished by all LPs.
    #[must_use]
    pub fn finished(&self, stage: Stage) -> u32 {
        match stage.cmp(&self.stage) {
            core::cmp::Ordering::Less => self.lps,
            core::cmp::Ordering::Equal => self.finished_last_stage,
            core::cmp::Ordering::Greater => 0,
        }
    }

    /// Returns a name for the outcome: `updated`, `fallback`, `refused`, `held`, `lost` or
    /// `unknown`. The name does not change between releases.
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
            TdFate::NeverAtRisk => {
                "not updated; this update shut nothing down, and the TDs are as before"
            }
            TdFate::Preserved if self.image != 0 => {
                "not updated; the TDs live on under a fallback module"
            }
            TdFate::Preserved => "updated; the TDs live on",
            TdFate::Held => "not updated; the TDs are paused and their handoff data is intact",
            TdFate::Lost if self.next == NextStep::Configure => "loaded afresh, without the TDs",
            TdFate::Lost => "not updated; the TDs are lost",
            TdFate::Unknown => "not updated; the fate of the TDs is unknown",
        })?;
        match (self.overcome(), self.failure) {
            (Some(failure), _) => {
                let rounds = Count(self.rounds, "round");
                write!(f, "; a failure was overcome in {rounds}: {failure}")?;
            }
            (None, Some(failure)) => write!(f, "; {failure}")?,
            (None, None) => {}
        }
        if let Some(last) = self.last_failure.filter(|last| self.failure != Some(*last)) {
            write!(f, "; last failure: {last}")?;
        }
        f.write_str(match self.next {
            NextStep::Done => "",
            NextStep::Retry => "; next: repeat preflight and the update",
            NextStep::RetryLater => "; next: repeat preflight and the update later",
            NextStep::Finish => "; next: initialise the module that is in place",
            NextStep::Configure => "; next: configure the module that was loaded, as at boot",
            NextStep::InstallAgain => "; next: install a module again, on every LP",
            NextStep::CompleteSession => {
                "; next: call SEAMLDR.INSTALL on the LPs that have not called it"
            }
            NextStep::Load => "; next: load a module afresh, to have TDX again without these TDs",
            NextStep::Reboot => "; next: reboot",
        })
    }
}

/// The end of an update: what is known of the platform, the last stage, and the failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) kind: Kind,
    pub(super) known: Known,
    pub(super) stage: Stage,
    /// The failure that ended the update.
    pub(super) cause: Option<FailureCause>,
}

/// Returns the fate of the TDs, the module that runs and the next step.
pub(super) fn meaning(ending: &Ending) -> (TdFate, RunningModule, NextStep) {
    let Ending { kind, known, stage, cause } = *ending;
    match known.module {
        Module::Ready => (TdFate::Preserved, RunningModule::New, NextStep::Done),
        Module::Destroyed => (TdFate::Lost, RunningModule::NoneKnown, NextStep::Load),
        Module::Running => of_a_running_module(cause),
        // Only a final refusal shows that the module still runs.
        Module::MayBeShutDown => match cause {
            Some(cause @ FailureCause::Tdx(..)) if classify(stage, cause) == Class::Final => {
                of_a_running_module(Some(cause))
            }
            _ => (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain),
        },
        Module::Unasked if kind == Kind::Update => unasked(known.handoff, cause),
        Module::NotReady if kind == Kind::Load && stage == Stage::Done => {
            (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure)
        }
        Module::Unasked | Module::NotReady | Module::ShutDown => {
            let (tds, running, next) = after_shutdown(ending);
            let goes_on = matches!(
                next,
                NextStep::InstallAgain | NextStep::CompleteSession | NextStep::Finish
            );
            // A load hands no TDs over.
            let next = if kind == Kind::Load && goes_on && tds != TdFate::Held {
                NextStep::Load
            } else {
                next
            };
            (tds, running, next)
        }
    }
}

/// The meaning if the old module runs as before.
fn of_a_running_module(cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match cause {
        Some(FailureCause::Tdx(_, status)) => match status.code() {
            // The module answered SYS_SHUTDOWN, and its next answer contradicted that.
            TdxStatus::SYS_SHUTDOWN => (TdFate::Unknown, RunningModule::Old, NextStep::Retry),
            TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE | TdxStatus::SYS_BUSY => {
                (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater)
            }
            _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        },
        _ => (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
    }
}

/// The meaning if no LP had an answer from the old module.
fn unasked(handoff: Handoff, cause: Option<FailureCause>) -> (TdFate, RunningModule, NextStep) {
    match (handoff, cause) {
        (Handoff::Pending, _) => (TdFate::Held, RunningModule::NoneKnown, NextStep::InstallAgain),
        (_, Some(FailureCause::Trap(_, Trap::VmFailInvalid))) => {
            (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain)
        }
        _ => of_a_running_module(cause),
    }
}

/// The meaning if the old module is shut down, or an earlier update left no module that runs.
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
        // The update changed nothing, and needs no installation.
        Stage::Start if kind == Kind::Finish && known.module != Module::ShutDown => {
            (tds, running, NextStep::Finish)
        }
        Stage::CpuInstall => match (known.session, cause) {
            // The new module refused TDH.SYS.INIT.
            (Session::Complete, Some(FailureCause::Tdx(..))) => {
                in_place_and_not_up(tds, Stage::CpuInit, cause)
            }
            (Session::Complete, _) => (tds, running, NextStep::Finish),
            // P-SEAMLDR checks the size of the handoff data by the module in place, whose limit is
            // lower.
            (_, Some(cause)) if in_place && cause.is_bad_handoff() => {
                (TdFate::Unknown, running, NextStep::InstallAgain)
            }
            (Session::Open, _) => (tds, RunningModule::SessionOpen, NextStep::CompleteSession),
            // P-SEAMLDR refused the image and kept the module in place.
            (Session::Closed, Some(FailureCause::Seamldr { .. })) if in_place => {
                (tds, running, NextStep::Finish)
            }
            (Session::Closed, _) => (tds, running, NextStep::InstallAgain),
        },
        Stage::CpuInit if cause == Some(FailureCause::LpsMissing) => {
            (tds, RunningModule::SessionOpen, NextStep::CompleteSession)
        }
        // All LPs called SEAMLDR.INSTALL, and no module has answered an LP.
        Stage::CpuInit if known.session == Session::Open => {
            (tds, RunningModule::NoneKnown, NextStep::Finish)
        }
        Stage::CpuInit | Stage::RunUpdate if !in_place => (tds, running, NextStep::InstallAgain),
        Stage::CpuInit | Stage::RunUpdate => in_place_and_not_up(tds, stage, cause),
        Stage::Start | Stage::Shutdown | Stage::Done => (tds, running, NextStep::InstallAgain),
    }
}

/// The meaning if the module in place did not initialise, or did not take the handoff data.
fn in_place_and_not_up(
    tds: TdFate,
    stage: Stage,
    cause: Option<FailureCause>,
) -> (TdFate, RunningModule, NextStep) {
    let may_pass = match cause {
        // The module itself says that there is no handoff data that it can take.
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

/// Whether P-SEAMLDR did not answer the LP whose failure ended the update.
const fn is_silence(cause: Option<FailureCause>) -> bool {
    matches!(cause, Some(FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), _)))
}

/// Returns the next step after P-SEAMLDR did not answer. A reboot is due if neither a module nor
/// P-SEAMLDR answered any LP in an update that resumes, finishes or loads. SEAM was then shut down,
/// perhaps by an error in a module.
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
