//! The processor's side of it: which firmware a SEAMCALL reaches, on which LP.

use core::fmt;
use core::ops::DerefMut;

use tdx_seamldr_core::abi::{Cmr, HandoffHeader, PSysInfo, SeamldrLeaf};
use tdx_seamldr_core::{Crypto, SeamcallRegs, Sha384Digest, Trap};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::FromZeros;

use super::handoff::KeyOwner;
use super::loader::{Installed, LoaderContext};
use super::lp::{Lp, MAX_LPS, NO_VMCS};
use super::module::CallContext;
use super::{Answer, Fatal, FaultPlan, Loader, LoaderProfile, LoaderState, ModuleBuild, ModuleState};
use super::{PhysMemory, SeamDb, SeamMemory, SysInfo, Td, TdError, TdId, TdPhase, TdxModule};

/// What a platform is made of.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// LPs that firmware counts. P-SEAMLDR and the module wait for so many.
    pub num_lps: u32,
    /// The x2APIC ids of the LPs of a package are multiples of this, apart from the package's own bits.
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
    /// A full SEAMDB answers with an error that P-SEAMLDR is not prepared for. The specifications leave it open; otherwise the
    /// answer is want of entropy.
    pub full_seamdb_is_fatal: bool,
    /// A signature that is not below the modulus is reduced first, as one crypto library does. Otherwise it is bad.
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

    /// CPUID.1:EAX of each socket there is.
    #[must_use]
    pub fn sockets(&self) -> &[u32] {
        let count = usize::try_from(self.num_sockets).unwrap_or(self.socket_fms.len());
        self.socket_fms.get(..count).unwrap_or(&self.socket_fms)
    }

    /// The x2APIC ids of the LPs that firmware counts: those of each socket from 0 up, with its number above.
    pub fn x2apic_ids(&self) -> impl Iterator<Item = u32> + '_ {
        let lps = self.num_lps;
        let socket_of = move |lp: u32| {
            let product = u64::from(lp).saturating_mul(self.num_sockets.into());
            product.checked_div(lps.into()).and_then(|socket| u32::try_from(socket).ok()).unwrap_or(0)
        };
        let mut before = None;
        let mut local = 0u32;
        (0..lps).map(move |lp| {
            let socket = socket_of(lp);
            local = if before == Some(socket) { local.saturating_add(self.x2apic_stride) } else { 0 };
            before = Some(socket);
            socket.checked_shl(self.package_shift).unwrap_or(0) | local
        })
    }

    /// Where P-SEAMLDR's own part begins.
    #[must_use]
    pub const fn p_seamldr_base(&self) -> u64 {
        self.seamrr_base.wrapping_add(self.seamrr_size).wrapping_sub(self.p_seamldr_size)
    }

    /// What firmware tells P-SEAMLDR and the module about the platform. Convertible memory is what lies from 1 MiB to 2 GiB,
    /// and from 4 GiB on without the SEAM range.
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
        let regions = [(1 << 20, 2 << 30), (4 << 30, self.seamrr_base), (seam_end, self.address_limit())];
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

/// Bytes of the host's memory that read otherwise than they were written, at the same time.
const MAX_FLIPS: usize = 8;

/// The host's memory, but for bytes that changed behind everybody's back.
struct Tampered<'a> {
    memory: &'a dyn PhysMemory,
    flips: &'a [(u64, u8); MAX_FLIPS],
}

impl PhysMemory for Tampered<'_> {
    fn read(&self, address: u64, out: &mut [u8]) {
        self.memory.read(address, out);
        for (at, mask) in self.flips.iter().filter(|(_, mask)| *mask != 0) {
            let index = at.checked_sub(address).and_then(|offset| usize::try_from(offset).ok());
            if let Some(byte) = index.and_then(|index| out.get_mut(index)) {
                *byte ^= mask;
            }
        }
    }

    fn write(&self, address: u64, bytes: &[u8]) {
        self.memory.write(address, bytes);
    }
}

/// An LP is inside firmware. It comes out by [`Platform::leave`].
#[must_use]
#[derive(Debug)]
pub struct Entered {
    lp: u32,
    answer: Option<(u64, u64)>,
    /// So many calls of others have to be made first, if somebody has planned that.
    pub delay: u32,
}

