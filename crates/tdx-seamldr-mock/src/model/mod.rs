//! The platform: what happens when an LP executes SEAMCALL.

pub(crate) mod elf;
mod handoff;
mod loader;
mod memory;
mod module;
mod platform;
mod profile;
mod td;

pub use loader::{Loader, SeamDb};
pub use memory::{PhysMemory, SeamStorage, CODE_SIZE, HANDOFF_STORAGE};
pub use module::{ModuleBuild, ModuleState, TdxModule};
pub use platform::{Config, ConfigError, Platform};
pub use profile::LoaderProfile;
pub use td::{Td, TdId, TdPhase, MAX_TDS};

use tdx_seamldr_core::abi::{OperandId, TdxStatus};

/// A SEAMCALL came to an end that is no return: firmware hit a fatal error, and takes SEAM mode with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fatal;

/// OPERAND_INVALID or its like, about this operand.
fn about(status: TdxStatus, operand: OperandId) -> TdxStatus {
    TdxStatus(status.0 | u64::from(operand.0))
}
