//! `cargo xtask embed-check`: builds and links the core as a kernel does.
//!
//! Plain rustc builds everything that becomes part of the kernel: bitflags and zerocopy in the
//! versions of `xtask/embed/Cargo.toml`, the core from its own sources without features, and a
//! probe that uses the core as Linux's `seamldr.c` would. Cargo only finds the sources, and builds
//! the derive macro for the host, as a kernel tree does.

mod no_panic;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{bail, ensure, Context, Result};
use object::{Object, ObjectSection, ObjectSymbol};
use serde_json::Value;
use tdx_seamldr_mock::model::SeamMemory;

use crate::process::printed;

/// The core's name for rustc.
const CORE: &str = "tdx_seamldr_core";

/// The most bytes of text of the core in a kernel: with the oldest compiler, and with others.
const MAX_TEXT: [(&str, u64); 2] = [("rustc 1.85", 10_400), ("rustc", 10_115)];

/// The most bytes of stack of one function of the core. Kernel stacks are small.
const MAX_FRAME: u64 = 512;

/// The bytes of text of Linux 7.2's `seamldr.o`, which has the same purpose.
const LINUX_TEXT: u64 = 1846;

/// Symbols that a kernel defines and the probe only declares.
const KERNEL_SYMBOLS: [&str; 21] = [
    "kernel_seamcall",
    "kernel_spin_lock_irqsave",
    "kernel_spin_unlock_irqrestore",
    "kernel_smp_processor_id",
    "kernel_num_online_cpus",
    "kernel_cpu_relax",
    "kernel_virt_to_phys",
    "kernel_params_page",
    "kernel_info_page",
    "kernel_vmx_basic",
    "kernel_rdmsr_safe",
    "kernel_stop_machine",
    "kernel_phys_to_virt",
    "kernel_sha384",
    "kernel_rsa_verify",
    "memcpy",
    "memmove",
    "memset",
    "memcmp",
    "bcmp",
    // The unwind tables of the toolchain's libcore refer to this symbol. A kernel builds its own
    // libcore without them.
    "rust_eh_personality",
];

/// The undefined symbol that the probe's panic handler calls.
const PANIC_SYMBOL: &str = "a_panic_can_be_reached";

/// The names of the undefined functions that `xtask/embed/planted.rs` calls after each answer of a
/// kernel begin so.
const PLANTED: &str = "behind_";

/// The functions of the planted probe.
const PLANTED_ENTRY_POINTS: [&str; 4] =
    ["probe_host", "probe_backend", "probe_crypto", "probe_library"];

/// The functions of the probe that the linker must keep.
const ENTRY_POINTS: [&str; 3] = ["probe_get_info", "probe_parse", "probe_install"];

/// The functions of the probe of the backend for real processors that the linker must keep.
const SEAMCALL_ENTRY_POINTS: [&str; 4] =
    ["probe_table", "probe_seamcall", "probe_keep_vmcs", "probe_processor"];

/// The most bytes of text of the backend for real processors.
const MAX_SEAMCALL_TEXT: u64 = 1800;

/// The most instructions around SEAMCALL in a call of the backend, on any path.
const MAX_AROUND_SEAMCALL: usize = 60;

/// The functions of the model's probe that the linker must keep.
const MODEL_ENTRY_POINTS: [&str; 2] = ["probe_boot", "probe_seamcall"];

/// The most bytes of text of the simulated platform.
const MAX_MODEL_TEXT: u64 = 54_000;

/// The most bytes of stack of one function of the simulated platform, which runs on a kernel's
/// stack. Real firmware has its own stack.
const MAX_MODEL_FRAME: u64 = 4096;

/// The linked code of one library.
pub(crate) struct Linked {
    pub(crate) what: &'static str,
    /// Bytes.
    pub(crate) text: u64,
    /// The limit, in bytes.
    pub(crate) max_text: u64,
    /// The bytes of the largest stack frame.
    pub(crate) frame: u64,
    /// The limit, in bytes.
    pub(crate) max_frame: u64,
    /// Whether the report lists the functions.
    pub(crate) is_listed: bool,
    /// All functions, the largest first.
    pub(crate) functions: Vec<Function>,
}

