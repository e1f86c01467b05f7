//! The processor's side of it: which firmware a SEAMCALL reaches, on which LP.

use core::ops::DerefMut;

use tdx_seamldr_core::abi::{HandoffHeader, PSysInfo, SeamExtend, SeamldrLeaf};
use tdx_seamldr_core::{Crypto, SeamcallRegs, Trap};
use zerocopy::little_endian::U16;
use zerocopy::FromZeros;

use super::handoff::KeyOwner;
use super::loader::{Installed, LoaderContext};
use super::lp::{Lp, NO_VMCS};
use super::module::CallContext;
use super::{
    Answer, Config, CpuRegister, Fatal, FaultPlan, Loader, LoaderState, ModuleBuild, ModuleState,
};
use super::{PhysMemory, SeamDb, SeamMemory, SysInfo, Td, TdError, TdId, TdPhase, TdxModule};

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
    /// P-SEAMLDR was entered, not the module.
    in_seamldr: bool,
    answer: Option<(u64, u64)>,
    /// So many calls of others have to be made first, if somebody has planned that.
    pub delay: u32,
}

/// A platform, as a value. Whoever owns it makes the calls, one after the other
/// ([`seamcall`](Self::seamcall)) or with LPs inside firmware at the same time
/// ([`enter`](Self::enter) and [`leave`](Self::leave)).
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
    /// A platform as firmware leaves it: P-SEAMLDR is there, and no module. What `memory` held
    /// before is forgotten.
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

    /// Replaces the LPs by LPs with these x2APIC ids, as many as there is room for. Firmware goes
    /// on waiting for [`Config::num_lps`].
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

    /// Changes the number of remaining updates that P-SEAMLDR remembers. SEAMLDR.INFO counts again
    /// if it is 0.
    pub fn set_num_remaining_updates(&mut self, count: u32) {
        self.loader.num_remaining_updates = count;
    }

    /// Says whether P-SEAMLDR was entered since boot. Its first entry needs a random number.
    pub fn set_seamldr_entered(&mut self, entered: bool) {
        self.loader.entered = entered;
    }

    /// The SEAMEXTEND register, to be changed as no host could. An open session stays open.
    pub fn seamextend_mut(&mut self) -> &mut SeamExtend {
        &mut self.loader.seamextend
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

    /// Puts a module in place without asking P-SEAMLDR. Of the handoff data remains what both
    /// modules have pages for, or nothing.
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
        for lp in &mut self.memory.lps {
            lp.set_in_module(false);
            lp.package = 0;
        }
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

    /// Header and data of the handoff, to be changed.
    pub fn handoff(&mut self) -> &mut [u8] {
        &mut self.memory.handoff
    }

    /// Header and data of the handoff.
    pub fn handoff_area(&self) -> &[u8] {
        &self.memory.handoff
    }

    /// The header of the handoff.
    pub fn handoff_header(&self) -> HandoffHeader {
        super::handoff::header(&self.memory.handoff)
    }

    /// What the module keeps in tables that it hands over: packages that have its key (a bit each),
    /// TDMRs, its own KeyID.
    pub fn tables(&self) -> (u32, u32, u16) {
        let tables = &self.memory.tables;
        (tables.packages_configured.get(), tables.num_tdmrs.get(), tables.module_hkid.get())
    }

    /// Calls that go wrong.
    pub fn faults_mut(&mut self) -> &mut FaultPlan {
        &mut self.faults
    }

    /// From now on firmware reads the byte at an address with these bits changed. A mask of 0 puts
    /// it right.
    ///
    /// `false`: there is no room for another byte.
    #[must_use]
    pub fn tamper(&mut self, address: u64, mask: u8) -> bool {
        let free = |(at, used): &&mut (u64, u8)| *used == 0 || *at == address;
        let known = self.flips.iter().any(|(at, used)| *at == address && *used != 0);
        let slot =
            self.flips.iter_mut().find(|slot| if known { slot.0 == address } else { free(slot) });
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

    /// Whether a SEAMCALL of an LP has begun and not ended. The LP cannot execute another one then.
    pub fn is_in_call(&self, lp: u32) -> bool {
        self.lp(lp).is_some_and(Lp::is_in_call)
    }

    /// Whether an LP is inside the module.
    pub fn is_in_module(&self, lp: u32) -> bool {
        self.lp(lp).is_some_and(Lp::is_in_module)
    }

    /// The trap that each SEAMCALL of an LP gets, if [`set_trap`](Self::set_trap) has set one.
    pub fn trap(&self, lp: u32) -> Option<Trap> {
        self.lp(lp).and_then(Lp::trap)
    }

    /// SEAMOPS capabilities of an LP.
    pub fn capabilities(&self, lp: u32) -> u64 {
        self.lp(lp).map_or(0, |lp| lp.seamops_capabilities)
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

    /// Says that an LP is inside the module, in the middle of something, or that it is not any
    /// more.
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

    /// SEAMOPS capabilities of one LP.
    pub fn set_capabilities(&mut self, lp: u32, capabilities: u64) {
        if let Some(lp) = self.lp_mut(lp) {
            lp.seamops_capabilities = capabilities;
        }
    }

    /// Changes bits of an MSR on one LP, so that it differs from other LPs; the same bits twice
    /// cancel. `false`: there is no such LP, or LPs differ in as many registers as there is
    /// room for already.
    #[must_use]
    pub fn deviate_msr(&mut self, lp: u32, msr: u32, bits: u64) -> bool {
        self.deviate(Some(lp), CpuRegister::Msr(msr), bits)
    }

    /// Changes bits of what software reads on one LP, or on all of them (`None`); the same bits
    /// twice cancel. `false`: there is no such LP, or LPs differ in as many registers as there
    /// is room for already.
    #[must_use]
    pub fn deviate(&mut self, lp: Option<u32>, register: CpuRegister, bits: u64) -> bool {
        lp.is_none_or(|lp| self.lp(lp).is_some()) && self.memory.deviations.add(lp, register, bits)
    }

    /// Takes back what is special about an LP's capabilities, MSRs and CPUID.
    pub fn restore_lp(&mut self, lp: u32) {
        let capabilities = self.config.seamops_capabilities;
        if let Some(slot) = self.lp_mut(lp) {
            slot.seamops_capabilities = capabilities;
            self.memory.deviations.restore(lp);
        }
    }

    /// Takes back what is special about any LP's capabilities, MSRs and CPUID.
    pub fn restore_lps(&mut self) {
        let capabilities = self.config.seamops_capabilities;
        self.memory.lps.iter_mut().for_each(|lp| lp.seamops_capabilities = capabilities);
        self.memory.deviations.restore_all();
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

    /// An LP executes SEAMCALL and gets into firmware, where it stays until [`leave`](Self::leave).
    /// Meanwhile others find it there: SEAMCALL fails if it is in P-SEAMLDR, and the module
    /// says that it is busy.
    ///
    /// A real LP executes one instruction after the other. A second call of an LP that is [in a
    /// call](Self::is_in_call) reaches no firmware: VMfailInvalid.
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
            if !self.module_is_callable() || self.lp(lp).is_some_and(Lp::is_in_module) {
                return Err(Trap::VmFailInvalid);
            }
            self.set_in_module(lp, true);
        }
        self.set_in_call(lp, true);
        Ok(Entered { lp, in_seamldr, answer, delay })
    }

    /// What an LP does inside firmware happens, and it comes back. `regs` are those that it went in
    /// with.
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

    /// P-SEAMLDR's own code runs on an LP with these registers, whatever the processor would say to
    /// the call: RAX need not have bit 63.
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

    /// Makes a TD with a KeyID of its own; `None` if no module is ready or there is no room for one
    /// more.
    pub fn create_td(&mut self, phase: TdPhase, secret: [u8; 32]) -> Option<TdId> {
        let module = self.ready_module()?;
        let (counts, context_version) =
            (module.has_update_compatibility(), module.build().crypto_context);
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
        *slot = Td::new(phase, hkid, secret, context_version);
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

    /// What the private memory of a TD holds, as the TD itself sees it: if a module is ready, can
    /// be called, and knows the TD's KeyID. If that is not the one that the memory was
    /// encrypted with, the TD sees noise.
    pub fn td_secret(&self, id: TdId) -> Option<[u8; 32]> {
        let hkid = self.hkid_of(id)?;
        self.td(id).map(|td| td.read(hkid))
    }

    /// The TD, if it can go on with what is under way in this phase.
    fn td_under_way(&mut self, id: TdId, phase: TdPhase) -> Result<&mut Td, TdError> {
        self.hkid_of(id).ok_or(TdError::Gone)?;
        let protected = self.module.as_ref().is_some_and(TdxModule::update_compatibility);
        let td = self
            .memory
            .tds
            .get_mut(usize::from(id.0))
            .filter(|td| td.is_present())
            .ok_or(TdError::Gone)?;
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

    /// A TD's build, or the migration of it that was interrupted, comes to its end, and it runs.
    /// Says what its MRTD, or the migration's MAC, has become.
    ///
    /// # Errors
    ///
    /// The TD does not go on.
    pub fn finish_td(&mut self, id: TdId, phase: TdPhase) -> Result<[u8; 32], TdError> {
        let td = self.td_under_way(id, phase)?;
        td.finish_measurement();
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
