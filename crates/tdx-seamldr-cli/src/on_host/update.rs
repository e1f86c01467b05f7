//! `tdx-seamldr update`: replaces the running module.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use tdx_seamldr_host::explain::Log;
use tdx_seamldr_host::update::{Ending, Made, Outcome, Progress, Report, Update};
use tdx_seamldr_host::{Catalogue, Config, Host, Plan, Root};

use super::options::{CatalogueOptions, HostOptions, RequestOptions, UpdateOptions};
use super::plan::describe;
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};
use crate::page::{wrap, Page};

/// Arguments of `update`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A version such as 1.5.16, or an image file; without it, the newest image that fits
    #[arg(value_name = "VERSION|FILE")]
    target: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// Options that `update` and `apply` share.
#[derive(clap::Args)]
pub(super) struct Options {
    #[command(flatten)]
    pub(super) host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
    #[command(flatten)]
    request: RequestOptions,
    #[command(flatten)]
    update: UpdateOptions,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.options.host.root();
        let config = self.options.host.config(&root)?;
        self.options.update("update", &root, &config, self.target.as_deref(), out, complaints)
    }

    fn json(&self) -> bool {
        self.options.host.json
    }
}

impl Options {
    /// Replaces the running module and prints the report. The schema of the report has the name of
    /// the subcommand.
    pub(super) fn update(
        &self,
        subcommand: &str,
        root: &Root,
        config: &Config,
        target: Option<&str>,
        out: &mut dyn Write,
        complaints: &mut dyn Write,
    ) -> Result<Exit, Error> {
        let mut catalogue = self.catalogue.catalogue(root, config)?;
        let request = self.request.request(config, &mut catalogue, target)?;
        let settings = self.update.settings(root, &self.host, config)?;
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).map_err(Error::Signals)?;
        }
        let update = Update {
            root,
            catalogue: &catalogue,
            request: &request,
            settings: &settings,
            stop: &stop,
        };
        let mut narrator = Narrator::new(complaints, &stop);
        let mut has_begun = false;
        let report = update.run(&mut |progress| {
            if matches!(progress, Progress::Step(_)) && !has_begun {
                has_begun = true;
                for warning in Plan::new(&Host::read(root), &catalogue, &request).warnings {
                    narrator.say(&format!("note: {warning}"));
                }
                narrator.say_problems(&catalogue);
            }
            narrator.hear(progress);
        });
        if !has_begun {
            narrator.say_problems(&catalogue);
        }
        narrator.end();
        let exit = exit(report.ending.outcome);
        let printed = match self.host.json {
            true => print_json(out, subcommand, &report),
            false => print(out, &text(&report)),
        };
        // The update may have replaced the module: the exit status must report this even if
        // printing fails.
        if let Err(error) = printed {
            let _ =
                writeln!(complaints, "tdx-seamldr: {error}. The update: {}", report.ending.message);
        }
        Ok(exit)
    }
}

const fn exit(outcome: Outcome) -> Exit {
    match outcome {
        Outcome::Updated | Outcome::NothingToDo => Exit::Done,
        Outcome::Refused | Outcome::Aborted => Exit::Refused,
        Outcome::FailedKept => Exit::Failed,
        Outcome::Lost | Outcome::Unknown => Exit::Lost,
    }
}

/// Shows progress: a bar on a terminal, lines elsewhere.
struct Narrator<'a> {
    out: &'a mut dyn Write,
    stop: &'a AtomicBool,
    bar: ProgressBar,
    is_committed: bool,
    has_heard_stop: bool,
}

impl<'a> Narrator<'a> {
    fn new(out: &'a mut dyn Write, stop: &'a AtomicBool) -> Self {
        // The bar draws nothing without a terminal.
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
        if let Ok(style) = ProgressStyle::with_template("{msg} {bytes}/{total_bytes}") {
            bar.set_style(style);
        }
        Self { out, stop, bar, is_committed: false, has_heard_stop: false }
    }

    fn say(&mut self, line: &str) {
        let mut text = String::new();
        wrap(&mut text, "", "  ", line);
        let out = &mut self.out;
        // No channel is left to report a failed write.
        self.bar.suspend(|| drop(out.write_all(text.as_bytes())));
    }

