//! Every call of an update fails once, in every way that is known; and every LP stays away once, from every point on.

use std::fmt;

use anyhow::{ensure, Result};
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{Answer, Fault, SimPlatform};

use super::linux;
use crate::world::{
    all_alive, boot, go_on, new_image, old_image, says_something, update, wrong_claim, wrong_image, Absent,
    Ours,
};

/// How many scenarios there were, and in how many of them the TDs were lost.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    scenarios: u32,
    lost_by_linux: u32,
    lost_by_ours: u32,
    lost_by_nature: u32,
}

/// The counts, for each number of LPs.
pub(super) struct Table(Vec<(u32, Counts)>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| LPs | scenarios | TDs lost by Linux 7.2's policy | TDs lost by this library | nobody could have kept them |")?;
        write!(f, "|---|---|---|---|---|")?;
        for (lps, counts) in &self.0 {
            let Counts { scenarios, lost_by_linux, lost_by_ours, lost_by_nature } = counts;
            write!(f, "\n| {lps} | {scenarios} | {lost_by_linux} | {lost_by_ours} | {lost_by_nature} |")?;
        }
        Ok(())
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Call(Fault),
    Stays(Absent),
}

impl Trouble {
    /// Whether the TDs are gone by what happens, whatever anybody does about it.
    pub(super) fn is_the_end(&self) -> bool {
        matches!(self, Self::Call(Fault { answer: Answer::Return { rdx: 1.., .. }, .. }))
    }

    /// Whether the call that asks how far the module has come gets an answer that claims something else than the truth. Two of these
    /// answers in a row are believed.
    fn is_a_lie(&self) -> bool {
        let Self::Call(Fault { rax: Some(rax), answer: Answer::Return { rax: status, .. }, .. }) = self
        else {
            return false;
        };
        TdxLeaf::from_rax(*rax) == TdxLeaf::SYS_TDMR_INIT && says_something(*rax, *status)
    }

    /// Whether it can come at a call that is made before the update begins.
    fn may_be_refused(&self) -> bool {
        let asks = |rax| {
            let of_loader = [SeamldrLeaf::Info, SeamldrLeaf::SeamInfo];
            TdxLeaf::from_rax(rax) == TdxLeaf::SYS_RD
                || SeamldrLeaf::from_rax(rax).is_some_and(|leaf| of_loader.contains(&leaf))
        };
        matches!(self, Self::Call(Fault { rax: Some(rax), .. }) if asks(*rax))
    }
}

/// How often an update by so many LPs makes each call, from the first check on, if nothing goes wrong.
fn calls(lps: u32) -> Result<Vec<(u64, u32)>> {
    let (old, new) = (old_image().build(), new_image().build());
    let platform = boot(SimPlatform::builder().lps(lps), &old)?;
    let end = update(&platform, &new, &old, Policy::default(), None)?;
    ensure!(matches!(end, Ours::Ran(outcome) if outcome.is_updated()), "{lps} LPs: {end:?} without a fault");
    let mut calls: Vec<(u64, u32)> = Vec::new();
    for entry in platform.trace() {
        match calls.iter_mut().find(|(rax, _)| *rax == entry.input.rax) {
            Some((_, count)) => *count = count.saturating_add(1),
            None => calls.push((entry.input.rax, 1)),
        }
    }
    Ok(calls)
}

/// Everything that can happen to an update by so many LPs.
pub(super) fn troubles(lps: u32) -> Result<Vec<Trouble>> {
    let mut troubles = Vec::new();
    for (rax, count) in calls(lps)? {
        let answers: Vec<Answer> = match SeamldrLeaf::from_rax(rax) {
            Some(leaf) => {
                let rdx = if leaf == SeamldrLeaf::Install { 0..2 } else { 0..1 };
                let failures = SeamldrStatus::TABLE.iter().map(|row| row.status);
                let failures = failures.filter(|status| *status != SeamldrStatus::SUCCESS);
                failures
                    .flat_map(|status| rdx.clone().map(move |rdx| Answer::Return { rax: status.0, rdx }))
                    .collect()
            }
            None => {
                let failures = TdxStatus::TABLE.iter().map(|row| row.status);
                failures
                    .filter(|status| *status != TdxStatus::SUCCESS && Trap::from_status(*status).is_none())
                    .map(|status| Answer::Return { rax: status.0, rdx: 0 })
                    .collect()
            }
        };
        for answer in answers.into_iter().chain(Trap::ALL.map(Answer::Trap)) {
            troubles.extend(
                (0..count)
                    .map(|after| Trouble::Call(Fault { lp: None, rax: Some(rax), after, times: 1, answer })),
            );
        }
    }
    for lp in 0..lps {
        // From the beginning of the update the lead makes up to 8 calls, others 2.
        let calls = if lp == 0 { 8 } else { 2 };
        troubles.extend((0..calls).map(|after| Trouble::Stays(Absent { lp, after })));
    }
    Ok(troubles)
}

