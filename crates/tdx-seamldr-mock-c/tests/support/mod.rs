//! A platform of 4 LPs with a ready module, and the calls of a host.
#![allow(dead_code)] // not every test file uses all of it

use std::ffi::{CStr, CString};
use std::ptr;

use tdx_sim::*;

pub(crate) const INSTALL: u64 = TDX_SIM_SEAMLDR_INSTALL;
pub(crate) const SYS_RD: u64 = TDX_SIM_TDH_SYS_RD;
pub(crate) const SYS_INIT: u64 = TDX_SIM_TDH_SYS_INIT;
pub(crate) const SYS_LP_INIT: u64 = TDX_SIM_TDH_SYS_LP_INIT;
pub(crate) const SYS_SHUTDOWN: u64 = TDX_SIM_TDH_SYS_SHUTDOWN;
pub(crate) const SYS_UPDATE: u64 = TDX_SIM_TDH_SYS_UPDATE;

pub(crate) const LPS: u32 = 4;

/// Start of the mapped host memory.
pub(crate) const HOST: u64 = 0x1_0000_0000;

/// Returns a description with a module in this state, or without a module.
pub(crate) fn description(state: Option<&str>) -> String {
    // SEAMEXTEND has SVN 1.4 if there is a module.
    let svn = if state.is_some() { "ff010000000000000401" } else { "00000000000000000000" };
    let ready = if state.is_some() { "01" } else { "00" };
    let seamextend = format!("{svn}{}{ready}0001", "00".repeat(118));
    let module = state.map_or_else(String::new, |state| {
        let lps = if state == "SYSINIT_PENDING" { "" } else { "0, 1, 2, 3" };
        format!(
            r#""state": "{state}", "lps_initialized": [{lps}], "module": {{
                "major": 1, "minor": 5, "update": 1, "internal": 0, "build_date": 20230808, "build_num": 451,
                "built_module_hv": 0, "built_min_update_hv": 0, "built_no_downgrade": 0,
                "sysinfo": {{"module_hv": 0, "min_update_hv": 0, "no_downgrade": 0, "num_handoff_pages": 13}}}},"#
        )
    });
    format!(
        r#"{{"platform": {{"num_lps": 4, "lp_x2apic_ids": [0, 2, 4, 6], "num_sockets": 1, "socket_fms": ["0x806f8"],
            "max_pa": 46, "keyid_bits": 6, "private_hkid_min": "0x20", "rdrand": {{"ok": true, "value": "0x5a5a"}},
            "seamrr_base": "0x2000000000", "seamrr_size": "0x10000000"}},
            "initial": {{{module} "seamextend": "{seamextend}", "num_remaining_updates": 60}}}}"#
    )
}

/// Returns the description of this thread's last failure.
pub(crate) fn last_error() -> String {
    // SAFETY: the function returns a C string that is valid until the next call.
    unsafe { CStr::from_ptr(tdx_sim_last_error()) }.to_str().unwrap().to_owned()
}

/// Calls tdx_sim_create_from_json(); returns the status and the handle.
pub(crate) fn create(description: impl Into<Vec<u8>>) -> (TdxSimStatus, *mut TdxSim) {
    let description = CString::new(description).unwrap();
    let mut sim = ptr::dangling_mut();
    // SAFETY: the description ends with a NUL, and the handle is writable.
    let status = unsafe { tdx_sim_create_from_json(description.as_ptr(), &mut sim) };
    (status, sim)
}

/// Returns a structure that the library fills in. The library gets it with its size and zeros.
pub(crate) fn filled<T: Copy>(fill: impl FnOnce(*mut T) -> TdxSimStatus) -> (TdxSimStatus, T) {
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let start = value.as_mut_ptr();
    // SAFETY: each structure begins with its size, a `u32`.
    unsafe { start.cast::<u32>().write(u32::try_from(size_of::<T>()).unwrap()) };
    let status = fill(start);
    // SAFETY: the structures consist of integers and pointers, so all bytes are valid.
    (status, unsafe { value.assume_init() })
}

