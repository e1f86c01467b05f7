//! Changes between preflight and the update, and LPs that give up. No update starts if it can only
//! fail, and no outcome makes a false claim.

mod giving_up;
mod somebody;

use anyhow::{ensure, Context, Result};
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::update::{NextStep, Outcome, Update};
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{Answer, Fault, PageBuf, SimPlatform};

use crate::intercepted::{Intercepted, Moment};
use crate::world::{
    boot, drive, drive_hosts, go_on, new_image, old_image, update_after, wrong_claim_of,
    wrong_failure, wrong_image, Absent, Ours, Schedule, TDS,
};
use somebody::Somebody;

/// Calls that an LP cannot make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaves {
    All,
    OfModule,
    OfSeamldr,
}

impl Leaves {
    const ALL: [Self; 3] = [Self::All, Self::OfModule, Self::OfSeamldr];

    /// Returns RAX of each call.
    fn rax(self) -> Vec<Option<u64>> {
        let module = [
            TdxLeaf::SYS_TDMR_INIT,
            TdxLeaf::SYS_RD,
            TdxLeaf::SYS_SHUTDOWN,
            TdxLeaf::SYS_INIT,
            TdxLeaf::SYS_LP_INIT,
            TdxLeaf::SYS_UPDATE,
        ];
        let seamldr = [SeamldrLeaf::Info, SeamldrLeaf::Install, SeamldrLeaf::SeamInfo];
        match self {
            Self::All => vec![None],
            Self::OfModule => module.into_iter().map(|leaf| Some(leaf.rax(0))).collect(),
            Self::OfSeamldr => seamldr.into_iter().map(|leaf| Some(leaf.rax())).collect(),
        }
    }
}

/// A change of the platform after preflight.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// SEAMCALL fails on this LP from now on.
    Trap { lp: u32, trap: Trap, leaves: Leaves },
    /// This LP goes offline. The first `late` LPs that arrive still count it.
    Offline { lp: u32, late: usize },
    /// This LP is counted but never arrives.
    Missing(u32),
    /// Other software calls firmware.
    Somebody(Somebody),
}

/// The time of the change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    /// Before preflight.
    Before,
    /// Between preflight and [`Update::new`].
    Between,
    /// After [`Update::new`], before the first LP arrives.
    After,
}

/// How many updates ended in each way.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    changes: u32,
    /// The module was not shut down.
    untouched: u32,
    updated: u32,
    /// The module was shut down, and the update failed because of the change.
    in_vain: u32,
    /// The same, if P-SEAMLDR only fails to answer one LP other than the lead.
    in_vain_behind_seamldr: u32,
}

/// The images, and the errors found.
struct Sweep {
    old: PageBuf,
    new: PageBuf,
    counts: Counts,
    wrong: Vec<String>,
}

fn add(count: &mut u32, one: bool) {
    *count = count.saturating_add(one.into());
}

/// Returns whether TDH.SYS.SHUTDOWN has succeeded.
fn has_begun(platform: &SimPlatform) -> bool {
    let shutdown = TdxLeaf::SYS_SHUTDOWN;
    platform.trace().iter().any(|entry| {
        TdxLeaf::from_rax(entry.input.rax) == shutdown
            && entry.output.is_ok_and(|regs| regs.rax == 0)
    })
}

/// Returns a description of a false claim of the outcome.
fn wrong(platform: &SimPlatform, outcome: &Outcome) -> Option<String> {
    wrong_claim_of(platform, outcome, TDS)
        .or_else(|| wrong_image(platform, outcome))
        .or_else(|| wrong_failure(platform, outcome))
}

impl Sweep {
    fn new() -> Self {
        let (old, new) = (old_image().build(), new_image().build());
        Self { old, new, counts: Counts::default(), wrong: Vec::new() }
    }

    /// Follows the outcome's next step after all faults have ended. Adds errors that this shows.
    fn go_on(&mut self, what: &str, platform: &SimPlatform, outcome: &Outcome) -> Result<()> {
        platform.clear_faults();
        let end = go_on(platform, outcome, &self.new).with_context(|| what.to_owned())?;
        self.wrong.extend(
            wrong_claim_of(platform, &end, TDS)
                .map(|claim| format!("{what}, after the next step: {claim}")),
        );
        if platform.truth().tds_alive != TDS {
            self.wrong.push(format!("{what}: the TDs do not run again: {outcome}; then {end}"));
        }
        Ok(())
    }

