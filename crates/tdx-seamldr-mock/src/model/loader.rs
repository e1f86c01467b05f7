//! P-SEAMLDR: sessions, checks, and putting a module in place. The steps are those of SEAMLDR.INSTALL in the specification.

use tdx_seamldr_core::abi::{HandoffHeader, PSysInfo, Scenario, SeamExtend, SeamSigstruct, SeamldrInfo};
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrParams, SeamldrStatus, INTEL_VENDOR_ID, MAX_CPUID_ENTRIES};
use tdx_seamldr_core::abi::{MAX_MODULE_PAGES, PAGE_SIZE};
use tdx_seamldr_core::{Crypto, SeamcallRegs};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

use super::module::{contains, handoff_area, insert, LpSet, SysInfo};
use super::{elf, handoff, Config, Fatal, ModuleBuild, PhysMemory, SeamStorage};

/// x2APIC ids that P-SEAMLDR has places for.
const MAX_LP_ID: u32 = 1024;
/// Tries of an insertion into SEAMDB.
const INSERT_TRIES: u32 = 5;
const PAGE: u64 = 4096;

/// The processor's database of modules that were installed since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeamDb {
    /// Entries that it has room for.
    pub size: u32,
    /// Entries in use.
    pub used: u32,
    /// How many of the next insertions fail for want of entropy.
    pub insert_failures: u32,
}

/// P-SEAMLDR and what it keeps.
#[derive(Clone, Debug)]
pub struct Loader {
    pub(super) seamextend: SeamExtend,
    pub(super) seamdb: SeamDb,
    num_remaining_updates: u32,
    session: LpSet,
    lps_in_session: u32,
    /// SEAMEXTEND as it was when the session began.
    snapshot: SeamExtend,
    shutdown: LpSet,
    lps_in_shutdown: u32,
    /// Of the running module, pages minus one.
    num_handoff_pages: u16,
}

/// What the loader can see and touch.
pub(super) struct LoaderContext<'a> {
    pub(super) config: &'a Config,
    pub(super) x2apic_id: u32,
    pub(super) memory: &'a dyn PhysMemory,
    pub(super) crypto: &'a dyn Crypto,
    pub(super) storage: &'a mut dyn SeamStorage,
}

/// Why an installation failed: RAX, and RDX.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    status: SeamldrStatus,
    unrecoverable: bool,
}

const fn recoverable(status: SeamldrStatus) -> Refusal {
    Refusal { status, unrecoverable: false }
}

const fn unrecoverable(status: SeamldrStatus) -> Refusal {
    Refusal { status, unrecoverable: true }
}

/// What a call left behind, beside the registers.
#[derive(Debug)]
pub(super) enum Installed {
    /// The module is as before.
    Nothing,
    /// The module is gone.
    ModuleGone,
    /// There is a new one.
    Module(SysInfo, ModuleBuild),
}

impl Loader {
    pub(super) fn new(seamdb: SeamDb) -> Self {
        let mut seamextend = SeamExtend::new_zeroed();
        seamextend.p_seamldr_ready = 1;
        Self {
            seamextend,
            seamdb,
            num_remaining_updates: 0,
            session: [0; 16],
            lps_in_session: 0,
            snapshot: seamextend,
            shutdown: [0; 16],
            lps_in_shutdown: 0,
            num_handoff_pages: 0,
        }
    }

    /// The SEAMEXTEND register.
    #[must_use]
    pub const fn seamextend(&self) -> &SeamExtend {
        &self.seamextend
    }

    /// The number of remaining updates that it remembers.
    #[must_use]
    pub const fn num_remaining_updates(&self) -> u32 {
        self.num_remaining_updates
    }

    /// LPs that take part in the session that is open; 0 if none is.
    #[must_use]
    pub const fn lps_in_session(&self) -> u32 {
        self.lps_in_session
    }

