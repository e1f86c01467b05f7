//! Replays the recordings of real firmware on the model.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::unreachable,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::arithmetic_side_effects
)]

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use tdx_seamldr_mock::vectors::{replay_folder, replay_line, Replay, VectorError};

fn recordings(of: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors").join(of)
}

/// Returns how many recordings passed and how many were skipped. Prints the others and fails.
fn replay_all(of: &str) -> (usize, usize) {
    let (mut passed, mut skipped, mut failed) = (0, 0, String::new());
    replay_folder(&recordings(of), None, |replayed| match replayed.replay {
        Replay::Passed => passed += 1,
        Replay::Skipped { .. } => skipped += 1,
        Replay::Failed { .. } => failed += &format!("{replayed}\n"),
    })
    .unwrap();
    assert!(failed.is_empty(), "{failed}");
    (passed, skipped)
}

#[test]
fn the_model_of_p_seamldr_matches_every_recording() {
    assert_eq!(replay_all("p-seamldr"), (363, 0));
}

#[test]
fn the_model_of_the_module_matches_every_recording() {
    assert_eq!(replay_all("tdx-module"), (388, 0));
}

/// Collects the paths of all values in a JSON value, except lists and objects.
fn leaves(value: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                leaves(field, &format!("{path}/{name}"), found);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                leaves(item, &format!("{path}/{index}"), found);
            }
        }
        Value::Null => {}
        _ => found.push(path.to_owned()),
    }
}

/// Returns a different value of the same kind.
fn changed(value: &Value) -> Value {
    match value {
        Value::Bool(flag) => Value::Bool(!flag),
        Value::Number(number) => Value::from(number.as_u64().unwrap() ^ 1),
        Value::String(text) if text.starts_with("0x") => {
            let number = u64::from_str_radix(&text[2..], 16).unwrap();
            Value::from(format!("{:#x}", number ^ 1))
        }
        Value::String(text)
            if text.bytes().all(|byte| byte.is_ascii_hexdigit()) && text.len() % 2 == 0 =>
        {
            let first = text.bytes().next().map_or(0, |digit| u8::from(digit == b'0'));
            Value::from(format!("0{first}{}", text.get(2..).unwrap_or("")))
        }
        Value::String(text) => {
            Value::from(if text == "SYS_READY" { "SYS_SHUTDOWN" } else { "SYS_READY" })
        }
        _ => unreachable!("not a leaf"),
    }
}

