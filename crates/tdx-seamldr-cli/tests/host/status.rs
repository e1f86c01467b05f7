//! `status`: what it says of each kind of host.

use std::fs;

use serde_json::{json, Value};
use tdx_seamldr_host::testing::HostTree;

use crate::support::{sapphire_rapids, Tree, HISTORY, TDX_HOST};

/// `status` of a tree, in words and as JSON. Both exit with 0.
fn status(tree: &HostTree) -> (String, Value) {
    let tree = Tree::new(tree);
    let text = tree.run(&["status"]);
    assert_eq!((text.code, text.err.as_str()), (Some(0), ""), "{text:?}");
    let (code, object) = tree.json(&["status"]);
    assert_eq!((code, &object["schema"]), (Some(0), &json!("tdx-seamldr/status/1")));
    (text.flat(), object)
}

#[test]
fn this_machine_exits_with_0_and_shows_the_module_or_why_tdx_is_missing() {
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"))
            .args(arguments)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let object: Value = serde_json::from_str(&run(&["status", "--json"])).unwrap();
    let text = run(&["status"]);
    if object["updatable"] == true {
        assert!(object["module"]["version"].is_string(), "{object:#}");
        assert!(text.contains("can be replaced"), "{text}");
    } else {
        let problem = object["problem"].as_str().unwrap();
        assert!(!problem.is_empty());
        assert!(text.contains("The module cannot be replaced:"), "{text}");
        let flags = fs::read_to_string("/proc/cpuinfo").unwrap();
        if !flags.contains("tdx_host_platform") && object["host"]["interface"]["reason"].is_string()
        {
            assert_eq!(object["host"]["interface"]["reason"], "no-tdx", "{object:#}");
            assert!(problem.contains("no TDX, or TDX is off in the BIOS"), "{problem}");
        }
    }
}

#[test]
fn each_kind_of_host_is_named_with_its_consequence() {
    let cases = [
        (
            sapphire_rapids(),
            json!({"value": "flat"}),
            Value::Null,
            &[
                "TDX module 1.5.05 (SVN 1.5)",
                "P-SEAMLDR 1.5.00",
                "updates left 20",
                "takes images of format v2",
                "upload idle",
                "4 online (0-3), 4 on the platform",
                "Sapphire Rapids (0x806f8), microcode 0x2b000603",
                "The module can be replaced.",
            ][..],
        ),
        (
            HostTree::series_v6(),
            json!({"value": "folder"}),
            Value::Null,
            &["takes images of format v1"],
        ),
        (
            HostTree::without_tdx(),
            json!("no-tdx"),
            json!("the processor has no TDX, or TDX is off in the BIOS"),
            &["The module cannot be replaced: the processor has no TDX", "tdx_host_platform"],
        ),
        (
            HostTree::not_initialised(),
            json!("not-initialised"),
            json!("not initialised"),
            &["cannot be replaced: the TDX module is not initialised", "reboot", "ENXIO"],
        ),
        (
            HostTree::erratum(),
            json!("erratum"),
            json!("seamret_invd_vmcs"),
            &["TDX module 1.5.05", "install newer microcode"],
        ),
        (
            HostTree::linux_7_2().module_gone(),
            json!({"value": "flat"}),
            json!("reboot"),
            &["TDX module none (ENXIO)", "The module cannot be replaced:", "reboot"],
        ),
        (
            HostTree::linux_7_2().remaining(0),
            json!({"value": "flat"}),
            json!("no updates remain"),
            &["updates left 0", "no updates remain (0 left, 1 needed)"],
        ),
        (
            sapphire_rapids().nosmt(),
            json!({"value": "flat"}),
            json!("nosmt"),
            &["2 online (0-1), 4 on the platform", "echo on > /sys/devices/system/cpu/smt/control"],
        ),
        (
            sapphire_rapids().nr_cpus(3),
            json!({"value": "flat"}),
            json!("the kernel does not know 1 LP"),
            &["3 online (0-2), 4 on the platform", "nr_cpus=3"],
        ),
    ];
    for (tree, interface, problem, texts) in cases {
        let (text, object) = status(&tree);
        for expected in texts {
            assert!(text.contains(expected), "{expected:?}: {text}");
        }
        let found = &object["host"]["interface"];
        if interface.is_string() {
            assert_eq!(found["reason"], interface, "{object:#}");
        } else {
            assert_eq!(*found, interface, "{object:#}");
        }
        assert_eq!(object["updatable"], json!(problem.is_null()), "{object:#}");
        match problem.as_str() {
            None => assert!(object["problem"].is_null(), "{object:#}"),
            Some(problem) => {
                assert!(object["problem"].as_str().unwrap().contains(problem), "{object:#}")
            }
        }
    }
}