    /// Makes one change at one time, and checks the update.
    fn change(&mut self, lps: u32, change: Change, when: When) -> Result<()> {
        let what = format!("N = {lps}, {change:?}, {when:?}");
        let platform = boot(SimPlatform::builder().lps(lps), &self.old)?;
        if let Change::Somebody(somebody) = change {
            somebody.prepare(&platform);
        }
        let happens = |now: When| -> Result<()> {
            if now == when {
                change.happens(&platform)?;
                // Calls of other software are not part of this update.
                platform.clear_trace();
            }
            Ok(())
        };
        happens(When::Before)?;
        let meanwhile = || {
            happens(When::Between)?;
            // An LP that stays online makes the update.
            let (maker, counted) = match change {
                Change::Offline { lp, .. } if when == When::Between => {
                    (u32::from(lp == 0), lps.saturating_sub(1))
                }
                Change::Offline { lp, .. } => (u32::from(lp == 0), lps),
                _ => (0, lps),
            };
            Ok(Intercepted::new(platform.lp(maker), |_: Moment| ()).counting(counted))
        };
        let mut failed = None;
        let drive = |update: &Update<'_>| {
            failed = happens(When::After).err();
            change.drive(&platform, update)
        };
        let end =
            update_after(&platform, &self.new, Policy::default(), &self.old, meanwhile, drive)?;
        failed.map_or(Ok(()), Err)?;
        let has_begun = has_begun(&platform);
        add(&mut self.counts.changes, true);
        add(&mut self.counts.untouched, !has_begun);
        match end {
            Ours::Hang => self.wrong.push(format!("{what}: the update does not end")),
            Ours::Refused(_) => {
                if has_begun {
                    self.wrong.push(format!(
                        "{what}: the update was refused, but the module is shut down"
                    ));
                }
            }
            Ours::Ran(outcome) => {
                self.wrong
                    .extend(wrong(&platform, &outcome).map(|claim| format!("{what}: {claim}")));
                add(&mut self.counts.updated, outcome.is_updated());
                if has_begun && !outcome.is_updated() {
                    if change.is_behind_seamldr() {
                        add(&mut self.counts.in_vain_behind_seamldr, true);
                    } else {
                        add(&mut self.counts.in_vain, true);
                        self.wrong.push(format!(
                            "{what}: the update could only fail, but started: {outcome}"
                        ));
                    }
                }
                if change.leaves_tds() {
                    self.go_on(&what, &platform, &outcome)?;
                }
            }
        }
        Ok(())
    }
}

impl Change {
    /// Returns all changes of a platform with this number of LPs, with their times.
    fn all(lps: u32) -> Vec<(Self, When)> {
        let mut all = Vec::new();
        let with = |change: Self, times: &[When]| {
            times.iter().map(|when| (change, *when)).collect::<Vec<_>>()
        };
        for lp in 0..lps {
            for trap in Trap::ALL {
                for leaves in Leaves::ALL {
                    let change = Self::Trap { lp, trap, leaves };
                    all.extend(with(change, &[When::Before, When::Between, When::After]));
                }
            }
            all.extend(with(Self::Missing(lp), &[When::After]));
            all.extend(with(Self::Offline { lp, late: 0 }, &[When::Between]));
            // At least one LP sees the new number of LPs.
            let latest = usize::try_from(lps).unwrap_or(0).saturating_sub(1);
            let changes = (0..latest).map(|late| Self::Offline { lp, late });
            all.extend(changes.flat_map(|change| with(change, &[When::After])));
        }
        // With 1 LP, the first call completes the session.
        let possible = |somebody: &Somebody| lps > 1 || *somebody != Somebody::OpensSession;
        let changes = Somebody::ALL.into_iter().filter(possible).map(Self::Somebody);
        all.extend(changes.flat_map(|change| with(change, &[When::Between, When::After])));
        all
    }

    fn happens(&self, platform: &SimPlatform) -> Result<()> {
        match *self {
            Self::Trap { lp, trap, leaves } => {
                for rax in leaves.rax() {
                    let answer = Answer::Trap(trap);
                    platform.inject(Fault { lp: Some(lp), rax, after: 0, times: u32::MAX, answer });
                }
                Ok(())
            }
            Self::Somebody(somebody) => somebody.acts(platform),
            Self::Offline { .. } | Self::Missing(_) => Ok(()),
        }
    }

