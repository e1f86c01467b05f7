//! The update itself: all LPs go through six stages in lockstep.
//!
//! | stage | who works | calls |
//! |---|---|---|
//! | [`Stage::Start`] | every LP, in parallel | TDH.SYS.TDMR.INIT of an address that is none: the LP reaches the module, and the module runs |
//! | [`Stage::Shutdown`] | the lead LP | SEAMLDR.INFO: the module is the one that preflight saw; then TDH.SYS.SHUTDOWN |
//! | [`Stage::CpuInstall`] | every LP, one at a time | SEAMLDR.INSTALL; the last LP then TDH.SYS.INIT, which only a module that is in place answers |
//! | [`Stage::CpuInit`] | every LP, in parallel | TDH.SYS.LP.INIT |
//! | [`Stage::RunUpdate`] | the lead LP | TDH.SYS.UPDATE |
//! | [`Stage::Done`] | nobody | |
//!
//! The last LP to acknowledge a stage moves all LPs on. A failure stops all LPs before the next
//! stage. Up to TDH.SYS.SHUTDOWN a failure changes nothing. An LP that waits may give up, which
//! ends the update for all, unless another LP has claimed a call that cannot be taken back:
//! SHUTDOWN, INSTALL, UPDATE.
//!
//! # After a failure
//!
//! All LPs go into another round together, at most 16 in all:
//!
//! | what failed | the next round begins with |
//! |---|---|
//! | what may pass by itself: no entropy, a busy lock, a trap after the shutdown | the same stage, with another LP in the lead |
//! | anything in `Start`; SHUTDOWN, for another reason | none: nothing has happened |
//! | INSTALL with RDX 0 | `CpuInstall`, with the next of the [fallbacks](Update::with_fallbacks) |
//! | a call of the new module | `CpuInstall`, with the next of the fallbacks, then with the same image once more |
//! | INSTALL with RDX 0, and no image is left, but a module is in place | `CpuInit`: what kept that module from coming up may have passed |
//! | RDX 1: P-SEAMLDR has destroyed the module and the handoff data | none |
//!
//! In the end [`Update::outcome`] says what became of the TDs, which module runs, and what may be
//! tried next: [`Update::resume`] with another image, [`Update::finish`] where the new module is in
//! place, or [`Update::load`], which brings TDX back without the TDs.
//!
//! # Pictures
//!
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

/// LPs that P-SEAMLDR can count: its table has 1,024 places.
pub const MAX_LPS: u32 = 1024;

/// Images to fall back on that one update can have.
pub const MAX_FALLBACKS: usize = 7;

/// Why there can be no such update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateError {
    /// No LP takes part, or more than [`MAX_LPS`].
    Lps(u32),
    /// Other LPs take part than when preflight passed.
    LpsChanged {
        /// LPs that the host counts.
        found: u32,
        /// LPs that preflight counted.
        wanted: u32,
    },
    /// An image is prepared for the other scenario: [`Scenario::Load`] ends all TDs,
    /// [`Scenario::Update`] keeps them.
    Scenario {
        /// The image's.
        found: Scenario,
        /// The update's.
        wanted: Scenario,
    },
    /// There are more than [`MAX_FALLBACKS`] images to fall back on.
    Fallbacks(usize),
    /// An image to fall back on passed preflight for another version of the handoff data.
    HandoffVersion {
        /// The version that the image passed for.
        found: u16,
        /// The version that the update asks for.
        wanted: u16,
    },
    /// An image is prepared for another machine than the host's.
    OtherMachine,
    /// Another update has the [`ModuleState`]: one update at a time.
    Busy,
    /// P-SEAMLDR cannot read the image or its parameters where they lie.
    Build(BuildError),
}

impl fmt::Display for UpdateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => {
                write!(f, "{found} LPs take part in the update, but it takes 1 to {MAX_LPS}")
            }
            Self::LpsChanged { found, wanted } => write!(
                f,
                "{found} LPs take part, but preflight saw {wanted}: keep LPs from coming and \
                 going, and repeat preflight"
            ),
            Self::Scenario { found, wanted } => {
                write!(
                    f,
                    "an image is prepared for scenario {found:?}, but the update needs {wanted:?}"
                )
            }
            Self::Fallbacks(found) => {
                write!(
                    f,
                    "there are {found} images to fall back on, but at most {MAX_FALLBACKS} are \
                     possible"
                )
            }
            Self::HandoffVersion { found, wanted } => write!(
                f,
                "an image passed preflight for handoff version {found}, but the update asks for \
                 {wanted}"
            ),
            Self::OtherMachine => f.write_str("an image is prepared for another machine"),
            Self::Busy => f.write_str("another update of this module is not over"),
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

