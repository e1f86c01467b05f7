//! What a platform is made of: LPs, sockets, address widths, the SEAM range, and what is special
//! about it.

use core::fmt;

use tdx_seamldr_core::abi::{Cmr, PSysInfo};
use tdx_seamldr_core::Sha384Digest;
use zerocopy::little_endian::{U32, U64};
use zerocopy::FromZeros;

use super::lp::MAX_LPS;
use super::LoaderProfile;

/// What a platform is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// LPs that firmware counts. P-SEAMLDR and the module wait for so many.
    pub num_lps: u32,
    /// The x2APIC ids of the LPs of a package are multiples of this, apart from the package's own
    /// bits.
    pub x2apic_stride: u32,
    /// An x2APIC id without its lowest bits, so many, is the number of the package.
    pub package_shift: u32,
    /// Sockets.
    pub num_sockets: u32,
    /// CPUID.1:EAX of each socket.
    pub socket_fms: [u32; 8],
    /// LPs that could share a socket's last-level cache, by CPUID leaf 4.
    pub addressable_lps_per_socket: u32,
    /// The LP on which SEAMLDR.SHUTDOWN has to end.
    pub acm_x2apicid: u32,
    /// Width of physical addresses, KeyID bits included.
    pub max_pa: u32,
    /// KeyID bits, at the top of physical addresses.
    pub keyid_bits: u32,
    /// The first KeyID that only TDs may use.
    pub private_hkid_min: u64,
    /// Where the SEAM range begins.
    pub seamrr_base: u64,
    /// Its size, a power of two.
    pub seamrr_size: u64,
    /// P-SEAMLDR's own part, at the end of it.
    pub p_seamldr_size: u64,
    /// SHA-384 of the modulus of the key that P-SEAMLDR trusts.
    pub signer: Sha384Digest,
    /// Debug modules may be installed.
    pub debug_unlocked: bool,
    /// RDRAND gives numbers.
    pub rdrand_ok: bool,
    /// The number that it gives.
    pub rdrand_value: u64,
    /// It fails so many times before.
    pub rdrand_failures: u32,
    /// SEAMOPS capabilities of LPs when the platform is made.
    pub seamops_capabilities: u64,
    /// What SEAMOPS(SEAMDB_GETREF) tells the module; 0 is success.
    pub seamdb_getref_error: u32,
    /// What PCONFIG tells the module; 0 is success.
    pub pconfig_error: u32,
    /// The processor has the erratum: when P-SEAMLDR returns, the LP has no current VMCS any more.
    pub seamret_clears_vmcs: bool,
    /// A full SEAMDB answers with an error that P-SEAMLDR is not prepared for. The specifications
    /// leave it open; otherwise the answer is want of entropy.
    pub full_seamdb_is_fatal: bool,
    /// A signature that is not below the modulus is reduced first, as one crypto library does.
    /// Otherwise it is bad.
    pub accepts_large_signatures: bool,
    /// The generation of P-SEAMLDR.
    pub profile: LoaderProfile,
}

