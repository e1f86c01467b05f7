//! The work of one LP in each stage of an update.

use core::fmt;
use core::sync::atomic::Ordering;

use super::failure::RawFailure;
use super::known::{Event, Kind, Session};
use super::rendezvous::{Leg, Snapshot};
use super::stage::Stage;
use super::{Checked, Update};
use crate::abi::{FieldId, ShutdownRequest, TdxFeatures0, TdxLeaf, TdxStatus};
use crate::backend::Trap;
use crate::host::{Host, Patience};
use crate::lock::Lock;
use crate::seamldr::Seamldr;
use crate::tdx_module::{Readiness, TdxError, TdxModule};

/// The result of [`Cpu::step`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This LP did its work in a stage. Call again.
    Worked,
    /// This LP waits for other LPs.
    Waiting,
    /// The update is over for this LP.
    Finished,
}

/// The result of an LP's work in a stage.
pub(super) enum Work {
    /// The LP acknowledges the stage.
    Done,
    /// The LP acknowledges the stage without work: another LP has failed in it.
    Skipped,
    /// Another LP must finish its call first.
    Waits,
    /// The LP has no part in the update.
    NotNeeded,
    /// The update ended before this LP could claim the stage.
    Over,
}

/// This LP failed, and has recorded the failure.
pub(super) struct Failed;

/// One LP's part in an update. Make the value on that LP and use it only there. If an LP makes a
/// second value, that one finishes at once.
pub struct Cpu<'a, H: ?Sized, L: ?Sized> {
    pub(super) update: &'a Update<'a>,
    pub(super) seamldr: Seamldr<'a, H, L>,
    /// The stage and round that this LP acknowledged last.
    acknowledged: Option<Leg>,
    /// The rendezvous as this LP saw it in its last step, if it had to wait.
    waits_on: Option<Snapshot>,
    /// Arrival order of this LP, from 0. In round r the LP with order r mod n leads.
    arrival: u32,
    /// This LP has claimed the stage.
    pub(super) has_claimed: bool,
}

impl<H: ?Sized, L: ?Sized> fmt::Debug for Cpu<'_, H, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, arrival, .. } = self;
        f.debug_struct("Cpu")
            .field("acknowledged", acknowledged)
            .field("arrival", arrival)
            .finish_non_exhaustive()
    }
}

impl<'a, H: Host + ?Sized, L: Lock + ?Sized> Cpu<'a, H, L> {
    /// Returns the part of the calling LP.
    #[must_use]
    pub const fn new(update: &'a Update<'a>, seamldr: Seamldr<'a, H, L>) -> Self {
        Self { update, seamldr, acknowledged: None, waits_on: None, arrival: 0, has_claimed: false }
    }

    /// Goes through the whole update. Calls [`Host::relax`] while the LP waits. Interrupts must be
    /// off.
    pub fn run(&mut self) {
        loop {
            match self.step() {
                Progress::Worked => {}
                Progress::Finished => return,
                Progress::Waiting => {
                    if self.host().relax() == Patience::GiveUp {
                        self.abandon();
                    }
                }
            }
        }
    }

    /// Does this LP's work in the current stage, if it is not done. Waits for other LPs only at the
    /// lock.
    pub fn step(&mut self) -> Progress {
        let update = self.update;
        let seen = update.rendezvous.load();
        let leg = seen.leg();
        self.waits_on = None;
        // An LP that arrives after `Start` does not take part.
        if seen.is_over() || self.acknowledged.is_none() && leg.stage != Stage::Start {
            return Progress::Finished;
        }
        if self.acknowledged == Some(leg) {
            self.waits_on = Some(seen);
            return Progress::Waiting;
        }
        // After a failure the other LPs acknowledge the stage without work.
        let skip = seen.failed() && self.acknowledged.is_some();
        match if skip { Ok(Work::Skipped) } else { self.work(leg) } {
            Ok(Work::Skipped) => {}
            Ok(Work::Done) => {
                update.finished.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Work::Waits) => {
                self.waits_on = Some(seen);
                return Progress::Waiting;
            }
            Ok(Work::NotNeeded | Work::Over) => return Progress::Finished,
            Err(Failed) => {}
        }
        self.acknowledged = Some(leg);
        let has_claimed = core::mem::take(&mut self.has_claimed);
        if let Some(all) = update.rendezvous.acknowledge(has_claimed) {
            self.settle(all);
        }
        Progress::Worked
    }

