//! Makes each call of an update fail once, in every known way; and takes each LP away once, from
//! every point on.

use std::fmt;

use anyhow::{ensure, Result};
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::update::{NextStep, TdFate};
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{Answer, Fault, PageBuf, SimPlatform};

use super::linux;
use crate::world::{
    all_alive, boot, drive, go_on, new_image, old_image, says_something, update, update_by,
    wrong_claim, wrong_image, Absent, Ours,
};

/// Number of scenarios in which one policy harms the TDs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Harm {
    /// The TDs do not run when the update ends: they are paused or lost.
    pub not_running: u32,
    /// The TDs do not run after all further steps without a reboot.
    pub lost: u32,
}

impl Harm {
    fn count_not_running(&mut self, platform: &SimPlatform) {
        self.not_running = self.not_running.saturating_add((!all_alive(platform)).into());
    }

    fn count_lost(&mut self, platform: &SimPlatform) {
        self.lost = self.lost.saturating_add((!all_alive(platform)).into());
    }
}

/// The end of an update by this library, and the result of its next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Preflight refuses: no update begins.
    Refused,
    /// The update ends.
    Ended {
        /// The fate of the TDs.
        tds: TdFate,
        /// The next step of the outcome.
        next: NextStep,
        /// Whether the TDs run after the next step.
        alive: bool,
    },
}

/// Number of scenarios, and of those in which the TDs are harmed.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Number of scenarios.
    pub scenarios: u32,
    /// Harm by Linux 7.2's policy.
    pub linux: Harm,
    /// Harm by this library.
    pub ours: Harm,
    /// Number of scenarios in which P-SEAMLDR itself destroys the handoff data.
    pub destroyed: u32,
    /// Number of scenarios for each end of this library's update.
    pub ends: Vec<(End, u32)>,
}

impl Counts {
    fn count_end(&mut self, end: End) {
        match self.ends.iter_mut().find(|(known, _)| *known == end) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => self.ends.push((end, 1)),
        }
    }
}

/// The counts for each number of LPs.
#[derive(Clone, Debug)]
pub(super) struct Table(pub(super) Vec<(u32, Counts)>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "| LPs | scenarios | not running when the update ends: Linux 7.2's policy | this \
             library "
        )?;
        write!(
            f,
            "| lost after everything that can be done in this boot: Linux 7.2's policy | this \
             library "
        )?;
        write!(f, "| destroyed by P-SEAMLDR itself (RDX 1) |\n|---|---|---|---|---|---|---|")?;
        for (lps, Counts { scenarios, linux, ours, destroyed, .. }) in &self.0 {
            write!(f, "\n| {lps} | {scenarios} | {} | {} ", linux.not_running, ours.not_running)?;
            write!(f, "| {} | {} | {destroyed} |", linux.lost, ours.lost)?;
        }
        Ok(())
    }
}

/// A fault or an absent LP.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Call(Fault),
    Stays(Absent),
}

impl Trouble {
    /// Returns whether the TDs are lost whatever any software does.
    pub(super) fn is_the_end(&self) -> bool {
        matches!(self, Self::Call(Fault { answer: Answer::Return { rdx: 1.., .. }, .. }))
    }

    /// Returns whether the fault makes the module's state look different from the real one. Two
    /// such answers in a row are believed.
    fn is_a_lie(&self) -> bool {
        let Self::Call(Fault {
            rax: Some(rax), answer: Answer::Return { rax: status, .. }, ..
        }) = self
        else {
            return false;
        };
        TdxLeaf::from_rax(*rax) == TdxLeaf::SYS_TDMR_INIT && says_something(*rax, *status)
    }

    /// Returns whether the fault can affect a call before the update starts.
    fn may_be_refused(&self) -> bool {
        let asks = |rax| {
            let of_loader = [SeamldrLeaf::Info, SeamldrLeaf::SeamInfo];
            TdxLeaf::from_rax(rax) == TdxLeaf::SYS_RD
                || SeamldrLeaf::from_rax(rax).is_some_and(|leaf| of_loader.contains(&leaf))
        };
        matches!(self, Self::Call(Fault { rax: Some(rax), .. }) if asks(*rax))
    }
}

/// The calls of an update without a fault.
struct Calls {
    /// RAX of each call, and how often it is made from preflight on.
    by_rax: Vec<(u64, u32)>,
    /// Each LP, and its number of calls from the first stage on.
    by_lp: Vec<(u32, usize)>,
}

