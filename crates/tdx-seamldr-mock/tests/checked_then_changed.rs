//! The platform changes between preflight and shutdown. An update that can only fail changes
//! nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod support;

use std::cell::{Cell, RefCell};

use support::*;
use tdx_seamldr_core::abi::{
    Scenario, SeamldrInfoBuffer, SeamldrLeaf, SeamldrStatus, Svn, TdxLeaf,
};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, PassedUpdate, Policy, Purpose, Refusal, Unknown,
    Unknowns,
};
use tdx_seamldr_core::update::{
    Call, Cpu, FailureCause, NextStep, Outcome, Progress, RunningModule, Stage, TdFate, Update,
    UpdateError,
};
use tdx_seamldr_core::{
    Host, InstallError, InstallRequest, NoCrypto, SeamcallBackend, SharedInfo, SpinLock, TdxImage,
    Trap,
};
use tdx_seamldr_mock::model::{LoaderState, TdPhase};
use tdx_seamldr_mock::{run_stepped, Answer, Fault, PageBuf, SimLp, SimPlatform, TestImage};
use tdx_seamldr_verify::RustCrypto;

/// Passes an image on this platform with all facts known and a policy that allows nothing.
fn passed<'a>(platform: &SimPlatform, file: &'a PageBuf) -> PassedUpdate<'a> {
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let facts = platform.facts().unwrap();
    preflight(&image, &facts, &RustCrypto, Policy::default(), &mut |finding| panic!("{finding}"))
        .unwrap()
}

/// Runs `with` on an update of the passed image.
fn with_passed<R>(
    platform: &SimPlatform,
    passed: &PassedUpdate<'_>,
    with: impl FnOnce(&Update<'_>) -> R,
) -> Result<R, UpdateError> {
    let (mut params, info) = (PageBuf::zeroed(1), SharedInfo::new());
    let (host, state) = (platform.lp(0), platform.module_state());
    let update = Update::new(passed, params.as_params(), &info, &host, state)?;
    Ok(with(&update))
}

fn run_passed(platform: &SimPlatform, passed: &PassedUpdate<'_>) -> Outcome {
    with_passed(platform, passed, |update| run_stepped(platform, update, 1)).unwrap()
}

fn assert_untouched(platform: &SimPlatform, outcome: &Outcome, cause: FailureCause) {
    assert_eq!(outcome.failure.unwrap().cause, cause);
    assert_eq!(
        state(outcome),
        (TdFate::NeverAtRisk, RunningModule::Old, NextStep::Retry),
        "{outcome}"
    );
    assert_eq!((count(platform, SHUTDOWN), count(platform, INSTALL)), (0, 0));
    assert_eq!(platform.truth().tds_alive, platform.truth().tds);
}

#[test]
fn update_new_rejects_fewer_lps_than_preflight_saw() {
    let (file, online) = (newer().build(), boot(SimPlatform::builder().lps(3)));
    let passed = passed(&online, &file);
    // The same machine, with LP 2 offline.
    let platform = boot(SimPlatform::builder().lps(3).offline(2));
    let error = with_passed(&platform, &passed, |_| ()).unwrap_err();
    assert_eq!(error, UpdateError::LpsChanged { found: 2, wanted: 3 });
}

#[test]
fn an_lp_that_goes_offline_before_the_start_ends_the_update_untouched() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3)));
    let passed = passed(&platform, &file);
    let outcome = with_passed(&platform, &passed, |update| {
        let (lock, hosts) = (SpinLock::new(), [0, 1].map(|lp| counting_lps(platform.lp(lp), 2)));
        let mut cpus = hosts.each_ref().map(|host| Cpu::new(update, seamldr(host, &lock)));
        assert!(
            cpus.iter_mut().all(|cpu| cpu.step() == Progress::Finished),
            "no LP waits for LP 2"
        );
        update.outcome()
    });
    assert_untouched(
        &platform,
        &outcome.unwrap(),
        FailureCause::LpsChanged { found: 2, wanted: 3 },
    );
}

#[test]
fn a_module_that_other_software_replaced_is_not_shut_down() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
    let passed = passed(&platform, &file);
    assert!(update_to(&platform, &TestImage { svn_minor: 7, ..newer() }).is_updated());
    platform.clear_trace();
    assert_untouched(&platform, &run_passed(&platform, &passed), FailureCause::ModuleChanged);
}

