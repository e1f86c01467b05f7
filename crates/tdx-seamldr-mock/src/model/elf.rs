//! Relocates a module's image in place, as P-SEAMLDR does.

use tdx_seamldr_core::preflight::elf::{
    read, ElfHeader, Rela, SectionHeader, IDENT, R_X86_64_RELATIVE, SHT_RELA,
};

/// Relocates the image to a linear base. Returns `None` if the image breaks a rule; the image may
/// then be partly relocated.
pub(super) fn relocate(image: &mut [u8], base: u64) -> Option<()> {
    let header: ElfHeader = read(image, 0)?;
    if !header.e_ident.starts_with(&IDENT) {
        return None;
    }
    let mut at = header.e_shoff.get();
    for _ in 0..header.e_shnum.get() {
        let section: SectionHeader = read(image, at)?;
        if section.sh_type.get() == SHT_RELA {
            relocate_section(image, base, &section)?;
        }
        at = at.saturating_add(header.e_shentsize.get().into());
    }
    Some(())
}

/// Number of vectors that the module has interrupt gates for.
const GATES: u64 = 32;
/// Size in bytes of an interrupt gate, and of the code that it points to.
const GATE_SIZE: u64 = 16;

/// Makes the interrupt gates at an offset point to the wrappers at a linear address. Ignores gates
/// beyond the image.
///
/// Bytes 0 and 1 of a gate hold bits 15:0 of the address, bytes 6 and 7 bits 31:16, bytes 8 to 11
/// bits 63:32. Bytes 12 to 15 are reserved and do not change.
pub(super) fn point_gates(image: &mut [u8], offset: u32, wrappers: u64) {
    for vector in 0..GATES {
        let distance = vector.wrapping_mul(GATE_SIZE);
        let at = usize::try_from(u64::from(offset).wrapping_add(distance)).unwrap_or(usize::MAX);
        let Some(gate) = image.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<12>()) else {
            return;
        };
        let [a0, a1, a2, a3, a4, a5, a6, a7] = wrappers.wrapping_add(distance).to_le_bytes();
        let [_, _, s0, s1, t0, t1, ..] = *gate;
        *gate = [a0, a1, s0, s1, t0, t1, a2, a3, a4, a5, a6, a7];
    }
}

