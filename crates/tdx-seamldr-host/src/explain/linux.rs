//! What Linux itself makes up: words for a SEAMCALL that failed, and error numbers.

use tdx_seamldr_core::abi::TdxStatus;

use super::advice::Advice;
use super::step::Relation;

/// Bit 63 and class 0xff: the words that Linux makes up. The low half is what happened.
pub(super) const SW_ERROR: u64 = 0x8000ff0000000000;

const GONE: &str = "After the shutdown of the old module it means that no module runs: Linux has \
                    lost all TDs, and TDX is gone until reboot. While the old module still runs, \
                    it costs nothing.";

pub(super) const TABLE: &[Advice] = &[
    Advice {
        code: TdxStatus::SEAMCALL_VMFAILINVALID.0,
        meaning: "No firmware answered: the processor ended SEAMCALL with the carry flag set \
                  (VMfailInvalid). There are three usual reasons. The BIOS loaded no TDX module. \
                  Or an update failed after the old module was shut down, so that none is loaded; \
                  one offline LP is enough for that, because P-SEAMLDR loads nothing before every \
                  LP of the platform has called. Or another LP was inside P-SEAMLDR at that \
                  moment.",
        relation: Relation::Possible,
        fate: GONE,
        actions: &[
            "At boot (with \"module not loaded\"): turn TDX on in the BIOS, with the SEAM loader \
             and a TDX module; update the BIOS if it has none.",
            "After an update: reboot. The BIOS loads its module again, and the TDs have to be \
             started anew.",
            "Before the next update, bring every LP online (no nosmt, maxcpus= or offline CPUs): \
             `tdx-seamldr plan` checks it.",
            "From a call to P-SEAMLDR while `version` can be read: try it again, another CPU was \
             in P-SEAMLDR.",
        ],
    },
    Advice {
        code: TdxStatus::SEAMCALL_GP.0,
        meaning: "SEAMCALL raised a general protection fault (#GP, vector 13): TDX is not enabled \
                  on this processor. The BIOS has TDX off, or did not activate it because its \
                  checks of the memory failed.",
        relation: Relation::None,
        fate: "No firmware was called, so this call changed nothing.",
        actions: &[
            "Turn on TDX, the SEAM loader and memory encryption (TME-MT) in the BIOS, with KeyIDs \
             for TDX.",
            "Populate the memory slots as the platform's guide for TDX wants it; the BIOS's log \
             names failures.",
        ],
    },
    Advice {
        code: TdxStatus::SEAMCALL_UD.0,
        meaning: "SEAMCALL raised an undefined opcode fault (#UD, vector 6): this CPU is not in \
                  VMX operation, or has no SEAMCALL. Linux enters VMX operation when KVM or TDX \
                  starts; after it left, for example at a reboot or with kvm_intel unloaded, \
                  calls end like this.",
        relation: Relation::None,
        fate: "No firmware was called, so this call changed nothing.",
        actions: &[
            "Load kvm_intel, and look whether VT-x is on in the BIOS.",
            "During a shutdown or kexec it can be ignored.",
            "Otherwise report it as an error of the kernel, with the lines before it.",
        ],
    },
    Advice {
        code: SW_ERROR,
        meaning: "Linux made this word up because the SEAMCALL instruction itself failed; the low \
                  half is the number of the exception.",
        relation: Relation::None,
        fate: "No firmware was called, so this call changed nothing.",
        actions: &["Report it as an error of the kernel, with the lines before it."],
    },
];

/// A Linux error number in lines about TDX.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errno {
    pub(super) number: i32,
    pub(super) name: &'static str,
    pub(super) meaning: &'static str,
    pub(super) action: &'static str,
}

const ERRNOS: &[Errno] = &[
    Errno {
        number: 5,
        name: "EIO",
        meaning: "the firmware returned an error; the line \"SEAMCALL (...) failed\" before it \
                  has the status word",
        action: "Look for that line in the kernel's log, and have it explained.",
    },
    Errno {
        number: 12,
        name: "ENOMEM",
        meaning: "the kernel had no memory for the operation",
        action: "Free memory, or do it right after boot: PAMT needs large pieces, about 0.4% of \
                 all memory.",
    },
    Errno {
        number: 13,
        name: "EACCES",
        meaning: "SEAMCALL raised #UD: the CPU is not in VMX operation",
        action: "Load kvm_intel, and look whether VT-x is on in the BIOS.",
    },
    Errno {
        number: 16,
        name: "EBUSY",
        meaning: "something is in use: a TD in build or in migration, an operand, or an upload \
                  under way",
        action: "Wait until it is over, and try again.",
    },
    Errno {
        number: 19,
        name: "ENODEV",
        meaning: "SEAMCALL found no firmware to call, or the platform has no TDX",
        action: "Turn TDX on in the BIOS; after an update, reboot.",
    },
    Errno {
        number: 22,
        name: "EINVAL",
        meaning: "an argument is not acceptable: an image with a wrong form, a module without a \
                  feature that the kernel needs, or a setting that TDX does not allow",
        action: "For an update, check the image's format (`tdx-seamldr inspect FILE`): Linux 7.2 \
                 takes v2 only.",
    },
    Errno {
        number: 28,
        name: "ENOSPC",
        meaning: "no room: TDMRs or their reserved areas are used up, or no updates remain",
        action: "For an update, reboot. At boot, look at the memory map: too many holes or memory \
                 nodes.",
    },
    Errno {
        number: 95,
        name: "EOPNOTSUPP",
        meaning: "SEAMCALL raised #GP: TDX is not enabled on the CPU",
        action: "Turn TDX on in the BIOS.",
    },
    Errno {
        number: 110,
        name: "ETIMEDOUT",
        meaning: "something did not answer in time",
        action: "Try again, and report it if it comes again.",
    },
];

/// Returns what is known of an error number.
pub(super) fn errno(number: i32) -> Option<&'static Errno> {
    ERRNOS.iter().find(|row| row.number == number)
}

/// Returns the number of an error name, with or without a minus sign before it.
pub(super) fn errno_by_name(name: &str) -> Option<i32> {
    let name = name.strip_prefix('-').unwrap_or(name);
    ERRNOS.iter().find(|row| row.name == name).map(|row| row.number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_numbers_are_those_of_core() {
        use tdx_seamldr_core::update::linux::Errno as Core;
        let core = [
            (Core::EIO, "EIO"),
            (Core::EBUSY, "EBUSY"),
            (Core::ENODEV, "ENODEV"),
            (Core::EINVAL, "EINVAL"),
            (Core::ENOSPC, "ENOSPC"),
            (Core::EOPNOTSUPP, "EOPNOTSUPP"),
            (Core::EACCES, "EACCES"),
            (Core::ETIMEDOUT, "ETIMEDOUT"),
        ];
        for (number, name) in core {
            assert_eq!(errno_by_name(name), Some(number.0));
            assert_eq!(errno(number.0).map(|row| row.name), Some(name));
        }
    }
}
