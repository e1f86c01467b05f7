//! The state of the platform as an update knows it: the module, its handoff data, the session of
//! SEAMLDR.INSTALL. Only the events in this file change this state.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::Scenario;
use crate::tdx_module::Readiness;

/// The kind of an update: its start and its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a running module to another one.
    Update,
    /// From handoff data that a module left to a module that takes it.
    Resume,
    /// From a module in place to one that has taken the handoff data.
    Finish,
    /// To a module without TDs.
    Load,
}

impl Kind {
    pub(super) const fn scenario(self) -> Scenario {
        match self {
            Self::Load => Scenario::Load,
            Self::Update | Self::Resume | Self::Finish => Scenario::Update,
        }
    }
}

/// The known state of the module. If two LPs get different answers at the start, the later one in
/// this list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Module {
    /// No module has answered an LP.
    Unasked,
    /// A module is in place. It is not initialised, or has not taken the handoff data.
    NotReady,
    /// The module that ran is shut down.
    ShutDown,
    /// An LP called TDH.SYS.SHUTDOWN. Neither the answer nor the module tells whether the module
    /// stopped.
    MayBeShutDown,
    /// The module runs as it did before the update.
    Running,
    /// P-SEAMLDR has destroyed the module.
    Destroyed,
    /// A module has taken the handoff data over and runs the TDs.
    Ready,
}

/// The known state of the handoff data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handoff {
    /// No event of this boot shows that handoff data exists.
    Unknown,
    /// A module left the data, and no module has taken it.
    Pending,
    /// A module has taken the data.
    Taken,
    /// P-SEAMLDR destroyed the data, or a load installed a module without TDs.
    Lost,
}

/// The known state of the session of SEAMLDR.INSTALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// No session is open.
    Closed,
    /// A session is open: P-SEAMLDR may wait for more LPs.
    Open,
    /// The session of this round installed a module.
    Complete,
}

/// An event that changes what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An LP asked the module for its state.
    Found(Readiness),
    /// P-SEAMLDR answered an LP that no module had answered.
    SeamldrAnswered,
    /// TDH.SYS.SHUTDOWN succeeded.
    ShutDown,
    /// TDH.SYS.SHUTDOWN may have succeeded.
    MayBeShutDown,
    /// The module answered SYS_SHUTDOWN twice before this update shut it down.
    WasShutDown,
    /// An LP called SEAMLDR.INSTALL, so a session is open.
    SessionOpen,
    /// P-SEAMLDR refused the image and closed the session. The module in place did not change.
    Refused,
    /// P-SEAMLDR destroyed the module and the handoff data (RDX 1).
    Destroyed,
    /// A module answered after all LPs had called SEAMLDR.INSTALL.
    Installed,
    /// A module answered after all LPs had called SEAMLDR.INSTALL with scenario LOAD, which ends
    /// all TDs.
    Loaded,
    /// Another round begins with SEAMLDR.INSTALL.
    AnotherImage,
    /// TDH.SYS.UPDATE succeeded.
    TookOver,
}

/// What an update knows of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)] // the order of the bytes in the word
pub(super) struct Known {
    pub(super) module: Module,
    pub(super) handoff: Handoff,
    pub(super) session: Session,
    /// P-SEAMLDR has answered SEAMLDR.INSTALL, or an LP that no module answered.
    pub(super) seamldr_answered: bool,
}

impl Known {
    /// Returns what is known at the start of an update. The arguments come from the module state.
    pub(super) const fn at_start(handoff_pending: bool, session_open: bool) -> Self {
        Self {
            module: Module::Unasked,
            handoff: if handoff_pending { Handoff::Pending } else { Handoff::Unknown },
            session: if session_open { Session::Open } else { Session::Closed },
            seamldr_answered: false,
        }
    }

    /// Whether a module is in place that a session can replace.
    pub(super) const fn has_old_module(self) -> bool {
        matches!(self.module, Module::NotReady | Module::ShutDown)
    }

    /// Returns what is known after an event.
    pub(super) fn after(self, event: Event) -> Self {
        use {Handoff as H, Module as M, Session as S};
        match event {
            Event::Found(Readiness::Ready) => self.answered_by(M::Running),
            // The module left handoff data, and no session has replaced the module.
            Event::Found(Readiness::ShutDown) => {
                Self { handoff: H::Pending, ..self.answered_by(M::ShutDown) }
            }
            Event::Found(Readiness::NotReady) => self.answered_by(M::NotReady),
            Event::Found(Readiness::Nothing | Readiness::Unclear(_)) => self,
            Event::SeamldrAnswered => Self { seamldr_answered: true, ..self },
            Event::ShutDown => Self { module: M::ShutDown, handoff: H::Pending, ..self },
            Event::WasShutDown => Self { module: M::ShutDown, handoff: H::Pending, ..self },
            Event::MayBeShutDown => Self { module: M::MayBeShutDown, ..self },
            Event::SessionOpen => Self { session: S::Open, seamldr_answered: true, ..self },
            Event::Refused => Self { session: S::Closed, ..self },
            Event::AnotherImage if self.session == S::Complete => {
                Self { session: S::Closed, ..self }
            }
            Event::AnotherImage => self,
            Event::Destroyed => {
                Self { module: M::Destroyed, handoff: H::Lost, session: S::Closed, ..self }
            }
            Event::Installed => Self { module: M::NotReady, session: S::Complete, ..self },
            Event::Loaded => {
                Self { module: M::NotReady, handoff: H::Lost, session: S::Complete, ..self }
            }
            Event::TookOver => Self { module: M::Ready, handoff: H::Taken, ..self },
        }
    }

    /// Returns what is known after a module answered. A module answers only if no session is open.
    fn answered_by(self, module: Module) -> Self {
        Self { module: self.module.max(module), session: Session::Closed, ..self }
    }

