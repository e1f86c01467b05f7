//! OpenSSL's SHA-384 and RSA verification, from the machine's shared library. The build needs no
//! OpenSSL.

use std::ffi::{c_int, c_long, c_uint, c_void, CStr};
use std::ptr;

use anyhow::{ensure, Context, Result};
use tdx_seamldr_core::TdxImage;

/// A constant of `evp.h`.
const EVP_PKEY_RSA: c_int = 6;

type Pointer = *mut c_void;

/// Functions of libcrypto, as its headers declare them.
pub(crate) struct OpenSsl {
    sha384: unsafe extern "C" fn() -> Pointer,
    digest: unsafe extern "C" fn(*const u8, usize, *mut u8, *mut c_uint, Pointer, Pointer) -> c_int,
    public_key: unsafe extern "C" fn(c_int, *mut Pointer, *mut *const u8, c_long) -> Pointer,
    free_key: unsafe extern "C" fn(Pointer),
    new_context: unsafe extern "C" fn() -> Pointer,
    free_context: unsafe extern "C" fn(Pointer),
    verify_init: unsafe extern "C" fn(Pointer, *mut Pointer, Pointer, Pointer, Pointer) -> c_int,
    verify: unsafe extern "C" fn(Pointer, *const u8, usize, *const u8, usize) -> c_int,
}

/// A public RSA key.
pub(crate) struct Key<'a> {
    key: Pointer,
    openssl: &'a OpenSsl,
}

impl Drop for Key<'_> {
    fn drop(&mut self) {
        // SAFETY: this value is the only owner of the key.
        unsafe { (self.openssl.free_key)(self.key) };
    }
}

/// # Safety
///
/// `F` must be the type of this function.
unsafe fn function<F: Copy>(library: Pointer, name: &CStr) -> Result<F> {
    const { assert!(size_of::<F>() == size_of::<Pointer>()) };
    // SAFETY: the library is open.
    let symbol = unsafe { libc::dlsym(library, name.as_ptr()) };
    ensure!(!symbol.is_null(), "libcrypto has no {}", name.to_string_lossy());
    // SAFETY: the caller's.
    Ok(unsafe { std::mem::transmute_copy(&symbol) })
}

impl OpenSsl {
    pub(crate) fn load() -> Result<Self> {
        let open = |name: &CStr| {
            // SAFETY: OpenSSL's initialisation changes no state of this program.
            let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW) };
            (!library.is_null()).then_some(library)
        };
        let library = [c"libcrypto.so.3", c"libcrypto.so"].into_iter().find_map(open);
        let library = library.context("there is no libcrypto (OpenSSL 3) to compare with")?;
        #[allow(clippy::multiple_unsafe_ops_per_block)] // all for the same reason
        // SAFETY: the library stays open, and the types are those in OpenSSL's headers.
        unsafe {
            Ok(Self {
                sha384: function(library, c"EVP_sha384")?,
                digest: function(library, c"EVP_Digest")?,
                public_key: function(library, c"d2i_PublicKey")?,
                free_key: function(library, c"EVP_PKEY_free")?,
                new_context: function(library, c"EVP_MD_CTX_new")?,
                free_context: function(library, c"EVP_MD_CTX_free")?,
                verify_init: function(library, c"EVP_DigestVerifyInit")?,
                verify: function(library, c"EVP_DigestVerify")?,
            })
        }
    }

    /// Returns the key with this modulus, little-endian, and the exponent 65537.
    pub(crate) fn key(&self, modulus: &[u8; 384]) -> Result<Key<'_>> {
        // RSAPublicKey of RFC 8017: a sequence of two integers, the first of 385 bytes because its
        // highest bit is set.
        let mut der = vec![0x30, 0x82, 0x01, 0x8a, 0x02, 0x82, 0x01, 0x81, 0x00];
        der.extend(modulus.iter().rev());
        der.extend([0x02, 0x03, 0x01, 0x00, 0x01]);
        let len = c_long::try_from(der.len())?;
        // SAFETY: the call reads `len` bytes.
        let key =
            unsafe { (self.public_key)(EVP_PKEY_RSA, ptr::null_mut(), &mut der.as_ptr(), len) };
        ensure!(!key.is_null(), "OpenSSL does not take the key");
        Ok(Key { key, openssl: self })
    }

    /// Whether the key signed the SIGSTRUCT, and the SIGSTRUCT has the module's hash.
    pub(crate) fn verify(&self, key: &Key<'_>, image: &TdxImage<'_>) -> Result<bool> {
        // SAFETY: takes nothing.
        let sha384 = unsafe { (self.sha384)() };
        let (module, mut digest) = (image.module(), [0; 48]);
        // SAFETY: the call reads the module, and writes the 48 bytes of the digest.
        let hashed = unsafe {
            let length = ptr::null_mut();
            (self.digest)(
                module.as_ptr(),
                module.len(),
                digest.as_mut_ptr(),
                length,
                sha384,
                ptr::null_mut(),
            )
        };
        let sigstruct = image.sigstruct();
        let signed = sigstruct.signed_parts().concat();
        let mut signature = sigstruct.signature;
        signature.reverse();
        // SAFETY: takes nothing.
        let context = unsafe { (self.new_context)() };
        ensure!(hashed == 1 && !context.is_null(), "OpenSSL fails");
        // SAFETY: the context is new. PKCS #1 v1.5 is the default.
        let ready = unsafe {
            (self.verify_init)(context, ptr::null_mut(), sha384, ptr::null_mut(), key.key)
        };
        // SAFETY: the call reads both slices.
        let valid = unsafe {
            (self.verify)(
                context,
                signature.as_ptr(),
                signature.len(),
                signed.as_ptr(),
                signed.len(),
            )
        };
        // SAFETY: this function made the context and does not use it again.
        unsafe { (self.free_context)(context) };
        ensure!(ready == 1, "OpenSSL does not begin to verify");
        Ok(valid == 1 && digest == sigstruct.seamhash)
    }
}
