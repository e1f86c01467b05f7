//! Follows the outcome's next step after late LPs, traps, and with no remaining update. The TDs
//! survive whenever this is possible.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::arithmetic_side_effects,
    clippy::panic,
    missing_docs
)]

mod support;

use std::cell::Cell;

use support::*;
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf, TdxStatus};
use tdx_seamldr_core::preflight::Purpose;
use tdx_seamldr_core::update::{Call, Cpu, FailureCause, NextStep, Outcome, Progress};
use tdx_seamldr_core::update::{RunningModule, Stage, TdFate, Update};
use tdx_seamldr_core::{SeamcallBackend, SpinLock, Trap};
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimPlatform, TestImage};

const TRAP: Answer = Answer::Trap(Trap::VmFailInvalid);
const ODD: Answer = Answer::Return { rax: TdxStatus::INCONSISTENT_MSR.0 | 0xfe, rdx: 0 };

/// Returns a platform with this number of LPs and one remaining update.
fn boot_with_one_update(lps: u32) -> SimPlatform {
    let platform = boot(SimPlatform::builder().lps(lps).seamdb_size(2));
    assert_eq!(platform.truth().remaining_updates, 1);
    platform
}

/// Follows the outcome's next steps until there is nothing to do.
fn follow(platform: &SimPlatform, mut outcome: Outcome, file: &PageBuf) -> Outcome {
    for _ in 0..4 {
        outcome = match outcome.next {
            NextStep::InstallAgain | NextStep::CompleteSession => resume(platform, file),
            NextStep::Finish => finish(platform),
            _ => break,
        };
    }
    outcome
}

fn assert_kept(platform: &SimPlatform, outcome: Outcome, file: &PageBuf) {
    let end = follow(platform, outcome, file);
    assert!(
        end.tds_live_on() && platform.truth().tds_alive == 3,
        "{outcome}\n{end}\n{:?}",
        platform.truth()
    );
}

/// Makes one LP late in this stage of this round. The others wait until the first of them gives up.
/// Then the late LP comes.
fn with_a_late_lp(
    platform: &SimPlatform,
    update: &Update<'_>,
    late: usize,
    when: (Stage, u32),
) -> Outcome {
    let lock = SpinLock::new();
    let hosts: Vec<_> = platform.online().map(|lp| platform.lp(lp)).collect();
    let mut cpus: Vec<_> = hosts.iter().map(|lp| Cpu::new(update, seamldr(lp, &lock))).collect();
    // A step for each stage of each round is far below 1,000.
    for _ in 0..1000 {
        let (mut others, mut wait) = (0, 0);
        for (lp, cpu) in cpus.iter_mut().enumerate() {
            let is_now = (update.progress().0, update.round()) == when;
            if lp == late && is_now {
                continue;
            }
            others += u32::from(is_now);
            wait += u32::from(cpu.step() == Progress::Waiting && is_now);
        }
        if others != 0 && wait == others {
            cpus[usize::from(late == 0)].abandon();
            assert!(cpus.iter_mut().all(|cpu| cpu.step() == Progress::Finished));
            return update.outcome();
        }
    }
    panic!("no LP waited in {when:?}: {}", update.outcome())
}

fn update_with_a_late_lp(
    platform: &SimPlatform,
    file: &PageBuf,
    late: usize,
    when: (Stage, u32),
) -> Outcome {
    with_update(platform, file, Options::default(), |update| {
        with_a_late_lp(platform, update, late, when)
    })
}