    /// One SEAMCALL.
    pub(super) fn call(
        &mut self,
        regs: &mut SeamcallRegs,
        mut context: LoaderContext<'_>,
    ) -> Result<Installed, Fatal> {
        let mut installed = Installed::Nothing;
        let status = match SeamldrLeaf::from_rax(regs.rax) {
            Some(SeamldrLeaf::Info) => self.info(regs.rcx, &context),
            Some(SeamldrLeaf::SeamInfo) => seam_info(regs.rcx, &context),
            Some(SeamldrLeaf::Shutdown) => self.shut_down(&context),
            Some(SeamldrLeaf::Install) => {
                let result = self.install(regs.rcx, &mut context, &mut installed);
                regs.rdx = u64::from(result.is_err_and(|refusal| refusal.unrecoverable));
                result.map_or_else(|refusal| refusal.status, |()| SeamldrStatus::SUCCESS)
            }
            Some(SeamldrLeaf::Cleanup) | None => SeamldrStatus::EBADPARAM,
        };
        regs.rax = status.0;
        Ok(installed)
    }

    fn info(&mut self, address: u64, context: &LoaderContext<'_>) -> SeamldrStatus {
        let mut info = SeamldrInfo::new_zeroed();
        if !context.config.is_shared(address, 256) {
            return SeamldrStatus::EBADPARAM;
        }
        if self.num_remaining_updates == 0 {
            self.recount_remaining_updates();
        }
        let profile = &context.config.profile;
        info.vendor = U32::new(INTEL_VENDOR_ID);
        info.build_date = U32::new(profile.build_date);
        info.build_num = U16::new(profile.build_num);
        info.minor = U16::new(profile.minor);
        info.major = U16::new(profile.major);
        info.acm_x2apicid = U32::new(context.config.acm_x2apicid);
        info.num_remaining_updates = U32::new(self.num_remaining_updates);
        info.seamextend = self.seamextend;
        context.memory.write(address, info.as_bytes());
        SeamldrStatus::SUCCESS
    }

    fn recount_remaining_updates(&mut self) {
        self.num_remaining_updates = self.seamdb.size.saturating_sub(self.seamdb.used);
    }

    fn shut_down(&mut self, context: &LoaderContext<'_>) -> SeamldrStatus {
        if context.x2apic_id >= MAX_LP_ID {
            return SeamldrStatus::EUNSPECERR;
        }
        if insert(&mut self.shutdown, context.x2apic_id) {
            self.lps_in_shutdown = self.lps_in_shutdown.saturating_add(1);
        }
        self.seamextend.seam_ready = 0;
        if self.lps_in_shutdown < context.config.num_lps {
            return SeamldrStatus::SUCCESS;
        }
        if context.x2apic_id != context.config.acm_x2apicid {
            return SeamldrStatus::EBADCALL;
        }
        self.seamextend.zero();
        SeamldrStatus::SUCCESS
    }

    fn install(
        &mut self,
        params: u64,
        context: &mut LoaderContext<'_>,
        installed: &mut Installed,
    ) -> Result<(), Refusal> {
        if context.x2apic_id >= MAX_LP_ID {
            return Err(recoverable(SeamldrStatus::EUNSPECERR)); // 1
        }
        if self.lps_in_shutdown != 0 || contains(&self.session, context.x2apic_id) {
            return Err(recoverable(SeamldrStatus::EBADCALL)); // 2, 3
        }
        if self.lps_in_session == 0 {
            self.snapshot = self.seamextend;
            self.seamextend.seam_ready = 0;
        }
        insert(&mut self.session, context.x2apic_id);
        self.lps_in_session = self.lps_in_session.saturating_add(1);
        if self.lps_in_session < context.config.num_lps {
            return Ok(()); // 4
        }
        let result = self.complete(params, context);
        self.session = [0; 16];
        self.lps_in_session = 0;
        match result {
            Ok(sigstruct) => {
                self.num_handoff_pages = sigstruct.num_handoff_pages.get();
                let config = context.config;
                let sysinfo = SysInfo::new(&sigstruct, config.num_lps, config.num_sockets);
                *installed = Installed::Module(sysinfo, ModuleBuild::of_image(&sigstruct));
                Ok(())
            }
            Err(refusal) => {
                if !refusal.unrecoverable {
                    self.seamextend = self.snapshot;
                } else {
                    *installed = Installed::ModuleGone;
                    // Without entropy for SEAMDB the new module's values stay, though it is not ready.
                    if refusal.status != SeamldrStatus::ENOENTROPY {
                        let (debug, ready) =
                            (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready);
                        self.seamextend.zero();
                        (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready) =
                            (debug, ready);
                    }
                }
                Err(refusal)
            }
        }
    }

