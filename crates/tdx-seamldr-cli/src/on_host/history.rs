//! `tdx-seamldr history`: prints the record of updates.

use std::fmt;
use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::record::{Attempt, Event, Journal};

use super::options::HostOptions;
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};
use crate::page::Page;

/// Arguments of `history`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    host: HostOptions,
}

/// The JSON object of `history`.
#[derive(Serialize)]
struct Report {
    attempts: Vec<AttemptLine>,
    damaged_lines: Vec<usize>,
}

/// An attempt to update the module.
#[derive(Serialize)]
pub(super) struct AttemptLine {
    began: String,
    ended: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot: Option<String>,
    from: String,
    to: Option<String>,
    file: String,
    mrseam: String,
    /// Whether the command was about to write the last byte.
    committing: bool,
    /// The name of the outcome, such as `updated`. `None` if the process or the host stopped
    /// before the end.
    outcome: Option<String>,
    message: Option<String>,
    version: Option<String>,
    remaining_updates: Option<u32>,
}

impl AttemptLine {
    pub(super) fn of(attempt: &Attempt<'_>) -> Self {
        let (from, to, file, mrseam) = match &attempt.began.event {
            Event::Began { from, to, file, mrseam } => {
                (from.clone(), to.clone(), file.clone(), mrseam.clone())
            }
            Event::Committing | Event::Ended { .. } => Default::default(),
        };
        let mut line = Self {
            began: attempt.began.time.clone(),
            ended: attempt.ended.map(|record| record.time.clone()),
            boot: attempt.began.boot.clone(),
            from,
            to,
            file,
            mrseam,
            committing: attempt.committing,
            outcome: None,
            message: None,
            version: None,
            remaining_updates: None,
        };
        if let Some(Event::Ended { outcome, message, version, remaining_updates }) =
            attempt.ended.map(|record| record.event.clone())
        {
            (line.outcome, line.message) = (Some(outcome), Some(message));
            (line.version, line.remaining_updates) = (version, remaining_updates);
        }
        line
    }

    /// Returns the line without data that identifies the host: the boot's id and the file's
    /// folders.
    pub(super) fn anonymous(self) -> Self {
        let name = self.file.rsplit('/').next().unwrap_or_default().to_owned();
        Self { boot: None, file: name, ..self }
    }
}

impl fmt::Display for AttemptLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = self.to.as_deref().unwrap_or("an unknown module");
        write!(f, "{} {} -> {to}: ", self.began, self.from)?;
        match (&self.outcome, &self.message) {
            (Some(outcome), Some(message)) => write!(f, "{outcome}, {message}"),
            _ if self.committing => f.write_str(
                "the command ended at or just before the last write to the kernel: check which \
                 version runs",
            ),
            _ => f.write_str(
                "the command ended before the kernel had the whole image: nothing was touched",
            ),
        }
    }
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let state = self.host.state(&config)?;
        let history = Journal::new(&root, &state).read()?;
        let report = Report {
            attempts: history.attempts().iter().map(AttemptLine::of).collect(),
            damaged_lines: history.damaged.clone(),
        };
        if self.host.json {
            print_json(out, "history", &report)?;
            return Ok(Exit::Done);
        }
        let mut page = Page::default();
        for attempt in &report.attempts {
            page.line(attempt);
        }
        if report.attempts.is_empty() {
            page.line("No update is recorded.");
        }
        if !report.damaged_lines.is_empty() {
            page.line(format_args!(
                "Lines of the record that cannot be read: {:?}",
                report.damaged_lines
            ));
        }
        print(out, &page.into_text())?;
        Ok(Exit::Done)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}
