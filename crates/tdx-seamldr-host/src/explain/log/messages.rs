//! The kernel's other lines about TDX, in the wordings of all generations.

use std::sync::LazyLock;

use super::super::step::Relation;

/// A line that kernels print, and what it asks of the operator.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// A name that stays the same: what `--json` shows.
    pub(super) code: &'static str,
    /// The wordings, in any case. `*` is any text; the first one is the line's value.
    pub(super) wordings: &'static [&'static str],
    pub(super) meaning: &'static str,
    pub(super) relation: Relation,
    pub(super) actions: &'static [&'static str],
    /// Whether the value is a Linux error number.
    pub(super) errno: bool,
}

const NOTHING: &[&str] = &["Nothing."];
const BIOS_ON: &[&str] = &[
    "Turn on TDX, the SEAM loader and memory encryption (TME-MT) in the BIOS, with KeyIDs for TDX.",
    "Update the BIOS if it has no such settings.",
];

const fn boot(
    code: &'static str,
    wordings: &'static [&'static str],
    meaning: &'static str,
    actions: &'static [&'static str],
) -> Known {
    Known { code, wordings, meaning, relation: Relation::None, actions, errno: false }
}

/// The more exact wordings come first.
pub(super) const TABLE: &[Known] = &[
    Known {
        code: "update-failed-tds-lost",
        wordings: &["update failed, SEAMCALLs will report failure until TDs killed"],
        meaning: "An update failed after the old module was shut down. Every call for a TD fails \
                  from now on: Linux has lost all TDs, and TDX is gone until reboot.",
        relation: Relation::Failed,
        actions: &[
            "Look for the SEAMCALL that failed first during the update, and have it explained.",
            "Stop the TDs' processes, and plan a reboot.",
        ],
        errno: false,
    },
    Known {
        code: "update-failed",
        wordings: &["update failed (*)"],
        meaning: "The new module was loaded and did not take the TDs over (TDH.SYS.UPDATE). Linux \
                  has lost all TDs, and TDX is gone until reboot.",
        relation: Relation::Failed,
        actions: &[
            "Look for the failed SEAMCALL before it, and have it explained.",
            "Stop the TDs' processes, and plan a reboot.",
        ],
        errno: true,
    },
    Known {
        code: "updated",
        wordings: &["version * -> *"],
        meaning: "The module was updated, and the TDs go on.",
        relation: Relation::Updated,
        actions: &["Let attestation policies accept the new module's hash (MRSEAM) and SVN, if \
                    they do not yet."],
        errno: false,
    },
    Known {
        code: "features-changed",
        wordings: &[
            "TDX module features have changed*",
            "features have changed*",
            "features changed*",
            "*might not take effect*",
            "*consider a BIOS update*",
            "*consider updating your BIOS*",
        ],
        meaning: "The new module has other features than the one that ran at boot. Linux goes on \
                  with the features that it found at boot: new ones have no effect until the \
                  module is loaded at boot.",
        relation: Relation::Updated,
        actions: &[
            "Nothing now. For the new features, update the BIOS so that it brings this module.",
        ],
        errno: false,
    },
    Known {
        code: "initialization-failed",
        wordings: &["TDX-Module initialization failed (*)", "module initialization failed (*)"],
        meaning: "Linux could not start the TDX module: no TDs on this host until the reason is \
                  gone.",
        relation: Relation::None,
        actions: &["Look at the lines just before it: the first failed SEAMCALL or message has \
                    the reason."],
        errno: true,
    },
    boot(
        "initialized",
        &["TDX-Module initialized", "TDX module initialized", "module initialized"],
        "Linux started the TDX module: TDs can run.",
        NOTHING,
    ),
    boot(
        "not-loaded",
        &["module not loaded", "TDX module is not loaded", "TDX-Module not loaded"],
        "The BIOS loaded no TDX module: SEAMCALL found nothing to call.",
        BIOS_ON,
    ),
    boot(
        "keyids",
        &["BIOS enabled: private KeyID range *"],
        "The BIOS has TDX on, and these KeyIDs are for TDX. One is for the module itself, each TD \
         needs one more.",
        NOTHING,
    ),
    boot(
        "too-few-keyids",
        &["too few private KeyIDs available", "not enough KeyIDs", "not enough private KeyIDs"],
        "The BIOS leaves fewer than two KeyIDs to TDX: the module needs one for itself.",
        &["Give TDX more KeyIDs in the BIOS (a setting such as \"TME-MT/TDX key split\")."],
    ),
    boot(
        "no-keyids",
        &["no TDX private KeyIDs available"],
        "KVM found TDX not enabled: the BIOS leaves no KeyIDs to it, or the kernel gave up on TDX \
         earlier.",
        BIOS_ON,
    ),
    boot(
        "not-enabled-by-bios",
        &[
            "not enabled by BIOS",
            "not supported by the host platform",
            "TDX not supported by the host platform",
        ],
        "The BIOS has TDX off, or did not activate it because a check failed.",
        BIOS_ON,
    ),
    boot(
        "hibernation",
        &["Hibernation support is enabled"],
        "Linux does not start TDX while hibernation is possible: memory of TDs cannot be \
         hibernated.",
        &["Boot with the option nohibernate."],
    ),
    boot(
        "s3-disabled",
        &["Disable ACPI S3*"],
        "Suspend to memory (ACPI S3) does not work together with TDX, so Linux turned it off.",
        NOTHING,
    ),
    boot(
        "memory-notifier",
        &["register_memory_notifier() failed (*)"],
        "Linux could not watch memory hotplug, and does not start TDX.",
        &["Report it as an error of the kernel."],
    ),
    boot(
        "rbp-clobber",
        &["frame pointer (RBP) clobber bug present*", "RBP) clobber*"],
        "This module changes RBP in TDH.VP.ENTER (the feature NO_RBP_MOD is missing). Linux does \
         not use it.",
        &["Update the BIOS to one with a newer TDX module."],
    ),
    boot(
        "tdmrs-exhausted",
        &["TDMRs exhausted", "reserved areas exhausted"],
        "The memory map has more holes or regions than the module's tables can describe.",
        &[
            "Update the BIOS. Remove options such as memmap= and mem= that cut holes into memory.",
            "Report it as an error of the kernel, with the lines about memory (e820, NUMA).",
        ],
    ),
    boot(
        "tdmrs-near-limit",
        &["consumed TDMRs reaching limit: *"],
        "The memory map uses nearly all TDMRs that the module has. It still works.",
        &["Nothing now. More memory nodes or holes can be too many."],
    ),
    boot(
        "pamt-node",
        &["unable to find local NUMA node for PAMT allocation*"],
        "The table for this memory (PAMT) is on node 0 instead of a near node. It works, more \
         slowly.",
        &["Nothing. Report it if the memory map is an ordinary one."],
    ),
    boot(
        "pamt",
        &["* KB allocated for PAMT", "* KBs allocated for PAMT"],
        "The memory that the module's page table (PAMT) takes, about 0.4% of all memory.",
        NOTHING,
    ),
    boot(
        "cmr",
        &["CMR: [*", "CMR[*", "CMRs*"],
        "A range of memory that can be used for TDs.",
        NOTHING,
    ),
    boot(
        "tdmr",
        &["TDMR: [*", "TDMR[*", "TDMR *"],
        "A range of memory that Linux gives to the module.",
        NOTHING,
    ),
    boot(
        "module-1.0",
        &["major_version 1, minor_version 0*", "Module version: 1.0.*"],
        "The BIOS loaded a TDX module of version 1.0. Linux needs 1.5 or later.",
        &["Update the BIOS to one that brings TDX module 1.5 or later."],
    ),
    boot(
        "module-version",
        &["TDX module: *", "TDX-Module: *", "Module version: *"],
        "The module that the BIOS loaded.",
        NOTHING,
    ),
    boot(
        "kvm-failed",
        &["Failed to initialize TDX module", "Failed to initialize TDX-Module"],
        "KVM offers no TDs, because the module could not be started.",
        &["Look at the lines just before it: the first failed SEAMCALL or message has the reason."],
    ),
    boot(
        "kvm-max-vcpus",
        &["MAX_VCPU_PER_TD (*) smaller than number of logical CPUs*"],
        "The module allows fewer virtual CPUs per TD than the host has LPs, and KVM turns TDX off.",
        &["Update the module, by a BIOS update."],
    ),
    boot(
        "kvm-virt-at-load",
        &["tdx requires kvm.enable_virt_at_load=1"],
        "KVM's option enable_virt_at_load is off, and TDX needs it.",
        &["Remove kvm.enable_virt_at_load=0 from the kernel's options and /etc/modprobe.d."],
    ),
    boot(
        "kvm-requirement",
        &["* required for TDX", "*is required for TDX"],
        "KVM turns TDX off, because something is missing or turned off by an option.",
        &[
            "Remove options of kvm and kvm_intel that turn EPT, the TDP MMU, MMIO caching or \
             APICv off.",
            "For a processor feature: look for a BIOS setting, or a kernel option such as \
             clearcpuid=.",
        ],
    ),
    boot(
        "packages-online",
        &["TDX requires all packages to have an online CPU*"],
        "The last online CPU of a socket cannot go offline while TDs exist.",
        &["Destroy all TDs first. An update needs every LP online, too."],
    ),
    boot(
        "msr-not-restored",
        &["MSR * isn't included by kvm_find_user_return_msr"],
        "KVM cannot restore an MSR that TDX changes, and turns TDX off.",
        &["Report it as an error of the kernel."],
    ),
    boot(
        "private-memory-error",
        &["TDX private memory error. Possible kernel bug*"],
        "A machine check in memory of TDs. Processors with the erratum poison such memory at a \
         partial write.",
        &["Report it as an error of the kernel; look for a failing memory module if it comes \
           again."],
    ),
    boot(
        "guest",
        &["Guest detected", "Attributes: *", "TD_CTLS: *"],
        "This is the log of a TD (a guest), not of its host.",
        &["For the host's side, take the log of the host."],
    ),
];

