//! A simulated Intel TDX platform, for trying module updates without TDX hardware.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! [`model`] is the platform itself: logical processors, the SEAM range, P-SEAMLDR, a TDX module
//! and TDs. It is a plain value that answers SEAMCALLs. It needs neither an allocator nor the
//! standard library: traits provide memory and cryptography. So it also runs inside a kernel or on
//! bare metal.
//!
//! With the feature `std` (on by default) there is [`SimPlatform`]: the model behind a lock, for
//! one thread per LP, over the memory of the process. Physical and virtual addresses differ.
//! [`TestImage`] makes small images that are signed with a test key.
//!
//! The platform makes the checks that the real one is known to make: the RSA signature, the hash
//! of the image, the session of all LPs, SVN, CPUs, handoff data. A TD is alive only while a
//! module runs that knows the TD's KeyID. A module learns KeyIDs from the bytes of the handoff
//! data.
//!
//! ```
//! use tdx_seamldr_core::preflight::{preflight, Policy};
//! use tdx_seamldr_core::update::{Cpu, Update};
//! use tdx_seamldr_core::{CurrentVmcs, Seamldr, SharedInfo, SpinLock, TdxImage};
//! use tdx_seamldr_mock::{PageBuf, SimPlatform, TestImage};
//! use tdx_seamldr_verify::RustCrypto;
//!
//! // A platform of 4 LPs that runs one module, and an image of the next module.
//! let old = TestImage::default().build();
//! let new = TestImage { svn_minor: 6, ..TestImage::default() }.build();
//! let platform = SimPlatform::builder().lps(4).boot(&TdxImage::parse(old.as_bytes())?)?;
//! let td = platform.create_td()?;
//!
//! // Check everything that P-SEAMLDR and the new module will check, before anything is shut down.
//! let new = TdxImage::parse(new.as_bytes())?;
//! let facts = platform.facts()?;
//! let mut report = |finding| eprintln!("{finding}");
//! let passed = preflight(&new, &facts, &RustCrypto, Policy::default(), &mut report)?;
//!
//! let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
//! let (lp, state) = (platform.lp(0), platform.module_state());
//! let update = Update::new(&passed, params.as_params(), &info, &lp, state)?;
//! let lock = SpinLock::new();
//! std::thread::scope(|threads| {
//!     for lp in 0..4 {
//!         let (platform, update, lock) = (&platform, &update, &lock);
//!         threads.spawn(move || {
//!             let lp = platform.lp(lp);
//!             let seamldr = Seamldr::new(&lp, lock, CurrentVmcs::Preserved).unwrap();
//!             Cpu::new(update, seamldr).run();
//!         });
//!     }
//! });
//! assert!(update.outcome().is_updated());
//! assert!(platform.td_is_alive(td));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(feature = "std"), no_std)]
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

pub mod model;
#[cfg(feature = "std")]
mod std;

#[cfg(feature = "std")]
pub use self::std::*;

/// The example in the crate's README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
