//! Errors of C programs, and the statuses that they get.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
// tables of calls that are all wrong in the same way
#![allow(clippy::multiple_unsafe_ops_per_block)]

mod support;

use std::ptr;

use support::{
    create, description, fault, image, last_error, parts, platform, Sim, HOST, LPS, SYS_RD,
};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// Number of functions that take a handle.
const TAKE_A_HANDLE: usize = 34;

/// Calls all functions that take a handle with this handle and otherwise valid arguments; returns
/// their statuses.
fn all_with(handle: *mut TdxSim) -> [TdxSimStatus; TAKE_A_HANDLE] {
    let (mut page, mut regs, mut trap) = (vec![0u8; 4096], TdxSimRegs::default(), TdxSimTrap::None);
    let good = Sim::ready();
    let (mut truth, mut lp, mut times) = (good.truth(), good.lp(0), 0);
    good.create_td(TdxSimTdPhase::Running).unwrap();
    let mut td = good.td(0);
    truth.size = size_of::<TdxSimTruth>() as u32;
    lp.size = size_of::<TdxSimLp>() as u32;
    td.size = size_of::<TdxSimTd>() as u32;
    let mut call = TdxSimCall { size: size_of::<TdxSimCall>() as u32, ..TdxSimCall::default() };
    let file = support::file(&image(), TdxSimImageFormat::V1);
    let (bytes, len) = (page.as_mut_ptr().cast(), page.len());
    let mut register = std::mem::MaybeUninit::<TdxSimSeamextend>::zeroed();
    // SAFETY: all pointers but the handle are valid. No platform with a valid handle maps the page.
    unsafe {
        [
            tdx_sim_boot(handle, file.as_ptr().cast(), file.len(), 4),
            tdx_sim_create_td(handle, 0, ptr::null_mut()),
            tdx_sim_get_td(handle, 0, &mut td),
            tdx_sim_extend_td(handle, 0, bytes, 1),
            tdx_sim_finish_td(handle, 0, ptr::null_mut()),
            tdx_sim_map(handle, HOST, bytes, len),
            tdx_sim_unmap(handle, HOST),
            tdx_sim_set_memory_callbacks(handle, ptr::null()),
            tdx_sim_flip_memory(handle, HOST, 1),
            tdx_sim_seamcall(handle, 0, &mut regs, &mut trap),
            tdx_sim_set_trace_callback(handle, None, ptr::null_mut()),
            tdx_sim_keep_calls(handle, 1),
            tdx_sim_next_call(handle, &mut call),
            tdx_sim_get_truth(handle, &mut truth),
            tdx_sim_get_lp(handle, 0, &mut lp),
            tdx_sim_set_rdrand(handle, 1, 1, 0),
            tdx_sim_set_seamdb(handle, 64, 0, 0),
            tdx_sim_set_remaining_updates(handle, 1),
            tdx_sim_set_p_seamldr_entered(handle, 1),
            tdx_sim_set_debug_unlocked(handle, 0),
            tdx_sim_set_pending_interrupts(handle, 0),
            tdx_sim_set_instruction_errors(handle, 0, 0),
            tdx_sim_set_global_lock(handle, 0),
            tdx_sim_set_tdmr_lock(handle, 0, 0),
            tdx_sim_get_seamextend(handle, register.as_mut_ptr()),
            tdx_sim_set_seamextend(handle, register.as_ptr()),
            tdx_sim_read_handoff(handle, 0, bytes, len),
            tdx_sim_write_handoff(handle, 0, bytes, len),
            tdx_sim_add_fault(handle, &fault(), ptr::null_mut()),
            tdx_sim_end_fault(handle, 1),
            tdx_sim_get_fault(handle, 1, &mut times),
            tdx_sim_count_unfired_faults(handle, &mut times, ptr::null_mut()),
            tdx_sim_clear_faults(handle),
            tdx_sim_free(handle),
        ]
    }
}

