//! Events outside of firmware while a platform exists.

use std::ffi::c_void;

use tdx_seamldr_mock::model::{CpuRegister, SeamDb};

use crate::number::{enumeration, flag, Enumeration, TdxSimBool};
use crate::platform::{contradiction, Sim};
use crate::registry::with;
use crate::status::{guarded, Failure};
use crate::{
    pointer, TdxSim, TdxSimLock, TdxSimLockNumber, TdxSimSeamextend, TdxSimStatus, TdxSimTrap,
};
use crate::{TdxSimTrapNumber, TDX_SIM_ANY_LP, TDX_SIM_HANDOFF_SIZE};

/// Changes a platform.
fn change(sim: *mut TdxSim, run: impl FnOnce(&mut Sim) -> Result<(), Failure>) -> TdxSimStatus {
    guarded(|| with(sim, run))
}

/// Changes an LP of a platform.
fn change_lp(
    sim: *mut TdxSim,
    lp: u32,
    run: impl FnOnce(&mut Sim) -> Result<(), Failure>,
) -> TdxSimStatus {
    change(sim, |sim| {
        sim.known_lp(lp)?;
        run(sim)
    })
}

/// Sets the result of RDRAND. `ok` true: RDRAND fails `failures` times, then returns `value`. `ok`
/// false: RDRAND always fails. P-SEAMLDR needs a number at its first entry and for each installed
/// module. The module needs one in TDH.SYS.INIT and in TDH.SYS.LP.INIT.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `ok` is neither true nor false.
#[no_mangle]
pub extern "C" fn tdx_sim_set_rdrand(
    sim: *mut TdxSim,
    ok: TdxSimBool,
    value: u64,
    failures: u32,
) -> TdxSimStatus {
    change(sim, |sim| {
        let ok = flag(ok, "ok")?;
        let config = sim.platform.config_mut();
        (config.rdrand_ok, config.rdrand_value, config.rdrand_failures) = (ok, value, failures);
        Ok(())
    })
}

/// Sets the SEAM database, in which the processor counts the modules that were installed since
/// boot. The database has `size` entries, of which `used` are used. The next `failures` insertions
/// fail for lack of entropy (0xffffffff: practically all). The number that P-SEAMLDR remembers does
/// not change: see tdx_sim_set_remaining_updates().
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; CONTRADICTION: `used` is above `size`.
#[no_mangle]
pub extern "C" fn tdx_sim_set_seamdb(
    sim: *mut TdxSim,
    size: u32,
    used: u32,
    failures: u32,
) -> TdxSimStatus {
    change(sim, |sim| {
        let seamdb = SeamDb { size, used, insert_failures: failures };
        seamdb.check().map_err(contradiction)?;
        *sim.platform.seamdb_mut() = seamdb;
        Ok(())
    })
}

/// Sets the number of remaining updates that P-SEAMLDR remembers. If it is 0, SEAMLDR.INFO counts
/// the SEAM database again.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_set_remaining_updates(sim: *mut TdxSim, count: u32) -> TdxSimStatus {
    change(sim, |sim| {
        sim.platform.set_num_remaining_updates(count);
        Ok(())
    })
}

/// Sets whether P-SEAMLDR was entered since boot. The first entry needs a random number.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `entered` is neither true nor false.
#[no_mangle]
pub extern "C" fn tdx_sim_set_p_seamldr_entered(
    sim: *mut TdxSim,
    entered: TdxSimBool,
) -> TdxSimStatus {
    change(sim, |sim| {
        sim.platform.set_seamldr_entered(flag(entered, "entered")?);
        Ok(())
    })
}

/// Sets whether debug modules may be installed: bit 1 of MSR 0x503.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `unlocked` is neither true nor false.
#[no_mangle]
pub extern "C" fn tdx_sim_set_debug_unlocked(
    sim: *mut TdxSim,
    unlocked: TdxSimBool,
) -> TdxSimStatus {
    change(sim, |sim| {
        sim.platform.config_mut().debug_unlocked = flag(unlocked, "unlocked")?;
        Ok(())
    })
}

