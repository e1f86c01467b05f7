//! Reads a Linux host with the Intel TDX module from user space, plans updates and makes them.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! The feature `faults` adds the module `fault`, and the feature `testing` the module `testing`.
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
