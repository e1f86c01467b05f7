//! Updates that do not succeed at once: fallback images, abandoned sessions, resumed updates, and
//! unexpected statuses.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::cell::RefCell;

use support::*;
use tdx_seamldr_core::abi::{Scenario, SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Purpose;
use tdx_seamldr_core::update::{Call, Cpu, FailureCause, NextStep, Outcome, Progress};
use tdx_seamldr_core::update::{RunningModule, Stage, TdFate, Update, UpdateError, MAX_FALLBACKS};
use tdx_seamldr_core::{CurrentVmcs, Lock, Seamldr, SharedInfo, SpinLock, TdxImage, Trap};
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimPlatform, TestImage};

/// RAX of TDH.SYS.UPDATE, version 1.
const UPDATE_V1: u64 = 1 << 16 | UPDATE;

/// A status that is neither success nor error.
const INFORMATION: TdxStatus = TdxStatus::KEY_CONFIGURED;

/// Updates to the first of these files, with the others as fallbacks.
fn update_with_fallbacks(platform: &SimPlatform, files: &[PageBuf]) -> Outcome {
    with_fallbacks(platform, &files[0], &files[1..], Options::default(), |update| {
        run_stepped(platform, update, 1)
    })
}

fn load(platform: &SimPlatform, file: &PageBuf) -> Outcome {
    let mut page = PageBuf::zeroed(1);
    let image = prepare(platform, &mut page, file, Purpose::Load);
    let update = Update::load(image, &platform.lp(0), platform.module_state()).unwrap();
    run_stepped(platform, &update, 1)
}

fn update_with(platform: &SimPlatform, options: Options) -> Outcome {
    with_update(platform, &newer().build(), options, |update| run_stepped(platform, update, 1))
}

fn cause(outcome: &Outcome) -> FailureCause {
    outcome.last_failure.unwrap().cause
}

#[test]
fn the_first_accepted_fallback_keeps_the_tds() {
    let good = TestImage { svn_minor: 7, ..newer() }.build();
    for refused in 0..3 {
        let platform = boot(SimPlatform::builder().lps(2));
        let mut files: Vec<_> = (0..refused).map(|_| unsuitable()).collect();
        files.extend([good.clone(), unsuitable()]);
        let outcome = update_with_fallbacks(&platform, &files);
        assert!(outcome.tds_live_on(), "{outcome}");
        assert_eq!(outcome.is_updated(), refused == 0);
        assert_eq!(
            (usize::from(outcome.image), outcome.rounds),
            (refused, 1 + u32::from(outcome.image))
        );
        assert_eq!(
            (platform.truth().tds_alive, platform.truth().svn.to_string().as_str()),
            (3, "1.7")
        );
        assert_eq!(outcome.failure.is_some(), refused != 0);
        assert_eq!(outcome.last_failure, None, "the failure was overcome");
    }
}

#[test]
fn an_image_whose_module_does_not_come_up_is_tried_again_last() {
    let platform = boot(SimPlatform::builder().lps(2));
    let failed = returns(TdxStatus::INCONSISTENT_MSR.0);
    platform.inject(Fault { times: 2, ..Fault::first(SYS_INIT, failed) });
    let files = [newer().build(), TestImage { svn_minor: 7, ..newer() }.build()];
    let outcome = update_with_fallbacks(&platform, &files);
    assert!(outcome.tds_live_on(), "{outcome}");
    // Both images have failed once. The first one is now refused, because it is older than the
    // second.
    assert_eq!((outcome.image, platform.truth().svn.minor), (1, 7));
    assert_eq!((platform.truth().tds_alive, outcome.last_failure), (3, None));
}

