//! The lock that allows one update at a time on a host.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;

use crate::fact::Absent;
use crate::root::Root;

/// The file that is locked. It contains the process id of the holder.
const LOCK: &str = "/run/tdx-seamldr.lock";

/// The most digits of a process id.
const PID: u64 = 20;

/// Why the lock cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds the lock.
    #[error("another update is running: process {holder} has locked {LOCK}")]
    Held {
        /// The process id in the file, or `unknown`.
        holder: String,
    },
    /// The file cannot be opened or locked.
    #[error("{LOCK} cannot be locked: {0}")]
    Failed(io::Error),
    /// The path of the file cannot be resolved.
    #[error("{0}")]
    Path(Absent),
}

/// The lock. The system releases it when the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, or returns the process that holds it.
    pub(super) fn take(root: &Root) -> Result<Self, LockError> {
        let path = root.path(LOCK).map_err(LockError::Path)?;
        if let Some(folder) = path.parent().filter(|_| !root.is_system()) {
            std::fs::create_dir_all(folder).map_err(LockError::Failed)?;
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let mut file = options.open(path).map_err(LockError::Failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                let read = Read::by_ref(&mut file).take(PID).read_to_string(&mut holder);
                let is_pid = read.is_ok()
                    && !holder.is_empty()
                    && holder.bytes().all(|byte| byte.is_ascii_digit());
                return Err(LockError::Held {
                    holder: if is_pid { holder } else { "unknown".into() },
                });
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Failed(error)),
        }
        let note = file.set_len(0).and_then(|()| write!(file, "{}", std::process::id()));
        note.map_err(LockError::Failed)?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn second_lock_is_refused_and_names_the_holder() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let lock = Lock::take(&root).unwrap();
        let error = Lock::take(&root).unwrap_err();
        assert!(error.to_string().contains(&format!("process {} ", std::process::id())), "{error}");
        drop(lock);
        Lock::take(&root).unwrap();
    }
}
