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
    /// What each LP writes in the first stage without any atomics, and the others read in the next.
    data: Vec<UnsafeCell<u32>>,
    /// LPs that saw what follows.
    followed: Counter,
}

impl Shared {
    /// LPs that have all come to this stage.
    fn at(stage: Stage, lps: u32, failure: Option<Failure>, followed: Counter) -> Self {
        let rendezvous = Rendezvous::new(lps);
        while rendezvous.load().stage() != stage {
            let all = (0..lps).find_map(|_| rendezvous.acknowledge()).unwrap();
            rendezvous.move_on(all, Some(Leg { stage: all.stage().next(), round: 0 }));
        }
        let data = (0..lps).map(|_| UnsafeCell::new(0)).collect();
        Self { rendezvous, first: stage, failure, data, followed }
    }

    /// Where the LPs go when all have acknowledged this leg.
    fn after(&self, leg: Leg, failed: bool) -> Option<Leg> {
        match self.failure {
            Some(Failure { another_round, .. }) if failed => another_round.then_some(Leg { round: 1, ..leg }),
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

    /// An LP works on the first leg and looks at what follows it. Two LPs acknowledge that, too; says what this one acknowledged last.
    ///
    /// If it looks in vain it goes. To look and find everything as before changes nothing, so all there is to find out happens
    /// without waiting, too: what an LP would have found later is asked when all have gone.
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
        if let Some(all) = self.rendezvous.acknowledge() {
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

/// All orders in which one LP passes a stage and another one gives up waiting for it: it either ends the update where it saw it, or
/// the update goes on as if nothing had happened.
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