#[test]
fn with_fallbacks_accepts_seven_images_of_the_same_scenario() {
    let platform = boot(SimPlatform::builder());
    let (file, state, host) = (newer().build(), platform.module_state(), platform.lp(0));
    let mut pages = [PageBuf::zeroed(1), PageBuf::zeroed(1)];
    let [for_update, for_load] = &mut pages;
    let take_over =
        prepare(&platform, for_update, &file, Purpose::TakeOver { handoff_version: None });
    let load = prepare(&platform, for_load, &file, Purpose::Load);
    let resume = |image| Update::resume(image, &host, state);
    let too_many = [take_over; MAX_FALLBACKS + 1];
    assert!(resume(take_over).unwrap().with_fallbacks(&too_many[1..]).is_ok());
    let error = resume(take_over).unwrap().with_fallbacks(&too_many).unwrap_err();
    assert_eq!(error, UpdateError::Fallbacks(8));
    let error = UpdateError::Scenario { found: Scenario::Load, wanted: Scenario::Update };
    assert_eq!(resume(take_over).unwrap().with_fallbacks(&[load]).unwrap_err(), error);
    assert_eq!(finishing(&platform).unwrap().with_fallbacks(&[load]).unwrap_err(), error);
    assert_eq!(resume(load).unwrap_err(), error);
    let other = UpdateError::Scenario { found: Scenario::Update, wanted: Scenario::Load };
    assert_eq!(Update::load(take_over, &host, state).unwrap_err(), other);
    assert!(Update::load(load, &host, state).unwrap().with_fallbacks(&[load]).is_ok());
}

#[test]
fn a_module_state_serves_one_update_at_a_time() {
    let platform = boot(SimPlatform::builder());
    let first = finishing(&platform).unwrap();
    assert_eq!(finishing(&platform).unwrap_err(), UpdateError::Busy);
    drop(first);
    assert!(finishing(&platform).is_ok());
}

#[test]
fn load_succeeds_after_the_module_was_lost() {
    let platform = boot(SimPlatform::builder().lps(3));
    platform.inject(Fault { after: 2, ..Fault::first(INSTALL, LOST) });
    let outcome = update_to(&platform, &newer());
    assert_eq!(state(&outcome), (TdFate::Lost, RunningModule::NoneKnown, NextStep::Load));
    assert_eq!((outcome.rounds, outcome.is_updated()), (1, false));
    assert!(!platform.module_state().is_handoff_pending());
    platform.clear_trace();
    let loaded = load(&platform, &newer().build());
    assert_eq!(
        state(&loaded),
        (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure),
        "{loaded}"
    );
    assert_eq!((loaded.stage, loaded.failure, loaded.finished_last_stage), (Stage::Done, None, 3));
    assert!(!platform.module_state().is_handoff_pending());
    for (rax, calls) in [(SHUTDOWN, 0), (INSTALL, 3), (SYS_INIT, 1), (LP_INIT, 3), (UPDATE, 0)] {
        assert_eq!(count(&platform, rax), calls, "{rax:#x}");
    }
    assert_eq!(platform.truth().svn.minor, 6);
}

#[test]
fn load_ends_tds_that_were_paused() {
    let platform = boot(SimPlatform::builder().lps(2));
    let held = update_to_file(&platform, &unsuitable());
    assert_eq!(held.tds, TdFate::Held);
    assert!(platform.module_state().is_handoff_pending());
    assert_eq!(load(&platform, &newer().build()).next, NextStep::Configure);
    assert!(!platform.module_state().is_handoff_pending());
}

#[test]
fn resume_finish_and_load_do_nothing_while_a_module_is_ready() {
    let platform = boot(SimPlatform::builder().lps(2));
    let image = newer().build();
    for outcome in [load(&platform, &image), resume(&platform, &image), finish(&platform)] {
        assert_eq!(state(&outcome), (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry));
        assert_eq!((cause(&outcome), outcome.stage), (FailureCause::StillReady, Stage::Start));
    }
    assert_eq!((platform.truth().tds_alive, count(&platform, INSTALL)), (3, 0));
}

