//! Small images that are signed with a test key.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{NonZero, Odd, U1536, U3072};
use tdx_seamldr_core::abi::{SeamSigstruct, MAX_CPUID_ENTRIES, PAGE_SIZE};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::elf::{
    ElfHeader, Rela, SectionHeader, IDENT, R_X86_64_RELATIVE, SHT_RELA,
};
use tdx_seamldr_core::{Crypto, Sha384Digest};
use tdx_seamldr_verify::{emsa_pkcs1_v15, RustCrypto};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::model::{Description, ModuleBuild};
use crate::PageBuf;

/// Modulus of the test key, little-endian. The key protects nothing: both halves are published
/// here.
static MODULUS: [u8; 384] = *include_bytes!("test_key/modulus.bin");
static PRIVATE_EXPONENT: [u8; 384] = *include_bytes!("test_key/private_exponent.bin");
/// Prime factors of the modulus, the larger one first.
static PRIMES: [[u8; 192]; 2] =
    [*include_bytes!("test_key/prime_1.bin"), *include_bytes!("test_key/prime_2.bin")];

/// SHA-384 of the test key's modulus. A platform for [`TestImage`]s trusts this signer.
pub const TEST_SIGNER: Sha384Digest = [
    0x75, 0x6d, 0x6a, 0xeb, 0xd4, 0xfa, 0xc3, 0x36, 0x4f, 0x24, 0xcc, 0x44, 0xca, 0x31, 0x15, 0x86,
    0xda, 0x74, 0xdd, 0xad, 0x54, 0xdc, 0x9c, 0xa6, 0xb0, 0x55, 0xaa, 0x51, 0xca, 0xaa, 0x69, 0x86,
    0xef, 0xa2, 0x18, 0xa3, 0x2f, 0x35, 0x03, 0xdf, 0xb2, 0x72, 0x66, 0xa9, 0xf2, 0x22, 0xef, 0xce,
];

/// Writes the test key and its signature into a SIGSTRUCT.
pub fn sign(sigstruct: &mut SeamSigstruct) {
    sigstruct.modulus = MODULUS;
    let Ok(digest) = RustCrypto.sha384(&sigstruct.signed_parts()) else { return };
    let message = U3072::from_be_slice(&emsa_pkcs1_v15(&digest));
    let Some(signature) = private_power(&message) else { return };
    sigstruct.signature.copy_from_slice(signature.to_le_bytes().as_ref());
}

/// Raises a number to the power of the private exponent, modulo each prime. This takes a quarter of
/// the time of a computation modulo the whole modulus (RFC 8017, 5.1.2).
fn private_power(message: &U3072) -> Option<U3072> {
    let exponent = U3072::from_le_slice(&PRIVATE_EXPONENT);
    let modulo = |prime: &Odd<U1536>| {
        let order = NonZero::new(prime.wrapping_sub(&U1536::ONE)).into_option()?;
        let message = message.rem_vartime(prime.as_nz_ref());
        let field = FixedMontyParams::new_vartime(*prime);
        Some(FixedMontyForm::new(&message, &field).pow_vartime(&exponent.rem_vartime(&order)))
    };
    let [first, second] = PRIMES.map(|prime| Odd::new(U1536::from_le_slice(&prime)).into_option());
    let (first, second) = (first?, second?);
    let (power, rest) = (modulo(&first)?, modulo(&second)?.retrieve());
    let in_field = |number: &U1536| FixedMontyForm::new(number, power.params());
    let inverse = in_field(&second).invert_vartime().into_option()?;
    let quotient = power.sub(&in_field(&rest)).mul(&inverse).retrieve();
    Some(quotient.concatenating_mul(&*second).wrapping_add(&rest.resize()))
}