/// Makes the next `count` steps of SEAMLDR.CLEANUP find a pending interrupt.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_set_pending_interrupts(sim: *mut TdxSim, count: u32) -> TdxSimStatus {
    change(sim, |sim| {
        sim.platform.set_interrupts_pending(count);
        Ok(())
    })
}

/// Sets the results of the module's SEAMOPS(SEAMDB_GETREF) and PCONFIG; 0 is success. An error of
/// the first is fatal to TDH.SYS.INIT. TDH.SYS.KEY.CONFIG has statuses for the PCONFIG errors 2 (no
/// entropy) and 5 (busy); other errors are fatal.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_set_instruction_errors(
    sim: *mut TdxSim,
    seamdb_getref: u32,
    pconfig: u32,
) -> TdxSimStatus {
    change(sim, |sim| {
        let config = sim.platform.config_mut();
        (config.seamdb_getref_error, config.pconfig_error) = (seamdb_getref, pconfig);
        Ok(())
    })
}

/// Sets how another LP holds the module's global lock. Calls that need the lock return
/// TDX_SIM_TDX_SYS_BUSY.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `lock` is not a tdx_sim_lock; NO_MODULE.
#[no_mangle]
pub extern "C" fn tdx_sim_set_global_lock(
    sim: *mut TdxSim,
    lock: TdxSimLockNumber,
) -> TdxSimStatus {
    change(sim, |sim| {
        let lock = TdxSimLock::of_number(lock)?.lock();
        sim.platform.module_mut().ok_or(TdxSimStatus::NoModule)?.set_lock(lock);
        Ok(())
    })
}

/// Sets whether another LP is initialising a TDMR, given by its place in the list of
/// TDH.SYS.CONFIG: 0 to 63.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `tdmr` is above 63, or `held` is neither true
/// nor false; NO_MODULE.
#[no_mangle]
pub extern "C" fn tdx_sim_set_tdmr_lock(
    sim: *mut TdxSim,
    tdmr: u32,
    held: TdxSimBool,
) -> TdxSimStatus {
    change(sim, |sim| {
        let held = flag(held, "held")?;
        if tdmr > 63 {
            return Err(Failure::argument(format!("tdmr is {tdmr}, but should be at most 63")));
        }
        sim.platform.module_mut().ok_or(TdxSimStatus::NoModule)?.set_tdmr_lock(tdmr, held);
        Ok(())
    })
}

/// Makes each SEAMCALL of one LP fail from now on. #UD: the LP is not in VMX operation. #GP: TDX is
/// not enabled. NONE ends this. TDX_SIM_TRAP_VMFAIL_INVALID is not possible here; use
/// tdx_sim_add_fault() for it.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `trap` is not one of the three.
#[no_mangle]
pub extern "C" fn tdx_sim_set_lp_trap(
    sim: *mut TdxSim,
    lp: u32,
    trap: TdxSimTrapNumber,
) -> TdxSimStatus {
    change_lp(sim, lp, |sim| {
        let trap = TdxSimTrap::of_number(trap)?;
        if trap == TdxSimTrap::VmfailInvalid {
            return Err(Failure::argument(
                "trap is TDX_SIM_TRAP_VMFAIL_INVALID; use tdx_sim_add_fault() for it",
            ));
        }
        sim.platform.set_trap(lp, trap.trap());
        Ok(())
    })
}

/// Sets whether one LP is inside the module, e.g. runs a TD. TDH.SYS.SHUTDOWN on other LPs then
/// returns TDX_SIM_TDX_SYS_BUSY, and calls of this LP to the module fail with VMfailInvalid.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; LP_BUSY: the LP is inside a SEAMCALL;
/// BAD_ARGUMENT: `inside` is neither true nor false.
#[no_mangle]
pub extern "C" fn tdx_sim_set_lp_in_module(
    sim: *mut TdxSim,
    lp: u32,
    inside: TdxSimBool,
) -> TdxSimStatus {
    change_lp(sim, lp, |sim| {
        let inside = flag(inside, "inside")?;
        if sim.platform.is_in_call(lp) {
            return Err(TdxSimStatus::LpBusy.into());
        }
        sim.platform.set_in_module(lp, inside);
        Ok(())
    })
}

