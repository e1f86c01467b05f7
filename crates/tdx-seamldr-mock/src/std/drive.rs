//! Runs an update on a platform: on threads that share the LPs, or step by step in one thread.

use tdx_seamldr_core::update::{Cpu, Outcome, Progress, Update};
use tdx_seamldr_core::{CurrentVmcs, Patience, Seamldr, SpinLock};

use crate::{SimLp, SimPlatform};

/// Runs `update` on all online LPs, and returns the outcome.
///
/// The LPs share one thread per CPU of this machine. Each thread steps its LPs in turn. If all of
/// them wait, each looks once more, until its [patience](crate::Builder::patience) ends. An LP that
/// [`Answer::Delay`](crate::Answer::Delay) keeps inside firmware holds up the other LPs of its
/// thread.
#[must_use]
pub fn run_on_threads(platform: &SimPlatform, update: &Update<'_>) -> Outcome {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    run_on(cpus, platform, update, &platform.online().collect::<Vec<_>>())
}

/// Runs `update` on these LPs and this number of threads. Uses fewer threads if there are fewer
/// LPs.
fn run_on(threads: usize, platform: &SimPlatform, update: &Update<'_>, online: &[u32]) -> Outcome {
    let lock = &SpinLock::new();
    let threads = threads.min(online.len());
    std::thread::scope(|scope| {
        for first in 0..threads {
            scope.spawn(move || {
                let share = online.iter().skip(first).step_by(threads);
                let lps: Vec<_> = share.map(|lp| platform.lp_that_keeps_its_cpu(*lp)).collect();
                run_share(platform, parts(&lps, update, lock));
            });
        }
    });
    update.outcome()
}

/// Runs the parts of some LPs until all have ended, in this thread.
fn run_share(platform: &SimPlatform, mut parts: Vec<Part<'_>>) {
    while !parts.is_empty() {
        if step_each(&mut parts) {
            continue;
        }
        platform.let_others_come();
        for part in &parts {
            if part.lp.look_once_more() == Patience::GiveUp {
                part.cpu.abandon();
            }
        }
    }
}

/// Runs `update` in this thread and returns the outcome. LPs make single steps in an order that
/// depends only on `seed`. If no LP can go on, one LP gives up.
#[must_use]
pub fn run_stepped(platform: &SimPlatform, update: &Update<'_>, seed: u64) -> Outcome {
    let lock = SpinLock::new();
    let lps: Vec<_> = platform.online().map(|lp| platform.lp_that_keeps_its_cpu(lp)).collect();
    let mut parts = parts(&lps, update, &lock);
    let mut random = seed | 1;
    while !parts.is_empty() {
        // One round: every LP makes one step, in a random order.
        for last in (1..parts.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bound = u64::try_from(last).unwrap_or(0).saturating_add(1);
            let other = random.checked_rem(bound).and_then(|other| usize::try_from(other).ok());
            parts.swap(last, other.unwrap_or(0));
        }
        let goes_on = step_each(&mut parts);
        if let Some(part) = parts.first().filter(|_| !goes_on) {
            part.cpu.abandon();
        }
    }
    update.outcome()
}

/// One LP's part in an update.
struct Part<'a> {
    lp: &'a SimLp<'a>,
    cpu: Cpu<'a, SimLp<'a>, SpinLock>,
}

/// Returns the parts of these LPs in `update`.
fn parts<'a>(lps: &'a [SimLp<'a>], update: &'a Update<'a>, lock: &'a SpinLock) -> Vec<Part<'a>> {
    let part = |lp| {
        let seamldr = Seamldr::new(lp, lock, CurrentVmcs::Preserved).ok()?;
        Some(Part { lp, cpu: Cpu::new(update, seamldr) })
    };
    lps.iter().filter_map(part).collect()
}

/// Makes one step on each LP and drops the LPs that have finished. Returns `false` if all remaining
/// LPs wait.
fn step_each(parts: &mut Vec<Part<'_>>) -> bool {
    let mut goes_on = false;
    parts.retain_mut(|part| {
        let progress = part.cpu.step();
        goes_on |= progress != Progress::Waiting;
        progress != Progress::Finished
    });
    goes_on
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::preflight::{preflight, Policy};
    use tdx_seamldr_core::update::FailureCause;
    use tdx_seamldr_core::{SharedInfo, TdxImage};
    use tdx_seamldr_verify::RustCrypto;

    use crate::{Builder, PageBuf, TestImage};

    /// Returns the outcome of an update by `lps` LPs of which `late` never come, and the number of
    /// SEAMCALLs.
    fn update(builder: Builder, lps: u32, late: u32, threads: usize) -> (Outcome, usize) {
        let [old, new] =
            [5, 6].map(|svn_minor| TestImage { svn_minor, ..TestImage::default() }.build());
        let [old, new] = [&old, &new].map(|image| TdxImage::parse(image.as_bytes()).unwrap());
        let platform = builder.lps(lps).boot(&old).unwrap();
        let facts = platform.facts().unwrap();
        let passed = preflight(&new, &facts, &RustCrypto, Policy::default(), &mut |_| {}).unwrap();
        let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
        let (state, host) = (platform.module_state(), platform.lp(0));
        let update = Update::new(&passed, params.as_params(), &info, &host, state).unwrap();
        platform.clear_trace();
        let come: Vec<_> = platform.online().skip(late as usize).collect();
        let outcome = run_on(threads, &platform, &update, &come);
        (outcome, platform.num_calls())
    }

    #[test]
    fn an_update_makes_the_same_calls_on_any_number_of_threads() {
        for threads in [1, 2, 3, 8, 9] {
            let (outcome, calls) = update(SimPlatform::builder(), 8, 0, threads);
            assert!(outcome.is_updated(), "{threads} threads: {outcome}");
            assert_eq!(calls, 3 * 8 + 4, "{threads} threads");
        }
    }

    #[test]
    fn lps_give_up_on_any_number_of_threads_if_one_lp_never_comes() {
        for threads in [1, 2, 3] {
            let (outcome, calls) = update(SimPlatform::builder().patience(100), 4, 1, threads);
            assert_eq!(outcome.failure.unwrap().cause, FailureCause::GaveUp, "{threads} threads");
            assert!(
                (1..=3).contains(&calls),
                "{threads} threads: at most one look at the module for each LP"
            );
        }
    }

    #[test]
    fn threads_call_the_builders_function_inside_calls() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static YIELDS: AtomicUsize = AtomicUsize::new(0);
        let builder = SimPlatform::builder().yielding(|| {
            YIELDS.fetch_add(1, Ordering::Relaxed);
        });
        let (outcome, calls) = update(builder, 1, 0, 1);
        assert!(outcome.is_updated());
        assert!(YIELDS.load(Ordering::Relaxed) > calls);
    }
}
