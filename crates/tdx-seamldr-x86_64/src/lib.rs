//! Executes SEAMCALL on x86_64 processors, and reads what a processor reports about SEAM.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! - [`Seamcall`] is the backend for `tdx-seamldr-core` that executes the instruction. Its type
//!   parameter selects how the caller learns of #GP and #UD: [`NoTable`], [`SeamTable`] or
//!   [`LinuxTable`].
//! - [`KeepVmcs`] wraps a backend. It keeps the current VMCS on processors that lose it in
//!   P-SEAMLDR.
//! - [`Processor`] holds what an update needs from CPUID and MSRs.
//!
//! ```no_run
//! use tdx_seamldr_core::{Host, Patience, PhysAddr, SeamcallBackend, SeamcallRegs};
//! use tdx_seamldr_core::{Seamldr, SpinLock, Trap};
//! use tdx_seamldr_x86_64::{rdmsr, Hardware, Processor, SeamTable, Seamcall};
//!
//! /// A kernel's own CPU. It hands SEAMCALL on to the backend.
//! struct ThisCpu(Seamcall<SeamTable>);
//!
//! # extern "C" {
//! #     fn this_cpu() -> u32;
//! #     fn online_cpus() -> u32;
//! #     fn virt_to_phys(address: *const u8) -> u64;
//! # }
//! // SAFETY: the backend keeps the contract.
//! unsafe impl SeamcallBackend for ThisCpu {
//!     unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
//!         // SAFETY: the caller's.
//!         unsafe { self.0.seamcall(regs) }
//!     }
//! }
//!
//! // SAFETY: kernel memory does not move, and there is one machine.
//! unsafe impl Host for ThisCpu {
//!     fn current_lp(&self) -> u32 {
//!         unsafe { this_cpu() }
//!     }
//!     fn num_lps(&self) -> u32 {
//!         unsafe { online_cpus() }
//!     }
//!     fn relax(&self) -> Patience {
//!         core::hint::spin_loop();
//!         Patience::Wait
//!     }
//!     fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
//!         Some(PhysAddr(unsafe { virt_to_phys(address) }))
//!     }
//! }
//!
//! // SAFETY: this runs in ring 0, on a processor that has the MSRs asked for.
//! let hardware = Hardware::new(|msr| Some(unsafe { rdmsr(msr) }));
//! let processor = Processor::probe(&hardware);
//! processor.check()?;
//! let (cpu, lock) = (ThisCpu(Seamcall::new()), SpinLock::new());
//! let seamldr = Seamldr::new(&cpu, &lock, processor.current_vmcs())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Source
//!
//! "Intel Trust Domain CPU Architectural Extensions" describes SEAMCALL and the VMCS erratum (bit
//! 60 of IA32_VMX_BASIC). The TDX module's ABI specification says which registers carry operands.
#![cfg(target_arch = "x86_64")]
#![no_std]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::panic
    )
)]

mod probe;
mod seamcall;
mod table;
mod vmcs;

pub use probe::{
    addressable_lps, debug_unlocked, rdmsr, CpuidResult, Hardware, KeyIds, Processor,
    ProcessorError, Registers, SeamRange,
};
pub use seamcall::Seamcall;
pub use table::{fixup, LinuxTable, NoTable, SeamTable, Table};
pub use vmcs::{CurrentVmcsPointer, KeepVmcs};

/// The example in the crate's README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
