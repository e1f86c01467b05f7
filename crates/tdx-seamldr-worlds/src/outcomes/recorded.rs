//! The scenarios that were recorded of Linux 7.2's own code on real firmware code, rebuilt: the imitation of its policy has to end as
//! the recording says, and this library to keep the TDs.

use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::SimPlatform;

use super::case::{newer, repair, scenario};
use super::linux;
use crate::world::{all_alive, go_on, update, wrong_claim, Ours};

/// The fate of the TDs, in the words of the recordings.
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

/// A failure of the imitation, in the words of the recordings.
fn failure_name(failed: Option<(u64, Result<u64, Trap>)>) -> Option<(String, String)> {
    let (rax, result) = failed?;
    let leaf = match SeamldrLeaf::from_rax(rax) {
        Some(leaf) => leaf.name().to_owned(),
        None => TdxLeaf::from_rax(rax).name()?.replace("TDH.", ""),
    };
    let result = match result {
        Err(Trap::VmFailInvalid) => "VMfailInvalid".to_owned(),
        Err(trap) => format!("{trap:?}"),
        Ok(rax) if SeamldrLeaf::from_rax(failed?.0).is_some() => SeamldrStatus(rax).name()?.to_owned(),
        Ok(rax) => TdxStatus(rax).name()?.to_owned(),
    };
    Some((leaf, result))
}

/// Replays the scenarios of a folder and prints a table.
///
/// # Errors
///
/// A recording cannot be read, or ends otherwise than recorded.
pub fn run(folder: &Path) -> Result<()> {
    let path = folder.join("scenarios.jsonl");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut problems: Vec<String> = Vec::new();
    let mut rows: Vec<(String, String, String)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let run: Value =
            serde_json::from_str(line).with_context(|| format!("{}:{number}", path.display()))?;
        let field = |name: &str| run.get(name).and_then(Value::as_str).unwrap_or_default();
        if field("mode") != "once" {
            continue;
        }
        let count =
            |name: &str| run.get(name).and_then(Value::as_u64).and_then(|count| u32::try_from(count).ok());
        let (cpus, lps) =
            (count("cpus").context("no cpus")?, count("platform_lps").context("no platform_lps")?);
        let (name, recorded) = (field("scenario"), field("tds_after_linux"));
        let case = scenario(name, cpus, lps)?;
        let old = case.old.build();
        // Linux, imitated.
        let platform = case.world(&old)?;
        let failed = linux::update(&platform, &case.file, case.erratum).err();
        let recorded_errno = run.pointer("/uploads/0/ret").and_then(Value::as_i64).unwrap_or_default();
        let found = fate(&platform);
        // Ten failures in a row on one CPU: which CPU they fall on depends on timing.
        let by_chance = name == "lpinit-entropy-10" && cpus > 1;
        if found != recorded && !by_chance {
            problems.push(format!(
                "{name} with {cpus} CPUs: the imitation of Linux ends {found}, but {recorded} was recorded"
            ));
        }
        let errno = failed.map_or(0, |(errno, _)| i64::from(errno));
        if errno != recorded_errno && !by_chance && found != "platform dead" {
            problems.push(format!("{name} with {cpus} CPUs: {errno}, but {recorded_errno} was recorded"));
        }
        let named = failed.and_then(|(_, call)| failure_name(call));
        let first = run.get("first_failure").filter(|first| !first.is_null() && recorded_errno != 0);
        let wanted = first.and_then(|first| {
            let word = |name: &str| first.get(name)?.as_str().map(str::to_owned);
            Some((word("leaf")?, word("result")?))
        });
        if named != wanted && !by_chance && found != "platform dead" {
            problems.push(format!("{name} with {cpus} CPUs: {named:?}, but {wanted:?} was recorded"));
        }
        // This library.
        let platform = case.world(&old)?;
        let ours = match update(&platform, &case.file, &old, Policy::default(), None)? {
            Ours::Hang => bail!("{name} hangs"),
            Ours::Refused(reason) => {
                if !all_alive(&platform) {
                    problems.push(format!("{name} with {cpus} CPUs: refused, but the TDs are not alive"));
                }
                format!("refused: {reason}")
            }
            Ours::Ran(outcome) => {
                problems.extend(
                    wrong_claim(&platform, &outcome).map(|claim| format!("{name} with {cpus} CPUs: {claim}")),
                );
                let during = outcome.tds_live_on() || all_alive(&platform);
                repair(&platform);
                let end = go_on(&platform, &outcome, &newer().build())?;
                let alive = all_alive(&platform);
                match (during, alive) {
                    (true, true) if outcome.is_updated() => "updated".to_owned(),
                    (true, true) => format!("kept: {}", outcome.code()),
                    (false, true) => format!("held until the fault was over, then {}", end.code()),
                    _ => format!("lost: {end}"),
                }
            }
        };
        rows.push((format!("{name}, {cpus} CPUs"), found.to_owned(), ours));
    }
    println!("| scenario | Linux 7.2's policy | this library |\n|---|---|---|");
    rows.iter().for_each(|(name, linux, ours)| println!("| {name} | {linux} | {ours} |"));
    let scenario_of = |name: &str| name.split(',').next().unwrap_or_default().to_owned();
    let names = |lost: &dyn Fn(&(String, String, String)) -> bool| {
        let names: std::collections::BTreeSet<String> =
            rows.iter().filter(|row| lost(row)).map(|row| scenario_of(&row.0)).collect();
        names
    };
    let all = names(&|_| true);
    let linux = names(&|row| row.1 == "lost" || row.1 == "platform dead");
    let ours = names(&|row| row.2.starts_with("lost"));
    println!(
        "{} scenarios: Linux 7.2's policy loses the TDs in {}, this library in {}: {ours:?}",
        all.len(),
        linux.len(),
        ours.len()
    );
    problems.iter().for_each(|problem| eprintln!("{problem}"));
    ensure!(problems.is_empty(), "{} problems", problems.len());
    let unavoidable = ["full-but-remembered", "seamdb-5", "seamdb-always"];
    ensure!(
        ours.iter().all(|name| unavoidable.contains(&name.as_str())),
        "TDs were lost that could have been kept"
    );
    Ok(())
}
