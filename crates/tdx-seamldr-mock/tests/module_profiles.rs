//! Differences between public releases of the module that matter to an update.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use support::*;
use tdx_seamldr_core::abi::{FieldId, Scenario, TdxFeatures0, TdxStatus as S};
use tdx_seamldr_core::{SeamcallRegs, TdxVersion};
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, TdPhase};
use tdx_seamldr_mock::{SimPlatform, TestImage};

const MAX_VCPUS_PER_TD: u64 = 0x9900000100000008;
const BIT_47: u64 = 1 << 47;

fn release(major: u16, minor: u16, update: u16) -> ModuleBuild {
    ModuleBuild::of_release(TdxVersion { major, minor, update }).unwrap()
}

/// Boots this image on 2 LPs, and starts 3 TDs.
fn boot_pair(image: &TestImage) -> SimPlatform {
    boot_from(SimPlatform::builder().lps(2), image)
}

/// Returns an image that behaves as a release, with its own SVN and CPU list.
fn image(build: ModuleBuild, svn_minor: u8) -> TestImage {
    TestImage {
        svn_minor,
        module_hv: build.module_hv,
        min_update_hv: build.min_update_hv,
        no_downgrade: build.no_downgrade,
        num_handoff_pages: if build.handoff_form == HandoffForm::Connect { 24 } else { 13 },
        module_build: Some(build),
        ..TestImage::default()
    }
}

fn call(platform: &SimPlatform, rax: u64, regs: SeamcallRegs) -> u64 {
    call_regs(platform, 0, SeamcallRegs { rax, ..regs }).unwrap().rax
}

/// Shuts the running module down, and brings up the module of an image until it waits for
/// TDH.SYS.UPDATE.
fn to_update(platform: &SimPlatform, new: &TestImage, hv: u64) {
    assert_eq!(rax(platform, 0, SHUTDOWN, hv), Ok(0));
    with_params(platform, &new.build(), Scenario::Update, |params| {
        platform.online().for_each(|lp| assert_eq!(install_on(platform, lp, params).0 .0, 0));
    });
    assert_eq!(rax(platform, 0, SYS_INIT, 0), Ok(0));
    for lp in platform.online() {
        assert_eq!(rax(platform, lp, LP_INIT, 0), Ok(0));
    }
}

fn update(platform: &SimPlatform, new: &TestImage, hv: u64) {
    to_update(platform, new, hv);
    assert_eq!(rax(platform, 0, UPDATE, 0), Ok(0));
}

#[test]
fn the_field_that_linux_reads_exists_since_1_5_05_and_is_listed_in_order() {
    for (build, known) in [
        (release(1, 5, 1), false),
        (release(1, 5, 5), true),
        (release(1, 5, 25), true),
        (release(2, 0, 2), true),
        (release(2, 0, 18), true),
    ] {
        let platform = boot_pair(&image(build, 5));
        let read = |id: u64| {
            let regs = SeamcallRegs { rax: SYS_RD, rdx: id, ..SeamcallRegs::default() };
            let regs = call_regs(&platform, 0, regs).unwrap();
            (regs.rax, regs.rdx, regs.r8)
        };
        let (status, _, value) = read(MAX_VCPUS_PER_TD);
        let expected = if known { (0, 576) } else { (S::METADATA_FIELD_ID_INCORRECT.0, 0) };
        assert_eq!((status, value), expected, "{}", build.version);
        // Read all fields, from the first to the last.
        let (mut id, mut seen) = (read(FieldId::NULL.0).1, 0);
        while id != FieldId::NULL.0 {
            let (status, next, _) = read(id);
            assert_eq!(status, 0, "{id:#x} of {}", build.version);
            (id, seen) = (next, seen + 1);
        }
        assert_eq!(seen, if known { 355 } else { 354 }, "{}", build.version);
    }
}

