//! `tdx-seamldr report`: prints a text to paste into a bug report.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::explain::Log;
use tdx_seamldr_host::kernel_log::tdx_lines;
use tdx_seamldr_host::record::Journal;
use tdx_seamldr_host::Host;

use super::history::AttemptLine;
use super::options::{CatalogueOptions, HostOptions};
use super::status;
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};
use crate::page::Page;

/// The most attempts that a report has: the last ones.
const ATTEMPTS: usize = 10;

/// Arguments of `report`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
}

/// The JSON object of `report`.
#[derive(Serialize)]
struct Report {
    version: &'static str,
    #[serde(flatten)]
    status: serde_json::Value,
    attempts: Vec<AttemptLine>,
    kernel_lines: Vec<String>,
    /// The reason why the kernel's log cannot be read.
    kernel_log_problem: Option<String>,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let host = Host::read(&root);
        let releases = self.catalogue.releases(&root, &config)?;
        let (history, record_problem) =
            status::readable(Journal::new(&root, &self.host.state(&config)?).read());
        let attempts = history.attempts();
        let last = attempts.get(attempts.len().saturating_sub(ATTEMPTS)..).unwrap_or_default();
        let (kernel_lines, kernel_log_problem) = match tdx_lines(&root) {
            Ok(lines) => (lines, None),
            Err(absent) => (Vec::new(), Some(absent.to_string())),
        };
        let status = status::Report::new(&host, &releases, None, record_problem);
        if self.host.json {
            let mut status = serde_json::to_value(&status)?;
            // The kernel's command line can contain names of hosts and disks, and addresses.
            if let Some(host) = status.get_mut("host").and_then(serde_json::Value::as_object_mut) {
                host.remove("command_line");
            }
            let report = Report {
                version: env!("CARGO_PKG_VERSION"),
                status,
                attempts: last.iter().map(|attempt| AttemptLine::of(attempt).anonymous()).collect(),
                kernel_lines,
                kernel_log_problem,
            };
            print_json(out, "report", &report)?;
            return Ok(Exit::Done);
        }
        let mut text =
            format!("tdx-seamldr {}\n\n{}\n\n", env!("CARGO_PKG_VERSION"), status.text());
        let mut page = Page::default();
        page.line("Updates:");
        for attempt in last {
            page.item(AttemptLine::of(attempt));
        }
        if last.is_empty() {
            page.item("none is recorded");
        }
        page.gap();
        page.line("The kernel's log lines on TDX, without addresses:");
        if let Some(problem) = &kernel_log_problem {
            page.item(problem);
        }
        text.push_str(&page.into_text());
        for line in &kernel_lines {
            text.push_str("\n    ");
            text.push_str(&tdx_seamldr_host::text::printable(line));
        }
        if let Ok(log) = Log::read(kernel_lines.join("\n").as_bytes()) {
            text.push_str("\n\n");
            text.push_str(&log.summary);
        }
        print(out, &text)?;
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}
