//! An image and a machine that pass preflight together, for tests that change one property.

use tdx_seamldr_core::abi::{PSysInfo, SeamSigstruct, SeamldrInfo, TdxFeatures0, PAGE_SIZE};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::elf::{ElfHeader, ElfRefusal, IDENT};
use tdx_seamldr_core::preflight::{preflight, preflight_image, Purpose};
use tdx_seamldr_core::preflight::{
    Facts, Finding, HandoffRange, NotPassed, PassedUpdate, Policy, Refusal, Unknown,
};
use tdx_seamldr_core::{Crypto, CryptoUnavailable, Sha384Digest, TdxImage};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// A provider whose digest is a sum, and whose signature is that sum.
pub(crate) struct Sums {
    /// The provider fails for data of this length.
    pub(crate) out_of_order: Option<usize>,
}

impl Crypto for Sums {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        if self.out_of_order == Some(parts.concat().len()) {
            return Err(CryptoUnavailable);
        }
        let mut digest = [0; 48];
        for (at, byte) in parts.concat().into_iter().enumerate() {
            digest[at % 48] = byte.wrapping_add(31u8.wrapping_mul(digest[at % 48]));
        }
        Ok(digest)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        Ok(modulus[0] == 7 && signature.starts_with(digest))
    }
}

pub(crate) const WORKS: Sums = Sums { out_of_order: None };
pub(crate) const MODULUS: usize = 384;
pub(crate) const SIGNED: usize = 1276;
pub(crate) const MODULE: usize = 4 * PAGE_SIZE;
pub(crate) const BASE: u64 = 0x1_0000_0000;

/// The inputs of preflight.
pub(crate) struct World {
    pub(crate) sigstruct: SeamSigstruct,
    /// Pages of the SIGSTRUCT area beyond the first.
    pub(crate) more_sigstruct: usize,
    pub(crate) module: Vec<u8>,
    pub(crate) facts: Facts,
    pub(crate) policy: Policy,
    pub(crate) crypto: Sums,
    /// Whether image and SIGSTRUCT are hashed and signed again after the change.
    pub(crate) is_signed_again: bool,
}

/// Bytes that begin at a 4 KiB boundary.
pub(crate) struct File {
    bytes: Vec<u8>,
    start: usize,
}

impl File {
    pub(crate) fn image(&self) -> TdxImage<'_> {
        TdxImage::parse(&self.bytes[self.start..]).unwrap()
    }
}

impl World {
    /// Returns an image and a machine that pass.
    pub(crate) fn good() -> Self {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        let mut module = vec![0; MODULE];
        module[..size_of::<ElfHeader>()].copy_from_slice(header.as_bytes());
        let mut sigstruct = SeamSigstruct::new_zeroed();
        sigstruct.header_type = U32::new(6);
        sigstruct.header_length = U32::new(0xe1);
        sigstruct.header_version = U32::new(0x10000);
        sigstruct.module_vendor = U32::new(0x8086);
        sigstruct.size = U32::new(0x200);
        sigstruct.key_size = U32::new(0x60);
        sigstruct.modulus_size = U32::new(0x60);
        sigstruct.exponent_size = U32::new(1);
        sigstruct.exponent = U32::new(0x10001);
        sigstruct.modulus = [7; MODULUS];
        (sigstruct.svn_major, sigstruct.svn_minor) = (1, 5);
        (sigstruct.min_update_hv, sigstruct.module_hv) = (U16::new(1), U16::new(3));
        sigstruct.num_handoff_pages = U16::new(1);
        sigstruct.cpuid_table_size = U32::new(2);
        (sigstruct.cpuid_table[0], sigstruct.cpuid_table[1]) =
            (U32::new(0x806f0), U32::new(0xc06f0));

        let mut info = SeamldrInfo::new_zeroed();
        (info.major, info.minor) = (U16::new(1), U16::new(5));
        info.num_remaining_updates = U32::new(1);
        (info.seamextend.valid, info.seamextend.seam_ready) = (U64::new(0x1ff), 1);
        (info.seamextend.tee_tcb_svn[0], info.seamextend.tee_tcb_svn[1]) = (5, 1);
        let mut sysinfo = PSysInfo::new_zeroed();
        (sysinfo.tot_num_lps, sysinfo.tot_num_sockets) = (U32::new(8), U32::new(2));
        (sysinfo.socket_cpuid[0], sysinfo.socket_cpuid[1]) = (U32::new(0x806f8), U32::new(0xc06f2));
        sysinfo.p_seamldr_base = U64::new(BASE + (32 << 20));
        let mut facts = Facts::new();
        facts.add_info(&info);
        facts.add_sysinfo(&sysinfo);
        facts.signer = Some(WORKS.sha384(&[&[7; MODULUS]]).unwrap());
        (facts.num_lps, facts.highest_x2apic_id) = (Some(8), Some(7));
        facts.features0 = Some(TdxFeatures0::TD_PRESERVING | TdxFeatures0::UPDATE_COMPATIBILITY);
        facts.handoff = Some(HandoffRange { module_hv: 2, min_update_hv: 0, no_downgrade: false });
        facts.addressable_lps_per_socket = Some(3);
        facts.seamrr_base = Some(BASE);
        facts.handoff_data = Some(8184);
        facts.handoff_pages = Some(3);
        Self {
            sigstruct,
            more_sigstruct: 0,
            module,
            facts,
            policy: Policy::default(),
            crypto: WORKS,
            is_signed_again: true,
        }
    }

