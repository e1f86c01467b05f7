//! Builds SEAMLDR_PARAMS in a page of the caller's.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use zerocopy::little_endian::{U32, U64};
use zerocopy::FromZeros;

use crate::abi::{Scenario, SeamldrParams, PAGE_SIZE};
use crate::{Host, PageAddr, PhysAddr, TdxImage};

/// What a page holds that the firmware is to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// SEAMLDR_PARAMS itself.
    Params,
    /// The SIGSTRUCT.
    Sigstruct,
    /// A page of the module, counted from 0.
    Module(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Params => f.write_str("the page for SEAMLDR_PARAMS"),
            Self::Sigstruct => f.write_str("the SIGSTRUCT"),
            Self::Module(page) => write!(f, "page {page} of the module"),
        }
    }
}

/// Why an image cannot be given to SEAMLDR.INSTALL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The SIGSTRUCT area has this many pages; SEAMLDR_PARAMS version 0 takes one.
    SigstructTooLong(u32),
    /// The host has no physical address for it.
    NotMapped(Part),
    /// It lies at this address, which is not a multiple of 4096.
    Misaligned(Part, PhysAddr),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SigstructTooLong(pages) => {
                write!(f, "the image's SIGSTRUCT area has {pages} pages, but P-SEAMLDR takes 1")
            }
            Self::NotMapped(part) => write!(f, "{part} has no physical address"),
            Self::Misaligned(part, address) => {
                write!(f, "{part} lies at physical address {address}, which is not a multiple of 4096")
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// An image, ready for SEAMLDR.INSTALL. It borrows the image and the parameters, so that both stay as they are.
#[derive(Clone, Copy, Debug)]
pub struct InstallRequest<'a> {
    params: PageAddr,
    scenario: Scenario,
    borrows: PhantomData<&'a SeamldrParams>,
}

impl<'a> InstallRequest<'a> {
    /// Fills in `params`, a page of the caller's, with the addresses of the image where it lies. Nothing is copied. The
    /// image's pages need not be contiguous in physical memory; each has to lie on a 4 KiB boundary, though not on one of the
    /// host's own pages.
    ///
    /// # Errors
    ///
    /// The SIGSTRUCT is too long, or a page is not mapped or not aligned.
    pub fn build<H: Host + ?Sized>(
        params: &'a mut SeamldrParams,
        image: &TdxImage<'a>,
        scenario: Scenario,
        host: &H,
    ) -> Result<Self, BuildError> {
        if image.sigstruct_pages() != 1 {
            return Err(BuildError::SigstructTooLong(image.sigstruct_pages()));
        }
        params.zero();
        params.version = U32::new(0);
        params.scenario = U32::new(scenario.value());
        params.sigstruct_pa =
            U64::new(page_of(host, Part::Sigstruct, ptr::from_ref(image.sigstruct()).cast())?.get().0);
        let mut pages = 0;
        for (slot, page) in params.module_page_pa.iter_mut().zip(image.module().chunks_exact(PAGE_SIZE)) {
            *slot = U64::new(page_of(host, Part::Module(pages), page.as_ptr())?.get().0);
            pages = pages.wrapping_add(1); // at most 496
        }
        params.num_module_pages = U64::new(u64::from(pages));

        let params: &'a SeamldrParams = params;
        let params = page_of(host, Part::Params, ptr::from_ref(params).cast())?;
        Ok(Self { params, scenario, borrows: PhantomData })
    }

    /// Where the parameters lie.
    #[must_use]
    pub const fn params(&self) -> PageAddr {
        self.params
    }

    /// What it does to the TDs there are.
    #[must_use]
    pub const fn scenario(&self) -> Scenario {
        self.scenario
    }
}

fn page_of<H: Host + ?Sized>(host: &H, part: Part, address: *const u8) -> Result<PageAddr, BuildError> {
    let _ = address.expose_provenance();
    let physical = host.phys_addr(address).ok_or(BuildError::NotMapped(part))?;
    PageAddr::new(physical).ok_or(BuildError::Misaligned(part, physical))
}
