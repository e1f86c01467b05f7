//! What can go wrong.

use std::io;
use std::path::PathBuf;

use tdx_seamldr_core::image::{ImageError, WriteError};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{}: the file has more than {limit} bytes, more than any image", path.display())]
    TooLarge { path: PathBuf, limit: u64 },
    #[error("{}: {source}", path.display())]
    Image { path: PathBuf, source: ImageError },
    #[error("these parts make no image: {0}")]
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
    #[error("the output cannot be written: {0}")]
    Output(#[from] io::Error),
    /// Everything has been said already.
    #[error("refused")]
    Refused,
}
