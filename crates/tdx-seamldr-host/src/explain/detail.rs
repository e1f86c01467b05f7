//! Decodes the low half of a TDX status word: operands, MSRs, counts.

use tdx_seamldr_core::abi::{OperandId, SensitiveReason, TdxStatus};

/// Operands that do not occur in an update. [`OperandId::TABLE`] does not have them.
const OPERANDS: &[(u32, &str)] = &[
    (3, "RBX"),
    (5, "RBP"),
    (6, "RSI"),
    (7, "RDI"),
    (11, "R11"),
    (12, "R12"),
    (13, "R13"),
    (14, "R14"),
    (15, "R15"),
    (64, "ATTRIBUTES"),
    (65, "XFAM"),
    (66, "EXEC_CONTROLS"),
    (67, "EPTP_CONTROLS"),
    (68, "MAX_VCPUS"),
    (69, "CPUID_CONFIG"),
    (70, "TSC_FREQUENCY"),
    (71, "NUM_L2_VMS"),
    (72, "IA32_ARCH_CAPABILITIES_CONFIG"),
    (95, "PAGE"),
    (96, "TDMR_INFO_PA"),
    (97, "GPA_LIST_ENTRY"),
    (98, "MIG_BUFF_LIST_ENTRY"),
    (99, "NEW_PAGE_LIST_ENTRY"),
    (129, "TDCX"),
    (130, "TDVPR"),
    (132, "REG_PAGE"),
    (144, "TDCS"),
    (145, "TDVPS"),
    (147, "SEPT_ENTRY"),
    (168, "RTMR"),
    (170, "L2_VAPIC_GPA"),
    (171, "MIGSC"),
    (172, "OP_STATE"),
    (173, "MIG"),
    (174, "SERVTD_BINDINGS"),
    (176, "METADATA_FIELD"),
    (177, "NUM_VCPUS"),
    (178, "CPUID_FIXED0_BITMAP"),
    (184, "SYS"),
    (185, "TDMR"),
    (186, "KOT"),
    (187, "KET"),
    (188, "WBCACHE"),
];

/// The operand id of a CPUID configuration of a new TD.
const CPUID_CONFIG: u32 = 69;

/// MSRs that matter to TDX.
const MSRS: &[(u32, &str)] = &[
    (0x3a, "IA32_FEATURE_CONTROL"),
    (0x3b, "IA32_TSC_ADJUST"),
    (0x48, "IA32_SPEC_CTRL"),
    (0x87, "IA32_MKTME_KEYID_PARTITIONING"),
    (0x8b, "IA32_BIOS_SIGN_ID"),
    (0xbd, "IA32_XAPIC_DISABLE_STATUS"),
    (0xce, "MSR_PLATFORM_INFO"),
    (0xcf, "IA32_CORE_CAPABILITIES"),
    (0xe1, "IA32_UMWAIT_CONTROL"),
    (0xfe, "IA32_MTRRCAP"),
    (0x10a, "IA32_ARCH_CAPABILITIES"),
    (0x122, "IA32_TSX_CTRL"),
    (0x123, "IA32_MCU_OPT_CTRL"),
    (0x1a0, "IA32_MISC_ENABLE"),
    (0x1d9, "IA32_DEBUGCTL"),
    (0x1f2, "IA32_SMRR_PHYSBASE"),
    (0x1f3, "IA32_SMRR_PHYSMASK"),
    (0x345, "IA32_PERF_CAPABILITIES"),
    (0x480, "IA32_VMX_BASIC"),
    (0x481, "IA32_VMX_PINBASED_CTLS"),
    (0x482, "IA32_VMX_PROCBASED_CTLS"),
    (0x483, "IA32_VMX_EXIT_CTLS"),
    (0x484, "IA32_VMX_ENTRY_CTLS"),
    (0x485, "IA32_VMX_MISC"),
    (0x486, "IA32_VMX_CR0_FIXED0"),
    (0x487, "IA32_VMX_CR0_FIXED1"),
    (0x488, "IA32_VMX_CR4_FIXED0"),
    (0x489, "IA32_VMX_CR4_FIXED1"),
    (0x48b, "IA32_VMX_PROCBASED_CTLS2"),
    (0x48c, "IA32_VMX_EPT_VPID_CAP"),
    (0x48d, "IA32_VMX_TRUE_PINBASED_CTLS"),
    (0x48e, "IA32_VMX_TRUE_PROCBASED_CTLS"),
    (0x48f, "IA32_VMX_TRUE_EXIT_CTLS"),
    (0x490, "IA32_VMX_TRUE_ENTRY_CTLS"),
    (0x491, "IA32_VMX_VMFUNC"),
    (0x492, "IA32_VMX_PROCBASED_CTLS3"),
    (0x503, "IA32_SGX_DEBUG_MODE"),
    (0x981, "IA32_TME_CAPABILITY"),
    (0x982, "IA32_TME_ACTIVATE"),
    (0xda0, "IA32_XSS"),
    (0x1400, "IA32_SEAMRR_PHYS_BASE"),
    (0x1401, "IA32_SEAMRR_PHYS_MASK"),
];

