//! The commands for a host, as processes: on trees of hosts with a kernel that answers as Linux
//! does.
//!
//! Intel's released images come from the folder in `TDX_MODULE_BINARIES`; without it, tests that
//! need images are ignored.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::string_slice,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod apply;
mod config;
mod files;
mod history;
mod hostile;
mod interrupted;
mod kernel;
mod list;
mod metrics;
mod patience;
mod plan;
mod properties;
mod recording;
mod report;
mod speed;
mod status;
mod support;
mod update;
