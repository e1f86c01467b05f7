//! A simulated Intel TDX platform for any x86 guest of QEMU: a plugin for its interface version 7
//! (QEMU 11).
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! ```text
//! qemu-system-x86_64 -accel tcg,thread=multi -machine q35 -smp 4 -m 1G \
//!     -cpu max,family=6,model=143,stepping=8,vendor=GenuineIntel,+ss \
//!     -plugin libtdx_seamldr_qemu.so,image=tdx_module_1.5.05.blob,tds=2,control=/tmp/tdx ...
//! ```
//!
//! The guest's SEAMCALLs go to [`tdx_seamldr_mock::model`], which reads and writes the guest's
//! memory. The plugin also executes VMXON, VMXOFF, MOVDIR64B, and RDMSR of the registers that TDX
//! adds. It keeps CR4.VMXE, and completes CPUID. `docs/tdx-host-in-qemu.md` is the guide.
//!
//! [`decode`], [`carry`] and [`options`] take bytes and text that others write, and are public for
//! tests and fuzzing.
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::as_conversions
    )
)]

pub mod carry;
pub mod change;
pub mod control;
pub mod decode;
pub mod encoding;
pub mod fault;
mod ffi;
pub mod firmware;
pub mod flags;
mod memory;
pub mod options;
pub mod platform;
mod plugin;
pub mod processor;
mod registers;
mod report;
pub mod trace;

use std::ffi::{c_char, c_int, CStr};

pub use ffi::Info;
use firmware::Firmware;
use options::Options;
use platform::Settings;
use trace::Trace;

/// The version of QEMU's plugin interface. QEMU reads it before anything else.
#[no_mangle]
#[allow(non_upper_case_globals)] // QEMU's name
pub static qemu_plugin_version: c_int = ffi::VERSION;

/// QEMU installs the plugin. Returns 0, or 1 after a message: QEMU then ends.
///
/// # Safety
///
/// QEMU calls this once. `info` points to QEMU's [`Info`], and `argv` to `argc` strings.
#[no_mangle]
pub unsafe extern "C" fn qemu_plugin_install(
    id: u64,
    info: *const Info,
    argc: c_int,
    argv: *const *const c_char,
) -> c_int {
    // SAFETY: `info` points to QEMU's `Info`, by this function's contract.
    let info = unsafe { &*info };
    // SAFETY: `argv` points to `argc` strings, by this function's contract.
    let arguments = unsafe { ffi::arguments(argc, argv) };
    // SAFETY: this function's contract; QEMU's name of its target is a string.
    let target = unsafe { CStr::from_ptr(info.target_name) };
    let is_installed =
        report::guarded(|| install(id, info, target, &arguments).map_err(report::message).is_ok());
    c_int::from(!is_installed)
}

/// Why the plugin was not installed.
#[derive(Debug, thiserror::Error)]
enum InstallError {
    #[error("this is {0}; the plugin needs qemu-system-x86_64")]
    Target(String),
    #[error("QEMU has versions {0} to {1} of the plugin interface; the plugin needs {VERSION}, which QEMU 11 has", VERSION = ffi::VERSION)]
    Version(c_int, c_int),
    #[error("QEMU has no function {0:?}; the plugin needs QEMU 11")]
    Function(&'static CStr),
    #[error(transparent)]
    Options(#[from] options::OptionError),
    #[error(transparent)]
    Start(#[from] platform::StartError),
    #[error("option {0}={1}: {2}")]
    File(&'static str, String, std::io::Error),
}

fn install(id: u64, info: &Info, target: &CStr, arguments: &[String]) -> Result<(), InstallError> {
    if !info.system_emulation || target != c"x86_64" {
        return Err(InstallError::Target(target.to_string_lossy().into_owned()));
    }
    if !(info.version_min..=info.version_current).contains(&ffi::VERSION) {
        return Err(InstallError::Version(info.version_min, info.version_current));
    }
    let api = ffi::Api::of_process().map_err(InstallError::Function)?;
    let options = Options::parse(arguments.iter().map(String::as_str))?;
    let (trace, control) = (options.trace.clone(), options.control.clone());
    let vcpus = u32::try_from(info.vcpus).unwrap_or(0);
    let settings = Settings::new(options, vcpus, u32::try_from(info.max_vcpus).unwrap_or(0))?;
    let trace = match trace {
        None => Trace::default(),
        Some(path) => Trace::to_file(&path)
            .map_err(|error| InstallError::File("trace", path.display().to_string(), error))?,
    };
    let firmware: &'static Firmware = Box::leak(Box::new(Firmware::new(settings, trace)?));
    if let Some(path) = control {
        let listener = control::listen(&path)
            .map_err(|error| InstallError::File("control", path.display().to_string(), error))?;
        control::serve(firmware, listener);
    }
    plugin::start(id, api, firmware, vcpus);
    Ok(())
}