/// Calls the functions that change an LP with this handle; returns their statuses.
fn all_of_lps_with(handle: *mut TdxSim) -> [TdxSimStatus; 7] {
    [
        tdx_sim_set_lp_trap(handle, 0, 0),
        tdx_sim_set_lp_in_module(handle, 0, 0),
        tdx_sim_flip_lp_msr(handle, 0, 0, 0),
        tdx_sim_flip_lp_cpuid(handle, 0, 0, 0, 0, 0),
        tdx_sim_set_lp_capabilities(handle, 0, 0),
        tdx_sim_restore_lp(handle, 0),
        tdx_sim_load_vmcs(handle, 0, 0),
    ]
}

#[test]
fn every_function_that_takes_a_handle_is_tested_with_wrong_handles() {
    let header = include_str!("../include/tdx_sim.h");
    let taking = header.matches("(struct tdx_sim *sim").count();
    assert_eq!(taking, TAKE_A_HANDLE + 7);
}

#[test]
fn every_function_refuses_null() {
    assert_eq!(all_with(ptr::null_mut()), [Null; TAKE_A_HANDLE]);
    assert_eq!(all_of_lps_with(ptr::null_mut()), [Null; 7]);
    let sim = Sim::ready();
    let (mut regs, mut trap, mut page) = (TdxSimRegs::default(), TdxSimTrap::None, vec![0u8; 4096]);
    let (text, mut handle, mut number) = (c"{}", sim.0, 0);
    let memory: *mut std::ffi::c_void = page.as_mut_ptr().cast();
    let (mut sigstruct, module) = parts(&image());
    let (source, len) = (module.as_ptr().cast(), module.len());
    // SAFETY: each call has a NULL that is not followed. Other pointers are valid.
    let statuses = unsafe {
        [
            tdx_sim_platform_defaults(ptr::null_mut()),
            tdx_sim_create(ptr::null(), &mut handle),
            tdx_sim_create(&platform(), ptr::null_mut()),
            tdx_sim_create(&TdxSimPlatform { num_x2apic_ids: 1, ..platform() }, &mut handle),
            tdx_sim_create(&TdxSimPlatform { num_cmrs: 1, ..platform() }, &mut handle),
            tdx_sim_create_from_json(ptr::null(), &mut handle),
            tdx_sim_create_from_json(text.as_ptr(), ptr::null_mut()),
            tdx_sim_boot(sim.0, ptr::null(), 0, 4),
            tdx_sim_map(sim.0, HOST, ptr::null_mut(), 4096),
            tdx_sim_seamcall(sim.0, 0, ptr::null_mut(), &mut trap),
            tdx_sim_seamcall(sim.0, 0, &mut regs, ptr::null_mut()),
            tdx_sim_get_truth(sim.0, ptr::null_mut()),
            tdx_sim_get_lp(sim.0, 0, ptr::null_mut()),
            tdx_sim_get_td(sim.0, 0, ptr::null_mut()),
            tdx_sim_extend_td(sim.0, 0, ptr::null(), 0),
            tdx_sim_next_call(sim.0, ptr::null_mut()),
            tdx_sim_call_text(ptr::null(), memory.cast(), 1),
            tdx_sim_call_text(
                &TdxSimCall { size: size_of::<TdxSimCall>() as u32, ..TdxSimCall::default() },
                ptr::null_mut(),
                1,
            ),
            tdx_sim_get_seamextend(sim.0, ptr::null_mut()),
            tdx_sim_set_seamextend(sim.0, ptr::null()),
            tdx_sim_read_handoff(sim.0, 0, ptr::null_mut(), 0),
            tdx_sim_write_handoff(sim.0, 0, ptr::null(), 0),
            tdx_sim_add_fault(sim.0, ptr::null(), &mut number),
            tdx_sim_get_fault(sim.0, 1, ptr::null_mut()),
            tdx_sim_count_unfired_faults(sim.0, ptr::null_mut(), ptr::null_mut()),
            tdx_sim_image_defaults(ptr::null_mut()),
            tdx_sim_build_defaults(ptr::null(), ptr::null_mut()),
            tdx_sim_build_defaults(&image(), ptr::null_mut()),
            tdx_sim_release_build(1, 5, 5, ptr::null_mut()),
            tdx_sim_make_image(ptr::null(), &mut sigstruct, memory, 4096),
            tdx_sim_make_image(&image(), ptr::null_mut(), memory, 1 << 20),
            tdx_sim_make_image(&image(), &mut sigstruct, ptr::null_mut(), 1 << 20),
            tdx_sim_sign(ptr::null_mut(), source, len),
            tdx_sim_pack(1, ptr::null(), source, len, ptr::null_mut(), 0, &mut 0),
            tdx_sim_pack(1, &sigstruct, ptr::null(), len, ptr::null_mut(), 0, &mut 0),
            tdx_sim_pack(1, &sigstruct, source, len, ptr::null_mut(), 1, &mut 0),
            tdx_sim_pack(1, &sigstruct, source, len, ptr::null_mut(), 0, ptr::null_mut()),
            tdx_sim_image_file(ptr::null(), 1, ptr::null_mut(), 0, &mut 0),
            tdx_sim_image_file(&image(), 1, ptr::null_mut(), 1, &mut 0),
            tdx_sim_image_file(&image(), 1, ptr::null_mut(), 0, ptr::null_mut()),
        ]
    };
    assert_eq!(statuses, [Null; 40]);
    assert!(handle.is_null(), "the handle is NULL after an error");
}

