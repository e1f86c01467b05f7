//! `update` from its begin to each of its ends.

use std::fs;
use std::time::Duration;

use serde_json::{json, Value};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::testing::HostTree;

use crate::kernel::{Does, Kernel};
use crate::support::{
    codes, image, sapphire_rapids, set_mode, Ran, Tree, HISTORY, TDX_HOST, UPLOAD,
};

/// Outside of the test: `test_with` takes a function for a module if its text contains `mod `.
const ADVICE_ON_HOOKS: &str = "chmod go-w";
const VOUCHED: [&str; 2] = ["update", "--no-td-launches"];

/// A host with 1.5.05, and images of 1.5.05, 1.5.08 and 1.5.16.
fn tree() -> Tree {
    Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.08", "1.5.16"])
}

/// The outcome of the last attempt on record.
fn last_outcome(tree: &Tree) -> Value {
    let (code, object) = tree.json(&["history"]);
    assert_eq!(code, Some(0));
    object["attempts"].as_array().unwrap().last().unwrap()["outcome"].clone()
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_sends_intels_image_in_the_kernels_format_and_confirms() {
    for (host, format) in [
        (sapphire_rapids(), ImageFormat::ImageV2),
        (HostTree::series_v6().sockets(&[(0x806f8, 4)]), ImageFormat::BlobV1),
    ] {
        let tree = Tree::with_images(&host, &["1.5.05", "1.5.16"]);
        let kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
        let ran = tree.run(&VOUCHED);
        ran.says(
            0,
            &[
                "1.5.05 -> 1.5.16: updated; the TDs keep running",
                "module 1.5.16 runs",
                "updates left",
            ],
        );
        assert!(ran.err.contains("updating 1.5.05 to 1.5.16"), "{ran:?}");
        assert!(ran.err.contains("kernel: idle"), "{ran:?}");
        let sent = kernel.image();
        let sent = TdxImage::parse(&sent).unwrap();
        let wanted = fs::read(image("1.5.16")).unwrap();
        let wanted = TdxImage::parse(&wanted).unwrap();
        assert_eq!(sent.format(), format);
        assert_eq!((sent.module(), sent.sigstruct()), (wanted.module(), wanted.sigstruct()));
        assert_eq!(last_outcome(&tree), "updated");
        tree.run(&VOUCHED).says(0, &["Nothing to do:", "1.5.16"]);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn each_ending_has_its_exit_status_words_json_and_record() {
    let cases: [(Does, i32, &str, &[&str]); 5] = [
        (
            Does::Refuses("firmware-invalid"),
            3,
            "failed-kept",
            &[
                "FAILED; the TDs keep running",
                "every failure",
                "1.5.05 still runs",
                "tdx-seamldr explain",
            ],
        ),
        (Does::Refuses("device-busy"), 3, "failed-kept", &["a TD is in build or in migration"]),
        (
            Does::Loses("firmware-invalid"),
            4,
            "lost",
            &[
                "FAILED; all TDs are lost, and TDX is gone until a reboot",
                "ENXIO",
                "reboot the host",
            ],
        ),
        (Does::Installs("1.5.08"), 4, "unknown", &["module 1.5.08 runs instead of 1.5.16"]),
        (Does::Installs("1.5.05"), 4, "unknown", &["module 1.5.05 runs instead of 1.5.16"]),
    ];
    for (does, code, outcome, texts) in cases {
        let words = tree();
        let _kernel = Kernel::new(&words, &[does]);
        words.run(&VOUCHED).says(code, texts);
        assert_eq!(last_outcome(&words), outcome);

        let tree = tree();
        let _kernel = Kernel::new(&tree, &[does]);
        let (exit, object) = tree.json(&VOUCHED);
        assert_eq!(
            (exit, &object["ending"]["outcome"]),
            (Some(code), &json!(outcome)),
            "{object:#}"
        );
        assert_eq!(object["schema"], "tdx-seamldr/update/1");
        assert_eq!(object["steps"].as_array().unwrap().len(), 1, "{object:#}");
        assert!(object["ending"]["advice"].is_string(), "{object:#}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn status_shows_the_host_after_each_ending() {
    let lost = tree();
    let _kernel = Kernel::new(&lost, &[Does::Loses("hw-error")]);
    assert_eq!(lost.run(&VOUCHED).code, Some(4));
    lost.run(&["status"]).says(0, &["TDX module none (ENXIO)", "last update", "lost"]);
    lost.run(&VOUCHED).says(1, &["Refused:", "reboot"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn refused_update_touches_nothing_and_records_nothing() {
    let host = sapphire_rapids().offline(&[2]);
    let tree = Tree::with_images(&host, &["1.5.05", "1.5.16"]);
    tree.hook("pre-update.d/10", "touch \"$0.ran\"");
    tree.run(&VOUCHED).says(1, &["Refused:", "[lps-missing]", "cpu2/online"]);
    let (code, object) = tree.json(&VOUCHED);
    assert_eq!((code, &object["ending"]["outcome"]), (Some(1), &json!("refused")), "{object:#}");
    assert_eq!(codes(&object), ["lps-missing"]);
    assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
    assert!(!tree.path(HISTORY).exists());
    assert!(!tree.path("etc/tdx-seamldr/pre-update.d/10.ran").exists());
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_is_refused_until_an_operator_or_a_hook_vouches() {
    let tree = tree();
    tree.run(&["update"]).says(1, &["[unknown-sensitive-operations]", "--no-td-launches"]);
    tree.hook("pre-update.d/10-stop-launches", "echo vouch no-td-launches");
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    tree.run(&["update"]).says(0, &["updated; the TDs keep running"]);
}

/// Writes all that a hook is told into a file.
const NOTE: &str = r#"env | grep ^TDX_SEAMLDR_ | sort >> "$(dirname "$0")/../note""#;

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn hooks_get_the_plan_before_and_the_outcome_after() {
    let tree = tree();
    tree.hook("pre-update.d/10", NOTE);
    tree.hook("post-update.d/10", NOTE);
    tree.hook("post-update.d/20-fails", "echo a line; exit 7");
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16"), Does::Loses("hw-error")]);
    let ran = tree.run(&VOUCHED);
    ran.says(0, &["a line", "warning: the hook", "20-fails ended with exit status: 7"]);
    let note = tree.read("etc/tdx-seamldr/note");
    let (before, after) = note.split_at(note.find("TDX_SEAMLDR_EVENT=post-update").unwrap());
    let step = [
        "TDX_SEAMLDR_FROM=1.5.05",
        "TDX_SEAMLDR_TO=1.5.16",
        "TDX_SEAMLDR_SVN=1.11",
        "TDX_SEAMLDR_MRSEAM=7bf0",
    ];
    for text in step {
        assert!(before.contains(text) && after.contains(text), "{text}: {note}");
    }
    assert!(
        before.contains("TDX_SEAMLDR_EVENT=pre-update\n") && !before.contains("OUTCOME"),
        "{note}"
    );
    assert!(
        after.contains("TDX_SEAMLDR_OUTCOME=updated\n")
            && after.contains("TDX_SEAMLDR_VERSION=1.5.16\n")
    );
    let again = [&VOUCHED[..], &["1.5.16", "--allow-same-module"]].concat();
    assert_eq!(tree.run(&again).code, Some(4));
    assert!(tree.read("etc/tdx-seamldr/note").contains("TDX_SEAMLDR_OUTCOME=lost\n"));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn failing_pre_update_hook_refuses_and_post_update_hooks_run_all_the_same() {
    let tree = tree();
    tree.hook("pre-update.d/10-fails", "echo TDs are busy; exit 3");
    tree.hook("post-update.d/10", NOTE);
    tree.run(&VOUCHED).says(1, &["[hook]", "TDs are busy", "10-fails ended with exit status: 3"]);
    assert!(tree.read("etc/tdx-seamldr/note").contains("TDX_SEAMLDR_OUTCOME=refused\n"));
    assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
    assert_eq!(last_outcome(&tree), "refused");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn hook_that_others_can_write_refuses_before_anything_runs() {
    for name in ["pre-update.d/20", "post-update.d/20"] {
        let tree = tree();
        tree.hook("pre-update.d/10", NOTE);
        set_mode(&tree.hook(name, "true"), 0o777);
        tree.run(&VOUCHED)
            .says(1, &["[hooks]", "users other than root can write", ADVICE_ON_HOOKS]);
        assert!(!tree.path("etc/tdx-seamldr/note").exists());
        assert!(!tree.path(HISTORY).exists());
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn host_that_changes_while_hooks_run_is_refused() {
    let tree = tree();
    let version = tree.path(&format!("{TDX_HOST}/version"));
    tree.hook("pre-update.d/10", &format!("echo 1.5.16 > {}", version.display()));
    let ran = tree.run(&VOUCHED);
    ran.says(1, &["[changed]", "start the update again"]);
    assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn upload_of_another_program_is_left_open() {
    let tree = tree();
    let loading = format!("{UPLOAD}/loading");
    tree.put(&loading, "1\n");
    tree.run(&VOUCHED).says(1, &["another program has an open upload", "echo -1 >"]);
    assert_eq!(tree.read(&loading), "1\n");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn record_that_cannot_be_written_refuses_the_update() {
    let tree = tree();
    fs::create_dir_all(tree.path(HISTORY)).unwrap();
    tree.run(&VOUCHED).says(1, &["[record]", "cannot be written"]);
    assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn repeated_updates_end_when_no_updates_remain() {
    let host = sapphire_rapids().remaining(2);
    let tree = Tree::with_images(&host, &["1.5.05", "1.5.08", "1.5.16"]);
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.08"), Does::Installs("1.5.16")]);
    let update = |version| -> Ran {
        tree.run(&["update", version, "--no-td-launches", "--allow-same-module"])
    };
    update("1.5.08").says(0, &["1.5.05 -> 1.5.08: updated"]);
    update("1.5.16").says(0, &["1.5.08 -> 1.5.16: updated", "updates left before a reboot: 0"]);
    update("1.5.16").says(1, &["[no-remaining-updates]", "reboot"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn kernel_that_does_not_end_within_the_options_timeout_leaves_an_unknown_end() {
    let tree = tree();
    tree.put("etc/tdx-seamldr.toml", "timeout = 600\nno-td-launches = true\n");
    let _kernel = Kernel::new(&tree, &[Does::Hangs]);
    let begin = std::time::Instant::now();
    let ran = tree.run(&["update", "--timeout", "10"]);
    ran.says(
        4,
        &[
            "did not finish in time: the status is still \"transferring\"",
            "wait until the status is idle",
        ],
    );
    assert_eq!(last_outcome(&tree), "unknown");
    assert!(begin.elapsed() < Duration::from_secs(60));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn exit_status_of_an_update_survives_an_output_that_cannot_be_written() {
    for (does, code) in [(Does::Installs("1.5.16"), 0), (Does::Loses("hw-error"), 4)] {
        let tree = tree();
        let _kernel = Kernel::new(&tree, &[does]);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"))
            .args(VOUCHED)
            .arg("--root")
            .arg(tree.root())
            .stdout(fs::File::options().write(true).open("/dev/full").unwrap())
            .output()
            .unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{err}");
        assert!(err.contains("the output cannot be written"), "{err}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn warnings_and_problems_of_the_catalogue_are_said_once_before_an_update_and_when_it_is_refused() {
    let tree = tree();
    tree.put(&format!("{}/damaged.blob", crate::support::IMAGES), "no image");
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    let refused = tree.run(&["update"]);
    refused.says(1, &["after the update only a reboot leads back"]);
    let updated = tree.run(&VOUCHED);
    updated.says(0, &["updated; the TDs keep running"]);
    for ran in [refused, updated] {
        assert_eq!(ran.err.matches("ignored: ").count(), 1, "{ran:?}");
        assert_eq!(ran.err.matches("note: after the update").count(), 1, "{ran:?}");
    }
}
