//! Random calls, and a second model that says what each of them has to answer: a small one, written from the specification and
//! not from the first. It knows no bytes, only what decides about answers.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::LazyLock;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tdx_seamldr_core::abi::{FieldId, HandoffHeader, Scenario, SeamldrInfo, SeamldrLeaf, SeamldrParams};
use tdx_seamldr_core::abi::{SeamldrStatus as S, TdxFeatures0, TdxLeaf, TdxStatus as T, PAGE_SIZE};
use tdx_seamldr_core::{SeamcallRegs, Sha384Digest, Trap};
use tdx_seamldr_mock::model::{
    Config, GlobalLock, HandoffForm, LoaderProfile, ModuleBuild, ModuleState as State, PhysMemory, Platform,
    SeamDb, SeamMemory, TdError, TdId, TdPhase,
};
use tdx_seamldr_mock::{sign, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// Two packages: LPs 0 and 1, and LP 2.
const LPS: u32 = 3;
const PACKAGE: [usize; LPS as usize] = [0, 0, 1];
const SEAMDB: u32 = 4;
const IMAGES: u64 = 0x1_0000_0000;
const PARAMS: u64 = 0x2_0000_0000;
const BUFFER: u64 = 0x3_0000_0000;
const TDMRS: u64 = 0x4_0000_0000;
/// Nothing lies there.
const HOLE: u64 = 0x5_0000_0000;
/// Misaligned, in the SEAM range, with a private KeyID.
const BAD_ADDRESSES: [u64; 3] = [PARAMS + 0x80, 0x20_0000_1000, 0x20 << 40];
/// An MSR that has to be the same on all LPs.
const MSR: u32 = 0x3b;

/// What is wrong with an image, in the order in which P-SEAMLDR finds it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Defect {
    None,
    Field,
    Cpu,
    Signature,
    Memory,
    Hash,
    Elf,
}

/// What there is to know about an image.
#[derive(Clone, Copy, Debug)]
struct Image {
    svn: (u8, u8),
    defect: Defect,
    /// Lowest and highest handoff version, as signed.
    hv: (u16, u16),
    no_downgrade: bool,
    /// Pages for handoff data, minus one.
    pages: u16,
    /// The highest version that the code was made for.
    built_hv: u16,
    counting: bool,
}

const BASE: Image = Image {
    svn: (1, 5),
    defect: Defect::None,
    hv: (0, 0),
    no_downgrade: false,
    pages: 13,
    built_hv: 0,
    counting: false,
};

const ALL_IMAGES: [Image; 17] = [
    BASE,
    Image { svn: (1, 6), ..BASE },
    Image { svn: (1, 1), ..BASE },
    Image { svn: (2, 6), ..BASE },
    Image { svn: (0, 5), ..BASE },
    Image { svn: (0, 6), ..BASE },
    Image { defect: Defect::Field, ..BASE },
    Image { defect: Defect::Cpu, ..BASE },
    Image { defect: Defect::Signature, svn: (1, 6), ..BASE },
    Image { defect: Defect::Memory, ..BASE },
    Image { defect: Defect::Hash, svn: (1, 6), ..BASE },
    Image { defect: Defect::Elf, svn: (1, 6), ..BASE },
    Image { svn: (1, 6), hv: (2, 3), built_hv: 3, ..BASE },
    Image { svn: (1, 6), hv: (0, 1), built_hv: 1, counting: true, ..BASE },
    Image { svn: (1, 6), hv: (1, 1), built_hv: 1, no_downgrade: true, counting: true, ..BASE },
    // These two are not what their code was made for.
    Image { svn: (1, 6), hv: (0, 1), ..BASE },
    Image { svn: (1, 6), pages: 12, ..BASE },
];

impl Image {
    fn features0(&self) -> TdxFeatures0 {
        let counting = if self.counting { TdxFeatures0::UPDATE_COMPATIBILITY } else { TdxFeatures0::empty() };
        ModuleBuild::V1_5_01.features0 | counting
    }

    /// Bytes of its handoff data in this version.
    fn handoff_size(&self, hv: u16) -> u32 {
        if self.counting && hv == 1 {
            53391
        } else {
            53386
        }
    }

    /// The SIGSTRUCT, and the bytes of the module.
    fn make(&self, number: usize) -> (Vec<u8>, Vec<u8>) {
        let handoff_form = if self.counting { HandoffForm::Counting } else { HandoffForm::Plain };
        let built = ModuleBuild {
            features0: self.features0(),
            module_hv: self.built_hv,
            min_update_hv: self.hv.0.min(self.built_hv),
            handoff_form,
            ..ModuleBuild::V1_5_01
        };
        let image = TestImage {
            pages: 3,
            svn_major: self.svn.0,
            svn_minor: self.svn.1,
            module_hv: self.hv.1,
            min_update_hv: self.hv.0,
            no_downgrade: self.no_downgrade,
            num_handoff_pages: self.pages,
            cpus: vec![if self.defect == Defect::Cpu { 0xa06d0 } else { 0x806f0 }],
            fill: number as u8,
            module_build: Some(built),
            ..TestImage::default()
        };
        let mut module = image.module();
        if self.defect == Defect::Elf {
            module[0] = 0;
        }
        let mut sigstruct = image.sigstruct(&module);
        match self.defect {
            Defect::Field => sigstruct.reserved2 = 1,
            Defect::Memory => sigstruct.num_global_data_pages = U16::new(0xffff),
            _ => {}
        }
        sign(&mut sigstruct);
        match self.defect {
            Defect::Signature => sigstruct.signature[7] ^= 1,
            Defect::Hash => module[9000] ^= 1,
            _ => {}
        }
        (sigstruct.as_bytes().to_vec(), module)
    }
}

/// What lies in memory, by where it begins.
type Pieces = BTreeMap<u64, Vec<u8>>;