#[test]
fn a_handle_that_was_never_given_out_is_refused() {
    let sim = Sim::ready();
    let mut object = 0u64;
    let garbage = [
        ptr::without_provenance_mut(1),
        ptr::without_provenance_mut(usize::MAX),
        ptr::from_mut(&mut object).cast(),
        sim.0.map_addr(|address| address + (1 << 20)),
    ];
    for handle in garbage {
        assert_eq!(all_with(handle), [BadHandle; TAKE_A_HANDLE], "{handle:?}");
        assert_eq!(all_of_lps_with(handle), [BadHandle; 7], "{handle:?}");
    }
    sim.succeed(0, SYS_RD, 0);
}

#[test]
fn a_freed_handle_is_refused_by_every_function_including_free() {
    let (sim, other) = (Sim::ready(), Sim::ready());
    assert_eq!(tdx_sim_free(sim.0), Ok);
    assert_eq!(all_with(sim.0), [BadHandle; TAKE_A_HANDLE]);
    // A new platform does not get the number again.
    let next = Sim::ready();
    assert_ne!(next.0, sim.0);
    assert_eq!(all_with(sim.0), [BadHandle; TAKE_A_HANDLE]);
    for sim in [&other, &next] {
        assert_eq!(sim.truth().module_callable, 1);
    }
}

