//! Runs the command on files of a test.
#![allow(dead_code)] // not every test file uses all of it

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use tdx_seamldr_mock::TestImage;

/// A folder for files.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    pub(crate) fn image(&self, name: &str, image: &TestImage) -> PathBuf {
        self.put(name, image.build().as_bytes())
    }
}

/// Runs `tdx-seamldr` with these arguments.
pub(crate) fn tdx_seamldr<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdx-seamldr")).args(arguments).output().unwrap()
}

/// Returns the exit status, and the JSON object on standard output.
pub(crate) fn json<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> (Option<i32>, Value) {
    let output = tdx_seamldr(
        arguments.into_iter().map(|argument| argument.as_ref().to_owned()).chain(["--json".into()]),
    );
    let object = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), object)
}

/// Runs `tdx-seamldr` with these bytes on standard input.
pub(crate) fn tdx_seamldr_reading<S: AsRef<OsStr>>(
    input: &[u8],
    arguments: impl IntoIterator<Item = S>,
) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tdx-seamldr"));
    let command =
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // The command may end before it has read all input.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output
}

/// The arguments that convert an image to a format, into `output`.
pub(crate) fn convert<'a>(image: &'a Path, to: &'a str, output: &'a Path) -> [&'a OsStr; 6] {
    [
        "convert".as_ref(),
        image.as_ref(),
        "--to".as_ref(),
        to.as_ref(),
        "-o".as_ref(),
        output.as_ref(),
    ]
}

/// The arguments that convert an image to format v2.
pub(crate) fn to_v2<'a>(image: &'a Path, output: &'a Path) -> [&'a OsStr; 6] {
    convert(image, "v2", output)
}
