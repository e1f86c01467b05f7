//! One LP gives up while another LP calls firmware: right before each call, inside it, and after
//! it.

use std::cell::{Cell, RefCell};
use std::fmt;

use anyhow::Result;
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::update::{Cpu, Outcome, Progress, Stage, Update};
use tdx_seamldr_core::{CurrentVmcs, Seamldr, SpinLock};
use tdx_seamldr_mock::{SimLp, SimPlatform};

use super::{add, has_begun, wrong, Sweep};
use crate::intercepted::{Intercepted, Moment};
use crate::world::{boot, update_by, Ours};

/// The LPs that step before the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// All other LPs.
    CallerLast,
    /// The waiting LP; all others step later.
    WaiterFirst,
    /// No LP.
    CallerFirst,
}

/// The LP that gives up, and the moment.
#[derive(Clone, Copy, Debug)]
struct Plan {
    caller: u32,
    waiter: u32,
    order: Order,
    /// Index of the caller's call, from 0.
    call: usize,
    moment: Moment,
}

/// How many updates ended in each way after an LP gave up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    tries: u32,
    /// The module was not shut down.
    untouched: u32,
    /// The update ended after the shutdown.
    held: u32,
    /// The update continued.
    updated: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tries, untouched, held, updated } = self;
        write!(
            f,
            "{tries} times an LP gives up while another one calls: {untouched} updates touch \
             nothing, {updated} go on and succeed, {held} end after the shutdown and bring the \
             TDs back when they are resumed"
        )
    }
}

/// The outcome that the LP gets when it gives up, and a false claim in it.
type Told = (Outcome, Option<String>);

struct Waiter<'a> {
    cpu: RefCell<Cpu<'a, SimLp<'a>, SpinLock>>,
    /// Stage and round in which the LP last waited.
    waits_in: Cell<Option<(Stage, u32)>>,
    told: Cell<Option<Told>>,
}

impl Waiter<'_> {
    fn step(&self, update: &Update<'_>) -> Progress {
        let progress = self.cpu.borrow_mut().step();
        let place = (update.progress().0, update.round());
        self.waits_in.set((progress == Progress::Waiting).then_some(place));
        progress
    }

    /// Gives up, unless the LP waits for the lock.
    fn gives_up(&self, platform: &SimPlatform, update: &Update<'_>) {
        let place = (update.progress().0, update.round());
        if place.0 == Stage::CpuInstall && self.waits_in.get() != Some(place) {
            return;
        }
        while self.step(update) == Progress::Worked {}
        self.cpu.borrow().abandon();
        let outcome = update.outcome();
        // Only an update that has ended has an outcome.
        if self.step(update) == Progress::Finished {
            self.told.set(Some((outcome, wrong(platform, &outcome))));
        }
    }
}

/// Result of an update.
struct End {
    outcome: Outcome,
    told: Option<Told>,
    /// Number of calls that the caller made.
    calls: usize,
}

/// Returns the LPs in the order in which they step.
fn turns(plan: &Plan, lps: &[u32]) -> Vec<u32> {
    let Plan { caller, waiter, order, .. } = *plan;
    let others = lps.iter().copied().filter(|lp| *lp != caller);
    match order {
        Order::CallerLast => others.chain([caller]).collect(),
        Order::WaiterFirst => {
            [waiter, caller].into_iter().chain(others.filter(|lp| *lp != waiter)).collect()
        }
        Order::CallerFirst => [caller].into_iter().chain(others).collect(),
    }
}

