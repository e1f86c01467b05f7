//! What each LP does in each stage.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::outcome::{consequences, Milestones, Outcome, Situation};
use super::record::{RawFailure, Record};
use super::recover::{classify, Candidates, Class, MAX_ROUNDS};
use super::rendezvous::{Leg, Rendezvous, Snapshot};
use super::Stage;
use crate::abi::{FieldId, Scenario, SeamldrStatus, ShutdownRequest, TdxFeatures0, TdxLeaf, TdxStatus};
use crate::debug::debug_fields;
use crate::tdx_module::Readiness;
use crate::{Host, InstallError, InstallRequest, Lock, ModuleState, Patience, SeamcallBackend, Seamldr};
use crate::{TdxError, TdxModule, TdxVersion, Trap};

/// LPs that P-SEAMLDR can count: its table has 1,024 places.
pub const MAX_LPS: u32 = 1024;

/// Images to fall back on that one update can have.
pub const MAX_FALLBACKS: usize = 7;

/// Choices that the embedder makes. [`Facts::options`](crate::preflight::Facts::options) makes them so that an update that preflight
/// has passed damages no TD; the default asks for nothing, and suits an update that is resumed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The version in which the old module writes its handoff data; `None` for the highest that it can write, which the new
    /// module may not take: see [`HandoffRange::negotiate`](crate::preflight::HandoffRange::negotiate).
    pub handoff_version: Option<u16>,
    /// Ask the old module to refuse while TDs are in build or a migration step is interrupted. Only modules with
    /// UPDATE_COMPATIBILITY know this, and they shut down in spite of both if they are not asked; all others refuse to shut down at all
    /// if they are.
    pub avoid_compat_sensitive: bool,
    /// Ask the new module, if it knows how, to find the damage that the update does to TDs in build and to interrupted
    /// migrations: calls on such TDs then fail instead of giving wrong measurements.
    pub detect_compat_damage: bool,
}

/// Why there can be no such update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// No LP is to take part, or more than there can be.
    Lps(u32),
    /// A request has the other scenario: [`Scenario::Load`] ends all TDs, and [`Scenario::Update`] needs some.
    Scenario {
        /// The request's.
        found: Scenario,
        /// The one that it should have.
        wanted: Scenario,
    },
    /// There are more than [`MAX_FALLBACKS`] images to fall back on.
    Fallbacks(usize),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => {
                write!(f, "{found} LPs are to take part in the update, but it should be 1 to {MAX_LPS}")
            }
            Self::Scenario { found, wanted } => {
                write!(f, "a request has the scenario {found:?}, but should have {wanted:?}")
            }
            Self::Fallbacks(found) => {
                write!(f, "there are {found} images to fall back on, but should be {MAX_FALLBACKS} at most")
            }
        }
    }
}

impl core::error::Error for UpdateError {}

/// What is to be done, from where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a module that runs to another one.
    Update,
    /// From handoff data that lies there to a module that takes it.
    Resume,
    /// From a module that is in place to one that has taken the handoff data.
    Finish,
    /// To a module without TDs.
    Load,
}

/// One update, shared by all LPs that take part.
pub struct Update<'a> {
    kind: Kind,
    request: Option<InstallRequest<'a>>,
    fallbacks: &'a [InstallRequest<'a>],
    state: &'a ModuleState,
    options: Options,
    rendezvous: Rendezvous,
    arrived: AtomicU32,
    /// LPs that have done their work in the current stage.
    finished: AtomicU32,
    milestones: AtomicU32,
    /// [`Candidates`].
    candidates: AtomicU32,
    /// Bit 0: the session of this round has put a module in place. The others count sessions that have ended.
    session: AtomicU32,
    /// LPs that are in the session that is open.
    joined: AtomicU32,
    first: Record,
    latest: Record,
    version: AtomicU64,
}

debug_fields! {
    Update<'a>, kind, request, fallbacks, state, options, rendezvous, arrived, finished, milestones,
    candidates, session, joined, first, latest, version
}

/// Set in [`Update::version`] once there is one.
const VERSION_KNOWN: u64 = 1 << 48;
/// In [`Update::session`].
const INSTALLED: u32 = 1;
const ONE_SESSION: u32 = 2;

