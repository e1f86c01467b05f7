//! The instructions, with one version for each kind of exception table.

use tdx_seamldr_core::{SeamcallRegs, Trap};

/// Returns the result of an instruction. `word` is 0 for CF clear, 1 for CF set, or the vector of
/// the exception.
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
        /// SEAMCALL: loads all registers from `regs`. Stores them there if it returns 0; for other
        /// values see [`super::outcome`].
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

        /// VMPTRLD. 1 also stands for ZF set.
        ///
        /// # Safety
        ///
        /// `pointer` is valid for a read. It holds the address of a VMCS that may become current.
        unsafe fn vmptrld(pointer: *const u64) -> u64;
    }
}

/// The exception table that tells the handler where to continue after #GP or #UD of an instruction.
pub trait Table: sealed::Instructions {}

/// No table: the handler treats the exception like any other. It may emulate the instruction and
/// continue after it.
#[derive(Clone, Copy, Debug)]
pub enum NoTable {}

/// Entries in the section `seam_extable`, for hypervisors. The handler calls [`fixup`].
#[derive(Clone, Copy, Debug)]
pub enum SeamTable {}

/// Entries of type EX_TYPE_FAULT in the section `__ex_table`, for Linux 5.16 or later on x86.
/// Linux's handlers find them.
#[derive(Clone, Copy, Debug)]
pub enum LinuxTable {}

macro_rules! instructions {
    ($table:ident: $($entry:literal),*) => {
        impl Table for $table {}

        impl sealed::Instructions for $table {
            #[inline]
            unsafe fn seamcall(regs: *mut SeamcallRegs) -> u64 {
                let outcome;
                // SAFETY: `regs` may be read and written (caller). The code loads 14 registers from
                // `regs` and stores them there. `out` and `clobber_abi` tell the compiler, except
                // for RBX and RBP, which the code restores from the stack. An exception continues
                // at 4, with the stack as it was at the instruction. The caller guarantees what
                // the firmware does to memory.
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
                        // SEAMCALL. No instruction up to SETC may change CF.
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
                        // After an exception: RAX is the vector, and the address of the registers
                        // is still on the stack.
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
                // SAFETY: the instruction writes 8 bytes at `pointer`, which the caller allows.
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
                // SAFETY: the instruction reads 8 bytes at `pointer`. The caller guarantees that
                // they are the address of a VMCS that may become current.
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

/// An entry of `seam_extable`: the address of an instruction, and the address to continue at. Each
/// is relative to its field's own address.
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

/// Returns the address at which to continue after #GP or #UD at `rip`. `None` if `rip` is not an
/// instruction of [`SeamTable`]. The handler puts the exception's vector (6 or 13) into RAX and the
/// address into RIP, and changes no other register. The handler may call this with interrupts off
/// and in an NMI.
// Inline, so that a program that does not call this function needs no definition of the two
// symbols. A kernel module, which is linked in parts, is such a program.
#[inline]
#[must_use]
pub fn fixup(rip: u64) -> Option<u64> {
    extern "C" {
        // The linker defines these symbols for a section with such a name. A linker script that
        // places the section must define them itself.
        static __start_seam_extable: [Entry; 0];
        static __stop_seam_extable: [Entry; 0];
    }
    // SAFETY: the code executes no instruction. It adds an entry that matches no exception, so that
    // the section exists.
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
    // SAFETY: the section lies between the two symbols. It consists of such entries, and no code
    // writes it.
    let entries = unsafe { core::slice::from_raw_parts(start.cast::<Entry>(), count) };
    let entry = entries.iter().find(|entry| Entry::address_of(&entry.fault) == rip)?;
    let fixup = Entry::address_of(&entry.fixup);
    (fixup != rip).then_some(fixup)
}
