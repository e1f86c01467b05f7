//! The processor under the firmware: whom SEAMCALL reaches from where, which memory an address means, and what can be planned
//! to go wrong.
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
use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrLeaf, SeamldrStatus as S, TdxStatus, PAGE_SIZE};
use tdx_seamldr_core::{SeamcallRegs, TdxImage, Trap};
use tdx_seamldr_mock::model::{
    Config, FaultPlan, LoaderProfile, LoaderState, ModuleState as State, Platform, SeamDb, SeamMemory,
    NO_VMCS,
};
use tdx_seamldr_mock::{Answer, Fault, PageBuf, SimPlatform, TestImage, TEST_SIGNER};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromZeros;

const INFO: u64 = SeamldrLeaf::Info.rax();
const SEAMINFO: u64 = SeamldrLeaf::SeamInfo.rax();
const END: u64 = SeamldrLeaf::Shutdown.rax();
const OK: (S, u64) = (S::SUCCESS, 0);
/// An address in a hole of the host's memory: good, and nobody's.
const HOLE: u64 = 0x7fff_f000;
/// The first and the last address of the SEAM range, and the width of an address without its KeyID.
const SEAMRR: u64 = 0x20_0000_0000;
const SEAMRR_END: u64 = SEAMRR + (256 << 20);
const ADDRESS_BITS: u32 = 40;

/// A field that every module has, read on this LP: RAX.
fn read(platform: &SimPlatform, lp: u32) -> Result<u64, Trap> {
    let regs = SeamcallRegs { rax: SYS_RD, rdx: FieldId::VENDOR_ID.0, ..SeamcallRegs::default() };
    call_regs(platform, lp, regs).map(|regs| regs.rax)
}

/// A platform as firmware leaves it, before any module.
fn without_module(lps: u32) -> Platform<Box<SeamMemory>> {
    let config = Config::new(lps, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00).unwrap();
    let seamdb = SeamDb { size: 4, used: 0, insert_failures: 0 };
    Platform::new(config, seamdb, SeamMemory::new_box_zeroed().unwrap())
}

fn model_call(model: &mut Platform<Box<SeamMemory>>, lp: u32, rax: u64, rcx: u64) -> Result<u64, Trap> {
    let mut regs = SeamcallRegs { rax, rcx, rdx: u64::MAX, ..SeamcallRegs::default() };
    model.seamcall(lp, &mut regs, &Nothing, &RustCrypto).map(|()| regs.rax)
}

fn set_seam_ready(platform: &SimPlatform, ready: u8) {
    platform.with_model(|model| {
        let loader = model.loader();
        let mut state = LoaderState {
            seamextend: *loader.seamextend(),
            entered: true,
            num_remaining_updates: loader.num_remaining_updates(),
            module_range_initialized: true,
            sysinfo: loader.module_sysinfo().copied(),
        };
        state.seamextend.seam_ready = ready;
        model.restore_loader(&state);
    });
}

#[test]
fn where_no_module_was_ever_loaded_only_p_seamldr_answers() {
    let mut model = without_module(2);
    for lp in 0..2 {
        for leaf in [SYS_RD, SYS_INIT, LP_INIT, UPDATE, SHUTDOWN, 44, 999] {
            assert_eq!(model_call(&mut model, lp, leaf, 0), Err(Trap::VmFailInvalid), "leaf {leaf}");
        }
        assert_eq!(model_call(&mut model, lp, INFO, 0), Ok(0));
    }
    // An UPDATE has nothing that it could be an update of.
    assert_eq!(model.loader().lps_in_session(), 0);
    assert!(model.module().is_none());
}

#[test]
fn seam_ready_decides_whether_the_module_that_lies_there_can_be_reached() {
    let platform = boot(SimPlatform::builder().lps(2));
    set_seam_ready(&platform, 0);
    assert_eq!([0, 1].map(|lp| read(&platform, lp)), [Err(Trap::VmFailInvalid); 2]);
    assert_eq!(rax(&platform, 0, INFO, HOLE), Ok(0), "P-SEAMLDR can be");
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().callable, truth.tds_alive), (false, 0), "and TDs need a module");
    set_seam_ready(&platform, 1);
    assert_eq!((read(&platform, 1), platform.truth().tds_alive), (Ok(0), 3));
}