#[test]
fn after_one_trap_and_a_late_lp_no_reboot_is_needed() {
    let platform = boot_with_one_update(3);
    platform.inject(Fault::first(UPDATE, TRAP));
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 2, (Stage::RunUpdate, 1));
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn after_one_trap_at_lp_init_and_a_late_lp_the_next_step_is_finish() {
    let platform = boot_with_one_update(3);
    platform.inject(Fault::first(LP_INIT, TRAP));
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 2, (Stage::CpuInit, 1));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn a_session_that_a_later_round_completes_installs_a_module() {
    let platform = boot_with_one_update(3);
    platform.inject(Fault { lp: Some(2), ..Fault::first(INSTALL, TRAP) });
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 1, (Stage::CpuInstall, 2));
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn a_session_that_a_resumed_update_completes_installs_a_module() {
    let platform = boot_with_one_update(3);
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 0, (Stage::CpuInstall, 1));
    assert_eq!(
        state(&outcome),
        (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
    );
    let outcome = with_resumed(&platform, &file, |update| {
        with_a_late_lp(&platform, update, 2, (Stage::CpuInstall, 1))
    });
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn the_outcome_reports_the_open_session_after_a_trap_of_install() {
    let platform = boot_with_one_update(4);
    platform.inject(Fault { lp: Some(2), ..Fault::first(INSTALL, TRAP) });
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 3, (Stage::CpuInstall, 1));
    assert_eq!(platform.truth().lps_in_session, 2);
    assert_eq!(
        state(&outcome),
        (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession)
    );
    assert_kept(&platform, outcome, &file);
}

#[test]
fn the_installed_module_comes_up_if_no_remaining_update_can_replace_it() {
    for call in [SYS_INIT, LP_INIT, UPDATE] {
        let platform = boot_with_one_update(2);
        platform.inject(Fault::first(call, ODD));
        let outcome = update_to(&platform, &newer());
        assert!(outcome.is_updated(), "{outcome}");
        assert_eq!((outcome.image, outcome.rounds, platform.truth().tds_alive), (0, 3, 3));
        assert_eq!(count(&platform, INSTALL), 4, "installed once, and refused once");
    }
    // It is tried only once. A module that never comes up is left to the caller.
    let platform = boot_with_one_update(2);
    platform.inject(Fault { times: 100, ..Fault::first(LP_INIT, ODD) });
    let outcome = update_to(&platform, &newer());
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::InstallAgain));
    assert_eq!((outcome.rounds, count(&platform, INSTALL)), (3, 4));
}

#[test]
fn the_outcome_names_the_installed_module_although_another_image_was_refused_later() {
    let platform = boot_with_one_update(2);
    platform.inject(Fault::first(LP_INIT, ODD));
    let [file, other] = [newer(), TestImage { svn_minor: 7, ..newer() }].map(|image| image.build());
    let outcome = with_fallbacks(&platform, &file, &[other], Options::default(), |update| {
        run_stepped(&platform, update, 1)
    });
    assert!(outcome.is_updated() && platform.truth().tds_alive == 3, "{outcome}");
    assert_eq!((outcome.image, outcome.rounds, platform.truth().svn.minor), (0, 4, 6));
}

