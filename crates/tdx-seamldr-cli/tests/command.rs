//! The command with small images that are signed with the test key.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::path::{Path, PathBuf};

use common::{json, tdx_seamldr, Folder};
use serde_json::Value;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_mock::TestImage;

fn simulate(from: &Path, to: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let mut arguments =
        vec!["simulate".into(), "--from".into(), from.to_owned(), "--to".into(), to.to_owned()];
    arguments.extend(more.iter().map(PathBuf::from));
    json(arguments)
}

fn newer() -> TestImage {
    TestImage { svn_minor: 6, ..TestImage::default() }
}

#[test]
fn simulate_without_images_updates_a_platform_of_its_own() {
    let (code, report) = json(["simulate"]);
    assert_eq!(code, Some(0));
    assert_eq!(report["outcome"], "updated");
    assert_eq!((&report["from"]["svn"], &report["to"]["svn"]), (&"1.5".into(), &"1.6".into()));
    assert_eq!((&report["tds_before"], &report["tds_alive"]), (&3.into(), &3.into()));
    // 2 and 8 of preflight; 8 LPs look for the module, INFO, SHUTDOWN, 8 times INSTALL, INIT, 8
    // times LP.INIT, UPDATE.
    assert_eq!(report["seamcalls"], 10 + 8 + 1 + 1 + 8 + 1 + 8 + 1);
    assert_eq!(report["remaining_updates"], 62);
    assert!(report["stages"].as_array().unwrap().iter().all(|stage| stage["finished"] == 8));
}

#[test]
fn simulate_shows_every_stage_and_every_call_to_a_person() {
    let output = tdx_seamldr(["simulate", "--lps", "2", "--trace"]);
    let text = String::from_utf8(output.stdout).unwrap();
    for expected in [
        "preflight  passed",
        "CpuInstall 2/2 LPs",
        "TDH.SYS.UPDATE",
        "SEAMLDR.INSTALL",
        "3 of 3 TDs alive",
    ] {
        assert!(text.contains(expected), "{expected:?} is missing in\n{text}");
    }
}

#[test]
fn simulate_runs_with_any_number_of_lps_and_sockets() {
    for (lps, sockets) in [
        ("1", "1"),
        ("2", "2"),
        ("5", "4"),
        ("7", "3"),
        ("9", "8"),
        ("64", "8"),
        ("200", "1"),
        ("1024", "1"),
    ] {
        let (code, report) = json(["simulate", "--lps", lps, "--sockets", sockets, "--tds", "1"]);
        assert_eq!(
            (code, &report["outcome"]),
            (Some(0), &"updated".into()),
            "{lps} LPs, {sockets} sockets"
        );
        let lps: u64 = lps.parse().unwrap();
        assert_eq!(report["seamcalls"], 14 + 3 * lps);
    }
}

