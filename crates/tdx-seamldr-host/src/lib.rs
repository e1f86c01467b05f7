//! A Linux host that runs the Intel TDX module, as user space sees it.
//!
//! - [`fact`]: a value with where it was read, or why it is not known.
//! - [`root`]: the folder below which all files are read.
//! - [`host`]: what user space sees of the host.
//! - [`cpu_list`], [`cpuinfo`], [`madt`]: the files that tell of LPs.
//! - [`releases`]: the public releases of the module, with SVN and MRSEAM.
//! - `testing`, with the feature of that name: folders that look like the root of a TDX host.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod cpu_list;
pub mod cpuinfo;
pub mod fact;
pub mod host;
pub mod madt;
pub mod releases;
pub mod root;
#[cfg(feature = "testing")]
pub mod testing;
pub mod version;

pub use cpu_list::CpuList;
pub use host::Host;
pub use releases::{Platform, Release, Releases};
pub use root::Root;
pub use version::parse_version;
