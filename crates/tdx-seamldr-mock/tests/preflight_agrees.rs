//! Compares preflight with P-SEAMLDR. For every recorded session that should end in an update,
//! preflight gets the image, and the platform before the session's first call.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects,
    missing_docs
)]

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use serde_json::Value;
use tdx_seamldr_core::abi::{
    HandoffHeader, PSysInfo, Scenario, SeamSigstruct, SeamldrInfo, SeamldrLeaf, SeamldrParams,
    SeamldrStatus as S, TdxFeatures0, PAGE_SIZE,
};
use tdx_seamldr_core::preflight::{
    preflight, Facts, Finding, HandoffRange, Policy, Refusal, Unknown,
};
use tdx_seamldr_core::{InstallRequest, SeamcallRegs, TdxImage};
use tdx_seamldr_mock::model::{Config, PhysMemory, Platform, SeamMemory};
use tdx_seamldr_mock::vectors::platform_of_json;
use tdx_seamldr_mock::{PageBuf, SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, IntoBytes};

type Model = Platform<Box<SeamMemory>>;

fn number(value: &Value) -> u64 {
    match value {
        Value::String(text) => u64::from_str_radix(&text[2..], 16).unwrap(),
        Value::Bool(flag) => u64::from(*flag),
        value => value.as_u64().unwrap_or(0),
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.as_bytes()
        .chunks(2)
        .map(|digits| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap())
        .collect()
}

/// A recording's host memory, by pages. Firmware does not read its own writes.
struct Memory(HashMap<u64, Vec<u8>>);

impl Memory {
    fn of(vector: &Value, folder: &Path) -> Self {
        let mut pages = HashMap::new();
        for piece in vector["memory"].as_array().unwrap() {
            let mut bytes = match &piece["hex"] {
                Value::String(hex) => bytes(hex),
                _ => std::fs::read(folder.join(piece["file"].as_str().unwrap())).unwrap(),
            };
            bytes.resize(bytes.len().next_multiple_of(PAGE_SIZE), 0);
            for (page, start) in
                bytes.chunks(PAGE_SIZE).zip((number(&piece["pa"])..).step_by(PAGE_SIZE))
            {
                pages.insert(start, page.to_vec());
            }
        }
        Self(pages)
    }

    fn copy(&self, address: u64, len: usize) -> Vec<u8> {
        let mut copy = vec![0; len];
        self.read(address, &mut copy);
        copy
    }
}

impl PhysMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let offset = usize::try_from(address % 4096).unwrap();
        match self.0.get(&(address - address % 4096)) {
            Some(page) => {
                out.iter_mut().zip(&page[offset..]).for_each(|(slot, byte)| *slot = *byte)
            }
            None => out.fill(0),
        }
    }

    fn write(&self, _: u64, _: &[u8]) {}
}

/// Memory to which a call writes its result.
struct Answer(std::cell::RefCell<Vec<u8>>);

impl PhysMemory for Answer {
    fn read(&self, _: u64, out: &mut [u8]) {
        out.fill(0);
    }

    fn write(&self, _: u64, bytes: &[u8]) {
        *self.0.borrow_mut() = bytes.to_vec();
    }
}

/// Makes a call on a copy of the platform; returns what the call wrote.
fn ask(model: &Model, leaf: SeamldrLeaf) -> Vec<u8> {
    let answer = Answer(Vec::new().into());
    let mut regs = SeamcallRegs { rax: leaf.rax(), rcx: 0x1000, ..SeamcallRegs::default() };
    model.clone().seamcall(0, &mut regs, &answer, &RustCrypto).unwrap();
    assert_eq!(regs.rax, 0, "{leaf:?}");
    answer.0.into_inner()
}

