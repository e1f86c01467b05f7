//! A module is loaded afresh where no TD is left to keep, and something fails.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod support;

use support::*;
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::Purpose;
use tdx_seamldr_core::update::{FailureCause, NextStep, Outcome, TdFate, Update};
use tdx_seamldr_core::{TdxImage, Trap};
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimPlatform, TestImage};

/// A platform whose module is gone, and its TDs with it.
fn without_module(lps: u32) -> SimPlatform {
    let platform = boot(SimPlatform::builder().lps(lps));
    let answer = Answer::Return { rax: SeamldrStatus::EBADHASH.0, rdx: 1 };
    platform.inject(Fault::first(SeamldrLeaf::Install.rax(), answer));
    let outcome = update_to(&platform, &newer());
    assert_eq!((outcome.tds, outcome.next), (TdFate::Lost, NextStep::Load), "{outcome}");
    platform.clear_faults();
    platform.clear_trace();
    platform
}

/// Loads the first of these images, or else the second.
fn load(platform: &SimPlatform, image: &PageBuf, fallback: Option<&PageBuf>) -> Outcome {
    let mut pages = [PageBuf::zeroed(1), PageBuf::zeroed(1)];
    let [page, other] = &mut pages;
    let fallback = fallback.map(|fallback| prepare(platform, other, fallback, Purpose::Load));
    let image = prepare(platform, page, image, Purpose::Load);
    let update = Update::load(image, &platform.lp(0), platform.module_state()).unwrap();
    let update = update.with_fallbacks(fallback.as_slice()).unwrap();
    run_stepped(platform, &update, 7)
}

/// A file whose form is right, its checksum too.
fn with_wrong_signature() -> PageBuf {
    let image = newer().build();
    let parts = TdxImage::parse(image.as_bytes()).unwrap().parts();
    let mut sigstruct = parts.sigstruct.to_vec();
    *sigstruct.get_mut(600).unwrap() ^= 1;
    let parts = ImageParts { sigstruct: &sigstruct, module: parts.module };
    let mut file = PageBuf::zeroed(parts.file_len().unwrap() / 4096);
    parts.write(ImageFormat::BlobV1, file.as_mut_bytes()).unwrap();
    file
}

#[test]
fn a_module_comes_up_where_there_is_none() {
    for lps in [1, 2, 3, 8] {
        let platform = without_module(lps);
        let outcome = load(&platform, &newer().build(), None);
        assert_eq!((outcome.next, outcome.failure), (NextStep::Configure, None), "{outcome}");
    }
}

#[test]
fn an_image_that_is_refused_makes_room_for_the_next_one() {
    for lps in [1, 2, 3, 8] {
        let platform = without_module(lps);
        let outcome = load(&platform, &with_wrong_signature(), Some(&newer().build()));
        assert_eq!((outcome.next, outcome.image), (NextStep::Configure, 1), "{lps} LPs: {outcome}");
    }
}

#[test]
fn after_an_image_that_is_refused_another_one_can_be_loaded() {
    for lps in [1, 2, 3, 8] {
        let platform = without_module(lps);
        let outcome = load(&platform, &with_wrong_signature(), None);
        let cause = outcome.last_failure.map(|failure| failure.cause);
        assert!(
            matches!(cause, Some(FailureCause::Seamldr { status: SeamldrStatus::EBADSIG, .. })),
            "{outcome}"
        );
        assert_eq!(outcome.next, NextStep::Load, "{outcome}");
        assert_eq!(load(&platform, &newer().build(), None).next, NextStep::Configure);
    }
}

