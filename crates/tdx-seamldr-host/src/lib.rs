//! A Linux host that runs the Intel TDX module, as user space sees it.
//!
//! - [`examine`](mod@examine): what a file is, and whether Intel signed exactly this.
//! - [`fact`]: a value with where it was read, or why it is not known.
//! - [`host`]: what user space sees of the host.
//! - [`releases`]: the public releases of the module, with SVN and MRSEAM.
//! - [`text`]: text from files, made safe to print.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod examine;
pub mod fact;
pub mod host;
pub mod releases;
pub mod text;
pub mod version;

pub use host::Host;
pub use releases::{Platform, Release, Releases};
pub use version::parse_version;
