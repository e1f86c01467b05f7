//! The platform as a value that answers SEAMCALLs.

mod config;
mod cpu;
pub(crate) mod elf;
mod fault;
mod handoff;
mod loader;
mod lp;
mod memory;
mod module;
mod platform;
mod profile;
mod td;
mod trace;

pub use config::{Config, ConfigError};
pub use cpu::CpuRegister;
pub use fault::{Answer, Fault, FaultId, FaultPlan, PlanIsFull, MAX_FAULTS};
pub use handoff::HandoffForm;
pub use loader::{Effects, Loader, LoaderState, ModuleSysInfo, SeamDb};
pub use lp::{MAX_LPS, NO_VMCS};
pub use memory::{PhysMemory, SeamMemory, CODE_SIZE, HANDOFF_STORAGE};
#[cfg(any(feature = "std", test))]
pub(crate) use module::Description;
pub use module::{GlobalLock, ModuleBuild, ModuleGeneration, ModuleState, SysInfo, TdxModule};
pub use platform::{Entered, Platform};
pub use profile::{LoaderProfile, SvnRule};
pub use td::{Measurement, Td, TdError, TdId, TdPhase, MAX_TDS};
pub use trace::{AnswerName, LeafName, TraceEntry};

#[doc = include_str!("rules.md")]
pub mod rules {}

use tdx_seamldr_core::abi::{OperandId, TdxStatus};

/// Firmware hit a fatal error. The SEAMCALL does not return, and SEAM mode is off until the next
/// boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fatal;

/// Returns `status` with the id of the operand that it is about.
fn about(status: TdxStatus, operand: OperandId) -> TdxStatus {
    TdxStatus(status.0 | u64::from(operand.0))
}
