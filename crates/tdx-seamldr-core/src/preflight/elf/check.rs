//! The check that P-SEAMLDR can relocate an image.

use super::{read, ElfHeader, ElfRefusal, Rela, SectionHeader, IDENT, R_X86_64_RELATIVE, SHT_RELA};

/// Checks that P-SEAMLDR can relocate this image (firmware rule 8.5.34). Does not change the image.
///
/// The check does not trust the image, so the image's length bounds the time of the check: see
/// [`ElfRefusal::TooManyRelocations`].
///
/// P-SEAMLDR relocates in place, so a relocation can change another relocation or a header. No
/// image needs that. The check refuses it: see [`ElfRefusal::TargetInUse`].
///
/// # Errors
///
/// The first rule that the image breaks.
pub fn check(image: &[u8]) -> Result<(), ElfRefusal> {
    let header: ElfHeader = read(image, 0).ok_or(ElfRefusal::TooShort { found: image.len() })?;
    if !header.e_ident.starts_with(&IDENT) {
        return Err(ElfRefusal::Ident { found: header.e_ident });
    }
    let mut hull = Part { begin: u64::MAX, end: 0 };
    each_table(image, &header, |number, section| {
        // The second pass refuses a table that ends outside the image.
        let table =
            Series::of_table(number, section)?.hull().filter(|table| table.end <= size(image));
        if let Some(Part { begin, end }) = table {
            hull = Part { begin: hull.begin.min(begin), end: hull.end.max(end) };
        }
        Ok(())
    })?;
    let mut check = Check { image, header: &header, hull, left: max_steps(image) };
    each_table(image, &header, |number, section| check.check_table(number, section))
}

/// Calls `work` for each section of relocations. The headers of all sections must lie in the image.
fn each_table(
    image: &[u8],
    header: &ElfHeader,
    mut work: impl FnMut(u16, &SectionHeader) -> Result<(), ElfRefusal>,
) -> Result<(), ElfRefusal> {
    let mut at = header.e_shoff.get();
    for section in 0..header.e_shnum.get() {
        let limit = size(image).saturating_sub(SECTION_HEADER_SIZE);
        let outside = ElfRefusal::SectionOutside { section, found: at, limit };
        let read: SectionHeader = read(image, at).ok_or(outside)?;
        if read.sh_type.get() == SHT_RELA {
            work(section, &read)?;
        }
        at = at.saturating_add(header.e_shentsize.get().into());
    }
    Ok(())
}

/// The state of a check of an image's relocations.
struct Check<'a> {
    image: &'a [u8],
    header: &'a ElfHeader,
    /// The part of the image from the first relocation table to the last.
    hull: Part,
    /// The steps that remain: see [`ElfRefusal::TooManyRelocations`].
    left: u64,
}

impl Check<'_> {
    fn check_table(&mut self, section: u16, header: &SectionHeader) -> Result<(), ElfRefusal> {
        let size = size(self.image);
        let mut at = header.sh_addr.get();
        for index in 0..num_relocations(section, header)? {
            self.spend(1)?;
            let limit = size.saturating_sub(RELA_SIZE);
            let outside = ElfRefusal::RelocationOutside { section, index, found: at, limit };
            let rela: Rela = read(self.image, at).ok_or(outside)?;
            let found = rela.r_info.get();
            if found != R_X86_64_RELATIVE {
                return Err(ElfRefusal::RelocationType { section, index, found });
            }
            let (found, limit) = (rela.r_addend.get(), size.saturating_sub(1));
            if found > limit {
                return Err(ElfRefusal::AddendOutside { section, index, found, limit });
            }
            let (found, limit) = (rela.r_offset.get(), size.saturating_sub(WORD_SIZE));
            if found > limit {
                return Err(ElfRefusal::TargetOutside { section, index, found, limit });
            }
            if let Some(Part { begin, end }) = self.in_use(found)? {
                return Err(ElfRefusal::TargetInUse { section, index, found, begin, end });
            }
            at = at.saturating_add(header.sh_entsize.get());
        }
        Ok(())
    }

    /// Returns a header or relocation that overlaps the word at this offset.
    fn in_use(&mut self, word: u64) -> Result<Option<Part>, ElfRefusal> {
        for headers in [Series::FILE_HEADER, Series::of_section_headers(self.header)] {
            if let Some(header) = headers.overlap(word) {
                return Ok(Some(header));
            }
        }
        if !self.hull.overlaps(word) {
            return Ok(None);
        }
        self.spend(self.header.e_shnum.get().into())?;
        let mut relocation = None;
        each_table(self.image, self.header, |number, section| {
            relocation = relocation.or(Series::of_table(number, section)?.overlap(word));
            Ok(())
        })?;
        Ok(relocation)
    }

    fn spend(&mut self, steps: u64) -> Result<(), ElfRefusal> {
        let too_many = ElfRefusal::TooManyRelocations { limit: max_steps(self.image) };
        self.left = self.left.checked_sub(steps).ok_or(too_many)?;
        Ok(())
    }
}

