//! No file is read twice. `strace` shows the calls.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use crate::support::{binaries, sapphire_rapids, Tree, HISTORY};

/// Runs a command under `strace`. Returns how often each file below a folder was opened. `None`:
/// this system lets no process trace another, and the test says that it was skipped.
fn opened(tree: &Tree, below: &str, arguments: &[&str]) -> Option<BTreeMap<String, usize>> {
    let trace = tree.path("trace");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-s", "4096", "-e", "trace=open,openat,openat2", "-o"])
        .arg(&trace)
        .arg(env!("CARGO_BIN_EXE_tdx-seamldr"))
        .args(arguments)
        .arg("--root")
        .arg(tree.root())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    if status.code().is_none_or(|code| code > 1) {
        eprintln!("skipped: strace cannot trace here: {status}");
        return None;
    }
    let mut opened = BTreeMap::new();
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        let is_file = !line.contains("O_DIRECTORY") && !line.contains(" = -1 ");
        let path = line.split('"').nth(1).filter(|path| is_file && path.starts_with(below));
        if let Some(path) = path {
            *opened.entry(path.to_owned()).or_default() += 1;
        }
    }
    Some(opened)
}

#[test_with::executable(strace)]
#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn status_and_plan_open_each_file_of_the_host_once() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids());
    tree.put(HISTORY, "");
    tree.put("etc/tdx-seamldr.toml", "timeout = 19\n");
    let images = folder.to_str().unwrap();
    let root = tree.root().to_str().unwrap();
    for arguments in
        [&["status"][..], &["plan", "--image-dir", images], &["list", "--image-dir", images]]
    {
        let Some(files) = opened(&tree, root, arguments) else { return };
        assert!(files.len() >= 10, "{arguments:?}: {files:#?}");
        let twice: Vec<_> = files.iter().filter(|(_, times)| **times > 1).collect();
        assert!(twice.is_empty(), "{arguments:?} opens files twice: {twice:#?}");
        assert!(files.contains_key(&format!("{root}/proc/cpuinfo")), "{files:#?}");
    }
}

#[test_with::executable(strace)]
#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn plan_opens_each_image_once() {
    let folder = binaries();
    let tree = Tree::new(&sapphire_rapids());
    let images = folder.to_str().unwrap();
    let Some(files) = opened(&tree, images, &["plan", "--image-dir", images]) else { return };
    let twice: Vec<_> = files.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "{twice:#?}");
    assert!(files.keys().filter(|path| path.ends_with(".blob")).count() == 5, "{files:#?}");
}
