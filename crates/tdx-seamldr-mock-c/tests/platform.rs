//! A platform, used through the functions for C programs.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]

mod support;

use std::time::{Duration, Instant};

use support::{create, fault, file, platform, SYS_UPDATE};
use support::{
    image, update_memory, Sim, HOST, INSTALL, LPS, SYS_INIT, SYS_LP_INIT, SYS_RD, SYS_SHUTDOWN,
};
use tdx_sim::*;

#[test]
fn a_td_survives_an_update_and_the_truth_is_correct_at_each_step() {
    let mut memory = update_memory(&TdxSimImage { svn_minor: 6, ..image() });
    let sim = Sim::ready();
    assert_eq!(sim.create_td(TdxSimTdPhase::Running), Ok(0));
    assert_eq!(sim.map(HOST, &mut memory), TdxSimStatus::Ok);

    let before = sim.truth();
    assert_eq!(
        (before.module_present, before.module_callable, before.seam_ready, before.dead),
        (1, 1, 1, 0)
    );
    assert_eq!(before.module_state, TdxSimModuleState::Ready.number());
    assert_eq!((before.version_major, before.version_minor, before.version_update), (1, 5, 1));
    assert_eq!((before.remaining_updates, before.tds, before.tds_alive), (60, 1, 1));

    sim.succeed(0, SYS_SHUTDOWN, 0);
    let truth = sim.truth();
    assert_eq!(
        (truth.module_state, truth.handoff_valid),
        (TdxSimModuleState::Shutdown.number(), 1)
    );
    assert_eq!(truth.tds_alive, 0);

    for lp in 0..LPS {
        sim.succeed(lp, INSTALL, HOST);
        assert_eq!(sim.truth().lps_in_session, (lp + 1) % LPS);
        assert_eq!(sim.truth().seam_ready, u8::from(lp + 1 == LPS));
    }
    assert_eq!(sim.truth().module_state, TdxSimModuleState::SysInitPending.number());
    sim.succeed(0, SYS_INIT, 0);
    assert_eq!(sim.truth().module_state, TdxSimModuleState::SysInitDone.number());
    for lp in 0..LPS {
        sim.succeed(lp, SYS_LP_INIT, 0);
    }
    sim.succeed(0, SYS_UPDATE, 0);

    let after = sim.truth();
    assert_eq!((after.module_state, after.handoff_valid), (TdxSimModuleState::Ready.number(), 0));
    assert_eq!((after.version_update, after.svn_major, after.svn_minor), (6, 1, 6));
    assert_eq!((after.remaining_updates, after.tds, after.tds_alive), (59, 1, 1));
}

#[test]
fn a_changed_image_fails_the_signature_check() {
    let mut memory = update_memory(&image());
    memory[4096 + 900] ^= 1;
    let sim = Sim::ready();
    assert_eq!(sim.map(HOST, &mut memory), TdxSimStatus::Ok);
    sim.succeed(0, SYS_SHUTDOWN, 0);
    let answers: Vec<_> = (0..LPS).map(|lp| sim.answer(lp, INSTALL, HOST)).collect();
    assert_eq!(answers, [0, 0, 0, TDX_SIM_SEAMLDR_EBADSIG]);
}

#[test]
fn memory_that_is_not_mapped_reads_as_0_and_ignores_writes() {
    let mut memory = vec![0x77; 4096];
    let sim = Sim::ready();
    assert_eq!(sim.map(HOST, &mut memory), TdxSimStatus::Ok);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST + 0x1000);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(tdx_sim_unmap(sim.0, HOST), TdxSimStatus::Ok);
    // The vendor at offset 8 is Intel; the structure has 256 bytes.
    assert_eq!(memory[8..12], 0x8086u32.to_le_bytes());
    assert!(memory[256..].iter().all(|byte| *byte == 0x77));
    memory.fill(0x77);
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert!(memory.iter().all(|byte| *byte == 0x77));
    // SEAMLDR_PARAMS and SIGSTRUCT of zeros: EBADSIG.
    sim.succeed(0, SYS_SHUTDOWN, 0);
    let answers: Vec<_> = (0..LPS).map(|lp| sim.answer(lp, INSTALL, HOST)).collect();
    assert_eq!(answers, [0, 0, 0, TDX_SIM_SEAMLDR_EBADSIG]);
}

