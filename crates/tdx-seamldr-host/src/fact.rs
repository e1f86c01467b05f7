//! A fact with the place where it was read, or why it could not be read there.

use std::fmt;

use serde::Serialize;

/// A value, and the file that it was read from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Found<T> {
    /// The value.
    pub value: T,
    /// The path of the file, without the root folder, or another name of the place.
    pub source: String,
}

/// Why a value is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The path of the file, without the root folder, or another name of the place.
    pub source: String,
    /// What kind of failure.
    pub reason: Reason,
    /// What was found and what was expected, in words.
    pub problem: String,
}

/// The kinds of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// There is no such file.
    Missing,
    /// Only root may read the file.
    Permission,
    /// The kernel answered ENXIO: the TDX module is not initialised, or gone.
    NoDevice,
    /// The file cannot be read for another reason.
    Unreadable,
    /// The file does not say what it should.
    Malformed,
}

/// A value that user space knows, or why not.
pub type Fact<T> = Result<Found<T>, Absent>;

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.source, self.problem)
    }
}

impl std::error::Error for Absent {}

impl<T> Found<T> {
    /// Returns the value with the same source, changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Found<U> {
        Found { value: change(self.value), source: self.source }
    }
}