fn calls(lps: u32) -> Result<Calls> {
    let (old, new) = (old_image().build(), new_image().build());
    let platform = boot(SimPlatform::builder().lps(lps), &old)?;
    let mut before = 0;
    let end = update_by(&platform, &new, &old, Policy::default(), |update| {
        before = platform.num_calls();
        drive(&platform, update, None)
    })?;
    ensure!(
        matches!(end, Ours::Ran(outcome) if outcome.is_updated()),
        "the update with N = {lps} and no fault ends with {end:?}"
    );
    let trace = platform.trace();
    let mut by_rax: Vec<(u64, u32)> = Vec::new();
    for entry in &trace {
        match by_rax.iter_mut().find(|(rax, _)| *rax == entry.input.rax) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => by_rax.push((entry.input.rax, 1)),
        }
    }
    let calls_of = |lp| trace.iter().skip(before).filter(|entry| entry.lp == lp).count();
    Ok(Calls { by_rax, by_lp: (0..lps).map(|lp| (lp, calls_of(lp))).collect() })
}

/// Returns all faults of an update by this number of LPs.
pub(super) fn troubles(lps: u32) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    let calls = calls(lps)?;
    for (rax, count) in calls.by_rax {
        let answers: Vec<Answer> = match SeamldrLeaf::from_rax(rax) {
            Some(leaf) => {
                let rdx = if leaf == SeamldrLeaf::Install { 0..2 } else { 0..1 };
                let failures = SeamldrStatus::TABLE.iter().map(|row| row.status);
                let failures = failures.filter(|status| *status != SeamldrStatus::SUCCESS);
                failures
                    .flat_map(|status| {
                        rdx.clone().map(move |rdx| Answer::Return { rax: status.0, rdx })
                    })
                    .collect()
            }
            None => {
                let failures = TdxStatus::TABLE.iter().map(|row| row.status);
                failures
                    .filter(|status| {
                        *status != TdxStatus::SUCCESS && Trap::from_status(*status).is_none()
                    })
                    .map(|status| Answer::Return { rax: status.0, rdx: 0 })
                    .collect()
            }
        };
        for answer in answers.into_iter().chain(Trap::ALL.map(Answer::Trap)) {
            troubles.extend((0..count).map(|after| {
                Trouble::Call(Fault { lp: None, rax: Some(rax), after, times: 1, answer })
            }));
        }
    }
    for (lp, calls) in calls.by_lp {
        // After its last call, the lead (LP 0) has no further part in the update. The other LPs
        // still have to see its end.
        let points = if lp == 0 { calls } else { calls.saturating_add(1) };
        troubles.extend((0..points).map(|after| Trouble::Stays(Absent { lp, after })));
    }
    Ok(troubles)
}

/// A deterministic sequence of numbers.
struct Numbers(u64);

impl Numbers {
    /// Returns a number below `limit`.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.0.checked_rem(limit).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }
}

