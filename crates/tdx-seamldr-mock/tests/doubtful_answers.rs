//! Statuses that do not tell what happened, and sessions that other software opened or completed.
#![allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::cell::Cell;

use support::*;
use tdx_seamldr_core::abi::{Scenario, SeamldrStatus, TdxStatus};
use tdx_seamldr_core::preflight::Purpose;
use tdx_seamldr_core::update::{Cpu, FailureCause, NextStep, RunningModule, Stage, TdFate, Update};
use tdx_seamldr_core::{SeamcallBackend, SpinLock, TdxModule, Trap};
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimPlatform, TestImage};

/// Returns the cause of the failure that ended the update, as its code.
fn cause(outcome: &tdx_seamldr_core::update::Outcome) -> &'static str {
    outcome.last_failure.unwrap().cause.code()
}

#[test]
fn the_next_shutdown_clears_a_session_that_other_software_completed() {
    let platform = boot(SimPlatform::builder().lps(4));
    let image = newer().build();
    for lp in [2, 3] {
        let trap = Answer::Trap(Trap::GeneralProtection);
        platform.inject(Fault { lp: Some(lp), times: 100, ..Fault::first(INSTALL, trap) });
    }
    let outcome = update_to(&platform, &newer());
    assert_eq!(
        state(&outcome),
        (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
    );
    platform.clear_faults();
    // Other software completes the session, and the new module restores the TDs.
    with_params(&platform, &image, Scenario::Update, |params| {
        let answers = [2, 3].map(|lp| install_on(&platform, lp, params).0);
        assert_eq!(answers, [SeamldrStatus::SUCCESS; 2]);
    });
    for lp in 0..4 {
        assert!(TdxModule::new(&platform.lp(lp)).enable_lp(platform.module_state(), lp).unwrap());
    }
    assert!(TdxModule::new(&platform.lp(0)).sys_update().unwrap().is_success());
    platform.module_state().set_ready();
    let outcome = update_to(&platform, &TestImage { svn_minor: 7, ..newer() });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, platform.truth().tds_alive), (1, 3));
}

#[test]
fn the_outcome_after_shutdown_without_an_answer_is_not_untouched() {
    // The module executes the call, but its answer is lost. SEAM mode is lost for ever, or for a
    // moment.
    for (lost_calls, expected) in [
        (u32::MAX, (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain)),
        (6, (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain)),
    ] {
        let platform = boot(SimPlatform::builder().lps(1));
        let lost = Cell::new(None);
        let lp = Intercepted::new(platform.lp(0), |lp, regs| {
            let rax = regs.rax;
            if let Some(left @ 1..) = lost.get() {
                // SEAMLDR.INFO before the second try succeeds.
                if lost_calls == u32::MAX || rax != INFO {
                    lost.set(Some(left - 1));
                    return Err(Trap::VmFailInvalid);
                }
            }
            // SAFETY: as promised by the caller.
            unsafe { lp.seamcall(regs) }?;
            if rax == SHUTDOWN && lost.get().is_none() {
                lost.set(Some(lost_calls));
                return Err(Trap::VmFailInvalid);
            }
            Ok(())
        });
        let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
            Cpu::new(update, seamldr(&lp, &SpinLock::new())).run();
            update.outcome()
        });
        assert_eq!(state(&outcome), expected, "{outcome}");
        assert_eq!(count(&platform, INSTALL), 0);
    }
}

#[test]
fn the_outcome_reports_the_refusal_although_an_lp_was_already_in_the_session() {
    for (file, code, tds) in
        [(unsuitable(), "EUNSUPCPU", TdFate::Held), (with_wrong_hash(), "EBADHASH", TdFate::Lost)]
    {
        for seed in 1..9 {
            let platform = boot(SimPlatform::builder().lps(2));
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            platform.module_state().set_handoff_pending(true);
            with_params(&platform, &newer().build(), Scenario::Update, |params| {
                assert_eq!(install_on(&platform, 0, params).0, SeamldrStatus::SUCCESS);
            });
            let outcome =
                with_resumed(&platform, &file, |update| run_stepped(&platform, update, seed));
            assert_eq!((cause(&outcome), outcome.tds), (code, tds), "{outcome}");
        }
    }
}

