//! Where all LPs meet: one atomic word with the stage, the acknowledgements and the failure flag.

use core::sync::atomic::{AtomicU32, Ordering};

use super::Stage;

/// Bits 15:0 count acknowledgements of the current stage, 23:16 are the stage, 31 says that somebody failed.
///
/// Being one word, it can never be seen half changed: an LP reads stage, count and failure as they were at one moment.
/// Whoever changes it does so with release ordering and whoever reads it with acquire ordering, so an LP that sees a stage
/// sees everything that the others did before they acknowledged the one before.
#[derive(Debug)]
pub(super) struct Rendezvous {
    word: AtomicU32,
    lps: u32,
}

const ACKS: u32 = 0xffff;
const STAGE_SHIFT: u32 = 16;
const FAILED: u32 = 1 << 31;

/// What the word said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    word: u32,
}

impl Snapshot {
    pub(super) const fn stage(self) -> Stage {
        Stage::from_number(self.word >> STAGE_SHIFT & 0xff)
    }

    pub(super) const fn acks(self) -> u32 {
        self.word & ACKS
    }

    pub(super) const fn failed(self) -> bool {
        self.word & FAILED != 0
    }

    /// Nothing is left to do for anybody.
    pub(super) fn is_over(self) -> bool {
        self.failed() || self.stage() == Stage::Done
    }
}

impl Rendezvous {
    /// For so many LPs, at most 65,535.
    pub(super) const fn new(lps: u32) -> Self {
        Self { word: AtomicU32::new(0), lps }
    }

    pub(super) const fn lps(&self) -> u32 {
        self.lps
    }

    pub(super) fn load(&self) -> Snapshot {
        Snapshot { word: self.word.load(Ordering::Acquire) }
    }

    /// Acknowledges the current stage for one LP, once. The last LP moves everybody on, unless somebody has failed.
    pub(super) fn acknowledge(&self) {
        let all = Snapshot { word: self.word.fetch_add(1, Ordering::AcqRel).wrapping_add(1) };
        if all.acks() == self.lps && !all.failed() {
            let moved_on = u32::from(all.stage().next().number()) << STAGE_SHIFT;
            // Nobody else acknowledges any more, so this only fails if somebody has given up meanwhile, and then the
            // stage stays as it is.
            let _ = self.word.compare_exchange(all.word, moved_on, Ordering::AcqRel, Ordering::Relaxed);
        }
    }

    /// Stops everybody before the next stage.
    pub(super) fn fail(&self) {
        self.word.fetch_or(FAILED, Ordering::AcqRel);
    }

    /// Stops everybody if nothing has happened since `seen`; `false` if something has.
    pub(super) fn fail_if_still(&self, seen: Snapshot) -> bool {
        self.word.compare_exchange(seen.word, seen.word | FAILED, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_to_acknowledge_moves_all_on() {
        let meeting = Rendezvous::new(3);
        for stage in [Stage::Start, Stage::Shutdown, Stage::CpuInstall, Stage::CpuInit, Stage::RunUpdate] {
            for acks in 0..3 {
                assert_eq!((meeting.load().stage(), meeting.load().acks()), (stage, acks));
                meeting.acknowledge();
            }
        }
        assert_eq!((meeting.load().stage(), meeting.load().acks()), (Stage::Done, 0));
        assert!(meeting.load().is_over());
    }

    #[test]
    fn after_a_failure_nobody_moves_on() {
        let meeting = Rendezvous::new(2);
        meeting.acknowledge();
        meeting.fail();
        meeting.acknowledge();
        let seen = meeting.load();
        assert_eq!((seen.stage(), seen.acks(), seen.failed()), (Stage::Start, 2, true));
    }

    #[test]
    fn giving_up_loses_against_progress() {
        let meeting = Rendezvous::new(2);
        let seen = meeting.load();
        meeting.acknowledge();
        assert!(!meeting.fail_if_still(seen));
        assert!(!meeting.load().failed());
        assert!(meeting.fail_if_still(meeting.load()));
        assert!(meeting.load().is_over());
    }
}