/// Returns what is wrong with parameters, whatever image they name. This library never makes such
/// parameters.
fn wrong_parameters(at: u64, params: &SeamldrParams, config: &Config) -> Option<&'static str> {
    let good = |address: u64| {
        let bits = config.max_pa - config.keyid_bits;
        let plain = address & ((1 << bits) - 1);
        address % 4096 == 0
            && address >> config.max_pa == 0
            && address >> bits < config.private_hkid_min
            && plain.wrapping_sub(config.seamrr_base) >= config.seamrr_size
    };
    let pages = params.num_module_pages.get();
    let listed = params.module_page_pa.iter().take(usize::try_from(pages).unwrap_or(usize::MAX));
    [
        ("their address", !good(at)),
        ("version", params.version.get() != 0),
        ("reserved", params.reserved.iter().any(|byte| *byte != 0)),
        ("scenario", params.scenario.get() > 1),
        ("page count", pages > 496),
        ("page address", pages <= 496 && !listed.clone().all(|page| good(page.get()))),
        ("SIGSTRUCT address", !good(params.sigstruct_pa.get())),
    ]
    .into_iter()
    .find_map(|(what, wrong)| wrong.then_some(what))
}

/// Returns whether a refusal explains this status and RDX, or a fatal error.
fn corresponds(refusal: &Refusal, answer: Option<(S, u64)>) -> bool {
    use Refusal as R;
    let Some((status, rdx)) = answer else { return matches!(refusal, R::PageTables { .. }) };
    match (status, rdx) {
        (S::EBADSIG, _) => matches!(
            refusal,
            R::SigstructField(_)
                | R::SeamldrTooOld { .. }
                | R::SigstructReserved { .. }
                | R::CpuListLength(_)
                | R::HandoffVersionsReversed { .. }
                | R::GdtOffsetMisaligned(_)
                | R::GdtWithoutFaultWrapper { .. }
                | R::GdtOutside { .. }
                | R::FaultWrapperOutside { .. }
                | R::Signer { .. }
                | R::Signature
                | R::DebugModule
                | R::MinorSvn { .. }
                | R::NoCpuList
        ),
        (S::EBADCALL, _) => matches!(refusal, R::MajorSvn { .. } | R::NoRemainingUpdates),
        (S::EUNSUPCPU, _) => matches!(refusal, R::Cpu { .. }),
        (S::ENOMEM, 0) => matches!(refusal, R::Memory { .. }),
        (S::ENOMEM, 1) => matches!(refusal, R::PageTables { .. }),
        (S::EBADHANDOFF, _) => matches!(refusal, R::HandoffVersion { .. }),
        (S::EBADHASH, _) => matches!(refusal, R::ImageHash { .. }),
        (S::EBADPARAM, 1) => matches!(refusal, R::Elf(_)),
        (S::EBADPARAM, 0) => matches!(refusal, R::NoModule),
        _ => false,
    }
}

/// What the host knows before an update.
struct Before {
    info: Vec<u8>,
    sysinfo: Vec<u8>,
    config: Config,
}

impl Before {
    fn of(model: &Model) -> Self {
        Self {
            info: ask(model, SeamldrLeaf::Info),
            sysinfo: ask(model, SeamldrLeaf::SeamInfo),
            config: *model.config(),
        }
    }

    /// Returns preflight's refusals, given the handoff data of the running module (`None`: no
    /// handoff data).
    fn refusals(&self, image: &TdxImage<'_>, handoff: Option<HandoffHeader>) -> Vec<Refusal> {
        let info = SeamldrInfo::ref_from_prefix(&self.info).unwrap().0;
        let sysinfo = PSysInfo::ref_from_prefix(&self.sysinfo).unwrap().0;
        let range =
            |hv: u16| HandoffRange { module_hv: hv, min_update_hv: hv, no_downgrade: false };
        let mut facts = Facts {
            num_lps: Some(self.config.num_lps),
            highest_x2apic_id: self.config.x2apic_ids().max(),
            signer: Some(self.config.signer),
            features0: Some(TdxFeatures0::TD_PRESERVING),
            handoff: handoff.map(|header| range(header.hv.get())),
            handoff_data: handoff.map(|header| header.size.get()),
            debug_unlocked: Some(self.config.debug_unlocked),
            addressable_lps_per_socket: Some(self.config.addressable_lps_per_socket),
            seamrr_base: Some(self.config.seamrr_base),
            sensitive_operations: Some(0),
            ..Facts::new()
        };
        facts.add_info(info);
        facts.add_sysinfo(sysinfo);
        let policy = Policy { allow_same_module: true, ..Policy::default() };
        // The number of pages of handoff versions above 2 is not public. P-SEAMLDR does not check
        // it.
        let rule_is_public = |header: HandoffHeader| header.hv.get() <= 2;
        let mut found = Vec::new();
        let passed = preflight(image, &facts, &RustCrypto, policy, &mut |finding| match finding {
            Finding::Refusal(refusal) => found.push(refusal),
            Finding::Unknown(Unknown::HandoffData) => {
                assert!(!handoff.is_some_and(rule_is_public), "{}", Unknown::HandoffData);
            }
            Finding::Unknown(unknown) => assert!(handoff.is_none(), "{unknown}"),
        });
        assert!(passed.is_err() || found.is_empty());
        found
    }
}

