//! The call of SEAMLDR.INSTALL that completes a session: all checks, then the installation. Numbers
//! in comments are the specification's steps.

use tdx_seamldr_core::abi::{Scenario, SeamExtend, SeamSigstruct, SeamldrParams, SeamldrStatus};
use tdx_seamldr_core::abi::{INTEL_VENDOR_ID, MAX_CPUID_ENTRIES, MAX_MODULE_PAGES, PAGE_SIZE};
use tdx_seamldr_core::preflight::space::Shortage;
use zerocopy::little_endian::U64;
use zerocopy::{FromZeros, IntoBytes};

use super::{
    handoff, handoff_area, recoverable, unrecoverable, Layout, Loader, LoaderContext, ModuleSysInfo,
};
use super::{Refusal, PAGE};
use crate::model::{elf, Config, SeamMemory, SvnRule};

/// The most attempts to insert an entry into SEAMDB.
const INSERT_TRIES: u32 = 5;
/// Size in bytes of the code at the fault wrapper offset: 16 bytes for each of 32 vectors.
const FAULT_WRAPPERS: u64 = 512;

impl Loader {
    /// Executes firmware rules 8.5.5-35. A comment gives the last number of each rule.
    pub(super) fn complete(
        &mut self,
        params: u64,
        context: &mut LoaderContext<'_>,
    ) -> Result<(), Refusal> {
        let scenario = read_params(params, context)?;
        if scenario == Scenario::Update && self.snapshot.seam_ready == 0 {
            return Err(recoverable(SeamldrStatus::EBADPARAM)); // 12
        }
        let params = &context.memory.params;
        let pages = usize::try_from(params.num_module_pages.get()).unwrap_or(MAX_MODULE_PAGES);
        context.host.read(params.sigstruct_pa.get(), context.memory.sigstruct.as_mut_bytes());
        let size = pages.saturating_mul(PAGE_SIZE);
        let image_size = u64::try_from(size).unwrap_or(u64::MAX);
        self.check_sigstruct(scenario, image_size, context)?;

        if !context.config.rdrand() {
            return Err(recoverable(SeamldrStatus::ENOENTROPY)); // 28
        }
        let sigstruct = context.memory.sigstruct;
        let profile = context.config.profile;
        let layout = Layout::new(
            &sigstruct,
            image_size,
            context.config.addressable_lps(),
            context.config.rdrand_value,
        );
        if context.config.memory_available() < layout.need() {
            return Err(recoverable(SeamldrStatus::ENOMEM)); // 29
        }
        let preserve =
            scenario == Scenario::Update && sigstruct.svn_major != 0 && profile.preserves_tds;
        if preserve {
            if self.num_remaining_updates == 0 {
                return Err(recoverable(SeamldrStatus::EBADCALL)); // 30
            }
            let kept = self.check_handoff(&sigstruct, context)?; // 31
            context.memory.handoff.iter_mut().skip(kept).for_each(|byte| *byte = 0);
        } else {
            if profile.preserves_tds {
                self.clear_seamdb();
            }
            context.memory.handoff.fill(0);
        }
        // The old module is gone from here on.
        self.module_range_initialized = true;
        self.sysinfo = None;
        context.memory.clear_code();
        match layout.shortage(context.config.memory_available()) {
            Shortage::None => {}
            Shortage::Reported => return Err(unrecoverable(SeamldrStatus::ENOMEM)), // 32
            Shortage::Fatal => return Err(Refusal::Fatal),
        }
        context.memory.new_code(size);
        let SeamMemory { code, params, .. } = &mut *context.memory;
        let image = code.get_mut(..size).unwrap_or_default();
        for (page, address) in image.chunks_exact_mut(PAGE_SIZE).zip(&params.module_page_pa) {
            context.host.read(address.get(), page);
        }
        if context.crypto.sha384(&[&*image]) != Ok(sigstruct.seamhash) {
            return Err(unrecoverable(SeamldrStatus::EBADHASH)); // 33
        }
        if profile.relocates {
            elf::relocate(image, layout.code.base)
                .ok_or(unrecoverable(SeamldrStatus::EBADPARAM))?; // 34
            if sigstruct.gdt_idt_offset.get() != 0 {
                let wrappers =
                    layout.code.base.wrapping_add(sigstruct.fault_wrapper_offset.get().into());
                elf::point_gates(image, sigstruct.gdt_idt_offset.get(), wrappers);
            }
        }
        self.sysinfo = Some(ModuleSysInfo {
            layout,
            num_stack_pages: sigstruct.num_stack_pages.into(),
            num_tls_pages: sigstruct.num_tls_pages.into(),
            has_platform_table: true,
            ..ModuleSysInfo::default()
        });

        let (debug, ready) = (self.snapshot.system_under_debug, self.snapshot.p_seamldr_ready);
        self.seamextend = SeamExtend::new_zeroed();
        (self.seamextend.system_under_debug, self.seamextend.p_seamldr_ready) = (debug, ready);
        self.seamextend.valid = U64::new(SeamExtend::VALID);
        [self.seamextend.tee_tcb_svn[0], self.seamextend.tee_tcb_svn[1]] =
            [sigstruct.svn_minor, sigstruct.svn_major];
        self.seamextend.mrseam = sigstruct.seamhash;
        if profile.preserves_tds {
            self.insert_into_seamdb(context.config)?; // 35
        }
        self.seamextend.seam_ready = 1;
        if let Some(sysinfo) = &mut self.sysinfo {
            sysinfo.module_hv = sigstruct.module_hv.get();
            sysinfo.min_update_hv = sigstruct.min_update_hv.get();
            sysinfo.no_downgrade = sigstruct.no_downgrade;
            sysinfo.num_handoff_pages = sigstruct.num_handoff_pages.get();
        }
        self.num_remaining_updates = self.num_remaining_updates.saturating_sub(1);
        if profile.has_cleanup {
            self.mark_dirty();
        }
        Ok(())
    }