/// All wordings in lower case, in the order of the table.
static WORDINGS: LazyLock<Vec<(&Known, String)>> = LazyLock::new(|| {
    let lower = |known: &'static Known| {
        known.wordings.iter().map(move |wording| (known, wording.to_ascii_lowercase()))
    };
    TABLE.iter().flat_map(lower).collect()
});

/// Finds the line in the table, with its value.
pub(super) fn find(text: &str) -> Option<(&'static Known, Option<String>)> {
    let text = text.to_ascii_lowercase();
    WORDINGS.iter().find_map(|(known, wording)| Some((*known, matched(&text, wording)?)))
}

/// Whether a text has this wording in it, both in lower case. The inner `Some` is what stands for
/// the first `*`.
fn matched(text: &str, wording: &str) -> Option<Option<String>> {
    let mut pieces = wording.split('*');
    let first = pieces.next()?;
    let (before, mut rest) = text.split_once(first)?;
    let mut value = None;
    let mut open = wording.contains('*').then_some(if first.is_empty() { before } else { "" });
    for piece in pieces {
        let (found, after) = if piece.is_empty() { (rest, "") } else { rest.split_once(piece)? };
        if open.take().is_some() {
            value = Some(found.trim());
        }
        rest = after;
    }
    let value = value.filter(|value| !value.is_empty());
    Some(value.map(|value| super::line::cut_to(value, 80)))
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn every_wording_is_found_as_itself() {
        for known in TABLE {
            for wording in known.wordings {
                let text = format!("virt/tdx: {}", wording.replace('*', "12"));
                let (found, _) = find(&text).unwrap_or_else(|| panic!("{text}"));
                assert_eq!(found.code, known.code, "{text}");
            }
            assert!(!known.actions.is_empty() && known.meaning.ends_with('.'), "{}", known.code);
            assert_eq!(
                TABLE.iter().filter(|other| other.code == known.code).count(),
                1,
                "{}",
                known.code
            );
        }
    }

    #[test]
    fn values_are_what_stands_for_the_first_star() {
        let value = |text: &str| find(text).unwrap().1;
        assert_eq!(value("virt/tdx: module initialization failed (-5)").as_deref(), Some("-5"));
        assert_eq!(value("virt/tdx: version 1.5.24 -> 1.5.28").as_deref(), Some("1.5.24"));
        assert_eq!(
            value("virt/tdx: BIOS enabled: private KeyID range [32, 64)").as_deref(),
            Some("[32, 64)")
        );
        assert_eq!(value("virt/tdx: module initialized"), None);
        assert_eq!(value("virt/tdx: Module version: 1.5.24").as_deref(), Some("1.5.24"));
        assert_eq!(find("virt/tdx: Module version: 1.0.01").unwrap().0.code, "module-1.0");
        assert_eq!(find("virt/tdx: Module version: 1.5.01").unwrap().0.code, "module-version");
        assert!(find("virt/tdx: something new").is_none());
    }
}
