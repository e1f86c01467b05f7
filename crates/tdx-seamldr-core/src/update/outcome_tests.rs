//! Tests of the outcome of each end of an update.

use super::*;
use crate::abi::SeamldrStatus;
use crate::tdx_module::Readiness;
use crate::update::known::Event;

type Meaning = (TdFate, RunningModule, NextStep);

const UNTOUCHED: Meaning = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry);
const HELD_BY_OLD: Meaning = (TdFate::Held, RunningModule::OldShutDown, NextStep::InstallAgain);
const FINISH: Meaning = (TdFate::Held, RunningModule::NewNotReady, NextStep::Finish);
const SESSION_OPEN: Meaning = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
const NO_ANSWER: Meaning = (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain);

const SILENCE: FailureCause =
    FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), Trap::VmFailInvalid);

/// Returns what is known after these events if the embedder remembers no handoff data.
fn known(events: &[Event]) -> Known {
    events.iter().fold(Known::at_start(false, false), |known, event| known.after(*event))
}

/// Returns what is known after these events if the embedder remembers handoff data.
fn known_with_handoff(events: &[Event]) -> Known {
    events.iter().fold(Known::at_start(true, false), |known, event| known.after(*event))
}

/// Returns what is known after the module answered.
fn running() -> Known {
    known(&[Event::Found(Readiness::Ready)])
}

/// Returns what is known after the update shut the module down.
fn shut_down() -> Known {
    running().after(Event::ShutDown)
}

/// Returns what is known after the session put the new module in place.
fn installed() -> Known {
    shut_down().after(Event::SessionOpen).after(Event::Installed)
}

fn of(kind: Kind, stage: Stage, cause: FailureCause, known: Known) -> Meaning {
    meaning(&Ending { kind, known, stage, cause: Some(cause) })
}

/// Returns the fate of the TDs, the module that runs and the next step.
fn after(stage: Stage, cause: FailureCause, known: Known) -> Meaning {
    of(Kind::Update, stage, cause, known)
}

fn install(status: SeamldrStatus, rdx: u64) -> FailureCause {
    FailureCause::Seamldr { leaf: SeamldrLeaf::Install, status, rdx }
}

fn refused(leaf: TdxLeaf, status: TdxStatus) -> FailureCause {
    FailureCause::Tdx(leaf, status)
}

fn trap(leaf: TdxLeaf, trap: Trap) -> FailureCause {
    FailureCause::Trap(Call::Tdx(leaf), trap)
}

#[test]
fn refused_shutdown_leaves_the_module_running() {
    let shutdown =
        |status| after(Stage::Shutdown, refused(TdxLeaf::SYS_SHUTDOWN, status), running());
    let later = (TdFate::NeverAtRisk, RunningModule::Old, NextStep::RetryLater);
    assert_eq!(shutdown(TdxStatus::OPERAND_INVALID), UNTOUCHED);
    assert_eq!(shutdown(TdxStatus::SYS_BUSY), later);
    let in_build = TdxStatus(TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE.0 | 3 << 16);
    assert_eq!(shutdown(in_build), later);
    assert_eq!(after(Stage::Shutdown, FailureCause::GaveUp, running()), UNTOUCHED);
}

#[test]
fn difference_from_preflight_leaves_the_module_running() {
    for cause in [
        FailureCause::ModuleChanged,
        FailureCause::NoRemainingUpdates,
        FailureCause::LpsChanged { found: 3, wanted: 4 },
        FailureCause::OtherMachine,
        FailureCause::UnknownLp,
    ] {
        for stage in [Stage::Start, Stage::Shutdown] {
            assert_eq!(after(stage, cause, running()), UNTOUCHED, "{cause}");
        }
    }
    let info =
        FailureCause::Seamldr { leaf: SeamldrLeaf::Info, status: SeamldrStatus::EBADPARAM, rdx: 0 };
    assert_eq!(after(Stage::Shutdown, info, running()), UNTOUCHED);
    assert_eq!(after(Stage::Shutdown, SILENCE, running()), UNTOUCHED, "the module answered");
}