/// Returns the default platform.
pub(crate) fn platform() -> TdxSimPlatform {
    // SAFETY: the structure is writable, and its size is set.
    let (status, platform) = filled(|platform| unsafe { tdx_sim_platform_defaults(platform) });
    assert_eq!(status, TdxSimStatus::Ok);
    platform
}

/// Returns an image of 8 pages, SVN 1.5.
pub(crate) fn image() -> TdxSimImage {
    // SAFETY: the structure is writable, and its size is set.
    let (status, image) = filled(|image| unsafe { tdx_sim_image_defaults(image) });
    assert_eq!(status, TdxSimStatus::Ok);
    image
}

/// Returns the default build of a module of this image.
pub(crate) fn build(image: &TdxSimImage) -> TdxSimBuild {
    // SAFETY: the structure is writable, and its size is set.
    let (status, build) = filled(|build| unsafe { tdx_sim_build_defaults(image, build) });
    assert_eq!(status, TdxSimStatus::Ok);
    build
}

/// Returns the file of an image.
pub(crate) fn file(image: &TdxSimImage, format: TdxSimImageFormat) -> Vec<u8> {
    let mut needed = 0;
    // SAFETY: the function writes only the size.
    let status =
        unsafe { tdx_sim_image_file(image, format.number(), ptr::null_mut(), 0, &mut needed) };
    assert_eq!(status, TdxSimStatus::BufferTooSmall);
    let mut file = vec![0; needed];
    let start = file.as_mut_ptr().cast();
    // SAFETY: the buffer has this number of writable bytes.
    let status =
        unsafe { tdx_sim_image_file(image, format.number(), start, file.len(), &mut needed) };
    assert_eq!(status, TdxSimStatus::Ok);
    file
}

/// A platform that is freed when dropped.
#[derive(Debug)]
pub(crate) struct Sim(pub(crate) *mut TdxSim);

// SAFETY: the handle is not an address, and the functions may be called from any thread.
unsafe impl Sync for Sim {}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = tdx_sim_free(self.0);
    }
}

impl Sim {
    pub(crate) fn new(state: Option<&str>) -> Self {
        let (status, sim) = create(description(state));
        assert_eq!(status, TdxSimStatus::Ok, "{}", last_error());
        Self(sim)
    }

    pub(crate) fn ready() -> Self {
        Self::new(Some("SYS_READY"))
    }

    /// Creates a platform from a structure.
    pub(crate) fn of(platform: &TdxSimPlatform) -> Result<Self, TdxSimStatus> {
        let mut sim = ptr::dangling_mut();
        // SAFETY: the platform is readable, and the handle is writable.
        let status = unsafe { tdx_sim_create(platform, &mut sim) };
        if status == TdxSimStatus::Ok {
            return Ok(Self(sim));
        }
        assert!(sim.is_null());
        Err(status)
    }

    /// Creates a platform and boots an image.
    pub(crate) fn booted(platform: &TdxSimPlatform, image: &TdxSimImage) -> Self {
        let sim = Self::of(platform).unwrap();
        let file = file(image, TdxSimImageFormat::V1);
        assert_eq!(sim.boot(&file, TdxSimModuleState::Ready), TdxSimStatus::Ok, "{}", last_error());
        sim
    }

    pub(crate) fn boot(&self, file: &[u8], until: TdxSimModuleState) -> TdxSimStatus {
        // SAFETY: the file is readable.
        unsafe { tdx_sim_boot(self.0, file.as_ptr().cast(), file.len(), until.number()) }
    }

    /// Makes a SEAMCALL that the library accepts; returns the trap and the registers.
    pub(crate) fn call(&self, lp: u32, regs: TdxSimRegs) -> (TdxSimTrap, TdxSimRegs) {
        let (status, trap, regs) = self.try_call(lp, regs);
        assert_eq!(status, TdxSimStatus::Ok);
        (trap, regs)
    }

