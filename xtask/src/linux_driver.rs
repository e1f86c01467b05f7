//! `cargo xtask linux-driver`: builds the example for Linux and tests it in Debian's stock kernel.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, ensure, Context, Result};
use clap::ValueEnum;
use object::{Object, ObjectSymbol, SymbolKind};

use crate::debian::Debian;
use crate::qemu;

mod initramfs;

/// The step; each step first does the missing steps before it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Step {
    /// Prepare a Debian root with the kernel and its source: 3 GB, some minutes
    Tree,
    /// Build the module
    Build,
    /// Boot the kernel and run the scenarios
    Test,
}

/// The kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kernel {
    Stock,
    Debug,
}

impl Kernel {
    const fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Debug => "debug",
        }
    }

    /// The path below the root of the tree.
    const fn image(self) -> &'static str {
        match self {
            Self::Stock => "build/vmlinuz",
            Self::Debug => "build/debug/arch/x86/boot/bzImage",
        }
    }
}

/// The CPUs of the machine, in one socket. The scenarios take the last CPU offline.
const CPUS: u32 = 4;

/// The model of the machine's processor: Sapphire Rapids, as on the simulated platform.
const PROCESSOR: &str = "max,vendor=GenuineIntel,family=6,model=143,stepping=8";

/// The sources of the kernel's own modules that Debian's kernel package does not contain.
const KERNEL_MODULES: [&str; 2] = ["lib/test_firmware.c", "arch/x86/kernel/msr.c"];

/// The most boots of the machine. Before its first program runs, the kernel patches its code, and
/// in QEMU a CPU can execute half-patched code: one boot of twenty fails. Later faults count.
const BOOTS: u32 = 3;

/// The first words of the first program. The debug kernel needs some minutes.
const UP: qemu::SignOfLife<'_> =
    qemu::SignOfLife { words: "figure kernel:", within: Duration::from_secs(300) };

/// The time limit of the scenarios, without the race.
const LIMIT: Duration = Duration::from_secs(1800);

/// The selection of scenarios.
pub(crate) struct Selection<'a> {
    /// Run the scenarios whose names contain this text.
    pub(crate) only: &'a str,
    pub(crate) race_seconds: u32,
}

pub(crate) fn run(
    step: Step,
    folder: &Path,
    debug_kernel: bool,
    selection: &Selection<'_>,
) -> Result<()> {
    let kernel = if debug_kernel { Kernel::Debug } else { Kernel::Stock };
    let example = crate::root().join("examples/linux-driver");
    let tree = Tree { example, debian: Debian::new(folder) };
    tree.prepare(kernel)?;
    if step == Step::Tree {
        return Ok(());
    }
    let module = tree.build(kernel)?;
    if step == Step::Test {
        let mut modules = tree.build_kernel_modules(kernel)?;
        modules.push(module);
        tree.test(&modules, kernel, selection)?;
    }
    Ok(())
}

/// A Debian root, with kernels below `build`.
struct Tree {
    example: PathBuf,
    debian: Debian,
}

impl Tree {
    fn prepare(&self, kernel: Kernel) -> Result<()> {
        if !self.debian.path("build/vmlinuz").exists() {
            self.debian.bootstrap()?;
            self.debian.give(&crate::root().join("xtask/debian/source.sh"), "source.sh")?;
            self.debian.give(&self.example.join("prepare.sh"), "prepare.sh")?;
            self.debian.shell("exec bash /build/prepare.sh").context("prepare.sh failed")?;
        }
        if kernel == Kernel::Debug {
            self.debian.give(&self.example.join("debug.config"), "debug.config")?;
            self.debian.give(&crate::root().join("xtask/debian/watch.config"), "watch.config")?;
            self.debian.shell(
                "cd /build; mkdir -p debug; cat debug.config watch.config > all.config; \
                 KCONFIG_ALLCONFIG=/build/all.config ./make.sh debug \
                 -s allnoconfig; grep -q CONFIG_PROVE_LOCKING=y debug/.config; grep -q \
                 CONFIG_RUST=y debug/.config; exec ./make.sh debug -s -j$(nproc) bzImage modules",
            )?;
        }
        Ok(())
    }

