//! Runs the command.
#![allow(dead_code)] // not every test file uses all of it

use std::ffi::OsStr;
use std::process::{Command, Output};

use serde_json::Value;

/// Runs `tdx-seamldr` with these arguments.
pub(crate) fn tdx_seamldr<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tdx-seamldr")).args(arguments).output().unwrap()
}

/// The exit status, and the JSON object on standard output.
pub(crate) fn json<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> (Option<i32>, Value) {
    let output = tdx_seamldr(
        arguments.into_iter().map(|argument| argument.as_ref().to_owned()).chain(["--json".into()]),
    );
    let object = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), object)
}
