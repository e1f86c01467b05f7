//! Checks that only root can change a file that root acts on.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The mode bits that let others than the owner write.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// The reason why a file or folder is not trusted.
#[derive(Debug, thiserror::Error)]
pub enum NotTrusted {
    /// The file cannot be examined.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error.
        source: io::Error,
    },
    /// Another user owns the file.
    #[error("{} belongs to user {owner}, but should belong to root: chown root {}", path.display(), path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// Other users may write the file.
    #[error("users other than root can write {} (mode {mode:03o}): chmod go-w {}", path.display(), path.display())]
    Writable {
        /// The file.
        path: PathBuf,
        /// The mode.
        mode: u32,
    },
}

/// In a folder with this bit (sticky), other users can create files but not replace them.
const STICKY: u32 = 0o1000;

/// Checks that only root or the user of this process can change or replace a file or folder.
/// Follows links.
///
/// # Errors
///
/// Another user can change or replace the file, or the file cannot be examined.
pub fn check_trusted(path: &Path) -> Result<(), NotTrusted> {
    let unreadable = |source| NotTrusted::Unreadable { path: path.to_owned(), source };
    let place = fs::canonicalize(path).map_err(unreadable)?;
    check_alone(&place, 0)?;
    place.ancestors().skip(1).try_for_each(|folder| check_alone(folder, STICKY))
}

/// Checks one file or folder. A file with one of the bits of `excuse` may be writable for others.
fn check_alone(path: &Path, excuse: u32) -> Result<(), NotTrusted> {
    let data = fs::metadata(path)
        .map_err(|source| NotTrusted::Unreadable { path: path.to_owned(), source })?;
    let (owner, mode) = (data.uid(), data.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(NotTrusted::Owner { path: path.to_owned(), owner });
    }
    if mode & WRITABLE_BY_OTHERS != 0 && mode & excuse == 0 {
        return Err(NotTrusted::Writable { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn file_that_others_can_write_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hook");
        fs::write(&file, "").unwrap();
        for (mode, trusted) in
            [(0o700, true), (0o755, true), (0o775, false), (0o757, false), (0o777, false)]
        {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_trusted(&file).is_ok(), trusted, "{mode:o}");
        }
        assert!(matches!(
            check_trusted(&folder.path().join("none")),
            Err(NotTrusted::Unreadable { .. })
        ));
    }

    #[test]
    fn folder_in_which_others_can_replace_the_file_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        let file = inner.join("hook");
        fs::write(&file, "").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        for (mode, trusted) in [(0o755, true), (0o777, false), (0o1777, true), (0o775, false)] {
            fs::set_permissions(folder.path().join("a"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_trusted(&file).is_ok(), trusted, "{mode:o}");
        }
    }
}
