//! SEAMLDR_PARAMS: from an image and a host's addresses, and from bytes.

use std::sync::LazyLock;

use tdx_seamldr_core::abi::{Scenario, SeamldrParams, MAX_MODULE_PAGES, PAGE_SIZE};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::{BuildError, Host, InstallRequest, Part, Patience, PhysAddr, TdxImage};
use tdx_seamldr_core::{SeamcallBackend, SeamcallRegs, Trap};
use tdx_seamldr_mock::PageBuf;
use zerocopy::{FromBytes, IntoBytes};

use super::numbers::Numbers;

/// Host memory. Each page of the image lies at `base` plus its number times `stride`, except one
/// page that is missing and one that is moved.
struct Scattered {
    image: usize,
    len: usize,
    base: u64,
    stride: u64,
    params: Option<u64>,
    hole: Option<usize>,
    moved: (usize, u64),
}

impl Scattered {
    /// Returns the address of a page of the file, counted from the file's header.
    fn page(&self, page: usize) -> Option<u64> {
        let number = u64::try_from(page).unwrap();
        let place = self.base.wrapping_add(number.wrapping_mul(self.stride));
        let moved = if page == self.moved.0 { self.moved.1 } else { 0 };
        (self.hole != Some(page)).then(|| place.wrapping_add(moved))
    }
}

// SAFETY: this backend makes no call.
unsafe impl SeamcallBackend for Scattered {
    unsafe fn seamcall(&self, _: &mut SeamcallRegs) -> Result<(), Trap> {
        Err(Trap::UndefinedOpcode)
    }
}

// SAFETY: firmware never gets these addresses.
unsafe impl Host for Scattered {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        1
    }

    fn relax(&self) -> Patience {
        Patience::GiveUp
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        let offset = address.addr().checked_sub(self.image).filter(|offset| *offset < self.len);
        offset.map_or(self.params, |offset| self.page(offset / PAGE_SIZE)).map(PhysAddr)
    }
}

/// Numbers of pages of SIGSTRUCT area and module.
const SIZES: [(usize, usize); 9] =
    [(1, 1), (1, 2), (1, 3), (1, 8), (1, 16), (1, 495), (1, MAX_MODULE_PAGES), (2, 3), (4, 1)];

/// An image of each of these sizes.
static IMAGES: LazyLock<Vec<PageBuf>> = LazyLock::new(|| {
    let image = |(sigstruct_pages, module_pages): (usize, usize)| {
        let sigstruct = vec![0; sigstruct_pages.saturating_mul(PAGE_SIZE)];
        let module = vec![0; module_pages.saturating_mul(PAGE_SIZE)];
        let parts = ImageParts { sigstruct: &sigstruct, module: &module };
        let mut file = PageBuf::copy_of(&vec![0; parts.file_len().unwrap()]);
        parts.write(ImageFormat::BlobV1, file.as_mut_bytes()).unwrap();
        file
    };
    SIZES.into_iter().map(image).collect()
});

/// Runs `work` with a valid request.
pub(super) fn prepared<R>(work: impl FnOnce(&InstallRequest<'_>) -> R) -> R {
    let mut params = PageBuf::zeroed(1);
    let file = IMAGES.first().unwrap().as_bytes();
    let host = Scattered {
        image: file.as_ptr().addr(),
        len: file.len(),
        base: 0x10_0000,
        stride: 0x1000,
        params: Some(0x1000),
        hole: None,
        moved: (0, 0),
    };
    let image = TdxImage::parse(file).unwrap();
    work(&InstallRequest::build(params.as_params(), &image, Scenario::Update, &host).unwrap())
}

/// Converts bytes to SEAMLDR_PARAMS and back. Also prepares an image on a host with these
/// addresses: SEAMLDR_PARAMS contain all addresses, or the error names the first page without a
/// valid address.
pub fn params_roundtrip(input: &[u8]) {
    let mut page = PageBuf::zeroed(1);
    page.as_mut_bytes().iter_mut().zip(input).for_each(|(slot, byte)| *slot = *byte);
    let params = SeamldrParams::read_from_bytes(page.as_bytes()).unwrap();
    assert_eq!(params.as_bytes(), page.as_bytes());

    let mut numbers = Numbers(input);
    let size = usize::from(numbers.u8()).checked_rem(SIZES.len()).unwrap();
    let ((sigstruct_pages, module_pages), file) = (SIZES[size], &IMAGES[size]);
    let pages = sigstruct_pages.saturating_add(module_pages).saturating_add(1);
    let flags = numbers.u8();
    let scenario = if flags & 1 == 0 { Scenario::Update } else { Scenario::Load };
    let (base, stride, params) = (numbers.u64(), numbers.u64(), numbers.u64());
    let [hole, moved] =
        [numbers.u16(), numbers.u16()].map(|page| usize::from(page).checked_rem(pages).unwrap());
    let host = Scattered {
        image: file.as_bytes().as_ptr().addr(),
        len: file.as_bytes().len(),
        // Half of the inputs are page-aligned; most others are refused at once.
        base: if flags & 2 == 0 { base << 12 } else { base },
        stride: if flags & 4 == 0 { stride << 12 } else { stride },
        params: (flags & 8 == 0).then_some(if flags & 16 == 0 { params << 12 } else { params }),
        hole: (flags & 32 != 0).then_some(hole),
        moved: (moved, if flags & 64 == 0 { 0 } else { u64::from(numbers.u16()) }),
    };
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let found = InstallRequest::build(page.as_params(), &image, scenario, &host);
    let named = |part, address: Option<u64>| match address.map(PhysAddr) {
        None => Some(BuildError::NotMapped(part)),
        Some(address) => {
            (!address.is_aligned(PAGE_SIZE)).then_some(BuildError::Misaligned(part, address))
        }
    };
    let mut wanted = (sigstruct_pages != 1)
        .then_some(BuildError::SigstructTooLong(sigstruct_pages.try_into().unwrap()))
        .or_else(|| named(Part::Sigstruct, host.page(1)));
    for number in 0..module_pages {
        let part = Part::Module(number.try_into().unwrap());
        wanted = wanted.or_else(|| named(part, host.page(number.saturating_add(2))));
    }
    wanted = wanted.or_else(|| named(Part::Params, host.params));
    match (found, wanted) {
        (Err(found), Some(wanted)) => {
            assert_eq!(found, wanted);
            assert!(!found.to_string().is_empty());
        }
        (Ok(request), None) => {
            assert_eq!(
                (Some(request.params().get().0), request.scenario()),
                (host.params, scenario)
            );
            let params = SeamldrParams::read_from_bytes(page.as_bytes()).unwrap();
            assert_eq!((params.version.get(), params.scenario.get()), (0, scenario.value()));
            assert!(params.reserved.iter().all(|byte| *byte == 0));
            assert_eq!(Some(params.sigstruct_pa.get()), host.page(1));
            assert_eq!(params.num_module_pages.get(), u64::try_from(module_pages).unwrap());
            for (number, address) in params.module_page_pa.iter().enumerate() {
                let wanted = if number < module_pages {
                    host.page(number.saturating_add(2))
                } else {
                    Some(0)
                };
                assert_eq!(Some(address.get()), wanted, "page {number}");
            }
        }
        (found, wanted) => panic!("{found:?}, but wanted {wanted:?}"),
    }
}
