//! `simulate` with a platform that something is wrong with: each refusal and each recovery can be
//! seen.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use common::{json, tdx_seamldr};
use serde_json::{json, Value};

/// Runs `simulate` with 4 LPs and these arguments, with one space between each.
fn simulate(arguments: &str) -> (Option<i32>, Value) {
    json(["simulate", "--lps", "4"].into_iter().chain(arguments.split(' ')))
}

/// The code of the only reason for a refusal.
fn refusal(arguments: &str) -> Value {
    let (code, report) = simulate(arguments);
    assert_eq!((code, &report["tds_damaged"]), (Some(1), &json!(0)), "{arguments}: {report:#}");
    assert_eq!((&report["failure"], &report["rounds"]), (&Value::Null, &json!(0)), "{arguments}");
    assert_eq!(report["tds_alive"], report["tds_before"], "{arguments}");
    let [reason] = &report["reasons"].as_array().unwrap()[..] else {
        panic!("{arguments}: {report:#}")
    };
    reason["code"].clone()
}

#[test]
fn platform_that_cannot_be_updated_is_refused_with_its_reason() {
    for (arguments, code) in [
        ("--offline 3", "lps-missing"),
        ("--offline 0 --offline 2", "lps-missing"),
        ("--remaining 0", "no-remaining-updates"),
        ("--cpu granite-rapids", "cpu"),
        ("--cpu 0xd06d0", "cpu"),
        ("--seamldr 1.0", "seamldr-without-handoff"),
        ("--tds-in-build 2", "sensitive-operations"),
    ] {
        assert_eq!(refusal(arguments), code, "{arguments}");
    }
}

#[test]
fn platform_of_every_generation_and_cpu_that_the_image_lists_is_updated() {
    for arguments in ["--seamldr 1.5.00", "--seamldr newer", "--seamldr 2.0.00", "--cpu EMR"] {
        let (code, report) = simulate(arguments);
        assert_eq!((code, &report["rounds"]), (Some(0), &json!(1)), "{arguments}: {report:#}");
    }
    let (_, report) = simulate("--remaining 1");
    assert_eq!((&report["outcome"], &report["remaining_updates"]), (&"updated".into(), &json!(0)));
    let (_, report) = simulate("--cpu emerald-rapids");
    assert_eq!(report["cpu"], "0x000c06f2");
}

#[test]
fn td_in_build_is_damaged_if_the_damage_is_allowed() {
    let (code, report) = simulate("--tds 1 --tds-in-build 2 --allow-damage");
    assert_eq!((code, &report["tds_alive"]), (Some(0), &json!(3)), "{report:#}");
    assert_eq!(report["tds_damaged"], 2);
    let ran = tdx_seamldr(["simulate", "--tds", "1", "--tds-in-build", "2", "--allow-damage"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(text.contains("1 TD, 2 TDs in build"), "{text}");
    assert!(text.contains("3 of 3 TDs alive, 2 with a wrong measurement"), "{text}");
}

#[test]
fn failure_ends_as_the_policy_says_and_the_report_tells_whether_it_was_overcome() {
    for (arguments, exit, outcome, overcome, alive) in [
        // Once: the next round succeeds.
        ("--fault leaf=SEAMLDR.INSTALL:status=ENOENTROPY", 0, "updated", true, 3),
        // P-SEAMLDR refuses the image for good: the old module comes back, or waits.
        ("--fault leaf=SEAMLDR.INSTALL:status=EBADHASH", 3, "fallback", false, 3),
        ("--fault leaf=SEAMLDR.INSTALL:status=EBADHASH --no-fallback", 4, "held", false, 0),
        // The handoff data is gone.
        ("--fault leaf=SEAMLDR.INSTALL:after=1:status=EUNSPECERR:rdx=1", 4, "lost", false, 0),
        // Before the shutdown nothing is at risk.
        ("--fault leaf=TDH.SYS.SHUTDOWN:status=OPERAND_INVALID", 1, "refused", false, 3),
        ("--fault leaf=TDH.SYS.UPDATE:status=SYS_BUSY:times=99", 4, "held", false, 0),
    ] {
        let (code, report) = simulate(arguments);
        assert_eq!((code, &report["outcome"]), (Some(exit), &outcome.into()), "{arguments}");
        assert_eq!(report["failure"]["overcome"], overcome, "{arguments}: {report:#}");
        assert_eq!(report["tds_alive"], alive, "{arguments}");
        let message = report["message"].as_str().unwrap();
        assert_eq!(message.contains("a failure was overcome"), overcome, "{message}");
        assert_eq!(report["notes"], json!([]), "{arguments}: each fault struck");
    }
}

#[test]
fn fault_that_struck_no_call_is_told() {
    let (code, report) = simulate("--fault leaf=TDH.SYS.RD:status=GP --fault delay=1");
    assert_eq!(code, Some(0));
    assert_eq!(report["notes"], json!(["the fault leaf=TDH.SYS.RD:status=GP struck no call"]));
}

#[test]
fn options_that_make_no_platform_are_wrong_usage_and_say_what_is_expected() {
    for (arguments, expected) in [
        ("--offline 4", "the LPs are 0 to 3"),
        ("--offline 0 --offline 1 --offline 2 --offline 3", "at least one should be online"),
        ("--fault lp=4:status=UD", "the LPs are 0 to 3"),
        ("--fault status=EBAD", "EBADSIG"),
        ("--fault lp=1", "either a status or a delay"),
        ("--cpu skylake", "sapphire-rapids"),
        ("--seamldr 3.0", "2.0.00"),
        ("--remaining 10001", "10001"),
        ("--tds 60 --tds-in-build 5", "at most 64"),
    ] {
        let arguments = ["simulate", "--lps", "4"].into_iter().chain(arguments.split(' '));
        let ran = tdx_seamldr(arguments.clone());
        let text = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(2), "{:?}", arguments.collect::<Vec<_>>());
        assert!(text.contains(expected), "{expected:?} is missing in {text}");
    }
}

#[test]
fn help_has_examples_and_each_ends_as_it_says() {
    let help = String::from_utf8(tdx_seamldr(["simulate", "--help"]).stdout).unwrap();
    let examples: Vec<_> =
        help.lines().filter_map(|line| line.trim().strip_prefix("tdx-seamldr ")).collect();
    assert_eq!(examples.len(), 6, "{help}");
    let exits: Vec<_> = examples
        .iter()
        .map(|example| tdx_seamldr(example.split(' ')).status.code().unwrap())
        .collect();
    assert_eq!(exits, [1, 1, 1, 0, 3, 4], "{examples:?}");
}