fn num_relocations(section: u16, header: &SectionHeader) -> Result<u64, ElfRefusal> {
    header.sh_size.get().checked_div(header.sh_entsize.get()).ok_or(ElfRefusal::EntrySize(section))
}

fn size(image: &[u8]) -> u64 {
    u64::try_from(image.len()).unwrap_or(u64::MAX)
}

/// Returns how many steps the check of an image may take. A relocation takes 24 bytes of the image,
/// which allow 192 steps. The check of a relocation takes one step plus at most one for each
/// section, so 191 sections are allowed.
fn max_steps(image: &[u8]) -> u64 {
    size(image).saturating_mul(8)
}

const FILE_HEADER_SIZE: u64 = 64;
const SECTION_HEADER_SIZE: u64 = 64;
const RELA_SIZE: u64 = 24;
/// Bytes that a relocation changes.
const WORD_SIZE: u64 = 8;

/// A part of the image, from `begin` to before `end`. It is empty if `end` is 0.
#[derive(Clone, Copy)]
struct Part {
    begin: u64,
    end: u64,
}

impl Part {
    const fn overlaps(&self, word: u64) -> bool {
        word < self.end && self.begin < word.saturating_add(WORD_SIZE)
    }
}

/// Objects of the same size at the same distance: section headers, or the relocations of a table.
/// Gaps separate them if the distance is greater than the size. They overlap if the distance is
/// less than the size.
struct Series {
    /// The offset of the first object.
    begin: u64,
    count: u64,
    /// Bytes from the beginning of an object to the beginning of the next.
    distance: u64,
    /// Bytes of each object.
    size: u64,
}

impl Series {
    const FILE_HEADER: Self = Self { begin: 0, count: 1, distance: 0, size: FILE_HEADER_SIZE };

    fn of_section_headers(header: &ElfHeader) -> Self {
        Self {
            begin: header.e_shoff.get(),
            count: header.e_shnum.get().into(),
            distance: header.e_shentsize.get().into(),
            size: SECTION_HEADER_SIZE,
        }
    }

    fn of_table(section: u16, header: &SectionHeader) -> Result<Self, ElfRefusal> {
        Ok(Self {
            begin: header.sh_addr.get(),
            count: num_relocations(section, header)?,
            distance: header.sh_entsize.get(),
            size: RELA_SIZE,
        })
    }

    /// Returns the part from the first object to the last. `None` if there is no object.
    fn hull(&self) -> Option<Part> {
        let last = self.object(self.count.checked_sub(1)?);
        Some(Part { begin: self.begin, end: last.end })
    }

    /// Returns an object that overlaps the word at this offset.
    fn overlap(&self, word: u64) -> Option<Part> {
        let last = self.count.checked_sub(1)?;
        let last_byte = word.saturating_add(WORD_SIZE).saturating_sub(1);
        // Of the objects that begin before the word ends, the last one ends last.
        let index =
            last_byte.checked_sub(self.begin)?.checked_div(self.distance).unwrap_or(0).min(last);
        Some(self.object(index)).filter(|object| object.overlaps(word))
    }