#[test]
fn outcome_after_giving_up_shows_the_state_of_the_platform() {
    let gave_up = |stage, known| after(stage, FailureCause::GaveUp, known);
    assert_eq!(gave_up(Stage::Shutdown, shut_down()), HELD_BY_OLD);
    let done = (TdFate::Preserved, RunningModule::New, NextStep::Done);
    assert_eq!(gave_up(Stage::RunUpdate, installed().after(Event::TookOver)), done);
    let lost = (TdFate::Lost, RunningModule::NoneKnown, NextStep::Load);
    let destroyed = shut_down().after(Event::SessionOpen).after(Event::Destroyed);
    assert_eq!(gave_up(Stage::CpuInstall, destroyed), lost);
    assert_eq!(gave_up(Stage::CpuInit, installed()), FINISH);
}

#[test]
fn refusal_with_rdx_0_leaves_the_old_module_shut_down() {
    let known = shut_down().after(Event::SessionOpen).after(Event::Refused);
    for status in [SeamldrStatus::EBADSIG, SeamldrStatus::EBADCALL, SeamldrStatus::EBADHANDOFF] {
        assert_eq!(after(Stage::CpuInstall, install(status, 0), known), HELD_BY_OLD);
    }
}

#[test]
fn handoff_data_too_long_for_the_module_in_place_is_not_called_intact() {
    let known = installed().after(Event::AnotherImage).after(Event::Refused);
    let bad_handoff = after(Stage::CpuInstall, install(SeamldrStatus::EBADHANDOFF, 0), known);
    assert_eq!(bad_handoff, (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain));
}

#[test]
fn session_is_open_after_the_first_lp_called() {
    let open = shut_down().after(Event::SessionOpen);
    let general_protection =
        FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Install), Trap::GeneralProtection);
    for cause in [general_protection, FailureCause::GaveUp, FailureCause::LpsMissing] {
        assert_eq!(after(Stage::CpuInstall, cause, open), SESSION_OPEN, "{cause}");
        assert_eq!(after(Stage::CpuInstall, cause, shut_down()), HELD_BY_OLD, "{cause}");
    }
    // P-SEAMLDR does not answer, although an LP is in the session.
    assert_eq!(after(Stage::CpuInstall, SILENCE, open), NO_ANSWER);
}

#[test]
fn remembered_session_is_open_until_a_module_answers() {
    let remembered = Known::at_start(true, true);
    let stopped = |known| of(Kind::Resume, Stage::CpuInstall, FailureCause::GaveUp, known);
    assert_eq!(stopped(remembered), SESSION_OPEN);
    assert_eq!(stopped(remembered.after(Event::Found(Readiness::Nothing))), SESSION_OPEN);
    let again = (TdFate::Held, RunningModule::NewNotReady, NextStep::InstallAgain);
    assert_eq!(stopped(remembered.after(Event::Found(Readiness::NotReady))), again);
}

#[test]
fn module_that_no_lp_asked_after_install_is_not_called_the_old_one() {
    let joined = shut_down().after(Event::SessionOpen);
    let finish = (TdFate::Held, RunningModule::NoneKnown, NextStep::Finish);
    for cause in [FailureCause::GaveUp, trap(TdxLeaf::SYS_INIT, Trap::GeneralProtection)] {
        assert_eq!(after(Stage::CpuInit, cause, joined), finish, "{cause}");
    }
}

#[test]
fn module_that_does_not_answer_after_install_waits_for_more_lps() {
    assert_eq!(after(Stage::CpuInit, FailureCause::LpsMissing, installed()), SESSION_OPEN);
    for leaf in [TdxLeaf::SYS_INIT, TdxLeaf::SYS_LP_INIT] {
        assert_eq!(after(Stage::CpuInit, trap(leaf, Trap::VmFailInvalid), installed()), FINISH);
    }
}

