//! The facts of a host as JSON.

use serde_json::{json, Value};
use tdx_seamldr_host::testing::HostTree;

use crate::read;

fn json_of(tree: &HostTree) -> Value {
    serde_json::to_value(read(tree)).unwrap()
}

#[test]
fn facts_show_value_and_source() {
    let host = json_of(&HostTree::linux_7_2());
    for (field, expected) in [
        ("interface", json!({"value": "flat"})),
        ("module", json!({"value": "1.5.05", "source": "/sys/devices/faux/tdx_host/version"})),
        ("vmx_basic", json!({"value": "0x10da040000000004", "source": "/dev/cpu/0/msr"})),
        (
            "online",
            json!({"value": {"list": "0-7", "count": 8}, "source": "/sys/devices/system/cpu/online"}),
        ),
        (
            "cache_leaf",
            json!({"value": ["0x1fc0163", "0x380003f", "0x1bfff", "0x4"], "source": "/dev/cpu/0/cpuid"}),
        ),
        ("staged", json!([])),
    ] {
        assert_eq!(host[field], expected, "{field}");
    }
    let socket = json!({"id": 0, "family": 6, "model": 143, "stepping": 8, "signature": "0x806f8",
        "microcode": "0x2b000603", "online_lps": 8});
    assert_eq!(host["sockets"]["value"], json!([socket]));
    let platform = json!({"enabled": 8, "highest_x2apic_id": 7});
    assert_eq!(host["platform"]["value"], platform);
}

#[test]
fn absent_facts_show_problem_reason_and_source() {
    let host = json_of(&HostTree::not_initialised());
    assert_eq!(host["module"]["reason"], "no-device");
    assert_eq!(host["module"]["source"], "/sys/devices/faux/tdx_host/version");
    assert!(host["module"]["unknown"].as_str().unwrap().contains("ENXIO"));
    assert_eq!(host["seamldr"]["reason"], "missing");
    assert_eq!(host["interface"]["reason"], "not-initialised");
    assert!(host["interface"]["none"].as_str().unwrap().contains("not initialised"));
}

#[test]
fn incomplete_interface_shows_the_missing_file() {
    let tree = HostTree::linux_7_2();
    let folder = crate::write(&tree);
    std::fs::remove_file(folder.path().join("sys/devices/faux/tdx_host/seamldr_version")).unwrap();
    let host = tdx_seamldr_host::Host::read(&tdx_seamldr_host::Root::new(folder.path()));
    let interface = &serde_json::to_value(host).unwrap()["interface"];
    assert_eq!(interface["reason"], "incomplete");
    assert_eq!(interface["missing"], "/sys/devices/faux/tdx_host/seamldr_version");
}