/// A register that CPUID writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
#[allow(missing_docs)] // the registers' own names
pub enum TdxSimCpuidOutput {
    Eax = 0,
    Ebx = 1,
    Ecx = 2,
    Edx = 3,
}

enumeration!(TdxSimCpuidOutput, "tdx_sim_cpuid_output", [Eax, Ebx, Ecx, Edx]);

/// A tdx_sim_cpuid_output from C: any number.
pub type TdxSimCpuidOutputNumber = u32;

/// Flips bits of a register on one LP, or on all LPs.
fn flip(sim: &mut Sim, lp: u32, register: CpuRegister, bits: u64) -> Result<(), Failure> {
    let lp = (lp != TDX_SIM_ANY_LP).then_some(lp);
    if let Some(lp) = lp {
        sim.known_lp(lp)?;
    }
    let done = sim.platform.deviate(lp, register, bits);
    done.then_some(()).ok_or_else(|| TdxSimStatus::NoRoom.into())
}

/// Flips bits of an MSR on one LP, so that this LP differs from the others, or with TDX_SIM_ANY_LP
/// on all LPs. Flipping the same bits twice cancels. TDH.SYS.INIT checks MSRs. TDH.SYS.LP.INIT
/// compares them with those of the LP that called TDH.SYS.INIT.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; NO_ROOM: 2048 registers are already changed.
#[no_mangle]
pub extern "C" fn tdx_sim_flip_lp_msr(
    sim: *mut TdxSim,
    lp: u32,
    msr: u32,
    bits: u64,
) -> TdxSimStatus {
    change(sim, |sim| flip(sim, lp, CpuRegister::Msr(msr), bits))
}

/// Flips bits of one register that CPUID writes on one LP, or with TDX_SIM_ANY_LP on all LPs.
/// Flipping the same bits twice cancels. `subleaf` is 0xffffffff for leaves that have no subleaves.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP; BAD_ARGUMENT: `output` is not a
/// tdx_sim_cpuid_output; NO_ROOM: 2048 registers are already changed.
#[no_mangle]
pub extern "C" fn tdx_sim_flip_lp_cpuid(
    sim: *mut TdxSim,
    lp: u32,
    leaf: u32,
    subleaf: u32,
    output: TdxSimCpuidOutputNumber,
    bits: u32,
) -> TdxSimStatus {
    change(sim, |sim| {
        let output = match TdxSimCpuidOutput::of_number(output)? {
            TdxSimCpuidOutput::Eax => 0,
            TdxSimCpuidOutput::Ebx => 1,
            TdxSimCpuidOutput::Ecx => 2,
            TdxSimCpuidOutput::Edx => 3,
        };
        flip(sim, lp, CpuRegister::Cpuid { leaf, subleaf, output }, bits.into())
    })
}

/// Sets the SEAMOPS capabilities of one LP.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
#[no_mangle]
pub extern "C" fn tdx_sim_set_lp_capabilities(
    sim: *mut TdxSim,
    lp: u32,
    capabilities: u64,
) -> TdxSimStatus {
    change_lp(sim, lp, |sim| {
        sim.platform.set_capabilities(lp, capabilities);
        Ok(())
    })
}

/// Undoes tdx_sim_flip_lp_msr(), tdx_sim_flip_lp_cpuid() and tdx_sim_set_lp_capabilities() on one
/// LP, or with TDX_SIM_ANY_LP on all LPs.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
#[no_mangle]
pub extern "C" fn tdx_sim_restore_lp(sim: *mut TdxSim, lp: u32) -> TdxSimStatus {
    change(sim, |sim| {
        if lp == TDX_SIM_ANY_LP {
            sim.platform.restore_lps();
        } else {
            sim.known_lp(lp)?;
            sim.platform.restore_lp(lp);
        }
        Ok(())
    })
}

