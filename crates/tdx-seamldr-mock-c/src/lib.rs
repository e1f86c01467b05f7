//! The simulated TDX platform, for programs in C and C++.
//!
//! The header is `include/tdx_sim.h`, which `cargo xtask c-header` makes of this crate. The library is `libtdx_sim`, static
//! or shared. `examples/c` has a program that updates a module with it.
//!
//! The functions can be called from Rust, too, which is how their tests do it. Rust programs have more of
//! [`tdx_seamldr_mock`].
//!
//! # Misuse
//!
//! A platform is known by a number that was never given out before, and never will be again; it only has the type of a
//! pointer. So a handle that is wrong, or was freed, is an error like others ([`TdxSimStatus::BadHandle`]). NULL, and a pointer
//! that has not the alignment of what it should lead to, are errors as well. What is left to the caller is said with each
//! function: that other pointers lead to what they should, and that mapped memory stays there.
//!
//! A panic of the library does not get out of it ([`TdxSimStatus::Panic`]), if it is built so that panics unwind, which is
//! the default. Like every Rust program, it aborts the process if there is no memory.
//!
//! ```
//! use tdx_sim::{tdx_sim_free, TdxSimStatus};
//!
//! assert_eq!(tdx_sim_free(std::ptr::null_mut()), TdxSimStatus::Null);
//! ```
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::as_conversions
    )
)]

mod call;
mod fault;
mod image;
mod memory;
mod platform;
mod pointer;
mod registry;
mod status;
mod truth;

pub use call::{tdx_sim_seamcall, TdxSimRegs, TdxSimTrap};
pub use fault::{
    tdx_sim_add_fault, tdx_sim_clear_faults, TdxSimFault, TdxSimFaultKind, TDX_SIM_ANY_LP,
    TDX_SIM_DELAY_LIMIT_MS,
};
pub use image::{tdx_sim_image_defaults, tdx_sim_test_image, TdxSimImage};
pub use memory::{tdx_sim_map, tdx_sim_unmap, TDX_SIM_PAGE_SIZE};
pub use platform::{tdx_sim_create, tdx_sim_create_td, tdx_sim_free, TdxSimTdPhase};
pub use registry::TdxSim;
pub use status::{tdx_sim_status_name, TdxSimStatus};
pub use truth::{tdx_sim_get_truth, TdxSimModuleState, TdxSimTruth};
