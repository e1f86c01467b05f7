//! Hosts as folders: the facts of each host, and hostile folders.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod hostile;
mod json;
mod kinds;
mod lps;
mod root;

use tdx_seamldr_host::testing::HostTree;
use tdx_seamldr_host::{Host, Root};
use tempfile::TempDir;

/// Writes a host into a folder of its own.
fn write(tree: &HostTree) -> TempDir {
    let folder = TempDir::new().unwrap();
    tree.write(folder.path()).unwrap();
    folder
}

fn read(tree: &HostTree) -> Host {
    let folder = write(tree);
    Host::read(&Root::new(folder.path()))
}
