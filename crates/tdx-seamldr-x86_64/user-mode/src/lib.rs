//! A signal handler that emulates SEAMCALL, VMPTRST and VMPTRLD. In user mode these instructions
//! raise exceptions, which arrive as signals.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![allow(
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions
)]

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_mock::SimPlatform;
use tdx_seamldr_x86_64::fixup;

/// The source of the results of a thread's instructions.
#[derive(Clone, Copy, Debug)]
pub enum Answerer<'a> {
    /// The handler changes each register by [`mirrored`].
    Mirror,
    /// The handler sets CF.
    Carry,
    /// The exception with this vector. The handler searches `seam_extable`.
    SeamTable(u64),
    /// The exception with this vector. The handler searches Linux's `__ex_table`.
    LinuxTable(u64),
    /// An LP of a simulated platform.
    Platform(&'a SimPlatform, u32),
}

thread_local! {
    static ANSWERER: Cell<Option<Answerer<'static>>> = const { Cell::new(None) };
    static LAST_SEEN: Cell<[u64; 14]> = const { Cell::new([0; 14]) };
    static REFUSE_VMPTRLD: Cell<bool> = const { Cell::new(false) };
}

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Returns how many SEAMCALLs the handler has answered on all threads.
pub fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Returns the registers at the last SEAMCALL of this thread.
pub fn last_seen() -> [u64; 14] {
    LAST_SEEN.get()
}

/// Returns the registers that [`Answerer::Mirror`] stores.
pub fn mirrored(regs: [u64; 14]) -> [u64; 14] {
    let mut number = 0;
    regs.map(|value| {
        number += 1;
        !value.rotate_left(number)
    })
}

/// Sets whether VMPTRLD fails on this thread.
pub fn refuse_vmptrld(refuse: bool) {
    REFUSE_VMPTRLD.set(refuse);
}

/// Runs `work` with this answerer for the instructions of this thread.
pub fn answered_by<T>(answerer: Answerer<'_>, work: impl FnOnce() -> T) -> T {
    struct Reset;
    impl Drop for Reset {
        fn drop(&mut self) {
            ANSWERER.set(None);
        }
    }
    // SAFETY: `Reset` removes the answerer before this function returns, also after a panic. So no
    // code uses it after its lifetime.
    let answerer = unsafe { std::mem::transmute::<Answerer<'_>, Answerer<'static>>(answerer) };
    ANSWERER.set(Some(answerer));
    let _reset = Reset;
    work()
}

/// Installs the handler.
pub fn install() {
    for signal in [libc::SIGILL, libc::SIGSEGV] {
        // SAFETY: an all-zero sigaction is valid.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction =
            handle as extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_NODEFER;
        // SAFETY: the action is complete, and the handler handles both signals.
        let result = unsafe { libc::sigaction(signal, &action, std::ptr::null_mut()) };
        assert_eq!(result, 0);
    }
}

/// Whether SEAMCALL raises an exception on this machine.
pub fn instruction_traps() -> bool {
    let backend = tdx_seamldr_x86_64::Seamcall::<tdx_seamldr_x86_64::NoTable>::new();
    let mut regs = SeamcallRegs::default();
    // SAFETY: outside ring 0 the instruction reaches no firmware.
    let _ = answered_by(Answerer::Mirror, || unsafe { backend.seamcall(&mut regs) });
    calls() == 1
}

const SEAMCALL: &[u8] = &[0x66, 0x0f, 0x01, 0xcf];
const VMPTRST_RAX: &[u8] = &[0x0f, 0xc7, 0x38];
const VMPTRLD_RAX: &[u8] = &[0x0f, 0xc7, 0x30];

const REGISTERS: [c_int; 14] = [
    libc::REG_RAX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RBX,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

/// A thread's registers at an exception.
struct Frame<'a> {
    context: &'a mut libc::ucontext_t,
}

