//! Replays recordings of real firmware on the model, and compares.
//!
//! A recording (a "vector") is one line of a `*.jsonl` file. It contains a platform, a state, the
//! host's memory, a list of SEAMCALLs, and the observations after each call. The folder `vectors`
//! of this crate describes the formats.

pub(crate) mod described;
mod format;
mod replay;

pub use described::DescriptionError;

use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::Deserialize;

use self::described::Described;
use self::format::{Initial, Piece, PlatformDescription, Vector, Words};
use super::sparse_memory::SparseMemory;

/// Values of `needs` that the model supports, beyond the flow of an update.
const MODELLED: [&str; 5] = ["tdmr", "field-table", "info", "cpu-values", "msr-compare"];

/// A file with recordings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VectorError {
    /// A file or a folder cannot be read.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Path of the file or folder.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// A line is not a valid recording.
    #[error("{}:{line}: {message}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong with the line.
        message: String,
    },
    /// There are no recordings.
    #[error("{}: no *.jsonl file with recordings{} found", .path.display(), .group.as_ref().map_or_else(String::new, |group| format!(" of the group {group}")))]
    Empty {
        /// The folder that was searched.
        path: PathBuf,
        /// The group that was asked for; `None` for all groups.
        group: Option<String>,
    },
}

/// A field in which the model differs from the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Name of the field.
    pub field: String,
    /// Value in the model.
    pub found: String,
    /// Value in the recording.
    pub expected: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} is {} in the model, but {} in the recording",
            self.field, self.found, self.expected
        )
    }
}

/// Result of a replay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replay {
    /// The model did the same as the firmware.
    Passed,
    /// The model differed at a step, or at the end.
    Failed {
        /// The step, counted from 0; `None` for the end.
        step: Option<usize>,
        /// The differences.
        differences: Vec<Difference>,
    },
    /// The recording needs something that the model does not have.
    Skipped {
        /// What the recording needs.
        needs: String,
    },
}

/// A recording that was replayed.
#[derive(Clone, Debug)]
pub struct Replayed {
    /// Unique name: group and short name.
    pub name: String,
    /// Path of its file.
    pub path: PathBuf,
    /// Line in the file, counted from 1.
    pub line: usize,
    /// Result of the replay.
    pub replay: Replay,
}

impl fmt::Display for Replayed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.replay {
            Replay::Passed => write!(f, "{}: passed", self.name),
            Replay::Skipped { needs } => write!(f, "{}: skipped, it needs {needs}", self.name),
            Replay::Failed { step, differences } => {
                let step = step.map_or_else(|| "the end".to_owned(), |step| format!("step {step}"));
                write!(
                    f,
                    "{} ({}:{}): failed at {step}",
                    self.name,
                    self.path.display(),
                    self.line
                )?;
                differences.iter().try_for_each(|difference| write!(f, "\n    {difference}"))
            }
        }
    }
}

/// The part of a line that says what kind of recording it is.
#[derive(Deserialize)]
struct Head {
    name: String,
    group: String,
    #[serde(default)]
    needs: Words,
    initial: serde_json::Map<String, serde_json::Value>,
}

/// Replays all recordings in the `*.jsonl` files below a folder, or only those of one group. Calls
/// `each` with every result, in the order of files and lines.
///
/// # Errors
///
/// A file cannot be read, or a line is not a valid recording. The replay ends there.
pub fn replay_folder(
    folder: &Path,
    group: Option<&str>,
    mut each: impl FnMut(Replayed),
) -> Result<(), VectorError> {
    let mut files = Vec::new();
    collect(folder, &mut files)?;
    files.sort();
    let mut any = false;
    for path in files {
        let text = std::fs::read_to_string(&path)
            .map_err(|source| VectorError::Io { path: path.clone(), source })?;
        for (index, text) in text.lines().enumerate() {
            let line = index.saturating_add(1);
            let wrong = |message: String| VectorError::Line { path: path.clone(), line, message };
            let head: Head = parse(text).map_err(wrong)?;
            if group.is_some_and(|group| group != head.group) {
                continue;
            }
            any = true;
            let folder = path.parent().unwrap_or(folder);
            let replay = replay_with_head(text, &head, folder).map_err(wrong)?;
            each(Replayed { name: head.name, path: path.clone(), line, replay });
        }
    }
    if any {
        Ok(())
    } else {
        Err(VectorError::Empty { path: folder.to_owned(), group: group.map(str::to_owned) })
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), VectorError> {
    let error = |source| VectorError::Io { path: folder.to_owned(), source };
    for entry in std::fs::read_dir(folder).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(path);
        }
    }
    Ok(())
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Replays one recording, given as a line of a file. Paths in it are relative to `folder`.
///
/// # Errors
///
/// The line is not a valid recording, or a file that it names cannot be read.
pub fn replay_line(text: &str, folder: &Path) -> Result<Replay, DescriptionError> {
    let replay = parse(text).and_then(|head| replay_with_head(text, &head, folder));
    replay.map_err(DescriptionError)
}

