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
//! The last LP to acknowledge a stage moves everybody on. The first failure stops everybody before the next stage, and
//! [`Update::outcome`] says what became of the TDs. Nothing is shut down before every LP has arrived.

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
