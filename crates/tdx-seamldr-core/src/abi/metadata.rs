//! Ids of the global metadata fields that TDH.SYS.RD reads.

use crate::debug::debug_fields;
use core::fmt;

/// A metadata field id.
///
/// Layout: 23:0 field code, 33:32 element size (as a power of two of bytes), 37:34 last element,
/// 46:38 last field in the sequence, 50 increment size, 51 write mask valid, 54:52 context, 61:56
/// class, 63 non-architectural.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct FieldId(pub u64);

/// One row of [`FieldId::TABLE`].
#[derive(Clone, Copy)]
pub struct FieldInfo {
    /// The id.
    pub id: FieldId,
    /// Its name, e.g. `MODULE_HV`.
    pub name: &'static str,
}

debug_fields! { FieldInfo, id; name }

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $value:expr;)*) => {
        impl FieldId {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The fields with a name here.
            pub const TABLE: &'static [FieldInfo] =
                &[$(FieldInfo { id: Self::$name, name: stringify!($name) }),*];
        }
    };
}

fields! {
    /// The vendor of the module: 0x8086.
    VENDOR_ID = 0x0800000200000000;
    /// Build date: YYYYMMDD, a decimal number.
    BUILD_DATE = 0x8800000200000001;
    /// Build number.
    BUILD_NUM = 0x8800000100000002;
    /// Minor version, the 5 of 1.5.16.
    MINOR_VERSION = 0x0800000100000003;
    /// Major version, the 1 of 1.5.16.
    MAJOR_VERSION = 0x0800000100000004;
    /// Update version, the 16 of 1.5.16.
    UPDATE_VERSION = 0x0800000100000005;
    /// Internal version.
    INTERNAL_VERSION = 0x0800000100000006;
    /// Highest handoff version of the module.
    MODULE_HV = 0x8900000100000000;
    /// Lowest handoff version of the module.
    MIN_UPDATE_HV = 0x8900000100000001;
    /// Not zero if the module writes handoff data of its highest version only.
    NO_DOWNGRADE = 0x8900000000000002;
    /// Pages for handoff data, minus one.
    NUM_HANDOFF_PAGES = 0x8900000100000003;
    /// Not zero if there is handoff data.
    HANDOFF_DATA_VALID = 0x8900000000000004;
    /// The version of the handoff data.
    HANDOFF_DATA_HV = 0x8900000100000005;
    /// Bytes of the handoff data.
    HANDOFF_DATA_SIZE = 0x8900000200000006;
    /// The attributes that TDH.SYS.INIT got.
    SYS_ATTRIBUTES = 0x0A00000200000000;
    /// Number of TDX_FEATURES fields.
    NUM_TDX_FEATURES = 0x0A00000000000001;
    /// The features of the module: see [`TdxFeatures0`](super::TdxFeatures0).
    TDX_FEATURES0 = 0x0A00000300000008;
    /// Highest number of TDMRs.
    MAX_TDMRS = 0x9100000100000008;
    /// Highest number of reserved areas of a TDMR.
    MAX_RESERVED_PER_TDMR = 0x9100000100000009;
    /// Bytes of a PAMT entry for 4 KiB.
    PAMT_4K_ENTRY_SIZE = 0x9100000100000010;
    /// Bytes of a PAMT entry for 2 MiB.
    PAMT_2M_ENTRY_SIZE = 0x9100000100000011;
    /// Bytes of a PAMT entry for 1 GiB.
    PAMT_1G_ENTRY_SIZE = 0x9100000100000012;
    /// Bits of an entry in the page bitmap of a dynamic PAMT.
    PAMT_PAGE_BITMAP_ENTRY_BITS = 0x9100000100000013;
    /// Bytes of a TDR page's base part.
    TDR_BASE_SIZE = 0x9800000100000000;
    /// Bytes of the TDCS base part.
    TDCS_BASE_SIZE = 0x9800000100000100;
    /// Bytes of the TDVPS base part.
    TDVPS_BASE_SIZE = 0x9800000100000200;
    /// Number of packages of the platform.
    NUM_PKGS = 0x0000000200000000;
    /// Family, model and stepping of a package.
    PKG_FMS = 0x0000000200000001;
    /// Not a field. TDH.SYS.RD of this id returns the first field id, and this id follows the last
    /// field.
    NULL = u64::MAX;
}

impl FieldId {
    /// Returns bits 23:0, the number inside the class.
    #[must_use]
    #[allow(clippy::as_conversions)] // 24 bits remain
    pub const fn field_code(self) -> u32 {
        (self.0 & 0xff_ffff) as u32
    }

    /// Returns the bytes of one element, from bits 33:32: 1, 2, 4 or 8.
    #[must_use]
    pub const fn element_size(self) -> u32 {
        1 << (self.0 >> 32 & 3)
    }

    /// Returns the class, bits 61:56.
    #[must_use]
    #[allow(clippy::as_conversions)] // 6 bits remain
    pub const fn class(self) -> u8 {
        (self.0 >> 56 & 0x3f) as u8
    }

    /// Whether the field is not part of the architecture (bit 63).
    #[must_use]
    pub const fn is_non_architectural(self) -> bool {
        self.0 >> 63 == 1
    }

    /// Returns the field's name if [`TABLE`](Self::TABLE) has it.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        Self::TABLE.iter().find(|row| row.id == self).map(|row| row.name)
    }
}

impl fmt::Debug for FieldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "FieldId({:#018x})", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_id_is_split_as_its_layout_says() {
        let id = FieldId::MODULE_HV;
        assert_eq!((id.class(), id.field_code(), id.element_size()), (9, 0, 2));
        assert!(id.is_non_architectural());
        let id = FieldId::TDX_FEATURES0;
        assert_eq!((id.class(), id.field_code(), id.element_size()), (10, 8, 8));
        assert!(!id.is_non_architectural());
    }

    #[test]
    fn fields_are_found_by_their_ids() {
        assert_eq!(FieldId(0x8900000100000000).name(), Some("MODULE_HV"));
        for row in FieldId::TABLE {
            assert_eq!(row.id.name(), Some(row.name));
        }
        assert_eq!(FieldId(1).name(), None);
    }
}