    fn insert_into_seamdb(&mut self, config: &Config) -> Result<(), Refusal> {
        for _ in 0..INSERT_TRIES {
            self.effects.seamdb_inserts = self.effects.seamdb_inserts.saturating_add(1);
            if self.seamdb.insert_failures != 0 {
                self.seamdb.insert_failures = self.seamdb.insert_failures.saturating_sub(1);
            } else if self.seamdb.used < self.seamdb.size {
                self.seamdb.used = self.seamdb.used.saturating_add(1);
                return Ok(());
            } else if config.full_seamdb_is_fatal {
                return Err(Refusal::Fatal);
            }
        }
        Err(unrecoverable(SeamldrStatus::ENOENTROPY))
    }

    /// Executes firmware rules 8.5.13-27.
    fn check_sigstruct(
        &self,
        scenario: Scenario,
        image_size: u64,
        context: &LoaderContext<'_>,
    ) -> Result<(), Refusal> {
        let (config, profile, sigstruct) =
            (&*context.config, &context.config.profile, &context.memory.sigstruct);
        let bad_sig = Err(recoverable(SeamldrStatus::EBADSIG));
        let debug = sigstruct.is_debug();
        let (gdt, fault) = (sigstruct.gdt_idt_offset.get(), sigstruct.fault_wrapper_offset.get());
        let reserved3: &[u8] = if profile.reserved3_is_zero { &sigstruct.reserved3 } else { &[] };
        let mut reserved = sigstruct.reserved0.iter().chain(&sigstruct.reserved1).chain(reserved3);
        let well_formed = reserved.all(|byte| *byte == 0)
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
            && usize::try_from(sigstruct.cpuid_table_size.get())
                .is_ok_and(|count| count <= MAX_CPUID_ENTRIES)
            && sigstruct.exponent.get() == 0x10001; // 17
        let consistent = (!profile.preserves_tds
            || sigstruct.min_update_hv.get() <= sigstruct.module_hv.get())
            && (!profile.relocates || gdt % 4096 == 0 && (gdt == 0) == (fault == 0)); // 18
        if !well_formed
            || !consistent
            || context.crypto.sha384(&[&sigstruct.modulus]) != Ok(config.signer) // 19
            || debug && !config.debug_unlocked
        {
            return bad_sig; // 20
        }
        if profile.refuses_major_0 && sigstruct.svn_major == 0 {
            return Err(recoverable(SeamldrStatus::EUNSUPPORTED)); // 21
        }
        let running = self.snapshot.svn();
        let lower = match profile.svn_rule {
            SvnRule::OneNumber => {
                (sigstruct.svn_major, sigstruct.svn_minor) < (running.major, running.minor)
            }
            SvnRule::SameMajor(_) => sigstruct.svn_minor < running.minor,
        };
        match (scenario, profile.svn_rule) {
            (Scenario::Update, SvnRule::SameMajor(other))
                if sigstruct.svn_major != running.major =>
            {
                return Err(recoverable(other)); // 22
            }
            (Scenario::Update, _) if lower => return bad_sig, // 23
            (Scenario::Load, _)
                if self.is_dirty() && (lower || sigstruct.svn_major != running.major) =>
            {
                return Err(recoverable(SeamldrStatus::ECLEANUPREQ)); // 23b
            }
            _ => {}
        }
        // 24. A size of 0 wraps around, as in the real P-SEAMLDR.
        if profile.relocates
            && (u64::from(gdt) > image_size.wrapping_sub(PAGE)
                || u64::from(fault) > image_size.wrapping_sub(FAULT_WRAPPERS))
        {
            return bad_sig;
        }
        if sigstruct.cpus().is_empty() {
            if !debug && profile.needs_cpu_list {
                return bad_sig; // 26
            }
        } else if !config.sockets().iter().all(|fms| sigstruct.lists_cpu(*fms)) {
            return Err(recoverable(SeamldrStatus::EUNSUPCPU)); // 25
        }
        let signature = if config.accepts_large_signatures {
            &reduced(&sigstruct.signature, &sigstruct.modulus)
        } else {
            &sigstruct.signature
        };
        let valid = context.crypto.sha384(&sigstruct.signed_parts()).and_then(|digest| {
            context.crypto.rsa3072_verify(&sigstruct.modulus, signature, &digest)
        });
        if valid != Ok(true) {
            return bad_sig; // 27
        }
        Ok(())
    }

