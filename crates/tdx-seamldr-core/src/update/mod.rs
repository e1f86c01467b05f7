//! The update itself: all LPs go through six stages in lockstep.
//!
//! | stage | who works | calls |
//! |---|---|---|
//! | [`Stage::Start`] | every LP, in parallel | TDH.SYS.TDMR.INIT with an invalid address: the module's answer shows that this LP reaches a module that runs |
//! | [`Stage::Shutdown`] | the lead LP | SEAMLDR.INFO, to check that the module is the one that preflight saw; then TDH.SYS.SHUTDOWN |
//! | [`Stage::CpuInstall`] | every LP, one at a time | SEAMLDR.INSTALL; then the last LP calls TDH.SYS.INIT, which only an installed module answers |
//! | [`Stage::CpuInit`] | every LP, in parallel | TDH.SYS.LP.INIT |
//! | [`Stage::RunUpdate`] | the lead LP | TDH.SYS.UPDATE |
//! | [`Stage::Done`] | no LP | |
//!
//! The last LP to acknowledge a stage moves all LPs on. A failure stops all LPs before the next
//! stage. A failure before TDH.SYS.SHUTDOWN changes nothing. A waiting LP may give up, which ends
//! the update for all LPs. No LP can give up while another LP makes a call that cannot be undone:
//! SHUTDOWN, INSTALL or UPDATE.
//!
//! # After a failure
//!
//! All LPs begin another round together. An update has at most 16 rounds:
//!
//! | failure | start of the next round |
//! |---|---|
//! | temporary: no entropy, a busy lock, a trap after the shutdown | the same stage, with another lead LP |
//! | any failure in `Start`; another refusal of SHUTDOWN | no next round: the update has changed nothing |
//! | INSTALL with RDX 0 | `CpuInstall`, with the next [fallback](Update::with_fallbacks) |
//! | a call of the new module | `CpuInstall`, with the next fallback; after the last fallback, with the same image once more |
//! | INSTALL with RDX 0, no image is left, a new module is in place | `CpuInit`: that module's failure may have been temporary |
//! | INSTALL with RDX 1: P-SEAMLDR destroyed the module and the handoff data | no next round |
//!
//! [`Update::outcome`] returns the fate of the TDs, the module that runs, and the next step. The
//! next step may be [`Update::resume`] with another image, or [`Update::finish`] if the new module
//! is in place. [`Update::load`] brings TDX back without the TDs.
//!
//! # Pictures
#![cfg_attr(doc, doc = include_str!("../../pictures/outcomes.svg"))]
//!
#![cfg_attr(doc, doc = include_str!("../../pictures/losses.svg"))]

mod atomic {
    pub(super) use core::sync::atomic::{AtomicU32, Ordering};
}
mod failure;
mod known;
pub mod linux;
mod lp;
mod outcome;
mod recover;
mod rendezvous;
#[cfg(test)]
mod rendezvous_tests;
mod session;
mod stage;

pub use failure::{Call, Failure, FailureCause};
pub use lp::{Cpu, Progress};
pub use outcome::{NextStep, Outcome, RunningModule, TdFate};
pub use stage::Stage;

use core::fmt;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::{Scenario, SeamldrParamsBuffer};
use crate::debug::debug_fields;
use crate::host::{Host, MachineId};
use crate::module_state::ModuleState;
use crate::params::{BuildError, InstallRequest, Part};
use crate::preflight::{PassedUpdate, PreparedImage};
use crate::shared_info::SharedInfo;
use crate::tdx_module::Readiness;
use failure::{RawFailure, Record};
use known::{Event, Kind, Known, Session, SharedKnown};
use outcome::{meaning, Ending};
use recover::{classify, Candidates, Class, MAX_ROUNDS};
use rendezvous::{Leg, Rendezvous, Snapshot};

/// The highest number of LPs in an update. P-SEAMLDR's table has room for 1,024.
pub const MAX_LPS: u32 = 1024;

/// The highest number of fallback images in one update.
pub const MAX_FALLBACKS: usize = 7;