    /// The call of the last LP: all checks, and the work.
    fn complete(&mut self, params: u64, context: &mut LoaderContext<'_>) -> Result<SeamSigstruct, Refusal> {
        let (params, scenario) = read_params(params, context)?;
        if scenario == Scenario::Update && self.snapshot.seam_ready == 0 {
            return Err(recoverable(SeamldrStatus::EBADPARAM)); // 12
        }
        let mut sigstruct = SeamSigstruct::new_zeroed();
        context.memory.read(params.sigstruct_pa.get(), sigstruct.as_mut_bytes());
        let pages = usize::try_from(params.num_module_pages.get()).unwrap_or(MAX_MODULE_PAGES);
        let size = pages.saturating_mul(PAGE_SIZE);
        self.check_sigstruct(&sigstruct, scenario, u64::try_from(size).unwrap_or(u64::MAX), context)?;

        if !context.config.rdrand_ok {
            return Err(recoverable(SeamldrStatus::ENOENTROPY)); // 28
        }
        if context.config.memory_available() < memory_need(&sigstruct, size, context.config) {
            return Err(recoverable(SeamldrStatus::ENOMEM)); // 29
        }
        let preserve = scenario == Scenario::Update && sigstruct.svn_major != 0;
        if preserve {
            if self.num_remaining_updates == 0 {
                return Err(recoverable(SeamldrStatus::EBADCALL)); // 30
            }
            self.check_handoff(&sigstruct, context)?; // 31
        } else {
            self.seamdb.used = 0;
            self.recount_remaining_updates();
            context.storage.handoff().fill(0);
        }
        // From here on the old module is gone.
        let code = context.storage.code();
        code.fill(0);
        let image = code.get_mut(..size).unwrap_or_default();
        for (page, address) in image.chunks_exact_mut(PAGE_SIZE).zip(&params.module_page_pa) {
            context.memory.read(address.get(), page);
        }
        if context.crypto.sha384(&[&*image]) != Ok(sigstruct.seamhash) {
            return Err(unrecoverable(SeamldrStatus::EBADHASH)); // 33
        }
        let base = CODE_LINEAR_BASE | (context.config.rdrand_value & 0x7ffc) << 32;
        elf::relocate(image, base).ok_or(unrecoverable(SeamldrStatus::EBADPARAM))?; // 34

        let (debug, ready) = (self.snapshot.system_under_debug, self.snapshot.p_seamldr_ready);
        self.seamextend = SeamExtend::new_zeroed();
        (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready) = (debug, ready);
        self.seamextend.valid = U64::new(SeamExtend::VALID);
        [self.seamextend.tee_tcb_svn[0], self.seamextend.tee_tcb_svn[1]] =
            [sigstruct.svn_minor, sigstruct.svn_major];
        self.seamextend.mrseam = sigstruct.seamhash;
        self.insert_into_seamdb()?; // 35
        self.seamextend.seam_ready = 1;
        self.num_remaining_updates = self.num_remaining_updates.saturating_sub(1);
        Ok(sigstruct)
    }

    fn insert_into_seamdb(&mut self) -> Result<(), Refusal> {
        for _ in 0..INSERT_TRIES {
            if self.seamdb.insert_failures == 0 {
                self.seamdb.used = self.seamdb.used.saturating_add(1);
                return Ok(());
            }
            self.seamdb.insert_failures = self.seamdb.insert_failures.saturating_sub(1);
        }
        Err(unrecoverable(SeamldrStatus::ENOENTROPY))
    }

