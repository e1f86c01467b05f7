//! `tdx-seamldr status`: shows which module runs on this host, and whether it can be replaced.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_core::TdxVersion;
use tdx_seamldr_host::fact::{Fact, Reason};
use tdx_seamldr_host::host::Interface;
use tdx_seamldr_host::record::{Attempt, History, Journal, RecordError};
use tdx_seamldr_host::text::hex;
use tdx_seamldr_host::{Host, Plan, Platform, Releases};

use super::history::AttemptLine;
use super::options::{CatalogueOptions, HostOptions};
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};
use crate::page::Page;

/// Arguments of `status`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
}

/// The JSON object of `status`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// Whether the running module can be replaced. `None` if facts are missing.
    updatable: Option<bool>,
    /// Why the module cannot be replaced, or which facts are missing.
    problem: Option<String>,
    module: Option<Module>,
    host: &'a Host,
    missing_lps: Vec<String>,
    last_attempt: Option<AttemptLine>,
    /// The reason why the record cannot be read.
    record_problem: Option<String>,
}

/// The running module, with the data from the table of releases.
#[derive(Serialize)]
struct Module {
    version: String,
    in_table: bool,
    svn: Option<String>,
    mrseam: Option<String>,
}

impl Module {
    fn of(version: TdxVersion, releases: &Releases) -> Self {
        let release = releases.by_version(version);
        Self {
            version: version.to_string(),
            in_table: release.is_some(),
            svn: release.map(|release| release.svn.to_string()),
            mrseam: release.map(|release| hex(&release.mrseam)),
        }
    }
}

impl<'a> Report<'a> {
    pub(super) fn new(
        host: &'a Host,
        releases: &Releases,
        last: Option<&Attempt<'_>>,
        record_problem: Option<String>,
    ) -> Self {
        let (updatable, problem) = updatable(host);
        Self {
            updatable,
            problem,
            record_problem,
            module: host.module.as_ref().ok().map(|found| Module::of(found.value, releases)),
            host,
            missing_lps: host.lps_explained(),
            last_attempt: last.map(AttemptLine::of),
        }
    }
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let host = Host::read(&root);
        let releases = self.catalogue.releases(&root, &config)?;
        let state = self.host.state(&config)?;
        let (history, problem) = readable(Journal::new(&root, &state).read());
        let report = Report::new(&host, &releases, history.attempts().last(), problem);
        if self.host.json {
            print_json(out, "status", &report)?;
        } else {
            print(out, &report.text())?;
        }
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}

/// Returns the record, or why it cannot be read. The report shows the host's state in either case.
pub(super) fn readable(history: Result<History, RecordError>) -> (History, Option<String>) {
    match history {
        Ok(history) => (history, None),
        Err(error) => (History::default(), Some(error.to_string())),
    }
}

/// Returns whether the module can be replaced now, by the rules that hold for every plan, and why
/// not. `None` if facts are missing.
pub(super) fn updatable(host: &Host) -> (Option<bool>, Option<String>) {
    let (reasons, questions) = Plan::about_host(host);
    let said = |(message, advice): (&String, &Option<String>)| match advice {
        Some(advice) => format!("{message} ({advice})"),
        None => message.clone(),
    };
    let joined = |texts: Vec<String>| Some(texts.join("; "));
    if !reasons.is_empty() {
        let texts = reasons.iter().map(|reason| said((&reason.message, &reason.advice)));
        return (Some(false), joined(texts.collect()));
    }
    if !questions.is_empty() {
        let texts = questions.iter().map(|question| said((&question.message, &question.advice)));
        return (None, joined(texts.collect()));
    }
    (Some(true), None)
}

impl Report<'_> {
    /// Writes the report as text for people.
    pub(super) fn text(&self) -> String {
        let host = self.host;
        let mut page = Page::default();
        match (self.updatable, &self.problem) {
            (None, Some(problem)) => {
                page.line(format_args!(
                    "Cannot tell whether the module can be replaced: {problem}."
                ));
            }
            (_, Some(problem)) => {
                page.line(format_args!("The module cannot be replaced: {problem}."))
            }
            (_, None) => {
                page.line("The module can be replaced. `tdx-seamldr plan` shows by which image.")
            }
        }
        page.gap();
        match &self.module {
            Some(Module { version, svn: Some(svn), mrseam: Some(mrseam), .. }) => {
                page.row("TDX module", format_args!("{version} (SVN {svn})"));
                page.row("MRSEAM", mrseam);
            }
            Some(Module { version, .. }) => {
                page.row("TDX module", format_args!("{version}, not in the table of releases"));
            }
            None => page.row("TDX module", said(&host.module, |version| version.to_string())),
        }
        page.row("P-SEAMLDR", said(&host.seamldr, |version| version.to_string()));
        page.row("updates left", said(&host.remaining_updates, u32::to_string));
        match &host.interface {
            Ok(Interface::Flat) => page.row("kernel", kernel(host, "images of format v2")),
            Ok(Interface::Folder) => page.row("kernel", kernel(host, "images of format v1")),
            Err(_) => page.row("kernel", said(&host.kernel, Clone::clone)),
        }
        if host.interface.is_ok() {
            page.row("upload", said(&host.upload_status, Clone::clone));
        }
        let online = said(&host.online, |lps| format!("{} online ({lps})", lps.len()));
        let platform =
            said(&host.platform, |platform| format!("{} on the platform", platform.enabled));
        page.row("LPs", format_args!("{online}, {platform}"));
        match &host.sockets {
            Ok(sockets) => {
                for socket in &sockets.value {
                    let name = Platform::of_processor(socket.signature())
                        .map_or("another processor", Platform::name);
                    let microcode = socket
                        .microcode
                        .map_or_else(|| "unknown".into(), |value| format!("{value:#x}"));
                    page.row(
                        &format!("socket {}", socket.id),
                        format_args!("{name} ({:#x}), microcode {microcode}", socket.signature()),
                    );
                }
            }
            Err(absent) => page.row("sockets", absent),
        }
        for path in &host.staged {
            page.row("staged", format_args!("{path}: for the next boot; not the running module"));
        }
        if let Some(attempt) = &self.last_attempt {
            page.row("last update", attempt.to_string());
        }
        if let Some(problem) = &self.record_problem {
            page.row("record", problem);
        }
        if host.is_root_needed() {
            page.gap();
            page.line("Run the command as root to see all values.");
        }
        page.into_text()
    }
}

fn kernel(host: &Host, takes: &str) -> String {
    format!("{}, takes {takes}", said(&host.kernel, Clone::clone))
}

/// Returns a fact as text, or why it is unknown.
fn said<T>(fact: &Fact<T>, text: impl FnOnce(&T) -> String) -> String {
    match fact {
        Ok(found) => text(&found.value),
        Err(absent) if absent.reason == Reason::Missing => "-".into(),
        Err(absent) if absent.reason == Reason::NoDevice => "none (ENXIO)".into(),
        Err(absent) => format!("unknown ({absent})"),
    }
}
