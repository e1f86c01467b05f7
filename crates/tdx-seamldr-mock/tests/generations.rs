//! Differences between the generations of P-SEAMLDR: 1.0, 1.5.00, the one with SEAMLDR.CLEANUP, and
//! 2.0.00.
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
use tdx_seamldr_core::abi::{Scenario, SeamldrFeatures0, SeamldrInfoBuffer, SeamldrLeaf};
use tdx_seamldr_core::abi::{SeamSigstruct, SeamldrStatus as S};
use tdx_seamldr_core::{InstallRequest, SeamcallRegs, SpinLock, TdxImage};
use tdx_seamldr_mock::model::LoaderProfile as Profile;
use tdx_seamldr_mock::{sign, PageBuf, SimPlatform, TestImage};
use zerocopy::little_endian::{U32, U64};

fn call(platform: &SimPlatform, lp: u32, rax: u64, rcx: u64) -> (S, u64) {
    let regs = SeamcallRegs { rax, rcx, ..SeamcallRegs::default() };
    let regs = call_regs(platform, lp, regs).unwrap();
    (S(regs.rax), regs.rdx)
}

const OK: (S, u64) = (S::SUCCESS, 0);
const CLEANUP: u64 = SeamldrLeaf::Cleanup.rax();
const END: u64 = SeamldrLeaf::Shutdown.rax();

fn platform(profile: Profile, lps: u32) -> SimPlatform {
    boot(SimPlatform::builder().lps(lps).profile(profile))
}

fn update(platform: &SimPlatform, image: &TestImage) -> (S, u64) {
    assert_eq!(call(platform, 0, SHUTDOWN, 0).0, S::SUCCESS);
    install_all(platform, &image.build(), Scenario::Update)
}

fn seam_ready(platform: &SimPlatform) -> u8 {
    platform.with_model(|model| model.loader().seamextend().seam_ready)
}

#[test]
fn only_newer_generations_have_cleanup_and_report_it() {
    for (name, profile) in Profile::ALL {
        let platform = platform(profile, 1);
        let (lp, lock) = (platform.lp(0), SpinLock::new());
        let mut buffer = SeamldrInfoBuffer::zeroed();
        let info = seamldr(&lp, &lock).info(&mut buffer).unwrap();
        let announced = info.features().contains(SeamldrFeatures0::CLEANUP);
        let expected = if profile.has_cleanup { S::SUCCESS } else { S::EBADPARAM };
        assert_eq!(
            (announced, call(&platform, 0, CLEANUP, 0)),
            (profile.has_cleanup, (expected, 0)),
            "{name}"
        );
    }
}

#[test]
fn each_generation_refuses_another_major_svn_with_its_own_status() {
    let other = TestImage { svn_major: 2, ..newer() };
    let zero = TestImage { svn_major: 0, ..newer() };
    let rows = [
        (Profile::V1_5_00, S::EBADCALL, S::EBADCALL),
        (Profile::NEWER, S::EUNSUPPORTED, S::EUNSUPPORTED),
        (Profile::V2_0_00, S::EBADCALL, S::EBADCALL),
        // The SVN is one 16-bit number, which must not decrease.
        (Profile::V1_0, S::SUCCESS, S::EBADSIG),
    ];
    for (profile, higher, lower) in rows {
        assert_eq!(update(&platform(profile, 1), &other), (higher, 0), "{profile:?}");
        assert_eq!(update(&platform(profile, 1), &zero), (lower, 0), "{profile:?}");
    }
    // Newer generations refuse to load major SVN 0 even if no module runs.
    let platform = platform(Profile::NEWER, 1);
    assert_eq!(install_all(&platform, &zero.build(), Scenario::Load), (S::EUNSUPPORTED, 0));
}

#[test]
fn only_newer_generations_refuse_a_module_without_pages_in_time() {
    for (profile, expected, ready) in
        [(Profile::V1_5_00, (S::EBADHASH, 1), 0), (Profile::NEWER, (S::EBADPARAM, 0), 1)]
    {
        let platform = platform(profile, 1);
        let file = newer().build();
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let mut page = PageBuf::zeroed(1);
        let request =
            InstallRequest::build(page.as_params(), &image, Scenario::Update, &platform.lp(0))
                .unwrap();
        let address = request.params().get().0;
        page.as_params().0.num_module_pages = U64::new(0);
        assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
        // A module without code has no interrupt gates.
        let result = call(&platform, 0, INSTALL, address);
        assert_eq!((result, seam_ready(&platform)), (expected, ready));
    }
}

