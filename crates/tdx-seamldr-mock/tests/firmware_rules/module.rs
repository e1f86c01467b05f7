//! The rules of the TDX module.

use tdx_seamldr_core::abi::{
    FieldId, HandoffHeader, OperandId, Scenario, SeamldrStatus, TdxLeaf, TdxStatus,
};
use tdx_seamldr_core::{TdxModule, Trap};
use tdx_seamldr_mock::model::ModuleState as State;
use tdx_seamldr_mock::{SimPlatform, TestImage};
use zerocopy::little_endian::{U16, U32};
use zerocopy::IntoBytes;

use super::support::*;
use super::{call, session, shut_down};

/// Returns a platform of 2 LPs whose module is in this state. TDH.SYS.LP.INIT ran on one LP or on
/// both.
fn in_state(state: State, all_lps: bool) -> SimPlatform {
    let platform = boot(SimPlatform::builder().lps(2));
    if state == State::Ready {
        return platform;
    }
    shut_down(&platform);
    if state == State::Shutdown {
        return platform;
    }
    assert_eq!(
        session(&platform, &newer().build(), Scenario::Update, |_| {}).0,
        SeamldrStatus::SUCCESS
    );
    if state != State::SysInitPending {
        assert_eq!(call(&platform, 0, SYS_INIT, 0, 0).unwrap().0, 0);
        assert_eq!(call(&platform, 0, LP_INIT, 0, 0).unwrap().0, 0);
        if all_lps {
            assert_eq!(call(&platform, 1, LP_INIT, 0, 0).unwrap().0, 0);
        }
    }
    if state == State::SysConfigDone {
        let list = platform.tdmr_list().unwrap();
        // SAFETY: the list is alive.
        unsafe { TdxModule::new(&platform.lp(0)).sys_config(list.address(), 1, 0x20, false) }
            .unwrap();
    }
    platform
}