#[test]
fn a_second_lp_is_refused_whatever_either_of_them_wants_of_p_seamldr() {
    let platform = boot(SimPlatform::builder().lps(3));
    let leaves = [INFO, INSTALL, SEAMINFO, END | 0xf0, SeamldrLeaf::Cleanup.rax(), END];
    let regs = |rax| SeamcallRegs { rax, rcx: HOLE, ..SeamcallRegs::default() };
    platform.with_model(|model| {
        // The last one of the table would be for good.
        for first in &leaves[..5] {
            let entered = model.enter(0, &regs(*first)).unwrap();
            assert_eq!(model.lp_in_seamldr(), Some(0));
            let before = (*model.loader().seamextend(), model.loader().lps_in_session());
            for second in leaves {
                let refused = model.enter(1, &regs(second)).unwrap_err();
                assert_eq!(refused, Trap::VmFailInvalid, "{first:#x} inside, {second:#x} comes");
            }
            let after = (*model.loader().seamextend(), model.loader().lps_in_session());
            assert_eq!(before, after, "who is refused has done nothing");
            assert_eq!(model.loader().lps_in_shutdown(), 0);
            model.leave(entered, &mut regs(*first), &Nothing, &RustCrypto).unwrap();
            assert_eq!(model.lp_in_seamldr(), None);
            assert_eq!(model_call(model, 1, INFO, HOLE), Ok(0), "free again after {first:#x}");
        }
    });
    // Only the INSTALL that got in has counted.
    assert_eq!(platform.truth().lps_in_session, 1);
}

/// Until this fault, and it alone, has struck so often as it was to.
fn wait_for(platform: &SimPlatform, fault: Fault) {
    let mut spent = FaultPlan::default();
    spent.add(Fault { after: 0, times: 0, ..fault }).unwrap();
    while platform.with_model(|model| *model.faults_mut() != spent) {
        std::thread::yield_now();
    }
}

#[test]
fn lps_that_install_without_a_lock_meet_each_other_and_get_through_in_the_end() {
    const LPS: u32 = 6;
    let platform = boot(SimPlatform::builder().lps(LPS));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    platform.clear_trace();
    // Whoever comes first stays until somebody else was there.
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
    assert_eq!(trace.len() - refused, LPS as usize, "each got in once");
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().state, truth.lps_in_session), (State::SysInitPending, 0));
}

#[test]
fn the_module_is_busy_while_a_thread_of_another_lp_is_inside() {
    let platform = boot(SimPlatform::builder().lps(2));
    let fault = Fault { lp: Some(1), ..Fault::first(SYS_RD, Answer::Delay(1)) };
    platform.inject(fault);
    std::thread::scope(|threads| {
        let inside = threads.spawn(|| read(&platform, 1));
        wait_for(&platform, fault);
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(TdxStatus::SYS_BUSY.0));
        assert_eq!(inside.join().unwrap(), Ok(0));
    });
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().state, truth.handoff_valid, truth.tds_alive), (State::Ready, false, 3));
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
}

#[test]
fn calls_of_the_module_and_of_p_seamldr_do_not_mind_each_other() {
    let platform = boot(SimPlatform::builder().lps(2));
    let fault = Fault { lp: Some(1), ..Fault::first(INFO, Answer::Delay(1)) };
    platform.inject(fault);
    std::thread::scope(|threads| {
        let inside = threads.spawn(|| rax(&platform, 1, INFO, HOLE));
        wait_for(&platform, fault);
        assert_eq!(platform.with_model(|model| model.lp_in_seamldr()), Some(1));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0), "nobody is inside the module");
        assert_eq!(inside.join().unwrap(), Ok(0));
    });
}