/// Makes pairs of faults at random places. Every update ends, and no outcome makes a false claim.
///
/// # Errors
///
/// An update does not end or makes a false claim.
pub fn pairs(count: u64) -> Result<()> {
    let (old, new) = (old_image().build(), new_image().build());
    let mut all = (1..=4).map(troubles).collect::<Result<Vec<_>>>()?;
    all.iter_mut().for_each(|troubles| troubles.retain(|trouble| !trouble.is_a_lie()));
    let mut wrong = Vec::new();
    for seed in 0..count {
        let mut numbers = Numbers(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        numbers.below(1);
        let index = numbers.below(4);
        let Some(choices) = all.get(index) else { continue };
        let lps = u32::try_from(index)?.saturating_add(1);
        let platform = boot(SimPlatform::builder().lps(lps), &old)?;
        let mut absent = None;
        let mut what = Vec::new();
        for _ in 0..2 {
            match choices.get(numbers.below(choices.len())) {
                Some(Trouble::Call(fault)) => {
                    let times = u32::try_from(numbers.below(3))?.saturating_add(1);
                    platform.inject(Fault { times, ..*fault });
                    what.push(format!("{times} times {fault:?}"));
                }
                Some(Trouble::Stays(stays)) => {
                    absent = Some(*stays);
                    what.push(format!("{stays:?}"));
                }
                None => {}
            }
        }
        match update(&platform, &new, &old, Policy::default(), absent)? {
            Ours::Hang => {
                wrong.push(format!("seed {seed}, N = {lps}, {what:?}: the update does not end"))
            }
            Ours::Refused(_) => {}
            Ours::Ran(outcome) => wrong.extend(
                wrong_claim(&platform, &outcome)
                    .or_else(|| wrong_image(&platform, &outcome))
                    .map(|claim| format!("seed {seed}, N = {lps}, {what:?}: {claim}")),
            ),
        }
    }
    wrong.iter().take(20).for_each(|wrong| eprintln!("{wrong}"));
    ensure!(wrong.is_empty(), "{} wrong claims or hangs in {count} pairs of faults", wrong.len());
    println!("{count} pairs of faults: no hang, no wrong claim");
    Ok(())
}

/// Runs Linux 7.2's policy, repairs the platform, and uploads the same file again.
fn by_linux(platform: &SimPlatform, trouble: &Trouble, file: &PageBuf, harm: &mut Harm) {
    let failed = linux::update(platform, file, false).is_err();
    if matches!(trouble, Trouble::Stays(_)) {
        // In stop_machine all other LPs wait for the absent LP. No LP gives up, so no TD runs. When
        // the LP comes back, the update continues as usual.
        harm.not_running = harm.not_running.saturating_add(1);
    } else {
        harm.count_not_running(platform);
        platform.clear_faults();
        if failed {
            // The return value is irrelevant here.
            let _ = linux::update(platform, file, false);
        }
    }
    harm.count_lost(platform);
}

/// Runs this library, repairs the platform, and follows the outcome's next step. Returns the
/// errors.
fn by_ours(
    platform: &SimPlatform,
    trouble: &Trouble,
    [old, new]: [&PageBuf; 2],
    counts: &mut Counts,
) -> Result<Vec<String>> {
    let absent = if let Trouble::Stays(absent) = trouble { Some(*absent) } else { None };
    let outcome = match update(platform, new, old, Policy::default(), absent)? {
        Ours::Hang => return Ok(vec!["the update does not end".to_owned()]),
        Ours::Refused(_) if trouble.may_be_refused() && all_alive(platform) => {
            counts.count_end(End::Refused);
            return Ok(Vec::new());
        }
        Ours::Refused(reason) => return Ok(vec![format!("refused: {reason}")]),
        Ours::Ran(outcome) => outcome,
    };
    let claim = wrong_claim(platform, &outcome).or_else(|| wrong_image(platform, &outcome));
    counts.ours.count_not_running(platform);
    // With all LPs present, the update itself overcomes a call that fails once.
    let is_paused =
        !all_alive(platform) && !trouble.is_the_end() && matches!(trouble, Trouble::Call(_));
    let is_paused = is_paused.then(|| format!("the TDs are paused needlessly: {outcome}"));
    platform.clear_faults();
    let end = go_on(platform, &outcome, new)?;
    counts.ours.count_lost(platform);
    let (tds, next, alive) = (outcome.tds, outcome.next, all_alive(platform));
    counts.count_end(End::Ended { tds, next, alive });
    let afterwards =
        wrong_claim(platform, &end).map(|claim| format!("after the next step: {claim}"));
    let is_lost = !all_alive(platform) && !trouble.is_the_end();
    let lost = is_lost.then(|| format!("the TDs are lost: {outcome}; then {end}"));
    Ok(claim.into_iter().chain(is_paused).chain(afterwards).chain(lost).collect())
}

pub(super) fn run() -> Result<Table> {
    let (old, new) = (old_image().build(), new_image().build());
    let v2 = super::case::newer().build();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for lps in [1, 2, 3, 8] {
        let mut counts = Counts::default();
        for trouble in troubles(lps)? {
            let world = || -> Result<SimPlatform> {
                let platform = boot(SimPlatform::builder().lps(lps), &old)?;
                if let Trouble::Call(fault) = trouble {
                    platform.inject(fault);
                }
                Ok(platform)
            };
            by_linux(&world()?, &trouble, &v2, &mut counts.linux);
            let found = by_ours(&world()?, &trouble, [&old, &new], &mut counts)?;
            wrong.extend(found.into_iter().map(|what| format!("N = {lps}, {trouble:?}: {what}")));
            counts.scenarios = counts.scenarios.saturating_add(1);
            counts.destroyed = counts.destroyed.saturating_add(trouble.is_the_end().into());
        }
        rows.push((lps, counts));
    }
    wrong.iter().take(20).for_each(|wrong| eprintln!("{wrong}"));
    ensure!(wrong.is_empty(), "{} wrong claims, hangs or losses", wrong.len());
    Ok(Table(rows))
}