/// Checks our own parameters for this image, on some platform.
fn our_parameters(image: &TdxImage<'_>) -> Option<&'static str> {
    let boot = TestImage::default().build();
    let platform = SimPlatform::builder().boot(&TdxImage::parse(boot.as_bytes()).unwrap()).unwrap();
    let mut page = PageBuf::zeroed(1);
    let request =
        InstallRequest::build(page.as_params(), image, Scenario::Update, &platform.lp(0)).unwrap();
    let at = request.params().get().0;
    platform.with_model(|model| wrong_parameters(at, &page.as_params().0, model.config()))
}

/// Compares preflight with one completed session. Returns a category for the statistics.
fn judge(
    name: &str,
    memory: &Memory,
    before: &Before,
    model: &Model,
    at: u64,
    answer: Option<(S, u64)>,
) -> Option<&'static str> {
    if let Some((S::ENOENTROPY | S::EUNSPECERR, _)) = answer {
        return Some("by chance: no entropy, or the number of an LP");
    }
    let params = SeamldrParams::read_from_bytes(&memory.copy(at, PAGE_SIZE)).unwrap();
    let wrong = wrong_parameters(at, &params, &before.config);
    if wrong.is_none() && params.scenario.get() != Scenario::Update.value() {
        return None;
    }
    let pages = params
        .module_page_pa
        .iter()
        .take(usize::try_from(params.num_module_pages.get()).unwrap_or(0).min(496));
    let module: Vec<u8> = pages.flat_map(|page| memory.copy(page.get(), PAGE_SIZE)).collect();
    let sigstruct = memory.copy(params.sigstruct_pa.get() & !0xfff, 2048);
    let sigstruct = SeamSigstruct::read_from_bytes(&sigstruct).unwrap();
    let file = TestImage::default().file(&sigstruct, &module);
    let succeeds = matches!(answer, Some((S::SUCCESS, _)));
    let Ok(image) = TdxImage::parse(file.as_bytes()) else {
        assert!(module.is_empty() && !succeeds, "{name}: {answer:?}, but it is no image");
        return Some("the image has no pages");
    };
    if let Some(wrong) = wrong {
        assert_eq!(answer, Some((S::EBADPARAM, 0)), "{name}: {wrong}");
        assert_eq!(our_parameters(&image), None, "{name}: {wrong}");
        return Some("parameters that this library never makes");
    }
    let header = model.handoff_header();
    let refusals = before.refusals(&image, (header.valid != 0).then_some(header));
    if succeeds {
        // P-SEAMLDR accepts two kinds of modules that lose the TDs later: those that preserve none,
        // and those with fewer handoff pages than the old module filled.
        return Some(match refusals.as_slice() {
            [] => "it succeeds",
            zero if zero.contains(&Refusal::MajorSvnZero) => {
                "it succeeds, but no TD would be preserved"
            }
            [Refusal::HandoffPages { .. }] => {
                "it succeeds, but the new module would have too few handoff pages"
            }
            wrong => panic!("{name}: it succeeded, but {wrong:?}"),
        });
    }
    if refusals.iter().any(|refusal| corresponds(refusal, answer)) {
        return Some("refused for the reason that was recorded");
    }
    let pages = model.loader().module_sysinfo().map_or(0, |sysinfo| sysinfo.num_handoff_pages);
    let room = (u32::from(pages) + 1) * 4096;
    match answer {
        Some((S::EBADHANDOFF, _)) if header.valid == 0 => Some("there is no handoff data"),
        Some((S::EBADHANDOFF, _)) if header.size.get().saturating_add(8) > room => {
            Some("the handoff data is longer than the old module's pages")
        }
        None if model.config().full_seamdb_is_fatal => {
            Some("the SEAM database is full, and a remembered count hides it")
        }
        _ => panic!("{name}: {answer:?} was recorded, but preflight says {refusals:?}"),
    }
}

