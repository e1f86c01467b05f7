//! The cryptography that preflight and the simulated platform need. A kernel provides its own.

use core::fmt;

/// A SHA-384 digest.
pub type Sha384Digest = [u8; 48];

/// The SHA-384 of Intel's key for released TDX modules: of its modulus, 384 bytes in little-endian
/// order.
pub const INTEL_PRODUCTION_SIGNER: Sha384Digest = [
    0xc8, 0x57, 0x2f, 0x54, 0x88, 0x69, 0xa0, 0xbe, 0xca, 0x19, 0x37, 0x6b, //
    0x81, 0xc2, 0xdf, 0xfc, 0x2a, 0x23, 0xb5, 0xa5, 0xf7, 0x1d, 0xa0, 0xb8, //
    0x75, 0x79, 0xb4, 0x3f, 0x40, 0x8d, 0xaa, 0x1a, 0x33, 0xba, 0xd9, 0xc1, //
    0x49, 0xeb, 0x56, 0xc6, 0x34, 0xf8, 0x83, 0x73, 0x79, 0x68, 0xa3, 0x4c, //
];

/// The provider could not compute: it has no such algorithm, or no memory. The data may be valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CryptoUnavailable;

impl fmt::Display for CryptoUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the cryptography provider could not compute SHA-384 or RSA-3072")
    }
}

impl core::error::Error for CryptoUnavailable {}

/// SHA-384 and RSA-3072. Only preflight and simulations call it, never an update.
pub trait Crypto {
    /// Returns the SHA-384 of the parts in this order.
    ///
    /// # Errors
    ///
    /// The provider could not compute the digest.
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable>;

    /// Whether `signature` is a valid RSASSA-PKCS1-v1_5 signature with SHA-384 of a message with
    /// this `digest`.
    ///
    /// The key has this modulus and the exponent 65537. Modulus and signature are little-endian. A
    /// signature that is not below the modulus is not valid (RFC 8017, 8.2.2).
    ///
    /// # Errors
    ///
    /// The provider could not verify the signature.
    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable>;
}

/// A provider that computes nothing.
///
/// With it, preflight reports the hash of an image, its signature and its signer as
/// [unknown](crate::preflight::Unknown).
#[derive(Clone, Copy, Debug)]
pub struct NoCrypto;

impl Crypto for NoCrypto {
    fn sha384(&self, _: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        Err(CryptoUnavailable)
    }

    fn rsa3072_verify(
        &self,
        _: &[u8; 384],
        _: &[u8; 384],
        _: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        Err(CryptoUnavailable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_crypto_computes_nothing() {
        assert_eq!(NoCrypto.sha384(&[b"abc"]), Err(CryptoUnavailable));
        assert_eq!(NoCrypto.rsa3072_verify(&[0; 384], &[0; 384], &[0; 48]), Err(CryptoUnavailable));
    }
}
