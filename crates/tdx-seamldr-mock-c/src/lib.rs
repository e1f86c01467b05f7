//! The simulated TDX platform, for programs in C and C++.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! The header is `include/tdx_sim.h`; `cargo xtask c-header` generates it from this crate. The
//! library is `libtdx_sim`, static or shared. `examples/c` has a program that updates a module with
//! it.
//!
//! Rust programs can call these functions, too; their tests do so. Rust programs get more from
//! [`tdx_seamldr_mock`].
//!
//! # Misuse
//!
//! A handle has the type of a pointer, but is a number. No number is used twice. So a wrong handle,
//! or the handle of a freed platform, is an error ([`TdxSimStatus::BadHandle`]). NULL and
//! misaligned pointers are errors as well. Each function documents what the library cannot check:
//! that other pointers are valid, and that mapped memory stays valid.
//!
//! A number that stands for an enumeration or a `bool` is checked. A structure that may grow begins
//! with its size, which the library checks first. A callback gets an error if it calls a function
//! that takes a platform. [`tdx_sim_last_error`] describes the last error.
//!
//! A panic inside the library becomes an error ([`TdxSimStatus::Internal`]) if the library is built
//! with unwinding panics, the default. Out of memory aborts the process, as in every Rust program.
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
