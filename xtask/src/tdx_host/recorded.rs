//! The scenarios that were recorded of Linux 7.2's own code on real firmware code, in a guest: the
//! fate of the TDs is the recorded one.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tdx_seamldr_core::TdxVersion;
use tdx_seamldr_mock::model::ModuleBuild;
use tdx_seamldr_mock::TestImage;
use tdx_seamldr_worlds::outcomes::case::{scenario, Case};

use super::guest::{Guest, Machine};
use super::{PLACE, SAPPHIRE_RAPIDS};
use crate::debian::Debian;

/// Scenarios whose start or end depends on what a guest cannot be brought into.
const NOT_HERE: [(&str, &str); 2] = [
    ("lpinit-entropy-10", "which CPU the failures fall on depends on timing"),
    (
        "erratum",
        "the kernel offers no upload then; the scenario with that name is among the others",
    ),
];

/// A run that was recorded.
pub(super) struct Run {
    pub(super) name: String,
    cpus: u32,
    lps: u32,
    fate: String,
    case: Case,
}

/// The runs with one upload, most CPUs first.
pub(super) fn runs() -> Result<Vec<Run>> {
    let path = crate::root().join("crates/tdx-seamldr-mock/vectors/linux-7.2/scenarios.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut best: BTreeMap<String, Run> = BTreeMap::new();
    for line in text.lines() {
        let fields: Value = serde_json::from_str(line)?;
        let word = |name: &str| {
            fields.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))
        };
        let count = |name: &str| {
            fields.get(name).and_then(Value::as_u64).with_context(|| format!("no {name}"))
        };
        let (name, cpus, lps) = (
            word("scenario")?,
            u32::try_from(count("cpus")?)?,
            u32::try_from(count("platform_lps")?)?,
        );
        if word("mode")? != "once" || NOT_HERE.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let fate = word("tds_after_linux")?.to_owned();
        let case = scenario(name, cpus, lps)?;
        best.insert(name.to_owned(), Run { name: name.to_owned(), cpus, lps, fate, case });
    }
    Ok(best.into_values().collect())
}

impl Run {
    /// The file of the update, and its name below `/images`.
    pub(super) fn image(&self) -> (String, Vec<u8>) {
        (format!("recorded/{}", self.name), self.case.file.as_bytes().to_vec())
    }

    /// The module that runs. The recordings have 1.5.01, which lacks metadata that Linux 7.2 reads
    /// at boot; so it is 1.5.05 otherwise.
    fn running(&self) -> Result<TestImage> {
        let recorded = self.case.old.module_build.unwrap_or(ModuleBuild::V1_5_01);
        let release = ModuleBuild::of_release(TdxVersion { major: 1, minor: 5, update: 5 })
            .context("1.5.05")?;
        let ModuleBuild { module_hv, min_update_hv, no_downgrade, handoff_form, .. } = recorded;
        let build = ModuleBuild { module_hv, min_update_hv, no_downgrade, handoff_form, ..release };
        Ok(TestImage { module_build: Some(build), ..self.case.old.clone() })
    }

    /// Boots, uploads, and compares. Returns what is to be printed.
    pub(super) fn run(&self, debian: &Debian) -> Result<String> {
        let boot = debian.path(PLACE).join("boot-image");
        fs::write(&boot, self.running()?.build().as_bytes())?;
        let machine = Machine {
            cpus: self.lps,
            processor: SAPPHIRE_RAPIDS.to_owned(),
            plugin: Some(vec![format!("image=/{PLACE}/boot-image"), "tds=2".to_owned()]),
            kernel: String::new(),
            smt: false,
            reboots: false,
        };
        let mut guest = Guest::start(debian, &machine)?;
        // The module comes up with all LPs only; those that the recording lacks go offline then.
        for cpu in self.cpus..self.lps {
            guest.succeeds(&format!("offline {cpu}"))?;
        }
        for change in &self.case.changes {
            guest.ask(&json!({ "command": "change", "change": change }))?;
        }
        let before = guest.state()?;
        ensure!(before.get("tds_alive") == Some(&json!(2)), "the module did not come up: {before}");
        let said = guest.shell(&format!("upload /images/recorded/{}", self.name))?;
        let after = guest.state()?;
        let fate = fate(&before, &after);
        ensure!(
            fate == self.fate,
            "the TDs are {fate}, but {} was recorded; the kernel says {:?}",
            self.fate,
            said.text
        );
        Ok(format!("{fate}; {}", said.text.replace('\n', " ")))
    }
}

/// The fate of the TDs, in the words of the recordings.
pub(super) fn fate(before: &Value, after: &Value) -> &'static str {
    let alive = |state: &Value| state.get("tds_alive").cloned();
    if after.get("dead") == Some(&Value::Bool(true)) {
        "platform dead"
    } else if alive(before) != alive(after) {
        "lost"
    } else if before.get("remaining_updates") == after.get("remaining_updates") {
        "never at risk"
    } else {
        "updated"
    }
}
