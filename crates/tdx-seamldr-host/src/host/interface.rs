//! Finds the kernel's interface for updates, or why the kernel has none.

use tdx_seamldr_core::abi::VMX_BASIC_SEAMRET_PRESERVES_VMCS;
use tdx_seamldr_core::TdxVersion;

use crate::fact::{Fact, Reason};
use crate::host::read::TDX_HOST;
use crate::host::{Interface, NoInterface, UPLOAD};
use crate::root::Root;

/// Facts that explain why the kernel has no interface.
pub(super) struct Seen<'a> {
    pub(super) tdx_flag: &'a Fact<bool>,
    pub(super) erratum: &'a Fact<bool>,
    pub(super) vmx_basic: &'a Fact<u64>,
    pub(super) module: &'a Fact<TdxVersion>,
}

impl Seen<'_> {
    /// Whether the processor has the erratum. Older kernels do not name the erratum, but
    /// IA32_VMX_BASIC shows it. A value of 0 shows nothing: no processor with VMX has it.
    fn has_erratum(&self) -> bool {
        let is_named = self.erratum.as_ref().is_ok_and(|erratum| erratum.value);
        let is_shown = self
            .vmx_basic
            .as_ref()
            .is_ok_and(|msr| msr.value != 0 && msr.value & VMX_BASIC_SEAMRET_PRESERVES_VMCS == 0);
        is_named || is_shown
    }
}

/// Returns the interface, or the first reason why the kernel has none.
pub(super) fn detect(root: &Root, seen: &Seen<'_>) -> Result<Interface, NoInterface> {
    let interface = likely(root);
    let missing: Vec<String> = interface
        .seamldr_files()
        .iter()
        .map(|file| format!("{TDX_HOST}/{file}"))
        .chain([UPLOAD.to_owned()])
        .filter(|path| !root.exists(path))
        .collect();
    if !missing.is_empty() && seen.tdx_flag.as_ref().is_ok_and(|flag| !flag.value) {
        return Err(NoInterface::NoTdx);
    }
    // Each return from P-SEAMLDR makes the current VMCS invalid. The kernel's files do not matter
    // then.
    if seen.has_erratum() {
        return Err(NoInterface::Erratum);
    }
    let Some(first_missing) = missing.first() else { return Ok(interface) };
    if !root.exists(TDX_HOST) {
        return Err(NoInterface::NoDriver);
    }
    if seen.module.as_ref().is_err_and(|absent| absent.reason == Reason::NoDevice) {
        return Err(NoInterface::NotInitialised);
    }
    if !root.exists(UPLOAD) {
        return Err(NoInterface::NoUpload);
    }
    Err(NoInterface::Incomplete { missing: first_missing.clone() })
}

/// Returns the interface whose files exist, else the interface of Linux 7.2.
pub(super) fn likely(root: &Root) -> Interface {
    let has = |interface: Interface| {
        interface.seamldr_files().iter().any(|file| root.exists(&format!("{TDX_HOST}/{file}")))
    };
    match !has(Interface::Flat) && has(Interface::Folder) {
        true => Interface::Folder,
        false => Interface::Flat,
    }
}