    pub(crate) fn try_call(
        &self,
        lp: u32,
        mut regs: TdxSimRegs,
    ) -> (TdxSimStatus, TdxSimTrap, TdxSimRegs) {
        let mut trap = TdxSimTrap::Ud;
        // SAFETY: both are writable. The tests access mapped memory only in the thread that makes
        // the calls.
        let status = unsafe { tdx_sim_seamcall(self.0, lp, &mut regs, &mut trap) };
        (status, trap, regs)
    }

    /// Makes a call that enters firmware; returns RAX.
    pub(crate) fn answer(&self, lp: u32, rax: u64, rcx: u64) -> u64 {
        let (trap, regs) = self.call(lp, TdxSimRegs { rax, rcx, ..TdxSimRegs::default() });
        assert_eq!(trap, TdxSimTrap::None, "{rax:#x} on LP {lp}");
        regs.rax
    }

    /// Makes a call that succeeds.
    pub(crate) fn succeed(&self, lp: u32, rax: u64, rcx: u64) {
        assert_eq!(self.answer(lp, rax, rcx), 0, "{rax:#x} on LP {lp}");
    }

    pub(crate) fn truth(&self) -> TdxSimTruth {
        // SAFETY: the structure is writable, and its size is set.
        let (status, truth) = filled(|truth| unsafe { tdx_sim_get_truth(self.0, truth) });
        assert_eq!(status, TdxSimStatus::Ok);
        truth
    }

    pub(crate) fn lp(&self, lp: u32) -> TdxSimLp {
        // SAFETY: the structure is writable, and its size is set.
        let (status, state) = filled(|state| unsafe { tdx_sim_get_lp(self.0, lp, state) });
        assert_eq!(status, TdxSimStatus::Ok);
        state
    }

    pub(crate) fn create_td(&self, phase: TdxSimTdPhase) -> Result<u32, TdxSimStatus> {
        let mut td = u32::MAX;
        // SAFETY: the number is writable.
        match unsafe { tdx_sim_create_td(self.0, phase.number(), &mut td) } {
            TdxSimStatus::Ok => Ok(td),
            status => Err(status),
        }
    }

    pub(crate) fn td(&self, td: u32) -> TdxSimTd {
        // SAFETY: the structure is writable, and its size is set.
        let (status, state) = filled(|state| unsafe { tdx_sim_get_td(self.0, td, state) });
        assert_eq!(status, TdxSimStatus::Ok);
        state
    }

    pub(crate) fn extend_td(&self, td: u32, bytes: &[u8]) -> TdxSimStatus {
        // SAFETY: the slice is readable.
        unsafe { tdx_sim_extend_td(self.0, td, bytes.as_ptr().cast(), bytes.len()) }
    }

    /// Returns whether the final measurement is correct.
    pub(crate) fn finish_td(&self, td: u32) -> Result<bool, TdxSimStatus> {
        let mut right = 7;
        // SAFETY: the value is writable.
        match unsafe { tdx_sim_finish_td(self.0, td, &mut right) } {
            TdxSimStatus::Ok => Ok([false, true][usize::from(right)]),
            status => Err(status),
        }
    }

    pub(crate) fn try_add_fault(&self, fault: TdxSimFault) -> Result<u64, TdxSimStatus> {
        let mut id = 0;
        // SAFETY: the fault is readable, and the number is writable.
        match unsafe { tdx_sim_add_fault(self.0, &fault, &mut id) } {
            TdxSimStatus::Ok => Ok(id),
            status => Err(status),
        }
    }

    pub(crate) fn add_fault(&self, fault: TdxSimFault) -> u64 {
        self.try_add_fault(fault).unwrap()
    }