/// The reason why an update cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// The number of LPs is 0 or above [`MAX_LPS`].
    Lps(u32),
    /// The number of LPs has changed since preflight.
    LpsChanged {
        /// LPs that the host counts now.
        found: u32,
        /// LPs that preflight counted.
        wanted: u32,
    },
    /// An image is prepared for the wrong scenario. [`Scenario::Load`] ends all TDs,
    /// [`Scenario::Update`] keeps them.
    Scenario {
        /// The scenario of the image.
        found: Scenario,
        /// The scenario of the update.
        wanted: Scenario,
    },
    /// There are more than [`MAX_FALLBACKS`] fallback images.
    Fallbacks(usize),
    /// A fallback image passed preflight for another version of the handoff data.
    HandoffVersion {
        /// The version that the image passed for.
        found: u16,
        /// The version that the update asks for.
        wanted: u16,
    },
    /// An image is prepared for another machine than the host's.
    OtherMachine,
    /// Another update uses the [`ModuleState`]. Only one update can use it at a time.
    Busy,
    /// P-SEAMLDR cannot read the image or its parameters at their addresses.
    Build(BuildError),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => {
                write!(f, "the number of LPs is {found}, but should be 1 to {MAX_LPS}")
            }
            Self::LpsChanged { found, wanted } => {
                FailureCause::LpsChanged { found: *found, wanted: *wanted }.fmt(f)
            }
            Self::Scenario { found, wanted } => {
                write!(
                    f,
                    "an image is prepared for scenario {found:?}, but should be for {wanted:?}"
                )
            }
            Self::Fallbacks(found) => {
                write!(
                    f,
                    "the number of fallback images is {found}, but should be at most \
                     {MAX_FALLBACKS}"
                )
            }
            Self::HandoffVersion { found, wanted } => write!(
                f,
                "a fallback image passed preflight for handoff version {found}, but the update \
                 asks the running module for {wanted}"
            ),
            Self::OtherMachine => {
                f.write_str("an image is prepared for another machine: prepare it with this host")
            }
            Self::Busy => f.write_str("another update uses the module state: wait until it ends"),
            Self::Build(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for UpdateError {}

impl From<BuildError> for UpdateError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

/// The facts that the lead LP checks while all other LPs wait, before it shuts the module down.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    passed: &'a PassedUpdate<'a>,
    /// The buffer in which the lead LP asks P-SEAMLDR.
    info: &'a SharedInfo,
}

/// One update, which all LPs that take part share. It reserves the [`ModuleState`] until it is
/// dropped. After `mem::forget` the state stays reserved.
pub struct Update<'a> {
    kind: Kind,
    /// `None` unless the update begins from a running module.
    checked: Option<Checked<'a>>,
    request: Option<InstallRequest<'a>>,
    fallbacks: &'a [PreparedImage<'a>],
    state: &'a ModuleState,
    machine: MachineId,
    detect_damage: bool,
    /// At the start, the module state had an LP in an open session.
    remembers_session: bool,
    rendezvous: Rendezvous,
    arrived: AtomicU32,
    /// How many LPs have done their work in the current stage.
    finished: AtomicU32,
    known: SharedKnown,
    /// [`Candidates`].
    candidates: AtomicU32,
    first: Record,
    latest: Record,
}

debug_fields! {
    Update<'a>, kind, checked, request, fallbacks, state, machine, detect_damage, remembers_session,
    rendezvous, arrived, finished, known, candidates, first, latest
}

impl Drop for Update<'_> {
    fn drop(&mut self) {
        self.state.end_update();
    }
}

impl<'a> Update<'a> {
    /// Returns an update to the image that passed preflight, by the LPs that preflight counted.
    /// P-SEAMLDR reads `params` and writes `info`. `state` is the embedder's memory of the module,
    /// which outlives each update.
    ///
    /// # Errors
    ///
    /// The number of LPs is 0, above [`MAX_LPS`] or not the one that preflight counted, P-SEAMLDR
    /// cannot read the memory, or another update uses `state`.
    pub fn new<H: Host + ?Sized>(
        passed: &'a PassedUpdate<'a>,
        params: &'a mut SeamldrParamsBuffer,
        info: &'a SharedInfo,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        let found = host.num_lps();
        match passed.num_lps() {
            Some(wanted) if wanted != found => {
                return Err(UpdateError::LpsChanged { found, wanted })
            }
            _ => {}
        }
        let buffer = ptr::from_ref(info).cast::<u8>();
        let _ = buffer.expose_provenance();
        host.phys_addr(buffer).ok_or(BuildError::NotMapped(Part::Info))?;
        let request = passed.request(params, host)?;
        Self::of_kind(Kind::Update, Some(Checked { passed, info }), Some(request), host, state)
    }

