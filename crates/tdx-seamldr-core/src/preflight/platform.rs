//! Rules about the machine and the running module: LPs, processors, remaining updates, security
//! versions, TDs in build.

use super::facts::{Facts, SeamldrVersion};
use super::finding::{Refusal, Unknown};
use super::{Findings, Policy};
use crate::abi::{SeamSigstruct, SeamldrFeatures0, Svn, TdxFeatures0};

/// The highest x2APIC ID that P-SEAMLDR takes (SEAMLDR.INSTALL, firmware rule 8.5.1).
const MAX_LP_ID: u32 = 1023;

/// The first P-SEAMLDR that keeps the handoff data when it installs a module.
const FIRST_WITH_HANDOFF: SeamldrVersion = SeamldrVersion { major: 1, minor: 5 };

/// Checks that a module runs (firmware rule 8.5.12), and that it can hand its TDs over (Linux's
/// condition for an update, firmware rule 2.1).
pub(super) fn check_running_module(findings: &mut Findings<'_>, facts: &Facts) {
    if let Some(runs) = findings.known(facts.module_runs, Unknown::RunningModule) {
        findings.refuse_if(!runs || facts.module_in_place == Some(false), Refusal::NoModule);
    }
    if let Some(features) = findings.known(facts.features0, Unknown::Features) {
        findings.refuse_if(
            !features.contains(TdxFeatures0::TD_PRESERVING),
            Refusal::NotTdPreserving(features),
        );
    }
}

/// Checks that every LP of the platform takes part, and that P-SEAMLDR takes their x2APIC IDs
/// (firmware rules 8.5.1 and 8.5.4).
pub(super) fn check_lps(findings: &mut Findings<'_>, facts: &Facts) {
    match (facts.num_lps, facts.platform_lps) {
        (Some(found), Some(wanted)) => {
            findings.refuse_if(found != wanted, Refusal::LpsMissing { found, wanted });
        }
        _ => findings.unknown(Unknown::Lps),
    }
    if let Some(found) = findings.known(facts.highest_x2apic_id, Unknown::LpIds) {
        findings.refuse_if(found > MAX_LP_ID, Refusal::LpId { found, limit: MAX_LP_ID });
    }
}

/// Checks that P-SEAMLDR can keep TDs, and that an update remains (firmware rule 8.5.30). An
/// unknown version is no finding, because a P-SEAMLDR that counts updates keeps the handoff data.
pub(super) fn check_remaining_updates(findings: &mut Findings<'_>, facts: &Facts) {
    if let Some(found) = facts.p_seamldr.filter(|found| *found < FIRST_WITH_HANDOFF) {
        return findings.refuse(Refusal::SeamldrWithoutHandoff { found });
    }
    if let Some(remaining) = findings.known(facts.remaining_updates, Unknown::RemainingUpdates) {
        findings.refuse_if(remaining == 0, Refusal::NoRemainingUpdates);
    }
}

/// Checks that the platform is unlocked if the image is a debug module (firmware rule 8.5.20).
pub(super) fn check_debug(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if sigstruct.is_debug() {
        if let Some(unlocked) = findings.known(facts.debug_unlocked, Unknown::DebugUnlocked) {
            findings.refuse_if(!unlocked, Refusal::DebugModule);
        }
    }
}

/// Checks the SVN (firmware rules 8.5.21-23) against that of the module in place.
pub(super) fn check_svn(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    let found = sigstruct.svn();
    findings.refuse_if(found.major == 0, Refusal::MajorSvnZero);
    if facts.module_in_place == Some(false) {
        return;
    }
    let Some(running) = findings.known(facts.running_svn, Unknown::RunningSvn) else { return };
    if found.major != running.major {
        findings.refuse(Refusal::MajorSvn { found, running });
    } else {
        findings.refuse_if(found.minor < running.minor, Refusal::MinorSvn { found, running });
    }
}

/// Checks that a load needs no SEAMLDR.CLEANUP first (firmware rules 8.5.21 and 8.5.23b).
/// Only a P-SEAMLDR that has that leaf needs it: after a successful INSTALL, keys and caches are
/// dirty until a CLEANUP ends. A module in place shows that they are dirty.
pub(super) fn check_cleanup(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    let Some(features) = findings.known(facts.seamldr_features, Unknown::Cleanup) else { return };
    if !features.contains(SeamldrFeatures0::CLEANUP) {
        return;
    }
    let found = sigstruct.svn();
    findings.refuse_if(found.major == 0, Refusal::MajorSvnZero);
    let running = match (facts.keys_are_clean, facts.module_in_place) {
        (Some(true), _) => return,
        (_, Some(true)) => facts.running_svn,
        // P-SEAMLDR compares with the SVN in SEAMEXTEND, which is zero without a module.
        (Some(false), Some(false)) => Some(Svn { major: 0, minor: 0 }),
        _ => None,
    };
    if let Some(running) = findings.known(running, Unknown::Cleanup) {
        let is_later = found.major == running.major && found.minor >= running.minor;
        findings.refuse_if(!is_later, Refusal::CleanupRequired { found, running });
    }
}

/// Checks that the image's list of CPUs names the processor of each socket (firmware rules
/// 8.5.25-26).
pub(super) fn check_sockets(findings: &mut Findings<'_>, sigstruct: &SeamSigstruct, facts: &Facts) {
    if sigstruct.cpus().is_empty() {
        return findings.refuse_if(!sigstruct.is_debug(), Refusal::NoCpuList);
    }
    let Some(sockets) = findings.known(facts.sockets, Unknown::Sockets) else { return };
    for (socket, &cpuid) in (0..u32::MAX).zip(sockets.signatures()) {
        findings.refuse_if(!sigstruct.lists_cpu(cpuid), Refusal::Cpu { socket, cpuid });
    }
}

/// Checks that no TD is in build and no migration interrupted, because an update would damage them.
/// A module with UPDATE_COMPATIBILITY counts them itself, except TDs that a module without the
/// feature began. Only the hypervisor knows these, so an absent number is then no finding.
pub(super) fn check_sensitive_operations(
    findings: &mut Findings<'_>,
    facts: &Facts,
    policy: Policy,
) {
    if policy.allow_damage {
        return;
    }
    match facts.sensitive_operations {
        None if facts.module_counts_sensitive_operations() => {}
        None => findings.unknown(Unknown::SensitiveOperations),
        Some(count) => findings.refuse_if(count != 0, Refusal::SensitiveOperations(count)),
    }
}

/// Checks that the image is not the running module.
pub(super) fn check_same_module(
    findings: &mut Findings<'_>,
    sigstruct: &SeamSigstruct,
    facts: &Facts,
) {
    if let Some(running) = findings.known(facts.running_mrseam, Unknown::SameModule) {
        findings.refuse_if(running == sigstruct.seamhash, Refusal::SameModule);
    }
}
