//! SEAMLDR.CLEANUP of the newer P-SEAMLDR: which LPs have to call it, which LP does the work, and
//! what becomes possible again.
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
use tdx_seamldr_core::abi::{Scenario, SeamExtend, SeamldrLeaf, SeamldrStatus as S};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{
    Config, LoaderProfile, ModuleState as State, Platform, SeamDb, SeamMemory,
};
use tdx_seamldr_mock::{Builder, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::{FromZeros, IntoBytes};

const SEAMINFO: u64 = SeamldrLeaf::SeamInfo.rax();
const END: u64 = SeamldrLeaf::Shutdown.rax();
const CLEANUP: u64 = SeamldrLeaf::Cleanup.rax();
const OK: (S, u64) = (S::SUCCESS, 0);
const HOLE: u64 = 0x7fff_f000;

fn newer_loader() -> Builder {
    SimPlatform::builder().profile(LoaderProfile::NEWER)
}

fn cleanup(platform: &SimPlatform, lp: u32) -> S {
    S(rax(platform, lp, CLEANUP, 0).unwrap())
}

/// Calls CLEANUP on all LPs, in order.
fn clean(platform: &SimPlatform) {
    for lp in platform.online() {
        assert_eq!(cleanup(platform, lp), S::SUCCESS, "LP {lp}");
    }
}

fn seamextend(platform: &SimPlatform) -> SeamExtend {
    platform.with_model(|model| *model.loader().seamextend())
}

fn older() -> TestImage {
    TestImage { svn_minor: 1, ..TestImage::default() }
}

/// Returns a platform of 1 LP before any module was installed.
fn without_module() -> Platform<Box<SeamMemory>> {
    let config = Config::new(1, 1, 0x806f8, TEST_SIGNER, LoaderProfile::NEWER).unwrap();
    let seamdb = SeamDb { size: 4, used: 0, insert_failures: 0 };
    Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap())
}

fn model_call(model: &mut Platform<Box<SeamMemory>>, rax: u64, rcx: u64) -> S {
    let mut regs = SeamcallRegs { rax, rcx, ..SeamcallRegs::default() };
    model.seamcall(0, &mut regs, &Nothing, &RustCrypto).unwrap();
    S(regs.rax)
}

#[test]
fn cleanup_before_the_first_session_returns_ebadcall() {
    let mut model = without_module();
    assert_eq!(model_call(&mut model, CLEANUP, 0), S::EBADCALL);
    assert_eq!(model_call(&mut model, INFO, 0), S::SUCCESS);
    assert_eq!(model_call(&mut model, CLEANUP, 0), S::EBADCALL);
    assert_eq!(model_call(&mut model, END, 0), S::SUCCESS, "SEAMLDR.SHUTDOWN is possible");
}

#[test]
fn cleanup_succeeds_after_a_session_that_failed() {
    let mut model = without_module();
    assert_eq!(model_call(&mut model, INSTALL, 1), S::EBADPARAM);
    assert_eq!(model_call(&mut model, CLEANUP, 0), S::SUCCESS);
}

#[test]
fn cleanup_accepts_each_lp_once_and_ends_after_all_lps() {
    let platform = boot(newer_loader().lps(3));
    for round in 0..2 {
        for (lp, expected) in [
            (1, S::SUCCESS),
            (1, S::EBADCALL),
            (2, S::SUCCESS),
            (2, S::EBADCALL),
            (1, S::EBADCALL),
            (0, S::SUCCESS),
        ] {
            assert_eq!(cleanup(&platform, lp), expected, "round {round}, LP {lp}");
        }
    }
}

#[test]
fn the_first_cleanup_removes_the_module_and_the_last_one_clears_seamextend() {
    let platform = boot(newer_loader().lps(3).seamdb_size(5));
    let ready = seamextend(&platform);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    let header = platform.with_model(|model| model.handoff_header());
    for lp in [0, 1] {
        assert_eq!(cleanup(&platform, lp), S::SUCCESS);
        let mut expected = SeamExtend { seam_ready: 0, ..ready };
        expected.tee_tcb_svn = [0; 16];
        assert_eq!(seamextend(&platform), expected, "the rest of SEAMEXTEND stays until the end");
        let found = platform.with_model(|model| model.handoff_header());
        assert_eq!((found.valid, found.hv, found.size), (0, header.hv, header.size));
        assert_eq!(rax(&platform, 0, SYS_RD, 0), Err(Trap::VmFailInvalid));
        assert_eq!(platform.truth().remaining_updates, 4, "the database is not cleared yet");
    }
    assert_eq!(cleanup(&platform, 2), S::SUCCESS);
    let bytes = seamextend(&platform);
    assert_eq!(bytes.as_bytes()[..128], [0; 128]);
    assert_eq!(bytes.as_bytes()[128..], [0, 0, 1, 0, 0, 0, 0, 0], "P-SEAMLDR itself is ready");
    assert_eq!((platform.truth().remaining_updates, platform.truth().tds_alive), (5, 0));
    assert_eq!(platform.with_model(|model| model.loader().seamdb().used), 0);
    assert_eq!(rax(&platform, 0, SYS_INIT, 0), Err(Trap::VmFailInvalid));
}

