//! Random calls, and events between them.

use proptest::prelude::*;
use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrLeaf};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{GlobalLock, TdPhase};

use crate::world::{params_of, ALL_IMAGES, BAD_ADDRESSES, BUFFER, HOLE, LPS, TDMRS};

/// An action. Some actions make several calls.
#[derive(Clone, Debug)]
pub(crate) enum Action {
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

fn address() -> impl Strategy<Value = u64> {
    let images =
        (0..ALL_IMAGES.len(), prop::sample::select(vec![Scenario::Load, Scenario::Update]));
    prop_oneof![
        30 => images.prop_map(|(image, scenario)| params_of(image, scenario)),
        1 => Just(HOLE),
        1 => prop::sample::select(BAD_ADDRESSES.to_vec()),
    ]
}

fn seamldr_call() -> impl Strategy<Value = SeamcallRegs> {
    let target =
        prop_oneof![Just(BUFFER), Just(HOLE), prop::sample::select(BAD_ADDRESSES.to_vec())];
    let leaf = prop_oneof![
        40 => Just(SeamldrLeaf::Info.rax()),
        10 => Just(SeamldrLeaf::SeamInfo.rax()),
        60 => Just(SeamldrLeaf::Cleanup.rax()),
        1 => Just(SeamldrLeaf::Shutdown.rax()),
        2 => Just(1 << 63 | 5),
    ];
    (leaf, target).prop_map(|(rax, rcx)| SeamcallRegs {
        rax,
        rcx,
        rdx: 7,
        ..SeamcallRegs::default()
    })
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
        // With operands that are never valid.
        2 => prop::sample::select(vec![32u64, 36, 37, 44, 999, 0, 3]).prop_map(move |leaf| {
            SeamcallRegs { rdx: 1, ..call(leaf, 1) }
        }),
        // Versions and reserved bits.
        1 => (prop::sample::select(vec![3u64, 31, 33, 34, 35, 44, 45, 52, 999]), 16..63u32)
            .prop_map(move |(leaf, bit)| SeamcallRegs { rdx: 1, ..call(leaf | 1 << bit, 1) }),
    ]
}

pub(crate) fn action() -> impl Strategy<Value = Action> {
    let phase =
        prop::sample::select(vec![TdPhase::Running, TdPhase::Build, TdPhase::InterruptedMigration]);
    let lock =
        prop::sample::select(vec![GlobalLock::Free, GlobalLock::Shared, GlobalLock::Exclusive]);
    let trap = prop::sample::select(vec![
        None,
        Some(Trap::GeneralProtection),
        Some(Trap::UndefinedOpcode),
    ]);
    let all = Just(vec![0, 1, 2]).prop_shuffle();
    let size = prop::sample::select(vec![
        0u32,
        53385,
        53386,
        53391,
        14 * 4096 - 8,
        14 * 4096 - 7,
        25 * 4096 - 8,
        25 * 4096 - 7,
        1 << 20,
    ]);
    prop_oneof![
        20 => (0..LPS, module_call()).prop_map(|(lp, regs)| Action::Call(lp, regs)),
        5 => (0..LPS, seamldr_call()).prop_map(|(lp, regs)| Action::Call(lp, regs)),
        3 => (0..LPS, address()).prop_map(|(lp, address)| Action::Install(vec![lp], address)),
        12 => (all, address()).prop_map(|(lps, address)| Action::Install(lps, address)),
        8 => any::<bool>().prop_map(|updates| Action::BringUp { updates }),
        8 => (
            prop::sample::select(vec![0, 1, 12, 13, 14]),
            prop::sample::select(vec![0, 1, 3, 1 << 16]),
        )
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