#[test]
fn a_module_with_another_hash_or_another_svn_is_not_shut_down() {
    let changes: [fn(&mut Facts); 2] = [
        |facts| facts.running_mrseam = Some([1; 48]),
        |facts| facts.running_svn = Some(Svn { major: 1, minor: 4 }),
    ];
    for change in changes {
        let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
        let mut facts = platform.facts().unwrap();
        change(&mut facts);
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let passed =
            preflight(&image, &facts, &RustCrypto, Policy::default(), &mut |_| {}).unwrap();
        assert_untouched(&platform, &run_passed(&platform, &passed), FailureCause::ModuleChanged);
    }
}

#[test]
fn an_update_does_not_start_if_other_software_used_the_last_remaining_one() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
    let passed = passed(&platform, &file);
    platform.with_model(|model| {
        model.seamdb_mut().used = 64;
        let state = LoaderState { num_remaining_updates: 0, ..model.loader().state() };
        model.restore_loader(&state);
    });
    assert_untouched(&platform, &run_passed(&platform, &passed), FailureCause::NoRemainingUpdates);
}

#[test]
fn an_lp_outside_vmx_operation_is_detected_before_the_shutdown() {
    for trap in [Trap::UndefinedOpcode, Trap::GeneralProtection, Trap::VmFailInvalid] {
        for lp in 0..3 {
            let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3)));
            let passed = passed(&platform, &file);
            platform.clear_trace();
            let answer = Answer::Trap(trap);
            platform.inject(Fault { lp: Some(lp), rax: None, after: 0, times: u32::MAX, answer });
            let outcome = run_passed(&platform, &passed);
            assert_eq!(outcome.rounds, 1);
            let cause = FailureCause::Trap(Call::Tdx(TdxLeaf::SYS_TDMR_INIT), trap);
            assert_untouched(&platform, &outcome, cause);
        }
    }
}

#[test]
fn a_trap_of_the_lead_before_the_shutdown_ends_the_update() {
    for trap in [Trap::UndefinedOpcode, Trap::GeneralProtection] {
        for call in [INFO, SHUTDOWN] {
            let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3)));
            let passed = passed(&platform, &file);
            platform.clear_trace();
            platform.inject(Fault::first(call, Answer::Trap(trap)));
            let outcome = run_passed(&platform, &passed);
            assert_eq!((outcome.rounds, count(&platform, INSTALL)), (1, 0), "{outcome}");
            assert_eq!(
                (outcome.tds, platform.truth().tds_alive),
                (TdFate::NeverAtRisk, 3),
                "{outcome}"
            );
        }
    }
}

#[test]
fn a_lead_that_cannot_reach_p_seamldr_ends_the_update_untouched() {
    for trap in Trap::ALL {
        let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3)));
        let passed = passed(&platform, &file);
        platform.clear_trace();
        for call in [INFO, INSTALL] {
            let fault = Fault::first(call, Answer::Trap(trap));
            platform.inject(Fault { lp: Some(0), times: u32::MAX, ..fault });
        }
        let outcome = with_passed(&platform, &passed, |update| {
            let (lock, lps) = (SpinLock::new(), [0, 1, 2].map(|lp| platform.lp(lp)));
            let mut cpus = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
            // The first LP that steps leads. Another lead would shut the module down, and LP 0
            // could not call SEAMLDR.INSTALL.
            while cpus
                .iter_mut()
                .map(Cpu::step)
                .filter(|progress| *progress != Progress::Finished)
                .count()
                != 0
            {}
            update.outcome()
        });
        let cause = FailureCause::Trap(Call::Seamldr(SeamldrLeaf::Info), trap);
        assert_untouched(&platform, &outcome.unwrap(), cause);
    }
}

