//! Fault 3 of Intel's reference script (`docs/reference-script.md`): it exits with 0 after most
//! refusals and errors.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod common;

use std::env;
use std::fs;

use common::tdx_seamldr;
use tdx_seamldr_host::testing::HostTree;

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

/// Runs a command on a tree with Intel's images.
fn run(tree: &HostTree, change: &[(&str, &str)], arguments: &[&str]) -> (Option<i32>, String) {
    let images = env::var_os("TDX_MODULE_BINARIES").unwrap();
    let folder = tempfile::tempdir().unwrap();
    tree.write(folder.path()).unwrap();
    for (file, text) in change {
        fs::write(folder.path().join(file), text).unwrap();
    }
    let common = ["--root".into(), folder.path().into(), "--image-dir".into(), images];
    let output = tdx_seamldr(arguments.iter().map(Into::into).chain(common));
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn refusal_exits_with_1_and_its_reason() {
    let host = || HostTree::linux_7_2().module("1.5.05").remaining(20);
    let granite_rapids = || host().module("2.0.04").seamldr("2.0.00").sockets(&[(0xa06d1, 8)]);
    for (tree, version, code) in [
        (granite_rapids(), "1.5.16", "[cpu]"),
        (host().seamldr("1.4.00"), "1.5.16", "[seamldr-minimum]"),
        (host().module("1.5.16"), "1.5.05", "[minor-svn]"),
        (host(), "1.5.99", "[no-image]"),
        (host().offline(&[1]), "1.5.16", "[lps-missing]"),
        (host().remaining(0), "1.5.16", "[no-remaining-updates]"),
    ] {
        for command in ["plan", "update"] {
            let arguments = [command, version, "--no-td-launches"];
            let (exit, text) = run(&tree, &[], &arguments);
            assert_eq!(exit, Some(1), "{arguments:?}: {text}");
            assert!(text.contains(code), "{arguments:?}: no {code} in {text}");
        }
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn error_of_the_kernel_exits_with_3_and_nothing_to_do_with_0() {
    let host = || HostTree::linux_7_2().module("1.5.05").remaining(20);
    let error = [(
        "sys/devices/faux/tdx_host/firmware/tdx_module/error",
        "transferring:firmware-invalid\n",
    )];
    let update = ["update", "--no-td-launches"];
    let (exit, text) = run(&host(), &error, &update);
    assert_eq!(exit, Some(3), "{text}");
    assert!(text.contains("1.5.05 still runs"), "{text}");
    let (exit, text) = run(&host().module("1.5.16"), &[], &update);
    assert_eq!(exit, Some(0), "{text}");
}
