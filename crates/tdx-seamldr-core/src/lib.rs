//! Replaces the Intel TDX module of a running host. A kernel or a hypervisor embeds this library.
//!
//! The steps of an update:
//!
//! ```text
//! bytes --TdxImage::parse--> TdxImage --preflight--> PassedUpdate
//!       --Update::new--> Update --Cpu::run, on every LP--> SeamcallBackend --> Outcome
//! ```
//!
//! - [`abi`]: leaves, status codes and structures as Intel defines them.
//! - [`image`]: both forms of the image file, read and written.
//! - [`preflight`]: checks that find the reasons for a refusal before the module is shut down.
//! - [`Seamldr`] and [`TdxModule`]: typed calls over the embedder's [`SeamcallBackend`].
//! - [`update`]: the state machine of each CPU. Every path ends in an [`update::Outcome`].
//!
//! The [`glossary`] explains the terms.
//!
//! The library does not allocate, panic or use floating point. Its unsafe code only makes
//! SEAMCALLs. The embedder implements four small traits: [`SeamcallBackend`] executes the
//! instruction, [`Lock`] lets one CPU at a time into P-SEAMLDR, [`Host`] knows CPUs and addresses,
//! [`Crypto`] verifies signatures.
//!
//! # A first program
//!
//! It replaces the module of a simulated machine. On a processor, the crate `tdx-seamldr-x86_64`
//! takes the place of the machine: comments name what to call there.
//!
//! ```rust
//! //! Replaces the TDX module of a simulated machine while a TD runs, and falls back once.
//!
//! use tdx_seamldr_core::abi::{PSysInfoBuffer, SeamldrInfoBuffer, SeamldrParamsBuffer};
//! use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus};
//! use tdx_seamldr_core::preflight::{preflight, preflight_image, Facts, Finding, Policy, Purpose};
//! use tdx_seamldr_core::update::{Cpu, Outcome, Update};
//! use tdx_seamldr_core::{CurrentVmcs, Error, Seamldr, SharedInfo, SpinLock, TdxImage};
//! use tdx_seamldr_mock::{Answer, Fault, SimPlatform, TestImage};
//! use tdx_seamldr_verify::RustCrypto;
//!
//! static LOCK: SpinLock = SpinLock::new(); // one CPU at a time calls P-SEAMLDR
//!
//! /// Replaces the running module of `machine` by `new`. `old` is the file of the running module.
//! fn replace(machine: &SimPlatform, new: &[u8], old: Option<&[u8]>) -> Result<Outcome, Error> {
//!     // Memory for firmware. A kernel takes pages: `SeamldrParamsBuffer::in_memory`.
//!     let mut info = SeamldrInfoBuffer::zeroed();
//!     let mut sysinfo = Box::new(PSysInfoBuffer::zeroed());
//!     let mut params = Box::new(SeamldrParamsBuffer::zeroed());
//!     let mut old_params = Box::new(SeamldrParamsBuffer::zeroed());
//!     let shared_info = SharedInfo::new();
//!
//!     // 1. Hold the CPUs: none comes or goes until this function returns. Those here never do.
//!
//!     // 2. Gather facts, each from whoever knows it.
//!     let cpu = machine.lp(0); // your `Host`: SEAMCALL, CPUs and addresses
//!     let vmcs = CurrentVmcs::Preserved; // on a processor: `Processor::current_vmcs`
//!     let seamldr = Seamldr::new(&cpu, &LOCK, vmcs)?;
//!     let mut facts = Facts::new();
//!     facts.gather(&seamldr, &mut info, &mut sysinfo)?; // P-SEAMLDR and the running module
//!     machine.complete(&mut facts); // `Processor::complete`, highest x2APIC ID, TDs in build
//!
//!     // 3. Preflight: no refusal, no unknown. Nothing has been shut down.
//!     let report: &mut dyn FnMut(Finding) = &mut |finding| println!("{finding}");
//!     let new = TdxImage::parse(new)?;
//!     let passed = preflight(&new, &facts, &RustCrypto, Policy::default(), report)?;
//!     let fallback = match old {
//!         Some(old) => {
//!             let purpose = Purpose::TakeOver { handoff_version: passed.handoff_version() };
//!             let (old, policy) = (TdxImage::parse(old)?, Policy::default());
//!             let old = preflight_image(&old, &facts, purpose, &RustCrypto, policy, report)?;
//!             Some(old.prepare(&mut old_params, &cpu)?)
//!         }
//!         None => None,
//!     };
//!
//!     // 4. Update: every CPU takes part. A kernel does this in `stop_machine`.
//!     let update = Update::new(&passed, &mut params, &shared_info, &cpu, machine.module_state())?
//!         .with_fallbacks(fallback.as_slice())?;
//!     std::thread::scope(|cpus| {
//!         for lp in machine.online() {
//!             let update = &update;
//!             cpus.spawn(move || {
//!                 let cpu = machine.lp(lp);
//!                 Cpu::new(update, Seamldr::new(&cpu, &LOCK, CurrentVmcs::Preserved)?).run();
//!                 Ok::<(), Error>(())
//!             });
//!         }
//!     });
//!
//!     // 5. The CPUs run again. The outcome says what became of the TDs, and what to do next.
//!     Ok(update.outcome())
//! }
//!
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     // Images of three modules, each newer than the last. The machine runs the first.
//!     let [first, second, third] = [5, 6, 7].map(|svn| {
//!         let image = TestImage { svn_minor: svn, ..TestImage::default() };
//!         image.build()
//!     });
//!     let machine = SimPlatform::builder().lps(4).boot(&TdxImage::parse(first.as_bytes())?)?;
//!     let td = machine.create_td()?;
//!
//!     let outcome = replace(&machine, second.as_bytes(), Some(first.as_bytes()))?;
//!     println!("{outcome}");
//!     assert!(outcome.is_updated() && machine.td_is_alive(td));
//!
//!     // P-SEAMLDR refuses the third module after the second is shut down: the second comes back.
//!     let refusal = Answer::Return { rax: SeamldrStatus::EBADHASH.0, rdx: 0 };
//!     machine.inject(Fault::first(SeamldrLeaf::Install.rax(), refusal));
//!     let outcome = replace(&machine, third.as_bytes(), Some(second.as_bytes()))?;
//!     println!("{outcome}");
//!     assert!(outcome.tds_live_on() && !outcome.is_updated() && machine.td_is_alive(td));
//!     assert!(machine.unfired_faults().is_empty());
//!
//!     // Preflight refuses an older module before anything is shut down.
//!     let refused = replace(&machine, first.as_bytes(), None).unwrap_err();
//!     println!("{refused}");
//!     assert_eq!(machine.truth().tds_alive, 1);
//!     Ok(())
//! }
//! ```
//!
//! # Pictures
#![cfg_attr(doc, doc = include_str!("../pictures/stages.svg"))]
//!
#![cfg_attr(doc, doc = include_str!("../pictures/traits.svg"))]
//!
#![cfg_attr(doc, doc = include_str!("../pictures/crates.svg"))]
#![no_std]
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