#[test]
fn no_lp_shuts_the_module_down_after_another_lp_gave_up() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
    let passed = passed(&platform, &file);
    with_passed(&platform, &passed, |update| {
        let (lock, lp1) = (SpinLock::new(), platform.lp(1));
        let other = RefCell::new(Cpu::new(update, seamldr(&lp1, &lock)));
        let told = Cell::new(None);
        // The lead is held up in SEAMLDR.INFO. Meanwhile LP 1 gives up.
        let lead = Intercepted::new(platform.lp(0), |lp, regs| {
            if regs.rax == INFO && told.get().is_none() {
                let mut other = other.borrow_mut();
                assert_eq!((other.step(), other.step()), (Progress::Worked, Progress::Waiting));
                other.abandon();
                assert_eq!(other.step(), Progress::Finished);
                told.set(Some(update.outcome()));
            }
            // SAFETY: as promised by the caller.
            unsafe { lp.seamcall(regs) }
        });
        let mut cpu = Cpu::new(update, seamldr(&lead, &lock));
        assert_eq!(cpu.step(), Progress::Worked);
        assert_eq!(other.borrow_mut().step(), Progress::Worked);
        while cpu.step() != Progress::Finished {}
        assert_eq!(told.get(), Some(update.outcome()), "the outcome that LP 1 got stays true");
        assert_untouched(&platform, &update.outcome(), FailureCause::GaveUp);
    })
    .unwrap();
}

#[test]
fn no_lp_gives_up_while_the_lead_is_inside_shutdown_or_update() {
    for call in [SHUTDOWN, UPDATE] {
        let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
        let passed = passed(&platform, &file);
        let outcome = with_passed(&platform, &passed, |update| {
            let (lock, lp1) = (SpinLock::new(), platform.lp(1));
            let other = RefCell::new(Cpu::new(update, seamldr(&lp1, &lock)));
            let lead = Intercepted::new(platform.lp(0), |lp, regs| {
                let rax = regs.rax;
                // SAFETY: as promised by the caller.
                let result = unsafe { lp.seamcall(regs) };
                if rax == call {
                    let mut other = other.borrow_mut();
                    while other.step() != Progress::Waiting {}
                    other.abandon();
                    assert_eq!(other.step(), Progress::Waiting, "{rax:#x}");
                }
                result
            });
            let mut cpu = Cpu::new(update, seamldr(&lead, &lock));
            while cpu.step() != Progress::Finished {
                let _ = other.borrow_mut().step();
            }
            update.outcome()
        });
        assert!(outcome.unwrap().is_updated());
    }
}

#[test]
fn no_lp_gives_up_while_another_is_inside_install() {
    let platform = boot(SimPlatform::builder().lps(2));
    let (first, lock) = (platform.lp(0), SpinLock::new());
    let outcome = with_update(&platform, &newer().build(), Options::default(), |update| {
        let cpu = RefCell::new(Cpu::new(update, seamldr(&first, &lock)));
        // P-SEAMLDR is so slow that the other LP tries to give up meanwhile.
        let slow = Intercepted::new(platform.lp(1), |lp, regs| {
            let rax = regs.rax;
            // SAFETY: as promised by the caller.
            let result = unsafe { lp.seamcall(regs) };
            if rax == INSTALL {
                assert_eq!(cpu.borrow_mut().step(), Progress::Waiting);
                cpu.borrow().abandon();
            }
            result
        });
        let mut other = Cpu::new(update, seamldr(&slow, &lock));
        // The first LP is always ahead, so it waits when the second LP completes the session.
        loop {
            while cpu.borrow_mut().step() == Progress::Worked {}
            if other.step() == Progress::Finished {
                break update.outcome();
            }
        }
    });
    assert!(outcome.is_updated(), "{outcome}");
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn two_parts_of_one_lp_count_as_one_lp() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
    let passed = passed(&platform, &file);
    with_passed(&platform, &passed, |update| {
        let (lock, lp0) = (SpinLock::new(), platform.lp(0));
        let mut parts = [0, 1].map(|_| Cpu::new(update, seamldr(&lp0, &lock)));
        let [first, second] = &mut parts;
        assert_eq!((first.step(), second.step()), (Progress::Worked, Progress::Finished));
        assert_eq!((first.step(), update.progress()), (Progress::Waiting, (Stage::Start, 1)));
        first.abandon();
        assert_untouched(&platform, &update.outcome(), FailureCause::GaveUp);
    })
    .unwrap();
}

#[test]
fn damage_that_the_policy_allows_is_not_refused_by_the_module() {
    let platform = boot_from(SimPlatform::builder().lps(2), &counting(5));
    platform.create_td_in(TdPhase::Build).unwrap();
    let file = counting(6).build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let facts = platform.facts().unwrap();
    for (allow_damage, tds) in [(false, TdFate::NeverAtRisk), (true, TdFate::Preserved)] {
        let policy = Policy { allow_damage, ..Policy::default() };
        // Without this fact, the module itself counts the TDs in build.
        let facts = Facts { sensitive_operations: None, ..facts };
        let passed = preflight(&image, &facts, &RustCrypto, policy, &mut |_| {}).unwrap();
        assert_eq!(passed.avoids_sensitive_operations(), !allow_damage);
        assert_eq!(run_passed(&platform, &passed).tds, tds);
    }
}

