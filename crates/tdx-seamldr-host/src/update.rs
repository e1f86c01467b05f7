//! Updates the module of a host: plan, hooks, upload, confirmation and record.

mod checks;
mod hooks;
mod lock;
mod outcome;
mod upload;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::catalogue::{Catalogue, Image, VersionSource};
use crate::fact::Reason as Absence;
use crate::host::{Host, Interface};
use crate::kernel_log::tdx_lines;
use crate::plan::{Plan, Reason, Request, Scope, Step, Target, Verdict};
use crate::record::{Event as RecordEvent, Journal};
use crate::root::Root;
use checks::{check_again, check_unchanged, open_questions, remaining, version};
use outcome::Before;
use upload::{Committed, Ended, Upload};

pub use hooks::HookError;
pub use lock::LockError;
pub use outcome::{Ending, Outcome};
pub use upload::UploadError;

/// The folders of an update, and its time limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The folder below the root that holds `pre-update.d` and `post-update.d`.
    pub hooks: String,
    /// The folder below the root that holds the record.
    pub state: String,
    /// The longest time that the kernel may take for an update.
    pub limit: Duration,
}

/// The default folder of the hooks.
pub const DEFAULT_HOOKS_FOLDER: &str = "/etc/tdx-seamldr";

/// The default time limit. An update takes less than a second, but the kernel may wait for memory.
pub const DEFAULT_LIMIT: Duration = Duration::from_secs(300);

impl Default for Settings {
    fn default() -> Self {
        Self {
            hooks: DEFAULT_HOOKS_FOLDER.to_owned(),
            state: crate::record::DEFAULT_STATE_FOLDER.to_owned(),
            limit: DEFAULT_LIMIT,
        }
    }
}

