//! The worked traces (firmware rules T0-T12), call by call, and other properties of the CPU.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod support;

use support::*;
use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrStatus, TdxFeatures0, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{LoaderState, ModuleBuild, ModuleState as State, TdPhase, NO_VMCS};
use tdx_seamldr_mock::{Answer, Fault, SimPlatform, TestImage};

const OK: Result<(u64, u64), Trap> = Ok((0, 0));

/// Makes one call with RCX; returns RAX and RDX.
fn call(platform: &SimPlatform, lp: u32, rax: u64, rcx: u64) -> Result<(u64, u64), Trap> {
    call_rdx(platform, lp, rax, rcx, 0)
}

fn call_rdx(
    platform: &SimPlatform,
    lp: u32,
    rax: u64,
    rcx: u64,
    rdx: u64,
) -> Result<(u64, u64), Trap> {
    let regs = SeamcallRegs { rax, rcx, rdx, ..SeamcallRegs::default() };
    call_regs(platform, lp, regs).map(|regs| (regs.rax, regs.rdx))
}

/// Calls `run` with the address of SEAMLDR_PARAMS for this image.
fn with_image<R>(
    platform: &SimPlatform,
    image: &TestImage,
    scenario: Scenario,
    run: impl FnOnce(u64) -> R,
) -> R {
    with_params(platform, &image.build(), scenario, run)
}

/// Returns what the traces show: SEAM_READY, the module's state, whether handoff data is valid,
/// remaining updates.
fn state(platform: &SimPlatform) -> (u8, Option<State>, bool, u32) {
    let ready = platform.with_model(|model| model.loader().seamextend().seam_ready);
    let truth = platform.truth();
    (ready, truth.module.map(|module| module.state), truth.handoff_valid, truth.remaining_updates)
}

fn alive(platform: &SimPlatform) -> usize {
    platform.truth().tds_alive
}

/// Calls TDH.SYS.INIT, TDH.SYS.LP.INIT on all LPs, and TDH.SYS.UPDATE.
fn bring_up(platform: &SimPlatform, lps: u32) {
    assert_eq!(call(platform, 0, SYS_INIT, 0), OK);
    assert_eq!(state(platform).1, Some(State::SysInitDone));
    for lp in 0..lps {
        assert_eq!(call(platform, lp, LP_INIT, 0), OK);
    }
    assert_eq!(call(platform, 0, UPDATE, 0), OK);
}

fn refusal(status: SeamldrStatus, rdx: u64) -> Result<(u64, u64), Trap> {
    Ok((status.0, rdx))
}

#[test]
fn t0_an_update_with_all_lps_online_succeeds() {
    let platform = boot(SimPlatform::builder().lps(3));
    assert_eq!(state(&platform), (1, Some(State::Ready), false, 63));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    assert_eq!(state(&platform), (1, Some(State::Shutdown), true, 63));
    with_image(&platform, &newer(), Scenario::Update, |params| {
        for (lp, ready) in [(0, 0), (1, 0), (2, 1)] {
            assert_eq!(call(&platform, lp, INSTALL, params), OK);
            assert_eq!(state(&platform).0, ready, "after LP {lp}");
        }
    });
    assert_eq!(state(&platform), (1, Some(State::SysInitPending), true, 62));
    assert!((0..3)
        .all(|lp| !platform.with_model(|model| model.module().unwrap().is_lp_initialized(lp))));
    bring_up(&platform, 3);
    assert_eq!((state(&platform), alive(&platform)), ((1, Some(State::Ready), false, 62), 3));
}

#[test]
fn t1_shutdown_is_busy_while_an_lp_is_inside_the_old_module() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform.with_model(|model| model.set_in_module(1, true));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), Ok((TdxStatus::SYS_BUSY.0, 0)));
    assert_eq!((state(&platform), alive(&platform)), ((1, Some(State::Ready), false, 63), 3));
    platform.with_model(|model| model.set_in_module(1, false));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
}

