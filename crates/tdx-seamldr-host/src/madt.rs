//! The ACPI MADT: the LPs that the firmware enabled. P-SEAMLDR waits for each of them.

use crate::host::PlatformLps;

/// The length of the header, with the interrupt controller's address and the flags.
const HEADER: usize = 44;
/// An entry of this type is an LP with an 8-bit APIC ID.
const LOCAL_APIC: u8 = 0;
/// An entry of this type is an LP with a 32-bit x2APIC ID.
const LOCAL_X2APIC: u8 = 9;
/// The flag of an enabled LP. An LP that is only "online capable" (bit 1) does not count.
const ENABLED: u32 = 1;

/// A table that is not a MADT.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MadtError {
    /// The table has another signature.
    #[error("the table's signature is {found:?}, expected \"APIC\"")]
    Signature {
        /// The signature, as text.
        found: String,
    },
    /// The table's length does not fit into the file.
    #[error("the table's length is {length}, expected {HEADER} to {file} (the file's length)")]
    Length {
        /// The length field of the table.
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
    /// An entry has a wrong length for its type, or ends after the table.
    #[error(
        "the entry of type {kind} at offset {offset} has a length of {length}, with {left} bytes \
         left"
    )]
    Entry {
        /// The type.
        kind: u8,
        /// The offset of the entry in the table.
        offset: usize,
        /// The length field of the entry.
        length: u8,
        /// The bytes from the start of the entry to the end of the table.
        left: usize,
    },
    /// One byte is left after the last entry.
    #[error("the table ends in the middle of an entry, at offset {offset}")]
    Cut {
        /// The offset of the entry in the table.
        offset: usize,
    },
    /// The table has no enabled LP.
    #[error("the table has no enabled LP")]
    NoLp,
}

