//! Executes SEAMCALL.

use std::time::Duration;

use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_verify::RustCrypto;

use crate::number::enumeration;
use crate::platform::Sim;
use crate::registry::{find, Place};
use crate::status::{guarded, Failure};
use crate::{pointer, TdxSim, TdxSimStatus, TDX_SIM_DELAY_LIMIT_MS};

/// The registers of SEAMCALL, before and after the call.
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
        let TdxSimRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } =
            regs;
        Self { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
    }
}

impl From<SeamcallRegs> for TdxSimRegs {
    fn from(regs: SeamcallRegs) -> Self {
        let SeamcallRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } =
            regs;
        Self { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
    }
}

/// Whether the instruction itself failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimTrap {
    /// Firmware was entered and returned.
    None = 0,
    /// VMfailInvalid, the carry flag: no firmware can be called, another LP is inside P-SEAMLDR,
    /// or firmware hit a fatal error.
    VmfailInvalid = 1,
    /// #GP: TDX is not enabled on this LP.
    Gp = 2,
    /// #UD: this LP is not in VMX operation.
    Ud = 3,
}

enumeration!(TdxSimTrap, "tdx_sim_trap", [None, VmfailInvalid, Gp, Ud]);

/// A tdx_sim_trap from C: any number.
pub type TdxSimTrapNumber = u32;

impl TdxSimTrap {
    /// Returns the trap of the simulation.
    pub(crate) const fn trap(self) -> Option<Trap> {
        match self {
            Self::None => None,
            Self::VmfailInvalid => Some(Trap::VmFailInvalid),
            Self::Gp => Some(Trap::GeneralProtection),
            Self::Ud => Some(Trap::UndefinedOpcode),
        }
    }
}

impl From<Option<Trap>> for TdxSimTrap {
    fn from(trap: Option<Trap>) -> Self {
        match trap {
            None => Self::None,
            Some(Trap::VmFailInvalid) => Self::VmfailInvalid,
            Some(Trap::GeneralProtection) => Self::Gp,
            Some(Trap::UndefinedOpcode) => Self::Ud,
        }
    }
}

impl Place {
    /// Executes one whole SEAMCALL. Returns the trap, and whether a callback failed.
    fn seamcall(&self, lp: u32, regs: &mut SeamcallRegs) -> Result<(Option<Trap>, bool), Failure> {
        let mut guard = self.lock()?;
        let sim = guard.as_mut().ok_or(TdxSimStatus::BadHandle)?;
        sim.known_lp(lp)?;
        if sim.platform.is_in_call(lp) {
            let text = format!("LP {lp} is inside a SEAMCALL of another thread");
            return Err(Failure::new(TdxSimStatus::LpBusy, text));
        }
        let input = *regs;
        sim.calls = sim.calls.wrapping_add(1);
        self.changed().notify_all();
        let entered = match sim.platform.enter(lp, regs) {
            Ok(entered) => entered,
            Err(trap) => {
                sim.record(lp, &input, Err(trap));
                return Ok((Some(trap), false));
            }
        };
        if entered.delay != 0 {
            // Other LPs may call meanwhile, and find this LP inside firmware. In a program of one
            // thread no other LP calls.
            let until = sim.calls.saturating_add(entered.delay.into());
            let limit = Duration::from_millis(TDX_SIM_DELAY_LIMIT_MS.into());
            let waits = |sim: &mut Option<Sim>| sim.as_ref().is_some_and(|sim| sim.calls < until);
            let result = self.changed().wait_timeout_while(guard, limit, waits);
            (guard, _) = result.map_err(|_| TdxSimStatus::Internal)?;
        }
        let sim = guard.as_mut().ok_or(TdxSimStatus::BadHandle)?;
        let Sim { platform, memory, .. } = sim;
        let result = platform.leave(entered, regs, memory, &RustCrypto);
        let failed = memory.take_failure();
        sim.record(lp, &input, result.map(|()| *regs));
        Ok((result.err(), failed))
    }
}

/// Executes SEAMCALL on an LP with these registers. `*trap` says whether the instruction itself
/// failed. If not, `*regs` are the registers that firmware returned; otherwise they do not change.
/// The status is in `regs->rax` and is not an error of this function. Signatures are checked with
/// RSA-3072 and SHA-384.
///
/// `lp` is the number of the LP: its place in the platform's list, counted from 0, not its x2APIC
/// id. An LP that firmware counts but that never calls this function is offline.
/// tdx_sim_set_lp_trap() takes an LP out of VMX operation.
///
/// Different threads may call for different LPs at the same time. The calls are executed one after
/// the other, unless a fault delays one of them. Other LPs then find the delayed LP inside
/// firmware.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: another thread's call for
/// the same LP is delayed, and a real LP could not execute a second call; CALLBACK_FAILED: a
/// callback for memory failed. The call was made nevertheless, with zeros instead of missing bytes,
/// and `*regs` and `*trap` are set.
///
/// # Safety
///
/// `regs` points to writable registers, and `trap` to a writable tdx_sim_trap. For mapped memory
/// see tdx_sim_map().
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
        let (trapped, callback_failed) = find(sim)?.seamcall(lp, &mut registers)?;
        if trapped.is_none() {
            // SAFETY: this function's contract.
            unsafe { pointer::write(regs, registers.into()) }?;
        }
        // SAFETY: this function's contract.
        unsafe { pointer::write(trap, trapped.into()) }?;
        if callback_failed {
            return Err(TdxSimStatus::CallbackFailed.into());
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::number::Enumeration;

    #[test]
    fn registers_convert_without_changing_places() {
        let [rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] =
            core::array::from_fn(|i| i as u64);
        let regs =
            TdxSimRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 };
        // SAFETY: a `repr(C)` structure of 14 `u64`.
        let words: [u64; 14] = unsafe { core::mem::transmute(regs) };
        assert_eq!(words, core::array::from_fn(|i| i as u64));
        assert_eq!(TdxSimRegs::from(SeamcallRegs::from(regs)), regs);
    }

    #[test]
    fn traps_and_no_trap_have_different_numbers() {
        for trap in Trap::ALL {
            let number = TdxSimTrap::from(Some(trap)).number();
            assert_eq!(TdxSimTrap::of_number(number).unwrap().trap(), Some(trap));
        }
        assert_eq!(TdxSimTrap::of_number(0).unwrap().trap(), None);
        assert!(TdxSimTrap::of_number(4).is_err());
    }
}
