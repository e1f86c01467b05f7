// SPDX-License-Identifier: MIT OR Apache-2.0

//! A driver that lets user space replace the TDX module, with the interface of Linux's own
//! tdx_host.
//!
//! Every driver needs the module `embedding`. The module `simulated` is the platform for machines
//! without TDX. `docs/embedding-linux.md` explains both.

use core::ffi::c_char;
use core::fmt::{self, Write};

use kernel::bindings;
use kernel::prelude::*;

mod embedding;
mod kernel_side;
mod linux_policy;
mod simulated;

module! {
    type: TdxHost,
    name: "tdx_host_rs",
    authors: ["The tdx-seamldr developers"],
    description: "Runtime update of the TDX module",
    license: "Dual MIT/GPL",
}

struct TdxHost {
    device: *mut bindings::faux_device,
    upload: *mut bindings::fw_upload,
}

// SAFETY: only `init` and `drop` use the pointers.
unsafe impl Send for TdxHost {}
// SAFETY: as above.
unsafe impl Sync for TdxHost {}

// Without lockdep, `struct device` has an empty structure inside.
#[allow(improper_ctypes)]
extern "C" {
    fn tdx_create_device() -> *mut bindings::faux_device;
    fn tdx_register_upload(
        device: *mut bindings::faux_device,
        ops: *const bindings::fw_upload_ops,
    ) -> *mut bindings::fw_upload;
}

struct Ops(bindings::fw_upload_ops);

// SAFETY: no code writes it.
unsafe impl Sync for Ops {}

static OPS: Ops = Ops(bindings::fw_upload_ops {
    prepare: Some(prepare),
    write: Some(write),
    poll_complete: Some(poll_complete),
    cancel: Some(cancel),
    cleanup: None,
});

impl kernel::Module for TdxHost {
    fn init(_: &'static ThisModule) -> Result<Self> {
        if !embedding::start() {
            return Err(ENODEV);
        }
        // SAFETY: the attributes' functions answer with and without a driver.
        let device = unsafe { tdx_create_device() };
        if device.is_null() {
            embedding::stop();
            return Err(ENOMEM);
        }
        // SAFETY: the device exists; the operations live as long as the module.
        let upload = if tdx_updates_are_possible() {
            unsafe { tdx_register_upload(device, &OPS.0) }
        } else {
            core::ptr::null_mut()
        };
        pr_info!("ready{}\n", if upload.is_null() { "; updates are not possible" } else { "" });
        Ok(Self { device, upload })
    }
}

impl Drop for TdxHost {
    fn drop(&mut self) {
        if !self.upload.is_null() {
            // SAFETY: `init` registered it, and no code uses it afterwards.
            unsafe { bindings::firmware_upload_unregister(self.upload) };
        }
        // SAFETY: `init` made it.
        unsafe { bindings::faux_device_destroy(self.device) };
        embedding::stop();
    }
}

extern "C" fn prepare(
    _: *mut bindings::fw_upload,
    _: *const u8,
    _: u32,
) -> bindings::fw_upload_err {
    bindings::fw_upload_err_FW_UPLOAD_ERR_NONE
}

/// Takes the whole image in one call. The kernel maps its pages contiguously.
extern "C" fn write(
    _: *mut bindings::fw_upload,
    data: *const u8,
    offset: u32,
    size: u32,
    written: *mut u32,
) -> bindings::fw_upload_err {
    if offset != 0 {
        return bindings::fw_upload_err_FW_UPLOAD_ERR_INVALID_SIZE;
    }
    // SAFETY: the kernel passes `size` bytes, which stay as they are until this returns.
    let image = unsafe { core::slice::from_raw_parts(data, size as usize) };
    match embedding::with(|driver| driver.update(image)) {
        Ok(()) => {
            // SAFETY: the kernel passes a valid pointer.
            unsafe { *written = size };
            bindings::fw_upload_err_FW_UPLOAD_ERR_NONE
        }
        Err(error) => error.0,
    }
}

extern "C" fn poll_complete(_: *mut bindings::fw_upload) -> bindings::fw_upload_err {
    bindings::fw_upload_err_FW_UPLOAD_ERR_NONE
}

/// Does nothing: `write` returns after the update ends.
extern "C" fn cancel(_: *mut bindings::fw_upload) {}

/// A line of sysfs, and its length so far.
struct Line {
    buffer: *mut c_char,
    len: usize,
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.len + text.len() > 4096 {
            return Err(fmt::Error);
        }
        // SAFETY: sysfs passes a page, which has room for the text.
        unsafe {
            core::ptr::copy_nonoverlapping(
                text.as_ptr(),
                self.buffer.cast::<u8>().add(self.len),
                text.len(),
            )
        };
        self.len += text.len();
        Ok(())
    }
}

fn show(buffer: *mut c_char, value: Option<impl fmt::Display>) -> isize {
    let mut line = Line { buffer, len: 0 };
    match value.map(|value| writeln!(line, "{value}")) {
        Some(Ok(())) => line.len as isize,
        _ => -(bindings::ENXIO as isize),
    }
}

#[no_mangle]
extern "C" fn tdx_show_version(buffer: *mut c_char) -> isize {
    show(buffer, embedding::with(|driver| driver.module_version()))
}

#[no_mangle]
extern "C" fn tdx_show_seamldr_version(buffer: *mut c_char) -> isize {
    show(buffer, embedding::with(|driver| driver.seamldr_version()))
}

#[no_mangle]
extern "C" fn tdx_show_num_remaining_updates(buffer: *mut c_char) -> isize {
    show(buffer, embedding::with(|driver| driver.num_remaining_updates()))
}

#[no_mangle]
extern "C" fn tdx_updates_are_possible() -> bool {
    embedding::with(|driver| driver.updates_are_possible())
}
