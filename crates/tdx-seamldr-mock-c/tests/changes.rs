//! Events outside of firmware while a platform exists, and how firmware reacts.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]
#![allow(clippy::multiple_unsafe_ops_per_block)] // values from C are taken apart; tables of calls

mod support;

use support::{file, image, platform, update_memory, Sim, HOST, INSTALL, LPS};
use support::{SYS_INIT, SYS_LP_INIT, SYS_RD, SYS_SHUTDOWN, SYS_UPDATE};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// Returns a platform whose module was shut down, with an image for an update in its memory.
fn shut_down(memory: &mut [u8]) -> Sim {
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(sim.map(HOST, memory), Ok);
    sim.succeed(0, SYS_SHUTDOWN, 0);
    sim
}

/// Calls SEAMLDR.INSTALL on each LP; returns the statuses.
fn install(sim: &Sim) -> Vec<u64> {
    (0..LPS).map(|lp| sim.answer(lp, INSTALL, HOST)).collect()
}

#[test]
fn calls_that_need_rdrand_fail_while_rdrand_fails() {
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    assert_eq!(tdx_sim_set_rdrand(sim.0, 0, 1, 0), Ok);
    assert_eq!(install(&sim), [0, 0, 0, TDX_SIM_SEAMLDR_ENOENTROPY]);
    assert_eq!(tdx_sim_set_rdrand(sim.0, 1, 0x77, 0), Ok);
    assert_eq!(install(&sim), [0; 4]);
    assert_eq!(tdx_sim_set_rdrand(sim.0, 1, 0x77, 2), Ok);
    let answers = [(); 3].map(|()| sim.answer(0, SYS_INIT, 0));
    assert_eq!(answers, [TDX_SIM_TDX_RND_NO_ENTROPY, TDX_SIM_TDX_RND_NO_ENTROPY, 0]);
}

#[test]
fn p_seamldr_needs_a_random_number_at_its_first_entry() {
    let mut memory = vec![0; 4096];
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(sim.map(HOST, &mut memory), Ok);
    assert_eq!(tdx_sim_set_p_seamldr_entered(sim.0, 0), Ok);
    assert_eq!(tdx_sim_set_rdrand(sim.0, 1, 0x77, 1), Ok);
    let answers = [(); 2].map(|()| sim.answer(0, TDX_SIM_SEAMLDR_INFO, HOST));
    assert_eq!(answers, [TDX_SIM_SEAMLDR_EUNSPECERR, 0]);
    assert_eq!(sim.truth().p_seamldr_entered, 1);
}

#[test]
fn the_seam_database_and_the_remembered_number_of_updates_are_set_separately() {
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    assert_eq!(tdx_sim_set_seamdb(sim.0, 64, 3, 0), Ok);
    assert_eq!(tdx_sim_set_remaining_updates(sim.0, 0), Ok);
    assert_eq!(
        install(&sim),
        [0, 0, 0, TDX_SIM_SEAMLDR_EBADCALL],
        "P-SEAMLDR remembers that no update remains"
    );
    sim.succeed(0, TDX_SIM_SEAMLDR_INFO, HOST);
    assert_eq!(sim.truth().remaining_updates, 61, "INFO has counted again");
    // INFO has overwritten SEAMLDR_PARAMS.
    drop(sim);
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    assert_eq!(tdx_sim_set_seamdb(sim.0, 64, 3, u32::MAX), Ok);
    assert_eq!(install(&sim), [0, 0, 0, TDX_SIM_SEAMLDR_ENOENTROPY], "five insertions fail");
    let truth = sim.truth();
    assert_eq!(
        (truth.seamdb_size, truth.seamdb_used, truth.seamdb_failures),
        (64, 3, u32::MAX - 5)
    );
}

