//! Parses bytes as an image file, writes the image again, compares, and runs preflight.

use tdx_seamldr_core::abi::{PSysInfo, SeamldrInfo, TdxFeatures0, PAGE_SIZE};
use tdx_seamldr_core::image::{Checksum, ImageError, ImageFormat};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, Finding, HandoffRange, NotPassed, Policy, Purpose,
};
use tdx_seamldr_core::{Crypto, CryptoUnavailable, Sha384Digest, TdxImage};
use tdx_seamldr_mock::TEST_SIGNER;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::FromZeros;

/// Returns SEAMLDR_INFO of the fixed platform: version 1.5, SVN 1.5 runs, updates remain.
pub(super) fn fixed_info() -> SeamldrInfo {
    let mut info = SeamldrInfo::new_zeroed();
    (info.major, info.minor) = (U16::new(1), U16::new(5));
    info.num_remaining_updates = U32::new(3);
    (info.seamextend.valid, info.seamextend.seam_ready) = (U64::new(0x1ff), 1);
    info.seamextend.tee_tcb_svn[..2].copy_from_slice(&[5, 1]);
    info
}

/// Returns the fixed platform: 2 LPs on 1 socket of Sapphire Rapids, 252 MiB for the module.
pub(super) fn fixed_platform() -> PSysInfo {
    let mut platform = PSysInfo::new_zeroed();
    (platform.tot_num_lps, platform.tot_num_sockets) = (U32::new(2), U32::new(1));
    platform.socket_cpuid[0] = U32::new(0x806f8);
    platform.p_seamldr_base = U64::new(SEAMRR_BASE + (252 << 20));
    platform
}

const SEAMRR_BASE: u64 = 0x20_0000_0000;

/// Returns all facts of the fixed platform.
pub(super) fn fixed_facts() -> Facts {
    let mut facts = Facts {
        num_lps: Some(2),
        highest_x2apic_id: Some(1),
        signer: Some(TEST_SIGNER),
        features0: Some(TdxFeatures0::TD_PRESERVING),
        handoff: Some(HandoffRange { module_hv: 1, min_update_hv: 0, no_downgrade: false }),
        debug_unlocked: Some(false),
        addressable_lps_per_socket: Some(16),
        seamrr_base: Some(SEAMRR_BASE),
        handoff_data: Some(53_391),
        handoff_pages: Some(14),
        sensitive_operations: Some(0),
        ..Facts::new()
    };
    facts.add_info(&fixed_info());
    facts.add_sysinfo(&fixed_platform());
    facts
}

/// Cryptography that accepts everything, accepts nothing, or is unavailable. So preflight's other
/// checks run at full speed. Another target covers the verification of signatures.
struct Says<'a> {
    yes: Result<bool, CryptoUnavailable>,
    image: &'a TdxImage<'a>,
}

impl Crypto for Says<'_> {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        let sigstruct = self.image.sigstruct();
        let is_modulus =
            parts.first().is_some_and(|part| part.as_ptr() == sigstruct.modulus.as_ptr());
        self.yes.map(|yes| match (yes, is_modulus) {
            (true, true) => TEST_SIGNER,
            (true, false) => sigstruct.seamhash,
            (false, _) => [0xa5; 48],
        })
    }

    fn rsa3072_verify(
        &self,
        _: &[u8; 384],
        _: &[u8; 384],
        _: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        self.yes
    }
}

/// Runs preflight and checks three things: the number of findings is correct, each finding can be
/// displayed, and the image as a fallback has no finding that it does not have as an update.
pub(super) fn asked(
    image: &TdxImage<'_>,
    facts: &Facts,
    crypto: &dyn Crypto,
    policy: Policy,
) -> (NotPassed, Vec<Finding>) {
    let mut findings = Vec::new();
    let passed = preflight(image, facts, crypto, policy, &mut |finding| findings.push(finding));
    let (refusals, unknowns): (Vec<&Finding>, Vec<&Finding>) =
        findings.iter().partition(|finding| matches!(finding, Finding::Refusal(_)));
    let found = passed.err().unwrap_or(NotPassed { refusals: 0, unknowns: 0 });
    let counted = [found.refusals, found.unknowns].map(|count| usize::try_from(count).unwrap());
    assert_eq!(counted, [refusals.len(), unknowns.len()], "{findings:?}");
    for finding in &findings {
        assert!(!finding.to_string().is_empty() && !finding.code().is_empty());
    }
    let handoff_version = facts.handoff.and_then(|running| running.negotiate(image.sigstruct()));
    let purpose = Purpose::TakeOver { handoff_version };
    let fallback = preflight_image(image, facts, purpose, crypto, policy, &mut |finding| {
        assert!(findings.contains(&finding), "{finding:?}, but not in {findings:?}");
    });
    assert!(fallback.is_ok() || !findings.is_empty());
    (found, findings)
}