#[test]
fn a_request_for_another_machine_makes_no_call() {
    let [a, b] = [0, 1].map(|_| boot(SimPlatform::builder().lps(1)));
    assert_ne!(a.lp(0).machine(), b.lp(0).machine());
    let file = newer().build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let mut page = PageBuf::zeroed(1);
    let request =
        InstallRequest::build(page.as_params(), &image, Scenario::Update, &a.lp(0)).unwrap();
    let (lp, lock) = (b.lp(0), SpinLock::new());
    assert_eq!(seamldr(&lp, &lock).install(&request), Err(InstallError::OtherMachine));
    assert_eq!(b.trace().len(), 0);

    // An LP of one machine, in an update of the other machine.
    let passed = passed(&a, &file);
    with_passed(&a, &passed, |update| {
        assert_eq!(Cpu::new(update, seamldr(&lp, &lock)).step(), Progress::Finished);
        assert_untouched(&a, &update.outcome(), FailureCause::OtherMachine);
    })
    .unwrap();
    let mut page = PageBuf::zeroed(1);
    let image = prepare(&a, &mut page, &file, Purpose::Load);
    assert_eq!(
        Update::load(image, &b.lp(0), b.module_state()).unwrap_err(),
        UpdateError::OtherMachine
    );
}

#[test]
fn firmware_writes_to_the_buffer_of_the_calling_host() {
    // The host that translates addresses also makes the call, so addresses of another machine
    // cannot reach firmware.
    let [a, b] = [0, 1].map(|_| boot(SimPlatform::builder().lps(1)));
    let frozen = PageBuf::copy_of(&[0x11; 4096]);
    b.lp(0).phys_addr(frozen.as_bytes().as_ptr()).unwrap();
    let (lp, lock) = (a.lp(0), SpinLock::new());
    let mut info = Box::new(SeamldrInfoBuffer::zeroed());
    assert_eq!(seamldr(&lp, &lock).info(&mut info).unwrap().major.get(), 1);
    assert!(frozen.as_bytes().iter().all(|byte| *byte == 0x11));
}

#[test]
fn a_policy_that_allows_unknown_facts_passes_no_unverified_image() {
    let platform = boot(SimPlatform::builder().lps(2));
    let file = newer().build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let facts = platform.facts().unwrap();
    let with = |allow_unknowns| {
        let policy = Policy { allow_unknowns, ..Policy::default() };
        preflight(&image, &facts, &NoCrypto, policy, &mut |_| {}).is_ok()
    };
    let by_name = [Unknown::Signer, Unknown::Signature, Unknown::ImageHash];
    assert!(!with(Unknowns::OF_PLATFORM));
    let mut allowed = Unknowns::NONE;
    for unknown in by_name {
        assert!(!with(allowed));
        allowed = allowed.with(unknown);
    }
    assert!(with(allowed));
}

#[test]
fn preflight_passes_an_image_for_load_if_no_module_is_left() {
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(2)));
    let passed = passed(&platform, &file);
    let lost = with_passed(&platform, &passed, |update| {
        // Firmware reads a different module from the one that preflight checked.
        assert!(platform.tamper(&passed.image().module()[100], 1));
        run_stepped(&platform, update, 1)
    })
    .unwrap();
    assert_eq!((lost.tds, lost.next), (TdFate::Lost, NextStep::Load));
    assert_eq!(lost.failure.unwrap().cause.code(), SeamldrStatus::EBADHASH.name().unwrap());
    assert!(platform.tamper(&passed.image().module()[100], 0));

    let facts = platform.facts().unwrap();
    let asked = |purpose| {
        let mut found = Vec::new();
        let policy = Policy::default();
        let image = passed.image();
        let passed = preflight_image(image, &facts, purpose, &RustCrypto, policy, &mut |finding| {
            found.push(finding)
        });
        (passed.ok(), found)
    };
    let (image, found) = asked(Purpose::Load);
    assert_eq!(found, []);
    let to_take_over = asked(Purpose::TakeOver { handoff_version: Some(0) }).1;
    assert_eq!(to_take_over, [Finding::Refusal(Refusal::NoModule)]);
    let mut page = PageBuf::zeroed(1);
    let image = image.unwrap().prepare(page.as_params(), &platform.lp(0)).unwrap();
    let update = Update::load(image, &platform.lp(0), platform.module_state()).unwrap();
    assert_eq!(run_stepped(&platform, &update, 1).next, NextStep::Configure);
}

