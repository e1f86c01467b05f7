//! A thread that answers an upload to a tree as Linux does.
//!
//! `data` becomes a FIFO, which holds less than an image: the thread sets `status` in the second
//! half of an upload, before it can end. So the command never sees a status that is older than its
//! own write of `loading`. (Linux sets it in that write, which a FIFO cannot.)
//!
//! The example `host-folder` plays the kernel with this file, too.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{mknodat, FileType, Mode, OFlags, CWD};

use crate::patience::wait_until;

pub(crate) const TDX_HOST: &str = "sys/devices/faux/tdx_host";
pub(crate) const UPLOAD: &str = "sys/devices/faux/tdx_host/firmware/tdx_module";

/// Bytes of an image after which the status is no longer idle. Each of Intel's images has 64 KiB
/// more, which a FIFO holds.
const LATE: usize = 300_000;

/// The kernel's answer to an image.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    /// Installs this version, and counts the update.
    Installs(&'static str),
    /// Refuses with this error, before the module is shut down.
    Refuses(&'static str),
    /// Loses TDX with this error.
    Loses(&'static str),
    /// Installs this version after [`Kernel::release`].
    WaitsAndInstalls(&'static str),
    /// Never finishes.
    Hangs,
}

/// The state that a test and the kernel's thread share.
#[derive(Debug, Default)]
struct Shared {
    over: AtomicBool,
    /// The number of bytes after which the kernel stops reading. 0 for no limit.
    holds_at: AtomicUsize,
    is_holding: AtomicBool,
    is_at_work: AtomicBool,
    released: AtomicBool,
    image: Mutex<Vec<u8>>,
}

/// A kernel that runs until it is dropped.
pub(crate) struct Kernel {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Kernel {
    /// Answers the uploads of the tree below a folder, one after the other, with these answers.
    pub(crate) fn new(root: impl AsRef<Path>, answers: &[Does]) -> Self {
        Self::holding(root, answers, 0)
    }

    /// Answers like [`Kernel::new`], but stops reading the first image after `holds_at` bytes until
    /// it is released.
    pub(crate) fn holding(root: impl AsRef<Path>, answers: &[Does], holds_at: usize) -> Self {
        let root = root.as_ref().to_owned();
        let data = root.join(UPLOAD).join("data");
        if fs::metadata(&data).unwrap().is_file() {
            fs::remove_file(&data).unwrap();
            mknodat(CWD, &data, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        }
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let data = File::options().read(true).custom_flags(flags).open(data).unwrap();
        let shared = Arc::new(Shared { holds_at: holds_at.into(), ..Shared::default() });
        let side = Side { root, shared: Arc::clone(&shared), answers: answers.to_vec() };
        let thread = Some(thread::spawn(move || side.run(data)));
        Self { shared, thread }
    }

    /// Waits until the kernel holds an upload back.
    pub(crate) fn wait_until_holding(&self) {
        wait_until("the kernel holds the upload", || self.shared.is_holding.load(Ordering::SeqCst));
    }

    /// Waits until the kernel has a whole image and works on it.
    pub(crate) fn wait_until_at_work(&self) {
        wait_until("the kernel is at work", || self.shared.is_at_work.load(Ordering::SeqCst));
    }

    /// Lets the kernel continue.
    pub(crate) fn release(&self) {
        self.shared.holds_at.store(0, Ordering::SeqCst);
        self.shared.released.store(true, Ordering::SeqCst);
    }

    /// Returns the bytes of the last upload.
    pub(crate) fn image(&self) -> Vec<u8> {
        self.shared.image.lock().unwrap().clone()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// The thread's side.
struct Side {
    root: PathBuf,
    shared: Arc<Shared>,
    answers: Vec<Does>,
}

impl Side {
    fn run(self, mut data: File) {
        let mut answers = self.answers.iter();
        let (mut is_receiving, mut is_closed) = (false, false);
        let mut piece = vec![0; 16 << 10];
        while !self.shared.over.load(Ordering::SeqCst) {
            let holds_at = self.shared.holds_at.load(Ordering::SeqCst);
            let taken = self.shared.image.lock().unwrap().len();
            if holds_at != 0 && is_receiving && taken >= holds_at {
                self.shared.is_holding.store(true, Ordering::SeqCst);
            } else {
                match data.read(&mut piece) {
                    Ok(0) => is_closed = true,
                    Ok(count) => {
                        let mut image = self.shared.image.lock().unwrap();
                        if !is_receiving || is_closed {
                            // A killed upload leaves a part of its bytes.
                            image.clear();
                            // Linux does this in the last write, before the write returns.
                            self.set(UPLOAD, "error", "");
                        }
                        (is_receiving, is_closed) = (true, false);
                        let before = image.len();
                        image.extend(&piece[..count]);
                        if before < LATE && image.len() >= LATE {
                            self.set(UPLOAD, "status", "receiving");
                        }
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => panic!("{error}"),
                }
            }
            // An empty file is just being written.
            match self.get("loading").as_str() {
                "0" if is_receiving => {
                    is_receiving = false;
                    self.set(UPLOAD, "error", "");
                    self.answer(*answers.next().expect("an upload that no test expects"));
                }
                "-1" if is_receiving => {
                    is_receiving = false;
                    self.set(UPLOAD, "status", "idle");
                }
                _ => {}
            }
            thread::sleep(Duration::from_micros(500));
        }
    }

    fn file(&self, folder: &str, name: &str) -> PathBuf {
        self.root.join(folder).join(name)
    }

    fn get(&self, name: &str) -> String {
        fs::read_to_string(self.file(UPLOAD, name)).unwrap().trim_end().to_owned()
    }

    /// Writes a file in one step, so that no reader sees a part of it.
    fn set(&self, folder: &str, name: &str, text: &str) {
        replace(&self.file(folder, name), &format!("{text}\n"));
    }

    fn answer(&self, does: Does) {
        match does {
            Does::Installs(version) => self.install(version),
            Does::Refuses(error) => self.set(UPLOAD, "error", &format!("transferring:{error}")),
            Does::Loses(error) => {
                let version = self.file(TDX_HOST, "version");
                fs::remove_file(&version).unwrap();
                // Opening a socket gives ENXIO, like reading `version` without a module.
                drop(UnixListener::bind(version).unwrap());
                self.set(UPLOAD, "error", &format!("transferring:{error}"));
            }
            Does::WaitsAndInstalls(version) => {
                self.set(UPLOAD, "status", "transferring");
                self.shared.is_at_work.store(true, Ordering::SeqCst);
                while !self.shared.released.load(Ordering::SeqCst) {
                    if self.shared.over.load(Ordering::SeqCst) {
                        return;
                    }
                    thread::sleep(Duration::from_millis(1));
                }
                self.install(version);
            }
            Does::Hangs => return self.set(UPLOAD, "status", "transferring"),
        }
        self.set(UPLOAD, "status", "idle");
    }

    fn install(&self, version: &str) {
        let counter = ["num_remaining_updates", "seamldr/num_remaining_updates"]
            .map(|name| self.file(TDX_HOST, name))
            .into_iter()
            .find(|counter| counter.exists())
            .unwrap();
        let remaining: u32 = fs::read_to_string(&counter).unwrap().trim_end().parse().unwrap();
        self.set(TDX_HOST, "version", version);
        replace(&counter, &format!("{}\n", remaining - 1));
    }
}

fn replace(path: &Path, text: &str) {
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap()).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.persist(path).unwrap();
}
