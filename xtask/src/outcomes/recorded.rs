//! The scenarios that were recorded of Linux 7.2's own code on real firmware code, rebuilt: the imitation of its policy has to end as
//! the recording says, and this library to keep the TDs.

use std::path::Path;

use anyhow::{bail, ensure, Context, Result};
use serde_json::Value;
use tdx_seamldr_core::abi::{SeamSigstruct, SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus, PAGE_SIZE};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::{Crypto, Trap};
use tdx_seamldr_mock::model::{GlobalLock, LoaderState, ModuleBuild};
use tdx_seamldr_mock::{sign, Answer, Fault, PageBuf, SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32};

use super::linux;
use super::world::{all_alive, boot, go_on, old_image, update, wrong_claim, Ours};

/// Something that is done to a platform.
type Change = Box<dyn Fn(&SimPlatform)>;

/// A scenario on a platform of so many LPs.
struct Case {
    /// LPs that firmware counts, and the one that is offline.
    lps: u32,
    offline: Option<u32>,
    old: TestImage,
    file: PageBuf,
    prepare: Change,
    erratum: bool,
}

fn v2(image: TestImage) -> TestImage {
    TestImage { format: ImageFormat::ImageV2, ..image }
}

/// A newer module as a file for Linux.
fn newer() -> TestImage {
    v2(super::world::new_image())
}

/// The file of the newer module, with bytes changed.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> PageBuf {
    let mut bytes = newer().build().as_bytes().to_vec();
    change(&mut bytes);
    PageBuf::copy_of(&bytes)
}

/// The file of the newer module, with a SIGSTRUCT that was changed before it was signed.
fn signed(change: impl FnOnce(&mut SeamSigstruct)) -> PageBuf {
    let module = newer().module();
    let mut sigstruct = newer().sigstruct(&module);
    change(&mut sigstruct);
    sign(&mut sigstruct);
    newer().file(&sigstruct, &module)
}

fn xor(bytes: &mut [u8], offset: usize, mask: u8) {
    bytes.iter_mut().skip(offset).take(1).for_each(|byte| *byte ^= mask);
}

/// Where the module begins in the file.
const MODULE: usize = 2 * PAGE_SIZE;
/// An MSR that has to be the same on all LPs.
const MSR: u32 = 0xfe;

fn always(rax: u64, times: u32, status: TdxStatus) -> Change {
    let answer = Answer::Return { rax: status.0, rdx: 0 };
    Box::new(move |platform| platform.inject(Fault { times, ..Fault::first(rax, answer) }))
}

fn with_versions(image: TestImage, min_update_hv: u16, module_hv: u16) -> TestImage {
    let build = ModuleBuild { module_hv, min_update_hv, ..ModuleBuild::V1_5_01 };
    TestImage { module_hv, min_update_hv, module_build: Some(build), ..image }
}

/// Puts P-SEAMLDR into another state than booting has left it in.
fn loader(change: impl Fn(&mut LoaderState) + 'static) -> Change {
    Box::new(move |platform| {
        platform.with_model(|model| {
            let loader = model.loader();
            let mut state = LoaderState {
                seamextend: *loader.seamextend(),
                entered: true,
                num_remaining_updates: loader.num_remaining_updates(),
                module_range_initialized: true,
                sysinfo: loader.module_sysinfo().copied(),
            };
            change(&mut state);
            model.restore_loader(&state);
        });
    })
}

fn both(first: Change, second: Change) -> Change {
    Box::new(move |platform| {
        first(platform);
        second(platform);
    })
}

fn model(
    change: impl Fn(&mut tdx_seamldr_mock::model::Platform<Box<tdx_seamldr_mock::model::SeamMemory>>) + 'static,
) -> Change {
    Box::new(move |platform| platform.with_model(&change))
}

