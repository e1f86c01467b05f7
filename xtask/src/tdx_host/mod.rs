//! `cargo xtask tdx-host`: an unmodified Linux kernel that is a TDX host, in QEMU with the plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use clap::{Args, Subcommand};

use crate::debian::{call, Debian};
use crate::initramfs;

mod guest;
mod recorded;
mod scenarios;

use guest::Machine;

/// What to do in the folder; `prepare` comes first.
#[derive(Subcommand)]
pub(crate) enum Step {
    /// Make a Debian root with QEMU, and a kernel that is a TDX host
    Prepare,
    /// Boot the kernel to a shell
    Run(RunArguments),
    /// Boot the kernel for each scenario, and see what becomes of the TDs
    Test {
        /// Only the scenarios whose names contain this word
        #[arg(long, value_name = "WORD", default_value = "")]
        only: String,
    },
}

/// The machine to boot.
#[derive(Args)]
pub(crate) struct RunArguments {
    /// With this many CPUs
    #[arg(long, default_value_t = 4)]
    cpus: u32,
    /// The image that the BIOS has loaded; otherwise a small one
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Another kernel's bzImage
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// More for the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// More options of the plugin, e.g. tds=2
    options: Vec<String>,
}

/// QEMU's CPU for images of the 1.5 line.
const SAPPHIRE_RAPIDS: &str = "max,family=6,model=143,stepping=8,vendor=GenuineIntel,+ss";
/// QEMU's CPU for images of the 2.0 line.
const GRANITE_RAPIDS: &str = "max,family=6,model=173,stepping=1,vendor=GenuineIntel,+ss";

/// Where everything of this is, below the root.
const PLACE: &str = "build/tdx-host";

pub(crate) fn run(folder: &Path, step: &Step) -> Result<()> {
    let debian = Debian::new(folder);
    match step {
        Step::Prepare => prepare(&debian),
        Step::Run(arguments) => interactive(&debian, arguments),
        Step::Test { only } => {
            give_plugin(&debian)?;
            scenarios::run(&debian, only)
        }
    }
}

fn example() -> PathBuf {
    crate::root().join("examples/tdx-host")
}

fn prepare(debian: &Debian) -> Result<()> {
    debian.bootstrap()?;
    debian.give(&crate::root().join("xtask/debian/source.sh"), "source.sh")?;
    debian.give(&example().join("kernel.config"), "kernel.config")?;
    debian.give(&example().join("prepare.sh"), "prepare-tdx-host.sh")?;
    debian.shell("exec bash /build/prepare-tdx-host.sh").context("the kernel is not ready")?;
    println!("{} is ready", debian.path(PLACE).display());
    Ok(())
}

/// Builds the plugin and puts it into the root.
fn give_plugin(debian: &Debian) -> Result<()> {
    ensure!(
        debian.path(PLACE).join("arch/x86/boot/bzImage").exists(),
        "there is no kernel; `cargo xtask tdx-host {} prepare` builds one",
        debian.path("").display()
    );
    call(
        crate::cargo()
            .args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-qemu"])
            .current_dir(crate::root()),
    )?;
    debian.give(
        &crate::target().join("release/libtdx_seamldr_qemu.so"),
        "tdx-host/libtdx_seamldr_qemu.so",
    )
}

/// Builds the kernel module that tries the plugin.
fn build_probe(debian: &Debian) -> Result<PathBuf> {
    let place = "build/tdx-host-probe";
    debian.give(&example().join("probe.c"), "tdx-host-probe/probe.c")?;
    fs::write(debian.path(place).join("Kbuild"), "obj-m := probe.o\n")?;
    // The module's symbols are the kernel's own, which has no list of them without its modules.
    debian.shell(&format!(
        "exec make -s -C /build/source O=/{PLACE} M=/{place} KBUILD_MODPOST_WARN=1 modules"
    ))?;
    Ok(debian.path(place).join("probe.ko"))
}

/// Makes the initramfs with these images: the name below `/images`, and what is in each.
fn give_initramfs(debian: &Debian, images: &[(String, Vec<u8>)]) -> Result<()> {
    let folder = debian.path(PLACE).join("initramfs");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    for name in ["bin", "images"] {
        fs::create_dir_all(folder.join(name))?;
    }
    initramfs::copy(&example().join("init"), &folder.join("init"))?;
    let module = debian.path(PLACE).join("drivers/virt/coco/tdx-host/tdx-host.ko");
    initramfs::copy(&module, &folder.join("tdx-host.ko"))?;
    initramfs::copy(&build_probe(debian)?, &folder.join("probe.ko"))?;
    initramfs::copy(&initramfs::build_command()?, &folder.join("bin/tdx-seamldr"))?;
    for (name, bytes) in images {
        let to = folder.join("images").join(name);
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::write(&to, bytes).with_context(|| to.display().to_string())?;
    }
    if let Some(released) = tdx_seamldr_mock::released_images()? {
        initramfs::write_images(&released, &folder.join("images"))?;
        initramfs::write_repository(&released, &folder.join("images/intel"))?;
    }
    initramfs::pack(debian, "tdx-host/initramfs", "tdx-host/initrd.gz")
}

fn interactive(debian: &Debian, arguments: &RunArguments) -> Result<()> {
    give_plugin(debian)?;
    give_initramfs(debian, &[])?;
    if let Some(kernel) = &arguments.kernel {
        debian.give(kernel, "tdx-host/arch/x86/boot/bzImage")?;
    }
    let mut options = vec!["image=test".to_owned()];
    let mut processor = SAPPHIRE_RAPIDS;
    if let Some(image) = &arguments.image {
        debian.give(image, "tdx-host/boot-image")?;
        options = vec![format!("image=/{PLACE}/boot-image")];
        let bytes = fs::read(image).with_context(|| image.display().to_string())?;
        let parsed = tdx_seamldr_core::TdxImage::parse(&bytes)?;
        if parsed.sigstruct().svn().major >= 3 {
            processor = GRANITE_RAPIDS;
        }
    }
    options.extend(arguments.options.iter().cloned());
    let machine = Machine {
        cpus: arguments.cpus,
        processor: processor.to_owned(),
        plugin: Some(options),
        kernel: arguments.append.clone(),
        smt: false,
        reboots: false,
    };
    let mut qemu = machine.command(debian, false);
    println!("The plugin's socket: {}", debian.path(PLACE).join("control").display());
    let status = qemu.stdin(Stdio::inherit()).status().context("unshare")?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}
