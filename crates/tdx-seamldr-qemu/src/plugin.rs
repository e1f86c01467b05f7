//! The plugin inside QEMU: instruments instructions, and executes or completes them.
//!
//! QEMU raises #UD when it executes an instruction that it does not know. The plugin's callback
//! runs before. It executes the instruction and diverts the vCPU to the next one.

use std::collections::HashMap;
use std::ffi::{c_uint, c_void};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

use tdx_seamldr_core::Trap;

use crate::carry::{followers, Consumer, Machine as _};
use crate::decode::{decode, Decoded, Instruction};
use crate::encoding::{Memory, MAX_LENGTH};
use crate::ffi::{of_data, Access, Api, Instrumented, Translation, Word};
use crate::firmware::Firmware;
use crate::flags::Flags;
use crate::memory::GuestMemory;
use crate::processor::{complete, msr, Cpuid, LEAVES};
use crate::registers::{Cpu, Handles, RAX, RBX, RCX, RDX};
use crate::report::{guarded, message, refuse};

/// CR4.VMXE.
const VMXE: u64 = 1 << 13;
/// Where a processor begins after power-on and reset.
const RESET_VECTOR: u64 = 0xffff_fff0;
/// SEAMCALLs, VMXONs and VMXOFFs in the guest's code whose followers are known, at most.
const MAX_SITES: usize = 4096;

/// What the plugin does after an instruction that QEMU executes.
#[derive(Clone, Copy, Debug)]
enum After {
    Cpuid {
        leaf: u32,
        subleaf: u32,
    },
    /// Writes this value back to the register with this number.
    Cr4 {
        register: u8,
        value: u64,
    },
}

/// One vCPU. Only its own thread changes it, except for resets.
#[derive(Default)]
struct Vcpu {
    handles: OnceLock<Handles>,
    /// Whether the vCPU is in VMX operation.
    is_in_vmx: AtomicBool,
    /// CR4.VMXE as the guest has set it. QEMU's CR4 does not have it.
    has_vmxe: AtomicBool,
    /// The flags that the code after SEAMCALL must see.
    flags: AtomicU64,
    after: Mutex<Option<After>>,
}

impl Vcpu {
    fn after(&self) -> MutexGuard<'_, Option<After>> {
        self.after.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The code after instructions that set the flags.
#[derive(Default)]
struct Sites {
    /// The address after each instruction, and whether the code there reads the flags.
    behind: HashMap<u64, bool>,
    consumers: HashMap<u64, Consumer>,
    /// Whether a message has said that no room is left.
    is_full_told: bool,
}

/// The state of the plugin.
pub(crate) struct Plugin {
    api: Api,
    firmware: &'static Firmware,
    vcpus: Vec<Vcpu>,
    sites: RwLock<Sites>,
    /// Not 0 while [`Vcpu::after`] is set.
    is_after: Word,
    /// Not 0 while the code must see [`Vcpu::flags`].
    has_flags: Word,
    was_reset: AtomicBool,
}

static PLUGIN: OnceLock<Plugin> = OnceLock::new();

/// Makes the plugin and registers its callbacks.
pub(crate) fn start(id: u64, api: Api, firmware: &'static Firmware, vcpus: u32) {
    let plugin = Plugin {
        api,
        firmware,
        vcpus: (0..vcpus).map(|_| Vcpu::default()).collect(),
        sites: RwLock::default(),
        is_after: api.new_word(),
        has_flags: api.new_word(),
        was_reset: AtomicBool::new(false),
    };
    let plugin = PLUGIN.get_or_init(|| plugin);
    // SAFETY: QEMU has given the id to this plugin. The callback is there for as long as the
    // process.
    unsafe { (plugin.api.register_vcpu)(id, on_vcpu, std::ptr::null_mut()) };
    // SAFETY: as above.
    unsafe { (plugin.api.register_translation)(id, on_translation, std::ptr::null_mut()) };
}

extern "C" fn on_vcpu(vcpu: c_uint, _: *mut c_void) {
    guarded(|| {
        let plugin = PLUGIN.get()?;
        let handles = Handles::find(&plugin.api.registers()).unwrap_or_else(|error| refuse(error));
        // If QEMU creates the vCPU again, it has the same registers.
        let _ = plugin.vcpu(vcpu)?.handles.set(handles);
        Some(())
    });
}

extern "C" fn on_translation(block: *const c_void, _: *mut c_void) {
    guarded(|| {
        let plugin = PLUGIN.get()?;
        // SAFETY: this is a translation callback, and `block` what it was given.
        plugin.translate(unsafe { Translation::new(&plugin.api, block) });
        Some(())
    });
}

/// Leaves a callback by diverting the vCPU.
///
/// # Safety
///
/// No value with a destructor is alive in this frame, or in one between QEMU's and this one: QEMU
/// jumps over them. The callback was registered with [`Access::ProgramCounter`].
unsafe fn divert(target: Option<u64>) {
    if let (Some(target), Some(plugin)) = (target, PLUGIN.get()) {
        // SAFETY: the caller's contract; the two values here are a number and a reference.
        unsafe { (plugin.api.set_pc)(target) };
    }
}

extern "C-unwind" fn on_instruction(vcpu: c_uint, data: *mut c_void) {
    let target = guarded(|| PLUGIN.get()?.execute(vcpu, of_data(data)));
    // SAFETY: all that has a destructor was dropped inside `guarded`; `target` is a number.
    unsafe { divert(target) };
}

extern "C-unwind" fn on_consumer(vcpu: c_uint, data: *mut c_void) {
    let target = guarded(|| PLUGIN.get()?.consume(vcpu, of_data(data)));
    // SAFETY: all that has a destructor was dropped inside `guarded`; `target` is a number.
    unsafe { divert(target) };
}

extern "C-unwind" fn on_before(vcpu: c_uint, data: *mut c_void) {
    guarded(|| PLUGIN.get()?.before(vcpu, of_data(data)));
}

extern "C-unwind" fn on_after(vcpu: c_uint, _: *mut c_void) {
    guarded(|| PLUGIN.get()?.after(vcpu));
}

extern "C-unwind" fn on_reset(vcpu: c_uint, _: *mut c_void) {
    guarded(|| PLUGIN.get().map(|plugin| plugin.reset(vcpu)));
}

impl Plugin {
    fn vcpu(&self, vcpu: u32) -> Option<&Vcpu> {
        self.vcpus.get(usize::try_from(vcpu).ok()?)
    }

