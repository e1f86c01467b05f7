//! Updates that a second update, a signal or `kill -9` interrupts.

use std::fs;

use serde_json::json;

use crate::kernel::{Does, Kernel};
use crate::support::{kill_by_file, sapphire_rapids, wait_until, Tree, UPLOAD};

const VOUCHED: [&str; 2] = ["update", "--no-td-launches"];

/// The kernel stops reading an upload after these bytes, in the middle of the image.
const MIDDLE: usize = 200_000;

fn tree() -> Tree {
    Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.08", "1.5.16"])
}

fn loading(tree: &Tree) -> String {
    tree.read(&format!("{UPLOAD}/loading")).trim_end().to_owned()
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn second_command_is_refused_and_names_the_process_of_the_first() {
    let tree = tree();
    let kernel = Kernel::holding(&tree, &[Does::Installs("1.5.16")], MIDDLE);
    let first = tree.start(&VOUCHED);
    kernel.wait_until_holding();
    let process = format!("another update is running: process {} has locked", first.id());
    tree.run(&VOUCHED).says(1, &["[locked]", &process, "wait until that update ends"]);
    assert_eq!(loading(&tree), "1", "the first upload continues");
    kernel.release();
    first.end().says(0, &["updated; the TDs keep running"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn status_and_plan_work_during_an_update() {
    let tree = tree();
    let kernel = Kernel::holding(&tree, &[Does::Installs("1.5.16")], MIDDLE);
    let update = tree.start(&VOUCHED);
    kernel.wait_until_holding();
    tree.run(&["status"]).says(0, &["TDX module 1.5.05", "upload idle"]);
    tree.run(&["history"]).says(0, &["1.5.05 -> 1.5.16"]);
    kernel.release();
    update.end().says(0, &["updated"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn interrupt_during_the_upload_aborts_it_and_the_kernel_forgets_it() {
    let tree = tree();
    let kernel = Kernel::holding(&tree, &[], MIDDLE);
    let update = tree.start(&VOUCHED);
    kernel.wait_until_holding();
    update.interrupt();
    kernel.release();
    update.end().says(1, &["Stopped; nothing was touched."]);
    assert_eq!(loading(&tree), "-1");
    let (_, object) = tree.json(&["history"]);
    assert_eq!(object["attempts"][0]["outcome"], "aborted", "{object:#}");
    assert_eq!(object["attempts"][0]["committing"], false, "{object:#}");
    drop(kernel);
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    tree.run(&VOUCHED).says(0, &["updated; the TDs keep running"]);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn interrupt_while_a_hook_runs_stops_before_the_upload() {
    // On a terminal, Ctrl-C goes to the hook, too: it ends by the signal or in its own way.
    for end in ["kill -INT $$; sleep 60", "exit 0", "exit 9"] {
        let tree = tree();
        tree.hook("pre-update.d/10", &format!("kill -INT $PPID; {end}"));
        tree.hook("pre-update.d/20", "touch \"$0.ran\"");
        let (code, object) = tree.json(&VOUCHED);
        assert_eq!(
            (code, &object["ending"]["outcome"]),
            (Some(1), &json!("aborted")),
            "{end}: {object:#}"
        );
        assert_eq!(loading(&tree), "0", "no upload began");
        assert!(!tree.path("etc/tdx-seamldr/pre-update.d/20.ran").exists(), "{end}");
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn interrupt_after_the_last_write_waits_for_the_outcome() {
    for (version, code) in [("1.5.16", 0), ("1.5.08", 4)] {
        let tree = tree();
        let kernel = Kernel::new(&tree, &[Does::WaitsAndInstalls(version)]);
        let update = tree.start(&VOUCHED);
        kernel.wait_until_at_work();
        update.wait_for("the kernel has the image");
        update.interrupt();
        update.wait_for("waiting for the kernel to finish");
        assert_eq!(loading(&tree), "0", "the upload is not aborted");
        kernel.release();
        update.end().says(code, &["the update cannot be stopped any more: waiting for the kernel"]);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn killed_during_the_upload_leaves_an_open_attempt_and_the_next_update_works() {
    let tree = tree();
    let kernel = Kernel::holding(&tree, &[Does::Installs("1.5.16")], MIDDLE);
    let update = tree.start(&VOUCHED);
    kernel.wait_until_holding();
    update.kill();
    kernel.release();
    tree.run(&["history"])
        .says(0, &["ended before the kernel had the whole image: nothing was touched"]);
    let (_, object) = tree.json(&["history"]);
    let attempt = &object["attempts"][0];
    assert_eq!(
        (&attempt["ended"], &attempt["committing"]),
        (&json!(null), &json!(false)),
        "{object:#}"
    );
    tree.run(&VOUCHED).says(
        0,
        &[
            "cancelled the upload that an earlier, killed update left open",
            "updated; the TDs keep running",
        ],
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_works_after_a_kill_while_a_hook_ran() {
    let tree = tree();
    let file = tree.path("hook.pid");
    let hook =
        tree.hook("pre-update.d/10", &format!("echo $$ > {}; exec sleep 60", file.display()));
    let update = tree.start(&VOUCHED);
    wait_until("the hook runs", || {
        fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n'))
    });
    update.kill();
    assert_eq!(loading(&tree), "0");
    tree.run(&["history"])
        .says(0, &["ended before the kernel had the whole image: nothing was touched"]);
    fs::remove_file(hook).unwrap();
    // The orphaned hook still runs, but does not hold the lock.
    let _kernel = Kernel::new(&tree, &[Does::Installs("1.5.16")]);
    tree.run(&VOUCHED).says(0, &["updated; the TDs keep running"]);
    kill_by_file(&file);
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn next_update_waits_for_the_kernel_after_a_kill() {
    let tree = tree();
    let kernel = Kernel::new(&tree, &[Does::WaitsAndInstalls("1.5.08"), Does::Installs("1.5.16")]);
    let update = tree.start(&[&VOUCHED[..], &["1.5.08"]].concat());
    kernel.wait_until_at_work();
    update.kill();
    tree.run(&["history"]).says(
        0,
        &["ended at or just before the last write to the kernel: check which version runs"],
    );
    tree.run(&VOUCHED).says(1, &["[upload-busy]", "\"transferring\"", "check which version runs"]);
    kernel.release();
    wait_until("the kernel has ended", || tree.read(&format!("{UPLOAD}/status")) == "idle\n");
    tree.run(&VOUCHED).says(0, &["1.5.08 -> 1.5.16: updated"]);
    let (_, object) = tree.json(&["history"]);
    let [first, second] = &object["attempts"].as_array().unwrap()[..] else { panic!("{object:#}") };
    assert_eq!(
        (&first["committing"], &first["outcome"]),
        (&json!(true), &json!(null)),
        "{object:#}"
    );
    assert_eq!(second["outcome"], "updated", "{object:#}");
}
