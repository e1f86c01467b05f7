//! `cargo xtask tdx-host`: an unmodified Linux kernel that is a TDX host, in QEMU with the plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{ensure, Context, Result};
use clap::{Args, Subcommand};

use crate::debian::Debian;
use crate::process::call;

mod guest;
pub(crate) mod hosts;
mod kernel;
mod operators;
mod recorded;
mod refusals;
mod resets;
mod scenarios;

use guest::Machine;
use kernel::Kernel;

/// The step in the folder; `prepare` comes first.
#[derive(Subcommand)]
pub(crate) enum Step {
    /// Make a Debian root with QEMU, and a kernel that is a TDX host
    Prepare {
        /// Also build a kernel that checks locks, sleeping and memory
        #[arg(long)]
        debug_kernel: bool,
    },
    /// Boot the kernel to a shell
    Run(RunArguments),
    /// Boot the kernel and update the module once; takes some seconds
    Smoke,
    /// Boot the kernel for each scenario, and check the fate of the TDs
    Test {
        /// Another kernel: the folder where it was built
        #[arg(long, value_name = "FOLDER")]
        kernel_build: Option<PathBuf>,
        /// Run only the scenarios whose names contain this word
        #[arg(long, value_name = "WORD", default_value = "")]
        only: String,
    },
}

/// The machine to boot.
#[derive(Args)]
pub(crate) struct RunArguments {
    /// The number of CPUs
    #[arg(long, default_value_t = 4)]
    cpus: u32,
    /// The image that the BIOS has loaded, instead of a small test image
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Another kernel: the folder where it was built
    #[arg(long, value_name = "FOLDER")]
    kernel_build: Option<PathBuf>,
    /// More words for the kernel's command line
    #[arg(long, default_value = "")]
    append: String,
    /// More options of the plugin, e.g. tds=2
    options: Vec<String>,
}

/// QEMU's CPU for images of the 1.5 line.
const SAPPHIRE_RAPIDS: &str = "max,family=6,model=143,stepping=8,vendor=GenuineIntel,+ss";
/// QEMU's CPU for images of the 2.0 line.
const GRANITE_RAPIDS: &str = "max,family=6,model=173,stepping=1,vendor=GenuineIntel,+ss";

/// The folder of the plugin, the images and the sockets, below the root.
const PLACE: &str = "build/tdx-host";

pub(crate) fn run(folder: &Path, step: &Step) -> Result<()> {
    let debian = Debian::new(folder);
    match step {
        Step::Prepare { debug_kernel } => prepare(&debian, *debug_kernel),
        Step::Run(arguments) => interactive(&debian, arguments),
        Step::Smoke => {
            give_plugin(&debian)?;
            scenarios::smoke(&debian)
        }
        Step::Test { only, kernel_build } => {
            give_plugin(&debian)?;
            let kernel = kernel(&debian, kernel_build.as_deref())?;
            scenarios::run(&debian, kernel, only)
        }
    }
}

fn example() -> PathBuf {
    crate::root().join("examples/tdx-host")
}

fn prepare(debian: &Debian, debug_kernel: bool) -> Result<()> {
    debian.bootstrap()?;
    let shared = crate::root().join("xtask/debian");
    debian.give(&shared.join("source.sh"), "source.sh")?;
    debian.give(&shared.join("watch.config"), "watch.config")?;
    debian.give(&example().join("kernel.config"), "kernel.config")?;
    debian.give(&example().join("prepare.sh"), "prepare-tdx-host.sh")?;
    let kernels: &[Kernel] =
        if debug_kernel { &[Kernel::Plain, Kernel::Watched] } else { &[Kernel::Plain] };
    for kernel in kernels {
        kernel.prepare(debian)?;
        println!("{} is ready", debian.path("build").join(kernel.folder()).display());
    }
    Ok(())
}

/// The kernel to boot: the prepared one, or the user's.
fn kernel(debian: &Debian, build: Option<&Path>) -> Result<Kernel> {
    build.map_or(Ok(Kernel::Plain), |build| Kernel::own(debian, build))
}

/// Builds the plugin and puts it into the root.
fn give_plugin(debian: &Debian) -> Result<()> {
    ensure!(
        Kernel::Plain.is_built(debian),
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

fn interactive(debian: &Debian, arguments: &RunArguments) -> Result<()> {
    give_plugin(debian)?;
    let kernel = kernel(debian, arguments.kernel_build.as_deref())?;
    kernel.give_initramfs(debian, &[])?;
    let mut options = vec!["image=test".to_owned()];
    let mut processor = SAPPHIRE_RAPIDS;
    if let Some(image) = &arguments.image {
        debian.give(image, "tdx-host/boot-image")?;
        options = vec![format!("image=/{PLACE}/boot-image")];
        let bytes = fs::read(image).with_context(|| image.display().to_string())?;
        let parsed = tdx_seamldr_core::TdxImage::parse(&bytes)?;
        if !parsed.sigstruct().lists_cpu(0x806f8) {
            processor = GRANITE_RAPIDS;
        }
    }
    options.extend(arguments.options.iter().cloned());
    let machine = Machine {
        append: arguments.append.clone(),
        ..Machine::new(kernel, arguments.cpus, processor, options)
    };
    let mut qemu = machine.command(debian, false);
    println!("The plugin's socket: {}", debian.path(machine.control()).display());
    let status = qemu.stdin(Stdio::inherit()).status().context("unshare")?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}
