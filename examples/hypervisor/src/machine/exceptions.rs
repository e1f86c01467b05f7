//! Descriptor tables and the handlers of exceptions and interrupts.

use core::cell::UnsafeCell;

use tdx_seamldr_core::Trap;
use tdx_seamldr_x86_64::fixup;
use x86_64::instructions::segmentation::{Segment, CS, DS, ES, SS};
use x86_64::instructions::tables::load_tss;
use x86_64::structures::gdt::{Descriptor, GlobalDescriptorTable};
use x86_64::structures::idt::InterruptDescriptorTable;
use x86_64::structures::tss::TaskStateSegment;
use x86_64::VirtAddr;

use super::cpus::{MAX_CPUS, STOP_VECTOR};
use crate::firmware;

/// The registers at an exception, as `boot.s` puts them on the stack.
#[derive(Debug)]
#[repr(C)]
pub struct Frame {
    pub r15: u64,
    pub r14: u64,
    pub r13: u64,
    pub r12: u64,
    pub r11: u64,
    pub r10: u64,
    pub r9: u64,
    pub r8: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rbp: u64,
    pub rbx: u64,
    pub rdx: u64,
    pub rcx: u64,
    pub rax: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

/// The stacks of one CPU: for #UD, for the request to stop, and for all others. A stopped CPU may
/// execute SEAMCALL, so #UD has a separate stack.
#[repr(C, align(16))]
struct Stacks([[u8; 0x10000]; 3]);

struct Tables {
    gdt: GlobalDescriptorTable,
    tss: TaskStateSegment,
    idt: InterruptDescriptorTable,
    stacks: Stacks,
}

/// The tables of each CPU.
struct PerCpu(UnsafeCell<[Tables; MAX_CPUS]>);

// SAFETY: each CPU uses the tables with its own number.
unsafe impl Sync for PerCpu {}

static TABLES: PerCpu = PerCpu(UnsafeCell::new(
    [const {
        Tables {
            gdt: GlobalDescriptorTable::new(),
            tss: TaskStateSegment::new(),
            idt: InterruptDescriptorTable::new(),
            stacks: Stacks([[0; 0x10000]; 3]),
        }
    }; MAX_CPUS],
));

extern "C" {
    fn undefined_opcode();
    fn general_protection();
    fn stop_request();
    fn other_exception();
}

/// Loads the tables of this CPU.
pub fn set_up(cpu: u32) {
    // SAFETY: each CPU calls this once and uses its own tables.
    let tables: &'static mut Tables = unsafe { &mut (*TABLES.0.get())[cpu as usize] };
    let mut stacks = tables.tss.interrupt_stack_table;
    for (slot, stack) in stacks.iter_mut().zip(&tables.stacks.0) {
        *slot = VirtAddr::from_ptr(stack.as_ptr_range().end);
    }
    tables.tss.interrupt_stack_table = stacks;
    let code = tables.gdt.append(Descriptor::kernel_code_segment());
    let data = tables.gdt.append(Descriptor::kernel_data_segment());
    // SAFETY: the segment is static.
    let tss = tables.gdt.append(unsafe { Descriptor::tss_segment_unchecked(&tables.tss) });
    tables.gdt.load();
    // SAFETY: the code above has added these selectors.
    unsafe {
        CS::set_reg(code);
        DS::set_reg(data);
        ES::set_reg(data);
        SS::set_reg(data);
        load_tss(tss);
    }
    let handler = |entry: unsafe extern "C" fn()| VirtAddr::new(entry as *const () as u64);
    let idt = &mut tables.idt;
    // SAFETY: `boot.s` defines these entry points, and this CPU has the stacks 0 to 2.
    unsafe {
        idt.double_fault.set_handler_addr(handler(other_exception)).set_stack_index(2);
        idt.general_protection_fault
            .set_handler_addr(handler(general_protection))
            .set_stack_index(2);
        idt.page_fault.set_handler_addr(handler(other_exception)).set_stack_index(2);
        idt.invalid_opcode.set_handler_addr(handler(undefined_opcode)).set_stack_index(0);
        idt[STOP_VECTOR].set_handler_addr(handler(stop_request)).set_stack_index(1);
    }
    idt.load();
}

/// Handles #UD, which SEAMCALL raises on a machine without SEAM. A machine with SEAM needs no
/// [`firmware::answer`].
#[no_mangle]
extern "C" fn on_undefined_opcode(frame: &mut Frame) {
    let Err(trap) = firmware::answer(frame) else { return };
    go_on_after(trap, frame);
}

/// Handles #GP, which SEAMCALL raises if TDX is not enabled.
#[no_mangle]
extern "C" fn on_general_protection(frame: &mut Frame) {
    go_on_after(Trap::GeneralProtection, frame);
}

/// Continues after an exception of the backend's SEAMCALL, at the address in its table, with the
/// vector in RAX.
fn go_on_after(trap: Trap, frame: &mut Frame) {
    let Some(fixup) = fixup(frame.rip) else {
        crate::print!("{trap} at {:#x}", frame.rip);
        super::exit(false);
    };
    frame.rax = if trap == Trap::UndefinedOpcode { 6 } else { 13 };
    frame.rip = fixup;
}

/// Handles another CPU's request to stop.
#[no_mangle]
extern "C" fn on_stop_request(_: &mut Frame) {
    super::cpus::stopped();
}

/// Handles all other exceptions, which are errors. With an error code all fields are one word
/// further on.
#[no_mangle]
extern "C" fn on_other_exception(frame: &mut Frame) {
    crate::print!("an exception: {frame:#x?}");
    super::exit(false);
}