#[test]
fn an_lp_outside_vmx_operation_traps_in_every_call_and_takes_no_part() {
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
    // A processor that is not there executes nothing.
    let platform = boot(SimPlatform::builder().lps(3));
    assert_eq!(read(&platform, 3), Err(Trap::UndefinedOpcode));
}

#[test]
fn with_the_erratum_every_return_from_p_seamldr_clears_the_callers_vmcs_and_nothing_else_does() {
    let platform = boot(SimPlatform::builder().lps(2));
    let result = |lp: u32, rax: u64, rcx: u64| {
        platform.with_model(|model| (0..2).for_each(|lp| model.load_vmcs(lp, 0x5000 + u64::from(lp))));
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
            assert_eq!(result(1, leaf, rcx), (Ok(status), expected), "{leaf:#x}, erratum {erratum}");
        }
        assert_eq!(result(1, SYS_RD, 0), (Ok(0), kept), "the module's return is another one");
        assert_eq!(result(1, SHUTDOWN, 9), (Ok(TdxStatus::OPERAND_INVALID.0 | 1), kept));
    }
    // Firmware that is not entered does not return.
    platform.with_model(|model| model.set_trap(1, Some(Trap::GeneralProtection)));
    assert_eq!(result(1, INFO, HOLE), (Err(Trap::GeneralProtection), kept));
    platform.with_model(|model| model.set_trap(1, None));
    let regs = SeamcallRegs { rax: INFO, rcx: HOLE, ..SeamcallRegs::default() };
    let first = platform.with_model(|model| model.enter(0, &regs)).unwrap();
    assert_eq!(result(1, INFO, HOLE), (Err(Trap::VmFailInvalid), kept));
    platform.with_model(|model| model.leave(first, &mut regs.clone(), &Nothing, &RustCrypto)).unwrap();
}

#[test]
fn sessions_go_by_x2apic_ids_which_have_gaps() {
    let platform = boot(SimPlatform::builder().lps(6).sockets(2));
    let ids: Vec<u32> = (0..6).map(|lp| platform.with_model(|model| model.x2apic_id(lp)).unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[1] > pair[0] + 1), "{ids:?}");
    let packages: Vec<u32> =
        ids.iter().map(|id| platform.with_model(|model| id >> model.config().package_shift)).collect();
    assert_eq!(packages, [0, 0, 0, 1, 1, 1]);
    for (count, lp) in (1u32..).zip([4, 0, 5]) {
        assert_eq!(install_on(&platform, lp, 0), OK);
        let session: Vec<u32> = platform.with_model(|model| model.loader().session().collect());
        assert!(session.len() as u32 == count && session.contains(&ids[lp as usize]), "{session:?}");
        // Its VMCS lies behind the first page of the SEAM range, at the place of its id.
        let vmcs = platform.with_model(|model| model.loader().effects().vmclear);
        assert_eq!(vmcs, Some(SEAMRR + 4096 * (1 + u64::from(ids[lp as usize]))));
    }
}

#[test]
fn an_x2apic_id_of_1024_has_no_place_in_any_session() {
    let platform = boot(SimPlatform::builder().lps(3));
    platform.with_model(|model| model.set_lps([1023, 1024, u32::MAX]));
    for lp in [1, 2] {
        assert_eq!(install_on(&platform, lp, 0), (S::EUNSPECERR, 0));
        assert_eq!(rax(&platform, lp, END, 0), Ok(S::EUNSPECERR.0));
        assert_eq!(rax(&platform, lp, INFO, HOLE), Ok(0), "INFO does not ask");
    }
    assert!(platform.truth().module.unwrap().callable, "no session has begun");
    assert_eq!(install_on(&platform, 0, 0), OK);
    assert_eq!(platform.with_model(|model| model.loader().session().collect::<Vec<_>>()), [1023]);
}

