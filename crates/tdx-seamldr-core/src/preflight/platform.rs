//! Rules about the machine and the running module: LPs, processors, remaining updates, security versions, TDs in build.

use super::facts::Facts;
use super::finding::{Refusal, Unknown};
use super::{Findings, Policy};
use crate::abi::{SeamSigstruct, TdxFeatures0};

/// The highest x2APIC ID that P-SEAMLDR has a place for (SEAMLDR.INSTALL, step 1).
const MAX_LP_ID: u32 = 1023;

/// Step 12, and Linux's condition for an update: a module runs, and it can hand its TDs over.
pub(super) fn check_running_module(findings: &mut Findings<'_>, facts: &Facts) {
    if let Some(runs) = findings.known(facts.module_runs, Unknown::RunningModule) {
        findings.refuse_if(!runs, Refusal::NoModule);
    }
    if let Some(features) = findings.known(facts.features0, Unknown::Features) {
        findings
            .refuse_if(!features.contains(TdxFeatures0::TD_PRESERVING), Refusal::NotTdPreserving(features));
    }
}

/// Steps 1 and 4: every LP of the platform takes part, and P-SEAMLDR has a place for each.
pub(super) fn check_lps(findings: &mut Findings<'_>, facts: &Facts) {
    match (facts.num_lps, facts.platform_lps) {
        (Some(found), Some(wanted)) => {
            findings.refuse_if(found != wanted, Refusal::LpsMissing { found, wanted });
        }
        _ => findings.unknown(Unknown::Lps),
    }
    if let Some(found) = facts.highest_x2apic_id {
        findings.refuse_if(found > MAX_LP_ID, Refusal::LpId { found, limit: MAX_LP_ID });
    }
}

/// Step 30.
pub(super) fn check_remaining_updates(findings: &mut Findings<'_>, facts: &Facts) {
    if let Some(remaining) = findings.known(facts.remaining_updates, Unknown::RemainingUpdates) {
        findings.refuse_if(remaining == 0, Refusal::NoRemainingUpdates);
    }
}

/// Step 20.
pub(super) fn check_debug(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if sigstruct.is_debug() {
        if let Some(unlocked) = findings.known(facts.debug_unlocked, Unknown::DebugUnlocked) {
            findings.refuse_if(!unlocked, Refusal::DebugModule);
        }
    }
}

/// Steps 21 to 23.
pub(super) fn check_svn(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    let found = sigstruct.svn();
    findings.refuse_if(found.major == 0, Refusal::MajorSvnZero);
    let Some(running) = findings.known(facts.running_svn, Unknown::RunningSvn) else { return };
    if found.major != running.major {
        findings.refuse(Refusal::MajorSvn { found, running });
    } else {
        findings.refuse_if(found.minor < running.minor, Refusal::MinorSvn { found, running });
    }
}

/// Steps 25 and 26.
pub(super) fn check_sockets(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if sigstruct.cpus().is_empty() {
        return findings.refuse_if(!sigstruct.is_debug(), Refusal::NoCpuList);
    }
    let Some(sockets) = findings.known(facts.sockets, Unknown::Sockets) else { return };
    for (socket, &cpuid) in (0..u32::MAX).zip(sockets.signatures()) {
        findings.refuse_if(!sigstruct.lists_cpu(cpuid), Refusal::Cpu { socket, cpuid });
    }
}

/// An update would come between the steps of a TD's build, or of a migration. A module with UPDATE_COMPATIBILITY counts these by
/// itself, but not the TDs that an older module began.
pub(super) fn check_sensitive_operations(findings: &mut Findings<'_>, facts: &Facts, policy: Policy) {
    if policy.allow_damage {
        return;
    }
    match facts.sensitive_operations {
        None if facts.module_counts_sensitive_operations() => {}
        None => findings.unknown(Unknown::SensitiveOperations),
        Some(count) => findings.refuse_if(count != 0, Refusal::SensitiveOperations(count)),
    }
}

/// The image is not the running module itself.
pub(super) fn check_same_module(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if let Some(running) = findings.known(facts.running_mrseam, Unknown::SameModule) {
        findings.refuse_if(running == sigstruct.seamhash, Refusal::SameModule);
    }
}
