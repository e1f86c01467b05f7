// SPDX-License-Identifier: MIT OR Apache-2.0

//! The simulated platform inside the kernel, for machines without TDX. A driver for real machines
//! does not need this file.

use core::cell::UnsafeCell;
use core::ffi::{c_char, c_int, c_ulong, c_void};
use core::sync::atomic::{AtomicU64, Ordering};

use kernel::prelude::*;
use tdx_seamldr_core::preflight::Facts;
use tdx_seamldr_core::SharedMemory;
use tdx_seamldr_core::{
    Crypto, CryptoUnavailable, SeamcallBackend, SeamcallRegs, Sha384Digest, TdxImage, TdxModule,
    Trap,
};
use tdx_seamldr_mock::model::{
    Answer, Config, Fault, LoaderProfile, PhysMemory, Platform, SeamDb, SeamMemory, TdId, TdPhase,
};

use crate::kernel_side::{cpu, now, phys_addr, pinned, KernelCrypto, Page, Shown, Text};

extern "C" {
    fn tdx_lock_firmware() -> c_ulong;
    fn tdx_unlock_firmware(flags: c_ulong);
    fn tdx_phys_to_virt(address: u64) -> *mut c_void;
    static mut tdx_tds_alive: c_int;
    static mut tdx_fault: [c_char; 96];
    static tdx_updates: c_int;
}

/// The private memory of each TD.
const SECRETS: [[u8; 32]; 3] = [[0x11; 32], [0x22; 32], [0x33; 32]];
/// The number of signatures in the cache.
const REMEMBERED: usize = 8;

struct Firmware {
    platform: Platform<&'static mut SeamMemory>,
    tds: [Option<TdId>; 3],
    /// Signatures that the driver has verified: modulus, signature and digest, hashed together,
    /// and whether they are valid. The kernel's RSA may sleep, but firmware is called with
    /// interrupts off.
    verified: [Option<(Sha384Digest, bool)>; REMEMBERED],
    next: usize,
    /// The byte of an image that firmware reads with a flipped bit.
    flipped: Option<u64>,
}

/// The firmware, behind its lock.
struct Locked(UnsafeCell<Option<Firmware>>);

// SAFETY: only used with the lock held.
unsafe impl Sync for Locked {}

static FIRMWARE: Locked = Locked(UnsafeCell::new(None));

struct Memory(UnsafeCell<SeamMemory>);

// SAFETY: only `start` uses it, once each time that the kernel module is loaded.
unsafe impl Sync for Memory {}

static MEMORY: Memory = Memory(UnsafeCell::new(SeamMemory::ZEROED));

/// The time in ns that all CPUs together spent in firmware since `take_time` last asked.
static SPENT: AtomicU64 = AtomicU64::new(0);

fn with<T>(work: impl FnOnce(&mut Firmware) -> T) -> Option<T> {
    // SAFETY: unlocked below.
    let flags = unsafe { tdx_lock_firmware() };
    // SAFETY: the lock is held.
    let result = unsafe { &mut *FIRMWARE.0.get() }.as_mut().map(work);
    // SAFETY: pairs with the above.
    unsafe { tdx_unlock_firmware(flags) };
    result
}

/// Starts a machine with this number of LPs, and a P-SEAMLDR that accepts this image and trusts its
/// signer.
pub(crate) fn start(lps: u32, image: &TdxImage<'_>, signer: Sha384Digest) -> bool {
    let sigstruct = image.sigstruct();
    let line_2_0 = sigstruct.reserved3.iter().any(|byte| *byte != 0);
    let profile = if line_2_0 { LoaderProfile::V2_0_00 } else { LoaderProfile::V1_5_00 };
    let fms = sigstruct.cpus().first().map_or(0x806f8, |fms| fms.get());
    let Ok(config) = Config::new(lps, 1, fms, signer, profile) else { return false };
    // SAFETY: the parameter does not change after the module was loaded.
    let updates = unsafe { tdx_updates }.clamp(0, 9998) as u32;
    // The first module uses one of the updates.
    let seamdb = SeamDb { size: updates + 1, used: 0, insert_failures: 0 };
    // SAFETY: the platform that used it before is gone.
    let memory = unsafe { &mut *MEMORY.0.get() };
    let firmware = Firmware {
        platform: Platform::new(config, seamdb, memory),
        tds: [None; 3],
        verified: [None; REMEMBERED],
        next: 0,
        flipped: None,
    };
    // SAFETY: no CPU calls firmware yet.
    unsafe { *FIRMWARE.0.get() = Some(firmware) };
    true
}