#[test]
fn during_cleanup_only_info_and_seaminfo_are_allowed() {
    let platform = boot(newer_loader().lps(3));
    assert_eq!(cleanup(&platform, 1), S::SUCCESS);
    for lp in 0..3 {
        assert_eq!(install_on(&platform, lp, HOLE), (S::EBADCALL, 0));
        assert_eq!(rax(&platform, lp, END, 0), Ok(S::EBADCALL.0));
        assert_eq!(
            [INFO, SEAMINFO].map(|leaf| rax(&platform, lp, leaf, HOLE & !0x7ff)),
            [Ok(0); 2]
        );
    }
    assert_eq!([2, 0].map(|lp| cleanup(&platform, lp)), [S::SUCCESS; 2]);
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
}

#[test]
fn cleanup_is_refused_during_install_and_shutdown() {
    let platform = boot(newer_loader().lps(2));
    assert_eq!(install_on(&platform, 0, HOLE), OK);
    assert_eq!([0, 1].map(|lp| cleanup(&platform, lp)), [S::EBADCALL; 2]);
    assert_eq!(install_on(&platform, 1, 1), (S::EBADPARAM, 0), "a failure ends the session");
    assert!(platform.truth().module.unwrap().callable, "the module is unchanged");
    clean(&platform);
    // SEAMLDR.SHUTDOWN has begun.
    assert_eq!(rax(&platform, 0, END, 0), Ok(0));
    assert_eq!([0, 1].map(|lp| cleanup(&platform, lp)), [S::EBADCALL; 2]);
    assert_eq!(install_on(&platform, 1, HOLE), (S::EBADCALL, 0));
}

#[test]
fn the_last_lp_of_each_package_cleans_up_and_stops_for_interrupts() {
    // Two packages of 3 LPs each.
    let platform = boot(newer_loader().lps(6).sockets(2));
    let pending = |count: u32| platform.with_model(|model| model.set_interrupts_pending(count));
    pending(u32::MAX);
    assert_eq!(
        [0, 3, 1, 4].map(|lp| cleanup(&platform, lp)),
        [S::SUCCESS; 4],
        "these LPs have no work to do"
    );
    for _ in 0..3 {
        assert_eq!(
            [2, 5].map(|lp| cleanup(&platform, lp)),
            [S::EINTERRUPT; 2],
            "the last LP of each package is interrupted"
        );
        assert_eq!(cleanup(&platform, 0), S::EBADCALL);
        assert_eq!(install_on(&platform, 5, HOLE), (S::EBADCALL, 0), "CLEANUP is in progress");
    }
    pending(0);
    assert_eq!(cleanup(&platform, 5), S::SUCCESS);
    assert_eq!(cleanup(&platform, 5), S::EBADCALL, "this LP has finished");
    pending(1);
    assert_eq!([2, 2].map(|lp| cleanup(&platform, lp)), [S::EINTERRUPT, S::SUCCESS]);
    assert_eq!(seamextend(&platform).valid.get(), 0, "CLEANUP has ended");
    // If no package is dirty, there is no work to interrupt.
    pending(u32::MAX);
    clean(&platform);
    // A new module makes all packages dirty again.
    pending(0);
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
    pending(1);
    let results: Vec<S> = (0..6).map(|lp| cleanup(&platform, lp)).collect();
    assert_eq!(results[2], S::EINTERRUPT);
    assert_eq!(results.iter().filter(|status| **status == S::SUCCESS).count(), 5);
}

#[test]
fn an_interrupted_first_cleanup_removes_the_module_as_well() {
    let platform = boot(newer_loader().lps(1));
    platform.with_model(|model| model.set_interrupts_pending(1));
    assert_eq!(cleanup(&platform, 0), S::EINTERRUPT);
    assert_eq!((seamextend(&platform).seam_ready, platform.truth().tds_alive), (0, 0));
    assert_eq!(install_on(&platform, 0, HOLE), (S::EBADCALL, 0));
    assert_eq!(cleanup(&platform, 0), S::SUCCESS);
    assert_eq!(install_all(&platform, &older().build(), Scenario::Load), OK);
}

#[test]
fn cleanup_rejects_lp_and_package_numbers_out_of_range() {
    let platform = boot(newer_loader().lps(1));
    let shift = platform.with_model(|model| model.config().package_shift);
    for (id, expected) in
        [(1024, S::EUNSPECERR), (u32::MAX, S::EUNSPECERR), (8 << shift, S::EUNSPECERR)]
    {
        platform.with_model(|model| model.set_lps([id]));
        assert_eq!(cleanup(&platform, 0), expected, "x2APIC id {id:#x}");
        assert!(platform.truth().module.unwrap().callable);
    }
    // An LP number out of range is checked before the order of calls, a package number out of range
    // after it.
    let two = boot(newer_loader().lps(2));
    assert_eq!(install_on(&two, 0, HOLE), OK);
    two.with_model(|model| model.set_lps([1024, 8 << model.config().package_shift]));
    assert_eq!([0, 1].map(|lp| cleanup(&two, lp)), [S::EUNSPECERR, S::EBADCALL]);
}