/// Executes VMPTRLD on one LP: `address` becomes its current VMCS. 0xffffffffffffffff: no current
/// VMCS.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; UNKNOWN_LP.
#[no_mangle]
pub extern "C" fn tdx_sim_load_vmcs(sim: *mut TdxSim, lp: u32, address: u64) -> TdxSimStatus {
    change_lp(sim, lp, |sim| {
        sim.platform.load_vmcs(lp, address);
        Ok(())
    })
}

/// Reads the register SEAMEXTEND.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT.
///
/// # Safety
///
/// `seamextend` points to a writable tdx_sim_seamextend.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_get_seamextend(
    sim: *mut TdxSim,
    seamextend: *mut TdxSimSeamextend,
) -> TdxSimStatus {
    guarded(|| {
        pointer::checked(seamextend)?;
        let found =
            with(sim, |sim| Ok(TdxSimSeamextend::from(*sim.platform.loader().seamextend())))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(seamextend, found) }
    })
}

/// Writes the register SEAMEXTEND, which no host could do. An open session stays open.
///
/// Errors: NULL; UNALIGNED; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `seam_ready` or `p_seamldr_ready`
/// is neither 0 nor 1; CONTRADICTION: `seam_ready` is 1, but there is no module.
///
/// # Safety
///
/// `seamextend` points to a readable tdx_sim_seamextend.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_set_seamextend(
    sim: *mut TdxSim,
    seamextend: *const TdxSimSeamextend,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let wanted = unsafe { pointer::read(seamextend) }?;
        let ready = flag(wanted.seam_ready, "seam_ready")?;
        flag(wanted.p_seamldr_ready, "p_seamldr_ready")?;
        with(sim, |sim| {
            if ready && sim.platform.module().is_none() {
                return Err(Failure::new(
                    TdxSimStatus::Contradiction,
                    "seam_ready is 1, but there is no module",
                ));
            }
            *sim.platform.seamextend_mut() = wanted.into();
            Ok(())
        })
    })
}

/// Returns the range of the handoff area that `offset` and `len` give.
fn handoff_part(offset: usize, len: usize) -> Result<std::ops::Range<usize>, Failure> {
    let end = offset.checked_add(len).filter(|end| *end <= TDX_SIM_HANDOFF_SIZE);
    end.map(|end| offset..end).ok_or_else(|| {
        let text = format!(
            "offset {offset} and len {len} reach beyond the {TDX_SIM_HANDOFF_SIZE} bytes of the \
             handoff area"
        );
        Failure::new(TdxSimStatus::BadLength, text)
    })
}

/// Reads `len` bytes of the handoff area from `offset`. The area begins with a header of 8 bytes
/// (valid u8, reserved u8, version u16, size u32), then the data. It has TDX_SIM_HANDOFF_SIZE
/// bytes.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
///
/// # Safety
///
/// `bytes` points to `len` writable bytes.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_read_handoff(
    sim: *mut TdxSim,
    offset: usize,
    bytes: *mut c_void,
    len: usize,
) -> TdxSimStatus {
    guarded(|| {
        if bytes.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        let part = handoff_part(offset, len)?;
        let found = with(sim, |sim| {
            Ok(sim.platform.handoff_area().get(part).unwrap_or_default().to_vec())
        })?;
        // SAFETY: this function's contract; there are `len` bytes.
        unsafe { pointer::copy_out(&found, bytes.cast()) };
        Ok(())
    })
}

/// Writes `len` bytes to the handoff area from `offset`. See tdx_sim_read_handoff().
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_LENGTH: the bytes are not within the area.
///
/// # Safety
///
/// `bytes` points to `len` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_write_handoff(
    sim: *mut TdxSim,
    offset: usize,
    bytes: *const c_void,
    len: usize,
) -> TdxSimStatus {
    guarded(|| {
        if bytes.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        let part = handoff_part(offset, len)?;
        // SAFETY: this function's contract.
        let wanted = unsafe { pointer::copy_in(bytes.cast::<u8>(), len) }?;
        with(sim, |sim| {
            let target = sim.platform.handoff().get_mut(part).unwrap_or_default();
            target.iter_mut().zip(wanted).for_each(|(slot, byte)| *slot = byte);
            Ok(())
        })
    })
}
