//! `cargo xtask`: what is more than one line to do in this project, one file for each task.

mod c_header;
mod coverage;
mod document;
mod embed_check;
mod hypervisor;
mod instructions;
mod linux_driver;
mod mutants;
mod nightly;
mod outcomes;
mod qemu;
mod spec_map;
mod vectors;

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
    /// Write the C header of the simulated platform
    CHeader {
        /// See that the header is up to date, and write nothing
        #[arg(long)]
        check: bool,
    },
    /// See which lines of the core the tests reach, with cargo-llvm-cov
    Coverage {
        /// Branches, too, with the nightly compiler
        #[arg(long)]
        branches: bool,
    },
    /// Build the core as a kernel would, link what a kernel uses, and see that no panic can be reached
    EmbedCheck,
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
    /// Count the instructions of updates and of preflight, with callgrind, and see that they are not too many
    Instructions,
    /// Build the example driver for Debian's stock kernel and try it there; on Debian, as root
    LinuxDriver {
        step: linux_driver::Step,
        /// Where the Debian root with the kernel is, or is to be
        folder: std::path::PathBuf,
        /// Take a kernel that watches locks and memory, which is built first
        #[arg(long)]
        debug_kernel: bool,
        /// How long updates race with readers and with CPUs that come and go
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        race: u32,
    },
    /// See that a test fails for each small change of the core, with cargo-mutants; takes long
    Mutants {
        /// Try so many changes at the same time
        #[arg(long, default_value_t = 2)]
        jobs: u32,
    },
    /// Run everything that takes too long for every change, and put the figures into docs/verification.md
    Nightly {
        /// Also try the driver for Linux, with the Debian root in this folder
        #[arg(long, value_name = "FOLDER")]
        linux_tree: Option<std::path::PathBuf>,
    },
    /// See what becomes of the TDs wherever an update fails, with this library and with Linux 7.2's policy
    Outcomes {
        /// Rebuild the scenarios that were recorded of Linux 7.2, instead of all single faults
        #[arg(long, value_name = "FOLDER")]
        recorded: Option<std::path::PathBuf>,
        /// Try so many pairs of faults at random places, instead of all single faults
        #[arg(long, value_name = "COUNT")]
        pairs: Option<u64>,
        /// Put the tables into the README
        #[arg(long)]
        readme: bool,
        /// See that the tables in the README are these
        #[arg(long)]
        check_readme: bool,
    },
    /// See that every rule in docs/spec-map.md has an item and a test that exist
    SpecMap,
    /// Replay recordings of real firmware on the simulated platform
    Vectors {
        /// A folder; all *.jsonl files below it are replayed
        folder: std::path::PathBuf,
        /// Replay this group only
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
}

/// The cargo that runs this, else the first on the path. (The one that built this is not asked: without what rustup sets beside
/// it, every package's own rust-toolchain.toml would choose its compiler.)
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().task {
        Task::CHeader { check } => c_header::run(check),
        Task::Coverage { branches } => coverage::run(branches),
        Task::EmbedCheck => embed_check::run(),
        Task::Hypervisor { cpus, fault, runs } => hypervisor::run(cpus, &fault, runs),
        Task::Instructions => instructions::run(),
        Task::LinuxDriver { step, folder, debug_kernel, race } => {
            linux_driver::run(step, &folder, debug_kernel, race)
        }
        Task::Mutants { jobs } => mutants::run(jobs),
        Task::Nightly { linux_tree } => nightly::run(linux_tree.as_deref()),
        Task::Outcomes { recorded: Some(folder), .. } => outcomes::recorded(&folder),
        Task::Outcomes { pairs: Some(count), .. } => outcomes::pairs(count),
        Task::Outcomes { readme, check_readme, .. } => outcomes::tables(readme, check_readme),
        Task::SpecMap => spec_map::run(),
        Task::Vectors { folder, group } => vectors::run(&folder, group.as_deref()),
    }
}
