//! The record of updates: lines of JSON for the events of each attempt, also sent to the system's
//! journal.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::fact::{Absent, Reason};
use crate::root::{absent, kind, Root};
use crate::trust::{check_trusted, NotTrusted};

/// The default folder of the record.
pub const DEFAULT_STATE_FOLDER: &str = "/var/lib/tdx-seamldr";

/// The file in the folder of the record.
const HISTORY: &str = "history.jsonl";

/// The most bytes of a record that are read. An attempt takes less than 2 KiB.
const MAX_HISTORY: u64 = 64 << 20;

/// The socket of the system's journal.
const JOURNAL: &str = "/run/systemd/journal/socket";

/// The schema in each line.
pub const SCHEMA: &str = "tdx-seamldr/record/1";

/// A line of the record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: String,
    /// The time in UTC, in the form of RFC 3339.
    pub time: String,
    /// The id of the attempt, the same in all its lines.
    pub attempt: String,
    /// The id of the host's boot.
    pub boot: Option<String>,
    /// What happened.
    pub event: Event,
}

impl Record {
    /// Returns the time of the record. `None`: the line has no time that RFC 3339 allows.
    #[must_use]
    pub fn system_time(&self) -> Option<SystemTime> {
        self.time.parse::<jiff::Timestamp>().ok().map(SystemTime::from)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// An attempt began.
    Began {
        /// The version that ran.
        from: String,
        /// The version that should run. `None` if the catalogue did not have the image's hash.
        to: Option<String>,
        /// The file of the image.
        file: String,
        /// MRSEAM of the new module.
        mrseam: String,
    },
    /// The attempt was about to make the last write. If its end is missing, the kernel may have
    /// updated the module.
    Committing,
    /// An attempt ended.
    Ended {
        /// The name of the outcome, from [`Outcome::word`](crate::update::Outcome::word).
        outcome: String,
        /// What happened, in words.
        message: String,
        /// The version that ran afterwards, if the kernel showed it.
        version: Option<String>,
        /// The number of updates that remained, if the kernel showed it.
        remaining_updates: Option<u32>,
    },
}

/// Why the record cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A file cannot be read.
    #[error("{0}")]
    Read(Absent),
    /// The record cannot be written.
    #[error("the record {path} cannot be written: {source}")]
    Write {
        /// The file.
        path: String,
        /// The error.
        source: io::Error,
    },
    /// Users other than root can change the folder of the record.
    #[error("the record is not written: {0}")]
    NotTrusted(#[from] NotTrusted),
    /// A line cannot be serialised.
    #[error("a line of the record cannot be made: {0}")]
    Json(#[from] serde_json::Error),
}

/// The content of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// The lines in order.
    pub records: Vec<Record>,
    /// The numbers of lines that cannot be read, from 1. A crash of the host can cut a line.
    pub damaged: Vec<usize>,
}

/// The record of a host.
#[derive(Clone, Debug)]
pub struct Journal<'r> {
    root: &'r Root,
    folder: String,
    boot: Option<String>,
}

impl<'r> Journal<'r> {
    /// Returns the record in a folder below the root.
    #[must_use]
    pub fn new(root: &'r Root, folder: &str) -> Self {
        let boot = root.read_text("/proc/sys/kernel/random/boot_id", 64).ok();
        Self { root, folder: folder.to_owned(), boot }
    }

    fn file(&self) -> String {
        format!("{}/{HISTORY}", self.folder)
    }

    /// Reads the record. An absent file is an empty record.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is too large.
    pub fn read(&self) -> Result<History, RecordError> {
        let failed = |error: &io::Error| absent(&self.file(), error);
        let folder = self.folder_path()?;
        let file = match open(&folder, OpenOptions::new().read(true)) {
            Ok(file) => file,
            Err(error) => match failed(&error) {
                Absent { reason: Reason::Missing, .. } => return Ok(History::default()),
                absent => return Err(RecordError::Read(absent)),
            },
        };
        let mut bytes = Vec::new();
        let limit = MAX_HISTORY.saturating_add(1);
        file.take(limit)
            .read_to_end(&mut bytes)
            .map_err(|error| RecordError::Read(failed(&error)))?;
        if u64::try_from(bytes.len()).is_ok_and(|len| len > MAX_HISTORY) {
            let error = io::Error::other(format!("is longer than {MAX_HISTORY} bytes"));
            return Err(RecordError::Read(failed(&error)));
        }
        Ok(History::parse(&bytes))
    }