/// Whatever fails once, whoever does what the outcome says has a module in the end.
#[test]
fn no_single_failure_is_in_the_way_of_the_next_load() {
    let statuses = SeamldrStatus::TABLE.iter().map(|known| known.status.0);
    let module = [TdxStatus::SYS_BUSY, TdxStatus::RND_NO_ENTROPY, TdxStatus::OPERAND_BUSY];
    let returned = statuses.chain(module.map(|status| status.0)).filter(|status| *status != 0);
    let answers: Vec<_> = returned
        .flat_map(|rax| [0, 1].map(|rdx| Answer::Return { rax, rdx }))
        .chain(
            [Trap::VmFailInvalid, Trap::GeneralProtection, Trap::UndefinedOpcode].map(Answer::Trap),
        )
        .collect();
    let image = newer().build();
    let mut failed = 0;
    for lps in [1, 3] {
        let calls = {
            let platform = without_module(lps);
            load(&platform, &image, None);
            u32::try_from(platform.trace().len()).unwrap()
        };
        for (answer, number) in
            answers.iter().flat_map(|answer| (0..calls).map(move |number| (*answer, number)))
        {
            let platform = without_module(lps);
            platform.inject(Fault::nth(number, answer));
            let mut outcome = load(&platform, &image, None);
            platform.clear_faults();
            let what = format!("{lps} LPs, call {number}, {answer:?}: {outcome}");
            for _ in 0..3 {
                match outcome.next {
                    NextStep::Configure => break,
                    NextStep::Load | NextStep::Retry => {
                        failed += 1;
                        outcome = load(&platform, &image, None);
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
            assert_eq!(outcome.next, NextStep::Configure, "{what}, and then {outcome}");
        }
    }
    assert!(failed > 0, "some failures end a load");
}

/// What is asked at the start, whether a module still runs, is asked again before an odd answer is
/// believed.
#[test]
fn a_module_that_runs_is_not_overlooked() {
    for answer in
        [Answer::Trap(Trap::VmFailInvalid), Answer::Return { rax: TdxStatus::SYS_BUSY.0, rdx: 0 }]
    {
        let platform = boot(SimPlatform::builder().lps(2));
        platform.inject(Fault { times: 3, ..Fault::nth(0, answer) });
        let outcome = load(&platform, &newer().build(), None);
        let cause = outcome.failure.map(|failure| failure.cause);
        assert_eq!(
            (outcome.tds, cause),
            (TdFate::NeverAtRisk, Some(FailureCause::StillReady)),
            "{outcome}"
        );
        assert_eq!(platform.truth().tds_alive, 3);
    }
}

/// What kept the module that is in place from coming up may have passed once all images to fall
/// back on were refused. It gets this one chance: that its own image cannot be installed again says
/// nothing about it.
#[test]
fn finishing_with_an_image_that_is_refused_goes_back_to_the_module_in_place() {
    let broken = Answer::Return { rax: 0xC000_0001_0000_0000, rdx: 0 };
    let old = TestImage::default().build();
    for (times, comes_up) in [(u32::MAX, false), (1, true)] {
        let platform = boot(SimPlatform::builder().lps(2));
        // The new module is in place and does not come up.
        platform.inject(Fault { times: u32::MAX, ..Fault::first(SYS_INIT, broken) });
        let outcome = update_to(&platform, &newer());
        assert_eq!(outcome.tds, TdFate::Held, "{outcome}");
        platform.clear_faults();
        platform.inject(Fault { times, ..Fault::first(SYS_INIT, broken) });
        platform.clear_trace();
        let mut page = PageBuf::zeroed(1);
        let fallbacks =
            [prepare(&platform, &mut page, &old, Purpose::TakeOver { handoff_version: None })];
        let update = finishing(&platform).unwrap().with_fallbacks(&fallbacks).unwrap();
        let outcome = run_stepped(&platform, &update, 1);
        assert_eq!((outcome.rounds, count(&platform, INSTALL)), (3, 2), "{outcome}");
        assert_eq!((outcome.tds_live_on(), outcome.image), (comes_up, 0), "{outcome}");
        let cause = outcome.last_failure.map(|failure| failure.cause);
        assert_eq!(
            matches!(cause, Some(FailureCause::Tdx(TdxLeaf::SYS_INIT, _))),
            !comes_up,
            "{outcome}"
        );
    }
}
