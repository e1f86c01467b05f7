//! The stages of an update and their order.

use core::fmt;

/// A stage of an update. The names are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// LPs arrive and ask the module for its state. The update has changed nothing.
    Start = 0,
    /// The lead LP shuts the running module down.
    Shutdown = 1,
    /// Every LP calls SEAMLDR.INSTALL for the new module.
    CpuInstall = 2,
    /// Every LP initialises the new module on itself.
    CpuInit = 3,
    /// The lead LP makes the new module take over the handoff data.
    RunUpdate = 4,
    /// The update is complete.
    Done = 5,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Shutdown, Self::CpuInstall, Self::CpuInit, Self::RunUpdate, Self::Done];

    /// Returns the stage that follows. `Done` follows itself.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::Start => Self::Shutdown,
            Self::Shutdown => Self::CpuInstall,
            Self::CpuInstall => Self::CpuInit,
            Self::CpuInit => Self::RunUpdate,
            Self::RunUpdate | Self::Done => Self::Done,
        }
    }

    /// Returns the stage's number, 0 to 5.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u8) enum
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Returns the stage with this number. Numbers above 5 give `Done`.
    pub(super) const fn from_number(number: u32) -> Self {
        match number {
            0 => Self::Start,
            1 => Self::Shutdown,
            2 => Self::CpuInstall,
            3 => Self::CpuInit,
            4 => Self::RunUpdate,
            _ => Self::Done,
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_by_number() {
        for pair in Stage::ALL.windows(2) {
            assert_eq!(pair[0].next(), pair[1]);
            assert_eq!(pair[0].number() + 1, pair[1].number());
        }
        assert_eq!(Stage::Done.next(), Stage::Done);
        for stage in Stage::ALL {
            assert_eq!(Stage::from_number(u32::from(stage.number())), stage);
        }
    }
}