/// A linked function.
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) text: u64,
    pub(crate) frame: u64,
}

/// The compiler of all linked code.
fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Returns the limit of [`MAX_TEXT`] for this compiler.
fn max_text() -> Result<u64> {
    let output = rustc().arg("--version").output().context("rustc --version")?;
    let version = String::from_utf8(output.stdout)?;
    let limit = MAX_TEXT.iter().find(|(compiler, _)| version.starts_with(compiler));
    Ok(limit.with_context(|| format!("a limit for {version}"))?.1)
}

pub(crate) fn run() -> Result<Vec<Linked>> {
    let root = &crate::root();
    let out = root.join("target/embed-check");
    let manifest = root.join("xtask/embed/Cargo.toml");
    let sources = sources(&manifest)?;
    let derive = build_derive(&manifest, &out)?;

    let core_source = root.join("crates/tdx-seamldr-core/src/lib.rs");
    let x86_64 = root.join("crates/tdx-seamldr-x86_64/src/lib.rs");
    let mut build = Build::new(out.clone(), &sources, &derive, false)?;
    build.library(CORE, &core_source, &[])?;
    let source = root.join("xtask/embed/probe.rs");
    let planted = build.link_probe("planted", &source, &ENTRY_POINTS, &["--cfg=plant_a_panic"]);
    match planted.map_err(|error| error.to_string()) {
        Err(message) if message.contains(PANIC_SYMBOL) => {}
        other => bail!("the check is broken: it did not find a planted panic: {other:?}"),
    }
    let probe = build.link_probe("probe", &source, &ENTRY_POINTS, &[]).with_context(|| {
        format!("the probe does not link; if `{PANIC_SYMBOL}` is undefined, a panic can be reached")
    })?;
    let source = root.join("xtask/embed/planted.rs");
    let planted = build.link_probe("behind", &source, &PLANTED_ENTRY_POINTS, &[]);
    let message = planted.err().map(|error| error.to_string()).unwrap_or_default();
    let source = std::fs::read_to_string(source)?;
    let hidden = hidden(&source, &message);
    ensure!(
        message.contains(PLANTED) && hidden.is_empty(),
        "what was planted behind answers of the kernel was not found, the check is broken: \
         {hidden:?}\n{message}"
    );
    let core = linked(
        "the core, as Linux's `seamldr.c` would use it",
        &probe,
        [max_text()?, MAX_FRAME],
        true,
    )?;
    let Linked { text, frame, .. } = core;
    core.print();
    println!(
        "core: {text} bytes of text (Linux 7.2's seamldr.o: {LINUX_TEXT}), largest frame {frame} \
         bytes"
    );
    println!("no panic can be reached; ok");
    no_panic::check(&build, root, &sources)?;

    build.library("tdx_seamldr_x86_64", &x86_64, &[])?;
    let seamcall = root.join("xtask/embed/seamcall.rs");
    let probe = build.link_probe("seamcall", &seamcall, &SEAMCALL_ENTRY_POINTS, &[])?;
    let backend =
        linked("SEAMCALL on real processors", &probe, [MAX_SEAMCALL_TEXT, MAX_FRAME], true)?;
    let Linked { text, frame, .. } = backend;
    backend.print();
    let around = check_seamcall(&probe)?;
    println!(
        "SEAMCALL on real processors: {text} bytes of text, largest frame {frame} bytes, {around} \
         instructions around SEAMCALL; no panic can be reached; ok"
    );
    ensure!(around <= MAX_AROUND_SEAMCALL, "there should be at most {MAX_AROUND_SEAMCALL}");

    // A kernel may enable panics on arithmetic overflow.
    let mut checked = Build::new(out.join("overflow-checks"), &sources, &derive, true)?;
    no_panic::check(&checked, root, &sources)?;
    checked.library(CORE, &core_source, &[])?;
    checked.library("tdx_seamldr_x86_64", &x86_64, &[])?;
    checked
        .link_probe("seamcall", &seamcall, &SEAMCALL_ENTRY_POINTS, &[])
        .context("SEAMCALL on real processors, with overflow checks")?;

    // The simulated platform, which a kernel embeds for tests: without std and alloc. Panics are
    // allowed.
    build.library(
        "tdx_seamldr_mock",
        &root.join("crates/tdx-seamldr-mock/src/lib.rs"),
        &CHECK_CFG,
    )?;
    let probe =
        build.link_probe("model", &root.join("xtask/embed/model.rs"), &MODEL_ENTRY_POINTS, &[])?;
    let model = linked("the simulated platform", &probe, [MAX_MODEL_TEXT, MAX_MODEL_FRAME], false)?;
    let Linked { text, frame, .. } = model;
    let memory = size_of::<SeamMemory>();
    println!(
        "simulated platform: {text} bytes of text, {memory} of memory, largest frame {frame} \
         bytes; ok"
    );
    Ok(vec![core, backend, model])
}

