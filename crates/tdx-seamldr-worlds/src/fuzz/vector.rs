//! Runs a script of calls, memory accesses and events on the model of the platform. The model never
//! panics, and the same script gives the same answers twice.

use std::cell::RefCell;
use std::path::Path;
use std::sync::LazyLock;

use serde_json::Value;
use tdx_seamldr_core::abi::{
    FieldId, Scenario, SeamldrLeaf, SeamldrParams, TdxLeaf, TdxStatus, PAGE_SIZE,
};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{
    Config, Entered, GlobalLock, LoaderProfile, LoaderState, ModuleState, PhysMemory, Platform,
    SeamDb, SeamMemory, TdPhase,
};
use tdx_seamldr_mock::vectors::replay_line;
use tdx_seamldr_mock::{Answer, Fault, TestImage, TEST_SIGNER};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::numbers::Numbers;
use crate::memo::CRYPTO;
use crate::world::{new_image, old_image};

/// Start of the host's memory, and its number of pages.
const BASE: u64 = 0x10_0000;
const PAGES: usize = 32;

/// Pages with content at the start of every script.
mod page {
    pub(super) const LOAD: u8 = 0;
    pub(super) const UPDATE: u8 = 1;
    pub(super) const OLD: u8 = 2;
    pub(super) const NEW: u8 = 12;
    pub(super) const TDMR_LIST: u8 = 22;
    pub(super) const TDMR_INFO: u8 = 23;
}

fn address(page: u8) -> u64 {
    BASE + u64::from(page) * 4096
}

type Page = [u8; PAGE_SIZE];

/// Initial content of the pages: parameters for both scenarios, two images, and a TDMR for the
/// module.
static FIRST: LazyLock<Vec<Page>> = LazyLock::new(|| {
    let mut pages = vec![[0; PAGE_SIZE]; PAGES];
    let images = [
        (page::LOAD, page::OLD, Scenario::Load, old_image()),
        (page::UPDATE, page::NEW, Scenario::Update, new_image()),
    ];
    for (params_page, first, scenario, image) in images {
        let (params, parts) = parameters(first, scenario, &image);
        pages[usize::from(params_page)].copy_from_slice(params.as_bytes());
        for (slot, part) in pages.iter_mut().skip(first.into()).zip(parts.chunks(PAGE_SIZE)) {
            slot[..part.len()].copy_from_slice(part);
        }
    }
    let info = [
        0x1_0000_0000u64,
        0x4000_0000,
        0x2_0000_0000,
        0x1000,
        0x2_0000_1000,
        0x2000,
        0x2_0040_0000,
        0x40_0000,
    ];
    pages[usize::from(page::TDMR_LIST)][..8]
        .copy_from_slice(&address(page::TDMR_INFO).to_le_bytes());
    pages[usize::from(page::TDMR_INFO)][..64].copy_from_slice(info.as_bytes());
    pages
});

/// Returns parameters of an image whose SIGSTRUCT is in page `first`, followed by the module; and
/// the content of these pages.
fn parameters(first: u8, scenario: Scenario, image: &TestImage) -> (SeamldrParams, Vec<u8>) {
    let module = image.module();
    let mut parts = image.sigstruct(&module).as_bytes().to_vec();
    parts.resize(PAGE_SIZE, 0);
    parts.extend_from_slice(&module);
    let mut params = SeamldrParams::new_zeroed();
    params.scenario = U32::new(scenario.value());
    params.sigstruct_pa = U64::new(address(first));
    params.num_module_pages = U64::new((module.len() / PAGE_SIZE) as u64);
    for (slot, page) in
        params.module_page_pa.iter_mut().zip(first + 1..).take(module.len() / PAGE_SIZE)
    {
        *slot = U64::new(address(page));
    }
    (params, parts)
}

/// The host's memory. Pages are copied at the first write.
struct Memory(RefCell<Vec<Option<Box<Page>>>>);

impl Memory {
    fn new() -> Self {
        Self(RefCell::new(vec![None; PAGES]))
    }

    /// Returns page and offset of an address, if the memory exists.
    fn place(address: u64, len: usize) -> Option<(usize, usize)> {
        let (page, offset) = (address.checked_sub(BASE)? / 4096, (address % 4096) as usize);
        assert!(offset + len <= PAGE_SIZE, "{len} bytes at {address:#x} do not lie in one page");
        (page < PAGES as u64).then_some((page as usize, offset))
    }
}

