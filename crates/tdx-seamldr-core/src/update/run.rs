//! What each LP does in each stage.

use core::fmt;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::outcome::{consequences, ends_session, Call, Failure, FailureCause, Milestones, Outcome};
use super::rendezvous::{Rendezvous, Snapshot};
use super::Stage;
use crate::abi::{FieldId, Scenario, SeamldrLeaf, SeamldrStatus, ShutdownRequest, TdxLeaf, TdxStatus};
use crate::{Host, InstallError, InstallRequest, Lock, ModuleState, Patience, SeamcallBackend, Seamldr};
use crate::{TdxError, TdxModule, TdxVersion, Trap};

/// LPs that P-SEAMLDR can count: its table has 1,024 places.
pub const MAX_LPS: u32 = 1024;

/// Choices that the embedder makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The version in which the old module writes its handoff data; `None` for the highest that it can write, which the new
    /// module may not take: see [`HandoffRange::negotiate`](crate::preflight::HandoffRange::negotiate).
    pub handoff_version: Option<u16>,
    /// Ask the old module to refuse while TDs are in build or a migration step is interrupted. Only modules with
    /// UPDATE_COMPATIBILITY know this; all others refuse to shut down at all.
    pub avoid_compat_sensitive: bool,
}

/// Why there can be no such update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// No LP is to take part, or more than there can be.
    Lps(u32),
    /// The request is not for an update but for [`Scenario::Load`], which ends all TDs.
    NotAnUpdate,
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => {
                write!(f, "{found} LPs are to take part in the update, but it should be 1 to {MAX_LPS}")
            }
            Self::NotAnUpdate => f.write_str("the request has the scenario LOAD, but should have UPDATE"),
        }
    }
}

impl core::error::Error for UpdateError {}

/// One update, shared by all LPs that take part.
#[derive(Debug)]
pub struct Update<'a> {
    request: InstallRequest<'a>,
    state: &'a ModuleState,
    options: Options,
    rendezvous: Rendezvous,
    arrived: AtomicU32,
    milestones: AtomicU32,
    failure: Record,
    version: AtomicU64,
}

/// The first failure. One LP claims it and writes it.
#[derive(Debug)]
struct Record {
    state: AtomicU32,
    lp: AtomicU32,
    stage: AtomicU32,
    call: AtomicU64,
    status: AtomicU64,
    rdx: AtomicU64,
}

/// Values of [`Record::state`].
const FREE: u32 = 0;
const CLAIMED: u32 = 1;
const WRITTEN: u32 = 2;

/// Values of [`Record::call`] that are no leaf.
const NO_CALL_GAVE_UP: u64 = u64::MAX;
const NO_CALL_UNKNOWN_LP: u64 = u64::MAX - 1;

/// Set in [`Update::version`] once there is one.
const VERSION_KNOWN: u64 = 1 << 48;

/// Which call failed, and how: a trap is kept as the status word that Linux has for it.
#[derive(Clone, Copy, Debug)]
struct RawFailure {
    call: u64,
    status: u64,
    rdx: u64,
}

impl RawFailure {
    fn tdx(leaf: TdxLeaf, error: TdxError) -> Self {
        Self { call: leaf.rax(0), status: error.status().0, rdx: 0 }
    }

    fn install(error: InstallError) -> Self {
        let (status, rdx) = match error {
            InstallError::Trap(trap) => (trap.status().0, 0),
            InstallError::Refused { status, rdx } => (status.0, rdx),
        };
        Self { call: SeamldrLeaf::Install.rax(), status, rdx }
    }