/// An event during an update.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// A step begins.
    Step(&'a Step),
    /// A hook runs.
    Hook(&'a Path),
    /// A hook printed a line.
    HookLine(&'a str),
    /// A hook failed after the update, which does not change the outcome.
    HookFailed(&'a HookError),
    /// An earlier update left an upload open. This update cancelled it.
    LeftBehind,
    /// The bytes of the image that the kernel has, and all bytes.
    Sent(usize, usize),
    /// The kernel has the whole image. From now on the update cannot be stopped.
    Committed,
    /// The status of the upload changed.
    Status(&'a str),
    /// The kernel is still updating. This event occurs many times a second.
    Waiting,
    /// The record cannot be written. The update continues if it cannot be stopped any more.
    NotRecorded(&'a str),
}

/// The report on an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The plan. After an update, the plan of its last step.
    pub plan: Plan,
    /// The steps that the update made.
    pub steps: Vec<Made>,
    /// How the update ended.
    pub ending: Ending,
}

/// A step that the update made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The step.
    pub step: Step,
    /// How the step ended.
    pub ending: Ending,
}

/// An update of a host.
#[derive(Debug)]
pub struct Update<'a> {
    /// The host's root.
    pub root: &'a Root,
    /// Releases and images.
    pub catalogue: &'a Catalogue,
    /// The operator's request.
    pub request: &'a Request,
    /// Folders and limits.
    pub settings: &'a Settings,
    /// A flag that another thread or a signal handler sets to stop the update while this is
    /// possible.
    pub stop: &'a AtomicBool,
}

/// Why a step did not begin.
enum Stopped {
    Refused(Vec<Reason>),
    Aborted,
}

impl From<Reason> for Stopped {
    fn from(reason: Reason) -> Self {
        Self::Refused(vec![reason])
    }
}

fn host_reason(code: &'static str, message: impl Into<String>, advice: &str) -> Reason {
    Reason { code, message: message.into(), advice: Some(advice.to_owned()), scope: Scope::Host }
}

impl Update<'_> {
    /// Updates the host, in as many steps as the plan has. Takes the lock, makes the plan, runs the
    /// hooks, uploads the image, confirms the new module and writes the record.
    pub fn run(&self, progress: &mut dyn FnMut(Progress<'_>)) -> Report {
        let lock = lock::Lock::take(self.root);
        let mut plan = Plan::new(&Host::read(self.root), self.catalogue, self.request);
        let mut steps: Vec<Made> = Vec::new();
        if let Err(error) = &lock {
            let advice = match error {
                LockError::Held { .. } => "wait until that update ends",
                _ => "run the command as root, with a writable /run",
            };
            plan.reasons.push(host_reason("locked", error.to_string(), advice));
            plan.verdict = Verdict::Refused;
        }
        // Later steps lead to the target of the first plan, even if newer images appear.
        let mut request = self.request.clone();
        let aim = plan.steps.last().map(|step| step.image);
        loop {
            let Some(step) =
                plan.steps.first().cloned().filter(|_| plan.verdict != Verdict::Refused)
            else {
                let ending = match steps.last() {
                    Some(last) if plan.verdict == Verdict::NothingToDo => last.ending.clone(),
                    _ => without_step(&plan).after(steps.len()),
                };
                return Report { plan, steps, ending };
            };
            progress(Progress::Step(&step));
            let attempt =
                format!("{}-{}-{}", crate::record::now(), std::process::id(), steps.len());
            let ending = match self.make(&mut plan, &request, &step, &attempt, progress) {
                Ok(ending) => ending,
                Err(stopped) => {
                    let ending = stopped.ending(&mut plan).after(steps.len());
                    return Report { plan, steps, ending };
                }
            };
            let is_last = plan.steps.len() <= 1;
            let goes_on = ending.outcome == Outcome::Updated && !is_last;
            steps.push(Made { step, ending: ending.clone() });
            if !goes_on {
                return Report { plan, steps, ending };
            }
            if self.is_stopped() {
                let ending = Stopped::Aborted.ending(&mut plan).after(steps.len());
                return Report { plan, steps, ending };
            }
            if let Some(place) = aim {
                request.target = Target::Image(place);
            }
            plan = Plan::new(&Host::read(self.root), self.catalogue, &request);
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Makes one step, with hooks before and after it.
    fn make(
        &self,
        plan: &mut Plan,
        request: &Request,
        step: &Step,
        attempt: &str,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Ending, Stopped> {
        let journal = Journal::new(self.root, &self.settings.state);
        let before = self.hooks("pre-update.d")?;
        // The post-update hooks are checked before the update, while a refusal costs nothing.
        let after = self.hooks("post-update.d")?;
        let asks_more =
            plan.open_questions().any(|question| !question.is_about_tds() || before.is_empty());
        if asks_more {
            return Err(Stopped::Refused(open_questions(plan)));
        }
        let began = RecordEvent::Began {
            from: step.from.clone(),
            to: step.to.clone(),
            file: step.file.display().to_string(),
            mrseam: step.mrseam.clone(),
        };
        journal.add(attempt, began).map_err(|error| {
            host_reason(
                "record",
                error.to_string(),
                "no update begins without a record: run the command as root",
            )
        })?;
        let result = self.between_hooks(plan, request, step, attempt, &before, &journal, progress);
        let ending = match &result {
            Ok(ending) => ending.clone(),
            Err(stopped) => stopped.ending(&mut plan.clone()),
        };
        let ended = RecordEvent::Ended {
            outcome: ending.outcome.word().to_owned(),
            message: ending.message.clone(),
            version: ending.version.clone(),
            remaining_updates: ending.remaining_updates,
        };
        if let Err(error) = journal.add(attempt, ended) {
            progress(Progress::NotRecorded(&error.to_string()));
        }
        let mut variables = variables("post-update", step);
        variables.push(("TDX_SEAMLDR_OUTCOME", ending.outcome.word().to_owned()));
        variables.push(("TDX_SEAMLDR_MESSAGE", ending.message.clone()));
        variables.push(("TDX_SEAMLDR_VERSION", ending.version.clone().unwrap_or_default()));
        for hook in &after {
            progress(Progress::Hook(hook));
            if let Err(error) =
                hooks::run(hook, &variables, true, &mut |line| progress(Progress::HookLine(line)))
            {
                progress(Progress::HookFailed(&error));
            }
        }
        result
    }

    fn hooks(&self, name: &str) -> Result<Vec<PathBuf>, Stopped> {
        let folder = format!("{}/{name}", self.settings.hooks);
        let found = self
            .root
            .path(&folder)
            .map_err(|absent| absent.to_string())
            .and_then(|path| hooks::find(&path).map_err(|error| error.to_string()));
        found.map_err(|error| {
            host_reason(
                "hooks",
                error,
                "no update begins with hooks that cannot be trusted or read",
            )
            .into()
        })
    }

    #[allow(clippy::too_many_arguments)] // a step, and all that it needs
    fn between_hooks(
        &self,
        plan: &mut Plan,
        request: &Request,
        step: &Step,
        attempt: &str,
        before: &[PathBuf],
        journal: &Journal<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Ending, Stopped> {
        let mut request = request.clone();
        for hook in before {
            if self.is_stopped() {
                return Err(Stopped::Aborted);
            }
            progress(Progress::Hook(hook));
            let said = hooks::run(hook, &variables("pre-update", step), false, &mut |line| {
                progress(Progress::HookLine(line))
            });
            match said {
                Ok(said) => request.no_td_launches |= said.no_td_launches,
                Err(_) if self.is_stopped() => return Err(Stopped::Aborted),
                Err(error) => {
                    let advice = "a pre-update hook refuses the update: ask the hook's author";
                    return Err(host_reason("hook", error.to_string(), advice).into());
                }
            }
        }
        let host = Host::read(self.root);
        *plan = Plan::new(&host, self.catalogue, &request);
        check_again(plan, step)?;
        let Ok(interface) = host.interface else {
            return Err(Stopped::Refused(plan.reasons.clone()));
        };
        let Some(image) = self.catalogue.images().get(step.image) else {
            return Err(Stopped::Refused(plan.reasons.clone()));
        };
        self.upload(&host, interface, image, attempt, journal, progress)
    }

    /// Uploads the image. Reads the host again just before the last write.
    fn upload(
        &self,
        host: &Host,
        interface: Interface,
        image: &Image,
        attempt: &str,
        journal: &Journal<'_>,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Ending, Stopped> {
        let bytes = image.in_format(interface.image_format()).map_err(|error| {
            host_reason("format", error.to_string(), "this kernel cannot take the image")
        })?;
        let mut is_ours = || {
            let is_ours = journal.left_open(attempt);
            if is_ours {
                progress(Progress::LeftBehind);
            }
            is_ours
        };
        let mut upload = Upload::begin(self.root, &mut is_ours)?;
        let total = bytes.len();
        upload.send(&bytes, &mut |sent| {
            progress(Progress::Sent(sent, total));
            !self.is_stopped()
        })?;
        progress(Progress::Sent(total, total));
        let lines_before = tdx_lines(self.root).unwrap_or_default();
        let event = journal.add(attempt, RecordEvent::Committing);
        event.map_err(|error| {
            host_reason("record", error.to_string(), "free disk space for the record")
        })?;
        let before = Before {
            from: version(host),
            to: image.version().filter(|_| image.version_source() == Some(VersionSource::Hash)),
            remaining: remaining(host),
            interface,
        };
        // No slow work may come between these checks and the last write.
        upload.check(&bytes)?;
        check_unchanged(host, &Host::read(self.root))?;
        if self.is_stopped() {
            return Err(Stopped::Aborted);
        }
        let committed = upload.commit()?;
        progress(Progress::Committed);
        let (ended, after) = self.follow(&committed, host, progress);
        let mut ending = outcome::judge(&before, &after, &ended);
        if ending.outcome != Outcome::Updated {
            ending.kernel_lines =
                new_lines(&lines_before, tdx_lines(self.root).unwrap_or_default());
        }
        Ok(ending)
    }

    /// Waits until the kernel finishes. Returns the result with the host's state.
    fn follow(
        &self,
        committed: &Committed<'_>,
        before: &Host,
        progress: &mut dyn FnMut(Progress<'_>),
    ) -> (Ended, Host) {
        let mut looked =
            |status: Option<&str>| progress(status.map_or(Progress::Waiting, Progress::Status));
        let begin = Instant::now();
        loop {
            let ended = committed.wait(self.settings.limit, &mut looked);
            let after = Host::read(self.root);
            let says_nothing = ended == Ended::Idle(String::new());
            let is_same =
                version(&after) == version(before) && remaining(&after) == remaining(before);
            if !(says_nothing && is_same) || begin.elapsed() >= SETTLE.min(self.settings.limit) {
                return (ended, after);
            }
            thread::sleep(LOOK_AGAIN);
        }
    }
}

/// How long the update keeps checking a kernel that reports no error and changes nothing.
const SETTLE: Duration = Duration::from_secs(2);

/// The pause between two of these checks.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Returns the lines after those in `before`. The log may have lost the first lines of `before`.
fn new_lines(before: &[String], mut now: Vec<String>) -> Vec<String> {
    let longest = before.len().min(now.len());
    let overlap = (0..=longest).rev().find(|count| {
        let tail = before.get(before.len().saturating_sub(*count)..);
        tail.is_some() && tail == now.get(..*count)
    });
    now.drain(..overlap.unwrap_or(0));
    now
}

/// Returns the environment variables for the hooks of a step.
fn variables(event: &str, step: &Step) -> Vec<(&'static str, String)> {
    vec![
        ("TDX_SEAMLDR_EVENT", event.to_owned()),
        ("TDX_SEAMLDR_FROM", step.from.clone()),
        ("TDX_SEAMLDR_TO", step.to.clone().unwrap_or_default()),
        ("TDX_SEAMLDR_FILE", step.file.display().to_string()),
        ("TDX_SEAMLDR_MRSEAM", step.mrseam.clone()),
        ("TDX_SEAMLDR_SVN", step.svn.clone()),
        ("TDX_SEAMLDR_TEE_TCB_SVN_2", step.tee_tcb_svn_2.clone()),
    ]
}

/// Returns the ending of an update without steps.
fn without_step(plan: &Plan) -> Ending {
    let (outcome, message) = match plan.verdict {
        Verdict::NothingToDo => (Outcome::NothingToDo, "the requested module runs already"),
        _ => (Outcome::Refused, "the update did not begin"),
    };
    untouched(plan, outcome, message.to_owned())
}

/// Returns the ending of an update that touched nothing.
fn untouched(plan: &Plan, outcome: Outcome, message: String) -> Ending {
    Ending {
        outcome,
        message,
        advice: None,
        kernel_error: String::new(),
        kernel_lines: Vec::new(),
        version: plan.running.clone(),
        remaining_updates: None,
    }
}

impl Ending {
    /// Returns the ending of an update that was refused or stopped after `steps` steps. The module
    /// of the host has changed then.
    fn after(self, steps: usize) -> Self {
        if steps == 0 {
            return self;
        }
        let message = format!("after {steps} of the plan's updates: {}", self.message);
        Self { outcome: Outcome::FailedKept, message, ..self }
    }
}

impl Stopped {
    /// Returns the ending of the update. Adds the reasons to the plan.
    fn ending(&self, plan: &mut Plan) -> Ending {
        let (outcome, message) = match self {
            Self::Aborted => {
                (Outcome::Aborted, "stopped before the kernel had the whole image".to_owned())
            }
            Self::Refused(reasons) => {
                for reason in reasons {
                    if !plan.reasons.contains(reason) {
                        plan.reasons.push(reason.clone());
                    }
                }
                plan.verdict = Verdict::Refused;
                let messages: Vec<_> =
                    reasons.iter().map(|reason| reason.message.as_str()).collect();
                (Outcome::Refused, messages.join("; "))
            }
        };
        untouched(plan, outcome, message)
    }
}

impl From<UploadError> for Stopped {
    fn from(error: UploadError) -> Self {
        let advice = match &error {
            UploadError::Aborted => return Self::Aborted,
            UploadError::Busy(_) => "wait until the status is idle, then check which version runs",
            UploadError::Begun => {
                "wait until that program ends its upload; if the program is gone: echo -1 > \
                 /sys/class/firmware/tdx_module/loading"
            }
            UploadError::Changed(_) => {
                "nothing was touched: stop the other program, then start the update again"
            }
            UploadError::Read(absent) => match absent.reason {
                Absence::Permission => "run the command as root",
                _ => "nothing was touched: look for the reason in the kernel's log",
            },
            UploadError::Write { source, .. } => match source.kind() {
                std::io::ErrorKind::PermissionDenied => {
                    "run the command as root; in a container it needs CAP_SYS_RAWIO and a writable \
                     /sys"
                }
                std::io::ErrorKind::ResourceBusy => {
                    "wait until the status is idle, then check which version runs"
                }
                std::io::ErrorKind::OutOfMemory => {
                    "the kernel has no memory for the image: free memory, then start the update \
                     again"
                }
                _ => "nothing was touched: look for the reason in the kernel's log",
            },
        };
        host_reason("upload", error.to_string(), advice).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_after_the_earlier_ones_are_new() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        for (before, now, new) in [
            ("", "ab", "ab"),
            ("ab", "ab", ""),
            ("ab", "abc", "c"),
            ("abc", "bcd", "d"),
            ("aa", "aaa", "a"),
            ("ab", "c", "c"),
        ] {
            assert_eq!(new_lines(&lines(before), lines(now)), lines(new), "{before} {now}");
        }
    }
}
