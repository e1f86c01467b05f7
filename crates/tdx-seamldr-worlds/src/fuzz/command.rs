//! Runs the command on files with any content. Its output with `--json` is JSON that agrees with
//! the library.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::Parser;
use serde_json::Value;
use tdx_seamldr_cli::{Arguments, Exit};
use tdx_seamldr_core::abi::PAGE_SIZE;
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_verify::Verification;
use tempfile::TempDir;

use super::images::NEW;

/// The folder for files.
static FOLDER: LazyLock<TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a folder for files"));

/// Runs the command; returns whether it succeeded, and its output.
fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> (bool, Value) {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
    let all = [OsStr::new("tdx-seamldr").to_owned()]
        .into_iter()
        .chain(arguments)
        .chain(["--json".into()]);
    let arguments = Arguments::try_parse_from(all).expect("the usage is right");
    arguments.check().expect("the usage is right");
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    let done = arguments.run(&mut out, &mut complaints) == Exit::Done;
    let value: Value = serde_json::from_slice(&out).expect("one JSON value");
    let object = value.as_object().expect("an object");
    let schema = object["schema"].as_str().expect("a schema");
    assert!(out.starts_with(format!("{{\n  \"schema\": \"{schema}\"").as_bytes()));
    assert_eq!(object.contains_key("error"), schema == "tdx-seamldr/error/1");
    assert!(!object.contains_key("error") || !done && !complaints.is_empty());
    (done, value)
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    fs::write(&path, bytes).expect("a file is written");
    path
}

/// The formats, with their names in the command.
const FORMATS: [(&str, ImageFormat); 2] =
    [("v1", ImageFormat::BlobV1), ("v2", ImageFormat::ImageV2)];

/// Returns the file that the library makes from these parts, if it can.
fn file_of(parts: ImageParts<'_>, format: ImageFormat) -> Option<Vec<u8>> {
    let mut bytes = vec![0; parts.file_len().ok()?];
    parts.write(format, &mut bytes).ok()?;
    Some(bytes)
}

/// Runs a command that writes a file. The command has to write exactly this file, or fail with a
/// reason. Without `--allow-invalid` it writes only an image that verifies.
fn writes<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>, expected: Option<&[u8]>) {
    let to = FOLDER.path().join("written");
    let arguments: Vec<_> =
        arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect();
    let verifies = |bytes: &&[u8]| {
        let image = TdxImage::parse(bytes).expect("an image");
        let found = tdx_seamldr_verify::verify(&image);
        found.is_signed_by(found.signer.digest()) && image.sigstruct_pages() == 1
    };
    for (leave, expected) in
        [(None, expected.filter(verifies)), (Some("--allow-invalid".into()), expected)]
    {
        // The old content does not count as success.
        fs::write(&to, "before").expect("a file is written");
        let output = ["-o".into(), to.clone().into()];
        let (done, report) = run(arguments.iter().cloned().chain(output).chain(leave));
        let found = fs::read(&to).expect("the file is there");
        assert_eq!(
            (done, found.as_slice()),
            (expected.is_some(), expected.unwrap_or(b"before")),
            "{report}"
        );
        match expected {
            Some(bytes) => assert_eq!(report["length"], bytes.len()),
            None => assert!(report.get("error").is_some(), "{report}"),
        }
    }
}

/// Returns the report of `inspect` or `verify` on its only file.
fn of_one_file((done, mut report): (bool, Value)) -> (bool, Value) {
    (done, report["files"][0].take())
}

