//! `plan`: what comes next, each refusal with its reason and its way out.

use std::fs;
use std::path::Path;

use serde_json::json;
use tdx_seamldr_host::testing::HostTree;

use crate::support::{
    binaries, codes, granite_rapids, image, in_v2, sapphire_rapids, Tree, IMAGES,
};

/// The arguments of `plan` with Intel's images, and an operator who vouches.
fn with_images<'a>(folder: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let mut arguments = vec!["plan", "--image-dir", folder.to_str().unwrap(), "--no-td-launches"];
    arguments.extend(more);
    arguments
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn newest_image_for_the_processor_is_planned_with_its_quote_values() {
    let folder = binaries();
    for (tree, to, tcb_svn) in
        [(sapphire_rapids(), "1.5.16", "0b01"), (granite_rapids(), "2.0.08", "0503")]
    {
        let tree = Tree::new(&tree);
        let (code, object) = tree.json(&with_images(&folder, &[]));
        assert_eq!((code, &object["verdict"]), (Some(0), &json!("ready")), "{object:#}");
        let [step] = &object["steps"].as_array().unwrap()[..] else { panic!("{object:#}") };
        assert_eq!((&step["to"], &step["tee_tcb_svn_2"]), (&json!(to), &json!(tcb_svn)));
        let mrseam = step["mrseam"].as_str().unwrap();
        assert_eq!(mrseam.len(), 96, "{mrseam}");
        let text = tree.run(&with_images(&folder, &[]));
        text.says(
            0,
            &[
                "Ready: run `tdx-seamldr update`",
                &format!("-> {to} (SVN "),
                mrseam,
                tcb_svn,
                "only a reboot leads back",
            ],
        );
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn operator_who_does_not_vouch_gets_a_plan_that_asks_for_it() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids());
    let arguments = ["plan", "--image-dir", folder.to_str().unwrap()];
    tree.run(&arguments).says(0, &["1.5.05 -> 1.5.16", "--no-td-launches", "pre-update hook"]);
    assert_eq!(tree.json(&arguments).1["verdict"], "asks");
}