    fn cpu<'a>(&'a self, vcpu: &'a Vcpu) -> Option<Cpu<'a>> {
        Some(Cpu { api: &self.api, handles: vcpu.handles.get()? })
    }

    /// Reads code. Bytes after the end of mapped memory are 0.
    fn code(&self, address: u64) -> Option<[u8; MAX_LENGTH]> {
        let mut bytes = [0; MAX_LENGTH];
        if self.api.read_linear(address, &mut bytes) {
            return Some(bytes);
        }
        let in_page = usize::try_from(4096u64.wrapping_sub(address & 4095)).ok()?;
        let there = bytes.get_mut(..in_page)?;
        self.api.read_linear(address, there).then_some(bytes)
    }

    fn decode_at(&self, address: u64) -> Option<Decoded> {
        decode(&self.code(address)?).ok()?
    }

    fn translate(&self, block: Translation<'_>) {
        let mut follows = true;
        for (index, instruction) in block.instructions().enumerate() {
            let address = instruction.address();
            if follows {
                instruction.on_execution_if(self.is_after, on_after, Access::Registers, 0);
            }
            if index == 0 && address == RESET_VECTOR {
                instruction.on_execution(on_reset, Access::Registers, 0);
            }
            if self.is_consumer(address) {
                instruction.on_execution_if(
                    self.has_flags,
                    on_consumer,
                    Access::ProgramCounter,
                    address,
                );
            }
            follows = self.instrument(instruction, address);
        }
    }

    /// Instruments one instruction. Returns whether the plugin has work after it.
    fn instrument(&self, instruction: Instrumented<'_>, address: u64) -> bool {
        let mut bytes = [0; MAX_LENGTH];
        let count = instruction.data(&mut bytes);
        let known = bytes.get(..count).unwrap_or_default();
        // QEMU has not decoded all of an instruction that it does not know.
        let decoded = decode(known).unwrap_or_else(|_| self.decode_at(address));
        let Some(Decoded { instruction: which, length }) = decoded else { return false };
        match which {
            Instruction::Cpuid | Instruction::MovToCr4(_) => {
                instruction.on_execution(on_before, Access::Registers, address);
                return true;
            }
            Instruction::Seamcall | Instruction::Vmxon(_) | Instruction::Vmxoff => {
                self.follow(address, address.wrapping_add(length.into()));
            }
            Instruction::Rdmsr | Instruction::MovFromCr4(_) | Instruction::Movdir64b { .. } => {}
        }
        instruction.on_execution(on_instruction, Access::ProgramCounter, address);
        false
    }

