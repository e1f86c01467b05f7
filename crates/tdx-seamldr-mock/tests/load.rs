//! Loads a module when no TD is left to preserve, with failures.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod support;

use support::*;
use tdx_seamldr_core::abi::{SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Purpose;
use tdx_seamldr_core::update::{FailureCause, NextStep, Outcome, TdFate, Update};
use tdx_seamldr_core::Trap;
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimPlatform, TestImage};

/// Returns a platform whose module and TDs are gone.
fn without_module(lps: u32) -> SimPlatform {
    let platform = boot(SimPlatform::builder().lps(lps));
    platform.inject(Fault::first(INSTALL, LOST));
    let outcome = update_to(&platform, &newer());
    assert_eq!((outcome.tds, outcome.next), (TdFate::Lost, NextStep::Load), "{outcome}");
    platform.clear_faults();
    platform.clear_trace();
    platform
}

/// Loads the first image, or else the fallback.
fn load(platform: &SimPlatform, image: &PageBuf, fallback: Option<&PageBuf>) -> Outcome {
    let mut pages = [PageBuf::zeroed(1), PageBuf::zeroed(1)];
    let [page, other] = &mut pages;
    let fallback = fallback.map(|fallback| prepare(platform, other, fallback, Purpose::Load));
    let image = prepare(platform, page, image, Purpose::Load);
    let update = Update::load(image, &platform.lp(0), platform.module_state()).unwrap();
    let update = update.with_fallbacks(fallback.as_slice()).unwrap();
    run_stepped(platform, &update, 7)
}

#[test]
fn load_brings_up_a_module_if_there_is_none() {
    for lps in [1, 2, 3, 8] {
        let platform = without_module(lps);
        let outcome = load(&platform, &newer().build(), None);
        assert_eq!((outcome.next, outcome.failure), (NextStep::Configure, None), "{outcome}");
    }
}

#[test]
fn load_installs_the_fallback_if_the_image_is_refused() {
    for lps in [1, 2, 3, 8] {
        let platform = without_module(lps);
        let outcome = load(&platform, &with_wrong_signature(), Some(&newer().build()));
        assert_eq!((outcome.next, outcome.image), (NextStep::Configure, 1), "{lps} LPs: {outcome}");
    }
}

#[test]
fn another_image_can_be_loaded_after_a_refused_one() {
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

/// Whatever call fails once, a caller that follows the outcome gets a module.
#[test]
fn a_next_load_succeeds_after_any_single_failure() {
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
            assert_eq!(outcome.next, NextStep::Configure, "{what}, then {outcome}");
        }
    }
    assert!(failed > 0, "some failures end a load");
}

/// The first question is whether a module still runs. It is repeated before an odd answer is
/// believed.
#[test]
fn load_finds_a_running_module_despite_odd_answers() {
    for answer in [Answer::Trap(Trap::VmFailInvalid), returns(TdxStatus::SYS_BUSY.0)] {
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

/// After all fallback images were refused, the installed module gets one more chance, because its
/// failure may have passed. The refusal of its own image says nothing about the installed module.
#[test]
fn finish_falls_back_to_the_installed_module_if_the_image_is_refused() {
    let broken = returns(0xC000_0001_0000_0000);
    let old = TestImage::default().build();
    for (times, comes_up) in [(u32::MAX, false), (1, true)] {
        let platform = boot(SimPlatform::builder().lps(2));
        // The new module is installed and does not come up.
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
