//! Errors of the subcommands, and the exit status of each.

use std::io;
use std::path::PathBuf;

use tdx_seamldr_core::image::{ImageError, WriteError};

use crate::exit::Exit;
use crate::file::shown;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {source}", shown(path))]
    File { path: PathBuf, source: io::Error },
    #[error("{}: the file has more than {limit} bytes; no image is that large", shown(path))]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{}: found {found}, but expected a regular file or - (standard input)", shown(path))]
    NotAFile { path: PathBuf, found: &'static str },
    #[error(
        "the output {} is the input file {} and would be overwritten: name another output file",
        shown(output),
        shown(input)
    )]
    SameFile { output: PathBuf, input: PathBuf },
    #[error("{}: {source}", shown(path))]
    Image { path: PathBuf, source: ImageError },
    #[error(
        "nothing was written: P-SEAMLDR would not load this image (--allow-invalid writes it): {0}"
    )]
    Invalid(String),
    #[error("the module and the SIGSTRUCT do not form an image: {0}")]
    Write(#[from] WriteError),
    #[error("{0}")]
    Boot(#[from] tdx_seamldr_mock::BootError),
    #[error("{0}")]
    Td(#[from] tdx_seamldr_mock::NoRoomForTd),
    #[error("{0}")]
    Seamldr(#[from] tdx_seamldr_core::SeamldrError),
    #[error("{0}")]
    Update(#[from] tdx_seamldr_core::update::UpdateError),
    #[error("{0}")]
    Json(#[from] serde_json::Error),
    #[error("standard input cannot be read: {0}")]
    Input(io::Error),
    #[error("{0}")]
    Config(#[from] tdx_seamldr_host::config::ConfigError),
    #[error("{0}")]
    Absent(#[from] tdx_seamldr_host::fact::Absent),
    #[error("{0}")]
    Catalogue(#[from] tdx_seamldr_host::catalogue::FileError),
    #[error("{0}")]
    Record(#[from] tdx_seamldr_host::record::RecordError),
    #[error("the table of releases {}: {problem}", shown(path))]
    Releases { path: PathBuf, problem: String },
    #[error("the key accept of the configuration has {name:?}: {problem}")]
    Accept { name: String, problem: String },
    #[error("the path {0:?} is not UTF-8, but paths below the root must be UTF-8")]
    NotUtf8(PathBuf),
    #[error(
        "the hooks folder {0} does not exist: create it, or name another folder with hooks-dir"
    )]
    HooksFolder(String),
    #[error("the metrics cannot be written: {0}")]
    Metrics(#[from] prometheus::Error),
    #[error("the update did not begin, because signals cannot be caught: {0}")]
    Signals(io::Error),
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
}

impl Error {
    /// Returns the exit value of a command that fails with this error.
    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Write(_)
            | Self::Boot(_)
            | Self::SameFile { .. }
            | Self::Config(_)
            | Self::Absent(_)
            | Self::Catalogue(_)
            | Self::Record(_)
            | Self::Releases { .. }
            | Self::Accept { .. }
            | Self::NotUtf8(_)
            | Self::HooksFolder(_)
            | Self::Signals(_)
            | Self::Invalid(_) => Exit::Refused,
            Self::File { .. }
            | Self::TooLarge { .. }
            | Self::NotAFile { .. }
            | Self::Image { .. }
            | Self::Td(_)
            | Self::Seamldr(_)
            | Self::Update(_)
            | Self::Json(_)
            | Self::Metrics(_)
            | Self::Input(_)
            | Self::Output(_) => Exit::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_is_refused_if_signals_cannot_be_caught() {
        let error = Error::Signals(io::Error::other("no"));
        assert_eq!(error.exit(), Exit::Refused);
        assert_eq!(Error::Output(io::Error::other("no")).exit(), Exit::Failed);
    }
}
