//! `tdx-seamldr explain` as an operator runs it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod common;

use std::process::Output;

use common::{json, tdx_seamldr, tdx_seamldr_reading};
use serde_json::Value;

/// Returns the standard output of an explanation. Checks success and the width of 80 columns.
fn text(arguments: &[&str]) -> String {
    let output = tdx_seamldr([&["explain"], arguments].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let too_long = text.lines().find(|line| line.chars().count() > 80);
    assert_eq!(too_long, None);
    text
}

/// Returns the text in one line, to find words across line ends.
fn flat(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn with_input(arguments: &[&str], input: &[u8]) -> Output {
    tdx_seamldr_reading(input, [&["explain"], arguments].concat())
}

#[test]
fn words_of_public_bug_reports_are_named_with_advice() {
    let cases: [(&str, &[&str]); 9] = [
        (
            "0xc000050500000000",
            &["SYS_NOT_READY", "the TDX module", "version 1.0", "update the BIOS"],
        ),
        ("0x8000000000010004", &["EUNSUPCPU", "P-SEAMLDR", "/proc/cpuinfo", "tdx-seamldr inspect"]),
        (
            "0xc000092100000122",
            &["INCORRECT_MSR_VALUE", "IA32_TSX_CTRL", "Update the BIOS and the microcode"],
        ),
        ("0x8000ff00ffff0000", &["SEAMCALL_VMFAILINVALID", "Linux itself", "offline", "reboot"]),
        (
            "0x8000051200010000",
            &["UPDATE_COMPATIBILITY_SENSITIVE", "1 TD is in build", "nothing is lost", "Wait"],
        ),
        (
            "0xc000010000000045",
            &["OPERAND_INVALID", "CPUID_CONFIG", "RCX holds the CPUID leaf and subleaf"],
        ),
        ("0xc000050600000000", &["SYS_SHUTDOWN", "Linux has lost all TDs", "until reboot"]),
        (
            "0xc000030000000001",
            &["PAGE_METADATA_INCORRECT", "Not an error of an update", "TD ends: nothing"],
        ),
        (
            "0x8000081000000000",
            &["TD_KEYS_NOT_CONFIGURED", "Not an error of an update", "TD ends: nothing"],
        ),
    ];
    for (word, expected) in cases {
        let text = text(&[word]);
        assert!(text.starts_with(word), "{text}");
        for expected in expected {
            assert!(flat(&text).contains(expected), "{expected:?} is missing in\n{text}");
        }
        assert!(text.contains("what to do"), "{text}");
    }
}

#[test]
fn word_is_accepted_in_every_form() {
    let expected = text(&["0xc000050500000000"]);
    for form in [
        "0XC000_0505_0000_0000",
        "13835063574315139072",
        "-4611680499394412544",
        "SYS_NOT_READY",
        "tdx_sys_not_ready",
    ] {
        assert_eq!(text(&[form]), expected, "{form}");
    }
    assert!(text(&["-5"]).starts_with("-5  EIO"));
}

#[test]
fn json_has_the_words_in_the_order_of_the_arguments() {
    let (code, report) = json(["explain", "EBADSIG", "0xc000050500000000", "--leaf", "0x22"]);
    assert_eq!(code, Some(0));
    assert_eq!(report["schema"], "tdx-seamldr/explain/1");
    assert_eq!(
        (&report["words"][0]["name"], &report["words"][0]["source"]),
        (&"EBADSIG".into(), &"p-seamldr".into())
    );
    let second = &report["words"][1];
    assert_eq!((&second["name"], &second["leaf"]), (&"SYS_NOT_READY".into(), &"TDH.SYS.RD".into()));
    assert_eq!((&second["step"], &second["severity"]), (&"prepare".into(), &"error".into()));
    assert_eq!(second["bits"]["class"], 5);
    assert_eq!(report["log"], Value::Null);
}

#[test]
fn unknown_numbers_are_decoded_and_succeed() {
    let text = text(&["0xc000055500000000", "0x1234567812345678"]);
    assert!(flat(&text).contains("nearest") && flat(&text).contains("Not a status word"), "{text}");
}

#[test]
fn wrong_word_is_wrong_usage_and_named() {
    for word in ["SYS_NOT_REDAY", "0xzz", "", "0x1ffffffffffffffff"] {
        let output = tdx_seamldr(["explain", word]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let complaint = String::from_utf8(output.stderr).unwrap();
        assert!(
            complaint.contains(&format!("'{word}'")) || complaint.contains(&format!("{word:?}")),
            "{complaint}"
        );
        assert!(output.stdout.is_empty());
    }
    assert_eq!(tdx_seamldr(["explain"]).status.code(), Some(2), "no word");
    assert_eq!(tdx_seamldr(["explain", "0", "--leaf", "TDH.NO"]).status.code(), Some(2));
}

#[test]
fn log_on_standard_input_is_explained_by_leaf_and_status() {
    let output = with_input(
        &["-"],
        b"virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000\nother\n",
    );
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "TDH.SYS.RD",
        "METADATA_FIELD_ID_INCORRECT",
        "Update the module",
        "Lines: 2, about TDX: 1",
        "ignored: 1.",
    ] {
        assert!(flat(&text).contains(expected), "{expected:?} is missing in\n{text}");
    }
    assert!(
        flat(&text).ends_with("No line here is related to an update of the TDX module."),
        "{text}"
    );
}

#[test]
fn log_of_any_bytes_is_read() {
    let log = b"\xff\xfe virt/tdx: \x1b[31m\xff\n[ 1.0] virt/tdx: module initialized\n";
    let output = with_input(&["-"], log);
    assert_eq!(output.status.code(), Some(0));
    assert!(!output.stdout.contains(&0x1b), "no control character reaches the terminal");
    let output = with_input(&["--json", "-", "EIO"], log);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["log"]["entries"][0]["code"], "initialized");
    assert_eq!(report["words"][0]["word"], "-5");
}
