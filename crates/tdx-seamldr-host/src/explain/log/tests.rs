//! Tests with whole logs: of public bug reports, and of any bytes.

#![allow(clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::explain::Source;

fn read(log: &str) -> LogReport {
    Log::read(log.as_bytes()).unwrap()
}

fn call(entry: &Entry) -> &Explanation {
    match &entry.subject {
        Subject::Seamcall(explanation) => explanation,
        Subject::Message(message) => panic!("{message:?}"),
    }
}

fn codes(report: &LogReport) -> Vec<&str> {
    report
        .entries
        .iter()
        .map(|entry| match &entry.subject {
            Subject::Seamcall(explanation) => explanation.name.unwrap_or("?"),
            Subject::Message(message) => message.code,
        })
        .collect()
}

#[test]
fn line_of_a_failed_call_gives_leaf_and_status_by_name() {
    let report = read("virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000");
    let explanation = call(&report.entries[0]);
    assert_eq!(explanation.leaf.as_deref(), Some("TDH.SYS.RD"));
    assert_eq!(explanation.name, Some("METADATA_FIELD_ID_INCORRECT"));
    assert!(explanation.actions.iter().any(|action| action.contains("Update the module")));
    assert_eq!(report.summary, "No line here is related to an update of the TDX module.");
}

#[test]
fn boot_with_a_1_0_module_is_explained_from_its_log() {
    let report = read(
        "[    0.000000] Command line: BOOT_IMAGE=/vmlinuz kvm_intel.tdx=1 nohibernate
[   10.798766] virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, \
         minor_version 0, build_date 20230206, build_num 457
[   10.798771] virt/tdx: CMR: [0x100000, 0x77800000)
[   10.798773] virt/tdx: CMR: [0x100000000, 0x6ffe000000)
[   10.798780] virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc000050500000000
[   10.798786] virt/tdx: RCX 0x0000000000000000 RDX 0x9100000100000008 R08 0x0000000000000000
[   10.798790] virt/tdx: R09 0x0000000000000000 R10 0x0000000000000000 R11 0x0000000000000000
[   10.798793] virt/tdx: module initialization failed (-5)
[   10.798795] kvm_intel: Failed to initialize TDX module.
[   10.803398] i2c i2c-1: 16/32 memory slots populated (from DMI)
",
    );
    assert_eq!(
        codes(&report),
        ["module-1.0", "cmr", "SYS_NOT_READY", "initialization-failed", "kvm-failed"]
    );
    assert_eq!((report.lines, report.tdx_lines, report.ignored, report.unknown), (10, 8, 2, 0));
    let entry = &report.entries[2];
    assert_eq!(
        entry.registers_say.as_deref(),
        Some("the field was MAX_TDMRS (0x9100000100000008, RDX)")
    );
    assert!(call(entry).meaning.contains("version 1.0"));
    assert_eq!(call(entry).relation, Relation::None);
    assert_eq!(report.entries[1].count, 2);
    assert_eq!(report.entries[1].first.as_deref(), Some("10.798771"));
    assert_eq!(report.entries[1].last.as_deref(), Some("10.798773"));
    assert_eq!(report.summary, "No line here is related to an update of the TDX module.");
}

#[test]
fn repeated_lines_at_the_end_of_a_td_are_one_entry() {
    let line = "SEAMCALL (0x000000000000001c) failed: 0xc000030000000001 RCX 0x0 RDX 0x0 R8 0x0";
    let log: String = (0..300).map(|index| format!("[  261.{index:06}] {line}\n")).collect();
    let report = read(&log);
    assert_eq!(report.entries.len(), 1);
    let entry = &report.entries[0];
    assert_eq!(
        (entry.count, entry.first.as_deref(), entry.last.as_deref()),
        (300, Some("261.000000"), Some("261.000299"))
    );
    assert_eq!(call(entry).leaf.as_deref(), Some("TDH.PHYMEM.PAGE.RECLAIM"));
    assert_eq!(call(entry).relation, Relation::None);
    assert_eq!(report.summary, "No line here is related to an update of the TDX module.");
}

#[test]
fn failed_update_of_v6_is_recognised() {
    let report = read(
        "[    9.1] virt/tdx: TDX-Module initialized
[  500.1] virt/tdx: SEAMCALL (0x8000000000000001) failed: 0x8000000000010004
[  500.2] virt/seamldr: update failed, SEAMCALLs will report failure until TDs killed
[  501.0] kvm_intel: TD vp_enter_ret 0xc000050600000000
[  501.1] kvm_intel: SEAMCALL TDH_MEM_PAGE_ADD failed: 0xc000050600000000, rcx 0x0, rdx 0x0
",
    );
    assert_eq!(
        codes(&report),
        ["initialized", "EUNSUPCPU", "update-failed-tds-lost", "SYS_SHUTDOWN", "SYS_SHUTDOWN"]
    );
    assert_eq!(call(&report.entries[1]).source, Source::PSeamldr);
    assert!(report.summary.contains("failed"), "{}", report.summary);
    assert!(report
        .entries
        .iter()
        .skip(1)
        .all(|entry| entry.subject.relation() == Relation::Failed));
}

#[test]
fn refused_update_loses_no_td() {
    let report = read(
        "virt/tdx: module initialized\nvirt/tdx: SEAMCALL (0x0000000000000034) failed: \
         0x8000051200010000\n",
    );
    assert_eq!(call(&report.entries[1]).relation, Relation::Refused);
    assert!(report.summary.contains("TDs are safe"), "{}", report.summary);
}

