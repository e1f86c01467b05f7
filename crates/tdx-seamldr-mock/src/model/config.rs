//! Configuration of a platform: LPs, sockets, address widths, the SEAM range, and special
//! behaviour.

use core::fmt;

use tdx_seamldr_core::abi::{Cmr, PSysInfo};
use tdx_seamldr_core::Sha384Digest;
use zerocopy::little_endian::{U32, U64};
use zerocopy::FromZeros;

use super::lp::MAX_LPS;
use super::LoaderProfile;

/// Configuration of a platform.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Number of LPs that firmware counts. P-SEAMLDR and the module wait for this number of LPs.
    pub num_lps: u32,
    /// Distance between the x2APIC ids of a package's LPs.
    pub x2apic_stride: u32,
    /// Number of low bits of an x2APIC id that do not belong to the package number.
    pub package_shift: u32,
    /// Number of sockets.
    pub num_sockets: u32,
    /// CPUID.1:EAX of each socket.
    pub socket_fms: [u32; 8],
    /// Number of LPs that could share a socket's last-level cache, from CPUID leaf 4.
    pub addressable_lps_per_socket: u32,
    /// x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last.
    pub acm_x2apicid: u32,
    /// Width of physical addresses in bits, including the KeyID bits.
    pub max_pa: u32,
    /// Number of KeyID bits, at the top of physical addresses.
    pub keyid_bits: u32,
    /// The first private KeyID: KeyIDs from here on belong to TDs.
    pub private_hkid_min: u64,
    /// Base address of the SEAM range.
    pub seamrr_base: u64,
    /// Size of the SEAM range in bytes, a power of two.
    pub seamrr_size: u64,
    /// Size in bytes of P-SEAMLDR's own range, at the end of the SEAM range.
    pub p_seamldr_size: u64,
    /// SHA-384 of the modulus of the key that P-SEAMLDR trusts.
    pub signer: Sha384Digest,
    /// Whether debug modules may be installed.
    pub debug_unlocked: bool,
    /// Whether RDRAND succeeds.
    pub rdrand_ok: bool,
    /// The number that RDRAND returns.
    pub rdrand_value: u64,
    /// How often RDRAND fails before it succeeds.
    pub rdrand_failures: u32,
    /// SEAMOPS capabilities of each LP when the platform is made.
    pub seamops_capabilities: u64,
    /// Result of SEAMOPS(SEAMDB_GETREF); 0 is success.
    pub seamdb_getref_error: u32,
    /// Result of the module's PCONFIG; 0 is success.
    pub pconfig_error: u32,
    /// Whether the processor has the VMCS erratum: when P-SEAMLDR returns, the LP has no current
    /// VMCS.
    pub seamret_clears_vmcs: bool,
    /// Whether a full SEAMDB returns an error that is fatal to P-SEAMLDR. Otherwise a full SEAMDB
    /// looks like a lack of entropy. The specifications leave this open.
    pub full_seamdb_is_fatal: bool,
    /// Whether P-SEAMLDR reduces a signature that is not below the modulus, as one crypto library
    /// does. Otherwise P-SEAMLDR rejects such a signature.
    pub accepts_large_signatures: bool,
    /// The generation of P-SEAMLDR.
    pub profile: LoaderProfile,
}

