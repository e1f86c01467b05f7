//! The ELF file that a module is, as far as P-SEAMLDR looks at it.

use core::fmt;

use crate::debug::debug_fields;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// ELF64 file header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names of the ELF specification
pub struct ElfHeader {
    pub e_ident: [u8; 16],
    pub e_type: U16,
    pub e_machine: U16,
    pub e_version: U32,
    pub e_entry: U64,
    pub e_phoff: U64,
    pub e_shoff: U64,
    pub e_flags: U32,
    pub e_ehsize: U16,
    pub e_phentsize: U16,
    pub e_phnum: U16,
    pub e_shentsize: U16,
    pub e_shnum: U16,
    pub e_shstrndx: U16,
}

debug_fields! {
    ElfHeader, e_ident, e_type, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags, e_ehsize,
    e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx
}

/// ELF64 section header.
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names of the ELF specification
pub struct SectionHeader {
    pub sh_name: U32,
    pub sh_type: U32,
    pub sh_flags: U64,
    pub sh_addr: U64,
    pub sh_offset: U64,
    pub sh_size: U64,
    pub sh_link: U32,
    pub sh_info: U32,
    pub sh_addralign: U64,
    pub sh_entsize: U64,
}

debug_fields! {
    SectionHeader, sh_name, sh_type, sh_flags, sh_addr, sh_offset, sh_size, sh_link, sh_info,
    sh_addralign, sh_entsize
}

/// ELF64 relocation with addend.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
#[allow(missing_docs)] // the names of the ELF specification
pub struct Rela {
    pub r_offset: U64,
    pub r_info: U64,
    pub r_addend: U64,
}

/// Magic, 64-bit class, little-endian, version 1.
pub const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
/// The type of a section of relocations with addends.
pub const SHT_RELA: u32 = 4;
/// The only relocation allowed: base plus addend, without a symbol.
pub const R_X86_64_RELATIVE: u64 = 8;

/// Reads a structure at an offset of the image.
#[must_use]
pub fn read<T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
    image: &[u8],
    at: u64,
) -> Option<T> {
    T::read_from_prefix(image.get(usize::try_from(at).ok()?..)?).ok().map(|(value, _)| value)
}

/// Why an image cannot be relocated. Relocations are counted from 0 in their section; limits are the highest that is possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElfRefusal {
    /// It does not begin with magic, class, byte order and version of a 64-bit little-endian ELF file.
    Ident,
    /// The header of a section does not lie in the image.
    SectionOutside {
        /// The section.
        section: u16,
        /// The offset of its header.
        found: u64,
        /// The highest offset that it could have.
        limit: u64,
    },
    /// This section has relocations of size 0.
    EntrySize(u16),
    /// A relocation does not lie in the image.
    RelocationOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// Its offset.
        found: u64,
        /// The highest offset that it could have.
        limit: u64,
    },
    /// A relocation is not R_X86_64_RELATIVE without a symbol.
    RelocationType {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// Its type and symbol.
        found: u64,
    },
    /// What a relocation changes does not lie in the image.
    TargetOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset of what it changes.
        found: u64,
        /// The highest offset possible.
        limit: u64,
    },
    /// What a relocation refers to does not lie in the image.
    AddendOutside {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset that it refers to.
        found: u64,
        /// The highest offset possible.
        limit: u64,
    },
    /// A relocation changes what P-SEAMLDR goes by while it relocates the image in place: the ELF header, the headers of sections, or
    /// the part of the image in which the relocations lie.
    TargetInUse {
        /// Its section.
        section: u16,
        /// Its number.
        index: u64,
        /// The offset of the 8 bytes that it changes.
        found: u64,
        /// Where the part begins that has to stay as it is.
        begin: u64,
        /// Where that part ends.
        end: u64,
    },
    /// There are more relocations than bytes, by sections that overlap: going through them all would take very long.
    TooManyRelocations {
        /// Bytes of the image.
        limit: u64,
    },
}

