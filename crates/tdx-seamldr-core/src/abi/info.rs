//! SEAMLDR_INFO, which SEAMLDR.INFO writes.

use super::{assert_layout, SeamldrFeatures0, Svn};
use crate::debug::debug_fields;
use core::mem::offset_of;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// SEAMEXTEND (136 bytes): the module that P-SEAMLDR installed, as the processor attests it.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SeamExtend {
    /// 0: which of the following fields are valid; 0x1FF after a module was installed, 0 without a
    /// module.
    pub valid: U64,
    /// 8: TEE_TCB_SVN: minor SVN, major SVN, SVN of the last patch, 13 bytes reserved.
    pub tee_tcb_svn: [u8; 16],
    /// 24: SHA-384 of the module's image.
    pub mrseam: [u8; 48],
    /// 72: SHA-384 of the signer; zero for Intel's own modules.
    pub mrsigner: [u8; 48],
    /// 120: attributes of the module.
    pub attributes: U64,
    /// 128: 1 while the module can be called.
    pub seam_ready: u8,
    /// 129: not zero if the system is being debugged.
    pub system_under_debug: u8,
    /// 130: 1 while P-SEAMLDR can be called.
    pub p_seamldr_ready: u8,
    /// 131: reserved.
    pub reserved: [u8; 5],
}

debug_fields! {
    SeamExtend, valid, tee_tcb_svn, mrseam, mrsigner, attributes, seam_ready, system_under_debug,
    p_seamldr_ready, reserved
}

assert_layout!(SeamExtend, 136, {
    valid: 0, tee_tcb_svn: 8, mrseam: 24, mrsigner: 72, attributes: 120,
    seam_ready: 128, system_under_debug: 129, p_seamldr_ready: 130, reserved: 131,
});

impl SeamExtend {
    /// `valid` after a module was installed.
    pub const VALID: u64 = 0x1ff;

    /// Returns the security version of the module.
    #[must_use]
    pub const fn svn(&self) -> Svn {
        let [minor, major, ..] = self.tee_tcb_svn;
        Svn { major, minor }
    }
}

/// SEAMLDR_INFO (256 bytes). The buffer must be aligned to 256 bytes.
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SeamldrInfo {
    /// 0: version of this structure, 0.
    pub version: U32,
    /// 4: bit 31: a debug build of P-SEAMLDR.
    pub attributes: U32,
    /// 8: 0x8086.
    pub vendor: U32,
    /// 12: build date: YYYYMMDD, a decimal number.
    pub build_date: U32,
    /// 16: build number.
    pub build_num: U16,
    /// 18: minor version.
    pub minor: U16,
    /// 20: major version.
    pub major: U16,
    /// 22: update version; the published versions of P-SEAMLDR write 0.
    pub update: U16,
    /// 24: x2APIC ID of the LP that must call SEAMLDR.SHUTDOWN last.
    pub acm_x2apicid: U32,
    /// 28: how many more modules P-SEAMLDR can install before a reboot.
    pub num_remaining_updates: U32,
    /// 32: a copy of SEAMEXTEND.
    pub seamextend: SeamExtend,
    /// 168: features; older versions of P-SEAMLDR write 0.
    pub features0: U64,
    /// 176: reserved.
    pub reserved: [u8; 80],
}

debug_fields! {
    SeamldrInfo, version, attributes, vendor, build_date, build_num, minor, major, update,
    acm_x2apicid, num_remaining_updates, seamextend, features0, reserved
}

assert_layout!(SeamldrInfo, 256, {
    version: 0, attributes: 4, vendor: 8, build_date: 12, build_num: 16, minor: 18, major: 20,
    update: 22, acm_x2apicid: 24, num_remaining_updates: 28, seamextend: 32, features0: 168,
    reserved: 176,
});
const _: () =
    assert!(offset_of!(SeamldrInfo, seamextend) + offset_of!(SeamExtend, seam_ready) == 160);

impl SeamldrInfo {
    /// Bit 31 of `attributes`.
    pub const ATTRIBUTE_DEBUG: u32 = 1 << 31;

    /// Returns the features of P-SEAMLDR.
    #[must_use]
    pub fn features(&self) -> SeamldrFeatures0 {
        SeamldrFeatures0::from_bits_retain(self.features0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::SeamldrInfoBuffer;

    #[test]
    fn svn_and_features_are_read_from_their_fields() {
        let SeamldrInfoBuffer(mut info) = SeamldrInfoBuffer::zeroed();
        info.seamextend.tee_tcb_svn = [5, 1, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        info.features0 = U64::new(2);
        assert_eq!(info.seamextend.svn(), Svn { major: 1, minor: 5 });
        assert_eq!(info.features(), SeamldrFeatures0::CLEANUP);
        assert_eq!(SeamldrInfo::ATTRIBUTE_DEBUG, 0x8000_0000);
    }
}