/// What an update checks while all LPs stand still, before it shuts the module down.
#[derive(Clone, Copy, Debug)]
struct Checked<'a> {
    passed: &'a PassedUpdate<'a>,
    /// Where the lead LP asks P-SEAMLDR.
    info: &'a SharedInfo,
}

/// One update, shared by all LPs that take part. It lends the [`ModuleState`] until it is dropped;
/// one that is forgotten keeps it.
pub struct Update<'a> {
    kind: Kind,
    /// Of an update from a module that runs.
    checked: Option<Checked<'a>>,
    request: Option<InstallRequest<'a>>,
    fallbacks: &'a [PreparedImage<'a>],
    state: &'a ModuleState,
    machine: MachineId,
    detect_damage: bool,
    /// An LP was in an open session, as far as the embedder's memory says.
    remembers_session: bool,
    rendezvous: Rendezvous,
    arrived: AtomicU32,
    /// LPs that have done their work in the current stage.
    finished: AtomicU32,
    known: SharedKnown,
    /// [`Candidates`].
    candidates: AtomicU32,
    first: Record,
    latest: Record,
}

debug_fields! {
    Update<'a>, kind, checked, request, fallbacks, state, machine, detect_damage, remembers_session, rendezvous, arrived, finished, known,
    candidates, first, latest
}

impl Drop for Update<'_> {
    fn drop(&mut self) {
        self.state.end_update();
    }
}

impl<'a> Update<'a> {
    /// An update to the image that passed preflight, by the LPs that preflight counted. `params`
    /// and `info` are memory for P-SEAMLDR. `state` is the embedder's memory of the module,
    /// which lives longer than any update.
    ///
    /// # Errors
    ///
    /// There are no LPs or more than [`MAX_LPS`], they are not as many as preflight counted, the
    /// memory has no address that P-SEAMLDR reads, or another update has `state`.
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

    /// What [`NextStep::InstallAgain`] and [`NextStep::CompleteSession`] ask for: an update that
    /// ended early goes on in the same boot from the handoff data that the old module has left,
    /// with the same image or another one. Refused if an LP finds a module ready.
    ///
    /// # Errors
    ///
    /// There are no LPs or more than [`MAX_LPS`], the image is not prepared to take handoff data
    /// over, or not for this machine, or another update has `state`.
    pub fn resume<H: Host + ?Sized>(
        image: PreparedImage<'a>,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Resume, None, Some(*image.request()), host, state)
    }

    /// What [`NextStep::Finish`] asks for: the module that is in place comes up and takes the
    /// handoff data over. Nothing is installed, and none of the remaining updates is used up.
    /// In its outcome image 0 is the module that is in place, whichever image it came from.
    ///
    /// # Errors
    ///
    /// There are no LPs or more than [`MAX_LPS`], or another update has `state`.
    pub fn finish<H: Host + ?Sized>(host: &H, state: &'a ModuleState) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Finish, None, None, host, state)
    }

    /// What [`NextStep::Load`] asks for: a module is put in place afresh and initialised on all
    /// LPs. All TDs are gone then, and the module waits to be configured as at boot. Refused if
    /// an LP finds a module ready.
    ///
    /// # Errors
    ///
    /// There are no LPs or more than [`MAX_LPS`], the image is not prepared to be loaded, or not
    /// for this machine, or another update has `state`.
    pub fn load<H: Host + ?Sized>(
        image: PreparedImage<'a>,
        host: &H,
        state: &'a ModuleState,
    ) -> Result<Self, UpdateError> {
        Self::of_kind(Kind::Load, None, Some(*image.request()), host, state)
    }

