//! The LPs of the loom tests.
// loom checks the accesses
#![allow(clippy::undocumented_unsafe_blocks, clippy::indexing_slicing, clippy::unwrap_used)]

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

/// An LP that fails in the tested stage.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) lp: usize,
    /// Whether another round follows the failure. `false`: the update ends.
    pub(super) another_round: bool,
}

/// A counter over all orders.
type Counter = std::sync::Arc<StdAtomicU32>;

struct Shared {
    rendezvous: Rendezvous,
    first: Stage,
    failure: Option<Failure>,
    /// A value of each LP. The LP writes it in the first leg without atomics, and the others read
    /// it in the next.
    data: Vec<UnsafeCell<u32>>,
    /// LPs that saw the next leg.
    followed: Counter,
}

impl Shared {
    /// Returns LPs that have all reached this stage.
    fn at(stage: Stage, lps: u32, failure: Option<Failure>, followed: Counter) -> Self {
        let rendezvous = Rendezvous::new(lps);
        while rendezvous.load().stage() != stage {
            let all = (0..lps).find_map(|_| rendezvous.acknowledge(false)).unwrap();
            rendezvous.move_on(all, Some(Leg { stage: all.stage().next(), round: 0 }));
        }
        let data = (0..lps).map(|_| UnsafeCell::new(0)).collect();
        Self { rendezvous, first: stage, failure, data, followed }
    }

    /// Returns the leg that follows after all LPs have acknowledged this one.
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

    /// Returns the leg of all LPs after the first leg.
    fn end(&self) -> Leg {
        let failed = self.after(self.begin(), self.failure.is_some());
        failed.unwrap_or_else(|| self.begin())
    }

    /// Writes the value of an LP in the first leg.
    fn write(&self, lp: usize) {
        // loom reports if another LP can read the value at the same time.
        self.data[lp].with_mut(|value| unsafe { *value = 1 });
    }

    /// Does an LP's work in the first leg and looks at the next leg once. With two LPs, each also
    /// acknowledges the next leg. Returns the leg that this LP acknowledged last.
    ///
    /// If all LPs are still in the first leg, the LP leaves. Another look would change nothing, so
    /// loom covers all orders without waiting. The test checks the final leg after all LPs have
    /// left.
    fn lp(&self, number: usize) -> Leg {
        if self.data.len() == 2 {
            assert_eq!(
                self.rendezvous.load().leg(),
                self.begin(),
                "the leg changed without this LP"
            );
        }
        self.write(number);
        if self.failure.is_some_and(|failure| failure.lp == number) {
            self.rendezvous.fail();
        }
        self.acknowledge();
        self.follow()
    }

    /// Looks at the next leg once, for an LP that has acknowledged the first leg.
    fn follow(&self) -> Leg {
        let seen = self.rendezvous.load();
        if seen.leg() != self.begin() {
            // The values of all LPs are visible.
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

/// Tests all orders in which `lps` LPs pass a stage and reach the next leg.
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
    assert_ne!(followed.load(StdOrdering::Relaxed), 0, "no LP saw the next leg");
}

/// Tests all orders in which one LP passes a stage and another LP gives up waiting. Giving up
/// either ends the update in the leg that the LP saw, or changes nothing.
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

/// An LP that claims the stage, makes a call that cannot be undone, and acknowledges. It stops if
/// the update is over.
struct Lead {
    shared: Arc<Shared>,
    /// Whether firmware has executed the call. Only the lead writes this, without atomics.
    done: Arc<UnsafeCell<bool>>,
    /// Whether the lead holds its claim: from before the call to before the acknowledgement.
    holds: Arc<AtomicU32>,
}

impl Lead {
    /// Does the work of the lead. Returns whether it made the call.
    fn work(&self) -> bool {
        let rendezvous = &self.shared.rendezvous;
        if !rendezvous.claim() {
            return false;
        }
        self.holds.store(1, Ordering::Release);
        assert!(!rendezvous.load().is_over(), "the update is over before the call");
        self.done.with_mut(|done| unsafe { *done = true });
        assert!(!rendezvous.load().is_over(), "the update is over while the claim is held");
        self.holds.store(0, Ordering::Release);
        if let Some(all) = rendezvous.acknowledge(true) {
            rendezvous.move_on(all, self.shared.after(all.leg(), all.failed()));
        }
        true
    }
}

/// Counts of the orders by their end.
#[derive(Clone, Default)]
pub(super) struct Ends {
    gave_up_first: Counter,
    call_was_made: Counter,
    gave_up_after_the_call: Counter,
}

/// Tests all orders in which an LP claims the stage and makes its call while another LP gives up.
/// With `third`, a third LP never arrives, so an LP can also give up after the call.
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
        // An LP gives up only after it has acknowledged the stage.
        let gave_up = seen.leg() == shared.begin() && shared.rendezvous.end_if_still(seen);
        if gave_up {
            assert_eq!(holds.load(Ordering::Acquire), 0, "the LP gave up in spite of a claim");
            // No call can follow, so this LP may read the value. loom reports if a call can follow.
            let made = done.with(|done| unsafe { *done });
            let made_in_the_end = lead.join().unwrap();
            assert_eq!(made, made_in_the_end, "a call after giving up");
            assert_eq!(done.with(|done| unsafe { *done }), made);
            let there = shared.rendezvous.load();
            assert_eq!((there.is_over(), there.leg(), there.claims()), (true, seen.leg(), 0));
            let count = if made { &counted.gave_up_after_the_call } else { &counted.gave_up_first };
            count.fetch_add(1, StdOrdering::Relaxed);
        } else {
            assert!(lead.join().unwrap(), "no LP gave up, and the lead did not make the call");
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
    // With two LPs, the last acknowledgement moves both on, so no LP can give up after the call.
    assert_eq!((first, made, after), (true, true, third));
}

/// Tests the orders with at most three preemptions, so that the test ends in seconds. Two LPs claim
/// the stage one after the other at the lock, as in SEAMLDR.INSTALL, while a third LP gives up.
/// Each LP makes its call under its own claim, or not at all.
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
                    assert!(
                        !shared.rendezvous.load().is_over(),
                        "the update is over while a claim is held"
                    );
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

/// Tests all orders in which two LPs pass the start and the lead shuts the module down. Meanwhile
/// an additional LP arrives and is turned away. That LP ends the update before the claim, or not at
/// all.
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
                assert!(
                    !shared.rendezvous.load().is_over(),
                    "the update is over while the claim is held"
                );
                true
            })
        };
        let gave_up = shared.rendezvous.end_at_start();
        let made = lead.join().unwrap();
        assert_eq!(
            made, !gave_up,
            "the lead makes the call if and only if no LP gave up before it"
        );
        assert_eq!(
            (done.with(|done| unsafe { *done }), shared.rendezvous.load().is_over()),
            (made, gave_up)
        );
        let count = if gave_up { &counted.0 } else { &counted.1 };
        count.fetch_add(1, StdOrdering::Relaxed);
    });
    assert!([ended, too_late].iter().all(|count| count.load(StdOrdering::Relaxed) != 0));
}
