//! Verifies signature, signer and hash of an Intel TDX module image.
//!
//! The [glossary](tdx_seamldr_core::glossary) explains the terms.
//!
//! [`RustCrypto`] implements [`tdx_seamldr_core::Crypto`] by the crates `sha2` and `crypto-bigint`,
//! without allocation. [`verify`] checks an image, [`verify_sigstruct`] checks signature and signer
//! of a SIGSTRUCT without its module. A verification needs about 20 KiB of stack, which is too much
//! for a kernel's stack.
//!
//! ```
//! use tdx_seamldr_core::TdxImage;
//!
//! fn is_genuine(file: &[u8]) -> bool {
//!     TdxImage::parse(file).is_ok_and(|image| tdx_seamldr_verify::verify(&image).is_genuine())
//! }
//! assert!(!is_genuine(b"not an image"));
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::indexing_slicing))]

use core::fmt;

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U3072};
use sha2::{Digest, Sha384};
use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::{
    Crypto, CryptoUnavailable, Sha384Digest, TdxImage, INTEL_PRODUCTION_SIGNER,
};

/// The squarings for the exponent 65537 of every key: 2^16 + 1 takes 16 squarings and 1
/// multiplication.
const SQUARINGS: u32 = 16;

/// The bytes before the digest in a PKCS #1 v1.5 signature with SHA-384: the DER of a DigestInfo
/// (RFC 8017, 9.2).
const DIGEST_INFO: [u8; 19] = [
    0x30, 0x41, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05,
    0x00, 0x04, 0x30,
];

/// SHA-384 and RSA-3072, implemented by the RustCrypto crates.
#[derive(Clone, Copy, Debug, Default)]
pub struct RustCrypto;

impl Crypto for RustCrypto {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        Ok(sha384(parts))
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        let signature = U3072::from_le_slice(signature);
        let modulus = U3072::from_le_slice(modulus);
        if signature >= modulus {
            return Ok(false);
        }
        let Some(modulus) = Odd::new(modulus).into_option() else {
            return Ok(false);
        };
        let field = FixedMontyParams::new_vartime(modulus);
        let signature = FixedMontyForm::new(&signature, &field);
        let power = signature.square_repeat_vartime(SQUARINGS);
        let message = power.mul(&signature).retrieve();
        Ok(message == U3072::from_be_slice(&emsa_pkcs1_v15(digest)))
    }
}

fn sha384(parts: &[&[u8]]) -> Sha384Digest {
    let mut hash = Sha384::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Returns the EMSA-PKCS1-v1_5 encoding of a SHA-384 digest for a key of 3,072 bits, big-endian:
/// `00 01 FF .. FF 00`, DigestInfo, digest.
#[must_use]
pub fn emsa_pkcs1_v15(digest: &Sha384Digest) -> [u8; 384] {
    let mut message = [0xff; 384];
    let [first, second, ..] = &mut message;
    (*first, *second) = (0x00, 0x01);
    let (_, tail) = message.split_at_mut(384 - 48 - 19 - 1);
    let content = core::iter::once(&0).chain(&DIGEST_INFO).chain(digest);
    for (byte, value) in tail.iter_mut().zip(content) {
        *byte = *value;
    }
    message
}

/// The owner of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    /// The key that signs Intel's released modules.
    IntelProduction,
    /// Another key. The value is the SHA-384 of its modulus in little-endian order.
    Unknown(Sha384Digest),
}

/// The result of [`verify`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Whether the key in the SIGSTRUCT, with the exponent 65537, signed the SIGSTRUCT.
    pub signature_valid: bool,
    /// The owner of that key.
    pub signer: Signer,
    /// The SHA-384 of the module's binary.
    pub image_hash: Sha384Digest,
    /// Whether this hash is the one in the SIGSTRUCT.
    pub image_hash_matches: bool,
    /// Whether the bytes after the SIGSTRUCT in its area, which are not signed, are zero.
    pub padding_zero: bool,
}