/// Changes a tree.
type Change = fn(HostTree) -> HostTree;

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn each_obstacle_refuses_with_reason_and_advice_on_both_platforms() {
    let folder = binaries();
    let cases: [(&str, Change, &[&str]); 9] = [
        (
            "lps-missing",
            |tree| tree.offline(&[3]),
            &[
                "LPs that take part: 3, but P-SEAMLDR waits for 4",
                "echo 1 > /sys/devices/system/cpu/cpu3/online",
            ],
        ),
        (
            "lps-missing",
            HostTree::nosmt,
            &["parameter nosmt", "remove it from the command line", "smt/control"],
        ),
        (
            "lps-missing",
            |tree| tree.maxcpus(2),
            &["maxcpus=2", "remove it from the command line", "LPs 2-3"],
        ),
        ("lps-missing", |tree| tree.nr_cpus(2), &["nr_cpus=2", "the kernel does not know 2 LPs"]),
        ("no-remaining-updates", |tree| tree.remaining(0), &["no updates remain", "reboot"]),
        ("cpu", |tree| tree.sockets(&[(0x906ea, 4)]), &["0x000906e0", "an image for this host"]),
        (
            "cpu",
            |tree| tree.sockets(&[(0x806f8, 2), (0xa06d1, 2)]),
            &["is not in the image's list of CPUs"],
        ),
        ("no-module", HostTree::module_gone, &["reboot"]),
        (
            "upload-busy",
            |tree| tree.upload_status("programming"),
            &["\"programming\"", "wait until"],
        ),
    ];
    for (platform, newest) in [(sapphire_rapids(), "1.5.16"), (granite_rapids(), "2.0.08")] {
        for (code, change, texts) in cases {
            let tree = Tree::new(&change(platform.clone()));
            let arguments = with_images(&folder, &[newest]);
            tree.run(&arguments).says(1, &[&["Refused:", &format!("[{code}]")], texts].concat());
            let (exit, object) = tree.json(&arguments);
            assert_eq!((exit, &object["verdict"]), (Some(1), &json!("refused")), "{object:#}");
            assert!(codes(&object).contains(&code), "{code}: {object:#}");
            let reasons = object["reasons"].as_array().unwrap();
            let reason = reasons.iter().find(|reason| reason["code"] == code).unwrap();
            assert!(reason["advice"].is_string(), "{reason}");
        }
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn host_without_an_interface_refuses_with_what_it_lacks() {
    let folder = binaries();
    for (tree, text) in [
        (HostTree::without_tdx(), "no TDX, or TDX is off in the BIOS"),
        (HostTree::not_initialised(), "is not initialised"),
        (HostTree::erratum(), "install newer microcode"),
    ] {
        let tree = Tree::new(&tree);
        tree.run(&with_images(&folder, &[])).says(1, &["[no-interface]", text]);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn damaged_image_is_refused_as_a_file_and_in_a_folder_and_an_older_good_one_is_planned() {
    let good = image("1.5.16");
    let good = fs::read(good).unwrap();
    let last = good.len() - 1;
    for (name, bytes) in [
        ("the module", {
            let mut bytes = good.clone();
            bytes[0x40000] ^= 4;
            bytes
        }),
        ("the checksum", {
            let mut bytes = good.clone();
            bytes[last] ^= 1;
            bytes
        }),
        ("v2", {
            let mut bytes = in_v2(&good);
            bytes[0x40000] ^= 4;
            bytes
        }),
    ] {
        let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05"]);
        let damaged = tree.put("damaged.blob", &bytes);
        tree.run(&["plan", damaged.to_str().unwrap(), "--no-td-launches"])
            .says(1, &["[image-hash]", "download the file again"]);

        tree.put(&format!("{IMAGES}/tdx_module_1.5.16.blob"), &bytes);
        let (code, object) = tree.json(&["plan", "--no-td-launches"]);
        assert_eq!((code, &object["verdict"]), (Some(1), &json!("refused")), "{name}: {object:#}");
        assert!(codes(&object).contains(&"image-hash"), "{name}: {object:#}");

        let older = fs::read(image("1.5.08")).unwrap();
        tree.put(&format!("{IMAGES}/tdx_module_1.5.08.blob"), older);
        tree.run(&["plan", "--no-td-launches"]).says(0, &["1.5.05 -> 1.5.08"]);
        tree.run(&["plan", "1.5.16", "--no-td-launches"]).says(1, &["[image-hash]"]);
    }
    // A cut file is not an image.
    let tree = Tree::new(&sapphire_rapids());
    let cut = tree.put("cut.blob", &good[..good.len() / 2]);
    let ran = tree.run(&["plan", cut.to_str().unwrap()]);
    assert_eq!((ran.code, ran.out.as_str()), (Some(1), ""), "{ran:?}");
    assert!(ran.err.contains("cut.blob: "), "{ran:?}");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn image_of_another_platform_going_back_and_a_version_without_an_image_are_refused() {
    let folder = binaries();
    let cases: [(HostTree, &str, &str, &str); 5] = [
        (granite_rapids(), "1.5.16", "platform", "Granite Rapids (0xa06d1)"),
        (sapphire_rapids().seamldr("2.0.00"), "2.0.08", "major-svn", "reboot"),
        (
            sapphire_rapids().module("1.5.16"),
            "1.5.05",
            "minor-svn",
            "reboot into a BIOS with the older module",
        ),
        (sapphire_rapids(), "1.5.34", "no-image", "tdx-seamldr pack"),
        (sapphire_rapids(), "1.5.09", "no-image", "Intel publishes this image"),
    ];
    for (tree, version, code, text) in cases {
        let tree = Tree::new(&tree);
        tree.run(&with_images(&folder, &[version])).says(1, &[&format!("[{code}]"), text]);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn intels_minimum_refuses_unless_its_option_is_given() {
    let folder = binaries();
    let tree = Tree::new(&granite_rapids().module("2.0.02"));
    tree.run(&with_images(&folder, &[]))
        .says(1, &["[module-minimum]", "requires 2.0.04", "--allow-below-minimum"]);
    let more = ["--allow-below-minimum", "--accept", "unknown-memory"];
    tree.run(&with_images(&folder, &more)).says(0, &["2.0.02 -> 2.0.08"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn running_module_that_is_the_newest_leaves_nothing_to_do() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids().module("1.5.16"));
    tree.run(&with_images(&folder, &[])).says(0, &["Nothing to do:", "1.5.16"]);
    tree.run(&with_images(&folder, &["1.5.16"])).says(0, &["Nothing to do:", "1.5.16"]);
    let again = tree.run(&with_images(&folder, &["1.5.16", "--allow-same-module"]));
    again.says(0, &["Ready:", "1.5.16 -> 1.5.16"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn unknown_module_asks_and_each_question_names_the_option_that_answers_it() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids().module("1.5.15"));
    let (code, object) = tree.json(&with_images(&folder, &[]));
    assert_eq!((code, &object["verdict"]), (Some(1), &json!("asks")), "{object:#}");
    let open: Vec<_> = object["questions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["accepted"] == false)
        .collect();
    assert!(open.len() >= 3, "{object:#}");
    let names: Vec<_> = open.iter().map(|one| one["code"].as_str().unwrap()).collect();
    for one in &open {
        assert_eq!(one["option"], format!("--accept {}", one["code"].as_str().unwrap()));
    }
    let accept = names.join(",");
    tree.run(&with_images(&folder, &["--accept", &accept]))
        .says(0, &["Ready:", "never published", "accepted with"]);
}

#[test]
fn folder_without_images_says_where_images_come_from() {
    let tree = Tree::new(&sapphire_rapids());
    tree.run(&["plan"]).says(1, &["[no-image]", "--image-dir"]);
    let ran = tree.run(&["plan", "--image-dir", tree.path("none").to_str().unwrap()]);
    ran.says(1, &["[no-image]", "ignored: ", "No such file"]);
    // A name that is neither a version nor a file.
    tree.run(&["plan", "newest"]).says(1, &["newest: "]);
}
