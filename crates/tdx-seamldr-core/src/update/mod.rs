//! The update itself: all LPs go through six stages in lockstep.
//!
//! | stage | who works | call |
//! |---|---|---|
//! | [`Stage::Start`] | every LP | none: it is there, and known to [`ModuleState`](crate::ModuleState) |
//! | [`Stage::Shutdown`] | the lead LP | TDH.SYS.SHUTDOWN |
//! | [`Stage::CpuInstall`] | every LP | SEAMLDR.INSTALL |
//! | [`Stage::CpuInit`] | every LP | TDH.SYS.INIT once, TDH.SYS.LP.INIT |
//! | [`Stage::RunUpdate`] | the lead LP | TDH.SYS.UPDATE |
//! | [`Stage::Done`] | nobody | |
//!
//! The last LP to acknowledge a stage moves everybody on. A failure stops everybody before the next stage; nothing is shut down
//! before every LP has arrived.
//!
//! # After a failure
//!
//! All LPs go into another round together, at most 16 in all:
//!
//! | what failed | the next round begins with |
//! |---|---|
//! | what may pass by itself: no entropy, a lock that is busy, a trap | the same stage, with another LP in the lead |
//! | SHUTDOWN, for another reason | none: nothing has happened |
//! | INSTALL with RDX 0 | `CpuInstall`, with the next of the [fallbacks](Update::with_fallbacks) |
//! | a call of the new module | `CpuInstall`, with the next of the fallbacks, then with the same image once more |
//! | INSTALL with RDX 0, and no image is left, but a module is in place | `CpuInit`: what kept that from coming up may have passed |
//! | RDX 1: P-SEAMLDR has destroyed what there was | none |
//!
//! In the end [`Update::outcome`] says what became of the TDs, what runs, and what may be tried next: [`Update::resume`] with
//! another image, [`Update::finish`] where the new module is in place already, or [`Update::load`], which brings TDX back
//! without the TDs.

mod atomic {
    pub(super) use core::sync::atomic::{AtomicU32, Ordering};
}
pub mod linux;
mod outcome;
mod record;
mod recover;
mod rendezvous;
#[cfg(test)]
mod rendezvous_tests;
mod run;
mod stage;

pub use outcome::{Call, Failure, FailureCause, NextStep, Outcome, RunningModule, TdFate};
pub use run::{Cpu, Options, Progress, Update, UpdateError, MAX_FALLBACKS, MAX_LPS};
pub use stage::Stage;