/// A platform, as a value. Whoever owns it makes the calls, one after the other ([`seamcall`](Self::seamcall)) or with LPs
/// inside firmware at the same time ([`enter`](Self::enter) and [`leave`](Self::leave)).
///
/// `M` leads to its memory: a box, or a reference.
#[derive(Clone, Debug)]
pub struct Platform<M> {
    config: Config,
    loader: Loader,
    module: Option<TdxModule>,
    memory: M,
    faults: FaultPlan,
    flips: [(u64, u8); MAX_FLIPS],
    /// The LP that is inside P-SEAMLDR.
    in_seamldr: Option<u32>,
    /// Firmware has hit a fatal error: SEAM mode is gone until the next boot.
    dead: bool,
}

impl<M: DerefMut<Target = SeamMemory>> Platform<M> {
    /// A platform as firmware leaves it: P-SEAMLDR is there, and no module. What `memory` held before is forgotten.
    pub fn new(config: Config, seamdb: SeamDb, memory: M) -> Self {
        let mut platform = Self {
            config,
            loader: Loader::new(seamdb),
            module: None,
            memory,
            faults: FaultPlan::default(),
            flips: [(0, 0); MAX_FLIPS],
            in_seamldr: None,
            dead: false,
        };
        platform.memory.clear();
        platform.memory.mcheck_table = config.platform_table();
        platform.set_lps(config.x2apic_ids());
        platform
    }

    /// Replaces the LPs by LPs with these x2APIC ids, as many as there is room for. Firmware goes on waiting for
    /// [`Config::num_lps`].
    pub fn set_lps(&mut self, x2apic_ids: impl IntoIterator<Item = u32>) {
        self.memory.lps.zero();
        for (slot, id) in self.memory.lps.iter_mut().zip(x2apic_ids) {
            *slot = Lp::new(id, self.config.seamops_capabilities);
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

    /// What firmware tells P-SEAMLDR and the module about the platform.
    pub fn platform_table_mut(&mut self) -> &mut PSysInfo {
        &mut self.memory.mcheck_table
    }

    /// P-SEAMLDR.
    pub const fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Puts P-SEAMLDR into a state, in which no session is open.
    pub fn restore_loader(&mut self, state: &LoaderState) {
        self.loader.restore(state);
    }

    /// Of the next steps of SEAMLDR.CLEANUP, so many find an interrupt pending.
    pub fn set_interrupts_pending(&mut self, count: u32) {
        self.loader.interrupts_pending = count;
    }

    /// The database of installed modules.
    pub fn seamdb_mut(&mut self) -> &mut SeamDb {
        &mut self.loader.seamdb
    }

    /// The module, whether it can be called or not.
    pub const fn module(&self) -> Option<&TdxModule> {
        self.module.as_ref()
    }

    /// The module, to be changed as other LPs do that are inside it.
    pub fn module_mut(&mut self) -> Option<&mut TdxModule> {
        self.module.as_mut()
    }

    /// Puts a module in place without asking P-SEAMLDR. Of the handoff data remains what both modules have pages for, or
    /// nothing.
    pub fn put_module(&mut self, build: ModuleBuild, sysinfo: SysInfo, keep_handoff: bool) {
        let pages = |sysinfo: &SysInfo| usize::from(sysinfo.num_handoff_pages).saturating_add(1);
        let before = self.module.as_ref().map_or(usize::MAX, |module| pages(module.sysinfo()));
        let kept = if keep_handoff { before.min(pages(&sysinfo)).saturating_mul(4096) } else { 0 };
        self.memory.handoff.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        self.new_module(build, sysinfo);
        self.loader.seamextend.seam_ready = 1;
    }

    fn new_module(&mut self, build: ModuleBuild, sysinfo: SysInfo) {
        self.module = Some(TdxModule::new(build, sysinfo));
        self.memory.tables.clear();
        self.memory.lps.iter_mut().for_each(|lp| lp.set_in_module(false));
    }

    /// Whether a module is there and the processor lets SEAMCALL reach it.
    pub fn module_is_callable(&self) -> bool {
        !self.dead && self.module.is_some() && self.loader.seamextend.seam_ready == 1
    }

    /// Whether firmware has hit a fatal error: nothing can be called until the next boot.
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    /// The code region: the image of the module, as it runs, and zeros after it.
    pub fn code(&self) -> &[u8] {
        &self.memory.code
    }

    /// The LP that is inside P-SEAMLDR.
    pub const fn lp_in_seamldr(&self) -> Option<u32> {
        self.in_seamldr
    }

    /// Header and data of the handoff.
    pub fn handoff(&mut self) -> &mut [u8] {
        &mut self.memory.handoff
    }

    /// The header of the handoff.
    pub fn handoff_header(&self) -> HandoffHeader {
        super::handoff::header(&self.memory.handoff)
    }

    /// What the module keeps in tables that it hands over: packages that have its key (a bit each), TDMRs, its own KeyID.
    pub fn tables(&self) -> (u32, u32, u16) {
        let tables = &self.memory.tables;
        (tables.packages_configured.get(), tables.num_tdmrs.get(), tables.module_hkid.get())
    }

    /// Calls that go wrong.
    pub fn faults_mut(&mut self) -> &mut FaultPlan {
        &mut self.faults
    }

    /// From now on firmware reads the byte at an address with these bits changed. A mask of 0 puts it right.
    ///
    /// `false`: there is no room for another byte.
    #[must_use]
    pub fn tamper(&mut self, address: u64, mask: u8) -> bool {
        let free = |(at, used): &&mut (u64, u8)| *used == 0 || *at == address;
        let known = self.flips.iter().any(|(at, used)| *at == address && *used != 0);
        let slot = self.flips.iter_mut().find(|slot| if known { slot.0 == address } else { free(slot) });
        slot.map(|slot| *slot = (address, mask)).is_some()
    }

    fn lp(&self, lp: u32) -> Option<&Lp> {
        self.memory.lps.get(usize::try_from(lp).ok()?).filter(|lp| lp.is_present())
    }

    fn lp_mut(&mut self, lp: u32) -> Option<&mut Lp> {
        self.memory.lps.get_mut(usize::try_from(lp).ok()?).filter(|lp| lp.is_present())
    }

    /// The x2APIC id of an LP, if it exists.
    pub fn x2apic_id(&self, lp: u32) -> Option<u32> {
        self.lp(lp).map(|lp| lp.x2apic_id)
    }

    /// Makes SEAMCALL trap on one LP from now on: #GP, #UD, or nothing of the kind.
    pub fn set_trap(&mut self, lp: u32, trap: Option<Trap>) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.set_trap(trap);
        }
    }