/// Numbers without chance.
struct Numbers(u64);

impl Numbers {
    /// A number below this one.
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let limit = u64::try_from(limit).unwrap_or(u64::MAX);
        self.0.checked_rem(limit).and_then(|number| usize::try_from(number).ok()).unwrap_or(0)
    }
}

/// Two faults at once, at random places: no update hangs, and none claims what is not so.
///
/// # Errors
///
/// An update hangs or claims what is not so.
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
            Ours::Hang => wrong.push(format!("seed {seed}, {lps} LPs, {what:?}: it hangs")),
            Ours::Refused(_) => {}
            Ours::Ran(outcome) => wrong.extend(
                wrong_claim(&platform, &outcome)
                    .or_else(|| wrong_image(&platform, &outcome))
                    .map(|claim| format!("seed {seed}, {lps} LPs, {what:?}: {claim}")),
            ),
        }
    }
    wrong.iter().take(20).for_each(|wrong| eprintln!("{wrong}"));
    ensure!(wrong.is_empty(), "{} wrong claims or hangs in {count} pairs of faults", wrong.len());
    println!("{count} pairs of faults: no hang, no wrong claim");
    Ok(())
}

pub(super) fn run() -> Result<Table> {
    let (old, new) = (old_image().build(), new_image().build());
    let v2 =
        tdx_seamldr_mock::TestImage { format: tdx_seamldr_core::image::ImageFormat::ImageV2, ..new_image() };
    let v2 = v2.build();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for lps in [1, 2, 3, 8] {
        let mut counts = Counts::default();
        for trouble in troubles(lps)? {
            counts.scenarios = counts.scenarios.saturating_add(1);
            let world = || -> Result<SimPlatform> {
                let platform = boot(SimPlatform::builder().lps(lps), &old)?;
                if let Trouble::Call(fault) = trouble {
                    platform.inject(fault);
                }
                Ok(platform)
            };
            let platform = world()?;
            // An LP that stays away under stop_machine makes Linux wait for it for ever.
            let hangs = matches!(trouble, Trouble::Stays(_));
            let lost = hangs || linux::update(&platform, &v2, false).is_err() && !all_alive(&platform);
            counts.lost_by_linux = counts.lost_by_linux.saturating_add(lost.into());

            let platform = world()?;
            let absent = if let Trouble::Stays(absent) = trouble { Some(absent) } else { None };
            match update(&platform, &new, &old, Policy::default(), absent)? {
                Ours::Hang => wrong.push(format!("{lps} LPs, {trouble:?}: it hangs")),
                Ours::Refused(_) if trouble.may_be_refused() && all_alive(&platform) => {}
                Ours::Refused(reason) => wrong.push(format!("{lps} LPs, {trouble:?}: refused: {reason}")),
                Ours::Ran(outcome) => {
                    if let Some(claim) =
                        wrong_claim(&platform, &outcome).or_else(|| wrong_image(&platform, &outcome))
                    {
                        wrong.push(format!("{lps} LPs, {trouble:?}: {claim}"));
                    }
                    platform.clear_faults();
                    let end = go_on(&platform, &outcome, &new)?;
                    if let Some(claim) = wrong_claim(&platform, &end) {
                        wrong.push(format!("{lps} LPs, {trouble:?}, going on: {claim}"));
                    }
                    counts.lost_by_ours = counts.lost_by_ours.saturating_add((!all_alive(&platform)).into());
                    if !all_alive(&platform) && !trouble.is_the_end() {
                        wrong
                            .push(format!("{lps} LPs, {trouble:?}: the TDs are lost: {outcome}; then {end}"));
                    }
                }
            }
            counts.lost_by_nature = counts.lost_by_nature.saturating_add(trouble.is_the_end().into());
        }
        rows.push((lps, counts));
    }
    wrong.iter().take(20).for_each(|wrong| eprintln!("{wrong}"));
    ensure!(wrong.is_empty(), "{} wrong claims, hangs or losses", wrong.len());
    Ok(Table(rows))
}