/// Runs `with` on an update to this image whose LPs 0 and 1 are about to call SEAMLDR.INSTALL.
fn two_before_install(
    platform: &SimPlatform,
    file: &PageBuf,
    with: impl FnOnce(&Update<'_>, [&mut Cpu<'_, SimLp<'_>, SpinLock>; 2]),
) {
    with_update(platform, file, Options::default(), |update| {
        let (lock, lps) = (SpinLock::new(), [0, 1].map(|lp| platform.lp(lp)));
        let [mut first, mut second] = lps.each_ref().map(|lp| Cpu::new(update, seamldr(lp, &lock)));
        while update.progress().0 != Stage::CpuInstall {
            let _ = (first.step(), second.step());
        }
        with(update, [&mut first, &mut second]);
    });
}

#[test]
fn the_outcome_reports_an_open_session_after_an_lp_gave_up_in_install() {
    // Two of 3 LPs take part. Preflight did not check the number of LPs.
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3).offline(2)));
    two_before_install(&platform, &file, |update, [first, second]| {
        assert_eq!((first.step(), first.step()), (Progress::Worked, Progress::Waiting));
        first.abandon();
        assert_eq!((first.step(), second.step()), (Progress::Finished, Progress::Finished));
        let open = (TdFate::Held, RunningModule::SessionOpen, NextStep::CompleteSession);
        assert_eq!(state(&update.outcome()), open);
    });
    assert_eq!(platform.truth().lps_in_session, 1);
    // All LPs that take part call, and the module does not answer.
    let outcome = resume(&platform, &file);
    assert_eq!(outcome.last_failure.unwrap().cause, FailureCause::LpsMissing);
    assert_eq!((outcome.running, platform.truth().lps_in_session), (RunningModule::SessionOpen, 2));
}

#[test]
fn the_outcome_claims_no_module_in_place_if_no_lp_called_it() {
    // Two of 3 LPs take part, so the session stays open. TDH.SYS.INIT is held up, so no LP calls
    // the module.
    let (file, platform) = (newer().build(), boot(SimPlatform::builder().lps(3).offline(2)));
    two_before_install(&platform, &file, |update, [first, second]| {
        let _ = platform.module_state().begin_sys_init();
        assert_eq!((first.step(), second.step()), (Progress::Worked, Progress::Worked));
        assert_eq!((first.step(), update.progress().0), (Progress::Waiting, Stage::CpuInit));
        first.abandon();
        let outcome = update.outcome();
        assert_eq!(
            state(&outcome),
            (TdFate::Held, RunningModule::NoneKnown, NextStep::Finish),
            "{outcome}"
        );
    });
    assert_eq!((platform.truth().lps_in_session, count(&platform, SYS_INIT)), (2, 0));
}

#[test]
fn ebadcall_on_an_lp_that_has_not_called_does_not_count_as_a_missing_lp() {
    let file = newer().build();
    // LP 1 gets EBADCALL although it has not called. If this happens once, LP 1 calls again. If it
    // happens always, the outcome reports it.
    for (times, is_updated) in [(1, true), (u32::MAX, false)] {
        let fault = Fault {
            lp: Some(1),
            times,
            ..Fault::first(INSTALL, returns(SeamldrStatus::EBADCALL.0))
        };
        let platform = boot(SimPlatform::builder().lps(3));
        let passed = passed(&platform, &file);
        platform.inject(fault);
        let outcome = run_passed(&platform, &passed);
        assert_eq!(outcome.is_updated(), is_updated, "{outcome}");
        assert_eq!(outcome.failure.unwrap().cause.code(), "EBADCALL");
        if !is_updated {
            assert_eq!(outcome.last_failure.unwrap().cause.code(), "EBADCALL");
            assert_eq!(
                (outcome.running, platform.truth().lps_in_session),
                (RunningModule::SessionOpen, 2)
            );
            platform.clear_faults();
            assert!(resume(&platform, &file).is_updated());
        }
        assert_eq!(platform.truth().tds_alive, 3);
    }
}
