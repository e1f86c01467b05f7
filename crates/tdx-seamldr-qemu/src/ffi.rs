//! QEMU's plugin interface, version 7: the functions that the plugin uses, each with a thin safe
//! form.
//!
//! The plugin looks the functions up in the process when it is installed, so a message can refuse
//! an older QEMU. The declarations follow QEMU's documentation: QEMU's packages have no header.

use std::ffi::{c_char, c_int, c_uint, c_void, CStr};
use std::ptr;

use crate::report::refuse;

/// The version of the interface.
pub(crate) const VERSION: c_int = 7;

/// Glib's array of bytes, its public part.
#[repr(C)]
pub(crate) struct GByteArray {
    data: *mut u8,
    len: c_uint,
}

/// Glib's array, its public part.
#[repr(C)]
pub(crate) struct GArray {
    data: *mut c_char,
    len: c_uint,
}

/// A register, as QEMU describes it.
#[repr(C)]
pub(crate) struct RegisterDescription {
    handle: *mut c_void,
    name: *const c_char,
    feature: *const c_char,
    is_readonly: bool,
}

/// What QEMU tells a plugin about itself.
#[repr(C)]
pub struct Info {
    pub(crate) target_name: *const c_char,
    pub(crate) version_min: c_int,
    pub(crate) version_current: c_int,
    pub(crate) system_emulation: bool,
    pub(crate) vcpus: c_int,
    pub(crate) max_vcpus: c_int,
}

impl std::fmt::Debug for Info {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Info").field("vcpus", &self.vcpus).finish_non_exhaustive()
    }
}

/// A word for each vCPU, which generated code reads.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Word {
    scoreboard: *mut c_void,
    offset: usize,
}

// SAFETY: QEMU's scoreboards are made for all vCPU threads at the same time; the pointer is only
// handed back to QEMU.
unsafe impl Send for Word {}
// SAFETY: as above.
unsafe impl Sync for Word {}

/// A block that is being translated. Valid during the callback.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Block(*const c_void);

/// An instruction of it.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct BlockInstruction(*mut c_void);

/// A register of a vCPU.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct RegisterHandle(*mut c_void);

// SAFETY: a handle is an index in disguise, which QEMU never frees; it is only handed back to QEMU.
unsafe impl Send for RegisterHandle {}
// SAFETY: as above.
unsafe impl Sync for RegisterHandle {}

/// What a callback at an instruction does with the vCPU.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// It reads and writes registers.
    Registers = 2,
    /// It also diverts the program counter.
    ProgramCounter = 3,
}

/// QEMU_PLUGIN_COND_NE.
const NOT_EQUAL: c_int = 3;

/// A callback at an instruction: the vCPU, and what it was registered with. `C-unwind`, as
/// [`Api::set_pc`] leaves it by a jump.
pub(crate) type InstructionCallback = extern "C-unwind" fn(c_uint, *mut c_void);
/// A callback at the translation of a block.
pub(crate) type TranslationCallback = extern "C" fn(*const c_void, *mut c_void);
/// A callback when a vCPU is created.
pub(crate) type VcpuCallback = extern "C" fn(c_uint, *mut c_void);

macro_rules! api {
    ($($field:ident: $symbol:literal, $type:ty;)*) => {
        /// QEMU's functions.
        #[derive(Clone, Copy)]
        pub(crate) struct Api {
            $(pub(crate) $field: $type,)*
        }

        impl Api {
            /// Looks all functions up in this process.
            ///
            /// # Errors
            ///
            /// The name of the first function that the process lacks.
            pub(crate) fn of_process() -> Result<Self, &'static CStr> {
                Ok(Self {
                    $($field: {
                        // SAFETY: the name is a string that ends with NUL.
                        let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, $symbol.as_ptr()) };
                        if address.is_null() {
                            return Err($symbol);
                        }
                        // SAFETY: a function with this name has this type, by version 7 of the
                        // interface, which `install` checks, and by glib's documentation.
                        unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
                    },)*
                })
            }
        }
    };
}

