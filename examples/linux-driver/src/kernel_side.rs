// SPDX-License-Identifier: MIT OR Apache-2.0

//! Implements the library's traits with the kernel's functions.

use core::ffi::{c_char, c_int, c_uint, c_ulong, c_void};
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::bindings;
use tdx_seamldr_core::preflight::{Policy, Unknowns};
use tdx_seamldr_core::{Crypto, CryptoUnavailable, Host, Lock, Patience, PhysAddr, Sha384Digest};
use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};

extern "C" {
    fn tdx_lock_seamldr() -> c_ulong;
    fn tdx_unlock_seamldr(flags: c_ulong);
    fn tdx_cpu() -> c_uint;
    fn tdx_online_cpus() -> c_uint;
    fn tdx_highest_apic_id() -> c_uint;
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
    fn tdx_rsa_verify(
        key: *const u8,
        key_len: c_uint,
        signature: *const u8,
        digest: *const u8,
    ) -> c_int;
    static mut tdx_allow_same_module: bool;
    static mut tdx_allow_unknowns: bool;
    static mut tdx_allow_damage: bool;
    static mut tdx_stopped_ns: c_ulong;
    static mut tdx_firmware_ns: c_ulong;
}

/// The time in ns that a CPU waits for the others. `stop_machine` has stopped them, or is stopping
/// them.
const PATIENCE_NS: u64 = 10_000_000_000;

/// The time since boot in ns. Callable in any context.
pub(crate) fn now() -> u64 {
    // SAFETY: no preconditions.
    unsafe { tdx_now() }
}

/// The number of CPUs that are online.
pub(crate) fn online_cpus() -> u32 {
    // SAFETY: no preconditions.
    unsafe { tdx_online_cpus() }
}

/// The highest x2APIC ID of the CPUs that are online.
pub(crate) fn highest_apic_id() -> u32 {
    // SAFETY: no preconditions.
    unsafe { tdx_highest_apic_id() }
}

/// The number of this CPU, valid while the caller stays on it.
pub(crate) fn cpu() -> u32 {
    // SAFETY: no preconditions.
    unsafe { tdx_cpu() }
}

/// Runs `work` on one CPU. `work` must not sleep.
pub(crate) fn pinned<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: undone below.
    unsafe { tdx_pin() };
    let result = work();
    // SAFETY: pairs with the above.
    unsafe { tdx_unpin() };
    result
}

/// The physical address of a byte of the kernel's memory.
pub(crate) fn phys_addr(address: *const u8) -> PhysAddr {
    // SAFETY: the page tables have the address.
    PhysAddr(unsafe { tdx_phys_addr(address.cast()) })
}

/// The value of an MSR; `None` if the processor has no such MSR.
pub(crate) fn rdmsr(index: u32) -> Option<u64> {
    let mut value = 0;
    // SAFETY: `rdmsrq_safe` survives MSRs that do not exist.
    (unsafe { tdx_rdmsr(index, &mut value) } == 0).then_some(value)
}

/// Stops all CPUs that are online. Each runs `work` with interrupts off.
pub(crate) fn stop_machine<F: Fn() + Sync>(work: &F) {
    extern "C" fn call<F: Fn()>(work: *mut c_void) -> c_int {
        // SAFETY: `stop_machine` passes on the pointer that it was given, and `work` outlives the
        // call.
        (unsafe { &*work.cast::<F>() })();
        0
    }
    // SAFETY: `work` is `Sync`, and lives until all CPUs have called it.
    unsafe { tdx_stop_machine(call::<F>, core::ptr::from_ref(work).cast_mut().cast()) };
}

/// Blocks CPU hotplug while it lives. Facts, preflight and update need the same guard: an update
/// with another number of CPUs than preflight counted ends before the module is shut down.
pub(crate) struct CpusHeld(());

impl CpusHeld {
    /// Waits for CPU hotplug to finish. May sleep.
    pub(crate) fn new() -> Self {
        // SAFETY: `drop` undoes this; the callers may sleep.
        unsafe { cpu_hotplug_disable() };
        Self(())
    }
}

impl Drop for CpusHeld {
    fn drop(&mut self) {
        // SAFETY: pairs with `new`.
        unsafe { cpu_hotplug_enable() };
    }
}

/// The policy of the parameters. `allow_unknowns` does not allow an unverified image.
pub(crate) fn policy() -> Policy {
    // SAFETY: flags that user space may change at any time; each is a byte.
    let [allow_same_module, allow_unknowns, allow_damage] = unsafe {
        [
            (&raw const tdx_allow_same_module).read_volatile(),
            (&raw const tdx_allow_unknowns).read_volatile(),
            (&raw const tdx_allow_damage).read_volatile(),
        ]
    };
    let allow_unknowns = if allow_unknowns { Unknowns::OF_PLATFORM } else { Unknowns::NONE };
    Policy { allow_same_module, allow_damage, allow_unknowns }
}