#[test]
fn misaligned_pointers_are_refused() {
    let sim = Sim::ready();
    let mut words = [0u64; 32];
    let start = words.as_mut_ptr().cast::<u8>();
    let odd = start.wrapping_add(1);
    let (mut regs, mut trap) = (TdxSimRegs::default(), TdxSimTrap::None);
    let (sigstruct, module) = parts(&image());
    let (source, len) = (module.as_ptr().cast(), module.len());
    // SAFETY: each call has a misaligned pointer that is not followed. Other pointers are valid.
    let statuses = unsafe {
        [
            tdx_sim_platform_defaults(odd.cast()),
            tdx_sim_create(odd.cast(), &mut ptr::null_mut()),
            tdx_sim_create(&platform(), odd.cast()),
            tdx_sim_create(
                &TdxSimPlatform { x2apic_ids: odd.cast(), num_x2apic_ids: 1, ..platform() },
                &mut ptr::null_mut(),
            ),
            tdx_sim_create_from_json(c"{}".as_ptr(), odd.cast()),
            tdx_sim_seamcall(sim.0, 0, odd.cast(), &mut trap),
            tdx_sim_seamcall(sim.0, 0, &mut regs, odd.cast()),
            tdx_sim_get_truth(sim.0, odd.cast()),
            tdx_sim_get_lp(sim.0, 0, odd.cast()),
            tdx_sim_get_td(sim.0, 0, odd.cast()),
            tdx_sim_create_td(sim.0, 0, odd.cast()),
            tdx_sim_next_call(sim.0, odd.cast()),
            tdx_sim_call_text(odd.cast(), start.cast(), 1),
            tdx_sim_get_seamextend(sim.0, odd.cast()),
            tdx_sim_set_seamextend(sim.0, odd.cast()),
            tdx_sim_set_memory_callbacks(sim.0, odd.cast()),
            tdx_sim_add_fault(sim.0, odd.cast(), ptr::null_mut()),
            tdx_sim_add_fault(sim.0, &fault(), odd.cast()),
            tdx_sim_get_fault(sim.0, 1, odd.cast()),
            tdx_sim_count_unfired_faults(sim.0, odd.cast(), ptr::null_mut()),
            tdx_sim_count_unfired_faults(sim.0, &mut 0, odd.cast()),
            tdx_sim_image_defaults(odd.cast()),
            tdx_sim_build_defaults(&image(), odd.cast()),
            tdx_sim_make_image(odd.cast(), odd.cast(), start.cast(), 8),
            tdx_sim_make_image(&image(), odd.cast(), start.cast(), 8),
            tdx_sim_sign(odd.cast(), source, len),
            tdx_sim_pack(1, odd.cast(), source, len, ptr::null_mut(), 0, &mut 0),
            tdx_sim_pack(1, &sigstruct, source, len, ptr::null_mut(), 0, odd.cast()),
            tdx_sim_image_file(&image(), 1, ptr::null_mut(), 0, odd.cast()),
        ]
    };
    assert_eq!(statuses, [Unaligned; 29]);
    assert_eq!(words, [0; 32]);
    assert_eq!(
        (sim.truth().tds, sim.times_left(1)),
        (0, Err(UnknownFault)),
        "the platform is unchanged"
    );
}

#[test]
fn seamcall_on_an_unknown_lp_is_refused() {
    let sim = Sim::ready();
    let regs = TdxSimRegs { rax: SYS_RD, ..TdxSimRegs::default() };
    for lp in [LPS, 1024, u32::MAX] {
        assert_eq!(
            sim.try_call(lp, regs),
            (UnknownLp, TdxSimTrap::Ud, regs),
            "the registers and the trap are unchanged"
        );
        if lp != TDX_SIM_ANY_LP {
            assert_eq!(sim.try_add_fault(TdxSimFault { lp, ..fault() }), Err(UnknownLp));
        }
        // SAFETY: the structure is writable, and its size is set.
        let (status, _) =
            support::filled::<TdxSimLp>(|state| unsafe { tdx_sim_get_lp(sim.0, lp, state) });
        assert_eq!(status, UnknownLp);
    }
}

