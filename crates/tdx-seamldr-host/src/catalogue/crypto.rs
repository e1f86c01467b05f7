//! Cryptography that reuses the verification of an image.

use tdx_seamldr_core::{Crypto, CryptoUnavailable, Sha384Digest, TdxImage};
use tdx_seamldr_verify::{RustCrypto, Verification};

/// Returns the results of an image's verification, and computes all other results.
#[derive(Debug)]
pub struct Verified<'a> {
    pub(super) image: TdxImage<'a>,
    pub(super) verification: Verification,
}

/// Whether two slices are the same memory.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    std::ptr::eq(one, other)
}

impl Crypto for Verified<'_> {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        match parts {
            [module] if is_same(module, self.image.module()) => Ok(self.verification.image_hash),
            [modulus] if is_same(modulus, &self.image.sigstruct().modulus) => {
                Ok(*self.verification.signer.digest())
            }
            _ => RustCrypto.sha384(parts),
        }
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        let sigstruct = self.image.sigstruct();
        let is_this =
            is_same(modulus, &sigstruct.modulus) && is_same(signature, &sigstruct.signature);
        // The verification did not try a signature with another exponent.
        if is_this && sigstruct.exponent.get() == 0x10001 {
            return Ok(self.verification.signature_valid);
        }
        RustCrypto.rsa3072_verify(modulus, signature, digest)
    }
}