/// Found by fuzzing: the first LP cannot reach the module, which serves TDs on the other LPs.
#[test]
fn a_module_that_one_lp_cannot_reach_is_still_found() {
    let platform = boot(SimPlatform::builder().lps(3));
    let image = newer().build();
    platform.with_model(|model| model.set_in_module(0, true));
    let ready = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
    for trap in [None, Some(Trap::UndefinedOpcode)] {
        platform.with_model(|model| model.set_trap(1, trap));
        for outcome in [resume(&platform, &image), load(&platform, &image), finish(&platform)] {
            assert_eq!((state(&outcome), outcome.stage), (ready, Stage::Start), "{outcome}");
        }
    }
    // If no LP can reach the module or P-SEAMLDR, the update changes nothing.
    platform.with_model(|model| model.set_in_module(2, true));
    let unclear = resume(&platform, &image);
    let undefined = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_TDMR_INIT), Trap::UndefinedOpcode);
    assert_eq!(
        (unclear.tds, cause(&unclear), unclear.stage),
        (TdFate::Unknown, undefined, Stage::Start)
    );
    assert_eq!((platform.truth().tds_alive, count(&platform, INSTALL)), (3, 0));
}

#[test]
fn a_busy_module_is_asked_again() {
    let platform = boot(SimPlatform::builder().lps(3));
    let image = newer().build();
    platform
        .inject(Fault { times: 100, ..Fault::first(TDMR_INIT, returns(TdxStatus::SYS_BUSY.0)) });
    let unclear = finish(&platform);
    assert_eq!(cause(&unclear), FailureCause::Tdx(TdxLeaf::SYS_TDMR_INIT, TdxStatus::SYS_BUSY));
    assert_eq!((unclear.rounds, unclear.stage, unclear.tds), (1, Stage::Start, TdFate::Unknown));
    assert_eq!(platform.truth().tds_alive, 3);

    platform.clear_faults();
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    platform.clear_trace();
    for answer in [returns(TdxStatus::SYS_BUSY.0), Answer::Trap(Trap::GeneralProtection)] {
        platform.inject(Fault::first(TDMR_INIT, answer));
    }
    let outcome = resume(&platform, &image);
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, platform.truth().tds_alive), (1, 3));
    assert_eq!(count(&platform, TDMR_INIT), 3 + 2, "the other two LPs call as well");
}

#[test]
fn finish_brings_up_a_module_that_did_not_come_up() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault { times: 1000, ..Fault::first(UPDATE, returns(TdxStatus::SYS_BUSY.0)) });
    let outcome = update_to(&platform, &newer());
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    assert_eq!(
        (outcome.rounds, outcome.stage),
        (16, Stage::RunUpdate),
        "the number of rounds is limited"
    );
    platform.clear_faults();
    platform.clear_trace();
    let finished = finish(&platform);
    assert!(finished.is_updated(), "{finished}");
    assert_eq!(
        (count(&platform, INSTALL), count(&platform, SHUTDOWN), platform.truth().tds_alive),
        (0, 0, 3)
    );
}

