//! TDs that run, are in build or are in migration while an update replaces the module.
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
use tdx_seamldr_core::abi::{HandoffHeader, Scenario, SeamldrStatus as S, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{
    HandoffForm, ModuleBuild, ModuleState as State, Td, TdError, TdId, TdPhase, MAX_TDS,
};
use tdx_seamldr_mock::{SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32};
use zerocopy::IntoBytes;

const OK: (S, u64) = (S::SUCCESS, 0);
const PHASES: [TdPhase; 3] = [TdPhase::Running, TdPhase::Build, TdPhase::InterruptedMigration];
/// RCX of TDH.SYS.SHUTDOWN: refuse while a compatibility-sensitive operation is in progress.
const AVOID: u64 = 1 << 16;
const SENSITIVE: u64 = 0x8000_0512_0000_0000;
const BIT_47: u64 = 1 << 47;

/// Returns a module that writes handoff version 0 as the 2.0 modules do.
fn connect(svn_minor: u8) -> TestImage {
    let build = ModuleBuild { handoff_form: HandoffForm::Connect, ..ModuleBuild::V1_5_01 };
    let image = TestImage { svn_minor, module_build: Some(build), ..TestImage::default() };
    TestImage { num_handoff_pages: 24, ..image }
}

/// Makes the calls of an update one by one, and calls `between` after each. With `r9`, calls
/// TDH.SYS.UPDATE in version 1.
fn update_with(
    platform: &SimPlatform,
    image: &TestImage,
    hv: u64,
    r9: Option<u64>,
    mut between: impl FnMut(&str),
) {
    assert_eq!(rax(platform, 0, SHUTDOWN, hv), Ok(0), "version {hv}");
    between("SHUTDOWN");
    with_params(platform, &image.build(), Scenario::Update, |params| {
        for lp in platform.online() {
            assert_eq!(install_on(platform, lp, params), OK);
            between("INSTALL");
        }
    });
    assert_eq!(rax(platform, 0, SYS_INIT, 0), Ok(0));
    between("SYS.INIT");
    for lp in platform.online() {
        assert_eq!(rax(platform, lp, LP_INIT, 0), Ok(0));
        between("LP.INIT");
    }
    assert_eq!(sys_update(platform, r9), Ok(0));
}

fn update(platform: &SimPlatform, image: &TestImage, hv: u64) {
    update_with(platform, image, hv, None, |_| {});
}

fn sys_update(platform: &SimPlatform, r9: Option<u64>) -> Result<u64, Trap> {
    let rax = UPDATE | u64::from(r9.is_some()) << 16;
    let regs = SeamcallRegs { rax, r9: r9.unwrap_or(0), ..SeamcallRegs::default() };
    call_regs(platform, 0, regs).map(|regs| regs.rax)
}

fn td(platform: &SimPlatform, id: TdId) -> Td {
    platform.with_model(|model| *model.td(id).unwrap())
}

fn secret(platform: &SimPlatform, id: TdId) -> Option<[u8; 32]> {
    platform.with_model(|model| model.td_secret(id))
}

/// Returns a platform of 1 LP without TDs.
fn boot_bare(image: &TestImage) -> SimPlatform {
    let file = image.build();
    let image = tdx_seamldr_core::TdxImage::parse(file.as_bytes()).unwrap();
    SimPlatform::builder().lps(1).boot(&image).unwrap()
}

#[test]
fn tds_of_every_phase_keep_their_memory_in_an_update() {
    let platform = boot(SimPlatform::builder().lps(2));
    let tds: Vec<TdId> =
        (0..28).map(|index| platform.create_td_in(PHASES[index % 3]).unwrap()).collect();
    let before: Vec<_> =
        tds.iter().map(|id| (secret(&platform, *id), td(&platform, *id))).collect();
    let secrets: std::collections::BTreeSet<_> =
        before.iter().map(|(secret, _)| secret.unwrap()).collect();
    assert_eq!(secrets.len(), 28, "all secrets differ");
    update(&platform, &newer(), 0);
    for (id, (secret_before, td_before)) in tds.iter().zip(before) {
        let after = td(&platform, *id);
        assert_eq!((secret(&platform, *id), after.phase()), (secret_before, td_before.phase()));
        // Running TDs are unchanged. TDs with a measurement in progress are tested below.
        assert_eq!(after == td_before, after.phase() == TdPhase::Running, "{id:?}");
    }
    assert_eq!(platform.truth().tds_alive, 31);
}

#[test]
fn between_shutdown_and_update_no_td_is_alive_and_none_can_be_made_or_finished() {
    let platform = boot(SimPlatform::builder().lps(3));
    let building = platform.create_td_in(TdPhase::Build).unwrap();
    let mut steps = 0;
    update_with(&platform, &newer(), 0, None, |what| {
        steps += 1;
        assert_eq!(platform.truth().tds_alive, 0, "after {what}");
        assert_eq!(secret(&platform, building), None, "after {what}");
        assert_eq!(platform.finish_td(building), Err(TdError::Gone), "after {what}");
        assert!(platform.create_td().is_err(), "after {what}");
    });
    assert_eq!((steps, platform.truth().tds_alive), (8, 4));
    platform.create_td().unwrap();
    assert_eq!(platform.truth().tds_alive, 5);
}

#[test]
fn a_td_without_an_update_finishes_with_the_correct_measurement() {
    for phase in [TdPhase::Build, TdPhase::InterruptedMigration] {
        for image in [TestImage::default(), counting(5)] {
            let platform = boot_bare(&image);
            let td = platform.create_td_in(phase).unwrap();
            assert_eq!(platform.finish_td(td), Ok(true));
            assert_eq!(platform.finish_td(td), Err(TdError::Phase), "once");
            // Updates before the TD was made do not affect it.
            update(&platform, &TestImage { svn_minor: 9, ..image }, 0);
            let late = platform.create_td_in(phase).unwrap();
            assert_eq!((platform.finish_td(late), platform.td_is_alive(td)), (Ok(true), true));
        }
    }
}

#[test]
fn without_protection_a_td_in_build_gets_a_wrong_measurement_without_an_error() {
    let modules: [(TestImage, TestImage, u64, Option<u64>); 6] = [
        (TestImage::default(), newer(), 0, None),
        (TestImage::default(), counting(6), 0, None),
        (counting(5), counting(6), 1, None),
        (counting(5), counting(6), 0, None),
        // Version 1 of the leaf without the flag, and with another flag.
        (counting(5), counting(6), 1, Some(0)),
        (counting(5), counting(6), 1, Some(1 << 1)),
    ];
    for (old, new, hv, r9) in modules {
        let platform = boot_bare(&old);
        let tds = PHASES.map(|phase| platform.create_td_in(phase).unwrap());
        update_with(&platform, &new, hv, r9, |_| {});
        assert!(!platform.with_model(|model| model.module().unwrap().update_compatibility()));
        assert_eq!(platform.truth().tds_alive, 3);
        assert_eq!(platform.finish_td(tds[1]), Ok(false), "wrong MRTD: {hv} {r9:?}");
        assert_eq!(platform.finish_td(tds[2]), Ok(false), "wrong MAC: {hv} {r9:?}");
        assert_eq!(platform.truth().tds_alive, 3, "their memory is intact");
    }
}

#[test]
fn with_the_flag_of_version_1_the_module_detects_the_damage() {
    for (old, hv) in [(counting(5), 1), (counting(5), 0), (TestImage::default(), 0)] {
        let platform = boot_bare(&old);
        let tds = PHASES.map(|phase| platform.create_td_in(phase).unwrap());
        update_with(&platform, &counting(6), hv, Some(BIT_47), |_| {});
        assert!(platform.with_model(|model| model.module().unwrap().update_compatibility()));
        for td in &tds[1..] {
            assert_eq!(platform.finish_td(*td), Err(TdError::IncompatibleContext));
            assert_eq!(
                platform.finish_td(*td),
                Err(TdError::IncompatibleContext),
                "repeated calls give the same result"
            );
        }
        assert_eq!(platform.truth().tds_alive, 3);
        // A TD that begins after the update is not affected.
        let late = platform.create_td_in(TdPhase::Build).unwrap();
        assert_eq!(platform.finish_td(late), Ok(true));
    }
}

#[test]
fn an_update_between_two_pages_changes_the_measurement_of_a_td() {
    let expected = Td::measurement_of(&[&[7; 32], b"first", b"second"]);
    for updates in [false, true] {
        let platform = boot_bare(&counting(5));
        let id = platform.with_model(|model| model.create_td(TdPhase::Build, [7; 32]).unwrap());
        platform.with_model(|model| model.extend_td(id, b"first").unwrap());
        if updates {
            update(&platform, &counting(6), 1);
        }
        let measurement = platform.with_model(|model| {
            model.extend_td(id, b"second").unwrap();
            assert_eq!(model.finish_td(id, TdPhase::InterruptedMigration), Err(TdError::Phase));
            model.finish_td(id, TdPhase::Build).unwrap()
        });
        assert_eq!(measurement != expected, updates);
        platform.with_model(|model| assert_eq!(model.extend_td(id, b"third"), Err(TdError::Phase)));
    }
    // With the flag, no page can be added.
    let platform = boot_bare(&counting(5));
    let id = platform.create_td_in(TdPhase::Build).unwrap();
    update_with(&platform, &counting(6), 1, Some(BIT_47), |_| {});
    let added = platform.with_model(|model| model.extend_td(id, b"page"));
    assert_eq!(added, Err(TdError::IncompatibleContext));
}

#[test]
fn a_refused_shutdown_returns_reason_and_count_and_changes_nothing() {
    let platform = boot_from(SimPlatform::builder().lps(2), &counting(5));
    let before: Vec<u8> = platform.with_model(|model| model.handoff().to_vec());
    let mut tds = Vec::new();
    // Builds are reported before migrations, whichever began first.
    let steps = [
        (TdPhase::InterruptedMigration, SENSITIVE | 1 << 16 | 1),
        (TdPhase::InterruptedMigration, SENSITIVE | 2 << 16 | 1),
        (TdPhase::Running, SENSITIVE | 2 << 16 | 1),
        (TdPhase::Build, SENSITIVE | 1 << 16),
        (TdPhase::Build, SENSITIVE | 2 << 16),
        (TdPhase::Build, SENSITIVE | 3 << 16),
    ];
    for (phase, expected) in steps {
        tds.push((phase, platform.create_td_in(phase).unwrap()));
        for lp in [0, 1] {
            for hv in [0, 1] {
                assert_eq!(
                    rax(&platform, lp, SHUTDOWN, AVOID | hv),
                    Ok(expected),
                    "{phase:?}, {hv}"
                );
            }
        }
        // Bad bits of RCX are checked first.
        assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID | 2), Ok(TdxStatus::OPERAND_INVALID.0 | 1));
        assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID << 1), Ok(TdxStatus::OPERAND_INVALID.0 | 1));
        let truth = platform.truth();
        assert_eq!((truth.module.unwrap().state, truth.tds_alive), (State::Ready, truth.tds));
    }
    assert!(
        platform.with_model(|model| model.handoff() == before),
        "the handoff area is unchanged"
    );
    // The operations end one after the other.
    let expected = [
        SENSITIVE | 2 << 16,
        SENSITIVE | 1 << 16,
        SENSITIVE | 2 << 16 | 1,
        SENSITIVE | 1 << 16 | 1,
    ];
    let under_way = tds.iter().rev().filter(|(phase, _)| *phase != TdPhase::Running);
    for ((_, td), expected) in under_way.zip(expected.into_iter().map(Some).chain([None])) {
        assert_eq!(platform.finish_td(*td), Ok(true));
        if let Some(expected) = expected {
            assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID), Ok(expected));
        }
    }
    update(&platform, &counting(6), AVOID | 1);
    assert_eq!(platform.truth().tds_alive, 9);
}

