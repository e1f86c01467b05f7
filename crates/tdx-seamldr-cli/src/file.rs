//! Reads and writes files. `-` is standard input or standard output.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::PageBuf;

use crate::error::Error;

/// The largest file that is read, in bytes. The largest images have a little more than 496 pages.
const LIMIT: u64 = 16 << 20;

/// Whether the path is `-`: standard input or standard output.
pub(crate) fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

/// Reads a whole file or standard input. Refuses files that cannot be images.
pub(crate) fn read(path: &Path) -> Result<PageBuf, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let input: Box<dyn Read> = if is_dash(path) || path == Path::new("/dev/stdin") {
        Box::new(std::io::stdin().lock())
    } else {
        // Opening a pipe blocks, so the kind is checked first. The file may be replaced in between,
        // so it is checked again.
        check_kind(path, &std::fs::metadata(path).map_err(failed)?)?;
        let file = File::open(path).map_err(failed)?;
        check_kind(path, &file.metadata().map_err(failed)?)?;
        Box::new(file)
    };
    let mut bytes = Vec::new();
    input.take(LIMIT.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |len| len > LIMIT) {
        return Err(Error::TooLarge { path: path.to_owned(), limit: LIMIT });
    }
    Ok(PageBuf::copy_of(&bytes))
}

/// Refuses a file that is not regular.
fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), Error> {
    let found = match metadata.file_type() {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a pipe",
        kind if kind.is_socket() => "a socket",
        _ => "a device",
    };
    Err(Error::NotAFile { path: path.to_owned(), found })
}

/// Reads an image and checks all rules of its format.
pub(crate) fn parse<'a>(path: &Path, bytes: &'a PageBuf) -> Result<TdxImage<'a>, Error> {
    TdxImage::parse(bytes.as_bytes())
        .map_err(|source| Error::Image { path: path.to_owned(), source })
}

/// Returns the identity of a file: device and inode.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Returns the metadata of standard input or standard output.
fn stream(descriptor: BorrowedFd<'_>) -> std::io::Result<Metadata> {
    File::from(descriptor.try_clone_to_owned()?).metadata()
}

/// Whether the path is the process's standard output: `-`, `/dev/stdout`, or the file that the
/// shell redirects to.
pub(crate) fn is_stdout(path: &Path) -> bool {
    is_dash(path)
        || match (stream(std::io::stdout().as_fd()), std::fs::metadata(path)) {
            (Ok(stdout), Ok(there)) => identity(&stdout) == identity(&there),
            _ => false,
        }
}

/// Refuses an output that is also an input, under any name.
pub(crate) fn check_output(output: &Path, inputs: &[&Path]) -> Result<(), Error> {
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let regular = |path: &Path, dash: BorrowedFd<'_>| {
        let found = if is_dash(path) { stream(dash) } else { std::fs::metadata(path) };
        found.ok().filter(Metadata::is_file).map(|found| identity(&found))
    };
    let Some(written) = regular(output, stdout.as_fd()) else { return Ok(()) };
    match inputs.iter().find(|input| regular(input, stdin.as_fd()) == Some(written)) {
        Some(input) => {
            Err(Error::SameFile { output: output.to_owned(), input: input.to_path_buf() })
        }
        None => Ok(()),
    }
}

/// Refuses standard input that is named more than once.
pub(crate) fn check_one_stdin<'a>(
    inputs: impl IntoIterator<Item = &'a Path>,
) -> Result<(), String> {
    match inputs.into_iter().filter(|path| is_dash(path)).count() {
        0 | 1 => Ok(()),
        count => {
            Err(format!("standard input (-) is named {count} times, but can be read only once"))
        }
    }
}

/// Returns a path for people. Escapes characters that a terminal hides or obeys.
pub(crate) fn shown(path: &Path) -> String {
    match path.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => tdx_seamldr_host::text::printable(&path.to_string_lossy()),
    }
}

/// Returns the final target of links. The target does not exist.
fn missing_target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    while let Ok(target) = path.read_link() {
        path.set_file_name(target);
    }
    path
}

/// Writes a file completely or not at all: the old file stays until the new one is complete and on
/// the disk. The caller must have permission to write the old file, whose permissions stay. A link
/// is followed, even to a file that does not exist yet. Pipes and devices are written in place.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let (path, permissions) = match std::fs::metadata(path) {
        Ok(there) if !there.is_file() => return std::fs::write(path, bytes).map_err(failed),
        Ok(there) => {
            OpenOptions::new().write(true).open(path).map_err(failed)?;
            (path.canonicalize().map_err(failed)?, Some(there.permissions()))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => (missing_target(path), None),
        Err(error) => return Err(failed(error)),
    };
    let folder =
        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new();
    if permissions.is_none() {
        file.permissions(PermissionsExt::from_mode(0o644));
    }
    let mut file = file.tempfile_in(folder).map_err(failed)?;
    file.write_all(bytes).map_err(failed)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions).map_err(failed)?;
    }
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
