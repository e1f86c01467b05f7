//! Planned faults: answers, delays, changed bytes, missing entropy.

use tdx_seamldr_core::abi::{FieldId, Scenario, SeamldrStatus as S, TdxStatus};
use tdx_seamldr_core::{SeamcallRegs, TdxImage, Trap};
use tdx_seamldr_mock::{Answer, Fault, SimPlatform};

use crate::support::*;
use crate::{model_call, read, without_module, END, HOLE, OK};

/// Makes the calls of a successful update by 2 LPs.
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
fn a_fault_can_set_the_answer_of_any_call_of_an_update() {
    let answers = [
        (
            Answer::Return { rax: 0x1234_5678_9abc_def0, rdx: 0xfeed },
            Ok((0x1234_5678_9abc_def0, 0xfeed)),
        ),
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
                    assert_ne!(
                        output, expected,
                        "call {index} comes after call {number}, {answer:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_call_whose_answer_a_fault_returns_changes_nothing() {
    let platform = boot(SimPlatform::builder().lps(2));
    let before = platform.truth();
    for leaf in [SHUTDOWN, INSTALL, INFO, END] {
        platform.inject(Fault::first(leaf, Answer::Return { rax: 0, rdx: 0 }));
        assert_eq!(rax(&platform, 1, leaf, 0), Ok(0), "the fault reports success");
        assert_eq!(platform.truth(), before, "{leaf:#x}");
    }
}

#[test]
fn a_fault_selects_calls_by_lp_leaf_and_number_and_can_repeat() {
    let struck = Answer::Return { rax: 0xbad, rdx: 0 };
    let rows = [
        ("first of a leaf, on any LP", Fault::first(SYS_RD, struck), vec![1]),
        ("third of all", Fault::nth(2, struck), vec![2]),
        ("first on an LP", Fault { lp: Some(2), ..Fault::nth(0, struck) }, vec![3]),
        (
            "second on an LP, twice",
            Fault { lp: Some(0), times: 2, ..Fault::nth(1, struck) },
            vec![2, 4],
        ),
        ("leaf on an LP", Fault { lp: Some(1), ..Fault::first(SYS_RD, struck) }, vec![1]),
        (
            "from the second of a leaf for ever",
            Fault { after: 1, times: u32::MAX, ..Fault::first(SYS_RD, struck) },
            vec![3, 4, 6],
        ),
        ("a leaf that no LP calls", Fault::first(SYS_INIT, struck), vec![]),
        ("no times", Fault { times: 0, ..Fault::nth(0, struck) }, vec![]),
    ];
    let calls =
        [(0, INFO), (1, SYS_RD), (0, INFO), (2, SYS_RD), (0, SYS_RD), (1, INFO), (2, SYS_RD)];
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
fn a_delay_ends_if_no_other_lp_calls() {
    let platform = boot(SimPlatform::builder().lps(1).patience(3));
    for leaf in [INFO, SYS_RD] {
        platform.inject(Fault::first(leaf, Answer::Delay(1000)));
        let regs = SeamcallRegs { rax: leaf, rdx: FieldId::VENDOR_ID.0, ..SeamcallRegs::default() };
        assert_eq!(call_regs(&platform, 0, regs).unwrap().rax, 0, "{leaf:#x}");
    }
}

#[test]
fn firmware_reads_bytes_that_change_after_parsing() {
    let file = newer().build();
    let bytes = file.as_bytes();
    // The file's header, the SIGSTRUCT, the first and the last byte of the image.
    let rows = [
        ("header, which firmware never reads", 20, None),
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
                assert_eq!(
                    install_on(&platform, 0, params),
                    expected.unwrap_or(OK),
                    "{what}, {mask:#x}"
                );
            });
        }
    }
}

#[test]
fn tamper_changes_up_to_eight_bytes_and_restores_them() {
    let platform = boot(SimPlatform::builder().lps(1));
    let file = newer().build();
    let bytes = file.as_bytes();
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    with_params(&platform, &file, Scenario::Update, |params| {
        for index in 0..8 {
            assert!(platform.tamper(&bytes[8192 + index], 1));
        }
        assert!(!platform.tamper(&bytes[9000], 1), "no room");
        assert!(platform.tamper(&bytes[9000], 0), "this byte needs no room");
        assert!(platform.tamper(&bytes[8192], 2), "the same byte with another mask");
        assert_eq!(install_on(&platform, 0, params), (S::EBADHASH, 1));
        for index in 0..8 {
            assert!(platform.tamper(&bytes[8192 + index], 0));
        }
    });
    assert_eq!(install_all(&platform, &file, Scenario::Load), OK, "the file itself is unchanged");
}

