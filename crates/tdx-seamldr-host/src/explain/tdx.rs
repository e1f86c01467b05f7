//! Advice for the status words of the TDX module: by word, by leaf and word, and by class.

use tdx_seamldr_core::abi::{TdxLeaf, TdxStatus};

use super::advice::{Advice, ClassAdvice};
use super::step::{Relation, Step};

const NO_UPDATE: &str = "Not an error of an update: no step of an update returns this word.";

const FIRMWARE: &str =
    "Update the BIOS and the microcode: the module refuses their setup of the platform.";
const VENDOR: &str =
    "If the newest BIOS does not help, send the line with its registers to the platform's vendor.";

const fn row(
    status: TdxStatus,
    relation: Relation,
    fate: &'static str,
    meaning: &'static str,
    actions: &'static [&'static str],
) -> Advice {
    Advice { code: status.code().0, meaning, relation, fate, actions }
}

pub(super) const TABLE: &[Advice] = &[
    row(
        TdxStatus::SYS_NOT_READY,
        Relation::Possible,
        "During an update this word means that the new module has not taken the TDs over: Linux \
         has lost them, and TDX is gone until reboot.",
        "The module has not been initialised, or not completely. Bug reports show SYS.RD of field \
         0x9100000100000008 (MAX_TDMRS) at boot: the BIOS loaded a TDX module of version 1.0, \
         which does not know SYS.RD, and the kernel needs 1.5 or later.",
        &[
            "At boot from TDH.SYS.RD (leaf 0x22): update the BIOS to one that brings TDX module \
             1.5 or later. An update from Linux cannot replace a 1.0 module, which does not hand \
             its TDs over.",
            "Some firmware also takes a module from the EFI system partition \
             (EFI/TDX/TDX-SEAM.so).",
            "From another call: find the first failed call further up in the log, during \
             initialisation.",
        ],
    ),
    row(
        TdxStatus::SYS_SHUTDOWN,
        Relation::Failed,
        "An update shut the old module down and did not finish. Linux has lost all TDs, and TDX \
         is gone until reboot. P-SEAMLDR may still hold the handoff data, but Linux makes no \
         second attempt.",
        "After TDH.SYS.SHUTDOWN the module answers every call with this word, and cannot be \
         started again. The cause is further up in the log: the first SEAMCALL that failed during \
         the update.",
        &[
            "Find the first failed SEAMCALL of the update (often SEAMLDR.INSTALL) and have it \
             explained.",
            "Plan a reboot: only a reboot restores TDX. Virtual machines that are not TDs keep \
             running until then.",
            "Stop the TDs' processes. Their memory stays in use until the reboot.",
            "Before the next update run `tdx-seamldr plan`, which finds such causes while all TDs \
             are alive.",
        ],
    ),
    row(
        TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE,
        Relation::Refused,
        "The old module refused to shut down and keeps running: nothing is lost.",
        "The kernel asked the module to avoid updates that would break a TD. A TD in build is one \
         between KVM_TDX_INIT_VM and KVM_TDX_FINALIZE_VM; its measurement could come out wrong. A \
         migration session is one with an interrupted export or import of state. Linux 7.2 does \
         not ask; the patch series before it did.",
        &[
            "Wait until all launches and migrations have ended, and start the update again.",
            "Keep new launches and migrations off this host during the update.",
            "If the count stays, look for a TD whose launch hangs, and destroy it.",
        ],
    ),
    row(
        TdxStatus::OPERAND_INVALID,
        Relation::Possible,
        "",
        "",
        &[
            "Find the operand in the detail, and its value in the registers in the log.",
            "Kernel and module disagree: try a newer kernel or a newer module, and report the \
             error with the lines before it.",
        ],
    ),
    row(
        TdxStatus::OPERAND_BUSY,
        Relation::None,
        NO_UPDATE,
        "Two callers used the same object at once. The kernel repeats such calls.",
        &["Nothing, if it occurs now and then. If it never ends, report it as an error of the \
           kernel."],
    ),
    row(
        TdxStatus::SYS_BUSY,
        Relation::Possible,
        "From TDH.SYS.SHUTDOWN the old module keeps running, and nothing is lost; from a later \
         call Linux has lost the TDs.",
        "",
        &["Try again. During an update Linux stops all other CPUs, so this word should not \
           occur: report it."],
    ),
    row(
        TdxStatus::RND_NO_ENTROPY,
        Relation::Possible,
        "From SYS.INIT or SYS.LP.INIT during an update, Linux has lost its TDs after ten tries.",
        "The processor's random number generator was exhausted. Linux makes the call up to ten \
         times.",
        &[
            "Try again. Keep programs that read RDRAND or RDSEED without pause off the host.",
            "If it occurs on an idle host, suspect the processor or its microcode.",
        ],
    ),
    row(
        TdxStatus::SYS_INIT_NOT_PENDING,
        Relation::Possible,
        "",
        "The kernel called TDH.SYS.INIT a second time. After a kexec, the module is in the state \
         that the first kernel left.",
        &["Reboot instead of kexec, or use a kernel and module that can disable TDX first \
           (TDH.SYS.DISABLE)."],
    ),
    row(
        TdxStatus::SYS_LP_INIT_NOT_DONE,
        Relation::Possible,
        "",
        "A CPU made a call before TDH.SYS.LP.INIT ran on it.",
        &["Bring all CPUs online before kvm_intel is loaded; look for a failed TDH.SYS.LP.INIT \
           in the log."],
    ),
    row(
        TdxStatus::SYS_LP_INIT_DONE,
        Relation::None,
        NO_UPDATE,
        "",
        &["Nothing: the CPU is ready. After a kexec, reboot."],
    ),
    row(
        TdxStatus::SYS_STATE_INCORRECT,
        Relation::Failed,
        Step::Update.fate(),
        "TDH.SYS.UPDATE needs TDH.SYS.LP.INIT on every LP of the platform. One offline LP causes \
         this error.",
        &[
            "Reboot, and bring every LP online before the next update (no nosmt, maxcpus= or \
             offline CPUs).",
            "Look for a TDH.SYS.LP.INIT that failed before it.",
        ],
    ),
    row(
        TdxStatus::SYS_INVALID_HANDOFF,
        Relation::Failed,
        Step::Update.fate(),
        "The new module found no handoff data, or data of a version outside its range. P-SEAMLDR \
         checks the same before it loads a module, so this word should not occur in a regular \
         update.",
        &["Reboot. Report it with both versions: it is an error of the kernel or of the firmware."],
    ),
    row(
        TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT,
        Relation::Failed,
        Step::Init.fate(),
        "The module's file and its SIGSTRUCT are from different builds.",
        &["Download the image again, and reboot. If you packed it, use .so and .sigstruct of one \
           release."],
    ),
    row(
        TdxStatus::INCOMPATIBLE_SEAM_CAPABILITIES,
        Relation::Possible,
        Step::Init.fate(),
        "The module needs SEAM functions that this processor or its microcode lacks, for example \
         those for updates that preserve TDs.",
        &[FIRMWARE, "Use the module line of this platform: 1.5 or 2.0."],
    ),
    row(
        TdxStatus::CRYPTO_SELF_TEST_FAILED,
        Relation::Possible,
        Step::Init.fate(),
        "",
        &["Reboot. If it occurs again, suspect the processor or its memory, and tell the vendor."],
    ),
    row(
        TdxStatus(0xc000050f00000000),
        Relation::Possible,
        Step::Init.fate(),
        "",
        &[FIRMWARE, "Use the module line of this platform: 1.5 or 2.0."],
    ),
    row(
        TdxStatus::INCORRECT_MSR_VALUE,
        Relation::Possible,
        Step::Init.fate(),
        "TDH.SYS.INIT compares MSRs with what the module supports. The BIOS or the microcode set \
         this MSR to another value.",
        &[FIRMWARE, "Look for a BIOS setting of the feature that the MSR controls.", VENDOR],
    ),
    row(
        TdxStatus::INCONSISTENT_MSR,
        Relation::Possible,
        Step::Init.fate(),
        "TDH.SYS.LP.INIT found another value on this CPU than TDH.SYS.INIT found on the first \
         CPU. The BIOS, a late microcode update or software that writes MSRs changed it.",
        &[
            "Load the same microcode on all sockets, and load it at boot (initramfs or BIOS).",
            "Look for software that writes the MSR on single CPUs (wrmsr, tuning tools).",
            VENDOR,
        ],
    ),
    row(
        TdxStatus::INCORRECT_CPUID_VALUE,
        Relation::Possible,
        Step::Init.fate(),
        "TDH.SYS.INIT found a processor feature that the module does not support, or did not find \
         one that the module needs.",
        &[FIRMWARE, "In a virtual machine, TDX cannot be started: use the host.", VENDOR],
    ),
    row(
        TdxStatus::INCONSISTENT_CPUID_FIELD,
        Relation::Possible,
        Step::Init.fate(),
        "TDH.SYS.LP.INIT found other CPUID values on this CPU than on the first one.",
        &["Use the same processors, microcode and BIOS settings on all sockets.", VENDOR],
    ),
    row(
        TdxStatus::LIMIT_CPUID_MAXVAL_SET,
        Relation::Possible,
        Step::Init.fate(),
        "",
        &["Turn off \"Limit CPUID Maximum\" in the BIOS."],
    ),
    row(
        TdxStatus(0xc000030000000000),
        Relation::None,
        "",
        "At the end of a TD the kernel gives its pages back with TDH.PHYMEM.PAGE.RECLAIM. The \
         module returns this word for a page that it does not hold any more. Bug reports show \
         hundreds of such lines when a large TD ends; new TDs start nevertheless.",
        &[
            "When a TD ends: nothing.",
            "If launches fail or memory is not freed afterwards, report it as an error of the \
             kernel.",
        ],
    ),
    row(
        TdxStatus(0x8000081000000000),
        Relation::None,
        "",
        "The TD has no key: it was freed, or not configured yet. When a TD ends, the kernel may \
         make calls on its virtual CPUs or memory after its key was freed.",
        &[
            "When a TD ends: nothing.",
            "If a TD cannot start: look for a TDH.MNG.KEY.CONFIG that failed on a package before \
             it.",
        ],
    ),
    row(
        TdxStatus::KEY_GENERATION_FAILED,
        Relation::None,
        NO_UPDATE,
        "The processor could not make a random key (PCONFIG). The call can be repeated.",
        &["Start the TD again. If it occurs at boot, reboot; if it occurs often, suspect the \
           microcode."],
    ),
    row(
        TdxStatus(0x8000082400000000),
        Relation::None,
        NO_UPDATE,
        "",
        &["Nothing, if the TD ends. Otherwise report it as an error of the kernel."],
    ),
    row(
        TdxStatus(0xc000062200000000),
        Relation::Failed,
        "The update ran while this TD was in build: this TD cannot be finished; the others are \
         alive.",
        "",
        &[
            "Destroy this TD and launch it again.",
            "Start no launches on the host during an update (`tdx-seamldr plan --no-td-launches` \
             asks for it).",
        ],
    ),
    row(
        TdxStatus(0xc0000e2200000000),
        Relation::Failed,
        "The update ran while this migration was interrupted: the session cannot continue; the \
         TDs are alive.",
        "",
        &[
            "Abort the migration and start it again.",
            "Run no migrations on the host during an update.",
        ],
    ),
    row(
        TdxStatus::METADATA_FIELD_ID_INCORRECT,
        Relation::Possible,
        "",
        "The kernel asked for a field that this module does not have: the module is older than \
         the kernel expects. Linux 7.2, for example, reads 0x9900000100000008 (most virtual CPUs \
         of a TD), which 1.5.01 lacks.",
        &[
            "Find the id of the field in RDX, in the line below.",
            "Update the module: with a BIOS update, or from Linux if the kernel offers it \
             (`tdx-seamldr plan`).",
            "If the module cannot be updated, an older kernel asks for fewer fields.",
        ],
    ),
    row(
        TdxStatus::NON_RECOVERABLE_VCPU,
        Relation::None,
        NO_UPDATE,
        "",
        &["Restart the TD, and read its own log: the guest cannot recover from its error."],
    ),
    row(
        TdxStatus::NON_RECOVERABLE_TD_LINUX,
        Relation::None,
        NO_UPDATE,
        "",
        &["Restart the TD, and read its own log. A triple fault of the guest ends like this, too."],
    ),
    row(
        TdxStatus::NON_RECOVERABLE_TD,
        Relation::None,
        NO_UPDATE,
        "",
        &["Restart the TD, and read its own log. A triple fault of the guest ends like this, too."],
    ),
    row(
        TdxStatus(0x6000000a00000000),
        Relation::Possible,
        "If the errors began with an update, report them with both versions of the module.",
        "",
        &["Restart the TD. Look for memory errors (machine checks, EDAC)."],
    ),
    row(
        TdxStatus::INTERRUPTED_RESUMABLE,
        Relation::None,
        NO_UPDATE,
        "The kernel repeats the call by itself.",
        &["Nothing."],
    ),
    row(
        TdxStatus::INTERRUPTED_RESTARTABLE,
        Relation::None,
        NO_UPDATE,
        "The kernel repeats the call by itself.",
        &["Nothing."],
    ),
];