api! {
    byte_array_new: c"g_byte_array_new", unsafe extern "C" fn() -> *mut GByteArray;
    byte_array_set_size: c"g_byte_array_set_size", unsafe extern "C" fn(*mut GByteArray, c_uint) -> *mut GByteArray;
    byte_array_unref: c"g_byte_array_unref", unsafe extern "C" fn(*mut GByteArray);
    get_registers: c"qemu_plugin_get_registers", unsafe extern "C" fn() -> *mut GArray;
    read_register: c"qemu_plugin_read_register", unsafe extern "C" fn(RegisterHandle, *mut GByteArray) -> bool;
    write_register: c"qemu_plugin_write_register", unsafe extern "C" fn(RegisterHandle, *mut GByteArray) -> bool;
    set_pc: c"qemu_plugin_set_pc", unsafe extern "C-unwind" fn(u64);
    read_memory_vaddr: c"qemu_plugin_read_memory_vaddr", unsafe extern "C" fn(u64, *mut GByteArray, usize) -> bool;
    write_memory_vaddr: c"qemu_plugin_write_memory_vaddr", unsafe extern "C" fn(u64, *mut GByteArray) -> bool;
    read_memory_hwaddr: c"qemu_plugin_read_memory_hwaddr", unsafe extern "C" fn(u64, *mut GByteArray, usize) -> c_int;
    write_memory_hwaddr: c"qemu_plugin_write_memory_hwaddr", unsafe extern "C" fn(u64, *mut GByteArray) -> c_int;
    scoreboard_new: c"qemu_plugin_scoreboard_new", unsafe extern "C" fn(usize) -> *mut c_void;
    word_set: c"qemu_plugin_u64_set", unsafe extern "C" fn(Word, c_uint, u64);
    block_length: c"qemu_plugin_tb_n_insns", unsafe extern "C" fn(Block) -> usize;
    block_instruction: c"qemu_plugin_tb_get_insn", unsafe extern "C" fn(Block, usize) -> BlockInstruction;
    instruction_data: c"qemu_plugin_insn_data", unsafe extern "C" fn(BlockInstruction, *mut u8, usize) -> usize;
    instruction_address: c"qemu_plugin_insn_vaddr", unsafe extern "C" fn(BlockInstruction) -> u64;
    register_translation: c"qemu_plugin_register_vcpu_tb_trans_cb",
        unsafe extern "C" fn(u64, TranslationCallback, *mut c_void);
    register_vcpu: c"qemu_plugin_register_vcpu_init_cb", unsafe extern "C" fn(u64, VcpuCallback, *mut c_void);
    register_execution: c"qemu_plugin_register_vcpu_insn_exec_cb",
        unsafe extern "C" fn(BlockInstruction, InstructionCallback, c_int, *mut c_void);
    register_conditional: c"qemu_plugin_register_vcpu_insn_exec_cond_cb",
        unsafe extern "C" fn(BlockInstruction, InstructionCallback, c_int, c_int, Word, u64,
            *mut c_void);
}

/// An array of bytes that QEMU reads or fills. It is freed at the end.
struct Bytes<'a> {
    api: &'a Api,
    array: *mut GByteArray,
}

impl Drop for Bytes<'_> {
    fn drop(&mut self) {
        // SAFETY: glib made the array (`new`), and only this value has the pointer.
        unsafe { (self.api.byte_array_unref)(self.array) };
    }
}

impl<'a> Bytes<'a> {
    fn new(api: &'a Api) -> Self {
        // SAFETY: the function takes nothing, and never returns null: glib ends the process if no
        // memory is left.
        let array = unsafe { (api.byte_array_new)() };
        Self { api, array }
    }

    fn of(api: &'a Api, bytes: &[u8]) -> Self {
        let new = Self::new(api);
        let len = c_uint::try_from(bytes.len()).unwrap_or(0);
        // SAFETY: glib made the array (`new`), and only this value has the pointer.
        unsafe { (api.byte_array_set_size)(new.array, len) };
        // SAFETY: as above; the array is valid until `new` is dropped.
        let data = unsafe { (*new.array).data };
        if len != 0 {
            // SAFETY: `len` is not 0, so it is `bytes.len()`. Glib has made room for `len` bytes in
            // its own memory.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len()) };
        }
        new
    }

    fn get(&self) -> &[u8] {
        // SAFETY: the array is valid (`new`), and nothing changes it while `self` is borrowed.
        let array = unsafe { &*self.array };
        match usize::try_from(array.len) {
            Ok(len) if len != 0 => {
                // SAFETY: `data` points to `len` bytes of glib, and nothing changes them while
                // `self` is borrowed.
                unsafe { std::slice::from_raw_parts(array.data, len) }
            }
            _ => &[],
        }
    }
}

