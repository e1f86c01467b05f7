//! LPs that meet.
#![allow(clippy::undocumented_unsafe_blocks, clippy::indexing_slicing, clippy::unwrap_used)] // loom checks the accesses

pub(super) mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
}
#[path = "../../src/update/rendezvous.rs"]
mod rendezvous;
#[path = "../../src/update/stage.rs"]
mod stage;

use std::sync::atomic::{AtomicU32 as StdAtomicU32, Ordering as StdOrdering};

use atomic::{AtomicU32, Ordering};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use rendezvous::{Leg, Rendezvous};
pub(super) use stage::Stage;

/// An LP fails in the stage that is looked at.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) lp: usize,
    /// There is another round of the stage then, and not the end.
    pub(super) another_round: bool,
}

/// Counts over all orders.
type Counter = std::sync::Arc<StdAtomicU32>;

struct Shared {
    rendezvous: Rendezvous,
    first: Stage,
    failure: Option<Failure>,
    /// What each LP writes in the first stage without any atomics, and the others read in the
    /// next.
    data: Vec<UnsafeCell<u32>>,
    /// LPs that saw what follows.
    followed: Counter,
}

impl Shared {
    /// LPs that have all come to this stage.
    fn at(stage: Stage, lps: u32, failure: Option<Failure>, followed: Counter) -> Self {
        let rendezvous = Rendezvous::new(lps);
        while rendezvous.load().stage() != stage {
            let all = (0..lps).find_map(|_| rendezvous.acknowledge(false)).unwrap();
            rendezvous.move_on(all, Some(Leg { stage: all.stage().next(), round: 0 }));
        }
        let data = (0..lps).map(|_| UnsafeCell::new(0)).collect();
        Self { rendezvous, first: stage, failure, data, followed }
    }

    /// Where the LPs go when all have acknowledged this leg.
    fn after(&self, leg: Leg, failed: bool) -> Option<Leg> {
        match self.failure {
            Some(Failure { another_round, .. }) if failed => {
                another_round.then_some(Leg { round: 1, ..leg })
            }
            _ if leg == self.begin() => Some(Leg { stage: leg.stage.next(), round: 0 }),
            _ => None,
        }
    }

    fn begin(&self) -> Leg {
        Leg { stage: self.first, round: 0 }
    }

    /// Where all find themselves after the first leg.
    fn end(&self) -> Leg {
        let failed = self.after(self.begin(), self.failure.is_some());
        failed.unwrap_or_else(|| self.begin())
    }

    /// What an LP writes for the others in the first leg.
    fn write(&self, lp: usize) {
        // loom finds it out if somebody can still read this.
        self.data[lp].with_mut(|value| unsafe { *value = 1 });
    }

    /// An LP works on the first leg and looks at what follows it. Two LPs acknowledge that, too;
    /// says what this one acknowledged last.
    ///
    /// If it looks in vain it goes. To look and find everything as before changes nothing, so all
    /// there is to find out happens without waiting, too: what an LP would have found later is
    /// asked when all have gone.
    fn lp(&self, number: usize) -> Leg {
        if self.data.len() == 2 {
            assert_eq!(self.rendezvous.load().leg(), self.begin(), "it moved without this LP");
        }
        self.write(number);
        if self.failure.is_some_and(|failure| failure.lp == number) {
            self.rendezvous.fail();
        }
        self.acknowledge();
        self.follow()
    }

    /// An LP that has acknowledged the first leg looks, once.
    fn follow(&self) -> Leg {
        let seen = self.rendezvous.load();
        if seen.leg() != self.begin() {
            // Everything that the others wrote is there.
            self.data.iter().for_each(|cell| cell.with(|value| assert_eq!(unsafe { *value }, 1)));
        } else if !seen.is_over() {
            return self.begin();
        }
        self.followed.fetch_add(1, StdOrdering::Relaxed);
        if seen.is_over() || self.data.len() > 2 {
            return self.begin();
        }
        self.acknowledge();
        seen.leg()
    }

    fn acknowledge(&self) {
        if let Some(all) = self.rendezvous.acknowledge(false) {
            self.rendezvous.move_on(all, self.after(all.leg(), all.failed()));
        }
    }
}