#[test]
fn without_the_feature_shutdown_rejects_bit_16() {
    let platform = boot(SimPlatform::builder().lps(1));
    platform.create_td_in(TdPhase::Build).unwrap();
    for bits in [AVOID, AVOID | 1, AVOID << 1, 1 << 63] {
        assert_eq!(rax(&platform, 0, SHUTDOWN, bits), Ok(0xc000_0100_0000_0001));
    }
    assert_eq!(platform.truth().tds_alive, 4);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0), "the module does not count");
}

#[test]
fn version_1_hands_counts_over_and_version_0_loses_them() {
    for (hv, size, expected) in [(1, 53391, SENSITIVE | 2 << 16), (0, 53386, 0)] {
        let platform = boot_bare(&counting(5));
        platform.create_td_in(TdPhase::Build).unwrap();
        platform.create_td_in(TdPhase::Build).unwrap();
        platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
        let mut sizes = Vec::new();
        update_with(&platform, &counting(6), hv, None, |_| {
            sizes.push(platform.with_model(|model| model.handoff_header().size.get()));
        });
        assert!(sizes.iter().all(|found| *found == size), "{sizes:?}");
        assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID | 1), Ok(expected), "version {hv}");
        assert_eq!(platform.truth().module.unwrap().state == State::Ready, expected != 0);
    }
}

