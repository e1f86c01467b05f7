//! SEAM_SIGSTRUCT: the signed description of a module.

use super::{assert_layout, Svn};
use crate::debug::debug_fields;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// CPUs that the list in a SIGSTRUCT has room for.
pub const MAX_CPUID_ENTRIES: usize = 255;

/// SEAM_SIGSTRUCT (2048 bytes). The signature is over bytes 0 to 127 followed by 900 to 2047.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SeamSigstruct {
    /// 0: 6.
    pub header_type: U32,
    /// 4: 0xE1.
    pub header_length: U32,
    /// 8: 0x10000.
    pub header_version: U32,
    /// 12: bit 31: a debug module; the other bits are 0.
    pub module_type: U32,
    /// 16: 0x8086.
    pub module_vendor: U32,
    /// 20: date of the signature: YYYYMMDD, one hexadecimal digit each.
    pub date: U32,
    /// 24: size of this structure in 32-bit words: 0x200.
    pub size: U32,
    /// 28: size of the key in 32-bit words: 0x60.
    pub key_size: U32,
    /// 32: size of the modulus in 32-bit words: 0x60.
    pub modulus_size: U32,
    /// 36: size of the exponent in 32-bit words: 1.
    pub exponent_size: U32,
    /// 40: zero.
    pub reserved0: [u8; 88],
    /// 128: modulus of the RSA-3072 key, little-endian.
    pub modulus: [u8; 384],
    /// 512: exponent of the key: 0x10001.
    pub exponent: U32,
    /// 516: signature, little-endian.
    pub signature: [u8; 384],
    /// 900: SHA-384 of the image.
    pub seamhash: [u8; 48],
    /// 948: minor half of the security version.
    pub svn_minor: u8,
    /// 949: major half of the security version.
    pub svn_major: u8,
    /// 950: zero.
    pub attributes: U64,
    /// 958: offset of the module's entry point.
    pub rip_offset: U32,
    /// 962: stack pages of each LP, minus one.
    pub num_stack_pages: u8,
    /// 963: thread-local pages of each LP, minus one.
    pub num_tls_pages: u8,
    /// 964: keyhole pages of each LP, minus one.
    pub num_keyhole_pages: U16,
    /// 966: global data pages, minus one.
    pub num_global_data_pages: U16,
    /// 968: highest number of TDMRs.
    pub max_tdmrs: U16,
    /// 970: highest number of reserved areas of a TDMR.
    pub max_reserved_per_tdmr: U16,
    /// 972: bytes of a PAMT entry for 4 KiB.
    pub pamt_4k_entry_size: U16,
    /// 974: bytes of a PAMT entry for 2 MiB.
    pub pamt_2m_entry_size: U16,
    /// 976: bytes of a PAMT entry for 1 GiB.
    pub pamt_1g_entry_size: U16,
    /// 978: zero.
    pub reserved1: [u8; 6],
    /// 984: highest handoff version that the module writes and takes.
    pub module_hv: U16,
    /// 986: lowest handoff version that the module writes and takes.
    pub min_update_hv: U16,
    /// 988: not zero if the module writes handoff data of its highest version only.
    pub no_downgrade: u8,
    /// 989: zero.
    pub reserved2: u8,
    /// 990: pages for handoff data, minus one.
    pub num_handoff_pages: U16,
    /// 992: offset of the GDT and the IDT in the image; a multiple of 4096, or 0.
    pub gdt_idt_offset: U32,
    /// 996: offset of the fault wrappers in the image, or 0.
    pub fault_wrapper_offset: U32,
    /// 1000: zero for P-SEAMLDR up to 1.5. The 2.0 modules have data here, such as their version.
    pub reserved3: [u8; 24],
    /// 1024: entries in the list of CPUs.
    pub cpuid_table_size: U32,
    /// 1028: CPUs that the module runs on, by CPUID.1:EAX without the stepping.
    pub cpuid_table: [U32; MAX_CPUID_ENTRIES],
}

debug_fields! {
    SeamSigstruct, header_type, header_length, header_version, module_type, module_vendor, date,
    size, key_size, modulus_size, exponent_size, reserved0, modulus, exponent, signature, seamhash,
    svn_minor, svn_major, attributes, rip_offset, num_stack_pages, num_tls_pages, num_keyhole_pages,
    num_global_data_pages, max_tdmrs, max_reserved_per_tdmr, pamt_4k_entry_size, pamt_2m_entry_size,
    pamt_1g_entry_size, reserved1, module_hv, min_update_hv, no_downgrade, reserved2,
    num_handoff_pages, gdt_idt_offset, fault_wrapper_offset, reserved3, cpuid_table_size,
    cpuid_table
}

