//! The seeds of fuzzing: small valid inputs of every kind, pieces of the recordings, empty and
//! truncated inputs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;
use tdx_seamldr_core::abi::{SeamSigstruct, SeamldrStatus, TdxStatus};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::space::Layout;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::testing::{madt, HostTree};
use tdx_seamldr_mock::{ReleasedImage, TestImage};
use zerocopy::little_endian::{U16, U32};
use zerocopy::IntoBytes;

use super::images::NEW;
use super::update_ops::{CALLS, HEAD, TROUBLE};
use crate::world::new_image;

/// A seed.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Name of the target.
    pub target: &'static str,
    /// Name of the file.
    pub name: String,
    /// The input.
    pub bytes: Vec<u8>,
}

/// The longest line of a recording, in bytes, that fuzzing can usefully change. Longer lines lose
/// their last steps.
const LONGEST_LINE: usize = 24 << 10;

/// The longest line in bytes, including the content of the files that it names; short files come
/// first. Long files are pages of modules. Changing these is useless, because firmware hashes them
/// first.
const WITH_CONTENT: usize = 12 << 10;

/// Returns all seeds: this project's own, those of the recordings below this folder, and those of
/// released images.
///
/// # Errors
///
/// A recording cannot be read.
pub fn seeds(recordings: &Path, released: &[ReleasedImage]) -> Result<Vec<Seed>> {
    let mut seeds = Seeds(Vec::new());
    for target in super::TARGETS {
        seeds.add(target.name, "empty", &[]);
        seeds.add(target.name, "zero", &[0]);
        seeds.add(target.name, "ones", &[0xff; 64]);
    }
    seeds.images();
    seeds.sigstructs(released);
    seeds.params();
    seeds.status();
    seeds.logs();
    seeds.scripts();
    seeds.updates();
    seeds.host();
    seeds.operator();
    seeds.plugin();
    for folder in ["p-seamldr", "tdx-module"] {
        seeds.recorded(&recordings.join(folder))?;
    }
    Ok(seeds.0)
}