impl Frame<'_> {
    fn register(&mut self, which: c_int) -> &mut i64 {
        &mut self.context.uc_mcontext.gregs[which as usize]
    }

    fn get(&mut self, which: c_int) -> u64 {
        *self.register(which) as u64
    }

    fn set(&mut self, which: c_int, value: u64) {
        *self.register(which) = value as i64;
    }

    /// Sets CF to `carry`, and the other arithmetic flags to changing values.
    fn set_carry(&mut self, carry: bool) {
        const ARITHMETIC: u64 = 0x8d5;
        let flags = self.get(libc::REG_EFL);
        let others = calls().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32 & ARITHMETIC & !1;
        self.set(libc::REG_EFL, flags & !ARITHMETIC | others | u64::from(carry));
    }

    /// Overwrites the state that a call may change besides its operands: RBP and the vector
    /// registers.
    fn spoil(&mut self) {
        self.set(libc::REG_RBP, 0x5b01_1ed0_5b01_1ed0);
        let state = self.context.uc_mcontext.fpregs;
        // SAFETY: the kernel stores the state there, and the handler may change it.
        if let Some(state) = unsafe { state.as_mut() } {
            for register in &mut state._xmm {
                register.element = [0x5b01_1ed0; 4];
            }
        }
    }

    /// Continues at the address in this exception's table. `false`: the table has no entry.
    fn fix_up(&mut self, vector: u64, entry: impl Fn(u64) -> Option<u64>) -> bool {
        let Some(fixup) = entry(self.get(libc::REG_RIP)) else { return false };
        self.set(libc::REG_RAX, vector);
        self.set(libc::REG_RIP, fixup);
        true
    }

    fn seamcall(&mut self, answerer: Answerer<'_>) -> bool {
        let input = REGISTERS.map(|register| self.get(register));
        LAST_SEEN.set(input);
        let (output, carry) = match answerer {
            Answerer::SeamTable(vector) => return self.fix_up(vector, fixup),
            Answerer::LinuxTable(vector) => return self.fix_up(vector, linux_fixup),
            Answerer::Mirror => (mirrored(input), false),
            Answerer::Carry => (input, true),
            Answerer::Platform(platform, lp) => {
                let mut regs = from_array(input);
                // SAFETY: the caller of the instruction guarantees the addresses.
                match unsafe { platform.lp(lp).seamcall(&mut regs) } {
                    Ok(()) => (array(&regs), false),
                    Err(Trap::VmFailInvalid) => (input, true),
                    Err(trap) => panic!("{trap}"),
                }
            }
        };
        CALLS.fetch_add(1, Ordering::Relaxed);
        for (register, value) in REGISTERS.into_iter().zip(output) {
            self.set(register, value);
        }
        self.set_carry(carry);
        self.spoil();
        true
    }

    fn vmptrst(&mut self, answerer: Answerer<'_>) -> bool {
        match answerer {
            Answerer::Platform(platform, lp) => {
                let pointer = self.get(libc::REG_RAX) as *mut u64;
                let value = platform.with_model(|model| model.current_vmcs(lp));
                // SAFETY: this is the instruction's operand, which it may write.
                unsafe { pointer.write_unaligned(value) };
                true
            }
            Answerer::SeamTable(vector) => self.fix_up(vector, fixup),
            _ => false,
        }
    }

    fn vmptrld(&mut self, answerer: Answerer<'_>) -> bool {
        let Answerer::Platform(platform, lp) = answerer else { return false };
        let pointer = self.get(libc::REG_RAX) as *const u64;
        // SAFETY: this is the instruction's operand, which it may read.
        let value = unsafe { pointer.read_unaligned() };
        let refused = REFUSE_VMPTRLD.get();
        self.set_carry(refused);
        if !refused {
            platform.with_model(|model| model.load_vmcs(lp, value));
            let flags = self.get(libc::REG_EFL);
            self.set(libc::REG_EFL, flags & !0x40); // ZF: VMfailValid
        }
        true
    }
}

/// Returns the registers, which are in the order of [`SeamcallRegs`].
#[must_use]
pub const fn from_array(regs: [u64; 14]) -> SeamcallRegs {
    let [rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = regs;
    SeamcallRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
}

fn array(regs: &SeamcallRegs) -> [u64; 14] {
    let SeamcallRegs { rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } = *regs;
    [rax, rcx, rdx, rbx, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15]
}

/// Searches `__ex_table` for an entry with this address, as Linux's handlers do.
fn linux_fixup(rip: u64) -> Option<u64> {
    #[repr(C)]
    struct Entry {
        fault: i32,
        fixup: i32,
        kind: i32,
    }
    extern "C" {
        static __start___ex_table: [Entry; 0];
        static __stop___ex_table: [Entry; 0];
    }
    let (start, stop) = (&raw const __start___ex_table, &raw const __stop___ex_table);
    let count = (stop.addr() - start.addr()) / size_of::<Entry>();
    // SAFETY: the section lies between the symbols, and consists of such entries.
    let entries = unsafe { std::slice::from_raw_parts(start.cast::<Entry>(), count) };
    let address = |field: &i32| {
        (std::ptr::from_ref(field).addr() as u64).wrapping_add_signed((*field).into())
    };
    let entry = entries.iter().find(|entry| address(&entry.fault) == rip)?;
    assert_eq!(entry.kind, 2, "EX_TYPE_FAULT");
    Some(address(&entry.fixup))
}

extern "C" fn handle(signal: c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel passes the context of the thread. The handler may change it while it runs.
    let Some(context) = (unsafe { context.cast::<libc::ucontext_t>().as_mut() }) else { return };
    let mut frame = Frame { context };
    let rip = frame.get(libc::REG_RIP);
    // SAFETY: the processor has just read an instruction at this address. Fewer than 4 bytes are
    // readable only at the end of a mapping, where none of our instructions lies.
    let code = unsafe { std::slice::from_raw_parts(rip as *const u8, 4) };
    type Emulate<'a> = fn(&mut Frame<'a>, Answerer<'_>) -> bool;
    let instructions: [(&[u8], Emulate<'_>); 3] =
        [(SEAMCALL, Frame::seamcall), (VMPTRST_RAX, Frame::vmptrst), (VMPTRLD_RAX, Frame::vmptrld)];
    let found = instructions.into_iter().find(|(bytes, _)| code.starts_with(bytes));
    let answered = match (found, ANSWERER.get()) {
        (Some((bytes, emulate)), Some(answerer)) => {
            let answered = emulate(&mut frame, answerer);
            if answered && frame.get(libc::REG_RIP) == rip {
                frame.set(libc::REG_RIP, rip + bytes.len() as u64);
            }
            answered
        }
        _ => false,
    };
    if !answered {
        // The handler does not know this instruction, so the repeated exception ends the process.
        // SAFETY: this restores the default action.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}
