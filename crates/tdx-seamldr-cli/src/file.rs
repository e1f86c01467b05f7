//! Files in and out.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::PageBuf;

use crate::error::Error;

/// The largest images have 496 pages and a few more; whatever is beyond this is something else.
const LIMIT: u64 = 16 << 20;

/// Reads a whole file, but not one that cannot be an image.
pub(crate) fn read(path: &Path) -> Result<PageBuf, Error> {
    let failed = |source| Error::File { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(LIMIT.saturating_add(1)).read_to_end(&mut bytes))
        .map_err(failed)?;
    if u64::try_from(bytes.len()).map_or(true, |len| len > LIMIT) {
        return Err(Error::TooLarge { path: path.to_owned(), limit: LIMIT });
    }
    Ok(PageBuf::copy_of(&bytes))
}

/// Reads an image by all the rules.
pub(crate) fn parse<'a>(path: &Path, bytes: &'a PageBuf) -> Result<TdxImage<'a>, Error> {
    TdxImage::parse(bytes.as_bytes()).map_err(|source| Error::Image { path: path.to_owned(), source })
}

/// Whether this is where the process's standard output goes: `/dev/stdout`, or the file that the shell has opened for it.
#[cfg(unix)]
pub(crate) fn is_stdout(path: &Path) -> bool {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;
    let stdout = || File::from(std::io::stdout().as_fd().try_clone_to_owned()?).metadata();
    match (stdout(), std::fs::metadata(path)) {
        (Ok(stdout), Ok(there)) => (stdout.dev(), stdout.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Only Unix has names for standard output.
#[cfg(not(unix))]
pub(crate) fn is_stdout(_: &Path) -> bool {
    false
}

/// Where links lead to in the end. Nothing is there.
fn missing_target(path: &Path) -> PathBuf {
    let mut path = path.to_owned();
    while let Ok(target) = path.read_link() {
        path.set_file_name(target);
    }
    path
}

/// Writes a file as a whole or not at all: what was there before stays until the new one is complete and on the disk. It has to be
/// a file that may be written, and its permissions stay. A link leads to the file that is written, even if that is not there yet;
/// pipes and devices are written to.
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
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new();
    #[cfg(unix)]
    if permissions.is_none() {
        file.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
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