#[cfg(test)]
#[macro_use]
extern crate std;

pub mod abi;
mod addr;
mod backend;
mod count;
mod crypto;
mod debug;
mod error;
/// The terms of this project, in the words of Intel's specifications and of Linux. A firmware rule
/// is a section of the project's pages docs/firmware.
#[cfg_attr(doc, doc = include_str!("../glossary.md"))]
pub mod glossary {}
mod host;
pub mod image;
mod lock;
mod module_state;
mod params;
pub mod preflight;
mod seamldr;
mod shared_info;
mod shared_memory;
mod tdx_module;
pub mod update;

pub use addr::{PageAddr, PhysAddr};
pub use backend::{SeamcallBackend, SeamcallRegs, Trap};
pub use crypto::{Crypto, CryptoUnavailable, NoCrypto, Sha384Digest, INTEL_PRODUCTION_SIGNER};
pub use error::Error;
pub use host::{Host, MachineId, Patience};
pub use image::TdxImage;
pub use lock::Lock;
#[cfg(feature = "spin")]
pub use lock::SpinLock;
pub use module_state::{LpBits, ModuleState, SysInit};
pub use params::{BuildError, InstallRequest, Part};
pub use seamldr::{CurrentVmcs, InstallError, Seamldr, SeamldrError, VmcsErratum};
pub use shared_info::SharedInfo;
pub use shared_memory::{NotShared, SharedMemory};
pub use tdx_module::{FieldRead, TdxError, TdxModule, TdxVersion};

/// The example in the crate's README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
