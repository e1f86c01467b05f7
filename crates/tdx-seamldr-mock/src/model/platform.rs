//! The processor's part of a SEAMCALL: which firmware the call reaches, on which LP.

mod tds;

use core::ops::DerefMut;

use tdx_seamldr_core::abi::{HandoffHeader, PSysInfo, SeamExtend, SeamldrLeaf};
use tdx_seamldr_core::{Crypto, SeamcallRegs, Trap};
use zerocopy::FromZeros;

use super::loader::{Installed, LoaderContext};
use super::lp::{Lp, NO_VMCS};
use super::module::CallContext;
use super::{Answer, Config, CpuRegister, Fatal, FaultPlan, Loader, LoaderState, ModuleBuild};
use super::{PhysMemory, SeamDb, SeamMemory, SysInfo, TdxModule};

/// The most bytes of host memory that can be tampered with at the same time.
const MAX_FLIPS: usize = 8;

/// Host memory in which some bytes read differently from what was written.
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

/// An LP inside firmware. [`Platform::leave`] ends the call.
#[must_use]
#[derive(Debug)]
pub struct Entered {
    lp: u32,
    /// Whether the LP is inside P-SEAMLDR, not inside the module.
    in_seamldr: bool,
    answer: Option<(u64, u64)>,
    /// Number of calls that other LPs have to make before this call ends; 0 without a planned
    /// delay.
    pub delay: u32,
}

/// A platform as a value. The owner makes calls one after the other ([`seamcall`](Self::seamcall)),
/// or with several LPs inside firmware at the same time ([`enter`](Self::enter) and
/// [`leave`](Self::leave)).
///
/// `M` points to the platform's memory: a box, or a reference.
#[derive(Clone, Debug)]
pub struct Platform<M> {
    config: Config,
    loader: Loader,
    module: Option<TdxModule>,
    memory: M,
    faults: FaultPlan,
    flips: [(u64, u8); MAX_FLIPS],
    /// The LP that is inside P-SEAMLDR, if any.
    in_seamldr: Option<u32>,
    /// Whether firmware hit a fatal error. SEAM mode is then off until the next boot.
    dead: bool,
}

impl<M: DerefMut<Target = SeamMemory>> Platform<M> {
    /// Returns a platform as firmware leaves it: with P-SEAMLDR, without a module. The content of
    /// `memory` is discarded.
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

    /// Replaces the LPs by LPs with these x2APIC ids, at most [`MAX_LPS`](crate::model::MAX_LPS).
    /// Firmware still waits for [`Config::num_lps`] LPs.
    pub fn set_lps(&mut self, x2apic_ids: impl IntoIterator<Item = u32>) {
        self.memory.lps.zero();
        for (slot, id) in self.memory.lps.iter_mut().zip(x2apic_ids) {
            *slot = Lp::new(id, self.config.seamops_capabilities);
        }
    }

    /// Returns the configuration.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Returns the configuration, for changes that a real platform could not make: sockets, RDRAND,
    /// keys.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Returns what firmware tells P-SEAMLDR and the module about the platform.
    pub fn platform_table_mut(&mut self) -> &mut PSysInfo {
        &mut self.memory.mcheck_table
    }

    /// Returns P-SEAMLDR.
    pub const fn loader(&self) -> &Loader {
        &self.loader
    }

    /// Sets the state of P-SEAMLDR, and closes an open session.
    pub fn restore_loader(&mut self, state: &LoaderState) {
        self.loader.restore(state);
    }

    /// Sets the number of remaining updates that P-SEAMLDR remembers. With 0, SEAMLDR.INFO counts
    /// again.
    pub fn set_num_remaining_updates(&mut self, count: u32) {
        self.loader.num_remaining_updates = count;
    }

    /// Sets whether P-SEAMLDR was entered since boot. The first entry needs a random number.
    pub fn set_seamldr_entered(&mut self, entered: bool) {
        self.loader.entered = entered;
    }

    /// Returns the SEAMEXTEND register, for changes that a host could not make. An open session
    /// stays open.
    pub fn seamextend_mut(&mut self) -> &mut SeamExtend {
        &mut self.loader.seamextend
    }

    /// Makes the next `count` steps of SEAMLDR.CLEANUP find a pending interrupt.
    pub fn set_interrupts_pending(&mut self, count: u32) {
        self.loader.interrupts_pending = count;
    }

    /// Returns the database of installed modules.
    pub fn seamdb_mut(&mut self) -> &mut SeamDb {
        &mut self.loader.seamdb
    }

    /// Returns the module, whether SEAMCALL reaches it or not.
    pub const fn module(&self) -> Option<&TdxModule> {
        self.module.as_ref()
    }

    /// Returns the module, for changes that other LPs make inside it.
    pub fn module_mut(&mut self) -> Option<&mut TdxModule> {
        self.module.as_mut()
    }

