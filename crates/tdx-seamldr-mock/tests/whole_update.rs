//! Whole updates on the simulated platform, with and without failures. Each test compares the
//! outcome with the platform's real state.
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
use tdx_seamldr_core::abi::{Scenario, SeamldrLeaf, SeamldrStatus, TdxLeaf, TdxStatus};
use tdx_seamldr_core::update::{
    Cpu, FailureCause, NextStep, Progress, RunningModule, Stage, TdFate,
};
use tdx_seamldr_core::update::{Outcome, Update, UpdateError, MAX_LPS};
use tdx_seamldr_core::SharedInfo;
use tdx_seamldr_core::{SpinLock, TdxImage, TdxModule, Trap};
use tdx_seamldr_mock::model::ModuleState;
use tdx_seamldr_mock::{
    run_on_threads, run_stepped, Answer, Fault, PageBuf, SimLp, SimPlatform, TestImage,
};

fn assert_good(platform: &SimPlatform, outcome: &Outcome, lps: usize) {
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.tds, outcome.running), (TdFate::Preserved, RunningModule::New));
    assert_eq!((outcome.failure, outcome.next, outcome.stage), (None, NextStep::Done, Stage::Done));
    let truth = platform.truth();
    assert_eq!((truth.tds, truth.tds_alive), (3, 3));
    assert_eq!(truth.svn.to_string(), "1.6");
    assert_eq!(
        (truth.remaining_updates, truth.lps_in_session, truth.handoff_valid),
        (62, 0, false)
    );
    assert!(platform.module_state().is_ready());
    for (rax, calls) in [(SHUTDOWN, 1), (INSTALL, lps), (SYS_INIT, 1), (LP_INIT, lps), (UPDATE, 1)]
    {
        assert_eq!(count(platform, rax), calls, "{rax:#x}");
    }
    // Each LP checks the module. The lead also reads SEAMLDR_INFO and the handoff version, which
    // preflight did not know.
    for (rax, calls) in [(TDMR_INIT, lps), (INFO, 1), (SYS_RD, 1)] {
        assert_eq!(count(platform, rax), calls, "{rax:#x}");
    }
    assert_eq!(platform.trace().len(), 3 * lps + 5);
}

#[test]
fn an_update_on_threads_keeps_all_tds() {
    for lps in [1, 2, 3, 8, 64, 1024] {
        let platform = boot(SimPlatform::builder().lps(lps));
        let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
            run_on_threads(&platform, update)
        });
        assert_good(&platform, &outcome, lps as usize);
    }
}

#[test]
fn an_update_in_any_order_of_steps_keeps_all_tds() {
    for lps in [1, 2, 3, 8, 1024] {
        for seed in 0..4 {
            let platform = boot(SimPlatform::builder().lps(lps).sockets(1 + lps / 4 % 3));
            let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
                run_stepped(&platform, update, seed * 0x9e37_79b9)
            });
            assert_good(&platform, &outcome, lps as usize);
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let platform = boot(SimPlatform::builder().lps(8));
        let image = newer().build();
        assert!(with_update(&platform, &image, Options::default(), |update| run_stepped(
            &platform, update, seed
        ))
        .is_updated());
        platform.trace().iter().map(|entry| (entry.lp, entry.input.rax)).collect::<Vec<_>>()
    };
    assert_eq!(trace(5), trace(5));
    assert_ne!(trace(5), trace(6), "different seeds give different traces");
}

#[test]
fn updates_succeed_until_no_remaining_update_is_left() {
    let platform = boot(SimPlatform::builder().lps(2).seamdb_size(4));
    for (svn_minor, remaining) in [(6, 2), (7, 1), (8, 0)] {
        assert!(update_to(&platform, &TestImage { svn_minor, ..newer() }).is_updated());
        assert_eq!(platform.truth().remaining_updates, remaining);
    }
    let outcome = update_to(&platform, &TestImage { svn_minor: 9, ..newer() });
    assert_eq!(outcome.failure.unwrap().cause, FailureCause::NoRemainingUpdates);
    assert_eq!((outcome.tds, outcome.running), (TdFate::NeverAtRisk, RunningModule::Old));
}