#[test]
fn an_lp_that_stays_offline_keeps_the_new_module_from_taking_over() {
    let platform = boot(SimPlatform::builder().lps(3).offline(1));
    assert_eq!(platform.online().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), OK);
    assert_eq!(platform.truth().lps_in_session, 2, "which is not the end of it");
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), (S::EBADCALL, 0));
    with_params(&platform, &newer().build(), Scenario::Update, |params| {
        assert_eq!(install_on(&platform, 1, params), OK);
    });
    assert_eq!([SYS_INIT, LP_INIT].map(|leaf| rax(&platform, 0, leaf, 0)), [Ok(0), Ok(0)]);
    assert_eq!(rax(&platform, 2, LP_INIT, 0), Ok(0));
    let initialized = || platform.with_model(|model| model.module().unwrap().num_lps_initialized());
    assert_eq!(initialized(), 2);
    assert_eq!(rax(&platform, 0, UPDATE, 0), Ok(TdxStatus::SYS_STATE_INCORRECT.0));
    assert!(platform.truth().handoff_valid);
    assert_eq!((rax(&platform, 1, LP_INIT, 0), initialized()), (Ok(0), 3));
    assert_eq!((rax(&platform, 0, UPDATE, 0), platform.truth().tds_alive), (Ok(0), 3));
}

#[test]
fn every_socket_has_to_be_in_the_list_whatever_its_stepping() {
    let file = newer().build();
    for socket in 0..8 {
        for (fms, expected) in
            [(0x806f0, S::SUCCESS), (0xa06ff, S::SUCCESS), (0x806e8, S::EUNSUPCPU), (0, S::EUNSUPCPU)]
        {
            let platform = boot(SimPlatform::builder().lps(8).sockets(8));
            platform.with_model(|model| model.config_mut().socket_fms[socket] = fms);
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            let result = install_all(&platform, &file, Scenario::Update);
            assert_eq!(result, (expected, 0), "socket {socket}: {fms:#x}");
        }
    }
    // A socket that the platform does not have does not count.
    let platform = boot(SimPlatform::builder().lps(8).sockets(7));
    platform.with_model(|model| model.config_mut().socket_fms[7] = 0);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &file, Scenario::Update), OK);
}

#[test]
fn shared_key_ids_are_accepted_and_lead_to_other_memory_private_ones_are_not() {
    let file = newer().build();
    for keyid in 1u64..64 {
        let bits = keyid << ADDRESS_BITS;
        let is_shared = keyid < 0x20;
        let platform = boot(SimPlatform::builder().lps(1));
        assert_eq!(rax(&platform, 0, INFO, HOLE | bits) == Ok(0), is_shared, "KeyID {keyid:#x}");
        assert_eq!(rax(&platform, 0, SEAMINFO, (HOLE & !0x7ff) | bits) == Ok(0), is_shared);
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let mut page = PageBuf::zeroed(1);
        let request = tdx_seamldr_core::InstallRequest::build(
            page.as_params(),
            &image,
            Scenario::Update,
            &platform.lp(0),
        )
        .unwrap();
        let params = request.params().get().0;
        let refused = |status| if is_shared { status } else { (S::EBADPARAM, 0) };
        // Zeros instead of parameters, of a SIGSTRUCT, of the last page of the image.
        assert_eq!(install_on(&platform, 0, params | bits), refused((S::EBADSIG, 0)), "KeyID {keyid:#x}");
        let sigstruct = page.as_params().sigstruct_pa;
        page.as_params().sigstruct_pa = (sigstruct.get() | bits).into();
        assert_eq!(install_on(&platform, 0, params), refused((S::EBADSIG, 0)));
        page.as_params().sigstruct_pa = sigstruct;
        let last = page.as_params().module_page_pa[7];
        page.as_params().module_page_pa[7] = (last.get() | bits).into();
        assert_eq!(install_on(&platform, 0, params), refused((S::EBADHASH, 1)));
    }
}

