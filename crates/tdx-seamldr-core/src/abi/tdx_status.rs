//! Status words of the TDX module, in RAX, and the words that Linux uses if SEAMCALL itself fails.

use crate::debug::debug_fields;
use core::fmt;

/// The status word of the TDX module, all 64 bits of RAX. Known codes have a name.
///
/// Layout: 63 error, 62 non-recoverable, 61 fatal, 60 hint that the host can recover, 47:40 class,
/// 39:32 code inside the class, 31:0 details (operand, MSR number, counts).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct TdxStatus(pub u64);

/// One row of [`TdxStatus::TABLE`].
#[derive(Clone, Copy)]
pub struct TdxStatusInfo {
    /// The code, with details 0 unless the details are part of it.
    pub status: TdxStatus,
    /// Its name, e.g. `SYS_BUSY`.
    pub name: &'static str,
    /// The meaning, for the operator.
    pub meaning: &'static str,
}

debug_fields! { TdxStatusInfo, status; name, meaning }

/// The operand that a status such as OPERAND_INVALID names in its low half.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperandId(pub u32);

macro_rules! operand_ids {
    ($($constant:ident = $value:expr, $name:expr;)*) => {
        impl OperandId {
            $(#[doc = concat!($name, ".")] pub const $constant: Self = Self($value);)*

            /// The operands with a name here.
            pub const TABLE: &'static [(Self, &'static str)] = &[$((Self::$constant, $name)),*];
        }
    };
}

operand_ids! {
    RAX = 0, "RAX";
    RCX = 1, "RCX";
    RDX = 2, "RDX";
    R8 = 8, "R8";
    R9 = 9, "R9";
    R10 = 10, "R10";
    TDR = 0x80, "TDR";
    SEPT = 0x92, "SEPT";
    TD_EPOCH = 0xa9, "TD EPOCH";
}

impl OperandId {
    /// Returns the operand's name. `None` if the operand is not known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|(id, _)| *id == self).map(|(_, name)| *name)
    }
}

/// The compatibility-sensitive operation for which a module refused the shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SensitiveReason {
    /// TDs are between TDH.MNG.INIT and TDH.MR.FINALIZE.
    TdBuild,
    /// A step of a migration is interrupted and must be resumed.
    InterruptedMigration,
    /// Any other reason, by its number.
    Unknown(u16),
}

macro_rules! tdx_statuses {
    ($($name:ident = $value:expr, $meaning:expr;)*) => {
        impl TdxStatus {
            $(#[doc = concat!($meaning, ".")] pub const $name: Self = Self($value);)*

            /// All known codes.
            pub const TABLE: &'static [TdxStatusInfo] = &[$(
                TdxStatusInfo { status: Self::$name, name: stringify!($name), meaning: $meaning }
            ),*];
        }
    };
}