#[test]
fn update_passes_the_handoff_version_in_rcx_of_shutdown() {
    let old = TestImage { module_hv: 3, min_update_hv: 1, ..TestImage::default() };
    let new = TestImage { module_hv: 4, min_update_hv: 2, ..newer() }.build();
    for (handoff_version, rcx) in [(None, 3), (Some(2), 2)] {
        let platform = boot_from(SimPlatform::builder().lps(2), &old);
        let options = Options { handoff_version, ..Options::default() };
        assert!(with_update(&platform, &new, options, |update| run_stepped(&platform, update, 1))
            .is_updated());
        let trace = platform.trace();
        assert_eq!(trace.iter().find(|entry| entry.input.rax == SHUTDOWN).unwrap().input.rcx, rcx);
    }
}

#[test]
fn a_refused_shutdown_changes_nothing() {
    let busy = returns(TdxStatus::SYS_BUSY.0);
    let platform = boot(SimPlatform::builder());
    platform.inject(Fault { times: 100, ..Fault::first(SHUTDOWN, busy) });
    let outcome = update_to(&platform, &newer());
    assert_eq!(
        (outcome.tds, outcome.running, outcome.next),
        (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater)
    );
    platform.clear_faults();
    assert_eq!(
        outcome.failure.unwrap().cause,
        FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY)
    );
    assert_eq!((platform.truth().tds_alive, count(&platform, INSTALL)), (3, 0));
    assert!(platform.module_state().is_ready());
    platform.clear_trace();
    assert_good(&platform, &update_to(&platform, &newer()), 4);
}

#[test]
fn a_module_without_the_feature_rejects_the_flag_of_shutdown() {
    let platform = boot(SimPlatform::builder());
    let options = Options { avoid_compat_sensitive: true, ..Options::default() };
    let outcome = with_update(&platform, &newer().build(), options, |update| {
        run_stepped(&platform, update, 1)
    });
    let refused = FailureCause::Tdx(TdxLeaf::SYS_SHUTDOWN, TdxStatus(0xC000_0100_0000_0001));
    assert_eq!((outcome.tds, outcome.failure.unwrap().cause), (TdFate::NeverAtRisk, refused));
}