/// A description of a module image to be made: an ELF file with a few relocations.
#[derive(Clone, Debug)]
pub struct TestImage {
    /// Format of the file.
    pub format: ImageFormat,
    /// Number of 4 KiB pages of the module, at least 1. With fewer than 3, the default
    /// `gdt_idt_offset` and `fault_wrapper_offset` lie outside the module.
    pub pages: usize,
    /// Major SVN.
    pub svn_major: u8,
    /// Minor SVN.
    pub svn_minor: u8,
    /// Build date, YYYYMMDD, one hexadecimal digit each.
    pub date: u32,
    /// Whether this is a debug module.
    pub debug: bool,
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version that the module accepts at an update.
    pub min_update_hv: u16,
    /// Whether the module writes its highest handoff version only.
    pub no_downgrade: bool,
    /// Pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// CPUs that the module runs on (CPUID.1:EAX), at most 255.
    pub cpus: Vec<u32>,
    /// Stack pages of each LP, minus one.
    pub num_stack_pages: u8,
    /// Thread-local pages of each LP, minus one.
    pub num_tls_pages: u8,
    /// Keyhole pages of each LP, minus one.
    pub num_keyhole_pages: u16,
    /// Global data pages, minus one.
    pub num_global_data_pages: u16,
    /// Offset of the GDT and the IDT in the module.
    pub gdt_idt_offset: u32,
    /// Offset of the fault wrappers in the module.
    pub fault_wrapper_offset: u32,
    /// The hash in the SIGSTRUCT, if it is not the hash of the module.
    pub seamhash: Option<Sha384Digest>,
    /// Fill byte of the unused part of the image.
    pub fill: u8,
    /// Build of the module. Without it, the SIGSTRUCT determines the build.
    pub module_build: Option<ModuleBuild>,
}

impl Default for TestImage {
    /// A module similar to the released 1.5.05.
    fn default() -> Self {
        Self {
            format: ImageFormat::BlobV1,
            pages: 8,
            svn_major: 1,
            svn_minor: 5,
            date: 0x20240129,
            debug: false,
            module_hv: 0,
            min_update_hv: 0,
            no_downgrade: false,
            num_handoff_pages: 13,
            cpus: vec![0x806f8, 0xc06f0, 0xa06f0],
            num_stack_pages: 1,
            num_tls_pages: 1,
            num_keyhole_pages: 127,
            num_global_data_pages: 21,
            gdt_idt_offset: 0x1000,
            fault_wrapper_offset: 0x2000,
            seamhash: None,
            fill: 0x90,
            module_build: None,
        }
    }
}

impl TestImage {
    /// Returns a signed SIGSTRUCT for a module with this content.
    #[must_use]
    pub fn sigstruct(&self, module: &[u8]) -> SeamSigstruct {
        let mut sigstruct = self.unsigned_sigstruct(module);
        sign(&mut sigstruct);
        sigstruct
    }

    fn unsigned_sigstruct(&self, module: &[u8]) -> SeamSigstruct {
        let mut s = SeamSigstruct::new_zeroed();
        s.header_type = U32::new(6);
        s.header_length = U32::new(0xe1);
        s.header_version = U32::new(0x10000);
        s.module_type = U32::new(if self.debug { SeamSigstruct::MODULE_TYPE_DEBUG } else { 0 });
        s.module_vendor = U32::new(0x8086);
        s.date = U32::new(self.date);
        s.size = U32::new(0x200);
        s.key_size = U32::new(0x60);
        s.modulus_size = U32::new(0x60);
        s.exponent_size = U32::new(1);
        s.exponent = U32::new(0x10001);
        s.seamhash =
            self.seamhash.unwrap_or_else(|| RustCrypto.sha384(&[module]).unwrap_or([0; 48]));
        (s.svn_major, s.svn_minor) = (self.svn_major, self.svn_minor);
        (s.num_stack_pages, s.num_tls_pages) = (self.num_stack_pages, self.num_tls_pages);
        s.num_keyhole_pages = U16::new(self.num_keyhole_pages);
        s.num_global_data_pages = U16::new(self.num_global_data_pages);
        s.module_hv = U16::new(self.module_hv);
        s.min_update_hv = U16::new(self.min_update_hv);
        s.no_downgrade = self.no_downgrade.into();
        s.num_handoff_pages = U16::new(self.num_handoff_pages);
        s.gdt_idt_offset = U32::new(self.gdt_idt_offset);
        s.fault_wrapper_offset = U32::new(self.fault_wrapper_offset);
        let count = self.cpus.len().min(MAX_CPUID_ENTRIES);
        s.cpuid_table_size = U32::new(u32::try_from(count).unwrap_or(0));
        for (slot, cpu) in s.cpuid_table.iter_mut().zip(&self.cpus) {
            *slot = U32::new(*cpu);
        }
        s
    }

