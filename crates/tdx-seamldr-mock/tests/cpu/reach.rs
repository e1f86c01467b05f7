//! Which firmware SEAMCALL reaches, and from which LP.

use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrLeaf, SeamldrStatus as S, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, Trap};
use tdx_seamldr_mock::model::{ModuleState as State, NO_VMCS};
use tdx_seamldr_mock::{Answer, Fault, FaultId, SimPlatform};
use tdx_seamldr_verify::RustCrypto;

use crate::support::*;
use crate::{model_call, read, set_seam_ready, without_module, END, HOLE, OK, SEAMINFO};

#[test]
fn only_p_seamldr_answers_before_the_first_load() {
    let mut model = without_module(2);
    for lp in 0..2 {
        for leaf in [SYS_RD, SYS_INIT, LP_INIT, UPDATE, SHUTDOWN, 44, 999] {
            assert_eq!(
                model_call(&mut model, lp, leaf, 0),
                Err(Trap::VmFailInvalid),
                "leaf {leaf}"
            );
        }
        assert_eq!(model_call(&mut model, lp, INFO, 0), Ok(0));
    }
    // An UPDATE needs a running module.
    assert_eq!(model.loader().lps_in_session(), 0);
    assert!(model.module().is_none());
}

#[test]
fn seam_ready_decides_whether_seamcall_reaches_the_module() {
    let platform = boot(SimPlatform::builder().lps(2));
    set_seam_ready(&platform, 0);
    assert_eq!([0, 1].map(|lp| read(&platform, lp)), [Err(Trap::VmFailInvalid); 2]);
    assert_eq!(rax(&platform, 0, INFO, HOLE), Ok(0), "P-SEAMLDR is reachable");
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().callable, truth.tds_alive), (false, 0), "TDs need a module");
    set_seam_ready(&platform, 1);
    assert_eq!((read(&platform, 1), platform.truth().tds_alive), (Ok(0), 3));
}

#[test]
fn every_call_to_p_seamldr_fails_while_another_lp_is_inside() {
    let platform = boot(SimPlatform::builder().lps(3));
    let leaves = [INFO, INSTALL, SEAMINFO, END | 0xf0, SeamldrLeaf::Cleanup.rax(), END];
    let regs = |rax| SeamcallRegs { rax, rcx: HOLE, ..SeamcallRegs::default() };
    platform.with_model(|model| {
        // The last leaf of the table is final.
        for first in &leaves[..5] {
            let entered = model.enter(0, &regs(*first)).unwrap();
            assert_eq!(model.lp_in_seamldr(), Some(0));
            let before = (*model.loader().seamextend(), model.loader().lps_in_session());
            for second in leaves {
                let refused = model.enter(1, &regs(second)).unwrap_err();
                assert_eq!(refused, Trap::VmFailInvalid, "{first:#x} inside, {second:#x} comes");
            }
            let after = (*model.loader().seamextend(), model.loader().lps_in_session());
            assert_eq!(before, after, "a refused call changes nothing");
            assert_eq!(model.loader().lps_in_shutdown(), 0);
            model.leave(entered, &mut regs(*first), &Nothing, &RustCrypto).unwrap();
            assert_eq!(model.lp_in_seamldr(), None);
            assert_eq!(model_call(model, 1, INFO, HOLE), Ok(0), "free again after {first:#x}");
        }
    });
    // Only the INSTALL that entered P-SEAMLDR counts.
    assert_eq!(platform.truth().lps_in_session, 1);
}

/// Waits until this fault has affected all its calls.
fn wait_for(platform: &SimPlatform, fault: FaultId) {
    while platform.fault_times_left(fault) != Some(0) {
        std::thread::yield_now();
    }
}