/// Fills in the facts that the processor of the simulated platform and its KVM know.
pub(crate) fn complete(facts: &mut Facts) {
    with(|firmware| {
        let config = firmware.platform.config();
        facts.signer = Some(config.signer);
        facts.seamrr_base = Some(config.seamrr_base);
        facts.addressable_lps_per_socket = Some(config.addressable_lps_per_socket);
        facts.highest_x2apic_id = config.num_lps.checked_sub(1);
        facts.shared_memory = Some(SharedMemory {
            address_bits: config.max_pa as u8,
            keyid_bits: config.keyid_bits as u8,
            first_private_keyid: config.private_hkid_min as u32,
            seam_range_base: config.seamrr_base,
            seam_range_size: config.seamrr_size,
        });
        facts.debug_unlocked = Some(config.debug_unlocked);
        facts.sensitive_operations = Some(0);
    });
}

/// SEAMCALL on the simulated platform.
pub(crate) struct Simulated;

// SAFETY: the model makes the call once, for the CPU that calls, and touches no memory but what the
// leaf's operands name.
unsafe impl SeamcallBackend for Simulated {
    unsafe fn seamcall(&self, regs: &mut SeamcallRegs) -> Result<(), Trap> {
        let begin = now();
        // Other CPUs may call in between, as on a real machine.
        let entered = with(|firmware| firmware.platform.enter(cpu(), regs))
            .unwrap_or(Err(Trap::UndefinedOpcode));
        let result = entered.and_then(|entered| {
            let mut returned = *regs;
            let result = with(|firmware| {
                let crypto = Remembered(&firmware.verified);
                firmware.platform.leave(entered, &mut returned, &Dram, &crypto)
            });
            *regs = returned;
            result.unwrap_or(Err(Trap::UndefinedOpcode))
        });
        SPENT.fetch_add(now() - begin, Ordering::Relaxed);
        result
    }
}

/// Returns the time in ns that CPUs spent in firmware since the last call.
pub(crate) fn take_time() -> u64 {
    SPENT.swap(0, Ordering::Relaxed)
}

/// The machine's memory as firmware sees it.
struct Dram;

impl PhysMemory for Dram {
    fn read(&self, address: u64, out: &mut [u8]) {
        // SAFETY: returns null, or where this address is mapped.
        let from = unsafe { tdx_phys_to_virt(address) }.cast::<u8>();
        if from.is_null() {
            out.fill(0);
        } else {
            // SAFETY: the caller of firmware keeps the memory at this address as it is, up to the
            // end of the page.
            unsafe { core::ptr::copy_nonoverlapping(from, out.as_mut_ptr(), out.len()) };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        // SAFETY: as in `read`.
        let to = unsafe { tdx_phys_to_virt(address) }.cast::<u8>();
        if !to.is_null() {
            // SAFETY: as in `read`; the caller gave the address to be written.
            unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        }
    }
}

fn fingerprint(modulus: &[u8; 384], signature: &[u8; 384], digest: &Sha384Digest) -> Sha384Digest {
    KernelCrypto.sha384(&[modulus, signature, digest]).unwrap_or([0; 48])
}

/// The firmware's cryptography.
struct Remembered<'a>(&'a [Option<(Sha384Digest, bool)>; REMEMBERED]);

impl Crypto for Remembered<'_> {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        KernelCrypto.sha384(parts)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        let wanted = fingerprint(modulus, signature, digest);
        let found = self.0.iter().flatten().find(|(known, _)| *known == wanted);
        found.map(|(_, valid)| *valid).ok_or(CryptoUnavailable)
    }
}

