//! `tdx-seamldr status`: what runs on this host, and whether it can be replaced.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_core::TdxVersion;
use tdx_seamldr_host::fact::{Fact, Reason};
use tdx_seamldr_host::host::{Interface, NoInterface};
use tdx_seamldr_host::record::{Attempt, Journal};
use tdx_seamldr_host::{Host, Platform, Releases};

use tdx_seamldr_host::text::hex;

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

/// What `status` prints with `--json`.
#[derive(Serialize)]
pub(super) struct Report<'a> {
    /// Whether a module runs that could be replaced.
    updatable: bool,
    /// Why not.
    problem: Option<String>,
    module: Option<Module>,
    host: &'a Host,
    missing_lps: Vec<String>,
    last_attempt: Option<AttemptLine>,
}

/// What the table of releases says of the running module.
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
    pub(super) fn new(host: &'a Host, releases: &Releases, last: Option<&Attempt<'_>>) -> Self {
        let problem = problem(host);
        Self {
            updatable: problem.is_none(),
            problem,
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
        // A record that cannot be read does not hide the host's state.
        let history = Journal::new(&root, &state).read().unwrap_or_default();
        let report = Report::new(&host, &releases, history.attempts().last());
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

/// Says why the module cannot be replaced now.
fn problem(host: &Host) -> Option<String> {
    if let Err(none) = &host.interface {
        return Some(none.to_string());
    }
    if let Err(absent) = &host.module {
        if absent.reason == Reason::NoDevice {
            return Some(NoInterface::NotInitialised.to_string());
        }
        return Some(format!("the version of the module cannot be read: {absent}"));
    }
    let is_used_up = host.remaining_updates.as_ref().is_ok_and(|remaining| remaining.value == 0);
    if is_used_up {
        return Some("no updates remain before a reboot".into());
    }
    let missing = host.lps_explained();
    (!missing.is_empty()).then(|| missing.join("; "))
}

impl Report<'_> {
    /// Writes the report for people.
    pub(super) fn text(&self) -> String {
        let host = self.host;
        let mut page = Page::default();
        match &self.problem {
            None => page.line("The module can be replaced. `tdx-seamldr plan` says by which image."),
            Some(problem) => page.line(format_args!("The module cannot be replaced: {problem}.")),
        }
        page.gap();
        match &self.module {
            Some(Module { version, svn: Some(svn), mrseam: Some(mrseam), .. }) => {
                page.row("TDX module", format_args!("{version} (SVN {svn})"));
                page.row("MRSEAM", mrseam);
            }
            Some(Module { version, .. }) => {
                page.row("TDX module", format_args!("{version}, which the table of releases does not know"));
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
        let platform = said(&host.platform, |platform| format!("{} on the platform", platform.enabled));
        page.row("LPs", format_args!("{online}, {platform}"));
        match &host.sockets {
            Ok(sockets) => {
                for socket in &sockets.value {
                    let name = Platform::of_processor(socket.signature())
                        .map_or("another processor", Platform::name);
                    let microcode =
                        socket.microcode.map_or_else(|| "unknown".into(), |value| format!("{value:#x}"));
                    page.row(
                        &format!("socket {}", socket.id),
                        format_args!("{name} ({:#x}), microcode {microcode}", socket.signature()),
                    );
                }
            }
            Err(absent) => page.row("sockets", absent),
        }
        for path in &host.staged {
            page.row("staged", format_args!("{path}: for the next boot; not what runs"));
        }
        if let Some(attempt) = &self.last_attempt {
            page.row("last update", attempt.to_string());
        }
        if host.is_root_needed() {
            page.gap();
            page.line("Root sees more: run the command as root.");
        }
        page.into_text()
    }
}

fn kernel(host: &Host, takes: &str) -> String {
    format!("{}, takes {takes}", said(&host.kernel, Clone::clone))
}

/// Returns a fact, or why it is not known.
fn said<T>(fact: &Fact<T>, text: impl FnOnce(&T) -> String) -> String {
    match fact {
        Ok(found) => text(&found.value),
        Err(absent) if absent.reason == Reason::Missing => "-".into(),
        Err(absent) if absent.reason == Reason::NoDevice => "none (ENXIO)".into(),
        Err(absent) => format!("unknown ({absent})"),
    }
}