    /// Records which code after an instruction reads the flags that it sets.
    fn follow(&self, at: u64, next: u64) {
        let found = followers(next, |address| self.code(address));
        let mut sites = self.sites.write().unwrap_or_else(PoisonError::into_inner);
        if sites.behind.len() >= MAX_SITES && !sites.behind.contains_key(&next) {
            if !std::mem::replace(&mut sites.is_full_told, true) {
                message(format_args!(
                    "SEAMCALL stands at more than {MAX_SITES} places; the code behind the one at \
                     {at:#x} and behind later ones may see other flags than those of SEAMCALL"
                ));
            }
            return;
        }
        let is_new = sites.behind.insert(next, !found.consumers.is_empty()).is_none();
        sites
            .consumers
            .extend(found.consumers.iter().map(|consumer| (consumer.address, *consumer)));
        drop(sites);
        if let Some(uncovered) = found.uncovered.filter(|_| is_new) {
            message(format_args!(
                "the code behind the instruction at {at:#x} may read the flags in a way that the \
                 plugin does not cover, {uncovered}. There it may see other flags than those of \
                 SEAMCALL"
            ));
        }
    }

    fn is_consumer(&self, address: u64) -> bool {
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        sites.consumers.contains_key(&address)
    }

    /// Runs before CPUID and MOV to CR4, which QEMU executes.
    fn before(&self, number: u32, address: u64) -> Option<()> {
        let vcpu = self.vcpu(number)?;
        let mut cpu = self.cpu(vcpu)?;
        let after = match self.decode_at(address)?.instruction {
            Instruction::Cpuid => {
                let [leaf, subleaf] = [RAX, RCX].map(|register| low(cpu.register(register)));
                LEAVES.contains(&leaf).then_some(After::Cpuid { leaf, subleaf })?
            }
            Instruction::MovToCr4(register) if cpu.is_kernel() => {
                let value = cpu.register(register);
                if value & VMXE == 0 {
                    vcpu.has_vmxe.store(false, Ordering::Relaxed);
                    return None;
                }
                cpu.set_register(register, value & !VMXE);
                After::Cr4 { register, value }
            }
            _ => return None,
        };
        *vcpu.after() = Some(after);
        self.api.set_word(self.is_after, number, 1);
        Some(())
    }

    /// Runs at the instruction after them, or at the first of an interrupt or exception.
    fn after(&self, number: u32) -> Option<()> {
        let vcpu = self.vcpu(number)?;
        let mut cpu = self.cpu(vcpu)?;
        self.api.set_word(self.is_after, number, 0);
        let after = vcpu.after().take()?;
        match after {
            After::Cpuid { leaf, subleaf } => self.complete_cpuid(number, &mut cpu, leaf, subleaf),
            After::Cr4 { register, value } => {
                cpu.set_register(register, value);
                // Otherwise another bit was refused.
                if cpu.cr4() == value & !VMXE {
                    vcpu.has_vmxe.store(true, Ordering::Relaxed);
                }
            }
        }
        Some(())
    }

    fn complete_cpuid(&self, number: u32, cpu: &mut Cpu<'_>, leaf: u32, subleaf: u32) {
        let [eax, ebx, ecx, edx] = [RAX, RBX, RCX, RDX].map(|register| low(cpu.register(register)));
        let found = Cpuid { leaf, subleaf, eax, ebx, ecx, edx };
        let settings = self.firmware.settings();
        let processor = settings.processor;
        if let Err(misfit) = processor.check(&found, settings.x2apic_id(number)) {
            refuse(format_args!(
                "CPU {number} of QEMU's machine is not the platform's {}: {misfit}. Give QEMU \
                 -cpu {} and -smp with sockets={} (or give the plugin processor=NAME and \
                 sockets=NUMBER)",
                processor.name,
                processor.cpu_option(),
                settings.config.num_sockets
            ));
        }
        let has_memory = |address: &u64| self.api.read_physical(*address, &mut [0]);
        if let Some(address) = settings.gaps().find(has_memory).filter(|_| number == 0 && leaf == 0)
        {
            refuse(format_args!(
                "QEMU's machine has memory at {address:#x}, where the platform has none for TDs. \
                 Give QEMU at most -m 2032M, or -machine q35,max-ram-below-4g=1G and at most -m \
                 100G"
            ));
        }
        let completed = complete(found);
        for (register, before, after) in [(RAX, eax, completed.eax), (RCX, ecx, completed.ecx)] {
            if before != after {
                cpu.set_register(register, after.into());
            }
        }
    }