/// A platform that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The number of LPs is not 1 to 1,024.
    Lps(u32),
    /// The number of sockets is not 1 to 8, or more than there are LPs.
    Sockets(u32),
    /// With so many sockets and LPs, x2APIC ids would go beyond 1,023, which P-SEAMLDR does not
    /// take.
    X2apicIds {
        /// The number of LPs.
        lps: u32,
        /// The number of sockets.
        sockets: u32,
    },
    /// The number of LPs that there are is not 1 to 1,024, or less than the number of LPs that
    /// firmware counts.
    ListedLps {
        /// LPs that there are.
        listed: usize,
        /// LPs that firmware counts.
        counted: u32,
    },
    /// Two LPs have the same x2APIC id.
    X2apicIdTwice {
        /// The id.
        id: u32,
        /// Their places in the list.
        lps: [usize; 2],
    },
    /// No LP has the x2APIC id of the LP on which SEAMLDR.SHUTDOWN has to end.
    AcmLp(u32),
    /// Physical addresses have more than 52 bits, or no bits beside those of the KeyID.
    AddressBits {
        /// Bits of physical addresses, KeyID bits included.
        max_pa: u32,
        /// KeyID bits.
        keyid_bits: u32,
    },
    /// The size of the SEAM range is not a power of two with room for P-SEAMLDR's own part and a
    /// module's code.
    SeamRangeSize {
        /// Its size.
        size: u64,
        /// The size of P-SEAMLDR's own part.
        p_seamldr_size: u64,
    },
    /// The SEAM range does not begin at a multiple of its size, or lies beyond the end of physical
    /// addresses.
    SeamRangeBase {
        /// Where it begins.
        base: u64,
        /// Its size.
        size: u64,
    },
    /// A socket has not 1 to 1,024 addressable LPs.
    AddressableLps(u32),
    /// More entries of the SEAM database are in use than there is room for.
    SeamDb {
        /// Entries that it has room for.
        size: u32,
        /// Entries in use.
        used: u32,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => {
                write!(f, "the platform has {found} LPs, but should have 1 to {MAX_LPS}")
            }
            Self::Sockets(found) => {
                write!(
                    f,
                    "the platform has {found} sockets, but should have 1 to 8 and not more than \
                     LPs"
                )
            }
            Self::X2apicIds { lps, sockets } => {
                write!(
                    f,
                    "{lps} LPs on {sockets} sockets have x2APIC ids above 1023, but P-SEAMLDR \
                     takes none of them"
                )
            }
            Self::ListedLps { listed, counted } => write!(
                f,
                "firmware counts {counted} LPs (num_lps) and {listed} have an x2APIC id; there \
                 should be 1 to {MAX_LPS} ids, and as many as LPs are counted"
            ),
            Self::X2apicIdTwice { id, lps: [first, second] } => {
                write!(
                    f,
                    "LP {first} and LP {second} both have the x2APIC id {id}; each should have \
                     its own"
                )
            }
            Self::AcmLp(id) => {
                write!(f, "acm_x2apicid is {id}, but no LP has this x2APIC id")
            }
            Self::AddressBits { max_pa, keyid_bits } => write!(
                f,
                "{keyid_bits} of {max_pa} address bits are KeyID bits (keyid_bits, max_pa); there \
                 should be at most 52, and fewer KeyID bits than address bits"
            ),
            Self::SeamRangeSize { size, p_seamldr_size } => write!(
                f,
                "seamrr_size is {size:#x}, but should be a power of two above {p_seamldr_size:#x} \
                 (P-SEAMLDR) and 2 MiB (code)"
            ),
            Self::SeamRangeBase { base, size } => write!(
                f,
                "seamrr_base is {base:#x}, but should be a multiple of seamrr_size ({size:#x}) \
                 within physical addresses"
            ),
            Self::SeamDb { size, used } => {
                write!(
                    f,
                    "{used} entries of the SEAM database are in use, but it has room for {size}"
                )
            }
            Self::AddressableLps(found) => {
                write!(f, "addressable_lps_per_socket is {found}, but should be 1 to {MAX_LPS}")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// A platform of so many LPs, evenly over its sockets, all with the same processor. x2APIC ids
    /// have gaps where there is room for gaps.
    ///
    /// # Errors
    ///
    /// There is no such platform.
    pub fn new(
        num_lps: u32,
        num_sockets: u32,
        fms: u32,
        signer: Sha384Digest,
        profile: LoaderProfile,
    ) -> Result<Self, ConfigError> {
        if num_lps == 0 || usize::try_from(num_lps).map_or(true, |lps| lps > MAX_LPS) {
            return Err(ConfigError::Lps(num_lps));
        }
        if !(1..=8).contains(&num_sockets) || num_sockets > num_lps {
            return Err(ConfigError::Sockets(num_sockets));
        }
        // Every other id is left out if P-SEAMLDR's table of 1,024 has room for that.
        let slots = num_lps.div_ceil(num_sockets).next_power_of_two();
        let gap = if slots.saturating_mul(2).saturating_mul(num_sockets) <= 1024 { 1 } else { 0 };
        let slots = slots << gap;
        if slots.saturating_mul(num_sockets) > 1024 {
            return Err(ConfigError::X2apicIds { lps: num_lps, sockets: num_sockets });
        }
        Ok(Self {
            num_lps,
            x2apic_stride: 1 << gap,
            package_shift: slots.trailing_zeros(),
            num_sockets,
            socket_fms: [fms; 8],
            addressable_lps_per_socket: slots,
            acm_x2apicid: 0,
            max_pa: 46,
            keyid_bits: 6,
            private_hkid_min: 0x20,
            seamrr_base: 0x20_0000_0000,
            seamrr_size: 256 << 20,
            p_seamldr_size: 4 << 20,
            signer,
            debug_unlocked: false,
            rdrand_ok: true,
            rdrand_value: 0x5a5a_1234_dead_beef,
            rdrand_failures: 0,
            seamops_capabilities: 0x7f,
            seamdb_getref_error: 0,
            pconfig_error: 0,
            seamret_clears_vmcs: false,
            full_seamdb_is_fatal: false,
            accepts_large_signatures: false,
            profile,
        })
    }

    /// Checks that there can be such a platform, with LPs that have these x2APIC ids.
    ///
    /// # Errors
    ///
    /// See [`ConfigError`]: the first contradiction.
    pub fn check(&self, x2apic_ids: &[u32]) -> Result<(), ConfigError> {
        let (listed, counted) = (x2apic_ids.len(), self.num_lps);
        let enough = usize::try_from(counted).is_ok_and(|counted| (1..=listed).contains(&counted));
        if listed > MAX_LPS || !enough {
            return Err(ConfigError::ListedLps { listed, counted });
        }
        if !(1..=8).contains(&self.num_sockets) || self.num_sockets > self.num_lps {
            return Err(ConfigError::Sockets(self.num_sockets));
        }
        for (second, id) in x2apic_ids.iter().enumerate() {
            if let Some(first) = x2apic_ids.iter().take(second).position(|other| other == id) {
                return Err(ConfigError::X2apicIdTwice { id: *id, lps: [first, second] });
            }
        }
        if !x2apic_ids.contains(&self.acm_x2apicid) {
            return Err(ConfigError::AcmLp(self.acm_x2apicid));
        }
        if self.max_pa > 52 || self.keyid_bits >= self.max_pa {
            return Err(ConfigError::AddressBits {
                max_pa: self.max_pa,
                keyid_bits: self.keyid_bits,
            });
        }
        let (base, size, p_seamldr_size) =
            (self.seamrr_base, self.seamrr_size, self.p_seamldr_size);
        let code = p_seamldr_size.checked_add(2 << 20);
        if !size.is_power_of_two() || code.is_none_or(|code| code >= size) {
            return Err(ConfigError::SeamRangeSize { size, p_seamldr_size });
        }
        let end = base.checked_add(size);
        if base & size.wrapping_sub(1) != 0 || end.is_none_or(|end| end > self.address_limit()) {
            return Err(ConfigError::SeamRangeBase { base, size });
        }
        let addressable = self.addressable_lps_per_socket;
        if addressable == 0 || usize::try_from(addressable).map_or(true, |lps| lps > MAX_LPS) {
            return Err(ConfigError::AddressableLps(addressable));
        }
        Ok(())
    }

    /// CPUID.1:EAX of each socket there is.
    #[must_use]
    pub fn sockets(&self) -> &[u32] {
        let count = usize::try_from(self.num_sockets).unwrap_or(self.socket_fms.len());
        self.socket_fms.get(..count).unwrap_or(&self.socket_fms)
    }

    /// The x2APIC ids of the LPs that firmware counts: those of each socket from 0 up, with its
    /// number above.
    pub fn x2apic_ids(&self) -> impl Iterator<Item = u32> + '_ {
        let lps = self.num_lps;
        let socket_of = move |lp: u32| {
            let product = u64::from(lp).saturating_mul(self.num_sockets.into());
            product
                .checked_div(lps.into())
                .and_then(|socket| u32::try_from(socket).ok())
                .unwrap_or(0)
        };
        let mut before = None;
        let mut local = 0u32;
        (0..lps).map(move |lp| {
            let socket = socket_of(lp);
            local =
                if before == Some(socket) { local.saturating_add(self.x2apic_stride) } else { 0 };
            before = Some(socket);
            socket.checked_shl(self.package_shift).unwrap_or(0) | local
        })
    }

    /// Where P-SEAMLDR's own part begins.
    #[must_use]
    pub const fn p_seamldr_base(&self) -> u64 {
        self.seamrr_base.wrapping_add(self.seamrr_size).wrapping_sub(self.p_seamldr_size)
    }

    /// What firmware tells P-SEAMLDR and the module about the platform. Convertible memory is what
    /// lies from 1 MiB to 2 GiB without the 16 MiB at its end that SMRRs cover, and from 4 GiB
    /// on without the SEAM range.
    #[must_use]
    pub fn platform_table(&self) -> PSysInfo {
        let mut table = PSysInfo::new_zeroed();
        table.tot_num_lps = U32::new(self.num_lps);
        table.tot_num_sockets = U32::new(self.num_sockets);
        for (slot, fms) in table.socket_cpuid.iter_mut().zip(self.sockets()) {
            *slot = U32::new(*fms);
        }
        table.p_seamldr_base = U64::new(self.p_seamldr_base());
        table.p_seamldr_size = U64::new(self.p_seamldr_size);
        let seam_end = self.seamrr_base.wrapping_add(self.seamrr_size);
        let regions =
            [(1 << 20, 0x7f00_0000), (4 << 30, self.seamrr_base), (seam_end, self.address_limit())];
        let sizes = regions.map(|(start, end): (u64, u64)| (start, end.saturating_sub(start)));
        for (slot, (base, size)) in
            table.cmrs.iter_mut().zip(sizes.into_iter().filter(|(_, size)| *size != 0))
        {
            *slot = Cmr { base: U64::new(base), size: U64::new(size) };
        }
        table
    }

    /// LP slots that a module's memory is laid out for.
    pub(super) fn addressable_lps(&self) -> u32 {
        self.addressable_lps_per_socket.next_power_of_two().saturating_mul(self.num_sockets)
    }

    /// Bytes for the module.
    pub(super) const fn memory_available(&self) -> u64 {
        self.p_seamldr_base().wrapping_sub(self.seamrr_base)
    }

    /// Where physical memory ends, without KeyIDs.
    pub(super) fn address_limit(&self) -> u64 {
        1u64.checked_shl(self.max_pa.saturating_sub(self.keyid_bits)).unwrap_or(0)
    }

    /// Whether the host may give this address to firmware for an object of that alignment.
    pub(super) fn is_shared(&self, address: u64, alignment: u64) -> bool {
        let address_bits = self.max_pa.saturating_sub(self.keyid_bits);
        let keyid = address.checked_shr(address_bits).unwrap_or(0);
        let plain = address & self.address_limit().wrapping_sub(1);
        address & alignment.wrapping_sub(1) == 0
            && address.checked_shr(self.max_pa).unwrap_or(0) == 0
            && keyid < self.private_hkid_min
            && plain.wrapping_sub(self.seamrr_base) >= self.seamrr_size
    }

    /// RDRAND is executed: whether it gives a number.
    pub(super) fn rdrand(&mut self) -> bool {
        let fails = self.rdrand_failures != 0;
        self.rdrand_failures = self.rdrand_failures.saturating_sub(1);
        self.rdrand_ok && !fails
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_within_the_ranges_fills_its_sockets_or_is_refused() {
        for sockets in 1..=8 {
            for lps in 1..=1024 {
                match Config::new(lps, sockets, 0x806f8, [0; 48], LoaderProfile::V1_5_00) {
                    Ok(config) => {
                        let mut seen = [0u64; 16];
                        let mut packages = 0u32;
                        for id in config.x2apic_ids() {
                            assert!(id < 1024);
                            assert!(super::super::lp::insert(&mut seen, id), "{id} twice");
                            packages |= 1 << (id >> config.package_shift);
                        }
                        assert_eq!(seen.iter().map(|word| word.count_ones()).sum::<u32>(), lps);
                        assert_eq!(packages, (1 << sockets) - 1, "{lps} LPs, {sockets} sockets");
                    }
                    Err(ConfigError::Sockets(_)) => assert!(sockets > lps),
                    Err(error) => {
                        assert!(
                            lps.div_ceil(sockets).next_power_of_two() * sockets > 1024,
                            "{error}"
                        )
                    }
                }
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_refused_and_the_fields_are_named() {
        let good = || Config::new(4, 2, 0x806f8, [0; 48], LoaderProfile::V1_5_00).unwrap();
        let ids: Vec<u32> = good().x2apic_ids().collect();
        assert_eq!(good().check(&ids), Ok(()));
        let many: Vec<u32> = (0..1025).collect();
        for (ids, says) in [
            (&[][..], "0 have an x2APIC id"),
            (&ids[..3], "firmware counts 4 LPs"),
            (&many, "1025 have an x2APIC id"),
            (&[0, 5, 7, 5], "LP 1 and LP 3 both have the x2APIC id 5"),
            (&[1, 2, 3, 4], "acm_x2apicid is 0"),
        ] {
            let error = good().check(ids).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        type Change = fn(&mut Config);
        let changes: [(Change, &str); 10] = [
            (|config| config.num_sockets = 0, "0 sockets"),
            (|config| config.num_sockets = 9, "9 sockets"),
            (|config| config.max_pa = 53, "max_pa"),
            (|config| config.keyid_bits = 46, "keyid_bits"),
            (|config| config.seamrr_size = 3 << 24, "seamrr_size"),
            (|config| config.p_seamldr_size = 256 << 20, "seamrr_size"),
            (|config| config.p_seamldr_size = u64::MAX, "seamrr_size"),
            (|config| config.seamrr_base = 0x1000, "seamrr_base"),
            (|config| config.seamrr_base = 1 << 40, "seamrr_base"),
            (|config| config.addressable_lps_per_socket = 0, "addressable_lps_per_socket"),
        ];
        for (change, says) in changes {
            let mut config = good();
            change(&mut config);
            let error = config.check(&ids).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