/// The first LP finds an open session, and cannot know which LPs are in it.
#[test]
fn resume_leaves_the_session_open_while_an_lp_is_offline() {
    let platform = boot(SimPlatform::builder().lps(3).offline(2));
    let image = newer().build();
    assert_eq!(cause(&update_to(&platform, &newer())), FailureCause::LpsMissing);
    let still = resume(&platform, &image);
    assert_eq!(
        state(&still),
        (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
    );
    assert_eq!((cause(&still), still.stage), (FailureCause::LpsMissing, Stage::CpuInstall));
    assert_eq!((still.finished(Stage::CpuInstall), platform.truth().lps_in_session), (2, 2));
}

#[test]
fn the_session_stays_open_if_an_lp_stays_away() {
    let platform = boot(SimPlatform::builder().lps(2));
    with_update(&platform, &newer().build(), Options::default(), |update| {
        let lock = SpinLock::new();
        let lps = [0, 1].map(|number| platform.lp(number));
        let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
        while update.progress().0 != Stage::CpuInstall {
            cpus.iter_mut().for_each(|cpu| assert_ne!(cpu.step(), Progress::Finished));
        }
        while cpus[0].step() != Progress::Waiting {}
        cpus[0].abandon();
        let outcome = update.outcome();
        assert_eq!(cause(&outcome), FailureCause::GaveUp);
        assert_eq!(
            state(&outcome),
            (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
        );
    });
    assert_eq!(platform.truth().lps_in_session, 1);
}

/// All LPs but one are refused before they join the session.
#[test]
fn a_session_stays_open_if_all_other_lps_are_refused() {
    let refused = |status: SeamldrStatus| Fault {
        after: 1,
        times: 1000,
        ..Fault::first(INSTALL, returns(status.0))
    };
    let waits = (RunningModule::SessionOpen, 1);
    for status in [SeamldrStatus::EBADPARAM, SeamldrStatus::EUNSPECERR] {
        let platform = boot(SimPlatform::builder().lps(2));
        platform.inject(refused(status));
        let outcome = update_to(&platform, &newer());
        assert_eq!((outcome.running, platform.truth().lps_in_session), waits, "{outcome}");
        assert_eq!(
            state(&outcome),
            (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
        );
    }
    // If there is no module, a missing answer does not indicate a session. EUNSPECERR is returned
    // before the session is checked.
    for (status, expected) in [
        (SeamldrStatus::EUNSPECERR, waits),
        (SeamldrStatus::EBADPARAM, (RunningModule::NoneKnown, 1)),
    ] {
        let platform = boot(SimPlatform::builder().lps(2));
        platform.inject(Fault::first(INSTALL, LOST));
        assert_eq!(update_to(&platform, &newer()).tds, TdFate::Lost);
        platform.inject(refused(status));
        let outcome = load(&platform, &newer().build());
        assert_eq!(
            (outcome.running, platform.truth().lps_in_session),
            expected,
            "{status}: {outcome}"
        );
    }
}

#[test]
fn a_session_stays_open_whichever_module_is_installed() {
    let refused = |after| Fault {
        after,
        times: 1000,
        ..Fault::first(INSTALL, returns(SeamldrStatus::EBADPARAM.0))
    };
    let image = newer().build();
    let waits = (RunningModule::SessionOpen, 1);

    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    platform.inject(refused(1));
    let outcome = resume(&platform, &image);
    assert_eq!((outcome.running, platform.truth().lps_in_session), waits, "{outcome}");

    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault { times: 1000, ..Fault::first(UPDATE, returns(TdxStatus::SYS_BUSY.0)) });
    assert_eq!(update_to(&platform, &newer()).running, RunningModule::NewNotReady);
    platform.clear_faults();
    platform.inject(refused(1));
    let outcome = resume(&platform, &image);
    assert_eq!((outcome.running, platform.truth().lps_in_session), waits, "{outcome}");

    // The first session succeeds, but its module does not come up. The second session is refused.
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault::first(INSTALL, LOST));
    assert_eq!(update_to(&platform, &newer()).tds, TdFate::Lost);
    let does_not_come_up = returns(TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT.0);
    platform.inject(Fault { times: 1000, ..Fault::first(SYS_INIT, does_not_come_up) });
    platform.inject(refused(3));
    let outcome = load(&platform, &image);
    assert_eq!((outcome.running, platform.truth().lps_in_session), waits, "{outcome}");
}

#[test]
fn lps_that_skip_a_stage_have_not_finished_it() {
    let platform = boot(SimPlatform::builder().lps(3));
    platform.inject(Fault::first(INSTALL, LOST));
    let outcome = update_to(&platform, &newer());
    assert_eq!((outcome.tds, outcome.stage), (TdFate::Lost, Stage::CpuInstall));
    assert_eq!((outcome.finished(Stage::CpuInstall), count(&platform, INSTALL)), (0, 1));
}

#[test]
fn the_lps_outside_an_open_session_complete_it() {
    for lps in 1..4 {
        for left in 0..=lps {
            let platform = boot(SimPlatform::builder().lps(lps));
            let image = newer().build();
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            platform.module_state().set_handoff_pending(true);
            with_params(&platform, &image, Scenario::Update, |params| {
                (0..left).for_each(|lp| {
                    assert_eq!(install_on(&platform, lp, params).0, SeamldrStatus::SUCCESS)
                });
            });
            let outcome = resume(&platform, &image);
            assert!(outcome.is_updated(), "{left} of {lps}: {outcome}");
            assert_eq!(platform.truth().tds_alive, 3, "{left} of {lps}");
        }
    }
}

#[test]
fn a_module_that_other_software_shut_down_is_distinguished_from_a_false_status() {
    for handoff_version in [None, Some(0)] {
        let options = Options { handoff_version, ..Options::default() };
        let platform = boot(SimPlatform::builder().lps(2));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let outcome = update_with(&platform, options);
        assert_eq!(
            state(&outcome),
            (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain)
        );

        let platform = boot(SimPlatform::builder().lps(2));
        let leaf = if handoff_version.is_some() { SHUTDOWN } else { SYS_RD };
        platform
            .inject(Fault { times: 100, ..Fault::first(leaf, returns(TdxStatus::SYS_SHUTDOWN.0)) });
        let outcome = update_with(&platform, options);
        assert_eq!(state(&outcome), (TdFate::Unknown, RunningModule::Old, NextStep::Retry));
        assert_eq!(platform.truth().tds_alive, 3);
    }
}

#[test]
fn an_informational_status_does_not_count_as_success() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault::first(SHUTDOWN, returns(INFORMATION.0)));
    let outcome = update_to(&platform, &newer());
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, count(&platform, SHUTDOWN), platform.truth().tds_alive), (2, 2, 3));
    let failure = outcome.failure.unwrap().cause;
    assert_eq!(failure, FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, INFORMATION));

    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault::first(UPDATE, returns(INFORMATION.0)));
    let outcome = update_to(&platform, &newer());
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, platform.truth().tds_alive), (2, 3));
    let failure = outcome.failure.unwrap().cause;
    assert_eq!(failure, FailureCause::Tdx(TdxLeaf::SYS_UPDATE, INFORMATION));
}