    fn folder_path(&self) -> Result<PathBuf, RecordError> {
        self.root.path(&self.folder).map_err(RecordError::Read)
    }

    /// Adds a line and syncs it to the disk. Also sends the line to the system's journal, if one
    /// runs.
    ///
    /// # Errors
    ///
    /// The line cannot be written.
    pub fn add(&self, attempt: &str, event: Event) -> Result<(), RecordError> {
        let record = Record {
            schema: SCHEMA.to_owned(),
            time: now(),
            attempt: attempt.to_owned(),
            boot: self.boot.clone(),
            event,
        };
        let mut line = serde_json::to_vec(&record)?;
        self.tell_system(&line);
        line.push(b'\n');
        let folder = self.folder_path()?;
        let failed = |source| RecordError::Write { path: self.file(), source };
        // Other users cannot write the file, with any umask.
        fs::DirBuilder::new().recursive(true).mode(0o755).create(&folder).map_err(failed)?;
        check_trusted(&folder)?;
        let mut file =
            open(&folder, OpenOptions::new().append(true).read(true).create(true).mode(0o644))
                .map_err(failed)?;
        if !ends_with_newline(&mut file).map_err(failed)? {
            line.insert(0, b'\n');
        }
        file.write_all(&line).and_then(|()| file.sync_data()).map_err(failed)
    }

    /// Whether the attempt before `attempt` began in this boot and has no end, because its process
    /// was killed.
    #[must_use]
    pub fn left_open(&self, attempt: &str) -> bool {
        let Ok(history) = self.read() else { return false };
        let attempts = history.attempts();
        let earlier = attempts.iter().rev().find(|earlier| earlier.began.attempt != attempt);
        earlier.is_some_and(|earlier| {
            earlier.ended.is_none() && self.boot.is_some() && earlier.began.boot == self.boot
        })
    }

    /// Sends the line to the system's journal. A missing journal is not an error.
    fn tell_system(&self, line: &[u8]) {
        let Ok(path) = self.root.path(JOURNAL) else { return };
        let Ok(socket) = UnixDatagram::unbound() else { return };
        let mut message = b"SYSLOG_IDENTIFIER=tdx-seamldr\nPRIORITY=5\nMESSAGE=".to_vec();
        message.extend(line);
        message.push(b'\n');
        let _ = socket.set_nonblocking(true);
        let _ = socket.send_to(&message, path);
    }
}

/// Opens the record in a folder. Does not follow a link, which could lead to any file of root.
fn open(folder: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        options.custom_flags(flags.bits().cast_signed()).open(folder.join(HISTORY)).map_err(
            |error| match error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) {
                true => io::Error::other("is a link, but should be a regular file"),
                false => error,
            },
        )?;
    let found = file.metadata()?.file_type();
    match found.is_file() {
        true => Ok(file),
        false => Err(io::Error::other(format!("is {} and not a regular file", kind(found)))),
    }
}

/// Whether a file is empty or its last line is complete. A crash of the host can cut a line.
fn ends_with_newline(file: &mut File) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let len = file.metadata()?.len();
    let Some(last) = len.checked_sub(1) else { return Ok(true) };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    Ok(byte == *b"\n")
}

/// Returns the time in UTC, to the second.
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

impl History {
    /// Reads the lines of a record. Lines that cannot be read do not affect other lines.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let mut history = Self::default();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(line) {
                Ok(record) => history.records.push(record),
                Err(_) => history.damaged.push(number),
            }
        }
        history
    }

    /// Returns the attempts in order, each with its begin and, if recorded, its last write and its
    /// end.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt<'_>> {
        let mut attempts: Vec<Attempt<'_>> = Vec::new();
        for record in &self.records {
            match record.event {
                Event::Began { .. } => {
                    attempts.push(Attempt { began: record, committing: false, ended: None })
                }
                Event::Committing => {
                    let of_same =
                        attempts.iter_mut().rev().find(|one| one.began.attempt == record.attempt);
                    if let Some(attempt) = of_same {
                        attempt.committing = true;
                    }
                }
                Event::Ended { .. } => {
                    let of_same =
                        attempts.iter_mut().rev().find(|one| one.began.attempt == record.attempt);
                    if let Some(attempt) = of_same {
                        attempt.ended = Some(record);
                    }
                }
            }
        }
        attempts
    }
}