#[test]
fn a_second_call_of_an_lp_inside_firmware_fails_and_does_not_affect_the_first() {
    let read = SeamcallRegs { rax: SYS_RD, rdx: FieldId::MODULE_HV.0, ..SeamcallRegs::default() };
    let info = SeamcallRegs { rax: INFO, rcx: HOLE, ..SeamcallRegs::default() };
    let platform = boot(SimPlatform::builder().lps(2));
    platform.with_model(|model| {
        for (first, second) in [(info, read), (read, info), (info, info), (read, read)] {
            let entered = model.enter(1, &first).unwrap();
            assert!(model.is_in_call(1) && !model.is_in_call(0));
            assert_eq!(model.enter(1, &second).unwrap_err(), Trap::VmFailInvalid);
            let mut out = first;
            model.leave(entered, &mut out, &Nothing, &RustCrypto).unwrap();
            // TDH.SYS.RD returns the next field's id in RDX; SEAMLDR.INFO does not change RDX.
            let expected = if first == read { read.rdx + 1 } else { info.rdx };
            assert_eq!((out.rax, out.rdx, model.is_in_call(1)), (0, expected, false));
        }
    });
    // The same by two threads that both stand for one LP.
    let fault = platform.inject(Fault { lp: Some(1), ..Fault::first(INFO, Answer::Delay(1)) });
    std::thread::scope(|threads| {
        let inside = threads.spawn(|| rax(&platform, 1, INFO, HOLE));
        wait_for(&platform, fault);
        assert_eq!(rax(&platform, 1, SYS_RD, 0), Err(Trap::VmFailInvalid));
        assert_eq!(inside.join().unwrap(), Ok(0));
    });
}

#[test]
fn lps_that_install_without_a_lock_collide_and_succeed_after_retries() {
    const LPS: u32 = 6;
    let platform = boot(SimPlatform::builder().lps(LPS));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    platform.clear_trace();
    // The first LP stays inside until another LP has called.
    platform.inject(Fault::first(INSTALL, Answer::Delay(1)));
    with_params(&platform, &newer().build(), Scenario::Update, |params| {
        std::thread::scope(|threads| {
            for lp in 0..LPS {
                let platform = &platform;
                threads.spawn(move || loop {
                    match rax(platform, lp, INSTALL, params) {
                        Err(Trap::VmFailInvalid) => std::thread::yield_now(),
                        result => return assert_eq!(result, Ok(0), "LP {lp}"),
                    }
                });
            }
        });
    });
    let trace = platform.trace();
    let refused = trace.iter().filter(|entry| entry.output == Err(Trap::VmFailInvalid)).count();
    assert!(refused >= 1);
    assert_eq!(trace.len() - refused, LPS as usize, "each LP entered once");
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().state, truth.lps_in_session), (State::SysInitPending, 0));
}

#[test]
fn the_module_is_busy_while_a_thread_of_another_lp_is_inside() {
    let platform = boot(SimPlatform::builder().lps(2));
    let fault = Fault { lp: Some(1), ..Fault::first(SYS_RD, Answer::Delay(1)) };
    let fault = platform.inject(fault);
    std::thread::scope(|threads| {
        let inside = threads.spawn(|| read(&platform, 1));
        wait_for(&platform, fault);
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(TdxStatus::SYS_BUSY.0));
        assert_eq!(inside.join().unwrap(), Ok(0));
    });
    let truth = platform.truth();
    assert_eq!(
        (truth.module.unwrap().state, truth.handoff_valid, truth.tds_alive),
        (State::Ready, false, 3)
    );
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
}

#[test]
fn calls_to_the_module_and_to_p_seamldr_do_not_block_each_other() {
    let platform = boot(SimPlatform::builder().lps(2));
    let fault = Fault { lp: Some(1), ..Fault::first(INFO, Answer::Delay(1)) };
    let fault = platform.inject(fault);
    std::thread::scope(|threads| {
        let inside = threads.spawn(|| rax(&platform, 1, INFO, HOLE));
        wait_for(&platform, fault);
        assert_eq!(platform.with_model(|model| model.lp_in_seamldr()), Some(1));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0), "no LP is inside the module");
        assert_eq!(inside.join().unwrap(), Ok(0));
    });
}

#[test]
fn every_call_traps_on_an_lp_outside_vmx_operation() {
    for trap in [Trap::GeneralProtection, Trap::UndefinedOpcode] {
        let platform = boot(SimPlatform::builder().lps(3));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        platform.with_model(|model| model.set_trap(1, Some(trap)));
        with_params(&platform, &newer().build(), Scenario::Update, |params| {
            assert_eq!([0, 2].map(|lp| install_on(&platform, lp, params)), [OK, OK]);
            for leaf in [INSTALL, INFO, SYS_INIT, SYS_RD] {
                assert_eq!(rax(&platform, 1, leaf, params), Err(trap), "{leaf:#x}");
            }
            assert_eq!(platform.truth().lps_in_session, 2);
            platform.with_model(|model| model.set_trap(1, None));
            assert_eq!(install_on(&platform, 1, params), OK);
        });
        assert_eq!(platform.truth().module.unwrap().state, State::SysInitPending);
    }
    // An LP that does not exist cannot execute a call.
    let platform = boot(SimPlatform::builder().lps(3));
    assert_eq!(read(&platform, 3), Err(Trap::UndefinedOpcode));
}