    const fn object(&self, index: u64) -> Part {
        let begin = self.begin.saturating_add(index.saturating_mul(self.distance));
        Part { begin, end: begin.saturating_add(self.size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use zerocopy::little_endian::{U16, U32, U64};
    use zerocopy::{FromZeros, IntoBytes};

    const SIZE: u64 = 1024;
    const SECTIONS: u64 = 64;
    const RELOCATIONS: u64 = 512;
    const TARGET: u64 = 800;

    /// An image with two sections. The second section has two relocations. Tests change only the
    /// second relocation.
    struct Image {
        header: ElfHeader,
        section: SectionHeader,
        relocation: Rela,
    }

    fn image() -> Image {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        header.e_shoff = U64::new(SECTIONS);
        (header.e_shnum, header.e_shentsize) = (U16::new(2), U16::new(64));
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = U64::new(RELOCATIONS);
        (section.sh_size, section.sh_entsize) = (U64::new(48), U64::new(24));
        let mut relocation = Rela::new_zeroed();
        relocation.r_info = U64::new(R_X86_64_RELATIVE);
        relocation.r_offset = U64::new(TARGET);
        Image { header, section, relocation }
    }

    type Change = fn(&mut Image);

    fn check_changed(change: impl FnOnce(&mut Image)) -> Result<(), ElfRefusal> {
        let mut parts = image();
        change(&mut parts);
        check(&bytes(&parts))
    }

    fn bytes(parts: &Image) -> Vec<u8> {
        let mut bytes: Vec<u8> = vec![0; SIZE as usize];
        let mut put =
            |at: u64, part: &[u8]| bytes[at as usize..][..part.len()].copy_from_slice(part);
        put(0, parts.header.as_bytes());
        put(SECTIONS + 64, parts.section.as_bytes());
        put(RELOCATIONS, image().relocation.as_bytes());
        put(RELOCATIONS + 24, parts.relocation.as_bytes());
        bytes
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        assert_eq!(check_changed(|_| ()), Ok(()));
        assert_eq!(check(&[]), Err(ElfRefusal::TooShort { found: 0 }));
        let found = *b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0";
        assert_eq!(
            check_changed(|image| image.header.e_ident[4] = 1),
            Err(ElfRefusal::Ident { found })
        );
        let header =
            |section, found| ElfRefusal::SectionOutside { section, found, limit: SIZE - 64 };
        let relocation_at =
            |found| ElfRefusal::RelocationOutside { section: 1, index: 0, found, limit: SIZE - 24 };
        let kind = |index, found| ElfRefusal::RelocationType { section: 1, index, found };
        let (section, index) = (1, 1);
        let rows: [(Change, ElfRefusal); 11] = [
            (|image| image.header.e_shoff = U64::new(SIZE - 63), header(0, SIZE - 63)),
            (|image| image.header.e_shoff = U64::new(u64::MAX), header(0, u64::MAX)),
            (|image| image.header.e_shentsize = U16::new(960), header(1, SIZE)),
            (|image| image.section.sh_entsize = U64::new(0), ElfRefusal::EntrySize(1)),
            (|image| image.section.sh_addr = U64::new(SIZE - 23), relocation_at(SIZE - 23)),
            (|image| image.section.sh_addr = U64::new(u64::MAX), relocation_at(u64::MAX)),
            (|image| image.section.sh_size = U64::new(24 * 10), kind(2, 0)),
            (|image| image.relocation.r_info = U64::new(1 << 32 | 8), kind(1, 1 << 32 | 8)),
            (
                |image| image.relocation.r_addend = U64::new(SIZE),
                ElfRefusal::AddendOutside { section, index, found: SIZE, limit: SIZE - 1 },
            ),
            (
                |image| image.relocation.r_offset = U64::new(SIZE - 7),
                ElfRefusal::TargetOutside { section, index, found: SIZE - 7, limit: SIZE - 8 },
            ),
            (
                |image| image.relocation.r_offset = U64::new(RELOCATIONS + 8),
                ElfRefusal::TargetInUse {
                    section,
                    index,
                    found: RELOCATIONS + 8,
                    begin: RELOCATIONS,
                    end: RELOCATIONS + 24,
                },
            ),
        ];
        for (change, refusal) in rows {
            assert_eq!(check_changed(change), Err(refusal));
        }
    }

    #[test]
    fn check_accepts_values_at_the_limits() {
        assert_eq!(check_changed(|image| image.relocation.r_addend = U64::new(SIZE - 1)), Ok(()));
        assert_eq!(check_changed(|image| image.relocation.r_offset = U64::new(SIZE - 8)), Ok(()));
        assert_eq!(check_changed(|image| image.header.e_shnum = U16::new(0)), Ok(()));
        let other_type = |image: &mut Image| {
            image.section.sh_type = U32::new(9);
            image.section.sh_entsize = U64::new(0);
        };
        assert_eq!(check_changed(other_type), Ok(()));
    }

    /// Checks the image with another target of its last relocation. Returns the header or
    /// relocation that the target overlaps.
    fn in_use(mut bytes: Vec<u8>, target: u64) -> Option<(u64, u64)> {
        let (section, index) = (1, 1);
        bytes[RELOCATIONS as usize + 24..][..8].copy_from_slice(&target.to_le_bytes());
        match check(&bytes) {
            Ok(()) => None,
            Err(refusal) => {
                let ElfRefusal::TargetInUse { begin, end, .. } = refusal else {
                    panic!("{refusal:?}")
                };
                assert_eq!(
                    refusal,
                    ElfRefusal::TargetInUse { section, index, found: target, begin, end }
                );
                Some((begin, end))
            }
        }
    }

    #[test]
    fn check_rejects_relocation_of_a_header_or_relocation() {
        let headers_end = SECTIONS + 2 * 64;
        for (target, begin, end) in [
            (0, 0, 64),
            (63, 0, 64),
            (SECTIONS, SECTIONS, SECTIONS + 64),
            (headers_end - 1, SECTIONS + 64, headers_end),
            (RELOCATIONS - 7, RELOCATIONS, RELOCATIONS + 24),
            (RELOCATIONS + 47, RELOCATIONS + 24, RELOCATIONS + 48),
        ] {
            assert_eq!(in_use(bytes(&image()), target), Some((begin, end)));
        }
        for target in [headers_end, RELOCATIONS - 8, RELOCATIONS + 48] {
            assert_eq!(in_use(bytes(&image()), target), None);
        }
    }

    /// Returns the image with another relocation table, of two relocations, before the usual table.
    fn with_table_at_300(size: u64, entry_size: u64) -> Vec<u8> {
        let mut bytes = bytes(&image());
        let mut section = image().section;
        section.sh_addr = U64::new(300);
        (section.sh_size, section.sh_entsize) = (U64::new(size), U64::new(entry_size));
        bytes[SECTIONS as usize..][..64].copy_from_slice(section.as_bytes());
        for at in [300, 300 + entry_size as usize] {
            bytes[at..][..24].copy_from_slice(image().relocation.as_bytes());
        }
        bytes
    }

    #[test]
    fn check_accepts_data_between_two_relocation_tables() {
        let usual = (RELOCATIONS, RELOCATIONS + 24);
        for (target, expected) in [
            (292, None),
            (293, Some((300, 324))),
            (347, Some((324, 348))),
            (348, None),
            (400, None),
            (RELOCATIONS - 8, None),
            (RELOCATIONS - 7, Some(usual)),
        ] {
            assert_eq!(in_use(with_table_at_300(48, 24), target), expected, "{target}");
        }
    }

    #[test]
    fn check_accepts_data_where_a_table_without_relocations_lies() {
        assert_eq!(in_use(with_table_at_300(0, 24), 300), None);
        assert_eq!(in_use(with_table_at_300(23, 24), 300), None);
    }

    #[test]
    fn check_accepts_data_between_the_relocations_of_one_table() {
        let (first, second) = (Some((300, 324)), Some((340, 364)));
        for (target, expected) in
            [(323, first), (324, None), (332, None), (333, second), (363, second), (364, None)]
        {
            assert_eq!(in_use(with_table_at_300(80, 40), target), expected, "{target}");
        }
    }

    #[test]
    fn check_finds_the_relocation_after_a_gap_smaller_than_the_word() {
        let (first, second) = (Some((300, 324)), Some((328, 352)));
        for (target, expected) in
            [(320, first), (321, second), (324, second), (351, second), (352, None)]
        {
            assert_eq!(in_use(with_table_at_300(56, 28), target), expected, "{target}");
        }
    }

    #[test]
    fn check_rejects_relocation_of_relocations_that_overlap() {
        // The addend of the first relocation is the offset of the second.
        let mut bytes = with_table_at_300(32, 16);
        for at in [300, 308, 316, 324, 332] {
            bytes[at..][..8].copy_from_slice(&8u64.to_le_bytes());
        }
        bytes[300..308].copy_from_slice(&TARGET.to_le_bytes());
        bytes[316..324].copy_from_slice(&TARGET.to_le_bytes());
        for (target, expected) in
            [(292, None), (293, Some((300, 324))), (339, Some((316, 340))), (340, None)]
        {
            assert_eq!(in_use(bytes.clone(), target), expected, "{target}");
        }
    }

    #[test]
    fn check_accepts_data_between_section_headers() {
        let mut parts = image();
        parts.header.e_shentsize = U16::new(80);
        let mut bytes = bytes(&parts);
        let second = SECTIONS + 80;
        bytes[SECTIONS as usize + 64..][..80].fill(0);
        bytes[second as usize..][..64].copy_from_slice(parts.section.as_bytes());
        for (target, expected) in [
            (second - 17, Some((SECTIONS, SECTIONS + 64))),
            (second - 16, None),
            (second - 8, None),
            (second - 7, Some((second, second + 64))),
            (second + 63, Some((second, second + 64))),
            (second + 64, None),
        ] {
            assert_eq!(in_use(bytes.clone(), target), expected, "{target}");
        }
    }

    #[test]
    fn huge_sizes_of_a_section_with_one_relocation_are_accepted() {
        let alone = |image: &mut Image| {
            (image.section.sh_size, image.section.sh_entsize) =
                (U64::new(u64::MAX), U64::new(u64::MAX));
        };
        assert_eq!(check_changed(alone), Ok(()));
        let two = |image: &mut Image| {
            (image.section.sh_size, image.section.sh_entsize) =
                (U64::new(u64::MAX), U64::new(u64::MAX / 2));
        };
        let second = ElfRefusal::RelocationOutside {
            section: 1,
            index: 1,
            found: RELOCATIONS + u64::MAX / 2,
            limit: SIZE - 24,
        };
        assert_eq!(check_changed(two), Err(second));
    }

    /// Returns an image of relocations that overlap. Each section has all of them. Each relocation
    /// changes the last 8 bytes of the image.
    fn many_relocations(sections: u16, len: usize) -> Vec<u8> {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        header.e_shoff = U64::new(64);
        // All section headers have the same offset.
        header.e_shnum = U16::new(sections);
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = U64::new(128);
        section.sh_size = U64::new(len as u64 - 128 - 8 - 8);
        section.sh_entsize = U64::new(16);
        let mut image = [header.as_bytes(), section.as_bytes()].concat();
        while image.len() < len {
            // The addend of one relocation is the offset of the next.
            image.extend_from_slice(&(len as u64 - 8).to_le_bytes());
            image.extend_from_slice(&R_X86_64_RELATIVE.to_le_bytes());
        }
        image
    }

    #[test]
    fn check_limits_the_steps_over_relocations() {
        // Each section has 247 relocations. The limit is 8 steps for each byte.
        assert_eq!(check(&many_relocations(132, 4096)), Ok(()));
        let too_many = |limit| Err(ElfRefusal::TooManyRelocations { limit });
        assert_eq!(check(&many_relocations(133, 4096)), too_many(8 * 4096));
        // Without the limit the check would take 8 thousand million steps.
        assert_eq!(check(&many_relocations(u16::MAX, 496 * 4096)), too_many(8 * 496 * 4096));
    }

    /// Returns an image with two relocation tables and other sections. The first table has
    /// `entries` relocations. All relocations change the word between the tables.
    fn data_between_tables(sections: u16, entries: u64) -> Vec<u8> {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        header.e_shoff = U64::new(64);
        (header.e_shnum, header.e_shentsize) = (U16::new(sections), U16::new(64));
        let first = 64 + 64 * u64::from(sections);
        let word = first + 24 * entries;
        let mut image = header.as_bytes().to_vec();
        for (at, size) in [(first, 24 * entries), (word + 8, 24)] {
            let mut section = SectionHeader::new_zeroed();
            section.sh_type = U32::new(SHT_RELA);
            section.sh_addr = U64::new(at);
            (section.sh_size, section.sh_entsize) = (U64::new(size), U64::new(24));
            image.extend_from_slice(section.as_bytes());
        }
        image.resize(first as usize, 0);
        let mut relocation = Rela::new_zeroed();
        (relocation.r_offset, relocation.r_info) = (U64::new(word), U64::new(R_X86_64_RELATIVE));
        (0..entries).for_each(|_| image.extend_from_slice(relocation.as_bytes()));
        image.extend_from_slice(&[0; 8]);
        image.extend_from_slice(relocation.as_bytes());
        image
    }

    #[test]
    fn check_accepts_191_sections_with_any_relocation_targets() {
        assert_eq!(check(&data_between_tables(191, 50_000)), Ok(()));
    }

    #[test]
    fn check_limits_the_steps_over_section_headers() {
        // Each of 10,001 relocations takes one step, and one more for each section.
        assert_eq!(check(&data_between_tables(201, 10_000)), Ok(()));
        let image = data_between_tables(202, 10_000);
        let limit = 8 * image.len() as u64;
        assert_eq!(check(&image), Err(ElfRefusal::TooManyRelocations { limit }));
    }
}