#[test]
fn simulate_refuses_before_the_module_is_shut_down() {
    let folder = Folder::new();
    let old = folder.image("old", &TestImage::default());
    let fit = newer();
    let flip = |name: &str, offset: usize| {
        let mut bytes = fit.build().as_bytes().to_vec();
        bytes[offset] ^= 1;
        folder.put(name, &bytes)
    };
    // The same for v2, which has no checksum.
    let flip_v2 = |name: &str, offset: usize| {
        let mut bytes =
            TestImage { format: ImageFormat::ImageV2, ..newer() }.build().as_bytes().to_vec();
        bytes[offset] ^= 1;
        folder.put(name, &bytes)
    };
    let cases = [
        (folder.image("lower", &TestImage { svn_minor: 4, ..newer() }), "minor-svn"),
        (folder.image("line", &TestImage { svn_major: 2, ..newer() }), "major-svn"),
        (folder.image("cpu", &TestImage { cpus: vec![0xa06d0], ..newer() }), "cpu"),
        (folder.image("no-cpu", &TestImage { cpus: vec![], ..newer() }), "no-cpu-list"),
        (folder.image("debug", &TestImage { debug: true, ..newer() }), "debug-module"),
        (
            folder.image("hv", &TestImage { module_hv: 2, min_update_hv: 1, ..newer() }),
            "handoff-version",
        ),
        (old.clone(), "same-module"),
        (flip("header", 100), "image-reserved-not-zero"),
        (flip("sigstruct", 4096 + 900), "image-checksum"),
        (flip("module", 8192 + 5000), "image-checksum"),
        (flip_v2("sigstruct-v2", 4096 + 950), "sigstruct-field"),
        (flip_v2("signature-v2", 4096 + 600), "signature"),
        (flip_v2("key-v2", 4096 + 200), "signer"),
        (flip_v2("module-v2", 8192 + 5000), "image-hash"),
        (folder.put("empty", b""), "image-too-short"),
    ];
    for (to, reason) in &cases {
        let (code, report) = simulate(&old, to, &[]);
        assert_eq!((code, &report["outcome"]), (Some(1), &"refused".into()), "{reason}");
        assert_eq!(report["tds_alive"], 3, "{reason}");
        assert_eq!(report["remaining_updates"], 63, "{reason}");
        let reasons = report["reasons"].as_array().unwrap();
        assert!(
            reasons.iter().any(|found| found["code"] == *reason),
            "{reason} is not in {reasons:?}"
        );
        assert!(report["seamcalls"].as_u64().unwrap() <= 10, "{reason}: only questions were asked");
    }
    let (code, report) = simulate(&old, &old, &["--allow-same-module"]);
    assert_eq!((code, &report["remaining_updates"]), (Some(0), &62.into()));
}

#[test]
fn wrong_usage_is_2_and_a_missing_file_is_3() {
    let usage: [&[&str]; 14] = [
        &["simulate", "--lps", "2", "--sockets", "3"],
        &["simulate", "--lps", "800", "--sockets", "3"],
        &[],
        &["frobnicate"],
        &["simulate", "--lps", "0"],
        &["simulate", "--lps", "1025"],
        &["simulate", "--from", "x"],
        &["convert", "x", "--to", "v3", "-o", "y"],
        &["verify", "x", "--signer", "123"],
        &["inspect"],
        &["inspect", "-", "x", "-"],
        &["verify", "-", "-"],
        &["pack", "--module", "-", "--format", "v1", "-o", "x"],
        &["pack", "--module", "-", "--sigstruct", "-", "--format", "v1", "-o", "x"],
    ];
    for arguments in usage {
        assert_eq!(tdx_seamldr(arguments).status.code(), Some(2), "{arguments:?}");
    }
    let (code, report) = json(["inspect", "/nonexistent/image"]);
    assert_eq!(code, Some(3));
    assert!(
        report["files"][0]["error"].as_str().unwrap().starts_with("/nonexistent/image: "),
        "{report}"
    );
    let output = tdx_seamldr(["inspect", "/nonexistent/image"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8(output.stderr).unwrap().contains("/nonexistent/image"));
    // Endless, and not an image.
    assert_eq!(tdx_seamldr(["inspect", "/dev/zero"]).status.code(), Some(3));
}

#[test]
fn json_of_every_command_begins_with_its_schema() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let (image, output) = (image.to_str().unwrap(), folder.path("out"));
    let output = output.to_str().unwrap();
    for (arguments, schema) in [
        (["simulate", "--lps", "1", "--tds", "0"].as_slice(), "tdx-seamldr/simulate/1"),
        (&["inspect", image], "tdx-seamldr/inspect/1"),
        (&["verify", image], "tdx-seamldr/verify/1"),
        (&["convert", image, "--to", "v2", "-o", output], "tdx-seamldr/convert/1"),
        (&["convert", "/nonexistent/image", "--to", "v2", "-o", output], "tdx-seamldr/error/1"),
    ] {
        let text =
            String::from_utf8(tdx_seamldr([arguments, &["--json"]].concat()).stdout).unwrap();
        assert!(text.starts_with(&format!("{{\n  \"schema\": \"{schema}\"")), "{text}");
    }
}