#[test]
fn the_first_generation_preserves_no_tds_and_needs_no_cpu_list() {
    let platform = platform(Profile::V1_0, 2);
    let without_list = TestImage { cpus: Vec::new(), ..newer() };
    assert_eq!(update(&platform, &without_list), OK);
    platform.bring_up().unwrap();
    let truth = platform.truth();
    assert_eq!((truth.tds_alive, truth.handoff_valid, truth.remaining_updates), (0, false, 0));
    // This generation does not change the image, so the interrupt gates keep their values.
    let mut sigstruct = without_list.sigstruct(&without_list.module());
    sigstruct.gdt_idt_offset = U32::new(0xffff_f000);
    sign(&mut sigstruct);
    let file = without_list.file(&sigstruct, &without_list.module());
    assert_eq!(install_all(&platform, &file, Scenario::Load), OK);
    let code = platform.with_model(|model| model.code()[..8 * 4096].to_vec());
    assert_eq!(code, without_list.module());
}

#[test]
fn older_generations_reserve_the_bytes_that_2_0_modules_use() {
    let file = |change: fn(&mut SeamSigstruct)| {
        let module = newer().module();
        let mut sigstruct = newer().sigstruct(&module);
        change(&mut sigstruct);
        sign(&mut sigstruct);
        newer().file(&sigstruct, &module)
    };
    for (profile, expected) in [
        (Profile::V1_5_00, S::EBADSIG),
        (Profile::NEWER, S::EBADSIG),
        (Profile::V2_0_00, S::SUCCESS),
    ] {
        let platform = platform(profile, 1);
        assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
        let file = file(|sigstruct| sigstruct.reserved3[3] = 2);
        assert_eq!(install_all(&platform, &file, Scenario::Update), (expected, 0), "{profile:?}");
    }
}

#[test]
fn cleanup_by_all_lps_restores_the_updates_and_ends_the_tds() {
    let platform =
        boot(SimPlatform::builder().lps(4).sockets(2).profile(Profile::NEWER).seamdb_size(2));
    assert_eq!(update(&platform, &newer()), OK);
    assert_eq!(platform.truth().remaining_updates, 0);
    assert_eq!(call(&platform, 2, CLEANUP, 0), OK);
    // From the first call on there is no module, and no other flow can begin.
    let (svn, handoff_valid) = platform.with_model(|model| {
        (model.loader().seamextend().svn().to_string(), model.handoff_header().valid)
    });
    assert_eq!((seam_ready(&platform), svn.as_str(), handoff_valid), (0, "0.0", 0));
    assert_eq!(call(&platform, 2, CLEANUP, 0).0, S::EBADCALL, "this LP has finished");
    assert_eq!(call(&platform, 0, INSTALL, 0).0, S::EBADCALL);
    assert_eq!(call(&platform, 0, END, 0).0, S::EBADCALL);
    // The last LP of a package does the work, and stops for interrupts.
    platform.with_model(|model| model.set_interrupts_pending(2));
    assert_eq!(
        [0; 3].map(|_| call(&platform, 3, CLEANUP, 0).0),
        [S::EINTERRUPT, S::EINTERRUPT, S::SUCCESS]
    );
    assert_eq!([0, 1].map(|lp| call(&platform, lp, CLEANUP, 0)), [OK, OK]);
    let truth = platform.truth();
    assert_eq!((truth.remaining_updates, truth.mrseam, truth.tds_alive), (2, [0; 48], 0));
    // Downgrades are allowed now.
    let lower = TestImage { svn_minor: 1, ..TestImage::default() };
    assert_eq!(install_all(&platform, &lower.build(), Scenario::Load), OK);
    platform.bring_up().unwrap();
}

#[test]
fn flows_that_need_clean_keys_return_ecleanupreq() {
    let platform = platform(Profile::NEWER, 1);
    let lower = TestImage { svn_minor: 1, ..TestImage::default() };
    let other = TestImage { svn_major: 2, ..TestImage::default() };
    for image in [lower, other] {
        assert_eq!(install_all(&platform, &image.build(), Scenario::Load), (S::ECLEANUPREQ, 0));
    }
    assert_eq!(call(&platform, 0, END, 0), (S::ECLEANUPREQ, 0));
    assert_eq!(seam_ready(&platform), 1, "the module is still ready");
    assert_eq!(call(&platform, 0, CLEANUP, 0), OK);
    assert_eq!(call(&platform, 0, END, 0), OK);
    assert_eq!(platform.with_model(|model| model.loader().seamextend().p_seamldr_ready), 0);
}

#[test]
fn install_and_shutdown_exclude_each_other_in_newer_generations() {
    let platform = platform(Profile::NEWER, 2);
    assert_eq!(call(&platform, 0, SHUTDOWN, 0), OK);
    with_params(&platform, &newer().build(), Scenario::Update, |params| {
        assert_eq!(call(&platform, 0, INSTALL, params), OK);
        assert_eq!(call(&platform, 1, CLEANUP, 0).0, S::EBADCALL);
        assert_eq!(call(&platform, 1, END, 0).0, S::EBADCALL);
        assert_eq!(call(&platform, 1, INSTALL, params), OK);
    });
    assert_eq!(platform.truth().svn.minor, 6);
}