impl<'a> Update<'a> {
    /// An update to the image of `request`, by `num_lps` LPs. `state` is the embedder's memory of the module, which lives
    /// longer than any update.
    ///
    /// # Errors
    ///
    /// There are no LPs, or more than [`MAX_LPS`], or the request would load the image afresh.
    pub fn new(
        request: InstallRequest<'a>,
        state: &'a ModuleState,
        options: Options,
        num_lps: u32,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Update, Some(request), state, options, num_lps)
    }

    /// What [`NextStep::InstallAgain`](super::NextStep::InstallAgain) and
    /// [`NextStep::CompleteSession`](super::NextStep::CompleteSession) ask for: an update that ended early goes on in the same boot
    /// from the handoff data that the old module has left, with the same image or another one. Refused if any LP finds a module ready.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn resume(
        request: InstallRequest<'a>,
        state: &'a ModuleState,
        options: Options,
        num_lps: u32,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Resume, Some(request), state, options, num_lps)
    }

    /// What [`NextStep::Finish`](super::NextStep::Finish) asks for: the module that is in place comes up and takes the handoff data
    /// over. Nothing is installed, and none of the remaining updates is used up. In its outcome image 0 is the module that is in place,
    /// whichever image it came from.
    ///
    /// # Errors
    ///
    /// There are no LPs, or more than [`MAX_LPS`].
    pub fn finish(state: &'a ModuleState, options: Options, num_lps: u32) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Finish, None, state, options, num_lps)
    }

    /// What [`NextStep::Load`](super::NextStep::Load) asks for: a module is put in place afresh and initialised on all LPs. All TDs
    /// are gone then, and the module waits to be configured as at boot. Refused if any LP finds a module ready.
    ///
    /// # Errors
    ///
    /// There are no LPs, or more than [`MAX_LPS`], or the request is for an update.
    pub fn load(
        request: InstallRequest<'a>,
        state: &'a ModuleState,
        num_lps: u32,
    ) -> Result<Self, UpdateError> {
        let options =
            Options { handoff_version: None, avoid_compat_sensitive: false, detect_compat_damage: false };
        Self::of_kind(Kind::Load, Some(request), state, options, num_lps)
    }

    /// Images that are tried in this order if the update's own is refused after the old module was shut down, or its module does
    /// not come up: usually the module that ran before, prepared while it still did.
    ///
    /// P-SEAMLDR takes no image of a lower SVN than that of the module it has. So once it has taken the update's own image, one that
    /// is older helps no more; what is left then is the same image again, and any other of its SVN or a higher one.
    ///
    /// # Errors
    ///
    /// There are too many, or one has another scenario than the update.
    pub fn with_fallbacks(mut self, fallbacks: &'a [InstallRequest<'a>]) -> Result<Self, UpdateError> {
        let wanted = self.kind.scenario();
        if let Some(other) = fallbacks.iter().find(|fallback| fallback.scenario() != wanted) {
            return Err(UpdateError::Scenario { found: other.scenario(), wanted });
        }
        let too_many = Err(UpdateError::Fallbacks(fallbacks.len()));
        let Ok(count) = u8::try_from(fallbacks.len()) else { return too_many };
        if fallbacks.len() > MAX_FALLBACKS {
            return too_many;
        }
        let candidates = Candidates::from_word(*self.candidates.get_mut());
        *self.candidates.get_mut() = Candidates { count: count.saturating_add(1), ..candidates }.word();
        self.fallbacks = fallbacks;
        Ok(self)
    }

    fn of_kind(
        kind: Kind,
        request: Option<InstallRequest<'a>>,
        state: &'a ModuleState,
        options: Options,
        num_lps: u32,
    ) -> Result<Self, UpdateError> {
        if num_lps == 0 || num_lps > MAX_LPS {
            return Err(UpdateError::Lps(num_lps));
        }
        let mut candidates = Candidates { count: 0, current: 0, ruled_out: 0, failed: 0, in_place: None };
        if request.is_none() {
            // The module that is in place gets no second chance by being installed again.
            (candidates.failed, candidates.in_place) = (1, Some(0));
        }
        if let Some(request) = &request {
            candidates.count = 1;
            match (request.scenario(), kind.scenario()) {
                (Scenario::Update, Scenario::Update) | (Scenario::Load, Scenario::Load) => {}
                (found, wanted) => return Err(UpdateError::Scenario { found, wanted }),
            }
        }
        Ok(Self {
            kind,
            request,
            fallbacks: &[],
            state,
            options,
            rendezvous: Rendezvous::new(num_lps),
            arrived: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            milestones: AtomicU32::new(0),
            candidates: AtomicU32::new(candidates.word()),
            session: AtomicU32::new(0),
            joined: AtomicU32::new(0),
            first: Record::new(),
            latest: Record::new(),
            version: AtomicU64::new(0),
        })
    }

    /// The stage that the LPs are in, and how many of them have finished it: for showing progress.
    #[must_use]
    pub fn progress(&self) -> (Stage, u32) {
        (self.rendezvous.load().stage(), self.finished.load(Ordering::Relaxed))
    }

    /// Which round it is, from 1 on: one more after each failure that it goes on from.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.rendezvous.load().round().saturating_add(1)
    }

    /// Whether a module has taken the TDs over: the short form of [`outcome`](Self::outcome).
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.milestones.load(Ordering::Acquire) & Milestones::UPDATED != 0
    }

    /// How the update ended. To be asked when every LP has left; before that it is how things stand.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let seen = self.rendezvous.load();
        let last = self.latest.read();
        let lps = self.rendezvous.lps();
        let joined = self.joined.load(Ordering::Relaxed);
        let is_installed = self.session.load(Ordering::Relaxed) & INSTALLED != 0;
        let reached = Milestones(self.milestones.load(Ordering::Acquire));
        let (tds, running, next) = consequences(&Situation {
            kind: self.kind,
            first: self.first.read().map(|failure| failure.cause),
            last: last.map(|failure| failure.cause),
            reached,
            stage: seen.stage(),
            is_session_open: joined != 0,
            // All have come back with success, the last one perhaps after somebody had given up.
            is_complete: is_installed || joined == lps && !self.is_probing(seen.leg()),
            is_handoff_pending: self.state.is_handoff_pending(),
        });
        let version = self.version.load(Ordering::Acquire);
        #[allow(clippy::as_conversions)] // 16 bits each
        let part = |shift: u32| (version >> shift) as u16;
        Outcome {
            tds,
            running,
            next,
            version: (version & VERSION_KNOWN != 0).then(|| TdxVersion {
                major: part(32),
                minor: part(16),
                update: part(0),
            }),
            image: Candidates::from_word(self.candidates.load(Ordering::Relaxed)).current,
            failure: self.first.read(),
            last_failure: last,
            stage: seen.stage(),
            rounds: seen.round().saturating_add(1),
            lps,
            finished_last_stage: if seen.stage() == Stage::Done {
                lps
            } else {
                self.finished.load(Ordering::Relaxed)
            },
        }
    }

    /// The request that this round installs.
    fn current_request(&self) -> Option<&InstallRequest<'a>> {
        match Candidates::from_word(self.candidates.load(Ordering::Relaxed)).current {
            0 => self.request.as_ref(),
            fallback => self.fallbacks.get(usize::from(fallback).wrapping_sub(1)),
        }
    }

    fn reach(&self, milestone: u32) {
        self.milestones.fetch_or(milestone, Ordering::Release);
    }

    /// P-SEAMLDR did not answer either, when it was asked because of this failure.
    fn silenced(&self, lp: u32, failure: RawFailure) -> RawFailure {
        self.first.write(lp, self.rendezvous.load().stage(), failure);
        RawFailure::SILENCE
    }

    /// What a module that was asked has said of itself, if it has.
    fn remember(&self, found: Readiness) {
        match found {
            Readiness::Ready => self.reach(Milestones::FOUND_READY),
            Readiness::ShutDown => self.reach(Milestones::FOUND_SHUT_DOWN),
            Readiness::NotReady => self.reach(Milestones::FOUND_NOT_READY),
            Readiness::Nothing | Readiness::Unclear(_) => {}
        }
    }

    /// All LPs have acknowledged; this one says where to go. The others do nothing meanwhile.
    fn settle(&self, all: Snapshot, lp: u32) {
        let to = if all.failed() { self.after_failure(all) } else { self.after_success(all, lp) };
        if to.is_some() {
            self.finished.store(0, Ordering::Relaxed);
        }
        self.rendezvous.move_on(all, to);
    }

    fn after_success(&self, all: Snapshot, lp: u32) -> Option<Leg> {
        let stage = match (all.stage(), self.kind) {
            (Stage::Start, Kind::Update) => Stage::Shutdown,
            (Stage::Start, Kind::Finish) => Stage::CpuInit,
            (Stage::Start, Kind::Resume | Kind::Load) => {
                self.state.reset();
                Stage::CpuInstall
            }
            (Stage::CpuInstall, _) if !self.is_installed(all) => {
                // Every LP is in the session, and it still waits.
                self.latest.write(lp, Stage::CpuInstall, RawFailure::LPS_MISSING);
                self.first.write(lp, Stage::CpuInstall, RawFailure::LPS_MISSING);
                return None;
            }
            (Stage::CpuInstall, _) => {
                self.end_session(0);
                self.module_is_in_place();
                Stage::CpuInit
            }
            (Stage::CpuInit, Kind::Load) => Stage::Done,
            (stage, _) => stage.next(),
        };
        Some(Leg { stage, round: all.round() })
    }

    fn module_is_in_place(&self) {
        self.reach(Milestones::INSTALLED);
        let candidates = Candidates::from_word(self.candidates.load(Ordering::Relaxed));
        self.candidates.store(candidates.installed().word(), Ordering::Relaxed);
        if self.kind == Kind::Load {
            self.state.set_handoff_pending(false);
        }
    }

    /// Whether a module is in place, now that every LP has called. After a shutdown by this update the session was its own from
    /// the first call on, so so many calls have completed it (if the platform has no more LPs: the module will tell).
    fn is_installed(&self, all: Snapshot) -> bool {
        !self.is_probing(all.leg()) || self.session.load(Ordering::Relaxed) & INSTALLED != 0
    }

    /// Whether it is not known, in this round, which LPs are in the session that may be open.
    fn is_probing(&self, leg: Leg) -> bool {
        leg.round != 0 || self.kind != Kind::Update
    }

    /// The session that was open has ended, and has or has not put a module in place.
    fn end_session(&self, installed: u32) {
        let ended = self.session.load(Ordering::Relaxed) & !INSTALLED;
        self.session.store(ended.wrapping_add(ONE_SESSION) | installed, Ordering::Relaxed);
        self.joined.store(0, Ordering::Relaxed);
    }

    fn after_failure(&self, all: Snapshot) -> Option<Leg> {
        let round = all.round().saturating_add(1);
        let reached = Milestones(self.milestones.load(Ordering::Relaxed));
        // An LP arrives once, so the first stage cannot be repeated.
        if all.stage() == Stage::Start || round >= MAX_ROUNDS || reached.has(Milestones::HANDOFF_LOST) {
            return None;
        }
        let cause = self.latest.read()?.cause;
        let class = classify(all.stage(), cause);
        let candidates = Candidates::from_word(self.candidates.load(Ordering::Relaxed));
        let (next, stage) = match candidates.after(class) {
            Some(next) if class == Class::Transient => (next, all.stage()),
            Some(next) => {
                self.state.reset();
                self.session.fetch_and(!INSTALLED, Ordering::Relaxed);
                (next, Stage::CpuInstall)
            }
            // No image is left, but one that was refused leaves the module that is in place as it was, and what kept that from coming up may
            // have passed. Not where handoff data is too long for it, which would be the end of SEAM.
            None if class == Class::ImageRefused && !cause.is_bad_handoff() => {
                (candidates.back().filter(|_| self.joined.load(Ordering::Relaxed) == 0)?, Stage::CpuInit)
            }
            None => return None,
        };
        self.candidates.store(next.word(), Ordering::Relaxed);
        self.latest.clear();
        Some(Leg { stage, round })
    }
}