impl PhysMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let Some((page, offset)) = Self::place(address, out.len()) else { return out.fill(0) };
        let pages = self.0.borrow();
        let bytes = pages[page].as_deref().unwrap_or(&FIRST[page]);
        out.copy_from_slice(&bytes[offset..offset + out.len()]);
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let Some((page, offset)) = Self::place(address, bytes.len()) else { return };
        let mut pages = self.0.borrow_mut();
        let copy = pages[page].get_or_insert_with(|| Box::new(FIRST[page]));
        copy[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Fixed choices of operands; an input can also contain its own.
const OPERANDS: [u64; 12] = [
    0,
    1,
    BASE,
    BASE + 0x1000,
    BASE + 22 * 0x1000,
    BASE + 24 * 0x1000,
    BASE + 25 * 0x1000 + 8,
    0x20,
    1 << 16,
    u64::MAX,
    0x20_0000_0000,
    FieldId::TDX_FEATURES0.0,
];

/// What a script did.
#[derive(PartialEq, Eq, Debug)]
struct Played {
    answers: Vec<Result<SeamcallRegs, Trap>>,
    end: String,
    handoff: Vec<u8>,
    code: Vec<u8>,
    memory: Vec<Option<Box<Page>>>,
}

type Model<'a> = Platform<&'a mut SeamMemory>;

struct Player<'a> {
    platform: Model<'a>,
    memory: Memory,
    inside: Vec<(Entered, SeamcallRegs)>,
    answers: Vec<Result<SeamcallRegs, Trap>>,
}