/// A name, and a change of a valid SIGSTRUCT.
type Change = (&'static str, fn(&mut SeamSigstruct));

const CHANGES: [Change; 16] = [
    ("reserved", |s| s.reserved1[5] = 1),
    ("exponent", |s| s.exponent = U32::new(3)),
    ("reversed", |s| s.min_update_hv = U16::new(s.module_hv.get() + 1)),
    ("gdt-alone", |s| s.fault_wrapper_offset = U32::new(0)),
    ("debug", |s| s.module_type = U32::new(SeamSigstruct::MODULE_TYPE_DEBUG)),
    ("major-0", |s| s.svn_major = 0),
    ("major-2", |s| s.svn_major = 2),
    ("minor", |s| s.svn_minor = 4),
    ("gdt-outside", |s| s.gdt_idt_offset = U32::new(0x8000)),
    ("cpu", |s| s.cpuid_table[0] = U32::new(0x806d8)),
    ("no-cpus", |s| s.cpuid_table_size = U32::new(0)),
    ("memory", |s| s.num_global_data_pages = U16::new(65535)),
    // The most memory that the estimate allows.
    ("page-tables", |s| {
        let fits = |pages: &u16| {
            s.num_global_data_pages = U16::new(*pages);
            Layout::new(s, 8 << 12, 16, 0).need() <= 252 << 20
        };
        let most = (0..u16::MAX).rev().find(fits).unwrap();
        s.num_global_data_pages = U16::new(most);
    }),
    ("version-1", |s| (s.module_hv, s.min_update_hv) = (U16::new(1), U16::new(1))),
    ("version-2", |s| (s.module_hv, s.min_update_hv) = (U16::new(2), U16::new(2))),
    ("handoff-pages", |s| s.num_handoff_pages = U16::new(12)),
];

/// Number of bytes up to the last one that may be changed: the first entry of the CPU list.
const CHANGED: usize = 1032;

/// Returns all earlier findings: the files in a folder that has a subfolder for each target.
///
/// # Errors
///
/// A file cannot be read, or a folder belongs to no target.
pub fn findings(folder: &Path) -> Result<Vec<Seed>> {
    let mut findings = Seeds(Vec::new());
    for path in entries(folder)? {
        let target = super::TARGETS
            .into_iter()
            .find(|target| path.file_name() == Some(target.name.as_ref()));
        let target = target.with_context(|| {
            format!("{}: this folder is not named after a target", path.display())
        })?;
        for path in entries(&path)? {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            findings.add(target.name, format!("found-{name}"), &bytes);
        }
    }
    Ok(findings.0)
}

/// Index of TDH.SYS.SHUTDOWN among the leaves of `vector` scripts.
const SHUTDOWN: u8 = 14;

/// Lines of kernel logs, with the prefixes of different programs.
const LOG_LINES: &[&str] = &[
    "[   10.798766] virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, \
     minor_version 0",
    "[   10.798771][  T123] virt/tdx: CMR: [0x100000, 0x77800000)",
    "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000",
    "virt/tdx: RCX 0x0000000000000000 RDX 0x9100000100000008 R08 0x0000000000000000",
    "tdx: SEAMCALL failed: CPU 94: leaf 33, error 0xc000092100000122.",
    "Nov 28 06:37:50 host kernel: SEAMCALL (0x1c) failed: 0xc000030000000001 RCX 0x0 RDX 0x0 R8 \
     0x0",
    "kvm_intel: SEAMCALL TDH_MNG_INIT failed: 0xc000010000000045, rcx 0x100000007",
    "kvm_intel: TD vp_enter_ret 0x8000ff00ffff0000",
    "3,1234,5678901,-;virt/tdx: module initialization failed (-5)\n SUBSYSTEM=faux",
    "<6>virt/tdx: TDX-Module initialized",
    "virt/tdx: version 1.5.24 -> 1.5.28",
    "virt/seamldr: update failed, SEAMCALLs will report failure until TDs killed",
    "2026-11-28T06:37:50.123456+00:00 host kernel: virt/tdx: BIOS enabled: private KeyID range \
     [32, 64)",
];

struct Seeds(Vec<Seed>);

impl Seeds {
    fn plugin(&mut self) {
        let code: [(&str, &[u8]); 6] = [
            ("seamcall-jc", &[0x66, 0x0f, 0x01, 0xcf, 0x72, 0x10]),
            ("mov-setc", &[0x48, 0x89, 0x44, 0x24, 0x08, 0x0f, 0x92, 0xc0, 0xc3]),
            ("vmxon", &[0xf3, 0x41, 0x0f, 0xc7, 0xb4, 0x24, 0, 1, 0, 0]),
            ("sbb-adc-pushf", &[0x48, 0x19, 0xc0, 0x83, 0xd1, 0, 0x9c, 0x9f, 0xe9, 0, 0, 0, 0]),
            ("cr4", &[0x41, 0x0f, 0x22, 0xe7, 0x0f, 0x20, 0xe0, 0x0f, 0xa2, 0x0f, 0x32]),
            ("movdir64b", &[0x65, 0x66, 0x44, 0x0f, 0x38, 0xf8, 0x4c, 0xf1, 0x40]),
        ];
        for (name, bytes) in code {
            self.add("decode_instruction", name, bytes);
        }
        let options = [
            (
                "all",
                "image=test\nprocessor=granite-rapids\nseamldr=newer\nremaining-updates=1\n\
                 extra-lps=4\ntds=2",
            ),
            (
                "fault",
                "image=test\nfault=leaf=SEAMLDR.INSTALL:lp=2:after=1:times=2:status=EBADHASH:rdx=1",
            ),
            ("delay", "image=a\nsockets=2\nfault=delay=3\nerratum=on\ntrace=t\ncontrol=c"),
        ];
        for (name, text) in options {
            self.add("plugin_options", name, text.as_bytes());
        }
    }

    fn add(&mut self, target: &'static str, name: impl Into<String>, bytes: &[u8]) {
        self.0.push(Seed { target, name: name.into(), bytes: bytes.to_vec() });
    }

    /// Adds a file to the targets that take images.
    fn image(&mut self, name: &str, file: &[u8]) {
        for target in ["image", "cli_json"] {
            self.add(target, name, file);
        }
    }

    fn images(&mut self) {
        for format in ImageFormat::ALL {
            let small = TestImage { format, pages: 3, ..new_image() };
            let file = small.build();
            let file = file.as_bytes();
            self.image(&format!("small-{format}"), file);
            for len in [1, 4, 20, 2000, 4096, 4097, 6144, 8192, 8193, file.len() - 1] {
                self.image(&format!("{format}-cut-to-{len}"), &file[..len]);
            }
            self.image(&format!("{format}-and-a-byte"), &[file, &[0]].concat());
            for (sigstruct_pages, module_pages) in [(1, 1), (1, 2), (4, 1)] {
                let (sigstruct, module) =
                    (vec![0; sigstruct_pages << 12], vec![0; module_pages << 12]);
                let parts = ImageParts { sigstruct: &sigstruct, module: &module };
                let mut file = vec![0; parts.file_len().unwrap()];
                if parts.write(format, &mut file).is_ok() {
                    self.image(&format!("{format}-{sigstruct_pages}-{module_pages}"), &file);
                }
            }
            // Cut in two for `pack`: the first byte is odd.
            let parts = TdxImage::parse(file).unwrap().parts();
            let mut both = [&parts.sigstruct[..2048], parts.module].concat();
            (both[0], both[1]) = (7, 32);
            self.add("cli_json", format!("parts-{format}"), &both);
        }
        for (number, file) in NEW.iter().enumerate() {
            self.image(&format!("update-{number}"), file.bytes.as_bytes());
        }
    }

    fn sigstructs(&mut self, released: &[ReleasedImage]) {
        let good = new_image().sigstruct(&new_image().module());
        for len in [2048, 2047, 1028, 1024, 950, 128, 44] {
            self.add("sigstruct", format!("good-{len}"), &good.as_bytes()[..len]);
        }
        // Each reason to refuse an image, and each pair of reasons. The target ignores signatures.
        let changed = |changes: &[Change]| {
            let mut sigstruct = good;
            changes.iter().for_each(|(_, change)| change(&mut sigstruct));
            sigstruct.as_bytes()[..CHANGED].to_vec()
        };
        for (at, one) in CHANGES.iter().enumerate() {
            self.add("sigstruct", one.0, &changed(&[*one]));
            for other in &CHANGES[at + 1..] {
                self.add("sigstruct", format!("{}-{}", one.0, other.0), &changed(&[*one, *other]));
            }
        }
        for image in released {
            let Ok(parsed) = TdxImage::parse(image.bytes.as_bytes()) else { continue };
            self.add(
                "sigstruct",
                format!("released-{}", image.version),
                parsed.sigstruct().as_bytes(),
            );
            // The whole module would be too long; take its first pages.
            let module = &parsed.module()[..3 * 4096];
            let parts = ImageParts { sigstruct: parsed.sigstruct_area(), module };
            let mut file = vec![0; parts.file_len().unwrap()];
            for format in ImageFormat::ALL {
                if parts.write(format, &mut file).is_ok() {
                    self.image(&format!("released-{}-{format}", image.version), &file);
                }
            }
        }
    }

    /// Adds files of hosts that list LPs.
    fn host(&mut self) {
        for (name, list) in
            [("one", "0"), ("range", "0-127"), ("gaps", "0-3,8,10-11,64-127"), ("reversed", "3-0")]
        {
            self.add("host_tree", format!("cpus-{name}"), list.as_bytes());
        }
        let two_sockets = [(0x806f8, 2), (0xa06d1, 1)];
        for (name, tree) in [
            ("one-socket", HostTree::linux_7_2().sockets(&two_sockets[..1])),
            ("two-sockets", HostTree::linux_7_2().sockets(&two_sockets)),
            ("erratum", HostTree::erratum().sockets(&two_sockets[..1])),
            ("without-tdx", HostTree::without_tdx().sockets(&two_sockets[..1])),
        ] {
            self.add("host_tree", format!("cpuinfo-{name}"), tree.cpuinfo().as_bytes());
        }
        for (name, ids) in [
            ("none", &[][..]),
            ("small", &[0, 1]),
            ("large", &[0, 254, 255, 0x1_0000]),
            ("twice", &[7, 7]),
        ] {
            self.add("host_tree", format!("madt-{name}"), &madt(ids.iter().copied()));
        }
    }

    /// Adds files that an operator provides, in published forms and in the library's forms.
    fn operator(&mut self) {
        let mapping = r#"{"tdx_module_releases": [{"version": "1.5.05", "min_module_version_for_td_preserving": "1.5.01",
            "min_seamldr_versions": ["1.5.00", "2.0.00"], "tdx_feature0": "0x61F0FBF"}]}"#;
        let hash = "ab".repeat(48);
        let table = format!(
            "version,svn,image,cpus,hv,ctx,mrseam\n9.9.01,0x0909,yes,GNR CWF,1/0/1,2,{hash}\n"
        );
        let config = "image-dir = [\"/images\"]\nno-td-launches = true\naccept = \
                      [\"unknown-memory\"]\ntimeout = 60\n";
        let record = r#"{"schema":"tdx-seamldr/record/1","time":"2026-11-28T07:00:00Z","attempt":"a","boot":null,"event":
            {"event":"began","from":"1.5.05","to":null,"file":"a","mrseam":"7b"}}"#
            .replace("\n", "");
        for (name, text) in [
            ("mapping", mapping),
            ("releases", &table),
            ("config", config),
            ("record", &record),
            ("version", "1.5.05"),
            ("elf", "\x7fELF\x02\x01\x01"),
        ] {
            self.add("operator_files", name.to_owned(), text.as_bytes());
        }
    }

    fn params(&mut self) {
        for size in 0..9u8 {
            for flags in [0u8, 1, 2, 4, 8, 16, 32, 64, 0x20 | 2] {
                let mut input = vec![size, flags];
                for word in [0x12_3456u64, 0x3, 0x77_0000] {
                    input.extend_from_slice(&word.to_le_bytes());
                }
                input.extend_from_slice(&[2, 0, 3, 0, 8, 0]);
                self.add("params_roundtrip", format!("size-{size}-{flags}"), &input);
            }
        }
    }

    /// Adds lines of kernel logs in every wording, one by one and together.
    fn logs(&mut self) {
        for (index, line) in LOG_LINES.iter().enumerate() {
            self.add("explain_log", format!("line-{index:02}"), line.as_bytes());
        }
        self.add("explain_log", "whole", LOG_LINES.join("\n").as_bytes());
    }

    fn status(&mut self) {
        let words =
            SeamldrStatus::TABLE.iter().map(|row| (format!("seamldr-{}", row.name), row.status.0));
        let words = words
            .chain(TdxStatus::TABLE.iter().map(|row| (format!("tdx-{}", row.name), row.status.0)));
        for (name, word) in words.collect::<Vec<_>>() {
            for (rdx, trap) in [(0u64, 0u8), (1, 0), (0, 1)] {
                let words = [word, rdx, word | 0x3_0001].map(u64::to_le_bytes).concat();
                self.add(
                    "status",
                    format!("{name}-{rdx}-{trap}"),
                    &[words.as_slice(), &[trap]].concat(),
                );
            }
        }
    }

    /// Adds sessions and single calls on the model: see `vector`.
    fn scripts(&mut self) {
        // Operation, LP, leaf, and the choices of four operands.
        let call = |lp: u8, leaf: u8, rcx: u8| [0, lp, leaf, rcx, 0, 0, 0];
        let (update_params, install, shutdown) = (3, 1, SHUTDOWN);
        for first in [1u8, 0x81, 0x85, 0xc1] {
            for profile in 0..4u8 {
                for state in 0..5u8 {
                    let mut script = vec![first, profile, state];
                    // Every leaf on both LPs, with and without addresses.
                    for leaf in 0..17 {
                        for operand in [0, 2, 5] {
                            script.extend_from_slice(&call(leaf % 2, leaf, operand));
                        }
                    }
                    self.add("vector", format!("leaves-{first}-{profile}-{state}"), &script);
                    let mut session = vec![first, profile, state];
                    session.extend_from_slice(&call(0, shutdown, 0));
                    session.extend((0..2).flat_map(|lp| call(lp, install, update_params)));
                    session.extend((5..17).flat_map(|leaf| call(0, leaf, 0)));
                    session.extend((5..17).flat_map(|leaf| call(1, leaf, 0)));
                    self.add("vector", format!("session-{first}-{profile}-{state}"), &session);
                }
            }
        }
        for event in 0..16u8 {
            let mut script = vec![0x81, 1, 3];
            script.extend_from_slice(&[7, 1, event, 3, 0, 0, 0, 1, 0, 0, 0]);
            script.extend((0..17).flat_map(|leaf| call(leaf % 2, leaf, 3)));
            script.extend_from_slice(&[3, 0, install, update_params, 0, 0, 0]);
            script.extend_from_slice(&call(1, 0, 5));
            script.extend_from_slice(&[4, 0]);
            script.extend_from_slice(&[5, 0, 1, 0, 0, 4, 9, 9, 9, 9]);
            self.add("vector", format!("event-{event}"), &script);
        }
    }

    /// Adds updates with one fault, or without a fault: see `update_ops`.
    fn updates(&mut self) {
        let head = |flags: u8, new: usize, after: u8, troubles: u8| -> [u8; HEAD] {
            let new = u8::try_from(new).unwrap();
            [flags, 0, new, 1, 0, 0, 0, 0, 0, 2, after, after, 0, 0, 0, troubles]
        };
        for new in 0..NEW.len() {
            for flags in [1u8, 0x11, 0x61, 3, 0x0b] {
                self.add("update_ops", format!("image-{new}-{flags}"), &head(flags, new, 0, 0));
                let order: Vec<u8> = (0..40u8).map(|step| step.wrapping_mul(7) % 5).collect();
                let input = [head(flags, new, 2, 0).as_slice(), &order].concat();
                self.add("update_ops", format!("order-{new}-{flags}"), &input);
            }
        }
        for (call, rax) in CALLS.iter().enumerate() {
            let call = u8::try_from(call).unwrap();
            let known =
                if rax >> 63 == 1 { SeamldrStatus::TABLE.len() } else { TdxStatus::TABLE.len() };
            for status in 0..u8::try_from(known).unwrap() {
                for (kind, rdx) in [(0, 0), (0, 1), (6, 0)] {
                    if rdx == 1 && call != 0 || kind == 6 && status > 2 {
                        continue;
                    }
                    let trouble = [kind, 0, call, status % 3, rdx, status, rdx, 0];
                    let input = [head(1, 0, 0, 1).as_slice(), &trouble, &[0; TROUBLE - 8]].concat();
                    self.add("update_ops", format!("fault-{call}-{kind}-{rdx}-{status}"), &input);
                }
            }
        }
        for kind in 8..16u8 {
            for choice in 0..4u8 {
                let trouble = [kind, 1, 0, choice, 0, choice, 1, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0];
                let input = [head(2, 1, 0, 1).as_slice(), &trouble].concat();
                self.add("update_ops", format!("trouble-{kind}-{choice}"), &input);
            }
        }
    }

    /// Adds recordings with the content of their files, and the files themselves.
    fn recorded(&mut self, folder: &Path) -> Result<()> {
        let mut blobs = files(&folder.join("blobs"), "bin").unwrap_or_default();
        blobs.sort();
        for path in blobs {
            let (name, bytes) = (file_name(&path), fs::read(&path)?);
            // A SIGSTRUCT may end after the last CPU of its list, and its header may be wrong.
            // Parameters are shorter, and pages of modules are shorter or longer.
            let is_sigstruct = (1025..=SeamSigstruct::SIZE).contains(&bytes.len());
            let target = if is_sigstruct { "sigstruct" } else { "params_roundtrip" };
            self.add(target, format!("recorded-{name}"), &bytes);
        }
        let mut lines = files(folder, "jsonl")?;
        lines.sort();
        for path in lines {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            for (number, line) in text.lines().enumerate() {
                let line = cut_down(line, folder)
                    .with_context(|| format!("{}:{number}", path.display()))?;
                let name = format!("recorded-{}-{}-{number}", file_name(folder), file_name(&path));
                self.add("vector", name, line.as_bytes());
            }
        }
        Ok(())
    }
}

