//! The processor's side of it: which firmware a SEAMCALL reaches, on which LP.

use core::fmt;

use tdx_seamldr_core::abi::HandoffHeader;
use tdx_seamldr_core::{Crypto, SeamcallRegs, Sha384Digest, Trap};

use super::handoff::KotEntry;
use super::loader::{Installed, LoaderContext};
use super::module::{contains, insert, CallContext, LpSet};
use super::{Fatal, Loader, LoaderProfile, ModuleState, PhysMemory, SeamDb, SeamStorage};
use super::{Td, TdId, TdPhase, TdxModule, MAX_TDS};

/// The most LPs of a platform.
const MAX_LPS: usize = 1024;

/// What a platform is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// LPs that firmware counts. P-SEAMLDR and the module wait for so many.
    pub num_lps: u32,
    /// x2APIC id of each LP.
    pub x2apic_ids: [u32; MAX_LPS],
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
    /// With so many sockets and LPs, x2APIC ids would go beyond 1,023, which P-SEAMLDR does not take.
    X2apicIds {
        /// The number of LPs.
        lps: u32,
        /// The number of sockets.
        sockets: u32,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lps(found) => write!(f, "the platform has {found} LPs, but should have 1 to {MAX_LPS}"),
            Self::Sockets(found) => {
                write!(f, "the platform has {found} sockets, but should have 1 to 8 and not more than LPs")
            }
            Self::X2apicIds { lps, sockets } => {
                write!(f, "{lps} LPs on {sockets} sockets have x2APIC ids above 1023, but P-SEAMLDR takes none of them")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

impl Config {
    /// A platform of so many LPs, evenly over its sockets, all with the same processor. x2APIC ids have gaps where there is
    /// room for gaps.
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
        let package_shift = slots.trailing_zeros();
        let mut x2apic_ids = [u32::MAX; MAX_LPS];
        let mut next_in_socket = [0u32; 8];
        for (lp, id) in (0..num_lps).zip(&mut x2apic_ids) {
            let socket = lp.saturating_mul(num_sockets).checked_div(num_lps).unwrap_or(0);
            if let Some(local) =
                usize::try_from(socket).ok().and_then(|socket| next_in_socket.get_mut(socket))
            {
                *id = socket << package_shift | *local << gap;
                *local = local.saturating_add(1);
            }
        }
        Ok(Self {
            num_lps,
            x2apic_ids,
            package_shift,
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
            profile,
        })
    }

    /// CPUID.1:EAX of each socket there is.
    #[must_use]
    pub fn sockets(&self) -> &[u32] {
        let count = usize::try_from(self.num_sockets).unwrap_or(self.socket_fms.len());
        self.socket_fms.get(..count).unwrap_or(&self.socket_fms)
    }

    /// Where P-SEAMLDR's own part begins.
    #[must_use]
    pub const fn p_seamldr_base(&self) -> u64 {
        self.seamrr_base.wrapping_add(self.seamrr_size).wrapping_sub(self.p_seamldr_size)
    }

    /// The package of an LP.
    #[must_use]
    pub fn package(&self, lp: u32) -> u32 {
        self.x2apic_id(lp).unwrap_or(0) >> self.package_shift
    }

    fn x2apic_id(&self, lp: u32) -> Option<u32> {
        self.x2apic_ids.get(usize::try_from(lp).ok()?).copied().filter(|id| *id != u32::MAX)
    }

    /// LP slots that a module's memory is laid out for.
    pub(super) fn addressable_lps(&self) -> u32 {
        self.addressable_lps_per_socket.next_power_of_two().saturating_mul(self.num_sockets)
    }

    /// Bytes for the module.
    pub(super) const fn memory_available(&self) -> u64 {
        self.p_seamldr_base().wrapping_sub(self.seamrr_base)
    }

    /// Whether the host may give this address to P-SEAMLDR for an object of that alignment.
    pub(super) fn is_shared(&self, address: u64, alignment: u64) -> bool {
        let address_bits = self.max_pa.saturating_sub(self.keyid_bits);
        let keyid = address.checked_shr(address_bits).unwrap_or(0);
        let plain = address & 1u64.checked_shl(address_bits).unwrap_or(0).wrapping_sub(1);
        address & alignment.wrapping_sub(1) == 0
            && address.checked_shr(self.max_pa).unwrap_or(0) == 0
            && keyid < self.private_hkid_min
            && plain.wrapping_sub(self.seamrr_base) >= self.seamrr_size
    }
}

/// A platform, as a value. Whoever owns it makes the calls one after the other.
#[derive(Clone, Debug)]
pub struct Platform<S> {
    config: Config,
    loader: Loader,
    module: Option<TdxModule>,
    tds: [Option<Td>; MAX_TDS],
    storage: S,
    /// LPs on which SEAMCALL raises #GP.
    gp: LpSet,
    /// LPs on which SEAMCALL raises #UD.
    ud: LpSet,
    /// Firmware has hit a fatal error: SEAM mode is gone until the next boot.
    dead: bool,
}

impl<S: SeamStorage> Platform<S> {
    /// A platform as firmware leaves it: P-SEAMLDR is there, and no module.
    pub fn new(config: Config, seamdb: SeamDb, storage: S) -> Self {
        Self {
            config,
            loader: Loader::new(seamdb),
            module: None,
            tds: [None; MAX_TDS],
            storage,
            gp: [0; 16],
            ud: [0; 16],
            dead: false,
        }
    }

    /// What it is made of.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// What it is made of, to be changed as no real platform could: sockets, RDRAND, keys.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// P-SEAMLDR.
    pub const fn loader(&self) -> &Loader {
        &self.loader
    }

    /// The database of installed modules.
    pub fn seamdb_mut(&mut self) -> &mut SeamDb {
        &mut self.loader.seamdb
    }

    /// The module, whether it can be called or not.
    pub const fn module(&self) -> Option<&TdxModule> {
        self.module.as_ref()
    }

    /// Whether a module is there and the processor lets SEAMCALL reach it.
    pub fn module_is_callable(&self) -> bool {
        !self.dead && self.module.is_some() && self.loader.seamextend.seam_ready == 1
    }

    /// Header and data of the handoff.
    pub fn handoff(&mut self) -> &mut [u8] {
        self.storage.handoff()
    }

    /// The header of the handoff.
    pub fn handoff_header(&mut self) -> HandoffHeader {
        super::handoff::header(self.storage.handoff())
    }

    /// Makes SEAMCALL trap on one LP from now on: #GP, #UD, or nothing of the kind.
    pub fn set_trap(&mut self, lp: u32, trap: Option<Trap>) {
        for (set, member) in [(&mut self.gp, Trap::GeneralProtection), (&mut self.ud, Trap::UndefinedOpcode)]
        {
            if let Some(word) = usize::try_from(lp >> 6).ok().and_then(|index| set.get_mut(index)) {
                *word &= !(1 << (lp & 63));
            }
            if trap == Some(member) {
                insert(set, lp);
            }
        }
    }

    /// One SEAMCALL on one LP.
    ///
    /// # Errors
    ///
    /// The instruction itself fails.
    pub fn seamcall(
        &mut self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Trap> {
        let Some(x2apic_id) = self.config.x2apic_id(lp).filter(|_| !contains(&self.ud, lp)) else {
            return Err(Trap::UndefinedOpcode);
        };
        if contains(&self.gp, lp) {
            return Err(Trap::GeneralProtection);
        }
        if self.dead {
            return Err(Trap::VmFailInvalid);
        }
        let result = if regs.rax >> 63 == 1 {
            if self.loader.seamextend.p_seamldr_ready == 0 {
                return Err(Trap::VmFailInvalid);
            }
            self.call_loader(x2apic_id, regs, memory, crypto)
        } else {
            if !self.module_is_callable() {
                return Err(Trap::VmFailInvalid);
            }
            self.call_module(lp, regs)
        };
        result.map_err(|Fatal| {
            self.dead = true;
            Trap::VmFailInvalid
        })
    }

    fn call_loader(
        &mut self,
        x2apic_id: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Fatal> {
        let storage = &mut self.storage;
        let context = LoaderContext { config: &self.config, x2apic_id, memory, crypto, storage };
        match self.loader.call(regs, context)? {
            Installed::Nothing => {}
            Installed::ModuleGone => self.module = None,
            Installed::Module(sysinfo, build) => self.module = Some(TdxModule::new(build, sysinfo)),
        }
        Ok(())
    }

    fn call_module(&mut self, lp: u32, regs: &mut SeamcallRegs) -> Result<(), Fatal> {
        let (tds_in_build, migrations_interrupted) =
            (self.count_tds(TdPhase::Build), self.count_tds(TdPhase::InterruptedMigration));
        let Some(module) = &mut self.module else {
            return Err(Fatal);
        };
        let context = CallContext {
            lp,
            package: self.config.package(lp),
            handoff: self.storage.handoff(),
            rdrand_ok: self.config.rdrand_ok,
            tds_in_build,
            migrations_interrupted,
        };
        module.call(regs, context)
    }

    fn count_tds(&self, phase: TdPhase) -> u16 {
        let count = self.tds.iter().flatten().filter(|td| td.phase == phase).count();
        u16::try_from(count).unwrap_or(u16::MAX)
    }

    /// Makes a TD with a KeyID of its own; `None` if no module is ready or there is no room for one more.
    pub fn create_td(&mut self, phase: TdPhase, secret: [u8; 32]) -> Option<TdId> {
        let module = self.module.as_mut().filter(|module| module.state() == ModuleState::Ready)?;
        let (number, slot) = (0u16..).zip(&mut self.tds).find(|(_, slot)| slot.is_none())?;
        // KeyIDs after the module's own.
        let hkid = number.checked_add(0x21)?;
        *module.tables.kot.get_mut(usize::from(hkid))? = KotEntry::Td(number);
        *slot = Some(Td::new(phase, hkid, secret));
        Some(TdId(number))
    }

    /// A TD, alive or not.
    pub fn td(&self, id: TdId) -> Option<&Td> {
        self.tds.get(usize::from(id.0))?.as_ref()
    }

    /// All TDs, alive or not.
    pub fn tds(&self) -> impl Iterator<Item = (TdId, &Td)> {
        (0u16..).zip(&self.tds).filter_map(|(number, td)| Some((TdId(number), td.as_ref()?)))
    }

    /// What the private memory of a TD holds, as the TD itself sees it: if a module is ready, can be called, and knows
    /// the TD's KeyID. If that is not the one that the memory was encrypted with, the TD sees noise.
    pub fn td_secret(&self, id: TdId) -> Option<[u8; 32]> {
        let module = self.module.as_ref().filter(|module| module.state() == ModuleState::Ready)?;
        let td = self.td(id).filter(|_| self.module_is_callable())?;
        module.hkid_of(id.0).map(|hkid| td.read(hkid))
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
                        let mut seen = [0u32; 16];
                        let mut packages = 0u32;
                        for lp in 0..lps {
                            let id = config.x2apic_id(lp).unwrap();
                            assert!(id < 1024);
                            seen[(id / 64) as usize] += 1;
                            packages |= 1 << config.package(lp);
                        }
                        assert_eq!(seen.iter().sum::<u32>(), lps);
                        assert_eq!(packages, (1 << sockets) - 1, "{lps} LPs, {sockets} sockets");
                    }
                    Err(ConfigError::Sockets(_)) => assert!(sockets > lps),
                    Err(error) => {
                        assert!(lps.div_ceil(sockets).next_power_of_two() * sockets > 1024, "{error}")
                    }
                }
            }
        }
    }
}
