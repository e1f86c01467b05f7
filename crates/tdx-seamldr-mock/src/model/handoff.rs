//! The handoff data: what one module leaves for the next.
//!
//! The first 8 bytes are a [`HandoffHeader`]. Version 0 continues with the key ownership table
//! (2,048 entries of 8 bytes), the WBINVD table, the TDMR table, the number of TDMRs, the module's
//! own KeyID, and the configured packages. Version 1 adds the module's counts of
//! compatibility-sensitive operations.

use tdx_seamldr_core::abi::HandoffHeader;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Size of the header in bytes.
pub(super) const HEADER_SIZE: usize = 8;
/// Entries of the key ownership table.
const KOT_ENTRIES: usize = 2048;
/// The most TDMRs that a module stores.
pub(super) const MAX_TDMRS: usize = 64;

/// Owner of a KeyID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyOwner {
    /// The module itself.
    Module,
    /// A TD, by its number.
    Td(u16),
}

#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct KotEntry {
    state: U32,
    owner: U32,
}

impl KotEntry {
    fn owner(self) -> Option<KeyOwner> {
        match (self.state.get(), u16::try_from(self.owner.get())) {
            (1, _) => Some(KeyOwner::Module),
            (2, Ok(td)) => Some(KeyOwner::Td(td)),
            _ => None,
        }
    }
}

/// A TDMR. Only the size of this entry matches the real module's.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct TdmrEntry {
    pub(super) base: U64,
    pub(super) size: U64,
    /// Number of TDH.SYS.TDMR.INIT steps that were made.
    pub(super) steps: U64,
    reserved: [u8; 296],
}

/// The tables that a module hands over, in the form of the handoff data.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Tables {
    kot: [KotEntry; KOT_ENTRIES],
    wbinvd: [[u8; 8]; 2064],
    pub(super) tdmrs: [TdmrEntry; MAX_TDMRS],
    pub(super) num_tdmrs: U32,
    pub(super) module_hkid: U16,
    pub(super) packages_configured: U32,
    dynamic_pamt: u8,
    pub(super) tds_in_build: U16,
    pub(super) migrations_interrupted: U16,
}

/// Size of version 1 in bytes.
const SIZE_V1: usize = size_of::<Tables>();
/// Size of version 0 in bytes: everything up to the packages.
pub(super) const SIZE_V0: usize = SIZE_V1 - 5;
/// Size of version 0 as 2.0 modules write it, in bytes. It ends with data of TDX Connect: the
/// configuration of 128 IOMMUs and 2 roots.
const SIZE_V0_CONNECT: usize = SIZE_V0 + 128 * 378 + 32 + 8;
/// Size in bytes that fills 14 pages together with the header.
const SIZE_ROUNDED: usize = 14 * 4096 - HEADER_SIZE;

const _: () = assert!(
    SIZE_V0 == 53386 && SIZE_V1 == 53391 && SIZE_V0_CONNECT == 101_810 && SIZE_ROUNDED == 57_336
);

/// The form in which a module writes its handoff data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandoffForm {
    /// As 1.5.01, in every version.
    Plain,
    /// As the 2.0 modules: version 0 has data of TDX Connect.
    Connect,
    /// Version 1 has the counts for UPDATE_COMPATIBILITY; version 0 is as in 1.5.01.
    Counting,
    /// One structure for all versions, rounded up to pages.
    Rounded,
}

impl HandoffForm {
    /// Returns the bytes after the header in this version.
    pub(super) const fn size(self, hv: u16) -> usize {
        match (self, hv) {
            (Self::Plain, _) | (Self::Counting, 0) => SIZE_V0,
            (Self::Connect, 0) => SIZE_V0_CONNECT,
            (Self::Connect | Self::Counting, _) => SIZE_V1,
            (Self::Rounded, _) => SIZE_ROUNDED,
        }
    }

    /// Returns the bytes after the header that the module's pages must have room for.
    pub(super) const fn least_area(self) -> usize {
        match self {
            Self::Plain | Self::Counting => SIZE_V0,
            Self::Connect => SIZE_V0_CONNECT,
            Self::Rounded => SIZE_ROUNDED,
        }
    }

    /// Returns the bytes after the header that the module reads in this version. The data may be
    /// longer.
    pub(super) const fn least_read(self, hv: u16) -> usize {
        match (self, hv) {
            (Self::Counting, 1..) | (Self::Rounded, _) => SIZE_V1,
            _ => SIZE_V0,
        }
    }
}