#[test]
fn preflight_agrees_with_p_seamldr_on_every_recorded_update() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/p-seamldr");
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    let mut files: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    for line in files.iter().flat_map(|path| {
        std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    }) {
        let vector: Value = serde_json::from_str(&line).unwrap();
        let name = vector["name"].as_str().unwrap();
        let memory = Memory::of(&vector, &folder);
        let mut model = platform_of_json(&line).unwrap();
        let assumes = vector["assumes"].to_string();
        model.config_mut().full_seamdb_is_fatal = assumes.contains("db-full");
        model.config_mut().accepts_large_signatures = assumes.contains("sig-range");
        let mut before = None;
        for step in vector["steps"].as_array().unwrap() {
            match step["op"].as_str() {
                Some("set") => {
                    let config = model.config_mut();
                    config.rdrand_ok = step["rdrand_ok"].as_bool().unwrap_or(config.rdrand_ok);
                    config.debug_unlocked =
                        step["debug_unlocked"].as_bool().unwrap_or(config.debug_unlocked);
                    match &step["rdrand_value"] {
                        Value::Null => {}
                        value => config.rdrand_value = number(value),
                    }
                    match &step["seamdb_insert_failures"] {
                        Value::Null => {}
                        value => {
                            model.seamdb_mut().insert_failures =
                                u32::try_from(number(value)).unwrap()
                        }
                    }
                    continue;
                }
                Some("module_handoff") => {
                    let header = HandoffHeader {
                        valid: u8::try_from(number(&step["valid"])).unwrap(),
                        reserved: 0,
                        hv: U16::new(u16::try_from(number(&step["hv"])).unwrap()),
                        size: U32::new(u32::try_from(number(&step["size"])).unwrap()),
                    };
                    model.handoff()[..8].copy_from_slice(header.as_bytes());
                    continue;
                }
                Some(other) => panic!("{name}: {other}"),
                None => {}
            }
            let (lp, rax) = (u32::try_from(number(&step["lp"])).unwrap(), number(&step["rax"]));
            let mut regs = SeamcallRegs {
                rax,
                rcx: number(&step["rcx"]),
                rdx: number(&step["rdx"]),
                ..SeamcallRegs::default()
            };
            let is_install = rax == SeamldrLeaf::Install.rax();
            let in_session = model.loader().session().count();
            // Facts can be read whenever SEAMCALL is possible.
            let ready = model.loader().shutdown().count() == 0 && model.config().rdrand_ok;
            if is_install && in_session == 0 {
                before = ready.then(|| Before::of(&model));
            }
            let kept = model.clone();
            let at = regs.rcx;
            let result = model.seamcall(lp, &mut regs, &memory, &RustCrypto);
            let ends = is_install && model.loader().session().count() == 0;
            let Some(before) = before.as_ref().filter(|_| ends) else { continue };
            // A fatal error, which takes the platform down, has no status.
            let answer = result.ok().map(|()| (S(regs.rax), regs.rdx));
            match answer {
                None => assert_eq!(step["expect"]["fatal"], true, "{name}"),
                Some((status, _)) => assert_eq!(status.0, number(&step["expect"]["rax"]), "{name}"),
            }
            if let Some(what) = judge(name, &memory, before, &kept, at, answer) {
                *counts.entry(what).or_default() += 1;
            }
        }
    }
    let expected = [
        ("by chance: no entropy, or the number of an LP", 12),
        ("it succeeds", 112),
        ("it succeeds, but no TD would be preserved", 4),
        ("it succeeds, but the new module would have too few handoff pages", 1),
        ("parameters that this library never makes", 43),
        ("refused for the reason that was recorded", 166),
        ("the SEAM database is full, and a remembered count hides it", 2),
        ("the handoff data is longer than the old module's pages", 5),
        ("the image has no pages", 24),
        ("there is no handoff data", 18),
    ];
    assert_eq!(counts, BTreeMap::from(expected));
}