    /// Returns the module's binary.
    #[must_use]
    pub fn module(&self) -> Vec<u8> {
        const SECTIONS: usize = 0x40;
        const RELOCATIONS: usize = 0x100;
        const VERSION: usize = 0x150;
        let mut module = vec![self.fill; self.pages.max(1).saturating_mul(PAGE_SIZE)];
        let mut header = ElfHeader::new_zeroed();
        header.e_ident.iter_mut().zip(IDENT).for_each(|(slot, byte)| *slot = byte);
        header.e_type = U16::new(3);
        header.e_machine = U16::new(62);
        header.e_shoff = u64_of(SECTIONS);
        header.e_shentsize = U16::new(64);
        header.e_shnum = U16::new(2);
        put(&mut module, 0, &header);
        put(&mut module, SECTIONS, &SectionHeader::new_zeroed());
        let mut section = SectionHeader::new_zeroed();
        section.sh_type = U32::new(SHT_RELA);
        section.sh_addr = u64_of(RELOCATIONS);
        section.sh_offset = u64_of(RELOCATIONS);
        section.sh_entsize = u64_of(24);
        section.sh_size = u64_of(2 * 24);
        put(&mut module, SECTIONS + 64, &section);
        // Modules of different versions differ in content.
        put(&mut module, VERSION, &U32::new(self.date));
        put(&mut module, VERSION + 4, &[self.svn_major, self.svn_minor]);
        if let Some(build) = &self.module_build {
            put(&mut module, Description::OFFSET, &Description::new(build));
        }
        let last = if self.pages < 3 { 0x208 } else { 0x2800 };
        for (at, target) in [(RELOCATIONS, 0x200), (RELOCATIONS + 24, last)] {
            let rela = Rela {
                r_offset: u64_of(target),
                r_info: U64::new(R_X86_64_RELATIVE),
                r_addend: U64::new(0x123),
            };
            put(&mut module, at, &rela);
        }
        module
    }

    /// Returns the image file.
    #[must_use]
    pub fn build(&self) -> PageBuf {
        let module = self.module();
        self.file(&self.sigstruct(&module), &module)
    }

    /// Returns the image file with this SIGSTRUCT, which a test may have changed before or after
    /// signing.
    #[must_use]
    pub fn file(&self, sigstruct: &SeamSigstruct, module: &[u8]) -> PageBuf {
        let parts = ImageParts { sigstruct: sigstruct.as_bytes(), module };
        let len = parts.file_len().unwrap_or(0);
        let mut file = PageBuf::zeroed(len.div_ceil(PAGE_SIZE));
        // Writing cannot fail for the parts of a `TestImage`. For other modules the file is all
        // zeros, and not an image.
        let _ = parts.write(self.format, file.as_mut_bytes());
        file
    }
}

fn u64_of(number: usize) -> U64 {
    U64::new(u64::try_from(number).unwrap_or(u64::MAX))
}

/// Overwrites bytes of the module at an offset.
fn put<T: IntoBytes + zerocopy::Immutable + FromBytes>(module: &mut [u8], at: usize, value: &T) {
    if let Some(rest) = module.get_mut(at..) {
        // A module that is too short stays unchanged.
        let _ = value.write_to_prefix(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tdx_seamldr_core::TdxImage;

    #[test]
    fn a_test_image_verifies_but_is_not_signed_by_intel() {
        for format in ImageFormat::ALL {
            let file = TestImage { format, ..TestImage::default() }.build();
            let verification =
                tdx_seamldr_verify::verify(&TdxImage::parse(file.as_bytes()).unwrap());
            assert!(verification.is_signed_by(&TEST_SIGNER));
            assert!(!verification.is_genuine());
        }
    }

    #[test]
    fn verification_rejects_any_change_of_signed_bytes() {
        let image = TestImage::default();
        let module = image.module();
        let good = image.sigstruct(&module);
        for offset in [0, 20, 127, 128, 511, 516, 899, 900, 948, 1024, 2047] {
            let mut bytes = *good.as_bytes().first_chunk::<2048>().unwrap();
            bytes[offset] ^= 1;
            let changed = SeamSigstruct::read_from_bytes(&bytes).unwrap();
            let file = image.file(&changed, &module);
            let verification =
                tdx_seamldr_verify::verify(&TdxImage::parse(file.as_bytes()).unwrap());
            assert!(!verification.is_signed_by(&TEST_SIGNER), "offset {offset}");
        }
    }
}
