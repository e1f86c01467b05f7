//! Shared by `inspect` and `verify`: a report on each file, and the worst exit status.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tdx_seamldr_host::examine::{examine, Examination, Verdict};
use tdx_seamldr_host::Releases;

use crate::error::Error;
use crate::exit::Exit;
use crate::file::{self, shown};
use crate::output::{print, print_json};

/// The report on one file.
pub(crate) struct FileReport<R> {
    /// The part of the JSON object.
    pub(crate) json: R,
    /// The lines for people.
    pub(crate) text: String,
    /// The exit value if this is the only file.
    pub(crate) exit: Exit,
}

/// A file in the JSON object.
#[derive(Serialize)]
struct Entry<R> {
    file: String,
    #[serde(flatten)]
    report: Readable<R>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Readable<R> {
    Yes(R),
    No { verdict: &'static str, error: String },
}

/// The JSON object.
#[derive(Serialize)]
struct Files<R> {
    files: Vec<Entry<R>>,
}

/// Returns the exit value of a command that expects a genuine image: 1 for a file that is not
/// genuine, 3 for a file that is not an image.
pub(crate) const fn exit_of(verdict: Verdict) -> Exit {
    match verdict {
        Verdict::Genuine => Exit::Done,
        Verdict::Tampered | Verdict::AnotherKey | Verdict::Unsigned | Verdict::Part => {
            Exit::Refused
        }
        Verdict::NotAnImage => Exit::Failed,
    }
}

/// Examines each file and prints its report, also after a file that cannot be read. Returns the
/// worst exit value.
pub(crate) fn report_each<R: Serialize>(
    command: &str,
    files: &[PathBuf],
    json: bool,
    (out, complaints): (&mut dyn Write, &mut dyn Write),
    report_of: impl Fn(&Path, Examination) -> FileReport<R>,
) -> Result<Exit, Error> {
    let releases = Releases::built_in();
    let mut worst = Exit::Done;
    let mut entries = Vec::new();
    for (number, path) in files.iter().enumerate() {
        let report =
            file::read(path).map(|bytes| report_of(path, examine(bytes.as_bytes(), &releases)));
        let exit = report.as_ref().map_or_else(Error::exit, |report| report.exit);
        worst = worst.max(exit);
        if !json && files.len() > 1 {
            let separator = if number == 0 { "" } else { "\n" };
            print(out, &format!("{separator}{}:", shown(path)))?;
        }
        let readable = match report {
            Ok(report) if json => Readable::Yes(report.json),
            Ok(report) => {
                print(out, &report.text)?;
                continue;
            }
            Err(error) => {
                // The exit status reports the failure even if this write fails.
                let _ = writeln!(complaints, "tdx-seamldr: {error}");
                Readable::No { verdict: "unreadable", error: error.to_string() }
            }
        };
        entries.push(Entry { file: path.display().to_string(), report: readable });
    }
    if json {
        print_json(out, command, &Files { files: entries })?;
    }
    Ok(worst)
}

/// Returns "yes" or "no".
pub(crate) const fn yes_or_no(yes: bool) -> &'static str {
    if yes {
        "yes"
    } else {
        "no"
    }
}
