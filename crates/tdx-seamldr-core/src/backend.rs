//! How SEAMCALL is executed: the one thing that differs between real hardware and a simulation.

use core::fmt;

use crate::abi::TdxStatus;
use crate::debug::debug_fields;

/// The registers of SEAMCALL. All of them may carry arguments in and results out.
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

/// Why the instruction itself failed. The registers then say nothing. Its value is the word that Linux uses for it in the place of a
/// status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Trap {
    /// The carry flag was set: nothing can be called (no module is ready), or another LP is inside P-SEAMLDR.
    VmFailInvalid = TdxStatus::SEAMCALL_VMFAILINVALID.0,
    /// #GP: TDX is not enabled on this CPU.
    GeneralProtection = TdxStatus::SEAMCALL_GP.0,
    /// #UD: this CPU is not in VMX operation, or knows no SEAMCALL.
    UndefinedOpcode = TdxStatus::SEAMCALL_UD.0,
}

impl Trap {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::VmFailInvalid, Self::GeneralProtection, Self::UndefinedOpcode];

    /// The word that Linux uses for it in the place of a status.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of an enum
    pub const fn status(self) -> TdxStatus {
        TdxStatus(self as u64)
    }

    /// The trap behind such a word. No firmware returns these words itself.
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
                "SEAMCALL failed with VMfailInvalid: no module is ready, or another LP is inside P-SEAMLDR"
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
/// An implementor has to
/// - execute the instruction (or simulate it) on the CPU that makes the call, once, with exactly the registers given;
/// - on `Ok`, leave in `regs` what the firmware returned, all fourteen registers;
/// - on `Err`, report that the instruction did not enter the firmware, so that no memory was read or written;
/// - let the firmware read and write no memory but what the call's own operands name.
pub unsafe trait SeamcallBackend {
    /// Executes SEAMCALL on the calling CPU, with `regs` in and out.
    ///
    /// # Errors
    ///
    /// The instruction itself failed; what the firmware answers is not an error here.
    ///
    /// # Safety
    ///
    /// Firmware reads and writes the physical addresses it is given. The caller guarantees for every address in `regs`, and
    /// for every one in the structures they point at, that the call may access it as the leaf's specification says: it
    /// belongs to the caller, stays where it is during the call, and nobody holds a reference that the access would
    /// invalidate. Interrupts have to be off if an interrupt handler on this CPU could make a SEAMCALL, too.
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap>;
}

// SAFETY: hands everything on to an implementation that holds the contract.
unsafe impl<B: SeamcallBackend + ?Sized> SeamcallBackend for &B {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller holds the same contract.
        unsafe { (**self).seamcall(regs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static_assertions::assert_obj_safe!(SeamcallBackend);

    #[test]
    fn traps_and_linux_words_are_the_same_thing() {
        for trap in Trap::ALL {
            assert_eq!(Trap::from_status(trap.status()), Some(trap));
        }
        assert_eq!(Trap::from_status(TdxStatus::SYS_BUSY), None);
    }
}
