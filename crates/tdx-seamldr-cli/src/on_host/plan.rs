//! `tdx-seamldr plan`: shows which image an update would install, and why each other image is
//! rejected.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::plan::{Candidate, Plan, Question, Reason, Scope, Verdict};
use tdx_seamldr_host::Host;

use super::options::{CatalogueOptions, HostOptions, RequestOptions};
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file::shown;
use crate::output::{print, print_json};
use crate::page::Page;

/// Arguments of `plan`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A version such as 1.5.16, or an image file; without it, the newest image that fits
    #[arg(value_name = "VERSION|FILE")]
    target: Option<String>,
    #[command(flatten)]
    host: HostOptions,
    #[command(flatten)]
    catalogue: CatalogueOptions,
    #[command(flatten)]
    request: RequestOptions,
}

/// The JSON object of `plan`.
#[derive(Serialize)]
struct Report {
    #[serde(flatten)]
    plan: Plan,
    catalogue_problems: Vec<String>,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.host.root();
        let config = self.host.config(&root)?;
        let mut catalogue = self.catalogue.catalogue(&root, &config)?;
        let request = self.request.request(&config, &mut catalogue, self.target.as_deref())?;
        let plan = Plan::new(&Host::read(&root), &catalogue, &request);
        let exit = exit(&plan);
        let report = Report {
            plan,
            catalogue_problems: catalogue.problems().iter().map(ToString::to_string).collect(),
        };
        if self.host.json {
            print_json(out, "plan", &report)?;
        } else {
            let mut page = Page::default();
            describe(&mut page, &report.plan);
            for problem in &report.catalogue_problems {
                page.item(format_args!("ignored: {problem}"));
            }
            print(out, &page.into_text())?;
        }
        Ok(exit)
    }

    fn json(&self) -> bool {
        self.host.json
    }
}

/// A plan whose only open question is about TDs in build succeeds. Other open questions refuse it.
fn exit(plan: &Plan) -> Exit {
    let is_open = |question: &Question| !question.is_about_tds();
    match plan.verdict {
        Verdict::NothingToDo | Verdict::Ready => Exit::Done,
        Verdict::Asks if !plan.open_questions().any(is_open) => Exit::Done,
        Verdict::Asks | Verdict::Refused => Exit::Refused,
    }
}

/// Writes a plan as text for people.
pub(super) fn describe(page: &mut Page, plan: &Plan) {
    match (plan.verdict, &plan.running) {
        (Verdict::NothingToDo, Some(running)) => {
            page.line(format_args!(
                "Nothing to do: module {running} runs, and no newer image fits."
            ));
        }
        (Verdict::NothingToDo, None) => page.line("Nothing to do."),
        (Verdict::Refused, Some(running)) => {
            page.line(format_args!("Refused: module {running} stays in place."))
        }
        (Verdict::Refused, None) => page.line("Refused: this host cannot replace a module."),
        (Verdict::Ready, _) => {
            page.line("Ready: run `tdx-seamldr update` with the same arguments.")
        }
        (Verdict::Asks, _) => page.line("An update can begin when these questions are answered:"),
    }
    for reason in &plan.reasons {
        add_reason(page, reason);
    }
    for question in &plan.questions {
        let by = if question.accepted { "accepted with" } else { "to accept the risk, use" };
        page.item(format_args!("{} ({by} {})", question.message, question.option));
        if let Some(advice) = question.advice.as_ref().filter(|_| !question.accepted) {
            page.advice(advice);
        }
    }
    for step in &plan.steps {
        page.gap();
        let to = step.to.as_deref().unwrap_or("an unlisted module");
        page.row("update", format_args!("{} -> {to} (SVN {})", step.from, step.svn));
        page.row("image", shown(&step.file));
        page.row(
            "in quotes after",
            format_args!("MRSEAM {}, TEE_TCB_SVN_2 {}...", step.mrseam, step.tee_tcb_svn_2),
        );
    }
    if !plan.warnings.is_empty() {
        page.gap();
        page.line("Worth knowing:");
        for warning in &plan.warnings {
            page.item(warning);
        }
    }
    let others = || {
        plan.candidates.iter().filter(|one| !plan.steps.iter().any(|step| step.file == one.file))
    };
    if others().next().is_some() {
        page.gap();
        page.line("Other images:");
        for candidate in others() {
            page.item(format_args!("{}: {}", name(candidate), against(candidate)));
        }
    }
}

fn add_reason(page: &mut Page, reason: &Reason) {
    page.item(format_args!("{} [{}]", reason.message, reason.code));
    if let Some(advice) = &reason.advice {
        page.advice(advice);
    }
}

fn name(candidate: &Candidate) -> String {
    candidate.version.clone().unwrap_or_else(|| shown(&candidate.file))
}

/// Returns why the plan does not use an image. Leaves out the reasons that hold for all images.
fn against(candidate: &Candidate) -> String {
    let mut own = candidate.reasons.iter().filter(|reason| reason.scope != Scope::Host);
    match (own.next(), own.count()) {
        (Some(reason), 0) => reason.message.clone(),
        (Some(reason), more) => format!("{} (and {more} more: --json)", reason.message),
        (None, _) => match candidate.newer {
            Some(true) => "fits, but a newer image fits too".into(),
            Some(false) => "not newer than the running module".into(),
            None => "fits by all rules that could be checked".into(),
        },
    }
}