#[test]
fn update_is_not_called_if_the_handoff_data_is_too_long_for_the_module() {
    let platform = boot(SimPlatform::builder().lps(2));
    let small = TestImage { num_handoff_pages: 1, ..newer() };
    let outcome = update_to(&platform, &small);
    let unknown = (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
    assert_eq!(state(&outcome), unknown, "{outcome}");
    let outcome = resume(&platform, &newer().build());
    assert_eq!(state(&outcome), unknown, "{outcome}");
    assert!(!platform.with_model(|model| model.is_dead()));
}

#[test]
fn the_module_behind_an_open_session_is_named_after_the_session_ended() {
    let platform = boot(SimPlatform::builder().lps(3));
    let file = newer().build();
    update_with_a_late_lp(&platform, &file, 2, (Stage::CpuInstall, 1));
    let outcome = resume(&platform, &unsuitable());
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn finish_succeeds_after_a_refused_resume() {
    let platform = boot_with_one_update(3);
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 2, (Stage::CpuInit, 1));
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    let outcome = resume(&platform, &file);
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn the_next_step_stays_finish_if_no_lp_came_to_finish() {
    let platform = boot_with_one_update(3);
    let file = newer().build();
    update_with_a_late_lp(&platform, &file, 2, (Stage::CpuInit, 1));
    let update = finishing(&platform).unwrap();
    let outcome = with_a_late_lp(&platform, &update, 2, (Stage::Start, 1));
    drop(update);
    assert_eq!((outcome.tds, outcome.next), (TdFate::Held, NextStep::Finish));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn the_outcome_reports_paused_tds_if_no_lp_comes_to_the_update() {
    let platform = boot(SimPlatform::builder().lps(2));
    update_to_file(&platform, &unsuitable());
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 1, (Stage::Start, 1));
    assert_eq!((outcome.tds, outcome.next), (TdFate::Held, NextStep::InstallAgain));
    assert_kept(&platform, outcome, &file);
}

#[test]
fn the_outcome_reports_a_module_that_was_found_shut_down_despite_an_earlier_failure() {
    let platform = boot(SimPlatform::builder().lps(2));
    update_to_file(&platform, &unsuitable());
    platform.inject(Fault::first(SYS_RD, returns(TdxStatus::SYS_BUSY.0)));
    let outcome = update_to(&platform, &newer());
    assert_eq!(state(&outcome), (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain));
    assert_kept(&platform, outcome, &newer().build());
}

#[test]
fn finish_with_a_fallback_reports_the_stage_of_the_fallback() {
    let rows = [
        (Stage::CpuInstall, RunningModule::SessionOpen, NextStep::CompleteSession),
        (Stage::CpuInit, RunningModule::NewNotReady, NextStep::Finish),
    ];
    for (stage, running, next) in rows {
        let platform = boot(SimPlatform::builder().lps(3));
        update_to_file(&platform, &unsuitable());
        let file = newer().build();
        let mut page = PageBuf::zeroed(1);
        let fallbacks =
            [prepare(&platform, &mut page, &file, Purpose::TakeOver { handoff_version: None })];
        let update = finishing(&platform).unwrap().with_fallbacks(&fallbacks).unwrap();
        let outcome = with_a_late_lp(&platform, &update, 2, (stage, 2));
        drop(update);
        assert_eq!(state(&outcome), (TdFate::Held, running, next), "{outcome}");
        assert_kept(&platform, outcome, &file);
    }
}

/// The fate of the TDs is unknown, and the next step is a reboot after every LP has called.
fn assert_gone(platform: &SimPlatform, outcome: &Outcome) {
    assert_eq!(
        (outcome.tds, outcome.running),
        (TdFate::Unknown, RunningModule::NoneKnown),
        "{outcome}"
    );
    let end = follow(platform, *outcome, &newer().build());
    assert_eq!(state(&end), (TdFate::Unknown, RunningModule::NoneKnown, NextStep::Reboot), "{end}");
}

#[test]
fn no_reboot_is_needed_if_one_lp_reaches_neither_module_nor_p_seamldr() {
    for trap in Trap::ALL {
        for call in [INSTALL, SYS_INIT, LP_INIT, UPDATE] {
            let platform = boot_with_one_update(2);
            // From this call on, until the fault is cleared.
            let fault =
                Fault { lp: Some(1), times: u32::MAX, ..Fault::first(call, Answer::Trap(trap)) };
            for rax in [call, SYS_RD, INFO] {
                platform.inject(Fault { rax: Some(rax), ..fault });
            }
            let options = Options { handoff_version: Some(0), ..Options::default() };
            let file = newer().build();
            let outcome =
                with_update(&platform, &file, options, |update| run_stepped(&platform, update, 1));
            assert_ne!(outcome.next, NextStep::Reboot, "{outcome}");
            platform.clear_faults();
            assert_kept(&platform, outcome, &file);
        }
    }
}

#[test]
fn no_reboot_is_needed_if_one_lp_cannot_reach_an_open_session() {
    let platform = boot(SimPlatform::builder().lps(2));
    let file = newer().build();
    let outcome = update_with_a_late_lp(&platform, &file, 1, (Stage::CpuInstall, 1));
    assert_eq!(outcome.next, NextStep::CompleteSession, "{outcome}");
    for call in [INSTALL, INFO] {
        platform.inject(Fault { lp: Some(1), times: u32::MAX, ..Fault::first(call, TRAP) });
    }
    let outcome = resume(&platform, &file);
    let again = (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain);
    assert_eq!(state(&outcome), again, "P-SEAMLDR answered the other LP: {outcome}");
    platform.clear_faults();
    assert_kept(&platform, outcome, &file);
}

#[test]
fn seam_mode_that_is_off_is_not_reported_as_an_open_session() {
    let platform = boot(SimPlatform::builder().lps(2));
    platform.with_model(|model| model.config_mut().seamdb_getref_error = 1);
    let outcome = update_to(&platform, &newer());
    assert!(platform.with_model(|model| model.is_dead()));
    assert_gone(&platform, &outcome);
    let [first, last] =
        [outcome.failure, outcome.last_failure].map(|failure| failure.unwrap().cause);
    assert_eq!(first, FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_INIT), Trap::VmFailInvalid));
    assert_eq!(last, FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid));
}