/// An attempt to update the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt<'h> {
    /// The begin of the attempt.
    pub began: &'h Record,
    /// Whether the attempt was about to make the last write.
    pub committing: bool,
    /// The end of the attempt. `None` if the process or the host stopped before.
    pub ended: Option<&'h Record>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn began() -> Event {
        Event::Began {
            from: "1.5.05".into(),
            to: Some("1.5.16".into()),
            file: "a".into(),
            mrseam: "7b".into(),
        }
    }

    fn ended() -> Event {
        Event::Ended {
            outcome: "updated".into(),
            message: "m".into(),
            version: None,
            remaining_updates: Some(3),
        }
    }

    #[test]
    fn attempts_are_read_back_as_written() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let journal = Journal::new(&root, DEFAULT_STATE_FOLDER);
        assert_eq!(journal.read().unwrap(), History::default());
        for (attempt, event) in
            [("a", began()), ("a", Event::Committing), ("a", ended()), ("b", began())]
        {
            journal.add(attempt, event).unwrap();
        }
        let history = journal.read().unwrap();
        let [first, second] = history.attempts().try_into().unwrap();
        assert!(first.committing && first.ended.is_some_and(|end| end.event == ended()));
        assert!(!second.committing && second.ended.is_none());
        assert_eq!(first.began.time.len(), "2026-11-28T06:24:36Z".len());
    }

    #[test]
    fn link_or_fifo_in_place_of_the_record_is_refused() {
        use rustix::fs::{mknodat, FileType, Mode, CWD};
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let (journal, file) =
            (Journal::new(&root, "/state"), folder.path().join("state/history.jsonl"));
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::write(folder.path().join("other"), "").unwrap();
        let refused = || journal.add("a", began()).is_err() && journal.read().is_err();
        std::os::unix::fs::symlink("../other", &file).unwrap();
        assert!(refused());
        assert_eq!(fs::read(folder.path().join("other")).unwrap(), b"");
        fs::remove_file(&file).unwrap();
        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(refused());
    }

    #[test]
    fn folder_that_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        fs::create_dir(folder.path().join("state")).unwrap();
        fs::set_permissions(folder.path().join("state"), fs::Permissions::from_mode(0o777))
            .unwrap();
        let error = Journal::new(&root, "/state").add("a", began()).unwrap_err();
        assert!(matches!(error, RecordError::NotTrusted(_)), "{error}");
        assert!(!folder.path().join("state/history.jsonl").exists());
    }

    #[test]
    fn cut_line_does_not_affect_other_lines() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let journal = Journal::new(&root, "/state");
        journal.add("a", began()).unwrap();
        let path = folder.path().join("state/history.jsonl");
        let whole = fs::read(&path).unwrap();
        fs::write(&path, [&whole[..], &whole[..whole.len() / 2]].concat()).unwrap();
        journal.add("b", began()).unwrap();
        let history = journal.read().unwrap();
        assert_eq!((history.records.len(), history.damaged), (2, vec![2]));
    }

    #[test]
    fn journal_of_the_system_gets_each_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("run/systemd/journal")).unwrap();
        let socket = UnixDatagram::bind(folder.path().join("run/systemd/journal/socket")).unwrap();
        let root = Root::new(folder.path());
        Journal::new(&root, "/state").add("a", began()).unwrap();
        let mut bytes = [0; 4096];
        let len = socket.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..len]).into_owned();
        assert!(
            text.starts_with("SYSLOG_IDENTIFIER=tdx-seamldr\n")
                && text.contains("\"event\":\"began\""),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(HISTORY), bytes).unwrap();
            let root = Root::new(folder.path());
            let _ = Journal::new(&root, "").read().unwrap().attempts();
        }
    }
}
