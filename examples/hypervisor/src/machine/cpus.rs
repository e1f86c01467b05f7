//! All CPUs: starting them, and stopping them for something that has to be done on all of them with
//! nothing else going on.

use core::sync::atomic::{AtomicU32, Ordering};

use spin::mutex::SpinMutex;
use x86_64::instructions::{interrupts, port::Port};
use x86_64::registers::model_specific::GsBase;
use x86_64::VirtAddr;

use super::exceptions;

/// CPUs that there are stacks for.
pub const MAX_CPUS: usize = 64;
/// The interrupt that stops a CPU.
pub const STOP_VECTOR: u8 = 0x40;

/// CPUs that are there.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// The number of the CPU that runs this.
pub fn current() -> u32 {
    GsBase::read().as_u64() as u32
}

/// How many CPUs there are.
pub fn count() -> u32 {
    COUNT.load(Ordering::Relaxed)
}

/// The local APIC.
mod apic {
    const BASE: u64 = 0xfee0_0000;
    pub const EOI: u64 = 0xb0;
    const SPURIOUS: u64 = 0xf0;
    const COMMAND: u64 = 0x300;

    pub fn write(register: u64, value: u32) {
        // SAFETY: the APIC is there on every CPU and mapped; none of its registers used here
        // touches memory.
        unsafe { ((BASE + register) as *mut u32).write_volatile(value) };
    }

    pub fn enable() {
        write(SPURIOUS, 0x1ff);
    }

    /// To all CPUs but this one.
    pub fn send_to_others(what: u32) {
        write(COMMAND, 0xc_4000 | what);
    }
}

fn wait_a_little() {
    for _ in 0..2000 {
        // SAFETY: nothing is at this port; reading takes some time.
        let _: u8 = unsafe { Port::new(0x80).read() };
    }
}

fn arrive(cpu: u32) {
    GsBase::write(VirtAddr::new(cpu.into()));
    exceptions::set_up(cpu);
    apic::enable();
    COUNT.fetch_add(1, Ordering::Release);
}

/// Starts all others; there are `wanted` CPUs in all.
pub fn start(wanted: u32) {
    extern "C" {
        static boot_trampoline: [u8; 0];
        static boot_trampoline_end: [u8; 0];
    }
    arrive(0);
    let (from, end) = (&raw const boot_trampoline, &raw const boot_trampoline_end);
    // SAFETY: the page at 0x8000 is memory that nobody uses, and the trampoline is shorter than it.
    unsafe {
        core::ptr::copy_nonoverlapping(
            from.cast::<u8>(),
            0x8000 as *mut u8,
            end.addr() - from.addr(),
        );
    }
    const INIT: u32 = 5 << 8;
    const STARTUP: u32 = 6 << 8;
    if wanted > 1 {
        apic::send_to_others(INIT);
        wait_a_little();
        apic::send_to_others(STARTUP | 0x8000 >> 12);
    }
    while COUNT.load(Ordering::Acquire) < wanted {
        core::hint::spin_loop();
    }
}

#[no_mangle]
extern "C" fn main_of_others(cpu: u32) -> ! {
    arrive(cpu);
    loop {
        interrupts::enable_and_hlt();
        interrupts::disable();
    }
}

/// What all CPUs are to do, and how many have done it.
static JOB: SpinMutex<Option<&'static (dyn Fn() + Sync)>> = SpinMutex::new(None);
static DONE: AtomicU32 = AtomicU32::new(0);

/// Stops all CPUs and has each do this, with interrupts off; returns when all have. What a
/// hypervisor does by an NMI, or by taking all CPUs out of their guests.
pub fn on_all(job: &(dyn Fn() + Sync)) {
    // SAFETY: no CPU uses it any more when this function returns.
    let job: &'static (dyn Fn() + Sync) = unsafe { core::mem::transmute(job) };
    interrupts::without_interrupts(|| {
        DONE.store(0, Ordering::Relaxed);
        *JOB.lock() = Some(job);
        apic::send_to_others(STOP_VECTOR.into());
        job();
        while DONE.load(Ordering::Acquire) < count() - 1 {
            core::hint::spin_loop();
        }
        *JOB.lock() = None;
    });
}

/// This CPU has stopped.
pub fn stopped() {
    let job = *JOB.lock();
    if let Some(job) = job {
        job();
        apic::write(apic::EOI, 0);
        DONE.fetch_add(1, Ordering::Release);
    }
}