impl fmt::Display for ElfRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ident => f.write_str("it is no 64-bit little-endian ELF file"),
            Self::SectionOutside { section, found, limit } => write!(
                f,
                "the header of section {section} lies at offset {found:#x}, but should lie at {limit:#x} at most"
            ),
            Self::EntrySize(section) => {
                write!(f, "section {section} has relocations of size 0, but should have them of 24 bytes")
            }
            Self::RelocationOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} lies at offset {found:#x}, but should lie at {limit:#x} at most"
            ),
            Self::RelocationType { section, index, found } => write!(
                f,
                "relocation {index} of section {section} has the type {found:#x}, but should have {R_X86_64_RELATIVE:#x} (R_X86_64_RELATIVE)"
            ),
            Self::TargetOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} changes offset {found:#x}, but should change {limit:#x} at most"
            ),
            Self::AddendOutside { section, index, found, limit } => write!(
                f,
                "relocation {index} of section {section} refers to offset {found:#x}, but should refer to {limit:#x} at most"
            ),
            Self::TargetInUse { section, index, found, begin, end } => write!(
                f,
                "relocation {index} of section {section} changes offset {found:#x}, but should leave {begin:#x} to {end:#x} as it is, which relocating goes by"
            ),
            Self::TooManyRelocations { limit } => {
                write!(f, "it has more relocations than bytes, but should have {limit} at most")
            }
        }
    }
}

impl core::error::Error for ElfRefusal {}

/// Whether P-SEAMLDR can relocate this image (step 34), without changing it. The time that it takes is bounded by the image's length:
/// nothing is known about whoever made the image when this is asked.
///
/// P-SEAMLDR relocates in place, so what one relocation changes may be another one. No image needs that, and it is refused:
/// see [`ElfRefusal::TargetInUse`].
///
/// # Errors
///
/// A rule that it breaks.
pub fn check(image: &[u8]) -> Result<(), ElfRefusal> {
    let header: ElfHeader = read(image, 0).ok_or(ElfRefusal::Ident)?;
    if !header.e_ident.starts_with(&IDENT) {
        return Err(ElfRefusal::Ident);
    }
    let mut relocations = Part { begin: u64::MAX, end: 0 };
    each_table(image, &header, |number, section| {
        let table = Part::of_table(number, section)?;
        // One that ends outside is refused when its relocations are read.
        if table.end <= size(image) {
            relocations.take_in(&table);
        }
        Ok(())
    })?;
    let in_use = [Part::FILE_HEADER, Part::of_section_headers(&header), relocations];
    let mut left = image.len();
    each_table(image, &header, |number, section| check_table(image, number, section, &in_use, &mut left))
}

/// Goes through the sections of relocations. Where there is another section, its header has to lie in the image.
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

fn check_table(
    image: &[u8],
    section: u16,
    header: &SectionHeader,
    in_use: &[Part; 3],
    left: &mut usize,
) -> Result<(), ElfRefusal> {
    let size = size(image);
    let mut at = header.sh_addr.get();
    for index in 0..num_relocations(section, header)? {
        *left = left.checked_sub(1).ok_or(ElfRefusal::TooManyRelocations { limit: size })?;
        let limit = size.saturating_sub(RELA_SIZE);
        let outside = ElfRefusal::RelocationOutside { section, index, found: at, limit };
        let rela: Rela = read(image, at).ok_or(outside)?;
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
        if let Some(&Part { begin, end }) = in_use.iter().find(|part| part.has_some_of_word(found)) {
            return Err(ElfRefusal::TargetInUse { section, index, found, begin, end });
        }
        at = at.saturating_add(header.sh_entsize.get());
    }
    Ok(())
}

fn num_relocations(section: u16, header: &SectionHeader) -> Result<u64, ElfRefusal> {
    header.sh_size.get().checked_div(header.sh_entsize.get()).ok_or(ElfRefusal::EntrySize(section))
}

fn size(image: &[u8]) -> u64 {
    u64::try_from(image.len()).unwrap_or(u64::MAX)
}

