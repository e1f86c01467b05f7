//! Tells how an update ended, from the kernel's files before and after it.

use serde::Serialize;
use tdx_seamldr_core::TdxVersion;

use super::checks::{remaining, version};
use super::upload::Ended;
use crate::fact::Reason;
use crate::host::{Host, Interface};

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new module runs, and the TDs keep running.
    Updated,
    /// No update was due.
    NothingToDo,
    /// A check refused the update before the kernel had the whole image. Nothing was touched.
    Refused,
    /// The operator stopped the update before the kernel had the whole image. Nothing was touched.
    Aborted,
    /// The kernel reported an error, and a module runs: the TDs keep running.
    FailedKept,
    /// TDX is lost until a reboot, with all TDs.
    Lost,
    /// The state of the TDs is unknown.
    Unknown,
}

impl Outcome {
    /// Returns a name that does not change between releases.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Updated => "updated",
            Self::NothingToDo => "nothing-to-do",
            Self::Refused => "refused",
            Self::Aborted => "aborted",
            Self::FailedKept => "failed-kept",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

/// The end of an update, with advice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// What happened.
    pub message: String,
    /// What the operator should do now.
    pub advice: Option<String>,
    /// The text of the kernel's file `error`. Empty if no error.
    pub kernel_error: String,
    /// The kernel's log lines on TDX during the update, without addresses. Read only after a
    /// failure.
    pub kernel_lines: Vec<String>,
    /// The version that runs now, if the kernel shows it.
    pub version: Option<String>,
    /// The number of updates that remain, if the kernel shows it.
    pub remaining_updates: Option<u32>,
}

/// The facts just before the last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) from: Option<TdxVersion>,
    pub(super) to: Option<TdxVersion>,
    pub(super) remaining: Option<u32>,
    pub(super) interface: Interface,
}

/// Error strings of the firmware upload, with their meaning for a TDX module on a kernel with this
/// interface. `None` stands for every kernel.
const ERRORS: [(&str, Option<Interface>, &str); 11] = [
    ("firmware-invalid", Some(Interface::Flat), "Linux 7.2 says this for every failure"),
    (
        "firmware-invalid",
        Some(Interface::Folder),
        "the file's form is wrong, or SEAMCALL did not reach P-SEAMLDR",
    ),
    (
        "device-busy",
        None,
        "the module refused to shut down, because a TD is in build or in migration",
    ),
    ("hw-error", None, "P-SEAMLDR or the TDX module returned an error"),
    ("read-write-error", None, "the kernel had no memory"),
    ("user-abort", None, "the upload was cancelled"),
    ("timeout", None, "the driver's time limit expired"),
    ("invalid-file-size", None, "the driver does not take a file of this size"),
    ("flash-wearout", None, "no updates remain"),
    ("firmware-duplicate", None, "this image runs already"),
    ("none", None, "no error"),
];

/// Returns the meaning of the kernel's `error`.
fn meaning(error: &str, interface: Interface) -> Option<&'static str> {
    let (_, word) = error.split_once(':')?;
    let is_of = |of: &Option<Interface>| of.is_none_or(|of| of == interface);
    ERRORS.iter().find(|(known, of, _)| *known == word && is_of(of)).map(|(_, _, meaning)| *meaning)
}

const LOOK: &str = "look for \"TDX\" in the kernel's log (`tdx-seamldr explain -` reads it), and \
                    keep `tdx-seamldr report`";
const REBOOT: &str = "reboot the host: until then no TD can run, and the memory of the lost TDs \
                      stays in use. Look for the reason in the kernel's log: `dmesg | tdx-seamldr \
                      explain -`";
const RETRY: &str = "the TDs keep running with the old module; find the reason in the kernel's \
                     log (`dmesg | tdx-seamldr explain -`), then try again";

