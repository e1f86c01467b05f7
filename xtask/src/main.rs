//! `cargo xtask`: the tasks of this project, one file for each task.

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
mod glossary;
mod hypervisor;
mod initramfs;
mod instructions;
mod linux_driver;
mod mutants;
mod nightly;
mod outcomes;
mod package;
mod pictures;
mod process;
mod prose;
mod public_api;
mod publish_check;
mod qemu;
mod rollout;
mod semver;
mod spec_map;
mod tdx_host;
mod vectors;
mod versions;
mod window;

use std::path::PathBuf;
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
        /// Only check that the header is up to date
        #[arg(long)]
        check: bool,
    },
    /// Write the recordings of Linux 7.2 as a table in C
    CRecorded {
        /// Only check that the table is up to date
        #[arg(long)]
        check: bool,
    },
    /// Install the library for C into a fresh prefix, and build and run all C programs there:
    /// plain, with valgrind and with sanitizers
    CTests,
    /// Write shell completions and man pages of the command `tdx-seamldr`
    CliDocs {
        /// The folder to write to
        folder: PathBuf,
    },
    /// Measure which lines of the core the tests reach, with cargo-llvm-cov
    Coverage {
        /// Also measure branches, with the nightly compiler
        #[arg(long)]
        branches: bool,
    },
    /// Build the core as a kernel does, link the parts that a kernel uses, and check that no panic
    /// can be reached
    EmbedCheck,
    /// Build the fuzz targets and run each for a time
    Fuzz {
        /// The time of each target, in seconds
        #[arg(long, value_name = "N", default_value_t = 20,
            value_parser = clap::value_parser!(u32).range(1..))]
        seconds: u32,
        /// Run only this target; may be given several times
        #[arg(long = "target", value_name = "NAME")]
        targets: Vec<String>,
    },
    /// Write the first inputs of fuzzing and its earlier findings to fuzz/corpus
    FuzzSeeds,
    /// Write the glossary of docs/glossary.md into the core's rustdoc
    Glossary {
        /// Only check that the rustdoc is up to date
        #[arg(long)]
        check: bool,
    },
    /// Build the example hypervisor and run it in QEMU
    Hypervisor {
        /// The number of CPUs
        #[arg(long, default_value_t = 4)]
        cpus: u32,
        /// The stage that fails: shutdown, cpu-install, cpu-init, run-update, trap,
        /// point-of-no-return
        #[arg(long, value_name = "STAGE", default_value = "cpu-install")]
        fault: String,
        /// The number of runs
        #[arg(long, default_value_t = 1)]
        runs: u32,
    },
    /// Count the library's instructions with callgrind, and check them against their limits
    Instructions,
    /// Build the example driver for Debian's stock kernel and test it there; on Debian, as root
    LinuxDriver {
        step: linux_driver::Step,
        /// The folder of the Debian root with the kernel; made if it does not exist
        folder: PathBuf,
        /// Build and use a kernel that checks locks and memory
        #[arg(long)]
        debug_kernel: bool,
        /// How long updates race with readers and with CPU hotplug, in seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 60)]
        race: u32,
        /// Run only the scenarios whose names contain this word
        #[arg(long, value_name = "WORD", default_value = "")]
        only: String,
    },
    /// Check that a test fails for each small change of the core, with cargo-mutants; takes long
    Mutants {
        /// The number of changes that are tested at the same time
        #[arg(long, default_value_t = 2)]
        jobs: u32,
        /// Test only changes in lines of the core that differ from this commit
        #[arg(long, value_name = "COMMIT")]
        since: Option<String>,
    },
    /// Run all slow checks, and write their figures into docs/verification.md
    Nightly {
        /// Also test the driver for Linux, and Linux's own on the plugin for QEMU, with the Debian
        /// root in this folder
        #[arg(long, value_name = "FOLDER")]
        linux_tree: Option<PathBuf>,
        /// The time of each fuzz target, in seconds
        #[arg(long, value_name = "N", default_value_t = 600,
            value_parser = clap::value_parser!(u32).range(1..))]
        fuzz_seconds: u32,
    },
    /// Show the fate of the TDs for every point of failure of an update, with this library and
    /// with Linux 7.2's policy
    Outcomes {
        /// Replay the scenarios that were recorded with Linux 7.2, instead of all single faults
        #[arg(long, value_name = "FOLDER")]
        recorded: Option<PathBuf>,
        /// Test this many pairs of faults at random places, instead of all single faults
        #[arg(long, value_name = "COUNT")]
        pairs: Option<u64>,
        /// Change the platform between preflight and update and let LPs give up, instead of all
        /// single faults
        #[arg(long)]
        changes: bool,
        /// Write the tables into the README
        #[arg(long)]
        readme: bool,
        /// Check that the README has these tables
        #[arg(long)]
        check_readme: bool,
    },
    /// Build the packages for Debian and for distributions with rpm, in target/package; needs
    /// cargo-deb, cargo-generate-rpm and cargo-c
    Package {
        /// Install, use and remove each package in a fresh root; on Debian, as root
        #[arg(long)]
        test: bool,
    },
    /// Draw the pictures of README and rustdoc into docs/pictures
    Pictures {
        /// Only check that the pictures are up to date
        #[arg(long)]
        check: bool,
        /// Record the terminal session anew
        #[arg(long, conflicts_with = "check")]
        record: bool,
    },
    /// Check the width of lines, links, spelling, and that the commands in documents exist
    Prose {
        /// Run only this check
        #[arg(long)]
        only: Option<prose::Check>,
    },
    /// Write the public interface of each library to docs/api
    PublicApi {
        /// Only check that the files are up to date
        #[arg(long)]
        check: bool,
    },
    /// Pack each published crate for crates.io and build it from its package alone; publishes
    /// nothing
    PublishCheck,
    /// Update hosts that are folders with Ansible, lint the collection, and check the manifests
    /// for Kubernetes
    Rollout {
        /// Write the playbook's output into docs/rolling-out.md
        #[arg(long)]
        write: bool,
        /// Only run the playbook, on machines in QEMU with the kernel that `tdx-host FOLDER
        /// prepare` has built; on Debian, as root
        #[arg(long, value_name = "FOLDER", conflicts_with = "write")]
        machines: Option<PathBuf>,
    },
    /// Compare the public interface of each library with the last tag, and check with
    /// cargo-semver-checks that the version allows the changes
    Semver,
    /// Check that every rule in docs/spec-map.md has an existing item and test, and that
    /// docs/firmware has every number
    SpecMap,
    /// Run an unmodified Linux kernel as a TDX host, in QEMU with the plugin; on Debian, as root
    TdxHost {
        /// The folder of the Debian root with the kernel; made if it does not exist
        folder: PathBuf,
        #[command(subcommand)]
        step: tdx_host::Step,
    },
    /// Replay recordings of real firmware on the simulated platform
    Vectors {
        /// A folder; all *.jsonl files below it are replayed
        folder: PathBuf,
        /// Replay only this group
        #[arg(long, value_name = "NAME")]
        group: Option<String>,
    },
    /// Build with all sets of features, and test with the oldest dependencies and the newest
    /// zerocopy
    Versions,
    /// Count the SEAMCALLs of an update while all CPUs are stopped, and write them to
    /// docs/performance.md
    Window {
        /// Only check that the document is up to date
        #[arg(long)]
        check: bool,
    },
}

