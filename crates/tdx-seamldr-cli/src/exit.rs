//! The exit status of the command, the same for every subcommand.

use tdx_seamldr_core::update::{Outcome, TdFate};

/// How a command ended, ordered from good to bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Exit {
    /// 0: done, or nothing to do.
    Done,
    /// 1: refused by a check. Nothing was touched.
    Refused,
    /// 2: wrong usage. Nothing was touched.
    Usage,
    /// 3: failed. The TDs are kept. Commands that only read or write files never touch TDs.
    Failed,
    /// 4: failed. The TDs are lost, paused until a module takes them over, or of unknown fate.
    Lost,
}

impl Exit {
    /// All values, from good to bad.
    pub const ALL: [Self; 5] = [Self::Done, Self::Refused, Self::Usage, Self::Failed, Self::Lost];

    /// Returns the exit status of the process.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::Failed => 3,
            Self::Lost => 4,
        }
    }

    /// Returns the exit value of an update with this outcome.
    #[must_use]
    pub const fn of_outcome(outcome: &Outcome) -> Self {
        match outcome.tds {
            TdFate::Preserved if outcome.is_updated() => Self::Done,
            TdFate::NeverAtRisk => Self::Refused,
            TdFate::Preserved => Self::Failed,
            TdFate::Held | TdFate::Lost | TdFate::Unknown => Self::Lost,
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::update::{NextStep, RunningModule, Stage};

    #[test]
    fn codes_are_0_to_4_in_the_order_from_good_to_bad() {
        assert!(Exit::ALL.into_iter().map(Exit::code).eq(0..5));
        assert!(Exit::ALL.is_sorted());
    }

    #[test]
    fn update_exits_with_4_unless_the_tds_run() {
        let outcome = |tds, image| Outcome {
            tds,
            running: RunningModule::Old,
            next: NextStep::Done,
            image,
            failure: None,
            last_failure: None,
            stage: Stage::Done,
            rounds: 1,
            lps: 1,
            finished_last_stage: 1,
        };
        for (tds, image, exit) in [
            (TdFate::Preserved, 0, Exit::Done),
            (TdFate::Preserved, 1, Exit::Failed),
            (TdFate::NeverAtRisk, 0, Exit::Refused),
            (TdFate::Held, 0, Exit::Lost),
            (TdFate::Lost, 0, Exit::Lost),
            (TdFate::Unknown, 0, Exit::Lost),
        ] {
            assert_eq!(Exit::of_outcome(&outcome(tds, image)), exit, "{tds:?}");
        }
    }
}
