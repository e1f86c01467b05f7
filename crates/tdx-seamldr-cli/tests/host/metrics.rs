//! `metrics`: what Prometheus reads of each kind of host.

use std::collections::BTreeMap;
use std::fs;

use tdx_seamldr_host::testing::HostTree;

use crate::kernel::{Does, Kernel};
use crate::support::{sapphire_rapids, Tree};

/// The samples of a text: name and labels, and the value.
fn samples(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').unwrap()).map(|(k, v)| (k.into(), v.into())).collect()
}

fn metrics(tree: &Tree) -> BTreeMap<String, String> {
    let ran = tree.run(&["metrics", "--json"]);
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{ran:?}");
    samples(ran.object()["text"].as_str().unwrap())
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn metrics_tell_module_updates_left_and_whether_an_update_is_available() {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    let found = metrics(&tree);
    let of = |name: &str| found.get(name).map(String::as_str);
    assert_eq!(of("tdx_module_remaining_updates"), Some("20"));
    assert_eq!(of("tdx_module_update_available"), Some("1"));
    assert_eq!(of("tdx_module_running"), Some("1"));
    assert_eq!(of("tdx_seamldr_info{version=\"1.5.00\"}"), Some("1"));
    let info = found.keys().find(|name| name.starts_with("tdx_module_info")).unwrap();
    for label in ["version=\"1.5.05\"", "svn=\"1.5\"", "mrseam=\"1cc6a17ab799e9a6"] {
        assert!(info.contains(label), "{info}");
    }
    assert!(!found.keys().any(|name| name.contains("last_attempt")), "{found:?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn metrics_after_an_update_tell_the_attempt_and_its_outcome() {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    assert_eq!(tree.run(&["update", "--no-td-launches"]).code, Some(0));
    let found = metrics(&tree);
    let last = "tdx_module_last_attempt_info{from=\"1.5.05\",outcome=\"updated\",to=\"1.5.16\"}";
    assert_eq!(found.get(last).map(String::as_str), Some("1"), "{found:?}");
    let time: f64 = found["tdx_module_last_attempt_timestamp_seconds"].parse().unwrap();
    assert!(time > 1.7e9, "{time}");
    assert_eq!(found["tdx_module_update_available"], "0");
}

#[test]
fn metrics_leave_out_what_the_host_does_not_tell() {
    let gone = HostTree::linux_7_2().module_gone();
    for host in [HostTree::without_tdx(), HostTree::not_initialised(), gone] {
        let found = metrics(&Tree::new(&host));
        assert_eq!(found["tdx_module_running"], "0");
        assert!(!found.keys().any(|name| name.starts_with("tdx_module_info")), "{found:?}");
    }
}

#[test]
fn metrics_go_to_a_file_as_a_whole_and_nothing_is_printed() {
    let tree = Tree::new(&sapphire_rapids());
    let path = tree.path("tdx.prom");
    let ran = tree.run(&["metrics", "--output", path.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (Some(0), "", ""), "{ran:?}");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.ends_with('\n') && samples(&text).contains_key("tdx_module_running"), "{text}");
}

#[test]
fn metrics_for_a_file_called_dash_go_to_standard_output() {
    let tree = Tree::new(&sapphire_rapids());
    // `run` wants 80 columns, but these lines are for a program.
    let output = tree.command(&["metrics", "--output", "-"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(samples(&text).contains_key("tdx_module_running"), "{text}");
    assert!(!std::path::Path::new("-").exists());
}