    /// Returns an update that continues an earlier one of the same boot, for
    /// [`NextStep::InstallAgain`] and [`NextStep::CompleteSession`]. The module of `image` takes
    /// the handoff data that the old module left. The update ends at its start if an LP finds a
    /// module ready.
    ///
    /// # Errors
    ///
    /// The number of LPs is 0 or above [`MAX_LPS`], the image is not prepared to take handoff data
    /// or not for this machine, or another update uses `state`.
    pub fn resume<H: Host + ?Sized>(
        image: PreparedImage<'a>,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Resume, None, Some(*image.request()), host, state)
    }

    /// Returns an update that initialises the module in place and makes it take the handoff data,
    /// for [`NextStep::Finish`]. The update installs nothing, so it uses up none of the remaining
    /// updates. In its outcome, image 0 is the module in place, whichever image it came from.
    ///
    /// # Errors
    ///
    /// The number of LPs is 0 or above [`MAX_LPS`], or another update uses `state`.
    pub fn finish<H: Host + ?Sized>(host: &H, state: &'a ModuleState) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Finish, None, None, host, state)
    }

    /// Returns an update that installs a module without TDs and initialises it on all LPs, for
    /// [`NextStep::Load`]. All TDs are lost, and the caller must configure the module as at boot.
    /// The update ends at its start if an LP finds a module ready.
    ///
    /// # Errors
    ///
    /// The number of LPs is 0 or above [`MAX_LPS`], the image is not prepared for a load or not for
    /// this machine, or another update uses `state`.
    pub fn load<H: Host + ?Sized>(
        image: PreparedImage<'a>,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Load, None, Some(*image.request()), host, state)
    }