    /// Returns the image and the machine after this change.
    pub(crate) fn after(change: impl FnOnce(&mut Self)) -> Self {
        let mut world = Self::good();
        world.sign();
        change(&mut world);
        if world.is_signed_again {
            world.sign();
        }
        world
    }

    pub(crate) fn sign(&mut self) {
        self.sigstruct.seamhash = WORKS.sha384(&[&self.module]).unwrap();
        let digest = WORKS.sha384(&self.sigstruct.signed_parts()).unwrap();
        self.sigstruct.signature[..48].copy_from_slice(&digest);
    }

    pub(crate) fn file(&self) -> File {
        let sigstruct =
            [self.sigstruct.as_bytes(), &vec![0; 2048 + self.more_sigstruct * PAGE_SIZE]].concat();
        let parts = ImageParts { sigstruct: &sigstruct, module: &self.module };
        let len = parts.file_len().unwrap();
        let mut bytes = vec![0; len + PAGE_SIZE];
        let start = bytes.as_ptr().align_offset(PAGE_SIZE);
        bytes.truncate(start + len);
        parts.write(ImageFormat::BlobV1, &mut bytes[start..]).unwrap();
        File { bytes, start }
    }

    /// Runs preflight for an update.
    pub(crate) fn check<'a>(
        &self,
        file: &'a File,
    ) -> (Result<PassedUpdate<'a>, NotPassed>, Vec<Finding>) {
        let mut findings = Vec::new();
        let report = &mut |finding| findings.push(finding);
        let passed = preflight(&file.image(), &self.facts, &self.crypto, self.policy, report);
        self.assert_counted(passed.as_ref().err(), &findings);
        (passed, findings)
    }

    /// Runs preflight of the image for another purpose.
    pub(crate) fn check_image(&self, purpose: Purpose) -> Vec<Finding> {
        let (file, mut findings) = (self.file(), Vec::new());
        let report = &mut |finding| findings.push(finding);
        let passed =
            preflight_image(&file.image(), &self.facts, purpose, &self.crypto, self.policy, report);
        self.assert_counted(passed.as_ref().err(), &findings);
        findings
    }

    /// Asserts that the error counts each refusal, and each unknown that the policy does not allow.
    fn assert_counted(&self, not_passed: Option<&NotPassed>, findings: &[Finding]) {
        let count = |counts: &dyn Fn(&Finding) -> bool| {
            findings.iter().filter(|it| counts(it)).count() as u32
        };
        let refusals = count(&|finding| matches!(finding, Finding::Refusal(_)));
        let unknowns = count(&|finding| match finding {
            Finding::Unknown(unknown) => !self.policy.allow_unknowns.contains(*unknown),
            Finding::Refusal(_) => false,
        });
        let expected = (refusals, unknowns) != (0, 0);
        assert_eq!(not_passed, expected.then_some(&NotPassed { refusals, unknowns }));
    }
}

/// Returns the findings of preflight after this change.
pub(crate) fn after(change: impl FnOnce(&mut World)) -> Vec<Finding> {
    let world = World::after(change);
    let file = world.file();
    world.check(&file).1
}

pub(crate) fn refused(refusal: Refusal) -> Vec<Finding> {
    vec![Finding::Refusal(refusal)]
}

pub(crate) fn unknown(unknown: Unknown) -> Vec<Finding> {
    vec![Finding::Unknown(unknown)]
}

/// Returns the refusal of an image without ELF magic.
pub(crate) fn no_elf() -> Vec<Finding> {
    let mut found = [0; 16];
    found[..IDENT.len()].copy_from_slice(&IDENT);
    found[0] = 0;
    refused(Refusal::Elf(ElfRefusal::Ident { found }))
}