#[test]
fn successful_update_is_recognised() {
    let report = read("virt/tdx: TDX-Module initialized\nvirt/tdx: version 1.5.24 -> 1.5.28\n");
    assert_eq!(codes(&report), ["initialized", "updated"]);
    assert_eq!(report.summary, "The TDX module was updated, and its TDs kept running.");
}

#[test]
fn sys_init_belongs_to_an_update_only_after_the_module_was_initialised() {
    let failed = "virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000092100000122\n";
    let at_boot = read(&format!("{failed}virt/tdx: module initialization failed (-5)\n"));
    assert_eq!(at_boot.entries[0].subject.relation(), Relation::None);
    let later = read(&format!("virt/tdx: module initialized\n{failed}"));
    assert_eq!(later.entries[1].subject.relation(), Relation::Failed);
    let online = read(
        "virt/tdx: module initialized\nvirt/tdx: SEAMCALL (0x23) failed: 0xc000092000000122\n",
    );
    assert_eq!(online.entries[1].subject.relation(), Relation::Possible, "a CPU that came online");
}

#[test]
fn records_of_kmsg_are_read_with_their_continuation_lines() {
    let report = read(
        "3,1234,5678901,-;virt/tdx: SEAMCALL (0x22) failed: 0xc0000c0000000000\n SUBSYSTEM=faux\n \
         DEVICE=+faux:tdx_host\n6,1235,5678902,-;something else\n",
    );
    assert_eq!((report.lines, report.tdx_lines, report.ignored), (2, 1, 1));
    assert_eq!(report.entries[0].first.as_deref(), Some("5.678901"));
    let report = read("one, two, three; four\n virt/tdx: module initialized\n");
    assert_eq!((report.lines, report.tdx_lines), (2, 1), "only records have continuation lines");
}

#[test]
fn unknown_lines_about_tdx_are_counted_and_shown() {
    let report = read("virt/tdx: a message of the future\nvirt/tdx: another\n");
    assert_eq!((report.unknown, report.unknown_samples.len()), (2, 2));
    assert_eq!(report.summary, "This program knows none of the lines about TDX here.");
    assert_eq!(read("").summary, "No line here is about TDX.");
    assert!(
        is_tdx_line("[ 1.0] virt/tdx: a message of the future") && !is_tdx_line("tdxfoo: nothing")
    );
}

#[test]
fn entries_samples_and_lines_are_bounded() {
    let log: String = (0..2000_u64)
        .map(|details| format!("SEAMCALL (0x1) failed: {:#x}\n", 0xc000050500000000 | details))
        .collect();
    let report = read(&log);
    assert_eq!((report.entries.len(), report.not_shown), (MOST_ENTRIES, 1500));
    let long = format!("virt/tdx: {}\n", "x".repeat(1 << 20));
    assert_eq!(read(&long).unknown_samples[0].chars().count(), SHOWN);
}

#[test]
fn log_beyond_the_limit_is_cut_and_marked() {
    let mut log = [b"x".repeat(1023), b"\n".to_vec()]
        .concat()
        .repeat(usize::try_from(MAX_INPUT / 1024).unwrap());
    let whole = Log::read(log.as_slice()).unwrap();
    assert!(!whole.cut);
    log.push(b'\n');
    let report = Log::read(log.as_slice()).unwrap();
    assert!(report.cut);
    assert_eq!(report.lines, MAX_INPUT / 1024);
}

#[test]
fn cpuid_leaf_and_subleaf_are_taken_from_rcx() {
    let report =
        read("kvm_intel: SEAMCALL TDH_MNG_INIT failed: 0xc000010000000045, rcx 0x100000007\n");
    let said = report.entries[0].registers_say.as_deref();
    assert_eq!(said, Some("CPUID leaf and subleaf in RCX: low half 0x7, high half 0x1"));
}

#[test]
fn entries_have_their_kind_beside_their_fields_in_json() {
    let report = read(
        "virt/tdx: SEAMCALL (0x22) failed: 0xc0000c0000000000\nvirt/tdx: module initialized\n",
    );
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["entries"][0]["kind"], "seamcall");
    assert_eq!(json["entries"][0]["name"], "METADATA_FIELD_ID_INCORRECT");
    assert_eq!(
        (&json["entries"][1]["kind"], &json["entries"][1]["code"]),
        (&"message".into(), &"initialized".into())
    );
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_a_log(bytes: Vec<u8>) {
        let report = Log::read(bytes.as_slice()).unwrap();
        prop_assert_eq!(report.lines, report.tdx_lines + report.ignored);
    }

    #[test]
    fn any_pieces_of_real_lines_are_read_as_a_log(
        pieces in prop::collection::vec(
            prop::sample::select(vec![
                "virt/tdx: ", "SEAMCALL ", "(0x22) ", "failed: ", "0xc000050500000000", "RCX 0x1 ", "\n", "[ 1.5] ",
                "3,1,2,-;", " A=b\n", "TDH_MNG_INIT ", "error ", "leaf ", "kvm_intel: ", "module initialized", "é", "(-5)",
                "version 1 -> 2", "vp_enter_ret ",
            ]),
            0..60,
        )
    ) {
        let report = read(&pieces.concat());
        let counted: u64 = report.entries.iter().map(|entry| entry.count).sum();
        prop_assert!(counted + report.unknown <= report.tdx_lines);
        prop_assert!(serde_json::to_string(&report).is_ok());
    }
}