    /// Adds fallback images. The update tries them in this order if P-SEAMLDR refuses the update's
    /// own image after the shutdown, or if the new module fails. A usual fallback is the image of
    /// the running module, prepared before the update.
    ///
    /// No software can read a module back from the SEAM range, so the caller needs the file of the
    /// running module. The BIOS has loaded that module from flash memory or from the EFI system
    /// partition. Intel publishes the same image with each release, and MRSEAM tells whether a file
    /// is the image of the running module: compare
    /// [`Facts::running_mrseam`](crate::preflight::Facts::running_mrseam) with
    /// [`SeamSigstruct::seamhash`](crate::abi::SeamSigstruct::seamhash).
    ///
    /// A caller with one fallback or none passes an [`Option`]:
    ///
    /// ```
    /// # use tdx_seamldr_core::preflight::PreparedImage;
    /// # use tdx_seamldr_core::update::{Update, UpdateError};
    /// # fn example<'a>(
    /// #     update: Update<'a>,
    /// #     fallback: &'a Option<PreparedImage<'a>>,
    /// # ) -> Result<Update<'a>, UpdateError> {
    /// let update = update.with_fallbacks(fallback.as_slice())?;
    /// # Ok(update)
    /// # }
    /// ```
    ///
    /// P-SEAMLDR refuses an image with a lower SVN than the module in place. After P-SEAMLDR has
    /// taken the update's own image, a fallback with a lower SVN does not help. The update then
    /// tries the same image again, and fallbacks with the same SVN or a higher one.
    ///
    /// # Errors
    ///
    /// There are more than [`MAX_FALLBACKS`] images, or one of them is prepared for another
    /// scenario, another machine or another version of the handoff data.
    pub fn with_fallbacks(
        mut self,
        fallbacks: &'a [PreparedImage<'a>],
    ) -> Result<Self, UpdateError> {
        for fallback in fallbacks {
            self.accepts(fallback.request())?;
            let wanted = self.checked.and_then(|checked| checked.passed.handoff_version());
            match (fallback.handoff_version(), wanted) {
                (Some(found), Some(wanted)) if found != wanted => {
                    return Err(UpdateError::HandoffVersion { found, wanted });
                }
                _ => {}
            }
        }
        let too_many = UpdateError::Fallbacks(fallbacks.len());
        let count = u8::try_from(fallbacks.len()).map_err(|_| too_many)?;
        if fallbacks.len() > MAX_FALLBACKS {
            return Err(too_many);
        }
        let candidates = Candidates::from_word(*self.candidates.get_mut());
        *self.candidates.get_mut() =
            Candidates { count: count.saturating_add(1), ..candidates }.word();
        self.fallbacks = fallbacks;
        Ok(self)
    }

    /// Asks the new module to detect damage that the update does to TDs in build and to interrupted
    /// migrations. A module with UPDATE_COMPATIBILITY then fails calls on such TDs. Without
    /// detection these TDs get wrong measurements.
    #[must_use]
    pub fn detecting_damage(mut self) -> Self {
        self.detect_damage = true;
        self
    }

    fn of_kind<H: Host + ?Sized>(
        kind: Kind,
        checked: Option<Checked<'a>>,
        request: Option<InstallRequest<'a>>,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        let num_lps = host.num_lps();
        if num_lps == 0 || num_lps > MAX_LPS {
            return Err(UpdateError::Lps(num_lps));
        }
        let candidates = match request {
            Some(_) => Candidates { count: 1, ..Candidates::default() },
            // Without a request, this update cannot install the module in place again.
            None => Candidates::default(),
        };
        if !state.begin_update() {
            return Err(UpdateError::Busy);
        }
        let remembers_session = state.is_session_open();
        let update = Self {
            kind,
            checked,
            request,
            fallbacks: &[],
            state,
            machine: host.machine(),
            detect_damage: false,
            rendezvous: Rendezvous::new(num_lps),
            arrived: AtomicU32::new(0),
            finished: AtomicU32::new(0),
            remembers_session,
            known: SharedKnown::new(Known::at_start(state.is_handoff_pending(), remembers_session)),
            candidates: AtomicU32::new(candidates.word()),
            first: const { Record::new() },
            latest: const { Record::new() },
        };
        if let Some(request) = &update.request {
            update.accepts(request)?;
        }
        Ok(update)
    }

    fn accepts(&self, request: &InstallRequest<'_>) -> Result<(), UpdateError> {
        let wanted = self.kind.scenario();
        if request.scenario() != wanted {
            return Err(UpdateError::Scenario { found: request.scenario(), wanted });
        }
        if request.machine() != self.machine {
            return Err(UpdateError::OtherMachine);
        }
        Ok(())
    }

    /// Returns the current stage, and how many LPs have finished it. This is for progress displays.
    #[must_use]
    pub fn progress(&self) -> (Stage, u32) {
        (self.rendezvous.load().stage(), self.finished.load(Ordering::Relaxed))
    }

    /// Returns the number of the current round, from 1. Each round after the first follows a
    /// failure.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.rendezvous.load().round().saturating_add(1)
    }

    /// Whether a module has taken the TDs over. [`outcome`](Self::outcome) tells more.
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.known.load().module == known::Module::Ready
    }

    /// Returns the outcome. Call this after every LP has left; an earlier call returns what is
    /// known so far.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let seen = self.rendezvous.load();
        let last = self.latest.read();
        let cause = last.map(|failure| failure.cause);
        let (tds, running, next) = meaning(&Ending {
            kind: self.kind,
            known: self.known.load(),
            stage: seen.stage(),
            cause,
        });
        let lps = self.rendezvous.lps();
        Outcome {
            tds,
            running,
            next,
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

    /// Returns the request that this round installs.
    fn current_request(&self) -> Option<&InstallRequest<'a>> {
        match Candidates::from_word(self.candidates.load(Ordering::Relaxed)).current {
            0 => self.request.as_ref(),
            fallback => self
                .fallbacks
                .get(usize::from(fallback).wrapping_sub(1))
                .map(PreparedImage::request),
        }
    }

    /// Shows an event to all LPs, and records in the module state what outlives the update.
    #[inline(never)] // one copy for all events
    fn happened(&self, event: Event) {
        self.known.apply(event);
        if matches!(event, Event::ShutDown | Event::WasShutDown | Event::Found(Readiness::ShutDown))
        {
            self.state.reset();
            self.state.set_handoff_pending(true);
        }
        if matches!(event, Event::Installed | Event::Loaded | Event::Refused | Event::Destroyed) {
            self.state.end_session();
        }
        if matches!(event, Event::Installed | Event::Loaded) {
            let candidates = Candidates::from_word(self.candidates.load(Ordering::Relaxed));
            self.candidates.store(candidates.installed().word(), Ordering::Relaxed);
        }
        if matches!(event, Event::Loaded | Event::Destroyed | Event::TookOver) {
            self.state.set_handoff_pending(false);
        }
        if event == Event::TookOver {
            self.state.set_ready();
        }
    }

    /// Records that a module answered after all LPs called SEAMLDR.INSTALL, so the session
    /// installed it.
    fn module_answered(&self) {
        if self.known.load().session == Session::Open {
            self.happened(if self.kind == Kind::Load { Event::Loaded } else { Event::Installed });
        }
    }

    /// Records a failure. The first failure stays for the outcome. The latest failure decides the
    /// next round.
    fn record(&self, lp: u32, stage: Stage, failure: &RawFailure) {
        self.latest.write(lp, stage, failure);
        self.first.write(lp, stage, failure);
    }

    /// Returns the next stage of all LPs after a stage without a failure.
    fn after_success(&self, all: Snapshot) -> Option<Leg> {
        let stage = match (all.stage(), self.kind) {
            (Stage::Start, Kind::Update) => {
                // A module answered, so the remembered session is over. Other software has
                // completed it.
                if self.remembers_session {
                    self.state.end_session();
                }
                Stage::Shutdown
            }
            (Stage::Start, Kind::Finish) => Stage::CpuInit,
            (Stage::Start, Kind::Resume | Kind::Load) => {
                self.state.reset();
                Stage::CpuInstall
            }
            (Stage::CpuInit, Kind::Load) => Stage::Done,
            (stage, _) => stage.next(),
        };
        Some(Leg { stage, round: all.round() })
    }

    /// Returns the class of the latest failure, which was in `stage`.
    #[inline(never)] // otherwise LLVM repeats the caller's code for each case
    fn class_of_latest_failure(&self, stage: Stage) -> Option<Class> {
        self.latest.cause().map(|cause| classify(stage, cause))
    }

    /// Returns the next stage of all LPs after a failure in `stage`. `None` ends the update.
    fn after_failure(&self, all: Snapshot, stage: Stage) -> Option<Leg> {
        let round = all.round().saturating_add(1);
        let known = self.known.load();
        // An LP arrives once, so `Start` cannot be repeated. The update does not install over a
        // module that is ready, and no module can take TDs over after P-SEAMLDR destroyed the
        // handoff data.
        let is_final = stage > Stage::Shutdown && known.module >= known::Module::Running;
        if stage == Stage::Start || round >= MAX_ROUNDS || is_final {
            return None;
        }
        let is_open = known.session == Session::Open;
        let class = match self.class_of_latest_failure(stage)? {
            // P-SEAMLDR waits in the session and answered EBADCALL to one LP, so the image is not
            // the cause.
            Class::CallRefused if is_open => Class::Transient,
            Class::CallRefused => Class::ImageRefused,
            class => class,
        };
        let candidates = Candidates::from_word(self.candidates.load(Ordering::Relaxed));
        let (next, stage) = match candidates.after(class) {
            Some(next) if class == Class::Transient => (next, stage),
            Some(next) => {
                self.state.reset();
                self.happened(Event::AnotherImage);
                (next, Stage::CpuInstall)
            }
            // No image is left. The refusal has not changed the module in place, and that module's
            // failure may have been temporary. With handoff data that is too long for the module,
            // another try would end SEAM.
            None if class == Class::ImageRefused => {
                (candidates.back().filter(|_| !is_open)?, Stage::CpuInit)
            }
            None => return None,
        };
        self.candidates.store(next.word(), Ordering::Relaxed);
        self.latest.clear();
        Some(Leg { stage, round })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_impl_all!(Update<'static>: Send, Sync);
    static_assertions::assert_impl_all!(ModuleState<[crate::LpBits; 1]>: Send, Sync);
    // Kernels put an update on the stack.
    static_assertions::const_assert!(size_of::<Update<'static>>() <= 256);
}
