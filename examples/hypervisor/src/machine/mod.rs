//! The machine under the hypervisor: CPUs, exceptions, interrupts between CPUs, memory, the serial
//! line. A real hypervisor has all of this already. Only [`on_undefined_opcode`](exceptions) is
//! specific to SEAMCALL.

pub mod cpus;
pub mod exceptions;
pub mod memory;
pub mod serial;

use core::arch::global_asm;
use core::panic::PanicInfo;

use x86_64::instructions::port::Port;

global_asm!(include_str!("boot.s"), options(att_syntax));

/// Ends the run. QEMU's exit status tells the result.
pub fn exit(success: bool) -> ! {
    // SAFETY: only QEMU's exit device has this port.
    unsafe { Port::<u32>::new(0xf4).write(if success { 0x10 } else { 0x11 }) };
    loop {
        x86_64::instructions::hlt();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    crate::print!("{info}");
    exit(false)
}

/// The unwind tables of the toolchain's libcore refer to this function.
#[no_mangle]
extern "C" fn rust_eh_personality() {}

/// Functions that the compiler calls by name. They consist of single instructions, so that the
/// compiler does not turn them into calls of themselves.
mod calls_of_the_compiler {
    use core::arch::asm;

    #[no_mangle]
    unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        // SAFETY: as in C, both have `len` bytes.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
        if to.addr().wrapping_sub(from.addr()) >= len {
            // SAFETY: as in C. The copy reads each byte before it overwrites it.
            return unsafe { memcpy(to, from, len) };
        }
        // SAFETY: as in C. The copy begins with the last byte.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _,
                inout("rdi") to.wrapping_add(len).wrapping_sub(1) => _,
                inout("rsi") from.wrapping_add(len).wrapping_sub(1) => _, options(nostack));
        }
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memset(to: *mut u8, value: i32, len: usize) -> *mut u8 {
        // SAFETY: as in C, `to` has `len` bytes.
        unsafe {
            asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("eax") value,
                options(nostack, preserves_flags));
        }
        to
    }

    #[no_mangle]
    unsafe extern "C" fn memcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
        for at in 0..len {
            // SAFETY: as in C, both have `len` bytes. The reads are volatile, so that the compiler
            // does not make a call of this function.
            let (one, other) =
                unsafe { (one.add(at).read_volatile(), other.add(at).read_volatile()) };
            if one != other {
                return i32::from(one) - i32::from(other);
            }
        }
        0
    }

    #[no_mangle]
    unsafe extern "C" fn bcmp(one: *const u8, other: *const u8, len: usize) -> i32 {
        // SAFETY: as in C.
        unsafe { memcmp(one, other, len) }
    }

    #[no_mangle]
    unsafe extern "C" fn strlen(text: *const u8) -> usize {
        let mut len = 0;
        // SAFETY: as in C, the bytes end in a zero. The reads are volatile, so that the compiler
        // does not make a call of this function.
        while unsafe { text.add(len).read_volatile() } != 0 {
            len += 1;
        }
        len
    }
}