#[test]
fn t2_after_a_bad_signature_a_second_session_is_possible() {
    let platform = boot(SimPlatform::builder().lps(3));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_params(&platform, &with_wrong_signature(), Scenario::Update, |params| {
        assert_eq!([0, 1].map(|lp| call(&platform, lp, INSTALL, params)), [OK, OK]);
        assert_eq!(call(&platform, 2, INSTALL, params), refusal(SeamldrStatus::EBADSIG, 0));
    });
    assert_eq!(state(&platform), (1, Some(State::Shutdown), true, 63));
    assert_eq!(platform.truth().lps_in_session, 0);
    assert_eq!(
        call_rdx(&platform, 0, SYS_RD, 0, FieldId::MODULE_HV.0).unwrap().0,
        TdxStatus::SYS_SHUTDOWN.0
    );
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!([2, 0, 1].map(|lp| call(&platform, lp, INSTALL, params)), [OK, OK, OK]);
    });
    bring_up(&platform, 3);
    assert_eq!(alive(&platform), 3);
}

#[test]
fn t3_a_bad_hash_removes_the_module_and_only_load_works_afterwards() {
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_params(&platform, &with_wrong_hash(), Scenario::Update, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK);
        assert_eq!(call(&platform, 1, INSTALL, params), refusal(SeamldrStatus::EBADHASH, 1));
    });
    let valid = platform.with_model(|model| model.loader().seamextend().valid.get());
    // The header is still there, but no module can use it.
    assert_eq!((state(&platform), valid), ((0, None, true, 63), 0));
    assert_eq!(call(&platform, 0, SYS_INIT, 0), Err(Trap::VmFailInvalid));
    let round = |scenario| {
        with_image(&platform, &newer(), scenario, |params| {
            assert_eq!(call(&platform, 0, INSTALL, params), OK);
            call(&platform, 1, INSTALL, params)
        })
    };
    assert_eq!(round(Scenario::Update), refusal(SeamldrStatus::EBADPARAM, 0));
    assert_eq!(round(Scenario::Load), OK);
    platform.bring_up().unwrap();
    assert_eq!((state(&platform), alive(&platform)), ((1, Some(State::Ready), false, 63), 0));
}

#[test]
fn t4_an_lp_that_was_offline_completes_the_session_later() {
    let platform = boot(SimPlatform::builder().lps(3).offline(2));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!([0, 1].map(|lp| call(&platform, lp, INSTALL, params)), [OK, OK]);
        assert_eq!(state(&platform), (0, Some(State::Shutdown), true, 63));
        assert_eq!(call(&platform, 0, SYS_INIT, 0), Err(Trap::VmFailInvalid));
        assert_eq!(call(&platform, 2, INSTALL, params), OK);
    });
    bring_up(&platform, 3);
    assert_eq!(alive(&platform), 3);
}

#[test]
fn t5_a_second_call_of_an_lp_does_not_change_the_session() {
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!(call(&platform, 1, INSTALL, params), OK);
        assert_eq!(call(&platform, 1, INSTALL, params), refusal(SeamldrStatus::EBADCALL, 0));
        assert_eq!((platform.truth().lps_in_session, state(&platform).0), (1, 0));
        assert_eq!(call(&platform, 0, INSTALL, params), OK);
    });
    assert_eq!(state(&platform).1, Some(State::SysInitPending));
}

#[test]
fn t6_the_last_install_fails_without_remaining_updates() {
    let platform = boot(SimPlatform::builder().lps(2).seamdb_size(1));
    assert_eq!(state(&platform).3, 0);
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK);
        assert_eq!(call(&platform, 1, INSTALL, params), refusal(SeamldrStatus::EBADCALL, 0));
    });
    assert_eq!(state(&platform), (1, Some(State::Shutdown), true, 0));
}

#[test]
fn t7_a_module_rejects_handoff_data_of_a_higher_version() {
    let old = TestImage { module_hv: 1, ..TestImage::default() };
    let platform = boot_from(SimPlatform::builder().lps(1), &old);
    assert_eq!(call(&platform, 0, SHUTDOWN, 1), OK);
    let round = |image: &TestImage| {
        with_image(&platform, image, Scenario::Update, |params| call(&platform, 0, INSTALL, params))
    };
    assert_eq!(round(&newer()), refusal(SeamldrStatus::EBADHANDOFF, 0));
    assert_eq!(
        call(&platform, 0, SHUTDOWN, 0),
        Ok((TdxStatus::SYS_SHUTDOWN.0, 0)),
        "another handoff version can no longer be chosen"
    );
    assert_eq!(round(&TestImage { module_hv: 1, ..newer() }), OK);
    bring_up(&platform, 1);
    assert_eq!(alive(&platform), 3);
}

