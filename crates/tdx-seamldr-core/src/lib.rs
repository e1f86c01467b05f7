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
//! The library does not allocate, panic or use floating point. Its unsafe code only makes
//! SEAMCALLs. The embedder implements four small traits: [`SeamcallBackend`] executes the
//! instruction, [`Lock`] lets one CPU at a time into P-SEAMLDR, [`Host`] knows CPUs and addresses,
//! [`Crypto`] verifies signatures.
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
