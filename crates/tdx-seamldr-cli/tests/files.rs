//! Input and output of the command: files, links, devices, standard input and output.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::Path;
use std::process::Command;

use common::{convert, json, tdx_seamldr, tdx_seamldr_reading, to_v2, Folder};
use serde_json::Value;
use tdx_seamldr_mock::TestImage;

#[test]
fn failed_conversion_leaves_the_target_unchanged() {
    let folder = Folder::new();
    let bad = folder.put("bad", b"not an image");
    let target = folder.put("target", b"precious");
    let output = tdx_seamldr(convert(&bad, "v1", &target));
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr)
        .unwrap()
        .contains("has 12 bytes, but needs at least 4096"));
    assert_eq!(std::fs::read(target).unwrap(), b"precious");
}

#[test]
fn image_is_written_through_links_and_into_devices() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let (target, link) = (folder.put("target", b"old"), folder.path("link"));
    symlink(&target, &link).unwrap();
    for output in [link.as_path(), Path::new("/dev/null")] {
        assert_eq!(json(to_v2(&image, output)).0, Some(0));
    }
    assert!(link.is_symlink() && !Path::new("/dev/null").is_file());
    assert_eq!(std::fs::read(target).unwrap().len(), 40960);
}

#[test]
fn names_that_are_not_utf_8_are_shown_escaped() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let strange = folder.path("").join(OsStr::from_bytes(b"strange-\xff"));
    let shown = strange.display().to_string();
    let bytes = std::fs::read(&image).unwrap();
    let (module, sigstruct) =
        (folder.put("bin", &bytes[8192..]), folder.put("sig", &bytes[4096..6144]));
    let pack: [&OsStr; 9] = [
        "pack".as_ref(),
        "--format".as_ref(),
        "v1".as_ref(),
        "--module".as_ref(),
        module.as_ref(),
        "--sigstruct".as_ref(),
        sigstruct.as_ref(),
        "-o".as_ref(),
        strange.as_ref(),
    ];
    let (code, report) = json(["inspect".as_ref(), strange.as_path()]);
    assert_eq!(code, Some(3));
    let report = &report["files"][0];
    assert_eq!(
        (&report["file"], &report["verdict"]),
        (&shown.as_str().into(), &"unreadable".into())
    );
    assert!(report["error"].as_str().unwrap().starts_with(&shown), "{report}");
    for arguments in [to_v2(&image, &strange).as_slice(), &pack] {
        let (code, report) = json(arguments);
        assert_eq!((code, &report["file"]), (Some(0), &shown.as_str().into()));
    }
}

#[test]
fn image_on_standard_output_is_the_only_output_there() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let file = folder.path("file");
    assert_eq!(json(to_v2(&image, &file)).0, Some(0));
    let wanted = std::fs::read(file).unwrap();

    let output = tdx_seamldr(to_v2(&image, Path::new("/dev/stdout")));
    assert_eq!((output.status.code(), output.stdout == wanted), (Some(0), true));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "tdx-seamldr: warning: signed by another key: signature and hash hold, but the key is not \
         Intel's\n/dev/stdout: tdx_image, 40960 bytes\n"
    );

    let log = folder.put("log", b"before");
    for name in [Path::new("/dev/stdout"), &log] {
        let output = Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"))
            .args(to_v2(&image, name))
            .arg("--json")
            .stdout(OpenOptions::new().append(true).open(&log).unwrap())
            .output()
            .unwrap();
        let report: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!((output.status.code(), &report["length"]), (Some(0), &40960.into()));
    }
    assert!(std::fs::read(log).unwrap() == [b"before", wanted.as_slice(), &wanted].concat());
}

#[test]
fn standard_output_for_an_image_gets_no_error() {
    let folder = Folder::new();
    let bad = folder.put("bad", b"not an image");
    let output = tdx_seamldr(
        to_v2(&bad, Path::new("/dev/stdout")).into_iter().chain([OsStr::new("--json")]),
    );
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(3), b"".as_slice()));
    let complaints = String::from_utf8(output.stderr).unwrap();
    assert!(
        complaints.contains("\"error\": ") && complaints.contains("has 12 bytes"),
        "{complaints}"
    );
}

#[test]
fn dangling_link_leads_to_a_new_file() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    std::fs::create_dir(folder.path("inner")).unwrap();
    let (first, second) = (folder.path("first"), folder.path("inner/second"));
    symlink("inner/second", &first).unwrap();
    symlink(folder.path("inner/target"), &second).unwrap();
    assert_eq!(json(to_v2(&image, &first)).0, Some(0));
    assert!(first.is_symlink() && second.is_symlink());
    let target = folder.path("inner/target").symlink_metadata().unwrap();
    assert_eq!((target.is_file(), target.len()), (true, 40960));

    for (name, to) in [("nowhere", "no-folder/target"), ("circle", "circle")] {
        let link = folder.path(name);
        symlink(to, &link).unwrap();
        assert_eq!(json(to_v2(&image, &link)).0, Some(3));
        assert!(link.is_symlink(), "{name}");
    }
}

