//! Rules about the handoff data: its version, and room for it (SEAMLDR.INSTALL, step 31, as far as it is known beforehand).

use super::facts::{Facts, HandoffRange};
use super::finding::{Finding, Refusal, Unknown};
use super::Findings;
use crate::abi::SeamSigstruct;

/// Bytes in front of the handoff data.
const HANDOFF_HEADER: u32 = 8;

/// Pages of handoff data of version 0 that a module with a later version takes, however many it has itself (facts 7.6).
const PAGES_OF_HV0: u32 = 25;

/// The handoff data that the running module is going to leave.
pub(super) fn check(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    let running = findings.known(facts.handoff, Unknown::HandoffVersions);
    if let Some(running) = running {
        check_version(findings, sigstruct, running);
    }
    let common = running.and_then(|running| running.negotiate(sigstruct));
    match check_pages(sigstruct, facts, common) {
        Err(Finding::Refusal(refusal)) => findings.refuse(refusal),
        Err(Finding::Unknown(unknown)) => findings.unknown(unknown),
        Ok(()) => {}
    }
}

/// Handoff data in this version, which exists or which an update is going to leave. What is not known is no finding.
pub(super) fn check_taking(
    findings: &mut Findings<'_>,
    sigstruct: &SeamSigstruct,
    facts: &Facts,
    version: Option<u16>,
) {
    if let Some(written) = version {
        let only = HandoffRange { module_hv: written, min_update_hv: written, no_downgrade: false };
        check_version(findings, sigstruct, only);
    }
    let version = version.or_else(|| facts.handoff.and_then(|running| running.negotiate(sigstruct)));
    if let Err(Finding::Refusal(refusal)) = check_pages(sigstruct, facts, version) {
        findings.refuse(refusal);
    }
}

/// The new module takes at least one version that is written.
fn check_version(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, running: HandoffRange) {
    let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
    findings.refuse_if(
        running.negotiate(sigstruct).is_none(),
        Refusal::HandoffVersion { running, min_update_hv, module_hv },
    );
}

/// The handoff data fits into the new module's pages. Where the version is not known, it may be any that the new module takes.
fn check_pages(new: &SeamSigstruct, facts: &Facts, version: Option<u16>) -> Result<(), Finding> {
    let module_hv = new.module_hv.get();
    let room = |version| match version {
        0 if module_hv != 0 => PAGES_OF_HV0,
        _ => u32::from(new.num_handoff_pages.get()).saturating_add(1),
    };
    let [one, other] = [version.unwrap_or(new.min_update_hv.get()), version.unwrap_or(module_hv)].map(room);
    let (least, most) = (one.min(other), one.max(other));
    let wanted = facts.handoff_data.map(|data| data.saturating_add(HANDOFF_HEADER).div_ceil(4096));
    match wanted.or(facts.handoff_pages) {
        Some(pages) if pages <= least => Ok(()),
        Some(wanted) if wanted > most && facts.handoff_data.is_some() => {
            Err(Finding::Refusal(Refusal::HandoffPages { found: most, wanted }))
        }
        _ => Err(Finding::Unknown(Unknown::HandoffData)),
    }
}