#[test]
fn module_that_was_not_ready_at_the_start_is_not_called_the_old_one() {
    let not_ready = known(&[Event::Found(Readiness::NotReady)]);
    let cause = refused(TdxLeaf::SYS_TDMR_INIT, TdxStatus::SYS_NOT_READY);
    let in_place = (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
    assert_eq!(after(Stage::Start, cause, not_ready), in_place);
}

#[test]
fn tds_are_held_if_the_module_answers_sys_shutdown_twice() {
    let at_start = refused(TdxLeaf::SYS_TDMR_INIT, TdxStatus::SYS_SHUTDOWN);
    assert_eq!(
        after(Stage::Start, at_start, known(&[Event::Found(Readiness::ShutDown)])),
        HELD_BY_OLD
    );
    for leaf in [TdxLeaf::SYS_RD, TdxLeaf::SYS_SHUTDOWN] {
        let claimed = refused(leaf, TdxStatus::SYS_SHUTDOWN);
        assert_eq!(
            after(Stage::Shutdown, claimed, running().after(Event::WasShutDown)),
            HELD_BY_OLD
        );
        let said_once = (TdFate::Unknown, RunningModule::Old, NextStep::Retry);
        assert_eq!(after(Stage::Shutdown, claimed, running()), said_once);
    }
    assert_eq!(
        after(Stage::Shutdown, SILENCE, running().after(Event::WasShutDown)).0,
        TdFate::Unknown
    );
    // The failure itself does not count after the module said so twice.
    let busy = refused(TdxLeaf::SYS_RD, TdxStatus::SYS_BUSY);
    assert_eq!(after(Stage::Shutdown, busy, running().after(Event::WasShutDown)), HELD_BY_OLD);
}

#[test]
fn temporary_failure_asks_to_finish_and_other_failure_to_install_again() {
    let next = |stage, leaf, status| after(stage, refused(leaf, status), installed()).2;
    assert_eq!(next(Stage::RunUpdate, TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY), NextStep::Finish);
    assert_eq!(
        next(Stage::CpuInit, TdxLeaf::SYS_LP_INIT, TdxStatus::RND_NO_ENTROPY),
        NextStep::Finish
    );
    let other = TdxStatus(TdxStatus::INCONSISTENT_MSR.0 | 0xfe);
    assert_eq!(next(Stage::CpuInit, TdxLeaf::SYS_LP_INIT, other), NextStep::InstallAgain);
}

#[test]
fn handoff_data_that_the_new_module_refuses_is_not_called_intact() {
    let denied = refused(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_INVALID_HANDOFF);
    assert_eq!(after(Stage::RunUpdate, denied, installed()).0, TdFate::Unknown);
    let busy = refused(TdxLeaf::SYS_UPDATE, TdxStatus::SYS_BUSY);
    assert_eq!(after(Stage::RunUpdate, busy, installed()).0, TdFate::Held);
}

#[test]
fn module_that_answers_no_lp_at_the_start_is_not_called_running() {
    let nothing = known(&[Event::Found(Readiness::Nothing)]);
    let not_there = trap(TdxLeaf::SYS_TDMR_INIT, Trap::VmFailInvalid);
    assert_eq!(after(Stage::Start, not_there, nothing), NO_ANSWER);
    for trap in [Trap::UndefinedOpcode, Trap::GeneralProtection] {
        let not_in_vmx = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_TDMR_INIT), trap);
        assert_eq!(
            after(Stage::Start, not_in_vmx, nothing),
            UNTOUCHED,
            "the failure does not tell the module's state"
        );
    }
    assert_eq!(
        after(Stage::Start, not_there, running()),
        UNTOUCHED,
        "the module answered another LP"
    );
}

#[test]
fn trap_at_shutdown_leaves_the_module_that_answered_at_the_start_running() {
    for cause in [Trap::VmFailInvalid, Trap::GeneralProtection, Trap::UndefinedOpcode] {
        assert_eq!(
            after(Stage::Shutdown, trap(TdxLeaf::SYS_SHUTDOWN, cause), running()),
            UNTOUCHED
        );
    }
}

#[test]
fn finish_of_a_module_that_was_shut_down_asks_to_install() {
    let found_shut_down = known_with_handoff(&[Event::Found(Readiness::ShutDown)]);
    let refused = refused(TdxLeaf::SYS_INIT, TdxStatus::SYS_SHUTDOWN);
    for cause in [refused, FailureCause::GaveUp] {
        for stage in [Stage::Start, Stage::CpuInit] {
            assert_eq!(of(Kind::Finish, stage, cause, found_shut_down), HELD_BY_OLD, "{cause}");
        }
    }
    let joined = found_shut_down.after(Event::SessionOpen);
    assert_eq!(of(Kind::Resume, Stage::CpuInstall, FailureCause::GaveUp, joined), SESSION_OPEN);
    let found_not_ready = known_with_handoff(&[Event::Found(Readiness::NotReady)]);
    assert_eq!(of(Kind::Finish, Stage::CpuInit, FailureCause::GaveUp, found_not_ready), FINISH);
}