const FILE_HEADER_SIZE: u64 = 64;
const SECTION_HEADER_SIZE: u64 = 64;
const RELA_SIZE: u64 = 24;
/// Bytes that a relocation changes.
const WORD_SIZE: u64 = 8;

/// A part of the image that P-SEAMLDR reads while it relocates. One that ends at 0 is empty.
struct Part {
    begin: u64,
    end: u64,
}

impl Part {
    const FILE_HEADER: Self = Self { begin: 0, end: FILE_HEADER_SIZE };

    /// So many things, with as many bytes from the beginning of one to that of the next.
    const fn of(begin: u64, count: u64, distance: u64, size_of_last: u64) -> Self {
        let end = match count.checked_sub(1) {
            Some(last) => begin.saturating_add(last.saturating_mul(distance)).saturating_add(size_of_last),
            None => 0,
        };
        Self { begin, end }
    }

    fn of_section_headers(header: &ElfHeader) -> Self {
        let (count, distance) = (header.e_shnum.get(), header.e_shentsize.get());
        Self::of(header.e_shoff.get(), count.into(), distance.into(), SECTION_HEADER_SIZE)
    }

    fn of_table(section: u16, header: &SectionHeader) -> Result<Self, ElfRefusal> {
        let count = num_relocations(section, header)?;
        Ok(Self::of(header.sh_addr.get(), count, header.sh_entsize.get(), RELA_SIZE))
    }

    /// Grows to have this part in it, and what lies between.
    fn take_in(&mut self, other: &Self) {
        if other.end != 0 {
            *self = Self { begin: self.begin.min(other.begin), end: self.end.max(other.end) };
        }
    }