/// Returns the cargo that runs this process, else the first on the path. Does not use the cargo
/// that built xtask: without rustup's environment each package's rust-toolchain.toml would choose
/// its compiler.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Returns a program of rustup's nightly toolchain.
fn nightly(program: &str) -> Command {
    let mut rustup = Command::new("rustup");
    rustup.args(["run", "nightly", program]);
    // The variables of this process belong to another toolchain.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        rustup.env_remove(name);
    }
    rustup
}

/// Returns the tasks with their options.
fn command() -> clap::Command {
    <Arguments as clap::CommandFactory>::command()
}

/// Returns the workspace's folder.
fn root() -> PathBuf {
    let mut root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    root.pop();
    root
}

/// Builds a program of the benchmarks. Returns its path.
fn bench_program(name: &str) -> anyhow::Result<PathBuf> {
    let mut build = cargo();
    build.args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-benches"]);
    process::call(build.args(["--bin", name]).current_dir(root()))?;
    Ok(target().join("release").join(name))
}

/// Returns cargo's folder for build output.
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
        Task::Glossary { check } => glossary::run(check),
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
        Task::Package { test } => package::run(test),
        Task::Pictures { check, record } => pictures::run(check, record),
        Task::Prose { only } => prose::run(only),
        Task::PublicApi { check } => public_api::run(check),
        Task::PublishCheck => publish_check::run(),
        Task::Rollout { write, machines } => rollout::run(write, machines.as_deref()),
        Task::Semver => semver::run(),
        Task::SpecMap => spec_map::run(),
        Task::TdxHost { folder, step } => tdx_host::run(&folder, &step),
        Task::Vectors { folder, group } => vectors::run(&folder, group.as_deref()),
        Task::Versions => versions::run(),
        Task::Window { check } => window::run(check),
    }
}