#[test]
fn a_trap_does_not_change_the_registers() {
    let sim = Sim::new(None);
    let regs = TdxSimRegs { rax: SYS_RD, rcx: 1, r15: 2, ..TdxSimRegs::default() };
    assert_eq!(sim.call(0, regs), (TdxSimTrap::VmfailInvalid, regs));
    assert_eq!(sim.truth().module_state, TdxSimModuleState::None.number());
}

#[test]
fn a_plan_has_room_for_32_faults_and_a_fault_that_is_over_makes_room() {
    let sim = Sim::ready();
    let ids: Vec<u64> = (0..TDX_SIM_MAX_FAULTS).map(|_| sim.add_fault(fault())).collect();
    assert_eq!(sim.try_add_fault(fault()), Err(TdxSimStatus::NoRoom));
    assert_eq!(
        [(); 2].map(|()| tdx_sim_end_fault(sim.0, ids[7])),
        [TdxSimStatus::Ok; 2],
        "also twice"
    );
    let next = sim.add_fault(fault());
    assert!(!ids.contains(&next));
    assert_eq!(tdx_sim_clear_faults(sim.0), TdxSimStatus::Ok);
    assert_eq!((sim.times_left(ids[0]), sim.times_left(next)), (Ok(0), Ok(0)));
    sim.add_fault(fault());
}

#[test]
fn faults_affect_the_calls_that_they_name_until_they_end() {
    let sim = Sim::ready();
    let call = TdxSimRegs { rax: SYS_RD, rdx: 7, ..TdxSimRegs::default() };
    let returned = TdxSimFault {
        lp: 2,
        any_rax: 0,
        rax: SYS_RD,
        after: 1,
        answer_rax: TDX_SIM_TDX_SYS_BUSY,
        answer_rdx: 9,
        ..fault()
    };
    let id = sim.add_fault(returned);
    assert_eq!((sim.times_left(id), sim.unfired()), (Ok(1), (1, id)));
    let busy = |(trap, regs): (TdxSimTrap, TdxSimRegs)| {
        trap == TdxSimTrap::None && (regs.rax, regs.rdx) == (0x8000020200000000, 9)
    };
    assert!(!busy(sim.call(1, call)));
    assert_eq!([(); 3].map(|()| busy(sim.call(2, call))), [false, true, false]);
    assert_eq!(sim.times_left(id), Ok(0), "the fault is over");
    assert_eq!(sim.unfired(), (0, 0));

    for (trap, number) in [(TdxSimTrap::VmfailInvalid, 1), (TdxSimTrap::Gp, 2), (TdxSimTrap::Ud, 3)]
    {
        let kind = TdxSimFaultKind::Trap.number();
        let id =
            sim.add_fault(TdxSimFault { times: TDX_SIM_ALWAYS, kind, trap: number, ..fault() });
        for lp in 0..LPS {
            assert_eq!(sim.call(lp, call), (trap, call));
        }
        assert_eq!(tdx_sim_end_fault(sim.0, id), TdxSimStatus::Ok);
        assert_eq!(sim.times_left(id), Ok(0));
        assert_eq!(sim.call(0, call).0, TdxSimTrap::None);
    }
}

/// Makes the next call of LP 0 wait for this number of other calls.
fn delay(sim: &Sim, delay: u32) {
    let kind = TdxSimFaultKind::Delay.number();
    sim.add_fault(TdxSimFault { lp: 0, kind, delay, ..fault() });
}

/// Returns the registers of SEAMLDR.INFO.
fn info() -> TdxSimRegs {
    TdxSimRegs { rax: TDX_SIM_SEAMLDR_INFO, rcx: HOST, ..TdxSimRegs::default() }
}

/// Waits until an LP is inside P-SEAMLDR, so that other LPs get VMfailInvalid.
fn wait_until_inside(sim: &Sim) {
    let start = Instant::now();
    while sim.call(1, info()).0 == TdxSimTrap::None {
        assert!(start.elapsed() < Duration::from_secs(30), "LP 0 did not enter P-SEAMLDR in 30 s");
        std::thread::yield_now();
    }
}

#[test]
fn other_lps_find_an_lp_with_a_delayed_call_inside_firmware() {
    let sim = &Sim::ready();
    // More calls than are made within the limit, so the limit ends the call.
    delay(sim, u32::MAX);
    std::thread::scope(|threads| {
        let delayed = threads.spawn(move || sim.call(0, info()));
        wait_until_inside(sim);
        assert_eq!(delayed.join().unwrap().0, TdxSimTrap::None);
    });
    assert_eq!(sim.call(1, info()).0, TdxSimTrap::None);
}