    const fn has_some_of_word(&self, at: u64) -> bool {
        at < self.end && self.begin < at.saturating_add(WORD_SIZE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use zerocopy::{FromZeros, IntoBytes};

    const SIZE: u64 = 1024;
    const SECTIONS: u64 = 64;
    const RELOCATIONS: u64 = 512;
    const TARGET: u64 = 800;

    /// An image with two sections, the second of them with two relocations. Only the second relocation is ever changed.
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
        let mut put = |at: u64, part: &[u8]| bytes[at as usize..][..part.len()].copy_from_slice(part);
        put(0, parts.header.as_bytes());
        put(SECTIONS + 64, parts.section.as_bytes());
        put(RELOCATIONS, image().relocation.as_bytes());
        put(RELOCATIONS + 24, parts.relocation.as_bytes());
        bytes
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        assert_eq!(check_changed(|_| ()), Ok(()));
        assert_eq!(check(&[]), Err(ElfRefusal::Ident));
        assert_eq!(check_changed(|image| image.header.e_ident[4] = 1), Err(ElfRefusal::Ident));
        let header = |section, found| ElfRefusal::SectionOutside { section, found, limit: SIZE - 64 };
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
                    end: RELOCATIONS + 48,
                },
            ),
        ];
        for (change, refusal) in rows {
            assert_eq!(check_changed(change), Err(refusal));
        }
    }

    #[test]
    fn the_limits_themselves_are_taken() {
        assert_eq!(check_changed(|image| image.relocation.r_addend = U64::new(SIZE - 1)), Ok(()));
        assert_eq!(check_changed(|image| image.relocation.r_offset = U64::new(SIZE - 8)), Ok(()));
        assert_eq!(check_changed(|image| image.header.e_shnum = U16::new(0)), Ok(()));
        let other_type = |image: &mut Image| {
            image.section.sh_type = U32::new(9);
            image.section.sh_entsize = U64::new(0);
        };
        assert_eq!(check_changed(other_type), Ok(()));
    }

    #[test]
    fn what_relocating_goes_by_is_not_relocated() {
        let changes = |offset: u64| check_changed(|image| image.relocation.r_offset = U64::new(offset));
        let headers_end = SECTIONS + 2 * 64;
        for (found, begin, end) in [
            (0, 0, 64),
            (63, 0, 64),
            (SECTIONS, SECTIONS, headers_end),
            (headers_end - 1, SECTIONS, headers_end),
            (RELOCATIONS - 7, RELOCATIONS, RELOCATIONS + 48),
            (RELOCATIONS + 47, RELOCATIONS, RELOCATIONS + 48),
        ] {
            let refusal = ElfRefusal::TargetInUse { section: 1, index: 1, found, begin, end };
            assert_eq!(changes(found), Err(refusal));
        }
        for found in [headers_end, RELOCATIONS - 8, RELOCATIONS + 48] {
            assert_eq!(changes(found), Ok(()));
        }
    }

    #[test]
    fn the_tables_of_all_sections_stay_as_they_are_with_what_lies_between() {
        let table_at = |at: u64, size: u64| {
            let mut section = image().section;
            (section.sh_addr, section.sh_size) = (U64::new(at), U64::new(size));
            section
        };
        let with = |first: SectionHeader, offset: u64| {
            let mut bytes = bytes(&image());
            bytes[SECTIONS as usize..][..64].copy_from_slice(first.as_bytes());
            let mut relocation = image().relocation;
            relocation.r_offset = U64::new(offset);
            bytes[RELOCATIONS as usize + 24..][..24].copy_from_slice(relocation.as_bytes());
            bytes[400..424].copy_from_slice(image().relocation.as_bytes());
            check(&bytes)
        };
        let refusal =
            ElfRefusal::TargetInUse { section: 1, index: 1, found: 450, begin: 400, end: RELOCATIONS + 48 };
        assert_eq!(with(table_at(400, 24), 450), Err(refusal));
        assert_eq!(with(table_at(400, 24), 392), Ok(()));
        // A section without relocations lies nowhere.
        assert_eq!(with(table_at(400, 0), 450), Ok(()));
    }

    #[test]
    fn where_nothing_follows_its_place_does_not_matter() {
        let alone = |image: &mut Image| {
            (image.section.sh_size, image.section.sh_entsize) = (U64::new(u64::MAX), U64::new(u64::MAX));
        };
        assert_eq!(check_changed(alone), Ok(()));
        let two = |image: &mut Image| {
            (image.section.sh_size, image.section.sh_entsize) = (U64::new(u64::MAX), U64::new(u64::MAX / 2));
        };
        let second = ElfRefusal::RelocationOutside {
            section: 1,
            index: 1,
            found: RELOCATIONS + u64::MAX / 2,
            limit: SIZE - 24,
        };
        assert_eq!(check_changed(two), Err(second));
    }

    #[test]
    fn a_structure_is_read_where_it_lies() {
        let bytes = [0, 0, 0x34, 0x12, 0];
        assert_eq!(read::<U16>(&bytes, 2).map(U16::get), Some(0x1234));
        assert_eq!(read::<U16>(&bytes, 4), None);
        assert_eq!(read::<U16>(&bytes, u64::MAX), None);
    }

    /// An image of relocations that overlap, read as so many sections. All of them change its last 8 bytes.
    fn many_relocations(sections: u16, len: usize) -> Vec<u8> {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        header.e_shoff = U64::new(64);
        // All headers of sections lie in the same place.
        header.e_shnum = U16::new(sections);
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = U64::new(128);
        section.sh_size = U64::new(len as u64 - 128 - 8 - 8);
        section.sh_entsize = U64::new(16);
        let mut image = [header.as_bytes(), section.as_bytes()].concat();
        while image.len() < len {
            // The addend of one is the offset of the next.
            image.extend_from_slice(&(len as u64 - 8).to_le_bytes());
            image.extend_from_slice(&R_X86_64_RELATIVE.to_le_bytes());
        }
        image
    }

    #[test]
    fn no_image_has_more_relocations_than_bytes() {
        // 247 in each section.
        assert_eq!(check(&many_relocations(16, 4096)), Ok(()));
        let too_many = |limit| Err(ElfRefusal::TooManyRelocations { limit });
        assert_eq!(check(&many_relocations(17, 4096)), too_many(4096));
        // Without that rule it would take 8 thousand million steps.
        assert_eq!(check(&many_relocations(u16::MAX, 496 * 4096)), too_many(496 * 4096));
    }
}