#[test]
fn counts_survive_several_updates_until_one_cannot_hand_them_over() {
    let platform = boot_bare(&counting(5));
    platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
    for svn_minor in [6, 7] {
        update(&platform, &counting(svn_minor), 1);
        assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID | 1), Ok(SENSITIVE | 1 << 16 | 1));
    }
    update(&platform, &counting(8), 0);
    update(&platform, &counting(9), AVOID | 1);
    assert_eq!(platform.truth().tds_alive, 1);
}

#[test]
fn a_td_that_began_under_a_module_that_does_not_count_is_not_protected() {
    let platform = boot_bare(&TestImage::default());
    let old = platform.create_td_in(TdPhase::Build).unwrap();
    update(&platform, &counting(6), 0);
    let counted = platform.create_td_in(TdPhase::Build).unwrap();
    assert_eq!(
        rax(&platform, 0, SHUTDOWN, AVOID),
        Ok(SENSITIVE | 1 << 16),
        "only the second TD counts"
    );
    assert_eq!(platform.finish_td(counted), Ok(true));
    assert_eq!(
        rax(&platform, 0, SHUTDOWN, AVOID),
        Ok(0),
        "the first TD does not prevent the shutdown"
    );
    assert!(!platform.td_is_alive(old));
}

#[test]
fn finishing_a_td_that_was_not_counted_does_not_change_the_count() {
    for phase in [TdPhase::Build, TdPhase::InterruptedMigration] {
        let platform = boot_bare(&TestImage::default());
        let not_counted = platform.create_td_in(phase).unwrap();
        update(&platform, &counting(6), 0);
        platform.create_td_in(phase).unwrap();
        let refused = rax(&platform, 0, SHUTDOWN, AVOID);
        assert_eq!(platform.finish_td(not_counted), Ok(false));
        assert_eq!(rax(&platform, 0, SHUTDOWN, AVOID), refused, "{phase:?}");
    }
}