#[test]
fn a_delayed_call_returns_after_the_given_number_of_other_calls() {
    let sim = &Sim::ready();
    delay(sim, 3);
    std::thread::scope(|threads| {
        let delayed = threads.spawn(move || sim.call(0, info()));
        while !delayed.is_finished() {
            let _ = sim.call(1, info());
            std::thread::yield_now();
        }
        assert_eq!(delayed.join().unwrap().0, TdxSimTrap::None);
    });
}

#[test]
fn in_a_single_thread_a_delayed_call_ends_at_the_limit() {
    let sim = Sim::ready();
    delay(&sim, 1);
    let start = Instant::now();
    assert_eq!(sim.call(0, info()).1.rax, 0);
    assert!(start.elapsed() >= Duration::from_millis(TDX_SIM_DELAY_LIMIT_MS.into()));
}

#[test]
fn freeing_a_platform_ends_a_delayed_call() {
    let sim = &Sim::ready();
    delay(sim, u32::MAX);
    std::thread::scope(|threads| {
        let delayed = threads.spawn(move || sim.try_call(0, info()).0);
        wait_until_inside(sim);
        assert_eq!(tdx_sim_free(sim.0), TdxSimStatus::Ok);
        assert_eq!(delayed.join().unwrap(), TdxSimStatus::BadHandle);
    });
}

#[test]
fn platforms_are_independent_and_can_be_used_by_many_threads() {
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(|| {
                for _ in 0..4 {
                    let (status, handle) = create(support::description(Some("SYS_READY")));
                    assert_eq!(status, TdxSimStatus::Ok);
                    let sim = Sim(handle);
                    sim.succeed(0, SYS_SHUTDOWN, 0);
                    assert_eq!(sim.truth().module_state, TdxSimModuleState::Shutdown.number());
                }
            });
        }
    });
    let sim = &Sim::ready();
    std::thread::scope(|threads| {
        for lp in 0..LPS {
            threads.spawn(move || (0..50).for_each(|_| sim.succeed(lp, SYS_RD, 0)));
        }
    });
}

#[test]
fn a_second_call_on_an_lp_inside_firmware_is_refused_and_does_not_affect_the_first() {
    let mut memory = vec![0; 4096];
    let sim = &Sim::ready();
    assert_eq!(sim.map(HOST, &mut memory), TdxSimStatus::Ok);
    let read = TdxSimRegs { rax: SYS_RD, rdx: TDX_SIM_FIELD_MODULE_HV, ..TdxSimRegs::default() };
    let info = info();
    for (first, second) in [(info, read), (read, info), (info, info), (read, read)] {
        let delayed = TdxSimFault {
            lp: 1,
            kind: TdxSimFaultKind::Delay.number(),
            delay: u32::MAX,
            ..fault()
        };
        sim.add_fault(delayed);
        std::thread::scope(|threads| {
            let inside = threads.spawn(move || sim.call(1, first));
            while sim.lp(1).in_call == 0 {
                std::thread::yield_now();
            }
            assert_eq!(sim.try_call(1, second), (TdxSimStatus::LpBusy, TdxSimTrap::Ud, second));
            let (trap, regs) = inside.join().unwrap();
            assert_eq!((trap, regs.rax), (TdxSimTrap::None, 0));
            let expected = if first == read { first.rdx + 1 } else { first.rdx };
            assert_eq!(
                regs.rdx, expected,
                "TDH.SYS.RD returns the next field's id in RDX, SEAMLDR.INFO does not change RDX"
            );
        });
        assert_eq!((sim.lp(1).in_call, sim.lp(1).in_module), (0, 0));
        assert_eq!(sim.call(1, second).1.rax, 0, "the LP can call afterwards");
    }
}