assert_layout!(SeamSigstruct, 2048, {
    header_type: 0, header_length: 4, header_version: 8, module_type: 12, module_vendor: 16,
    date: 20, size: 24, key_size: 28, modulus_size: 32, exponent_size: 36, reserved0: 40,
    modulus: 128, exponent: 512, signature: 516, seamhash: 900, svn_minor: 948, svn_major: 949,
    attributes: 950, rip_offset: 958, num_stack_pages: 962, num_tls_pages: 963,
    num_keyhole_pages: 964, num_global_data_pages: 966, max_tdmrs: 968, max_reserved_per_tdmr: 970,
    pamt_4k_entry_size: 972, pamt_2m_entry_size: 974, pamt_1g_entry_size: 976, reserved1: 978,
    module_hv: 984, min_update_hv: 986, no_downgrade: 988, reserved2: 989, num_handoff_pages: 990,
    gdt_idt_offset: 992, fault_wrapper_offset: 996, reserved3: 1000, cpuid_table_size: 1024,
    cpuid_table: 1028,
});

impl SeamSigstruct {
    /// Bytes of the structure.
    pub const SIZE: usize = 2048;
    /// Bit 31 of `module_type`.
    pub const MODULE_TYPE_DEBUG: u32 = 1 << 31;

    /// Whether this is a debug module, which runs on unlocked platforms only.
    #[must_use]
    pub const fn is_debug(&self) -> bool {
        self.module_type.get() & Self::MODULE_TYPE_DEBUG != 0
    }

    /// Returns the security version.
    #[must_use]
    pub const fn svn(&self) -> Svn {
        Svn { major: self.svn_major, minor: self.svn_minor }
    }

    /// Returns the CPUs in the list, at most [`MAX_CPUID_ENTRIES`].
    #[must_use]
    pub fn cpus(&self) -> &[U32] {
        let count = usize::try_from(self.cpuid_table_size.get()).unwrap_or(MAX_CPUID_ENTRIES);
        self.cpuid_table.get(..count).unwrap_or(&self.cpuid_table)
    }

    /// Whether the list names this CPU, given by CPUID.1:EAX.
    #[must_use]
    pub fn lists_cpu(&self, cpuid_1_eax: u32) -> bool {
        self.cpus().iter().any(|entry| (entry.get() ^ cpuid_1_eax) & super::FMS_MASK == 0)
    }

    /// Returns the signed parts in order: bytes 0 to 127 and 900 to 2047.
    #[must_use]
    pub fn signed_parts(&self) -> [&[u8]; 2] {
        let bytes = zerocopy::IntoBytes::as_bytes(self);
        [bytes.get(..128).unwrap_or_default(), bytes.get(900..).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn signed_parts_have_1276_bytes() {
        let [head, tail] = SeamSigstruct::new_zeroed().signed_parts().map(<[u8]>::len);
        assert_eq!((head, tail), (128, 1148));
    }

    #[test]
    fn lists_cpu_ignores_the_stepping_and_cpus_has_at_most_255_entries() {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        sigstruct.cpuid_table_size = U32::new(1);
        sigstruct.cpuid_table = [U32::new(0x806f8); MAX_CPUID_ENTRIES];
        assert!(sigstruct.lists_cpu(0x806f4));
        assert!(!sigstruct.lists_cpu(0x906f8));
        sigstruct.cpuid_table_size = U32::new(0);
        assert!(!sigstruct.lists_cpu(0x806f8));
        sigstruct.cpuid_table_size = U32::new(u32::MAX);
        assert_eq!(sigstruct.cpus().len(), MAX_CPUID_ENTRIES);
    }

    #[test]
    fn signed_parts_are_all_bytes_except_key_and_signature() {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        (sigstruct.modulus, sigstruct.exponent, sigstruct.signature) =
            ([1; 384], U32::new(1), [1; 384]);
        assert!(sigstruct.signed_parts().concat().iter().all(|byte| *byte == 0));
        sigstruct.header_type = U32::new(2);
        sigstruct.cpuid_table[MAX_CPUID_ENTRIES - 1] = U32::new(3 << 24);
        let [head, tail] = sigstruct.signed_parts();
        assert_eq!((head[0], tail[1147]), (2, 3));
    }

    #[test]
    fn svn_and_debug_flag_are_read_from_their_fields() {
        let mut sigstruct = SeamSigstruct::new_zeroed();
        (sigstruct.svn_major, sigstruct.svn_minor) = (1, 5);
        assert_eq!(sigstruct.svn(), Svn { major: 1, minor: 5 });
        sigstruct.module_type = U32::new(0x7fff_ffff);
        assert!(!sigstruct.is_debug());
        sigstruct.module_type = U32::new(0x8000_0000);
        assert!(sigstruct.is_debug());
    }
}
