//! The memory that P-SEAMLDR reads for its caller.

use crate::addr::PhysAddr;

/// The reason why P-SEAMLDR refuses to read memory at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotShared {
    /// The address is above the highest physical address of the processor.
    AboveMaxAddress,
    /// The address lies in the SEAM range.
    InSeamRange,
    /// The address has a KeyID of TDX.
    PrivateKeyId,
}

/// The processor's settings by which P-SEAMLDR decides whether it reads memory for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedMemory {
    /// Bits of a physical address: CPUID leaf 0x80000008, EAX bits 7:0.
    pub address_bits: u8,
    /// How many of these bits are the KeyID: IA32_TME_ACTIVATE (MSR 0x982) bits 35:32.
    pub keyid_bits: u8,
    /// The first KeyID of TDX: IA32_MKTME_KEYID_PARTITIONING (MSR 0x87) bits 31:0, plus 1.
    pub first_private_keyid: u32,
    /// The first byte of the SEAM range: IA32_SEAMRR_PHYS_BASE (MSR 0x1400).
    pub seam_range_base: u64,
    /// The bytes of the SEAM range, from IA32_SEAMRR_PHYS_MASK (MSR 0x1401).
    pub seam_range_size: u64,
}

impl SharedMemory {
    /// Checks whether P-SEAMLDR reads memory at this address (SEAMLDR.INSTALL, firmware rules 8.5.5
    /// and 8.5.10-11).
    ///
    /// # Errors
    ///
    /// The rule that the address breaks.
    pub fn check(&self, address: PhysAddr) -> Result<(), NotShared> {
        let above = |bits: u8| address.0.checked_shr(bits.into()).unwrap_or(0);
        if above(self.address_bits) != 0 {
            return Err(NotShared::AboveMaxAddress);
        }
        let plain_bits = self.address_bits.saturating_sub(self.keyid_bits);
        if above(plain_bits) >= self.first_private_keyid.into() {
            return Err(NotShared::PrivateKeyId);
        }
        let plain = address.0 & !u64::MAX.checked_shl(plain_bits.into()).unwrap_or(0);
        match plain.checked_sub(self.seam_range_base) {
            Some(offset) if offset < self.seam_range_size => Err(NotShared::InSeamRange),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY: SharedMemory = SharedMemory {
        address_bits: 46,
        keyid_bits: 6,
        first_private_keyid: 0x20,
        seam_range_base: 0x1_0000_0000,
        seam_range_size: 0x0200_0000,
    };

    #[test]
    fn check_rejects_private_keyids_the_seam_range_and_too_high_addresses() {
        let check = |address| MEMORY.check(PhysAddr(address));
        assert_eq!((check(0), check(0xffff_f000)), (Ok(()), Ok(())));
        assert_eq!(check(0x1_0000_0000), Err(NotShared::InSeamRange));
        assert_eq!(check(0x1_01ff_f000), Err(NotShared::InSeamRange));
        assert_eq!(check(0x1_0200_0000), Ok(()));
        assert_eq!(check(0x1f << 40), Ok(()));
        assert_eq!(
            check(0x1f << 40 | 0x1_0000_0000),
            Err(NotShared::InSeamRange),
            "whatever the KeyID"
        );
        assert_eq!(check(0x20 << 40), Err(NotShared::PrivateKeyId));
        assert_eq!(check(1 << 46), Err(NotShared::AboveMaxAddress));
        let all_bits = SharedMemory { address_bits: 64, keyid_bits: 0, ..MEMORY };
        assert_eq!(all_bits.check(PhysAddr(u64::MAX)), Ok(()));
    }
}