/// Returns the file of these parts in a format, if the format has room for them.
fn written(image: &TdxImage<'_>, format: ImageFormat) -> Option<Vec<u8>> {
    let parts = image.parts();
    let mut file = vec![0xcc; parts.file_len().expect("an image that was parsed has a length")];
    let fits = image.sigstruct_pages() <= format.max_sigstruct_pages();
    assert_eq!(parts.write(format, &mut file).is_ok(), fits);
    fits.then_some(file)
}

/// Splits a file around its checksum.
fn without_checksum(file: &[u8]) -> (&[u8], &[u8]) {
    let (version, rest) = file.split_at(2);
    (version, &rest[2..])
}

/// Parses an input. An error can be displayed. An image is written again from its parts: in the
/// same format byte for byte except for a wrong checksum, in the other format with the same parts.
/// Preflight runs three times, with cryptography that accepts, refuses, and is unavailable.
pub fn image(input: &[u8]) {
    let parsed = TdxImage::parse(input);
    let found = TdxImage::parse_without_checksum(input);
    let only = ImageFormat::ALL.map(|format| TdxImage::parse_only(format, input));
    let image = match (&parsed, &found) {
        (Err(error), Err(other)) => {
            assert_eq!(error, other);
            assert!(!error.to_string().is_empty() && !error.code().is_empty());
            assert!(only.iter().all(Result::is_err));
            return;
        }
        (Err(ImageError::Checksum { found, wanted }), Ok(image)) => {
            assert_eq!(
                (image.format(), image.checksum()),
                (ImageFormat::BlobV1, Checksum::Bad { found: *found, wanted: *wanted })
            );
            // With the correct checksum the file is an image.
            let mut file = input.to_vec();
            file[2..4].copy_from_slice(&wanted.to_le_bytes());
            TdxImage::parse(&file).expect("the checksum that is wanted");
            image
        }
        (Ok(image), Ok(other)) => {
            assert_eq!(format!("{image:?}"), format!("{other:?}"));
            image
        }
        (parsed, found) => panic!("{parsed:?} with its checksum, but {found:?} without"),
    };
    let accepted = only.iter().filter_map(|only| only.as_ref().ok()).map(TdxImage::format);
    assert_eq!(accepted.collect::<Vec<_>>(), [image.format()]);
    let length = image.sigstruct_area().len() + image.module().len() + PAGE_SIZE;
    assert_eq!((image.as_bytes().len(), image.as_bytes()), (length, input));
    assert_eq!(image.module_pages() as usize * PAGE_SIZE, image.module().len());
    for format in ImageFormat::ALL {
        let Some(file) = written(image, format) else { continue };
        let again = TdxImage::parse(&file).expect("what was written is an image");
        assert_eq!(again.format(), format);
        assert_eq!(
            (again.sigstruct_area(), again.module()),
            (image.sigstruct_area(), image.module())
        );
        if format == image.format() {
            assert_eq!(without_checksum(&file), without_checksum(input));
            assert!(format != ImageFormat::BlobV1 || parsed.is_err() || file == input);
        }
    }

    let facts = fixed_facts();
    let refused_with = |yes| {
        let (verdict, _) = asked(image, &facts, &Says { yes, image }, Policy::default());
        verdict.refusals
    };
    let (yes, no, nothing) =
        (refused_with(Ok(true)), refused_with(Ok(false)), refused_with(Err(CryptoUnavailable)));
    assert!(no > 0, "nothing was signed");
    assert!(nothing <= yes, "an unknown fact is not a refusal");
}