#[test]
fn a_full_database_is_a_lack_of_entropy_or_fatal_depending_on_the_platform() {
    for fatal in [0, 1] {
        let mut memory = update_memory(&image());
        let sim =
            Sim::booted(&TdxSimPlatform { full_seamdb_is_fatal: fatal, ..platform() }, &image());
        assert_eq!(sim.map(HOST, &mut memory), Ok);
        sim.succeed(0, SYS_SHUTDOWN, 0);
        assert_eq!(tdx_sim_set_seamdb(sim.0, 64, 64, 0), Ok);
        assert_eq!(tdx_sim_set_remaining_updates(sim.0, 5), Ok);
        (0..LPS - 1).for_each(|lp| sim.succeed(lp, INSTALL, HOST));
        let regs = TdxSimRegs { rax: INSTALL, rcx: HOST, ..TdxSimRegs::default() };
        let (trap, regs) = sim.call(LPS - 1, regs);
        if fatal == 1 {
            assert_eq!((trap, sim.truth().dead), (TdxSimTrap::VmfailInvalid, 1));
        } else {
            assert_eq!(
                (trap, regs.rax, regs.rdx),
                (TdxSimTrap::None, TDX_SIM_SEAMLDR_ENOENTROPY, 1)
            );
        }
    }
}

#[test]
fn debug_modules_are_installed_only_on_unlocked_platforms() {
    let debug = TdxSimImage { debug: 1, ..image() };
    for (unlocked, answer) in [(0, TDX_SIM_SEAMLDR_EBADSIG), (1, 0)] {
        let mut memory = update_memory(&debug);
        let sim = shut_down(&mut memory);
        assert_eq!(tdx_sim_set_debug_unlocked(sim.0, unlocked), Ok);
        assert_eq!(sim.truth().debug_unlocked, unlocked);
        assert_eq!(install(&sim), [0, 0, 0, answer]);
    }
}

#[test]
fn lp_init_fails_while_an_msr_or_the_capabilities_of_the_lp_differ() {
    const MSR: u32 = 0xfe;
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    assert_eq!(install(&sim), [0; 4]);
    sim.succeed(0, SYS_INIT, 0);
    assert_eq!(tdx_sim_flip_lp_msr(sim.0, 1, MSR, 1), Ok);
    assert_eq!(sim.answer(1, SYS_LP_INIT, 0), TDX_SIM_TDX_INCONSISTENT_MSR | u64::from(MSR));
    assert_eq!(tdx_sim_flip_lp_msr(sim.0, 1, MSR, 1), Ok, "the same bits twice cancel");
    sim.succeed(1, SYS_LP_INIT, 0);
    assert_eq!(tdx_sim_set_lp_capabilities(sim.0, 2, 0x3f), Ok);
    assert_eq!(sim.lp(2).capabilities, 0x3f);
    assert_eq!(sim.answer(2, SYS_LP_INIT, 0), TDX_SIM_TDX_INCOMPATIBLE_SEAM_CAPABILITIES);
    assert_eq!(tdx_sim_restore_lp(sim.0, 2), Ok);
    sim.succeed(2, SYS_LP_INIT, 0);
    for lp in 0..2 {
        for msr in 0..1024 {
            assert_eq!(tdx_sim_flip_lp_msr(sim.0, lp, msr, 1), Ok);
        }
    }
    assert_eq!(tdx_sim_flip_lp_msr(sim.0, 3, 1024, 1), NoRoom);
    assert_eq!(tdx_sim_restore_lp(sim.0, TDX_SIM_ANY_LP), Ok);
    assert_eq!(tdx_sim_flip_lp_msr(sim.0, 3, 1024, 1), Ok);
}

#[test]
fn unsupported_cpuid_fails_sys_init_and_deviating_cpuid_fails_lp_init() {
    const INCORRECT_CPUID_VALUE: u64 = 0xc000_0900_0000_0000;
    const INCONSISTENT_CPUID_FIELD: u64 = 0xc000_0902_0000_0000;
    const NO_SUBLEAF: u32 = u32::MAX;
    let edx = TdxSimCpuidOutput::Edx.number();
    for (lp, at_init, at_lp_init) in
        [(TDX_SIM_ANY_LP, INCORRECT_CPUID_VALUE, None), (1, 0, Some([0, INCONSISTENT_CPUID_FIELD]))]
    {
        let mut memory = update_memory(&image());
        let sim = shut_down(&mut memory);
        assert_eq!(install(&sim), [0; 4]);
        // Leaf 7.0, EDX bit 26: speculation control, which the module needs.
        assert_eq!(tdx_sim_flip_lp_cpuid(sim.0, lp, 7, 0, edx, 1 << 26), Ok);
        assert_eq!(sim.answer(0, SYS_INIT, 0) & !0xffff_ffff, at_init);
        let answers =
            at_lp_init.map(|_| [0, 1].map(|lp| sim.answer(lp, SYS_LP_INIT, 0) & !0xffff_ffff));
        assert_eq!(answers, at_lp_init);
    }
    let sim = Sim::ready();
    for output in [4, u32::MAX] {
        assert_eq!(tdx_sim_flip_lp_cpuid(sim.0, 0, 1, NO_SUBLEAF, output, 1), BadArgument);
    }
}