/// Blocks or allows unloading of this kernel module. Callers hold the driver's lock.
pub(crate) fn keep_module(keep: bool) {
    // SAFETY: the function counts its own references.
    unsafe { tdx_keep_module(keep) };
}

/// Writes the time of an update into parameters. Callers hold the driver's lock.
pub(crate) fn set_times(stopped_ns: u64, firmware_ns: u64) {
    // SAFETY: no other code writes to them.
    unsafe {
        (&raw mut tdx_stopped_ns).write_volatile(stopped_ns);
        (&raw mut tdx_firmware_ns).write_volatile(firmware_ns);
    }
}

/// One CPU of the kernel, with a backend that reaches this machine's firmware.
pub(crate) struct Kernel<'a, B> {
    backend: &'a B,
    /// The deadline of this CPU's wait; 0 before the first wait.
    deadline: AtomicU64,
}

impl<'a, B> Kernel<'a, B> {
    pub(crate) fn new(backend: &'a B) -> Self {
        Self { backend, deadline: AtomicU64::new(0) }
    }
}

// SAFETY: passes the call to an implementation that holds the contract.
unsafe impl<B: SeamcallBackend> SeamcallBackend for Kernel<'_, B> {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        // SAFETY: the caller's.
        unsafe { self.backend.seamcall(regs) }
    }
}

// SAFETY: callers stay on their CPU, by `pinned` or `stop_machine`. The driver gives the library
// memory of the kernel, which is never moved or swapped, and the page tables have its addresses.
// Both backends read and write at the kernel's own addresses.
unsafe impl<B: SeamcallBackend> Host for Kernel<'_, B> {
    fn current_lp(&self) -> u32 {
        cpu()
    }

    fn num_lps(&self) -> u32 {
        online_cpus()
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
        Some(phys_addr(address))
    }
}

/// The raw spin lock in front of P-SEAMLDR.
pub(crate) struct SeamldrLock;

impl Lock for SeamldrLock {
    type Held<'a> = c_ulong;

    fn acquire(&self) -> c_ulong {
        // SAFETY: the library calls `release` afterwards.
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
        // SAFETY: init, updates and final in this order; the parts are readable, and the digest has
        // 48 bytes.
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
        // RSAPublicKey in DER: SEQUENCE { INTEGER modulus, INTEGER 65537 }. The modulus is
        // positive: a zero before it.
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

/// A zeroed page of memory.
pub(crate) struct Page(*mut c_void);

impl Page {
    pub(crate) fn new() -> Option<Self> {
        // SAFETY: no preconditions; may sleep.
        let page = unsafe { tdx_page() };
        (!page.is_null()).then_some(Self(page))
    }

    /// The page as a `T`.
    pub(crate) fn get<T: zerocopy::FromBytes>(&mut self) -> &mut T {
        const { assert!(size_of::<T>() <= 4096 && align_of::<T>() <= 4096) };
        // SAFETY: the page is borrowed exclusively, aligned and large enough. Any bytes are a `T`.
        unsafe { &mut *self.0.cast() }
    }

    pub(crate) fn phys_addr(&self) -> PhysAddr {
        phys_addr(self.0.cast())
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: `tdx_page` returned it.
        unsafe { tdx_free_page(self.0) };
    }
}

/// A copy of an image in virtually contiguous memory that begins on a page boundary.
pub(crate) struct ImageCopy {
    start: *mut u8,
    len: usize,
}

// SAFETY: nothing ties the memory to a CPU.
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
        // SAFETY: the memory has `len` bytes.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len()) };
        Some(Self { start, len: bytes.len() })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the memory has `len` bytes, which no code changes.
        unsafe { core::slice::from_raw_parts(self.start, self.len) }
    }
}

impl Drop for ImageCopy {
    fn drop(&mut self) {
        // SAFETY: `tdx_alloc` returned it.
        unsafe { tdx_free(self.start.cast()) };
    }
}

/// The text of a parameter of the module at the time of [`read`](Self::read).
pub(crate) struct Text<const LEN: usize>([u8; LEN]);

impl<const LEN: usize> Text<LEN> {
    /// # Safety
    ///
    /// `parameter` is readable. If user space changes it at the same time, the text mixes both
    /// values.
    pub(crate) unsafe fn read(parameter: *const [c_char; LEN]) -> Self {
        let mut text = [0; LEN];
        for (at, byte) in text.iter_mut().enumerate() {
            // SAFETY: inside the array, which is readable (caller).
            *byte = unsafe { parameter.cast::<u8>().add(at).read_volatile() };
        }
        Self(text)
    }

    /// The text up to its zero, trimmed. Empty if the text is not UTF-8.
    pub(crate) fn get(&self) -> &str {
        let len = self.0.iter().position(|letter| *letter == 0).unwrap_or(LEN);
        core::str::from_utf8(&self.0[..len]).unwrap_or("").trim()
    }
}

/// Shows a value of the library in the kernel's log, which has a `Display` trait of its own.
pub(crate) struct Shown<T>(pub(crate) T);

impl<T: core::fmt::Display> kernel::fmt::Display for Shown<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(&self.0, f)
    }
}
