//! Random calls from random LPs, and the rules that always hold.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use tdx_seamldr_core::abi::{
    self, HandoffHeader, SeamExtend, SeamSigstruct, SeamldrLeaf, SeamldrParams,
};
use tdx_seamldr_core::abi::{SeamldrStatus, TdxLeaf, PAGE_SIZE};
use tdx_seamldr_core::{Crypto, SeamcallRegs, Sha384Digest, TdxImage, Trap};
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, ModuleState, PhysMemory, Platform, SeamDb, SeamMemory,
};
use tdx_seamldr_mock::model::{TdPhase, TraceEntry};
use tdx_seamldr_mock::{TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

const LPS: u32 = 3;
/// Addresses of images, parameters and buffers.
const IMAGES: u64 = 0x1_0000_0000;
const PARAMS: u64 = 0x2_0000_0000;
const BUFFER: u64 = 0x3_0000_0000;
const TDMRS: u64 = 0x4_0000_0000;

/// Host memory by pages.
#[derive(Clone, Default)]
struct Memory(RefCell<BTreeMap<u64, Box<[u8; PAGE_SIZE]>>>);

impl Memory {
    fn put(&self, address: u64, bytes: &[u8]) {
        for (page, bytes) in (address / 4096..).zip(bytes.chunks(PAGE_SIZE)) {
            self.0.borrow_mut().entry(page).or_insert_with(|| Box::new([0; PAGE_SIZE]))
                [..bytes.len()]
                .copy_from_slice(bytes);
        }
    }
}

impl PhysMemory for Memory {
    fn read(&self, address: u64, out: &mut [u8]) {
        let offset = (address % 4096) as usize;
        match self.0.borrow().get(&(address / 4096)) {
            Some(page) => out.copy_from_slice(&page[offset..offset + out.len()]),
            None => out.fill(0),
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        let offset = (address % 4096) as usize;
        let mut pages = self.0.borrow_mut();
        let page = pages.entry(address / 4096).or_insert_with(|| Box::new([0; PAGE_SIZE]));
        page[offset..offset + bytes.len()].copy_from_slice(bytes);
    }
}

/// Bytes by their start address.
type Pieces = BTreeMap<u64, Vec<u8>>;

/// The images: two successive ones, an older one, one for another CPU, one that needs other handoff
/// data, and a damaged one. Also the hashes that were signed.
static WORLD: LazyLock<(Pieces, Vec<Sha384Digest>)> = LazyLock::new(|| {
    let base = TestImage { pages: 3, ..TestImage::default() };
    let images = [
        base.clone(),
        TestImage { svn_minor: 6, ..base.clone() },
        TestImage { svn_minor: 1, ..base.clone() },
        TestImage { cpus: vec![0xa06d0], ..base.clone() },
        TestImage { module_hv: 3, min_update_hv: 2, ..base.clone() },
        base,
    ];
    let mut pages = BTreeMap::new();
    let mut hashes = Vec::new();
    for (number, image) in (0u64..).zip(&images) {
        let file = image.build();
        let file = TdxImage::parse(file.as_bytes()).unwrap();
        let start = IMAGES + number * 0x10000;
        pages.insert(start, file.sigstruct().as_bytes().to_vec());
        let mut module = file.module().to_vec();
        if number == 5 {
            module[100] ^= 1;
        }
        pages.insert(start + 4096, module);
        hashes.push(file.sigstruct().seamhash);
        for scenario in 0..2u32 {
            let mut params = SeamldrParams::new_zeroed();
            params.scenario = U32::new(scenario);
            params.sigstruct_pa = U64::new(start);
            params.num_module_pages = U64::new(3);
            for (index, slot) in (1u64..).zip(&mut params.module_page_pa[..3]) {
                *slot = U64::new(start + index * 4096);
            }
            pages.insert(
                PARAMS + (number * 2 + u64::from(scenario)) * 4096,
                params.as_bytes().to_vec(),
            );
        }
    }
    let list = (TDMRS + 4096).to_le_bytes().to_vec();
    let info: [u64; 8] = [
        32 << 30,
        1 << 30,
        40 << 30,
        0x1000,
        (40 << 30) + 0x1000,
        0x2000,
        (40 << 30) + 0x10000,
        0x40_0000,
    ];
    pages.insert(TDMRS, list);
    pages.insert(TDMRS + 4096, info.map(u64::to_le_bytes).concat());
    (pages, hashes)
});

#[derive(Clone, Debug)]
enum Action {
    Call { lp: u32, rax: u64, rcx: u64, rdx: u64, r8: u64 },
    Rdrand(u32),
    SeamDb(u32),
    CreateTd(u8),
}

fn action() -> impl Strategy<Value = Action> {
    let tdx = |leaf: TdxLeaf| leaf.rax(0);
    let params = (0u64..12).prop_map(|number| PARAMS + number * 4096);
    let install = (0..LPS, params, Just(SeamldrLeaf::Install.rax()));
    let module = prop_oneof![
        4 => Just((tdx(TdxLeaf::SYS_LP_INIT), 0, 0, 0)),
        2 => Just((tdx(TdxLeaf::SYS_INIT), 0, 0, 0)),
        2 => Just((tdx(TdxLeaf::SYS_UPDATE), 0, 0, 0)),
        2 => (0u64..4).prop_map(move |hv| (tdx(TdxLeaf::SYS_SHUTDOWN), hv, 0, 0)),
        2 => Just((tdx(TdxLeaf::SYS_CONFIG), TDMRS, 1, 0x20)),
        2 => Just((tdx(TdxLeaf::SYS_KEY_CONFIG), 0, 0, 0)),
        1 => any::<u64>().prop_map(move |id| (tdx(TdxLeaf::SYS_RD), 0, id, 0)),
        1 => Just((tdx(TdxLeaf::SYS_RD), 0, u64::MAX, 0)),
        1 => any::<(u8, u64, u64, u64)>()
            .prop_map(|(leaf, rcx, rdx, r8)| (leaf.into(), rcx, rdx, r8)),
    ];
    prop_oneof![
        8 => install.prop_map(|(lp, rcx, rax)| Action::Call { lp, rax, rcx, rdx: 7, r8: 0 }),
        8 => (0..LPS, module)
            .prop_map(|(lp, (rax, rcx, rdx, r8))| Action::Call { lp, rax, rcx, rdx, r8 }),
        1 => (0..LPS, prop_oneof![Just(BUFFER), any::<u64>()], 0u64..8)
            .prop_filter("SEAMLDR.SHUTDOWN ends the test", |(.., leaf)| *leaf != 2)
            .prop_map(|(lp, rcx, leaf)| {
                Action::Call { lp, rax: 1 << 63 | leaf, rcx, rdx: 0, r8: 0 }
            }),
        1 => (0u32..3).prop_map(Action::Rdrand),
        1 => (0u32..7).prop_map(Action::SeamDb),
        1 => any::<u8>().prop_map(Action::CreateTd),
    ]
}

struct World {
    platform: Platform<Box<SeamMemory>>,
    memory: Memory,
    trace: Vec<TraceEntry>,
    secrets: Vec<(tdx_seamldr_mock::model::TdId, [u8; 32])>,
}

/// The state that a call may change.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    seamextend: SeamExtend,
    seamdb: SeamDb,
    remaining: u32,
    in_session: u32,
    handoff: HandoffHeader,
    module: Option<(ModuleState, u32)>,
}

impl World {
    fn new(profile: LoaderProfile) -> Self {
        let config = Config::new(LPS, 1, 0x806f8, TEST_SIGNER, profile).unwrap();
        let seamdb = SeamDb { size: 9, used: 0, insert_failures: 0 };
        let memory = Memory::default();
        WORLD.0.iter().for_each(|(address, bytes)| memory.put(*address, bytes));
        let platform = Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap());
        let mut world = Self { platform, memory, trace: Vec::new(), secrets: Vec::new() };
        // A module of the first image is ready; otherwise most calls would fail.
        let calls =
            |lp: u32, rax: u64, rcx: u64, rdx: u64, r8: u64| Action::Call { lp, rax, rcx, rdx, r8 };
        (0..LPS).for_each(|lp| world.act(&calls(lp, SeamldrLeaf::Install.rax(), PARAMS, 0, 0)));
        world.act(&calls(0, TdxLeaf::SYS_INIT.rax(0), 0, 0, 0));
        (0..LPS).for_each(|lp| world.act(&calls(lp, TdxLeaf::SYS_LP_INIT.rax(0), 0, 0, 0)));
        world.act(&calls(0, TdxLeaf::SYS_CONFIG.rax(0), TDMRS, 1, 0x20));
        world.act(&calls(0, TdxLeaf::SYS_KEY_CONFIG.rax(0), 0, 0, 0));
        world.act(&Action::CreateTd(1));
        assert_eq!(world.seen().module, Some((ModuleState::Ready, LPS)));
        world
    }

    fn seen(&self) -> Seen {
        let loader = self.platform.loader();
        Seen {
            seamextend: *loader.seamextend(),
            seamdb: *loader.seamdb(),
            remaining: loader.num_remaining_updates(),
            in_session: loader.lps_in_session(),
            handoff: self.platform.handoff_header(),
            module: self
                .platform
                .module()
                .map(|module| (module.state(), module.num_lps_initialized())),
        }
    }

    fn act(&mut self, action: &Action) {
        match *action {
            Action::Rdrand(failures) => self.platform.config_mut().rdrand_failures = failures,
            Action::SeamDb(failures) => self.platform.seamdb_mut().insert_failures = failures,
            Action::CreateTd(secret) => {
                let secret = [secret; 32];
                let td = self.platform.create_td(TdPhase::Running, secret);
                self.secrets.extend(td.map(|td| (td, secret)));
            }
            Action::Call { lp, rax, rcx, rdx, r8 } => {
                let input = SeamcallRegs { rax, rcx, rdx, r8, ..SeamcallRegs::default() };
                let mut output = input;
                let result = self.platform.seamcall(lp, &mut output, &self.memory, &RustCrypto);
                self.trace.push(TraceEntry { lp, input, output: result.map(|()| output) });
            }
        }
    }

    /// Takes a step and checks the whole state.
    fn checked(&mut self, action: &Action) {
        let before = self.seen();
        self.act(action);
        let after = self.seen();
        assert!(after.in_session < LPS);
        if after.seamextend.seam_ready == 1 {
            assert!(
                WORLD.1.contains(&after.seamextend.mrseam),
                "only a signed module becomes ready"
            );
            assert!(after.module.is_some() && after.in_session == 0);
        }
        for (td, secret) in &self.secrets {
            let seen = self.platform.td_secret(*td);
            assert!(
                seen.is_none()
                    || seen == Some(*secret) && after.module.unwrap().0 == ModuleState::Ready
            );
        }
        let Action::Call { rax, rcx, .. } = *action else { return };
        let Some(entry) = self.trace.last() else { return };
        let is_install = rax == SeamldrLeaf::Install.rax();
        if after.remaining > before.remaining {
            let is_load = is_install && rcx & 0x1000 == 0;
            let is_refresh = rax == SeamldrLeaf::Info.rax() && before.remaining == 0;
            assert!(is_load || is_refresh || rax == SeamldrLeaf::Cleanup.rax(), "{entry}");
        }
        match entry.output {
            Err(_) => assert_eq!(before, after, "{entry}"),
            Ok(regs) if is_install && regs.rax != 0 && regs.rdx == 0 => {
                // The old module is unchanged since before the session.
                assert_eq!(
                    (before.handoff, before.module, before.seamdb.used),
                    (after.handoff, after.module, after.seamdb.used)
                );
                let mut ready = before.seamextend;
                ready.seam_ready = after.seamextend.seam_ready;
                assert_eq!(ready, after.seamextend, "{entry}");
            }
            Ok(regs) if is_install && regs.rax != 0 => {
                assert_eq!(
                    (regs.rdx, after.seamextend.seam_ready, after.module),
                    (1, 0, None),
                    "{entry}"
                );
            }
            Ok(regs) if rax >> 63 == 0 && regs.rax >> 61 != 0 => {
                assert_eq!(before, after, "{entry}")
            }
            Ok(_) => {}
        }
        // State that a call to the module cannot change.
        if rax >> 63 == 0 && entry.output != Err(Trap::VmFailInvalid) {
            assert_eq!(
                (before.seamextend, before.seamdb, before.in_session),
                (after.seamextend, after.seamdb, after.in_session)
            );
        }
    }
}