#[test]
fn t8_a_module_that_does_not_fit_its_sigstruct_can_be_replaced_again() {
    let platform = boot(SimPlatform::builder().lps(1));
    let wrong = TestImage { module_hv: 1, module_build: Some(ModuleBuild::V1_5_01), ..newer() };
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    let round = |image: &TestImage| {
        with_image(&platform, image, Scenario::Update, |params| call(&platform, 0, INSTALL, params))
    };
    assert_eq!(round(&wrong), OK);
    assert_eq!(call(&platform, 0, SYS_INIT, 0), Ok((TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT.0, 0)));
    assert_eq!(state(&platform), (1, Some(State::SysInitPending), true, 62));
    assert_eq!(round(&newer()), OK);
    bring_up(&platform, 1);
    assert_eq!(alive(&platform), 3);
}

#[test]
fn t9_update_fails_if_one_lp_differs_from_the_others() {
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!([0, 1].map(|lp| call(&platform, lp, INSTALL, params)), [OK, OK]);
    });
    assert!(platform.with_model(|model| model.deviate_msr(1, 0x3b, 1)));
    assert_eq!([SYS_INIT, LP_INIT].map(|rax| call(&platform, 0, rax, 0)), [OK, OK]);
    assert_eq!(call(&platform, 1, LP_INIT, 0), Ok((TdxStatus::INCONSISTENT_MSR.0 | 0x3b, 0)));
    assert_eq!(call(&platform, 0, UPDATE, 0), Ok((TdxStatus::SYS_STATE_INCORRECT.0, 0)));
    platform.with_model(|model| model.restore_lp(1));
    assert_eq!(call(&platform, 1, LP_INIT, 0), OK);
    assert_eq!((call(&platform, 0, UPDATE, 0), alive(&platform)), (OK, 3));
}

#[test]
fn t10_shutdown_with_the_flag_fails_while_a_td_is_in_build() {
    let platform = boot_from(SimPlatform::builder().lps(1), &counting(5));
    platform.create_td_in(TdPhase::Build).unwrap();
    assert_eq!(call(&platform, 0, SHUTDOWN, 1 << 16), Ok((0x8000_0512_0001_0000, 0)));
    assert_eq!((state(&platform), alive(&platform)), ((1, Some(State::Ready), false, 63), 4));
    // Reserved bits of RCX; then bit 16 on a module without the feature.
    assert_eq!(call(&platform, 0, SHUTDOWN, 1 << 17), Ok((0xc000_0100_0000_0001, 0)));
    let platform = boot(SimPlatform::builder().lps(1));
    platform.create_td_in(TdPhase::Build).unwrap();
    assert_eq!(call(&platform, 0, SHUTDOWN, 1 << 16), Ok((0xc000_0100_0000_0001, 0)));
    assert_eq!(state(&platform), (1, Some(State::Ready), false, 63));
}

#[test]
fn t11_load_succeeds_while_no_module_is_ready_and_clears_everything() {
    let platform = boot(SimPlatform::builder().lps(1));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &newer(), Scenario::Update, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK)
    });
    assert_eq!(platform.with_model(|model| model.loader().seamdb().used), 2);
    platform.with_model(|model| {
        let mut state =
            LoaderState { num_remaining_updates: 5, sysinfo: None, ..model.loader().state() };
        state.seamextend.seam_ready = 0;
        model.restore_loader(&state);
    });
    let lower = TestImage { svn_minor: 1, ..TestImage::default() };
    with_image(&platform, &lower, Scenario::Load, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK)
    });
    assert_eq!(state(&platform), (1, Some(State::SysInitPending), false, 63));
    assert_eq!(platform.with_model(|model| model.loader().seamdb().used), 1);
    assert_eq!([SYS_INIT, LP_INIT].map(|rax| call(&platform, 0, rax, 0)), [OK, OK]);
    assert_eq!(call(&platform, 0, UPDATE, 0), Ok((TdxStatus::SYS_INVALID_HANDOFF.0, 0)));
    // The module is ready for new TDs. The old TDs are lost.
    platform.bring_up().unwrap();
    assert_eq!(alive(&platform), 0);
}

