//! Intel's released images, where `TDX_MODULE_BINARIES` says that the machine has them.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use common::{convert, json};
use serde_json::Value;
use tdx_seamldr_core::abi::PAGE_SIZE;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::{released_images, PageBuf, ReleasedImage};
use tdx_seamldr_verify::verify;

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

/// What is known of a release.
struct Known {
    version: &'static str,
    svn: &'static str,
    date: &'static str,
    module_pages: u64,
    num_handoff_pages: u64,
    cpus: &'static [&'static str],
}

const CPUS_1_5: &[&str] = &["0x000806f8", "0x000c06f0", "0x000a06f0"];
const CPUS_2_0: &[&str] = &["0x000a06d0", "0x000a06e0"];

const fn known(
    version: &'static str,
    svn: &'static str,
    date: &'static str,
    module_pages: u64,
) -> Known {
    let (num_handoff_pages, cpus) =
        if svn.as_bytes()[0] == b'1' { (13, CPUS_1_5) } else { (24, CPUS_2_0) };
    Known { version, svn, date, module_pages, num_handoff_pages, cpus }
}

const KNOWN: [Known; 5] = [
    known("1.5.05", "1.5", "2024-01-29", 102),
    known("1.5.08", "1.7", "2024-07-25", 101),
    known("1.5.16", "1.11", "2025-02-19", 115),
    known("2.0.04", "3.4", "2025-01-09", 134),
    known("2.0.08", "3.5", "2025-03-25", 146),
];

fn released() -> Vec<ReleasedImage> {
    released_images().unwrap().unwrap()
}

/// The path of one of them.
fn path_of(images: &[ReleasedImage], version: &str) -> PathBuf {
    images.iter().find(|image| image.version == version).unwrap().path.clone()
}

