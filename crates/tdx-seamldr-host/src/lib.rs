//! Reads a Linux host with the Intel TDX module from user space, plans updates and makes them.
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! - [`catalogue`]: the public releases, and the images in the host's folders.
//! - [`explain`]: status words and kernel log lines in plain words, with what to do.
//! - [`examine`](mod@examine): what a file is, and whether Intel signed exactly this.
//! - [`fact`]: a value with the file that it was read from, or why it is unknown.
//! - `fault`, with the feature `faults`: faults of the simulated platform as people write them.
//! - [`root`]: the folder below which all files are read.
//! - [`host`]: all facts that user space can read.
//! - [`cpu_list`], [`cpuinfo`], [`madt`]: the files that list LPs.
//! - [`kernel_log`]: the kernel's lines on TDX.
//! - [`mapping`]: Intel's `mapping_file.json`.
//! - [`plan`](mod@plan): which image an update installs, and why it rejects each other image.
//! - [`releases`]: the public releases of the module, with SVN and MRSEAM.
//! - [`text`]: text from files, made safe to print.
//! - `testing`, with the feature `testing`: folders that look like the root of a TDX host.
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

pub mod catalogue;
pub mod config;
pub mod cpu_list;
pub mod cpuinfo;
pub mod examine;
pub mod explain;
pub mod fact;
#[cfg(feature = "faults")]
pub mod fault;
pub mod host;
pub mod kernel_log;
pub mod madt;
pub mod mapping;
pub mod plan;
pub mod record;
pub mod releases;
pub mod root;
#[cfg(feature = "testing")]
pub mod testing;
pub mod text;
pub mod trust;
pub mod update;
pub mod version;

pub use catalogue::Catalogue;
pub use config::Config;
pub use cpu_list::CpuList;
pub use host::Host;
pub use plan::Plan;
pub use releases::{Platform, Release, Releases};
pub use root::Root;
pub use version::parse_version;

/// The example in the crate's README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