#[test]
fn modules_with_the_feature_are_told_to_detect_damage() {
    let options = Options { detect_compat_damage: true, ..Options::default() };
    // A module without the feature is called twice.
    let platform = boot(SimPlatform::builder().lps(2));
    let outcome = update_with(&platform, options);
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, count(&platform, UPDATE_V1), count(&platform, UPDATE)), (1, 1, 1));

    let platform = boot_from(SimPlatform::builder().lps(2), &counting(5));
    let outcome = with_update(&platform, &counting(6).build(), options, |update| {
        run_stepped(&platform, update, 1)
    });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, count(&platform, UPDATE_V1), count(&platform, UPDATE)), (1, 1, 0));

    // Another error does not lead to a call in version 0.
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault::first(UPDATE_V1, returns(TdxStatus::SYS_BUSY.0)));
    let outcome = update_with(&platform, options);
    assert_eq!((outcome.rounds, count(&platform, UPDATE_V1), count(&platform, UPDATE)), (2, 2, 1));

    // The same error does not either, if version 1 was not used.
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault::first(UPDATE, returns(TdxStatus::OPERAND_INVALID.0)));
    let outcome = update_to(&platform, &newer());
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, count(&platform, UPDATE)), (2, 2));
}

#[test]
fn a_permanent_trap_ends_the_update_after_16_rounds() {
    for trap in Trap::ALL {
        let platform = boot(SimPlatform::builder().lps(2));
        platform.inject(Fault {
            lp: Some(1),
            times: 1000,
            ..Fault::first(INSTALL, Answer::Trap(trap))
        });
        let outcome = update_to(&platform, &newer());
        assert_eq!((outcome.rounds, outcome.stage), (16, Stage::CpuInstall), "{trap}");
        assert_eq!(cause(&outcome), FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), trap));
        platform.clear_faults();
        let resumed = resume(&platform, &newer().build());
        assert!(resumed.is_updated(), "{resumed}");
        assert_eq!(platform.truth().tds_alive, 3);
    }
}

