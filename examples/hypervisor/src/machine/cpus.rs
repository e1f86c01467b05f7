//! Starts all CPUs, and runs a job on all of them at the same time.

use core::sync::atomic::{AtomicU32, Ordering};

use spin::mutex::SpinMutex;
use x86_64::instructions::{interrupts, port::Port};
use x86_64::registers::model_specific::GsBase;
use x86_64::VirtAddr;

use super::exceptions;

/// The number of CPUs that have stacks.
pub const MAX_CPUS: usize = 64;
/// The interrupt that stops a CPU.
pub const STOP_VECTOR: u8 = 0x40;

/// The number of CPUs that have started.
static COUNT: AtomicU32 = AtomicU32::new(0);

/// Returns the number of the calling CPU.
pub fn current() -> u32 {
    GsBase::read().as_u64() as u32
}

/// Returns how many CPUs have started.
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
        // SAFETY: the APIC of every CPU is mapped, and the registers used here change no memory.
        unsafe { ((BASE + register) as *mut u32).write_volatile(value) };
    }

    pub fn enable() {
        write(SPURIOUS, 0x1ff);
    }

    /// Sends an interrupt to all CPUs except this one.
    pub fn send_to_others(what: u32) {
        write(COMMAND, 0xc_4000 | what);
    }
}

fn wait_a_little() {
    for _ in 0..2000 {
        // SAFETY: no device has this port. Reading it takes some time.
        let _: u8 = unsafe { Port::new(0x80).read() };
    }
}

fn arrive(cpu: u32) {
    GsBase::write(VirtAddr::new(cpu.into()));
    exceptions::set_up(cpu);
    apic::enable();
    COUNT.fetch_add(1, Ordering::Release);
}

/// Starts all other CPUs, so that `wanted` CPUs run.
pub fn start(wanted: u32) {
    extern "C" {
        static boot_trampoline: [u8; 0];
        static boot_trampoline_end: [u8; 0];
    }
    arrive(0);
    let (from, end) = (&raw const boot_trampoline, &raw const boot_trampoline_end);
    // SAFETY: no other code uses the page at 0x8000, and the trampoline is shorter than the page.
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

/// The job of all CPUs, and the number of CPUs that have done it.
static JOB: SpinMutex<Option<&'static (dyn Fn() + Sync)>> = SpinMutex::new(None);
static DONE: AtomicU32 = AtomicU32::new(0);

/// Interrupts all CPUs and runs `job` on each, with interrupts off. Returns after all CPUs have
/// done it. A real hypervisor does this by an NMI, or by exits of all guests.
pub fn on_all(job: &(dyn Fn() + Sync)) {
    // SAFETY: no CPU uses the job after this function returns.
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

/// Does the job on this CPU after the interrupt.
pub fn stopped() {
    let job = *JOB.lock();
    if let Some(job) = job {
        job();
        apic::write(apic::EOI, 0);
        DONE.fetch_add(1, Ordering::Release);
    }
}