    fn drive(&self, platform: &SimPlatform, update: &Update<'_>) -> Option<Outcome> {
        match *self {
            Self::Offline { lp: offline, late } => {
                let online: Vec<u32> = platform.online().filter(|lp| *lp != offline).collect();
                let new_count = u32::try_from(online.len()).unwrap_or(0);
                let host = |(index, lp): (usize, &u32)| {
                    let old_count = new_count.saturating_add(1);
                    let lps = if index < late { old_count } else { new_count };
                    Intercepted::new(platform.lp(*lp), |_: Moment| ()).counting(lps)
                };
                let hosts: Vec<_> = online.iter().enumerate().map(host).collect();
                drive_hosts(platform, &hosts, update, &Schedule::default())
            }
            Self::Missing(lp) => drive(platform, update, Some(Absent { lp, after: 0 })),
            Self::Trap { .. } | Self::Somebody(_) => drive(platform, update, None),
        }
    }

    /// Returns whether an LP other than the lead reaches the module but not P-SEAMLDR. No
    /// architectural state does this: a SEAMCALL traps whatever its leaf is, and P-SEAMLDR is ready
    /// for all LPs or for none.
    fn is_behind_seamldr(&self) -> bool {
        matches!(self, Self::Trap { lp: 1.., leaves: Leaves::OfSeamldr, .. })
    }

    /// Returns whether the TDs can run at the end.
    fn leaves_tds(&self) -> bool {
        !matches!(self, Self::Somebody(Somebody::OpensSession))
    }
}

/// Makes every known change after preflight, lets LPs give up at every point, and lets one LP fail
/// permanently from every point on. Prints the results.
///
/// # Errors
///
/// An update starts that can only fail, does not end, makes a false claim, or leaves TDs paused
/// that can run again.
pub fn run() -> Result<()> {
    let mut sweep = Sweep::new();
    let (mut gave_up, mut traps) = (giving_up::Counts::default(), 0u32);
    for lps in [1, 2, 3, 8] {
        for (change, when) in Change::all(lps) {
            sweep.change(lps, change, when)?;
        }
        giving_up::all(&mut sweep, &mut gave_up, lps)?;
    }
    for lps in [1, 2, 3] {
        sweep.traps_from_a_call_on(lps, &mut traps)?;
    }
    let Counts { changes, untouched, updated, in_vain, in_vain_behind_seamldr } = sweep.counts;
    println!(
        "{changes} changes between preflight and update: {untouched} updates touch nothing, \
         {updated} succeed, {in_vain} begin and can only fail ({in_vain_behind_seamldr} more \
         where an LP reaches the module and not P-SEAMLDR, which no processor does)"
    );
    println!("{gave_up}");
    println!("{traps} times an LP fails for good from some call on: the TDs come back with the LP");
    sweep.wrong.iter().take(20).for_each(|wrong| eprintln!("{wrong}"));
    ensure!(
        sweep.wrong.is_empty(),
        "{} wrong claims, hangs, losses or updates in vain",
        sweep.wrong.len()
    );
    Ok(())
}

impl Sweep {
    /// Makes SEAMCALL fail on one LP from some call on, for one leaf or for all. After the LP is
    /// repaired, the TDs run again.
    fn traps_from_a_call_on(&mut self, lps: u32, count: &mut u32) -> Result<()> {
        let leaves: Vec<Option<u64>> = Leaves::ALL.into_iter().flat_map(Leaves::rax).collect();
        for (lp, trap, rax) in (0..lps)
            .flat_map(|lp| Trap::ALL.map(|trap| (lp, trap)))
            .flat_map(|(lp, trap)| leaves.iter().map(move |rax| (lp, trap, *rax)))
        {
            for after in 0..16 {
                let what = format!("N = {lps}, LP {lp}: {trap:?} of {rax:x?} after {after} calls");
                let platform = boot(SimPlatform::builder().lps(lps), &self.old)?;
                let answer = Answer::Trap(trap);
                platform.inject(Fault { lp: Some(lp), rax, after, times: u32::MAX, answer });
                add(count, true);
                let drive = |update: &Update<'_>| drive(&platform, update, None);
                let host = || Ok(platform.lp(0));
                match update_after(&platform, &self.new, Policy::default(), &self.old, host, drive)?
                {
                    Ours::Hang => self.wrong.push(format!("{what}: the update does not end")),
                    Ours::Refused(_) => {}
                    Ours::Ran(outcome) => {
                        self.wrong.extend(
                            wrong(&platform, &outcome).map(|claim| format!("{what}: {claim}")),
                        );
                        self.go_on(&what, &platform, &outcome)?;
                        // A cut-off LP reaches nothing. If it is the only LP, SEAM mode looks
                        // permanently off.
                        ensure!(outcome.next != NextStep::Reboot || lps == 1, "{what}: {outcome}");
                    }
                }
            }
        }
        Ok(())
    }
}