#[test]
fn replaced_file_keeps_its_permissions() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let old = folder.put("old", b"old");
    for mode in [0o600, 0o666, 0o755] {
        std::fs::set_permissions(&old, PermissionsExt::from_mode(mode)).unwrap();
        assert_eq!(json(to_v2(&image, &old)).0, Some(0));
        let there = std::fs::metadata(&old).unwrap();
        assert_eq!((there.permissions().mode() & 0o7777, there.len()), (mode, 40960));
    }
}

#[test]
fn read_only_file_is_not_replaced() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let precious = folder.put("precious", b"precious");
    std::fs::set_permissions(&precious, PermissionsExt::from_mode(0o444)).unwrap();
    if OpenOptions::new().write(true).open(&precious).is_ok() {
        // Root may write everything.
        return;
    }
    let (code, report) = json(to_v2(&image, &precious));
    assert_eq!(code, Some(3));
    assert!(report["error"].as_str().unwrap().contains("Permission denied"), "{report}");
    assert_eq!(std::fs::read(precious).unwrap(), b"precious");
}

#[test]
fn image_comes_from_standard_input_and_goes_to_standard_output() {
    let folder = Folder::new();
    let image = TestImage::default().build();
    let file = folder.path("file");
    for input in ["-", "/dev/stdin"] {
        let output = tdx_seamldr_reading(image.as_bytes(), to_v2(input.as_ref(), &file));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let output = tdx_seamldr_reading(image.as_bytes(), to_v2(input.as_ref(), "-".as_ref()));
        assert_eq!((output.status.code(), output.stdout), (Some(0), std::fs::read(&file).unwrap()));
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert!(complaints.ends_with("standard output: tdx_image, 40960 bytes\n"), "{complaints}");
    }
    let output = tdx_seamldr_reading(b"", to_v2("-".as_ref(), &file));
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr)
        .unwrap()
        .contains("standard input: the file has 0 bytes"));
}

#[test]
fn output_that_is_the_input_is_refused_under_any_name() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let before = std::fs::read(&image).unwrap();
    std::fs::create_dir(folder.path("inner")).unwrap();
    let (link, hard_link) = (folder.path("link"), folder.path("hard-link"));
    symlink(&image, &link).unwrap();
    std::fs::hard_link(&image, &hard_link).unwrap();
    let refused = |output: std::process::Output| {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains("is the input file"));
        assert_eq!(std::fs::read(&image).unwrap(), before);
    };
    for output in [&image, &link, &hard_link, &folder.path("inner/../image")] {
        refused(tdx_seamldr(to_v2(&image, output)));
        refused(tdx_seamldr(to_v2(output, &image)));
    }
    let appended = || OpenOptions::new().append(true).open(&image).unwrap();
    let command = |input: &str, output: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"));
        command.args(to_v2(input.as_ref(), output.as_ref()));
        command
    };
    let name = image.to_str().unwrap();
    refused(command(name, "-").stdout(appended()).output().unwrap());
    refused(command("-", name).stdin(File::open(&image).unwrap()).output().unwrap());
    let pack = [
        "pack".as_ref(),
        "--module".as_ref(),
        "/nonexistent/module".as_ref(),
        "--sigstruct".as_ref(),
        image.as_os_str(),
    ];
    let rest: [&OsStr; 4] = ["--format".as_ref(), "v1".as_ref(), "-o".as_ref(), link.as_ref()];
    refused(tdx_seamldr(pack.into_iter().chain(rest)));
}

#[test]
fn file_that_is_not_regular_is_refused_without_waiting() {
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = folder.path("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let cases = [
        (folder.path(""), "found a folder"),
        (pipe, "found a pipe"),
        (socket, "found a socket"),
        ("/dev/zero".into(), "found a device"),
    ];
    for (path, message) in cases {
        let output = tdx_seamldr(to_v2(&path, &folder.path("output")));
        let complaints = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(3), "{complaints}");
        assert!(complaints.contains(message), "{complaints}");
    }
    let huge = folder.path("huge");
    File::create(&huge).unwrap().set_len(1 << 40).unwrap();
    let output = tdx_seamldr(to_v2(&huge, &folder.path("output")));
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("more than 16777216 bytes"));
    assert!(!folder.path("output").exists());
}
