//! What is known of the platform while an update runs: the module, its handoff data, the session of
//! SEAMLDR.INSTALL. Events change it, here and nowhere else.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::abi::Scenario;
use crate::tdx_module::Readiness;

/// What an update begins with, and where it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// From a module that runs to another one.
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

/// What is known of the module. Of two answers at the start of an update, the later one in this
/// list counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Module {
    /// No LP has had an answer from a module.
    Unasked,
    /// A module is in place and has not come up, or has not taken the handoff data.
    NotReady,
    /// The module that ran is shut down.
    ShutDown,
    /// TDH.SYS.SHUTDOWN was called, and neither its answer nor the module tells whether it
    /// stopped.
    MayBeShutDown,
    /// The module runs as it did before the update.
    Running,
    /// P-SEAMLDR has destroyed the module.
    Destroyed,
    /// A module has taken the handoff data over and runs the TDs.
    Ready,
}

/// What is known of the handoff data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handoff {
    /// Nobody has seen a module leave any.
    Unknown,
    /// A module has left it, and no module has taken it.
    Pending,
    /// A module has taken it.
    Taken,
    /// P-SEAMLDR has destroyed it, or a module was put in place without TDs.
    Lost,
}

/// What is known of the session of SEAMLDR.INSTALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Session {
    /// None is open.
    Closed,
    /// P-SEAMLDR may wait for more LPs.
    Open,
    /// The session of this round has put a module in place.
    Complete,
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An LP asked the module how far it has come.
    Found(Readiness),
    /// P-SEAMLDR answered an LP that no module answered.
    SeamldrAnswered,
    /// TDH.SYS.SHUTDOWN succeeded.
    ShutDown,
    /// TDH.SYS.SHUTDOWN may have succeeded.
    MayBeShutDown,
    /// The module that was to be shut down said twice that it is.
    WasShutDown,
    /// A session is open: an LP has called SEAMLDR.INSTALL in it.
    SessionOpen,
    /// The session ended and left the module as it was.
    Refused,
    /// P-SEAMLDR destroyed the module and the handoff data (RDX 1).
    Destroyed,
    /// A module answered after all LPs had called SEAMLDR.INSTALL.
    Installed,
    /// The same with scenario LOAD, which ends all TDs.
    Loaded,
    /// Another round begins with SEAMLDR.INSTALL.
    AnotherImage,
    /// TDH.SYS.UPDATE succeeded.
    TookOver,
}

/// What is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)] // as in the word
pub(super) struct Known {
    pub(super) module: Module,
    pub(super) handoff: Handoff,
    pub(super) session: Session,
    /// P-SEAMLDR has answered an LP that no module answered, or SEAMLDR.INSTALL.
    pub(super) seamldr_answered: bool,
}

impl Known {
    /// At the start of an update, with what the embedder's memory says of handoff data and of an
    /// open session.
    pub(super) const fn at_start(handoff_pending: bool, session_open: bool) -> Self {
        Self {
            module: Module::Unasked,
            handoff: if handoff_pending { Handoff::Pending } else { Handoff::Unknown },
            session: if session_open { Session::Open } else { Session::Closed },
            seamldr_answered: false,
        }
    }

    /// Whether there is a module that another one can replace.
    pub(super) const fn has_old_module(self) -> bool {
        matches!(self.module, Module::NotReady | Module::ShutDown)
    }

    /// What is known after an event.
    pub(super) fn after(self, event: Event) -> Self {
        use {Handoff as H, Module as M, Session as S};
        match event {
            Event::Found(Readiness::Ready) => self.answered_by(M::Running),
            // It has left handoff data, and nothing was installed since.
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

    /// A module answers only if no session is open.
    fn answered_by(self, module: Module) -> Self {
        Self { module: self.module.max(module), session: Session::Closed, ..self }
    }

    /// One byte for each field.
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

/// [`Known`], shared by all LPs.
#[derive(Debug)]
pub(super) struct SharedKnown(AtomicU32);

impl SharedKnown {
    pub(super) fn new(known: Known) -> Self {
        Self(AtomicU32::new(known.word()))
    }

    pub(super) fn load(&self) -> Known {
        Known::from_word(self.0.load(Ordering::Acquire))
    }

    /// Makes an event known to all LPs.
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
    fn what_is_known_fits_into_a_word() {
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
    fn an_update_goes_from_the_running_module_to_one_that_took_over() {
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
    fn a_module_that_answered_one_lp_is_there_for_all() {
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
    fn handoff_data_is_lost_with_the_module_and_by_a_load() {
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
