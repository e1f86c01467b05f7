//! Checks that plan and host have not changed between the plan and the last write.

use tdx_seamldr_core::TdxVersion;

use super::{host_reason, Stopped};
use crate::host::Host;
use crate::plan::{Plan, Question, Reason, Scope, Step, Verdict};

/// Returns the version of the running module, if the kernel shows it.
pub(super) fn version(host: &Host) -> Option<TdxVersion> {
    host.module.as_ref().ok().map(|found| found.value)
}

/// Returns the number of updates that remain, if the kernel shows it.
pub(super) fn remaining(host: &Host) -> Option<u32> {
    host.remaining_updates.as_ref().ok().map(|found| found.value)
}

/// Turns the plan's open questions into reasons.
pub(super) fn open_questions(plan: &Plan) -> Vec<Reason> {
    let reason = |question: &Question| {
        let how = question.advice.as_deref().map_or(String::new(), |advice| format!("{advice}; "));
        Reason {
            code: question.code,
            message: question.message.clone(),
            advice: Some(format!("{how}{} accepts the risk", question.option)),
            scope: Scope::Host,
        }
    };
    plan.open_questions().map(reason).collect()
}

/// Checks that the plan after the hooks equals the plan before them, without open questions.
pub(super) fn check_again(plan: &Plan, step: &Step) -> Result<(), Stopped> {
    if plan.verdict == Verdict::Refused {
        return Err(Stopped::Refused(plan.reasons.clone()));
    }
    let open = open_questions(plan);
    if !open.is_empty() {
        return Err(Stopped::Refused(open));
    }
    if plan.steps.first() != Some(step) {
        let now = plan.steps.first().map_or_else(|| "nothing".into(), Step::summary);
        let message = format!(
            "the plan changed from {} to {now} while the pre-update hooks ran",
            step.summary()
        );
        return Err(changed(message));
    }
    Ok(())
}

fn changed(message: String) -> Stopped {
    host_reason("changed", message, "nothing was touched: start the update again").into()
}

/// Returns a fact of a host as text, or `None` if it is unknown.
type Fact = fn(&Host) -> Option<String>;

/// Checks that the facts of the update did not change during the upload.
pub(super) fn check_unchanged(planned: &Host, now: &Host) -> Result<(), Stopped> {
    let facts: [(&str, Fact); 3] = [
        ("LPs online", |host| host.online.as_ref().ok().map(|online| online.value.to_string())),
        ("the version", |host| version(host).map(|version| version.to_string())),
        ("the number of remaining updates", |host| remaining(host).map(|left| left.to_string())),
    ];
    let shown = |text: Option<String>| text.unwrap_or_else(|| "unknown".into());
    for (what, fact) in facts {
        let (before, after) = (fact(planned), fact(now));
        if before != after {
            let (before, after) = (shown(before), shown(after));
            return Err(changed(format!(
                "{what} changed from {before} to {after} during the upload"
            )));
        }
    }
    Ok(())
}