/// Takes a file for `inspect`, `verify`, `convert` and `simulate`. If the first byte is odd, the
/// input is cut into SIGSTRUCT and module for `pack`.
pub fn cli_json(input: &[u8]) {
    if input.first().is_some_and(|byte| byte & 1 == 1) {
        return pack(input);
    }
    let path = file("image", input);
    let image = TdxImage::parse_without_checksum(input);
    let whole = TdxImage::parse(input).ok();
    let verification = whole.map(|image| tdx_seamldr_verify::verify(&image));
    let genuine = verification.is_some_and(|found| found.is_genuine());
    let (inspected, report) = of_one_file(run([OsStr::new("inspect"), path.as_ref()]));
    assert_eq!((inspected, report["verdict"] == "genuine"), (genuine, genuine), "{report}");
    assert_eq!(
        report["verdict"] == "another-key" && report["kind"] == "image",
        signed_by_another(verification),
        "{report}"
    );
    assert_eq!(report["length"], input.len());
    assert_eq!(report["kind"] == "image", image.is_ok());
    if let Ok(image) = &image {
        assert_eq!(report["image"]["format"], image.format().name());
        assert_eq!(report["image"]["module_pages"], image.module_pages());
        assert_eq!(report["sigstruct"]["svn"], image.sigstruct().svn().to_string());
    }
    let (verified, report) = of_one_file(run([OsStr::new("verify"), path.as_ref()]));
    assert_eq!((verified, &report["verified"]), (genuine, &genuine.into()), "{report}");
    for (name, format) in FORMATS {
        // A wrong checksum does not matter, because the new file has its own.
        let fits =
            image.ok().filter(|image| image.sigstruct_pages() <= format.max_sigstruct_pages());
        let expected = fits.map(|image| file_of(image.parts(), format).expect("parts of an image"));
        let arguments = [OsStr::new("convert"), path.as_ref(), "--to".as_ref(), name.as_ref()];
        writes(arguments, expected.as_deref());
        let Some(bytes) = expected else { continue };
        let (written, image) =
            (TdxImage::parse(&bytes).expect("an image"), image.expect("it was one"));
        assert_eq!(
            (written.sigstruct_area(), written.module()),
            (image.sigstruct_area(), image.module())
        );
    }
    if let Some(found) = verification.filter(|_| input.len() <= SIMULATED) {
        let is_good = NEW.iter().take(GOOD).any(|file| file.bytes.as_bytes() == input);
        simulate(&path, &found, is_good);
    }
}

/// Returns whether signature and hash are valid, for another key than Intel's.
fn signed_by_another(verification: Option<Verification>) -> bool {
    verification
        .is_some_and(|found| !found.is_genuine() && found.is_signed_by(found.signer.digest()))
}

/// Size in bytes of the largest file for `simulate`, which takes longer than the other commands.
const SIMULATED: usize = 40 << 10;

/// Index of the first image of `update_ops` that is valid whatever module runs.
const GOOD: usize = 2;

/// Simulates an update from this image to itself. The update does not start if P-SEAMLDR would
/// refuse the image, and no TD is lost.
fn simulate(path: &Path, found: &Verification, is_good: bool) {
    let arguments = ["simulate", "--lps", "1", "--tds", "1", "--allow-same-module"].map(OsStr::new);
    let files = [OsStr::new("--from"), path.as_ref(), OsStr::new("--to"), path.as_ref()];
    let (done, report) = run(arguments.into_iter().chain(files));
    assert!(done || !is_good, "{report}");
    if report.get("error").is_some() {
        return;
    }
    assert!(found.signature_valid && found.image_hash_matches, "{report}");
    assert_eq!((&report["tds_before"], &report["tds_alive"]), (&1.into(), &1.into()), "{report}");
    assert_eq!(report["from"], report["to"]);
    let reasons = report["reasons"].as_array().expect("reasons");
    match report["outcome"].as_str() {
        Some("updated") => assert!(done && reasons.is_empty(), "{report}"),
        Some("refused") => assert!(!done && !reasons.is_empty(), "{report}"),
        _ => panic!("{report}"),
    }
}

/// Returns the module, padded with zeros to whole pages.
fn filled_up(module: &[u8]) -> Vec<u8> {
    let mut module = module.to_vec();
    module.resize(module.len().next_multiple_of(PAGE_SIZE), 0);
    module
}

fn pack(input: &[u8]) {
    let at = usize::from(input.get(1).copied().unwrap_or(0)) * 64;
    let (sigstruct, module) = input.split_at(at.min(input.len()));
    let [sigstruct_path, module_path] = [file("sigstruct", sigstruct), file("module", module)];
    for (name, format) in FORMATS {
        let padded = filled_up(module);
        let is_signed = |bytes: &Vec<u8>| {
            TdxImage::parse(bytes)
                .is_ok_and(|image| tdx_seamldr_verify::verify(&image).image_hash_matches)
        };
        let expected = file_of(ImageParts { sigstruct, module }, format).or_else(|| {
            file_of(ImageParts { sigstruct, module: &padded }, format).filter(is_signed)
        });
        let arguments = [
            OsStr::new("pack"),
            "--sigstruct".as_ref(),
            sigstruct_path.as_ref(),
            "--module".as_ref(),
            module_path.as_ref(),
            "--format".as_ref(),
            name.as_ref(),
        ];
        writes(arguments, expected.as_deref());
        if let Some(bytes) = expected {
            let image = TdxImage::parse(&bytes).expect("an image");
            assert!(image.module().starts_with(module));
            assert!(image.sigstruct_area().starts_with(sigstruct));
        }
    }
}
