//! How an update ended, by what the kernel shows before and after it.

use serde::Serialize;
use tdx_seamldr_core::TdxVersion;

use super::upload::Ended;
use crate::fact::Reason;
use crate::host::{Host, Interface};

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The new module runs, and so do the TDs.
    Updated,
    /// There was nothing to do.
    NothingToDo,
    /// The update was refused before the kernel got the whole image. Nothing was touched.
    Refused,
    /// The operator stopped the update before the kernel got the whole image. Nothing was touched.
    Aborted,
    /// The kernel reported an error, and a module runs: the TDs live.
    FailedKept,
    /// TDX is gone until a reboot, and all TDs with it.
    Lost,
    /// Nobody can tell whether the TDs live.
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

/// What became of an update, and what to do now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    /// How it ended.
    pub outcome: Outcome,
    /// What happened.
    pub message: String,
    /// What to do now.
    pub advice: Option<String>,
    /// What the kernel's `error` said. Empty: no error.
    pub kernel_error: String,
    /// The kernel's lines on TDX that came during the update, without addresses. Read only after a
    /// failure.
    pub kernel_lines: Vec<String>,
    /// The version that runs now, if the kernel tells.
    pub version: Option<String>,
    /// How many updates remain, if the kernel tells.
    pub remaining_updates: Option<u32>,
}

/// What was known when the last byte went to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) from: Option<TdxVersion>,
    pub(super) to: Option<TdxVersion>,
    pub(super) remaining: Option<u32>,
    pub(super) interface: Interface,
}

/// Strings of the firmware upload, and what they mean for a TDX module on a kernel with this
/// interface. `None`: on every kernel.
const ERRORS: [(&str, Option<Interface>, &str); 11] = [
    ("firmware-invalid", Some(Interface::Flat), "Linux 7.2 says this for every failure"),
    (
        "firmware-invalid",
        Some(Interface::Folder),
        "the file's form is wrong, or SEAMCALL did not reach P-SEAMLDR",
    ),
    ("device-busy", None, "a TD is in build or in migration, and the module refused to shut down"),
    ("hw-error", None, "P-SEAMLDR or the TDX module returned an error"),
    ("read-write-error", None, "the kernel had no memory"),
    ("user-abort", None, "the upload was cancelled"),
    ("timeout", None, "the driver gave up waiting"),
    ("invalid-file-size", None, "the driver does not take a file of this size"),
    ("flash-wearout", None, "no updates remain"),
    ("firmware-duplicate", None, "this image runs already"),
    ("none", None, "no error"),
];

/// Explains what the kernel's `error` says.
fn meaning(error: &str, interface: Interface) -> Option<&'static str> {
    let (_, word) = error.split_once(':')?;
    let is_of = |of: &Option<Interface>| of.is_none_or(|of| of == interface);
    ERRORS.iter().find(|(known, of, _)| *known == word && is_of(of)).map(|(_, _, meaning)| *meaning)
}

const LOOK: &str = "look for \"TDX\" in the kernel's log (`tdx-seamldr explain -` reads it), and \
                    keep `tdx-seamldr report`";
const REBOOT: &str = "reboot the host: until then no TD can run, and the memory of the lost TDs \
                      stays taken. The reason may be in the kernel's log: `dmesg | tdx-seamldr \
                      explain -`";
const RETRY: &str = "the TDs run on with the old module; find the reason in the kernel's log \
                     (`dmesg | tdx-seamldr explain -`), then try again";

/// Tells how an update ended.
pub(super) fn judge(before: &Before, after: &Host, ended: &Ended) -> Ending {
    let version = after.module.as_ref().ok().map(|found| found.value);
    let remaining = after.remaining_updates.as_ref().ok().map(|found| found.value);
    let ending = |outcome, message: String, advice: Option<&str>| Ending {
        outcome,
        message,
        advice: advice.map(str::to_owned),
        kernel_error: match ended {
            Ended::Idle(error) => error.clone(),
            _ => String::new(),
        },
        kernel_lines: Vec::new(),
        version: version.map(|version| version.to_string()),
        remaining_updates: remaining,
    };
    let error = match ended {
        Ended::Idle(error) => error,
        Ended::StillBusy(status) => {
            let message = format!("the kernel did not end in time: status is still {status:?}");
            return ending(
                Outcome::Unknown,
                message,
                Some("wait until status is idle, then run `tdx-seamldr status`"),
            );
        }
        Ended::Lost(absent)
            if after.module.as_ref().is_err_and(|module| module.reason == Reason::NoDevice) =>
        {
            let message = format!(
                "TDX is gone, and all TDs with it: {absent}, and the version cannot be read any \
                 more (ENXIO)"
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
                "TDX is gone, and all TDs with it: {said}, and the version cannot be read any \
                 more (ENXIO)"
            );
            return ending(Outcome::Lost, message, Some(REBOOT));
        }
        Err(absent) => {
            let message = format!("{said}, and the version cannot be read: {absent}");
            return ending(Outcome::Unknown, message, Some(LOOK));
        }
    };
    let installs =
        before.remaining.zip(remaining).map(|(before, after)| before.wrapping_sub(after));
    let is_new = before.to.map_or(Some(version) != before.from, |to| version == to);
    match (error.is_empty(), is_new) {
        (true, _) if Some(version) == before.from && installs == Some(0) => {
            let message = format!(
                "{said}, but did nothing: module {version} still runs, and no update was counted"
            );
            ending(Outcome::FailedKept, message, Some(RETRY))
        }
        (true, true) if installs.is_none_or(|installs| installs == 1) => {
            ending(Outcome::Updated, format!("module {version} runs"), None)
        }
        (true, true) => {
            let message = format!(
                "{said} and module {version} runs, but {} updates remain where {} were expected",
                shown(remaining),
                shown(before.remaining.map(|before| before.wrapping_sub(1)))
            );
            ending(Outcome::Unknown, message, Some(LOOK))
        }
        (true, false) => {
            let message =
                format!("{said}, but module {version} runs where {} was expected", name(before.to));
            ending(Outcome::Unknown, message, Some(LOOK))
        }
        (false, true) if Some(version) != before.from => {
            ending(Outcome::FailedKept, format!("{said}, but module {version} runs"), Some(LOOK))
        }
        (false, _) => ending(
            Outcome::FailedKept,
            format!("{said}, and module {version} still runs"),
            Some(RETRY),
        ),
    }
}

fn shown(number: Option<u32>) -> String {
    number.map_or_else(|| "an unknown number of".into(), |number| number.to_string())
}

fn name(version: Option<TdxVersion>) -> String {
    version.map_or_else(|| "another one".into(), |version| version.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_mean_what_the_kernel_with_the_interface_means() {
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