impl Tables {
    /// Returns the KeyID of this TD, if it has one.
    pub(super) fn hkid_of(&self, td: u16) -> Option<u16> {
        let is_its = |entry: &KotEntry| entry.owner() == Some(KeyOwner::Td(td));
        (0..).zip(&self.kot).find(|(_, entry)| is_its(entry)).map(|(hkid, _)| hkid)
    }

    /// Sets the owner of a KeyID. Returns `None` if there is no such KeyID.
    pub(super) fn own(&mut self, hkid: u16, owner: KeyOwner) -> Option<()> {
        let (state, owner) = match owner {
            KeyOwner::Module => (1, 0),
            KeyOwner::Td(td) => (2, u32::from(td)),
        };
        *self.kot.get_mut(usize::from(hkid))? =
            KotEntry { state: U32::new(state), owner: U32::new(owner) };
        Some(())
    }

    /// Writes the data after the header.
    pub(super) fn write(&self, form: HandoffForm, hv: u16, area: &mut [u8]) {
        let size = form.size(hv);
        let Some(data) =
            HEADER_SIZE.checked_add(size).and_then(|end| area.get_mut(HEADER_SIZE..end))
        else {
            return;
        };
        data.fill(0);
        let known = if matches!(size, SIZE_V1 | SIZE_ROUNDED) { SIZE_V1 } else { SIZE_V0 };
        data.iter_mut().zip(self.as_bytes()).take(known).for_each(|(slot, byte)| *slot = *byte);
    }

    /// Reads the data after the header without any check, as the real module does.
    pub(super) fn read(&mut self, form: HandoffForm, hv: u16, area: &[u8]) {
        self.zero();
        let data = area.get(HEADER_SIZE..).unwrap_or_default();
        let own = self.as_mut_bytes().iter_mut().take(form.least_read(hv));
        own.zip(data).for_each(|(slot, byte)| *slot = *byte);
    }
}

/// Returns the header of a handoff area.
pub(super) fn header(area: &[u8]) -> HandoffHeader {
    HandoffHeader::read_from_prefix(area)
        .map_or_else(|_| HandoffHeader::default(), |(header, _)| header)
}

/// Writes the header of a handoff area.
pub(super) fn set_header(area: &mut [u8], header: &HandoffHeader) {
    if let Some(bytes) = area.get_mut(..HEADER_SIZE) {
        bytes.copy_from_slice(header.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_written_and_read_in_any_form_are_equal_and_fill_the_data_exactly() {
        for (form, hv, size) in [
            (HandoffForm::Plain, 0, SIZE_V0),
            (HandoffForm::Plain, 7, SIZE_V0),
            (HandoffForm::Counting, 0, SIZE_V0),
            (HandoffForm::Counting, 1, SIZE_V1),
            (HandoffForm::Connect, 0, SIZE_V0_CONNECT),
            (HandoffForm::Rounded, 1, SIZE_ROUNDED),
            (HandoffForm::Rounded, 2, SIZE_ROUNDED),
        ] {
            let mut tables = Tables::new_zeroed();
            tables.own(0, KeyOwner::Module).unwrap();
            tables.own(2047, KeyOwner::Td(63)).unwrap();
            assert!(tables.own(2048, KeyOwner::Module).is_none());
            tables.num_tdmrs = U32::new(3);
            tables.packages_configured = U32::new(0b11);
            tables.tds_in_build = U16::new(9);
            let mut area = vec![0xee; HEADER_SIZE + size + 1];
            tables.write(form, hv, &mut area);
            assert_eq!(area[..HEADER_SIZE], [0xee; HEADER_SIZE]);
            assert_ne!(area[area.len() - 2], 0xee, "the data ends where it should");
            assert_eq!(area[area.len() - 1], 0xee);
            let mut back = Tables::new_zeroed();
            back.read(form, hv, &area);
            let counted = if matches!(size, SIZE_V1 | SIZE_ROUNDED) { 9 } else { 0 };
            assert_eq!(
                (back.hkid_of(63), back.tds_in_build.get()),
                (Some(2047), counted),
                "{form:?} {hv}"
            );
            assert_eq!(back.as_bytes()[..SIZE_V0], tables.as_bytes()[..SIZE_V0]);
        }
    }
}
