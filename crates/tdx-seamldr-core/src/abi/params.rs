//! SEAMLDR_PARAMS, which SEAMLDR.INSTALL reads.

use super::{assert_layout, PAGE_SIZE};
use crate::debug::debug_fields;
use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Pages of a module that SEAMLDR_PARAMS has room for.
pub const MAX_MODULE_PAGES: usize = 496;

/// The effect of SEAMLDR.INSTALL on existing TDs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Scenario {
    /// Start without TDs: all TDs are lost.
    Load = 0,
    /// Keep the handoff data of the module that was shut down, so that the TDs can live on.
    Update = 1,
}

impl Scenario {
    /// Returns the value in SEAMLDR_PARAMS.
    #[must_use]
    #[allow(clippy::as_conversions)] // the discriminant of a repr(u32) enum
    pub const fn value(self) -> u32 {
        self as u32
    }
}

/// SEAMLDR_PARAMS: one page of 4096 bytes.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SeamldrParams {
    /// 0: version of this structure, 0.
    pub version: U32,
    /// 4: see [`Scenario`].
    pub scenario: U32,
    /// 8: physical address of the SIGSTRUCT's page.
    pub sigstruct_pa: U64,
    /// 16: zero.
    pub reserved: [u8; 104],
    /// 120: pages of the module.
    pub num_module_pages: U64,
    /// 128: physical address of each page of the module.
    pub module_page_pa: [U64; MAX_MODULE_PAGES],
}

debug_fields! {
    SeamldrParams, version, scenario, sigstruct_pa, reserved, num_module_pages, module_page_pa
}

assert_layout!(SeamldrParams, PAGE_SIZE, {
    version: 0, scenario: 4, sigstruct_pa: 8, reserved: 16, num_module_pages: 120,
    module_page_pa: 128,
});
