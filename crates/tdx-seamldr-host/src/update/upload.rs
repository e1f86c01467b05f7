//! The firmware upload of the kernel: `/sys/class/firmware/tdx_module`.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::thread;
use std::time::{Duration, Instant};

use crate::fact::{Absent, Reason};
use crate::host::UPLOAD;
use crate::root::Root;

/// Bytes that go to the kernel at once. Between two pieces the upload can be aborted.
const PIECE: usize = 64 << 10;

/// The longest answer of `status`, `loading` or `error`.
const ANSWER: u64 = 4096;

/// How long to wait between two looks at `status`.
const PAUSE: Duration = Duration::from_millis(50);

/// What went wrong before the last write. The kernel has dropped the upload: nothing was touched.
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
    /// The kernel works on another upload.
    #[error("the kernel works on another upload: status is {0:?}")]
    Busy(String),
    /// Another program has begun an upload.
    #[error("another program has begun an upload and not ended it: {UPLOAD}/loading is 1")]
    Begun,
    /// Another program changed the upload before the last write.
    #[error("another program changed the upload: {0}")]
    Changed(String),
    /// The operator asked to stop, or a check before the last write failed.
    #[error("aborted before the last write")]
    Aborted,
}

/// How an upload ended, by the kernel's files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// `status` is idle, and this is what `error` says. Empty: no error.
    Idle(String),
    /// `status` was not idle when the time was over.
    StillBusy(String),
    /// The files cannot be read any more.
    Lost(Absent),
}

/// An upload that has begun. If it is dropped before [`commit`](Self::commit), the kernel forgets
/// it.
#[derive(Debug)]
pub(super) struct Upload<'r> {
    root: &'r Root,
    open: bool,
}

impl<'r> Upload<'r> {
    /// Begins an upload. One that was begun and not ended is dropped only if `is_ours` says that it
    /// was this command's, in an earlier process: another program may still be writing.
    pub(super) fn begin(
        root: &'r Root,
        is_ours: &mut dyn FnMut() -> bool,
    ) -> Result<Self, UploadError> {
        let mut upload = Self { root, open: false };
        let status = upload.read("status").map_err(UploadError::Read)?;
        if status != "idle" {
            return Err(UploadError::Busy(status));
        }
        if upload.read("loading").map_err(UploadError::Read)? == "1" {
            if !is_ours() {
                return Err(UploadError::Begun);
            }
            upload.write("loading", b"-1")?;
        }
        upload.write("loading", b"1")?;
        upload.open = true;
        Ok(upload)
    }

    /// Gives the image to the kernel, piece by piece. `go_on` is asked before each piece.
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

    /// Sees that the kernel has exactly this image, and that the upload is still open. Linux shows
    /// what it has until the last write; a kernel that does not cannot be asked.
    pub(super) fn check(&mut self, image: &[u8]) -> Result<(), UploadError> {
        let loading = self.read("loading").map_err(UploadError::Read)?;
        if loading != "1" {
            // What is open now is another program's.
            self.open = false;
            return Err(UploadError::Changed(format!(
                "loading is {loading:?}, but should be \"1\""
            )));
        }
        let limit = u64::try_from(image.len()).unwrap_or(u64::MAX);
        let file = format!("{UPLOAD}/data");
        match self.root.read_bytes(&file, limit) {
            Ok(there) if there != image => {
                Err(UploadError::Changed(format!("{file} is not the image that was written")))
            }
            // More than was written.
            Err(absent) if absent.reason == Reason::Malformed => {
                Err(UploadError::Changed(absent.to_string()))
            }
            _ => Ok(()),
        }
    }

    /// Writes the last byte. From here on the kernel updates the module, and nobody can stop it.
    pub(super) fn commit(mut self) -> Result<Committed<'r>, UploadError> {
        self.write("loading", b"0")?;
        self.open = false;
        Ok(Committed { root: self.root })
    }

    fn read(&self, name: &str) -> Result<String, Absent> {
        self.root.read_text(&format!("{UPLOAD}/{name}"), ANSWER)
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
            // The kernel forgets the upload also when the next one begins.
            let _ = self.write("loading", b"-1");
        }
    }
}

/// An upload that the kernel works on.
#[derive(Debug)]
pub(super) struct Committed<'r> {
    root: &'r Root,
}

impl Committed<'_> {
    /// Waits until the kernel has ended. `looked` hears of each new status, and `None` of each look
    /// that shows none.
    pub(super) fn wait(&self, limit: Duration, looked: &mut dyn FnMut(Option<&str>)) -> Ended {
        let begin = Instant::now();
        let mut last = String::new();
        loop {
            let status = match self.read("status") {
                Ok(status) => status,
                // One failed look does not tell anything; the last one does.
                Err(absent) if begin.elapsed() >= limit => return Ended::Lost(absent),
                Err(_) => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            looked(Some(status.as_str()).filter(|status| *status != last));
            last.clone_from(&status);
            if status == "idle" {
                match self.read("error") {
                    Ok(error) => return Ended::Idle(error),
                    // EBUSY: another upload has begun in the meantime.
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

    fn read(&self, name: &str) -> Result<String, Absent> {
        self.root.read_text(&format!("{UPLOAD}/{name}"), ANSWER)
    }
}
