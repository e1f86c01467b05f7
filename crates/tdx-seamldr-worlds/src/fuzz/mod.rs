//! The code of the fuzz targets, as functions of bytes. A panic is a finding.
//!
//! They are part of a library so that the ordinary tests run them on all seeds and on all earlier
//! findings.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::missing_panics_doc, // a panic is the result of a finding
)]

mod command;
mod explain;
mod host_tree;
mod image;
mod images;
mod numbers;
mod operator;
mod params;
mod plugin;
pub mod seeds;
mod sigstruct;
mod status;
mod update_ops;
mod vector;

pub use command::cli_json;
pub use explain::explain_log;
pub use host_tree::host_tree;
pub use image::image;
pub use operator::operator_files;
pub use params::params_roundtrip;
pub use plugin::{decode_instruction, plugin_options};
pub use sigstruct::sigstruct;
pub use status::status;
pub use update_ops::update_ops;
pub use vector::vector;

/// A fuzz target.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Name of the target, of its program, and of the folder with its corpus.
    pub name: &'static str,
    /// Runs an input.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: [Target; 12] = [
    Target { name: "image", run: image },
    Target { name: "params_roundtrip", run: params_roundtrip },
    Target { name: "sigstruct", run: sigstruct },
    Target { name: "status", run: status },
    Target { name: "vector", run: vector },
    Target { name: "update_ops", run: update_ops },
    Target { name: "cli_json", run: cli_json },
    Target { name: "host_tree", run: host_tree },
    Target { name: "explain_log", run: explain_log },
    Target { name: "operator_files", run: operator_files },
    Target { name: "decode_instruction", run: decode_instruction },
    Target { name: "plugin_options", run: plugin_options },
];