#[test]
fn resume_without_remembered_handoff_data_reports_unknown_tds() {
    let cause = install(SeamldrStatus::EBADSIG, 0);
    let refused =
        |known: Known| of(Kind::Resume, Stage::CpuInstall, cause, known.after(Event::Refused));
    let nobody = (TdFate::Unknown, RunningModule::NoneKnown, NextStep::InstallAgain);
    assert_eq!(refused(known(&[Event::Found(Readiness::Nothing)])), nobody);
    let remembered = (TdFate::Held, RunningModule::NoneKnown, NextStep::InstallAgain);
    assert_eq!(refused(known_with_handoff(&[Event::Found(Readiness::Nothing)])), remembered);
    // A module that is shut down has left handoff data.
    assert_eq!(refused(known(&[Event::Found(Readiness::ShutDown)])), HELD_BY_OLD);
}

#[test]
fn shutdown_without_an_answer_leaves_the_tds_unknown_until_the_module_answers() {
    let unclear = running().after(Event::MayBeShutDown);
    let unsure = [
        FailureCause::GaveUp,
        SILENCE,
        trap(TdxLeaf::SYS_SHUTDOWN, Trap::VmFailInvalid),
        refused(TdxLeaf::SYS_SHUTDOWN, TdxStatus(1)),
        refused(TdxLeaf::SYS_SHUTDOWN, TdxStatus::SYS_BUSY),
    ];
    for cause in unsure {
        assert_eq!(after(Stage::Shutdown, cause, unclear), NO_ANSWER, "{cause}");
    }
    let answer = refused(TdxLeaf::SYS_SHUTDOWN, TdxStatus::OPERAND_INVALID);
    assert_eq!(after(Stage::Shutdown, answer, unclear), UNTOUCHED);
    assert_eq!(after(Stage::Shutdown, answer, unclear.after(Event::WasShutDown)), HELD_BY_OLD);
    assert_eq!(
        after(Stage::Shutdown, FailureCause::GaveUp, unclear.after(Event::ShutDown)),
        HELD_BY_OLD
    );
}

#[test]
fn finish_that_finds_no_module_asks_to_install() {
    let missing = trap(TdxLeaf::SYS_INIT, Trap::VmFailInvalid);
    let nothing = known(&[Event::Found(Readiness::Nothing), Event::SeamldrAnswered]);
    assert_eq!(of(Kind::Finish, Stage::CpuInit, missing, nothing), NO_ANSWER);
}

#[test]
fn resume_leaves_a_module_that_is_ready_running() {
    // Any LP may have the first failure.
    let ready = [Event::Found(Readiness::Ready), Event::Found(Readiness::ShutDown)];
    for cause in [FailureCause::StillReady, FailureCause::GaveUp] {
        for kind in [Kind::Resume, Kind::Finish, Kind::Load] {
            assert_eq!(
                of(kind, Stage::Start, cause, known_with_handoff(&ready)),
                UNTOUCHED,
                "{cause}"
            );
        }
    }
}

#[test]
fn loaded_module_must_be_configured_next() {
    let load = |stage, known| of(Kind::Load, stage, FailureCause::GaveUp, known);
    let loaded = known(&[Event::SessionOpen, Event::Loaded]);
    let done = (TdFate::Lost, RunningModule::NewNotReady, NextStep::Configure);
    assert_eq!(load(Stage::Done, loaded), done);
    let not_up = (TdFate::Lost, RunningModule::NewNotReady, NextStep::Load);
    assert_eq!(load(Stage::CpuInit, loaded), not_up);
    let not_installed = (TdFate::Unknown, RunningModule::NoneKnown, NextStep::Load);
    assert_eq!(load(Stage::CpuInstall, known(&[])), not_installed);
    assert_eq!(
        of(Kind::Resume, Stage::Done, FailureCause::GaveUp, shut_down()).2,
        NextStep::InstallAgain
    );
}

#[test]
fn load_that_failed_before_install_holds_the_tds() {
    let found_shut_down = known_with_handoff(&[Event::Found(Readiness::ShutDown)]);
    assert_eq!(
        of(Kind::Load, Stage::CpuInstall, FailureCause::GaveUp, found_shut_down),
        HELD_BY_OLD
    );
}

