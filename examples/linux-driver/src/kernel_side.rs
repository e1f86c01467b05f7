// SPDX-License-Identifier: MIT OR Apache-2.0

//! The kernel behind the library's traits.

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::{Crypto, CryptoUnavailable, Host, Lock, Patience, PhysAddr, Sha384Digest};

extern "C" {
    fn tdx_lock_seamldr() -> c_ulong;
    fn tdx_unlock_seamldr(flags: c_ulong);
    fn tdx_cpu() -> c_uint;
    fn tdx_online_cpus() -> c_uint;
    fn tdx_pin();
    fn tdx_unpin();
    fn tdx_touch_watchdog();
    fn tdx_now() -> u64;
    fn tdx_stop_machine(function: extern "C" fn(*mut c_void) -> c_int, data: *mut c_void) -> c_int;
    fn tdx_rdmsr(index: u32, value: *mut u64) -> c_int;
    fn tdx_phys_addr(address: *const c_void) -> u64;
    fn tdx_alloc(size: c_ulong) -> *mut c_void;
    fn tdx_free(address: *mut c_void);
    fn tdx_page() -> *mut c_void;
    fn tdx_free_page(page: *mut c_void);
    fn tdx_sha384_init(context: *mut bindings::sha384_ctx);
    fn tdx_sha384_update(context: *mut bindings::sha384_ctx, data: *const u8, len: usize);
    fn tdx_sha384_final(context: *mut bindings::sha384_ctx, digest: *mut u8);
    fn tdx_keep_module(keep: bool);
    fn cpu_hotplug_disable();
    fn cpu_hotplug_enable();
    fn tdx_rsa_verify(key: *const u8, key_len: c_uint, signature: *const u8, digest: *const u8) -> c_int;
    static mut tdx_allow_same_module: bool;
    static mut tdx_allow_unknowns: bool;
    static mut tdx_allow_damage: bool;
    static mut tdx_stopped_ns: c_ulong;
    static mut tdx_firmware_ns: c_ulong;
}

/// How long a CPU waits for the others before it gives up: they are stopped already, or nearly so.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The time since boot in ns. May be called anywhere.
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { tdx_now() }
}

/// CPUs that are online.
pub(crate) fn online_cpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { tdx_online_cpus() }
}

/// This CPU's number. It stays so only while nothing can move the caller.
pub(crate) fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { tdx_cpu() }
}

/// Runs something that must stay on one CPU, and not sleep.
pub(crate) fn pinned<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: undone below.
    unsafe { tdx_pin() };
    let result = work();
    // SAFETY: pairs with the above.
    unsafe { tdx_unpin() };
    result
}

/// An MSR, if there is one.
pub(crate) fn rdmsr(index: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: it survives MSRs that do not exist.
    (unsafe { tdx_rdmsr(index, &mut value) } == 0).then_some(value)
}

/// Stops all CPUs that are online, and has each of them do this with interrupts off.
pub(crate) fn stop_machine<F: Fn() + Sync>(work: &F) {
    extern "C" fn call<F: Fn()>(work: *mut c_void) -> c_int {
        // SAFETY: `stop_machine` passes on what it was given, which outlives it.
        (unsafe { &*work.cast::<F>() })();
        0
    }
    // SAFETY: `work` may be called on several CPUs at a time, and is there until all have.
    unsafe { tdx_stop_machine(call::<F>, core::ptr::from_ref(work).cast_mut().cast()) };
}

/// No CPU comes or goes while there is one of these.
pub(crate) struct HotplugOff(());

impl HotplugOff {
    pub(crate) fn new() -> Self {
        // SAFETY: undone below; may sleep, and so do the callers.
        unsafe { cpu_hotplug_disable() };
        Self(())
    }
}

impl Drop for HotplugOff {
    fn drop(&mut self) {
        // SAFETY: pairs with `new`.
        unsafe { cpu_hotplug_enable() };
    }
}

/// What the parameters allow.
pub(crate) fn policy() -> Policy {
    // SAFETY: flags that user space may change at any time; each is a byte.
    unsafe {
        Policy {
            allow_same_module: (&raw const tdx_allow_same_module).read_volatile(),
            allow_unknowns: (&raw const tdx_allow_unknowns).read_volatile(),
            allow_damage: (&raw const tdx_allow_damage).read_volatile(),
        }
    }
}

/// Keeps this module from being unloaded, or no longer. Only called with the driver's lock held.
pub(crate) fn keep_module(keep: bool) {
    // SAFETY: it remembers what it was told before.
    unsafe { tdx_keep_module(keep) };
}

/// Shows in parameters how long an update took. Only called with the driver's lock held.
pub(crate) fn set_times(stopped_ns: u64, firmware_ns: u64) {
    // SAFETY: nobody else writes to them.
    unsafe {
        (&raw mut tdx_stopped_ns).write_volatile(stopped_ns);
        (&raw mut tdx_firmware_ns).write_volatile(firmware_ns);
    }
}

/// One CPU's view of the kernel.
pub(crate) struct Kernel {
    /// CPUs that are to take part.
    cpus: u32,
    /// Until when this CPU waits; 0 before it has.
    deadline: AtomicU64,
}

impl Kernel {
    pub(crate) fn new(cpus: u32) -> Self {
        Self { cpus, deadline: AtomicU64::new(0) }
    }
}

// SAFETY: callers cannot be moved to another CPU, by `pinned` or `stop_machine`; the memory that the driver gives to the library is the
// kernel's, which is never moved or swapped, and its addresses are those of the page tables.
unsafe impl Host for Kernel {
    fn current_lp(&self) -> u32 {
        cpu()
    }

