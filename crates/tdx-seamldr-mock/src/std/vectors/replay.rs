//! Replays a recording on the model, and compares each step.

use core::fmt::Debug;

use tdx_seamldr_core::preflight::space::Region;
use tdx_seamldr_core::{Crypto, SeamcallRegs};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::IntoBytes;

use super::described::{self, Described, DescriptionError};
use super::format::{
    Call, Event, Expect, HandoffAfter, LoaderAfter, LoaderFinal, Lps, ModuleAfter, ModuleFinal,
    Number, SeamDbEffects, Set, Step, SvnAfter, SysInfoAfter, Vector, Write,
};
use super::Difference;
use crate::model::{CpuRegister, GlobalLock, ModuleState, TdxModule};
use crate::std::sparse_memory::SparseMemory;

/// The firmware that a recording is about.
pub(super) trait Firmware {
    /// Makes one call.
    fn call(
        platform: &mut Described,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &SparseMemory,
    ) -> bool;
}

/// Collects the differences between model and recording.
struct Comparison<'a> {
    differences: &'a mut Vec<Difference>,
}

impl Comparison<'_> {
    fn same<T: PartialEq + Debug>(&mut self, field: &str, found: T, expected: T) {
        if found != expected {
            let [found, expected] = [found, expected].map(|value| format!("{value:x?}"));
            self.differences.push(Difference { field: field.to_owned(), found, expected });
        }
    }

    fn same_if_known<T: PartialEq + Debug>(&mut self, field: &str, found: T, expected: Option<T>) {
        if let Some(expected) = expected {
            self.same(field, found, expected);
        }
    }

    fn same_bytes(&mut self, field: &str, found: &[u8], expected: &[u8]) {
        let matching = found.iter().zip(expected).take_while(|(one, other)| one == other).count();
        if matching != found.len() || found.len() != expected.len() {
            let part = |bytes: &[u8]| {
                let rest = bytes.get(matching..).unwrap_or_default();
                let shown: String =
                    rest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
                format!("{} bytes, from offset {matching} on {shown}", bytes.len())
            };
            let [found, expected] = [found, expected].map(part);
            self.differences.push(Difference { field: field.to_owned(), found, expected });
        }
    }
}