/// The features that cargo declares.
const CHECK_CFG: [&str; 2] =
    ["--check-cfg=cfg(test)", "--check-cfg=cfg(feature,values(\"std\",\"vectors\"))"];

/// Returns the main source file of each library that the manifest depends on.
pub(crate) fn sources(manifest: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let metadata = printed(
        crate::cargo()
            .args(["metadata", "--locked", "--format-version=1", "--manifest-path"])
            .arg(manifest),
    )?;
    let metadata: Value = serde_json::from_str(&metadata)?;
    let packages = metadata
        .get("packages")
        .and_then(Value::as_array)
        .context("no packages in the metadata")?;
    let source = |package: &Value| {
        let name = package.get("name")?.as_str()?.to_owned();
        let targets = package.get("targets")?.as_array()?;
        let library = targets
            .iter()
            .find(|target| target.get("kind").is_some_and(|kind| kind[0] == "lib"))?;
        Some((name, library.get("src_path")?.as_str()?.into()))
    };
    Ok(packages.iter().filter_map(source).collect())
}

/// Builds the derive macro of zerocopy. Returns its path.
fn build_derive(manifest: &Path, out: &Path) -> Result<PathBuf> {
    let messages = printed(
        crate::cargo()
            .args(["build", "--locked", "--quiet", "--package", "zerocopy-derive"])
            .args(["--message-format=json", "--manifest-path"])
            .arg(manifest)
            .arg("--target-dir")
            .arg(out.join("host")),
    )?;
    let artifact = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_derive = message.get("target")?.get("name")?.as_str()? == "zerocopy_derive";
        let file = message.get("filenames")?.get(0)?.as_str()?;
        is_derive.then(|| PathBuf::from(file))
    };
    messages.lines().find_map(artifact).context("cargo built no zerocopy_derive")
}

/// The built libraries, and their folder.
struct Build {
    out: PathBuf,
    externs: Vec<(String, PathBuf)>,
    /// Whether arithmetic overflow panics, as with the kernel's CONFIG_RUST_OVERFLOW_CHECKS.
    overflow_checks: bool,
}

impl Build {
    /// Builds the core's dependencies in this folder.
    fn new(
        out: PathBuf,
        sources: &BTreeMap<String, PathBuf>,
        derive: &Path,
        overflow_checks: bool,
    ) -> Result<Self> {
        std::fs::create_dir_all(&out)?;
        let externs = vec![("zerocopy_derive".to_owned(), derive.to_owned())];
        let mut build = Self { out, externs, overflow_checks };
        for name in ["bitflags", "zerocopy"] {
            let source = sources.get(name).with_context(|| format!("no source of {name}"))?;
            build.library(name, source, &["--cap-lints=allow"])?;
        }
        Ok(build)
    }