#[test]
fn load_does_not_replace_a_module_behind_an_open_session() {
    for seed in 1..9 {
        let platform = boot(SimPlatform::builder().lps(2));
        with_params(&platform, &newer().build(), Scenario::Update, |params| {
            assert_eq!(install_on(&platform, 0, params).0, SeamldrStatus::SUCCESS);
        });
        let (bad, good) = (unsuitable(), newer().build());
        let mut pages = [PageBuf::zeroed(1), PageBuf::zeroed(1)];
        let [first, second] = &mut pages;
        let image = prepare(&platform, first, &bad, Purpose::Load);
        let fallback = [prepare(&platform, second, &good, Purpose::Load)];
        let host = platform.lp(0);
        let update = Update::load(image, &host, platform.module_state()).unwrap();
        let update = update.with_fallbacks(&fallback).unwrap();
        let outcome = run_stepped(&platform, &update, seed);
        assert_eq!(
            state(&outcome),
            (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
            "{outcome}"
        );
        assert_eq!((platform.truth().tds_alive, outcome.rounds), (3, 1));
    }
}

#[test]
fn a_module_that_may_have_restored_tds_is_not_replaced() {
    let platform = boot(SimPlatform::builder().lps(1));
    let busy = Cell::new(None);
    let lp = Intercepted::new(platform.lp(0), |lp, regs| {
        let rax = regs.rax;
        // SAFETY: as promised by the caller.
        unsafe { lp.seamcall(regs) }?;
        if rax == UPDATE && busy.get().is_none() {
            busy.set(Some(12));
            regs.rax = TdxStatus::KEY_CONFIGURED.0; // neither success nor error
        } else if let Some(left @ 1..) = busy.get().filter(|_| rax == TDMR_INIT) {
            busy.set(Some(left - 1));
            regs.rax = TdxStatus::SYS_BUSY.0;
        }
        Ok(())
    });
    let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
        Cpu::new(update, seamldr(&lp, &SpinLock::new())).run();
        update.outcome()
    });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((count(&platform, INSTALL), platform.truth().tds_alive), (1, 3));
}

#[test]
fn finish_without_a_module_reports_no_open_session() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform.inject(Fault { after: 1, ..Fault::first(INSTALL, LOST) });
    assert_eq!(update_to(&platform, &newer()).tds, TdFate::Lost);
    let outcome = finish(&platform);
    assert_eq!(outcome.running, RunningModule::NoneKnown, "{outcome}");
    assert!(matches!(
        outcome.last_failure.unwrap().cause,
        FailureCause::Trap(_, Trap::VmFailInvalid)
    ));
}

#[test]
fn tds_of_a_module_that_other_software_shut_down_stay_paused() {
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    let outcome = update_to(&platform, &newer());
    assert_eq!((outcome.tds, outcome.stage), (TdFate::Held, Stage::Start));
    let state = platform.module_state();
    assert!(!state.is_ready() && state.is_handoff_pending());
    let outcome = resume(&platform, &unsuitable());
    assert_eq!(
        (outcome.tds, outcome.running),
        (TdFate::Held, RunningModule::OldShutDown),
        "{outcome}"
    );
    assert!(resume(&platform, &newer().build()).tds_live_on());
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn tds_of_a_module_that_other_software_shuts_down_meanwhile_are_paused() {
    let platform = boot(SimPlatform::builder().lps(1));
    let shut_down = Cell::new(false);
    let lp = Intercepted::new(platform.lp(0), |lp, regs| {
        // After the check of the module and before its shutdown.
        if regs.rax == INFO && !shut_down.replace(true) {
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        }
        // SAFETY: as promised by the caller.
        unsafe { lp.seamcall(regs) }
    });
    let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
        Cpu::new(update, seamldr(&lp, &SpinLock::new())).run();
        update.outcome()
    });
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain));
    assert_eq!(count(&platform, INSTALL), 0);
}

#[test]
fn update_of_a_module_behind_an_open_session_ends_at_its_start() {
    let platform = boot(SimPlatform::builder().lps(2));
    let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
        with_params(&platform, &newer().build(), Scenario::Update, |params| {
            assert_eq!(install_on(&platform, 0, params).0, SeamldrStatus::SUCCESS);
        });
        run_stepped(&platform, update, 1)
    });
    assert_eq!((outcome.stage, cause(&outcome)), (Stage::Start, "VMFAILINVALID"), "{outcome}");
    assert_eq!((count(&platform, SHUTDOWN), count(&platform, INSTALL)), (0, 1));
}

#[test]
fn an_lp_that_leaves_vmx_operation_before_the_shutdown_ends_the_update_untouched() {
    let platform = boot(SimPlatform::builder().lps(1));
    let lost = Cell::new(false);
    let lp = Intercepted::new(platform.lp(0), |lp, regs| {
        if lost.get() {
            return Err(Trap::UndefinedOpcode);
        }
        lost.set(regs.rax == INFO);
        // SAFETY: as promised by the caller.
        unsafe { lp.seamcall(regs) }
    });
    let options = Options { handoff_version: Some(0), ..Options::default() };
    let outcome = with_update(&platform, &newer().build(), options, |update| {
        Cpu::new(update, seamldr(&lp, &SpinLock::new())).run();
        update.outcome()
    });
    assert_eq!(
        state(&outcome),
        (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        "{outcome}"
    );
    assert_eq!((outcome.rounds, platform.truth().tds_alive), (1, 3));
}

#[test]
fn an_lp_that_cannot_reach_the_module_for_a_moment_is_not_reported_missing() {
    let platform = boot(SimPlatform::builder().lps(1));
    // TDH.SYS.LP.INIT fails, then the calls that check whether the LP can reach the module.
    let trap = Answer::Trap(Trap::VmFailInvalid);
    platform.inject(Fault::first(LP_INIT, trap));
    platform.inject(Fault { times: 4, ..Fault::first(SYS_RD, trap) });
    let options = Options { handoff_version: Some(0), ..Options::default() };
    let outcome = with_update(&platform, &newer().build(), options, |update| {
        run_stepped(&platform, update, 1)
    });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!((outcome.rounds, outcome.failure.unwrap().cause.code()), (2, "VMFAILINVALID"));
}