impl Verification {
    /// Whether Intel signed exactly this image.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.is_signed_by(&INTEL_PRODUCTION_SIGNER)
    }

    /// Whether the key whose modulus has this digest signed exactly this image.
    #[must_use]
    pub fn is_signed_by(&self, signer: &Sha384Digest) -> bool {
        self.signature_valid
            && self.image_hash_matches
            && self.padding_zero
            && self.signer.digest() == signer
    }
}

impl Signer {
    /// Returns the SHA-384 of the key's modulus in little-endian order.
    #[must_use]
    pub const fn digest(&self) -> &Sha384Digest {
        match self {
            Self::IntelProduction => &INTEL_PRODUCTION_SIGNER,
            Self::Unknown(digest) => digest,
        }
    }
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IntelProduction => f.write_str("intel-production"),
            Self::Unknown(_) => f.write_str("unknown"),
        }
    }
}

/// The result of [`verify_sigstruct`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SigstructVerification {
    /// Whether the key in the SIGSTRUCT, with the exponent 65537, signed the SIGSTRUCT.
    pub signature_valid: bool,
    /// The owner of that key.
    pub signer: Signer,
}

/// Verifies signature and signer of a SIGSTRUCT without its module.
#[must_use]
pub fn verify_sigstruct(sigstruct: &SeamSigstruct) -> SigstructVerification {
    let digest = sha384(&sigstruct.signed_parts());
    let signature_valid = sigstruct.exponent.get() == 0x10001
        && RustCrypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest) == Ok(true);
    let signer = match sha384(&[&sigstruct.modulus]) {
        INTEL_PRODUCTION_SIGNER => Signer::IntelProduction,
        other => Signer::Unknown(other),
    };
    SigstructVerification { signature_valid, signer }
}

/// Verifies signature, signer and hash of an image.
#[must_use]
pub fn verify(image: &TdxImage<'_>) -> Verification {
    let sigstruct = image.sigstruct();
    let SigstructVerification { signature_valid, signer } = verify_sigstruct(sigstruct);
    let image_hash = sha384(&[image.module()]);
    let padding = image.sigstruct_area().get(SeamSigstruct::SIZE..).unwrap_or_default();
    Verification {
        signature_valid,
        signer,
        image_hash,
        image_hash_matches: image_hash == sigstruct.seamhash,
        padding_zero: padding.iter().all(|byte| *byte == 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emsa_pkcs1_v15_has_the_form_of_rfc_8017() {
        let message = emsa_pkcs1_v15(&[0x5a; 48]);
        assert_eq!(message[..2], [0, 1]);
        assert!(message[2..316].iter().all(|byte| *byte == 0xff));
        assert_eq!(message[316], 0);
        assert_eq!(message[317..336], DIGEST_INFO);
        assert_eq!(message[336..], [0x5a; 48]);
    }

    #[test]
    fn sha384_returns_the_published_digest() {
        let digest = sha384(&[b"a", b"", b"bc"]);
        assert_eq!(digest[..4], [0xcb, 0x00, 0x75, 0x3f]);
        assert_eq!(digest[44..], [0x34, 0xc8, 0x25, 0xa7]);
    }

    #[test]
    fn rsa3072_verify_rejects_numbers_that_are_no_signature() {
        let ones = [0xff; 384];
        let zero = [0; 384];
        let mut one = [0; 384];
        one[0] = 1;
        let mut modulus = ones;
        modulus[0] = 0xfd;
        let digest = [7; 48];
        for signature in [&zero, &one, &modulus, &ones] {
            assert_eq!(RustCrypto.rsa3072_verify(&modulus, signature, &digest), Ok(false));
        }
        assert_eq!(RustCrypto.rsa3072_verify(&zero, &zero, &digest), Ok(false), "an even modulus");
    }
}

/// The example in the crate's README is a doc test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
