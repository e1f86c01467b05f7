//! Which LPs and processors firmware accepts: x2APIC ids, sockets, offline LPs, debug modules.

use tdx_seamldr_core::abi::{Scenario, SeamldrStatus as S, TdxStatus};
use tdx_seamldr_mock::{SimPlatform, TestImage};

use crate::support::*;
use crate::{END, HOLE, OK, SEAMRR};

#[test]
fn a_session_identifies_lps_by_x2apic_id_and_allows_gaps() {
    let platform = boot(SimPlatform::builder().lps(6).sockets(2));
    let ids: Vec<u32> =
        (0..6).map(|lp| platform.with_model(|model| model.x2apic_id(lp)).unwrap()).collect();
    assert!(ids.windows(2).all(|pair| pair[1] > pair[0] + 1), "{ids:?}");
    let packages: Vec<u32> = ids
        .iter()
        .map(|id| platform.with_model(|model| id >> model.config().package_shift))
        .collect();
    assert_eq!(packages, [0, 0, 0, 1, 1, 1]);
    for (count, lp) in (1u32..).zip([4, 0, 5]) {
        assert_eq!(install_on(&platform, lp, 0), OK);
        let session: Vec<u32> = platform.with_model(|model| model.loader().session().collect());
        assert!(
            session.len() as u32 == count && session.contains(&ids[lp as usize]),
            "{session:?}"
        );
        // The VMCS of an LP is behind the first page of the SEAM range, at an index equal to the
        // LP's x2APIC id.
        let vmcs = platform.with_model(|model| model.loader().effects().vmclear);
        assert_eq!(vmcs, Some(SEAMRR + 4096 * (1 + u64::from(ids[lp as usize]))));
    }
}

#[test]
fn an_lp_with_x2apic_id_1024_cannot_join_a_session() {
    let platform = boot(SimPlatform::builder().lps(3));
    platform.with_model(|model| model.set_lps([1023, 1024, u32::MAX]));
    for lp in [1, 2] {
        assert_eq!(install_on(&platform, lp, 0), (S::EUNSPECERR, 0));
        assert_eq!(rax(&platform, lp, END, 0), Ok(S::EUNSPECERR.0));
        assert_eq!(rax(&platform, lp, INFO, HOLE), Ok(0), "INFO does not check the id");
    }
    assert!(platform.truth().module.unwrap().callable, "no session has begun");
    assert_eq!(install_on(&platform, 0, 0), OK);
    assert_eq!(platform.with_model(|model| model.loader().session().collect::<Vec<_>>()), [1023]);
}

#[test]
fn update_fails_while_an_lp_stays_offline() {
    let platform = boot(SimPlatform::builder().lps(3).offline(1));
    assert_eq!(platform.online().collect::<Vec<_>>(), [0, 2]);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), OK);
    assert_eq!(platform.truth().lps_in_session, 2, "the session is still open");
    assert_eq!(install_all(&platform, &newer().build(), Scenario::Update), (S::EBADCALL, 0));
    with_params(&platform, &newer().build(), Scenario::Update, |params| {
        assert_eq!(install_on(&platform, 1, params), OK);
    });
    assert_eq!([SYS_INIT, LP_INIT].map(|leaf| rax(&platform, 0, leaf, 0)), [Ok(0), Ok(0)]);
    assert_eq!(rax(&platform, 2, LP_INIT, 0), Ok(0));
    let initialized = || platform.with_model(|model| model.module().unwrap().num_lps_initialized());
    assert_eq!(initialized(), 2);
    assert_eq!(rax(&platform, 0, UPDATE, 0), Ok(TdxStatus::SYS_STATE_INCORRECT.0));
    assert!(platform.truth().handoff_valid);
    assert_eq!((rax(&platform, 1, LP_INIT, 0), initialized()), (Ok(0), 3));
    assert_eq!((rax(&platform, 0, UPDATE, 0), platform.truth().tds_alive), (Ok(0), 3));
}

#[test]
fn install_needs_every_socket_in_the_cpu_list_and_ignores_steppings() {
    let file = newer().build();
    for socket in 0..8 {
        for (fms, expected) in [
            (0x806f0, S::SUCCESS),
            (0xa06ff, S::SUCCESS),
            (0x806e8, S::EUNSUPCPU),
            (0, S::EUNSUPCPU),
        ] {
            let platform = boot(SimPlatform::builder().lps(8).sockets(8));
            platform.with_model(|model| model.config_mut().socket_fms[socket] = fms);
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            let result = install_all(&platform, &file, Scenario::Update);
            assert_eq!(result, (expected, 0), "socket {socket}: {fms:#x}");
        }
    }
    // Sockets that the platform does not have are ignored.
    let platform = boot(SimPlatform::builder().lps(8).sockets(7));
    platform.with_model(|model| model.config_mut().socket_fms[7] = 0);
    assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
    assert_eq!(install_all(&platform, &file, Scenario::Update), OK);
}

#[test]
fn a_debug_module_without_a_cpu_list_runs_if_debugging_is_unlocked() {
    let debug = TestImage { debug: true, cpus: Vec::new(), ..newer() }.build();
    let production = TestImage { cpus: Vec::new(), ..newer() }.build();
    for (unlocked, of_debug) in [(false, S::EBADSIG), (true, S::SUCCESS)] {
        for (file, expected) in [(&production, S::EBADSIG), (&debug, of_debug)] {
            let platform = boot(SimPlatform::builder().lps(1));
            platform.with_model(|model| model.config_mut().debug_unlocked = unlocked);
            assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
            assert_eq!(install_all(&platform, file, Scenario::Update), (expected, 0));
        }
    }
}