#[test]
fn p_seamldr_that_never_returned_is_not_reported_as_an_open_session() {
    let platform = boot(SimPlatform::builder().lps(2));
    // P-SEAMLDR remembers more updates than its database has room for.
    platform.with_model(|model| {
        model.seamdb_mut().used = 64;
        model.config_mut().full_seamdb_is_fatal = true;
    });
    let outcome = update_to(&platform, &newer());
    assert!(platform.with_model(|model| model.is_dead()));
    assert_gone(&platform, &outcome);
    let [first, last] =
        [outcome.failure, outcome.last_failure].map(|failure| failure.unwrap().cause);
    assert_eq!(first, FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::VmFailInvalid));
    assert_eq!(last, FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid));
    // The lead asked once before the shutdown. After it, P-SEAMLDR gets an address to which it
    // would not write.
    let asked: Vec<_> = platform
        .trace()
        .iter()
        .filter(|entry| entry.input.rax == INFO)
        .map(|entry| entry.input.rcx)
        .collect();
    assert!(asked.len() > 1 && asked[0] != 1 && asked[1..].iter().all(|rcx| *rcx == 1));
}

#[test]
fn no_lp_is_reported_missing_if_an_lp_loses_the_module_temporarily() {
    let options = Options { handoff_version: Some(0), ..Options::default() };
    for call in [LP_INIT, UPDATE] {
        let platform = boot_with_one_update(2);
        platform.inject(Fault::first(call, TRAP));
        platform.inject(Fault { times: 4, ..Fault::first(SYS_RD, TRAP) });
        let outcome = with_update(&platform, &newer().build(), options, |update| {
            run_stepped(&platform, update, 1)
        });
        assert!(outcome.is_updated() && platform.truth().tds_alive == 3, "{outcome}");
        let cause = outcome.failure.unwrap().cause;
        assert!(matches!(cause, FailureCause::Trap(Call::Tdx(_), Trap::VmFailInvalid)), "{cause}");
    }
}

#[test]
fn tds_survive_although_one_lp_cannot_reach_the_module() {
    let platform = boot_with_one_update(3);
    platform.inject(Fault { lp: Some(0), times: 6, ..Fault::first(SYS_INIT, TRAP) });
    platform.inject(Fault { lp: Some(0), times: 6, after: 1, ..Fault::first(SYS_RD, TRAP) });
    let outcome = update_to(&platform, &newer());
    platform.clear_faults();
    assert_kept(&platform, outcome, &newer().build());
}

#[test]
fn an_update_succeeds_after_an_ambiguous_answer_and_a_trap() {
    for call in [SHUTDOWN, UPDATE] {
        let platform = boot(SimPlatform::builder().lps(1));
        // The module executes the call, but returns an informational status. The next call traps.
        let traps = Cell::new(None);
        let lying = Intercepted::new(platform.lp(0), |lp, regs| {
            let rax = regs.rax;
            if traps.get() == Some(true) {
                traps.set(Some(false));
                return Err(Trap::VmFailInvalid);
            }
            // SAFETY: as promised by the caller.
            unsafe { lp.seamcall(regs) }?;
            if rax == call && traps.get().is_none() {
                regs.rax = TdxStatus::KEY_CONFIGURED.0;
                traps.set(Some(true));
            }
            Ok(())
        });
        with_update(&platform, &newer().build(), Options::default(), |update| {
            Cpu::new(update, seamldr(&lying, &SpinLock::new())).run();
            assert!(update.is_updated(), "{} {:?}", update.outcome(), platform.truth());
        });
        assert_eq!(platform.truth().tds_alive, 3);
    }
}
