//! Images of modules, signed with the key that platforms trust if their description names no other.

use std::ffi::c_void;

use tdx_seamldr_core::abi::MAX_MODULE_PAGES;
use tdx_seamldr_mock::TestImage;
use zerocopy::IntoBytes;

use crate::status::guarded;
use crate::{pointer, TdxSimStatus, TDX_SIM_PAGE_SIZE};

/// A module's image that is to be made. tdx_sim_image_defaults() fills it in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimImage {
    /// 4 KiB pages of the module, 3 to 496.
    pub pages: u32,
    /// YYYYMMDD, one hexadecimal digit each.
    pub date: u32,
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// Major SVN. It decides about the version, as with released modules.
    pub svn_major: u8,
    /// Minor SVN. It decides about the version, as with released modules.
    pub svn_minor: u8,
    /// Not 0: writes the highest handoff version only.
    pub no_downgrade: u8,
    /// Not 0: a debug module.
    pub debug: u8,
}

impl TdxSimImage {
    fn test_image(&self) -> Result<TestImage, TdxSimStatus> {
        let pages = usize::try_from(self.pages).ok().filter(|pages| (3..=MAX_MODULE_PAGES).contains(pages));
        Ok(TestImage {
            pages: pages.ok_or(TdxSimStatus::BadArgument)?,
            date: self.date,
            module_hv: self.module_hv,
            min_update_hv: self.min_update_hv,
            num_handoff_pages: self.num_handoff_pages,
            svn_major: self.svn_major,
            svn_minor: self.svn_minor,
            no_downgrade: self.no_downgrade != 0,
            debug: self.debug != 0,
            ..TestImage::default()
        })
    }
}

/// Fills in an image of 8 pages, much like the released module 1.5.05 (SVN 1.5).
///
/// Errors: NULL; UNALIGNED.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_image_defaults(image: *mut TdxSimImage) -> TdxSimStatus {
    guarded(|| {
        let test_image = TestImage::default();
        let defaults = TdxSimImage {
            pages: u32::try_from(test_image.pages).unwrap_or(3),
            date: test_image.date,
            module_hv: test_image.module_hv,
            min_update_hv: test_image.min_update_hv,
            num_handoff_pages: test_image.num_handoff_pages,
            svn_major: test_image.svn_major,
            svn_minor: test_image.svn_minor,
            no_downgrade: test_image.no_downgrade.into(),
            debug: test_image.debug.into(),
        };
        // SAFETY: this function's contract.
        unsafe { pointer::write(image, defaults) }
    })
}

/// Makes a module's image, in the parts that SEAMLDR.INSTALL reads: `sigstruct` gets one page with the SIGSTRUCT, signed with a
/// test key, and `module` gets `image->pages` pages. Platforms trust that key if their description has no `signer_key_sha384`.
///
/// Errors: NULL; UNALIGNED; BAD_ARGUMENT: `image->pages` is not 3 to 496; BUFFER_TOO_SMALL: `sigstruct_size` is less than 4096,
/// or `module_size` less than 4096 for each page.
///
/// # Safety
///
/// `image` leads to a tdx_sim_image that may be read, `sigstruct` to `sigstruct_size` bytes and `module` to `module_size` bytes
/// that may be written. While this runs, no other thread accesses them.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_test_image(
    image: *const TdxSimImage,
    sigstruct: *mut c_void,
    sigstruct_size: usize,
    module: *mut c_void,
    module_size: usize,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        let image = unsafe { pointer::read(image) }?.test_image()?;
        if sigstruct.is_null() || module.is_null() {
            return Err(TdxSimStatus::Null);
        }
        let module_bytes = image.module();
        if sigstruct_size < TDX_SIM_PAGE_SIZE || module_size < module_bytes.len() {
            return Err(TdxSimStatus::BufferTooSmall);
        }
        let signed = image.sigstruct(&module_bytes);
        let mut page = [0; TDX_SIM_PAGE_SIZE];
        page.iter_mut().zip(signed.as_bytes()).for_each(|(slot, byte)| *slot = *byte);
        // SAFETY: this function's contract; there is room for a page.
        unsafe { pointer::copy_out(&page, sigstruct.cast()) };
        // SAFETY: this function's contract; there is room for the module.
        unsafe { pointer::copy_out(&module_bytes, module.cast()) };
        Ok(())
    })
}
