//! The reasons against one image on one host: core's preflight, and the rules of the host's
//! catalogue.

use tdx_seamldr_core::image::Checksum;
use tdx_seamldr_core::preflight::{
    check_host, preflight, Finding, Policy, Refusal, Unknown, Unknowns,
};

use super::reason::{sort, Question, Reason, Scope};
use super::running::{facts, Running};
use super::Request;
use crate::catalogue::{is_new_enough, Catalogue, Image};
use crate::host::Host;
use crate::releases::Platform;

/// The findings on one image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) reasons: Vec<Reason>,
    pub(super) questions: Vec<Question>,
}

impl Judged {
    /// Whether all reasons against the image are about the host.
    pub(super) fn fits(&self) -> bool {
        self.reasons.iter().all(|reason| reason.scope == Scope::Host)
    }

    /// Whether Intel's minimum for the running module is the only reason against the image.
    pub(super) fn needs_a_step_between(&self) -> bool {
        !self.fits()
            && self
                .reasons
                .iter()
                .all(|reason| reason.scope == Scope::Host || reason.code == MODULE_MINIMUM)
    }
}

pub(super) const MODULE_MINIMUM: &str = "module-minimum";

/// Checks an update from `running` to `image` after `steps` other updates.
pub(super) fn judge(
    host: &Host,
    catalogue: &Catalogue,
    request: &Request,
    running: Option<&Running<'_>>,
    image: &Image,
    steps: u32,
) -> Judged {
    let mut judged = Judged::default();
    let Judged { reasons, questions } = &mut judged;
    if let Checksum::Bad { .. } = image.checksum() {
        let reason = Reason::new(
            Scope::File,
            "checksum",
            "the sum of the file's 16-bit words is not 0, but format v1 requires 0",
        );
        reasons.push(reason.advise("the file is damaged: download it again from Intel"));
    }
    check_platforms(host, image, reasons);
    check_format(host, image, reasons);
    check_seamldr(host, catalogue, image, request.accept, reasons, questions);
    if !request.allow_below_minimum {
        check_minimum(catalogue, running, image, reasons);
    }
    let policy = Policy { allow_same_module: request.allow_same_module, ..Policy::default() };
    let facts = facts(host, running, catalogue, steps, request.no_td_launches);
    // The running module proves that the memory suffices.
    let has_room = running.is_some_and(|running| running.leaves_room_for(image));
    match image.verified() {
        Ok((parsed, crypto)) => {
            let report = &mut |finding| {
                if !(has_room && is_about_memory(&finding)) {
                    sort(finding, request.accept, reasons, questions);
                }
            };
            // The findings contain more than the result.
            let _ = preflight(&parsed, &facts, &crypto, policy, report);
        }
        Err(error) => reasons.push(Reason::new(Scope::File, "image", error.to_string())),
    }
    judged
}

/// Checks the host alone, by core's rules that hold for every image.
pub(super) fn judge_host(host: &Host) -> Judged {
    let mut judged = Judged::default();
    let Judged { reasons, questions } = &mut judged;
    let facts = facts(host, None, &Catalogue::default(), 0, false);
    let report = &mut |finding| sort(finding, Unknowns::NONE, reasons, questions);
    // The findings contain more than the result.
    let _ = check_host(&facts, Policy::default(), report);
    judged
}

const fn is_about_memory(finding: &Finding) -> bool {
    use Refusal::{Memory, PageTables};
    matches!(
        finding,
        Finding::Unknown(Unknown::Memory) | Finding::Refusal(Memory { .. } | PageTables { .. })
    )
}

/// Checks that the release is for this platform. The release notes name platforms; the image's list
/// of CPUs may have more.
fn check_platforms(host: &Host, image: &Image, reasons: &mut Vec<Reason>) {
    let wanted = image.platforms();
    if wanted.is_empty() {
        return;
    }
    for (socket, signature) in host.signatures().into_iter().enumerate() {
        let Some(found) = Platform::of_processor(signature) else { continue };
        if !wanted.contains(&found) {
            let names: Vec<_> = wanted.iter().map(|platform| platform.name()).collect();
            let message = format!(
                "the release is for {}, but socket {socket} has {} (0x{signature:x})",
                names.join(", "),
                found.name()
            );
            reasons.push(Reason::new(Scope::Fit, "platform", message));
            return;
        }
    }
}

/// Checks that the image fits into the only format that the kernel takes.
fn check_format(host: &Host, image: &Image, reasons: &mut Vec<Reason>) {
    let Ok(interface) = host.interface else { return };
    let format = interface.image_format();
    if let Err(error) = image.in_format(format) {
        let message = format!("this kernel takes {}, and {error}", format.name());
        let advice = "pack the module with its SIGSTRUCT: `tdx-seamldr pack`";
        reasons.push(Reason::new(Scope::Fit, "format", message).advise(advice));
    }
}

/// Checks Intel's minimum P-SEAMLDR of each line. The host must satisfy every source that names a
/// minimum.
fn check_seamldr(
    host: &Host,
    catalogue: &Catalogue,
    image: &Image,
    accepted: Unknowns,
    reasons: &mut Vec<Reason>,
    questions: &mut Vec<Question>,
) {
    let Some(version) = image.version() else { return };
    let minimums = catalogue.minimums(version).seamldr;
    let Ok(found) = &host.seamldr else {
        if !minimums.is_empty() {
            questions.push(Question::new(Unknown::SeamldrVersion, accepted));
        }
        return;
    };
    if let Some(unmet) = minimums.iter().find(|oldest| !is_new_enough(found.value, oldest)) {
        let wanted: Vec<_> = unmet.iter().map(ToString::to_string).collect();
        let message = format!(
            "{version} needs P-SEAMLDR {} by Intel's table, but the host has {}",
            wanted.join(" or "),
            found.value
        );
        reasons.push(
            Reason::new(Scope::Fit, "seamldr-minimum", message)
                .advise("P-SEAMLDR comes with the BIOS: install a newer one"),
        );
    }
}

/// Checks Intel's minimum for the running module. P-SEAMLDR has no such rule.
fn check_minimum(
    catalogue: &Catalogue,
    running: Option<&Running<'_>>,
    image: &Image,
    reasons: &mut Vec<Reason>,
) {
    let (Some(running), Some(version)) = (running, image.version()) else { return };
    let Some(wanted) = catalogue.minimums(version).module else { return };
    if running.version < wanted {
        let message = format!(
            "Intel's table requires {wanted} or newer to run before {version}, but {} runs; \
             P-SEAMLDR itself has no such rule",
            running.version
        );
        let advice = format!(
            "update to {wanted} first if possible, or boot with it; --allow-below-minimum skips \
             this rule"
        );
        reasons.push(Reason::new(Scope::Fit, MODULE_MINIMUM, message).advise(advice));
    }
}
