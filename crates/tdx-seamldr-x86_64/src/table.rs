//! The instructions, once for each way in which their exceptions come back.

use tdx_seamldr_core::{SeamcallRegs, Trap};

/// What an instruction came to: 0 and 1 for CF clear and set, or the vector of the exception that
/// it raised.
pub(crate) fn outcome(word: u64) -> Result<(), Trap> {
    match word {
        0 => Ok(()),
        1 => Err(Trap::VmFailInvalid),
        6 => Err(Trap::UndefinedOpcode),
        _ => Err(Trap::GeneralProtection),
    }
}

pub(crate) mod sealed {
    use super::SeamcallRegs;

    /// The instructions themselves.
    pub trait Instructions {
        /// SEAMCALL with all of `regs` in and, if it returns 0, out. Otherwise see
        /// [`super::outcome`].
        ///
        /// # Safety
        ///
        /// `regs` is valid for reads and writes; for the rest see `SeamcallBackend::seamcall`.
        unsafe fn seamcall(regs: *mut SeamcallRegs) -> u64;

        /// VMPTRST.
        ///
        /// # Safety
        ///
        /// `pointer` is valid for a write.
        unsafe fn vmptrst(pointer: *mut u64) -> u64;

        /// VMPTRLD; 1 also stands for ZF.
        ///
        /// # Safety
        ///
        /// `pointer` is valid for a read, and what it holds is the address of a VMCS that may
        /// become current.
        unsafe fn vmptrld(pointer: *const u64) -> u64;
    }
}

/// How #GP and #UD come back to the caller of an instruction: what is put beside it for the
/// exception handler to find.
pub trait Table: sealed::Instructions {}

/// Nothing: an exception goes to the handler like any other, and what happens is the handler's
/// affair. It may emulate the instruction and go on behind it.
#[derive(Clone, Copy, Debug)]
pub enum NoTable {}

/// An entry in the section `seam_extable`, for hypervisors: the handler asks [`fixup`].
#[derive(Clone, Copy, Debug)]
pub enum SeamTable {}

/// An entry in the section `__ex_table` of the kind EX_TYPE_FAULT, as Linux has them on x86 since
/// 5.16: Linux's handlers find it.
#[derive(Clone, Copy, Debug)]
pub enum LinuxTable {}

macro_rules! instructions {
    ($table:ident: $($entry:literal),*) => {
        impl Table for $table {}

        impl sealed::Instructions for $table {
            #[inline]
            unsafe fn seamcall(regs: *mut SeamcallRegs) -> u64 {
                let outcome;
                // SAFETY: `regs` may be read and written (caller). Fourteen registers are loaded from it and stored to it, of which
                // the compiler knows by `out` and `clobber_abi`, but for RBX and RBP, which it keeps for itself and which are put
                // back from the stack. At 4, where an exception leads, the stack is as it was at the instruction. What the
                // firmware does to memory is the caller's to answer for.
                unsafe {
                    core::arch::asm!(
                        "push rbx",
                        "push rbp",
                        "push rdi",
                        "mov rax, [rdi]",
                        "mov rcx, [rdi + 8]",
                        "mov rdx, [rdi + 16]",
                        "mov rbx, [rdi + 24]",
                        "mov rsi, [rdi + 32]",
                        "mov r8, [rdi + 48]",
                        "mov r9, [rdi + 56]",
                        "mov r10, [rdi + 64]",
                        "mov r11, [rdi + 72]",
                        "mov r12, [rdi + 80]",
                        "mov r13, [rdi + 88]",
                        "mov r14, [rdi + 96]",
                        "mov r15, [rdi + 104]",
                        "mov rdi, [rdi + 40]",
                        // SEAMCALL; from here to SETC nothing may change CF.
                        "2:",
                        ".byte 0x66, 0x0f, 0x01, 0xcf",
                        "xchg rax, [rsp]",
                        "mov [rax + 8], rcx",
                        "mov [rax + 16], rdx",
                        "mov [rax + 24], rbx",
                        "mov [rax + 32], rsi",
                        "mov [rax + 40], rdi",
                        "mov [rax + 48], r8",
                        "mov [rax + 56], r9",
                        "mov [rax + 64], r10",
                        "mov [rax + 72], r11",
                        "mov [rax + 80], r12",
                        "mov [rax + 88], r13",
                        "mov [rax + 96], r14",
                        "mov [rax + 104], r15",
                        "pop rcx",
                        "mov [rax], rcx",
                        "setc al",
                        "movzx eax, al",
                        "jmp 5f",
                        // An exception: RAX is its vector, and the address of the registers is still on the stack.
                        "4:",
                        "pop rcx",
                        "5:",
                        "pop rbp",
                        "pop rbx",
                        $($entry,)*
                        inout("rdi") regs => _,
                        lateout("rax") outcome,
                        out("r12") _,
                        out("r13") _,
                        out("r14") _,
                        out("r15") _,
                        clobber_abi("sysv64"),
                    );
                }
                outcome
            }

            #[inline]
            unsafe fn vmptrst(pointer: *mut u64) -> u64 {
                let outcome;
                // SAFETY: writes 8 bytes at `pointer`, which may be written (caller).
                unsafe {
                    core::arch::asm!(
                        // VMPTRST [RAX]
                        "2:",
                        ".byte 0x0f, 0xc7, 0x38",
                        "xor eax, eax",
                        "4:",
                        $($entry,)*
                        inout("rax") pointer => outcome,
                    );
                }
                outcome
            }

            #[inline]
            unsafe fn vmptrld(pointer: *const u64) -> u64 {
                let outcome;
                // SAFETY: reads 8 bytes at `pointer`, which may be read; they name a VMCS that may become current (caller).
                unsafe {
                    core::arch::asm!(
                        // VMPTRLD [RAX]
                        "2:",
                        ".byte 0x0f, 0xc7, 0x30",
                        "setbe al",
                        "movzx eax, al",
                        "4:",
                        $($entry,)*
                        inout("rax") pointer => outcome,
                    );
                }
                outcome
            }
        }
    };
}