fn run(profile: LoaderProfile, actions: &[Action]) -> Vec<TraceEntry> {
    let mut world = World::new(profile);
    actions.iter().for_each(|action| world.checked(action));
    world.trace
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn rules_hold_for_random_calls_and_the_trace_is_reproducible(
        profile in prop::sample::select(LoaderProfile::ALL.to_vec()),
        actions in prop::collection::vec(action(), 1..60),
    ) {
        prop_assert_eq!(run(profile.1, &actions), run(profile.1, &actions));
    }
}

/// Returns the next number of a deterministic sequence.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

#[test]
fn a_seed_gives_the_same_trace_in_every_build() {
    let mut state = 0x1234_5678_9abc_def0;
    let leaves = [
        TdxLeaf::SYS_SHUTDOWN,
        TdxLeaf::SYS_INIT,
        TdxLeaf::SYS_LP_INIT,
        TdxLeaf::SYS_UPDATE,
        TdxLeaf::SYS_RD,
    ];
    let actions: Vec<Action> = (0..400)
        .map(|_| {
            let (kind, lp) = (next(&mut state), (next(&mut state) % u64::from(LPS)) as u32);
            let number = next(&mut state);
            match kind % 8 {
                0..=3 => {
                    let rcx = PARAMS + number % 10 * 4096;
                    Action::Call { lp, rax: SeamldrLeaf::Install.rax(), rcx, rdx: 0, r8: 0 }
                }
                4..=6 => Action::Call {
                    lp,
                    rax: leaves[(number % 5) as usize].rax(0),
                    rcx: 0,
                    rdx: u64::MAX,
                    r8: 0,
                },
                _ => Action::Rdrand((number % 2) as u32),
            }
        })
        .collect();
    let trace = run(LoaderProfile::V1_5_00, &actions);
    let text: String = trace.iter().map(|entry| format!("{entry}\n")).collect();
    let installed = trace.iter().filter(|entry| {
        entry.input.rax == SeamldrLeaf::Install.rax()
            && matches!(entry.output, Ok(regs) if SeamldrStatus(regs.rax) != SeamldrStatus::SUCCESS)
    });
    assert!(installed.count() > 20);
    let hash: String = RustCrypto.sha384(&[text.as_bytes()]).unwrap()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        hash, "7c608d56c6cf8513",
        "the hash of a trace differs: debug and release have to agree; update it if the format \
         of a trace changed"
    );
}