impl Player<'_> {
    fn call(&mut self, lp: u32, regs: SeamcallRegs) -> Result<SeamcallRegs, Trap> {
        let entered = self.platform.enter(lp, &regs)?;
        self.leave(entered, regs)
    }

    fn leave(&mut self, entered: Entered, regs: SeamcallRegs) -> Result<SeamcallRegs, Trap> {
        let mut out = regs;
        self.platform.leave(entered, &mut out, &self.memory, &CRYPTO)?;
        let untouched = |regs: &SeamcallRegs| {
            [regs.rbx, regs.rsi, regs.rdi, regs.r12, regs.r13, regs.r14, regs.r15]
        };
        assert_eq!(untouched(&out), untouched(&regs), "{regs:x?}");
        Ok(out)
    }

    /// Checks what holds in every state.
    fn check(&self) {
        let loader = self.platform.loader();
        let lps = self.platform.config().num_lps;
        assert!(
            loader.lps_in_session() <= lps
                && loader.session().count() as u32 == loader.lps_in_session()
        );
        assert!(loader.lps_in_shutdown() <= lps);
        assert!(loader.seamdb().used <= loader.seamdb().size);
        if let Some(module) = self.platform.module() {
            assert!(module.num_lps_initialized() <= lps);
        }
    }

    /// Makes a host's calls at boot. The script's own calls come later.
    fn bring_up(&mut self, state: u8) {
        let leaf = |leaf: TdxLeaf| SeamcallRegs { rax: leaf.rax(0), ..SeamcallRegs::default() };
        let lps = self.platform.config().num_lps;
        let good = |answer: Result<SeamcallRegs, Trap>| {
            let answer = answer.expect("no trap at boot");
            assert!(!TdxStatus(answer.rax).is_failure(), "{:?}", TdxStatus(answer.rax));
        };
        if state == 0 {
            return;
        }
        for lp in 0..lps {
            let install = SeamcallRegs {
                rax: SeamldrLeaf::Install.rax(),
                rcx: address(page::LOAD),
                ..SeamcallRegs::default()
            };
            good(self.call(lp, install));
        }
        if state == 1 {
            return;
        }
        good(self.call(0, leaf(TdxLeaf::SYS_INIT)));
        (0..lps).for_each(|lp| good(self.call(lp, leaf(TdxLeaf::SYS_LP_INIT))));
        if state == 2 {
            return;
        }
        let config = SeamcallRegs {
            rcx: address(page::TDMR_LIST),
            rdx: 1,
            r8: 0x20,
            ..leaf(TdxLeaf::SYS_CONFIG)
        };
        good(self.call(0, config));
        for lp in 0..lps {
            if self.platform.module().is_some_and(|module| module.state() != ModuleState::Ready) {
                good(self.call(lp, leaf(TdxLeaf::SYS_KEY_CONFIG)));
            }
        }
        assert!(self.platform.create_td(TdPhase::Running, [1; 32]).is_some());
        if state == 4 {
            good(self.call(0, leaf(TdxLeaf::SYS_SHUTDOWN)));
        }
    }

    /// Makes the next step.
    fn step(&mut self, numbers: &mut Numbers<'_>) {
        let operation = numbers.u8();
        let lp = u32::from(numbers.u8() % 5);
        match operation % 8 {
            0..=2 => {
                let regs = registers(numbers);
                let answer = self.call(lp, regs);
                self.answers.push(answer);
            }
            3 => {
                let regs = registers(numbers);
                match self.platform.enter(lp, &regs) {
                    Ok(entered) => self.inside.push((entered, regs)),
                    Err(trap) => self.answers.push(Err(trap)),
                }
            }
            4 => {
                if !self.inside.is_empty() {
                    let (entered, regs) = self.inside.remove(0);
                    let answer = self.leave(entered, regs);
                    self.answers.push(answer);
                }
            }
            5 => {
                let (page, offset, len) =
                    (numbers.u8() % 32, numbers.u16() % 4096, numbers.u8() % 32);
                let bytes = numbers.bytes(usize::from(len).min(PAGE_SIZE - usize::from(offset)));
                self.memory.write(address(page) + u64::from(offset), bytes);
            }
            6 => {
                let status =
                    TdxStatus::TABLE[usize::from(numbers.u8()) % TdxStatus::TABLE.len()].status.0;
                let answer = match numbers.u8() % 4 {
                    0 => Answer::Return { rax: status, rdx: 0 },
                    1 => Answer::Return { rax: numbers.u64(), rdx: numbers.u8().into() },
                    2 => Answer::Trap(numbers.choose(&Trap::ALL)),
                    _ => Answer::Delay(numbers.u8().into()),
                };
                // A full plan does not change.
                let _ =
                    self.platform.faults_mut().add(Fault { lp: Some(lp), ..Fault::nth(0, answer) });
            }
            _ => self.event(lp, numbers),
        }
        self.check();
    }

    /// Makes an event outside of firmware.
    fn event(&mut self, lp: u32, numbers: &mut Numbers<'_>) {
        let platform = &mut self.platform;
        let (event, value) = (numbers.u8() % 16, numbers.u64());
        let flag = value & 1 != 0;
        match event {
            0 => platform.config_mut().rdrand_ok = flag,
            1 => platform.config_mut().rdrand_failures = value as u32 % 16,
            2 => platform.config_mut().debug_unlocked = flag,
            3 => platform.seamdb_mut().insert_failures = value as u32 % 8,
            4 => platform.set_capabilities(lp, value),
            5 => platform.set_in_module(lp, flag),
            6 => drop(platform.deviate_msr(lp, value as u32 % 4096, value >> 32)),
            7 => platform.restore_lp(lp),
            8 => {
                let lock = [GlobalLock::Free, GlobalLock::Shared, GlobalLock::Exclusive]
                    [value as usize % 3];
                platform.module_mut().into_iter().for_each(|module| module.set_lock(lock));
            }
            9 => drop(platform.tamper(BASE + value % (PAGES as u64 * 4096), (value >> 32) as u8)),
            10 => platform.config_mut().pconfig_error = value as u32 & 7,
            11 => platform.set_interrupts_pending(value as u32 % 8),
            12 => {
                let phase = [TdPhase::Running, TdPhase::Build, TdPhase::InterruptedMigration]
                    [value as usize % 3];
                let _ = platform.create_td(phase, [value as u8; 32]);
            }
            13 => {
                let td = platform
                    .tds()
                    .nth(value as usize % 4)
                    .map(|(td, td_state)| (td, td_state.phase()));
                if let Some((td, phase)) = td {
                    // Either may be refused.
                    let _ = (
                        platform.extend_td(td, b"page"),
                        platform.finish_td(td, phase),
                        platform.td_secret(td),
                    );
                }
            }
            14 => platform.set_trap(lp, Trap::ALL.get(value as usize % 4).copied()),
            _ => {
                let bytes = platform.handoff();
                let at = value as usize % bytes.len();
                bytes[at] ^= (value >> 32) as u8;
            }
        }
    }
}

