//! Runs an update on a platform: with a thread for each LP, or all LPs by hand in one thread.

use tdx_seamldr_core::update::{Cpu, Outcome, Progress, Update};
use tdx_seamldr_core::{CurrentVmcs, Seamldr, SpinLock};

use crate::SimPlatform;

/// Runs `update` with a thread for each LP that is online, and says how it ended.
#[must_use]
pub fn run_on_threads(platform: &SimPlatform, update: &Update<'_>) -> Outcome {
    let lock = &SpinLock::new();
    std::thread::scope(|threads| {
        for lp in platform.online() {
            threads.spawn(move || {
                let lp = platform.lp(lp);
                if let Ok(seamldr) = Seamldr::new(&lp, lock, CurrentVmcs::Preserved) {
                    Cpu::new(update, seamldr).run();
                }
            });
        }
    });
    update.outcome()
}

/// Runs `update` in this thread: LPs make single steps in an order that depends on `seed` alone. If none of them can go on,
/// one gives up. Says how it ended.
#[must_use]
pub fn run_stepped(platform: &SimPlatform, update: &Update<'_>, seed: u64) -> Outcome {
    let lock = SpinLock::new();
    let lps: Vec<_> = platform.online().map(|lp| platform.lp(lp)).collect();
    let mut cpus: Vec<_> = lps
        .iter()
        .filter_map(|lp| Some(Cpu::new(update, Seamldr::new(lp, &lock, CurrentVmcs::Preserved).ok()?)))
        .collect();
    let mut random = seed | 1;
    while !cpus.is_empty() {
        let mut stuck = true;
        // A round: every LP makes one step, in an order of its own.
        for last in (1..cpus.len()).rev() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bound = u64::try_from(last).unwrap_or(0).saturating_add(1);
            let other = random.checked_rem(bound).and_then(|other| usize::try_from(other).ok());
            cpus.swap(last, other.unwrap_or(0));
        }
        cpus.retain_mut(|cpu| {
            let progress = cpu.step();
            stuck &= progress == Progress::Waiting;
            progress != Progress::Finished
        });
        if let Some(cpu) = cpus.first().filter(|_| stuck) {
            cpu.abandon();
        }
    }
    update.outcome()
}