#[test]
fn rdrand_fails_as_often_as_planned_in_every_call_that_needs_it() {
    let fail = |platform: &SimPlatform, times: u32| {
        platform.with_model(|model| model.config_mut().rdrand_failures = times);
    };
    let platform = boot(SimPlatform::builder().lps(2));
    fail(&platform, 1);
    assert_eq!(rax(&platform, 0, INFO, HOLE), Ok(0), "INFO needs no random number");
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0), "SHUTDOWN needs no random number");
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

    // The first entry of P-SEAMLDR needs a random number other than 0.
    let mut model = without_module(1);
    model.config_mut().rdrand_failures = 1;
    assert_eq!(model_call(&mut model, 0, INSTALL, 0), Ok(S::EUNSPECERR.0));
    model.config_mut().rdrand_value = 0;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(S::EUNSPECERR.0));
    model.config_mut().rdrand_value = 9;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(0));
    model.config_mut().rdrand_value = 0;
    assert_eq!(model_call(&mut model, 0, INFO, 0), Ok(0), "later entries need no random number");
}

#[test]
fn install_tries_to_insert_into_seamdb_five_times() {
    let file = newer().build();
    for failures in 0..=7 {
        let platform = boot(SimPlatform::builder().lps(2));
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        platform.with_model(|model| model.seamdb_mut().insert_failures = failures);
        let result = install_all(&platform, &file, Scenario::Update);
        let (tries, used) = platform.with_model(|model| {
            (model.loader().effects().seamdb_inserts, model.loader().seamdb().used)
        });
        let mrseam = TdxImage::parse(file.as_bytes()).unwrap().sigstruct().seamhash;
        assert_eq!(platform.truth().mrseam, mrseam, "SEAMEXTEND has the new values");
        if failures < 5 {
            assert_eq!((result, tries, used), (OK, failures + 1, 2), "{failures} failures");
            assert!(platform.truth().module.unwrap().callable);
            continue;
        }
        assert_eq!((result, tries, used), ((S::ENOENTROPY, 1), 5, 1), "{failures} failures");
        assert_eq!((platform.truth().module, platform.truth().remaining_updates), (None, 63));
        assert_eq!(rax(&platform, 0, SYS_INIT, 0), Err(Trap::VmFailInvalid));
        platform.with_model(|model| model.seamdb_mut().insert_failures = 0);
        assert_eq!(
            install_all(&platform, &file, Scenario::Update),
            (S::EBADPARAM, 0),
            "no module is ready"
        );
        assert_eq!(install_all(&platform, &file, Scenario::Load), OK);
    }
}

#[test]
fn equal_runs_have_equal_traces_of_one_line_per_call() {
    let run = |fault: Option<Fault>| {
        let platform = boot(SimPlatform::builder().lps(2));
        if let Some(fault) = fault {
            platform.inject(fault);
        }
        good_update(&platform);
        let trace = platform.trace();
        trace.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let trap = Fault::nth(3, Answer::Trap(Trap::GeneralProtection));
    for fault in [None, Some(trap), Some(Fault::first(INSTALL, Answer::Return { rax: 1, rdx: 2 }))]
    {
        let lines = run(fault);
        assert_eq!((lines.len(), &lines), (7, &run(fault)));
        let names =
            ["SYS.SHUTDOWN", "INSTALL", "INSTALL", "SYS.INIT", "LP.INIT", "LP.INIT", "SYS.UPDATE"];
        for ((line, name), lp) in lines.iter().zip(names).zip([0, 0, 1, 0, 0, 1, 0]) {
            assert!(line.starts_with(&format!("LP    {lp}  ")) && line.contains(name), "{line}");
            assert!(!line.contains('\n'));
        }
    }
    assert_ne!(run(None), run(Some(trap)));
    assert!(run(Some(trap))[3].ends_with("GeneralProtection"));
}