    fn num_lps(&self) -> u32 {
        self.cpus
    }

    fn relax(&self) -> Patience {
        core::hint::spin_loop();
        // SAFETY: no preconditions.
        unsafe { tdx_touch_watchdog() };
        let now = now();
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline == 0 {
            self.deadline.store(now + PATIENCE_NS, Ordering::Relaxed);
        } else if now > deadline {
            return Patience::GiveUp;
        }
        Patience::Wait
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        // SAFETY: it is an address of the kernel's.
        Some(PhysAddr(unsafe { tdx_phys_addr(address.cast()) }))
    }
}

/// The raw spin lock in front of P-SEAMLDR.
pub(crate) struct SeamldrLock;

impl Lock for SeamldrLock {
    type Held<'a> = c_ulong;

    fn acquire(&self) -> c_ulong {
        // SAFETY: released by `release`, which the library always calls.
        unsafe { tdx_lock_seamldr() }
    }

    fn release<'a>(&'a self, flags: c_ulong) {
        // SAFETY: pairs with `acquire`.
        unsafe { tdx_unlock_seamldr(flags) };
    }
}

/// SHA-384 and RSA of the kernel. RSA may sleep.
pub(crate) struct KernelCrypto;

impl Crypto for KernelCrypto {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        let mut context = MaybeUninit::<bindings::sha384_ctx>::uninit();
        let mut digest = [0; 48];
        // SAFETY: begun, continued and ended in this order; the parts are readable, and the digest has 48 bytes.
        unsafe {
            tdx_sha384_init(context.as_mut_ptr());
            for part in parts {
                tdx_sha384_update(context.as_mut_ptr(), part.as_ptr(), part.len());
            }
            tdx_sha384_final(context.as_mut_ptr(), digest.as_mut_ptr());
        }
        Ok(digest)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        // RSAPublicKey in DER: SEQUENCE { INTEGER modulus, INTEGER 65537 }. The modulus is positive: a zero before it.
        const HEAD: [u8; 9] = [0x30, 0x82, 0x01, 0x8a, 0x02, 0x82, 0x01, 0x81, 0x00];
        const TAIL: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
        let mut key = [0; 398];
        key[..9].copy_from_slice(&HEAD);
        key[9..393].copy_from_slice(modulus);
        key[9..393].reverse();
        key[393..].copy_from_slice(&TAIL);
        let mut signature = *signature;
        signature.reverse();
        // SAFETY: the lengths are those of the arrays and of SHA-384.
        match unsafe { tdx_rsa_verify(key.as_ptr(), 398, signature.as_ptr(), digest.as_ptr()) } {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(CryptoUnavailable),
        }
    }
}

/// A page of memory for something that starts with zeros.
pub(crate) struct Page(*mut c_void);

impl Page {
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: no preconditions; may sleep.
        let page = unsafe { tdx_page() };
        (!page.is_null()).then_some(Self(page))
    }

    /// The page as this; `T` may be all zeros, and has at most 4096 bytes.
    pub(crate) fn get<T: zerocopy::FromBytes>(&mut self) -> &mut T {
        const { assert!(size_of::<T>() <= 4096 && align_of::<T>() <= 4096) };
        // SAFETY: the page is ours, aligned, large enough, and any bytes are a `T`.
        unsafe { &mut *self.0.cast() }
    }

    pub(crate) fn phys_addr(&self) -> PhysAddr {
        // SAFETY: it is an address of the kernel's.
        PhysAddr(unsafe { tdx_phys_addr(self.0) })
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: it was got by `tdx_page`.
        unsafe { tdx_free_page(self.0) };
    }
}

/// A copy of an image, on a page boundary, page by page wherever there is room.
pub(crate) struct ImageCopy {
    start: *mut u8,
    len: usize,
}

// SAFETY: it is memory like any other.
unsafe impl Send for ImageCopy {}
// SAFETY: as above.
unsafe impl Sync for ImageCopy {}

impl ImageCopy {
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        // SAFETY: no preconditions; may sleep.
        let start = unsafe { tdx_alloc(bytes.len() as c_ulong) }.cast::<u8>();
        if start.is_null() {
            return None;
        }
        // SAFETY: there are so many bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Some(Self { start, len: bytes.len() })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: there are so many bytes, which nobody changes.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for ImageCopy {
    fn drop(&mut self) {
        // SAFETY: it was got by `tdx_alloc`.
        unsafe { tdx_free(self.start.cast()) };
    }
}

/// Text of a parameter of the module, as it is now.
pub(crate) struct Text<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Text<LEN> {
    /// # Safety
    ///
    /// `parameter` may be read. User space may change it meanwhile: then this is a mixture.
    pub(crate) unsafe fn read(parameter: *const [c_char; LEN]) -> Self {
        let mut text = [0; LEN];
        for (at, byte) in text.iter_mut().enumerate() {
            // SAFETY: it is inside of the array, which may be read (caller).
            *byte = unsafe { parameter.cast::<u8>().add(at).read_volatile() };
        }
        Self(text)
    }

    /// Up to its end, without blanks around it; nothing if it is not UTF-8.
    pub(crate) fn get(&self) -> &str {
        let len = self.0.iter().position(|letter| *letter == 0).unwrap_or(LEN);
        core::str::from_utf8(&self.0[..len]).unwrap_or("").trim()
    }
}

/// Something of the library in a line of the kernel's log, which has a trait of its own for that.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: core::fmt::Display> kernel::fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}
