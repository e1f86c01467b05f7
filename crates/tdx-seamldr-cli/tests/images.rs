//! `inspect`, `verify`, `convert` and `pack` on small images that are signed with the test key.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

mod common;

use std::ffi::OsStr;
use std::path::Path;

use common::{convert, json, tdx_seamldr, tdx_seamldr_reading, to_v2, Folder};
use serde_json::Value;
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_host::text::hex;
use tdx_seamldr_mock::{TestImage, TEST_SIGNER};

/// Runs a command on one file. Returns the exit status and the file's entry in the report.
fn one(command: &str, file: &Path, more: &[&str]) -> (Option<i32>, Value) {
    let more = more.iter().map(OsStr::new);
    let (code, mut report) = json([OsStr::new(command), file.as_ref()].into_iter().chain(more));
    assert_eq!(report["files"].as_array().unwrap().len(), 1);
    (code, report["files"][0].take())
}

/// Returns the text that a command prints.
fn text<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    String::from_utf8(tdx_seamldr(arguments).stdout).unwrap()
}

#[test]
fn inspect_and_verify_name_an_image_with_the_test_key() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let (code, inspection) = one("inspect", &image, &[]);
    assert_eq!(code, Some(1));
    for (part, expected) in [
        (
            "image",
            serde_json::json!({
                "format": "tdx_blob", "format_version": "0x100", "sigstruct_pages": 1, "module_pages": 8, "checksum": "ok",
            }),
        ),
        (
            "sigstruct",
            serde_json::json!({
                "date": "2024-01-29", "debug": false, "svn": "1.5", "module_hv": 0, "min_update_hv": 0,
                "num_handoff_pages": 13, "cpus": ["0x000806f8", "0x000c06f0", "0x000a06f0"], "signature": "valid",
                "signer": "unknown", "release": null, "no_downgrade": false,
            }),
        ),
        ("module", serde_json::json!({ "as_signed": true, "release": null })),
    ] {
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(inspection[part][field], *value, "{field}");
        }
    }
    let verdict = (&inspection["verdict"], &inspection["kind"], &inspection["length"]);
    assert_eq!(verdict, (&"another-key".into(), &"image".into(), &40960.into()));
    assert_eq!(inspection["sigstruct"]["seamhash"].as_str().unwrap().len(), 96);
    assert!(text(["inspect".as_ref(), image.as_os_str()])
        .starts_with("verdict          signed by another key"));

    let (code, report) = one("verify", &image, &[]);
    assert_eq!(
        (code, &report["verified"], &report["signature"]),
        (Some(1), &false.into(), &"valid".into())
    );
    let (code, report) = one("verify", &image, &["--signer", &hex(&TEST_SIGNER)]);
    assert_eq!(
        (code, &report["verified"], &report["verdict"]),
        (Some(0), &true.into(), &"another-key".into())
    );
    assert!(text(["verify".as_ref(), image.as_os_str()]).trim_end().ends_with("NOT VERIFIED"));
}

#[test]
fn tampered_file_is_found_despite_its_text() {
    let folder = Folder::new();
    let mut bytes = TestImage::default().build().as_bytes().to_vec();
    bytes[8192 + 100] ^= 1;
    let damaged = folder.put("damaged", &bytes);
    for command in ["inspect", "verify"] {
        let (code, report) = one(command, &damaged, &[]);
        assert_eq!((code, &report["verdict"]), (Some(1), &"tampered".into()));
        let problems: Vec<_> =
            report["problems"].as_array().unwrap().iter().map(|problem| &problem["code"]).collect();
        assert_eq!(problems, ["image-hash", "image-checksum", "signer"]);
        let lines = text([OsStr::new(command), damaged.as_ref()]);
        assert!(!lines.contains("signature        valid\n"), "{lines}");
        assert!(
            lines.starts_with(
                "verdict          tampered: the module was changed after it was signed\n"
            ),
            "{lines}"
        );
        let (code, report) =
            one(command, &damaged, if command == "verify" { &["--signer", TRUSTED] } else { &[] });
        assert_eq!((code, &report["verdict"]), (Some(1), &"tampered".into()));
    }
}

/// The test key.
const TRUSTED: &str =
    "756d6aebd4fac3364f24cc44ca311586da74ddad54dc9ca6b055aa51caaa6986efa218a32f3503dfb27266a9f222efce";

#[test]
fn verify_exits_with_1_for_not_genuine_and_3_for_unreadable() {
    let folder = Folder::new();
    let image = TestImage::default().build();
    let mut unsigned = image.as_bytes().to_vec();
    unsigned[4096 + 516..4096 + 900].fill(0);
    for (file, verdict, exit) in [
        (folder.put("unsigned", &unsigned), "unsigned", 1),
        (folder.put("long", &[image.as_bytes(), b"x"].concat()), "tampered", 1),
        (folder.put("cut", &image.as_bytes()[..5000]), "part", 1),
        (folder.put("text", b"404: Not Found"), "not-an-image", 3),
        (folder.put("empty", b""), "not-an-image", 3),
        (folder.path("missing"), "unreadable", 3),
        (folder.path(""), "unreadable", 3),
    ] {
        for command in ["inspect", "verify"] {
            let (code, report) = one(command, &file, &[]);
            assert_eq!(
                (code, &report["verdict"]),
                (Some(exit), &verdict.into()),
                "{command} {}",
                file.display()
            );
        }
    }
}

