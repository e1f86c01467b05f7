//! The command on files with any content: what it prints with `--json` is JSON, and says what the library says.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use clap::Parser;
use serde_json::Value;
use tdx_seamldr_cli::Arguments;
use tdx_seamldr_core::TdxImage;
use tempfile::TempDir;

/// Where the files are.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a folder for files"));

/// Runs the command; says whether it succeeded, and what it printed.
fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> (bool, Value) {
    let arguments = arguments.into_iter().map(|argument| argument.as_ref().to_owned());
    let all = [OsStr::new("tdx-seamldr").to_owned()].into_iter().chain(arguments).chain(["--json".into()]);
    let arguments = Arguments::try_parse_from(all).expect("the usage is right");
    arguments.check().expect("the usage is right");
    let (mut out, mut complaints) = (Vec::new(), Vec::new());
    let done = arguments.run(&mut out, &mut complaints);
    let value: Value = serde_json::from_slice(&out).expect("one JSON value");
    let object = value.as_object().expect("an object");
    assert!(!object.contains_key("error") || !done && !complaints.is_empty());
    (done, value)
}

fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let path = FOLDER.path().join(name);
    fs::write(&path, bytes).expect("a file is written");
    path
}

fn converted(from: &Path, format: &str) -> Option<Vec<u8>> {
    let to = FOLDER.path().join("converted");
    let arguments =
        [OsStr::new("convert"), from.as_ref(), "--to".as_ref(), format.as_ref(), "-o".as_ref(), to.as_ref()];
    let (done, report) = run(arguments);
    let bytes = done.then(|| fs::read(&to).expect("what was written"))?;
    assert_eq!(report["length"], bytes.len());
    Some(bytes)
}

/// An input is a file for `inspect`, `verify` and `convert`; if its first byte is odd, it is cut in two, as SIGSTRUCT and module for
/// `pack`.
pub fn cli_json(input: &[u8]) {
    if input.first().is_some_and(|byte| byte & 1 == 1) {
        return pack(input);
    }
    let path = file("image", input);
    let (inspected, report) = run([OsStr::new("inspect"), path.as_ref()]);
    let image = TdxImage::parse_without_checksum(input);
    assert_eq!(inspected, image.is_ok());
    if let Ok(image) = &image {
        assert_eq!(report["format"], image.format().name());
        assert_eq!(report["length"], input.len());
        assert_eq!(report["module_pages"], image.module_pages());
        assert_eq!(report["svn"], image.sigstruct().svn().to_string());
    }
    let whole = TdxImage::parse(input).ok();
    let (verified, report) = run([OsStr::new("verify"), path.as_ref()]);
    assert_eq!(report.get("error").is_some(), whole.is_none());
    assert_eq!(verified, whole.is_some_and(|image| tdx_seamldr_verify::verify(&image).is_genuine()));
    for format in ["v1", "v2"] {
        let Some(bytes) = converted(&path, format) else { continue };
        let (image, whole) = (TdxImage::parse(&bytes).expect("an image"), whole.expect("it was one"));
        assert_eq!((image.sigstruct_area(), image.module()), (whole.sigstruct_area(), whole.module()));
    }
}

fn pack(input: &[u8]) {
    let at = usize::from(input.get(1).copied().unwrap_or(0)) * 64;
    let (sigstruct, module) = input.split_at(at.min(input.len()));
    let paths = [file("sigstruct", sigstruct), file("module", module)];
    let [sigstruct_path, module_path] = &paths;
    let to = FOLDER.path().join("packed");
    for format in ["v1", "v2"] {
        let (done, _) = run([
            OsStr::new("pack"),
            "--sigstruct".as_ref(),
            sigstruct_path.as_ref(),
            "--module".as_ref(),
            module_path.as_ref(),
            "--format".as_ref(),
            format.as_ref(),
            "-o".as_ref(),
            to.as_ref(),
        ]);
        if done {
            let bytes = fs::read(&to).expect("what was written");
            let image = TdxImage::parse(&bytes).expect("an image");
            assert_eq!(image.module(), module);
            assert!(image.sigstruct_area().starts_with(sigstruct));
        }
    }
}