/// Replays the steps. Returns the differences, and the step at which the first one was found
/// (`None`: after all steps).
fn play<F: Firmware, A>(
    vector: &Vector<A, impl Sized>,
    platform: &mut Described,
    memory: &SparseMemory,
    differences: &mut Vec<Difference>,
    check: impl Fn(&Described, Option<&A>, &mut Comparison<'_>),
) -> Result<Option<usize>, DescriptionError> {
    for (number, step) in vector.steps.iter().enumerate() {
        match step {
            Step::Event(event) => happen(event, platform)?,
            Step::Call(call) => {
                let comparison = &mut Comparison { differences: &mut *differences };
                one_call::<F, A>(call, platform, memory, comparison);
                if !call.expect.fatal {
                    check(platform, call.after.as_ref(), comparison);
                }
            }
        }
        if !differences.is_empty() {
            return Ok(Some(number));
        }
    }
    Ok(None)
}

fn one_call<F: Firmware, A>(
    call: &Call<A>,
    platform: &mut Described,
    memory: &SparseMemory,
    comparison: &mut Comparison<'_>,
) {
    // Registers that the recording does not name have to keep their values.
    let input = SeamcallRegs {
        rax: call.rax.0,
        rcx: call.rcx.0,
        rdx: call.rdx.0,
        r8: call.r8.0,
        r9: call.r9.0,
        r10: call.r10.0,
        rbx: 0xb,
        rsi: 0x51,
        rdi: 0xd1,
        r11: 0x11,
        r12: 0x12,
        r13: 0x13,
        r14: 0x14,
        r15: 0x15,
    };
    let mut output = input;
    let _ = memory.take_changes();
    let returned = F::call(platform, call.lp, &mut output, memory);
    let Expect { rax, rcx, rdx, r8, r9, r10, writes, fatal } = &call.expect;
    comparison.same("fatal", !returned, *fatal);
    if *fatal || !returned {
        return;
    }
    let or_same =
        |expected: &Option<Number>, input: u64| expected.map_or(input, |expected| expected.0);
    let expected = SeamcallRegs {
        rax: or_same(rax, input.rax),
        rcx: or_same(rcx, input.rcx),
        rdx: or_same(rdx, input.rdx),
        r8: or_same(r8, input.r8),
        r9: or_same(r9, input.r9),
        r10: or_same(r10, input.r10),
        ..input
    };
    let registers = |regs: &SeamcallRegs| {
        [
            ("rax", regs.rax),
            ("rcx", regs.rcx),
            ("rdx", regs.rdx),
            ("rbx", regs.rbx),
            ("rsi", regs.rsi),
            ("rdi", regs.rdi),
            ("r8", regs.r8),
            ("r9", regs.r9),
            ("r10", regs.r10),
            ("r11", regs.r11),
            ("r12", regs.r12),
            ("r13", regs.r13),
            ("r14", regs.r14),
            ("r15", regs.r15),
        ]
    };
    for ((name, found), (_, expected)) in registers(&output).into_iter().zip(registers(&expected)) {
        comparison.same(name, found, expected);
    }
    // Only the final content of memory counts. If a call clears a buffer and writes the old content
    // again, the recording may omit the write.
    let mut found = memory.take_changes();
    for Write { pa, len, hex } in writes {
        let known = found.iter().position(|change| change.address == pa.0);
        let bytes =
            known.map_or_else(|| memory.bytes(pa.0, *len), |index| found.remove(index).after);
        comparison.same_bytes(
            &format!("memory at {:#x}", pa.0),
            &bytes,
            &hex.padded(*len).unwrap_or_default(),
        );
    }
    for change in found.iter().filter(|change| change.before != change.after) {
        comparison.same_bytes(
            &format!("memory at {:#x}", change.address),
            &change.after,
            &change.before,
        );
    }
}

/// Applies an event outside of firmware.
fn happen(event: &Event, platform: &mut Described) -> Result<(), DescriptionError> {
    match event {
        Event::ModuleHandoff(handoff) | Event::Handoff(handoff) => {
            described::put_handoff(platform, handoff)
        }
        Event::Install { scenario, module } => {
            let keep_handoff = match scenario.as_str() {
                "update" => true,
                "load" => false,
                other => {
                    return Err(DescriptionError(format!(
                        "the scenario of an install is {other:?}, but should be update or load"
                    )))
                }
            };
            let told = module.told(platform.config());
            platform.put_module(module.build(), told, keep_handoff);
            Ok(())
        }
        Event::Set(set) => change(set, platform),
    }
}

fn change(set: &Set, platform: &mut Described) -> Result<(), DescriptionError> {
    let wrong = |what: &str| Err(DescriptionError(what.to_owned()));
    let config = platform.config_mut();
    config.rdrand_ok = set.rdrand_ok.unwrap_or(config.rdrand_ok);
    config.rdrand_value = set.rdrand_value.map_or(config.rdrand_value, |value| value.0);
    config.debug_unlocked = set.debug_unlocked.unwrap_or(config.debug_unlocked);
    config.seamdb_getref_error = set.seamdb_getref_error.unwrap_or(config.seamdb_getref_error);
    config.pconfig_error = set.pconfig_error.unwrap_or(config.pconfig_error);
    if let Some(failures) = set.seamdb_insert_failures {
        platform.seamdb_mut().insert_failures = failures;
    }
    let one_lp = match &set.lp {
        Some(Lps::One(lp)) => Some(*lp),
        _ => None,
    };
    let lps: Vec<u32> = match &set.lp {
        Some(Lps::One(lp)) => vec![*lp],
        Some(Lps::Named(all)) if all != "all" => {
            return wrong(&format!("`lp` is {all:?}, but should be a number or \"all\""))
        }
        Some(Lps::Named(_)) | None => {
            (0..).take_while(|lp| platform.x2apic_id(*lp).is_some()).collect()
        }
    };
    if let Some(capabilities) = set.seamops_capabilities {
        lps.iter().for_each(|lp| platform.set_capabilities(*lp, capabilities.0));
        if set.lp.is_none() {
            platform.config_mut().seamops_capabilities = capabilities.0;
        }
    }
    if let Some(lp) = set.busy_lp {
        platform.set_in_module(lp, set.busy.unwrap_or(true));
    }
    if let Some(name) = &set.global_lock {
        let lock = match name.as_str() {
            "free" => GlobalLock::Free,
            "shared" => GlobalLock::Shared,
            "exclusive" => GlobalLock::Exclusive,
            other => {
                return wrong(&format!(
                    "`global_lock` is {other:?}, but should be one of free, shared, exclusive"
                ))
            }
        };
        platform.module_mut().into_iter().for_each(|module| module.set_lock(lock));
    }
    if let Some(index) = set.tdmr_lock {
        let held = set.held.unwrap_or(true);
        platform.module_mut().into_iter().for_each(|module| module.set_tdmr_lock(index, held));
    }
    if let Some(register) = register(set)? {
        let bits = set.xor.unwrap_or_default().0;
        // One entry covers all LPs, or only this LP.
        if !platform.deviate(one_lp, register, bits) {
            return wrong("LPs differ in more registers than the model has room for");
        }
    }
    match (set.restore, one_lp) {
        (Some(true), Some(lp)) => platform.restore_lp(lp),
        (Some(true), None) => platform.restore_lps(),
        _ => {}
    }
    Ok(())
}

/// Returns the register that a step changes on an LP.
fn register(set: &Set) -> Result<Option<CpuRegister>, DescriptionError> {
    let number = |field: &str, number: Number| {
        u32::try_from(number.0)
            .map_err(|_| DescriptionError(format!("`{field}` has more than 32 bits")))
    };
    match (set.msr, set.cpuid) {
        (None, None) => Ok(None),
        (Some(msr), None) => Ok(Some(CpuRegister::Msr(number("msr", msr)?))),
        (None, Some(leaf)) => {
            let outputs = ["eax", "ebx", "ecx", "edx"];
            let name = set.reg.as_deref().unwrap_or_default();
            let output =
                (0u8..).zip(outputs).find(|(_, known)| *known == name).map(|(output, _)| output);
            let output = output.ok_or_else(|| {
                DescriptionError(format!("`reg` is {name:?}, but should be one of {outputs:?}"))
            })?;
            let subleaf = set.subleaf.map_or(Ok(u32::MAX), |subleaf| number("subleaf", subleaf))?;
            Ok(Some(CpuRegister::Cpuid { leaf: number("cpuid", leaf)?, subleaf, output }))
        }
        (Some(_), Some(_)) => Err(DescriptionError(
            "a step has both `msr` and `cpuid`, but should have one of them".to_owned(),
        )),
    }
}

/// P-SEAMLDR, called without the processor's checks.
pub(super) struct Seamldr;

impl Firmware for Seamldr {
    fn call(
        platform: &mut Described,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &SparseMemory,
    ) -> bool {
        platform.run_seamldr(lp, regs, memory, &RustCrypto).is_ok()
    }
}

/// The module, reached through the processor.
pub(super) struct Module;

impl Firmware for Module {
    fn call(
        platform: &mut Described,
        lp: u32,
        regs: &mut SeamcallRegs,
        memory: &SparseMemory,
    ) -> bool {
        platform.seamcall(lp, regs, memory, &RustCrypto).is_ok()
    }
}

/// Replays a recording of P-SEAMLDR.
pub(super) fn seamldr(
    vector: &Vector<LoaderAfter, LoaderFinal>,
    memory: &SparseMemory,
    differences: &mut Vec<Difference>,
) -> Result<Option<usize>, DescriptionError> {
    let mut platform = described::platform(&vector.platform, &vector.initial)?;
    platform.config_mut().full_seamdb_is_fatal = vector.assumes.contains("db-full");
    platform.config_mut().accepts_large_signatures = vector.assumes.contains("sig-range");
    let before = std::cell::Cell::new(*platform.loader().seamextend());
    let failed =
        play::<Seamldr, _>(vector, &mut platform, memory, differences, |platform, after, c| {
            let loader = platform.loader();
            if let Some(after) = after {
                c.same("seam_ready", loader.seamextend().seam_ready, after.seam_ready);
                c.same(
                    "num_remaining_updates",
                    loader.num_remaining_updates(),
                    after.num_remaining_updates,
                );
                c.same("lps_in_session", loader.lps_in_session(), after.lps_in_session);
                let recorded = after.seamextend.as_ref().and_then(|bytes| bytes.padded(136));
                let mut expected = recorded.unwrap_or_else(|| before.get().as_bytes().to_vec());
                // SEAM_READY has a field of its own, and changes more often than the rest of
                // SEAMEXTEND.
                expected.iter_mut().skip(128).take(1).for_each(|ready| *ready = after.seam_ready);
                c.same_bytes("seamextend", loader.seamextend().as_bytes(), &expected);
                c.same("vmclear_pa", loader.effects().vmclear.map(Number), after.vmclear_pa);
                let effects = SeamDbEffects {
                    clears: loader.effects().seamdb_clears,
                    insert_attempts: loader.effects().seamdb_inserts,
                    used: loader.seamdb().used,
                };
                let touched = effects.clears != 0 || effects.insert_attempts != 0;
                c.same("seamdb", touched.then_some(effects), after.seamdb);
            }
            before.set(*loader.seamextend());
        })?;
    if failed.is_none() {
        seamldr_final(&platform, &vector.last, &mut Comparison { differences });
    }
    Ok(failed)
}

fn seamldr_final(platform: &Described, expected: &LoaderFinal, c: &mut Comparison<'_>) {
    c.same("final.fatal", platform.is_dead(), expected.fatal);
    if expected.fatal {
        return;
    }
    let loader = platform.loader();
    let seamextend = loader.seamextend();
    if let Some(bytes) = &expected.seamextend {
        c.same_bytes(
            "final.seamextend",
            seamextend.as_bytes(),
            &bytes.padded(136).unwrap_or_default(),
        );
    }
    c.same_if_known("final.seam_ready", seamextend.seam_ready, expected.seam_ready);
    let svn = SvnAfter { major: seamextend.svn().major, minor: seamextend.svn().minor };
    c.same_if_known("final.svn", svn, expected.svn);
    let remaining = loader.num_remaining_updates();
    c.same_if_known("final.num_remaining_updates", remaining, expected.num_remaining_updates);
    let sorted = |ids: &Option<Vec<u32>>| {
        let mut ids = ids.clone();
        ids.iter_mut().for_each(|ids| ids.sort_unstable());
        ids
    };
    c.same_if_known(
        "final.update_bitmap",
        loader.session().collect(),
        sorted(&expected.update_bitmap),
    );
    c.same_if_known(
        "final.shutdown_bitmap",
        loader.shutdown().collect(),
        sorted(&expected.shutdown_bitmap),
    );
    c.same_if_known("final.lps_in_session", loader.lps_in_session(), expected.lps_in_session);
    c.same_if_known("final.lps_in_shutdown", loader.lps_in_shutdown(), expected.lps_in_shutdown);
    let initialized = loader.module_range_initialized();
    c.same_if_known(
        "final.module_range_initialized",
        initialized,
        expected.module_range_initialized,
    );
    c.same_if_known("final.seamdb_used", loader.seamdb().used, expected.seamdb_used);
    let sysinfo = loader.module_sysinfo().map(|sysinfo| {
        let region = |region: Region| (Number(region.base), Number(region.size));
        let layout = &sysinfo.layout;
        let (code_rgn_base, code_rgn_size) = region(layout.code);
        let (data_rgn_base, data_rgn_size) = region(layout.data);
        let (stack_rgn_base, stack_rgn_size) = region(layout.stack);
        let (keyhole_rgn_base, keyhole_rgn_size) = region(layout.keyhole);
        let (keyhole_edit_rgn_base, keyhole_edit_rgn_size) = region(layout.keyhole_edit);
        SysInfoAfter {
            code_rgn_base,
            code_rgn_size,
            data_rgn_base,
            data_rgn_size,
            stack_rgn_base,
            stack_rgn_size,
            keyhole_rgn_base,
            keyhole_rgn_size,
            keyhole_edit_rgn_base,
            keyhole_edit_rgn_size,
            num_stack_pages: Number(sysinfo.num_stack_pages),
            num_tls_pages: Number(sysinfo.num_tls_pages),
            module_hv: sysinfo.module_hv,
            min_update_hv: sysinfo.min_update_hv,
            no_downgrade: sysinfo.no_downgrade,
            num_handoff_pages: sysinfo.num_handoff_pages,
            mcheck_copy: sysinfo.has_platform_table,
        }
    });
    c.same("final.module_sysinfo", sysinfo, expected.module_sysinfo);
    c.same_if_known("final.handoff", handoff(platform), expected.handoff);
    if let Some(hash) = &expected.code_region_sha384 {
        let found = RustCrypto.sha384(&[platform.code()]).unwrap_or([0; 48]);
        c.same_bytes("final.code_region_sha384", &found, &hash.0);
    }
}

fn handoff(platform: &Described) -> HandoffAfter {
    let header = platform.handoff_header();
    HandoffAfter {
        valid: Number(header.valid.into()),
        hv: header.hv.get(),
        size: header.size.get(),
    }
}

fn state_name(platform: &Described) -> &'static str {
    let state = platform.module().map(TdxModule::state);
    let named =
        |state: ModuleState| ModuleState::ALL.into_iter().find(|(known, _)| *known == state);
    state.and_then(named).map_or("no module", |(_, name)| name)
}