/// Returns a shortened line of a recording, with the content of its files as far as there is room.
fn cut_down(line: &str, folder: &Path) -> Result<String> {
    let mut recording: Value = serde_json::from_str(line)?;
    let mut len = recording.to_string().len();
    let pieces = recording.get_mut("memory").and_then(Value::as_array_mut).into_iter().flatten();
    let mut named = Vec::new();
    for piece in pieces.filter_map(Value::as_object_mut) {
        if let Some(name) = piece.get("file") {
            let bytes = fs::read(folder.join(name.as_str().context("a name of a file")?))?;
            named.push((bytes, piece));
        }
    }
    named.sort_by_key(|(bytes, _)| bytes.len());
    for (bytes, piece) in named {
        len += 2 * bytes.len();
        if len > WITH_CONTENT {
            break;
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        piece.remove("file");
        piece.insert("hex".to_owned(), hex.into());
    }
    let mut excess = recording.to_string().len().saturating_sub(LONGEST_LINE);
    let steps = recording.get_mut("steps").and_then(Value::as_array_mut).context("steps")?;
    while excess != 0 {
        let step = steps.pop().context("it is too long even without steps")?;
        excess = excess.saturating_sub(step.to_string().len());
    }
    Ok(recording.to_string())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    entries.map(|entry| Ok(entry?.path())).collect()
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let paths = entries(folder)?;
    Ok(paths
        .into_iter()
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect())
}

fn file_name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use tdx_seamldr_mock::vectors::{replay_line, Replay};

    use super::*;

    #[test]
    fn every_recording_is_a_seed_and_passes_unless_it_was_shortened() {
        let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx-seamldr-mock/vectors");
        let mut cut = Vec::new();
        for group in ["p-seamldr", "tdx-module"] {
            let folder = recordings.join(group);
            let mut seeds = Seeds(Vec::new());
            seeds.recorded(&folder).unwrap();
            seeds.0.retain(|seed| seed.target == "vector");
            let texts = files(&folder, "jsonl")
                .unwrap()
                .into_iter()
                .map(|path| fs::read_to_string(path).unwrap());
            assert_eq!(seeds.0.len(), texts.map(|text| text.lines().count()).sum::<usize>());
            for seed in seeds.0 {
                assert!(seed.bytes.len() <= LONGEST_LINE, "{}", seed.name);
                match replay_line(std::str::from_utf8(&seed.bytes).unwrap(), &folder).unwrap() {
                    Replay::Failed { step: None, .. } => cut.push(seed.name),
                    Replay::Failed { .. } => panic!("{}", seed.name),
                    Replay::Passed | Replay::Skipped { .. } => {}
                }
            }
        }
        assert!(cut.len() <= 2, "{cut:?}");
    }

    #[test]
    fn a_finding_in_a_folder_without_a_target_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        assert!(findings(folder.path()).unwrap().is_empty());
        let put = |name: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("one"), name).unwrap();
        };
        put("image");
        let found = findings(folder.path()).unwrap();
        let [one] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(
            (one.target, one.name.as_str(), one.bytes.as_slice()),
            ("image", "found-one", &b"image"[..])
        );
        put("images");
        assert!(findings(folder.path())
            .unwrap_err()
            .to_string()
            .contains("images: this folder is not named after a target"));
    }
}
