//! Where all LPs meet: one atomic word with the stage, the round, the acknowledgements and the flags.

use super::atomic::{AtomicU32, Ordering};
use super::Stage;

/// Bits 10:0 count acknowledgements of the current stage, 14:11 are the stage, 22:15 the round, 30 says that an LP failed in
/// this stage, 31 that the update is over.
///
/// Being one word, it can never be seen half changed: an LP reads everything as it was at one moment. Whoever changes it does so
/// with release ordering and whoever reads it with acquire ordering, so an LP that sees a stage sees everything that the others
/// did before they acknowledged the one before.
#[derive(Debug)]
pub(super) struct Rendezvous {
    word: AtomicU32,
    lps: u32,
}

const ACKS: u32 = 0x7ff;
const STAGE_SHIFT: u32 = 11;
const ROUND_SHIFT: u32 = 15;
const FAILED: u32 = 1 << 30;
const OVER: u32 = 1 << 31;

/// What the word said at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    word: u32,
}

/// A stage in a round: what an LP acknowledges once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) stage: Stage,
    pub(super) round: u32,
}

impl Leg {
    const fn word(self) -> u32 {
        self.round << ROUND_SHIFT | from_stage(self.stage)
    }
}

#[allow(clippy::as_conversions)] // widening
const fn from_stage(stage: Stage) -> u32 {
    (stage.number() as u32) << STAGE_SHIFT
}

impl Snapshot {
    pub(super) const fn stage(self) -> Stage {
        Stage::from_number(self.word >> STAGE_SHIFT & 0xf)
    }

    pub(super) const fn round(self) -> u32 {
        self.word >> ROUND_SHIFT & 0xff
    }

    pub(super) const fn leg(self) -> Leg {
        Leg { stage: self.stage(), round: self.round() }
    }

    pub(super) const fn acks(self) -> u32 {
        self.word & ACKS
    }

    /// An LP has failed in this stage: nobody begins to work on it any more.
    pub(super) const fn failed(self) -> bool {
        self.word & FAILED != 0
    }

    /// Nothing is left to do for anybody.
    pub(super) fn is_over(self) -> bool {
        self.word & OVER != 0 || self.stage() == Stage::Done
    }
}

impl Rendezvous {
    /// For so many LPs, at most 2,047.
    pub(super) fn new(lps: u32) -> Self {
        Self { word: AtomicU32::new(0), lps }
    }

    pub(super) const fn lps(&self) -> u32 {
        self.lps
    }

    pub(super) fn load(&self) -> Snapshot {
        Snapshot { word: self.word.load(Ordering::Acquire) }
    }

    /// An LP has failed in this stage. It acknowledges afterwards, like everybody else.
    pub(super) fn fail(&self) {
        self.word.fetch_or(FAILED, Ordering::AcqRel);
    }

    /// Acknowledges the current stage for one LP, once. The last LP gets what all have acknowledged, and has to call
    /// [`move_on`](Self::move_on); nobody else does anything until then.
    pub(super) fn acknowledge(&self) -> Option<Snapshot> {
        let all = Snapshot { word: self.word.fetch_add(1, Ordering::AcqRel).wrapping_add(1) };
        (all.acks() == self.lps && !all.is_over()).then_some(all)
    }

    /// Moves everybody on from where all have acknowledged: to another stage, or (`None`) to the end.
    pub(super) fn move_on(&self, from: Snapshot, to: Option<Leg>) {
        // Where all have acknowledged nobody else writes.
        self.word.store(to.map_or(from.word | OVER, Leg::word), Ordering::Release);
    }

    /// Ends the update if nothing has happened since `seen`; `false` if something has, or is about to: all have acknowledged.
    pub(super) fn end_if_still(&self, seen: Snapshot) -> bool {
        seen.acks() != self.lps
            && self
                .word
                .compare_exchange(seen.word, seen.word | OVER, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}