#[test]
fn unlisted_module_is_named_as_unknown() {
    let (text, object) = status(&sapphire_rapids().module("1.5.15"));
    assert!(text.contains("1.5.15, not in the table of releases"), "{text}");
    assert_eq!(object["module"]["in_table"], false);
    let (_, object) = status(&sapphire_rapids().module("1.5.34"));
    assert_eq!(
        (&object["module"]["in_table"], &object["module"]["svn"]),
        (&json!(true), &json!("1.15"))
    );
}

#[test]
fn staged_module_is_not_shown_as_the_running_module() {
    let (text, object) = status(&sapphire_rapids().file("/boot/efi/EFI/TDX/TDX-SEAM.so", "x"));
    assert!(
        text.contains("/boot/efi/EFI/TDX/TDX-SEAM.so: for the next boot; not the running module"),
        "{text}"
    );
    assert_eq!(object["host"]["staged"], json!(["/boot/efi/EFI/TDX/TDX-SEAM.so"]));
    assert_eq!(object["module"]["version"], "1.5.05");
}

#[test]
fn each_fact_of_the_host_names_its_source() {
    let (_, object) = status(&sapphire_rapids());
    let host = object["host"].as_object().unwrap();
    for (name, fact) in
        host.iter().filter(|(name, _)| !["interface", "staged"].contains(&name.as_str()))
    {
        assert!(
            fact["source"].as_str().is_some_and(|source| source.starts_with('/')),
            "{name}: {fact}"
        );
    }
    assert_eq!(host["module"]["source"], format!("/{TDX_HOST}/version"));
}

#[test]
fn record_that_cannot_be_read_does_not_hide_the_host() {
    let tree = Tree::new(&sapphire_rapids());
    fs::create_dir_all(tree.path(HISTORY)).unwrap();
    tree.run(&["status"]).says(0, &["TDX module 1.5.05"]);
}

#[test]
fn host_with_missing_facts_is_neither_updatable_nor_not() {
    let (text, object) = status(&sapphire_rapids().madt(Vec::new()));
    assert!(text.contains("Cannot tell whether the module can be replaced:"), "{text}");
    assert_eq!(object["updatable"], Value::Null, "{object:#}");
    assert!(object["problem"].as_str().unwrap().contains("LPs"), "{object:#}");
    let (_, object) = status(&sapphire_rapids().madt(Vec::new()).offline(&[1]));
    assert_eq!(object["updatable"], false, "{object:#}");
    // P-SEAMLDR 1.0 cannot keep TDs.
    let (_, object) = status(&sapphire_rapids().seamldr("1.0.00"));
    assert_eq!(object["updatable"], false, "{object:#}");
}

#[test]
fn record_that_cannot_be_read_is_named() {
    let tree = Tree::new(&sapphire_rapids());
    fs::create_dir_all(tree.path(HISTORY)).unwrap();
    for command in ["status", "report"] {
        tree.run(&[command]).says(0, &["TDX module 1.5.05", "history.jsonl"]);
        let (_, object) = tree.json(&[command]);
        assert!(object["record_problem"].is_string(), "{object:#}");
    }
}