#[test]
fn t12_only_info_and_load_refresh_a_remembered_zero() {
    let zero = |platform: &SimPlatform| {
        platform.with_model(|model| {
            let state = LoaderState { num_remaining_updates: 0, ..model.loader().state() };
            model.restore_loader(&state);
        });
    };
    let platform = boot(SimPlatform::builder().lps(1));
    zero(&platform);
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    let round = || {
        with_image(&platform, &newer(), Scenario::Update, |params| {
            call(&platform, 0, INSTALL, params)
        })
    };
    assert_eq!(round(), refusal(SeamldrStatus::EBADCALL, 0));
    // INFO accepts an address of missing memory and ignores its own writes.
    assert_eq!(call(&platform, 0, INFO, 0x7fff_f000), OK);
    assert_eq!(state(&platform).3, 63);
    assert_eq!(round(), OK);
    zero(&platform);
    with_image(&platform, &newer(), Scenario::Load, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK)
    });
    assert_eq!(state(&platform).3, 63);
}

#[test]
fn with_the_vmcs_erratum_each_return_from_p_seamldr_clears_the_lps_own_vmcs() {
    let platform = boot(SimPlatform::builder().lps(2));
    let pointers = || [0, 1].map(|lp| platform.with_model(|model| model.current_vmcs(lp)));
    platform.with_model(|model| (0..2).for_each(|lp| model.load_vmcs(lp, 0x5000 + u64::from(lp))));
    assert_eq!(call(&platform, 0, INFO, 0x7fff_f000), OK);
    assert_eq!(pointers(), [0x5000, 0x5001], "without the erratum");
    platform.with_model(|model| model.config_mut().seamret_clears_vmcs = true);
    assert_eq!(call_rdx(&platform, 1, SYS_RD, 0, FieldId::MODULE_HV.0).unwrap().0, 0);
    assert_eq!(pointers(), [0x5000, 0x5001], "the module's return does not clear it");
    assert_eq!(call(&platform, 0, INFO, 0x7fff_f000), OK);
    assert_eq!(pointers(), [NO_VMCS, 0x5001]);
}

#[test]
fn two_lps_can_be_inside_firmware_without_threads() {
    let platform = boot(SimPlatform::builder().lps(3));
    platform.with_model(|model| {
        let crypto = &tdx_seamldr_verify::RustCrypto;
        let regs =
            |rax, rdx| SeamcallRegs { rax, rcx: 0x7fff_f000, rdx, ..SeamcallRegs::default() };
        let (mut info, mut read, mut shutdown) =
            (regs(INFO, 0), regs(SYS_RD, FieldId::MODULE_HV.0), regs(SHUTDOWN, 0));
        shutdown.rcx = 0;
        let first = model.enter(0, &info).unwrap();
        assert_eq!(
            model.enter(1, &info).unwrap_err(),
            Trap::VmFailInvalid,
            "LP 0 is inside P-SEAMLDR"
        );
        let second = model.enter(1, &read).unwrap();
        // The module ignores LPs inside P-SEAMLDR. It is busy only for LPs inside itself.
        model.seamcall(2, &mut shutdown, &Nothing, crypto).unwrap();
        assert_eq!(shutdown.rax, TdxStatus::SYS_BUSY.0);
        model.leave(second, &mut read, &Nothing, crypto).unwrap();
        model.leave(first, &mut info, &Nothing, crypto).unwrap();
        assert_eq!((read.rax, info.rax), (0, 0));
        shutdown = SeamcallRegs { rcx: 0, ..regs(SHUTDOWN, 0) };
        model.seamcall(2, &mut shutdown, &Nothing, crypto).unwrap();
        assert_eq!(shutdown.rax, 0);
    });
}

#[test]
fn install_detects_image_bytes_that_change_after_parsing() {
    let platform = boot(SimPlatform::builder().lps(1));
    let file = newer().build();
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_params(&platform, &file, Scenario::Update, |params| {
        assert!(platform.tamper(&file.as_bytes()[8192 + 20000], 0x40));
        assert_eq!(call(&platform, 0, INSTALL, params), refusal(SeamldrStatus::EBADHASH, 1));
    });
    let unknown = 7u8;
    assert!(!platform.tamper(&unknown, 1), "firmware does not know the page of this byte");
}