    /// Gives up waiting: ends the update for all LPs. Does nothing unless the last
    /// [`step`](Self::step) returned [`Progress::Waiting`]. Does nothing if an LP has made progress
    /// since, or makes a call that cannot be undone. This is for embedders that call `step`
    /// themselves.
    pub fn abandon(&self) {
        if let Some(seen) = self.waits_on.filter(|seen| self.update.rendezvous.end_if_still(*seen))
        {
            self.update.record(self.host().current_lp(), seen.stage(), &RawFailure::GAVE_UP);
        }
    }

    const fn host(&self) -> &'a H {
        self.seamldr.host()
    }

    /// Moves all LPs on. The LP that acknowledged last calls this; the other LPs wait.
    #[inline(never)] // registers of its own, on a small stack
    fn settle(&self, all: Snapshot) {
        let update = self.update;
        let failed = if all.failed() {
            Some(all.stage())
        } else if all.stage() == Stage::CpuInstall {
            self.after_install()
        } else {
            None
        };
        let to = match failed {
            Some(stage) => update.after_failure(all, stage),
            None => update.after_success(all),
        };
        if to.is_some() {
            update.finished.store(0, Ordering::Relaxed);
        }
        update.rendezvous.move_on(all, to);
    }

    fn work(&mut self, leg: Leg) -> Result<Work, Failed> {
        let module = TdxModule::new(self.host());
        // The lead changes with the round, so that an LP that fails does not stay the lead.
        let leads = leg.round.checked_rem(self.update.rendezvous.lps()) == Some(self.arrival);
        match leg.stage {
            Stage::Start => self.arrive(module),
            Stage::Shutdown if leads => self.shut_down(module),
            Stage::CpuInstall => self.install(leg),
            Stage::CpuInit => self.initialize(module),
            Stage::RunUpdate if leads => self.take_over(module),
            Stage::Shutdown | Stage::RunUpdate | Stage::Done => Ok(Work::Done),
        }
    }

    /// Does the work of `Start`. The first LP to arrive leads. An LP beyond the announced number
    /// does not take part.
    fn arrive(&mut self, module: TdxModule<'_, H>) -> Result<Work, Failed> {
        let (update, host) = (self.update, self.host());
        let (lp, wanted) = (host.current_lp(), update.rendezvous.lps());
        // If this LP is one of the announced LPs, no LP leaves this stage without it. Only an
        // additional LP can come later.
        if host.machine() != update.machine {
            return self.turn_away(&RawFailure::OTHER_MACHINE);
        }
        let found = host.num_lps();
        if found != wanted {
            return self.turn_away(&RawFailure::lps_changed(found, wanted));
        }
        if !update.state.covers(lp) {
            return self.turn_away(&RawFailure::UNKNOWN_LP);
        }
        if !update.state.take_part(lp) {
            return Ok(Work::NotNeeded);
        }
        self.arrival = update.arrived.fetch_add(1, Ordering::Relaxed);
        if self.arrival >= wanted {
            return Ok(Work::NotNeeded);
        }
        self.look(module)?;
        Ok(Work::Done)
    }

    /// Ends the update for all LPs at its start, because an announced LP may never come. An LP that
    /// comes after the start does not take part.
    #[cold]
    #[inline(never)] // one copy for all reasons
    fn turn_away(&self, failure: &RawFailure) -> Result<Work, Failed> {
        if !self.update.rendezvous.end_at_start() {
            return Ok(Work::NotNeeded);
        }
        self.update.record(self.host().current_lp(), Stage::Start, failure);
        Ok(Work::Over)
    }

    /// Asks the module for its state. An update needs a running module. A resumed update, a finish
    /// and a load need that no module runs, because they would end its TDs. Every LP asks, because
    /// one LP can be cut off from a running module.
    fn look(&self, module: TdxModule<'_, H>) -> Result<(), Failed> {
        let update = self.update;
        let mut found = module.readiness();
        // Asks again before the library believes that the module does not run and its TDs are
        // paused.
        if update.kind == Kind::Update && matches!(found, Readiness::ShutDown | Readiness::NotReady)
        {
            found = module.readiness();
        }
        update.happened(Event::Found(found));
        let failure = |error| Err(self.fail(&RawFailure::tdx(TdxLeaf::SYS_TDMR_INIT, error)));
        match found {
            Readiness::Ready if update.kind == Kind::Update => Ok(()),
            Readiness::Ready => Err(self.fail(&RawFailure::STILL_READY)),
            Readiness::Unclear(error) => failure(error),
            Readiness::Nothing if update.kind == Kind::Update => {
                failure(TdxError::Trap(Trap::VmFailInvalid))
            }
            Readiness::ShutDown if update.kind == Kind::Update => {
                failure(TdxError::Status(TdxStatus::SYS_SHUTDOWN))
            }
            Readiness::NotReady if update.kind == Kind::Update => {
                failure(TdxError::Status(TdxStatus::SYS_NOT_READY))
            }
            Readiness::Nothing => {
                if !self.is_silent() {
                    update.happened(Event::SeamldrAnswered);
                }
                Ok(())
            }
            // A module answers only if no session is open.
            Readiness::ShutDown | Readiness::NotReady => {
                update.state.end_session();
                Ok(())
            }
        }
    }

    #[inline(never)] // registers of its own, on a small stack
    fn shut_down(&mut self, module: TdxModule<'_, H>) -> Result<Work, Failed> {
        let Some(checked) = self.update.checked else { return Ok(Work::Done) };
        self.look_again(checked)?;
        let hv = match checked.passed.handoff_version() {
            Some(hv) => hv,
            None => module
                .read_u16(FieldId::MODULE_HV)
                .map_err(|error| self.refused(module, TdxLeaf::SYS_RD, error))?,
        };
        self.has_claimed = self.update.rendezvous.claim();
        if !self.has_claimed {
            return Ok(Work::Over);
        }
        let avoid_compat_sensitive = checked.passed.avoids_sensitive_operations();
        let request = ShutdownRequest { hv, avoid_compat_sensitive };
        if let Some(error) = unsuccessful(module.sys_shutdown(request)) {
            let found = if is_refusal(error) { Readiness::Ready } else { module.readiness() };
            if found != Readiness::ShutDown {
                if found != Readiness::Ready {
                    self.update.happened(Event::MayBeShutDown);
                }
                return Err(self.refused(module, TdxLeaf::SYS_SHUTDOWN, error));
            }
        }
        self.update.happened(Event::ShutDown);
        Ok(Work::Done)
    }

    /// Checks that the module is still the one that preflight saw. All other LPs wait meanwhile.
    #[inline(never)] // its registers are not needed later
    fn look_again(&self, checked: Checked<'_>) -> Result<(), Failed> {
        let Checked { passed, info } = checked;
        self.seamldr.shared_info(info).map_err(|error| self.fail(&RawFailure::info(error)))?;
        let same_module = passed.running_mrseam().is_none_or(|wanted| info.has_mrseam(wanted));
        if !same_module || passed.running_svn().is_some_and(|wanted| info.svn() != wanted) {
            return Err(self.fail(&RawFailure::MODULE_CHANGED));
        }
        if info.remaining_updates() == 0 {
            return Err(self.fail(&RawFailure::NO_REMAINING_UPDATES));
        }
        Ok(())
    }

    /// Records that the old module refused. If the module answered SYS_SHUTDOWN, its TDs are
    /// paused; this asks the module again before it believes the answer.
    #[cold]
    fn refused(&self, module: TdxModule<'_, H>, leaf: TdxLeaf, error: TdxError) -> Failed {
        if error == TdxError::Status(TdxStatus::SYS_SHUTDOWN)
            && module.readiness() == Readiness::ShutDown
        {
            self.update.happened(Event::WasShutDown);
        }
        self.fail(&RawFailure::tdx(leaf, error))
    }

    fn initialize(&self, module: TdxModule<'_, H>) -> Result<Work, Failed> {
        match module.enable_lp(self.update.state, self.host().current_lp()) {
            Ok(done) => {
                if done {
                    self.update.module_answered();
                    Ok(Work::Done)
                } else {
                    Ok(Work::Waits)
                }
            }
            Err((leaf, error)) => Err(self.failed(module, leaf, error)),
        }
    }

    #[inline(never)] // registers of its own, on a small stack
    fn take_over(&mut self, module: TdxModule<'_, H>) -> Result<Work, Failed> {
        self.has_claimed = self.update.rendezvous.claim();
        if !self.has_claimed {
            return Ok(Work::Over);
        }
        let v1 = self.update.detect_damage;
        let mut result = if v1 {
            module.sys_update_v1(TdxFeatures0::UPDATE_COMPATIBILITY)
        } else {
            module.sys_update()
        };
        // A module that does not know version 1 or this feature answers OPERAND_INVALID.
        if v1 && result.is_err_and(|error| error.status().code() == TdxStatus::OPERAND_INVALID) {
            result = module.sys_update();
        }
        if let Some(mut error) = unsuccessful(result) {
            let mut leaf = TdxLeaf::SYS_UPDATE;
            // A module that has taken the data over answers SYS_STATE_INCORRECT too. The update
            // must not install over a module that is ready.
            let refused =
                is_refusal(error) && error.status().code() != TdxStatus::SYS_STATE_INCORRECT;
            let found = if refused { Readiness::NotReady } else { module.readiness() };
            if let Readiness::Unclear(answer) = found {
                (leaf, error) = (TdxLeaf::SYS_TDMR_INIT, answer);
            }
            if found != Readiness::Ready {
                return Err(self.failed(module, leaf, error));
            }
        }
        self.update.happened(Event::TookOver);
        Ok(Work::Done)
    }

    /// Records a failure of the new module.
    #[cold]
    fn failed(&self, module: TdxModule<'_, H>, leaf: TdxLeaf, error: TdxError) -> Failed {
        let failure = RawFailure::tdx(leaf, error);
        if let TdxError::Status(_) = error {
            self.update.module_answered();
        }
        if error != TdxError::Trap(Trap::VmFailInvalid) || !module.is_out_of_reach() {
            return self.fail(&failure);
        }
        self.fail(if self.is_silent() {
            self.update.silenced(self.host().current_lp(), &failure)
        } else if leaf == TdxLeaf::SYS_INIT && self.update.known.load().session == Session::Open {
            // No module answers after SEAMLDR.INSTALL on all LPs, so P-SEAMLDR waits for more LPs.
            &RawFailure::LPS_MISSING
        } else {
            &failure
        })
    }

    /// Records a failure of this LP before it acknowledges the stage. No other LP then begins to
    /// work on the stage.
    #[cold]
    #[inline(never)] // one copy for all failures
    pub(super) fn fail(&self, failure: &RawFailure) -> Failed {
        self.update.record(
            self.host().current_lp(),
            self.update.rendezvous.load().stage(),
            failure,
        );
        self.update.rendezvous.fail();
        Failed
    }

    #[inline(never)] // one copy for all callers
    pub(super) fn is_silent(&self) -> bool {
        self.seamldr.exclusively(|| self.seamldr.is_silent_with_lock_held())
    }
}

/// Returns the answer if it is not success.
fn unsuccessful(answer: Result<TdxStatus, TdxError>) -> Option<TdxError> {
    match answer {
        Ok(status) if status.is_success() => None,
        Ok(status) => Some(TdxError::Status(status)),
        Err(error) => Some(error),
    }
}

/// Whether the call certainly changed nothing: the module refused, or the instruction raised an
/// exception. VMfailInvalid, and a status that is neither success nor error, leave this open.
fn is_refusal(error: TdxError) -> bool {
    error.status().is_failure() && error != TdxError::Trap(Trap::VmFailInvalid)
}

impl Update<'_> {
    /// Records this failure, after which P-SEAMLDR did not answer either. Returns the silence of
    /// P-SEAMLDR as the latest failure.
    pub(super) fn silenced(&self, lp: u32, failure: &RawFailure) -> &'static RawFailure {
        self.first.write(lp, self.rendezvous.load().stage(), failure);
        &RawFailure::SILENCE
    }
}