/// Copies the bytes, and fills the rest with zeros.
fn copy_to(out: &mut [u8], bytes: &[u8]) {
    out.fill(0);
    out.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
}

// Only callbacks call these: QEMU then has a current vCPU.
impl Api {
    /// Returns the registers of the current vCPU, by name.
    pub(crate) fn registers(&self) -> Vec<(String, RegisterHandle)> {
        // SAFETY: the function takes nothing, and the caller is a callback of a vCPU.
        let array = unsafe { (self.get_registers)() };
        if array.is_null() {
            return Vec::new();
        }
        // SAFETY: the array is not null, and belongs to the plugin. The plugin asks once for each
        // vCPU and never frees it.
        let array = unsafe { &*array };
        let len = usize::try_from(array.len).unwrap_or(0);
        if len == 0 {
            return Vec::new();
        }
        // SAFETY: `data` points to `len` descriptions, and glib aligns its memory for them.
        let all =
            unsafe { std::slice::from_raw_parts(array.data.cast::<RegisterDescription>(), len) };
        let described = all.iter().map(|register| {
            // SAFETY: the name is a string with NUL at its end, which QEMU never frees.
            let name = unsafe { CStr::from_ptr(register.name) };
            (name.to_string_lossy().into_owned(), RegisterHandle(register.handle))
        });
        described.collect()
    }

    /// Returns the low 64 bits of a register.
    pub(crate) fn register(&self, handle: RegisterHandle) -> u64 {
        let bytes = Bytes::new(self);
        // SAFETY: the handle is of QEMU, and the array this function's; the callback was registered
        // to read registers.
        if !unsafe { (self.read_register)(handle, bytes.array) } {
            refuse("QEMU does not let the plugin read a register of the CPU");
        }
        let mut value = [0; 8];
        copy_to(&mut value, bytes.get());
        u64::from_le_bytes(value)
    }

    /// Writes a register of 64 bits.
    pub(crate) fn set_register(&self, handle: RegisterHandle, value: u64) {
        let bytes = Bytes::of(self, &value.to_le_bytes());
        // SAFETY: the handle is of QEMU, and no register that the plugin writes has more than 8
        // bytes; the callback was registered to write registers.
        if !unsafe { (self.write_register)(handle, bytes.array) } {
            refuse("QEMU does not let the plugin write a register of the CPU");
        }
    }

    /// Reads memory at a linear address of the current vCPU. Returns whether all of it is mapped.
    pub(crate) fn read_linear(&self, address: u64, out: &mut [u8]) -> bool {
        let bytes = Bytes::new(self);
        // SAFETY: the array is this function's; the length is not 0, as callers ask for at least
        // one byte.
        let read = unsafe { (self.read_memory_vaddr)(address, bytes.array, out.len()) };
        copy_to(out, bytes.get());
        read && bytes.get().len() >= out.len()
    }

    /// Writes memory at a linear address of the current vCPU. Returns whether all of it is mapped.
    pub(crate) fn write_linear(&self, address: u64, bytes: &[u8]) -> bool {
        let bytes = Bytes::of(self, bytes);
        // SAFETY: the array is this function's.
        unsafe { (self.write_memory_vaddr)(address, bytes.array) }
    }

    /// Reads memory at a physical address. Returns whether all of it exists; otherwise `out` is 0.
    pub(crate) fn read_physical(&self, address: u64, out: &mut [u8]) -> bool {
        let bytes = Bytes::new(self);
        // SAFETY: the array is this function's; the length is not 0, as the model reads at least
        // one byte.
        let result = unsafe { (self.read_memory_hwaddr)(address, bytes.array, out.len()) };
        copy_to(out, if result == 0 { bytes.get() } else { &[] });
        result == 0
    }

    /// Writes memory at a physical address. Writes to addresses without memory have no effect.
    pub(crate) fn write_physical(&self, address: u64, bytes: &[u8]) {
        let bytes = Bytes::of(self, bytes);
        // SAFETY: the array is this function's.
        unsafe { (self.write_memory_hwaddr)(address, bytes.array) };
    }

    /// Makes a word for each vCPU.
    pub(crate) fn new_word(&self) -> Word {
        // SAFETY: the function takes the size of an element, by value.
        Word { scoreboard: unsafe { (self.scoreboard_new)(size_of::<u64>()) }, offset: 0 }
    }

