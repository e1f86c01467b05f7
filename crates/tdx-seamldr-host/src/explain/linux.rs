//! Linux's own words for a SEAMCALL that failed, and its error numbers.

use tdx_seamldr_core::abi::TdxStatus;

use super::advice::Advice;
use super::step::Relation;

/// Bit 63 and class 0xff: Linux's own words. The low half is the number of the exception, or
/// 0xffff0000 for VMfailInvalid.
pub(super) const SW_ERROR: u64 = 0x8000ff0000000000;

const GONE: &str = "After the shutdown of the old module this word means that no module runs: \
                    Linux has lost all TDs, and TDX is gone until reboot. While the old module \
                    still runs, it costs nothing.";

const UNCHANGED: &str = "No firmware was called, so this call changed nothing.";

pub(super) const TABLE: &[Advice] = &[
    Advice {
        code: TdxStatus::SEAMCALL_VMFAILINVALID.0,
        meaning: "No firmware answered: the processor ended SEAMCALL with the carry flag set \
                  (VMfailInvalid). There are three usual reasons. (1) The BIOS loaded no TDX \
                  module. (2) An update failed after the old module was shut down, so no module \
                  is loaded. One offline LP suffices: P-SEAMLDR loads a module only after every \
                  LP of the platform has called. (3) Another LP was inside P-SEAMLDR at that \
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
            "From a call to P-SEAMLDR while `version` can be read: try again; another CPU was in \
             P-SEAMLDR.",
        ],
    },
    Advice {
        code: TdxStatus::SEAMCALL_GP.0,
        meaning: "SEAMCALL raised a general protection fault (#GP, vector 13): TDX is not enabled \
                  on this processor. TDX is off in the BIOS, or the BIOS did not activate TDX \
                  because a check of the memory failed.",
        relation: Relation::None,
        fate: UNCHANGED,
        actions: &[
            "Turn on TDX, the SEAM loader and memory encryption (TME-MT) in the BIOS, with KeyIDs \
             for TDX.",
            "Populate the memory slots as the platform's guide for TDX requires; the BIOS's log \
             names failures.",
        ],
    },
    Advice {
        code: TdxStatus::SEAMCALL_UD.0,
        meaning: "SEAMCALL raised an undefined opcode fault (#UD, vector 6): this CPU is not in \
                  VMX operation, or has no SEAMCALL. Linux enters VMX operation when KVM or TDX \
                  starts, and leaves it at a reboot or when kvm_intel is unloaded. Later calls \
                  fail with this word.",
        relation: Relation::None,
        fate: UNCHANGED,
        actions: &[
            "Load kvm_intel, and check that VT-x is on in the BIOS.",
            "Ignore it during a shutdown or kexec.",
            "Otherwise report it as an error of the kernel, with the lines before it.",
        ],
    },
    Advice {
        code: SW_ERROR,
        meaning: "Linux returns this word when the SEAMCALL instruction itself fails; the low \
                  half is the number of the exception.",
        relation: Relation::None,
        fate: UNCHANGED,
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
        action: "Find that line in the kernel's log, and explain its status word.",
    },
    Errno {
        number: 12,
        name: "ENOMEM",
        meaning: "the kernel had no memory for the operation",
        action: "Free memory, or try right after boot: PAMT needs large contiguous pieces, about \
                 0.4% of all memory.",
    },
    Errno {
        number: 13,
        name: "EACCES",
        meaning: "SEAMCALL raised #UD: the CPU is not in VMX operation",
        action: "Load kvm_intel, and check that VT-x is on in the BIOS.",
    },
    Errno {
        number: 16,
        name: "EBUSY",
        meaning: "something is in use: a TD in build or in migration, an operand, or a running \
                  upload",
        action: "Wait until the other operation ends, then try again.",
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
        meaning: "an argument is wrong: a malformed image, a module without a feature that the \
                  kernel needs, or a setting that TDX does not allow",
        action: "For an update, check the image's format (`tdx-seamldr inspect FILE`): Linux 7.2 \
                 takes v2 only.",
    },
    Errno {
        number: 28,
        name: "ENOSPC",
        meaning: "no space: TDMRs or their reserved areas are used up, or no updates remain",
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
        meaning: "an operation did not finish in time",
        action: "Try again. If it occurs again, report it.",
    },
];

/// Returns the row of an error number.
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
    fn error_numbers_match_those_of_core() {
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