fn scenario(name: &str, cpus: u32, platform_lps: u32) -> Result<Case> {
    let good = || newer().build();
    let nothing = || -> Change { Box::new(|_| {}) };
    let (init, lp_init) = (TdxLeaf::SYS_INIT.rax(0), TdxLeaf::SYS_LP_INIT.rax(0));
    let no_entropy = TdxStatus::RND_NO_ENTROPY;
    let old = old_image();
    let (old, file, prepare): (TestImage, PageBuf, Change) = match name {
        "good" | "handoff-pages-14" | "gdt-inside-image" | "higher-minor-svn" => {
            let pages = if name == "handoff-pages-14" { 13 } else { 15 };
            (old, signed(|s| s.num_handoff_pages = U16::new(pages)), nothing())
        }
        "same-version" => (old.clone(), v2(old).build(), nothing()),
        "wrong-checksum" => (old, changed(|file| xor(file, 2, 1)), nothing()),
        "496-pages" => (old, TestImage { pages: 496, ..newer() }.build(), nothing()),
        "hv-old1-new1" => (with_versions(old, 0, 1), with_versions(newer(), 0, 1).build(), nothing()),
        "hv-old1-new2" => (with_versions(old, 0, 1), with_versions(newer(), 1, 2).build(), nothing()),
        "hv-old1-new0" => (with_versions(old, 0, 1), with_versions(newer(), 0, 0).build(), nothing()),
        "hv-old0-new1-min1" => (old, with_versions(newer(), 1, 1).build(), nothing()),
        "bad-magic" => (old, changed(|file| xor(file, 4, 1)), nothing()),
        "bad-version" => (old, changed(|file| xor(file, 1, 1)), nothing()),
        "v1-file" => (old, super::world::new_image().build(), nothing()),
        "too-long" => (old, changed(|file| file.resize(file.len().saturating_add(PAGE_SIZE), 0)), nothing()),
        "too-short" => (old, changed(|file| file.truncate(file.len().saturating_sub(1))), nothing()),
        "header-only-part" => (old, changed(|file| file.truncate(2000)), nothing()),
        "reserved-byte" => (old, changed(|file| xor(file, 100, 1)), nothing()),
        "497-pages" => {
            let file = changed(|file| {
                file.resize(MODULE.saturating_add(497 * PAGE_SIZE), 0);
                file.splice(16..20, 497u32.to_le_bytes());
            });
            (old, file, nothing())
        }
        "two-sig-pages" => {
            let file = changed(|file| {
                file.splice(12..16, 2u32.to_le_bytes());
                file.splice(MODULE..MODULE, [0; PAGE_SIZE]);
            });
            (old, file, nothing())
        }
        "zero-sig-pages" => {
            let file = changed(|file| {
                file.splice(12..16, 0u32.to_le_bytes());
                file.drain(PAGE_SIZE..MODULE);
            });
            (old, file, nothing())
        }
        "zero-module-pages" => {
            let file = changed(|file| {
                file.splice(16..20, 0u32.to_le_bytes());
                file.truncate(MODULE);
            });
            (old, file, nothing())
        }
        "zero-module-pages-empty-hash" => {
            let empty = RustCrypto.sha384(&[])?;
            let mut bytes = signed(|s| s.seamhash = empty).as_bytes().to_vec();
            bytes.splice(16..20, 0u32.to_le_bytes());
            bytes.truncate(MODULE);
            (old, PageBuf::copy_of(&bytes), nothing())
        }
        "bad-signature" => (old, changed(|file| xor(file, PAGE_SIZE + 600, 1)), nothing()),
        "sigstruct-field-flipped" => (old, changed(|file| xor(file, PAGE_SIZE + 20, 1)), nothing()),
        "untrusted-signer" => (old, changed(|file| xor(file, PAGE_SIZE + 130, 2)), nothing()),
        "module-byte-flipped" => (old, changed(|file| xor(file, MODULE + 5000, 1)), nothing()),
        "first-module-byte-flipped" => (old, changed(|file| xor(file, MODULE, 1)), nothing()),
        "signed-not-elf" => {
            let module = vec![0x90; 8 * PAGE_SIZE];
            (old, newer().file(&newer().sigstruct(&module), &module), nothing())
        }
        "lower-minor-svn" => (old, signed(|s| s.svn_minor = 4), nothing()),
        "other-major-svn" => (old, signed(|s| s.svn_major = 2), nothing()),
        "cpu-not-listed" => (old, TestImage { cpus: vec![0xc06f0], ..newer() }.build(), nothing()),
        "cpu-list-empty" => (old, TestImage { cpus: Vec::new(), ..newer() }.build(), nothing()),
        "gdt-beyond-image" => (old, signed(|s| s.gdt_idt_offset = U32::new(0x8000)), nothing()),
        "memory-too-small" => (old, signed(|s| s.num_global_data_pages = U16::new(65535)), nothing()),
        "debug-module" => (old, TestImage { debug: true, ..newer() }.build(), nothing()),
        "remaining-0" => (old, good(), loader(|state| state.num_remaining_updates = 0)),
        "remaining-0-full" => {
            let full = model(|model| model.seamdb_mut().used = 64);
            (old, good(), both(full, loader(|state| state.num_remaining_updates = 0)))
        }
        "full-but-remembered" => {
            let full = model(|model| {
                model.seamdb_mut().used = 64;
                model.config_mut().full_seamdb_is_fatal = true;
            });
            (old, good(), both(full, loader(|state| state.num_remaining_updates = 5)))
        }
        "cpu-offline-1" | "cpu-offline-2" | "cpu-offline-4" | "erratum" => (old, good(), nothing()),
        "rdrand-install" => (old, good(), model(|model| model.config_mut().rdrand_ok = false)),
        "rdrand-first-entry" => {
            let fails = model(|model| model.config_mut().rdrand_ok = false);
            (old, good(), both(fails, loader(|state| state.entered = false)))
        }
        "rdrand-first-entry-once" => {
            let fails = model(|model| model.config_mut().rdrand_failures = 1);
            (old, good(), both(fails, loader(|state| state.entered = false)))
        }
        "seamdb-4" => (old, good(), model(|model| model.seamdb_mut().insert_failures = 4)),
        "seamdb-5" => (old, good(), model(|model| model.seamdb_mut().insert_failures = 5)),
        "seamdb-always" => (old, good(), model(|model| model.seamdb_mut().insert_failures = u32::MAX)),
        "handoff-pages-13" => (old, signed(|s| s.num_handoff_pages = U16::new(12)), nothing()),
        "sigstruct-hv-not-built" => (old, signed(|s| s.module_hv = U16::new(1)), nothing()),
        "msr-other-lp" => (old, good(), model(|model| assert!(model.deviate_msr(1, MSR, 1)))),
        "msr-init-lp" => (old, good(), model(|model| assert!(model.deviate_msr(0, MSR, 1)))),
        "busy-at-init" => (old, good(), always(init, 1, TdxStatus::SYS_BUSY)),
        "busy-at-lp.init" => (old, good(), always(lp_init, 1, TdxStatus::SYS_BUSY)),
        "busy-at-update" => (old, good(), always(TdxLeaf::SYS_UPDATE.rax(0), 1, TdxStatus::SYS_BUSY)),
        "lpinit-entropy-1" => (old, good(), always(lp_init, 1, no_entropy)),
        "lpinit-entropy-9" => (old, good(), always(lp_init, 9, no_entropy)),
        "lpinit-entropy-10" => (old, good(), always(lp_init, 10, no_entropy)),
        "lpinit-entropy-always" => (old, good(), always(lp_init, u32::MAX, no_entropy)),
        "init-entropy-1" => (old, good(), always(init, 1, no_entropy)),
        "init-entropy-always" => (old, good(), always(init, u32::MAX, no_entropy)),
        "lp-busy" => (old, good(), model(|model| model.set_in_module(1, true))),
        "lock-held" => {
            let hold = |model: &mut tdx_seamldr_mock::model::Platform<_>| {
                model.module_mut().into_iter().for_each(|module| module.set_lock(GlobalLock::Exclusive));
            };
            (old, good(), model(hold))
        }
        _ => bail!("the scenario {name} is not known"),
    };
    let offline = (platform_lps > cpus).then_some(cpus);
    Ok(Case { lps: platform_lps, offline, old, file, prepare, erratum: name == "erratum" })
}

impl Case {
    fn world(&self, old: &PageBuf) -> Result<SimPlatform> {
        let mut builder = SimPlatform::builder().lps(self.lps).sockets(if self.lps > 3 { 2 } else { 1 });
        if let Some(lp) = self.offline {
            builder = builder.offline(lp);
        }
        let platform = boot(builder, old)?;
        platform.with_model(|model| {
            model.seamdb_mut().used = 3;
            model.config_mut().seamret_clears_vmcs = self.erratum;
        });
        (self.prepare)(&platform);
        Ok(platform)
    }
}

/// What was wrong is over.
fn repair(platform: &SimPlatform) {
    platform.clear_faults();
    platform.with_model(|model| {
        model.config_mut().rdrand_ok = true;
        model.config_mut().rdrand_failures = 0;
        model.seamdb_mut().insert_failures = 0;
        (0..8).for_each(|lp| model.restore_lp(lp));
    });
}

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

pub(crate) fn run(folder: &Path) -> Result<()> {
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