#[test]
fn a_created_platform_has_no_module_until_boot_brings_it_to_the_given_state() {
    for (until, expected) in [
        (TdxSimModuleState::SysInitPending, 0),
        (TdxSimModuleState::SysInitDone, 6),
        (TdxSimModuleState::SysConfigDone, 6),
        (TdxSimModuleState::Ready, 6),
        (TdxSimModuleState::Shutdown, 6),
    ] {
        let sim = Sim::of(&TdxSimPlatform { num_lps: 6, num_sockets: 2, ..platform() }).unwrap();
        let before = sim.truth();
        assert_eq!(
            (before.module_state, before.p_seamldr_ready, before.p_seamldr_entered),
            (0, 1, 0)
        );
        assert_eq!(sim.boot(&file(&image(), TdxSimImageFormat::V2), until), TdxSimStatus::Ok);
        let after = sim.truth();
        assert_eq!((after.module_state, after.lps_initialized), (until.number(), expected));
        assert_eq!((after.svn_major, after.svn_minor, after.version_update), (1, 5, 5));
        assert_eq!(
            (after.seamdb_used, after.remaining_updates, after.p_seamldr_entered),
            (1, 63, 1)
        );
        assert_eq!((0..6).filter(|lp| sim.lp(*lp).initialized == 1).count(), expected as usize);
        assert_eq!([0, 3].map(|lp| sim.lp(lp).package), [0, 1]);
    }
}

#[test]
fn a_platform_can_have_any_x2apic_ids_and_lps_that_firmware_does_not_count() {
    let ids = [7, 1023, 5, 9];
    let listed =
        TdxSimPlatform { num_lps: 3, x2apic_ids: ids.as_ptr(), num_x2apic_ids: 4, ..platform() };
    let sim = Sim::booted(&listed, &image());
    assert_eq!([0, 1, 2, 3].map(|lp| sim.lp(lp).x2apic_id), ids);
    assert_eq!([2, 3].map(|lp| (sim.lp(lp).counted, sim.lp(lp).initialized)), [(1, 1), (0, 0)]);
    assert_eq!(sim.try_call(4, TdxSimRegs::default()).0, TdxSimStatus::UnknownLp);
}

#[test]
fn tds_have_numbers_and_an_update_spoils_measurements_in_progress() {
    let mut memory = update_memory(&TdxSimImage { svn_minor: 6, ..image() });
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(sim.map(HOST, &mut memory), TdxSimStatus::Ok);
    let phases = [TdxSimTdPhase::Running, TdxSimTdPhase::InBuild, TdxSimTdPhase::InBuild];
    let [running, built, building] = phases.map(|phase| sim.create_td(phase).unwrap());
    for td in [built, building] {
        assert_eq!(sim.extend_td(td, b"a page"), TdxSimStatus::Ok);
        assert_eq!(
            (sim.td(td).phase, sim.td(td).measurement_right),
            (TdxSimTdPhase::InBuild.number(), 1)
        );
    }
    assert_eq!(sim.extend_td(running, b"a page"), TdxSimStatus::BadPhase);
    assert_eq!(sim.finish_td(built), Ok(true));
    assert_eq!(sim.finish_td(built), Err(TdxSimStatus::BadPhase), "the TD already runs");
    assert_ne!(sim.td(built).measurement, sim.td(building).measurement);

    sim.succeed(0, SYS_SHUTDOWN, 0);
    assert_eq!(
        (sim.td(running).alive, sim.extend_td(building, b"late")),
        (0, TdxSimStatus::TdGone)
    );
    (0..LPS).for_each(|lp| sim.succeed(lp, INSTALL, HOST));
    sim.succeed(0, SYS_INIT, 0);
    (0..LPS).for_each(|lp| sim.succeed(lp, SYS_LP_INIT, 0));
    sim.succeed(0, SYS_UPDATE, 0);

    assert_eq!([running, built, building].map(|td| sim.td(td).alive), [1, 1, 1]);
    assert_eq!([running, built, building].map(|td| sim.td(td).measurement_right), [1, 1, 0]);
    assert_eq!(sim.finish_td(building), Ok(false), "attestation will fail");
    assert_eq!((sim.truth().tds, sim.truth().tds_alive), (3, 3));
}

#[test]
fn a_fault_on_install_destroys_the_module_only_with_rdx_1() {
    for (rdx, present) in [(0, 1), (1, 0)] {
        let sim = Sim::ready();
        let td = sim.create_td(TdxSimTdPhase::Running).unwrap();
        let answer_rax = TDX_SIM_SEAMLDR_EBADHASH;
        sim.add_fault(TdxSimFault {
            any_rax: 0,
            rax: INSTALL,
            answer_rax,
            answer_rdx: rdx,
            ..fault()
        });
        assert_eq!(sim.answer(0, INSTALL, HOST), TDX_SIM_SEAMLDR_EBADHASH);
        assert_eq!((sim.truth().module_present, sim.td(td).alive), (present, present), "RDX {rdx}");
    }
}