    /// Returns how many more calls a fault affects.
    pub(crate) fn times_left(&self, id: u64) -> Result<u32, TdxSimStatus> {
        let mut times = u32::MAX;
        // SAFETY: the number is writable.
        match unsafe { tdx_sim_get_fault(self.0, id, &mut times) } {
            TdxSimStatus::Ok => Ok(times),
            status => Err(status),
        }
    }

    /// Returns how many faults have affected no call, and the lowest number of such a fault.
    pub(crate) fn unfired(&self) -> (u32, u64) {
        let (mut count, mut first) = (u32::MAX, u64::MAX);
        // SAFETY: both numbers are writable.
        let status = unsafe { tdx_sim_count_unfired_faults(self.0, &mut count, &mut first) };
        assert_eq!(status, TdxSimStatus::Ok);
        (count, first)
    }

    /// Maps memory, which has to outlive the platform.
    pub(crate) fn map(&self, address: u64, memory: &mut [u8]) -> TdxSimStatus {
        // SAFETY: the tests keep the memory as long as the platform makes calls.
        unsafe { tdx_sim_map(self.0, address, memory.as_mut_ptr().cast(), memory.len()) }
    }
}

/// Returns a valid fault: the next call of any kind returns 0.
pub(crate) fn fault() -> TdxSimFault {
    TdxSimFault {
        size: u32::try_from(size_of::<TdxSimFault>()).unwrap(),
        lp: TDX_SIM_ANY_LP,
        any_rax: 1,
        times: 1,
        kind: TdxSimFaultKind::Return.number(),
        ..TdxSimFault::default()
    }
}

/// Returns the SIGSTRUCT and the pages of an image.
pub(crate) fn parts(image: &TdxSimImage) -> (TdxSimSigstruct, Vec<u8>) {
    let mut module = vec![0; image.pages as usize * TDX_SIM_PAGE_SIZE];
    let mut sigstruct = std::mem::MaybeUninit::<TdxSimSigstruct>::zeroed();
    let start = module.as_mut_ptr().cast();
    // SAFETY: the buffers have the given lengths.
    let status = unsafe { tdx_sim_make_image(image, sigstruct.as_mut_ptr(), start, module.len()) };
    assert_eq!(status, TdxSimStatus::Ok, "{}", last_error());
    // SAFETY: the structure consists of integers, and is at least zeroed.
    (unsafe { sigstruct.assume_init() }, module)
}

/// Returns SEAMLDR_PARAMS, the SIGSTRUCT and the pages of a module, one after the other, for an
/// update.
pub(crate) fn memory_of(sigstruct: &TdxSimSigstruct, module: &[u8]) -> Vec<u8> {
    let pages = (module.len() / TDX_SIM_PAGE_SIZE) as u64;
    let mut memory = vec![0; 2 * TDX_SIM_PAGE_SIZE + module.len()];
    let (params, rest) = memory.split_at_mut(TDX_SIM_PAGE_SIZE);
    let (page, target) = rest.split_at_mut(TDX_SIM_PAGE_SIZE);
    // SAFETY: a structure of integers without padding.
    let bytes = unsafe { std::slice::from_raw_parts(ptr::from_ref(sigstruct).cast::<u8>(), 2048) };
    page[..2048].copy_from_slice(bytes);
    target.copy_from_slice(module);
    params[4] = 1;
    params[8..16].copy_from_slice(&(HOST + 0x1000).to_le_bytes());
    params[120..128].copy_from_slice(&pages.to_le_bytes());
    for (slot, page) in params[128..].chunks_exact_mut(8).zip(0..pages) {
        slot.copy_from_slice(&(HOST + 0x2000 + page * 0x1000).to_le_bytes());
    }
    memory
}

/// Returns the same for an image.
pub(crate) fn update_memory(image: &TdxSimImage) -> Vec<u8> {
    let (sigstruct, module) = parts(image);
    memory_of(&sigstruct, &module)
}
