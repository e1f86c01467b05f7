//! Rules about the version and the size of the handoff data (SEAMLDR.INSTALL, firmware rule
//! 8.5.31).

use super::facts::Facts;
use super::finding::{Finding, Refusal, Unknown};
use super::Findings;
use crate::abi::SeamSigstruct;

/// Bytes in front of the handoff data.
const HANDOFF_HEADER: u32 = 8;

/// Pages of handoff data of version 0 that a module with a later version takes. Its own
/// number of pages does not count then.
const PAGES_OF_HV0: u32 = 25;

/// The highest handoff version whose rule for pages is known. Data in a later one may need others.
const LAST_KNOWN_HV: u16 = 2;

/// Checks that the new module can take the handoff data that the running module will leave.
pub(super) fn check(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    let running = findings.known(facts.handoff, Unknown::HandoffVersions);
    let common = running.and_then(|running| running.negotiate(sigstruct));
    if let (Some(running), None) = (running, common) {
        let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
        findings.refuse(Refusal::HandoffVersion { running, min_update_hv, module_hv });
    }
    match check_pages(sigstruct, facts, common) {
        Err(Finding::Refusal(refusal)) => findings.refuse(refusal),
        Err(Finding::Unknown(unknown)) => findings.unknown(unknown),
        Ok(()) => {}
    }
}

/// Checks that the module can take handoff data in this version, which exists or which an update
/// will leave. Does not report unknowns.
pub(super) fn check_taking(
    findings: &mut Findings<'_>,
    sigstruct: &SeamSigstruct,
    facts: &Facts,
    version: Option<u16>,
) {
    if let Some(found) = version {
        let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
        findings.refuse_if(
            !(min_update_hv..=module_hv).contains(&found),
            Refusal::HandoffDataVersion { found, min_update_hv, module_hv },
        );
    }
    let version =
        version.or_else(|| facts.handoff.and_then(|running| running.negotiate(sigstruct)));
    if let Err(Finding::Refusal(refusal)) = check_pages(sigstruct, facts, version) {
        findings.refuse(refusal);
    }
}

/// Checks that the handoff data fits into the new module's pages. An unknown version may be any
/// version that the new module takes.
fn check_pages(new: &SeamSigstruct, facts: &Facts, version: Option<u16>) -> Result<(), Finding> {
    let module_hv = new.module_hv.get();
    let room = |version| match version {
        0 if module_hv != 0 => PAGES_OF_HV0,
        _ => u32::from(new.num_handoff_pages.get()).saturating_add(1),
    };
    let [one, other] =
        [version.unwrap_or(new.min_update_hv.get()), version.unwrap_or(module_hv)].map(room);
    let (least, most) = (one.min(other), one.max(other));
    let wanted = facts.handoff_data.map(|data| data.saturating_add(HANDOFF_HEADER).div_ceil(4096));
    let is_sure = facts.handoff_data.is_some() && version.unwrap_or(module_hv) <= LAST_KNOWN_HV;
    match wanted.or(facts.handoff_pages) {
        Some(pages) if pages <= least => Ok(()),
        Some(wanted) if wanted > most && is_sure => {
            Err(Finding::Refusal(Refusal::HandoffPages { found: most, wanted }))
        }
        _ => Err(Finding::Unknown(Unknown::HandoffData)),
    }
}
