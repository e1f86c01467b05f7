//! The rendezvous of all LPs: one atomic word with the stage, the round, acknowledgements, claims
//! and flags.

use super::atomic::{AtomicU32, Ordering};
use super::stage::Stage;

/// The word in which all LPs meet.
///
/// | bits | content |
/// |---|---|
/// | 10:0 | LPs that have acknowledged the current stage |
/// | 21:11 | LPs that have claimed the stage |
/// | 24:22 | the stage |
/// | 29:25 | the round |
/// | 30 | an LP failed in this stage |
/// | 31 | the update is over |
///
/// An LP reads all values of one moment, because they are one word. LPs write the word with release
/// ordering and read it with acquire ordering. So an LP that sees a stage also sees all writes of
/// the other LPs in the previous stages.
///
/// An LP claims the stage before it makes a call that cannot be undone. While a claim exists, no LP
/// can give up. After an LP gave up, no LP can claim. Both operations change this word, and each
/// checks for the other first.
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

/// The word at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Snapshot {
    word: u32,
}

/// A stage in a round. An LP acknowledges it once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leg {
    pub(super) stage: Stage,
    /// The round, 0 to 31.
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

    /// Returns how many LPs are making a call that cannot be undone.
    pub(super) const fn claims(self) -> u32 {
        self.word >> CLAIM_SHIFT & ACKS
    }

    /// Whether an LP has failed in this stage. No other LP then begins to work on the stage.
    pub(super) const fn failed(self) -> bool {
        self.word & FAILED != 0
    }

    /// Whether the update is over: no LP has work left.
    pub(super) fn is_over(self) -> bool {
        self.word & OVER != 0 || self.stage() == Stage::Done
    }
}

impl Rendezvous {
    /// Makes a rendezvous of this many LPs, at most 2,047.
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

    /// Records that an LP has failed in this stage. The LP acknowledges the stage afterwards, as
    /// all LPs do.
    pub(super) fn fail(&self) {
        self.word.fetch_or(FAILED, Ordering::AcqRel);
    }

    /// Claims the stage for an LP that has not acknowledged it. The claim lasts until the LP
    /// acknowledges. `false`: the update is over, and the LP must not make the call.
    pub(super) fn claim(&self) -> bool {
        let mut seen = self.load();
        while !seen.is_over() {
            let claimed = seen.word.wrapping_add(CLAIM);
            match self.word.compare_exchange(
                seen.word,
                claimed,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(word) => seen = Snapshot { word },
            }
        }
        false
    }

    /// Acknowledges the current stage for one LP, once, and ends its claim. The last LP gets a
    /// snapshot and must call [`move_on`](Self::move_on). All other LPs wait until then.
    pub(super) fn acknowledge(&self, has_claimed: bool) -> Option<Snapshot> {
        let change = if has_claimed { 1u32.wrapping_sub(CLAIM) } else { 1 };
        let all =
            Snapshot { word: self.word.fetch_add(change, Ordering::AcqRel).wrapping_add(change) };
        (all.acks() == self.lps && !all.is_over()).then_some(all)
    }

    /// Moves all LPs on after all have acknowledged: to `to`, or to the end of the update (`None`).
    pub(super) fn move_on(&self, from: Snapshot, to: Option<Leg>) {
        // After all LPs have acknowledged, no other LP writes the word.
        self.word.store(to.map_or(from.word | OVER, Leg::word), Ordering::Release);
    }

    /// Ends the update if the word is still `seen`. `false` if the word has changed, an LP has
    /// claimed the stage, or all LPs have acknowledged it.
    pub(super) fn end_if_still(&self, seen: Snapshot) -> bool {
        seen.acks() != self.lps
            && seen.claims() == 0
            && self
                .word
                .compare_exchange(seen.word, seen.word | OVER, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }

    /// Ends the update for an LP that arrives and must not take part. `false` if the LP comes too
    /// late: all LPs have acknowledged the first stage, and an LP may claim the next one.
    pub(super) fn end_at_start(&self) -> bool {
        let mut seen = self.load();
        while seen.stage() == Stage::Start && (seen.is_over() || seen.acks() != self.lps) {
            match self.word.compare_exchange(
                seen.word,
                seen.word | OVER,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return true,
                Err(word) => seen = Snapshot { word },
            }
        }
        false
    }
}