fn lp_is_init(platform: &Described) -> Vec<Number> {
    let lps = (0..).take_while(|lp| platform.x2apic_id(*lp).is_some());
    let is_initialized = |lp| platform.module().is_some_and(|module| module.is_lp_initialized(lp));
    lps.map(|lp| Number(is_initialized(lp).into())).collect()
}

fn num_init_lps(platform: &Described) -> u32 {
    platform.module().map_or(0, TdxModule::num_lps_initialized)
}

fn module_after(platform: &Described, expected: &ModuleAfter, c: &mut Comparison<'_>) {
    c.same("sys_state", state_name(platform), &*expected.sys_state);
    c.same("num_init_lps", num_init_lps(platform), expected.num_init_lps);
    c.same("lp_is_init", &lp_is_init(platform), &expected.lp_is_init);
    c.same("handoff", handoff(platform), expected.handoff);
}

/// Replays a recording of a TDX module.
pub(super) fn module(
    vector: &Vector<ModuleAfter, ModuleFinal>,
    memory: &SparseMemory,
    differences: &mut Vec<Difference>,
) -> Result<Option<usize>, DescriptionError> {
    let mut platform = described::platform(&vector.platform, &vector.initial)?;
    if let Some(after) = &vector.initial.after {
        module_after(&platform, after, &mut Comparison { differences: &mut *differences });
        if !differences.is_empty() {
            return Err(DescriptionError(format!(
                "the model does not reach the initial state: {}",
                differences.remove(0)
            )));
        }
    }
    let failed =
        play::<Module, _>(vector, &mut platform, memory, differences, |platform, after, c| {
            if let Some(after) = after {
                module_after(platform, after, c);
            }
        })?;
    if failed.is_none() {
        let (expected, c) = (&vector.last, &mut Comparison { differences });
        c.same("final.fatal", platform.is_dead(), expected.fatal);
        if !expected.fatal {
            c.same_if_known(
                "final.sys_state",
                state_name(&platform),
                expected.sys_state.as_deref(),
            );
            c.same_if_known("final.num_init_lps", num_init_lps(&platform), expected.num_init_lps);
            c.same_if_known(
                "final.lp_is_init",
                &lp_is_init(&platform),
                expected.lp_is_init.as_ref(),
            );
            c.same_if_known("final.handoff", handoff(&platform), expected.handoff);
            let (packages, num_tdmrs, global_hkid) = platform.tables();
            let packages = Number(packages.into());
            c.same_if_known("final.pkg_config_bitmap", packages, expected.pkg_config_bitmap);
            let configured = platform.module().map_or(0, TdxModule::num_packages_configured);
            c.same_if_known("final.num_init_pkgs", configured, expected.num_init_pkgs);
            c.same_if_known("final.num_tdmrs", num_tdmrs, expected.num_tdmrs);
            c.same_if_known("final.global_hkid", global_hkid, expected.global_hkid);
        }
    }
    Ok(failed)
}