    /// Copies the library's sources beside the example's, as its Kbuild requires, and builds the
    /// module.
    fn build(&self, kernel: Kernel) -> Result<PathBuf> {
        let root = crate::root();
        let place = format!("build/module-{}", kernel.name());
        let module = self.debian.path(&place);
        if module.join("src").exists() {
            fs::remove_dir_all(module.join("src"))?;
        }
        copy_tree(&self.example.join("src"), &module.join("src"))?;
        fs::copy(self.example.join("Kbuild"), module.join("Kbuild"))?;
        for name in ["core", "x86_64", "mock"] {
            let source = root.join(format!("crates/tdx-seamldr-{name}/src"));
            copy_tree(&source, &module.join(name).join("src"))?;
        }
        let sources = crate::embed_check::sources(&root.join("xtask/embed/Cargo.toml"))?;
        let bitflags = sources
            .get("bitflags")
            .and_then(|main| main.parent())
            .context("no source of bitflags")?;
        copy_tree(bitflags, &module.join("bitflags/src"))?;
        self.debian
            .shell(&format!("exec /build/make.sh {} -s M=/{place} modules", kernel.name()))?;
        let module = module.join("tdx_host_rs.ko");
        report_text(&module)?;
        Ok(module)
    }

    /// Builds the kernel's own modules from its source.
    fn build_kernel_modules(&self, kernel: Kernel) -> Result<Vec<PathBuf>> {
        let place = format!("build/kernel-modules-{}", kernel.name());
        let folder = self.debian.path(&place);
        fs::create_dir_all(&folder)?;
        let mut kbuild = String::new();
        let mut modules = Vec::new();
        for source in KERNEL_MODULES {
            let name = Path::new(source).file_name().context("the name of a source")?;
            fs::copy(self.debian.path("build/source").join(source), folder.join(name))
                .with_context(|| format!("the kernel's source has no {source}"))?;
            kbuild
                .push_str(&format!("obj-m += {}\n", Path::new(name).with_extension("o").display()));
            modules.push(folder.join(name).with_extension("ko"));
        }
        fs::write(folder.join("Kbuild"), kbuild)?;
        self.debian
            .shell(&format!("exec /build/make.sh {} -s M=/{place} modules", kernel.name()))?;
        Ok(modules)
    }

    fn test(&self, modules: &[PathBuf], kernel: Kernel, selection: &Selection<'_>) -> Result<()> {
        initramfs::fill(&self.debian.path("build/initramfs"), &self.example, modules)?;
        crate::initramfs::pack(&self.debian, "initramfs", "initrd.gz")?;

        let limit = LIMIT.saturating_add(Duration::from_secs(selection.race_seconds.into()));
        let parameters = format!("race_seconds={} only={}", selection.race_seconds, selection.only);
        for _ in 0..BOOTS {
            let mut machine = qemu::machine(CPUS, PROCESSOR);
            machine
                .args(["-m", "1024", "-kernel"])
                .arg(self.debian.path(kernel.image()))
                .arg("-initrd")
                .arg(self.debian.path("build/initrd.gz"))
                .args(["-append", &format!("console=ttyS0 quiet panic=-1 {parameters}")]);
            let (_, output) = qemu::run(&mut machine, limit, Some(UP))?;
            // QEMU's own output comes before the first line.
            let Some((before, scenarios)) = output.split_once(UP.words) else {
                println!("{output}\nthe kernel did not come up");
                continue;
            };
            ensure!(!before.contains("Oops"), "the kernel came up with a fault:\n{before}");
            println!("{}{scenarios}", UP.words);
            return judge(scenarios);
        }
        bail!("the kernel did not come up {BOOTS} times");
    }
}

/// Checks that all scenarios ran and succeeded.
fn judge(output: &str) -> Result<()> {
    let scenarios: Vec<_> =
        output.lines().filter_map(|line| line.trim().strip_prefix("scenario ")).collect();
    let failed = scenarios.iter().filter(|scenario| !scenario.ends_with(": ok")).count();
    ensure!(
        output.lines().any(|line| line.trim() == "the end"),
        "the scenarios ended early: the line \"the end\" is missing"
    );
    ensure!(
        !scenarios.is_empty() && failed == 0,
        "{failed} of {} scenarios failed",
        scenarios.len()
    );
    println!("{} of {} scenarios held", scenarios.len(), scenarios.len());
    Ok(())
}

/// Prints the bytes of text of each part of the module.
fn report_text(module: &Path) -> Result<()> {
    let data = fs::read(module)?;
    let file = object::File::parse(&*data)?;
    let mut sizes = BTreeMap::<&str, u64>::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let size = sizes.entry(part(symbol.name()?)).or_default();
        *size = size.saturating_add(symbol.size());
    }
    for (part, size) in sizes {
        println!("figure text of {part}: {size}");
    }
    Ok(())
}

