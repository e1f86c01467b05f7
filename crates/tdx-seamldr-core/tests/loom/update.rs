//! LPs that meet.
#![allow(clippy::undocumented_unsafe_blocks, clippy::arithmetic_side_effects, clippy::as_conversions)] // loom checks the accesses

pub(super) mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU32, Ordering};
}
#[path = "../../src/update/rendezvous.rs"]
mod rendezvous;
#[path = "../../src/update/stage.rs"]
mod stage;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use rendezvous::{Leg, Rendezvous};
pub(super) use stage::Stage;

/// What an LP writes in a stage without any atomics, and the others read in the next one.
struct Shared {
    rendezvous: Rendezvous,
    data: Vec<UnsafeCell<u32>>,
    last: Stage,
}

/// An LP goes through the stages, or fails in one. Says in which stage it was when all was over.
fn lp(shared: &Shared, number: usize, fails_in: Option<Stage>) -> Stage {
    let mut acknowledged: Option<Leg> = None;
    let mut works = 0;
    loop {
        let seen = shared.rendezvous.load();
        if seen.is_over() {
            return seen.stage();
        }
        if acknowledged == Some(seen.leg()) {
            loom::thread::yield_now();
            continue;
        }
        if !seen.failed() {
            // Everything that the others wrote before they acknowledged the stage before is there to be read: loom would
            // complain about a race, and this about a missing write.
            for (other, cell) in shared.data.iter().enumerate().filter(|(other, _)| *other != number) {
                let _ = other;
                if works > 0 && seen.stage().number() % 2 == 1 {
                    cell.with(|value| assert_eq!(unsafe { *value }, works));
                }
            }
            if seen.stage().number() % 2 == 0 {
                works += 1;
                shared.data[number].with_mut(|value| unsafe { *value = works });
            }
            if fails_in == Some(seen.stage()) {
                shared.rendezvous.fail();
            }
        }
        acknowledged = Some(seen.leg());
        if let Some(all) = shared.rendezvous.acknowledge() {
            let done = all.failed() || all.stage() == shared.last;
            let next = Leg { stage: all.stage().next(), round: all.round() };
            shared.rendezvous.move_on(all, (!done).then_some(next));
        }
    }
}

pub(super) fn explore(lps: u32, last: Stage, failure: Option<(usize, Stage)>) {
    loom::model(move || {
        let data = (0..lps).map(|_| UnsafeCell::new(0)).collect();
        let shared = Arc::new(Shared { rendezvous: Rendezvous::new(lps), data, last });
        let fails = move |number: usize| failure.filter(|(lp, _)| *lp == number).map(|(_, stage)| stage);
        let others: Vec<_> = (1..lps as usize)
            .map(|number| {
                let shared = shared.clone();
                loom::thread::spawn(move || lp(&shared, number, fails(number)))
            })
            .collect();
        let mut ends = vec![lp(&shared, 0, fails(0))];
        ends.extend(others.into_iter().map(|other| other.join().unwrap()));
        let expected = failure.map_or(last, |(_, stage)| stage);
        assert!(ends.iter().all(|end| *end == expected), "{ends:?}, but should all be {expected:?}");
    });
}