impl Kind {
    const fn scenario(self) -> Scenario {
        match self {
            Self::Load => Scenario::Load,
            Self::Update | Self::Resume | Self::Finish => Scenario::Update,
        }
    }
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// This LP has done something; there may be more to do.
    Worked,
    /// This LP waits for others.
    Waiting,
    /// The update is over for this LP, one way or the other.
    Finished,
}

/// What the work of a stage came to.
enum Work {
    Done,
    /// Another LP has to finish something first.
    Waits,
    /// There are enough LPs without this one.
    NotNeeded,
}

/// One LP's part in an update. It is to be made on that LP, and stays there.
pub struct Cpu<'a, B: ?Sized, L: ?Sized, H: ?Sized> {
    update: &'a Update<'a>,
    seamldr: Seamldr<'a, B, L>,
    host: &'a H,
    /// What this LP acknowledged last.
    acknowledged: Option<Leg>,
    /// What this LP saw when it last found nothing to do.
    waits_on: Option<Snapshot>,
    /// The how-manieth LP this was to arrive. That of the round's number leads.
    arrival: u32,
    /// The session that this LP is in, by the number of those that ended before.
    joined: Option<u32>,
}

impl<B: ?Sized, L: ?Sized, H: ?Sized> fmt::Debug for Cpu<'_, B, L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, arrival, .. } = self;
        f.debug_struct("Cpu")
            .field("acknowledged", acknowledged)
            .field("arrival", arrival)
            .finish_non_exhaustive()
    }
}

