//! The firmware, which QEMU does not have. The simulated platform answers SEAMCALL after its #UD. A
//! hypervisor for machines with TDX needs no such file.

use spin::mutex::{SpinMutex, SpinMutexGuard};
use tdx_seamldr_core::{PhysAddr, SeamcallRegs, Sha384Digest, Trap};
use tdx_seamldr_mock::model::{
    Config, Fault, LoaderProfile, ModuleState, PhysMemory, Platform, SeamDb, SeamMemory, TdId,
    TdPhase,
};
use tdx_seamldr_verify::RustCrypto;
use tdx_seamldr_x86_64::{CpuidResult, Registers};

use crate::machine::exceptions::Frame;
use crate::machine::{cpus, memory};

/// The signer of the images: the test key.
pub const SIGNER: Sha384Digest = *include_bytes!(concat!(env!("OUT_DIR"), "/signer"));

/// The private memory of each TD.
const SECRETS: [[u8; 32]; 3] = [[0x11; 32], [0x22; 32], [0x33; 32]];

struct Firmware {
    platform: Platform<&'static mut SeamMemory>,
    tds: [Option<TdId>; 3],
}

static FIRMWARE: SpinMutex<Option<Firmware>> = SpinMutex::new(None);
static MEMORY: SpinMutex<SeamMemory> = SpinMutex::new(SeamMemory::ZEROED);

fn with<T>(work: impl FnOnce(&mut Firmware) -> T) -> T {
    work(FIRMWARE.lock().as_mut().expect("the machine has been switched on"))
}

/// Switches a machine on that has this many LPs.
pub fn switch_on(lps: u32) {
    let config = Config::new(lps, 1, 0x806f8, SIGNER, LoaderProfile::V1_5_00)
        .expect("a platform of this size");
    let seamdb = SeamDb { size: 64, used: 0, insert_failures: 0 };
    let memory = SpinMutexGuard::leak(MEMORY.lock());
    *FIRMWARE.lock() =
        Some(Firmware { platform: Platform::new(config, seamdb, memory), tds: [None; 3] });
}

/// The memory of the machine, which firmware reads and writes.
struct Dram;

impl PhysMemory for Dram {
    fn read(&self, address: u64, out: &mut [u8]) {
        if address < memory::END {
            // SAFETY: all memory is mapped at its physical address. The caller of SEAMCALL does not
            // change this memory during the call.
            unsafe {
                core::ptr::copy_nonoverlapping(address as *const u8, out.as_mut_ptr(), out.len())
            };
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if address < memory::END {
            // SAFETY: as in `read`. The caller of SEAMCALL passed the address for this purpose.
            unsafe {
                core::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, bytes.len())
            };
        }
    }
}

/// Executes SEAMCALL if this #UD is from SEAMCALL.
///
/// # Errors
///
/// The exception to handle: that of SEAMCALL itself, or #UD of another instruction.
pub fn answer(frame: &mut Frame) -> Result<(), Trap> {
    const SEAMCALL: [u8; 4] = [0x66, 0x0f, 0x01, 0xcf];
    // SAFETY: the CPU has just read an instruction at this address.
    if unsafe { *(frame.rip as *const [u8; 4]) } != SEAMCALL {
        return Err(Trap::UndefinedOpcode);
    }
    let mut regs = SeamcallRegs {
        rax: frame.rax,
        rcx: frame.rcx,
        rdx: frame.rdx,
        rbx: frame.rbx,
        rsi: frame.rsi,
        rdi: frame.rdi,
        r8: frame.r8,
        r9: frame.r9,
        r10: frame.r10,
        r11: frame.r11,
        r12: frame.r12,
        r13: frame.r13,
        r14: frame.r14,
        r15: frame.r15,
    };
    // Other CPUs may enter and leave in between, as on a real machine.
    let result =
        with(|firmware| firmware.platform.enter(cpus::current(), &regs)).and_then(|entered| {
            with(|firmware| firmware.platform.leave(entered, &mut regs, &Dram, &RustCrypto))
        });
    const CARRY: u64 = 1;
    frame.rflags &= !CARRY;
    match result {
        Ok(()) => {
            (frame.rax, frame.rcx, frame.rdx, frame.rbx) = (regs.rax, regs.rcx, regs.rdx, regs.rbx);
            (frame.rsi, frame.rdi) = (regs.rsi, regs.rdi);
            (frame.r8, frame.r9, frame.r10, frame.r11) = (regs.r8, regs.r9, regs.r10, regs.r11);
            (frame.r12, frame.r13, frame.r14, frame.r15) = (regs.r12, regs.r13, regs.r14, regs.r15);
        }
        Err(Trap::VmFailInvalid) => frame.rflags |= CARRY,
        Err(trap) => return Err(trap),
    }
    frame.rip += 4;
    Ok(())
}

