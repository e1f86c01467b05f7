//! Cryptography with a cache: the same few images are hashed and verified thousands of times per
//! second.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tdx_seamldr_core::{Crypto, CryptoUnavailable, Sha384Digest};
use tdx_seamldr_verify::RustCrypto;

/// The cache of this process.
pub(crate) static CRYPTO: Memo = Memo::new();

/// The most results of each kind in the cache.
const ROOM: usize = 64;

/// [`RustCrypto`] with a cache of results. The key of an entry is the whole input.
#[derive(Debug)]
pub(crate) struct Memo(Mutex<Remembered>);

#[derive(Debug)]
struct Remembered {
    digests: Vec<(Vec<u8>, Sha384Digest)>,
    verified: Vec<Verified>,
}

#[derive(Debug)]
struct Verified {
    modulus: [u8; 384],
    signature: [u8; 384],
    digest: Sha384Digest,
    valid: bool,
}

impl Memo {
    /// Returns an empty cache.
    pub(crate) const fn new() -> Self {
        Self(Mutex::new(Remembered { digests: Vec::new(), verified: Vec::new() }))
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whether the concatenated parts equal these bytes.
fn are_the_same(parts: &[&[u8]], bytes: &[u8]) -> bool {
    let mut rest = bytes;
    let is_next = |part: &&[u8]| rest.strip_prefix(*part).map(|after| rest = after).is_some();
    parts.iter().all(is_next) && rest.is_empty()
}

/// Adds an entry, and replaces the oldest one if the cache is full.
fn remember<T>(all: &mut Vec<T>, one: T) {
    if all.len() >= ROOM {
        all.remove(0);
    }
    all.push(one);
}

impl Crypto for Memo {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        let mut remembered = self.remembered();
        if let Some((_, digest)) =
            remembered.digests.iter().find(|(bytes, _)| are_the_same(parts, bytes))
        {
            return Ok(*digest);
        }
        let digest = RustCrypto.sha384(parts)?;
        remember(&mut remembered.digests, (parts.concat(), digest));
        Ok(digest)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        let mut remembered = self.remembered();
        let same = |one: &&Verified| {
            (&one.modulus, &one.signature, &one.digest) == (modulus, signature, digest)
        };
        if let Some(one) = remembered.verified.iter().find(same) {
            return Ok(one.valid);
        }
        let valid = RustCrypto.rsa3072_verify(modulus, signature, digest)?;
        let one = Verified { modulus: *modulus, signature: *signature, digest: *digest, valid };
        remember(&mut remembered.verified, one);
        Ok(valid)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_result_belongs_to_the_same_input() {
        let memo = Memo::new();
        let parts: [&[&[u8]]; 4] = [&[b"ab", b"c"], &[b"abc"], &[b"ab"], &[b"abc", b"d"]];
        for _ in 0..2 {
            for parts in parts {
                assert_eq!(memo.sha384(parts), RustCrypto.sha384(parts));
            }
        }
        assert_eq!(
            memo.remembered().digests.len(),
            3,
            "the same bytes in other parts are the same input"
        );
        for number in 0..=u8::try_from(ROOM).unwrap() {
            memo.sha384(&[&[number]]).unwrap();
        }
        assert_eq!(memo.remembered().digests.len(), ROOM);
        assert_eq!(memo.sha384(&[b"abc"]), RustCrypto.sha384(&[b"abc"]));
    }
}
