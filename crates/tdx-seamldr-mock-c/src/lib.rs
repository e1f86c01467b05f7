//! The simulated TDX platform, for programs in C and C++.
//!
//! The header is `include/tdx_sim.h`, which `cargo xtask c-header` makes of this crate. The library
//! is `libtdx_sim`, static or shared. `examples/c` has a program that updates a module with it.
//!
//! The functions can be called from Rust, too, which is how their tests do it. Rust programs have
//! more of [`tdx_seamldr_mock`].
//!
//! # Misuse
//!
//! A platform is known by a number that was never given out before, and never will be again; it
//! only has the type of a pointer. So a handle that is wrong, or was freed, is an error like others
//! ([`TdxSimStatus::BadHandle`]). NULL, and a pointer that has not the alignment of what it should
//! lead to, are errors as well. What is left to the caller is said with each function: that other
//! pointers lead to what they should, and that mapped memory stays there.
//!
//! Numbers of C that stand for an enumeration or a `bool` are looked up, never believed. A
//! structure that may grow begins with its size, which is looked at before anything else. A
//! callback that calls a function that takes a platform gets an error. [`tdx_sim_last_error`] says
//! what was wrong.
//!
//! A panic of the library does not get out of it ([`TdxSimStatus::Internal`]), if it is built so
//! that panics unwind, which is the default. Like every Rust program, it aborts the process if
//! there is no memory.
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

mod abi;
mod call;
mod change;
mod fault;
mod image;
mod memory;
mod number;
mod platform;
mod pointer;
mod registry;
mod status;
mod td;
mod trace;
mod truth;
mod version;

pub use abi::*;
pub use call::*;
pub use change::*;
pub use fault::*;
pub use image::*;
pub use memory::*;
pub use number::TdxSimBool;
pub use platform::*;
pub use registry::TdxSim;
pub use status::{tdx_sim_last_error, tdx_sim_status_name, TdxSimStatus, TdxSimStatusNumber};
pub use td::*;
pub use trace::*;
pub use truth::*;
pub use version::*;
