//! The header of the handoff data that a module leaves at its shutdown.

use super::assert_layout;
use zerocopy::little_endian::{U16, U32};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header of the handoff data: the first 8 bytes of the module's data region.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
)]
#[repr(C)]
pub struct HandoffHeader {
    /// 0: not zero if data follows.
    pub valid: u8,
    /// 1: reserved.
    pub reserved: u8,
    /// 2: handoff version of the data.
    pub hv: U16,
    /// 4: bytes of data after this header.
    pub size: U32,
}

assert_layout!(HandoffHeader, 8, { valid: 0, reserved: 1, hv: 2, size: 4 });