/// Verifies the signature of an image for the firmware, which remembers the result. May sleep.
pub(crate) fn learn(image: &TdxImage<'_>) {
    let sigstruct = image.sigstruct();
    let Ok(digest) = KernelCrypto.sha384(&sigstruct.signed_parts()) else { return };
    let Ok(valid) = KernelCrypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest)
    else {
        return;
    };
    let known = fingerprint(&sigstruct.modulus, &sigstruct.signature, &digest);
    with(|firmware| {
        firmware.verified[firmware.next % REMEMBERED] = Some((known, valid));
        firmware.next += 1;
    });
}

/// Gives memory and keys to the loaded module, and starts TDs. `false` if the module refuses.
pub(crate) fn configure<B: SeamcallBackend>(module: &TdxModule<'_, B>) -> bool {
    // One TDMR of 1 GiB at 32 GiB, with its metadata above it. The simulated module does not touch
    // either.
    const TDMR: [u64; 8] = [
        32 << 30,
        1 << 30,
        33 << 30,
        0x1000,
        (33 << 30) + 0x1000,
        0x2000,
        (33 << 30) + 0x3000,
        0x40_0000,
    ];
    let (Some(mut list), Some(mut tdmr)) = (Page::new(), Page::new()) else { return false };
    *tdmr.get() = TDMR;
    *list.get() = tdmr.phys_addr().0;
    let address = list.phys_addr();
    // SAFETY: the list is valid, and no code uses the memory that it names.
    let configured = pinned(|| {
        unsafe { module.sys_config(address, 1, 0x20, false) }.and_then(|()| module.sys_key_config())
    });
    if let Err(error) = configured {
        pr_err!("the module cannot be configured: {}\n", Shown(error));
        return false;
    }
    with(|firmware| {
        for (td, secret) in firmware.tds.iter_mut().zip(SECRETS) {
            *td = firmware.platform.create_td(TdPhase::Running, secret);
        }
    });
    count_tds();
    true
}

/// Updates the parameter `tds_alive`.
pub(crate) fn count_tds() {
    let alive = with(|firmware| {
        let alive = |(td, secret): &(&Option<TdId>, [u8; 32])| {
            td.is_some_and(|td| firmware.platform.td_secret(td) == Some(*secret))
        };
        firmware.tds.iter().zip(SECRETS).filter(alive).count()
    });
    let alive = alive.unwrap_or(0);
    // SAFETY: only the driver writes it, under its lock.
    unsafe { (&raw mut tdx_tds_alive).write_volatile(alive as c_int) };
}

/// Plans the fault of the parameter `fault` for the update to this image. Removes earlier faults.
pub(crate) fn plan_fault(image: &TdxImage<'_>) {
    // SAFETY: a parameter that is text.
    let line = unsafe { Text::read(&raw const tdx_fault) };
    let line = line.get();
    let mut words = line.split_ascii_whitespace().map(|word| {
        word.strip_prefix("0x")
            .map_or_else(|| word.parse().ok(), |digits| u64::from_str_radix(digits, 16).ok())
    });
    let mut next = || words.next().flatten();
    with(|firmware| {
        firmware.platform.faults_mut().clear();
        if let Some(address) = firmware.flipped.take() {
            let _ = firmware.platform.tamper(address, 0);
        }
        if line == "flip-sigstruct" {
            let address = phys_addr(&raw const image.sigstruct().reserved0[0]).0;
            firmware.flipped = firmware.platform.tamper(address, 1).then_some(address);
        }
        let (Some(rax), Some(after), Some(times), Some(answer), Some(rdx)) =
            (next(), next(), next(), next(), next())
        else {
            return;
        };
        let answer = Answer::Return { rax: answer, rdx };
        let fault = Fault { after: after as u32, times: times as u32, ..Fault::first(rax, answer) };
        let _ = firmware.platform.faults_mut().add(fault);
    });
    if !line.is_empty() {
        pr_info!("in the next update: {}\n", line);
    }
}