tdx_statuses! {
    SUCCESS = 0, "done";
    NON_RECOVERABLE_VCPU = 0x4000000100000000, "the virtual CPU cannot run any more";
    NON_RECOVERABLE_TD = 0x6000000200000000, "the TD cannot run any more";
    NON_RECOVERABLE_TD_LINUX = 0x4000000200000000, "the TD cannot run any more (the value that Linux uses)";
    INTERRUPTED_RESUMABLE = 0x8000000300000000, "interrupted: call again to go on";
    INTERRUPTED_RESTARTABLE = 0x8000000400000000, "interrupted: call again to start over";
    OPERAND_INVALID = 0xC000010000000000, "an operand is not acceptable; the low half names it";
    OPERAND_ADDR_RANGE_ERROR = 0xC000010100000000, "an address is out of range; the low half names the operand";
    OPERAND_BUSY = 0x8000020000000000, "another call uses the operand; the low half names it";
    SYS_BUSY = 0x8000020200000000, "another LP is inside the module";
    RND_NO_ENTROPY = 0x8000020300000000, "the processor had no random number ready";
    SYS_INIT_NOT_PENDING = 0xC000050000000000, "the module is initialised already";
    SYS_LP_INIT_NOT_DONE = 0xC000050200000000, "this LP has not been initialised";
    SYS_LP_INIT_DONE = 0xC000050300000000, "this LP is initialised already";
    SYS_NOT_READY = 0xC000050500000000, "the module is not ready for this call";
    SYS_SHUTDOWN = 0xC000050600000000, "the module has been shut down";
    SYS_KEY_CONFIG_NOT_PENDING = 0xC000050700000000, "the module is not waiting for its key";
    SYS_STATE_INCORRECT = 0xC000050800000000, "the module is in another state, or an LP is not initialised";
    SYS_INVALID_HANDOFF = 0xC000050900000000, "there is no handoff data, or not in a version that this module takes";
    SYS_INCOMPATIBLE_SIGSTRUCT = 0xC000050A00000000, "the handoff versions or pages in the SIGSTRUCT are not those the module was built for";
    SYS_LP_INIT_NOT_PENDING = 0xC000050B00000000, "the module is not waiting for LPs";
    SYS_CONFIG_NOT_PENDING = 0xC000050C00000000, "the module is not waiting to be configured";
    INCOMPATIBLE_SEAM_CAPABILITIES = 0xC000050D00000000, "the processor's SEAM capabilities are not enough, or differ between LPs";
    CRYPTO_SELF_TEST_FAILED = 0xC000051100000000, "the module's cryptography failed its own test";
    UPDATE_COMPATIBILITY_SENSITIVE = 0x8000051200000000, "TDs are in build or a migration step is interrupted: wait and try again";
    KEY_GENERATION_FAILED = 0x8000080000000000, "the processor had no entropy for a key";
    KEY_CONFIGURED = 0x0000081500000000, "this package has its key already";
    NUM_ACTIVATED_HKIDS_NOT_SUPPORTED = 0xC000082500000000, "the number of activated KeyIDs is not supported";
    INCORRECT_CPUID_VALUE = 0xC000090000000000, "CPUID has a value that the module does not support";
    LIMIT_CPUID_MAXVAL_SET = 0xC000090100000000, "firmware has limited the range of CPUID leaves";
    INCONSISTENT_CPUID_FIELD = 0xC000090200000000, "CPUID differs between LPs";
    CPUID_LEAF_1F_FORMAT_UNRECOGNIZED = 0xC000090400000000, "CPUID leaf 0x1F has an unknown form";
    INVALID_WBINVD_SCOPE = 0xC000090500000000, "WBINVD has a scope that the module does not support";
    INVALID_PKG_ID = 0xC000090600000000, "a package number is out of range";
    CPUID_LEAF_NOT_SUPPORTED = 0xC000090800000000, "a CPUID leaf that the module needs is missing";
    SMRR_NOT_LOCKED = 0xC000091000000000, "firmware has left an SMRR unlocked";
    INVALID_SMRR_CONFIGURATION = 0xC000091100000000, "firmware has set up an SMRR wrongly";
    SMRR_OVERLAPS_CMR = 0xC000091200000000, "an SMRR overlaps convertible memory";
    SMRR_LOCK_NOT_SUPPORTED = 0xC000091300000000, "the processor cannot lock its SMRR";
    SMRR_NOT_SUPPORTED = 0xC000091400000000, "the processor has no SMRR";
    INCONSISTENT_MSR = 0xC000092000000000, "an MSR differs between LPs; the low half is its number";
    INCORRECT_MSR_VALUE = 0xC000092100000000, "an MSR has a value that the module does not support; the low half is its number";
    INVALID_TDMR = 0xC0000A0000000000, "a TDMR is not acceptable";
    NON_ORDERED_TDMR = 0xC0000A0100000000, "the TDMRs are not in ascending order";
    TDMR_OUTSIDE_CMRS = 0xC0000A0200000000, "a TDMR is not convertible memory";
    TDMR_ALREADY_INITIALIZED = 0x00000A0300000000, "the TDMR is initialised already";
    INVALID_PAMT = 0xC0000A1000000000, "a PAMT is not acceptable";
    PAMT_OUTSIDE_CMRS = 0xC0000A1100000000, "a PAMT is not convertible memory";
    PAMT_OVERLAP = 0xC0000A1200000000, "a PAMT overlaps something else";
    INVALID_RESERVED_IN_TDMR = 0xC0000A2000000000, "a reserved area of a TDMR is not acceptable";
    NON_ORDERED_RESERVED_IN_TDMR = 0xC0000A2100000000, "the reserved areas of a TDMR are not in ascending order";
    CMR_LIST_INVALID = 0xC0000A2200000000, "firmware's list of convertible memory is not acceptable";
    METADATA_FIELD_ID_INCORRECT = 0xC0000C0000000000, "there is no metadata field with this id";
    METADATA_FIRST_FIELD_ID_IN_CONTEXT = 0x00000C0B00000000, "the id of the first metadata field follows";
    SEAMCALL_VMFAILINVALID = 0x8000FF00FFFF0000, "nothing can be called: no module is ready, or another LP is inside P-SEAMLDR";
    SEAMCALL_GP = 0x8000FF000000000D, "SEAMCALL raised a general protection fault: TDX is not enabled here";
    SEAMCALL_UD = 0x8000FF0000000006, "SEAMCALL is an undefined instruction here: the processor is not in VMX operation";
}