/// All orders in which so many LPs pass a stage and come to what follows it.
pub(super) fn explore(lps: u32, stage: Stage, failure: Option<Failure>) {
    let followed = Counter::default();
    let counted = followed.clone();
    loom::model(move || {
        let shared = Arc::new(Shared::at(stage, lps, failure, counted.clone()));
        let others: Vec<_> = (1..shared.data.len())
            .map(|number| {
                let shared = shared.clone();
                loom::thread::spawn(move || shared.lp(number))
            })
            .collect();
        let mut acknowledged = vec![shared.lp(0)];
        acknowledged.extend(others.into_iter().map(|other| other.join().unwrap()));
        let there = shared.rendezvous.load();
        assert_eq!(there.leg(), shared.end());
        let all = acknowledged.iter().all(|leg| *leg == there.leg());
        assert_eq!(there.is_over(), all || there.stage() == Stage::Done, "{acknowledged:?}");
    });
    assert_ne!(followed.load(StdOrdering::Relaxed), 0, "nobody saw what follows");
}

/// All orders in which one LP passes a stage and another one gives up waiting for it: it either
/// ends the update where it saw it, or the update goes on as if nothing had happened.
pub(super) fn give_up(stage: Stage) {
    let (won, lost) = (Counter::default(), Counter::default());
    let counted = (won.clone(), lost.clone());
    loom::model(move || {
        let shared = Arc::new(Shared::at(stage, 2, None, Counter::default()));
        let other = {
            let shared = shared.clone();
            loom::thread::spawn(move || shared.lp(1))
        };
        shared.write(0);
        shared.acknowledge();
        let seen = shared.rendezvous.load();
        if shared.rendezvous.end_if_still(seen) {
            let _ = other.join().unwrap();
            let there = shared.rendezvous.load();
            assert_eq!((there.is_over(), there.leg()), (true, seen.leg()));
            counted.0.fetch_add(1, StdOrdering::Relaxed);
        } else {
            let _ = (shared.follow(), other.join().unwrap());
            assert_eq!(shared.rendezvous.load().leg(), shared.end());
            counted.1.fetch_add(1, StdOrdering::Relaxed);
        }
    });
    assert!([won, lost].iter().all(|count| count.load(StdOrdering::Relaxed) != 0));
}

/// An LP that claims the stage, makes a call that cannot be taken back, and acknowledges, unless
/// the update is over.
struct Lead {
    shared: Arc<Shared>,
    /// What firmware has done. Only the lead writes it, without any atomics.
    done: Arc<UnsafeCell<bool>>,
    /// The lead holds its claim: from before the call to before the acknowledgement.
    holds: Arc<AtomicU32>,
}

impl Lead {
    /// Whether the call was made.
    fn work(&self) -> bool {
        let rendezvous = &self.shared.rendezvous;
        if !rendezvous.claim() {
            return false;
        }
        self.holds.store(1, Ordering::Release);
        assert!(!rendezvous.load().is_over(), "over, and the call is not made yet");
        self.done.with_mut(|done| unsafe { *done = true });
        assert!(!rendezvous.load().is_over(), "over while the claim is held");
        self.holds.store(0, Ordering::Release);
        if let Some(all) = rendezvous.acknowledge(true) {
            rendezvous.move_on(all, self.shared.after(all.leg(), all.failed()));
        }
        true
    }
}

/// How many orders ended in which way.
#[derive(Clone, Default)]
pub(super) struct Ends {
    gave_up_first: Counter,
    call_was_made: Counter,
    gave_up_after_the_call: Counter,
}

/// All orders in which an LP claims the stage and makes its call, while another one gives up.
/// `third`: an LP that has not come, so that nobody moves on and giving up is possible after the
/// call, too.
pub(super) fn claim(stage: Stage, third: bool) {
    let ends = Ends::default();
    let counted = ends.clone();
    loom::model(move || {
        let shared =
            Arc::new(Shared::at(stage, if third { 3 } else { 2 }, None, Counter::default()));
        let (done, holds) = (Arc::new(UnsafeCell::new(false)), Arc::new(AtomicU32::new(0)));
        let lead = Lead { shared: shared.clone(), done: done.clone(), holds: holds.clone() };
        let lead = loom::thread::spawn(move || lead.work());
        shared.acknowledge();
        let seen = shared.rendezvous.load();
        // An LP gives up only what it has acknowledged.
        let gave_up = seen.leg() == shared.begin() && shared.rendezvous.end_if_still(seen);
        if gave_up {
            assert_eq!(holds.load(Ordering::Acquire), 0, "it gave up against a claim");
            // Firmware does nothing any more, so this LP may look at what it has done. loom finds
            // it out if a call can still follow.
            let made = done.with(|done| unsafe { *done });
            let made_in_the_end = lead.join().unwrap();
            assert_eq!(made, made_in_the_end, "a call after giving up");
            assert_eq!(done.with(|done| unsafe { *done }), made);
            let there = shared.rendezvous.load();
            assert_eq!((there.is_over(), there.leg(), there.claims()), (true, seen.leg(), 0));
            let count = if made { &counted.gave_up_after_the_call } else { &counted.gave_up_first };
            count.fetch_add(1, StdOrdering::Relaxed);
        } else {
            assert!(lead.join().unwrap(), "nobody gave up, and the call was not made");
            assert!(done.with(|done| unsafe { *done }));
            let there = shared.rendezvous.load();
            assert_eq!(
                (there.claims(), there.leg()),
                (0, if third { shared.begin() } else { shared.end() })
            );
            counted.call_was_made.fetch_add(1, StdOrdering::Relaxed);
        }
    });
    let [first, made, after] =
        [ends.gave_up_first, ends.call_was_made, ends.gave_up_after_the_call]
            .map(|count| count.load(StdOrdering::Relaxed) != 0);
    // Of two LPs the last to acknowledge moves on, so nobody can give up after the call.
    assert_eq!((first, made, after), (true, true, third));
}