    fn rustc(&self) -> Command {
        let mut rustc = rustc();
        // The kernel's own build also sets this. The option for stack sizes needs it.
        rustc.env("RUSTC_BOOTSTRAP", "1").args([
            "--edition=2021",
            "-C",
            "panic=abort",
            "-O",
            "-Z",
            "emit-stack-sizes",
        ]);
        // zerocopy's documentation uses its version in links.
        rustc.env("CARGO_PKG_VERSION", "0");
        rustc.args(["-C", "force-unwind-tables=no", "-C", "relocation-model=static"]);
        rustc.arg("-C").arg(format!("overflow-checks={}", self.overflow_checks));
        for (name, path) in &self.externs {
            rustc.arg("--extern").arg(format!("{name}={}", path.display()));
            rustc.arg("-L").args(path.parent());
        }
        rustc.arg("--out-dir").arg(&self.out);
        rustc
    }

    fn library(&mut self, name: &str, source: &Path, arguments: &[&str]) -> Result<()> {
        let mut rustc = self.rustc();
        rustc.args(["--crate-type=rlib", "--crate-name", name]).args(arguments).arg(source);
        call(&mut rustc)?;
        self.externs.push((name.to_owned(), self.out.join(format!("lib{name}.rlib"))));
        Ok(())
    }

    fn link_probe(
        &self,
        name: &str,
        source: &Path,
        entry_points: &[&str],
        arguments: &[&str],
    ) -> Result<PathBuf> {
        let mut rustc = self.rustc();
        rustc.args(["--crate-type=bin", "--check-cfg=cfg(plant_a_panic)", "--crate-name", name]);
        rustc.args(arguments).arg(source);
        let options = [
            "-nostartfiles",
            "-nostdlib",
            "-static",
            "-no-pie",
            "-Wl,--gc-sections,--build-id=none,-z,nostart-stop-gc",
        ];
        let needed = entry_points.iter().map(|symbol| format!("-Wl,--undefined={symbol}"));
        // Distinct addresses, so that the linker merges no functions.
        let absent = (0x1000..).step_by(16).zip(KERNEL_SYMBOLS);
        let absent = absent.map(|(address, symbol)| format!("-Wl,--defsym={symbol}={address:#x}"));
        for option in options.into_iter().map(String::from).chain(needed).chain(absent) {
            rustc.arg("-C").arg(format!("link-arg={option}"));
        }
        let entry = entry_points.last().context("no entry point")?;
        rustc.arg("-C").arg(format!("link-arg=-Wl,--entry={entry}"));
        call(&mut rustc)?;
        Ok(self.out.join(name))
    }
}

/// Returns the planted functions of a source that the linker's message does not name.
fn hidden<'a>(source: &'a str, message: &str) -> Vec<&'a str> {
    let words: BTreeSet<_> = message
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .collect();
    let functions = source
        .lines()
        .filter_map(|line| Some(line.trim_start().strip_prefix("fn ")?.split_once('(')?.0));
    functions.filter(|name| name.starts_with(PLANTED) && !words.contains(name)).collect()
}

fn call(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        bail!("{command:?}\n{errors}");
    }
    ensure!(errors.is_empty(), "rustc printed messages:\n{errors}");
    Ok(())
}