#[test]
fn the_module_is_busy_while_its_lock_is_held_or_an_lp_is_inside() {
    let sim = Sim::booted(&platform(), &image());
    for lock in [TdxSimLock::Shared, TdxSimLock::Exclusive] {
        assert_eq!(tdx_sim_set_global_lock(sim.0, lock.number()), Ok);
        assert_eq!(sim.truth().global_lock, lock.number());
        assert_eq!(sim.answer(0, SYS_SHUTDOWN, 0), TDX_SIM_TDX_SYS_BUSY);
    }
    assert_eq!(tdx_sim_set_global_lock(sim.0, TdxSimLock::Free.number()), Ok);
    assert_eq!(tdx_sim_set_lp_in_module(sim.0, 3, 1), Ok);
    assert_eq!((sim.lp(3).in_module, sim.answer(0, SYS_SHUTDOWN, 0)), (1, TDX_SIM_TDX_SYS_BUSY));
    let read = TdxSimRegs { rax: SYS_RD, ..TdxSimRegs::default() };
    assert_eq!(sim.call(3, read).0, TdxSimTrap::VmfailInvalid);
    assert_eq!(tdx_sim_set_lp_in_module(sim.0, 3, 0), Ok);
    // The TDMR of the boot; another LP initialises a part of it.
    const TDMR: u64 = 0x1_0000_0000;
    assert_eq!(tdx_sim_set_tdmr_lock(sim.0, 0, 1), Ok);
    assert_eq!(sim.answer(0, TDX_SIM_TDH_SYS_TDMR_INIT, TDMR), 0x8000020000000001);
    assert_eq!(tdx_sim_set_tdmr_lock(sim.0, 0, 0), Ok);
    sim.succeed(0, TDX_SIM_TDH_SYS_TDMR_INIT, TDMR);
    sim.succeed(0, SYS_SHUTDOWN, 0);
}

#[test]
fn each_call_of_an_lp_traps_until_the_trap_is_removed() {
    let sim = Sim::booted(&platform(), &image());
    let call = TdxSimRegs { rax: SYS_RD, ..TdxSimRegs::default() };
    for trap in [TdxSimTrap::Ud, TdxSimTrap::Gp, TdxSimTrap::None] {
        assert_eq!(tdx_sim_set_lp_trap(sim.0, 2, trap.number()), Ok);
        assert_eq!((sim.lp(2).trap, sim.call(2, call).0), (trap.number(), trap));
        assert_eq!(sim.call(1, call).0, TdxSimTrap::None, "other LPs do not trap");
    }
}

#[test]
fn a_session_stays_open_until_the_offline_lp_calls() {
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    for lp in 0..LPS - 1 {
        sim.succeed(lp, INSTALL, HOST);
    }
    assert_eq!((sim.truth().lps_in_session, sim.truth().module_callable), (3, 0));
    assert_eq!([2, 3].map(|lp| sim.lp(lp).in_session), [1, 0]);
    assert_eq!(
        sim.answer(0, INSTALL, HOST),
        TDX_SIM_SEAMLDR_EBADCALL,
        "LP 0 has called in this session"
    );
    sim.succeed(LPS - 1, INSTALL, HOST);
    assert_eq!((sim.truth().lps_in_session, sim.truth().module_callable), (0, 1));
}

#[test]
fn p_seamldr_clears_the_current_vmcs_on_processors_with_the_erratum() {
    for (erratum, after) in [(0, 0x5000), (1, u64::MAX)] {
        let sim =
            Sim::booted(&TdxSimPlatform { seamret_clears_vmcs: erratum, ..platform() }, &image());
        assert_eq!(sim.lp(1).current_vmcs, u64::MAX);
        assert_eq!(tdx_sim_load_vmcs(sim.0, 1, 0x5000), Ok);
        sim.succeed(1, TDX_SIM_SEAMLDR_INFO, HOST);
        assert_eq!(sim.lp(1).current_vmcs, after);
    }
}