#[test]
fn errors_about_descriptions_say_what_is_wrong() {
    let (status, sim) = create(b"{\"platform\": \"\xff\"}");
    assert_eq!((status, sim.is_null()), (NotUtf8, true));
    assert!(last_error().contains("invalid utf-8"), "{}", last_error());

    let good = description(Some("SYS_READY"));
    let without = description(None);
    for (wrong, says) in [
        (String::new(), "EOF"),
        ("{}".to_owned(), "missing field `platform`"),
        (good.replace("\"num_lps\": 4", "\"num_lps\": 0"), "num_lps"),
        (good.replace("\"num_lps\": 4", "\"num_lps\": 5"), "firmware counts 5 LPs"),
        (good.replace("0x5a5a", "0xzz"), "0xzz"),
        (good.replace("SYS_READY", "SLEEPY"), "SLEEPY"),
        (good.replace("[0, 1, 2, 3]", "[0, 1, 2]"), "initial state"),
        (good.replace("[0, 1, 2, 3]", "[0, 1, 2, 99]"), "initial state"),
        (good.replace("[0, 1, 2, 3]", "[0, 1, 2, 3, 1]"), "lps_initialized has LP 1 twice"),
        (good.replace("0x10000000\"", "0x10000001\""), "seamrr_size"),
        (good.replace("0x2000000000", "0x2000001000"), "seamrr_base"),
        (good.replace("[\"0x806f8\"]", "[]"), "socket_fms"),
        (good.replace("[0, 2, 4, 6]", "[0, 2, 4, 2]"), "LP 1 and LP 3 both have the x2APIC id 2"),
        (
            good.replace("\"max_pa\": 46", "\"max_pa\": 46, \"acm_x2apicid\": 1"),
            "acm_x2apicid is 1",
        ),
        (good.replace("\"max_pa\": 46", "\"max_pa\": 53"), "max_pa"),
        (
            good.replace(
                "\"max_pa\": 46",
                "\"max_pa\": 46, \"seamdb\": {\"size\": 3, \"used\": 4}",
            ),
            "4 entries of the SEAM database",
        ),
        (good.replace("010001\"", "000001\""), "SEAM_READY"),
        (without.replace("000001\"", "010001\""), "SEAM_READY"),
        (
            without.replace("\"seamextend\"", "\"state\": \"SYS_READY\", \"seamextend\""),
            "no module",
        ),
        (description(Some("SYSINIT_PENDING")).replace("[]", "[0]"), "SYSINIT_PENDING"),
    ] {
        let (status, sim) = create(wrong.clone());
        assert_eq!((status, sim.is_null()), (BadDescription, true), "{wrong}");
        assert!(last_error().contains(says), "{says}: {}", last_error());
    }
}

#[test]
fn an_unknown_field_is_named_together_with_the_known_fields() {
    let good = description(Some("SYS_READY"));
    for (from, to, exists) in [
        ("\"num_lps\"", "\"num_lpss\"", "`num_lps`"),
        ("\"platform\"", "\"plattform\"", "`platform`"),
        ("\"value\"", "\"valu\"", "`value`"),
        ("\"num_remaining_updates\"", "\"remaining_updates\"", "`num_remaining_updates`"),
        ("\"update\"", "\"upd\"", "`update`"),
        ("\"no_downgrade\"", "\"no-downgrade\"", "`no_downgrade`"),
    ] {
        let (status, _) = create(good.replace(from, to));
        assert_eq!(status, BadDescription);
        let (error, wrong) = (last_error(), to.replace('"', "`"));
        assert!(
            error.contains(&format!("unknown field {wrong}")) && error.contains(exists),
            "{error}"
        );
    }
}