#[test]
fn a_second_update_does_not_repair_the_damage_of_the_first() {
    for phase in [TdPhase::Build, TdPhase::InterruptedMigration] {
        let platform = boot_bare(&counting(5));
        let td = platform.create_td_in(phase).unwrap();
        update(&platform, &counting(6), 1);
        update(&platform, &counting(7), 1);
        assert_eq!(platform.finish_td(td), Ok(false), "{phase:?}");
    }
}

#[test]
fn creating_a_td_fails_while_the_module_cannot_be_called() {
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(install_on(&platform, 0, 0), OK);
    let module = platform.truth().module.unwrap();
    assert_eq!(
        (module.state, module.callable),
        (State::Ready, false),
        "after the first call of a session"
    );
    assert!(platform.create_td().is_err());
}

#[test]
fn update_version_1_can_be_repeated_after_a_refusal() {
    let platform = boot_bare(&counting(5));
    let td = platform.create_td_in(TdPhase::Running).unwrap();
    let mut refused = 0;
    update_with(&platform, &counting(6), 1, Some(BIT_47), |what| {
        if what == "LP.INIT" {
            for r9 in [1 << 6, 1 << 63, u64::MAX] {
                assert_eq!(sys_update(&platform, Some(r9)), Ok(TdxStatus::OPERAND_INVALID.0 | 9));
                refused += 1;
            }
            let regs = SeamcallRegs { rax: UPDATE | 2 << 16, ..SeamcallRegs::default() };
            assert_eq!(call_regs(&platform, 0, regs).unwrap().rax, TdxStatus::OPERAND_INVALID.0);
            let regs = SeamcallRegs { rax: UPDATE | 1 << 16, r10: 1, ..SeamcallRegs::default() };
            assert_eq!(
                call_regs(&platform, 0, regs).unwrap().rax,
                TdxStatus::OPERAND_INVALID.0 | 10
            );
            let truth = platform.truth();
            assert_eq!((truth.handoff_valid, truth.tds_alive), (true, 0), "before the restore");
        }
    });
    assert!(refused == 3 && platform.td_is_alive(td));
    // A module without the feature has no version 1.
    let platform = boot_bare(&TestImage::default());
    let regs = SeamcallRegs { rax: UPDATE | 1 << 16, ..SeamcallRegs::default() };
    assert_eq!(call_regs(&platform, 0, regs).unwrap().rax, TdxStatus::OPERAND_INVALID.0);
}

