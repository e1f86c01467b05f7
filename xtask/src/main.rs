//! `cargo xtask`: what is more than one line to do in this project, one file for each task.

mod bench_report;
mod c_header;
mod c_recorded;
mod c_tests;
mod cli_docs;
mod coverage;
mod debian;
mod document;
mod embed_check;
mod figures;
mod firmware_rules;
mod fuzz;
mod fuzz_seeds;
mod hypervisor;
mod initramfs;
mod instructions;
mod linux_driver;
mod mutants;
mod nightly;
mod outcomes;
mod public_api;
mod qemu;
mod spec_map;
mod tdx_host;
mod vectors;
mod versions;
mod window;

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Parser, Subcommand};

/// Tasks of the project.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Measure everything and write docs/performance.md
    BenchReport,
    /// Write the C header of the simulated platform
    CHeader {
        /// See that the header is up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// Write the recordings of Linux 7.2 as a table in C
    CRecorded {
        /// See that the table is up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// Install the library for C into a fresh prefix, and build and run all C programs there:
    /// plain, with valgrind, with sanitizers
    CTests,
    /// Write shell completions and man pages of the command `tdx-seamldr`
    CliDocs {
        /// The folder for them
        folder: PathBuf,
    },
    /// See which lines of the core the tests reach, with cargo-llvm-cov
    Coverage {
        /// Branches, too, with the nightly compiler
        #[arg(long)]
        branches: bool,
    },
    /// Build the core as a kernel would, link what a kernel uses, and see that no panic can be
    /// reached
    EmbedCheck,
    /// Build the fuzz targets and run each for some time
    Fuzz {
        /// Each for so long
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// This one only, or these
        #[arg(long = "target", value_name = "NAME")]
        targets: Vec<String>,
    },
    /// Write what fuzzing begins with, and what it has found once, to fuzz/corpus
    FuzzSeeds,
    /// Build the example hypervisor and run it in QEMU
    Hypervisor {
        /// With so many CPUs
        #[arg(long, default_value_t = 4)]
        cpus: u32,
        /// What goes wrong: shutdown, cpu-install, cpu-init, run-update, trap, point-of-no-return
        #[arg(long, value_name = "STAGE", default_value = "cpu-install")]
        fault: String,
        /// So many times
        #[arg(long, default_value_t = 1)]
        runs: u32,
    },
    /// Count the instructions of what the library does, with callgrind, and see that they are not
    /// too many
    Instructions,
    /// Build the example driver for Debian's stock kernel and try it there; on Debian, as root
    LinuxDriver {
        step: linux_driver::Step,
        /// Where the Debian root with the kernel is, or is to be
        folder: PathBuf,
        /// Take a kernel that watches locks and memory, which is built first
        #[arg(long)]
        debug_kernel: bool,
        /// How long updates race with readers and with CPUs that come and go
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        race: u32,
        /// Only the scenarios whose names contain this word
        #[arg(long, value_name = "WORD", default_value = "")]
        only: String,
    },
    /// See that a test fails for each small change of the core, with cargo-mutants; takes long
    Mutants {
        /// Try so many changes at the same time
        #[arg(long, default_value_t = 2)]
        jobs: u32,
        /// Only those in lines of the core that differ from this commit
        #[arg(long, value_name = "COMMIT")]
        since: Option<String>,
    },
    /// Run everything that takes too long for every change, and put the figures into
    /// docs/verification.md
    Nightly {
        /// Also try the driver for Linux, and Linux's own on the plugin for QEMU, with the Debian
        /// root in this folder
        #[arg(long, value_name = "FOLDER")]
        linux_tree: Option<PathBuf>,
        /// Run each fuzz target for so long
        #[arg(long, value_name = "N", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
        fuzz_seconds: u32,
    },
    /// See what becomes of the TDs wherever an update fails, with this library and with Linux
    /// 7.2's policy
    Outcomes {
        /// Rebuild the scenarios that were recorded of Linux 7.2, instead of all single faults
        #[arg(long, value_name = "FOLDER")]
        recorded: Option<PathBuf>,
        /// Try so many pairs of faults at random places, instead of all single faults
        #[arg(long, value_name = "COUNT")]
        pairs: Option<u64>,
        /// Change the platform between preflight and update, and let LPs give up, instead of all
        /// single faults
        #[arg(long)]
        changes: bool,
        /// Put the tables into the README
        #[arg(long)]
        readme: bool,
        /// See that the tables in the README are these
        #[arg(long)]
        check_readme: bool,
    },
    /// Write the public interface of each library to docs/api
    PublicApi {
        /// See that the files are up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// See that every rule in docs/spec-map.md has an item and a test that exist, and that
    /// docs/firmware has every number
    SpecMap,
    /// An unmodified Linux kernel that is a TDX host, in QEMU with the plugin; on Debian, as root
    TdxHost {
        /// Where the Debian root with the kernel is, or is to be
        folder: PathBuf,
        #[command(subcommand)]
        step: tdx_host::Step,
    },
    /// Replay recordings of real firmware on the simulated platform
    Vectors {
        /// A folder; all *.jsonl files below it are replayed
        folder: PathBuf,
        /// Replay this group only
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
    /// Build with all sets of features, and test with the oldest versions of dependencies and the
    /// newest zerocopy
    Versions,
    /// Count the SEAMCALLs of an update while all CPUs stand still, and write them to
    /// docs/performance.md
    Window {
        /// See that the document is up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
}

/// The cargo that runs this, else the first on the path. (The one that built this is not asked:
/// without what rustup sets beside it, every package's own rust-toolchain.toml would choose its
/// compiler.)
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// A program of rustup's nightly toolchain.
fn nightly(program: &str) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", program]);
    // This process has the ones of another toolchain.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        rustup.env_remove(name);
    }
    rustup
}

/// The workspace's folder.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds a program of the benchmarks and says where it is.
fn bench_program(name: &str) -> anyhow::Result<PathBuf> {
    let built = cargo()
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "-p",
            "tdx-seamldr-benches",
            "--bin",
            name,
        ])
        .current_dir(root())
        .status()?;
    anyhow::ensure!(built.success(), "{name} was not built");
    Ok(target().join("release").join(name))
}