#[test]
fn a_fault_affects_only_the_calls_that_it_names() {
    let platform = boot(SimPlatform::builder().lps(3));
    let read = |lp| call_rdx(&platform, lp, SYS_RD, 0, FieldId::NO_DOWNGRADE.0).map(|(rax, _)| rax);
    let busy = Answer::Return { rax: TdxStatus::SYS_BUSY.0, rdx: 9 };
    // The third call of all; the second call on LP 1, twice; the first call of a leaf.
    platform.inject(Fault::nth(2, busy));
    platform.inject(Fault {
        lp: Some(1),
        rax: None,
        after: 1,
        times: 2,
        answer: Answer::Trap(Trap::UndefinedOpcode),
    });
    platform.inject(Fault::first(SHUTDOWN, Answer::Return { rax: 5, rdx: 6 }));
    assert_eq!([0, 1, 0].map(read), [Ok(0), Ok(0), Ok(TdxStatus::SYS_BUSY.0)]);
    assert_eq!(
        [1, 1, 1].map(read),
        [Err(Trap::UndefinedOpcode), Err(Trap::UndefinedOpcode), Ok(0)]
    );
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), Ok((5, 6)));
    let shown: Vec<String> = platform.trace().iter().map(ToString::to_string).collect();
    assert!(shown[2].contains("LP    0  TDH.SYS.RD") && shown[2].contains("SYS_BUSY"), "{shown:?}");
    assert!(shown[6].contains("TDH.SYS.SHUTDOWN") && shown[6].contains("rdx=0x6"), "{shown:?}");
}

#[test]
fn rdrand_and_seamdb_fail_as_often_as_planned() {
    let platform = boot(SimPlatform::builder().lps(1));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    let round = || {
        with_image(&platform, &newer(), Scenario::Update, |params| {
            call(&platform, 0, INSTALL, params)
        })
    };
    platform.with_model(|model| model.config_mut().rdrand_failures = 2);
    assert_eq!([round(), round()], [refusal(SeamldrStatus::ENOENTROPY, 0); 2]);
    platform.with_model(|model| model.seamdb_mut().insert_failures = 4);
    assert_eq!(round(), OK);
    platform.with_model(|model| model.config_mut().rdrand_failures = 1);
    assert_eq!(call(&platform, 0, SYS_INIT, 0), Ok((TdxStatus::RND_NO_ENTROPY.0, 0)));
    bring_up(&platform, 1);
    assert_eq!(alive(&platform), 3);
}

#[test]
fn shared_key_ids_select_other_memory_and_the_seam_range_is_rejected() {
    let platform = boot(SimPlatform::builder().lps(1));
    let file = newer().build();
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_params(&platform, &file, Scenario::Update, |params| {
        let at = |keyid: u64| params | keyid << 40;
        // A shared KeyID is valid, but selects missing memory. Zeros are parameters of a LOAD of no
        // pages, with a SIGSTRUCT at address 0.
        let status = |address| SeamldrStatus(call(&platform, 0, INSTALL, address).unwrap().0);
        assert_eq!(status(at(0x1f)), SeamldrStatus::EBADSIG);
        assert_eq!(status(at(0x20)), SeamldrStatus::EBADPARAM);
        for address in [0x20_0000_0000, 0x20_0fff_f000, 0x20_0000_0000 | 1 << 40, 1 << 46] {
            assert_eq!(status(address), SeamldrStatus::EBADPARAM, "{address:#x}");
        }
        assert_eq!(status(params), SeamldrStatus::SUCCESS);
    });
}

#[test]
fn install_fails_if_the_image_does_not_list_one_socket() {
    let platform = boot(SimPlatform::builder().lps(2).sockets(2));
    platform.with_model(|model| model.config_mut().socket_fms[1] = 0xc06d1);
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    let round = |image: &TestImage| {
        with_image(&platform, image, Scenario::Update, |params| {
            assert_eq!(call(&platform, 0, INSTALL, params), OK);
            call(&platform, 1, INSTALL, params)
        })
    };
    assert_eq!(round(&newer()), refusal(SeamldrStatus::EUNSUPCPU, 0));
    assert_eq!(round(&TestImage { cpus: vec![0x806f0, 0xc06d0], ..newer() }), OK);
}