/// The memory at the beginning, and the hash of each image.
static WORLD: LazyLock<(Pieces, Vec<Sha384Digest>)> = LazyLock::new(|| {
    let (mut pieces, mut hashes) = (BTreeMap::new(), Vec::new());
    for (number, image) in ALL_IMAGES.iter().enumerate() {
        let start = IMAGES + number as u64 * 0x10000;
        let (sigstruct, module) = image.make(number);
        hashes.push(sigstruct[900..948].try_into().unwrap());
        pieces.insert(start, sigstruct);
        pieces.insert(start + 4096, module);
        for scenario in [Scenario::Load, Scenario::Update] {
            let mut params = SeamldrParams::new_zeroed();
            params.scenario = U32::new(scenario.value());
            params.sigstruct_pa = U64::new(start);
            params.num_module_pages = U64::new(3);
            for (page, slot) in (1u64..=3).zip(&mut params.module_page_pa) {
                *slot = U64::new(start + page * 4096);
            }
            pieces.insert(params_of(number, scenario), params.as_bytes().to_vec());
        }
    }
    let regions: [u64; 8] = [32 << 30, 1 << 30, 40 << 30, 0x1000, 41 << 30, 0x2000, 42 << 30, 0x40_0000];
    pieces.insert(TDMRS, (TDMRS + 4096).to_le_bytes().to_vec());
    pieces.insert(TDMRS + 4096, regions.map(u64::to_le_bytes).concat());
    (pieces, hashes)
});

fn params_of(image: usize, scenario: Scenario) -> u64 {
    PARAMS + (image as u64 * 2 + u64::from(scenario.value())) * 4096
}

/// The host's memory.
struct Memory(RefCell<Pieces>);

impl PhysMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let pieces = self.0.borrow();
        out.fill(0);
        if let Some((start, bytes)) = pieces.range(..=address).next_back() {
            let rest = bytes.get((address - start) as usize..).unwrap_or_default();
            out.iter_mut().zip(rest).for_each(|(out, byte)| *out = *byte);
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        if address == BUFFER {
            self.0.borrow_mut().insert(address, bytes.to_vec());
        }
    }
}