#[test]
fn the_seam_range_is_refused_to_its_last_byte_with_every_key_id() {
    let mut model = without_module(1);
    let top = 1 << ADDRESS_BITS;
    let rows = [
        (0, true),
        (SEAMRR - 256, true),
        (SEAMRR, false),
        (SEAMRR + 0x0234_5600, false),
        (SEAMRR_END - 256, false),
        (SEAMRR_END, true),
        (top - 256, true),
    ];
    for (address, good) in rows {
        for keyid in 0u64..32 {
            let found = model_call(&mut model, 0, INFO, address | keyid << ADDRESS_BITS);
            let expected = if good { 0 } else { S::EBADPARAM.0 };
            assert_eq!(found, Ok(expected), "{address:#x} with KeyID {keyid}");
        }
    }
    for (leaf, alignment) in [(INFO, 256), (SEAMINFO, 2048)] {
        for bit in 0..64 {
            // The last KeyID bit and all above are out of reach; single bits below are the alignment's business.
            let good = 1u64 << bit >= alignment && bit < ADDRESS_BITS + 5 && 1 << bit != SEAMRR;
            let expected = if good { 0 } else { S::EBADPARAM.0 };
            assert_eq!(model_call(&mut model, 0, leaf, 1 << bit), Ok(expected), "{leaf:#x}, bit {bit}");
        }
    }
}

#[test]
fn holes_read_as_zeros_and_take_no_writes() {
    let file = newer().build();
    let platform = boot(SimPlatform::builder().lps(1));
    let newer_platform = boot(SimPlatform::builder().lps(1).profile(LoaderProfile::NEWER));
    // Zeros are the parameters of a LOAD of no pages with a SIGSTRUCT of zeros.
    assert_eq!(install_on(&platform, 0, HOLE), (S::EBADSIG, 0));
    assert_eq!(install_on(&newer_platform, 0, HOLE), (S::EBADPARAM, 0));
    assert_eq!([INFO, SEAMINFO].map(|leaf| rax(&platform, 0, leaf, HOLE & !0x7ff)), [Ok(0); 2]);
    assert_eq!(platform.truth().tds_alive, 3, "none of it harms");
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    with_params(&platform, &file, Scenario::Update, |params| {
        assert_eq!(install_on(&platform, 0, params), OK);
        let code = platform.with_model(|model| model.code()[..8 * PAGE_SIZE].to_vec());
        assert_ne!(code[7 * PAGE_SIZE..], [0; PAGE_SIZE], "the image is there");
    });
}

/// The calls of a good update by two LPs.
fn good_update(platform: &SimPlatform) -> Vec<Result<u64, Trap>> {
    let mut results = vec![rax(platform, 0, SHUTDOWN, 0)];
    with_params(platform, &newer().build(), Scenario::Update, |params| {
        results.extend([0, 1].map(|lp| rax(platform, lp, INSTALL, params)));
    });
    let rest = [(0, SYS_INIT), (0, LP_INIT), (1, LP_INIT), (0, UPDATE)];
    results.extend(rest.map(|(lp, leaf)| rax(platform, lp, leaf, 0)));
    results
}

#[test]
fn any_one_call_of_an_update_can_be_made_to_answer_anything() {
    let answers = [
        (Answer::Return { rax: 0x1234_5678_9abc_def0, rdx: 0xfeed }, Ok((0x1234_5678_9abc_def0, 0xfeed))),
        (Answer::Return { rax: u64::MAX, rdx: u64::MAX }, Ok((u64::MAX, u64::MAX))),
        (Answer::Trap(Trap::GeneralProtection), Err(Trap::GeneralProtection)),
    ];
    for number in 0..7 {
        for (answer, expected) in answers {
            let platform = boot(SimPlatform::builder().lps(2));
            platform.inject(Fault::nth(number, answer));
            good_update(&platform);
            let trace = platform.trace();
            assert_eq!(trace.len(), 7);
            for (index, entry) in (0..).zip(&trace) {
                let output = entry.output.map(|regs| (regs.rax, regs.rdx));
                if index == number {
                    assert_eq!(output, expected, "call {index}");
                } else if index < number {
                    assert_eq!(output.map(|(rax, _)| rax), Ok(0), "call {index} comes before");
                } else {
                    assert_ne!(output, expected, "call {index} comes after call {number}, {answer:?}");
                }
            }
        }
    }
}

