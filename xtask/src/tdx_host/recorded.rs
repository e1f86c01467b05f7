//! Runs the scenarios that were recorded with Linux 7.2's own code on real firmware code, in a
//! guest. The fate of the TDs must be the recorded one.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{ensure, Context, Result};
use serde_json::{json, Value};
use tdx_seamldr_core::TdxVersion;
use tdx_seamldr_mock::model::ModuleBuild;
use tdx_seamldr_mock::TestImage;
use tdx_seamldr_worlds::outcomes::case::{rescue, scenario, Case};

use super::guest::{Guest, Machine};
use super::{Kernel, PLACE, SAPPHIRE_RAPIDS};
use crate::debian::Debian;

/// The scenario that a guest cannot reach. The recording calls the driver past its gate, but the
/// kernel offers no upload, as the scenario `erratum` of a guest shows.
const NOT_HERE: &str = "erratum";

/// The scenario that only one CPU can repeat. With more CPUs, timing decides which CPU the failures
/// hit.
const ONE_CPU: &str = "lpinit-entropy-10";

/// The name below `/images` of the good image for second uploads.
const RESCUE: &str = "recorded/rescue";

/// The recording of an upload.
struct Upload {
    /// The fate of the TDs, if this is the last upload of the recording.
    fate: Option<String>,
    /// Whether the driver returned no error. `None` if the firmware was dead: the driver's return
    /// value then means nothing.
    succeeds: Option<bool>,
}

/// An upload, and in most scenarios a second upload of a good image after the repair.
pub(super) struct Recorded {
    name: String,
    cpus: u32,
    lps: u32,
    uploads: Vec<Upload>,
    /// Offline CPUs come online before the second upload.
    come_online: bool,
    case: Case,
}

/// Reads all scenarios that a guest can reach, each with its highest number of CPUs.
pub(super) fn all() -> Result<Vec<Recorded>> {
    let path = crate::root().join("crates/tdx-seamldr-mock/vectors/linux-7.2/scenarios.jsonl");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut all: BTreeMap<(String, bool), Recorded> = BTreeMap::new();
    for line in text.lines() {
        let fields: Value = serde_json::from_str(line)?;
        let word = |name: &str| {
            fields.get(name).and_then(Value::as_str).with_context(|| format!("no {name}"))
        };
        let count = |name: &str| -> Result<u32> {
            let count = fields.get(name).and_then(Value::as_u64);
            Ok(count.with_context(|| format!("no {name}"))?.try_into()?)
        };
        let (name, mode) = (word("scenario")?, word("mode")?);
        let (cpus, lps) = (count("cpus")?, count("platform_lps")?);
        if name == NOT_HERE || name == ONE_CPU && cpus != 1 {
            continue;
        }
        let upload = |number: usize, is_last: bool| -> Result<Upload> {
            let fate = word("tds_after_linux")?;
            let pointer = format!("/uploads/{number}/ret");
            let returned = fields.pointer(&pointer).and_then(Value::as_i64).context("no ret")?;
            Ok(Upload {
                fate: is_last.then(|| fate.to_owned()),
                succeeds: (fate != "platform dead").then_some(returned == 0),
            })
        };
        let (come_online, uploads) = match mode {
            "once" => (false, vec![upload(0, true)?]),
            "twice" => {
                let once = all.get_mut(&(name.to_owned(), false));
                let once = once.filter(|known| known.cpus == cpus);
                once.context("no run with one upload before")?.uploads.push(upload(1, true)?);
                continue;
            }
            "online" => (true, vec![upload(0, false)?, upload(1, true)?]),
            // Linux does nothing like the other modes.
            _ => continue,
        };
        let name = name.to_owned();
        let case = scenario(&name, cpus, lps)?;
        let key = (name.clone(), come_online);
        all.insert(key, Recorded { name, cpus, lps, uploads, come_online, case });
    }
    Ok(all.into_values().collect())
}

/// Returns the files of the uploads, with their names below `/images`.
pub(super) fn images(all: &[Recorded]) -> Vec<(String, Vec<u8>)> {
    let files = all.iter().map(|recorded| (recorded.image(), &recorded.case.file));
    let mut files: BTreeMap<String, Vec<u8>> =
        files.map(|(name, file)| (name, file.as_bytes().to_vec())).collect();
    files.insert(RESCUE.to_owned(), rescue().as_bytes().to_vec());
    files.into_iter().collect()
}

impl Recorded {
    pub(super) fn title(&self) -> String {
        let online = if self.come_online { ", then online" } else { "" };
        format!("{}{online}", self.name)
    }

    fn image(&self) -> String {
        format!("recorded/{}", self.name)
    }

    /// Returns the running module. The recordings have 1.5.01, which lacks metadata that Linux 7.2
    /// reads at boot. So the module is 1.5.05 with the recorded handoff versions and form.
    fn running(&self) -> Result<TestImage> {
        let recorded = self.case.old.module_build.unwrap_or(ModuleBuild::V1_5_01);
        let release = ModuleBuild::of_release(TdxVersion { major: 1, minor: 5, update: 5 })
            .context("1.5.05")?;
        let ModuleBuild { module_hv, min_update_hv, no_downgrade, handoff_form, .. } = recorded;
        let build = ModuleBuild { module_hv, min_update_hv, no_downgrade, handoff_form, ..release };
        Ok(TestImage { module_build: Some(build), ..self.case.old.clone() })
    }

    /// Boots, uploads, and compares with the recording. Returns the text for the table.
    pub(super) fn run(&self, debian: &Debian, kernel: Kernel) -> Result<String> {
        let boot = debian.path(PLACE).join("boot-image");
        fs::write(&boot, self.running()?.build().as_bytes())?;
        let options = vec![format!("image=/{PLACE}/boot-image"), "tds=2".to_owned()];
        let machine = Machine::new(kernel, self.lps, SAPPHIRE_RAPIDS, options);
        let mut guest = Guest::start(debian, &machine)?;
        // The module initialises only with all LPs. LPs that the recording lacks go offline
        // afterwards.
        for cpu in self.cpus..self.lps {
            guest.succeeds(&format!("offline {cpu}"))?;
        }
        for wrong in &self.case.changes {
            guest.change(&serde_json::to_value(wrong)?)?;
        }
        let before = guest.state()?;
        ensure!(before.get("tds_alive") == Some(&json!(2)), "the module did not come up: {before}");
        let mut told = Vec::new();
        for (image, recorded) in [self.image(), RESCUE.to_owned()].iter().zip(&self.uploads) {
            if !told.is_empty() {
                guest.change(&json!("repair"))?;
                if self.come_online {
                    for cpu in self.cpus..self.lps {
                        // May fail: the kernel refuses a CPU that the module refuses.
                        guest.shell(&format!("online {cpu}"))?;
                    }
                }
            }
            let said = guest.shell(&format!("upload /images/{image}"))?.text.replace('\n', " ");
            let fate = fate(&before, &guest.state()?);
            ensure!(
                recorded.fate.as_ref().is_none_or(|recorded| recorded == fate),
                "the TDs are {fate} after upload {}, but {:?} was recorded; the kernel says \
                 {said:?}",
                told.len(),
                recorded.fate
            );
            ensure!(
                recorded.succeeds.is_none_or(|succeeds| succeeds == said.is_empty()),
                "the kernel says {said:?} to upload {}; recorded as without an error: {:?}",
                told.len(),
                recorded.succeeds
            );
            told.push(if said.is_empty() { fate.to_owned() } else { format!("{fate} ({said})") });
        }
        Ok(told.join("; "))
    }
}

/// Returns the fate of the TDs in the words of the recordings.
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
