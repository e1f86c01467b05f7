//! A fact with the file that it was read from, or why it could not be read.

use std::fmt;

use serde::Serialize;

/// A value with the file that it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// The path of the file, without the root folder, or another name of the source.
    pub source: String,
}

/// Why a value is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The path of the file, without the root folder, or another name of the source.
    pub source: String,
    /// The kind of failure.
    pub reason: Reason,
    /// What was found and what was expected, in words.
    pub problem: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The file does not exist.
    Missing,
    /// Only root may read the file.
    Permission,
    /// The kernel answered ENXIO: the TDX module is not initialised, or lost.
    NoDevice,
    /// The file cannot be read for another reason.
    Unreadable,
    /// The file does not have the expected content.
    Malformed,
}

/// A value, or why it is unknown.
pub type Fact<T> = Result<Found<T>, Absent>;

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.problem)
    }
}

impl std::error::Error for Absent {}

impl<T> Found<T> {
    /// Returns the fact with another value and the same source.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), source: self.source }
    }
}
