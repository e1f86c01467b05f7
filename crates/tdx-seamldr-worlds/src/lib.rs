//! A kit of simulated worlds: a platform with TDs, an update of it, and what the update claims
//! beside what is true.
//!
//! - [`world`]: a platform, an update by this library, and the claims of its outcome.
//! - [`outcomes`]: sweeps over everything that can go wrong, beside Linux 7.2's policy, for `cargo
//!   xtask outcomes`.
//! - [`window`]: the SEAMCALLs while all CPUs stand still, counted for `cargo xtask window`.
//! - [`fuzz`]: the fuzz targets, which are no more than an entry into this module.

pub mod fuzz;
mod intercepted;
mod memo;
pub mod outcomes;
pub mod window;
pub mod world;