fn replay_with_head(text: &str, head: &Head, folder: &Path) -> Result<Replay, String> {
    if let Some(needs) = head.needs.iter().find(|needs| !MODELLED.contains(needs)) {
        return Ok(Replay::Skipped { needs: needs.to_owned() });
    }
    let mut differences = Vec::new();
    let failed = if head.initial.contains_key("seamextend") {
        let vector: Vector<_, _> = parse(text)?;
        let memory = host_memory(&vector.memory, folder)?;
        replay::seamldr(&vector, &memory, &mut differences)
    } else if head.initial.contains_key("module") {
        let vector: Vector<_, _> = parse(text)?;
        let memory = host_memory(&vector.memory, folder)?;
        replay::module(&vector, &memory, &mut differences)
    } else {
        return Err("initial has neither the field `seamextend` (P-SEAMLDR) nor `module` (TDX \
                    module)"
            .to_owned());
    };
    // If the platform cannot be made or brought into its state, only this recording fails.
    let step = failed.unwrap_or_else(|DescriptionError(message)| {
        let expected = "a platform in the state that was recorded".to_owned();
        differences.push(Difference { field: "the platform".to_owned(), found: message, expected });
        None
    });
    Ok(if differences.is_empty() { Replay::Passed } else { Replay::Failed { step, differences } })
}

fn host_memory(pieces: &[Piece], folder: &Path) -> Result<SparseMemory, String> {
    let memory = SparseMemory::default();
    for Piece { pa, len, hex, file } in pieces {
        let bytes = match (hex, file) {
            (Some(hex), None) => hex.0.clone(),
            (None, Some(file)) => {
                std::fs::read(folder.join(file)).map_err(|error| format!("{file}: {error}"))?
            }
            _ => {
                return Err(format!(
                    "the memory at {:#x} has not exactly one of `hex` and `file`",
                    pa.0
                ))
            }
        };
        if bytes.len() > *len {
            return Err(format!(
                "the memory at {:#x} has {} bytes, but `len` is {len}",
                pa.0,
                bytes.len()
            ));
        }
        memory.put(pa.0, &bytes);
    }
    Ok(memory)
}

/// A platform in the form of the recordings: their `platform` and `initial`. The other fields of a
/// recording are ignored, unknown fields are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    platform: PlatformDescription,
    initial: Initial,
    #[serde(rename = "name")]
    _name: Option<IgnoredAny>,
    #[serde(rename = "group")]
    _group: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "assumes")]
    _assumes: Option<IgnoredAny>,
    #[serde(rename = "needs")]
    _needs: Option<IgnoredAny>,
    #[serde(rename = "outcomes")]
    _outcomes: Option<IgnoredAny>,
    #[serde(rename = "memory")]
    _memory: Option<IgnoredAny>,
    #[serde(rename = "steps")]
    _steps: Option<IgnoredAny>,
    #[serde(rename = "final")]
    _final: Option<IgnoredAny>,
}

/// Makes a platform from a JSON object with `platform` and `initial`, or from a whole recording.
///
/// `platform` may have fields that recordings do not have: the generation of P-SEAMLDR
/// (`loader_generation`, e.g. `"newer"`), the VMCS erratum (`seamret_clears_vmcs`), and what the
/// specifications leave open (`full_seamdb_is_fatal`, `accepts_large_signatures`). `initial.module`
/// may have `features0`.
///
/// # Errors
///
/// The text is not such an object, a field is unknown, or the platform or its state contradicts
/// itself.
pub fn platform_of_json(text: &str) -> Result<Described, DescriptionError> {
    let Description { platform, initial, .. } = parse(text).map_err(DescriptionError)?;
    described::platform(&platform, &initial)
}