    /// Executes firmware rule 8.5.31. Returns how many bytes of the handoff area to keep.
    fn check_handoff(
        &self,
        sigstruct: &SeamSigstruct,
        context: &LoaderContext<'_>,
    ) -> Result<usize, Refusal> {
        let header = handoff::header(&context.memory.handoff);
        let range = sigstruct.min_update_hv.get()..=sigstruct.module_hv.get();
        let used = u64::from(header.size.get()).saturating_add(8);
        let area = handoff_area(self.sysinfo.map_or(0, |running| running.num_handoff_pages));
        if header.valid == 0 || used > area || !range.contains(&header.hv.get()) {
            return Err(recoverable(SeamldrStatus::EBADHANDOFF));
        }
        Ok(usize::try_from(used).unwrap_or(usize::MAX))
    }
}

/// Executes firmware rules 8.5.5-11: reads SEAMLDR_PARAMS.
fn read_params(address: u64, context: &mut LoaderContext<'_>) -> Result<Scenario, Refusal> {
    let bad = recoverable(SeamldrStatus::EBADPARAM);
    let (config, params): (&Config, &mut SeamldrParams) =
        (context.config, &mut context.memory.params);
    let is_page = |address: u64| config.is_shared(address, PAGE);
    if !is_page(address) {
        return Err(bad);
    }
    context.host.read(address, params.as_mut_bytes());
    let scenario = match params.scenario.get() {
        0 => Scenario::Load,
        1 => Scenario::Update,
        _ => return Err(bad),
    };
    let count = params.num_module_pages.get();
    let listed = usize::try_from(count).ok().and_then(|count| params.module_page_pa.get(..count));
    let valid = params.version.get() == 0
        && params.reserved.iter().all(|byte| *byte == 0)
        && count >= config.profile.min_module_pages
        && listed.is_some_and(|pages| pages.iter().all(|page| is_page(page.get())))
        && is_page(params.sigstruct_pa.get());
    if valid {
        Ok(scenario)
    } else {
        Err(bad)
    }
}

/// Reduces a little-endian number once by the modulus. The result is the remainder only if the
/// number is below twice the modulus.
fn reduced(number: &[u8; 384], modulus: &[u8; 384]) -> [u8; 384] {
    if number.iter().rev().lt(modulus.iter().rev()) {
        return *number;
    }
    let mut borrow = false;
    let mut difference = [0; 384];
    for (digit, (minuend, subtrahend)) in difference.iter_mut().zip(number.iter().zip(modulus)) {
        let (partial, first) = minuend.overflowing_sub(*subtrahend);
        let (whole, second) = partial.overflowing_sub(borrow.into());
        (*digit, borrow) = (whole, first || second);
    }
    difference
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduced_subtracts_the_modulus_once() {
        let (mut number, mut modulus) = ([0; 384], [0; 384]);
        modulus[..3].copy_from_slice(&[7, 0, 1]);
        number[..3].copy_from_slice(&[6, 0, 1]);
        assert_eq!(reduced(&number, &modulus), number);
        number[..3].copy_from_slice(&[5, 3, 1]);
        assert_eq!(reduced(&number, &modulus)[..4], [0xfe, 2, 0, 0]);
    }
}