/// The CPUID and MSRs of a processor with TDX.
pub struct TdxProcessor;

impl Registers for TdxProcessor {
    fn cpuid(&self, leaf: u32, subleaf: u32) -> CpuidResult {
        let (lps, fms, bits) = with(|firmware| {
            let config = firmware.platform.config();
            (config.addressable_lps_per_socket, config.socket_fms[0], config.max_pa)
        });
        let eax = match (leaf, subleaf) {
            (0, _) => 0x1f,
            (1, _) => fms,
            (4, 3) => (lps - 1) << 14 | 3,
            (0x8000_0000, _) => 0x8000_0008,
            (0x8000_0008, _) => bits,
            _ => 0,
        };
        let ecx = match leaf {
            1 => 1 << 5,
            7 => 1 << 13,
            _ => 0,
        };
        let ebx = if leaf == 0x1f { 1 } else { 0 };
        let edx = if leaf == 1 { 1 << 12 } else { cpus::current() };
        CpuidResult { eax, ebx, ecx, edx }
    }

    fn msr(&self, index: u32) -> Option<u64> {
        with(|firmware| {
            let config = firmware.platform.config();
            Some(match index {
                0xfe => 1 << 15,
                0x87 => 32 << 32 | (config.private_hkid_min - 1),
                0x480 => 1 << 60,
                0x982 => u64::from(config.keyid_bits) << 32 | 3,
                0x503 => u64::from(config.debug_unlocked) << 1,
                0x1400 => config.seamrr_base,
                0x1401 => !(config.seamrr_size - 1) & ((1 << 52) - 1) | 3 << 10,
                _ => return None,
            })
        })
    }
}

/// Plans a fault.
pub fn plan(fault: Fault) {
    with(|firmware| firmware.platform.faults_mut().add(fault)).expect("room for a fault");
}

/// Removes all planned faults.
pub fn repair() {
    with(|firmware| firmware.platform.faults_mut().clear());
}

/// Flips a bit of memory: firmware then reads this byte with its lowest bit changed.
pub fn flip(byte: &u8) {
    let address = memory::physical(core::ptr::from_ref(byte).addr() as u64).expect("mapped");
    assert!(with(|firmware| firmware.platform.tamper(address.0, 1)), "room for a byte that flips");
}

/// Starts the TDs.
pub fn start_tds() {
    with(|firmware| {
        for (td, secret) in firmware.tds.iter_mut().zip(SECRETS) {
            *td = Some(firmware.platform.create_td(TdPhase::Running, secret).expect("a TD"));
        }
    });
}

/// Returns how many TDs run with unchanged memory.
pub fn tds_alive() -> usize {
    with(|firmware| {
        let alive = |(td, secret): &(&Option<TdId>, [u8; 32])| {
            td.is_some_and(|td| firmware.platform.td_secret(td) == Some(*secret))
        };
        firmware.tds.iter().zip(SECRETS).filter(alive).count()
    })
}

/// Returns the minor SVN of the running module. `None` if no module is ready.
pub fn running_svn() -> Option<u8> {
    with(|firmware| {
        let platform = &firmware.platform;
        let ready = platform.module().is_some_and(|module| module.state() == ModuleState::Ready);
        (ready && platform.module_is_callable()).then(|| platform.loader().seamextend().svn().minor)
    })
}

/// Returns a list of TDMRs for TDH.SYS.CONFIG. A real hypervisor makes it from the machine's
/// memory.
pub fn tdmr_list() -> PhysAddr {
    let [list, info] = memory::pages(2) else { unreachable!("two pages") };
    let words = [
        32 << 30,
        1 << 30,
        33 << 30,
        0x1000,
        (33 << 30) + 0x1000,
        0x2000,
        (33 << 30) + 0x3000,
        0x40_0000,
    ];
    for (slot, word) in info.0.chunks_exact_mut(8).zip(words) {
        slot.copy_from_slice(&u64::to_le_bytes(word));
    }
    let address =
        |page: &memory::Page| memory::physical(page.0.as_ptr().addr() as u64).expect("mapped");
    list.0[..8].copy_from_slice(&address(info).0.to_le_bytes());
    address(list)
}