/// Returns the instructions of the backend's call, without SEAMCALL. Linux's exception table must
/// lead from SEAMCALL to another instruction of the same function.
fn check_seamcall(probe: &Path) -> Result<usize> {
    let bytes = std::fs::read(probe)?;
    let file = object::File::parse(&*bytes)?;
    let symbol = file.symbol_by_name("probe_seamcall").context("no function probe_seamcall")?;
    let function = symbol.address()..symbol.address().saturating_add(symbol.size());
    let table = file.section_by_name("__ex_table").context("no section __ex_table")?;
    let fields = table
        .data()?
        .chunks_exact(4)
        .filter_map(|field| Some(i32::from_le_bytes(field.try_into().ok()?)));
    // Each field is relative to its own address.
    let fields: Vec<_> = (table.address()..).step_by(4).zip(fields).collect();
    let entries = fields.chunks_exact(3).filter_map(|entry| match entry {
        [(at, fault), (next, fixup), (_, kind)] => Some((
            at.wrapping_add_signed((*fault).into()),
            next.wrapping_add_signed((*fixup).into()),
            *kind,
        )),
        _ => None,
    });
    let text = file.section_by_name(".text").context("no section .text")?;
    let is_seamcall =
        |at: u64| matches!(text.data_range(at, 4), Ok(Some([0x66, 0x0f, 0x01, 0xcf])));
    let ours: Vec<_> =
        entries.filter(|(fault, ..)| function.contains(fault) && is_seamcall(*fault)).collect();
    ensure!(
        matches!(*ours, [(_, fixup, 2)] if function.contains(&fixup)),
        "__ex_table has no right entry for SEAMCALL: {ours:x?}"
    );

    let listing = Command::new("objdump")
        .args(["--disassemble=probe_seamcall", "--no-show-raw-insn"])
        .arg(probe)
        .output()
        .context("objdump does not run: install the package binutils")?;
    // A line of an instruction is "address:", a tab, and the instruction.
    let listing = String::from_utf8(listing.stdout)?;
    let instructions = listing.lines().filter(|line| line.split_once(":\t").is_some()).count();
    instructions.checked_sub(1).context("objdump shows no instructions")
}

impl Linked {
    fn print(&self) {
        println!("text and stack of each function:");
        for Function { name, text, frame } in &self.functions {
            println!("{text:6} {frame:5}  {name}");
        }
    }
}

/// Returns the linked code of a program, the largest functions first.
fn linked(
    what: &'static str,
    program: &Path,
    [max_text, max_frame]: [u64; 2],
    is_listed: bool,
) -> Result<Linked> {
    let bytes = std::fs::read(program)?;
    let file = object::File::parse(&*bytes)?;
    let sections = file.sections().filter(|section| section.kind() == object::SectionKind::Text);
    let text = sections.fold(0u64, |sum, section| sum.saturating_add(section.size()));
    let frames = stack_sizes(&file)?;
    let mut functions: Vec<_> = file
        .symbols()
        .filter(|symbol| symbol.kind() == object::SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| Function {
            name: format!("{:#}", rustc_demangle::demangle(symbol.name().unwrap_or("?"))),
            text: symbol.size(),
            frame: frames.get(&symbol.address()).copied().unwrap_or(0),
        })
        .collect();
    functions.sort_by(|one, other| (other.text, &other.name).cmp(&(one.text, &one.name)));
    ensure!(!functions.is_empty() && !frames.is_empty(), "no functions found: the check is broken");
    let frame = frames.values().max().copied().unwrap_or(0);
    ensure!(
        text <= max_text,
        "{what} has {text} bytes of text, but should have at most {max_text}"
    );
    ensure!(
        frame <= max_frame,
        "a stack frame of {what} has {frame} bytes, but should have at most {max_frame}"
    );
    Ok(Linked { what, text, max_text, frame, max_frame, is_listed, functions })
}

/// Returns the stack frame of each function, by address. `.stack_sizes` has addresses of 8 bytes,
/// each with a ULEB128.
fn stack_sizes(file: &object::File<'_>) -> Result<BTreeMap<u64, u64>> {
    let mut sizes = BTreeMap::new();
    for section in file.sections().filter(|section| section.name() == Ok(".stack_sizes")) {
        let mut rest = section.data()?;
        while let Some((address, after)) = rest.split_first_chunk() {
            rest = after;
            let mut size = 0u64;
            for shift in (0..64).step_by(7) {
                let (byte, after) =
                    rest.split_first().context(".stack_sizes ends in the middle of a number")?;
                rest = after;
                size |= u64::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            sizes.insert(u64::from_le_bytes(*address), size);
        }
    }
    Ok(sizes)
}