#[test]
fn resume_names_the_module_that_its_lps_found() {
    let found = |readiness| {
        let known = known(&[Event::Found(readiness)]);
        of(Kind::Resume, Stage::CpuInstall, FailureCause::GaveUp, known).1
    };
    assert_eq!(found(Readiness::ShutDown), RunningModule::OldShutDown);
    assert_eq!(found(Readiness::NotReady), RunningModule::NewNotReady);
    assert_eq!(found(Readiness::Nothing), RunningModule::NoneKnown);
}

#[test]
fn reboot_is_the_next_step_only_if_no_lp_had_an_answer() {
    let never_came_back = trap(TdxLeaf::SYS_UPDATE, Trap::VmFailInvalid);
    assert_eq!(after(Stage::RunUpdate, never_came_back, installed()), FINISH);
    let unknown = |next| (TdFate::Unknown, RunningModule::NoneKnown, next);
    for stage in [Stage::CpuInit, Stage::RunUpdate] {
        assert_eq!(
            after(stage, SILENCE, installed()),
            unknown(NextStep::Finish),
            "only this LP may be cut off"
        );
        let looked = |known| of(Kind::Finish, stage, SILENCE, known);
        assert_eq!(looked(known(&[])), unknown(NextStep::Reboot), "all LPs have asked");
        for answer in [Event::SeamldrAnswered, Event::Found(Readiness::NotReady)] {
            assert_eq!(looked(known(&[answer])), unknown(NextStep::Finish));
        }
    }
    let resumed = |known| of(Kind::Resume, Stage::CpuInstall, SILENCE, known);
    assert_eq!(resumed(known(&[])), unknown(NextStep::Reboot));
    for answer in [Event::SeamldrAnswered, Event::SessionOpen] {
        assert_eq!(resumed(known(&[answer])), unknown(NextStep::InstallAgain));
    }
}

#[test]
fn complete_session_leaves_a_module_in_place() {
    for (kind, cause) in
        [(Kind::Update, FailureCause::GaveUp), (Kind::Resume, FailureCause::LpsMissing)]
    {
        assert_eq!(of(kind, Stage::CpuInstall, cause, installed()), FINISH);
    }
    let init = |status| after(Stage::CpuInstall, refused(TdxLeaf::SYS_INIT, status), installed());
    assert_eq!(init(TdxStatus::SYS_BUSY), FINISH);
    let for_good = (TdFate::Held, RunningModule::NewNotReady, NextStep::InstallAgain);
    assert_eq!(init(TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT), for_good);
}

#[test]
fn refused_image_leaves_the_module_in_place_to_be_finished() {
    let refused = |status, known: Known| {
        of(Kind::Resume, Stage::CpuInstall, install(status, 0), known.after(Event::Refused))
    };
    let too_long = (TdFate::Unknown, RunningModule::NewNotReady, NextStep::InstallAgain);
    let found_not_ready = known_with_handoff(&[Event::Found(Readiness::NotReady)]);
    for known in [found_not_ready, installed()] {
        assert_eq!(refused(SeamldrStatus::EBADCALL, known), FINISH);
        assert_eq!(refused(SeamldrStatus::EBADHANDOFF, known), too_long);
    }
    let found_shut_down = known_with_handoff(&[Event::Found(Readiness::ShutDown)]);
    for status in [SeamldrStatus::EBADCALL, SeamldrStatus::EBADHANDOFF] {
        assert_eq!(refused(status, found_shut_down), HELD_BY_OLD);
    }
}

#[test]
fn remembered_handoff_data_counts_until_the_module_is_asked() {
    let begun = |kind, known| of(kind, Stage::Start, FailureCause::GaveUp, known);
    assert_eq!(begun(Kind::Update, known(&[])), UNTOUCHED);
    let held = |next| (TdFate::Held, RunningModule::NoneKnown, next);
    assert_eq!(begun(Kind::Update, known_with_handoff(&[])), held(NextStep::InstallAgain));
    assert_eq!(begun(Kind::Resume, known_with_handoff(&[])), held(NextStep::InstallAgain));
    assert_eq!(
        begun(Kind::Finish, known_with_handoff(&[])),
        held(NextStep::Finish),
        "the module in place needs no installation"
    );
    assert_eq!(
        begun(Kind::Update, known_with_handoff(&[Event::Found(Readiness::Ready)])),
        UNTOUCHED
    );
}