    /// The VMCS that an LP has loaded, or [`NO_VMCS`].
    pub fn current_vmcs(&self, lp: u32) -> u64 {
        self.lp(lp).map_or(NO_VMCS, |lp| lp.current_vmcs)
    }

    /// An LP executes VMPTRLD.
    pub fn load_vmcs(&mut self, lp: u32, address: u64) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.current_vmcs = address;
        }
    }

    /// Says that an LP is inside the module, in the middle of something, or that it is not any more.
    pub fn set_in_module(&mut self, lp: u32, inside: bool) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.set_in_module(inside);
        }
    }

    /// SEAMOPS capabilities of one LP.
    pub fn set_capabilities(&mut self, lp: u32, capabilities: u64) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.seamops_capabilities = capabilities;
        }
    }

    /// Changes bits of an MSR on one LP, so that it differs from other LPs; the same bits twice cancel. `false`: the LP differs
    /// in as many MSRs as there is room for already.
    #[must_use]
    pub fn deviate_msr(&mut self, lp: u32, msr: u32, bits: u64) -> bool {
        self.lp_mut(lp).is_some_and(|lp| lp.deviate(msr, bits))
    }

    /// Takes back what is special about an LP's capabilities and MSRs.
    pub fn restore_lp(&mut self, lp: u32) {
        let capabilities = self.config.seamops_capabilities;
        if let Some(lp) = self.lp_mut(lp) {
            (lp.msrs, lp.seamops_capabilities) = (Default::default(), capabilities);
        }
    }

    /// One SEAMCALL on one LP, from its beginning to its end.
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
        let entered = self.enter(lp, regs)?;
        self.leave(entered, regs, memory, crypto)
    }

    /// An LP executes SEAMCALL and gets into firmware, where it stays until [`leave`](Self::leave). Meanwhile others find it
    /// there: SEAMCALL fails if it is in P-SEAMLDR, and the module says that it is busy.
    ///
    /// # Errors
    ///
    /// The instruction itself fails.
    pub fn enter(&mut self, lp: u32, regs: &SeamcallRegs) -> Result<Entered, Trap> {
        if let Some(trap) = self.lp(lp).map_or(Some(Trap::UndefinedOpcode), Lp::trap) {
            return Err(trap);
        }
        let (answer, delay) = match self.faults.strike(lp, regs) {
            Some(Answer::Trap(trap)) => return Err(trap),
            Some(Answer::Return { rax, rdx }) => (Some((rax, rdx)), 0),
            Some(Answer::Delay(calls)) => (None, calls),
            None => (None, 0),
        };
        if regs.rax >> 63 == 1 {
            if self.dead || self.loader.seamextend.p_seamldr_ready == 0 || self.in_seamldr.is_some() {
                return Err(Trap::VmFailInvalid);
            }
            self.in_seamldr = Some(lp);
        } else {
            if !self.module_is_callable() || self.lp(lp).is_some_and(Lp::is_in_module) {
                return Err(Trap::VmFailInvalid);
            }
            self.set_in_module(lp, true);
        }
        Ok(Entered { lp, answer, delay })
    }

    /// What an LP does inside firmware happens, and it comes back. `regs` are those that it went in with.
    ///
    /// # Errors
    ///
    /// Firmware does not come back: it hit a fatal error, or it is gone meanwhile.
    pub fn leave(
        &mut self,
        entered: Entered,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Trap> {
        let Entered { lp, answer, .. } = entered;
        let is_in_seamldr = self.in_seamldr == Some(lp);
        let result = match answer {
            Some((rax, rdx)) => {
                if regs.rax == SeamldrLeaf::Install.rax() && rdx != 0 {
                    self.loader.lose_module();
                    self.module = None;
                }
                (regs.rax, regs.rdx) = (rax, rdx);
                Ok(())
            }
            None if self.dead => Err(Fatal),
            None if is_in_seamldr => self.enter_seamldr(lp, regs, memory, crypto),
            None => self.call_module(lp, regs, memory),
        };
        if is_in_seamldr {
            self.in_seamldr = None;
            if self.config.seamret_clears_vmcs {
                self.load_vmcs(lp, NO_VMCS);
            }
        } else {
            self.set_in_module(lp, false);
        }
        result.map_err(|Fatal| {
            self.dead = true;
            Trap::VmFailInvalid
        })
    }

    fn enter_seamldr(
        &mut self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Fatal> {
        let x2apic_id = self.x2apic_id(lp).ok_or(Fatal)?;
        let host = &Tampered { memory, flips: &self.flips };
        let (config, memory) = (&mut self.config, &mut *self.memory);
        match self.loader.call(regs, LoaderContext { config, x2apic_id, host, crypto, memory })? {
            Installed::Nothing => {}
            Installed::ModuleGone => self.module = None,
            Installed::Module(sysinfo, build) => self.new_module(build, sysinfo),
        }
        Ok(())
    }

    /// P-SEAMLDR's own code runs on an LP with these registers, whatever the processor would say to the call: RAX need not have
    /// bit 63.
    ///
    /// # Errors
    ///
    /// It hits a fatal error.
    pub fn run_seamldr(
        &mut self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Trap> {
        self.in_seamldr = Some(lp);
        self.leave(Entered { lp, answer: None, delay: 0 }, regs, memory, crypto)
    }

    fn call_module(
        &mut self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
    ) -> Result<(), Fatal> {
        let host = &Tampered { memory, flips: &self.flips };
        let (config, memory) = (&mut self.config, &mut *self.memory);
        let module = self.module.as_mut().ok_or(Fatal)?;
        module.call(regs, CallContext { lp, config, host, memory })
    }

    /// Makes a TD with a KeyID of its own; `None` if no module is ready or there is no room for one more.
    pub fn create_td(&mut self, phase: TdPhase, secret: [u8; 32]) -> Option<TdId> {
        let counts = self.ready_module()?.has_update_compatibility();
        let key_ids = 1u16.checked_shl(self.config.keyid_bits).unwrap_or(u16::MAX);
        let memory = &mut *self.memory;
        let (number, slot) = (0u16..).zip(&mut memory.tds).find(|(_, slot)| !slot.is_present())?;
        // KeyIDs after the module's own.
        let hkid = memory
            .tables
            .module_hkid
            .get()
            .checked_add(1)?
            .checked_add(number)
            .filter(|hkid| *hkid < key_ids)?;
        memory.tables.own(hkid, KeyOwner::Td(number))?;
        *slot = Td::new(phase, hkid, secret);
        slot.set_counted(counts);
        if counts {
            self.count(phase, 1);
        }
        Some(TdId(number))
    }

    /// The module counts operations of a kind that an update must not come in between of.
    fn count(&mut self, phase: TdPhase, change: i16) {
        let tables = &mut self.memory.tables;
        let counter: &mut U16 = match phase {
            TdPhase::Build => &mut tables.tds_in_build,
            TdPhase::InterruptedMigration => &mut tables.migrations_interrupted,
            TdPhase::Running => return,
        };
        *counter = U16::new(counter.get().saturating_add_signed(change));
    }

    /// A TD, alive or not.
    pub fn td(&self, id: TdId) -> Option<&Td> {
        self.memory.tds.get(usize::from(id.0)).filter(|td| td.is_present())
    }

    /// All TDs, alive or not.
    pub fn tds(&self) -> impl Iterator<Item = (TdId, &Td)> {
        let tds = (0u16..).zip(&self.memory.tds).filter(|(_, td)| td.is_present());
        tds.map(|(number, td)| (TdId(number), td))
    }

    /// The module, if it is ready and can be called.
    fn ready_module(&self) -> Option<&TdxModule> {
        self.module
            .as_ref()
            .filter(|module| module.state() == ModuleState::Ready && self.module_is_callable())
    }

    /// The KeyID of a TD, if a module is ready, can be called, and knows it.
    fn hkid_of(&self, id: TdId) -> Option<u16> {
        self.ready_module()?;
        self.memory.tables.hkid_of(id.0)
    }

    /// What the private memory of a TD holds, as the TD itself sees it: if a module is ready, can be called, and knows
    /// the TD's KeyID. If that is not the one that the memory was encrypted with, the TD sees noise.
    pub fn td_secret(&self, id: TdId) -> Option<[u8; 32]> {
        let hkid = self.hkid_of(id)?;
        self.td(id).map(|td| td.read(hkid))
    }

    /// The TD, if it can go on with what is under way in this phase.
    fn td_under_way(&mut self, id: TdId, phase: TdPhase) -> Result<&mut Td, TdError> {
        self.hkid_of(id).ok_or(TdError::Gone)?;
        let protected = self.module.as_ref().is_some_and(TdxModule::update_compatibility);
        let td =
            self.memory.tds.get_mut(usize::from(id.0)).filter(|td| td.is_present()).ok_or(TdError::Gone)?;
        if td.phase() != phase || phase == TdPhase::Running {
            return Err(TdError::Phase);
        }
        if protected && td.has_stale_context() {
            return Err(TdError::IncompatibleContext);
        }
        Ok(td)
    }

    /// Adds a page with this content to a TD in build, and to its MRTD.
    ///
    /// # Errors
    ///
    /// The TD does not go on.
    pub fn extend_td(&mut self, id: TdId, data: &[u8]) -> Result<(), TdError> {
        self.td_under_way(id, TdPhase::Build)?.measure(data);
        Ok(())
    }

    /// A TD's build, or the migration of it that was interrupted, comes to its end, and it runs. Says what its MRTD, or the
    /// migration's MAC, has become.
    ///
    /// # Errors
    ///
    /// The TD does not go on.
    pub fn finish_td(&mut self, id: TdId, phase: TdPhase) -> Result<[u8; 32], TdError> {
        let td = self.td_under_way(id, phase)?;
        td.measure(Td::END);
        let measurement = td.measurement();
        td.set_phase(TdPhase::Running);
        let counted = td.is_counted();
        td.set_counted(false);
        if counted && self.module.as_ref().is_some_and(TdxModule::has_update_compatibility) {
            self.count(phase, -1);
        }
        Ok(measurement)
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
                        assert!(lps.div_ceil(sockets).next_power_of_two() * sockets > 1024, "{error}")
                    }
                }
            }
        }
    }
}