/// Advice for a word with these details or from this leaf. Replaces the advice for the word.
#[derive(Clone, Copy, Debug)]
pub(super) struct Special {
    /// The leaf that returned the word. `None` for any leaf.
    pub(super) leaf: Option<TdxLeaf>,
    /// The word with its details.
    pub(super) word: u64,
    pub(super) meaning: &'static str,
    pub(super) actions: &'static [&'static str],
}

pub(super) const SPECIAL: &[Special] = &[
    Special {
        leaf: Some(TdxLeaf::SYS_RD),
        word: TdxStatus::SYS_NOT_READY.0,
        meaning: "At boot this means a module of version 1.0, which does not know TDH.SYS.RD. The \
                  kernel needs 1.5 or later.",
        actions: &[
            "Update the BIOS to one that brings TDX module 1.5 or later. An update from Linux \
             cannot replace a 1.0 module, which does not hand its TDs over.",
            "Some firmware also takes a module from the EFI system partition \
             (EFI/TDX/TDX-SEAM.so).",
        ],
    },
    Special {
        leaf: Some(TdxLeaf::SYS_SHUTDOWN),
        word: 0xc000010000000001,
        meaning: "The module rejects RCX: a handoff version that it cannot write, or bit 16 \
                  (AVOID_COMPAT_SENSITIVE), which modules without the feature \
                  UPDATE_COMPATIBILITY refuse.",
        actions: &["Nothing is lost. Kernels that always set bit 16 (versions 8 to 10 of the \
                    patch series) cannot update this module: use Linux 7.2 or later, or a BIOS \
                    update."],
    },
    Special {
        leaf: None,
        word: 0xc000010000000045,
        meaning: "TDH.MNG.INIT refused the CPUID configuration of a new TD: a bit that the module \
                  does not let the virtual machine monitor configure, or a value out of range. \
                  The TD was not started; the others run on.",
        actions: &[
            "Take leaf and subleaf from RCX if the log shows it, and leave that CPU feature out \
             of the virtual machine's CPU model.",
            "Use a kernel, a VMM (QEMU, ESXi and so on) and a module that were released for one \
             another. After a module or BIOS update, a feature that was configurable can be fixed.",
        ],
    },
    Special {
        leaf: None,
        word: 0xc000092100000122,
        meaning: "The module does not support how TSX (transactional memory) is set up in \
                  IA32_TSX_CTRL. The BIOS and the microcode decide that, and the kernel's option \
                  tsx= changes the same MSR.",
        actions: &[
            "Update the BIOS and the microcode: this solved the problem in the public reports of \
             this word.",
            "Look for a BIOS setting of TSX, and set it to its default.",
            "Boot without the option tsx= if /proc/cmdline has it.",
        ],
    },
];