#[test]
fn only_a_load_of_a_lower_or_another_major_svn_needs_clean_keys() {
    let with_svn =
        |svn_major, svn_minor| TestImage { svn_major, svn_minor, ..TestImage::default() };
    // The running module has SVN 1.5.
    let rows = [
        (Scenario::Load, with_svn(1, 4), S::ECLEANUPREQ),
        (Scenario::Load, with_svn(1, 5), S::SUCCESS),
        (Scenario::Load, with_svn(1, 6), S::SUCCESS),
        (Scenario::Load, with_svn(2, 9), S::ECLEANUPREQ),
        (Scenario::Load, with_svn(2, 0), S::ECLEANUPREQ),
        (Scenario::Load, with_svn(0, 9), S::EUNSUPPORTED),
        (Scenario::Update, with_svn(1, 4), S::EBADSIG),
        (Scenario::Update, with_svn(1, 5), S::SUCCESS),
        (Scenario::Update, with_svn(2, 5), S::EUNSUPPORTED),
        (Scenario::Update, with_svn(0, 5), S::EUNSUPPORTED),
    ];
    for (scenario, image, expected) in rows {
        let (platform, file) = (boot(newer_loader().lps(2)), image.build());
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let what = format!("{scenario:?} of {}.{}", image.svn_major, image.svn_minor);
        assert_eq!(install_all(&platform, &file, scenario), (expected, 0), "{what}");
        let (state, handoff) =
            (platform.truth().module.unwrap().state, platform.truth().handoff_valid);
        if expected != S::SUCCESS {
            assert_eq!(
                (state, handoff),
                (State::Shutdown, true),
                "{what}: module and handoff data are unchanged"
            );
        }
        clean(&platform);
        let expected = if image.svn_major == 0 { (S::EUNSUPPORTED, 0) } else { OK };
        assert_eq!(install_all(&platform, &file, Scenario::Load), expected, "{what}, afterwards");
    }
    // Older generations do not need clean keys.
    for profile in [LoaderProfile::V1_0, LoaderProfile::V1_5_00, LoaderProfile::V2_0_00] {
        let platform = boot(SimPlatform::builder().lps(2).profile(profile));
        for image in [with_svn(1, 1), with_svn(0, 9), with_svn(3, 0)] {
            assert_eq!(install_all(&platform, &image.build(), Scenario::Load), OK, "{profile:?}");
        }
    }
}

#[test]
fn update_fails_after_cleanup() {
    let platform = boot(newer_loader().lps(2));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    clean(&platform);
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), (S::EBADPARAM, 0));
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
    platform.bring_up().unwrap();
    platform.create_td().unwrap();
    assert_eq!(platform.truth().tds_alive, 1);
}

/// SEAMEXTEND has lost the old SVN, so every module has another major SVN.
#[test]
fn load_fails_after_an_unrecoverable_failure_until_cleanup() {
    let platform = boot(newer_loader().lps(2));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &with_wrong_hash(), Scenario::Update), (S::EBADHASH, 1));
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), (S::ECLEANUPREQ, 0));
    clean(&platform);
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
}

#[test]
fn shutdown_of_p_seamldr_needs_clean_keys_and_all_lps() {
    let platform = boot(newer_loader().lps(3));
    assert_eq!([0, 1, 2].map(|lp| rax(&platform, lp, END, 0)), [Ok(S::ECLEANUPREQ.0); 3]);
    assert!(platform.truth().module.unwrap().callable);
    clean(&platform);
    assert_eq!([1, 2, 2].map(|lp| rax(&platform, lp, END, 0)), [Ok(0); 3]);
    assert_eq!(platform.with_model(|model| model.loader().lps_in_shutdown()), 2);
    assert_eq!(rax(&platform, 0, END, 0), Ok(0));
    assert_eq!(rax(&platform, 0, INFO, HOLE), Err(Trap::VmFailInvalid));
    assert_eq!(seamextend(&platform).as_bytes(), [0; 136]);
}

#[test]
fn cleanup_restores_the_number_of_remaining_updates() {
    let platform = boot(newer_loader().lps(1).seamdb_size(2));
    let update = |svn_minor| {
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let result =
            install_all(&platform, &TestImage { svn_minor, ..newer() }.build(), Scenario::Update);
        if result == OK {
            let leaves = [SYS_INIT, LP_INIT, UPDATE];
            assert_eq!(leaves.map(|leaf| rax(&platform, 0, leaf, 0)), [Ok(0); 3]);
        }
        result
    };
    assert_eq!([update(6), update(7)], [OK, (S::EBADCALL, 0)]);
    assert_eq!(platform.truth().remaining_updates, 0);
    clean(&platform);
    assert_eq!(platform.truth().remaining_updates, 2);
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
    platform.bring_up().unwrap();
    assert_eq!([update(7), update(8)], [OK, (S::EBADCALL, 0)]);
}