#[test]
fn features_are_those_of_the_release() {
    for (build, features0) in [
        (release(1, 5, 5), 0x61F0FBF),
        (release(1, 5, 16), 0x226F3F0FBF),
        (release(2, 0, 8), 0x32A71F0FBF),
        (release(1, 5, 28), 0x226F3F0FBF | BIT_47),
    ] {
        let platform = boot_pair(&image(build, 5));
        let regs =
            SeamcallRegs { rax: SYS_RD, rdx: FieldId::TDX_FEATURES0.0, ..SeamcallRegs::default() };
        assert_eq!(call_regs(&platform, 0, regs).unwrap().r8, features0, "{}", build.version);
    }
}

#[test]
fn handoff_data_of_any_version_fills_14_pages_since_1_5_28() {
    for (build, hv, size) in [
        (release(1, 5, 20), 0, 53386),
        (release(1, 5, 28), 1, 57_336),
        (release(1, 5, 34), 2, 57_336),
        (release(2, 0, 12), 0, 101_810),
        (release(2, 0, 16), 1, 57_336),
        (release(2, 0, 18), 2, 57_336),
    ] {
        let platform = boot_pair(&image(build, 5));
        if build.no_downgrade {
            let refused = rax(&platform, 0, SHUTDOWN, hv - 1);
            assert_eq!(
                refused,
                Ok(S::OPERAND_INVALID.0 | 1),
                "{} writes its highest handoff version only",
                build.version
            );
        }
        assert_eq!(rax(&platform, 0, SHUTDOWN, hv), Ok(0));
        let header = platform.with_model(|model| model.handoff_header());
        assert_eq!(
            (header.hv.get(), header.size.get()),
            (u16::try_from(hv).unwrap(), size),
            "{}",
            build.version
        );
    }
}

#[test]
fn tds_survive_an_update_to_the_next_release_but_not_to_the_previous_one() {
    let platform = boot_pair(&image(release(1, 5, 1), 4));
    let td = platform.create_td().unwrap();
    for (svn_minor, build, hv) in [
        (5, release(1, 5, 16), 0),
        (6, release(1, 5, 25), 0),
        (7, release(1, 5, 28), 0),
        (8, release(1, 5, 34), 1),
    ] {
        update(&platform, &image(build, svn_minor), hv);
        assert!(platform.td_is_alive(td), "{}", build.version);
    }
    // 1.5.34 writes handoff version 2 only, which 1.5.28 does not accept.
    assert_eq!(rax(&platform, 0, SHUTDOWN, 2), Ok(0));
    let old = image(release(1, 5, 28), 8);
    with_params(&platform, &old.build(), Scenario::Update, |params| {
        let answers: Vec<_> =
            platform.online().map(|lp| install_on(&platform, lp, params).0 .0).collect();
        assert_eq!(answers.last(), Some(&0x8000000000000004), "EBADHANDOFF");
    });
}

#[test]
fn a_td_in_build_breaks_only_if_the_version_of_the_contexts_changes() {
    for phase in [TdPhase::Build, TdPhase::InterruptedMigration] {
        for (from, to, hv, whole) in [
            (release(1, 5, 28), release(1, 5, 28), 1, true),
            (release(1, 5, 28), release(1, 5, 34), 1, false),
            (release(1, 5, 34), release(1, 5, 34), 2, true),
            (release(2, 0, 16), release(2, 0, 18), 1, true),
            // No public source gives the version of these contexts.
            (release(1, 5, 16), release(1, 5, 28), 0, false),
        ] {
            let platform = boot_pair(&image(from, 5));
            let td = platform.create_td_in(phase).unwrap();
            update(&platform, &image(to, 6), hv);
            let what = format!("{phase:?}, {} to {}", from.version, to.version);
            assert_eq!(platform.finish_td(td), Ok(whole), "{what}");
        }
    }
}

