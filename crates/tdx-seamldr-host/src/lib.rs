//! A Linux host that runs the Intel TDX module, as user space sees it.
//!
//! - [`catalogue`]: the public releases, and the images that lie in the host's folders.
//! - [`fact`]: a value with where it was read, or why it is not known.
//! - [`host`]: what user space sees of the host.
//! - [`mapping`]: Intel's `mapping_file.json`.
//! - [`plan`](mod@plan): which image comes next, and what speaks against each other one.
//! - [`releases`]: the public releases of the module, with SVN and MRSEAM.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::arithmetic_side_effects))]

pub mod catalogue;
pub mod fact;
pub mod host;
pub mod mapping;
pub mod plan;
pub mod releases;
pub mod version;

pub use catalogue::Catalogue;
pub use host::Host;
pub use plan::Plan;
pub use releases::{Platform, Release, Releases};
pub use version::parse_version;