#[test]
fn with_the_erratum_only_a_return_from_p_seamldr_clears_the_callers_vmcs() {
    let platform = boot(SimPlatform::builder().lps(2));
    let result = |lp: u32, rax: u64, rcx: u64| {
        platform
            .with_model(|model| (0..2).for_each(|lp| model.load_vmcs(lp, 0x5000 + u64::from(lp))));
        let regs = SeamcallRegs { rax, rcx, rdx: FieldId::VENDOR_ID.0, ..SeamcallRegs::default() };
        let result = call_regs(&platform, lp, regs).map(|regs| regs.rax);
        (result, [0, 1].map(|lp| platform.with_model(|model| model.current_vmcs(lp))))
    };
    let (kept, cleared) = ([0x5000, 0x5001], [0x5000, NO_VMCS]);
    for (erratum, expected) in [(false, kept), (true, cleared)] {
        platform.with_model(|model| model.config_mut().seamret_clears_vmcs = erratum);
        let rows = [
            (INFO, HOLE, 0),
            (INFO, 1, S::EBADPARAM.0),
            (SEAMINFO, HOLE & !0x7ff, 0),
            (1 << 63 | 99, 0, S::EBADPARAM.0),
            (SeamldrLeaf::Cleanup.rax(), 0, S::EBADPARAM.0),
        ];
        for (leaf, rcx, status) in rows {
            assert_eq!(
                result(1, leaf, rcx),
                (Ok(status), expected),
                "{leaf:#x}, erratum {erratum}"
            );
        }
        assert_eq!(
            result(1, SYS_RD, 0),
            (Ok(0), kept),
            "a return from the module does not clear it"
        );
        assert_eq!(result(1, SHUTDOWN, 9), (Ok(TdxStatus::OPERAND_INVALID.0 | 1), kept));
    }
    // If firmware is not entered, there is no return that clears the VMCS.
    platform.with_model(|model| model.set_trap(1, Some(Trap::GeneralProtection)));
    assert_eq!(result(1, INFO, HOLE), (Err(Trap::GeneralProtection), kept));
    platform.with_model(|model| model.set_trap(1, None));
    let regs = SeamcallRegs { rax: INFO, rcx: HOLE, ..SeamcallRegs::default() };
    let first = platform.with_model(|model| model.enter(0, &regs)).unwrap();
    assert_eq!(result(1, INFO, HOLE), (Err(Trap::VmFailInvalid), kept));
    platform
        .with_model(|model| model.leave(first, &mut regs.clone(), &Nothing, &RustCrypto))
        .unwrap();
}

#[test]
fn a_copy_of_the_model_is_independent() {
    let platform = boot(SimPlatform::builder().lps(1));
    let mut copy = platform.with_model(|model| model.clone());
    assert_eq!(model_call(&mut copy, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(copy.module().unwrap().state(), State::Shutdown);
    assert_eq!(platform.truth().module.unwrap().state, State::Ready);
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn an_lp_that_finds_another_one_inside_p_seamldr_gets_vmfailinvalid() {
    let platform = boot(SimPlatform::builder().lps(2));
    // An unknown leaf, which accesses no memory.
    let call = |lp: u32| rax(&platform, lp, 1 << 63 | 0xff, 0).map(S);
    // LP 0 stays inside P-SEAMLDR until another LP calls.
    platform.inject(Fault { lp: Some(0), ..Fault::nth(0, Answer::Delay(1)) });
    std::thread::scope(|threads| {
        let first = threads.spawn(|| call(0));
        while !platform.seamldr_is_entered() {
            std::thread::yield_now();
        }
        assert_eq!(call(1), Err(Trap::VmFailInvalid));
        assert_eq!(first.join().unwrap(), Ok(S::EBADPARAM));
    });
    assert_eq!(call(1), Ok(S::EBADPARAM));
}