/// Returns the ending of an update.
pub(super) fn judge(before: &Before, after: &Host, ended: &Ended) -> Ending {
    let remaining = remaining(after);
    let ending = |outcome, message: String, advice: Option<&str>| Ending {
        outcome,
        message,
        advice: advice.map(str::to_owned),
        kernel_error: match ended {
            Ended::Idle(error) => error.clone(),
            _ => String::new(),
        },
        kernel_lines: Vec::new(),
        version: version(after).map(|version| version.to_string()),
        remaining_updates: remaining,
    };
    let error = match ended {
        Ended::Idle(error) => error,
        Ended::StillBusy(status) => {
            let message =
                format!("the kernel did not finish in time: the status is still {status:?}");
            return ending(
                Outcome::Unknown,
                message,
                Some("wait until the status is idle, then run `tdx-seamldr status`"),
            );
        }
        Ended::Lost(absent)
            if after.module.as_ref().is_err_and(|module| module.reason == Reason::NoDevice) =>
        {
            let message = format!(
                "TDX and all TDs are lost: {absent}, and the version cannot be read any more \
                 (ENXIO)"
            );
            return ending(Outcome::Lost, message, Some(REBOOT));
        }
        Ended::Lost(absent) => {
            let message = format!("the kernel's answer cannot be read: {absent}");
            return ending(Outcome::Unknown, message, Some(LOOK));
        }
    };
    let said = match meaning(error, before.interface) {
        _ if error.is_empty() => "the kernel reports no error".to_owned(),
        Some(meaning) => format!("the kernel reports {error} ({meaning})"),
        None => format!("the kernel reports {error:?}"),
    };
    let version = match &after.module {
        Ok(found) => found.value,
        Err(absent) if absent.reason == Reason::NoDevice => {
            let message = format!(
                "TDX and all TDs are lost: {said}, and the version cannot be read any more (ENXIO)"
            );
            return ending(Outcome::Lost, message, Some(REBOOT));
        }
        Err(absent) => {
            let message = format!("{said}, and the version cannot be read: {absent}");
            return ending(Outcome::Unknown, message, Some(LOOK));
        }
    };
    let is_new = before.to.map_or(Some(version) != before.from, |to| version == to);
    match (error.is_empty(), is_new, before.remaining.zip(remaining)) {
        (true, _, Some((had, left))) if Some(version) == before.from && had == left => {
            let message = format!(
                "{said}, but module {version} still runs, and the kernel counted no update"
            );
            ending(Outcome::FailedKept, message, Some(RETRY))
        }
        (true, true, Some((had, left))) if had.wrapping_sub(left) != 1 => {
            let message = format!(
                "{said} and module {version} runs, but {left} updates remain instead of {}",
                had.wrapping_sub(1)
            );
            ending(Outcome::Unknown, message, Some(LOOK))
        }
        (true, true, _) => ending(Outcome::Updated, format!("module {version} runs"), None),
        (true, false, _) => {
            let message =
                format!("{said}, but module {version} runs instead of {}", name(before.to));
            ending(Outcome::Unknown, message, Some(LOOK))
        }
        (false, true, _) if Some(version) != before.from => {
            ending(Outcome::FailedKept, format!("{said}, but module {version} runs"), Some(LOOK))
        }
        (false, ..) => ending(
            Outcome::FailedKept,
            format!("{said}, and module {version} still runs"),
            Some(RETRY),
        ),
    }
}

fn name(version: Option<TdxVersion>) -> String {
    version.map_or_else(|| "another one".into(), |version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_strings_have_the_meaning_of_the_kernels_interface() {
        let all = meaning("transferring:firmware-invalid", Interface::Flat).unwrap();
        assert!(all.contains("every failure"), "{all}");
        let form = meaning("transferring:firmware-invalid", Interface::Folder).unwrap();
        assert!(form.contains("form"), "{form}");
        assert!(meaning("preparing:timeout", Interface::Flat).is_some());
        for unknown in ["", "idle", "transferring:", "transferring:else"] {
            assert_eq!(meaning(unknown, Interface::Flat), None, "{unknown}");
        }
    }
}
