//! SEAMCALL on x86_64 processors, and what a processor says about SEAM.
//!
//! - [`Seamcall`] is the backend for `tdx-seamldr-core` that executes the instruction. It exists three times, by the way in which
//!   #GP and #UD come back: [`NoTable`], [`SeamTable`], [`LinuxTable`].
//! - [`KeepVmcs`] wraps a backend and keeps the current VMCS across P-SEAMLDR, on processors that lose it there.
//! - [`Processor`] is what CPUID and MSRs tell an update.
//!
//! The embedder puts the backend into its `Host`, which also knows CPUs and addresses:
//!
//! ```
//! use tdx_seamldr_core::{Host, Patience, PhysAddr, SeamcallBackend, SeamcallRegs, Trap};
//! use tdx_seamldr_x86_64::{SeamTable, Seamcall};
//! # fn this_cpu() -> u32 { 0 }
//! # fn num_cpus() -> u32 { 1 }
//! # fn translate(address: *const u8) -> Option<PhysAddr> { Some(PhysAddr(address.addr() as u64)) }
//!
//! struct Kernel(Seamcall<SeamTable>);
//!
//! // SAFETY: the instruction itself.
//! unsafe impl SeamcallBackend for Kernel {
//!     unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
//!         // SAFETY: the caller's.
//!         unsafe { self.0.seamcall(regs) }
//!     }
//! }
//!
//! // SAFETY: memory of the kernel stays where it is, and the page tables say where.
//! unsafe impl Host for Kernel {
//!     fn current_lp(&self) -> u32 {
//!         this_cpu()
//!     }
//!
//!     fn num_lps(&self) -> u32 {
//!         num_cpus()
//!     }
//!
//!     fn relax(&self) -> Patience {
//!         core::hint::spin_loop();
//!         Patience::Wait
//!     }
//!
//!     fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
//!         translate(address)
//!     }
//! }
//! ```
//!
//! The processor tells whether P-SEAMLDR may be called, and facts for preflight:
//!
//! ```no_run
//! use tdx_seamldr_core::preflight::Facts;
//! # use tdx_seamldr_core::{Host, Seamldr, SpinLock};
//! use tdx_seamldr_x86_64::{rdmsr, Hardware, Processor};
//!
//! # fn probe(host: &impl Host) -> Result<(), Box<dyn std::error::Error>> {
//! // SAFETY: this runs in ring 0, on a processor that has the MSRs asked for.
//! let processor = Processor::probe(&Hardware::new(|msr| Some(unsafe { rdmsr(msr) })));
//! processor.check()?;
//! let lock = SpinLock::new();
//! let seamldr = Seamldr::new(host, &lock, processor.current_vmcs())?;
//! let mut facts = Facts::new();
//! processor.complete(&mut facts);
//! # Ok(())
//! # }
//! ```
//!
//! # Source
//!
//! The instruction: "Intel Trust Domain CPU Architectural Extensions", SEAMCALL, and the TDX module's ABI specification for which
//! registers carry operands. The VMCS erratum: the same document, and bit 60 of IA32_VMX_BASIC.
#![cfg(target_arch = "x86_64")]
#![no_std]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::unwrap_used, clippy::panic)
)]

mod probe;
mod seamcall;
mod table;
mod vmcs;

pub use probe::{rdmsr, CpuidResult, Hardware, KeyIds, Processor, ProcessorError, Registers, SeamRange};
pub use seamcall::Seamcall;
pub use table::{fixup, LinuxTable, NoTable, SeamTable, Table};
pub use vmcs::{CurrentVmcsPointer, KeepVmcs};
