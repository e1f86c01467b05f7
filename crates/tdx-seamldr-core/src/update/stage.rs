//! The stages of an update and their order.

use core::fmt;

/// A stage of an update; the names are Linux's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    /// LPs arrive. Nothing has been changed.
    Start = 0,
    /// The lead LP shuts the running module down.
    Shutdown = 1,
    /// Every LP takes part in installing the new one.
    CpuInstall = 2,
    /// Every LP takes part in initialising it.
    CpuInit = 3,
    /// The lead LP lets it take over the handoff data.
    RunUpdate = 4,
    /// The end.
    Done = 5,
}

impl Stage {
    /// All stages in order.
    pub const ALL: [Self; 6] =
        [Self::Start, Self::Shutdown, Self::CpuInstall, Self::CpuInit, Self::RunUpdate, Self::Done];

    /// The stage that follows; the last one follows itself.
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

    /// Its number.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u8) enum
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// The stage with this number; everything beyond the last is the last.
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
