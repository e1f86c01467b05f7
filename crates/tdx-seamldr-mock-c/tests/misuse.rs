//! What a program in C can do wrong, and what it is told then.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
#![allow(clippy::multiple_unsafe_ops_per_block)] // tables of calls that are all wrong in the same way

mod support;

use std::ffi::CStr;
use std::ptr;

use support::{create, description, image, Sim, HOST, LPS, SYS_RD};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// A fault that is right.
fn fault() -> TdxSimFault {
    TdxSimFault {
        lp: TDX_SIM_ANY_LP,
        any_rax: 1,
        times: 1,
        kind: TdxSimFaultKind::Return.number(),
        ..TdxSimFault::default()
    }
}

/// What all functions that take a handle say to it, if all else is right.
fn all_with(handle: *mut TdxSim) -> [TdxSimStatus; 8] {
    let (mut page, mut regs, mut trap) = (vec![0u8; 4096], TdxSimRegs::default(), TdxSimTrap::None);
    let mut truth = Sim::new(None).truth();
    // SAFETY: all pointers but the handle lead to what they should. The page is mapped by no handle that is right.
    unsafe {
        [
            tdx_sim_create_td(handle, 0),
            tdx_sim_map(handle, HOST, page.as_mut_ptr().cast(), page.len()),
            tdx_sim_unmap(handle, HOST),
            tdx_sim_seamcall(handle, 0, &mut regs, &mut trap),
            tdx_sim_get_truth(handle, &mut truth),
            tdx_sim_add_fault(handle, &fault()),
            tdx_sim_clear_faults(handle),
            tdx_sim_free(handle),
        ]
    }
}

#[test]
fn no_function_takes_null() {
    assert_eq!(all_with(ptr::null_mut()), [Null; 8]);
    let sim = Sim::ready();
    let (mut regs, mut trap, mut page) = (TdxSimRegs::default(), TdxSimTrap::None, vec![0u8; 4096]);
    let (text, mut handle) = (c"{}", sim.0);
    let mut bytes = [1; 4];
    let memory = page.as_mut_ptr().cast();
    // SAFETY: each call has a NULL that is not followed; other pointers lead to what they should.
    let statuses = unsafe {
        [
            tdx_sim_create(ptr::null(), ptr::null_mut(), 0, &mut handle),
            tdx_sim_create(text.as_ptr(), ptr::null_mut(), 1, &mut handle),
            tdx_sim_create(text.as_ptr(), bytes.as_mut_ptr(), bytes.len(), ptr::null_mut()),
            tdx_sim_map(sim.0, HOST, ptr::null_mut(), 4096),
            tdx_sim_seamcall(sim.0, 0, ptr::null_mut(), &mut trap),
            tdx_sim_seamcall(sim.0, 0, &mut regs, ptr::null_mut()),
            tdx_sim_get_truth(sim.0, ptr::null_mut()),
            tdx_sim_add_fault(sim.0, ptr::null()),
            tdx_sim_image_defaults(ptr::null_mut()),
            tdx_sim_test_image(ptr::null(), memory, 4096, memory, 4096),
            tdx_sim_test_image(&image(), ptr::null_mut(), 4096, memory, 1 << 20),
            tdx_sim_test_image(&image(), memory, 4096, ptr::null_mut(), 1 << 20),
        ]
    };
    assert_eq!(statuses, [Null; 12]);
    assert!(handle.is_null(), "a handle that is not made is NULL");
    assert_eq!(bytes, [1; 4]);
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
        assert_eq!(all_with(handle), [BadHandle; 8], "{handle:?}");
    }
    sim.succeed(0, SYS_RD, 0);
}

#[test]
fn a_handle_that_was_freed_is_refused_also_by_free() {
    let (sim, other) = (Sim::ready(), Sim::ready());
    assert_eq!(tdx_sim_free(sim.0), Ok);
    assert_eq!(all_with(sim.0), [BadHandle; 8]);
    // Nor does a new platform get its number.
    let next = Sim::ready();
    assert_ne!(next.0, sim.0);
    assert_eq!(all_with(sim.0), [BadHandle; 8]);
    for sim in [&other, &next] {
        assert!(sim.truth().module_callable);
    }
}

#[test]
fn unaligned_pointers_are_refused() {
    let sim = Sim::ready();
    let mut words = [0u64; 32];
    let start = words.as_mut_ptr().cast::<u8>();
    let odd = start.wrapping_add(1);
    let (mut regs, mut trap) = (TdxSimRegs::default(), TdxSimTrap::None);
    let memory = start.cast();
    // SAFETY: each call has an unaligned pointer that is not followed; others lead to what they should.
    let statuses = unsafe {
        [
            tdx_sim_create(c"{}".as_ptr(), ptr::null_mut(), 0, odd.cast()),
            tdx_sim_seamcall(sim.0, 0, odd.cast(), &mut trap),
            tdx_sim_seamcall(sim.0, 0, &mut regs, odd.cast()),
            tdx_sim_get_truth(sim.0, odd.cast()),
            tdx_sim_add_fault(sim.0, odd.cast()),
            tdx_sim_image_defaults(odd.cast()),
            tdx_sim_test_image(odd.cast(), memory, 8, memory, 8),
        ]
    };
    assert_eq!(statuses, [Unaligned; 7]);
    assert_eq!(words, [0; 32]);
}

