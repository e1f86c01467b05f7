//! Trees with wrong files.

use std::fs;
use std::os::unix::fs::symlink;

use rustix::fs::{mknodat, FileType, Mode, CWD};
use serde_json::json;
use tdx_seamldr_host::testing::HostTree;

use crate::support::{binaries, sapphire_rapids, Tree, TDX_HOST, UPLOAD};

/// The files of a plan, and whether a plan without the file is refused.
const FILES: [(&str, bool); 12] = [
    ("proc/cpuinfo", true),
    ("proc/cmdline", false),
    ("proc/sys/kernel/osrelease", false),
    ("sys/devices/system/cpu/online", true),
    ("sys/devices/system/cpu/present", false),
    ("sys/devices/system/cpu/smt/control", false),
    ("sys/firmware/acpi/tables/APIC", true),
    ("sys/devices/faux/tdx_host/version", true),
    ("sys/devices/faux/tdx_host/seamldr_version", true),
    ("sys/devices/faux/tdx_host/num_remaining_updates", true),
    ("sys/devices/faux/tdx_host/firmware/tdx_module/status", false),
    ("sys/module/kvm_intel/parameters/tdx", false),
];

/// The kinds of objects that replace a file.
const KINDS: [&str; 9] =
    ["nothing", "empty", "binary", "huge", "number", "folder", "circle", "outside", "FIFO"];

/// Replaces a file with an object of this kind.
fn spoil(tree: &Tree, path: &str, kind: &str) {
    let file = tree.path(path);
    fs::remove_file(&file).unwrap();
    match kind {
        "nothing" => {}
        "empty" => fs::write(&file, "").unwrap(),
        "binary" => fs::write(&file, (0..=255_u8).cycle().take(3000).collect::<Vec<_>>()).unwrap(),
        // A file with a hole uses no disk space.
        "huge" => fs::File::create(&file).unwrap().set_len(1 << 40).unwrap(),
        "number" => fs::write(&file, "99999999999999999999999\n").unwrap(),
        "folder" => fs::create_dir(&file).unwrap(),
        "circle" => symlink(format!("/{path}"), &file).unwrap(),
        "outside" => symlink("/../../../../etc/no-such-file", &file).unwrap(),
        "FIFO" => mknodat(CWD, &file, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        _ => unreachable!(),
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn wrong_file_refuses_the_plan_and_is_named() {
    let folder = binaries();
    let folder = folder.join("joined_files/1.5");
    let images = folder.to_str().unwrap();
    for (path, is_needed) in FILES {
        for kind in KINDS {
            let tree = Tree::new(&sapphire_rapids());
            spoil(&tree, path, kind);
            let ran = tree.run(&["plan", "--image-dir", images, "--no-td-launches", "1.5.16"]);
            let expected: &[i32] = if is_needed { &[1] } else { &[0, 1] };
            assert!(
                ran.code.is_some_and(|code| expected.contains(&code)),
                "{path} {kind}: {ran:?}"
            );
            assert!(
                ran.code == Some(0) || ran.out.contains("  - ") || ran.out.contains("  => "),
                "{ran:?}"
            );
            let status = tree.run(&["status"]);
            assert_eq!(status.code, Some(0), "{path} {kind}: {status:?}");
        }
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn update_on_a_spoiled_tree_writes_nothing_to_the_kernel() {
    let folder = binaries();
    let folder = folder.join("joined_files/1.5");
    let images = folder.to_str().unwrap();
    for (path, _) in FILES.into_iter().filter(|(_, is_needed)| *is_needed) {
        for kind in ["empty", "binary", "circle"] {
            let tree = Tree::new(&sapphire_rapids());
            spoil(&tree, path, kind);
            let ran = tree.run(&["update", "--image-dir", images, "--no-td-launches", "1.5.16"]);
            assert_eq!(ran.code, Some(1), "{path} {kind}: {ran:?}");
            assert_eq!(tree.read(&format!("{UPLOAD}/loading")), "0\n");
            assert_eq!(tree.read(&format!("{UPLOAD}/data")), "");
        }
    }
}

#[test]
fn root_that_is_empty_missing_or_a_file_is_explained() {
    let tree = Tree::new(&HostTree::without_tdx());
    fs::create_dir(tree.path("empty")).unwrap();
    fs::write(tree.path("file"), "").unwrap();
    for name in ["empty", "missing", "file"] {
        let run = |command: &str| {
            let mut process = std::process::Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"));
            process.args([command, "--root"]).arg(tree.path(name)).output().unwrap()
        };
        for (command, code) in
            [("status", 0), ("list", 0), ("plan", 1), ("update", 1), ("history", 0), ("report", 0)]
        {
            let output = run(command);
            assert_eq!(output.status.code(), Some(code), "{name} {command}: {output:?}");
            assert!(!output.stdout.is_empty() || !output.stderr.is_empty());
        }
    }
}

#[test]
fn links_that_lead_out_of_the_tree_do_not_reach_the_machine() {
    let tree = Tree::new(&sapphire_rapids());
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("version"), "9.9.09\n").unwrap();
    let version = tree.path(&format!("{TDX_HOST}/version"));
    fs::remove_file(&version).unwrap();
    symlink(outside.path().join("version"), &version).unwrap();
    let (code, object) = tree.json(&["status"]);
    assert_eq!(
        (code, &object["host"]["module"]["reason"]),
        (Some(0), &json!("missing")),
        "{object:#}"
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn folder_of_images_with_circles_pipes_and_unreadable_names_is_read_to_its_end() {
    let tree = Tree::with_images(&sapphire_rapids(), &["1.5.05", "1.5.16"]);
    let folder = tree.path(crate::support::IMAGES);
    symlink(&folder, folder.join("circle")).unwrap();
    symlink("self.blob", folder.join("self.blob")).unwrap();
    symlink("/none", folder.join("dangling.blob")).unwrap();
    mknodat(CWD, folder.join("pipe.blob"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    fs::create_dir(folder.join("folder.blob")).unwrap();
    fs::write(folder.join("\u{1b}[31m.blob"), "x").unwrap();
    tree.run(&["plan", "--no-td-launches"]).says(0, &["1.5.05 -> 1.5.16", "ignored: "]);
    tree.run(&["list"]).says(0, &["ignored: "]);
}