#[test]
fn tds_in_build_are_damaged_unless_the_module_refuses_or_detects() {
    // Both modules count. Protection is either by refusal or by detection.
    let update = |platform: &SimPlatform, image: &TestImage, hv: u64, detect: bool| {
        assert_eq!(call(platform, 0, SHUTDOWN, hv), OK);
        with_image(platform, image, Scenario::Update, |params| {
            assert_eq!(call(platform, 0, INSTALL, params), OK)
        });
        assert_eq!([SYS_INIT, LP_INIT].map(|rax| call(platform, 0, rax, 0)), [OK, OK]);
        let r9 = if detect { TdxFeatures0::UPDATE_COMPATIBILITY.bits() } else { 0 };
        let regs =
            SeamcallRegs { rax: UPDATE | u64::from(detect) << 16, r9, ..SeamcallRegs::default() };
        assert_eq!(call_regs(platform, 0, regs).unwrap().rax, 0);
    };
    use tdx_seamldr_mock::model::TdError;
    for (detect, expected) in [(false, Ok(false)), (true, Err(TdError::IncompatibleContext))] {
        let platform = boot_from(SimPlatform::builder().lps(1), &counting(5));
        let phases = [TdPhase::Build, TdPhase::InterruptedMigration, TdPhase::Running];
        let tds = phases.map(|phase| platform.create_td_in(phase).unwrap());
        update(&platform, &counting(6), 1, detect);
        assert!(tds.iter().all(|td| platform.td_is_alive(*td)), "their memory is intact");
        assert_eq!([tds[0], tds[1]].map(|td| platform.finish_td(td)), [expected, expected]);
        assert_eq!(platform.finish_td(tds[2]), Err(TdError::Phase), "the TD already runs");
    }
    // Without an update in between, the measurements are correct.
    let platform = boot(SimPlatform::builder().lps(1));
    let td = platform.create_td_in(TdPhase::Build).unwrap();
    assert_eq!(platform.finish_td(td), Ok(true));
}

#[test]
fn only_version_1_hands_over_counts_of_sensitive_operations() {
    for (hv, remembered) in [(1, true), (0, false)] {
        let platform = boot_from(SimPlatform::builder().lps(1), &counting(5));
        platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
        platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
        assert_eq!(call(&platform, 0, SHUTDOWN, 1 << 16 | hv), Ok((0x8000_0512_0002_0001, 0)));
        assert_eq!(call(&platform, 0, SHUTDOWN, hv), OK, "the flag is not set");
        with_image(&platform, &counting(6), Scenario::Update, |params| {
            assert_eq!(call(&platform, 0, INSTALL, params), OK);
        });
        bring_up(&platform, 1);
        let expected = if remembered { 0x8000_0512_0002_0001 } else { 0 };
        assert_eq!(call(&platform, 0, SHUTDOWN, 1 << 16 | 1), Ok((expected, 0)), "version {hv}");
    }
}

#[test]
fn update_version_1_checks_its_operands_after_the_restore() {
    let operands: [(u64, u64, u64, u64); 4] = [
        (1, 1 << 48, 0, 0xc000_0100_0000_0009),
        (1, 1 << 47, 1, 0xc000_0100_0000_000a),
        (2, 0, 0, 0xc000_0100_0000_0000),
        (1, 1 << 47, 0, 0),
    ];
    let platform = boot_from(SimPlatform::builder().lps(1), &counting(5));
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_image(&platform, &counting(6), Scenario::Update, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK);
    });
    assert_eq!([SYS_INIT, LP_INIT].map(|rax| call(&platform, 0, rax, 0)), [OK, OK]);
    for (version, r9, r10, expected) in operands {
        let regs = SeamcallRegs { rax: UPDATE | version << 16, r9, r10, ..SeamcallRegs::default() };
        let found = call_regs(&platform, 0, regs).unwrap().rax;
        assert_eq!(found, expected, "version {version}, R9 {r9:#x}, R10 {r10}");
    }
    assert_eq!(alive(&platform), 3);
}
