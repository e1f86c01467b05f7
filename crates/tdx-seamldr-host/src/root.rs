//! The folder below which all files of a host are read: `/`, or a copy of it in a container or a
//! test.

use std::ffi::OsString;
use std::fs::{self, File, FileType, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::fact::{Absent, Reason};

/// Bytes of one read. The longest record of the kernel's log is shorter.
const RECORD: usize = 64 << 10;

/// The most links in one path, as in Linux.
const MAX_LINKS: u32 = 40;

/// A root folder. Its methods take absolute paths and read them below the folder.
///
/// Links cannot lead out of a folder other than `/`: an absolute target starts at the folder, and
/// `..` stops at it. The links are followed before the file is opened. Only trusted users may write
/// to the folder in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    folder: PathBuf,
}

impl Default for Root {
    fn default() -> Self {
        Self::new("/")
    }
}

impl Root {
    /// Returns the root for a folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// Returns the folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the folder is the root of the running system.
    #[must_use]
    pub fn is_system(&self) -> bool {
        self.folder.components().eq([Component::RootDir])
    }

    /// Returns the path of a file with all links followed, also of a file that does not exist yet.
    /// Writers open this path.
    ///
    /// # Errors
    ///
    /// The path leads through more than 40 links.
    pub fn path(&self, path: &str) -> Result<PathBuf, Absent> {
        if self.is_system() {
            return Ok(self.folder.join(path));
        }
        self.follow(path).ok_or_else(|| Absent {
            source: path.to_owned(),
            reason: Reason::Unreadable,
            problem: format!("leads through more than {MAX_LINKS} links"),
        })
    }

    fn follow(&self, path: &str) -> Option<PathBuf> {
        let mut ahead = Vec::new();
        let mut behind = PathBuf::new();
        let mut links = 0_u32;
        push_steps(Path::new(path), &mut ahead);
        while let Some(step) = ahead.pop() {
            match step {
                Step::Root => behind.clear(),
                Step::Up => drop(behind.pop()),
                Step::Down(name) => {
                    let next = behind.join(name);
                    match fs::read_link(self.folder.join(&next)) {
                        Ok(target) => {
                            links = links.checked_add(1).filter(|links| *links <= MAX_LINKS)?;
                            push_steps(&target, &mut ahead);
                        }
                        Err(_) => behind = next,
                    }
                }
            }
        }
        Some(self.folder.join(behind))
    }

    /// Whether the file or folder exists, readable or not.
    #[must_use]
    pub fn exists(&self, path: &str) -> bool {
        self.metadata(path).is_ok()
    }

    /// Whether the last step of a path is a link, also a dangling link.
    pub(crate) fn is_link(&self, path: &str) -> bool {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = if folder.is_empty() { "/" } else { folder };
        let place = self.path(folder).map(|folder| folder.join(name));
        place.is_ok_and(|place| {
            fs::symlink_metadata(place).is_ok_and(|metadata| metadata.is_symlink())
        })
    }

    /// Whether the path is a regular file.
    #[must_use]
    pub fn is_file(&self, path: &str) -> bool {
        self.metadata(path).is_ok_and(|metadata| metadata.is_file())
    }

    /// Whether the path is a folder.
    #[must_use]
    pub fn is_folder(&self, path: &str) -> bool {
        self.metadata(path).is_ok_and(|metadata| metadata.is_dir())
    }

