//! P_SYSINFO, which SEAMLDR.SEAMINFO writes.

use super::assert_layout;
use crate::debug::debug_fields;
use zerocopy::little_endian::{U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Sockets that the platform table has room for.
pub const MAX_SOCKETS: usize = 8;

/// A range of convertible memory, which the platform allows for TDs.
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
pub struct Cmr {
    /// 0: physical address.
    pub base: U64,
    /// 8: bytes; 0 for an unused entry.
    pub size: U64,
}

assert_layout!(Cmr, 16, { base: 0, size: 8 });

/// The first 2048 bytes of P_SYSINFO: the platform as MCHECK found it at boot.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PSysInfo {
    /// 0: version of this structure.
    pub version: U64,
    /// 8: LPs of the platform. P-SEAMLDR and the TDX module wait for each.
    pub tot_num_lps: U32,
    /// 12: sockets.
    pub tot_num_sockets: U32,
    /// 16: CPUID.1:EAX of each socket.
    pub socket_cpuid: [U32; MAX_SOCKETS],
    /// 48: physical address of P-SEAMLDR's own range, which is the end of the SEAM range.
    pub p_seamldr_base: U64,
    /// 56: bytes of P-SEAMLDR's own range.
    pub p_seamldr_size: U64,
    /// 64: not zero if the processor has no second SMRR.
    pub smrr2_not_supported: u8,
    /// 65: not zero if TDX runs without integrity protection ("tdx_ac").
    pub tdx_without_integrity: u8,
    /// 66: reserved.
    pub reserved0: [u8; 62],
    /// 128: convertible memory.
    pub cmrs: [Cmr; 32],
    /// 640: reserved.
    pub reserved1: [u8; 1408],
}

debug_fields! {
    PSysInfo, version, tot_num_lps, tot_num_sockets, socket_cpuid, p_seamldr_base, p_seamldr_size,
    smrr2_not_supported, tdx_without_integrity, reserved0, cmrs, reserved1
}

assert_layout!(PSysInfo, 2048, {
    version: 0, tot_num_lps: 8, tot_num_sockets: 12, socket_cpuid: 16, p_seamldr_base: 48,
    p_seamldr_size: 56,
    smrr2_not_supported: 64, tdx_without_integrity: 65, reserved0: 66, cmrs: 128, reserved1: 640,
});

impl PSysInfo {
    /// Returns CPUID.1:EAX of each socket, at most [`MAX_SOCKETS`].
    #[must_use]
    pub fn sockets(&self) -> &[U32] {
        let count =
            usize::try_from(self.tot_num_sockets.get()).unwrap_or(MAX_SOCKETS).min(MAX_SOCKETS);
        self.socket_cpuid.get(..count).unwrap_or(&self.socket_cpuid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_returns_the_announced_number_and_at_most_8() {
        let mut sysinfo: PSysInfo = zerocopy::FromZeros::new_zeroed();
        sysinfo.socket_cpuid = core::array::from_fn(|socket| U32::new(0x806f0 + socket as u32));
        let sockets = |announced: u32| {
            let mut sysinfo = sysinfo;
            sysinfo.tot_num_sockets = U32::new(announced);
            (sysinfo.sockets().len(), sysinfo.sockets().last().map(|cpuid| cpuid.get()))
        };
        assert_eq!(sockets(0), (0, None));
        assert_eq!(sockets(2), (2, Some(0x806f1)));
        assert_eq!(sockets(8), (8, Some(0x806f7)));
        assert_eq!(sockets(u32::MAX), (8, Some(0x806f7)));
    }
}