    /// Returns the fields as one word, a byte for each.
    #[allow(clippy::as_conversions)] // the discriminants of enums
    const fn word(self) -> u32 {
        let Self { module, handoff, session, seamldr_answered } = self;
        u32::from_le_bytes([module as u8, handoff as u8, session as u8, seamldr_answered as u8])
    }

    #[inline(never)] // one copy for all readers
    const fn from_word(word: u32) -> Self {
        let [module, handoff, session, seamldr_answered] = word.to_le_bytes();
        Self {
            module: match module {
                0 => Module::Unasked,
                1 => Module::NotReady,
                2 => Module::ShutDown,
                3 => Module::MayBeShutDown,
                4 => Module::Running,
                5 => Module::Destroyed,
                _ => Module::Ready,
            },
            handoff: match handoff {
                0 => Handoff::Unknown,
                1 => Handoff::Pending,
                2 => Handoff::Taken,
                _ => Handoff::Lost,
            },
            session: match session {
                0 => Session::Closed,
                1 => Session::Open,
                _ => Session::Complete,
            },
            seamldr_answered: seamldr_answered != 0,
        }
    }
}

/// The [`Known`] that all LPs share.
#[derive(Debug)]
pub(super) struct SharedKnown(AtomicU32);

impl SharedKnown {
    pub(super) fn new(known: Known) -> Self {
        Self(AtomicU32::new(known.word()))
    }

    pub(super) fn load(&self) -> Known {
        Known::from_word(self.0.load(Ordering::Acquire))
    }

    /// Applies an event. All LPs see the result.
    pub(super) fn apply(&self, event: Event) {
        let after = |word| Some(Known::from_word(word).after(event).word());
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, after);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULES: [Module; 7] = [
        Module::Unasked,
        Module::NotReady,
        Module::ShutDown,
        Module::MayBeShutDown,
        Module::Running,
        Module::Destroyed,
        Module::Ready,
    ];

    #[test]
    fn each_known_state_is_read_back_from_its_word() {
        for module in MODULES {
            for handoff in [Handoff::Unknown, Handoff::Pending, Handoff::Taken, Handoff::Lost] {
                for session in [Session::Closed, Session::Open, Session::Complete] {
                    for seamldr_answered in [false, true] {
                        let known = Known { module, handoff, session, seamldr_answered };
                        assert_eq!(Known::from_word(known.word()), known);
                    }
                }
            }
        }
    }

    #[test]
    fn events_of_an_update_lead_from_running_to_ready() {
        let known = SharedKnown::new(Known::at_start(false, false));
        let steps = [
            (Event::Found(Readiness::Ready), Module::Running, Handoff::Unknown, Session::Closed),
            (Event::ShutDown, Module::ShutDown, Handoff::Pending, Session::Closed),
            (Event::SessionOpen, Module::ShutDown, Handoff::Pending, Session::Open),
            (Event::SessionOpen, Module::ShutDown, Handoff::Pending, Session::Open),
            (Event::Installed, Module::NotReady, Handoff::Pending, Session::Complete),
            (Event::AnotherImage, Module::NotReady, Handoff::Pending, Session::Closed),
            (Event::SessionOpen, Module::NotReady, Handoff::Pending, Session::Open),
            (Event::AnotherImage, Module::NotReady, Handoff::Pending, Session::Open),
            (Event::Refused, Module::NotReady, Handoff::Pending, Session::Closed),
            (Event::TookOver, Module::Ready, Handoff::Taken, Session::Closed),
        ];
        for (event, module, handoff, session) in steps {
            known.apply(event);
            let seamldr_answered = known.load().seamldr_answered;
            assert_eq!(
                known.load(),
                Known { module, handoff, session, seamldr_answered },
                "{event:?}"
            );
        }
    }

    #[test]
    fn answer_to_one_lp_counts_for_all_lps() {
        let start = Known::at_start(false, false);
        let shut_down = start.after(Event::Found(Readiness::ShutDown));
        let was_shut_down = start.after(Event::Found(Readiness::Ready)).after(Event::WasShutDown);
        for known in [shut_down, was_shut_down] {
            assert_eq!((known.module, known.handoff), (Module::ShutDown, Handoff::Pending));
        }
        let start = Known::at_start(true, false);
        let ready = start.after(Event::Found(Readiness::Ready));
        for other in [Readiness::Nothing, Readiness::NotReady, Readiness::ShutDown] {
            assert_eq!(ready.after(Event::Found(other)), ready);
            assert_eq!(
                start.after(Event::Found(other)).after(Event::Found(Readiness::Ready)),
                ready
            );
        }
        assert_eq!(ready.after(Event::WasShutDown).module, Module::ShutDown);
        assert!(start.after(Event::SeamldrAnswered).seamldr_answered);
        let waiting = Known::at_start(true, true);
        assert_eq!(waiting.session, Session::Open);
        assert_eq!(waiting.after(Event::Found(Readiness::NotReady)).session, Session::Closed);
    }

    #[test]
    fn handoff_data_is_lost_when_the_module_is_destroyed_or_loaded() {
        let shut_down = Known::at_start(false, false).after(Event::ShutDown);
        let destroyed = shut_down.after(Event::SessionOpen).after(Event::Destroyed);
        assert_eq!(
            (destroyed.module, destroyed.handoff, destroyed.session),
            (Module::Destroyed, Handoff::Lost, Session::Closed)
        );
        let loaded = shut_down.after(Event::Loaded);
        assert_eq!((loaded.module, loaded.handoff), (Module::NotReady, Handoff::Lost));
        assert!(
            shut_down.has_old_module() && loaded.has_old_module() && !destroyed.has_old_module()
        );
    }
}