    fn cause(self) -> FailureCause {
        match (self.call, Trap::from_status(TdxStatus(self.status))) {
            (NO_CALL_GAVE_UP, _) => FailureCause::GaveUp,
            (NO_CALL_UNKNOWN_LP, _) => FailureCause::UnknownLp,
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

impl<'a> Update<'a> {
    /// An update to the image of `request`, by `num_lps` LPs. `state` is the embedder's memory of the module, which lives
    /// longer than any update.
    ///
    /// # Errors
    ///
    /// There are no LPs, or more than [`MAX_LPS`], or the request would load the image afresh.
    pub const fn new(
        request: InstallRequest<'a>,
        state: &'a ModuleState,
        options: Options,
        num_lps: u32,
    ) -> Result<Self, UpdateError> {
        if num_lps == 0 || num_lps > MAX_LPS {
            return Err(UpdateError::Lps(num_lps));
        }
        if !matches!(request.scenario(), Scenario::Update) {
            return Err(UpdateError::NotAnUpdate);
        }
        Ok(Self {
            request,
            state,
            options,
            rendezvous: Rendezvous::new(num_lps),
            arrived: AtomicU32::new(0),
            milestones: AtomicU32::new(0),
            failure: Record {
                state: AtomicU32::new(FREE),
                lp: AtomicU32::new(0),
                stage: AtomicU32::new(0),
                call: AtomicU64::new(0),
                status: AtomicU64::new(0),
                rdx: AtomicU64::new(0),
            },
            version: AtomicU64::new(0),
        })
    }

    /// The stage that the LPs are in, and how many of them have finished it: for showing progress.
    #[must_use]
    pub fn progress(&self) -> (Stage, u32) {
        let seen = self.rendezvous.load();
        (seen.stage(), seen.acks())
    }

    /// Whether the new module runs and the TDs with it: the short form of [`outcome`](Self::outcome).
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.milestones.load(Ordering::Acquire) & Milestones::UPDATED != 0
    }

    /// How the update ended. To be asked when every LP has left; before that it is how things stand.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let seen = self.rendezvous.load();
        let failure = self.failure.read();
        let reached = Milestones(self.milestones.load(Ordering::Acquire));
        let lps = self.rendezvous.lps();
        let (tds, running, next) = consequences(failure.as_ref(), reached, seen.stage(), seen.acks(), lps);
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
            failure,
            stage: seen.stage(),
            lps,
            finished_last_stage: if seen.stage() == Stage::Done { lps } else { seen.acks() },
        }
    }
}

impl Record {
    /// Writes the failure if it is the first one.
    fn write(&self, lp: u32, stage: Stage, raw: RawFailure) {
        if self.state.compare_exchange(FREE, CLAIMED, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.lp.store(lp, Ordering::Relaxed);
            self.stage.store(u32::from(stage.number()), Ordering::Relaxed);
            self.call.store(raw.call, Ordering::Relaxed);
            self.status.store(raw.status, Ordering::Relaxed);
            self.rdx.store(raw.rdx, Ordering::Relaxed);
            self.state.store(WRITTEN, Ordering::Release);
        }
    }