/// Takes all LPs through an update. Returns `None` if it does not end.
fn drive(platform: &SimPlatform, update: &Update<'_>, plan: &Plan) -> Option<End> {
    let lock = SpinLock::new();
    let lps: Vec<u32> = platform.online().collect();
    let hosts: Vec<_> = lps.iter().map(|lp| platform.lp(*lp)).collect();
    let others = hosts.iter().map(|host| {
        let cpu = Cpu::new(update, Seamldr::new(host, &lock, CurrentVmcs::Preserved).ok()?);
        Some(Waiter { cpu: RefCell::new(cpu), waits_in: Cell::new(None), told: Cell::new(None) })
    });
    let others = others.collect::<Option<Vec<_>>>()?;
    let other = |lp: u32| lps.iter().position(|one| *one == lp).and_then(|index| others.get(index));
    let (waiter, calls) = (other(plan.waiter)?, Cell::new(0));
    let host = Intercepted::new(platform.lp(plan.caller), |now: Moment| {
        if now == plan.moment && calls.get() == plan.call {
            waiter.gives_up(platform, update);
        }
        if now == Moment::Inside {
            calls.set(calls.get().wrapping_add(1));
        }
    });
    let mut caller = Cpu::new(update, Seamldr::new(&host, &lock, CurrentVmcs::Preserved).ok()?);
    for _ in 0..1000 {
        let mut progress = Vec::new();
        for lp in turns(plan, &lps) {
            if lp != plan.caller {
                progress.push(other(lp)?.step(update));
                continue;
            }
            let before = calls.get();
            progress.push(caller.step());
            if plan.moment == Moment::After && (before..calls.get()).contains(&plan.call) {
                waiter.gives_up(platform, update);
            }
        }
        if progress.iter().all(|progress| *progress == Progress::Finished) {
            return Some(End {
                outcome: update.outcome(),
                told: waiter.told.take(),
                calls: calls.get(),
            });
        }
        if progress.iter().all(|progress| *progress == Progress::Waiting) {
            return None;
        }
    }
    None
}

/// Makes every LP give up at every call of every other LP.
pub(super) fn all(sweep: &mut Sweep, counts: &mut Counts, lps: u32) -> Result<()> {
    for (caller, waiter) in (0..lps).flat_map(|caller| (0..lps).map(move |waiter| (caller, waiter)))
    {
        if caller == waiter {
            continue;
        }
        for order in [Order::CallerLast, Order::WaiterFirst, Order::CallerFirst] {
            for moment in [Moment::Before, Moment::Inside, Moment::After] {
                for call in 0..8 {
                    if !one(sweep, counts, lps, &Plan { caller, waiter, order, call, moment })? {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Tests one plan. Returns `false` if the caller makes no such call.
fn one(sweep: &mut Sweep, counts: &mut Counts, lps: u32, plan: &Plan) -> Result<bool> {
    let what = format!("N = {lps}, {plan:?}");
    let platform = boot(SimPlatform::builder().lps(lps), &sweep.old)?;
    let mut end = None;
    let ours = update_by(&platform, &sweep.new, &sweep.old, Policy::default(), |update| {
        end = drive(&platform, update, plan);
        end.as_ref().map(|end| end.outcome)
    })?;
    let (Ours::Ran(outcome), Some(End { told, calls, .. })) = (ours, end) else {
        sweep.wrong.push(format!("{what}: the update does not end"));
        return Ok(true);
    };
    if calls <= plan.call {
        return Ok(false);
    }
    add(&mut counts.tries, true);
    add(&mut counts.untouched, !has_begun(&platform));
    add(&mut counts.updated, outcome.is_updated());
    add(&mut counts.held, has_begun(&platform) && !outcome.is_updated());
    sweep.wrong.extend(wrong(&platform, &outcome).map(|claim| format!("{what}: {claim}")));
    if let Some((told, claim)) = told {
        sweep.wrong.extend(claim.map(|claim| format!("{what}, when it gives up: {claim}")));
        let meaning = |outcome: &Outcome| (outcome.tds, outcome.running, outcome.next);
        if meaning(&told) != meaning(&outcome) {
            sweep.wrong.push(format!(
                "{what}: the LP got the outcome {told}; the final outcome is {outcome}"
            ));
        }
    }
    sweep.go_on(&what, &platform, &outcome)?;
    Ok(true)
}