#[test]
fn another_lp_leads_after_a_failure() {
    let platform = boot(SimPlatform::builder().lps(3));
    for (rax, lp) in [(SHUTDOWN, 0), (UPDATE, 1)] {
        platform.inject(Fault {
            lp: Some(lp),
            times: 100,
            ..Fault::first(rax, returns(TdxStatus::SYS_BUSY.0))
        });
    }
    with_update(&platform, &newer().build(), Options::default(), |update| {
        let lock = SpinLock::new();
        let lps = [0, 1, 2].map(|lp| platform.lp(lp));
        let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
        assert_eq!(
            (update.round(), update.progress(), update.is_updated()),
            (1, (Stage::Start, 0), false)
        );
        let shown = format!("{:?}", cpus[0]);
        assert_eq!(shown, "Cpu { acknowledged: None, arrival: 0, .. }");
        let mut seen = Vec::new();
        let mut is_over = false;
        while !is_over {
            is_over = true;
            for cpu in &mut cpus {
                is_over &= cpu.step() == Progress::Finished;
                seen.push((update.round(), update.progress()));
            }
        }
        let begin = [(1, (Stage::Start, 1)), (1, (Stage::Start, 2)), (1, (Stage::Shutdown, 0))];
        assert_eq!(seen[..3], begin);
        assert!(update.is_updated());
        assert_eq!(update.round(), 3);
    });
    let leads = |rax| {
        platform
            .trace()
            .iter()
            .filter(|entry| entry.input.rax == rax)
            .map(|entry| entry.lp)
            .collect::<Vec<_>>()
    };
    assert_eq!((leads(SHUTDOWN), leads(UPDATE)), (vec![0, 1], vec![1, 2]));
    assert_eq!(platform.truth().tds_alive, 3);
}

/// A lock that runs a function each time before it is taken.
struct Late<F> {
    before: F,
}

impl<F: Fn()> Lock for Late<F> {
    type Held<'a>
        = ()
    where
        Self: 'a;

    fn acquire(&self) {
        (self.before)();
    }

    fn release<'a>(&'a self, (): Self::Held<'a>) {}
}

#[test]
fn an_lp_that_waits_for_the_lock_opens_no_session_after_another_lp_failed() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform
        .inject(Fault { lp: Some(0), ..Fault::first(INSTALL, returns(SeamldrStatus::EBADSIG.0)) });
    let fallbacks = [TestImage { svn_minor: 7, ..newer() }.build()];
    with_fallbacks(&platform, &newer().build(), &fallbacks, Options::default(), |update| {
        let (lock, lps) = (SpinLock::new(), [0, 1].map(|lp| platform.lp(lp)));
        let first = RefCell::new(Cpu::new(update, seamldr(&lps[0], &lock)));
        // LP 1 reaches the lock when LP 0 is about to call SEAMLDR.INSTALL.
        let late = Late {
            before: || {
                if update.progress().0 == Stage::CpuInstall && update.round() == 1 {
                    first.borrow_mut().step();
                }
            },
        };
        let mut second =
            Cpu::new(update, Seamldr::new(&lps[1], &late, CurrentVmcs::Preserved).unwrap());
        while update.progress().0 != Stage::CpuInstall {
            let _ = (first.borrow_mut().step(), second.step());
        }
        assert_eq!(second.step(), Progress::Worked);
        assert_eq!((update.round(), count(&platform, INSTALL)), (2, 1));
        while second.step() != Progress::Finished {
            first.borrow_mut().step();
        }
        let outcome = update.outcome();
        assert!(outcome.tds_live_on() && outcome.image == 1, "{outcome}");
    });
    assert_eq!((platform.truth().tds_alive, platform.truth().svn.minor), (3, 7));
}

#[test]
fn with_fallbacks_rejects_an_image_for_another_handoff_version() {
    let platform = boot(SimPlatform::builder());
    let (file, host) = (newer().build(), platform.lp(0));
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let passed =
        pass(&platform, &image, Options { handoff_version: Some(0), ..Options::default() })
            .unwrap();
    let with = |handoff_version| {
        let (mut page, mut params, info) =
            (PageBuf::zeroed(1), PageBuf::zeroed(1), SharedInfo::new());
        // The image itself accepts all these versions.
        let other = TestImage { module_hv: 3, min_update_hv: 0, ..newer() }.build();
        let fallbacks =
            [prepare(&platform, &mut page, &other, Purpose::TakeOver { handoff_version })];
        let update =
            Update::new(&passed, params.as_params(), &info, &host, platform.module_state())
                .unwrap();
        update.with_fallbacks(&fallbacks).map(drop)
    };
    assert_eq!((with(None), with(Some(0))), (Ok(()), Ok(())));
    assert_eq!(with(Some(2)), Err(UpdateError::HandoffVersion { found: 2, wanted: 0 }));
}
