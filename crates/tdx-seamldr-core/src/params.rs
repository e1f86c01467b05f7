//! Builds SEAMLDR_PARAMS in a page that the caller provides.

use core::fmt;
use core::marker::PhantomData;
use core::ptr;

use zerocopy::little_endian::{U32, U64};
use zerocopy::FromZeros;

use crate::abi::{Scenario, SeamldrParamsBuffer, PAGE_SIZE};
use crate::addr::{PageAddr, PhysAddr};
use crate::count::Count;
use crate::host::{Host, MachineId};
use crate::image::TdxImage;
use crate::shared_memory::{NotShared, SharedMemory};

/// A piece of memory that P-SEAMLDR reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// SEAMLDR_PARAMS itself.
    Params,
    /// The buffer for SEAMLDR_INFO.
    Info,
    /// The SIGSTRUCT.
    Sigstruct,
    /// A page of the module, from 0.
    Module(u32),
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Params => f.write_str("the page for SEAMLDR_PARAMS"),
            Self::Info => f.write_str("the buffer for SEAMLDR_INFO"),
            Self::Sigstruct => f.write_str("the SIGSTRUCT"),
            Self::Module(page) => write!(f, "page {page} of the module"),
        }
    }
}

/// The reason why SEAMLDR.INSTALL cannot take an image from this memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildError {
    /// The SIGSTRUCT area has this many pages; SEAMLDR_PARAMS version 0 takes one.
    SigstructTooLong(u32),
    /// The host has no physical address for this part.
    NotMapped(Part),
    /// This part lies at this address, which is not a multiple of 4096.
    Misaligned(Part, PhysAddr),
    /// This part lies at this address, which is not memory that P-SEAMLDR reads for the caller.
    NotShared(Part, PhysAddr, NotShared),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SigstructTooLong(pages) => {
                write!(
                    f,
                    "the image's SIGSTRUCT area has {}, but P-SEAMLDR takes 1",
                    Count(*pages, "page")
                )
            }
            Self::NotMapped(part) => write!(f, "{part} has no physical address"),
            Self::Misaligned(part, address) => {
                write!(
                    f,
                    "{part} lies at physical address {address}, which is not a multiple of 4096"
                )
            }
            Self::NotShared(part, address, reason) => {
                let reason = match reason {
                    NotShared::AboveMaxAddress => "above the processor's highest address",
                    NotShared::InSeamRange => "inside the SEAM range",
                    NotShared::PrivateKeyId => "with a KeyID of TDX",
                };
                write!(
                    f,
                    "{part} lies at physical address {address}, {reason}: P-SEAMLDR reads only \
                     shared memory"
                )
            }
        }
    }
}

impl core::error::Error for BuildError {}

/// An image with its SEAMLDR_PARAMS, ready for SEAMLDR.INSTALL on one machine. The request borrows
/// both, so they cannot change.
///
/// [`build`](Self::build) does not check the image. Updates take images that passed
/// [`preflight`](crate::preflight).
#[derive(Clone, Copy, Debug)]
pub struct InstallRequest<'a> {
    params: PageAddr,
    scenario: Scenario,
    machine: MachineId,
    borrows: PhantomData<&'a SeamldrParamsBuffer>,
}

impl<'a> InstallRequest<'a> {
    /// Fills in `buffer` with the physical addresses of the image. The image is not copied.
    ///
    /// The image's pages need not be contiguous in physical memory. Each must lie on a 4 KiB
    /// boundary, also if the host's own pages are larger.
    ///
    /// # Errors
    ///
    /// The SIGSTRUCT is too long, or a page is not mapped or not aligned.
    pub fn build<H: Host + ?Sized>(
        buffer: &'a mut SeamldrParamsBuffer,
        image: &TdxImage<'a>,
        scenario: Scenario,
        host: &H,
    ) -> Result<Self, BuildError> {
        Self::build_in(buffer, image, scenario, host, None)
    }

    /// Does what [`build`](Self::build) does. If `memory` is given, it also checks each address by
    /// [`SharedMemory::check`].
    pub(crate) fn build_in<H: Host + ?Sized>(
        buffer: &'a mut SeamldrParamsBuffer,
        image: &TdxImage<'a>,
        scenario: Scenario,
        host: &H,
        memory: Option<&SharedMemory>,
    ) -> Result<Self, BuildError> {
        if image.sigstruct_pages() != 1 {
            return Err(BuildError::SigstructTooLong(image.sigstruct_pages()));
        }
        let page_of = |part, address: *const u8| page_of(host, memory, part, address);
        let SeamldrParamsBuffer(params) = &mut *buffer;
        params.zero();
        params.scenario = U32::new(scenario.value());
        params.sigstruct_pa =
            U64::new(page_of(Part::Sigstruct, ptr::from_ref(image.sigstruct()).cast())?.get().0);
        let mut pages = 0;
        for (slot, page) in
            params.module_page_pa.iter_mut().zip(image.module().chunks_exact(PAGE_SIZE))
        {
            *slot = U64::new(page_of(Part::Module(pages), page.as_ptr())?.get().0);
            pages = pages.wrapping_add(1); // at most 496
        }
        params.num_module_pages = U64::new(u64::from(pages));

        let buffer: &'a SeamldrParamsBuffer = buffer;
        let params = page_of(Part::Params, ptr::from_ref(buffer).cast())?;
        Ok(Self { params, scenario, machine: host.machine(), borrows: PhantomData })
    }

    /// Returns the address of SEAMLDR_PARAMS.
    #[must_use]
    pub const fn params(&self) -> PageAddr {
        self.params
    }

    /// Returns the scenario: whether the TDs live on.
    #[must_use]
    pub const fn scenario(&self) -> Scenario {
        self.scenario
    }

    /// Returns the machine that the addresses belong to.
    #[must_use]
    pub const fn machine(&self) -> MachineId {
        self.machine
    }
}

#[inline(never)] // one copy for all parts
fn page_of<H: Host + ?Sized>(
    host: &H,
    memory: Option<&SharedMemory>,
    part: Part,
    address: *const u8,
) -> Result<PageAddr, BuildError> {
    let _ = address.expose_provenance();
    let physical = host.phys_addr(address).ok_or(BuildError::NotMapped(part))?;
    let page = PageAddr::new(physical).ok_or(BuildError::Misaligned(part, physical))?;
    match memory.map_or(Ok(()), |memory| memory.check(physical)) {
        Ok(()) => Ok(page),
        Err(reason) => Err(BuildError::NotShared(part, physical, reason)),
    }
}
