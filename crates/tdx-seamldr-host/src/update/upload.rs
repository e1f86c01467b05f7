//! The firmware upload of the kernel: `/sys/class/firmware/tdx_module`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::fact::{Absent, Reason};
use crate::host::UPLOAD;
use crate::root::Root;

/// The bytes of one write to the kernel. The upload can be aborted between two writes.
const PIECE: usize = 64 << 10;

/// The longest answer of `status`, `loading` or `error`.
const ANSWER: u64 = 4096;

/// The pause between two reads of `status`.
const PAUSE: Duration = Duration::from_millis(50);

/// A failure before the last write. The kernel has dropped the upload: nothing was touched.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// A file of the upload could not be read.
    #[error("{0}")]
    Read(Absent),
    /// A file of the upload could not be written.
    #[error("{file} cannot be written: {source}")]
    Write {
        /// The file.
        file: String,
        /// The error.
        source: io::Error,
    },
    /// The kernel processes another upload.
    #[error("the kernel processes another upload: the status is {0:?}, but should be \"idle\"")]
    Busy(String),
    /// Another program has an open upload.
    #[error("another program has an open upload: {UPLOAD}/loading is 1, but should be 0")]
    Begun,
    /// Another program changed the upload before the last write.
    #[error("another program changed the upload: {0}")]
    Changed(String),
    /// The operator asked to stop.
    #[error("aborted before the last write")]
    Aborted,
}

/// How an upload ended, from the kernel's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// `status` is idle. The text of `error`, empty if no error.
    Idle(String),
    /// `status` was not idle at the time limit.
    StillBusy(String),
    /// The files cannot be read any more.
    Lost(Absent),
}

/// An open upload. If it is dropped before [`commit`](Self::commit), the kernel discards it.
#[derive(Debug)]
pub(super) struct Upload<'r> {
    root: &'r Root,
    open: bool,
}

impl<'r> Upload<'r> {
    /// Begins an upload. Cancels an open upload only if `is_ours` says that an earlier process of
    /// this command began it. Another program may still be writing its upload.
    pub(super) fn begin(
        root: &'r Root,
        is_ours: &mut dyn FnMut() -> bool,
    ) -> Result<Self, UploadError> {
        let mut upload = Self { root, open: false };
        let status = read(root, "status").map_err(UploadError::Read)?;
        if status != "idle" {
            return Err(UploadError::Busy(status));
        }
        if read(root, "loading").map_err(UploadError::Read)? == "1" {
            if !is_ours() {
                return Err(UploadError::Begun);
            }
            upload.write("loading", b"-1")?;
        }
        upload.write("loading", b"1")?;
        upload.open = true;
        Ok(upload)
    }

    /// Writes the image to the kernel, piece by piece. Calls `go_on` before each piece.
    pub(super) fn send(
        &self,
        image: &[u8],
        go_on: &mut dyn FnMut(usize) -> bool,
    ) -> Result<(), UploadError> {
        let file = format!("{UPLOAD}/data");
        let failed = |source| UploadError::Write { file: file.clone(), source };
        let path = self.root.path(&file).map_err(UploadError::Read)?;
        let mut data = OpenOptions::new().write(true).truncate(true).open(path).map_err(failed)?;
        let mut sent = 0_usize;
        for piece in image.chunks(PIECE) {
            if !go_on(sent) {
                return Err(UploadError::Aborted);
            }
            data.write_all(piece).map_err(failed)?;
            sent = sent.saturating_add(piece.len());
        }
        Ok(())
    }

    /// Checks that the kernel has exactly this image and that the upload is still open. Linux shows
    /// the data until the last write. Skips the check on a kernel that does not.
    pub(super) fn check(&mut self, image: &[u8]) -> Result<(), UploadError> {
        let loading = read(self.root, "loading").map_err(UploadError::Read)?;
        if loading != "1" {
            // The open upload belongs to another program.
            self.open = false;
            return Err(UploadError::Changed(format!(
                "loading is {loading:?}, but should be \"1\""
            )));
        }
        let limit = u64::try_from(image.len()).unwrap_or(u64::MAX);
        let file = format!("{UPLOAD}/data");
        match self.root.read_bytes(&file, limit) {
            Ok(there) if there != image => {
                Err(UploadError::Changed(format!("{file} differs from the image that was written")))
            }
            // The kernel has more bytes than this command wrote.
            Err(absent) if absent.reason == Reason::Malformed => {
                Err(UploadError::Changed(absent.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Writes the last byte. From now on the kernel updates the module and cannot be stopped.
    pub(super) fn commit(mut self) -> Result<Committed<'r>, UploadError> {
        self.write("loading", b"0")?;
        self.open = false;
        Ok(Committed { root: self.root })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), UploadError> {
        let file = format!("{UPLOAD}/{name}");
        let path = self.root.path(&file).map_err(UploadError::Read)?;
        let written = OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(path)
            .and_then(|mut file| file.write_all(bytes));
        written.map_err(|source| UploadError::Write { file, source })
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        if self.open {
            // The kernel also discards the upload when the next one begins.
            let _ = self.write("loading", b"-1");
        }
    }
}

/// Reads a file of the upload.
fn read(root: &Root, name: &str) -> Result<String, Absent> {
    root.read_text(&format!("{UPLOAD}/{name}"), ANSWER)
}

/// An upload that the kernel processes.
#[derive(Debug)]
pub(super) struct Committed<'r> {
    root: &'r Root,
}

impl Committed<'_> {
    /// Waits until the kernel finishes. Calls `looked` with each new status, and with `None` for
    /// each other read.
    pub(super) fn wait(&self, limit: Duration, looked: &mut dyn FnMut(Option<&str>)) -> Ended {
        let begin = Instant::now();
        let mut last = String::new();
        loop {
            let status = match read(self.root, "status") {
                Ok(status) => status,
                // A single failed read proves nothing; the last read counts.
                Err(absent) if begin.elapsed() >= limit => return Ended::Lost(absent),
                Err(_) => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            looked(Some(status.as_str()).filter(|status| *status != last));
            last.clone_from(&status);
            if status == "idle" {
                match read(self.root, "error") {
                    Ok(error) => return Ended::Idle(error),
                    // EBUSY: another upload has begun in between.
                    Err(absent) if absent.reason != Reason::Unreadable => {
                        return Ended::Lost(absent)
                    }
                    Err(_) => {}
                }
            }
            if begin.elapsed() >= limit {
                return Ended::StillBusy(last);
            }
            thread::sleep(PAUSE);
        }
    }
}