/// Reads a MADT. An LP with entries of both types counts once.
///
/// # Errors
///
/// The table is not a MADT, is damaged, or has no enabled LP.
pub fn parse_madt(file: &[u8]) -> Result<PlatformLps, MadtError> {
    let signature = file.get(..4).unwrap_or(file);
    if signature != b"APIC" {
        return Err(MadtError::Signature {
            found: String::from_utf8_lossy(signature).into_owned(),
        });
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
            LOCAL_APIC if length == 8 => entry
                .get(3)
                .filter(|id| **id != u8::MAX)
                .map(|id| u32::from(*id))
                .zip(read_u32(entry, 4)),
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
    Ok(PlatformLps {
        enabled: u32::try_from(apic_ids.len()).unwrap_or(u32::MAX),
        highest_x2apic_id,
    })
}

fn check_sum(table: &[u8]) -> Result<(), MadtError> {
    let sum = table.iter().copied().fold(0, u8::wrapping_add);
    match table.get(9) {
        Some(&found) if sum != 0 => {
            Err(MadtError::Checksum { found, expected: found.wrapping_sub(sum) })
        }
        _ => Ok(()),
    }
}

fn read_u32(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Returns a table with these entries and a correct length and checksum.
    fn table(entries: &[&[u8]]) -> Vec<u8> {
        let mut table = b"APIC".to_vec();
        table.resize(HEADER, 7);
        entries.iter().for_each(|entry| table.extend_from_slice(entry));
        let length = u32::try_from(table.len()).unwrap();
        table[4..8].copy_from_slice(&length.to_le_bytes());
        let sum = table.iter().copied().fold(0, u8::wrapping_add);
        table[9] = table[9].wrapping_sub(sum);
        table
    }

    const LP_3: [u8; 8] = [0, 8, 1, 3, 1, 0, 0, 0];

    fn x2apic(id: u32, flags: u32) -> Vec<u8> {
        [&[9, 16, 0, 0][..], &id.to_le_bytes(), &flags.to_le_bytes(), &[5, 0, 0, 0]].concat()
    }

    fn lps(enabled: u32, highest_x2apic_id: u32) -> Result<PlatformLps, MadtError> {
        Ok(PlatformLps { enabled, highest_x2apic_id })
    }

    #[test]
    fn enabled_lps_of_both_kinds_are_counted() {
        let io_apic = [1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse_madt(&table(&[&LP_3, &io_apic, &x2apic(0x1234, 1)])), lps(2, 0x1234));
    }

    #[test]
    fn lp_with_two_entries_counts_once() {
        assert_eq!(parse_madt(&table(&[&LP_3, &x2apic(3, 1), &LP_3])), lps(1, 3));
    }

    #[test]
    fn lp_that_is_only_online_capable_is_not_counted() {
        let capable = [0, 8, 0, 9, 2, 0, 0, 0];
        assert_eq!(parse_madt(&table(&[&LP_3, &capable, &x2apic(300, 2)])), lps(1, 3));
    }

    #[test]
    fn id_of_all_ones_is_no_lp() {
        let none = [0, 8, 0, 0xff, 1, 0, 0, 0];
        assert_eq!(parse_madt(&table(&[&none, &x2apic(u32::MAX, 1), &LP_3])), lps(1, 3));
        assert_eq!(parse_madt(&table(&[&none])), Err(MadtError::NoLp));
    }

    #[test]
    fn bytes_after_the_table_are_not_read() {
        assert_eq!(parse_madt(&[table(&[&LP_3]), x2apic(9, 1)].concat()), lps(1, 3));
    }

    #[test]
    fn other_tables_and_short_ones_are_refused() {
        for file in [&b""[..], b"AP", b"FACP\x08\0\0\0"] {
            assert!(matches!(parse_madt(file), Err(MadtError::Signature { .. })), "{file:?}");
        }
        assert_eq!(parse_madt(b"APIC"), Err(MadtError::Length { length: 0, file: 4 }));
        let good = table(&[&LP_3]);
        for length in [0, 43, 53, u32::MAX] {
            let mut file = good.clone();
            file[4..8].copy_from_slice(&length.to_le_bytes());
            assert_eq!(parse_madt(&file), Err(MadtError::Length { length, file: 52 }));
        }
    }

    #[test]
    fn wrong_checksum_is_refused_with_both_values() {
        let mut file = table(&[&LP_3]);
        let expected = file[9];
        file[9] = expected.wrapping_add(3);
        assert_eq!(
            parse_madt(&file),
            Err(MadtError::Checksum { found: expected.wrapping_add(3), expected })
        );
    }

    #[test]
    fn entries_with_a_wrong_length_are_refused() {
        let wrong = |kind, length, left| Err(MadtError::Entry { kind, offset: 52, length, left });
        assert_eq!(parse_madt(&table(&[&LP_3, &[1, 0]])), wrong(1, 0, 2));
        assert_eq!(parse_madt(&table(&[&LP_3, &[1, 1]])), wrong(1, 1, 2));
        assert_eq!(parse_madt(&table(&[&LP_3, &[1, 4, 0]])), wrong(1, 4, 3));
        assert_eq!(parse_madt(&table(&[&LP_3, &[0, 7, 0, 0, 0, 0, 0]])), wrong(0, 7, 7));
        assert_eq!(parse_madt(&table(&[&LP_3, &[9, 8, 0, 0, 0, 0, 0, 0]])), wrong(9, 8, 8));
        assert_eq!(parse_madt(&table(&[&LP_3, &[0]])), Err(MadtError::Cut { offset: 52 }));
    }

    proptest! {
        #[test]
        fn any_set_of_lps_is_counted(ids: std::collections::BTreeSet<u32>) {
            let entries: Vec<Vec<u8>> = ids.iter().map(|id| x2apic(*id, 1)).collect();
            let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
            let lps: Vec<u32> = ids.into_iter().filter(|id| *id != u32::MAX).collect();
            let expected = lps.last().ok_or(MadtError::NoLp).map(|highest| PlatformLps {
                enabled: u32::try_from(lps.len()).unwrap(),
                highest_x2apic_id: *highest,
            });
            prop_assert_eq!(parse_madt(&table(&entries)), expected);
        }

        #[test]
        fn any_entries_are_read_or_refused(entries: Vec<u8>) {
            if let Ok(lps) = parse_madt(&table(&[&entries])) {
                prop_assert!(usize::try_from(lps.enabled).unwrap() <= entries.len() / 8);
            }
        }
    }
}