/// The orders in which two LPs claim the stage one after the other at the lock, as at
/// SEAMLDR.INSTALL, while a third one gives up: a call is made under a claim of its own, or not at
/// all. Those with at most three preemptions, to end in seconds.
pub(super) fn two_claims(stage: Stage) {
    let orders: [Counter; 3] = Default::default();
    let counted = orders.clone();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let shared = Arc::new(Shared::at(stage, 3, None, Counter::default()));
        let calls = Arc::new(loom::sync::Mutex::new(0u32));
        let others: Vec<_> = (0..2)
            .map(|_| {
                let (shared, calls) = (shared.clone(), calls.clone());
                loom::thread::spawn(move || {
                    let mut calls = calls.lock().unwrap();
                    if !shared.rendezvous.claim() {
                        return false;
                    }
                    *calls = (*calls).saturating_add(1);
                    assert!(!shared.rendezvous.load().is_over(), "over while a claim is held");
                    drop(calls);
                    if let Some(all) = shared.rendezvous.acknowledge(true) {
                        shared.rendezvous.move_on(all, shared.after(all.leg(), all.failed()));
                    }
                    true
                })
            })
            .collect();
        shared.acknowledge();
        let seen = shared.rendezvous.load();
        let gave_up = seen.leg() == shared.begin() && shared.rendezvous.end_if_still(seen);
        let made = others.into_iter().map(|other| u32::from(other.join().unwrap())).sum::<u32>();
        let there = shared.rendezvous.load();
        assert_eq!((*calls.lock().unwrap(), there.claims()), (made, 0));
        if gave_up {
            assert_eq!(
                (there.is_over(), there.leg(), made < 2),
                (true, seen.leg(), true),
                "{made} calls"
            );
        } else {
            assert_eq!((there.leg(), made), (shared.end(), 2));
        }
        counted[usize::try_from(made).unwrap()].fetch_add(1, StdOrdering::Relaxed);
    });
    assert!(orders.iter().all(|count| count.load(StdOrdering::Relaxed) != 0));
}

/// All orders in which two LPs pass the start and the lead shuts the module down, while one LP more
/// than announced arrives and is turned away: it ends the update before the claim, or not at all.
pub(super) fn turn_away() {
    let (ended, too_late) = (Counter::default(), Counter::default());
    let counted = (ended.clone(), too_late.clone());
    loom::model(move || {
        let shared = Arc::new(Shared::at(Stage::Start, 2, None, Counter::default()));
        shared.acknowledge();
        let done = Arc::new(UnsafeCell::new(false));
        let lead = {
            let (shared, done) = (shared.clone(), done.clone());
            loom::thread::spawn(move || {
                shared.acknowledge();
                if shared.rendezvous.load().stage() != Stage::Shutdown || !shared.rendezvous.claim()
                {
                    return false;
                }
                done.with_mut(|done| unsafe { *done = true });
                assert!(!shared.rendezvous.load().is_over(), "over while the claim is held");
                true
            })
        };
        let gave_up = shared.rendezvous.end_at_start();
        let made = lead.join().unwrap();
        assert_eq!(made, !gave_up, "a call after the end, or none before it");
        assert_eq!(
            (done.with(|done| unsafe { *done }), shared.rendezvous.load().is_over()),
            (made, gave_up)
        );
        let count = if gave_up { &counted.0 } else { &counted.1 };
        count.fetch_add(1, StdOrdering::Relaxed);
    });
    assert!([ended, too_late].iter().all(|count| count.load(StdOrdering::Relaxed) != 0));
}