fn simulate(from: &Path, to: &Path, lps: &str) -> (Option<i32>, Value) {
    let [from_option, to_option, lps_option] = ["--from", "--to", "--lps"].map(Path::new);
    json([Path::new("simulate"), from_option, from, to_option, to, lps_option, Path::new(lps)])
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn inspect_shows_the_known_facts_of_each_image() {
    for image in released() {
        let (code, mut report) = json(["inspect".as_ref(), image.path.as_path()]);
        assert_eq!(code, Some(0), "{}", image.version);
        let inspection = report["files"][0].take();
        for (field, value) in
            [("verdict", "genuine"), ("kind", "image"), ("release", image.version.as_str())]
        {
            assert_eq!(inspection[field], value, "{}: {field}", image.version);
        }
        let (layout, sigstruct) = (&inspection["image"], &inspection["sigstruct"]);
        for (found, value) in [
            (&layout["format"], "tdx_blob"),
            (&layout["format_version"], "0x100"),
            (&layout["checksum"], "ok"),
            (&sigstruct["signature"], "valid"),
            (&sigstruct["signer"], "intel-production"),
            (&sigstruct["release"], &image.version),
        ] {
            assert_eq!(*found, value, "{}", image.version);
        }
        assert_eq!(inspection["module"]["as_signed"], true);
        let Some(known) = KNOWN.iter().find(|known| known.version == image.version) else {
            continue;
        };
        assert_eq!(sigstruct["svn"], known.svn);
        assert_eq!(sigstruct["date"], known.date);
        assert_eq!(layout["module_pages"], known.module_pages);
        assert_eq!(inspection["length"], (known.module_pages + 2) * 4096);
        assert_eq!(sigstruct["num_handoff_pages"], known.num_handoff_pages);
        assert_eq!(sigstruct["cpus"], serde_json::json!(known.cpus));
        assert_eq!((&sigstruct["module_hv"], &sigstruct["min_update_hv"]), (&0.into(), &0.into()));
        assert_eq!((&layout["sigstruct_pages"], &sigstruct["debug"]), (&1.into(), &false.into()));
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn genuine_files_give_0_and_one_that_is_not_gives_1() {
    let images = released();
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = images[0].bytes.as_bytes().to_vec();
    bytes[100_000] ^= 1;
    let tampered = folder.path().join("tampered");
    std::fs::write(&tampered, bytes).unwrap();
    for command in ["inspect", "verify"] {
        let all: Vec<&Path> = std::iter::once(command.as_ref())
            .chain(images.iter().map(|image| image.path.as_path()))
            .collect();
        let (code, report) = json(&all);
        assert_eq!((code, report["files"].as_array().unwrap().len()), (Some(0), images.len()));
        let (code, report) = json(all.iter().copied().chain([tampered.as_path()]));
        assert_eq!(code, Some(1));
        let last = &report["files"][images.len()];
        assert_eq!((&last["verdict"], &last["release"]), (&"tampered".into(), &Value::Null));
        assert!(last["summary"].as_str().unwrap().contains(&images[0].version), "{last}");
    }
    // Another signer than Intel is trusted.
    let other = "00".repeat(48);
    let (code, report) =
        json(["verify".as_ref(), images[0].path.as_path(), "--signer".as_ref(), other.as_ref()]);
    assert_eq!((code, &report["files"][0]["verified"]), (Some(1), &false.into()));
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn updates_between_them_keep_all_tds() {
    let images = released();
    let (old, new) = (path_of(&images, "1.5.05"), path_of(&images, "1.5.16"));
    for lps in ["1", "8", "64"] {
        let (code, report) = simulate(&old, &new, lps);
        assert_eq!((code, &report["outcome"]), (Some(0), &"updated".into()), "{lps} LPs: {report}");
        assert_eq!((&report["from"]["svn"], &report["to"]["svn"]), (&"1.5".into(), &"1.11".into()));
        assert_eq!(report["tds_alive"], report["tds_before"]);
        assert_eq!(report["version"], "1.5.16");
        assert_eq!(report["to"]["seamhash"].as_str().unwrap().len(), 96);
    }
    let (code, report) = simulate(&path_of(&images, "2.0.04"), &path_of(&images, "2.0.08"), "8");
    assert_eq!(
        (code, &report["outcome"], &report["cpu"]),
        (Some(0), &"updated".into(), &"0x000a06d0".into())
    );
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn updates_that_cannot_work_are_refused() {
    let images = released();
    let (old, new) = (path_of(&images, "1.5.05"), path_of(&images, "1.5.16"));
    let folder = tempfile::tempdir().unwrap();
    let flipped = |name: &str, offset: usize| {
        let mut bytes = std::fs::read(&new).unwrap();
        bytes[offset] ^= 0x10;
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let cases = [
        (&new, old.clone(), "minor-svn"),
        (&old, path_of(&images, "2.0.04"), "major-svn"),
        (&old, flipped("header", 9), "image-signature-string"),
        (&old, flipped("sigstruct", 4096 + 948), "image-checksum"),
        (&old, flipped("image", 300_000), "image-checksum"),
    ];
    for (from, to, reason) in cases {
        let (code, report) = simulate(from, &to, "4");
        assert_eq!((code, &report["outcome"]), (Some(1), &"refused".into()), "{reason}");
        assert_eq!(report["tds_alive"], report["tds_before"], "{reason}");
        assert!(
            report["reasons"].as_array().unwrap().iter().any(|found| found["code"] == reason),
            "{report}"
        );
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn convert_and_pack_reproduce_each_image() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    for image in released() {
        let original = image.bytes.as_bytes();
        let (v2, v1, packed) = (path("v2"), path("v1"), path("packed"));
        for (from, to, output) in [(&image.path, "v2", &v2), (&v2, "v1", &v1)] {
            assert_eq!(json(convert(from, to, output)).0, Some(0));
        }
        assert_eq!(std::fs::read(&v1).unwrap(), original, "{}", image.version);
        assert_eq!(json(["verify".as_ref(), v2.as_path()]).0, Some(0), "v2 is genuine, too");

        std::fs::write(path("sig"), &original[4096..4096 + 2048]).unwrap();
        std::fs::write(path("bin"), &original[8192..]).unwrap();
        let parts = [Path::new("--module"), &path("bin"), Path::new("--sigstruct"), &path("sig")]
            .map(Path::to_owned);
        let output =
            [Path::new("--format"), Path::new("v1"), Path::new("-o"), &packed].map(Path::to_owned);
        let arguments = std::iter::once("pack".into()).chain(parts).chain(output);
        assert_eq!(json(arguments).0, Some(0));
        assert_eq!(std::fs::read(&packed).unwrap(), original, "{}", image.version);
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn truncated_image_is_refused() {
    for image in released() {
        let bytes = image.bytes.as_bytes();
        let mut v2 = vec![0; bytes.len()];
        TdxImage::parse(bytes).unwrap().parts().write(ImageFormat::ImageV2, &mut v2).unwrap();
        let boundaries =
            (0..bytes.len()).step_by(PAGE_SIZE).flat_map(|page| page.saturating_sub(2)..page + 3);
        let lengths: BTreeSet<_> =
            (0..=8192).chain(boundaries).filter(|length| *length < bytes.len()).collect();
        for length in lengths {
            for bytes in [bytes, &v2] {
                assert!(
                    TdxImage::parse(&bytes[..length]).is_err(),
                    "{} cut to {length}",
                    image.version
                );
            }
        }
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn image_with_a_flipped_bit_is_refused() {
    let images = released();
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    for image in &images {
        let image = TdxImage::parse(image.bytes.as_bytes()).unwrap();
        let mut v1 = PageBuf::copy_of(image.as_bytes());
        let mut v2 = PageBuf::zeroed(v1.as_bytes().len() / PAGE_SIZE);
        image.parts().write(ImageFormat::ImageV2, v2.as_mut_bytes()).unwrap();
        // 10,000 in all. v1 has a checksum over everything; in v2 it is left to signature, hash and
        // the rules.
        for _ in 0..10_000 / images.len() {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let bit =
                usize::try_from(random % u64::try_from(v1.as_bytes().len() * 8).unwrap()).unwrap();
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            v1.as_mut_bytes()[byte] ^= mask;
            assert!(TdxImage::parse(v1.as_bytes()).is_err(), "bit {bit}");
            v1.as_mut_bytes()[byte] ^= mask;
            // The checksum of v2 follows no known rule and is only reported.
            if !(2..4).contains(&byte) {
                v2.as_mut_bytes()[byte] ^= mask;
                assert!(
                    !TdxImage::parse(v2.as_bytes()).is_ok_and(|image| verify(&image).is_genuine()),
                    "bit {bit}"
                );
                v2.as_mut_bytes()[byte] ^= mask;
            }
        }
        assert!(verify(&TdxImage::parse(v2.as_bytes()).unwrap()).is_genuine(), "all bits are back");
    }
}
