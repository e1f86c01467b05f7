//! A Linux host that runs the Intel TDX module, as user space sees it.
//!
//! - [`explain`]: status words and kernel log lines in plain words, with what to do.
//! - [`fact`]: a value with where it was read, or why it is not known.
//! - [`host`]: what user space sees of the host.
//! - [`releases`]: the public releases of the module, with SVN and MRSEAM.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod explain;
pub mod fact;
pub mod host;
pub mod releases;
pub mod version;

pub use host::Host;
pub use releases::{Platform, Release, Releases};
pub use version::parse_version;