#[test]
fn update_checks_operands_after_the_restore_in_1_5_28_and_before_the_lock_in_1_5_34() {
    for (build, hv, early) in [(release(1, 5, 28), 1, false), (release(1, 5, 34), 2, true)] {
        let platform = boot_pair(&image(build, 5));
        let new = image(build, 6);
        to_update(&platform, &new, hv);
        let with = |version: u64, r9, r10| {
            let regs = SeamcallRegs { r9, r10, ..SeamcallRegs::default() };
            call(&platform, UPDATE | version << 16, regs)
        };
        let bad = [(2, 0, 0, 0), (1, 1 << 6 | 1 << 63, 0, 9), (1, BIT_47, 1, 10)];
        for (version, r9, r10, operand) in bad {
            assert_eq!(with(version, r9, r10), S::OPERAND_INVALID.0 | operand, "{}", build.version);
        }
        // Without handoff data, the status shows which check comes first.
        let handoff = platform.with_model(|model| std::mem::take(&mut model.handoff()[0]));
        for (version, r9, r10, operand) in bad {
            let expected =
                if early { S::OPERAND_INVALID.0 | operand } else { S::SYS_INVALID_HANDOFF.0 };
            assert_eq!(with(version, r9, r10), expected, "{}", build.version);
        }
        platform.with_model(|model| model.handoff()[0] = handoff);
        // Version 0, as Linux calls it, does not detect damage.
        assert_eq!(with(0, 0, 0), 0);
        assert!(!platform.with_model(|model| model.module().unwrap().update_compatibility()));
    }
}

#[test]
fn a_wrong_size_of_handoff_data_is_fatal_up_to_1_5_25_and_ignored_later() {
    for (build, hv, fatal) in [(release(1, 5, 25), 0, true), (release(1, 5, 28), 1, false)] {
        let platform = boot_pair(&image(build, 5));
        to_update(&platform, &image(build, 6), hv);
        platform.with_model(|model| model.handoff()[4..8].fill(0));
        assert_eq!(rax(&platform, 0, UPDATE, 0).is_err(), fatal, "{}", build.version);
    }
}

#[test]
fn sys_init_has_a_version_1_since_1_5_34() {
    const INIT_V1: u64 = SYS_INIT | 1 << 16;
    for (build, known) in
        [(release(1, 5, 28), false), (release(1, 5, 34), true), (release(2, 0, 18), true)]
    {
        let platform = boot_pair(&image(build, 5));
        let hv = build.module_hv.into();
        assert_eq!(rax(&platform, 0, SHUTDOWN, hv), Ok(0));
        with_params(&platform, &image(build, 6).build(), Scenario::Update, |params| {
            platform.online().for_each(|lp| assert_eq!(install_on(&platform, lp, params).0 .0, 0));
        });
        let with = |rax, rcx, r8| {
            call(&platform, rax, SeamcallRegs { rcx, r8, ..SeamcallRegs::default() })
        };
        if !known {
            assert_eq!(with(INIT_V1, 0, 0), S::OPERAND_INVALID.0, "{}", build.version);
            continue;
        }
        assert_eq!(with(SYS_INIT | 2 << 16, 0, 0), S::OPERAND_INVALID.0);
        assert_eq!(with(INIT_V1, 1, u64::MAX), S::OPERAND_INVALID.0 | 1, "RCX is checked first");
        assert_eq!(with(INIT_V1, 0, u64::MAX), S::OPERAND_INVALID.0 | 8, "an invalid address");
        assert_eq!(with(INIT_V1, 0, 0), 0, "the call can be repeated");
        assert_eq!(with(SYS_INIT, 0, u64::MAX), S::SYS_INIT_NOT_PENDING.0, "version 0 ignores R8");
    }
}

#[test]
fn a_counting_module_refuses_shutdown_and_hands_its_counts_over() {
    let platform = boot_pair(&image(release(1, 5, 28), 5));
    for _ in 0..2 {
        platform.create_td_in(TdPhase::Build).unwrap();
    }
    platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
    const AVOID: u64 = 1 << 16;
    assert_eq!(
        rax(&platform, 0, SHUTDOWN, AVOID | 1),
        Ok(S::UPDATE_COMPATIBILITY_SENSITIVE.0 | 2 << 16)
    );
    update(&platform, &image(release(1, 5, 34), 6), 1);
    assert_eq!(
        rax(&platform, 0, SHUTDOWN, AVOID | 2),
        Ok(S::UPDATE_COMPATIBILITY_SENSITIVE.0 | 2 << 16)
    );
    assert!(release(1, 5, 24).features0.contains(TdxFeatures0::UPDATE_COMPATIBILITY));
    assert!(!release(1, 5, 20).features0.contains(TdxFeatures0::UPDATE_COMPATIBILITY));
}
