//! The registers of one vCPU, by name.

use crate::carry::Machine;
use crate::encoding::Segment;
use crate::ffi::{Api, RegisterHandle};
use tdx_seamldr_core::SeamcallRegs;

/// The general-purpose registers, by their numbers in instructions.
const GENERAL: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];

/// Numbers of registers in instructions.
pub(crate) const RAX: u8 = 0;
pub(crate) const RCX: u8 = 1;
pub(crate) const RDX: u8 = 2;
pub(crate) const RBX: u8 = 3;

/// IA32_EFER.LMA: the processor is in IA-32e mode.
const EFER_LMA: u64 = 1 << 10;

/// QEMU lacks a register.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("QEMU has no register {0}; the plugin needs qemu-system-x86_64")]
pub(crate) struct NoRegister(String);

/// Handles of the registers that the plugin uses.
#[derive(Clone)]
pub(crate) struct Handles {
    general: [RegisterHandle; 16],
    rflags: RegisterHandle,
    cs: RegisterHandle,
    cr4: RegisterHandle,
    efer: RegisterHandle,
    fs_base: RegisterHandle,
    gs_base: RegisterHandle,
}

impl Handles {
    /// Finds them among those of the current vCPU.
    ///
    /// # Errors
    ///
    /// One is missing.
    pub(crate) fn find(registers: &[(String, RegisterHandle)]) -> Result<Self, NoRegister> {
        let find = |wanted: &str| {
            let found = registers.iter().find(|(name, _)| name == wanted);
            found.map(|(_, handle)| *handle).ok_or_else(|| NoRegister(wanted.to_owned()))
        };
        let mut general = [find("rax")?; 16];
        for (slot, name) in general.iter_mut().zip(GENERAL) {
            *slot = find(name)?;
        }
        Ok(Self {
            general,
            rflags: find("eflags")?,
            cs: find("cs")?,
            cr4: find("cr4")?,
            efer: find("efer")?,
            fs_base: find("fs_base")?,
            gs_base: find("gs_base")?,
        })
    }
}

/// The current vCPU, in a callback that may write registers.
pub(crate) struct Cpu<'a> {
    pub(crate) api: &'a Api,
    pub(crate) handles: &'a Handles,
}

impl Cpu<'_> {
    fn handle(&self, number: u8) -> RegisterHandle {
        let [first, ..] = self.handles.general;
        self.handles.general.get(usize::from(number)).copied().unwrap_or(first)
    }

    /// Whether privileged instructions of 64-bit code are executed: CPL 0, IA-32e mode.
    pub(crate) fn is_kernel(&self) -> bool {
        self.api.register(self.handles.cs) & 3 == 0
            && self.api.register(self.handles.efer) & EFER_LMA != 0
    }

    /// Returns CR4.
    pub(crate) fn cr4(&self) -> u64 {
        self.api.register(self.handles.cr4)
    }

    /// Returns the registers of a SEAMCALL.
    pub(crate) fn seamcall_regs(&self) -> SeamcallRegs {
        let get = |number| self.register(number);
        SeamcallRegs {
            rax: get(RAX),
            rcx: get(RCX),
            rdx: get(RDX),
            rbx: get(RBX),
            rsi: get(6),
            rdi: get(7),
            r8: get(8),
            r9: get(9),
            r10: get(10),
            r11: get(11),
            r12: get(12),
            r13: get(13),
            r14: get(14),
            r15: get(15),
        }
    }

    /// Writes the registers that a SEAMCALL returned, as far as they differ from those that went
    /// in.
    pub(crate) fn set_seamcall_regs(&mut self, before: &SeamcallRegs, after: &SeamcallRegs) {
        let pairs = [
            (RAX, before.rax, after.rax),
            (RCX, before.rcx, after.rcx),
            (RDX, before.rdx, after.rdx),
            (RBX, before.rbx, after.rbx),
            (6, before.rsi, after.rsi),
            (7, before.rdi, after.rdi),
            (8, before.r8, after.r8),
            (9, before.r9, after.r9),
            (10, before.r10, after.r10),
            (11, before.r11, after.r11),
            (12, before.r12, after.r12),
            (13, before.r13, after.r13),
            (14, before.r14, after.r14),
            (15, before.r15, after.r15),
        ];
        for (number, before, after) in pairs {
            if before != after {
                self.set_register(number, after);
            }
        }
    }
}

impl Machine for Cpu<'_> {
    fn register(&self, number: u8) -> u64 {
        self.api.register(self.handle(number))
    }

    fn set_register(&mut self, number: u8, value: u64) {
        self.api.set_register(self.handle(number), value);
    }

    fn rflags(&self) -> u64 {
        self.api.register(self.handles.rflags)
    }

    fn segment_base(&self, segment: Segment) -> u64 {
        self.api.register(match segment {
            Segment::Fs => self.handles.fs_base,
            Segment::Gs => self.handles.gs_base,
        })
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> bool {
        self.api.write_linear(address, bytes)
    }
}