/// Checks that any bytes are a value, and that the value has the same bytes.
fn goes_round<T: FromBytes + IntoBytes + Immutable + zerocopy::KnownLayout>(bytes: &[u8]) {
    let (value, rest) = T::read_from_prefix(bytes).unwrap();
    assert_eq!(value.as_bytes(), &bytes[..bytes.len() - rest.len()]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn structures_convert_to_the_same_bytes(
        bytes in prop::collection::vec(any::<u8>(), 4096..=4096),
    ) {
        goes_round::<SeamldrParams>(&bytes);
        goes_round::<SeamSigstruct>(&bytes);
        goes_round::<SeamExtend>(&bytes);
        goes_round::<HandoffHeader>(&bytes);
        goes_round::<abi::SeamldrInfo>(&bytes);
        goes_round::<abi::PSysInfo>(&bytes);
        goes_round::<abi::Cmr>(&bytes);
        let sigstruct = SeamSigstruct::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!(sigstruct.svn_minor, bytes[948]);
        prop_assert_eq!(sigstruct.num_handoff_pages.get().to_le_bytes(), [bytes[990], bytes[991]]);
        let signed = [&bytes[..128], &bytes[900..2048]].concat();
        prop_assert_eq!(sigstruct.signed_parts().concat(), signed);
        let info = abi::SeamldrInfo::read_from_prefix(&bytes).unwrap().0;
        prop_assert_eq!(info.seamextend.seam_ready, bytes[160]);
        prop_assert_eq!(info.num_remaining_updates.get().to_le_bytes().to_vec(),
            bytes[28..32].to_vec());
    }
}
