//! Updates that must fail and whose failure can be predicted. Linux 7.2's policy leaves the check
//! to the administrator.

use std::fmt;

use anyhow::{bail, ensure, Result};
use tdx_seamldr_core::abi::TdxFeatures0;
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, TdPhase};
use tdx_seamldr_mock::{SimPlatform, TestImage};

use super::case::{newer, scenario, Case};
use super::linux;
use crate::world::{all_alive, old_image, update, wrong_claim, Ours};

/// Description, scenario, number of LPs that take part, and number of LPs of the platform.
const SCENARIOS: [(&str, &str, u32, u32); 13] = [
    ("an LP is offline", "cpu-offline-2", 2, 3),
    ("no update remains", "remaining-0-full", 2, 2),
    ("no update remains, by a count that is out of date", "remaining-0", 2, 2),
    ("the file has no module pages", "zero-module-pages", 2, 2),
    ("the file has no SIGSTRUCT page", "zero-sig-pages", 2, 2),
    ("the processor is not in the image's list", "cpu-not-listed", 2, 2),
    ("the image has a lower SVN", "lower-minor-svn", 2, 2),
    ("the new module takes lower handoff versions only", "hv-old1-new0", 2, 2),
    ("the new module takes higher handoff versions only", "hv-old0-new1-min1", 2, 2),
    ("the image is damaged", "module-byte-flipped", 2, 2),
    ("another key signed the image", "untrusted-signer", 2, 2),
    ("the module needs more memory than there is", "memory-too-small", 2, 2),
    ("the CPU loses its VMCS pointer", "erratum", 2, 2),
];

/// Description, fate of the TDs with Linux 7.2's policy, and with this library.
#[derive(Debug)]
pub(super) struct Table(Vec<(&'static str, &'static str, String)>);

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| misuse | Linux 7.2's policy: TDs | this library: TDs |\n|---|---|---|")?;
        self.0
            .iter()
            .try_for_each(|(what, linux, ours)| write!(f, "\n| {what} | {linux} | {ours} |"))
    }
}

/// Returns an update while a TD is in build, by a module that counts such TDs or by one that does
/// not.
fn td_in_build(knows: bool) -> Case {
    let features0 = if knows { TdxFeatures0::UPDATE_COMPATIBILITY } else { TdxFeatures0::empty() };
    let build = ModuleBuild {
        features0: ModuleBuild::V1_5_01.features0 | features0,
        handoff_form: if knows { HandoffForm::Counting } else { HandoffForm::Plain },
        ..ModuleBuild::V1_5_01
    };
    let with_build = |image: TestImage| TestImage { module_build: Some(build), ..image };
    Case {
        lps: 2,
        offline: None,
        old: with_build(old_image()),
        file: with_build(newer()).build(),
        changes: Vec::new(),
        erratum: false,
    }
}

/// Returns the fate of the TDs. TDs in build are completed first.
fn fate(platform: &SimPlatform) -> &'static str {
    let in_build = platform.with_model(|model| {
        let in_build = model.tds().filter(|(_, td)| td.phase() == TdPhase::Build);
        in_build.map(|(td, _)| td).collect::<Vec<_>>()
    });
    if !all_alive(platform) {
        "lost"
    } else if in_build.into_iter().all(|td| platform.finish_td(td) == Ok(true)) {
        "kept"
    } else {
        "wrong measurement"
    }
}

/// Returns the first reason, with shortened digests.
fn shortened(reasons: &str) -> String {
    let first = reasons.split("; ").next().unwrap_or_default();
    let shortened = |word: &str| match word.split_at_checked(96) {
        Some((digest, rest)) if digest.chars().all(|digit| digit.is_ascii_hexdigit()) => {
            format!("{}{rest}", digest.split_at(8).0)
        }
        _ => word.to_owned(),
    };
    first.split(' ').map(shortened).collect::<Vec<_>>().join(" ")
}

fn row(
    what: &'static str,
    case: &Case,
    has_td_in_build: bool,
) -> Result<(&'static str, &'static str, String)> {
    let old = case.old.build();
    let world = || {
        let platform = case.world(&old)?;
        if has_td_in_build {
            platform.create_td_in(TdPhase::Build)?;
        }
        anyhow::Ok(platform)
    };
    let platform = world()?;
    // The return value is irrelevant here.
    let _ = linux::update(&platform, &case.file, case.erratum);
    let by_linux = fate(&platform);

    let platform = world()?;
    let said = match update(&platform, &case.file, &old, Policy::default(), None)? {
        Ours::Hang => bail!("{what}: the update does not end"),
        Ours::Refused(reason) => format!("refused: {}", shortened(&reason)),
        Ours::Ran(outcome) => {
            if let Some(claim) = wrong_claim(&platform, &outcome) {
                bail!("{what}: {claim}");
            }
            match outcome.sensitive() {
                Some((reason, count)) => {
                    format!("refused: {reason:?}, {count}; to be tried again later")
                }
                None => outcome.code().to_owned(),
            }
        }
    };
    let by_ours = fate(&platform);
    ensure!(by_ours == "kept", "{what}: the TDs are {by_ours}; {said}");
    Ok((what, by_linux, format!("{by_ours}; {said}")))
}

pub(super) fn run() -> Result<Table> {
    let mut rows = Vec::new();
    for (what, name, cpus, lps) in SCENARIOS {
        rows.push(row(what, &scenario(name, cpus, lps)?, false)?);
    }
    rows.push(row("a TD is in build; the module knows of such TDs", &td_in_build(true), true)?);
    rows.push(row("a TD is in build; the module does not", &td_in_build(false), true)?);
    Ok(Table(rows))
}