/// Returns the part of the module that a function belongs to: the first crate in its name. Inlined
/// functions count for the caller's part.
fn part(symbol: &str) -> &'static str {
    let parts = [
        ("16tdx_seamldr_core", "the core"),
        ("18tdx_seamldr_x86_64", "the x86_64 backend"),
        ("16tdx_seamldr_mock", "the simulated platform"),
        ("8bitflags", "bitflags"),
        ("_4main9simulated", "the simulated platform"),
        ("_4main", "the glue"),
    ];
    let first = parts.into_iter().filter_map(|(name, part)| Some((symbol.find(name)?, part)));
    first.min_by_key(|(at, _)| *at).map_or("the glue", |(_, part)| part)
}

/// Copies the sources of `from` to `to`, and removes other sources there. Skips unchanged files,
/// which need no new build. Kbuild keeps its own files beside the sources.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    // rustc refuses a module that exists in two files.
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        let (there, is_folder) = (entry.path(), entry.file_type()?.is_dir());
        let source = fs::metadata(from.join(entry.file_name()));
        if source.is_ok_and(|source| source.is_dir() == is_folder) {
            continue;
        }
        if is_folder {
            fs::remove_dir_all(there)?;
        } else if there.extension().is_some_and(|extension| extension == "rs") {
            fs::remove_file(there)?;
        }
    }
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if fs::read(&target).ok() != Some(fs::read(entry.path())?) {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_pass_only_if_all_succeed_and_the_end_is_reached() {
        assert!(judge("scenario one: ok\r\nscenario two: ok\r\nthe end\r\n").is_ok());
        assert!(judge("scenario one: ok\r\n").is_err());
        assert!(judge(
            "scenario one: ok\nscenario two: FAILED; the log says so: ok or not\nthe end\n"
        )
        .is_err());
        assert!(judge("the end\n").is_err());
    }

    #[test]
    fn every_scenario_of_the_command_has_a_row_in_the_document() {
        let read = |file: &str| fs::read_to_string(crate::root().join(file)).unwrap();
        let document = read("docs/embedding-linux.md");
        let rows = document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
        let is_of_command =
            |name: &&str| name.starts_with("command-") || name.starts_with("upload-");
        let rows: Vec<_> = rows.map(|(name, _)| name).filter(is_of_command).collect();
        let scripts = ["command.sh", "firmware_upload.sh"]
            .map(|file| read(&format!("examples/linux-driver/{file}")));
        let calls = scripts.iter().flat_map(|script| script.lines());
        let names: Vec<_> = calls
            .filter_map(|line| line.trim().strip_prefix("scenario ")?.split(' ').next())
            .filter(|name| is_of_command(name) && *name != "upload-errors")
            .collect();
        assert_eq!(rows, names);
    }

    #[test]
    fn copied_tree_loses_removed_sources_and_keeps_build_output() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        let write = |file: &Path, text: &str| {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        for file in ["lib.rs", "preflight.rs", "gone/mod.rs", "gone/one.rs"] {
            write(&from.join(file), file);
        }
        copy_tree(&from, &to).unwrap();
        for built in ["lib.o", ".lib.o.cmd"] {
            write(&to.join(built), built);
        }
        let unchanged = fs::metadata(to.join("lib.rs")).unwrap().modified().unwrap();
        fs::remove_file(from.join("preflight.rs")).unwrap();
        fs::remove_dir_all(from.join("gone")).unwrap();
        write(&from.join("preflight/mod.rs"), "moved");
        copy_tree(&from, &to).unwrap();
        let mut names: Vec<_> = fs::read_dir(&to)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, [".lib.o.cmd", "lib.o", "lib.rs", "preflight"]);
        assert_eq!(fs::read_to_string(to.join("preflight/mod.rs")).unwrap(), "moved");
        assert_eq!(fs::metadata(to.join("lib.rs")).unwrap().modified().unwrap(), unchanged);
    }

    #[test]
    fn function_belongs_to_the_first_crate_in_its_name() {
        let run = "_RNvMs2_NtNtCs1_16tdx_seamldr_core6update3runINtB5_3CpuNtCs2_4main7BackendE3run";
        assert_eq!(part(run), "the core");
        assert_eq!(part("_RNvNtCs2_4main9embedding5start"), "the glue");
        assert_eq!(part("_RNvNtCs2_4main9simulated5start"), "the simulated platform");
        assert_eq!(part("tdx_stop_machine"), "the glue");
    }
}