    /// Images that are tried in this order if P-SEAMLDR refuses the update's own after the old
    /// module was shut down, or its module does not come up: usually the module that ran
    /// before, prepared while it still did.
    ///
    /// No software can read a module back from the SEAM range, so the caller needs the file of the
    /// running module. The BIOS has loaded that module from flash memory or from the EFI system
    /// partition. Intel publishes the same image with each release, and MRSEAM tells whether a file
    /// is the image of the running module: compare [`Facts::running_mrseam`](crate::preflight::Facts::running_mrseam) with
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
    /// P-SEAMLDR takes no image of a lower SVN than that of the module it has. Once it has taken
    /// the update's own image, an older one helps no more; what is left then is the same image
    /// again, and any other of its SVN or a higher one.
    ///
    /// # Errors
    ///
    /// There are too many, or one is prepared for another scenario, another machine or another
    /// version of the handoff data.
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

    /// Asks the new module, if it has UPDATE_COMPATIBILITY, to detect the damage that the update
    /// does to TDs in build and to interrupted migrations: calls on such TDs then fail instead
    /// of giving wrong measurements.
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
            // The module that is in place gets no second chance by being installed again.
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

    /// The stage that the LPs are in, and how many of them have finished it: for showing progress.
    #[must_use]
    pub fn progress(&self) -> (Stage, u32) {
        (self.rendezvous.load().stage(), self.finished.load(Ordering::Relaxed))
    }

    /// Which round it is, from 1: one more after each failure that the update goes on from.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.rendezvous.load().round().saturating_add(1)
    }

    /// Whether a module has taken the TDs over: the short form of [`outcome`](Self::outcome).
    #[must_use]
    pub fn is_updated(&self) -> bool {
        self.known.load().module == known::Module::Ready
    }

    /// How the update ended. Call this after every LP has left; before that it is what is known so
    /// far.
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

    /// The request that this round installs.
    fn current_request(&self) -> Option<&InstallRequest<'a>> {
        match Candidates::from_word(self.candidates.load(Ordering::Relaxed)).current {
            0 => self.request.as_ref(),
            fallback => self
                .fallbacks
                .get(usize::from(fallback).wrapping_sub(1))
                .map(PreparedImage::request),
        }
    }

    /// Makes known what happened, and remembers for the embedder what outlives the update.
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

    /// A module answers although all LPs have called SEAMLDR.INSTALL: the session has put it in
    /// place.
    fn module_answered(&self) {
        if self.known.load().session == Session::Open {
            self.happened(if self.kind == Kind::Load { Event::Loaded } else { Event::Installed });
        }
    }

    /// Writes down what failed. The first failure stays; the latest one decides what comes next.
    fn record(&self, lp: u32, stage: Stage, failure: &RawFailure) {
        self.latest.write(lp, stage, failure);
        self.first.write(lp, stage, failure);
    }

    /// Where all LPs go after a stage that none of them failed in.
    fn after_success(&self, all: Snapshot) -> Option<Leg> {
        let stage = match (all.stage(), self.kind) {
            (Stage::Start, Kind::Update) => {
                // A module answered, so the session is over in which other software did what was
                // left.
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

    /// What the latest failure is about, for a failure in `stage`.
    #[inline(never)] // otherwise LLVM repeats what follows for each case
    fn class_of_latest_failure(&self, stage: Stage) -> Option<Class> {
        self.latest.cause().map(|cause| classify(stage, cause))
    }

    /// Where all LPs go after a failure in `stage`.
    fn after_failure(&self, all: Snapshot, stage: Stage) -> Option<Leg> {
        let round = all.round().saturating_add(1);
        let known = self.known.load();
        // An LP arrives once, so the first stage cannot be repeated. Nothing is installed over a
        // module that was found ready, and nothing takes TDs over once the handoff data is
        // destroyed.
        let is_final = stage > Stage::Shutdown && known.module >= known::Module::Running;
        if stage == Stage::Start || round >= MAX_ROUNDS || is_final {
            return None;
        }
        let is_open = known.session == Session::Open;
        let class = match self.class_of_latest_failure(stage)? {
            // P-SEAMLDR still waits in the session, and says EBADCALL to one LP: the image is not
            // at fault.
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
            // No image is left, but a refusal leaves the module that is in place as it was, and
            // what kept that module from coming up may have passed. Not if the handoff
            // data is too long for it, which would end SEAM.
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
    // Kernels put it on a stack.
    static_assertions::const_assert!(size_of::<Update<'static>>() <= 256);
}
