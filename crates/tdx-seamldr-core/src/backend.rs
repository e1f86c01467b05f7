//! The interface that executes SEAMCALL, on hardware or in a simulation.

use core::fmt;

use crate::abi::TdxStatus;
use crate::debug::debug_fields;

/// The registers of SEAMCALL. Each can carry an argument in and a result out.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
#[repr(C)]
#[allow(missing_docs)] // the registers' own names
pub struct SeamcallRegs {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

debug_fields! { SeamcallRegs, rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }

/// The reason why the SEAMCALL instruction itself failed. The registers then hold no result. The
/// value is the status word that Linux uses for the trap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Trap {
    /// The carry flag was set: no module is ready, or another LP is inside P-SEAMLDR.
    VmFailInvalid = TdxStatus::SEAMCALL_VMFAILINVALID.0,
    /// #GP: TDX is not enabled on this CPU.
    GeneralProtection = TdxStatus::SEAMCALL_GP.0,
    /// #UD: this CPU is not in VMX operation, or has no SEAMCALL.
    UndefinedOpcode = TdxStatus::SEAMCALL_UD.0,
}

impl Trap {
    /// All traps.
    pub const ALL: [Self; 3] =
        [Self::VmFailInvalid, Self::GeneralProtection, Self::UndefinedOpcode];

    /// Returns the status word that Linux uses for this trap.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of an enum
    pub const fn status(self) -> TdxStatus {
        TdxStatus(self as u64)
    }

    /// Returns the trap that Linux's status word stands for. Firmware returns no such word.
    #[must_use]
    pub const fn from_status(status: TdxStatus) -> Option<Self> {
        match status {
            TdxStatus::SEAMCALL_VMFAILINVALID => Some(Self::VmFailInvalid),
            TdxStatus::SEAMCALL_GP => Some(Self::GeneralProtection),
            TdxStatus::SEAMCALL_UD => Some(Self::UndefinedOpcode),
            _ => None,
        }
    }
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::VmFailInvalid => {
                "SEAMCALL failed with VMfailInvalid: no module is ready, or another LP is inside \
                 P-SEAMLDR"
            }
            Self::GeneralProtection => "SEAMCALL raised #GP: TDX is not enabled on this CPU",
            Self::UndefinedOpcode => "SEAMCALL raised #UD: this CPU is not in VMX operation",
        })
    }
}

impl core::error::Error for Trap {}

/// Executes SEAMCALL.
///
/// # Safety
///
/// An implementor must
/// - execute the instruction (or simulate it) once, on the calling CPU, with exactly the registers
///   given;
/// - on `Ok`, leave in `regs` what the firmware returned, in all fourteen registers;
/// - return `Err` only if the instruction did not enter the firmware, so that no memory was read or
///   written;
/// - let the firmware read and write no memory except what the operands of the call name.
pub unsafe trait SeamcallBackend {
    /// Executes SEAMCALL on the calling CPU, with `regs` in and out.
    ///
    /// # Errors
    ///
    /// The instruction itself failed. A status of the firmware in RAX is no error here.
    ///
    /// # Safety
    ///
    /// Firmware reads and writes the physical addresses that it gets. The caller guarantees for
    /// every address in `regs`, and for every address in the structures they point at, that
    /// - the call may access the memory there as the leaf's specification says;
    /// - the memory belongs to the caller and stays where it is during the call;
    /// - no reference exists that the access would invalidate.
    ///
    /// The caller also guarantees that interrupts are off if an interrupt handler on this CPU could
    /// make a SEAMCALL too.
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap>;
}

// SAFETY: forwards to an implementation that fulfils the contract.
unsafe impl<B: SeamcallBackend + ?Sized> SeamcallBackend for &B {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller fulfils the same contract.
        unsafe { (**self).seamcall(regs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_obj_safe!(SeamcallBackend);

    #[test]
    fn each_trap_is_found_by_its_status_word() {
        for trap in Trap::ALL {
            assert_eq!(Trap::from_status(trap.status()), Some(trap));
        }
        assert_eq!(Trap::from_status(TdxStatus::SYS_BUSY), None);
    }
}