/// Returns the registers of a call: a leaf and operands, each from a short list or any number.
fn registers(numbers: &mut Numbers<'_>) -> SeamcallRegs {
    let mut regs = SeamcallRegs {
        rbx: 0xb,
        rsi: 0x51,
        rdi: 0xd1,
        r11: 0x11,
        r12: 0x12,
        r13: 0x13,
        r14: 0x14,
        r15: 0x15,
        ..SeamcallRegs::default()
    };
    let leaf = usize::from(numbers.u8());
    let leaves = SeamldrLeaf::ALL.len() + TdxLeaf::TABLE.len();
    regs.rax = match leaf % (leaves + 2) {
        seamldr if seamldr < SeamldrLeaf::ALL.len() => SeamldrLeaf::ALL[seamldr].rax(),
        tdx if tdx < leaves => {
            TdxLeaf::TABLE[tdx - SeamldrLeaf::ALL.len()].0.rax(u8::from(leaf > 2 * leaves))
        }
        _ => numbers.u64(),
    };
    for register in [&mut regs.rcx, &mut regs.rdx, &mut regs.r8, &mut regs.r9] {
        let choice = usize::from(numbers.u8());
        let fields = FieldId::TABLE.len();
        *register = match choice {
            _ if choice < OPERANDS.len() => OPERANDS[choice],
            _ if choice < OPERANDS.len() + fields => FieldId::TABLE[choice - OPERANDS.len()].id.0,
            255 => numbers.u64(),
            _ => u64::from(choice as u8) & 0xf,
        };
    }
    regs
}

thread_local! {
    static SEAM_MEMORY: RefCell<Box<SeamMemory>> =
        RefCell::new(SeamMemory::new_box_zeroed().expect("memory"));
}

/// Plays a script from its beginning, on memory with old content.
fn play(script: &[u8], seam_memory: &mut SeamMemory) -> Played {
    let mut numbers = Numbers(script);
    let first = numbers.u8();
    let lps = u32::from(first & 3) + 1;
    let sockets = if first & 4 != 0 && lps > 1 { 2 } else { 1 };
    let second = numbers.u8();
    let profile = LoaderProfile::ALL[usize::from(second) % LoaderProfile::ALL.len()].1;
    let mut config =
        Config::new(lps, sockets, 0x806f8, TEST_SIGNER, profile).expect("a small platform");
    config.full_seamdb_is_fatal = first & 8 != 0;
    config.accepts_large_signatures = first & 16 != 0;
    config.seamret_clears_vmcs = first & 32 != 0;
    let size = if first & 64 != 0 { 3 } else { 64 };
    let mut platform =
        Platform::new(config, SeamDb { size, used: 0, insert_failures: 0 }, seam_memory);
    let state = LoaderState {
        seamextend: *platform.loader().seamextend(),
        entered: first & 128 != 0,
        num_remaining_updates: size,
        module_range_initialized: false,
        sysinfo: None,
    };
    if first & 128 != 0 {
        platform.restore_loader(&state);
    }
    let mut player =
        Player { platform, memory: Memory::new(), inside: Vec::new(), answers: Vec::new() };
    player.bring_up(numbers.u8() % 5);
    let mut steps = 0;
    while !numbers.is_empty() && steps < 64 {
        player.step(&mut numbers);
        steps += 1;
    }
    let Player { mut platform, memory, answers, .. } = player;
    Played {
        answers,
        end: format!("{platform:?}"),
        handoff: platform.handoff()[..4096].to_vec(),
        code: platform.code()[..16384].to_vec(),
        memory: memory.0.into_inner(),
    }
}

/// The folder of the recordings whose files a line may name.
const RECORDINGS: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/../tdx-seamldr-mock/vectors/p-seamldr");

/// Returns whether a piece of memory has its content in the line, or in a file of the recordings.
/// No input reads other files.
fn reads_no_others(piece: &Value) -> bool {
    let name = |file: &Value| {
        file.as_str()?.strip_prefix("blobs/")?.strip_suffix(".bin").map(str::to_owned)
    };
    let is_plain = |name: String| name.bytes().all(|byte| byte.is_ascii_hexdigit());
    piece.is_object() && piece.get("file").is_none_or(|file| name(file).is_some_and(is_plain))
}

/// Replays a line of a recording twice. The result is the same.
fn recorded(line: &str) {
    let folder = Path::new(RECORDINGS);
    let Ok(value) = serde_json::from_str::<Value>(line) else {
        assert!(replay_line(line, folder).is_err());
        return;
    };
    let pieces = value.get("memory").and_then(Value::as_array);
    if !pieces.is_none_or(|pieces| pieces.iter().all(reads_no_others)) {
        return;
    }
    let replayed = || format!("{:?}", replay_line(line, folder));
    assert_eq!(replayed(), replayed());
}

/// Takes a line of a recording if the input begins with a brace. Otherwise takes a script: three
/// bytes for the platform, then the steps.
pub fn vector(input: &[u8]) {
    if input.first() == Some(&b'{') {
        if let Ok(line) = std::str::from_utf8(input) {
            recorded(line);
        }
        return;
    }
    SEAM_MEMORY.with_borrow_mut(|memory| {
        let once = play(input, memory);
        let again = play(input, memory);
        assert_eq!(once, again);
    });
}
