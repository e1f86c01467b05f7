//! Reads files of images once, up to a limit.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use tdx_seamldr_core::image::{ImageError, ImageFormat, ImageParts, WriteError};
use tdx_seamldr_core::TdxVersion;

use crate::examine::signature_format;
use crate::mapping::MappingError;
use crate::releases::TableError;
use crate::trust::NotTrusted;

/// The most bytes of an image: 496 pages of module, and a few more.
const MAX_IMAGE: u64 = 16 << 20;

/// The bytes at the start of a file that show whether it is an image.
const HEAD: usize = 16;

/// A problem of a file.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// The problem.
    pub problem: FileProblem,
}

/// The kinds of problems.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// The file cannot be read.
    #[error("{0}")]
    Read(#[from] io::Error),
    /// The path names a folder, a device or a pipe.
    #[error("this is not a regular file")]
    NotAFile,
    /// The file is larger than any image.
    #[error("the file has more than {limit} bytes; no {what} is that large")]
    TooLarge {
        /// The limit, in bytes.
        limit: u64,
        /// What was expected.
        what: &'static str,
    },
    /// The file is not an image.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// The module's binary and its SIGSTRUCT do not form an image.
    #[error("the module and its SIGSTRUCT do not form an image: {0}")]
    Pair(#[from] WriteError),
    /// The file is not a `mapping_file.json`.
    #[error("{0}")]
    Mapping(#[from] MappingError),
    /// The file is not a table of releases.
    #[error("{0}")]
    Table(#[from] TableError),
    /// Users other than root can change the file.
    #[error("{0}")]
    NotTrusted(#[from] NotTrusted),
    /// Another `mapping_file.json` contradicts this one on a release.
    #[error(
        "its entry for {0} contradicts an earlier mapping_file.json; the stricter minimum of both \
         holds"
    )]
    Contradiction(TdxVersion),
    /// The same image was found before.
    #[error("the same image as {}", .0.display())]
    Duplicate(PathBuf),
    /// The folder has too many files.
    #[error("the folder has more than {0} files; the others were not read")]
    TooMany(usize),
}

impl FileError {
    pub(crate) fn new(path: &Path, problem: impl Into<FileProblem>) -> Self {
        Self { path: path.to_owned(), problem: problem.into() }
    }

    pub(super) fn walk(path: PathBuf, error: &walkdir::Error) -> Self {
        let error = match error.io_error() {
            Some(error) => io::Error::new(error.kind(), error.to_string()),
            None => io::Error::other(error.to_string()),
        };
        Self { path, problem: error.into() }
    }
}

/// Opens a regular file.
fn open(path: &Path) -> Result<File, FileError> {
    // Opening a pipe waits for a writer, so the kind of file is checked first.
    let data = fs::metadata(path).map_err(|error| FileError::new(path, error))?;
    if !data.is_file() {
        return Err(FileError::new(path, FileProblem::NotAFile));
    }
    File::open(path).map_err(|error| FileError::new(path, error))
}

/// Appends the rest of a file of at most `limit` bytes.
fn read_rest(
    path: &Path,
    file: File,
    bytes: &mut Vec<u8>,
    limit: u64,
    what: &'static str,
) -> Result<(), FileError> {
    file.take(limit.saturating_add(1))
        .read_to_end(bytes)
        .map_err(|error| FileError::new(path, error))?;
    if u64::try_from(bytes.len()).map_or(true, |len| len > limit) {
        return Err(FileError::new(path, FileProblem::TooLarge { limit, what }));
    }
    Ok(())
}

/// Reads a text. `what` names the kind of file.
pub(crate) fn text(path: &Path, limit: u64, what: &'static str) -> Result<String, FileError> {
    let mut bytes = Vec::new();
    read_rest(path, open(path)?, &mut bytes, limit, what)?;
    String::from_utf8(bytes)
        .map_err(|error| FileError::new(path, io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Reads a file that must be an image.
pub(super) fn image(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    read_rest(path, open(path)?, &mut bytes, MAX_IMAGE, "image")?;
    Ok(bytes)
}

/// Reads a file if it begins like an image.
pub(super) fn if_image(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let mut file = open(path)?;
    let mut head = Vec::with_capacity(HEAD);
    let limit = u64::try_from(HEAD).unwrap_or_default();
    file.by_ref()
        .take(limit)
        .read_to_end(&mut head)
        .map_err(|error| FileError::new(path, error))?;
    let is_image = signature_format(&head).is_some();
    let has_name = path.extension().is_some_and(|extension| extension == "blob");
    if !is_image && !has_name {
        return Ok(None);
    }
    read_rest(path, file, &mut head, MAX_IMAGE, "image")?;
    Ok(Some(head))
}

/// Returns the SIGSTRUCT beside a module's binary: `NAME.so.sigstruct` or `NAME.sigstruct` for
/// `NAME.so`.
pub(super) fn sigstruct_beside(module: &Path) -> Option<PathBuf> {
    if !module.extension().is_some_and(|extension| extension == "so" || extension == "bin") {
        return None;
    }
    let mut after = module.as_os_str().to_owned();
    after.push(".sigstruct");
    [PathBuf::from(after), module.with_extension("sigstruct")]
        .into_iter()
        .find(|path| path.is_file())
}

/// Makes an image from a module's binary and its SIGSTRUCT. Fills the last page of the binary with
/// zeros.
pub(super) fn pair(module_path: &Path, sigstruct_path: &Path) -> Result<Vec<u8>, FileError> {
    let (mut module, sigstruct) = (image(module_path)?, image(sigstruct_path)?);
    module.resize(module.len().next_multiple_of(4096), 0);
    let parts = ImageParts { sigstruct: &sigstruct, module: &module };
    let make = || {
        let mut bytes = vec![0; parts.file_len()?];
        parts.write(ImageFormat::ImageV2, &mut bytes)?;
        Ok::<_, WriteError>(bytes)
    };
    make().map_err(|error| FileError::new(module_path, error))
}
