//! Status codes of P-SEAMLDR, in RAX.

use crate::debug::debug_fields;
use core::fmt;

/// The status of P-SEAMLDR, all 64 bits of RAX. Known codes have a name.
///
/// Layout: bit 63 error, bits 31:16 class, bits 15:0 number inside the class.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SeamldrStatus(pub u64);

/// The class of a [`SeamldrStatus`], bits 31:16. Intel does not document the classes; they follow
/// from the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SeamldrStatusClass {
    /// The call succeeded.
    Success,
    /// Class 0: the call or one of its parameters is wrong.
    Call,
    /// Class 1: the platform does not suit, or has too few resources.
    Platform,
    /// Class 2: signature or hash is wrong.
    Crypto,
    /// Class 3: the call may be repeated.
    Retryable,
    /// Any other class, by its number.
    Unknown(u16),
}

/// One row of [`SeamldrStatus::TABLE`].
#[derive(Clone, Copy)]
pub struct SeamldrStatusInfo {
    /// The code.
    pub status: SeamldrStatus,
    /// Its name, e.g. `EBADSIG`.
    pub name: &'static str,
    /// The meaning, for the operator.
    pub meaning: &'static str,
}

debug_fields! { SeamldrStatusInfo, status; name, meaning }

macro_rules! seamldr_statuses {
    ($($name:ident = $value:expr, $meaning:expr;)*) => {
        impl SeamldrStatus {
            $(#[doc = concat!($meaning, ".")] pub const $name: Self = Self($value);)*

            /// All known codes.
            pub const TABLE: &'static [SeamldrStatusInfo] = &[$(
                SeamldrStatusInfo { status: Self::$name, name: stringify!($name),
                    meaning: $meaning }
            ),*];
        }
    };
}

seamldr_statuses! {
    SUCCESS = 0, "done";
    EBADPARAM = 0x8000000000000000, "a parameter is wrong, the leaf is unknown, or the image cannot be relocated";
    EBADCALL = 0x8000000000000003,
        "the call comes at the wrong time: repeated on this LP, a shutdown has begun, no updates are left, or the major SVN differs";
    EBADHANDOFF = 0x8000000000000004,
        "the handoff data is missing, too large, or in a version that the new module does not take";
    ECLEANUPREQ = 0x8000000000000005, "keys or caches are dirty: SEAMLDR.CLEANUP has to come first";
    EUNSUPPORTED = 0x8000000000000006, "the image's major SVN is 0 or not that of the running module";
    ENOMEM = 0x8000000000010002, "the module does not fit into the SEAM range";
    EUNSPECERR = 0x8000000000010003, "the LP's x2APIC id is out of range, or the loader had no random number to start with";
    EUNSUPCPU = 0x8000000000010004, "a socket's processor is not in the image's list of CPUs";
    EBADSIG = 0x8000000000020000, "a field of the SIGSTRUCT, the signer, the SVN or the signature is not acceptable";
    EBADHASH = 0x8000000000020001, "the image does not have the hash that was signed";
    EINTERRUPT = 0x8000000000030000, "an interrupt is pending: call again";
    ENOENTROPY = 0x8000000000030001, "the processor had no random number ready";
}

impl SeamldrStatus {
    /// Bit 63.
    pub const ERROR: u64 = 1 << 63;

    /// Whether the call succeeded.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// Returns the class.
    #[must_use]
    #[allow(clippy::as_conversions)] // 16 bits remain
    pub const fn class(self) -> SeamldrStatusClass {
        if self.is_success() {
            return SeamldrStatusClass::Success;
        }
        match (self.0 >> 16) as u16 {
            0 => SeamldrStatusClass::Call,
            1 => SeamldrStatusClass::Platform,
            2 => SeamldrStatusClass::Crypto,
            3 => SeamldrStatusClass::Retryable,
            other => SeamldrStatusClass::Unknown(other),
        }
    }

    /// Returns name and meaning. `None` if the code is not known.
    #[must_use]
    pub fn info(self) -> Option<&'static SeamldrStatusInfo> {
        Self::TABLE.iter().find(|row| row.status == self)
    }

    /// Returns the name. `None` if the code is not known.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        self.info().map(|row| row.name)
    }
}

impl fmt::Debug for SeamldrStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "SeamldrStatus({:#018x})", self.0),
        }
    }
}

impl fmt::Display for SeamldrStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.info() {
            Some(row) => write!(f, "{} ({:#018x}): {}", row.name, self.0, row.meaning),
            None => write!(f, "unknown P-SEAMLDR status {:#018x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_have_the_published_values_and_classes() {
        let expected = [
            ("SUCCESS", 0, SeamldrStatusClass::Success),
            ("EBADPARAM", 0x8000000000000000, SeamldrStatusClass::Call),
            ("EBADCALL", 0x8000000000000003, SeamldrStatusClass::Call),
            ("EBADHANDOFF", 0x8000000000000004, SeamldrStatusClass::Call),
            ("ECLEANUPREQ", 0x8000000000000005, SeamldrStatusClass::Call),
            ("EUNSUPPORTED", 0x8000000000000006, SeamldrStatusClass::Call),
            ("ENOMEM", 0x8000000000010002, SeamldrStatusClass::Platform),
            ("EUNSPECERR", 0x8000000000010003, SeamldrStatusClass::Platform),
            ("EUNSUPCPU", 0x8000000000010004, SeamldrStatusClass::Platform),
            ("EBADSIG", 0x8000000000020000, SeamldrStatusClass::Crypto),
            ("EBADHASH", 0x8000000000020001, SeamldrStatusClass::Crypto),
            ("EINTERRUPT", 0x8000000000030000, SeamldrStatusClass::Retryable),
            ("ENOENTROPY", 0x8000000000030001, SeamldrStatusClass::Retryable),
        ];
        assert_eq!(SeamldrStatus::TABLE.len(), expected.len());
        for (row, (name, value, class)) in SeamldrStatus::TABLE.iter().zip(expected) {
            assert_eq!((row.name, row.status.0, row.status.class()), (name, value, class));
            assert_eq!(format!("{:?}", row.status), name);
        }
    }

    #[test]
    fn unknown_code_is_shown_as_its_number() {
        let status = SeamldrStatus(0x8000000000070001);
        assert_eq!(status.class(), SeamldrStatusClass::Unknown(7));
        assert_eq!(format!("{status:?}"), "SeamldrStatus(0x8000000000070001)");
        assert_eq!(format!("{status}"), "unknown P-SEAMLDR status 0x8000000000070001");
    }

    proptest! {
        #[test]
        fn any_status_is_shown_with_its_number(raw: u64) {
            let status = SeamldrStatus(raw);
            let shown = format!("{status}");
            let number = format!("{:#018x}", raw);
            prop_assert!(shown.contains(&number));
            let _ = status.class();
        }
    }

    #[test]
    fn every_code_but_success_has_the_error_bit() {
        for row in SeamldrStatus::TABLE {
            assert_eq!(row.status.is_success(), row.status == SeamldrStatus::SUCCESS);
            assert_eq!(row.status.0 & SeamldrStatus::ERROR != 0, !row.status.is_success());
            assert_eq!(row.status.name(), Some(row.name));
            assert!(format!("{}", row.status).starts_with(row.name));
        }
    }
}