    /// Steps 13 to 27.
    fn check_sigstruct(
        &self,
        sigstruct: &SeamSigstruct,
        scenario: Scenario,
        image_size: u64,
        context: &LoaderContext<'_>,
    ) -> Result<(), Refusal> {
        let config = context.config;
        let bad_sig = Err(recoverable(SeamldrStatus::EBADSIG));
        let debug = sigstruct.is_debug();
        let (gdt, fault) = (sigstruct.gdt_idt_offset.get(), sigstruct.fault_wrapper_offset.get());
        let reserved3: &[u8] = if config.profile.reserved3_is_zero { &sigstruct.reserved3 } else { &[] };
        let well_formed = sigstruct.reserved0.iter().chain(&sigstruct.reserved1).chain(reserved3).all(|b| *b == 0)
            && sigstruct.reserved2 == 0 // 13
            && sigstruct.header_type.get() == 6
            && sigstruct.header_length.get() == 0xe1
            && sigstruct.header_version.get() == 0x10000 // 14
            && sigstruct.key_size.get() == 0x60
            && sigstruct.exponent_size.get() == 1
            && sigstruct.modulus_size.get() == 0x60 // 15
            && sigstruct.module_vendor.get() == INTEL_VENDOR_ID
            && sigstruct.module_type.get() & !SeamSigstruct::MODULE_TYPE_DEBUG == 0
            && sigstruct.attributes.get() == 0 // 16
            && sigstruct.size.get() == 0x200
            && usize::try_from(sigstruct.cpuid_table_size.get()).is_ok_and(|count| count <= MAX_CPUID_ENTRIES)
            && sigstruct.exponent.get() == 0x10001 // 17
            && sigstruct.min_update_hv.get() <= sigstruct.module_hv.get()
            && gdt % 4096 == 0
            && (gdt == 0) == (fault == 0); // 18
        if !well_formed
            || context.crypto.sha384(&[&sigstruct.modulus]) != Ok(config.signer) // 19
            || debug && !config.debug_unlocked
        {
            return bad_sig; // 20
        }
        if scenario == Scenario::Update {
            let running = self.snapshot.svn();
            if sigstruct.svn_major != running.major {
                return Err(recoverable(config.profile.major_svn_mismatch)); // 22
            }
            if sigstruct.svn_minor < running.minor {
                return bad_sig; // 23
            }
        }
        // 24. A size of 0 wraps around, as in the real one.
        if u64::from(gdt) > image_size.wrapping_sub(PAGE) || u64::from(fault) > image_size.wrapping_sub(512) {
            return bad_sig;
        }
        if sigstruct.cpus().is_empty() {
            if !debug {
                return bad_sig; // 26
            }
        } else if !config.sockets().iter().all(|fms| sigstruct.lists_cpu(*fms)) {
            return Err(recoverable(SeamldrStatus::EUNSUPCPU)); // 25
        }
        let signed = context.crypto.sha384(&sigstruct.signed_parts());
        let valid = signed.and_then(|digest| {
            context.crypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest)
        });
        if valid != Ok(true) {
            return bad_sig; // 27
        }
        Ok(())
    }

    /// Step 31.
    fn check_handoff(
        &self,
        sigstruct: &SeamSigstruct,
        context: &mut LoaderContext<'_>,
    ) -> Result<(), Refusal> {
        let header: HandoffHeader = handoff::header(context.storage.handoff());
        let range = sigstruct.min_update_hv.get()..=sigstruct.module_hv.get();
        let fits = u64::from(header.size.get()).saturating_add(8) <= handoff_area(self.num_handoff_pages);
        if header.valid == 0 || !fits || !range.contains(&header.hv.get()) {
            return Err(recoverable(SeamldrStatus::EBADHANDOFF));
        }
        Ok(())
    }
}

