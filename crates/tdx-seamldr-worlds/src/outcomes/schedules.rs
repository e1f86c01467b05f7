//! Whole updates on threads that shuttle runs in random orders: it switches threads before each
//! SEAMCALL, inside it, at the lock and while waiting.
#![allow(clippy::unwrap_used)]

use shuttle::rand::{thread_rng, Rng as _};
use shuttle::sync::{Mutex, MutexGuard};
use shuttle::thread;
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::update::{Cpu, Outcome, Update};
use tdx_seamldr_core::{CurrentVmcs, Lock, Seamldr};
use tdx_seamldr_mock::SimPlatform;

use super::sweep::{troubles, Trouble};
use crate::world::{
    all_alive, boot, go_on, new_image, old_image, update_by, wrong_claim, wrong_image, Ours,
};

/// A lock whose holder shuttle can interrupt.
#[derive(Default)]
struct ShuttleLock(Mutex<()>);

impl Lock for ShuttleLock {
    type Held<'a> = MutexGuard<'a, ()>;

    fn acquire(&self) -> Self::Held<'_> {
        self.0.lock().unwrap()
    }

    fn release<'a>(&'a self, held: Self::Held<'a>) {
        drop(held);
    }
}

/// Runs a thread for each LP except the absent one, from the first to the last stage.
fn on_threads(platform: &SimPlatform, update: &Update<'_>, absent: Option<u32>) -> Option<Outcome> {
    let lock = &ShuttleLock::default();
    thread::scope(|threads| {
        for number in platform.online().filter(|lp| absent != Some(*lp)) {
            threads.spawn(move || {
                let lp = platform.lp(number);
                Cpu::new(update, Seamldr::new(&lp, lock, CurrentVmcs::Preserved).unwrap()).run();
            });
        }
    });
    Some(update.outcome())
}

/// Runs `count` random orders of an update by `lps` LPs with `faults` random faults, and checks
/// each outcome.
fn in_orders(count: usize, lps: u32, faults: usize) {
    let (old, new) = (old_image().build(), new_image().build());
    let troubles = troubles(lps).unwrap();
    let one = move || {
        let platform =
            boot(SimPlatform::builder().lps(lps).yielding(thread::yield_now), &old).unwrap();
        let mut what = Vec::new();
        for _ in 0..faults {
            let trouble = troubles.get(thread_rng().gen_range(0..troubles.len())).unwrap();
            if let Trouble::Call(fault) = trouble {
                platform.inject(*fault);
            }
            what.push(trouble);
        }
        let is_away = |trouble: &&Trouble| matches!(trouble, Trouble::Stays(_));
        let absent =
            what.iter().copied().any(|trouble| is_away(&trouble)).then(|| lps.saturating_sub(1));
        let end = update_by(&platform, &new, &old, Policy::default(), |update| {
            on_threads(&platform, update, absent)
        });
        let Ours::Ran(outcome) = end.unwrap() else {
            assert!(faults > 0 && all_alive(&platform), "{what:?}");
            return;
        };
        assert!(faults > 0 || outcome.is_updated(), "{outcome}");
        assert_eq!(
            wrong_claim(&platform, &outcome).or_else(|| wrong_image(&platform, &outcome)),
            None,
            "{what:?}"
        );
        platform.clear_faults();
        let end = go_on(&platform, &outcome, &new).unwrap();
        assert_eq!(
            wrong_claim(&platform, &end),
            None,
            "{what:?}, after the next step of {outcome}"
        );
        if !what.iter().any(|trouble| trouble.is_the_end()) {
            assert!(all_alive(&platform), "{what:?}: {outcome}; then {end}");
        }
    };
    // The simulated firmware needs more stack than shuttle gives a thread by default.
    let mut config = shuttle::Config::new();
    config.stack_size = 1 << 20;
    shuttle::Runner::new(shuttle::scheduler::RandomScheduler::new(count), config).run(one);
}

#[test]
fn an_update_succeeds_in_every_order() {
    in_orders(500, 2, 0);
    in_orders(500, 5, 0);
}

#[test]
fn one_fault_loses_no_td_needlessly_in_any_order() {
    in_orders(3000, 2, 1);
    in_orders(3000, 4, 1);
}

#[test]
fn the_outcome_is_true_in_any_order_after_two_faults() {
    in_orders(3000, 3, 2);
}
