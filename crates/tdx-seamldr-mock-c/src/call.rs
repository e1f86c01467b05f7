//! SEAMCALL.

use std::time::Duration;

use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_verify::RustCrypto;

use crate::registry::{find, Place};
use crate::status::guarded;
use crate::{pointer, TdxSim, TdxSimStatus, TDX_SIM_DELAY_LIMIT_MS};

/// The registers of SEAMCALL, in and out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[allow(missing_docs)] // the registers' own names
pub struct TdxSimRegs {
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

impl From<TdxSimRegs> for SeamcallRegs {
    fn from(regs: TdxSimRegs) -> Self {
        let TdxSimRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } = regs;
        Self { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
    }
}

impl From<SeamcallRegs> for TdxSimRegs {
    fn from(regs: SeamcallRegs) -> Self {
        let SeamcallRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } = regs;
        Self { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
    }
}

/// Whether the instruction itself failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum TdxSimTrap {
    /// It did not: firmware was entered and came back.
    None = 0,
    /// The carry flag was set: nothing can be called, or another LP is inside P-SEAMLDR. Also if firmware hits a fatal error.
    VmfailInvalid = 1,
    /// #GP: TDX is not enabled on this LP.
    Gp = 2,
    /// #UD: this LP is not in VMX operation.
    Ud = 3,
}

impl TdxSimTrap {
    /// The number that C sees.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u32) enum
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The trap with this number, if it is one.
    pub(crate) fn of_number(number: u32) -> Option<Trap> {
        Trap::ALL.into_iter().find(|trap| Self::from(*trap).number() == number)
    }
}

impl From<Trap> for TdxSimTrap {
    fn from(trap: Trap) -> Self {
        match trap {
            Trap::VmFailInvalid => Self::VmfailInvalid,
            Trap::GeneralProtection => Self::Gp,
            Trap::UndefinedOpcode => Self::Ud,
        }
    }
}

impl Place {
    /// One SEAMCALL, from its beginning to its end.
    fn seamcall(&self, lp: u32, regs: &mut SeamcallRegs) -> Result<Option<Trap>, TdxSimStatus> {
        let mut guard = self.lock()?;
        let sim = guard.as_mut().ok_or(TdxSimStatus::BadHandle)?;
        if sim.platform.x2apic_id(lp).is_none() {
            return Err(TdxSimStatus::UnknownLp);
        }
        sim.calls = sim.calls.wrapping_add(1);
        self.changed().notify_all();
        let entered = match sim.platform.enter(lp, regs) {
            Ok(entered) => entered,
            Err(trap) => return Ok(Some(trap)),
        };
        if entered.delay != 0 {
            // Others may come meanwhile, and find this LP inside. In a program of one thread nobody comes.
            let until = sim.calls.saturating_add(entered.delay.into());
            let limit = Duration::from_millis(TDX_SIM_DELAY_LIMIT_MS.into());
            let waits = |sim: &mut Option<_>| {
                sim.as_ref().is_some_and(|sim: &crate::platform::Sim| sim.calls < until)
            };
            let result = self.changed().wait_timeout_while(guard, limit, waits);
            (guard, _) = result.map_err(|_| TdxSimStatus::Panic)?;
        }
        let sim = guard.as_mut().ok_or(TdxSimStatus::BadHandle)?;
        Ok(sim.platform.leave(entered, regs, &sim.memory, &RustCrypto).err())
    }
}

/// An LP executes SEAMCALL with these registers. `*trap` says whether the instruction itself failed (a tdx_sim_trap); if it did
/// not, `*regs` are what firmware returned, and otherwise they stay as they are. What firmware answers is in `regs->rax`, and is
/// no error of this function. Signatures are checked with RSA-3072 and SHA-384.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; UNKNOWN_LP.
///
/// # Safety
///
/// `regs` leads to registers, and `trap` to a tdx_sim_trap, that may be written. For the memory that is mapped see
/// tdx_sim_map().
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_seamcall(
    sim: *mut TdxSim,
    lp: u32,
    regs: *mut TdxSimRegs,
    trap: *mut TdxSimTrap,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(trap)?;
        // SAFETY: this function's contract.
        let mut registers = SeamcallRegs::from(unsafe { pointer::read(regs) }?);
        let trapped = find(sim)?.seamcall(lp, &mut registers)?;
        if trapped.is_none() {
            // SAFETY: this function's contract.
            unsafe { pointer::write(regs, registers.into()) }?;
        }
        // SAFETY: this function's contract.
        unsafe { pointer::write(trap, trapped.map_or(TdxSimTrap::None, TdxSimTrap::from)) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_keep_their_places() {
        let [rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] =
            core::array::from_fn(|i| i as u64);
        let regs = TdxSimRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
        // SAFETY: a `repr(C)` structure of fourteen u64.
        let words: [u64; 14] = unsafe { core::mem::transmute(regs) };
        assert_eq!(words, core::array::from_fn(|i| i as u64));
        assert_eq!(TdxSimRegs::from(SeamcallRegs::from(regs)), regs);
    }

    #[test]
    fn traps_have_numbers_and_no_trap_is_none_of_them() {
        for trap in Trap::ALL {
            assert_eq!(TdxSimTrap::of_number(TdxSimTrap::from(trap).number()), Some(trap));
        }
        assert_eq!([0, 4].map(TdxSimTrap::of_number), [None, None]);
    }
}