instructions!(NoTable:);
instructions!(SeamTable:
    ".pushsection seam_extable, \"aR\", @progbits",
    ".balign 4",
    ".long 2b - .",
    ".long 4b - .",
    ".popsection"
);
instructions!(LinuxTable:
    ".pushsection __ex_table, \"a\"",
    ".balign 4",
    ".long 2b - .",
    ".long 4b - .",
    // EX_TYPE_FAULT: the handler puts the vector into RAX.
    ".long 2",
    ".popsection"
);

/// An entry of `seam_extable`: where an instruction is and where to go on, each relative to the
/// field's own address.
#[repr(C)]
struct Entry {
    fault: i32,
    fixup: i32,
}

impl Entry {
    fn address_of(field: &i32) -> u64 {
        let at = u64::try_from(core::ptr::from_ref(field).addr()).unwrap_or(0);
        at.wrapping_add_signed((*field).into())
    }
}

/// Where to go on after #GP or #UD at this address, if it is an instruction of [`SeamTable`]'s. The
/// handler puts the exception's vector (6 or 13) into RAX and this into RIP, and changes nothing
/// else. It may be called with interrupts off and in an NMI.
// Inline: a program that does not call it, such as a kernel module, which is linked in parts, has
// no need of the two symbols.
#[inline]
#[must_use]
pub fn fixup(rip: u64) -> Option<u64> {
    extern "C" {
        // The linker makes these for a section with such a name; a linker script that places the
        // section has to define them.
        static __start_seam_extable: [Entry; 0];
        static __stop_seam_extable: [Entry; 0];
    }
    // SAFETY: an entry that no exception can be about, so that there is a section in any case; no
    // instruction is executed.
    unsafe {
        core::arch::asm!(
            "2:",
            ".pushsection seam_extable, \"aR\", @progbits",
            ".balign 4",
            ".long 2b - .",
            ".long 2b - .",
            ".popsection",
            options(nomem, nostack, preserves_flags)
        );
    }
    let (start, stop) = (&raw const __start_seam_extable, &raw const __stop_seam_extable);
    let bytes = stop.addr().wrapping_sub(start.addr());
    let count = bytes.checked_div(size_of::<Entry>()).unwrap_or(0);
    // SAFETY: between the two symbols lies the section, which has such entries and nothing else,
    // and is never written.
    let entries = unsafe { core::slice::from_raw_parts(start.cast::<Entry>(), count) };
    let entry = entries.iter().find(|entry| Entry::address_of(&entry.fault) == rip)?;
    let fixup = Entry::address_of(&entry.fixup);
    (fixup != rip).then_some(fixup)
}