impl TdxStatus {
    /// Bit 63.
    pub const ERROR: u64 = 1 << 63;
    /// Bit 62.
    pub const NON_RECOVERABLE: u64 = 1 << 62;
    /// Bit 61.
    pub const FATAL: u64 = 1 << 61;
    /// Bit 60.
    pub const HOST_RECOVERABILITY_HINT: u64 = 1 << 60;
    /// The bits of the code: all except the details.
    pub const CODE_MASK: u64 = 0xFFFFFFFF00000000;
    /// The class (bits 47:40) of the words that Linux uses if SEAMCALL itself fails.
    pub const SOFTWARE_CLASS: u8 = 0xff;

    /// Whether the word is 0: success without further information.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Whether the error bit (63) is set. A word that is neither success nor error carries
    /// information.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.0 & Self::ERROR != 0
    }

    /// Whether one of the bits 63:61 is set: error, non-recoverable, fatal.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 >> 61 != 0
    }

    /// Returns the word without its details.
    #[must_use]
    pub const fn code(self) -> Self {
        Self(self.0 & Self::CODE_MASK)
    }

    /// Returns the class, bits 47:40.
    #[must_use]
    #[allow(clippy::as_conversions)] // 8 bits remain
    pub const fn class(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Returns the details, bits 31:0.
    #[must_use]
    #[allow(clippy::as_conversions)] // 32 bits remain
    pub const fn details(self) -> u32 {
        self.0 as u32
    }

    /// Returns the operand that the details name. `None` for codes whose details name none.
    #[must_use]
    pub fn operand(self) -> Option<OperandId> {
        const WITH_OPERAND: [TdxStatus; 3] = [
            TdxStatus::OPERAND_INVALID,
            TdxStatus::OPERAND_ADDR_RANGE_ERROR,
            TdxStatus::OPERAND_BUSY,
        ];
        WITH_OPERAND.contains(&self.code()).then(|| OperandId(self.details()))
    }

    /// Returns the reason (details 15:0) and the number of operations (31:16) of
    /// UPDATE_COMPATIBILITY_SENSITIVE. `None` for other codes.
    #[must_use]
    #[allow(clippy::as_conversions)] // 16 bits remain
    pub fn sensitive(self) -> Option<(SensitiveReason, u16)> {
        if self.code() != Self::UPDATE_COMPATIBILITY_SENSITIVE {
            return None;
        }
        let reason = match self.details() as u16 {
            0 => SensitiveReason::TdBuild,
            1 => SensitiveReason::InterruptedMigration,
            other => SensitiveReason::Unknown(other),
        };
        Some((reason, (self.details() >> 16) as u16))
    }

    /// Returns name and meaning. `None` if the code is not known.
    #[must_use]
    pub fn info(self) -> Option<&'static TdxStatusInfo> {
        Self::TABLE
            .iter()
            .find(|row| row.status == self)
            .or_else(|| Self::TABLE.iter().find(|row| row.status == self.code()))
    }

    /// Returns the name. `None` if the code is not known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.info().map(|row| row.name)
    }
}

impl fmt::Debug for TdxStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(row) if row.status == *self => f.write_str(row.name),
            Some(row) => write!(f, "{}|{:#x}", row.name, self.details()),
            None => write!(f, "TdxStatus({:#018x})", self.0),
        }
    }
}