/// What happens next. Some of it is several calls.
#[derive(Clone, Debug)]
enum Action {
    Call(u32, SeamcallRegs),
    /// INSTALL on these LPs, with an image or an address.
    Install(Vec<u32>, u64),
    /// SYS.INIT, LP.INIT on all LPs, and UPDATE or CONFIG and KEY.CONFIG.
    BringUp {
        updates: bool,
    },
    /// A whole update to this image, with this RCX of SHUTDOWN.
    Update(usize, u64),
    Rdrand(u32),
    SeamDb(u32),
    Interrupts(u32),
    HandoffSize(u32),
    Deviate(u32),
    Trap(u32, Option<Trap>),
    Inside(u32, bool),
    Lock(GlobalLock),
    Create(TdPhase),
    Finish(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Extend {
    ready: bool,
    valid: bool,
    svn: (u8, u8),
    image: Option<usize>,
}

const EMPTY: Extend = Extend { ready: false, valid: false, svn: (0, 0), image: None };

#[derive(Clone, Debug, Default, PartialEq)]
struct Counted {
    tds: BTreeSet<u16>,
    packages: BTreeSet<usize>,
    /// TDs in build and interrupted migrations that are counted.
    building: BTreeSet<u16>,
    migrating: BTreeSet<u16>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Handoff {
    valid: bool,
    hv: u16,
    size: u32,
    payload: Counted,
}

#[derive(Clone, Debug)]
struct Module {
    image: Image,
    state: State,
    lps: BTreeSet<u32>,
    /// Packages that got the key from this module, in this life.
    own_packages: u32,
    knows: Counted,
    detects: bool,
    lock: GlobalLock,
    /// Whether the LP of SYS.INIT deviated.
    deviates: bool,
}

struct Td {
    phase: TdPhase,
    stale: bool,
    secret: [u8; 32],
    id: TdId,
}

/// The second model.
struct Opinion {
    profile: LoaderProfile,
    cleanup: bool,
    extend: Extend,
    snapshot: Extend,
    session: BTreeSet<u32>,
    ending: BTreeSet<u32>,
    cleaning: Option<BTreeSet<u32>>,
    /// P-SEAMLDR is gone, or all of SEAM mode.
    ended: bool,
    dead: bool,
    remaining: u32,
    used: u32,
    dirty: [bool; 2],
    written: bool,
    handoff: Handoff,
    /// The running module's, as P-SEAMLDR told it.
    old_pages: u16,
    module: Option<Module>,
    rdrand_failures: u32,
    insert_failures: u32,
    interrupts: u32,
    deviates: [bool; LPS as usize],
    traps: [Option<Trap>; LPS as usize],
    inside: [bool; LPS as usize],
}

type Answer = Result<u64, Trap>;

fn about(status: T, operand: u64) -> Answer {
    Ok(status.0 | operand)
}

impl Opinion {
    fn rdrand(&mut self) -> bool {
        let fails = self.rdrand_failures > 0;
        self.rdrand_failures -= u32::from(fails);
        !fails
    }

    fn callable(&self) -> bool {
        !self.dead && self.extend.ready && self.module.is_some()
    }

    fn alive(&self, td: u16) -> bool {
        let module = self.module.as_ref().filter(|module| module.state == State::Ready);
        self.callable() && module.is_some_and(|module| module.knows.tds.contains(&td))
    }

    /// RAX of a call; for INSTALL also RDX.
    fn call(&mut self, lp: u32, regs: &SeamcallRegs) -> (Answer, Option<u64>) {
        if let Some(trap) = self.traps[lp as usize] {
            return (Err(trap), None);
        }
        let for_seamldr = regs.rax >> 63 == 1;
        if self.dead || for_seamldr && self.ended {
            return (Err(Trap::VmFailInvalid), None);
        }
        if !for_seamldr {
            if !self.callable() || self.inside[lp as usize] {
                return (Err(Trap::VmFailInvalid), None);
            }
            let answer = self.module_call(lp, regs);
            self.dead |= answer == Err(Trap::VmFailInvalid);
            return (answer, None);
        }
        let bad_address =
            |alignment: u64| regs.rcx % alignment != 0 || BAD_ADDRESSES[1..].contains(&regs.rcx);
        let status = match SeamldrLeaf::from_rax(regs.rax) {
            Some(SeamldrLeaf::Info) if bad_address(256) => S::EBADPARAM,
            Some(SeamldrLeaf::SeamInfo) if bad_address(2048) => S::EBADPARAM,
            Some(SeamldrLeaf::Info) => {
                if self.remaining == 0 && self.profile.preserves_tds {
                    self.remaining = SEAMDB - self.used;
                }
                S::SUCCESS
            }
            Some(SeamldrLeaf::SeamInfo) => S::SUCCESS,
            Some(SeamldrLeaf::Shutdown) => self.end(lp),
            Some(SeamldrLeaf::Cleanup) if self.cleanup => self.clean_up(lp),
            Some(SeamldrLeaf::Cleanup) | None => S::EBADPARAM,
            Some(SeamldrLeaf::Install) => {
                let (status, rdx) = self.install(lp, regs.rcx);
                return (Ok(status.0), Some(rdx));
            }
        };
        (Ok(status.0), None)
    }

    fn end(&mut self, lp: u32) -> S {
        if self.cleanup && (!self.session.is_empty() || self.cleaning.is_some()) {
            return S::EBADCALL;
        }
        if self.dirty.contains(&true) {
            return S::ECLEANUPREQ;
        }
        self.ending.insert(lp);
        self.extend.ready = false;
        if self.ending.len() < LPS as usize {
            return S::SUCCESS;
        }
        if lp != 0 {
            return S::EBADCALL;
        }
        (self.extend, self.ended) = (EMPTY, true);
        S::SUCCESS
    }

    fn clean_up(&mut self, lp: u32) -> S {
        let mut done = self.cleaning.clone().unwrap_or_default();
        if !self.session.is_empty() || !self.ending.is_empty() || done.contains(&lp) || !self.written {
            return S::EBADCALL;
        }
        (self.extend.ready, self.extend.svn, self.handoff.valid) = (false, (0, 0), false);
        self.module = None;
        self.cleaning = Some(done.clone());
        let package = PACKAGE[lp as usize];
        let others = (0..LPS).filter(|other| *other != lp && PACKAGE[*other as usize] == package);
        if self.dirty[package] && others.into_iter().all(|other| done.contains(&other)) {
            if self.interrupts > 0 {
                self.interrupts -= 1;
                return S::EINTERRUPT;
            }
            self.dirty[package] = false;
        }
        done.insert(lp);
        self.cleaning = Some(done);
        if self.cleaning.as_ref().is_some_and(|done| done.len() == LPS as usize) {
            (self.extend, self.cleaning, self.used, self.remaining) = (EMPTY, None, 0, SEAMDB);
        }
        S::SUCCESS
    }

    fn install(&mut self, lp: u32, params: u64) -> (S, u64) {
        if !self.ending.is_empty() || self.cleaning.is_some() || self.session.contains(&lp) {
            return (S::EBADCALL, 0);
        }
        if self.session.is_empty() {
            self.snapshot = self.extend;
            self.extend.ready = false;
        }
        self.session.insert(lp);
        if self.session.len() < LPS as usize {
            return (S::SUCCESS, 0);
        }
        self.session.clear();
        match self.complete(params) {
            Ok(()) => (S::SUCCESS, 0),
            Err((status, 0)) => {
                self.extend = self.snapshot;
                (status, 0)
            }
            Err((status, rdx)) => {
                self.module = None;
                if status != S::ENOENTROPY {
                    self.extend = EMPTY;
                }
                (status, rdx)
            }
        }
    }

    /// The numbers are those of the specification's steps.
    fn complete(&mut self, params: u64) -> Result<(), (S, u64)> {
        let newer = self.cleanup;
        if BAD_ADDRESSES.contains(&params) {
            return Err((S::EBADPARAM, 0)); // 5
        }
        if params == HOLE {
            return Err((if newer { S::EBADPARAM } else { S::EBADSIG }, 0)); // 9, 14
        }
        let number = (params - PARAMS) / 4096;
        let (number, updates) = ((number / 2) as usize, number % 2 == 1);
        let image = ALL_IMAGES[number];
        if updates && !self.snapshot.ready {
            return Err((S::EBADPARAM, 0)); // 12
        }
        if image.defect == Defect::Field {
            return Err((S::EBADSIG, 0)); // 13
        }
        if newer && image.svn.0 == 0 {
            return Err((S::EUNSUPPORTED, 0)); // 21
        }
        let running = self.snapshot.svn;
        if !self.profile.preserves_tds {
            if updates && image.svn < running {
                return Err((S::EBADSIG, 0)); // of 1.0
            }
        } else if updates {
            if image.svn.0 != running.0 {
                return Err((if newer { S::EUNSUPPORTED } else { S::EBADCALL }, 0));
                // 22
            }
            if image.svn.1 < running.1 {
                return Err((S::EBADSIG, 0)); // 23
            }
        } else if self.dirty.contains(&true) && (image.svn.0 != running.0 || image.svn.1 < running.1) {
            return Err((S::ECLEANUPREQ, 0)); // 23b
        }
        match image.defect {
            Defect::Cpu => return Err((S::EUNSUPCPU, 0)),     // 25
            Defect::Signature => return Err((S::EBADSIG, 0)), // 27
            _ => {}
        }
        if !self.rdrand() {
            return Err((S::ENOENTROPY, 0)); // 28
        }
        if image.defect == Defect::Memory {
            return Err((S::ENOMEM, 0)); // 29
        }
        if updates && image.svn.0 != 0 && self.profile.preserves_tds {
            if self.remaining == 0 {
                return Err((S::EBADCALL, 0)); // 30
            }
            let room = (u64::from(self.old_pages) + 1) * 4096;
            let Handoff { valid, hv, size, .. } = self.handoff;
            if !valid || u64::from(size) + 8 > room || !(image.hv.0..=image.hv.1).contains(&hv) {
                return Err((S::EBADHANDOFF, 0)); // 31
            }
        } else {
            self.handoff = Handoff::default();
            if self.profile.preserves_tds {
                (self.used, self.remaining) = (0, SEAMDB);
            }
        }
        (self.written, self.old_pages) = (true, 0);
        match image.defect {
            Defect::Hash => return Err((S::EBADHASH, 1)), // 33
            Defect::Elf if self.profile.relocates => return Err((S::EBADPARAM, 1)), // 34
            _ => {}
        }
        self.extend = Extend { ready: false, valid: true, svn: image.svn, image: Some(number) };
        if self.profile.preserves_tds {
            // Each try has to find the database neither without entropy nor full.
            let failures = self.insert_failures.min(5);
            self.insert_failures -= failures;
            if failures == 5 || self.used == SEAMDB {
                return Err((S::ENOENTROPY, 1)); // 35
            }
            (self.used, self.remaining) = (self.used + 1, self.remaining - 1);
        }
        self.extend.ready = true;
        self.old_pages = image.pages;
        if newer {
            self.dirty = [true; 2];
        }
        self.inside = [false; LPS as usize];
        self.module = Some(Module {
            image,
            state: State::SysInitPending,
            lps: BTreeSet::new(),
            own_packages: 0,
            knows: Counted::default(),
            detects: false,
            lock: GlobalLock::Free,
            deviates: false,
        });
        Ok(())
    }

    fn module_call(&mut self, lp: u32, regs: &SeamcallRegs) -> Answer {
        let others_inside = (0..LPS).any(|other| other != lp && self.inside[other as usize]);
        let mut module = self.module.take().unwrap();
        let answer = self.leaf(&mut module, lp, regs, others_inside);
        self.module = Some(module);
        answer
    }

    fn leaf(&mut self, module: &mut Module, lp: u32, regs: &SeamcallRegs, others_inside: bool) -> Answer {
        const BEFORE_READY: [u64; 9] = [31, 32, 33, 34, 35, 37, 44, 45, 53];
        let (leaf, version) = (regs.rax & 0xffff, regs.rax >> 16 & 0xff);
        if regs.rax >> 24 != 0 {
            return about(T::OPERAND_INVALID, 0);
        }
        let takes_versions = leaf == 3 || leaf == 53 && module.image.counting;
        if version > 0 && !takes_versions {
            return about(T::OPERAND_INVALID, 0);
        }
        if leaf == 44 && module.state == State::Shutdown {
            return Ok(0);
        }
        if module.state == State::Shutdown {
            return Ok(T::SYS_SHUTDOWN.0);
        }
        if module.state != State::Ready && !BEFORE_READY.contains(&leaf) {
            return Ok(T::SYS_NOT_READY.0);
        }
        let exclusive_fails = module.lock != GlobalLock::Free;
        let complete = module.lps.len() == LPS as usize;
        let needs_lp = matches!(leaf, 32 | 34 | 37);
        match leaf {
            44 => Ok(0),
            31 | 33 | 45 | 53 if exclusive_fails => Ok(T::SYS_BUSY.0),
            _ if needs_lp && !module.lps.contains(&lp) => Ok(T::SYS_LP_INIT_NOT_DONE.0),
            32 => about(T::OPERAND_INVALID, 1),
            34 => Ok(T::SUCCESS.0),
            37 => about(T::OPERAND_INVALID, 2),
            33 => {
                let image = &module.image;
                if regs.rcx != 0 {
                    return about(T::OPERAND_INVALID, 1);
                }
                if module.state != State::SysInitPending {
                    return Ok(T::SYS_INIT_NOT_PENDING.0);
                }
                if image.hv.1 != image.built_hv || image.pages < 13 {
                    return Ok(T::SYS_INCOMPATIBLE_SIGSTRUCT.0);
                }
                if !self.rdrand() {
                    return Ok(T::RND_NO_ENTROPY.0);
                }
                (module.state, module.deviates) = (State::SysInitDone, self.deviates[lp as usize]);
                Ok(0)
            }
            35 => {
                if module.lock == GlobalLock::Exclusive {
                    return Ok(T::SYS_BUSY.0);
                }
                if module.state != State::SysInitDone {
                    return Ok(T::SYS_LP_INIT_NOT_PENDING.0);
                }
                if module.lps.contains(&lp) {
                    return Ok(T::SYS_LP_INIT_DONE.0);
                }
                if !self.rdrand() {
                    return Ok(T::RND_NO_ENTROPY.0);
                }
                if self.deviates[lp as usize] != module.deviates {
                    return about(T::INCONSISTENT_MSR, MSR.into());
                }
                module.lps.insert(lp);
                Ok(0)
            }
            45 => {
                if module.state != State::SysInitDone || !complete {
                    return Ok(T::SYS_CONFIG_NOT_PENDING.0);
                }
                for (operand, good) in [(1, regs.rcx == TDMRS), (2, regs.rdx == 1), (8, regs.r8 == 0x20)] {
                    if !good {
                        return about(T::OPERAND_INVALID, operand);
                    }
                }
                (module.state, module.own_packages) = (State::SysConfigDone, 0);
                Ok(0)
            }
            31 => {
                if module.state != State::SysConfigDone {
                    return Ok(T::SYS_KEY_CONFIG_NOT_PENDING.0);
                }
                if !module.knows.packages.insert(PACKAGE[lp as usize]) {
                    return Ok(T::KEY_CONFIGURED.0);
                }
                module.own_packages += 1;
                if module.own_packages == 2 {
                    module.state = State::Ready;
                }
                Ok(0)
            }
            53 => self.update(module, regs, version, complete),
            52 => self.shut_down(module, regs.rcx, exclusive_fails || others_inside),
            // Of the leaves that are called here, these two want an operand that they never get.
            36 => about(T::OPERAND_INVALID, 1),
            _ => about(T::OPERAND_INVALID, 0),
        }
    }

    fn update(&mut self, module: &mut Module, regs: &SeamcallRegs, version: u64, complete: bool) -> Answer {
        let (image, handoff) = (module.image, &mut self.handoff);
        if module.state != State::SysInitDone || !complete {
            return Ok(T::SYS_STATE_INCORRECT.0);
        }
        if !handoff.valid || !(image.hv.0..=image.hv.1).contains(&handoff.hv) {
            return Ok(T::SYS_INVALID_HANDOFF.0);
        }
        let room = (u32::from(image.pages) + 1) * 4096 - 8;
        if handoff.size < image.handoff_size(handoff.hv) || handoff.size > room {
            return Err(Trap::VmFailInvalid);
        }
        module.knows = handoff.payload.clone();
        if !image.counting || handoff.hv == 0 {
            module.knows.building.clear();
            module.knows.migrating.clear();
        }
        if version > 1 {
            return about(T::OPERAND_INVALID, 0);
        }
        if version == 1 && regs.r9 & !image.features0().bits() != 0 {
            return about(T::OPERAND_INVALID, 9);
        }
        if version == 1 && regs.r10 != 0 {
            return about(T::OPERAND_INVALID, 10);
        }
        module.detects = version == 1 && regs.r9 >> 47 & 1 == 1;
        (handoff.valid, handoff.size, module.state) = (false, 0, State::Ready);
        Ok(0)
    }

    fn shut_down(&mut self, module: &mut Module, rcx: u64, busy: bool) -> Answer {
        let image = module.image;
        let avoid = image.counting && rcx >> 16 & 1 == 1;
        let hv = if image.counting { rcx & !(1 << 16) } else { rcx };
        let lowest = if image.no_downgrade { image.hv.1 } else { image.hv.0 };
        if !(u64::from(lowest)..=u64::from(image.hv.1)).contains(&hv) {
            return about(T::OPERAND_INVALID, 1);
        }
        if busy {
            return Ok(T::SYS_BUSY.0);
        }
        let (building, migrating) = (module.knows.building.len() as u64, module.knows.migrating.len() as u64);
        if avoid && building + migrating != 0 {
            let details = if building != 0 { building << 16 } else { migrating << 16 | 1 };
            return about(T::UPDATE_COMPATIBILITY_SENSITIVE, details);
        }
        module.state = State::Shutdown;
        let hv = hv as u16;
        self.handoff =
            Handoff { valid: true, hv, size: image.handoff_size(hv), payload: module.knows.clone() };
        Ok(0)
    }
}

/// Both models, side by side.
struct Pair {
    platform: Platform<Box<SeamMemory>>,
    memory: Memory,
    opinion: Opinion,
    tds: Vec<Td>,
    /// Answers that were seen: by whom, and without details.
    seen: HashSet<(bool, Answer)>,
}

impl Pair {
    fn new(profile: LoaderProfile) -> Self {
        let config = Config::new(LPS, 2, 0x806f8, TEST_SIGNER, profile).unwrap();
        let seamdb = SeamDb { size: SEAMDB, used: 0, insert_failures: 0 };
        let opinion = Opinion {
            profile,
            cleanup: profile.has_cleanup,
            extend: EMPTY,
            snapshot: EMPTY,
            session: BTreeSet::new(),
            ending: BTreeSet::new(),
            cleaning: None,
            ended: false,
            dead: false,
            remaining: 0,
            used: 0,
            dirty: [false; 2],
            written: false,
            handoff: Handoff::default(),
            old_pages: 0,
            module: None,
            rdrand_failures: 0,
            insert_failures: 0,
            interrupts: 0,
            deviates: [false; LPS as usize],
            traps: [None; LPS as usize],
            inside: [false; LPS as usize],
        };
        Self {
            platform: Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap()),
            memory: Memory(RefCell::new(WORLD.0.clone())),
            opinion,
            tds: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn act(&mut self, action: &Action) {
        let call = |lp: u32, rax: u64, rcx: u64| (lp, SeamcallRegs { rax, rcx, ..SeamcallRegs::default() });
        match action {
            Action::Call(lp, regs) => self.call(*lp, regs),
            Action::Install(lps, params) => {
                for lp in lps {
                    let (lp, regs) = call(*lp, SeamldrLeaf::Install.rax(), *params);
                    self.call(lp, &regs);
                }
            }
            Action::BringUp { updates } => {
                let (_, init) = call(0, TdxLeaf::SYS_INIT.rax(0), 0);
                self.call(0, &init);
                for lp in 0..LPS {
                    let (_, init) = call(lp, TdxLeaf::SYS_LP_INIT.rax(0), 0);
                    self.call(lp, &init);
                }
                if *updates {
                    self.call(1, &call(1, TdxLeaf::SYS_UPDATE.rax(0), 0).1);
                    return;
                }
                let (_, config) = call(0, TdxLeaf::SYS_CONFIG.rax(0), TDMRS);
                self.call(0, &SeamcallRegs { rdx: 1, r8: 0x20, ..config });
                for lp in 0..LPS {
                    self.call(lp, &call(lp, TdxLeaf::SYS_KEY_CONFIG.rax(0), 0).1);
                }
            }
            Action::Update(image, rcx) => {
                self.call(2, &call(2, TdxLeaf::SYS_SHUTDOWN.rax(0), *rcx).1);
                self.act(&Action::Install(vec![2, 0, 1], params_of(*image, Scenario::Update)));
                self.act(&Action::BringUp { updates: true });
            }
            Action::Rdrand(failures) => {
                self.platform.config_mut().rdrand_failures = *failures;
                self.opinion.rdrand_failures = *failures;
            }
            Action::SeamDb(failures) => {
                self.platform.seamdb_mut().insert_failures = *failures;
                self.opinion.insert_failures = *failures;
            }
            Action::Interrupts(count) => {
                self.platform.set_interrupts_pending(*count);
                self.opinion.interrupts = *count;
            }
            Action::HandoffSize(size) => {
                let header = HandoffHeader { size: U32::new(*size), ..self.platform.handoff_header() };
                self.platform.handoff()[..8].copy_from_slice(header.as_bytes());
                self.opinion.handoff.size = *size;
            }
            Action::Deviate(lp) => {
                assert!(self.platform.deviate_msr(*lp, MSR, 1));
                self.opinion.deviates[*lp as usize] ^= true;
            }
            Action::Trap(lp, trap) => {
                self.platform.set_trap(*lp, *trap);
                self.opinion.traps[*lp as usize] = *trap;
            }
            Action::Inside(lp, inside) => {
                self.platform.set_in_module(*lp, *inside);
                self.opinion.inside[*lp as usize] = *inside;
            }
            Action::Lock(lock) => {
                if let (Some(module), Some(other)) = (self.platform.module_mut(), &mut self.opinion.module) {
                    module.set_lock(*lock);
                    other.lock = *lock;
                }
            }
            Action::Create(phase) => self.create(*phase),
            Action::Finish(which) => self.finish(*which),
        }
        self.compare();
    }

    fn create(&mut self, phase: TdPhase) {
        // A TD while no module can be called is another test's subject.
        if self.tds.len() == 20 || !self.opinion.callable() {
            return;
        }
        let secret = [self.tds.len() as u8 + 1; 32];
        let td = self.platform.create_td(phase, secret);
        let module = self.opinion.module.as_mut().filter(|module| module.state == State::Ready);
        assert_eq!(td.is_some(), module.is_some());
        let (Some(id), Some(module)) = (td, module) else { return };
        module.knows.tds.insert(id.number());
        if module.image.counting {
            match phase {
                TdPhase::Build => module.knows.building.insert(id.number()),
                TdPhase::InterruptedMigration => module.knows.migrating.insert(id.number()),
                TdPhase::Running => false,
            };
        }
        self.tds.push(Td { phase, stale: false, secret, id });
    }

    fn finish(&mut self, which: usize) {
        if self.tds.is_empty() {
            return;
        }
        let which = which % self.tds.len();
        let (alive, td) = (self.opinion.alive(self.tds[which].id.number()), &mut self.tds[which]);
        let number = td.id.number();
        let module = self.opinion.module.as_mut().filter(|_| alive);
        let expected = match &module {
            None => Err(TdError::Gone),
            Some(_) if td.phase == TdPhase::Running => Err(TdError::Phase),
            Some(module) if module.detects && td.stale => Err(TdError::IncompatibleContext),
            Some(_) => Ok(()),
        };
        if let (Ok(()), Some(module)) = (expected, module) {
            let counted = module.knows.building.remove(&number) | module.knows.migrating.remove(&number);
            if module.image.counting && !counted {
                // The end of a TD that was not counted is another test's subject.
                return;
            }
        }
        let phase = td.phase;
        let found = self.platform.finish_td(td.id, phase);
        assert_eq!(found.map(|_| ()), expected);
        if let Ok(measurement) = found {
            let good = tdx_seamldr_mock::model::Td::measurement_of(&[&td.secret]);
            assert!(td.stale || measurement == good, "nothing has come in between");
            td.phase = TdPhase::Running;
        }
    }

    fn call(&mut self, lp: u32, input: &SeamcallRegs) {
        let before = self.platform.handoff()[..15 * PAGE_SIZE].to_vec();
        let was_ready = self.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready);
        let (expected, rdx) = self.opinion.call(lp, input);
        let mut regs = *input;
        let found = self.platform.seamcall(lp, &mut regs, &self.memory, &RustCrypto).map(|()| regs.rax);
        let for_seamldr = input.rax >> 63 == 1;
        assert_eq!(show(for_seamldr, found), show(for_seamldr, expected), "LP {lp}: {input:x?}");
        if let (Ok(_), Some(rdx)) = (found, rdx) {
            assert_eq!(regs.rdx, rdx, "RDX of INSTALL");
        }
        let details = if for_seamldr { u64::MAX } else { T::CODE_MASK };
        self.seen.insert((for_seamldr, found.map(|rax| rax & details)));
        let refused = found != Ok(0);
        if refused && (!for_seamldr || regs.rdx == 0) && regs.rax != S::EINTERRUPT.0 {
            assert!(
                self.platform.handoff()[..15 * PAGE_SIZE] == before,
                "a refusal leaves the handoff data alone"
            );
        }
        if found == Ok(0) && input.rax == SeamldrLeaf::Info.rax() && input.rcx == BUFFER {
            let mut bytes = [0; 256];
            self.memory.read(input.rcx, &mut bytes);
            let info = SeamldrInfo::read_from_bytes(&bytes).unwrap();
            assert_eq!(info.num_remaining_updates.get(), self.opinion.remaining);
            assert_eq!(info.seamextend, *self.platform.loader().seamextend());
        }
        if input.rax == TdxLeaf::SYS_RD.rax(0) {
            let module = self.opinion.module.as_ref();
            match (found, module) {
                (Ok(0), Some(module)) => assert_eq!(regs.r8, u64::from(module.image.built_hv)),
                (Ok(rax), _) if rax == T::SYS_LP_INIT_NOT_DONE.0 => {
                    assert_eq!((regs.rdx, regs.r8), (u64::MAX, 0));
                }
                _ => assert_eq!(regs, SeamcallRegs { rax: regs.rax, ..*input }),
            }
        }
        // Who took the handoff data over uses another library.
        let is_ready = self.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready);
        if !was_ready && is_ready && input.rax & 0xffff == u64::from(TdxLeaf::SYS_UPDATE.0) {
            self.tds.iter_mut().for_each(|td| td.stale |= td.phase != TdPhase::Running);
        }
        self.compare();
    }

    /// The state of the platform is what the second model thinks that it is.
    fn compare(&mut self) {
        let (opinion, loader) = (&self.opinion, self.platform.loader());
        let found = loader.seamextend();
        let seen = Extend {
            ready: found.seam_ready == 1,
            valid: found.valid.get() == 0x1ff,
            svn: (found.tee_tcb_svn[1], found.tee_tcb_svn[0]),
            image: WORLD.1.iter().position(|hash| *hash == found.mrseam),
        };
        assert_eq!(seen, opinion.extend);
        assert_eq!(found.p_seamldr_ready == 1, !opinion.ended);
        let session: BTreeSet<u32> = loader.session().collect();
        let ids = |lps: &BTreeSet<u32>| -> BTreeSet<u32> {
            lps.iter().map(|lp| self.platform.x2apic_id(*lp).unwrap()).collect()
        };
        assert_eq!((session, loader.shutdown().collect()), (ids(&opinion.session), ids(&opinion.ending)));
        assert!(loader.lps_in_session() < LPS);
        assert_eq!(loader.lps_in_session() as usize, opinion.session.len());
        assert_eq!(loader.num_remaining_updates(), opinion.remaining);
        assert_eq!(loader.seamdb().used, opinion.used);
        let header = self.platform.handoff_header();
        assert_eq!(
            (header.valid != 0, header.hv.get(), header.size.get()),
            (opinion.handoff.valid, opinion.handoff.hv, opinion.handoff.size)
        );
        assert_eq!(self.platform.is_dead(), opinion.dead);
        assert_eq!(self.platform.module_is_callable(), opinion.callable());
        let module = self.platform.module().map(|module| (module.state(), module.num_lps_initialized()));
        let expected = opinion.module.as_ref().map(|module| (module.state, module.lps.len() as u32));
        assert_eq!(module, expected);
        for td in &self.tds {
            let secret = opinion.alive(td.id.number()).then_some(td.secret);
            assert_eq!(self.platform.td_secret(td.id), secret, "TD {}", td.id.number());
        }
    }
}

fn show(for_seamldr: bool, answer: Answer) -> String {
    match answer {
        Err(trap) => format!("{trap:?}"),
        Ok(rax) if for_seamldr => format!("{:?}", S(rax)),
        Ok(rax) => format!("{:?}", T(rax)),
    }
}

fn address() -> impl Strategy<Value = u64> {
    let images = (0..ALL_IMAGES.len(), prop::sample::select(vec![Scenario::Load, Scenario::Update]));
    prop_oneof![
        30 => images.prop_map(|(image, scenario)| params_of(image, scenario)),
        1 => Just(HOLE),
        1 => prop::sample::select(BAD_ADDRESSES.to_vec()),
    ]
}

fn seamldr_call() -> impl Strategy<Value = SeamcallRegs> {
    let target = prop_oneof![Just(BUFFER), Just(HOLE), prop::sample::select(BAD_ADDRESSES.to_vec())];
    let leaf = prop_oneof![
        40 => Just(SeamldrLeaf::Info.rax()),
        10 => Just(SeamldrLeaf::SeamInfo.rax()),
        60 => Just(SeamldrLeaf::Cleanup.rax()),
        1 => Just(SeamldrLeaf::Shutdown.rax()),
        2 => Just(1 << 63 | 5),
    ];
    (leaf, target).prop_map(|(rax, rcx)| SeamcallRegs { rax, rcx, rdx: 7, ..SeamcallRegs::default() })
}

fn module_call() -> impl Strategy<Value = SeamcallRegs> {
    let call = |leaf: u64, rcx: u64| SeamcallRegs { rax: leaf, rcx, ..SeamcallRegs::default() };
    let hv = prop_oneof![
        8 => 0u64..4,
        4 => (0u64..2).prop_map(|hv| hv | 1 << 16),
        1 => Just(1u64 << 17),
        1 => Just(u64::MAX),
    ];
    let update = (0u64..3, prop::sample::select(vec![0u64, 1 << 47, 1 << 6, 1]), 0u64..5);
    let config = (
        prop_oneof![6 => Just(TDMRS), 1 => Just(TDMRS + 8)],
        prop_oneof![6 => Just(1u64), 1 => Just(0), 1 => Just(65)],
        prop_oneof![6 => Just(0x20u64), 1 => Just(0x1f), 1 => Just(0x40)],
    );
    prop_oneof![
        6 => Just(call(35, 0)),
        3 => prop_oneof![4 => Just(0u64), 1 => any::<u64>()].prop_map(move |rcx| call(33, rcx)),
        6 => hv.prop_map(move |rcx| call(52, rcx)),
        4 => Just(call(53, 0)),
        3 => update.prop_map(move |(version, r9, r10)| {
            SeamcallRegs { r9, r10: r10 / 4, ..call(53 | version << 16, 0) }
        }),
        2 => config.prop_map(move |(rcx, rdx, r8)| SeamcallRegs { rdx, r8, ..call(45, rcx) }),
        3 => Just(call(31, 0)),
        2 => Just(SeamcallRegs { rdx: FieldId::MODULE_HV.0, r8: 9, ..call(34, 0) }),
        // With operands that are never good.
        2 => prop::sample::select(vec![32u64, 36, 37, 44, 999, 0, 3]).prop_map(move |leaf| {
            SeamcallRegs { rdx: 1, ..call(leaf, 1) }
        }),
        // Versions and reserved bits.
        1 => (prop::sample::select(vec![3u64, 31, 33, 34, 35, 44, 45, 52, 999]), 16..63u32)
            .prop_map(move |(leaf, bit)| SeamcallRegs { rdx: 1, ..call(leaf | 1 << bit, 1) }),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let phase = prop::sample::select(vec![TdPhase::Running, TdPhase::Build, TdPhase::InterruptedMigration]);
    let lock = prop::sample::select(vec![GlobalLock::Free, GlobalLock::Shared, GlobalLock::Exclusive]);
    let trap = prop::sample::select(vec![None, Some(Trap::GeneralProtection), Some(Trap::UndefinedOpcode)]);
    let all = Just(vec![0, 1, 2]).prop_shuffle();
    let size = prop::sample::select(vec![0u32, 53385, 53386, 53391, 14 * 4096 - 8, 14 * 4096 - 7, 1 << 20]);
    prop_oneof![
        20 => (0..LPS, module_call()).prop_map(|(lp, regs)| Action::Call(lp, regs)),
        5 => (0..LPS, seamldr_call()).prop_map(|(lp, regs)| Action::Call(lp, regs)),
        3 => (0..LPS, address()).prop_map(|(lp, address)| Action::Install(vec![lp], address)),
        12 => (all, address()).prop_map(|(lps, address)| Action::Install(lps, address)),
        8 => any::<bool>().prop_map(|updates| Action::BringUp { updates }),
        8 => (prop::sample::select(vec![0, 1, 12, 13, 14]), prop::sample::select(vec![0, 1, 3, 1 << 16]))
            .prop_map(|(image, rcx)| Action::Update(image, rcx)),
        2 => (0u32..3).prop_map(Action::Rdrand),
        2 => (0u32..7).prop_map(Action::SeamDb),
        2 => (0u32..3).prop_map(Action::Interrupts),
        1 => size.prop_map(Action::HandoffSize),
        1 => (0..LPS).prop_map(Action::Deviate),
        1 => (0..LPS, trap).prop_map(|(lp, trap)| Action::Trap(lp, trap)),
        2 => (0..LPS, any::<bool>()).prop_map(|(lp, inside)| Action::Inside(lp, inside)),
        1 => lock.prop_map(Action::Lock),
        6 => phase.prop_map(Action::Create),
        4 => any::<usize>().prop_map(Action::Finish),
    ]
}

/// Runs these on both, from a platform on which one image is ready.
fn run(profile: LoaderProfile, first: usize, actions: &[Action]) -> Pair {
    let mut pair = Pair::new(profile);
    // The first entry of all needs a random number; here it has one.
    pair.act(&Action::Install(vec![0, 1, 2], params_of(first, Scenario::Load)));
    pair.act(&Action::BringUp { updates: false });
    assert!(pair.opinion.module.as_ref().is_some_and(|module| module.state == State::Ready));
    actions.iter().for_each(|action| pair.act(action));
    pair
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn both_models_answer_every_call_alike(
        profile in prop::sample::select(LoaderProfile::ALL.to_vec()),
        first in prop::sample::select(vec![0, 13]),
        actions in prop::collection::vec(action(), 1..80),
    ) {
        run(profile.1, first, &actions);
    }
}

/// Otherwise the agreement of the models would not mean much.
#[test]
fn random_calls_meet_every_answer_that_there_is() {
    let mut runner = TestRunner::deterministic();
    let mut seen = HashSet::new();
    for number in 0..300 {
        let (_, profile) = LoaderProfile::ALL[number % 4];
        let actions = prop::collection::vec(action(), 80).new_tree(&mut runner).unwrap().current();
        seen.extend(run(profile, [0, 13][number / 4 % 2], &actions).seen);
    }
    let seamldr = S::TABLE.iter().map(|row| row.status).filter(|status| *status != S::EUNSPECERR);
    let missing: Vec<S> = seamldr.filter(|status| !seen.contains(&(true, Ok(status.0)))).collect();
    assert_eq!(missing, []);
    let module = [
        T::SUCCESS,
        T::OPERAND_INVALID,
        T::SYS_BUSY,
        T::RND_NO_ENTROPY,
        T::SYS_INIT_NOT_PENDING,
        T::SYS_LP_INIT_NOT_DONE,
        T::SYS_LP_INIT_DONE,
        T::SYS_NOT_READY,
        T::SYS_SHUTDOWN,
        T::SYS_KEY_CONFIG_NOT_PENDING,
        T::SYS_STATE_INCORRECT,
        T::SYS_INVALID_HANDOFF,
        T::SYS_INCOMPATIBLE_SIGSTRUCT,
        T::SYS_LP_INIT_NOT_PENDING,
        T::SYS_CONFIG_NOT_PENDING,
        T::UPDATE_COMPATIBILITY_SENSITIVE,
        T::KEY_CONFIGURED,
        T::INCONSISTENT_MSR,
    ];
    let missing: Vec<T> =
        module.into_iter().filter(|status| !seen.contains(&(false, Ok(status.0)))).collect();
    assert_eq!(missing, []);
    for trap in Trap::ALL {
        assert!(seen.contains(&(false, Err(trap))) && seen.contains(&(true, Err(trap))), "{trap:?}");
    }
}
