//! Simulated worlds: a platform with TDs, an update of it, and a comparison of the update's claims
//! with the platform's real state.
//!
//! - [`world`]: a platform, an update by this library, and the claims of its outcome.
//! - [`outcomes`]: sweeps over all failures, compared with Linux 7.2's policy, for `cargo xtask
//!   outcomes`.
//! - [`window`]: the number of SEAMCALLs while all CPUs are stopped, for `cargo xtask window`.
//! - [`fuzz`]: the code of the fuzz targets.

pub mod fuzz;
mod intercepted;
mod memo;
pub mod outcomes;
pub mod window;
pub mod world;
