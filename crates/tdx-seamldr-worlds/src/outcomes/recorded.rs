//! Rebuilds the scenarios that were recorded of Linux 7.2's code on real firmware code. The
//! imitation of Linux has to end as recorded, and this library has to preserve the TDs.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{PageBuf, SimPlatform};

use super::case::{newer, repair, rescue, scenario, Case};
use super::linux;
use crate::world::{all_alive, go_on, update, wrong_claim, Ours};

/// Returns the fate of the TDs, in the words of the recordings.
fn fate(platform: &SimPlatform) -> &'static str {
    let truth = platform.truth();
    if platform.with_model(|model| model.is_dead()) {
        "platform dead"
    } else if !all_alive(platform) {
        "lost"
    } else if truth.svn == (tdx_seamldr_core::abi::Svn { major: 1, minor: 5 })
        && truth.remaining_updates == 63
    {
        "never at risk"
    } else {
        "updated"
    }
}

/// Returns a failure of the imitation, in the words of the recordings.
fn failure_name(failed: Option<(u64, Result<u64, Trap>)>) -> Option<(String, String)> {
    let (rax, result) = failed?;
    let leaf = match SeamldrLeaf::from_rax(rax) {
        Some(leaf) => leaf.name().to_owned(),
        None => TdxLeaf::from_rax(rax).name()?.replace("TDH.", ""),
    };
    let result = match result {
        Err(Trap::VmFailInvalid) => "VMfailInvalid".to_owned(),
        Err(trap) => format!("{trap:?}"),
        Ok(rax) if SeamldrLeaf::from_rax(failed?.0).is_some() => {
            SeamldrStatus(rax).name()?.to_owned()
        }
        Ok(rax) => TdxStatus(rax).name()?.to_owned(),
    };
    Some((leaf, result))
}

/// One recorded run.
struct Run<'a> {
    fields: &'a Value,
    scenario: &'a str,
    mode: &'a str,
    cpus: u32,
    lps: u32,
}

impl<'a> Run<'a> {
    fn new(fields: &'a Value) -> Result<Self> {
        let word = |name: &str| {
            fields.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))
        };
        let count = |name: &str| -> Result<u32> {
            let count = fields.get(name).and_then(Value::as_u64);
            Ok(count.with_context(|| format!("no {name}"))?.try_into()?)
        };
        let (cpus, lps) = (count("cpus")?, count("platform_lps")?);
        Ok(Self { fields, scenario: word("scenario")?, mode: word("mode")?, cpus, lps })
    }

    /// Returns whether the run depends on timing: ten failures in a row may hit any CPU.
    fn is_by_chance(&self) -> bool {
        self.scenario == "lpinit-entropy-10" && self.cpus > 1
    }

    /// Returns the driver's return value of this upload.
    fn returned(&self, upload: usize) -> Result<i64> {
        let pointer = format!("/uploads/{upload}/ret");
        let returned = self.fields.pointer(&pointer).and_then(Value::as_i64);
        returned.with_context(|| format!("{self}: no number {pointer}"))
    }
}

impl fmt::Display for Run<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scenario, cpus, mode, .. } = self;
        write!(f, "{scenario} with {cpus} CPUs ({mode})")
    }
}

/// The fate of the TDs.
struct Fates {
    /// When the update ends.
    first: &'static str,
    /// After all further steps without a reboot.
    last: &'static str,
}

/// Runs the imitation of Linux's policy: one upload. If the TDs do not run, repairs the platform
/// and uploads a valid image. Adds to `problems` if the recording ended differently.
fn by_linux(
    run: &Run<'_>,
    case: &Case,
    old: &PageBuf,
    problems: &mut Vec<String>,
) -> Result<Fates> {
    let platform = case.world(old)?;
    let failed = linux::update(&platform, &case.file, case.erratum).err();
    let errno = |failed: Option<linux::Failed>| failed.map_or(0, |(errno, _)| i64::from(errno));
    let mut returned = vec![errno(failed)];
    let first = fate(&platform);
    if run.mode != "once" || is_harm(first) {
        repair(&platform);
        // In recordings with mode `online`, the offline LP comes back.
        let lps = if run.mode == "twice" { run.cpus } else { run.lps };
        let again = linux::update_on(&platform, 0..lps, &rescue(), case.erratum);
        if run.mode != "once" {
            returned.push(errno(again.err()));
        }
    }
    let last = fate(&platform);
    let found = if run.mode == "once" { first } else { last };
    // If the platform is dead, the driver's return value is meaningless.
    if run.is_by_chance() || found == "platform dead" && Some(found) == recorded_fate(run) {
        return Ok(Fates { first, last });
    }
    if Some(found) != recorded_fate(run) {
        let recorded = recorded_fate(run);
        problems.push(format!(
            "{run}: the imitation of Linux ends with {found:?}, but the recording with {recorded:?}"
        ));
    }
    for (upload, errno) in returned.into_iter().enumerate() {
        let recorded = run.returned(upload)?;
        // The return value of a second upload depends on timing: after one CPU's SEAMLDR.INSTALL
        // failed, other CPUs may have opened a session.
        let is_same = if upload == 0 { errno == recorded } else { (errno == 0) == (recorded == 0) };
        if !is_same {
            problems.push(format!(
                "{run}: upload {upload} returns {errno}, but {recorded} in the recording"
            ));
        }
    }
    let named = failed.and_then(|(_, call)| failure_name(call));
    let has_failed = run.returned(0)? != 0;
    let recorded = run.fields.get("first_failure").filter(|first| !first.is_null() && has_failed);
    let recorded = recorded.and_then(|first| {
        let word = |name: &str| first.get(name)?.as_str().map(str::to_owned);
        Some((word("leaf")?, word("result")?))
    });
    if named != recorded {
        problems.push(format!("{run}: {named:?} fails, but {recorded:?} in the recording"));
    }
    Ok(Fates { first, last })
}