#[test]
fn each_module_accepts_handoff_data_of_each_form_in_a_version_that_it_knows() {
    let rows: [(&str, TestImage, TestImage, u64, u32); 6] = [
        ("plain to plain", TestImage::default(), newer(), 0, 53386),
        ("plain to counting", TestImage::default(), counting(6), 0, 53386),
        ("counting to counting", counting(5), counting(6), 1, 53391),
        ("counting to plain", counting(5), newer(), 0, 53386),
        ("connect to connect", connect(5), connect(6), 0, 101_810),
        (
            "connect to counting, with as many pages",
            connect(5),
            TestImage { num_handoff_pages: 24, ..counting(6) },
            0,
            101_810,
        ),
    ];
    for (what, old, new, hv, size) in rows {
        let platform = boot_bare(&old);
        let tds: Vec<_> = (0..5).map(|_| platform.create_td().unwrap()).collect();
        let mut seen = None;
        update_with(&platform, &new, hv, None, |_| {
            let header = platform.with_model(|model| model.handoff_header());
            let first = *seen.get_or_insert(header);
            assert_eq!(header, first, "{what}: the header is unchanged until the update");
        });
        let expected =
            HandoffHeader { valid: 1, reserved: 0, hv: U16::new(hv as u16), size: U32::new(size) };
        assert_eq!(seen, Some(expected), "{what}");
        assert!(tds.iter().all(|td| platform.td_is_alive(*td)), "{what}");
        let used = platform.with_model(|model| model.handoff_header());
        assert_eq!((used.valid, used.hv, used.size.get()), (0, expected.hv, 0), "{what}");
    }
}

#[test]
fn the_newest_modules_accept_up_to_25_pages_of_version_0() {
    // 25 pages from a 2.0 module to a module with 14 pages.
    let platform = boot_bare(&connect(5));
    let td = platform.create_td().unwrap();
    update(&platform, &counting(6), 0);
    assert!(platform.td_is_alive(td));
    // Up to 25 pages to a module with 32 pages.
    let roomy = |svn_minor| TestImage { num_handoff_pages: 31, ..counting(svn_minor) };
    let platform = boot_bare(&roomy(5));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &roomy(6).build(), Scenario::Update), OK);
    assert_eq!([SYS_INIT, LP_INIT].map(|leaf| rax(&platform, 0, leaf, 0)), [Ok(0), Ok(0)]);
    for (size, expected) in [(25 * 4096 - 8, Ok(0)), (25 * 4096 - 7, Err(Trap::VmFailInvalid))] {
        let header = HandoffHeader { valid: 1, reserved: 0, hv: U16::new(0), size: U32::new(size) };
        let mut copy = platform.with_model(|model| model.clone());
        copy.handoff()[..8].copy_from_slice(header.as_bytes());
        let mut regs = SeamcallRegs { rax: UPDATE, ..SeamcallRegs::default() };
        let result = copy.seamcall(0, &mut regs, &Nothing, &RustCrypto);
        assert_eq!(result.map(|()| regs.rax), expected, "{size} bytes");
    }
}

#[test]
fn a_td_with_the_key_id_of_another_td_reads_noise() {
    let platform = boot_bare(&TestImage::default());
    let tds = [0; 2].map(|_| platform.create_td().unwrap());
    let before = tds.map(|td| secret(&platform, td).unwrap());
    update_with(&platform, &newer(), 0, None, |what| {
        if what == "LP.INIT" {
            // Entries of the key ownership table have 8 bytes. The first TD's KeyID follows the
            // module's own.
            platform.with_model(|model| model.handoff()[8 + 8 * 0x21..][..16].rotate_left(8));
        }
    });
    assert_eq!(platform.truth().tds_alive, 0);
    for (td, before) in tds.into_iter().zip(before) {
        let noise = secret(&platform, td).unwrap();
        assert!(noise != before && !platform.td_is_alive(td));
    }
}