/// Where code begins for the module, but for the random bits.
const CODE_LINEAR_BASE: u64 = 0xffff_8000_0000_0000;

/// Steps 5 to 11.
fn read_params(address: u64, context: &LoaderContext<'_>) -> Result<(SeamldrParams, Scenario), Refusal> {
    let bad = recoverable(SeamldrStatus::EBADPARAM);
    let is_page = |address: u64| context.config.is_shared(address, PAGE);
    if !is_page(address) {
        return Err(bad);
    }
    let mut params = SeamldrParams::new_zeroed();
    context.memory.read(address, params.as_mut_bytes());
    let scenario = match params.scenario.get() {
        0 => Scenario::Load,
        1 => Scenario::Update,
        _ => return Err(bad),
    };
    let count = params.num_module_pages.get();
    let listed = usize::try_from(count).ok().and_then(|count| params.module_page_pa.get(..count));
    let valid = params.version.get() == 0
        && params.reserved.iter().all(|byte| *byte == 0)
        && count >= context.config.profile.min_module_pages
        && listed.is_some_and(|pages| pages.iter().all(|page| is_page(page.get())))
        && is_page(params.sigstruct_pa.get());
    if valid {
        Ok((params, scenario))
    } else {
        Err(bad)
    }
}

fn seam_info(address: u64, context: &LoaderContext<'_>) -> SeamldrStatus {
    if !context.config.is_shared(address, 2048) {
        return SeamldrStatus::EBADPARAM;
    }
    let config = context.config;
    let mut sysinfo = PSysInfo::new_zeroed();
    sysinfo.tot_num_lps = U32::new(config.num_lps);
    sysinfo.tot_num_sockets = U32::new(config.num_sockets);
    for (slot, fms) in sysinfo.socket_cpuid.iter_mut().zip(config.sockets()) {
        *slot = U32::new(*fms);
    }
    sysinfo.p_seamldr_base = U64::new(config.p_seamldr_base());
    sysinfo.p_seamldr_size = U64::new(config.p_seamldr_size);
    context.memory.write(address, sysinfo.as_bytes());
    SeamldrStatus::SUCCESS
}

/// Bytes of the SEAM range that a module takes (step 29).
fn memory_need(sigstruct: &SeamSigstruct, image_size: usize, config: &Config) -> u64 {
    let plus_one = |field: u64| field.saturating_add(1);
    let pages_of = |bytes: u64, unit_bits: u32| (bytes >> unit_bits).saturating_mul(8).div_ceil(PAGE);
    let tables = |bytes: u64| {
        pages_of(bytes, 12).saturating_add(pages_of(bytes, 21)).saturating_add(pages_of(bytes, 30))
    };
    let lps = u64::from(config.addressable_lps());
    let handoff =
        if sigstruct.svn_major == 0 { 0 } else { plus_one(sigstruct.num_handoff_pages.get().into()) };
    let stack = plus_one(plus_one(sigstruct.num_stack_pages.into())).saturating_mul(lps).saturating_mul(PAGE);
    let data = plus_one(sigstruct.num_tls_pages.into())
        .saturating_mul(lps)
        .saturating_add(plus_one(sigstruct.num_global_data_pages.get().into()))
        .saturating_add(handoff)
        .saturating_mul(PAGE);
    let keyhole = plus_one(sigstruct.num_keyhole_pages.get().into()).saturating_mul(lps).saturating_mul(PAGE);
    let keyhole_edit = (keyhole / PAGE).saturating_mul(8).next_multiple_of(PAGE);
    let code = u64::try_from(image_size).unwrap_or(u64::MAX);
    let paging = [PAGE, stack, data, keyhole, keyhole_edit, code]
        .into_iter()
        .map(tables)
        .fold(1, u64::saturating_add)
        .saturating_mul(PAGE);
    let vmcs = lps.saturating_mul(PAGE);
    [PAGE, vmcs, stack, data, paging, 2 << 20].into_iter().fold(0, u64::saturating_add)
}
