//! Random edits of a valid tree. The command runs in this process.

use std::fs;

use clap::Parser;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::Value;
use tdx_seamldr_cli::Arguments;

use crate::support::{sapphire_rapids, Tree, ONLINE, TDX_HOST, UPLOAD};

/// Text files of the tree that can be edited.
const FILES: [&str; 13] = [
    "proc/cpuinfo",
    "proc/cmdline",
    "proc/sys/kernel/osrelease",
    ONLINE,
    "sys/devices/system/cpu/present",
    "sys/devices/system/cpu/smt/control",
    "sys/firmware/acpi/tables/APIC",
    "sys/devices/faux/tdx_host/version",
    "sys/devices/faux/tdx_host/seamldr_version",
    "sys/devices/faux/tdx_host/num_remaining_updates",
    "sys/devices/faux/tdx_host/firmware/tdx_module/status",
    "sys/module/kvm_intel/parameters/tdx",
    "var/lib/tdx-seamldr/images/mapping_file.json",
];

/// An edit: which file, where in it, and the bytes that replace some.
type Edit = (Index, Index, u8, Vec<u8>);

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let bytes = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..6),
        "[0-9,.\\-\n]{0,6}".prop_map(String::into_bytes),
    ];
    proptest::collection::vec((any::<Index>(), any::<Index>(), 0..6_u8, bytes), 1..5)
}

/// Runs the command in this process. Returns the exit status and what it printed.
fn run(tree: &Tree, arguments: &[&str]) -> (u8, String) {
    let root = tree.root().to_str().unwrap();
    let arguments = ["tdx-seamldr"].iter().chain(arguments).copied().chain(["--root", root]);
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let exit = Arguments::try_parse_from(arguments).unwrap().run(&mut out, &mut err);
    (exit.code(), String::from_utf8(out).unwrap())
}

fn edit_file(tree: &Tree, file: &str, (_, at, len, bytes): &Edit) {
    let path = tree.path(file);
    let mut text = fs::read(&path).unwrap();
    let begin = at.index(text.len() + 1);
    let end = text.len().min(begin + usize::from(*len));
    text.splice(begin..end, bytes.iter().copied());
    fs::write(path, text).unwrap();
}

fn apply(tree: &Tree, edits: &[Edit]) {
    for edit in edits {
        edit_file(tree, FILES[edit.0.index(FILES.len())], edit);
    }
}

/// A host that lacks an LP, or has none missing.
fn tree(lacks: bool) -> Tree {
    let host = if lacks { sapphire_rapids().offline(&[3]) } else { sapphire_rapids() };
    let tree = Tree::with_images(&host, &["1.5.16"]);
    let mapping = r#"{"tdx_module_releases": [{"version": "1.5.16", "min_module_version_for_td_preserving": "1.5.01",
        "min_seamldr_versions": ["1.5.00"], "tdx_feature0": "0x226F3F0FBF"}]}"#;
    tree.put("var/lib/tdx-seamldr/images/mapping_file.json", mapping);
    tree
}

const PLAN: [&str; 5] = ["plan", "--json", "--no-td-launches", "--accept", "unknown-memory"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test_with::env(TDX_MODULE_BINARIES)]
    #[test]
    fn any_edit_gives_json_and_exit_0_or_1(edits in edits()) {
        let tree = tree(false);
        apply(&tree, &edits);
        for command in [&PLAN[..], &["status", "--json"], &["report", "--json"], &["list", "--json"]] {
            let (code, out) = run(&tree, command);
            prop_assert!(code <= 1, "{code}: {out}");
            let object: Value = serde_json::from_str(&out).map_err(
                |error| TestCaseError::fail(format!("{error}: {out}")))?;
            prop_assert!(object["schema"].is_string());
            prop_assert!(command[0] != "status" || code == 0, "{out}");
            prop_assert!(object["verdict"] != "ready" || code == 0, "{out}");
            prop_assert!(object["verdict"] != "refused" || code == 1, "{out}");
        }
        let (code, text) = run(&tree, &["plan"]);
        prop_assert!(code <= 1 && !text.contains('\u{1b}'), "{text}");
    }

    #[test_with::env(TDX_MODULE_BINARIES)]
    #[test]
    fn no_edit_of_another_file_makes_a_plan_ready_while_an_lp_is_missing(edits in edits()) {
        let tree = tree(true);
        let kept = [ONLINE, "sys/firmware/acpi/tables/APIC"].map(|file| (tree.path(file), fs::read(tree.path(file)).unwrap()));
        apply(&tree, &edits);
        for (file, bytes) in kept {
            fs::write(file, bytes).unwrap();
        }
        // An edit of the version can make the running module the requested one.
        tree.put(&format!("{TDX_HOST}/version"), "1.5.05\n");
        let (code, out) = run(&tree, &PLAN);
        let object: Value = serde_json::from_str(&out).unwrap();
        prop_assert!(code == 1 || object["verdict"] == "nothing-to-do", "{out}");
        prop_assert!(object["verdict"] != "ready", "{out}");
    }

    #[test_with::env(TDX_MODULE_BINARIES)]
    #[test]
    fn update_of_an_edited_host_that_lacks_an_lp_never_writes_to_the_kernel(edits in edits()) {
        let tree = tree(true);
        for edit in &edits {
            edit_file(&tree, "proc/cpuinfo", edit);
        }
        let ran = tree.run(&["update", "--no-td-launches", "--accept", "unknown-memory"]);
        prop_assert_eq!(ran.code, Some(1), "{:?}", ran);
        prop_assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
    }
}