#[test]
fn errors_about_platforms_say_what_is_wrong() {
    let twice = [3, 1, 3, 2];
    let cmrs = [TdxSimCmr { base: 0, bytes: 1 << 30 }; 33];
    let listed = |ids: &[u32]| (ids.as_ptr(), ids.len() as u32);
    let (x2apic_ids, num_x2apic_ids) = listed(&twice);
    for (wrong, status, says) in [
        (TdxSimPlatform { num_lps: 0, ..platform() }, Contradiction, "0 LPs"),
        (TdxSimPlatform { num_lps: 1025, ..platform() }, Contradiction, "1025 LPs"),
        (TdxSimPlatform { num_sockets: 5, ..platform() }, Contradiction, "5 sockets"),
        (TdxSimPlatform { num_sockets: 0, ..platform() }, Contradiction, "0 sockets"),
        (
            TdxSimPlatform { x2apic_ids, num_x2apic_ids, ..platform() },
            Contradiction,
            "LP 0 and LP 2",
        ),
        (
            TdxSimPlatform { x2apic_ids, num_x2apic_ids: 2, ..platform() },
            Contradiction,
            "firmware counts 4 LPs",
        ),
        (TdxSimPlatform { acm_x2apicid: 99, ..platform() }, Contradiction, "acm_x2apicid is 99"),
        (TdxSimPlatform { max_pa: 53, ..platform() }, Contradiction, "of 53 address bits"),
        (TdxSimPlatform { keyid_bits: 46, ..platform() }, Contradiction, "46 of 46"),
        (TdxSimPlatform { seamrr_size: 3 << 20, ..platform() }, Contradiction, "seamrr_size"),
        (TdxSimPlatform { seamrr_base: 1 << 45, ..platform() }, Contradiction, "seamrr_base"),
        (TdxSimPlatform { p_seamldr_size: u64::MAX, ..platform() }, Contradiction, "seamrr_size"),
        (TdxSimPlatform { addressable_lps_per_socket: 1025, ..platform() }, Contradiction, "1025"),
        (TdxSimPlatform { seamdb_used: 65, ..platform() }, Contradiction, "65 entries"),
        (
            TdxSimPlatform { cmrs: cmrs.as_ptr(), num_cmrs: 33, ..platform() },
            BadArgument,
            "num_cmrs is 33",
        ),
        (
            TdxSimPlatform { generation: 4, ..platform() },
            BadArgument,
            "4 is not a tdx_sim_generation",
        ),
        (TdxSimPlatform { rdrand_ok: 2, ..platform() }, BadArgument, "rdrand_ok is 2"),
        (TdxSimPlatform { debug_unlocked: 9, ..platform() }, BadArgument, "debug_unlocked is 9"),
        (
            TdxSimPlatform { tdx_without_integrity: 2, ..platform() },
            BadArgument,
            "tdx_without_integrity",
        ),
        (TdxSimPlatform { reserved: 1, ..platform() }, BadArgument, "reserved"),
        (TdxSimPlatform { size: 0, ..platform() }, BadSize, "tdx_sim_platform.size is 0"),
        (TdxSimPlatform { size: 207, ..platform() }, BadSize, "sizeof(tdx_sim_platform)"),
    ] {
        assert_eq!(Sim::of(&wrong).map(|_| ()), Err(status), "{says}");
        assert!(last_error().contains(says), "{says}: {}", last_error());
    }
}

#[test]
fn the_size_of_each_growing_structure_is_checked() {
    let sim = Sim::ready();
    sim.create_td(TdxSimTdPhase::Running).unwrap();
    let mut words = [0u64; 256];
    let start = words.as_mut_ptr().cast::<u8>();
    for size in [0u32, 4, 9, 0x10004, u32::MAX] {
        // SAFETY: the structure is aligned and begins with a writable `u32`.
        unsafe { start.cast::<u32>().write(size) };
        // SAFETY: all functions refuse the structure.
        let statuses = unsafe {
            [
                tdx_sim_platform_defaults(start.cast()),
                tdx_sim_create(start.cast(), &mut ptr::null_mut()),
                tdx_sim_get_truth(sim.0, start.cast()),
                tdx_sim_get_lp(sim.0, 0, start.cast()),
                tdx_sim_get_td(sim.0, 0, start.cast()),
                tdx_sim_next_call(sim.0, start.cast()),
                tdx_sim_call_text(start.cast(), start.cast(), 1),
                tdx_sim_set_memory_callbacks(sim.0, start.cast()),
                tdx_sim_add_fault(sim.0, start.cast(), ptr::null_mut()),
                tdx_sim_image_defaults(start.cast()),
                tdx_sim_build_defaults(start.cast(), ptr::null_mut()),
                tdx_sim_build_defaults(&image(), start.cast()),
                tdx_sim_make_image(start.cast(), ptr::null_mut(), ptr::null_mut(), 0),
                tdx_sim_image_file(start.cast(), 1, ptr::null_mut(), 0, ptr::null_mut()),
            ]
        };
        assert_eq!(statuses, [BadSize; 14], "{size}");
        assert!(words[1..].iter().all(|word| *word == 0));
    }
}