/// Firmware rule T2: a recoverable refusal, then a session of all LPs with a valid image.
#[test]
fn paused_tds_survive_if_a_second_session_succeeds() {
    let platform = boot(SimPlatform::builder().lps(3));
    let outcome = update_to_file(&platform, &unsuitable());
    let cause = FailureCause::Seamldr {
        leaf: SeamldrLeaf::Install,
        status: SeamldrStatus::EUNSUPCPU,
        rdx: 0,
    };
    assert_eq!(outcome.failure.unwrap().cause, cause);
    assert_eq!((outcome.tds, outcome.next), (TdFate::Held, NextStep::InstallAgain));
    assert_eq!(
        (outcome.running, outcome.finished(Stage::CpuInstall)),
        (RunningModule::OldShutDown, 2)
    );
    let truth = platform.truth();
    assert!(truth.handoff_valid && truth.tds_alive == 0 && truth.lps_in_session == 0);

    // A plain retry of the update does no harm and reports the problem.
    let again = update_to(&platform, &newer());
    assert_eq!((again.tds, again.running), (TdFate::Held, RunningModule::OldShutDown));

    let image = newer().build();
    let resumed = resume(&platform, &image);
    assert!(resumed.is_updated(), "{resumed}");
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn an_image_that_fails_after_the_point_of_no_return_costs_the_tds() {
    // Preflight refuses an image that is not an ELF file, whatever facts are unknown.
    let not_elf = vec![0x90; newer().module().len()];
    let file = newer().file(&newer().sigstruct(&not_elf), &not_elf);
    let platform = boot(SimPlatform::builder());
    assert!(
        pass(&platform, &TdxImage::parse(file.as_bytes()).unwrap(), Options::default()).is_err()
    );
    let platform = boot(SimPlatform::builder().lps(2));
    let outcome = update_to_file(&platform, &with_wrong_hash());
    let cause = FailureCause::Seamldr {
        leaf: SeamldrLeaf::Install,
        status: SeamldrStatus::EBADHASH,
        rdx: 1,
    };
    assert_eq!(outcome.failure.unwrap().cause, cause);
    assert_eq!((outcome.tds, outcome.running), (TdFate::Lost, RunningModule::NoneKnown));
    assert_eq!(outcome.next, NextStep::Load);
    assert_eq!((platform.truth().module, platform.truth().tds_alive), (None, 0));
}

#[test]
fn a_trap_that_passes_is_not_reported_as_an_open_session() {
    for (times, trap) in
        [(1, Trap::VmFailInvalid), (3, Trap::VmFailInvalid), (3, Trap::UndefinedOpcode)]
    {
        for lps in [1, 3] {
            let platform = boot(SimPlatform::builder().lps(lps));
            let answer = returns(TdxStatus::SYS_LP_INIT_NOT_DONE.0);
            platform.inject(Fault::first(SYS_INIT, answer));
            // The first SYS.RD reads the handoff version. The second one checks for an open
            // session.
            let trap = Fault { after: 1, times, ..Fault::first(SYS_RD, Answer::Trap(trap)) };
            platform.inject(trap);
            let outcome = update_to(&platform, &newer());
            assert!(outcome.is_updated(), "{lps} LPs, {trap:?}: {outcome}");
            assert_eq!(platform.truth().tds_alive, 3);
        }
    }
}

/// Firmware rule T4: P-SEAMLDR counts an LP that does not take part.
#[test]
fn an_offline_lp_leaves_the_session_open_until_it_calls() {
    let platform = boot(SimPlatform::builder().lps(4).offline(2));
    let image = newer().build();
    assert!(platform.module_state().is_lp_initialized(2), "initialised at boot");
    let outcome = update_to(&platform, &newer());
    assert_eq!(outcome.failure.unwrap().cause, FailureCause::LpsMissing);
    assert_eq!((outcome.tds, outcome.running), (TdFate::Held, RunningModule::SessionOpen));
    assert_eq!(platform.truth().lps_in_session, 3);
    assert!(
        !platform.module_state().is_lp_initialized(2),
        "an offline LP is not initialised either"
    );

    let (lp, lock) = (platform.lp(2), SpinLock::new());
    with_request(&platform, &image, Scenario::Update, |request| {
        seamldr(&lp, &lock).install(&request).unwrap()
    });
    assert_eq!(platform.truth().module.unwrap().state, ModuleState::SysInitPending);
    for number in 0..4 {
        assert_eq!(
            TdxModule::new(&platform.lp(number)).enable_lp(platform.module_state(), number),
            Ok(true)
        );
    }
    TdxModule::new(&lp).sys_update().unwrap();
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn an_lp_that_never_comes_ends_the_update_before_anything_is_shut_down() {
    let platform = boot(SimPlatform::builder().lps(3));
    with_update(&platform, &newer().build(), Options::default(), |update| {
        let lock = SpinLock::new();
        let lps = [platform.lp(0), platform.lp(1)];
        let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
        for _ in 0..10 {
            for cpu in &mut cpus {
                assert_ne!(cpu.step(), Progress::Finished);
            }
        }
        assert_eq!(update.progress(), (Stage::Start, 2));
        cpus[1].abandon();
        assert!(cpus.iter_mut().all(|cpu| cpu.step() == Progress::Finished));
        let outcome = update.outcome();
        let failure = outcome.failure.unwrap();
        assert_eq!(
            (failure.stage, failure.lp, failure.cause),
            (Stage::Start, 1, FailureCause::GaveUp)
        );
        assert_eq!((outcome.tds, outcome.finished(Stage::Start)), (TdFate::NeverAtRisk, 2));

        // The late LP finds the update ended.
        let late = platform.lp(2);
        assert_eq!(Cpu::new(update, seamldr(&late, &lock)).step(), Progress::Finished);
    });
    assert_eq!(
        (count(&platform, TDMR_INIT), platform.trace().len(), platform.truth().tds_alive),
        (2, 2, 3)
    );
}

#[test]
fn an_lp_beyond_the_module_state_ends_the_update_before_it_starts() {
    let platform = boot(SimPlatform::builder().lps(65));
    let file = newer().build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let passed = pass(&platform, &image, Options::default()).unwrap();
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let state = tdx_seamldr_core::ModuleState::<[tdx_seamldr_core::LpBits; 1]>::new();
    let update = Update::new(&passed, params.as_params(), &info, &platform.lp(0), &state).unwrap();
    let outcome = run_stepped(&platform, &update, 1);
    let failure = outcome.failure.unwrap();
    assert_eq!(
        (failure.stage, failure.lp, failure.cause),
        (Stage::Start, 64, FailureCause::UnknownLp)
    );
    assert_eq!(platform.truth().tds_alive, 3);
}

/// Steps these LPs in turn until all have finished.
fn finish(cpus: &mut [&mut Cpu<'_, SimLp<'_>, SpinLock>]) {
    for _ in 0..100 {
        let working = cpus
            .iter_mut()
            .map(|cpu| cpu.step())
            .filter(|progress| *progress != Progress::Finished);
        if working.count() == 0 {
            return;
        }
    }
    panic!("the LPs did not finish");
}

#[test]
fn an_lp_beyond_the_announced_number_is_rejected() {
    // LP 0 makes a second `Cpu`, the third of the update. It steps at the start or in the middle.
    for late in [false, true] {
        let platform = boot(SimPlatform::builder().lps(2));
        with_update(&platform, &newer().build(), Options::default(), |update| {
            let lock = SpinLock::new();
            let lps = [platform.lp(0), platform.lp(1), platform.lp(0)];
            let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
            let [first, second, extra] = &mut cpus;
            assert_eq!((first.step(), second.step()), (Progress::Worked, Progress::Worked));
            for _ in 0..10 {
                if late && update.progress().0 != Stage::CpuInstall {
                    let _ = (first.step(), second.step());
                }
            }
            assert_eq!(extra.step(), Progress::Finished);
            finish(&mut [first, second]);
            assert_good(&platform, &update.outcome(), 2);
        });
    }
}

#[test]
fn an_lp_does_not_give_up_if_the_others_made_progress() {
    let platform = boot(SimPlatform::builder().lps(2));
    with_update(&platform, &newer().build(), Options::default(), |update| {
        let lock = SpinLock::new();
        let lps = [platform.lp(0), platform.lp(1)];
        let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
        let [first, second] = &mut cpus;
        assert_eq!((first.step(), first.step()), (Progress::Worked, Progress::Waiting));
        assert_eq!(second.step(), Progress::Worked);
        first.abandon();
        assert_eq!((update.outcome().failure, update.progress().0), (None, Stage::Shutdown));
        finish(&mut [first, second]);
        assert!(update.outcome().is_updated());
        assert_eq!(update.outcome().finished(Stage::Done), 2);
    });
}

#[test]
fn an_update_after_one_that_ended_early_does_not_report_the_tds_as_alive() {
    let platform = boot(SimPlatform::builder().lps(2));
    let busy = returns(TdxStatus::SYS_BUSY.0);
    platform.inject(Fault { times: u32::MAX, ..Fault::first(UPDATE, busy) });
    assert_eq!(update_to(&platform, &newer()).tds, TdFate::Held);
    platform.clear_faults();
    for handoff_version in [None, Some(0)] {
        let options = Options { handoff_version, ..Options::default() };
        let again = with_update(&platform, &newer().build(), options, |update| {
            run_stepped(&platform, update, 1)
        });
        assert_eq!(
            (again.tds, again.running),
            (TdFate::Held, RunningModule::NewNotReady),
            "{again}"
        );
        assert_eq!(again.stage, Stage::Start);
        assert_eq!(platform.truth().tds_alive, 0);
    }
}

#[test]
fn threads_give_up_if_one_lp_stops() {
    let platform = boot(SimPlatform::builder().lps(3).patience(100));
    // One LP stops after its first call.
    let (lock, file) = (SpinLock::new(), newer().build());
    let outcome = with_update(&platform, &file, Options::default(), |update| {
        std::thread::scope(|threads| {
            for lp in [0, 1] {
                let (platform, lock) = (&platform, &lock);
                threads.spawn(move || Cpu::new(update, seamldr(&platform.lp(lp), lock)).run());
            }
        });
        update.outcome()
    });
    assert_eq!(
        (outcome.tds, outcome.failure.unwrap().cause),
        (TdFate::NeverAtRisk, FailureCause::GaveUp)
    );
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn an_lp_waits_for_a_late_lp() {
    let platform = boot(SimPlatform::builder().lps(2));
    let (lock, file) = (SpinLock::new(), newer().build());
    let outcome = with_update(&platform, &file, Options::default(), |update| {
        std::thread::scope(|threads| {
            let run = |lp| Cpu::new(update, seamldr(&platform.lp(lp), &lock)).run();
            threads.spawn(move || run(0));
            while update.progress() != (Stage::Start, 1) {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            run(1);
        });
        update.outcome()
    });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, platform.truth().tds_alive), (1, 3));
}

#[test]
fn update_new_accepts_1_to_1024_lps() {
    let platform = boot(SimPlatform::builder().lps(1));
    for found in [0, 1, MAX_LPS, MAX_LPS + 1] {
        let host = counting_lps(platform.lp(0), found);
        let result = Update::finish(&host, platform.module_state()).map(drop);
        let is_possible = (1..=MAX_LPS).contains(&found);
        assert_eq!(result, if is_possible { Ok(()) } else { Err(UpdateError::Lps(found)) });
    }
}

/// Compares an outcome with the platform's real state.
fn assert_true(outcome: &Outcome, platform: &SimPlatform, what: &str) {
    let truth = platform.truth();
    let alive = truth.tds_alive == truth.tds;
    match outcome.tds {
        TdFate::NeverAtRisk | TdFate::Preserved => {
            assert!(alive, "{what}: {outcome}, but {truth:?}")
        }
        TdFate::Held => {
            assert!(truth.handoff_valid && truth.tds_alive == 0, "{what}: {outcome}, but {truth:?}")
        }
        TdFate::Lost => assert!(!alive && !truth.handoff_valid, "{what}: {outcome}, but {truth:?}"),
        // The outcome makes no claim.
        TdFate::Unknown => return,
    }
    let state = truth.module.map(|module| (module.callable, module.state));
    let expected = match outcome.running {
        RunningModule::Old | RunningModule::New => state == Some((true, ModuleState::Ready)),
        RunningModule::OldShutDown => state == Some((true, ModuleState::Shutdown)),
        RunningModule::NewNotReady => {
            matches!(state, Some((true, ModuleState::SysInitPending | ModuleState::SysInitDone)))
        }
        RunningModule::SessionOpen => truth.lps_in_session > 0,
        RunningModule::NoneKnown => true,
    };
    assert!(expected, "{what}: {outcome:?}, but {truth:?}");
}

/// Makes each call of an update fail, once or from then on, in each way that leaves the firmware
/// unchanged.
#[test]
fn the_outcome_is_true_whichever_call_fails() {
    let image = newer().build();
    for lps in [1, 2, 3] {
        for call in 0..(3 * lps + 5) {
            for trap in Trap::ALL {
                for times in [1, u32::MAX] {
                    let what = format!("{lps} LPs, call {call}, {trap:?}, {times} times");
                    let platform = boot(SimPlatform::builder().lps(lps));
                    let answer = Answer::Trap(trap);
                    platform.inject(Fault { lp: None, rax: None, after: call, times, answer });
                    let outcome = update_to_file(&platform, &image);
                    // Firmware made no such call here. A real module that was installed does not
                    // return VMfailInvalid for ever.
                    let no_answer = outcome.stage == Stage::CpuInit && trap == Trap::VmFailInvalid;
                    if !no_answer || times == 1 {
                        assert_true(&outcome, &platform, &what);
                    }
                    // The update overcomes a single failure. Exceptions before the shutdown: an LP
                    // without VMX operation or TDX, or without P-SEAMLDR.
                    let (is_before, is_info) = ((lps..lps + 3).contains(&call), call == lps);
                    let overcome =
                        times == 1 && !(is_info || is_before && trap != Trap::VmFailInvalid);
                    assert_eq!(outcome.is_updated(), overcome, "{what}: {outcome}");
                    platform.clear_faults();
                    assert!(
                        outcome.is_updated() || is_saved(&platform, &outcome, &image),
                        "{what}: {outcome}"
                    );
                }
            }
        }
    }
}

/// Returns whether the TDs survive if the caller follows the outcome's next step, now without the
/// fault.
fn is_saved(platform: &SimPlatform, outcome: &Outcome, image: &PageBuf) -> bool {
    let next = match outcome.next {
        NextStep::Retry | NextStep::RetryLater => update_to_file(platform, image),
        NextStep::Finish => support::finish(platform),
        _ => resume(platform, image),
    };
    assert_true(&next, platform, "the next step");
    platform.truth().tds_alive == platform.truth().tds
}

#[test]
fn the_outcome_contains_every_status_of_the_module_unchanged() {
    for (rax, stage) in [
        (SYS_RD, Stage::Shutdown),
        (SYS_INIT, Stage::CpuInit),
        (LP_INIT, Stage::CpuInit),
        (UPDATE, Stage::RunUpdate),
    ] {
        for status in [
            TdxStatus::SYS_BUSY,
            TdxStatus(0xC000_0920_0000_0480),
            TdxStatus(0x8123_4567_89ab_cdef),
        ] {
            let platform = boot(SimPlatform::builder().lps(3));
            let answer = returns(status.0);
            platform.inject(Fault { times: u32::MAX, ..Fault::first(rax, answer) });
            let outcome = update_to(&platform, &newer());
            let failure = outcome.failure.unwrap();
            assert_eq!(failure.stage, stage);
            assert_eq!(failure.cause, FailureCause::Tdx(TdxLeaf::from_rax(rax), status));
            assert_true(&outcome, &platform, &failure.to_string());
            assert!(failure.to_string().contains(&format!("{:#018x}", status.0)));
        }
    }
}

#[test]
fn an_update_overcomes_missing_entropy_in_the_module() {
    let platform = boot(SimPlatform::builder().lps(2));
    let answer = returns(TdxStatus::RND_NO_ENTROPY.0);
    platform.inject(Fault { lp: None, rax: Some(LP_INIT), after: 0, times: 9, answer });
    assert!(update_to(&platform, &newer()).is_updated());
    assert_eq!((count(&platform, LP_INIT), platform.truth().tds_alive), (11, 3));
}

#[test]
fn random_faults_on_threads_never_hang() {
    let image = newer().build();
    for number in 0..40u32 {
        let platform = boot(SimPlatform::builder().lps(4).patience(200_000));
        let answer = match number % 4 {
            0 => returns(SeamldrStatus::ENOENTROPY.0),
            1 => Answer::Trap(Trap::VmFailInvalid),
            2 => Answer::Return { rax: TdxStatus::SYS_BUSY.0, rdx: 1 },
            _ => returns(0),
        };
        platform.inject(Fault {
            lp: Some(number / 4 % 4),
            rax: None,
            after: number / 8,
            times: 1,
            answer,
        });
        let outcome = with_update(&platform, &image, Options::default(), |update| {
            run_on_threads(&platform, update)
        });
        assert_eq!(outcome.is_updated(), outcome.tds == TdFate::Preserved);
    }
}