    fn say_problems(&mut self, catalogue: &Catalogue) {
        for problem in catalogue.problems() {
            self.say(&format!("ignored: {problem}"));
        }
    }

    fn hear(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::Step(step) => {
                self.is_committed = false;
                self.say(&format!(
                    "updating {} to {}",
                    step.from,
                    step.to.as_deref().unwrap_or("an unlisted module")
                ));
            }
            Progress::Hook(hook) => self.say(&format!("hook {}", hook.display())),
            Progress::HookLine(line) => self.say(&format!("  {line}")),
            Progress::HookFailed(error) => self.say(&format!("warning: {error}")),
            Progress::LeftBehind => {
                self.say("cancelled the upload that an earlier, killed update left open");
            }
            Progress::Sent(sent, total) => {
                self.bar.set_length(u64::try_from(total).unwrap_or(u64::MAX));
                self.bar.set_position(u64::try_from(sent).unwrap_or(u64::MAX));
                if sent == 0 {
                    self.bar.set_message("sending the image:");
                }
            }
            Progress::Committed => {
                self.is_committed = true;
                self.say("the kernel has the image; the update cannot be stopped any more");
            }
            Progress::Status(status) => self.say(&format!("kernel: {status}")),
            Progress::NotRecorded(error) => self.say(&format!("warning: {error}")),
            _ => {}
        }
        if self.is_committed && !self.has_heard_stop && self.stop.load(Ordering::SeqCst) {
            self.has_heard_stop = true;
            self.say("the update cannot be stopped any more: waiting for the kernel to finish");
        }
    }

    fn end(&self) {
        self.bar.finish_and_clear();
    }
}

fn text(report: &Report) -> String {
    let mut page = Page::default();
    for Made { step, ending } in &report.steps {
        let to = step.to.as_deref().unwrap_or("an unlisted module");
        page.line(format_args!("{} -> {to}: {}", step.from, verdict(ending.outcome)));
        add(&mut page, ending);
    }
    match report.ending.outcome {
        Outcome::Updated if !report.steps.is_empty() => {}
        Outcome::Lost | Outcome::Unknown => {}
        Outcome::Aborted => page.line("Stopped; nothing was touched."),
        Outcome::NothingToDo | Outcome::Refused => describe(&mut page, &report.plan),
        Outcome::FailedKept | Outcome::Updated => {
            if report.steps.last().is_none_or(|made| made.ending != report.ending) {
                page.line(verdict(report.ending.outcome));
                add(&mut page, &report.ending);
            }
        }
    }
    page.into_text()
}

const fn verdict(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Updated => "updated; the TDs keep running",
        Outcome::NothingToDo => "nothing to do",
        Outcome::Refused => "refused; nothing was touched",
        Outcome::Aborted => "stopped; nothing was touched",
        Outcome::FailedKept => "FAILED; the TDs keep running",
        Outcome::Lost => "FAILED; all TDs are lost, and TDX is gone until a reboot",
        Outcome::Unknown => "FAILED; the state of the TDs is unknown",
    }
}

fn add(page: &mut Page, ending: &Ending) {
    page.item(&ending.message);
    if let Some(advice) = &ending.advice {
        page.advice(advice);
    }
    if !ending.kernel_lines.is_empty() {
        page.item("the kernel's log says:");
        for line in &ending.kernel_lines {
            page.advice(line);
        }
        if let Ok(log) = Log::read(ending.kernel_lines.join("\n").as_bytes()) {
            page.item(&log.summary);
        }
    }
    if let Some(remaining) = ending.remaining_updates {
        page.item(format_args!("updates left before a reboot: {remaining}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_status_shows_whether_tds_are_kept() {
        for (outcome, code) in [
            (Outcome::Updated, 0),
            (Outcome::NothingToDo, 0),
            (Outcome::Refused, 1),
            (Outcome::Aborted, 1),
            (Outcome::FailedKept, 3),
            (Outcome::Lost, 4),
            (Outcome::Unknown, 4),
        ] {
            assert_eq!(exit(outcome).code(), code, "{outcome:?}");
        }
    }
}
