//! The kernel's other lines about TDX, in the wordings of all kernels.

use std::sync::LazyLock;

use super::super::step::Relation;

/// A line that kernels print, with its meaning and advice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// A stable name, which `--json` shows.
    pub(super) code: &'static str,
    /// The wordings, without regard to case. `*` is any text; the first `*` is the line's value.
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

/// All known lines. More exact wordings come first.
pub(super) const TABLE: &[Known] = &[
    Known {
        code: "update-failed-tds-lost",
        wordings: &["update failed, SEAMCALLs will report failure until TDs killed"],
        meaning: "An update failed after the old module was shut down. Every call for a TD fails \
                  from now on: Linux has lost all TDs, and TDX is gone until reboot.",
        relation: Relation::Failed,
        actions: &[
            "Find the first SEAMCALL that failed during the update, and explain its status.",
            "Stop the TDs' processes, and plan a reboot.",
        ],
        errno: false,
    },
    Known {
        code: "update-failed",
        wordings: &["update failed (*)"],
        meaning: "The new module was loaded but did not take the TDs over (TDH.SYS.UPDATE). Linux \
                  has lost all TDs, and TDX is gone until reboot.",
        relation: Relation::Failed,
        actions: &[
            "Find the failed SEAMCALL before this line, and explain its status.",
            "Stop the TDs' processes, and plan a reboot.",
        ],
        errno: true,
    },
    Known {
        code: "updated",
        wordings: &["version * -> *"],
        meaning: "The module was updated, and the TDs keep running.",
        relation: Relation::Updated,
        actions: &[
            "Make sure that attestation policies accept the new module's hash (MRSEAM) and SVN.",
        ],
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
        meaning: "The new module has other features than the module at boot. Linux keeps using \
                  the features from boot: new features have no effect until the BIOS loads the \
                  module.",
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
        actions: &["Read the lines just before this line: the first failed SEAMCALL or message \
                    shows the cause."],
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
        "TDX is on in the BIOS, and these KeyIDs are for TDX. The module uses one KeyID, and each \
         TD uses one more.",
        NOTHING,
    ),
    boot(
        "too-few-keyids",
        &["too few private KeyIDs available", "not enough KeyIDs", "not enough private KeyIDs"],
        "The BIOS assigns fewer than two KeyIDs to TDX: the module itself needs one.",
        &["Assign more KeyIDs to TDX in the BIOS (a setting such as \"TME-MT/TDX key split\")."],
    ),
    boot(
        "no-keyids",
        &["no TDX private KeyIDs available"],
        "KVM found that TDX is not enabled: the BIOS assigns no KeyIDs to TDX, or the kernel has \
         given up on TDX before this line.",
        BIOS_ON,
    ),
    boot(
        "not-enabled-by-bios",
        &[
            "not enabled by BIOS",
            "not supported by the host platform",
            "TDX not supported by the host platform",
        ],
        "TDX is off in the BIOS, or the BIOS did not activate TDX because a check failed.",
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
        "Suspend to memory (ACPI S3) does not work with TDX, so Linux turned it off.",
        NOTHING,
    ),
    boot(
        "memory-notifier",
        &["register_memory_notifier() failed (*)"],
        "Linux could not register for memory hotplug, and does not start TDX.",
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
        &["Nothing now. With more memory nodes or holes the TDMRs may not suffice."],
    ),
    boot(
        "pamt-node",
        &["unable to find local NUMA node for PAMT allocation*"],
        "The table for this memory (PAMT) is on node 0 instead of a near node. TDX works, but \
         more slowly.",
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
        "KVM offers no TDs, because the module did not start.",
        &["Read the lines just before this line: the first failed SEAMCALL or message shows the \
           cause."],
    ),
    boot(
        "kvm-max-vcpus",
        &["MAX_VCPU_PER_TD (*) smaller than number of logical CPUs*"],
        "The module allows fewer virtual CPUs per TD than the host has LPs, and KVM turns TDX off.",
        &["Update the module by a BIOS update."],
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
        "A machine check in the memory of TDs. On processors with the erratum a partial write \
         poisons such memory.",
        &["Report it as an error of the kernel; look for a failing memory module if it occurs \
           again."],
    ),
    boot(
        "guest",
        &["Guest detected", "Attributes: *", "TD_CTLS: *"],
        "This is the log of a TD (a guest), not of its host.",
        &["To see the host's side, read the log of the host."],
    ),
];

/// All wordings in lower case, in the order of the table.
static WORDINGS: LazyLock<Vec<(&Known, String)>> = LazyLock::new(|| {
    let lower = |known: &'static Known| {
        known.wordings.iter().map(move |wording| (known, wording.to_ascii_lowercase()))
    };
    TABLE.iter().flat_map(lower).collect()
});

/// Finds a line in the table. Returns its row and its value.
pub(super) fn find(text: &str) -> Option<(&'static Known, Option<String>)> {
    let text = text.to_ascii_lowercase();
    WORDINGS.iter().find_map(|(known, wording)| Some((*known, matched(&text, wording)?)))
}

/// Whether a text contains this wording, both in lower case. The inner `Some` is the text for the
/// first `*`.
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
    fn every_wording_is_found_as_its_own_row() {
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
    fn value_is_the_text_for_the_first_star() {
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
