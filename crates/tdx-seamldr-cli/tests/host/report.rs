//! `report`: has the facts for a bug report, and nothing that identifies the host.

use serde_json::{json, Value};

use crate::kernel::{Does, Kernel};
use crate::support::{sapphire_rapids, Ran, Tree};

const LOG: &str = "6,1,100,-;Linux version 7.2.1 (builder@buildhost.example)\n6,2,200,-;virt/tdx: \
                   TDX module 1.5.05 initialized\n6,3,300,-;virt/tdx: TDMR [0x0000000100000000, \
                   0x0000008000000000): 4 PAMTs\n3,4,400,-;virt/tdx: SEAMCALL \
                   (0x0000000000000022) failed: 0xc0000c0000000000\n \
                   SUBSYSTEM=x\n6,5,500,-;e1000e 0000:00:1f.6 eth0: 52:54:00:12:34:56\n";

/// What must not be in a report.
const SECRETS: [&str; 9] = [
    "host-name-of-the-test",
    "buildhost.example",
    "3b241101-e2bb-4255-8caf-4136c566a962",
    "52:54:00:12:34:56",
    "0000000100000000",
    "BOOT_IMAGE",
    "root=UUID=secret",
    "serial-number-of-the-test",
    "192.0.2.7",
];

/// A host with names, numbers and addresses in all places, on which one update failed and one
/// succeeded.
fn tree() -> Tree {
    let host = sapphire_rapids()
        .parameter("root=UUID=secret ip=192.0.2.7")
        .file("/proc/sys/kernel/random/boot_id", "3b241101-e2bb-4255-8caf-4136c566a962\n")
        .file("/proc/sys/kernel/hostname", "host-name-of-the-test\n")
        .file("/etc/hostname", "host-name-of-the-test\n")
        .file("/etc/machine-id", "serial-number-of-the-test\n")
        .file("/sys/class/dmi/id/product_serial", "serial-number-of-the-test\n")
        .file("/dev/kmsg", LOG);
    let tree = Tree::with_images(&host, &["1.5.05", "1.5.08", "1.5.16"]);
    let _kernel = Kernel::new(&tree, &[Does::Refuses("hw-error"), Does::Installs("1.5.16")]);
    assert_eq!(tree.run(&["update", "1.5.16", "--no-td-launches"]).code, Some(3));
    assert_eq!(tree.run(&["update", "1.5.16", "--no-td-launches"]).code, Some(0));
    tree
}

/// All names of members in an object.
fn names(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                found.push(name.clone());
                names(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn report_has_versions_cpus_counters_history_and_the_kernels_lines() {
    let tree = tree();
    let ran = tree.run(&["report"]);
    ran.says(
        0,
        &[
            &format!("tdx-seamldr {}", env!("CARGO_PKG_VERSION")),
            "TDX module 1.5.16",
            "P-SEAMLDR 1.5.00",
            "updates left 19",
            "7.2.1-amd64",
            "Sapphire Rapids (0x806f8), microcode 0x2b000603",
            "1.5.05 -> 1.5.16: failed-kept",
            "1.5.05 -> 1.5.16: updated",
            "virt/tdx: SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000",
        ],
    );
    assert!(!ran.out.contains("e1000e"), "{ran:?}");
    let (code, object) = tree.json(&["report"]);
    assert_eq!((code, &object["schema"]), (Some(0), &json!("tdx-seamldr/report/1")));
    assert_eq!(object["attempts"].as_array().unwrap().len(), 2, "{object:#}");
    assert_eq!(object["kernel_lines"].as_array().unwrap().len(), 3, "{object:#}");
    assert_eq!(object["kernel_log_problem"], Value::Null);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn report_has_nothing_that_identifies_the_host() {
    let tree = tree();
    let Ran { out: text, .. } = tree.run(&["report"]);
    let (_, object) = tree.json(&["report"]);
    let json = object.to_string();
    for secret in SECRETS {
        assert!(!text.contains(secret), "{secret} in the text: {text}");
        assert!(!json.contains(secret), "{secret} in the JSON: {object:#}");
    }
    let mut found = Vec::new();
    names(&object, &mut found);
    for name in ["command_line", "boot"] {
        assert!(
            !found.iter().any(|member| member == name),
            "the JSON has a member {name}: {object:#}"
        );
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn report_names_at_most_ten_attempts_the_last_ones() {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    tree.hook("pre-update.d/10", "exit 1");
    for _ in 0..12 {
        assert_eq!(tree.run(&["update", "--no-td-launches"]).code, Some(1));
    }
    assert_eq!(tree.json(&["history"]).1["attempts"].as_array().unwrap().len(), 12);
    assert_eq!(tree.json(&["report"]).1["attempts"].as_array().unwrap().len(), 10);
}

#[test]
fn log_that_cannot_be_read_is_named_and_the_rest_is_printed() {
    let tree = Tree::new(&sapphire_rapids());
    tree.run(&["report"])
        .says(0, &["TDX module 1.5.05", "/dev/kmsg: the file does not exist", "none is recorded"]);
    let (_, object) = tree.json(&["report"]);
    assert!(object["kernel_log_problem"].as_str().unwrap().contains("/dev/kmsg"), "{object:#}");
    let binary: Vec<u8> = (0..200_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let tree = Tree::new(&sapphire_rapids().file("/dev/kmsg", binary));
    assert_eq!(tree.run(&["report"]).code, Some(0));
}