/// Why no platform can have a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigError {
    /// The number of LPs is not within 1 to 1,024.
    Lps(u32),
    /// The number of sockets is not within 1 to 8, or is above the number of LPs.
    Sockets(u32),
    /// With these sockets and LPs, x2APIC ids would exceed 1,023, the highest id that P-SEAMLDR
    /// accepts.
    X2apicIds {
        /// Number of LPs.
        lps: u32,
        /// Number of sockets.
        sockets: u32,
    },
    /// The number of existing LPs is not within 1 to 1,024, or the number of LPs that firmware
    /// counts is not within 1 to that number.
    ListedLps {
        /// Number of existing LPs.
        listed: usize,
        /// Number of LPs that firmware counts.
        counted: u32,
    },
    /// Two LPs have the same x2APIC id.
    X2apicIdTwice {
        /// The x2APIC id.
        id: u32,
        /// Places of both LPs in the list.
        lps: [usize; 2],
    },
    /// No LP has the x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last.
    AcmLp(u32),
    /// Physical addresses have more than 52 bits, or KeyIDs take all bits.
    AddressBits {
        /// Width of physical addresses in bits, including the KeyID bits.
        max_pa: u32,
        /// Number of KeyID bits.
        keyid_bits: u32,
    },
    /// The size of the SEAM range is not a power of two, or leaves no room for P-SEAMLDR's own
    /// range and a module's code.
    SeamRangeSize {
        /// Size of the SEAM range in bytes.
        size: u64,
        /// Size of P-SEAMLDR's own range in bytes.
        p_seamldr_size: u64,
    },
    /// The base of the SEAM range is not a multiple of its size, or the range exceeds physical
    /// addresses.
    SeamRangeBase {
        /// Base address of the SEAM range.
        base: u64,
        /// Size of the SEAM range in bytes.
        size: u64,
    },
    /// The number of addressable LPs of a socket is not within 1 to 1,024.
    AddressableLps(u32),
    /// The SEAM database has more used entries than entries.
    SeamDb {
        /// Number of entries.
        size: u32,
        /// Number of used entries.
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
                 should be 1 to {MAX_LPS} ids, and num_lps should be 1 to the number of ids"
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
    /// Returns a configuration with LPs spread evenly over sockets, all with the same processor.
    /// x2APIC ids have gaps if there is room for gaps.
    ///
    /// # Errors
    ///
    /// No platform can have these numbers of LPs and sockets.
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
        // Skip every other id if P-SEAMLDR's table of 1,024 has room for the gaps.
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

    /// Checks that LPs with these x2APIC ids fit the configuration.
    ///
    /// # Errors
    ///
    /// Returns the first contradiction; see [`ConfigError`].
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

    /// Returns CPUID.1:EAX of each existing socket.
    #[must_use]
    pub fn sockets(&self) -> &[u32] {
        let count = usize::try_from(self.num_sockets).unwrap_or(self.socket_fms.len());
        self.socket_fms.get(..count).unwrap_or(&self.socket_fms)
    }

    /// Iterates over the x2APIC ids of the LPs that firmware counts. The socket number is in the
    /// high bits; within a socket ids start at 0.
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

    /// Returns the base address of P-SEAMLDR's own range.
    #[must_use]
    pub const fn p_seamldr_base(&self) -> u64 {
        self.seamrr_base.wrapping_add(self.seamrr_size).wrapping_sub(self.p_seamldr_size)
    }

    /// Returns what firmware tells P-SEAMLDR and the module about the platform.
    ///
    /// Two regions are convertible: from 1 MiB to 2 GiB, without the 16 MiB at the end that SMRRs
    /// cover; and from 4 GiB on, without the SEAM range.
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

    /// Returns the number of LP slots that the layout of a module's memory reserves.
    pub(super) fn addressable_lps(&self) -> u32 {
        self.addressable_lps_per_socket.next_power_of_two().saturating_mul(self.num_sockets)
    }

    /// Returns how many bytes of the SEAM range the module can use.
    pub(super) const fn memory_available(&self) -> u64 {
        self.p_seamldr_base().wrapping_sub(self.seamrr_base)
    }

    /// Returns the end of physical memory, without KeyID bits.
    pub(super) fn address_limit(&self) -> u64 {
        1u64.checked_shl(self.max_pa.saturating_sub(self.keyid_bits)).unwrap_or(0)
    }

    /// Returns whether the host may pass this address to firmware, for an object with this
    /// alignment.
    pub(super) fn is_shared(&self, address: u64, alignment: u64) -> bool {
        let address_bits = self.max_pa.saturating_sub(self.keyid_bits);
        let keyid = address.checked_shr(address_bits).unwrap_or(0);
        let plain = address & self.address_limit().wrapping_sub(1);
        address & alignment.wrapping_sub(1) == 0
            && address.checked_shr(self.max_pa).unwrap_or(0) == 0
            && keyid < self.private_hkid_min
            && plain.wrapping_sub(self.seamrr_base) >= self.seamrr_size
    }

    /// Executes RDRAND. Returns whether it succeeds.
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
    fn every_platform_within_the_ranges_fills_its_sockets_or_new_rejects_it() {
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
    fn check_rejects_contradictions_and_names_the_fields() {
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