    /// Executes an instruction. Returns the address of the next one. `None` leaves the instruction
    /// to QEMU.
    fn execute(&self, number: u32, address: u64) -> Option<u64> {
        let vcpu = self.vcpu(number)?;
        let mut cpu = self.cpu(vcpu)?;
        if !cpu.is_kernel() {
            return None;
        }
        let Decoded { instruction, length } = self.decode_at(address)?;
        let next = address.wrapping_add(length.into());
        let flags = match instruction {
            Instruction::Rdmsr => {
                let value = msr(&self.firmware.settings().config, low(cpu.register(RCX)))?;
                cpu.set_register(RAX, value & 0xffff_ffff);
                cpu.set_register(RDX, value >> 32);
                return Some(next);
            }
            Instruction::MovFromCr4(register) => {
                vcpu.has_vmxe.load(Ordering::Relaxed).then_some(())?;
                let value = cpu.cr4() | VMXE;
                cpu.set_register(register, value);
                return Some(next);
            }
            Instruction::Movdir64b { address, source } => {
                return self.movdir64b(&mut cpu, address, source, next);
            }
            Instruction::Vmxon(_) => {
                vcpu.has_vmxe.load(Ordering::Relaxed).then_some(())?;
                // In VMX operation there is no current VMCS, so it fails with VMfailInvalid.
                if vcpu.is_in_vmx.swap(true, Ordering::Relaxed) {
                    Flags::FAIL_INVALID
                } else {
                    Flags::SUCCESS
                }
            }
            Instruction::Vmxoff => {
                vcpu.is_in_vmx.swap(false, Ordering::Relaxed).then_some(Flags::SUCCESS)?
            }
            Instruction::Seamcall => {
                vcpu.is_in_vmx.load(Ordering::Relaxed).then_some(())?;
                let before = cpu.seamcall_regs();
                let mut regs = before;
                match self.firmware.seamcall(number, &mut regs, &GuestMemory(&self.api)) {
                    Ok(()) => {
                        cpu.set_seamcall_regs(&before, &regs);
                        Flags::SUCCESS
                    }
                    Err(Trap::VmFailInvalid) => Flags::FAIL_INVALID,
                    Err(_) => return None,
                }
            }
            Instruction::Cpuid | Instruction::MovToCr4(_) => return None,
        };
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        if sites.behind.get(&next).is_some_and(|reads| *reads) {
            vcpu.flags.store(flags.bits(), Ordering::Relaxed);
            self.api.set_word(self.has_flags, number, 1);
        }
        Some(next)
    }

    /// Executes MOVDIR64B between mapped memory. A plugin cannot raise a page fault, so QEMU raises
    /// #UD instead.
    fn movdir64b(&self, cpu: &mut Cpu<'_>, to: u8, source: Memory, next: u64) -> Option<u64> {
        let mut bytes = [0; 64];
        let from = source.address(
            next,
            |number| cpu.register(number),
            |segment| cpu.segment_base(segment),
        );
        let to = cpu.register(to);
        let is_aligned = to.is_multiple_of(64);
        let moved = is_aligned && self.api.read_linear(from, &mut bytes) && cpu.write(to, &bytes);
        moved.then_some(next)
    }

    /// Executes an instruction that reads the flags of SEAMCALL.
    fn consume(&self, number: u32, address: u64) -> Option<u64> {
        let vcpu = self.vcpu(number)?;
        let mut cpu = self.cpu(vcpu)?;
        let sites = self.sites.read().unwrap_or_else(PoisonError::into_inner);
        let consumer = *sites.consumers.get(&address)?;
        drop(sites);
        let flags = Flags::from_bits(vcpu.flags.load(Ordering::Relaxed));
        let (target, flags) = consumer.execute(flags, &mut cpu).ok()?;
        vcpu.flags.store(flags.bits(), Ordering::Relaxed);
        if consumer.is_last {
            self.api.set_word(self.has_flags, number, 0);
        }
        Some(target)
    }

    /// Runs when a vCPU executes the first instruction of the BIOS.
    fn reset(&self, number: u32) {
        // The first time the platform is as after power-on anyway.
        if number != 0 || !self.was_reset.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = self.firmware.reset() {
            refuse(error);
        }
        for vcpu in &self.vcpus {
            vcpu.is_in_vmx.store(false, Ordering::Relaxed);
            vcpu.has_vmxe.store(false, Ordering::Relaxed);
        }
    }
}

/// The low half of a register.
#[allow(clippy::as_conversions)] // 32 bits remain
const fn low(value: u64) -> u32 {
    value as u32
}