#[test]
fn a_call_that_only_seems_to_be_made_changes_nothing() {
    let platform = boot(SimPlatform::builder().lps(2));
    let before = platform.truth();
    for leaf in [SHUTDOWN, INSTALL, INFO, END] {
        platform.inject(Fault::first(leaf, Answer::Return { rax: 0, rdx: 0 }));
        assert_eq!(rax(&platform, 1, leaf, 0), Ok(0), "success, it says");
        assert_eq!(platform.truth(), before, "{leaf:#x}");
    }
}

#[test]
fn faults_go_by_lp_by_leaf_and_by_number_and_can_last() {
    let struck = Answer::Return { rax: 0xbad, rdx: 0 };
    let rows = [
        ("first of a leaf, on any LP", Fault::first(SYS_RD, struck), vec![1]),
        ("third of all", Fault::nth(2, struck), vec![2]),
        ("first on an LP", Fault { lp: Some(2), ..Fault::nth(0, struck) }, vec![3]),
        ("second on an LP, twice", Fault { lp: Some(0), times: 2, ..Fault::nth(1, struck) }, vec![2, 4]),
        ("leaf on an LP", Fault { lp: Some(1), ..Fault::first(SYS_RD, struck) }, vec![1]),
        (
            "from the second of a leaf for ever",
            Fault { after: 1, times: u32::MAX, ..Fault::first(SYS_RD, struck) },
            vec![3, 4, 6],
        ),
        ("a leaf that nobody calls", Fault::first(SYS_INIT, struck), vec![]),
        ("no times", Fault { times: 0, ..Fault::nth(0, struck) }, vec![]),
    ];
    let calls = [(0, INFO), (1, SYS_RD), (0, INFO), (2, SYS_RD), (0, SYS_RD), (1, INFO), (2, SYS_RD)];
    for (what, fault, expected) in rows {
        let platform = boot(SimPlatform::builder().lps(3));
        platform.inject(fault);
        let found: Vec<usize> = calls
            .iter()
            .enumerate()
            .filter(|(_, (lp, leaf))| {
                let (rcx, rdx) = (if *leaf == INFO { HOLE } else { 0 }, FieldId::VENDOR_ID.0);
                let regs = SeamcallRegs { rax: *leaf, rcx, rdx, ..SeamcallRegs::default() };
                call_regs(&platform, *lp, regs).unwrap().rax == 0xbad
            })
            .map(|(index, _)| index)
            .collect();
        assert_eq!(found, expected, "{what}");
    }
    let platform = boot(SimPlatform::builder().lps(1));
    platform.inject(Fault { times: u32::MAX, ..Fault::nth(0, struck) });
    assert_eq!(read(&platform, 0), Ok(0xbad));
    platform.clear_faults();
    assert_eq!(read(&platform, 0), Ok(0));
}

#[test]
fn the_number_of_a_call_does_not_depend_on_other_faults() {
    let platform = boot(SimPlatform::builder().lps(1));
    platform.inject(Fault::nth(0, Answer::Return { rax: 1, rdx: 0 }));
    platform.inject(Fault::nth(1, Answer::Return { rax: 2, rdx: 0 }));
    assert_eq!([0; 3].map(|lp| read(&platform, lp)), [Ok(1), Ok(2), Ok(0)]);
}

#[test]
fn a_delay_ends_when_nobody_else_comes() {
    let platform = boot(SimPlatform::builder().lps(1).patience(3));
    for leaf in [INFO, SYS_RD] {
        platform.inject(Fault::first(leaf, Answer::Delay(1000)));
        let regs = SeamcallRegs { rax: leaf, rdx: FieldId::VENDOR_ID.0, ..SeamcallRegs::default() };
        assert_eq!(call_regs(&platform, 0, regs).unwrap().rax, 0, "{leaf:#x}");
    }
}