fn relocate_section(image: &mut [u8], base: u64, section: &SectionHeader) -> Option<()> {
    let entries = section.sh_size.get().checked_div(section.sh_entsize.get())?;
    let mut at = section.sh_addr.get();
    for _ in 0..entries {
        let rela: Rela = read(image, at)?;
        let size = u64::try_from(image.len()).ok()?;
        if rela.r_info.get() != R_X86_64_RELATIVE || rela.r_addend.get() >= size {
            return None;
        }
        let start = usize::try_from(rela.r_offset.get()).ok()?;
        let word = image.get_mut(start..start.checked_add(8)?)?;
        word.copy_from_slice(&base.wrapping_add(rela.r_addend.get()).to_le_bytes());
        at = at.saturating_add(section.sh_entsize.get());
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tdx_seamldr_core::preflight::elf::{check, ElfRefusal};
    use zerocopy::little_endian::{U16, U32, U64};
    use zerocopy::{FromZeros, IntoBytes};

    /// Returns an image with one relocation section, at offset 256. Its first relocation changes
    /// the word at `offset`.
    fn image(size: u64, entry_size: u64, offset: u64) -> Vec<u8> {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident.iter_mut().zip(IDENT).for_each(|(slot, byte)| *slot = byte);
        (header.e_shoff, header.e_shnum) = (U64::new(64), U16::new(1));
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = U64::new(256);
        (section.sh_size, section.sh_entsize) = (U64::new(size), U64::new(entry_size));
        let word = |at: u64| Rela {
            r_offset: U64::new(at),
            r_info: U64::new(R_X86_64_RELATIVE),
            r_addend: U64::new(0),
        };
        let mut image = [header.as_bytes(), section.as_bytes(), &[0; 128]].concat();
        image.extend_from_slice(word(offset).as_bytes());
        image.extend_from_slice(word(400).as_bytes());
        image.resize(512, 0);
        image
    }

    #[test]
    fn relocate_accepts_the_same_tables_as_the_check_of_an_image() {
        let rows = [
            (48, 24, 408, true),
            // One relocation; no other follows.
            (u64::MAX, u64::MAX, 408, true),
            (u64::MAX, u64::MAX / 2, 408, false),
            // The first relocation changes r_info of the second.
            (48, 24, 288, false),
        ];
        for (size, entry_size, offset, good) in rows {
            let mut image = image(size, entry_size, offset);
            assert_eq!(check(&image).is_ok(), good, "{size} {entry_size} {offset}");
            assert_eq!(
                relocate(&mut image, 1 << 40).is_some(),
                good,
                "{size} {entry_size} {offset}"
            );
        }
    }

    const SIZE: usize = 1024;

    /// A relocation table: its offset, the offsets of the words that its relocations change, and
    /// the distance between relocations.
    type Table = (usize, Vec<usize>, usize);

    /// Returns an image with these relocation tables, and section headers at this offset and
    /// distance. Later parts overwrite earlier ones.
    fn image_of(tables: &[Table], headers: usize, distance: usize) -> Vec<u8> {
        let mut image = vec![0; SIZE];
        let mut put = |at: usize, bytes: &[u8]| image[at..][..bytes.len()].copy_from_slice(bytes);
        for (number, (at, targets, entry_size)) in tables.iter().enumerate() {
            for (index, target) in targets.iter().enumerate() {
                let rela = Rela {
                    r_offset: U64::new(*target as u64),
                    r_info: U64::new(R_X86_64_RELATIVE),
                    r_addend: U64::new(0),
                };
                put(at + index * entry_size, rela.as_bytes());
            }
            let mut section = SectionHeader::new_zeroed();
            section.sh_type = U32::new(SHT_RELA);
            section.sh_addr = U64::new(*at as u64);
            section.sh_size = U64::new((targets.len() * entry_size) as u64);
            section.sh_entsize = U64::new(*entry_size as u64);
            put(headers + number * distance, section.as_bytes());
        }
        let mut header = ElfHeader::new_zeroed();
        header.e_ident.iter_mut().zip(IDENT).for_each(|(slot, byte)| *slot = byte);
        header.e_shoff = U64::new(headers as u64);
        header.e_shnum = U16::new(tables.len() as u16);
        header.e_shentsize = U16::new(distance as u16);
        put(0, header.as_bytes());
        image
    }

    /// Returns whether a relocation changes a byte that relocating reads.
    fn changes_what_it_reads(tables: &[Table], headers: usize, distance: usize) -> bool {
        let mut read = [false; SIZE];
        read[..64].fill(true);
        for (number, (at, targets, entry_size)) in tables.iter().enumerate() {
            read[headers + number * distance..][..64].fill(true);
            for index in 0..targets.len() {
                read[at + index * entry_size..][..24].fill(true);
            }
        }
        let mut targets = tables.iter().flat_map(|(_, targets, _)| targets);
        targets.any(|target| read[*target..][..8].contains(&true))
    }

    proptest! {
        #[test]
        fn the_check_refuses_exactly_the_tables_that_change_what_relocating_reads(
            // Separate parts, so that no table overwrites another.
            tables in (300..320usize, 530..540usize, 770..780usize, proptest::collection::vec(
                (
                    proptest::collection::vec(0..SIZE - 8, 0..4),
                    prop_oneof![Just(24), 25..48usize],
                ), 1..=3)
            ).prop_map(|(first, second, third, tables)| {
                let places = [first, second, third].into_iter();
                places
                    .zip(tables)
                    .map(|(at, (targets, size))| (at, targets, size))
                    .collect::<Vec<Table>>()
            }),
            (headers, distance) in (64..70usize, 64..80usize),
        ) {
            let mut image = image_of(&tables, headers, distance);
            let refused = changes_what_it_reads(&tables, headers, distance);
            prop_assert_eq!(matches!(check(&image), Err(ElfRefusal::TargetInUse { .. })), refused);
            if !refused {
                prop_assert_eq!(check(&image), Ok(()));
                prop_assert_eq!(relocate(&mut image, 1 << 40), Some(()));
            }
        }
    }
}