    /// Returns the identity of a file: device and inode.
    pub(crate) fn identity(&self, path: &str) -> Option<(u64, u64)> {
        self.metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn metadata(&self, path: &str) -> Result<Metadata, Absent> {
        fs::metadata(self.path(path)?).map_err(|error| absent(path, &error))
    }

    /// Returns the names in a folder, sorted. Names that are not UTF-8 are left out.
    ///
    /// # Errors
    ///
    /// The folder cannot be read, or it has more than `limit` names.
    pub fn list(&self, path: &str, limit: usize) -> Result<Vec<String>, Absent> {
        let entries = fs::read_dir(self.path(path)?).map_err(|error| absent(path, &error))?;
        let mut names = Vec::new();
        for (index, entry) in entries.enumerate() {
            if index >= limit {
                return Err(malformed(path, format!("has more than {limit} names")));
            }
            let name = entry.map_err(|error| absent(path, &error))?.file_name();
            names.extend(name.into_string().ok());
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Reads a regular file.
    ///
    /// # Errors
    ///
    /// The file cannot be read, is not a regular file, or has more than `limit` bytes. FIFOs and
    /// devices are not opened.
    pub fn read_bytes(&self, path: &str, limit: u64) -> Result<Vec<u8>, Absent> {
        let file = self.open(path, FileType::is_file)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| absent(path, &error))?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > limit) {
            return Err(malformed(path, format!("is longer than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// Reads a regular file as text, without the newline at its end.
    ///
    /// # Errors
    ///
    /// As for [`Root::read_bytes`], or the file is not UTF-8.
    pub fn read_text(&self, path: &str, limit: u64) -> Result<String, Absent> {
        let mut text = String::from_utf8(self.read_bytes(path, limit)?)
            .map_err(|error| malformed(path, format!("is not UTF-8: {}", error.utf8_error())))?;
        if text.ends_with('\n') {
            text.pop();
        }
        Ok(text)
    }

    /// Reads all records of a file such as `/dev/kmsg`, where each read returns one record. A
    /// regular file is one record.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or it is a folder or another special file.
    pub fn read_records(&self, path: &str, limit: usize) -> Result<Vec<Vec<u8>>, Absent> {
        let mut file = self.open(path, |kind| kind.is_file() || kind.is_char_device())?;
        let mut records = Vec::new();
        let mut total = 0_usize;
        let mut buffer = vec![0; RECORD];
        while total < limit {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    total = total.saturating_add(count);
                    records.push(buffer.get(..count).unwrap_or_default().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // The kernel overwrote a record before it was read.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(absent(path, &error)),
            }
        }
        Ok(records)
    }

    /// Opens a file of registers, such as `/dev/cpu/0/msr`: a character device, or a regular file
    /// in a tree that models a host.
    ///
    /// # Errors
    ///
    /// The file cannot be opened, or it is a folder or another special file.
    pub fn open_registers(&self, path: &str) -> Result<Registers, Absent> {
        let file = self.open(path, |kind| kind.is_file() || kind.is_char_device())?;
        let metadata = file.metadata().map_err(|error| absent(path, &error))?;
        Ok(Registers { file, is_device: !metadata.is_file(), path: path.to_owned() })
    }

    /// Checks the file's kind before and after it is opened. Opening a device can have effects, and
    /// the file can be replaced in between. `open` answers ENXIO for a socket, so a socket in a
    /// tree models the file `version` without a module.
    fn open(&self, path: &str, is_wanted: fn(&FileType) -> bool) -> Result<File, Absent> {
        let place = self.path(path)?;
        let check = |metadata: &Metadata| match is_wanted(&metadata.file_type()) {
            true => Ok(()),
            false => Err(Absent {
                source: path.to_owned(),
                reason: Reason::Unreadable,
                problem: format!("is {} and not a regular file", kind(metadata.file_type())),
            }),
        };
        let before = fs::metadata(&place).map_err(|error| absent(path, &error))?;
        if !before.file_type().is_socket() {
            check(&before)?;
        }
        let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(flags)
            .open(place)
            .map_err(|error| absent(path, &error))?;
        check(&file.metadata().map_err(|error| absent(path, &error))?)?;
        Ok(file)
    }
}

/// One step of a path.
enum Step {
    Root,
    Up,
    Down(OsString),
}

/// Pushes the steps of a path on a stack, the first on top.
fn push_steps(path: &Path, ahead: &mut Vec<Step>) {
    ahead.extend(path.components().rev().filter_map(|component| match component {
        Component::RootDir => Some(Step::Root),
        Component::ParentDir => Some(Step::Up),
        Component::Normal(name) => Some(Step::Down(name.to_owned())),
        Component::CurDir | Component::Prefix(_) => None,
    }));
}

/// Returns the name of a kind of file that is not regular.
pub(crate) fn kind(kind: FileType) -> &'static str {
    if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a FIFO"
    } else {
        "a device"
    }
}

fn malformed(path: &str, problem: String) -> Absent {
    Absent { source: path.to_owned(), reason: Reason::Malformed, problem }
}

/// Returns why the system refused a file. If root is refused, permissions are not the reason: the
/// kernel may be locked down, or the process runs in a container.
pub(crate) fn absent(path: &str, error: &io::Error) -> Absent {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    let (reason, problem) = if is(Errno::NOENT) || is(Errno::NOTDIR) {
        (Reason::Missing, "the file does not exist".to_owned())
    } else if (is(Errno::ACCESS) || is(Errno::PERM)) && !geteuid().is_root() {
        (Reason::Permission, "only root may read this file".to_owned())
    } else if is(Errno::NXIO) {
        (
            Reason::NoDevice,
            "the kernel answers ENXIO: the device behind this file is gone".to_owned(),
        )
    } else {
        (Reason::Unreadable, error.to_string())
    };
    Absent { source: path.to_owned(), reason, problem }
}

/// An open file of registers.
#[derive(Debug)]
pub struct Registers {
    file: File,
    is_device: bool,
    path: String,
}

impl Registers {
    /// Reads 8 bytes of the register with this number, little-endian.
    ///
    /// A device takes the number as the file's offset. In a regular file, register N lies at offset
    /// 8 * N, because registers with neighbouring numbers would overlap.
    ///
    /// # Errors
    ///
    /// The device refuses the number, or the file ends before the register.
    pub fn read_u64(&self, number: u32) -> Result<u64, Absent> {
        let number = u64::from(number);
        let offset = if self.is_device { number } else { number.saturating_mul(8) };
        Ok(u64::from_le_bytes(self.read_at(offset)?))
    }

    /// Reads bytes at an offset.
    ///
    /// # Errors
    ///
    /// The device refuses the offset, or the file ends before the bytes.
    pub fn read_at<const N: usize>(&self, offset: u64) -> Result<[u8; N], Absent> {
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| absent(&self.path, &error))?;
        Ok(bytes)
    }
}