/// Changes each recorded result, in one of every `one_of` recordings. No changed recording passes,
/// so the replay compares everything.
fn no_changed_result_passes(of: &str, one_of: usize) {
    let mut changes = 0;
    let mut files: Vec<_> =
        std::fs::read_dir(recordings(of)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    let lines: Vec<String> = files
        .iter()
        .flat_map(|path| {
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    for line in lines.iter().step_by(one_of) {
        let vector: Value = serde_json::from_str(line).unwrap();
        if replay_line(line, &recordings(of)).unwrap() != Replay::Passed {
            continue;
        }
        let mut paths = Vec::new();
        for (index, step) in vector["steps"].as_array().unwrap().iter().enumerate() {
            for part in ["expect", "after"] {
                leaves(&step[part], &format!("/steps/{index}/{part}"), &mut paths);
            }
        }
        leaves(&vector["final"], "/final", &mut paths);
        // Fields that a recording contains twice are compared once.
        paths.retain(|path| !path.starts_with("/final/fields/"));
        for path in paths.iter().step_by(7) {
            let mut other = vector.clone();
            let leaf = other.pointer_mut(path).unwrap();
            *leaf = changed(leaf);
            let replay = replay_line(&other.to_string(), &recordings(of));
            assert!(
                !matches!(replay, Ok(Replay::Passed)),
                "{}: {path} was changed, but the replay still passes",
                vector["name"]
            );
            changes += 1;
        }
    }
    assert!(changes > 200, "only {changes} changes");
}

#[test]
fn every_recorded_result_of_p_seamldr_is_compared() {
    no_changed_result_passes("p-seamldr", 9);
}

#[test]
fn every_recorded_result_of_the_module_is_compared() {
    no_changed_result_passes("tdx-module", 9);
}

/// A temporary folder with one file of recordings.
struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, lines: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tdx-vectors-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join("some.jsonl"), lines).unwrap();
        Self(path)
    }

    fn error(&self) -> String {
        replay_folder(&self.0, None, |_| {}).unwrap_err().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn errors_in_recordings_name_file_and_line() {
    let text = std::fs::read_to_string(recordings("p-seamldr").join("info.jsonl")).unwrap();
    let mut lines = text.lines();
    let (good, other) = (lines.next().unwrap(), lines.next().unwrap());
    // A recording that refers to a memory file works only in its own folder.
    let without_files = |line: &str| {
        let mut vector: Map<String, Value> = serde_json::from_str(line).unwrap();
        vector["memory"].as_array_mut().unwrap().retain(|piece| piece.get("file").is_none());
        Value::Object(vector).to_string()
    };
    let (good, other) = (without_files(good), without_files(other));
    assert!(replay_folder(&Folder::with("good", &good).0, None, |_| {}).is_ok());
    let rows = [
        ("truncated", other[..other.len() / 2].to_owned(), "EOF while parsing"),
        ("type", other.replacen("\"num_lps\":", "\"num_lps\":\"two\",\"was\":", 1), "invalid type"),
        (
            "misspelt",
            other.replacen("\"num_lps\"", "\"lps\"", 1),
            "unknown field `lps`, expected one of `num_lps`",
        ),
        (
            "missing",
            other.replacen("\"platform\":{", "\"platform\":{},\"was\":{", 1),
            "missing field `num_lps`",
        ),
        ("number", other.replacen("\"rax\":\"0x", "\"rax\":\"0y", 1), "a string of \"0x\""),
        (
            "unknown",
            other.replacen("\"expect\":{", "\"expect\":{\"rbp\":0,", 1),
            "unknown field `rbp`",
        ),
        (
            "blob",
            other
                .replacen(
                    "\"memory\":[",
                    "\"memory\":[{\"pa\":\"0x0\",\"len\":1,\"file\":\"no.bin\"},",
                    1,
                )
                .replace("},]", "}]"),
            "no.bin: ",
        ),
        (
            "kind",
            other.replacen("\"initial\":{", "\"initial\":{},\"was\":{", 1),
            "neither the field `seamextend`",
        ),
        ("empty line", String::new(), "EOF while parsing"),
    ];
    for (name, bad, expected) in rows {
        let folder = Folder::with(name, &format!("{good}\n{bad}\n{good}\n"));
        let error = folder.error();
        assert!(error.contains("some.jsonl:2: ") && error.contains(expected), "{name}: {error}");
    }
    let folder = Folder::with("none", "");
    assert!(matches!(replay_folder(&folder.0, None, |_| {}), Err(VectorError::Empty { .. })));
    assert!(folder.error().contains("no *.jsonl file"));
    let nowhere = folder.0.join("nowhere");
    assert!(matches!(replay_folder(&nowhere, None, |_| {}), Err(VectorError::Io { .. })));
}

#[test]
fn replay_folder_replays_one_group() {
    let mut names = Vec::new();
    replay_folder(&recordings("p-seamldr"), Some("enomem"), |replayed| names.push(replayed.name))
        .unwrap();
    assert_eq!(names.len(), 17);
    assert!(names.iter().all(|name| name.starts_with("enomem/")));
    let none = replay_folder(&recordings("p-seamldr"), Some("nothing"), |_| {}).unwrap_err();
    assert!(none.to_string().contains("the group nothing"), "{none}");
}

#[test]
fn a_recording_with_a_write_longer_than_a_page_is_rejected() {
    let folder = recordings("p-seamldr");
    let text = std::fs::read_to_string(folder.join("info.jsonl")).unwrap();
    let mut tried = 0;
    for line in text.lines() {
        let mut recording: Value = serde_json::from_str(line).unwrap();
        let mut steps = recording["steps"].as_array_mut().into_iter().flatten();
        let Some(len) = steps.find_map(|step| step.pointer_mut("/expect/writes/0/len")) else {
            continue;
        };
        *len = Value::from(u64::MAX);
        let refused = replay_line(&recording.to_string(), &folder).unwrap_err().to_string();
        assert!(refused.contains("18446744073709551615") && refused.contains("4096"), "{refused}");
        tried += 1;
    }
    assert!(tried > 0);
}