impl fmt::Display for TdxStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(row) = self.info() else {
            return write!(f, "unknown TDX module status {:#018x}", self.0);
        };
        write!(f, "{} ({:#018x}): {}", row.name, self.0, row.meaning)?;
        if let Some((reason, count)) = self.sensitive() {
            return write!(f, " ({reason:?}, {count} under way)");
        }
        match self.operand().and_then(OperandId::name) {
            Some(operand) => write!(f, " ({operand})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn status_name_is_found_with_and_without_details() {
        assert_eq!(TdxStatus(0x8000020200000000).name(), Some("SYS_BUSY"));
        assert_eq!(TdxStatus(0xC000010000000001).name(), Some("OPERAND_INVALID"));
        assert_eq!(TdxStatus(0xC000010000000001).operand(), Some(OperandId::RCX));
        assert_eq!(TdxStatus(0x8000FF00FFFF0000).name(), Some("SEAMCALL_VMFAILINVALID"));
        assert_eq!(TdxStatus(0x8000FF000000000D).name(), Some("SEAMCALL_GP"));
        assert_eq!(TdxStatus(0x8000FF0000000006).name(), Some("SEAMCALL_UD"));
        assert_eq!(TdxStatus(0x8000FF0000000007).name(), None);
        assert_eq!(TdxStatus(0x8000FF0000000006).class(), TdxStatus::SOFTWARE_CLASS);
    }

    #[test]
    fn every_row_is_found_by_its_own_value() {
        for row in TdxStatus::TABLE {
            assert_eq!(row.status.name(), Some(row.name));
            assert!(!row.meaning.is_empty());
        }
    }

    #[test]
    fn sensitive_returns_reason_and_count_of_a_refused_shutdown() {
        let seen_in_the_field = TdxStatus(0x8000051200010000);
        assert_eq!(seen_in_the_field.sensitive(), Some((SensitiveReason::TdBuild, 1)));
        let migrations = TdxStatus(0x8000051200030001);
        assert_eq!(migrations.sensitive(), Some((SensitiveReason::InterruptedMigration, 3)));
        assert_eq!(TdxStatus::SYS_BUSY.sensitive(), None);
        assert!(format!("{migrations}").ends_with("(InterruptedMigration, 3 under way)"));
    }

    #[test]
    fn success_with_information_is_neither_success_nor_error() {
        let first = TdxStatus::METADATA_FIRST_FIELD_ID_IN_CONTEXT;
        assert!(!first.is_success());
        assert!(!first.is_error());
    }

    proptest! {
        #[test]
        fn any_status_word_is_shown_without_loss(raw: u64) {
            let status = TdxStatus(raw);
            let number = format!("{:#018x}", raw);
            let shown = format!("{status}");
            prop_assert!(shown.contains(&number));
            prop_assert_eq!(status.code().0 | u64::from(status.details()), raw);
        }
    }

    #[test]
    fn bits_63_to_61_are_failures_and_only_bit_63_is_an_error() {
        let bits = [TdxStatus::ERROR, TdxStatus::NON_RECOVERABLE, TdxStatus::FATAL];
        assert_eq!(bits, [1 << 63, 1 << 62, 1 << 61]);
        for bit in bits {
            assert!(TdxStatus(bit).is_failure());
            assert_eq!(TdxStatus(bit).is_error(), bit == TdxStatus::ERROR);
        }
        assert_eq!(TdxStatus::HOST_RECOVERABILITY_HINT, 1 << 60);
        let others = TdxStatus(!(bits[0] | bits[1] | bits[2]));
        assert!(!others.is_failure() && !others.is_error() && !others.is_success());
        assert!(TdxStatus::SUCCESS.is_success() && !TdxStatus::SUCCESS.is_failure());
    }

    #[test]
    fn status_word_is_split_as_its_layout_says() {
        let status = TdxStatus(0x8000_1234_5678_9abc);
        assert_eq!((status.class(), status.details()), (0x12, 0x5678_9abc));
        assert_eq!(status.code(), TdxStatus(0x8000_1234_0000_0000));
        assert_eq!(status.operand(), None);
        assert_eq!(TdxStatus(TdxStatus::OPERAND_BUSY.0 | 0x80).operand(), Some(OperandId(0x80)));
        assert_eq!((OperandId::TDR.name(), OperandId(3).name()), (Some("TDR"), None));
    }
}