#[test]
fn bytes_that_change_after_parsing_are_seen_by_whoever_reads_them() {
    let file = newer().build();
    let bytes = file.as_bytes();
    // The file's header, the SIGSTRUCT, the first and the last byte of the image.
    let rows = [
        ("of the header, which firmware never sees", 20, None),
        ("SIGSTRUCT: type", 4096, Some((S::EBADSIG, 0))),
        ("SIGSTRUCT: signature", 4096 + 516, Some((S::EBADSIG, 0))),
        ("SIGSTRUCT: this CPU", 4096 + 1030, Some((S::EUNSUPCPU, 0))),
        ("SIGSTRUCT: another CPU", 4096 + 1034, Some((S::EBADSIG, 0))),
        ("SIGSTRUCT: first of the hash", 4096 + 900, Some((S::EBADSIG, 0))),
        ("first of the image", 8192, Some((S::EBADHASH, 1))),
        ("last of the image", bytes.len() - 1, Some((S::EBADHASH, 1))),
    ];
    for (what, offset, expected) in rows {
        for mask in [1, 0x80] {
            let platform = boot(SimPlatform::builder().lps(1));
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            with_params(&platform, &file, Scenario::Update, |params| {
                assert_eq!(platform.tamper(&bytes[offset], mask), expected.is_some(), "{what}");
                assert_eq!(install_on(&platform, 0, params), expected.unwrap_or(OK), "{what}, {mask:#x}");
            });
        }
    }
}

#[test]
fn up_to_eight_bytes_can_be_tampered_with_and_put_right() {
    let platform = boot(SimPlatform::builder().lps(1));
    let file = newer().build();
    let bytes = file.as_bytes();
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    with_params(&platform, &file, Scenario::Update, |params| {
        for index in 0..8 {
            assert!(platform.tamper(&bytes[8192 + index], 1));
        }
        assert!(!platform.tamper(&bytes[9000], 1), "no room");
        assert!(platform.tamper(&bytes[8192], 2), "the same byte otherwise");
        assert_eq!(install_on(&platform, 0, params), (S::EBADHASH, 1));
        for index in 0..8 {
            assert!(platform.tamper(&bytes[8192 + index], 0));
        }
    });
    assert_eq!(install_all(&platform, &file, Scenario::Load), OK, "the file itself is as it was");
}

#[test]
fn random_numbers_fail_as_often_as_they_are_told_to_wherever_they_are_needed() {
    let fail = |platform: &SimPlatform, times: u32| {
        platform.with_model(|model| model.config_mut().rdrand_failures = times);
    };
    let platform = boot(SimPlatform::builder().lps(2));
    fail(&platform, 1);
    assert_eq!(rax(&platform, 0, INFO, HOLE), Ok(0), "it needs none");
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0), "nor this");
    let file = newer().build();
    for (failures, expected) in [(1, (S::ENOENTROPY, 0)), (0, OK)] {
        fail(&platform, failures);
        assert_eq!(install_all(&platform, &file, Scenario::Update), expected);
    }
    for (lp, leaf) in [(0, SYS_INIT), (0, LP_INIT), (1, LP_INIT)] {
        fail(&platform, 2);
        let tries = [0; 3].map(|_| rax(&platform, lp, leaf, 0));
        let none = Ok(TdxStatus::RND_NO_ENTROPY.0);
        assert_eq!(tries, [none, none, Ok(0)], "leaf {leaf}");
    }
    fail(&platform, 9);
    assert_eq!((rax(&platform, 0, UPDATE, 0), platform.truth().tds_alive), (Ok(0), 3));

    // The very first entry of P-SEAMLDR needs one that is not 0.
    let mut model = without_module(1);
    model.config_mut().rdrand_failures = 1;
    assert_eq!(model_call(&mut model, 0, INSTALL, 0), Ok(S::EUNSPECERR.0));
    model.config_mut().rdrand_value = 0;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(S::EUNSPECERR.0));
    model.config_mut().rdrand_value = 9;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(0));
    model.config_mut().rdrand_value = 0;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(0), "and later ones do not");
}

