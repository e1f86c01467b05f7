//! Advice for the status words of P-SEAMLDR.
//!
//! Linux calls SEAMLDR.INSTALL only after the old module was shut down. So every error of the leaf
//! costs the TDs under Linux, even if P-SEAMLDR itself can recover.

use tdx_seamldr_core::abi::SeamldrStatus;

use super::advice::Advice;
use super::step::Relation;

/// The cost of an error of SEAMLDR.INSTALL, as at the step itself.
const LOST: &str = super::step::Step::Install.fate();

const REBOOT: &str = "If this error ended an update, the TDs are lost: stop their processes and \
                      plan a reboot, which brings the BIOS's module back.";

const fn row(
    status: SeamldrStatus,
    meaning: &'static str,
    actions: &'static [&'static str],
) -> Advice {
    Advice { code: status.0, meaning, relation: Relation::Failed, fate: LOST, actions }
}

pub(super) const TABLE: &[Advice] = &[
    row(
        SeamldrStatus::EBADPARAM,
        "Linux passes a correct parameter page, so for an update on Linux the likely reason is \
         the image: a page count of 0, or a module that P-SEAMLDR cannot relocate. With RDX 1 \
         after another failed attempt, the word means that no handoff data is left.",
        &[
            "Check the image with `tdx-seamldr verify FILE`, and take an unchanged one from \
             Intel's releases.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EBADCALL,
        "The usual reasons in an update: no updates remain until a reboot, or the image's major \
         SVN is not that of the running module. A second INSTALL on the same LP gives it too.",
        &[
            "Read /sys/devices/faux/tdx_host/num_remaining_updates before an update: if it is 0, \
             reboot first.",
            "Choose an image of the running line: 1.5 for 1.5, 2.0 for 2.0.",
            "Use `tdx-seamldr plan`, which refuses in both cases before anything is shut down.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EBADHANDOFF,
        "The new module does not accept the version of the old module's handoff data. This \
         happens in a downgrade, for example from 1.5.34 to 1.5.28.",
        &[
            "Do not downgrade by an update: reboot, and let the BIOS load the older module.",
            "Use `tdx-seamldr plan`, which compares the handoff versions before anything is shut \
             down.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::ECLEANUPREQ,
        "Memory keys or caches still hold data of the old module's TDs. Linux never calls \
         SEAMLDR.CLEANUP.",
        &["Reboot: it clears keys and caches.", REBOOT],
    ),
    row(
        SeamldrStatus::EUNSUPPORTED,
        "Newer P-SEAMLDRs return this word where older ones return EBADCALL.",
        &[
            "Choose an image of the running line: 1.5 for 1.5, 2.0 for 2.0.",
            "Use `tdx-seamldr plan`, which compares the SVNs before anything is shut down.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::ENOMEM,
        "The SEAM range (SEAMRR), which the BIOS reserves, is too small for the new module's \
         code, data and stacks on this number of LPs.",
        &[
            "Update the BIOS, or look for a BIOS setting of the SEAMRR size.",
            "Use a module release that needs less memory, or keep the running module.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EUNSPECERR,
        "P-SEAMLDR supports only x2APIC IDs below 1024.",
        &[
            "Look for x2APIC IDs of 1024 and more in /proc/cpuinfo (apicid). A newer BIOS may \
             assign lower IDs.",
            "If all IDs are lower, the processor had no random number for P-SEAMLDR: reboot. If \
             the error occurs again, report it to the vendor.",
        ],
    ),
    row(
        SeamldrStatus::EUNSUPCPU,
        "P-SEAMLDR compares family, model and stepping of every socket with the list in the \
         image. One unlisted socket causes this error. The image is for other processors: \
         releases 1.5.x are for Sapphire Rapids, Emerald Rapids and Sierra Forest, 2.0.x for \
         Granite Rapids and its successors, and not every release lists every stepping.",
        &[
            "Compare the image's list (`tdx-seamldr inspect FILE`, CPUs) with family, model and \
             stepping in /proc/cpuinfo.",
            "Choose an image for this processor: `tdx-seamldr plan` finds the newest image that \
             fits.",
            "On a pre-production processor, ask Intel: public images do not list it.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EBADSIG,
        "P-SEAMLDR rejects the SIGSTRUCT: a field is wrong, the signature is invalid, the signer \
         is not Intel's, the module is a debug build, or its SVN is below that of the running \
         module (P-SEAMLDR refuses downgrades).",
        &[
            "Check the file with `tdx-seamldr verify FILE`: if it is not genuine, download it \
             again from Intel.",
            "If it is genuine, compare its SVN with the running module's: an older module needs a \
             reboot.",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EBADHASH,
        "The module's pages were changed after Intel signed them: a damaged download, a wrong \
         conversion, or memory that changed during the update. P-SEAMLDR has already erased the \
         module range, so RDX is 1 and no software can keep the TDs.",
        &[
            "Check the file with `tdx-seamldr verify FILE`, and download it again from Intel.",
            "If the file is genuine, look for memory errors (machine checks, EDAC).",
            REBOOT,
        ],
    ),
    row(
        SeamldrStatus::EINTERRUPT,
        "Only SEAMLDR.CLEANUP returns this word, and Linux does not call SEAMLDR.CLEANUP.",
        &["Call SEAMLDR.CLEANUP again until it returns another word."],
    ),
    row(
        SeamldrStatus::ENOENTROPY,
        "The processor's random number generator was exhausted for a moment. The same call can \
         succeed at once, but Linux repeats only the TDX module's own word for this, \
         RND_NO_ENTROPY.",
        &[
            "After the reboot, update again: the image is not the cause.",
            "Keep programs that read RDRAND or RDSEED without pause (benchmarks, stress tests) \
             off the host during an update.",
            REBOOT,
        ],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_p_seamldr_has_advice() {
        for row in SeamldrStatus::TABLE.iter().filter(|row| !row.status.is_success()) {
            let advice = super::super::advice::find(TABLE, row.status.0);
            assert!(advice.is_some_and(|advice| !advice.actions.is_empty()), "{}", row.name);
        }
    }
}
