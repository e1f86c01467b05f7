//! `apply`: the policy of the configuration, as a service applies it at each boot.

use serde_json::json;

use crate::kernel::{Does, Kernel};
use crate::support::{sapphire_rapids, Tree};

const CONFIG: &str = "etc/tdx-seamldr.toml";
const APPLY: [&str; 2] = ["apply", "--no-td-launches"];

/// A host with 1.5.05, images of 1.5.05, 1.5.08 and 1.5.16, and this policy.
fn tree(policy: &str) -> Tree {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.08", "1.5.16"]);
    tree.put(CONFIG, format!("policy = {policy:?}\n"));
    tree
}

#[test]
fn apply_without_a_policy_changes_nothing_and_succeeds() {
    let tree = Tree::new(&sapphire_rapids());
    tree.run(&APPLY).says(0, &["names no policy"]);
    let (code, object) = tree.json(&APPLY);
    assert_eq!((code, object), (Some(0), json!({"schema": "tdx-seamldr/apply/1", "policy": null})));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn apply_installs_what_each_kind_of_policy_names() {
    let file = "/var/lib/tdx-seamldr/images/tdx_module_1.5.08.blob";
    for (policy, version) in [("newest", "1.5.16"), ("1.5.08", "1.5.08"), (file, "1.5.08")] {
        let tree = tree(policy);
        let _kernel = Kernel::new(&tree, &[Does::Installs(version)]);
        let updated = format!("1.5.05 -> {version}: updated; the TDs keep running");
        tree.run(&APPLY).says(0, &[&updated]);
        tree.run(&APPLY).says(0, &["Nothing to do"]);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn apply_refuses_what_update_refuses() {
    let tree = tree("newest");
    tree.run(&["apply"]).says(1, &["Refused:", "no-td-launches"]);
    tree.run(&["apply", "--policy", "1.5.99"]).says(1, &["Refused:", "1.5.99"]);
    tree.run(&["apply", "--policy", "oldest"]).says(2, &["newest, a version"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn apply_that_loses_the_tds_exits_with_4() {
    let tree = tree("1.5.16");
    let _kernel = Kernel::new(&tree, &[Does::Loses("firmware-invalid")]);
    tree.run(&APPLY).says(4, &["all TDs are lost"]);
}
