//! A platform of four LPs with a module that is ready, and what a host does with it.
#![allow(dead_code)] // not every test file uses all of it

use std::ffi::{CStr, CString};
use std::ptr;

use tdx_sim::*;

/// RAX of the calls of an update.
pub(crate) const INSTALL: u64 = 0x8000000000000001;
pub(crate) const SYS_RD: u64 = 34;
pub(crate) const SYS_INIT: u64 = 33;
pub(crate) const SYS_LP_INIT: u64 = 35;
pub(crate) const SYS_SHUTDOWN: u64 = 52;
pub(crate) const SYS_UPDATE: u64 = 53;

pub(crate) const LPS: u32 = 4;

/// Where the host's memory is mapped.
pub(crate) const HOST: u64 = 0x1_0000_0000;

/// A description, with a module in this state; or with none.
pub(crate) fn description(state: Option<&str>) -> String {
    // SEAMEXTEND with SVN 1.4 while there is a module.
    let svn = if state.is_some() { "ff010000000000000401" } else { "00000000000000000000" };
    let seamextend = format!("{svn}{}000001", "00".repeat(118));
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

/// What tdx_sim_create() says to a description, with its message and the handle.
pub(crate) fn create(description: impl Into<Vec<u8>>) -> (TdxSimStatus, String, *mut TdxSim) {
    let description = CString::new(description).unwrap();
    let mut message = [1; 300];
    let mut sim = ptr::dangling_mut();
    // SAFETY: the description ends with a NUL, and the other two may be written.
    let status =
        unsafe { tdx_sim_create(description.as_ptr(), message.as_mut_ptr(), message.len(), &mut sim) };
    // SAFETY: the function has put a NUL into the message.
    let message = unsafe { CStr::from_ptr(message.as_ptr()) };
    (status, message.to_str().unwrap().to_owned(), sim)
}

/// A platform that is freed in the end.
#[derive(Debug)]
pub(crate) struct Sim(pub(crate) *mut TdxSim);

// SAFETY: the handle leads nowhere, and the functions may be called from any thread.
unsafe impl Sync for Sim {}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = tdx_sim_free(self.0);
    }
}

impl Sim {
    pub(crate) fn new(state: Option<&str>) -> Self {
        let (status, message, sim) = create(description(state));
        assert_eq!((status, message.as_str()), (TdxSimStatus::Ok, ""));
        Self(sim)
    }

    pub(crate) fn ready() -> Self {
        Self::new(Some("SYS_READY"))
    }

    /// A SEAMCALL that the library takes: whether it trapped, and the registers after it.
    pub(crate) fn call(&self, lp: u32, regs: TdxSimRegs) -> (TdxSimTrap, TdxSimRegs) {
        let (status, trap, regs) = self.try_call(lp, regs);
        assert_eq!(status, TdxSimStatus::Ok);
        (trap, regs)
    }

    pub(crate) fn try_call(&self, lp: u32, mut regs: TdxSimRegs) -> (TdxSimStatus, TdxSimTrap, TdxSimRegs) {
        let mut trap = TdxSimTrap::Ud;
        // SAFETY: both may be written; the tests touch what is mapped in the thread that makes the calls only.
        let status = unsafe { tdx_sim_seamcall(self.0, lp, &mut regs, &mut trap) };
        (status, trap, regs)
    }

    /// A call that succeeds.
    pub(crate) fn succeed(&self, lp: u32, rax: u64, rcx: u64) {
        let (trap, regs) = self.call(lp, TdxSimRegs { rax, rcx, ..TdxSimRegs::default() });
        assert_eq!((trap, regs.rax), (TdxSimTrap::None, 0), "{rax:#x} on LP {lp}");
    }

    pub(crate) fn truth(&self) -> TdxSimTruth {
        let mut truth = std::mem::MaybeUninit::uninit();
        // SAFETY: it may be written.
        let status = unsafe { tdx_sim_get_truth(self.0, truth.as_mut_ptr()) };
        assert_eq!(status, TdxSimStatus::Ok);
        // SAFETY: the function has filled it in.
        unsafe { truth.assume_init() }
    }

    pub(crate) fn add_fault(&self, fault: TdxSimFault) -> TdxSimStatus {
        // SAFETY: it is a fault.
        unsafe { tdx_sim_add_fault(self.0, &fault) }
    }

    /// Maps memory, which has to outlive the platform.
    pub(crate) fn map(&self, address: u64, memory: &mut [u8]) -> TdxSimStatus {
        // SAFETY: the tests keep the memory until the platform is gone or does not make calls any more.
        unsafe { tdx_sim_map(self.0, address, memory.as_mut_ptr().cast(), memory.len()) }
    }
}

/// SEAMLDR_PARAMS, the SIGSTRUCT and the pages of an image, one after the other, for an update.
pub(crate) fn update_memory(image: &TdxSimImage) -> Vec<u8> {
    let pages = u64::from(image.pages);
    let mut memory = vec![0; (2 + image.pages as usize) * TDX_SIM_PAGE_SIZE];
    let (params, rest) = memory.split_at_mut(TDX_SIM_PAGE_SIZE);
    let (sigstruct, module) = rest.split_at_mut(TDX_SIM_PAGE_SIZE);
    // SAFETY: the buffers have the lengths that are said.
    let status = unsafe {
        tdx_sim_test_image(
            image,
            sigstruct.as_mut_ptr().cast(),
            sigstruct.len(),
            module.as_mut_ptr().cast(),
            module.len(),
        )
    };
    assert_eq!(status, TdxSimStatus::Ok);
    params[4] = 1;
    params[8..16].copy_from_slice(&(HOST + 0x1000).to_le_bytes());
    params[120..128].copy_from_slice(&pages.to_le_bytes());
    for (slot, page) in params[128..].chunks_exact_mut(8).zip(0..pages) {
        slot.copy_from_slice(&(HOST + 0x2000 + page * 0x1000).to_le_bytes());
    }
    memory
}

/// An image of 8 pages, SVN 1.5.
pub(crate) fn image() -> TdxSimImage {
    let mut image = TdxSimImage::default();
    // SAFETY: it may be written.
    assert_eq!(unsafe { tdx_sim_image_defaults(&mut image) }, TdxSimStatus::Ok);
    image
}