#[test]
fn errors_of_map_say_what_is_wrong() {
    let sim = Sim::ready();
    let mut memory = vec![0u8; 8192];
    assert_eq!(sim.map(HOST, &mut memory[..4096]), Ok);
    for (address, len, status) in [
        (HOST + 1, 4096, Unaligned),
        (HOST + 2048, 4096, Unaligned),
        (HOST + 4096, 0, BadLength),
        (HOST + 4096, 1, BadLength),
        (HOST + 4096, 4095, BadLength),
        (HOST + 4096, 4097, BadLength),
        (HOST, 4096, Overlap),
        (HOST - 4096, 8192, Overlap),
        (u64::MAX - 4095, 8192, BadLength),
        (u64::MAX - 4095, 4096, Ok),
        (HOST + 4096, 4096, Ok),
    ] {
        assert_eq!(sim.map(address, &mut memory[..len]), status, "{address:#x}, {len}");
    }
    for len in [usize::MAX, usize::MAX - 4095, isize::MAX as usize + 1] {
        // SAFETY: the memory is shorter than `len`, which the function detects.
        let status = unsafe { tdx_sim_map(sim.0, 0, memory.as_mut_ptr().cast(), len) };
        assert_eq!(status, BadLength, "{len:#x}");
    }
    assert_eq!(tdx_sim_unmap(sim.0, HOST + 8192), NotMapped);
    assert_eq!(tdx_sim_unmap(sim.0, HOST + 1), NotMapped);
    assert_eq!([(); 2].map(|()| tdx_sim_unmap(sim.0, HOST)), [Ok, NotMapped]);
}

#[test]
fn invalid_faults_are_refused() {
    let sim = Sim::ready();
    let (trap, delay) = (TdxSimFaultKind::Trap.number(), TdxSimFaultKind::Delay.number());
    for wrong in [
        TdxSimFault { kind: 0, ..fault() },
        TdxSimFault { kind: 4, ..fault() },
        TdxSimFault { kind: u32::MAX, ..fault() },
        TdxSimFault { times: 0, ..fault() },
        TdxSimFault { any_rax: 2, ..fault() },
        TdxSimFault { reserved: [0, 0, 1], ..fault() },
        TdxSimFault { kind: trap, trap: 0, ..fault() },
        TdxSimFault { kind: trap, trap: 4, ..fault() },
        TdxSimFault { kind: delay, delay: 0, ..fault() },
    ] {
        assert_eq!(sim.try_add_fault(wrong), Err(BadArgument), "{wrong:?}");
    }
    sim.succeed(0, SYS_RD, 0);
    for never in [0, 1, u64::MAX] {
        assert_eq!(
            (sim.times_left(never), tdx_sim_end_fault(sim.0, never)),
            (Err(UnknownFault), UnknownFault)
        );
    }
}

#[test]
fn create_td_needs_a_ready_module_a_valid_phase_and_room() {
    for state in [None, Some("SYSINIT_PENDING"), Some("SYS_SHUTDOWN")] {
        assert_eq!(Sim::new(state).create_td(TdxSimTdPhase::Running), Err(NotReady), "{state:?}");
    }
    let sim = Sim::ready();
    for phase in [3, u32::MAX] {
        // SAFETY: the function writes nothing.
        assert_eq!(unsafe { tdx_sim_create_td(sim.0, phase, ptr::null_mut()) }, BadArgument);
    }
    let made = (0..).take_while(|_| sim.create_td(TdxSimTdPhase::Running).is_ok()).count();
    assert_eq!(sim.create_td(TdxSimTdPhase::Running), Err(NoRoom));
    assert_eq!((sim.truth().tds as usize, sim.truth().tds_alive as usize), (made, made));
    assert!(made > 0);
}

#[test]
fn a_td_that_was_never_made_is_unknown() {
    let sim = Sim::ready();
    sim.create_td(TdxSimTdPhase::InBuild).unwrap();
    for td in [1, 64, 0x1_0000, u32::MAX] {
        // SAFETY: the structure is writable, and its size is set.
        let (status, _) =
            support::filled::<TdxSimTd>(|state| unsafe { tdx_sim_get_td(sim.0, td, state) });
        let statuses = (status, sim.extend_td(td, b"page"), sim.finish_td(td));
        assert_eq!(statuses, (UnknownTd, UnknownTd, Err(UnknownTd)), "{td}");
    }
    assert_eq!(sim.extend_td(0, &[0; 4097]), BadLength);
    assert_eq!(sim.extend_td(0, &[0; 4096]), Ok);
}