impl<'a, B, L, H> Cpu<'a, B, L, H>
where
    B: SeamcallBackend + ?Sized,
    L: Lock + ?Sized,
    H: Host + ?Sized,
{
    /// The part of the LP that calls.
    #[must_use]
    pub const fn new(update: &'a Update<'a>, seamldr: Seamldr<'a, B, L>, host: &'a H) -> Self {
        Self { update, seamldr, host, acknowledged: None, waits_on: None, arrival: 0, joined: None }
    }

    /// Goes through the whole update, with [`Host::relax`] while there is nothing to do. Interrupts have to be off.
    pub fn run(&mut self) {
        loop {
            match self.step() {
                Progress::Worked => {}
                Progress::Finished => return,
                Progress::Waiting => {
                    if self.host.relax() == Patience::GiveUp {
                        self.abandon();
                    }
                }
            }
        }
    }

    /// Does what is due for this LP now, at most one stage, and never waits for other LPs but at the lock.
    pub fn step(&mut self) -> Progress {
        let update = self.update;
        let seen = update.rendezvous.load();
        let leg = seen.leg();
        self.waits_on = None;
        // An LP that was not there when the update began has no part in it.
        if seen.is_over() || self.acknowledged.is_none() && leg.stage != Stage::Start {
            return Progress::Finished;
        }
        if self.acknowledged == Some(leg) {
            self.waits_on = Some(seen);
            return Progress::Waiting;
        }
        // Once an LP has failed, the others only meet it at the end of the stage.
        let skip = seen.failed() && self.acknowledged.is_some();
        match if skip { Ok(Work::Done) } else { self.work(leg) } {
            Ok(Work::Done) if skip => {}
            Ok(Work::Done) => {
                update.finished.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Work::Waits) => {
                self.waits_on = Some(seen);
                return Progress::Waiting;
            }
            Ok(Work::NotNeeded) => return Progress::Finished,
            Err(raw) => {
                self.record(leg.stage, raw);
                update.rendezvous.fail();
            }
        }
        self.acknowledged = Some(leg);
        if let Some(all) = update.rendezvous.acknowledge() {
            update.settle(all, self.host.current_lp());
        }
        Progress::Worked
    }

    /// Ends the update for everybody because this LP has waited long enough, unless something has happened since its last
    /// [`step`](Self::step) or that was not [`Progress::Waiting`]. For embedders that call `step` themselves.
    pub fn abandon(&self) {
        if let Some(seen) = self.waits_on.filter(|seen| self.update.rendezvous.end_if_still(*seen)) {
            self.record(seen.stage(), RawFailure::GAVE_UP);
        }
    }

    fn record(&self, stage: Stage, raw: RawFailure) {
        let lp = self.host.current_lp();
        self.update.latest.write(lp, stage, raw);
        self.update.first.write(lp, stage, raw);
    }

    fn work(&mut self, leg: Leg) -> Result<Work, RawFailure> {
        let module = TdxModule::new(self.seamldr.backend());
        let lps = self.update.rendezvous.lps();
        // A broken LP does not keep the lead.
        let leads = leg.round.checked_rem(lps) == Some(self.arrival);
        match leg.stage {
            Stage::Start => return self.arrive(module),
            Stage::Shutdown if leads => self.shut_down(module)?,
            Stage::CpuInstall => self.install(module, leg)?,
            Stage::CpuInit => {
                return match module.enable_lp(self.update.state, self.host.current_lp()) {
                    Ok(true) => Ok(Work::Done),
                    Ok(false) => Ok(Work::Waits),
                    Err((leaf, error)) => Err(self.failed(module, leaf, error)),
                };
            }
            Stage::RunUpdate if leads => self.take_over(module)?,
            Stage::Shutdown | Stage::RunUpdate | Stage::Done => {}
        }
        Ok(Work::Done)
    }

    /// What a failure of the new module is.
    #[cold]
    fn failed(&self, module: TdxModule<'_, B>, leaf: TdxLeaf, error: TdxError) -> RawFailure {
        let raw = RawFailure::tdx(leaf, error);
        if error != TdxError::Trap(Trap::VmFailInvalid) || !module.is_out_of_reach() {
            return raw;
        }
        if self.is_silent() {
            self.update.silenced(self.host.current_lp(), raw)
        } else if leaf == TdxLeaf::SYS_INIT {
            // All have called INSTALL and no module answers: the platform counts more LPs.
            RawFailure::LPS_MISSING
        } else {
            raw
        }
    }

    fn is_silent(&self) -> bool {
        self.seamldr.exclusively(|| self.seamldr.is_silent_with_lock_held())
    }

    /// The first LP to arrive leads; one more than were announced has no part in the update.
    fn arrive(&mut self, module: TdxModule<'_, B>) -> Result<Work, RawFailure> {
        let before = self.update.arrived.fetch_add(1, Ordering::Relaxed);
        if before >= self.update.rendezvous.lps() {
            return Ok(Work::NotNeeded);
        }
        self.arrival = before;
        // Nobody gets past this stage without this LP, so a failure here harms nothing.
        if !self.update.state.covers(self.host.current_lp()) {
            return Err(RawFailure::UNKNOWN_LP);
        }
        if self.update.kind != Kind::Update {
            self.look(module)?;
        }
        Ok(Work::Done)
    }

    /// What is there to go on from. A module that is ready has TDs, which nothing here may touch. So every LP has to find that there is
    /// nothing for that to be believed: an LP can be cut off from a module that runs.
    fn look(&self, module: TdxModule<'_, B>) -> Result<(), RawFailure> {
        let found = module.readiness();
        self.update.remember(found);
        if found == Readiness::Nothing && !self.is_silent() {
            self.update.reach(Milestones::LOADER_ANSWERED);
        }
        match found {
            Readiness::Ready => Err(RawFailure::STILL_READY),
            Readiness::Unclear(error) => Err(RawFailure::tdx(TdxLeaf::SYS_TDMR_INIT, error)),
            Readiness::ShutDown | Readiness::NotReady | Readiness::Nothing => Ok(()),
        }
    }

    fn shut_down(&self, module: TdxModule<'_, B>) -> Result<(), RawFailure> {
        let options = &self.update.options;
        let hv = match options.handoff_version {
            Some(hv) => hv,
            None => module
                .read_u16(FieldId::MODULE_HV)
                .map_err(|error| self.refused(module, TdxLeaf::SYS_RD, error))?,
        };
        let request = ShutdownRequest { hv, avoid_compat_sensitive: options.avoid_compat_sensitive };
        let failure = |error| self.refused(module, TdxLeaf::SYS_SHUTDOWN, error);
        let status = module.sys_shutdown(request).map_err(failure)?;
        // A word that is neither success nor error leaves open what has happened.
        if !status.is_success() && module.readiness() != Readiness::ShutDown {
            return Err(failure(TdxError::Status(status)));
        }
        self.update.reach(Milestones::SHUT_DOWN);
        self.update.state.reset();
        self.update.state.set_handoff_pending(true);
        Ok(())
    }

    /// A refusal of the module that was to be shut down. That it has been shut down already would mean that the TDs stand still: that
    /// is asked once more.
    fn refused(&self, module: TdxModule<'_, B>, leaf: TdxLeaf, error: TdxError) -> RawFailure {
        if error == TdxError::Status(TdxStatus::SYS_SHUTDOWN) && module.readiness() == Readiness::ShutDown {
            self.update.reach(Milestones::FOUND_SHUT_DOWN);
        }
        RawFailure::tdx(leaf, error)
    }

    /// This LP's part in the session, unless it has one already or the session is complete.
    fn install(&mut self, module: TdxModule<'_, B>, leg: Leg) -> Result<(), RawFailure> {
        let (update, seamldr, lp) = (self.update, self.seamldr, self.host.current_lp());
        // Not reached without a request.
        let Some(request) = update.current_request() else { return Ok(()) };
        let joined = &mut self.joined;
        // While a session is open no module can be called. With the lock held nobody opens or completes one meanwhile.
        let is_open = || module.is_out_of_reach();
        let reached = Milestones(update.milestones.load(Ordering::Relaxed));
        let has_module = reached.has(Milestones::MODULE_THERE);
        seamldr.exclusively(|| {
            let session = update.session.load(Ordering::Relaxed);
            let number = session / ONE_SESSION;
            if session & INSTALLED != 0 || *joined == Some(number) {
                return Ok(());
            }
            let result = seamldr.install_with_lock_held(request);
            match result {
                Ok(()) if update.is_probing(leg) && !is_open() => {
                    update.end_session(INSTALLED);
                    update.module_is_in_place();
                    return Ok(());
                }
                Ok(()) => {}
                // This LP is in the session that somebody has left open.
                Err(InstallError::Refused { status: SeamldrStatus::EBADCALL, rdx: 0 }) if is_open() => {}
                // Told before the LP is in; the session of the others waits on, if P-SEAMLDR is there at all.
                Err(error @ InstallError::Trap(trap)) => {
                    let raw = RawFailure::install(error);
                    let is_gone = trap == Trap::VmFailInvalid && seamldr.is_silent_with_lock_held();
                    return Err(if is_gone { update.silenced(lp, raw) } else { raw });
                }
                Err(InstallError::Refused { status, rdx: 0 })
                    if is_open() && (has_module || status == SeamldrStatus::EUNSPECERR) =>
                {
                    return result.map_err(RawFailure::install)
                }
                // The session is over. If there was no module before, that is not sure, but then the LPs that are in it are told so
                // when they call again.
                Err(error) => {
                    update.end_session(0);
                    if !error.is_recoverable() {
                        update.reach(Milestones::HANDOFF_LOST);
                        update.state.set_handoff_pending(false);
                    } else if !has_module {
                        // Behind the session that was open there may be one.
                        update.remember(module.readiness());
                    }
                    return Err(RawFailure::install(error));
                }
            }
            *joined = Some(number);
            update.joined.fetch_add(1, Ordering::Relaxed);
            Ok(())
        })
    }

    #[inline(never)] // what it has on the stack is not needed in other stages
    fn take_over(&self, module: TdxModule<'_, B>) -> Result<(), RawFailure> {
        let v1 = self.update.options.detect_compat_damage;
        let mut result =
            if v1 { module.sys_update_v1(TdxFeatures0::UPDATE_COMPATIBILITY) } else { module.sys_update() };
        // It knows no versions, or not what is asked of it.
        if v1 && result.is_err_and(|error| error.status().code() == TdxStatus::OPERAND_INVALID) {
            result = module.sys_update();
        }
        // A word that is not success leaves open what has happened, and over a module that is ready nothing may be installed.
        if !result.is_ok_and(TdxStatus::is_success) && module.readiness() != Readiness::Ready {
            let error = result.map_or_else(|error| error, TdxError::Status);
            return Err(self.failed(module, TdxLeaf::SYS_UPDATE, error));
        }
        self.update.reach(Milestones::UPDATED);
        self.update.state.set_handoff_pending(false);
        self.update.state.set_ready();
        // The update has succeeded; a version that cannot be read does not change that.
        if let Ok(TdxVersion { major, minor, update }) = module.version() {
            let version = VERSION_KNOWN | u64::from(major) << 32 | u64::from(minor) << 16 | u64::from(update);
            self.update.version.store(version, Ordering::Release);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_impl_all!(Update<'static>: Send, Sync);
    static_assertions::assert_impl_all!(ModuleState<[AtomicU64; 1]>: Send, Sync);
    // Kernels put it on a stack.
    static_assertions::const_assert!(size_of::<Update<'static>>() <= 256);
}