fn recorded_fate<'a>(run: &Run<'a>) -> Option<&'a str> {
    run.fields.get("tds_after_linux").and_then(Value::as_str)
}

fn is_harm(fate: &str) -> bool {
    ["lost", "platform dead"].contains(&fate)
}

/// Runs this library, repairs the platform, and follows the outcome's next step. Returns the
/// outcome's words, too.
fn by_ours(
    run: &Run<'_>,
    case: &Case,
    old: &PageBuf,
    problems: &mut Vec<String>,
) -> Result<(Fates, String)> {
    let platform = case.world(old)?;
    let now = || if all_alive(&platform) { "kept" } else { "lost" };
    let outcome = match update(&platform, &case.file, old, Policy::default(), None)? {
        Ours::Hang => bail!("{run} hangs"),
        Ours::Refused(reason) => {
            return Ok((Fates { first: now(), last: now() }, format!("refused: {reason}")));
        }
        Ours::Ran(outcome) => outcome,
    };
    problems.extend(wrong_claim(&platform, &outcome).map(|claim| format!("{run}: {claim}")));
    let first = now();
    repair(&platform);
    let end = go_on(&platform, &outcome, &newer().build())?;
    let fates = Fates { first, last: now() };
    let said = match (fates.first, fates.last) {
        ("kept", "kept") if outcome.is_updated() => "updated".to_owned(),
        ("kept", "kept") => format!("kept: {}", outcome.code()),
        (_, "kept") => format!("paused; after the repair: {}", end.code()),
        _ => format!("lost: {end}"),
    };
    Ok((fates, said))
}

/// The scenarios in which one policy harms the TDs.
#[derive(Default)]
struct Harm {
    not_running: BTreeSet<String>,
    lost: BTreeSet<String>,
}

impl Harm {
    fn add(&mut self, scenario: &str, fates: &Fates) {
        if is_harm(fates.first) {
            self.not_running.insert(scenario.to_owned());
        }
        if is_harm(fates.last) {
            self.lost.insert(scenario.to_owned());
        }
    }
}

/// P-SEAMLDR destroyed the handoff data (RDX 1) or hit a fatal error: no software can preserve the
/// TDs.
const LOST: [&str; 3] = ["full-but-remembered", "seamdb-5", "seamdb-always"];
/// This library keeps the TDs paused until the platform is repaired.
const HELD: [&str; 6] = [
    "init-entropy-always",
    "lpinit-entropy-always",
    "msr-init-lp",
    "msr-other-lp",
    "rdrand-install",
    "sigstruct-hv-not-built",
];

/// Replays the scenarios of a folder and prints a table.
///
/// # Errors
///
/// A recording cannot be read, the imitation ends differently from the recording, or this library
/// preserves fewer TDs than before.
pub fn run(folder: &Path) -> Result<()> {
    let path = folder.join("scenarios.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut problems: Vec<String> = Vec::new();
    let mut scenarios = BTreeSet::new();
    let (mut linux, mut ours) = (Harm::default(), Harm::default());
    println!("| scenario | Linux 7.2's policy | this library |\n|---|---|---|");
    for (number, line) in (1..).zip(text.lines()) {
        let here = || format!("{}:{number}", path.display());
        let fields: Value = serde_json::from_str(line).with_context(here)?;
        let run = Run::new(&fields).with_context(here)?;
        if !["once", "twice", "online"].contains(&run.mode) {
            continue;
        }
        let case = scenario(run.scenario, run.cpus, run.lps)?;
        let old = case.old.build();
        let by_linux = by_linux(&run, &case, &old, &mut problems)?;
        if run.mode != "once" {
            continue;
        }
        let (by_ours, said) = by_ours(&run, &case, &old, &mut problems)?;
        println!("| {}, {} CPUs | {} | {said} |", run.scenario, run.cpus, by_linux.first);
        scenarios.insert(run.scenario.to_owned());
        linux.add(run.scenario, &by_linux);
        ours.add(run.scenario, &by_ours);
    }
    let counts = |harm: &Harm| (harm.not_running.len(), harm.lost.len());
    let ((linux_stops, linux_loses), (ours_stops, ours_loses)) = (counts(&linux), counts(&ours));
    println!(
        "{} scenarios. TDs not running when the update ends: Linux 7.2's policy {linux_stops}, \
         this library {ours_stops}. TDs lost after everything that can be done in this boot: \
         Linux 7.2's policy {linux_loses}, this library {ours_loses}: {:?}",
        scenarios.len(),
        ours.lost
    );
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty(), "{} problems", problems.len());
    let is_known = |name: &String| LOST.contains(&name.as_str());
    ensure!(
        ours.lost.iter().all(is_known),
        "TDs were lost needlessly in these scenarios: {:?}",
        ours.lost
    );
    let is_known = |name: &String| is_known(name) || HELD.contains(&name.as_str());
    ensure!(
        ours.not_running.iter().all(is_known),
        "TDs are paused needlessly in these scenarios: {:?}",
        ours.not_running
    );
    Ok(())
}