    /// Puts a module in place without P-SEAMLDR. If `keep_handoff` is set, the handoff pages that
    /// both modules have keep their content; all others become zero.
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
        self.memory.tables.zero();
        for lp in &mut self.memory.lps {
            lp.set_in_module(false);
            lp.package = 0;
        }
    }

    /// Returns whether there is a module that SEAMCALL reaches.
    pub fn module_is_callable(&self) -> bool {
        !self.dead && self.module.is_some() && self.loader.seamextend.seam_ready == 1
    }

    /// Returns whether firmware hit a fatal error. No SEAMCALL succeeds until the next boot.
    pub const fn is_dead(&self) -> bool {
        self.dead
    }

    /// Returns the code region: the image of the running module, then zeros.
    pub fn code(&self) -> &[u8] {
        &self.memory.code
    }

    /// Returns the LP that is inside P-SEAMLDR, if any.
    pub const fn lp_in_seamldr(&self) -> Option<u32> {
        self.in_seamldr
    }

    /// Returns header and data of the handoff, for changes.
    pub fn handoff(&mut self) -> &mut [u8] {
        &mut self.memory.handoff
    }

    /// Returns header and data of the handoff.
    pub fn handoff_area(&self) -> &[u8] {
        &self.memory.handoff
    }

    /// Returns the header of the handoff.
    pub fn handoff_header(&self) -> HandoffHeader {
        super::handoff::header(&self.memory.handoff)
    }

    /// Returns what the module hands over in tables: a bit for each package that has its key, the
    /// number of TDMRs, and its own KeyID.
    pub fn tables(&self) -> (u32, u32, u16) {
        let tables = &self.memory.tables;
        (tables.packages_configured.get(), tables.num_tdmrs.get(), tables.module_hkid.get())
    }

    /// Returns the planned faults.
    pub fn faults_mut(&mut self) -> &mut FaultPlan {
        &mut self.faults
    }

    /// Makes firmware read the byte at an address with these bits flipped. A mask of 0 restores the
    /// byte.
    ///
    /// Returns `false` if there is no room for another byte.
    #[must_use]
    pub fn tamper(&mut self, address: u64, mask: u8) -> bool {
        let known = self.flips.iter().any(|(at, used)| *at == address && *used != 0);
        if mask == 0 && !known {
            return true;
        }
        let fits = |(at, used): &&mut (u64, u8)| {
            if known {
                *used != 0 && *at == address
            } else {
                *used == 0
            }
        };
        let slot = self.flips.iter_mut().find(fits);
        slot.map(|slot| *slot = (address, mask)).is_some()
    }

    fn lp(&self, lp: u32) -> Option<&Lp> {
        self.memory.lps.get(usize::try_from(lp).ok()?).filter(|lp| lp.is_present())
    }

    fn lp_mut(&mut self, lp: u32) -> Option<&mut Lp> {
        self.memory.lps.get_mut(usize::try_from(lp).ok()?).filter(|lp| lp.is_present())
    }

    /// Returns the x2APIC id of an LP, if the LP exists.
    pub fn x2apic_id(&self, lp: u32) -> Option<u32> {
        self.lp(lp).map(|lp| lp.x2apic_id)
    }

    /// Returns whether an LP is inside a SEAMCALL. It cannot execute another one then.
    pub fn is_in_call(&self, lp: u32) -> bool {
        self.lp(lp).is_some_and(Lp::is_in_call)
    }

    /// Returns whether an LP is inside the module.
    pub fn is_in_module(&self, lp: u32) -> bool {
        self.lp(lp).is_some_and(Lp::is_in_module)
    }

    /// Returns the trap that each SEAMCALL of an LP gets; see [`set_trap`](Self::set_trap).
    pub fn trap(&self, lp: u32) -> Option<Trap> {
        self.lp(lp).and_then(Lp::trap)
    }

    /// Returns the SEAMOPS capabilities of an LP.
    pub fn capabilities(&self, lp: u32) -> u64 {
        self.lp(lp).map_or(0, |lp| lp.seamops_capabilities)
    }

    /// Makes each SEAMCALL of an LP trap (#GP or #UD) from now on; `None` ends this.
    pub fn set_trap(&mut self, lp: u32, trap: Option<Trap>) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.set_trap(trap);
        }
    }

    /// Returns the current VMCS of an LP, or [`NO_VMCS`].
    pub fn current_vmcs(&self, lp: u32) -> u64 {
        self.lp(lp).map_or(NO_VMCS, |lp| lp.current_vmcs)
    }

    /// Executes VMPTRLD on an LP.
    pub fn load_vmcs(&mut self, lp: u32, address: u64) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.current_vmcs = address;
        }
    }

    /// Sets whether an LP is inside the module.
    pub fn set_in_module(&mut self, lp: u32, inside: bool) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.set_in_module(inside);
        }
    }

    fn set_in_call(&mut self, lp: u32, inside: bool) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.set_in_call(inside);
        }
    }

    /// Sets the SEAMOPS capabilities of an LP.
    pub fn set_capabilities(&mut self, lp: u32, capabilities: u64) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.seamops_capabilities = capabilities;
        }
    }

    /// Flips bits of an MSR on one LP, so that this LP differs from the others. Flipping the same
    /// bits twice cancels. Returns `false` if there is no such LP, or no room for another
    /// deviation.
    #[must_use]
    pub fn deviate_msr(&mut self, lp: u32, msr: u32, bits: u64) -> bool {
        self.deviate(Some(lp), CpuRegister::Msr(msr), bits)
    }

    /// Flips bits of a register that software reads on one LP, or on all LPs (`None`). Flipping the
    /// same bits twice cancels. Returns `false` if there is no such LP, or no room for another
    /// deviation.
    #[must_use]
    pub fn deviate(&mut self, lp: Option<u32>, register: CpuRegister, bits: u64) -> bool {
        lp.is_none_or(|lp| self.lp(lp).is_some()) && self.memory.deviations.add(lp, register, bits)
    }

    /// Restores the capabilities, MSRs and CPUID of an LP.
    pub fn restore_lp(&mut self, lp: u32) {
        let capabilities = self.config.seamops_capabilities;
        if let Some(slot) = self.lp_mut(lp) {
            slot.seamops_capabilities = capabilities;
            self.memory.deviations.restore(lp);
        }
    }

    /// Restores the capabilities, MSRs and CPUID of all LPs.
    pub fn restore_lps(&mut self) {
        let capabilities = self.config.seamops_capabilities;
        self.memory.lps.iter_mut().for_each(|lp| lp.seamops_capabilities = capabilities);
        self.memory.deviations.restore_all();
    }

    /// Executes a whole SEAMCALL on one LP.
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

    /// Enters firmware on an LP, which stays inside until [`leave`](Self::leave). Meanwhile
    /// SEAMCALLs of other LPs to P-SEAMLDR fail if this LP is inside P-SEAMLDR; the module returns
    /// a busy status if this LP is inside the module.
    ///
    /// An LP that is [in a call](Self::is_in_call) cannot enter firmware again: VMfailInvalid.
    ///
    /// # Errors
    ///
    /// The instruction itself fails.
    pub fn enter(&mut self, lp: u32, regs: &SeamcallRegs) -> Result<Entered, Trap> {
        if let Some(trap) = self.lp(lp).map_or(Some(Trap::UndefinedOpcode), Lp::trap) {
            return Err(trap);
        }
        if self.is_in_call(lp) {
            return Err(Trap::VmFailInvalid);
        }
        let (answer, delay) = match self.faults.strike(lp, regs) {
            Some(Answer::Trap(trap)) => return Err(trap),
            Some(Answer::Return { rax, rdx }) => (Some((rax, rdx)), 0),
            Some(Answer::Delay(calls)) => (None, calls),
            None => (None, 0),
        };
        let in_seamldr = regs.rax >> 63 == 1;
        if in_seamldr {
            if self.dead || self.loader.seamextend.p_seamldr_ready == 0 || self.in_seamldr.is_some()
            {
                return Err(Trap::VmFailInvalid);
            }
            self.in_seamldr = Some(lp);
        } else {
            if !self.module_is_callable() || self.is_in_module(lp) {
                return Err(Trap::VmFailInvalid);
            }
            self.set_in_module(lp, true);
        }
        self.set_in_call(lp, true);
        Ok(Entered { lp, in_seamldr, answer, delay })
    }

    /// Does what the call does inside firmware, and returns to the host. `regs` are the registers
    /// that were passed to [`enter`](Self::enter).
    ///
    /// # Errors
    ///
    /// Firmware does not return: it hits a fatal error, or another LP's fatal error has switched
    /// SEAM mode off.
    pub fn leave(
        &mut self,
        entered: Entered,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Trap> {
        let Entered { lp, in_seamldr, answer, .. } = entered;
        self.set_in_call(lp, false);
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
            None if in_seamldr => self.enter_seamldr(lp, regs, memory, crypto),
            None => self.call_module(lp, regs, memory),
        };
        if in_seamldr {
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

    /// Runs P-SEAMLDR's code on an LP with these registers, without the processor's checks. RAX
    /// need not have bit 63.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR hits a fatal error, or the platform has no such LP. The platform is dead then.
    pub fn run_seamldr(
        &mut self,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &dyn PhysMemory,
        crypto: &dyn Crypto,
    ) -> Result<(), Trap> {
        self.in_seamldr = Some(lp);
        self.leave(Entered { lp, in_seamldr: true, answer: None, delay: 0 }, regs, memory, crypto)
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
}