/// Where cargo builds.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::BenchReport => bench_report::run(),
        Task::CHeader { check } => c_header::run(check),
        Task::CRecorded { check } => c_recorded::run(check),
        Task::CTests => c_tests::run(),
        Task::CliDocs { folder } => cli_docs::run(&folder),
        Task::Coverage { branches } => coverage::run(branches),
        Task::EmbedCheck => embed_check::run().map(drop),
        Task::Fuzz { seconds, targets } => fuzz::run(seconds, &targets),
        Task::FuzzSeeds => fuzz_seeds::run(),
        Task::Hypervisor { cpus, fault, runs } => hypervisor::run(cpus, &fault, runs),
        Task::Instructions => instructions::run(),
        Task::LinuxDriver { step, folder, debug_kernel, race, only } => {
            let selection = linux_driver::Selection { only: &only, race_seconds: race };
            linux_driver::run(step, &folder, debug_kernel, &selection)
        }
        Task::Mutants { jobs, since } => mutants::run(jobs, since.as_deref()),
        Task::Nightly { linux_tree, fuzz_seconds } => {
            nightly::run(linux_tree.as_deref(), fuzz_seconds)
        }
        Task::Outcomes { recorded: Some(folder), .. } => outcomes::recorded(&folder),
        Task::Outcomes { pairs: Some(count), .. } => outcomes::pairs(count),
        Task::Outcomes { changes: true, .. } => outcomes::changes(),
        Task::Outcomes { readme, check_readme, .. } => outcomes::tables(readme, check_readme),
        Task::PublicApi { check } => public_api::run(check),
        Task::SpecMap => spec_map::run(),
        Task::TdxHost { folder, step } => tdx_host::run(&folder, &step),
        Task::Vectors { folder, group } => vectors::run(&folder, group.as_deref()),
        Task::Versions => versions::run(),
        Task::Window { check } => window::run(check),
    }
}