#[test]
fn get_and_set_seamextend_copy_the_whole_register() {
    let sim = Sim::booted(&platform(), &image());
    let get = |sim: &Sim| {
        let mut register = std::mem::MaybeUninit::uninit();
        // SAFETY: the register is writable.
        assert_eq!(unsafe { tdx_sim_get_seamextend(sim.0, register.as_mut_ptr()) }, Ok);
        // SAFETY: the function has filled it in.
        unsafe { register.assume_init() }
    };
    let before: TdxSimSeamextend = get(&sim);
    assert_eq!((before.valid, before.tee_tcb_svn[..2].to_vec()), (0x1ff, vec![5, 1]));
    assert_eq!((before.seam_ready, before.p_seamldr_ready), (1, 1));
    let changed = TdxSimSeamextend { mrsigner: [7; 48], attributes: 9, seam_ready: 0, ..before };
    // SAFETY: the register is readable.
    let set = |register: &TdxSimSeamextend| unsafe { tdx_sim_set_seamextend(sim.0, register) };
    assert_eq!(set(&changed), Ok);
    assert_eq!((get(&sim), sim.truth().module_callable), (changed, 0));
    assert_eq!(set(&TdxSimSeamextend { p_seamldr_ready: 0, ..before }), Ok);
    let info = TdxSimRegs { rax: TDX_SIM_SEAMLDR_INFO, rcx: HOST, ..TdxSimRegs::default() };
    assert_eq!((sim.call(0, info).0, sim.truth().p_seamldr_ready), (TdxSimTrap::VmfailInvalid, 0));
    for wrong in [2, 255] {
        assert_eq!(set(&TdxSimSeamextend { seam_ready: wrong, ..before }), BadArgument);
        assert_eq!(set(&TdxSimSeamextend { p_seamldr_ready: wrong, ..before }), BadArgument);
    }
    let empty = Sim::of(&platform()).unwrap();
    // SAFETY: the register is readable.
    assert_eq!(unsafe { tdx_sim_set_seamextend(empty.0, &before) }, Contradiction);
}

#[test]
fn handoff_data_can_be_read_and_written_and_a_wrong_header_loses_it() {
    let mut memory = update_memory(&image());
    let sim = shut_down(&mut memory);
    let truth = sim.truth();
    assert_eq!((truth.handoff_valid, truth.handoff_hv, truth.handoff_size), (1, 0, 53386));
    let mut header = [0u8; 8];
    // SAFETY: the buffer has 8 writable bytes.
    let read = unsafe { tdx_sim_read_handoff(sim.0, 0, header.as_mut_ptr().cast(), 8) };
    assert_eq!((read, header), (Ok, [1, 0, 0, 0, 0x8a, 0xd0, 0, 0]));
    // SAFETY: the slice is readable.
    let write = |offset, bytes: &[u8]| unsafe {
        tdx_sim_write_handoff(sim.0, offset, bytes.as_ptr().cast(), bytes.len())
    };
    assert_eq!(write(0, &[0]), Ok);
    assert_eq!((sim.truth().handoff_valid, install(&sim)[3]), (0, TDX_SIM_SEAMLDR_EBADHANDOFF));
    assert_eq!(write(0, &[1]), Ok);
    assert_eq!(install(&sim), [0; 4]);
    assert_eq!(write(TDX_SIM_HANDOFF_SIZE, &[]), Ok, "zero bytes at the end of the area");
    for (offset, bytes) in
        [(TDX_SIM_HANDOFF_SIZE, &[0][..]), (TDX_SIM_HANDOFF_SIZE - 1, &[0, 0]), (usize::MAX, &[0])]
    {
        assert_eq!(write(offset, bytes), BadLength);
        let mut copy = bytes.to_vec();
        // SAFETY: the buffer has this number of writable bytes.
        let read =
            unsafe { tdx_sim_read_handoff(sim.0, offset, copy.as_mut_ptr().cast(), copy.len()) };
        assert_eq!(read, BadLength);
    }
}

