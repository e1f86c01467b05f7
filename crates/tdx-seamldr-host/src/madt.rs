//! The ACPI MADT: the LPs that the firmware enabled, for each of which P-SEAMLDR waits.

use crate::host::PlatformLps;

/// The length of the header, with the interrupt controller's address and the flags.
const HEADER: usize = 44;
/// An entry of this type is an LP with an 8-bit APIC ID.
const LOCAL_APIC: u8 = 0;
/// An entry of this type is an LP with a 32-bit x2APIC ID.
const LOCAL_X2APIC: u8 = 9;
/// The flag of an LP that is enabled. One that is only "online capable" (bit 1) is none yet.
const ENABLED: u32 = 1;

/// A table that is no MADT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MadtError {
    /// The table has another signature.
    #[error("the table's signature is {found:?}, expected \"APIC\"")]
    Signature {
        /// The signature, as text.
        found: String,
    },
    /// The table's length does not fit the file.
    #[error("the table's length is {length}, expected {HEADER} to {file} (the file's length)")]
    Length {
        /// The length that the table gives.
        length: u32,
        /// The length of the file.
        file: usize,
    },
    /// The checksum is wrong.
    #[error("the table's checksum is {found:#04x}, expected {expected:#04x}")]
    Checksum {
        /// The byte in the table.
        found: u8,
        /// The byte that makes the sum 0.
        expected: u8,
    },
    /// An entry has a length that its type does not have, or leaves the table.
    #[error("the entry of type {kind} at offset {offset} has a length of {length}, with {left} bytes left")]
    Entry {
        /// The type.
        kind: u8,
        /// Where the entry begins.
        offset: usize,
        /// The length that the entry gives.
        length: u8,
        /// Bytes from the entry's begin to the table's end.
        left: usize,
    },
    /// One byte is left after the last entry.
    #[error("the table ends in the middle of an entry, at offset {offset}")]
    Cut {
        /// Where the entry begins.
        offset: usize,
    },
    /// The table names no enabled LP.
    #[error("the table has no enabled LP")]
    NoLp,
}

/// Reads a MADT. An LP that has entries of both kinds counts once.
///
/// # Errors
///
/// The table is no MADT, is damaged, or has no enabled LP.
pub fn parse_madt(file: &[u8]) -> Result<PlatformLps, MadtError> {
    let signature = file.get(..4).unwrap_or(file);
    if signature != b"APIC" {
        return Err(MadtError::Signature { found: String::from_utf8_lossy(signature).into_owned() });
    }
    let length = read_u32(file, 4).unwrap_or(0);
    let table = usize::try_from(length)
        .ok()
        .filter(|length| *length >= HEADER)
        .and_then(|length| file.get(..length))
        .ok_or(MadtError::Length { length, file: file.len() })?;
    check_sum(table)?;

    let mut apic_ids = Vec::new();
    let mut rest = table.get(HEADER..).unwrap_or_default();
    while let [kind, after_kind @ ..] = rest {
        let offset = table.len().saturating_sub(rest.len());
        let Some(&length) = after_kind.first() else { return Err(MadtError::Cut { offset }) };
        let wrong = MadtError::Entry { kind: *kind, offset, length, left: rest.len() };
        let (entry, next) = match rest.split_at_checked(usize::from(length)) {
            Some((entry, next)) if entry.len() >= 2 => (entry, next),
            _ => return Err(wrong),
        };
        let lp = match *kind {
            LOCAL_APIC if length == 8 => {
                entry.get(3).filter(|id| **id != u8::MAX).map(|id| u32::from(*id)).zip(read_u32(entry, 4))
            }
            LOCAL_X2APIC if length == 16 => {
                read_u32(entry, 4).filter(|id| *id != u32::MAX).zip(read_u32(entry, 8))
            }
            LOCAL_APIC | LOCAL_X2APIC => return Err(wrong),
            _ => None,
        };
        apic_ids.extend(lp.filter(|(_, flags)| flags & ENABLED != 0).map(|(id, _)| id));
        rest = next;
    }
    apic_ids.sort_unstable();
    apic_ids.dedup();
    let highest_x2apic_id = *apic_ids.last().ok_or(MadtError::NoLp)?;
    Ok(PlatformLps { enabled: u32::try_from(apic_ids.len()).unwrap_or(u32::MAX), highest_x2apic_id })
}

fn check_sum(table: &[u8]) -> Result<(), MadtError> {
    let sum = table.iter().copied().fold(0, u8::wrapping_add);
    match table.get(9) {
        Some(&found) if sum != 0 => Err(MadtError::Checksum { found, expected: found.wrapping_sub(sum) }),
        _ => Ok(()),
    }
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}
