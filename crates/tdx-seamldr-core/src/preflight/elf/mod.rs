//! The parts of a module's ELF file that P-SEAMLDR reads.

mod check;
mod refusal;

pub use check::check;
pub use refusal::ElfRefusal;

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

/// The first bytes of the file: magic, 64-bit class, little-endian, version 1.
pub const IDENT: [u8; 7] = [0x7f, b'E', b'L', b'F', 2, 1, 1];
/// The type of a section of relocations with addends.
pub const SHT_RELA: u32 = 4;
/// The only relocation type that P-SEAMLDR takes: base plus addend, without a symbol.
pub const R_X86_64_RELATIVE: u64 = 8;

/// Reads a structure at an offset of the image. `None` if the structure does not lie in the image.
#[must_use]
pub fn read<T: zerocopy::FromBytes + zerocopy::KnownLayout + zerocopy::Immutable>(
    image: &[u8],
    at: u64,
) -> Option<T> {
    T::read_from_prefix(image.get(usize::try_from(at).ok()?..)?).ok().map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_returns_a_structure_that_lies_in_the_image() {
        let bytes = [0, 0, 0x34, 0x12, 0];
        assert_eq!(read::<U16>(&bytes, 2).map(U16::get), Some(0x1234));
        assert_eq!(read::<U16>(&bytes, 4), None);
        assert_eq!(read::<U16>(&bytes, u64::MAX), None);
    }
}