#[test]
fn each_of_several_files_has_a_heading_and_the_worst_decides_the_exit_status() {
    let folder = Folder::new();
    let image = folder.image("image", &TestImage::default());
    let archive = folder.put("archive", b"PK\x03\x04");
    let missing = folder.path("missing");
    let trusted = ["--signer", TRUSTED].map(OsStr::new);
    let arguments =
        ["verify".as_ref(), image.as_os_str(), missing.as_ref(), archive.as_ref(), image.as_ref()];
    let output = tdx_seamldr(arguments.into_iter().chain(trusted));
    assert_eq!(output.status.code(), Some(3));
    let lines = String::from_utf8(output.stdout).unwrap();
    let headings: Vec<&str> = lines.lines().filter(|line| line.ends_with(':')).collect();
    assert_eq!(
        headings,
        [&image, &missing, &archive, &image].map(|path| format!("{}:", path.display()))
    );
    assert_eq!(lines.matches("\nresult           verified").count(), 2);
    assert!(String::from_utf8(output.stderr).unwrap().contains("missing: No such file"));

    let (code, report) = json(arguments.into_iter().chain(trusted));
    let verdicts: Vec<_> =
        report["files"].as_array().unwrap().iter().map(|file| &file["verdict"]).collect();
    assert_eq!(
        (code, verdicts.as_slice()),
        (
            Some(3),
            [
                &Value::from("another-key"),
                &"unreadable".into(),
                &"not-an-image".into(),
                &"another-key".into()
            ]
            .as_slice()
        )
    );
    let (code, _) =
        json([OsStr::new("verify"), image.as_ref(), image.as_ref()].into_iter().chain(trusted));
    assert_eq!(code, Some(0));

    let output = tdx_seamldr_reading(&std::fs::read(&image).unwrap(), ["inspect", "-"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.starts_with(b"verdict          signed by another key"));
}

#[test]
fn name_of_a_file_cannot_forge_a_verdict() {
    let folder = Folder::new();
    let forged = folder.put("x:\nverdict          genuine\u{1b}[2J", b"");
    let output = tdx_seamldr(["inspect".as_ref(), forged.as_os_str(), forged.as_ref()]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains("x:\\nverdict          genuine\\u{1b}[2J:\n"), "{lines}");
    assert!(!lines.lines().any(|line| line.starts_with("verdict          genuine")), "{lines}");
}

#[test]
fn text_that_commands_print_fits_80_columns_except_for_hashes() {
    let folder = Folder::new();
    let image =
        folder.image("image", &TestImage { cpus: (0..30).collect(), ..TestImage::default() });
    for command in ["inspect", "verify"] {
        let lines = text([OsStr::new(command), image.as_ref()]);
        for line in lines.lines().filter(|line| !line.split(' ').any(|word| word.len() == 96)) {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
    for command in
        [&["--help"][..], &["inspect", "--help"], &["verify", "--help"], &["pack", "--help"]]
    {
        let help = text(command);
        let usage = |line: &&str| !line.starts_with("Usage:");
        assert!(help.lines().filter(usage).all(|line| line.chars().count() <= 80), "{help}");
    }
}

#[test]
fn convert_back_and_pack_give_the_same_file() {
    let folder = Folder::new();
    let v1 = folder.image("v1", &TestImage::default());
    let convert = |from: &Path, to: &str, name: &str| {
        let output = folder.path(name);
        assert_eq!(json(convert(from, to, &output)).0, Some(0));
        output
    };
    let v2 = convert(&v1, "v2", "v2");
    let back = convert(&v2, "v1", "back");
    let original = std::fs::read(&v1).unwrap();
    assert_eq!(std::fs::read(back).unwrap(), original);
    let v2 = std::fs::read(v2).unwrap();
    assert_eq!(TdxImage::parse(&v2).unwrap().format(), ImageFormat::ImageV2);

    let (module, sigstruct) =
        (folder.put("bin", &original[8192..]), folder.put("sig", &original[4096..4096 + 2048]));
    for (format, wanted) in [("v1", &original), ("v2", &v2)] {
        let packed = folder.path("packed");
        let arguments = [
            "pack".as_ref(),
            "--module".as_ref(),
            module.as_path(),
            "--sigstruct".as_ref(),
            &sigstruct,
        ];
        let output = ["--format".as_ref(), format.as_ref(), "-o".as_ref(), packed.as_path()];
        assert_eq!(json(arguments.into_iter().chain(output)).0, Some(0));
        assert_eq!(std::fs::read(&packed).unwrap(), *wanted);
    }
}

/// Arguments of `pack`.
fn pack<'a>(module: &'a Path, sigstruct: Option<&'a Path>, output: &'a Path) -> Vec<&'a OsStr> {
    let mut arguments = ["pack", "--format", "v1", "--module"].map(OsStr::new).to_vec();
    arguments.extend([module.as_os_str(), "-o".as_ref(), output.as_ref()]);
    arguments
        .extend(sigstruct.into_iter().flat_map(|path| ["--sigstruct".as_ref(), path.as_os_str()]));
    arguments
}

#[test]
fn invalid_image_is_only_made_with_allow_invalid() {
    let folder = Folder::new();
    let image = TestImage::default().build();
    let mut bytes = image.as_bytes().to_vec();
    bytes[8192 + 100] ^= 1;
    let damaged = folder.put("damaged", &bytes);
    let (module, sigstruct) =
        (folder.put("module", &bytes[8192..]), folder.put("sigstruct", &bytes[4096..6144]));
    let output = folder.path("output");
    for arguments in [to_v2(&damaged, &output).to_vec(), pack(&module, Some(&sigstruct), &output)] {
        let (code, report) = json(&arguments);
        assert_eq!(code, Some(1));
        let error = report["error"].as_str().unwrap();
        assert!(
            error.contains("the module was changed after it was signed")
                && error.contains("--allow-invalid")
        );
        assert!(!output.exists());
        let (code, report) = json(arguments.iter().copied().chain(["--allow-invalid".as_ref()]));
        assert_eq!((code, &report["verdict"]), (Some(0), &"tampered".into()));
        assert!(report["warnings"][0]
            .as_str()
            .unwrap()
            .starts_with("P-SEAMLDR will not load this image: "));
        assert_eq!(std::fs::read(&output).unwrap()[8192..], bytes[8192..]);
        std::fs::remove_file(&output).unwrap();
    }
}

#[test]
fn image_with_only_a_wrong_checksum_is_converted_with_a_warning() {
    let folder = Folder::new();
    let mut bytes = TestImage::default().build().as_bytes().to_vec();
    let good = bytes.clone();
    bytes[2] ^= 1;
    let wrong = folder.put("wrong", &bytes);
    let output = folder.path("output");
    let ran = tdx_seamldr(convert(&wrong, "v1", &output));
    assert_eq!((ran.status.code(), std::fs::read(&output).unwrap() == good), (Some(0), true));
    assert!(String::from_utf8(ran.stderr)
        .unwrap()
        .contains("the checksum is wrong, but is right in the new file"));
}

#[test]
fn pack_finds_the_sigstruct_beside_the_module() {
    let folder = Folder::new();
    let image = TestImage::default().build();
    let (module, output) =
        (folder.put("module.so", &image.as_bytes()[8192..]), folder.path("output"));
    let (code, report) = json(pack(&module, None, &output));
    assert_eq!(code, Some(3));
    assert!(
        report["error"].as_str().unwrap().contains("module.so.sigstruct: No such file"),
        "{report}"
    );
    for length in [2048, 3000, 4096] {
        folder.put("module.so.sigstruct", &image.as_bytes()[4096..4096 + length]);
        assert_eq!(json(pack(&module, None, &output)).0, Some(0), "{length}");
        assert_eq!(std::fs::read(&output).unwrap(), image.as_bytes());
        std::fs::remove_file(&output).unwrap();
    }
    let cases =
        [(2047, "2047 bytes"), (0, "0 bytes"), (4097, "2 pages, but SEAMLDR.INSTALL takes 1")];
    for (length, message) in cases {
        let sigstruct = [&image.as_bytes()[4096..8192], &[0]].concat();
        folder.put("module.so.sigstruct", &sigstruct[..length]);
        let (code, report) = json(pack(&module, None, &output));
        assert_eq!(code, Some(1), "{report}");
        assert!(report["error"].as_str().unwrap().contains(message), "{report}");
        assert!(!output.exists());
    }
}

#[test]
fn pack_fills_a_module_up_only_if_the_zeros_were_signed() {
    let folder = Folder::new();
    let image = TestImage { fill: 0, ..TestImage::default() }.build();
    let output = folder.path("output");
    let sigstruct = folder.put("sigstruct", &image.as_bytes()[4096..6144]);
    let module = folder.put("module", &image.as_bytes()[8192..image.as_bytes().len() - 100]);
    assert_eq!(json(pack(&module, Some(&sigstruct), &output)).0, Some(0));
    assert_eq!(std::fs::read(&output).unwrap(), image.as_bytes());
    std::fs::remove_file(&output).unwrap();

    let mut other = image.as_bytes()[8192..image.as_bytes().len() - 100].to_vec();
    other[5000] ^= 1;
    let other = folder.put("other", &other);
    let arguments = pack(&other, Some(&sigstruct), &output);
    for more in [&[][..], &["--allow-invalid"]] {
        let (code, report) = json(arguments.iter().copied().chain(more.iter().map(OsStr::new)));
        assert_eq!((code, output.exists()), (Some(1), false));
        assert!(report["error"].as_str().unwrap().contains("multiple of 4096"), "{report}");
    }
}