#[test]
fn an_lp_that_is_not_there_makes_no_call() {
    let sim = Sim::ready();
    let regs = TdxSimRegs { rax: SYS_RD, ..TdxSimRegs::default() };
    for lp in [LPS, 1024, u32::MAX] {
        assert_eq!(sim.try_call(lp, regs), (UnknownLp, TdxSimTrap::Ud, regs), "nothing is written");
        if lp != TDX_SIM_ANY_LP {
            assert_eq!(sim.add_fault(TdxSimFault { lp, ..fault() }), UnknownLp);
        }
    }
}

#[test]
fn descriptions_that_are_wrong_say_what_is_wrong() {
    let (status, message, sim) = create(b"{\"platform\": \"\xff\"}");
    assert_eq!((status, sim.is_null()), (NotUtf8, true));
    assert!(message.contains("invalid utf-8"), "{message}");

    let good = description(Some("SYS_READY"));
    for (wrong, says) in [
        (String::new(), "EOF"),
        ("{}".to_owned(), "platform"),
        (good.replace("\"num_lps\": 4", "\"num_lps\": 0"), "LPs"),
        (good.replace("0x5a5a", "0xzz"), "0xzz"),
        (good.replace("SYS_READY", "SLEEPY"), "SLEEPY"),
        (good.replace("[0, 1, 2, 3]", "[0, 1, 2]"), "initial state"),
        (good.replace("[0, 1, 2, 3]", "[0, 1, 2, 99]"), "initial state"),
        (good.replace("0x10000000\"", "0x10000001\""), "seamrr_size"),
        (good.replace("[\"0x806f8\"]", "[]"), "socket_fms"),
    ] {
        let (status, message, sim) = create(wrong.clone());
        assert_eq!((status, sim.is_null()), (BadDescription, true), "{wrong}");
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_message_is_cut_off_where_its_buffer_ends() {
    let mut sim = ptr::dangling_mut();
    let mut message = [0x7f; 8];
    // SAFETY: so many characters may be written, and the rest is what it should be.
    let statuses = unsafe {
        [
            tdx_sim_create(c"{}".as_ptr(), ptr::null_mut(), 0, &mut sim),
            tdx_sim_create(c"{}".as_ptr(), message.as_mut_ptr(), 4, &mut sim),
        ]
    };
    assert_eq!(statuses, [BadDescription; 2]);
    assert_eq!(message.map(|byte| byte as u8 & 0x7f), *b"mis\0\x7f\x7f\x7f\x7f");
}

#[test]
fn memory_that_cannot_be_mapped_says_why() {
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
        // SAFETY: there is not so much memory, which the function sees.
        let status = unsafe { tdx_sim_map(sim.0, 0, memory.as_mut_ptr().cast(), len) };
        assert_eq!(status, BadLength, "{len:#x}");
    }
    assert_eq!(tdx_sim_unmap(sim.0, HOST + 8192), NotMapped);
    assert_eq!(tdx_sim_unmap(sim.0, HOST + 1), NotMapped);
    assert_eq!([(); 2].map(|()| tdx_sim_unmap(sim.0, HOST)), [Ok, NotMapped]);
}

#[test]
fn faults_that_cannot_be_are_refused() {
    let sim = Sim::ready();
    let (trap, delay) = (TdxSimFaultKind::Trap.number(), TdxSimFaultKind::Delay.number());
    for wrong in [
        TdxSimFault::default(),
        TdxSimFault { kind: 0, ..fault() },
        TdxSimFault { kind: 4, ..fault() },
        TdxSimFault { times: 0, ..fault() },
        TdxSimFault { any_rax: 2, ..fault() },
        TdxSimFault { reserved: 1, ..fault() },
        TdxSimFault { kind: trap, trap: 0, ..fault() },
        TdxSimFault { kind: trap, trap: 4, ..fault() },
        TdxSimFault { kind: delay, delay: 0, ..fault() },
    ] {
        assert_eq!(sim.add_fault(wrong), BadFault, "{wrong:?}");
    }
    sim.succeed(0, SYS_RD, 0);
}

#[test]
fn a_plan_has_room_for_32_faults() {
    let sim = Sim::ready();
    for _ in 0..32 {
        assert_eq!(sim.add_fault(fault()), Ok);
    }
    assert_eq!(sim.add_fault(fault()), NoRoom);
    assert_eq!(tdx_sim_clear_faults(sim.0), Ok);
    assert_eq!(sim.add_fault(fault()), Ok);
}

#[test]
fn tds_need_a_module_that_is_ready_a_phase_and_room() {
    for state in [None, Some("SYSINIT_PENDING"), Some("SYS_SHUTDOWN")] {
        assert_eq!(tdx_sim_create_td(Sim::new(state).0, 0), NotReady, "{state:?}");
    }
    let sim = Sim::ready();
    for phase in [3, u32::MAX] {
        assert_eq!(tdx_sim_create_td(sim.0, phase), BadArgument);
    }
    let made = (0..).take_while(|_| tdx_sim_create_td(sim.0, 0) == Ok).count();
    assert_eq!(tdx_sim_create_td(sim.0, 0), NoRoom);
    assert_eq!((sim.truth().tds as usize, sim.truth().tds_alive as usize), (made, made));
    assert!(made > 0);
}

#[test]
fn an_image_needs_pages_and_buffers() {
    let mut memory = vec![0x77u8; 9 * 4096];
    let (sigstruct, module) = memory.split_at_mut(4096);
    for (pages, sigstruct_size, module_size, status) in [
        (2, 4096, 1 << 20, BadArgument),
        (497, 4096, 1 << 24, BadArgument),
        (u32::MAX, 4096, 1 << 24, BadArgument),
        (8, 4095, 8 * 4096, BufferTooSmall),
        (8, 0, 8 * 4096, BufferTooSmall),
        (8, 4096, 8 * 4096 - 1, BufferTooSmall),
        (496, 4096, 8 * 4096, BufferTooSmall),
    ] {
        let image = TdxSimImage { pages, ..image() };
        let (sigstruct, module) = (sigstruct.as_mut_ptr().cast(), module.as_mut_ptr().cast());
        // SAFETY: where there is less room than is said, the function does not come to writing.
        let found = unsafe { tdx_sim_test_image(&image, sigstruct, sigstruct_size, module, module_size) };
        assert_eq!(found, status, "{pages} pages");
    }
    assert!(memory.iter().all(|byte| *byte == 0x77), "nothing was written");
}

#[test]
fn every_status_has_the_name_that_it_has_in_c() {
    let name = |status: i32| {
        // SAFETY: the function returns a C string that stays where it is.
        unsafe { CStr::from_ptr(tdx_sim_status_name(status)) }.to_str().unwrap()
    };
    assert_eq!(name(BadHandle.number()), "TDX_SIM_STATUS_BAD_HANDLE");
    assert_eq!(name(1), "unknown status");
}

/// Every number of a description, replaced by each of these.
fn with_numbers_replaced(value: &serde_json::Value, by: &[serde_json::Value]) -> Vec<serde_json::Value> {
    use serde_json::Value;
    let is_number = |text: &str| text.starts_with("0x");
    match value {
        Value::Number(_) => by.to_vec(),
        Value::String(text) if is_number(text) => by.to_vec(),
        Value::Array(items) => {
            let changed = |index| {
                with_numbers_replaced(&items[index], by).into_iter().map(move |item| {
                    let mut items = items.clone();
                    items[index] = item;
                    Value::Array(items)
                })
            };
            (0..items.len()).flat_map(changed).collect()
        }
        Value::Object(fields) => {
            let changed = |(name, field): (&String, _)| {
                let name = name.clone();
                with_numbers_replaced(field, by).into_iter().map(move |field| {
                    let mut fields = fields.clone();
                    fields.insert(name.clone(), field);
                    Value::Object(fields)
                })
            };
            fields.iter().flat_map(changed).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn numbers_at_their_limits_make_a_platform_or_an_error_and_never_a_panic() {
    let limits = [0u64, 1, 31, 63, 64, 1023, 1024, 0xffff, u32::MAX.into(), i64::MAX as u64, u64::MAX];
    let limits = limits.map(serde_json::Value::from);
    let mut memory = support::update_memory(&image());
    let (mut made, mut refused) = (0, 0);
    for state in [Some("SYS_READY"), Some("SYSINIT_PENDING")] {
        let description = serde_json::from_str(&description(state)).unwrap();
        for changed in with_numbers_replaced(&description, &limits) {
            let (status, message, handle) = create(changed.to_string());
            if status != Ok {
                assert_eq!(status, BadDescription, "{changed}: {message}");
                refused += 1;
                continue;
            }
            made += 1;
            let sim = Sim(handle);
            assert_eq!(sim.map(HOST, &mut memory), Ok);
            for (rax, rcx) in [
                (1 << 63, HOST),
                (0x8000000000000003, HOST),
                (support::SYS_INIT, 0),
                (support::SYS_LP_INIT, 0),
                (support::SYS_SHUTDOWN, 0),
                (support::INSTALL, HOST),
                (support::SYS_INIT, 0),
                (support::SYS_LP_INIT, 0),
                (support::SYS_UPDATE, 0),
                (0x8000000000000002, 0),
            ] {
                for lp in 0..LPS {
                    let (status, ..) = sim.try_call(lp, TdxSimRegs { rax, rcx, ..TdxSimRegs::default() });
                    assert_eq!(status, Ok, "{changed}: {rax:#x}");
                }
            }
            let _ = sim.truth();
        }
    }
    assert!(made > 100 && refused > 100, "{made} were made, {refused} refused");
}