#[test]
fn each_leaf_of_the_module_returns_the_status_for_the_state() {
    use TdxStatus as S;
    const OK: TdxStatus = TdxStatus::SUCCESS;
    const BAD_R8: TdxStatus = TdxStatus(S::OPERAND_INVALID.0 | OperandId::R8.0 as u64);
    const BAD_RAX: TdxStatus = TdxStatus(S::OPERAND_INVALID.0 | OperandId::RAX.0 as u64);
    let states = [
        (State::SysInitPending, false),
        (State::SysInitDone, false),
        (State::SysInitDone, true),
        (State::SysConfigDone, true),
        (State::Ready, true),
        (State::Shutdown, true),
    ];
    let module_hv = FieldId::MODULE_HV.0;
    let leaf = |leaf: TdxLeaf| u64::from(leaf.0);
    let rows: [(u64, u64, [TdxStatus; 6]); 9] = [
        (
            leaf(TdxLeaf::SYS_INIT),
            0,
            [
                OK,
                S::SYS_INIT_NOT_PENDING,
                S::SYS_INIT_NOT_PENDING,
                S::SYS_INIT_NOT_PENDING,
                S::SYS_INIT_NOT_PENDING,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            leaf(TdxLeaf::SYS_LP_INIT),
            0,
            [
                S::SYS_LP_INIT_NOT_PENDING,
                S::SYS_LP_INIT_DONE,
                S::SYS_LP_INIT_DONE,
                S::SYS_LP_INIT_NOT_PENDING,
                S::SYS_LP_INIT_NOT_PENDING,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            leaf(TdxLeaf::SYS_RD),
            module_hv,
            [S::SYS_LP_INIT_NOT_DONE, OK, OK, OK, OK, S::SYS_SHUTDOWN],
        ),
        (
            leaf(TdxLeaf::SYS_CONFIG),
            1,
            [
                S::SYS_CONFIG_NOT_PENDING,
                S::SYS_CONFIG_NOT_PENDING,
                BAD_R8,
                S::SYS_CONFIG_NOT_PENDING,
                S::SYS_CONFIG_NOT_PENDING,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            leaf(TdxLeaf::SYS_KEY_CONFIG),
            0,
            [
                S::SYS_KEY_CONFIG_NOT_PENDING,
                S::SYS_KEY_CONFIG_NOT_PENDING,
                S::SYS_KEY_CONFIG_NOT_PENDING,
                OK,
                S::SYS_KEY_CONFIG_NOT_PENDING,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            leaf(TdxLeaf::SYS_UPDATE),
            0,
            [
                S::SYS_STATE_INCORRECT,
                S::SYS_STATE_INCORRECT,
                OK,
                S::SYS_STATE_INCORRECT,
                S::SYS_STATE_INCORRECT,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            leaf(TdxLeaf::SYS_SHUTDOWN),
            0,
            [
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                OK,
                S::SYS_SHUTDOWN,
            ],
        ),
        (
            999,
            0,
            [
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                S::SYS_NOT_READY,
                BAD_RAX,
                S::SYS_SHUTDOWN,
            ],
        ),
        (leaf(TdxLeaf::SYS_LP_SHUTDOWN), 0, [OK; 6]),
    ];
    for (rax, rdx, expected) in rows {
        for ((state, all_lps), status) in states.into_iter().zip(expected) {
            let platform = in_state(state, all_lps);
            let (rax_out, _) = call(&platform, 0, rax, 0, rdx).unwrap();
            assert_eq!(TdxStatus(rax_out), status, "leaf {rax} in {state:?}, all LPs: {all_lps}");
            // Reserved bits and versions are checked first.
            for reserved in [1 << 24, 1 << 62, 1 << 16] {
                let (rax_out, _) = call(&platform, 0, rax | reserved, 0, rdx).unwrap();
                assert_eq!(
                    TdxStatus(rax_out),
                    BAD_RAX,
                    "leaf {rax} in {state:?} with {reserved:#x}"
                );
            }
        }
    }
}

#[test]
fn shutdown_accepts_the_handoff_versions_that_the_module_can_write() {
    let rows: [(bool, &[u64], &[u64]); 2] =
        [(false, &[1, 2, 3], &[0, 4, 1 << 16, 1 << 16 | 2, 1 << 63]), (true, &[3], &[0, 1, 2, 4])];
    for (no_downgrade, good, bad) in rows {
        let image =
            TestImage { module_hv: 3, min_update_hv: 1, no_downgrade, ..TestImage::default() };
        for rcx in good {
            let platform = boot_from(SimPlatform::builder().lps(2), &image);
            assert_eq!(call(&platform, 1, SHUTDOWN, *rcx, 0).unwrap().0, 0, "{rcx:#x}");
            let header = platform.with_model(|model| model.handoff_header());
            assert_eq!(
                (header.valid, u64::from(header.hv.get()), header.size.get()),
                (1, *rcx, 53386)
            );
        }
        let platform = boot_from(SimPlatform::builder().lps(2), &image);
        for rcx in bad {
            assert_eq!(
                call(&platform, 1, SHUTDOWN, *rcx, 0).unwrap().0,
                0xC000_0100_0000_0001,
                "{rcx:#x}"
            );
        }
        assert_eq!(platform.truth().tds_alive, 3);
    }
}

#[test]
fn update_accepts_handoff_data_of_its_versions_and_of_valid_size() {
    let header = |valid, hv, size| HandoffHeader {
        valid,
        reserved: 0,
        hv: U16::new(hv),
        size: U32::new(size),
    };
    let update = |header: HandoffHeader| {
        let platform = in_state(State::SysInitDone, true);
        platform.with_model(|model| model.handoff()[..8].copy_from_slice(header.as_bytes()));
        let result = call(&platform, 1, UPDATE, 0, 0).map(|(rax, _)| TdxStatus(rax));
        (result, platform)
    };
    for bad in [header(0, 0, 53386), header(1, 1, 53386), header(0, 0, 0), header(1, 1, 0)] {
        let (result, platform) = update(bad);
        assert_eq!(result, Ok(TdxStatus::SYS_INVALID_HANDOFF), "{bad:?}");
        assert_eq!(
            platform.with_model(|model| model.handoff_header()),
            bad,
            "the handoff header is unchanged"
        );
    }
    for fatal in [0, 53385, 14 * 4096 - 7] {
        let (result, platform) = update(header(1, 0, fatal));
        assert_eq!(result, Err(Trap::VmFailInvalid), "a size of {fatal} bytes ends SEAM mode");
        assert_eq!(call(&platform, 0, INSTALL, 0, 0), Err(Trap::VmFailInvalid));
    }
    for good in [53386, 14 * 4096 - 8] {
        let (result, platform) = update(header(1, 0, good));
        assert_eq!((result, platform.truth().tds_alive), (Ok(TdxStatus::SUCCESS), 3));
        let used = platform.with_model(|model| model.handoff_header());
        assert_eq!((used.valid, used.size.get()), (0, 0));
    }
}

#[test]
fn tds_survive_only_if_the_bytes_of_the_handoff_data_do() {
    let platform = in_state(State::SysInitDone, true);
    // The entry of the first TD's KeyID in the key ownership table.
    platform.with_model(|model| model.handoff()[8 + 8 * 0x21..][..8].fill(0));
    assert_eq!(call(&platform, 0, UPDATE, 0, 0).unwrap().0, 0);
    let truth = platform.truth();
    assert_eq!((truth.tds, truth.tds_alive), (3, 2));
}

#[test]
fn sys_rd_reads_all_fields_one_after_the_other() {
    let platform = boot(SimPlatform::builder().lps(1));
    let lp = platform.lp(0);
    let module = TdxModule::new(&lp);
    let mut field = module.sys_rd(FieldId::NULL).unwrap().next;
    let mut seen = Vec::new();
    while field != FieldId::NULL {
        seen.push(field);
        field = module.sys_rd(field).unwrap().next;
    }
    assert!(seen.contains(&FieldId::TDX_FEATURES0) && seen.contains(&FieldId::HANDOFF_DATA_SIZE));
    assert_eq!(module.version().unwrap().to_string(), "1.5.05");
    assert_eq!(module.sys_rd(FieldId::BUILD_DATE).unwrap().value, 20240129);
    assert_eq!(
        call(&platform, 0, SYS_RD, 0, 0x1234),
        Ok((TdxStatus::METADATA_FIELD_ID_INCORRECT.0, u64::MAX))
    );
}

#[test]
fn sys_init_fails_if_p_seamldr_tells_the_module_wrong_handoff_versions() {
    let platform = in_state(State::SysInitPending, false);
    assert_eq!(call(&platform, 0, SYS_INIT, 1, 0).unwrap().0, 0xC000_0100_0000_0001, "attributes");
    let few_pages = TestImage { num_handoff_pages: 12, ..newer() };
    let platform = boot(SimPlatform::builder().lps(1));
    shut_down(&platform);
    assert_eq!(
        session(&platform, &few_pages.build(), Scenario::Update, |_| {}).0,
        SeamldrStatus::SUCCESS
    );
    assert_eq!(
        call(&platform, 0, SYS_INIT, 0, 0).unwrap().0,
        TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT.0
    );
    assert_eq!(
        platform.truth().module.unwrap().state,
        State::SysInitPending,
        "the module can still be replaced"
    );
}