    /// Sets the word of a vCPU.
    pub(crate) fn set_word(&self, word: Word, vcpu: u32, value: u64) {
        // SAFETY: the word is of `new_word`, and the vCPU exists, as one of its callbacks runs.
        unsafe { (self.word_set)(word, vcpu, value) };
    }
}

/// A block that QEMU translates, with the functions to look at it.
#[derive(Clone, Copy)]
pub(crate) struct Translation<'a> {
    api: &'a Api,
    block: Block,
}

impl<'a> Translation<'a> {
    /// Returns the block that a translation callback was given.
    ///
    /// # Safety
    ///
    /// `block` is what QEMU has just given to a translation callback, which has not returned yet.
    pub(crate) const unsafe fn new(api: &'a Api, block: *const c_void) -> Self {
        Self { api, block: Block(block) }
    }

    /// Returns the instructions.
    pub(crate) fn instructions(self) -> impl Iterator<Item = Instrumented<'a>> {
        // SAFETY: the block is valid (`new`).
        let count = unsafe { (self.api.block_length)(self.block) };
        (0..count).map(move |index| {
            // SAFETY: the block is valid (`new`), and has an instruction with this index.
            let instruction = unsafe { (self.api.block_instruction)(self.block, index) };
            Instrumented { api: self.api, instruction }
        })
    }
}

/// An instruction of a block that QEMU translates.
#[derive(Clone, Copy)]
pub(crate) struct Instrumented<'a> {
    api: &'a Api,
    instruction: BlockInstruction,
}

impl Instrumented<'_> {
    /// Returns the linear address.
    pub(crate) fn address(self) -> u64 {
        // SAFETY: the instruction is of a block that is valid (`Translation::new`).
        unsafe { (self.api.instruction_address)(self.instruction) }
    }

    /// Copies the bytes that QEMU has decoded. Returns their number.
    pub(crate) fn data(self, out: &mut [u8]) -> usize {
        // SAFETY: the instruction is of a block that is valid (`Translation::new`); `out` has
        // `out.len()` bytes.
        let count =
            unsafe { (self.api.instruction_data)(self.instruction, out.as_mut_ptr(), out.len()) };
        count.min(out.len())
    }

    /// Calls `callback` with `data` before each execution.
    pub(crate) fn on_execution(self, callback: InstructionCallback, access: Access, data: u64) {
        // SAFETY: the instruction is of a block that is valid (`Translation::new`). The data is a
        // number, which no one follows as a pointer.
        unsafe {
            (self.api.register_execution)(self.instruction, callback, number(access), as_data(data))
        };
    }

    /// Calls `callback` with `data` before each execution on a vCPU whose word is not 0.
    pub(crate) fn on_execution_if(
        self,
        word: Word,
        callback: InstructionCallback,
        access: Access,
        data: u64,
    ) {
        // SAFETY: as above; the word is of `Api::new_word`.
        unsafe {
            (self.api.register_conditional)(
                self.instruction,
                callback,
                number(access),
                NOT_EQUAL,
                word,
                0,
                as_data(data),
            );
        }
    }
}

#[allow(clippy::as_conversions)] // the discriminant of an enum
const fn number(access: Access) -> c_int {
    access as c_int
}

/// A number in the place of a pointer.
fn as_data(number: u64) -> *mut c_void {
    ptr::without_provenance_mut(usize::try_from(number).unwrap_or(0))
}

/// The number that a callback was registered with.
pub(crate) fn of_data(data: *mut c_void) -> u64 {
    u64::try_from(data.addr()).unwrap_or(0)
}

/// Returns the arguments of a plugin.
///
/// # Safety
///
/// `argv` is null, or points to `argc` pointers to strings that end with NUL.
pub(crate) unsafe fn arguments(argc: c_int, argv: *const *const c_char) -> Vec<String> {
    let count = usize::try_from(argc).unwrap_or(0);
    if count == 0 || argv.is_null() {
        return Vec::new();
    }
    // SAFETY: `argv` is not null, and the caller says that it points to `argc` pointers.
    let all = unsafe { std::slice::from_raw_parts(argv, count) };
    let text = |argument: &*const c_char| {
        // SAFETY: the caller says that each pointer is to a string.
        let text = unsafe { CStr::from_ptr(*argument) };
        text.to_string_lossy().into_owned()
    };
    all.iter().map(text).collect()
}
