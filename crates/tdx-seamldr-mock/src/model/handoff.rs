//! The handoff data: what one module leaves for the next.
//!
//! The first 8 bytes are [`HandoffHeader`]. Version 0 goes on with the key ownership table (2,048 entries of 8 bytes), the
//! WBINVD table, the TDMR table, the number of TDMRs, the module's own KeyID and the packages that are configured.

use tdx_seamldr_core::abi::HandoffHeader;
use zerocopy::{FromBytes, IntoBytes};

/// Bytes of the header.
pub(super) const HEADER_SIZE: usize = 8;
/// Bytes of the data that a module writes, whatever the version.
pub(super) const DATA_SIZE: u32 = 53386;
/// Entries of the key ownership table.
pub(super) const KOT_ENTRIES: usize = 2048;

const WBINVD_TABLE: usize = 8 * 2064;
const TDMR_TABLE: usize = 64 * 320;

/// Who owns a KeyID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KotEntry {
    Free,
    /// The module itself.
    Module,
    /// This TD.
    Td(u16),
}

/// What the model's modules know and hand over.
#[derive(Clone, Debug)]
pub(super) struct Tables {
    pub(super) kot: [KotEntry; KOT_ENTRIES],
    pub(super) num_tdmrs: u32,
    pub(super) module_hkid: u16,
    pub(super) packages_configured: u32,
}

impl Tables {
    pub(super) const EMPTY: Self =
        Self { kot: [KotEntry::Free; KOT_ENTRIES], num_tdmrs: 0, module_hkid: 0, packages_configured: 0 };

    /// Writes the data after the header.
    pub(super) fn write(&self, area: &mut [u8]) {
        let mut writer = Writer { rest: area.get_mut(HEADER_SIZE..).unwrap_or_default() };
        for entry in &self.kot {
            let (state, owner) = match entry {
                KotEntry::Free => (0, 0),
                KotEntry::Module => (1, 0),
                KotEntry::Td(td) => (2, *td),
            };
            writer.put(&u32::to_le_bytes(state));
            writer.put(&u32::from(owner).to_le_bytes());
        }
        writer.skip(WBINVD_TABLE.saturating_add(TDMR_TABLE));
        writer.put(&self.num_tdmrs.to_le_bytes());
        writer.put(&self.module_hkid.to_le_bytes());
        writer.put(&self.packages_configured.to_le_bytes());
    }

    /// Reads the data after the header. Nothing in it is checked, as in the real module.
    pub(super) fn read(area: &[u8]) -> Self {
        let mut tables = Self::EMPTY;
        let mut reader = Reader { rest: area.get(HEADER_SIZE..).unwrap_or_default() };
        for entry in &mut tables.kot {
            let [state, owner] = [reader.take(), reader.take()].map(u32::from_le_bytes);
            *entry = match (state, u16::try_from(owner)) {
                (1, _) => KotEntry::Module,
                (2, Ok(td)) => KotEntry::Td(td),
                _ => KotEntry::Free,
            };
        }
        reader.skip(WBINVD_TABLE.saturating_add(TDMR_TABLE));
        tables.num_tdmrs = u32::from_le_bytes(reader.take());
        tables.module_hkid = u16::from_le_bytes(reader.take());
        tables.packages_configured = u32::from_le_bytes(reader.take());
        tables
    }
}

struct Writer<'a> {
    rest: &'a mut [u8],
}

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.rest.iter_mut().zip(bytes).for_each(|(slot, byte)| *slot = *byte);
        self.advance(bytes.len());
    }

    fn skip(&mut self, count: usize) {
        self.rest.iter_mut().take(count).for_each(|slot| *slot = 0);
        self.advance(count);
    }

    fn advance(&mut self, count: usize) {
        let rest = core::mem::take(&mut self.rest);
        self.rest = rest.get_mut(count..).unwrap_or_default();
    }
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let (value, rest) = self.rest.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.rest = rest;
        *value
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }
}

/// The header in a handoff area.
pub(super) fn header(area: &[u8]) -> HandoffHeader {
    HandoffHeader::read_from_prefix(area).map_or_else(|_| HandoffHeader::default(), |(header, _)| header)
}

/// Puts a header into a handoff area.
pub(super) fn set_header(area: &mut [u8], header: &HandoffHeader) {
    if let Some(bytes) = area.get_mut(..HEADER_SIZE) {
        bytes.copy_from_slice(header.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_fill_the_data_exactly_and_come_back() {
        let mut tables = Tables::EMPTY;
        tables.kot[0] = KotEntry::Module;
        tables.kot[2047] = KotEntry::Td(63);
        (tables.num_tdmrs, tables.module_hkid, tables.packages_configured) = (3, 0x20, 0b11);
        let mut area = [0xee; HEADER_SIZE + DATA_SIZE as usize + 1];
        tables.write(&mut area);
        assert_eq!(area[..HEADER_SIZE], [0xee; HEADER_SIZE]);
        assert_eq!(area[area.len() - 5..], [0b11, 0, 0, 0, 0xee], "the last field ends where the data does");
        let back = Tables::read(&area);
        assert_eq!(back.kot, tables.kot);
        assert_eq!((back.num_tdmrs, back.module_hkid, back.packages_configured), (3, 0x20, 0b11));
    }
}