const BOOT: &[&str] = &[
    "Update the BIOS, which sets up this memory.",
    "Report it with the kernel's lines about CMR and TDMR.",
];
const TD_ERROR: &[&str] = &["If a TD failed, start it again; if the error occurs again, report \
                             it as an error of the kernel or the VMM, with the lines before it."];
const MIGRATION: &[&str] = &["Abort the migration and start it again. Source and destination \
                              need modules that fit each other."];
const INFORMATION: &[&str] = &["Nothing: the TD's nested virtual machines exit like this."];

const fn class(
    class: u8,
    name: &'static str,
    relation: Relation,
    actions: &'static [&'static str],
) -> ClassAdvice {
    ClassAdvice { class, name, relation, actions }
}

/// The classes of the module's words (bits 47:40).
pub(super) const CLASSES: &[ClassAdvice] = &[
    class(0x00, "general", Relation::None, TD_ERROR),
    class(0x01, "operand", Relation::None, TD_ERROR),
    class(
        0x02,
        "busy",
        Relation::None,
        &["Try again. If it never ends, report it as an error of the kernel."],
    ),
    class(0x03, "physical page", Relation::None, TD_ERROR),
    class(0x04, "TD's pages", Relation::None, TD_ERROR),
    class(
        0x05,
        "module's state",
        Relation::Possible,
        &[
            "Find the first SEAMCALL that failed further up in the log, and explain its status.",
            "Reboot to start the module afresh.",
        ],
    ),
    class(0x06, "TD's state", Relation::None, TD_ERROR),
    class(0x07, "virtual CPU", Relation::None, TD_ERROR),
    class(0x08, "memory key", Relation::None, TD_ERROR),
    class(0x09, "platform", Relation::Possible, &[FIRMWARE, VENDOR]),
    class(0x0a, "TDMR and PAMT", Relation::None, BOOT),
    class(0x0b, "secure EPT", Relation::None, TD_ERROR),
    class(
        0x0c,
        "metadata",
        Relation::Possible,
        &["Kernel and module do not match: update the older one, and report the error if both \
           are current."],
    ),
    class(0x0d, "service TD", Relation::None, MIGRATION),
    class(0x0e, "migration", Relation::None, MIGRATION),
    class(0x0f, "TDX Connect", Relation::None, TD_ERROR),
    class(
        0x10,
        "attestation report",
        Relation::None,
        &["Make the report again on this platform. Reports of another platform or of an earlier \
           boot are rejected."],
    ),
    class(0x11, "nested virtual machine", Relation::None, INFORMATION),
];

#[cfg(test)]
mod tests {
    use super::super::{advice, status};
    use super::*;

    #[test]
    fn every_row_has_a_published_word() {
        for row in TABLE {
            let linux = row.code == TdxStatus::NON_RECOVERABLE_TD_LINUX.0;
            assert!(linux || status::of(row.code).is_some(), "{:#x}", row.code);
            assert!(
                std::ptr::eq(row, advice::find(TABLE, row.code).unwrap()),
                "{:#x} comes twice",
                row.code
            );
            assert!(!row.actions.is_empty(), "{:#x}", row.code);
        }
    }

    #[test]
    fn every_published_word_has_a_class() {
        for row in status::all() {
            let class = TdxStatus(row.code).class();
            assert!(CLASSES.iter().any(|known| known.class == class), "{}", row.name);
        }
    }
}
