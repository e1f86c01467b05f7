//! Where all LPs meet: one atomic word with the stage, the round, acknowledgements, claims and flags.

use super::atomic::{AtomicU32, Ordering};
use super::stage::Stage;

/// Bits 10:0 count acknowledgements of the current stage, 21:11 count claims, 24:22 are the stage, 29:25 the round. Bit 30 says that an
/// LP failed in this stage, bit 31 that the update is over.
///
/// One word is never seen half changed: an LP reads everything as it was at one moment. Who changes it does so with release ordering
/// and who reads it with acquire ordering, so an LP that sees a stage sees everything that the others did before they acknowledged the
/// one before.
///
/// An LP claims the step before it makes a call that cannot be taken back. A claim defeats giving up, and giving up defeats a claim:
/// both change this word, and each looks for the other first.
#[derive(Debug)]
pub(super) struct Rendezvous {
    word: AtomicU32,
    lps: u32,
}

const ACKS: u32 = 0x7ff;
const CLAIM_SHIFT: u32 = 11;
const CLAIM: u32 = 1 << CLAIM_SHIFT;
const STAGE_SHIFT: u32 = 22;
const ROUND_SHIFT: u32 = 25;
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
    /// From 0; at most 31.
    pub(super) round: u32,
}

impl Leg {
    const fn word(self) -> u32 {
        (self.round & 0x1f) << ROUND_SHIFT | from_stage(self.stage)
    }
}

#[allow(clippy::as_conversions)] // widening
const fn from_stage(stage: Stage) -> u32 {
    (stage.number() as u32) << STAGE_SHIFT
}

impl Snapshot {
    pub(super) const fn stage(self) -> Stage {
        Stage::from_number(self.word >> STAGE_SHIFT & 7)
    }

    pub(super) const fn round(self) -> u32 {
        self.word >> ROUND_SHIFT & 0x1f
    }

    pub(super) const fn leg(self) -> Leg {
        Leg { stage: self.stage(), round: self.round() }
    }

    pub(super) const fn acks(self) -> u32 {
        self.word & ACKS
    }

    /// LPs that are making a call which cannot be taken back.
    pub(super) const fn claims(self) -> u32 {
        self.word >> CLAIM_SHIFT & ACKS
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
    /// For this many LPs, at most 2,047.
    pub(super) fn new(lps: u32) -> Self {
        Self { word: AtomicU32::new(0), lps }
    }

    pub(super) const fn lps(&self) -> u32 {
        self.lps
    }

    #[inline]
    pub(super) fn load(&self) -> Snapshot {
        Snapshot { word: self.word.load(Ordering::Acquire) }
    }

    /// An LP has failed in this stage. It acknowledges afterwards, like everybody else.
    pub(super) fn fail(&self) {
        self.word.fetch_or(FAILED, Ordering::AcqRel);
    }

    /// Claims the step for an LP that has not acknowledged it. `false`: the update is over, and the LP must not make the call. The
    /// claim lasts until the LP acknowledges.
    pub(super) fn claim(&self) -> bool {
        let mut seen = self.load();
        while !seen.is_over() {
            let claimed = seen.word.wrapping_add(CLAIM);
            match self.word.compare_exchange(seen.word, claimed, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return true,
                Err(word) => seen = Snapshot { word },
            }
        }
        false
    }

    /// Acknowledges the current stage for one LP, once, and takes back its claim. The last LP gets what all have acknowledged, and has to
    /// call [`move_on`](Self::move_on); nobody else does anything until then.
    pub(super) fn acknowledge(&self, has_claimed: bool) -> Option<Snapshot> {
        let change = if has_claimed { 1u32.wrapping_sub(CLAIM) } else { 1 };
        let all = Snapshot { word: self.word.fetch_add(change, Ordering::AcqRel).wrapping_add(change) };
        (all.acks() == self.lps && !all.is_over()).then_some(all)
    }

    /// Moves everybody on from where all have acknowledged: to another stage, or (`None`) to the end.
    pub(super) fn move_on(&self, from: Snapshot, to: Option<Leg>) {
        // Where all have acknowledged nobody else writes.
        self.word.store(to.map_or(from.word | OVER, Leg::word), Ordering::Release);
    }

    /// Ends the update if nothing has happened since `seen`; `false` if something has or is about to: an LP has claimed the step, or all
    /// have acknowledged it.
    pub(super) fn end_if_still(&self, seen: Snapshot) -> bool {
        seen.acks() != self.lps
            && seen.claims() == 0
            && self
                .word
                .compare_exchange(seen.word, seen.word | OVER, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Ends the update for an LP that arrives and must not take part, unless it comes too late: all LPs have acknowledged the first stage,
    /// and the next one may be claimed. `false`: it came too late.
    pub(super) fn end_at_start(&self) -> bool {
        let mut seen = self.load();
        while seen.stage() == Stage::Start && (seen.is_over() || seen.acks() != self.lps) {
            match self.word.compare_exchange(seen.word, seen.word | OVER, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(word) => seen = Snapshot { word },
            }
        }
        false
    }
}