#[test]
fn tds_that_a_load_ended_do_not_return_with_later_tds() {
    let platform = boot(SimPlatform::builder().lps(1));
    let old: Vec<_> = (0..3).map(|_| platform.create_td().unwrap()).collect();
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
    platform.bring_up().unwrap();
    let new: Vec<_> = (0..3).map(|_| platform.create_td().unwrap()).collect();
    let alive = |tds: &[TdId]| tds.iter().filter(|td| platform.td_is_alive(**td)).count();
    assert_eq!((alive(&old), alive(&new)), (0, 3));
    update(&platform, &TestImage { svn_minor: 7, ..newer() }, 0);
    assert_eq!((alive(&old), alive(&new)), (0, 3));
    assert!(old.iter().all(|td| platform.finish_td(*td) == Err(TdError::Gone)));
}

#[test]
fn rdx_of_a_failed_install_says_whether_the_tds_survive() {
    for (file, expected, then) in [
        (unsuitable(), (S::EUNSUPCPU, 0), OK),
        (with_wrong_hash(), (S::EBADHASH, 1), (S::EBADPARAM, 0)),
    ] {
        let platform = boot(SimPlatform::builder().lps(2));
        let tds = PHASES.map(|phase| platform.create_td_in(phase).unwrap());
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        assert_eq!(install_all(&platform, &file, Scenario::Update), expected);
        assert_eq!(platform.truth().tds_alive, 0);
        assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), then);
        if then == OK {
            assert_eq!([SYS_INIT, LP_INIT].map(|leaf| rax(&platform, 0, leaf, 0)), [Ok(0), Ok(0)]);
            assert_eq!(
                [rax(&platform, 1, LP_INIT, 0), sys_update(&platform, None)],
                [Ok(0), Ok(0)]
            );
        } else {
            assert_eq!(install_all(&platform, &newer().build(), Scenario::Load), OK);
            platform.bring_up().unwrap();
        }
        assert_eq!(tds.map(|td| platform.td_is_alive(td)), [then == OK; 3]);
    }
}

#[test]
fn many_updates_in_a_row_do_not_change_running_tds() {
    let platform = boot_bare(&counting(5));
    let tds: Vec<_> = (0..4).map(|_| platform.create_td().unwrap()).collect();
    let before: Vec<_> = tds.iter().map(|id| td(&platform, *id)).collect();
    for (svn_minor, hv) in (6..16).zip([1, 0].into_iter().cycle()) {
        update(&platform, &counting(svn_minor), hv);
        assert_eq!(platform.truth().tds_alive, 4);
    }
    assert!(tds.iter().map(|id| td(&platform, *id)).eq(before));
}

/// Makes TDs until there is no room.
fn fill(platform: &SimPlatform) -> usize {
    let full = (0..).find(|_| platform.create_td().is_err()).unwrap();
    assert_eq!(platform.truth().tds_alive, full);
    full
}

#[test]
fn the_platform_fills_up_with_tds_and_all_survive_an_update() {
    let platform = boot_bare(&TestImage::default());
    let full = fill(&platform);
    assert!((31..=MAX_TDS).contains(&full), "{full}");
    update(&platform, &newer(), 0);
    assert_eq!(platform.truth().tds_alive, full);
    assert!(platform.create_td().is_err(), "still full");
}

#[test]
fn the_last_td_gets_the_last_key_id_of_the_platform() {
    let platform = boot_bare(&TestImage::default());
    fill(&platform);
    let keyids = platform.with_model(|model| 1usize << model.config().keyid_bits);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    // The key ownership table: 8 bytes for each KeyID, zeros for a KeyID without an owner.
    let owned = platform.with_model(|model| {
        let table = model.handoff()[8..][..2048 * 8].chunks(8).map(|entry| entry != [0; 8]);
        table.collect::<Vec<_>>()
    });
    assert_eq!(owned.iter().rposition(|owned| *owned), Some(keyids - 1));
}