/// Further words whose details are an operand. [`TdxStatus::operand`] knows the others.
const WITH_OPERAND: [u64; 4] =
    [0xc000030000000000, 0xc000030200000000, 0xc000030300000000, 0x8000020400000000];

/// Returns the name of an operand.
fn operand(id: OperandId) -> Option<&'static str> {
    id.name().or_else(|| OPERANDS.iter().find(|(number, _)| *number == id.0).map(|(_, name)| *name))
}

/// Returns the meaning of the low half of a TDX status word. `None` if the half is 0 without a
/// meaning.
pub(super) fn decode(word: u64) -> Option<String> {
    let status = TdxStatus(word);
    let details = status.details();
    if let Some((reason, count)) = status.sensitive() {
        let plural =
            |one: &str, many: &str| if count == 1 { one.to_owned() } else { many.to_owned() };
        return Some(match reason {
            SensitiveReason::TdBuild => format!("{count} {} in build", plural("TD is", "TDs are")),
            SensitiveReason::InterruptedMigration => {
                format!("{count} migration {} interrupted", plural("session is", "sessions are"))
            }
            SensitiveReason::Unknown(reason) => {
                format!("reason {reason}, which has no name; count {count}")
            }
        });
    }
    let id = status.operand().or_else(|| {
        (WITH_OPERAND.contains(&status.code().0) && details != 0).then_some(OperandId(details))
    });
    if let Some(id) = id {
        return Some(match operand(id) {
            Some(name) if id.0 == CPUID_CONFIG => {
                format!(
                    "operand {name} ({details}): RCX holds the CPUID leaf and subleaf that was \
                     refused"
                )
            }
            Some(name) => format!("operand {name} ({details})"),
            None => format!("operand {details}, which has no name"),
        });
    }
    if matches!(status.code(), TdxStatus::INCONSISTENT_MSR | TdxStatus::INCORRECT_MSR_VALUE) {
        return Some(match MSRS.iter().find(|(number, _)| *number == details) {
            Some((_, name)) => format!("MSR {name} ({details:#x})"),
            None => format!("MSR {details:#x}"),
        });
    }
    if status.code() == TdxStatus::INCONSISTENT_CPUID_FIELD {
        return Some("RCX holds the CPUID leaf and subleaf, RDX the bits that differ".to_owned());
    }
    // In class 0 (words of TDH.VP.ENTER) the low half is the exit reason.
    (details != 0).then(|| match status.class() {
        0 if status.code().0 & TdxStatus::NON_RECOVERABLE != 0 => {
            format!("exit reason {details:#x} of the TD")
        }
        _ => format!("details {details:#x}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_have_no_number_twice() {
        for (number, name) in OPERANDS {
            assert_eq!(OperandId(*number).name(), None, "{name} is in core's table");
            assert_eq!(OPERANDS.iter().filter(|(other, _)| other == number).count(), 1, "{name}");
        }
        assert!(MSRS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn details_are_named_by_the_kind_of_status() {
        let expected = [
            (0xc000010000000001, Some("operand RCX (1)")),
            (
                0xc000010000000045,
                Some(
                    "operand CPUID_CONFIG (69): RCX holds the CPUID leaf and subleaf that was \
                     refused",
                ),
            ),
            (0x80000200000000b8, Some("operand SYS (184)")),
            (0xc000010000000000, Some("operand RAX (0)")),
            (0xc0000100000000ff, Some("operand 255, which has no name")),
            (0xc000092100000122, Some("MSR IA32_TSX_CTRL (0x122)")),
            (0xc000092000000777, Some("MSR 0x777")),
            (0x8000051200010000, Some("1 TD is in build")),
            (0x8000051200030001, Some("3 migration sessions are interrupted")),
            (0x8000051200030009, Some("reason 9, which has no name; count 3")),
            (0xc000030000000001, Some("operand RCX (1)")),
            (0xc000050500000000, None),
            (0xc000050500000007, Some("details 0x7")),
            (0x4000000200000002, Some("exit reason 0x2 of the TD")),
        ];
        for (word, detail) in expected {
            assert_eq!(decode(word).as_deref(), detail, "{word:#x}");
        }
    }
}
