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

/// Why an image cannot be relocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ElfRefusal {
    /// It does not begin with magic, class, byte order and version of a 64-bit little-endian ELF file.
    Ident,
    /// The header of this section does not lie in the image.
    SectionOutside(u16),
    /// This section has relocations of size 0.
    EntrySize(u16),
    /// This relocation, counted from 0 in its section, does not lie in the image.
    RelocationOutside(u64),
    /// This relocation is not R_X86_64_RELATIVE without a symbol.
    RelocationType(u64),
    /// What this relocation changes, or what it refers to, does not lie in the image.
    TargetOutside(u64),
    /// There are more relocations than bytes, by sections that overlap: going through them all would take very long.
    TooManyRelocations,
}

impl fmt::Display for ElfRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ident => f.write_str("it is no 64-bit little-endian ELF file"),
            Self::SectionOutside(section) => write!(f, "the header of section {section} lies outside of it"),
            Self::EntrySize(section) => write!(f, "section {section} has relocations of size 0"),
            Self::RelocationOutside(index) => write!(f, "relocation {index} lies outside of it"),
            Self::RelocationType(index) => write!(f, "relocation {index} is not R_X86_64_RELATIVE"),
            Self::TargetOutside(index) => write!(f, "the target of relocation {index} lies outside of it"),
            Self::TooManyRelocations => f.write_str("it has more relocations than bytes"),
        }
    }
}

impl core::error::Error for ElfRefusal {}

/// Whether P-SEAMLDR can relocate this image (step 34), without changing it. The time that it takes is bounded by the image's length:
/// nothing is known about whoever made the image when this is asked.
///
/// # Errors
///
/// The first rule that it breaks.
pub fn check(image: &[u8]) -> Result<(), ElfRefusal> {
    let header: ElfHeader = read(image, 0).ok_or(ElfRefusal::Ident)?;
    if !header.e_ident.starts_with(&IDENT) {
        return Err(ElfRefusal::Ident);
    }
    let mut at = header.e_shoff.get();
    let mut left = image.len();
    for number in 0..header.e_shnum.get() {
        let section: SectionHeader = read(image, at).ok_or(ElfRefusal::SectionOutside(number))?;
        if section.sh_type.get() == SHT_RELA {
            check_section(image, number, &section, &mut left)?;
        }
        let next = at.checked_add(header.e_shentsize.get().into());
        at = next.ok_or(ElfRefusal::SectionOutside(number))?;
    }
    Ok(())
}

fn check_section(
    image: &[u8],
    number: u16,
    section: &SectionHeader,
    left: &mut usize,
) -> Result<(), ElfRefusal> {
    let size = u64::try_from(image.len()).unwrap_or(u64::MAX);
    let entry = section.sh_entsize.get();
    let count = section.sh_size.get().checked_div(entry).ok_or(ElfRefusal::EntrySize(number))?;
    let mut at = section.sh_addr.get();
    for index in 0..count {
        *left = left.checked_sub(1).ok_or(ElfRefusal::TooManyRelocations)?;
        let rela: Rela = read(image, at).ok_or(ElfRefusal::RelocationOutside(index))?;
        if rela.r_info.get() != R_X86_64_RELATIVE {
            return Err(ElfRefusal::RelocationType(index));
        }
        if rela.r_addend.get() >= size || rela.r_offset.get() > size.saturating_sub(8) {
            return Err(ElfRefusal::TargetOutside(index));
        }
        at = at.checked_add(entry).ok_or(ElfRefusal::RelocationOutside(index))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;
    use zerocopy::{FromZeros, IntoBytes};

    const SIZE: u64 = 1024;
    const SECTIONS: u64 = 64;
    const RELOCATIONS: u64 = 512;

    /// An image with two sections, the second of them with two relocations.
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
        Image { header, section, relocation }
    }

    type Change = fn(&mut Image);

    fn check_changed(change: impl FnOnce(&mut Image)) -> Result<(), ElfRefusal> {
        let mut parts = image();
        change(&mut parts);
        let mut bytes: Vec<u8> = vec![0; SIZE as usize];
        let mut put = |at: u64, part: &[u8]| bytes[at as usize..][..part.len()].copy_from_slice(part);
        put(0, parts.header.as_bytes());
        put(SECTIONS + 64, parts.section.as_bytes());
        put(RELOCATIONS, image().relocation.as_bytes());
        put(RELOCATIONS + 24, parts.relocation.as_bytes());
        check(&bytes)
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        assert_eq!(check_changed(|_| ()), Ok(()));
        assert_eq!(check(&[]), Err(ElfRefusal::Ident));
        assert_eq!(check_changed(|image| image.header.e_ident[4] = 1), Err(ElfRefusal::Ident));
        let rows: [(Change, ElfRefusal); 9] = [
            (|image| image.header.e_shoff = U64::new(SIZE - 63), ElfRefusal::SectionOutside(0)),
            (|image| image.header.e_shoff = U64::new(u64::MAX), ElfRefusal::SectionOutside(0)),
            (|image| image.header.e_shentsize = U16::new(960), ElfRefusal::SectionOutside(1)),
            (|image| image.section.sh_entsize = U64::new(0), ElfRefusal::EntrySize(1)),
            (|image| image.section.sh_addr = U64::new(SIZE - 23), ElfRefusal::RelocationOutside(0)),
            (|image| image.section.sh_size = U64::new(24 * 100), ElfRefusal::RelocationType(2)),
            (|image| image.relocation.r_info = U64::new(1 << 32 | 8), ElfRefusal::RelocationType(1)),
            (|image| image.relocation.r_addend = U64::new(SIZE), ElfRefusal::TargetOutside(1)),
            (|image| image.relocation.r_offset = U64::new(SIZE - 7), ElfRefusal::TargetOutside(1)),
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
    fn a_structure_is_read_where_it_lies() {
        let bytes = [0, 0, 0x34, 0x12, 0];
        assert_eq!(read::<U16>(&bytes, 2).map(U16::get), Some(0x1234));
        assert_eq!(read::<U16>(&bytes, 4), None);
        assert_eq!(read::<U16>(&bytes, u64::MAX), None);
    }

    /// An image of relocations that are all the same, read as so many sections.
    fn many_relocations(sections: u16, len: usize) -> Vec<u8> {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        header.e_shoff = U64::new(64);
        // All headers of sections lie in the same place.
        header.e_shnum = U16::new(sections);
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = U64::new(128);
        section.sh_size = U64::new(len as u64 - 128 - 16);
        section.sh_entsize = U64::new(8);
        let mut image = [header.as_bytes(), section.as_bytes()].concat();
        while image.len() < len {
            image.extend_from_slice(&R_X86_64_RELATIVE.to_le_bytes());
        }
        image
    }

    #[test]
    fn no_image_has_more_relocations_than_bytes() {
        assert_eq!(check(&many_relocations(8, 4096)), Ok(()));
        assert_eq!(check(&many_relocations(9, 4096)), Err(ElfRefusal::TooManyRelocations));
        // Without that rule it would take 16 thousand million steps.
        assert_eq!(check(&many_relocations(u16::MAX, 496 * 4096)), Err(ElfRefusal::TooManyRelocations));
    }
}