#[test]
fn cleanup_returns_einterrupt_once_per_pending_interrupt() {
    let newer = TdxSimPlatform { generation: TdxSimGeneration::Newer.number(), ..platform() };
    let sim = Sim::booted(&newer, &image());
    assert_eq!(tdx_sim_set_pending_interrupts(sim.0, 1), Ok);
    let answers: Vec<_> = (0..LPS).map(|lp| sim.answer(lp, TDX_SIM_SEAMLDR_CLEANUP, 0)).collect();
    assert_eq!(
        answers.iter().filter(|answer| **answer == TDX_SIM_SEAMLDR_EINTERRUPT).count(),
        1,
        "{answers:x?}"
    );
}

#[test]
fn failing_instructions_in_the_module_give_its_statuses() {
    let sim = Sim::of(&platform()).unwrap();
    assert_eq!(tdx_sim_set_instruction_errors(sim.0, 0, 5), Ok);
    let status = sim.boot(&file(&image(), TdxSimImageFormat::V1), TdxSimModuleState::Ready);
    assert_eq!(status, Refused);
    assert!(
        support::last_error().starts_with("TDH.SYS.KEY.CONFIG on LP 0"),
        "{}",
        support::last_error()
    );
    assert_eq!(sim.truth().module_state, TdxSimModuleState::SysConfigDone.number());
    assert_eq!(tdx_sim_set_instruction_errors(sim.0, 0, 0), Ok);
    sim.succeed(0, TDX_SIM_TDH_SYS_KEY_CONFIG, 0);
    assert_eq!(sim.truth().module_state, TdxSimModuleState::Ready.number());
}

#[test]
fn changes_fail_without_a_module_or_for_an_unknown_lp() {
    let sim = Sim::of(&platform()).unwrap();
    assert_eq!(tdx_sim_set_global_lock(sim.0, 0), NoModule);
    assert_eq!(tdx_sim_set_tdmr_lock(sim.0, 0, 1), NoModule);
    for lp in [LPS, u32::MAX - 1] {
        let statuses = [
            tdx_sim_set_lp_trap(sim.0, lp, 0),
            tdx_sim_set_lp_in_module(sim.0, lp, 0),
            tdx_sim_flip_lp_msr(sim.0, lp, 0, 0),
            tdx_sim_set_lp_capabilities(sim.0, lp, 0),
            tdx_sim_restore_lp(sim.0, lp),
            tdx_sim_load_vmcs(sim.0, lp, 0),
        ];
        assert_eq!(statuses, [UnknownLp; 6], "{lp}");
        assert_eq!(support::last_error(), format!("there is no LP {lp}"));
    }
}

#[test]
fn invalid_enumeration_numbers_and_bools_above_1_are_refused() {
    let sim = Sim::booted(&platform(), &image());
    for number in [3, 255, 0x8000_0000, u32::MAX] {
        assert_eq!(tdx_sim_set_global_lock(sim.0, number), BadArgument);
    }
    for number in [4, u32::MAX, TdxSimTrap::VmfailInvalid.number()] {
        assert_eq!(tdx_sim_set_lp_trap(sim.0, 0, number), BadArgument);
    }
    for value in [2, 255] {
        let statuses = [
            tdx_sim_set_rdrand(sim.0, value, 0, 0),
            tdx_sim_set_p_seamldr_entered(sim.0, value),
            tdx_sim_set_debug_unlocked(sim.0, value),
            tdx_sim_set_tdmr_lock(sim.0, 0, value),
            tdx_sim_set_lp_in_module(sim.0, 0, value),
        ];
        assert_eq!(statuses, [BadArgument; 5]);
    }
    assert_eq!(tdx_sim_set_tdmr_lock(sim.0, 64, 1), BadArgument);
    assert_eq!(tdx_sim_set_seamdb(sim.0, 3, 4, 0), Contradiction);
    assert_eq!(sim.truth().seamdb_size, 64, "the platform is unchanged");
    let update = TdxSimRegs { rax: SYS_UPDATE, ..TdxSimRegs::default() };
    assert_ne!(sim.call(0, update).1.rax, 0);
}