#[test]
fn the_database_is_tried_five_times() {
    let file = newer().build();
    for failures in 0..=7 {
        let platform = boot(SimPlatform::builder().lps(2));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        platform.with_model(|model| model.seamdb_mut().insert_failures = failures);
        let result = install_all(&platform, &file, Scenario::Update);
        let (tries, used) = platform
            .with_model(|model| (model.loader().effects().seamdb_inserts, model.loader().seamdb().used));
        let mrseam = TdxImage::parse(file.as_bytes()).unwrap().sigstruct().seamhash;
        assert_eq!(platform.truth().mrseam, mrseam, "the register has the new values anyhow");
        if failures < 5 {
            assert_eq!((result, tries, used), (OK, failures + 1, 2), "{failures} failures");
            assert!(platform.truth().module.unwrap().callable);
            continue;
        }
        assert_eq!((result, tries, used), ((S::ENOENTROPY, 1), 5, 1), "{failures} failures");
        assert_eq!((platform.truth().module, platform.truth().remaining_updates), (None, 63));
        assert_eq!(rax(&platform, 0, SYS_INIT, 0), Err(Trap::VmFailInvalid));
        platform.with_model(|model| model.seamdb_mut().insert_failures = 0);
        assert_eq!(install_all(&platform, &file, Scenario::Update), (S::EBADPARAM, 0), "not ready");
        assert_eq!(install_all(&platform, &file, Scenario::Load), OK);
    }
}

#[test]
fn equal_runs_have_equal_traces_and_each_call_is_a_line_of_it() {
    let run = |fault: Option<Fault>| {
        let platform = boot(SimPlatform::builder().lps(2));
        fault.into_iter().for_each(|fault| platform.inject(fault));
        good_update(&platform);
        let trace = platform.trace();
        trace.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let trap = Fault::nth(3, Answer::Trap(Trap::GeneralProtection));
    for fault in [None, Some(trap), Some(Fault::first(INSTALL, Answer::Return { rax: 1, rdx: 2 }))] {
        let lines = run(fault);
        assert_eq!((lines.len(), &lines), (7, &run(fault)));
        let names = ["SYS.SHUTDOWN", "INSTALL", "INSTALL", "SYS.INIT", "LP.INIT", "LP.INIT", "SYS.UPDATE"];
        for ((line, name), lp) in lines.iter().zip(names).zip([0, 0, 1, 0, 0, 1, 0]) {
            assert!(line.starts_with(&format!("LP    {lp}  ")) && line.contains(name), "{line}");
            assert!(!line.contains('\n'));
        }
    }
    assert_ne!(run(None), run(Some(trap)));
    assert!(run(Some(trap))[3].ends_with("GeneralProtection"));
}

#[test]
fn the_model_is_a_value_that_can_be_copied_and_goes_its_own_way() {
    let platform = boot(SimPlatform::builder().lps(1));
    let mut copy = platform.with_model(|model| model.clone());
    assert_eq!(model_call(&mut copy, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(copy.module().unwrap().state(), State::Shutdown);
    assert_eq!(platform.truth().module.unwrap().state, State::Ready);
    assert_eq!(platform.truth().tds_alive, 3);
}

#[test]
fn a_debug_module_without_a_cpu_list_runs_where_debugging_is_unlocked() {
    let debug = TestImage { debug: true, cpus: Vec::new(), ..newer() }.build();
    let production = TestImage { cpus: Vec::new(), ..newer() }.build();
    for (unlocked, of_debug) in [(false, S::EBADSIG), (true, S::SUCCESS)] {
        for (file, expected) in [(&production, S::EBADSIG), (&debug, of_debug)] {
            let platform = boot(SimPlatform::builder().lps(1));
            platform.with_model(|model| model.config_mut().debug_unlocked = unlocked);
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            assert_eq!(install_all(&platform, file, Scenario::Update), (expected, 0));
        }
    }
}
