//! Counts the SEAMCALLs while all CPUs are stopped, in the trace of simulated updates.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use anyhow::{bail, ensure, Context, Result};
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::update::Call;
use tdx_seamldr_mock::model::TraceEntry;
use tdx_seamldr_mock::SimPlatform;

use crate::outcomes::case::newer;
use crate::outcomes::linux;
use crate::world::{boot, drive, new_image, old_image, update_by, Ours};

/// Numbers of LPs for which calls are counted.
const LPS: [u32; 4] = [1, 2, 8, 64];

/// Number of calls in an update by N LPs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Formula {
    /// Number of calls for each LP.
    per_lp: u32,
    /// Number of further calls.
    once: u32,
}

impl Formula {
    const ONCE: Self = Self { per_lp: 0, once: 1 };
    const ON_EACH_LP: Self = Self { per_lp: 1, once: 0 };

    fn count(self, lps: u32) -> usize {
        let count = self.per_lp.saturating_mul(lps).saturating_add(self.once);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    fn plus(self, other: Self) -> Self {
        Self {
            per_lp: self.per_lp.saturating_add(other.per_lp),
            once: self.once.saturating_add(other.once),
        }
    }

    fn text(self) -> String {
        match self {
            Self { per_lp: 0, once } => once.to_string(),
            Self { per_lp: 1, once: 0 } => "N".to_owned(),
            Self { per_lp: 1, once } => format!("N+{once}"),
            Self { per_lp, once: 0 } => format!("{per_lp}N"),
            Self { per_lp, once } => format!("{per_lp}N+{once}"),
        }
    }
}

/// A call while all CPUs are stopped.
struct Row {
    /// The call.
    call: Call,
    /// How often the call is made. Each LP makes a per-LP call once.
    times: Formula,
    /// Which LP makes the call, and whether LPs make it at the same time.
    order: &'static str,
    /// Purpose of the call.
    why: &'static str,
    /// Whether the call is part of every update. Other calls check what preflight saw.
    is_the_update: bool,
}

/// All calls, in order.
const ROWS: [Row; 7] = [
    Row {
        call: Call::Tdx(TdxLeaf::SYS_TDMR_INIT),
        times: Formula::ON_EACH_LP,
        order: "parallel",
        why: "the LP reaches the module, and the module runs; the address is none, so the module \
              does nothing",
        is_the_update: false,
    },
    Row {
        call: Call::Seamldr(SeamldrLeaf::Info),
        times: Formula::ONCE,
        order: "serial: the lead LP, under P-SEAMLDR's lock",
        why: "the module is the one that preflight saw, and an update remains",
        is_the_update: false,
    },
    Row {
        call: Call::Tdx(TdxLeaf::SYS_SHUTDOWN),
        times: Formula::ONCE,
        order: "serial: the lead LP",
        why: "the old module stops and leaves handoff data",
        is_the_update: true,
    },
    Row {
        call: Call::Seamldr(SeamldrLeaf::Install),
        times: Formula::ON_EACH_LP,
        order: "serial: each LP, under P-SEAMLDR's lock",
        why: "P-SEAMLDR puts the new module in place when the last LP calls",
        is_the_update: true,
    },
    Row {
        call: Call::Tdx(TdxLeaf::SYS_INIT),
        times: Formula::ONCE,
        order: "serial: the last LP of INSTALL",
        why: "the new module needs it first; the answer also tells whether P-SEAMLDR's session is \
              complete",
        is_the_update: true,
    },
    Row {
        call: Call::Tdx(TdxLeaf::SYS_LP_INIT),
        times: Formula::ON_EACH_LP,
        order: "parallel",
        why: "the new module needs it on every LP",
        is_the_update: true,
    },
    Row {
        call: Call::Tdx(TdxLeaf::SYS_UPDATE),
        times: Formula::ONCE,
        order: "serial: the lead LP",
        why: "the new module takes the handoff data over",
        is_the_update: true,
    },
];

/// The calls of Linux 7.2. Linux also reads the handoff version before the shutdown, and three
/// parts of the version at the end.
const LINUX: Formula = Formula { per_lp: 2, once: 7 };

fn call(entry: &TraceEntry) -> Call {
    let rax = entry.input.rax;
    SeamldrLeaf::from_rax(rax).map_or(Call::Tdx(TdxLeaf::from_rax(rax)), Call::Seamldr)
}

fn total(is_counted: impl Fn(&Row) -> bool) -> Formula {
    let rows = ROWS.iter().filter(|row| is_counted(row));
    rows.fold(Formula { per_lp: 0, once: 0 }, |sum, row| sum.plus(row.times))
}

/// Checks that the trace has the calls of [`ROWS`], in order, each as often as its formula says.
fn check(lps: u32, trace: &[TraceEntry]) -> Result<()> {
    let mut rest = trace;
    for Row { call: this, times, .. } in &ROWS {
        let others = rest.iter().position(|entry| call(entry) != *this);
        let (these, after) = rest.split_at(others.unwrap_or(rest.len()));
        rest = after;
        let wanted = times.count(lps);
        ensure!(
            these.len() == wanted,
            "calls of {this} with N = {lps}: found {}, expected {wanted}",
            these.len()
        );
        let callers: BTreeSet<u32> = these.iter().map(|entry| entry.lp).collect();
        ensure!(
            callers.len() == wanted,
            "calls of {this} with N = {lps}: one LP calls more than once"
        );
    }
    match rest.first() {
        Some(entry) => bail!("unexpected call with N = {lps}: {}", call(entry)),
        None => Ok(()),
    }
}

/// Returns the calls of a simulated update by this library, from the first stage on.
fn ours(lps: u32) -> Result<Vec<TraceEntry>> {
    let (old, new) = (old_image().build(), new_image().build());
    let platform = boot(SimPlatform::builder().lps(lps), &old)?;
    let end = update_by(&platform, &new, &old, Policy::default(), |update| {
        platform.clear_trace();
        drive(&platform, update, None)
    })?;
    ensure!(
        matches!(end, Ours::Ran(outcome) if outcome.is_updated()),
        "the update with N = {lps} does not succeed: {end:?}"
    );
    Ok(platform.trace())
}

/// Returns the calls of a simulated update by Linux 7.2's policy.
fn of_linux(lps: u32) -> Result<Vec<TraceEntry>> {
    let platform = boot(SimPlatform::builder().lps(lps), &old_image().build())?;
    let end = linux::update(&platform, &newer().build(), false);
    ensure!(end.is_ok(), "Linux's policy with N = {lps} fails: {end:?}");
    Ok(platform.trace())
}

/// Counts the calls and returns the tables.
///
/// # Errors
///
/// An update fails, or makes other calls than the table says.
pub fn tables() -> Result<String> {
    let mut text = "| call | times | order | why |\n|---|---:|---|---|\n".to_owned();
    for Row { call, times, order, why, .. } in &ROWS {
        let _ = writeln!(text, "| {call} | {} | {order} | {why} |", times.text());
    }
    let (all, of_update) = (total(|_| true), total(|row| row.is_the_update));
    let _ = write!(
        text,
        "\nCalls in all, counted in the trace of simulated updates:\n\n| N | this library: {} | \
         of these the update itself: {} | Linux 7.2's policy: {} |\n|---:|---:|---:|---:|",
        all.text(),
        of_update.text(),
        LINUX.text()
    );
    for lps in LPS {
        let (ours, linux) = (ours(lps)?, of_linux(lps)?);
        check(lps, &ours).context("this library")?;
        let wanted = LINUX.count(lps);
        ensure!(
            linux.len() == wanted,
            "calls of Linux's policy with N = {lps}: found {}, expected {wanted}",
            linux.len()
        );
        let is_of_update = |entry: &&TraceEntry| {
            ROWS.iter().any(|row| row.is_the_update && row.call == call(entry))
        };
        let _ = write!(
            text,
            "\n| {lps} | {} | {} | {} |",
            ours.len(),
            ours.iter().filter(is_of_update).count(),
            linux.len()
        );
    }
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_update_makes_3n_plus_4_calls_of_which_2n_plus_3_are_part_of_every_update() {
        assert_eq!(total(|_| true).text(), "3N+4");
        assert_eq!(total(|row| row.is_the_update).text(), "2N+3");
        assert_eq!(total(|row| !row.is_the_update).text(), "N+1");
    }

    #[test]
    fn errors_name_an_extra_a_missing_and_a_repeated_call() {
        let good = ours(2).unwrap();
        check(2, &good).unwrap();
        let error = |change: &dyn Fn(&mut Vec<TraceEntry>)| {
            let mut trace = good.clone();
            change(&mut trace);
            check(2, &trace).unwrap_err().to_string()
        };
        let last = *good.last().unwrap();
        assert_eq!(
            error(&|trace| _ = trace.remove(0)),
            "calls of TDH.SYS.TDMR.INIT with N = 2: found 1, expected 2"
        );
        assert_eq!(
            error(&|trace| trace.push(last)),
            "calls of TDH.SYS.UPDATE with N = 2: found 2, expected 1"
        );
        let first = *good.first().unwrap();
        assert_eq!(
            error(&|trace| trace.push(first)),
            "unexpected call with N = 2: TDH.SYS.TDMR.INIT"
        );
        let twice = error(&|trace| trace.iter_mut().for_each(|entry| entry.lp = 0));
        assert_eq!(twice, "calls of TDH.SYS.TDMR.INIT with N = 2: one LP calls more than once");
        assert_eq!(
            error(&|trace| trace.swap(1, 2)),
            "calls of TDH.SYS.TDMR.INIT with N = 2: found 1, expected 2"
        );
    }
}