    fn read(&self) -> Option<Failure> {
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
    /// The stage that this LP acknowledged last.
    acknowledged: Option<Stage>,
    /// What this LP saw when it last found nothing to do.
    waits_on: Option<Snapshot>,
    is_lead: bool,
}

impl<B: ?Sized, L: ?Sized, H: ?Sized> fmt::Debug for Cpu<'_, B, L, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { acknowledged, is_lead, .. } = self;
        f.debug_struct("Cpu")
            .field("acknowledged", acknowledged)
            .field("is_lead", is_lead)
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
        Self { update, seamldr, host, acknowledged: None, waits_on: None, is_lead: false }
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
        let seen = self.update.rendezvous.load();
        let stage = seen.stage();
        self.waits_on = None;
        // An LP that was not there when the update began has no part in it.
        if seen.is_over() || self.acknowledged.is_none() && stage != Stage::Start {
            return Progress::Finished;
        }
        if self.acknowledged == Some(stage) {
            self.waits_on = Some(seen);
            return Progress::Waiting;
        }
        match self.work(stage) {
            Ok(Work::Done) => {
                self.acknowledged = Some(stage);
                self.update.rendezvous.acknowledge();
                Progress::Worked
            }
            Ok(Work::Waits) => {
                self.waits_on = Some(seen);
                Progress::Waiting
            }
            Ok(Work::NotNeeded) => Progress::Finished,
            Err(raw) => {
                self.update.failure.write(self.host.current_lp(), stage, raw);
                self.update.rendezvous.fail();
                Progress::Finished
            }
        }
    }

    /// Ends the update for everybody because this LP has waited long enough, unless something has happened since its last
    /// [`step`](Self::step) or that was not [`Progress::Waiting`]. For embedders that call `step` themselves.
    pub fn abandon(&self) {
        if let Some(seen) = self.waits_on.filter(|seen| self.update.rendezvous.fail_if_still(*seen)) {
            let raw = RawFailure { call: NO_CALL_GAVE_UP, status: 0, rdx: 0 };
            self.update.failure.write(self.host.current_lp(), seen.stage(), raw);
        }
    }

    fn reach(&self, milestone: u32) {
        self.update.milestones.fetch_or(milestone, Ordering::Release);
    }

    fn work(&mut self, stage: Stage) -> Result<Work, RawFailure> {
        let module = TdxModule::new(self.seamldr.backend());
        match stage {
            Stage::Start => return self.arrive(),
            Stage::Shutdown if self.is_lead => self.shut_down(module)?,
            Stage::CpuInstall => self.install()?,
            Stage::CpuInit => {
                return match module.enable_lp(self.update.state, self.host.current_lp()) {
                    Ok(true) => Ok(Work::Done),
                    Ok(false) => Ok(Work::Waits),
                    Err((leaf, error)) => Err(RawFailure::tdx(leaf, error)),
                };
            }
            Stage::RunUpdate if self.is_lead => self.take_over(module)?,
            Stage::Shutdown | Stage::RunUpdate | Stage::Done => {}
        }
        Ok(Work::Done)
    }

    /// The first LP to arrive leads; one more than were announced has no part in the update.
    fn arrive(&mut self) -> Result<Work, RawFailure> {
        let before = self.update.arrived.fetch_add(1, Ordering::Relaxed);
        if before >= self.update.rendezvous.lps() {
            return Ok(Work::NotNeeded);
        }
        // Nobody gets past this stage without this LP, so a failure here harms nothing.
        if !self.update.state.covers(self.host.current_lp()) {
            return Err(RawFailure { call: NO_CALL_UNKNOWN_LP, status: 0, rdx: 0 });
        }
        self.is_lead = before == 0;
        Ok(Work::Done)
    }

    fn shut_down(&self, module: TdxModule<'_, B>) -> Result<(), RawFailure> {
        let options = &self.update.options;
        let hv = match options.handoff_version {
            Some(hv) => hv,
            None => module
                .read_u16(FieldId::MODULE_HV)
                .map_err(|error| RawFailure::tdx(TdxLeaf::SYS_RD, error))?,
        };
        let request = ShutdownRequest { hv, avoid_compat_sensitive: options.avoid_compat_sensitive };
        module.sys_shutdown(request).map_err(|error| RawFailure::tdx(TdxLeaf::SYS_SHUTDOWN, error))?;
        self.reach(Milestones::SHUT_DOWN);
        self.update.state.reset();
        Ok(())
    }

    fn install(&self) -> Result<(), RawFailure> {
        self.seamldr.install(&self.update.request).map_err(|error| {
            match error {
                InstallError::Refused { status, rdx: 0 } if ends_session(status) => {
                    self.reach(Milestones::SESSION_REFUSED);
                }
                _ if !error.is_recoverable() => self.reach(Milestones::HANDOFF_LOST),
                _ => {}
            }
            RawFailure::install(error)
        })
    }

    fn take_over(&self, module: TdxModule<'_, B>) -> Result<(), RawFailure> {
        module.sys_update().map_err(|error| {
            if error == TdxError::Trap(Trap::VmFailInvalid) {
                self.reach(Milestones::UPDATE_UNANSWERED);
            }
            RawFailure::tdx(TdxLeaf::SYS_UPDATE, error)
        })?;
        self.reach(Milestones::UPDATED);
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
    static_assertions::const_assert!(size_of::<Update<'static>>() <= 128);
}
