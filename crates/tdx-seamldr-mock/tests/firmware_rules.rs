//! The rules of P-SEAMLDR and of the TDX module, one row for each.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

#[path = "firmware_rules/module.rs"]
mod module;
mod support;

use support::*;
use tdx_seamldr_core::abi::{FieldId, HandoffHeader, PSysInfoBuffer, Scenario, SeamSigstruct};
use tdx_seamldr_core::abi::{SeamldrInfoBuffer, SeamldrParams, SeamldrStatus};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::{InstallRequest, SeamcallRegs, SpinLock, TdxImage, Trap};
use tdx_seamldr_mock::model::ModuleState as State;
use tdx_seamldr_mock::{sign, PageBuf, SimPlatform, TestImage};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::IntoBytes;

/// Makes one call on one LP; returns RAX and RDX.
fn call(platform: &SimPlatform, lp: u32, rax: u64, rcx: u64, rdx: u64) -> Result<(u64, u64), Trap> {
    let regs = SeamcallRegs { rax, rcx, rdx, ..SeamcallRegs::default() };
    call_regs(platform, lp, regs).map(|regs| (regs.rax, regs.rdx))
}

/// Calls INSTALL on all LPs: on the last LP with these parameters, on the others with address 1,
/// which P-SEAMLDR ignores.
fn install(platform: &SimPlatform, params: u64) -> (SeamldrStatus, u64) {
    let lps: Vec<_> = platform.online().collect();
    let (last, others) = lps.split_last().unwrap();
    for lp in others {
        assert_eq!(call(platform, *lp, INSTALL, 1, 7), Ok((0, 0)));
        assert!(
            !platform.with_model(|model| model.module_is_callable()),
            "the first call makes the module unreachable"
        );
    }
    let (rax, rdx) = call(platform, *last, INSTALL, params, 7).unwrap();
    (SeamldrStatus(rax), rdx)
}

/// Shuts the running module down and makes a session with this file. `change` may spoil the
/// parameters.
fn session(
    platform: &SimPlatform,
    file: &PageBuf,
    scenario: Scenario,
    change: impl FnOnce(&mut SeamldrParams),
) -> (SeamldrStatus, u64) {
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let mut page = PageBuf::zeroed(1);
    let lp = platform.lp(0);
    let address =
        InstallRequest::build(page.as_params(), &image, scenario, &lp).unwrap().params().get().0;
    change(&mut page.as_params().0);
    install(platform, address)
}

fn shut_down(platform: &SimPlatform) {
    assert_eq!(call(platform, 0, SHUTDOWN, 0, 0).unwrap().0, 0);
}

/// Makes a session that fails with RDX 0, and checks that the old module is unchanged.
fn assert_recoverable(
    what: &str,
    status: SeamldrStatus,
    platform: &SimPlatform,
    file: &PageBuf,
    change: impl FnOnce(&mut SeamldrParams),
) {
    shut_down(platform);
    let before = platform.with_model(|model| *model.loader().seamextend());
    assert_eq!(session(platform, file, Scenario::Update, change), (status, 0), "{what}");
    platform.with_model(|model| {
        assert_eq!(*model.loader().seamextend(), before, "{what}");
        assert_eq!(model.loader().lps_in_session(), 0, "{what}");
        assert!(model.module_is_callable(), "{what}");
        assert_eq!(model.module().unwrap().state(), State::Shutdown, "{what}");
        assert_eq!(model.handoff_header().valid, 1, "{what}");
    });
}

/// Firmware rules 8.5.5-11.
#[test]
fn install_rejects_parameters_that_break_a_rule_with_ebadparam() {
    type Change = fn(&mut SeamldrParams);
    let rows: &[(&str, Change)] = &[
        ("version", |p| p.version = U32::new(1)),
        ("first reserved byte", |p| p.reserved[0] = 1),
        ("last reserved byte", |p| p.reserved[103] = 1),
        ("scenario", |p| p.scenario = U32::new(2)),
        ("page count", |p| p.num_module_pages = U64::new(497)),
        ("huge page count", |p| p.num_module_pages = U64::new(1 << 63)),
        ("page not aligned", |p| p.module_page_pa[7] = U64::new(0x1_0000_0001)),
        ("page in the SEAM range", |p| p.module_page_pa[0] = U64::new(0x20_0000_1000)),
        ("page with a private KeyID", |p| p.module_page_pa[0] = U64::new(0x20 << 40 | 0x1000)),
        ("page beyond the address width", |p| p.module_page_pa[0] = U64::new(1 << 46)),
        ("SIGSTRUCT not aligned", |p| p.sigstruct_pa = U64::new(0x1_0000_0800)),
        ("SIGSTRUCT in the SEAM range", |p| p.sigstruct_pa = U64::new(0x20_0fff_f000)),
    ];
    let file = newer().build();
    for (what, change) in rows {
        let platform = boot(SimPlatform::builder().lps(2));
        assert_recoverable(what, SeamldrStatus::EBADPARAM, &platform, &file, change);
    }
    let platform = boot(SimPlatform::builder().lps(2));
    shut_down(&platform);
    for address in [1, 0x800, 0x20_0000_0000, 1 << 63] {
        assert_eq!(
            install(&platform, address),
            (SeamldrStatus::EBADPARAM, 0),
            "parameters at {address:#x}"
        );
    }
}

/// Firmware rules 8.5.13-27.
#[test]
fn install_rejects_a_signed_sigstruct_that_breaks_a_rule() {
    use SeamldrStatus as S;
    type Change = fn(&mut SeamSigstruct);
    let rows: &[(&str, SeamldrStatus, Change)] = &[
        ("reserved0", S::EBADSIG, |s| s.reserved0[87] = 1),
        ("reserved1", S::EBADSIG, |s| s.reserved1[0] = 1),
        ("reserved2", S::EBADSIG, |s| s.reserved2 = 1),
        ("reserved3", S::EBADSIG, |s| s.reserved3[23] = 1),
        ("header type", S::EBADSIG, |s| s.header_type = U32::new(7)),
        ("header length", S::EBADSIG, |s| s.header_length = U32::new(0xe0)),
        ("header version", S::EBADSIG, |s| s.header_version = U32::new(0x10001)),
        ("key size", S::EBADSIG, |s| s.key_size = U32::new(0x40)),
        ("exponent size", S::EBADSIG, |s| s.exponent_size = U32::new(2)),
        ("modulus size", S::EBADSIG, |s| s.modulus_size = U32::new(0x40)),
        ("vendor", S::EBADSIG, |s| s.module_vendor = U32::new(0)),
        ("module type", S::EBADSIG, |s| s.module_type = U32::new(1)),
        ("attributes", S::EBADSIG, |s| s.attributes = U64::new(1 << 63)),
        ("size", S::EBADSIG, |s| s.size = U32::new(0x201)),
        ("CPU count", S::EBADSIG, |s| s.cpuid_table_size = U32::new(256)),
        ("exponent", S::EBADSIG, |s| s.exponent = U32::new(3)),
        ("handoff versions", S::EBADSIG, |s| s.min_update_hv = U16::new(1)),
        ("GDT alignment", S::EBADSIG, |s| s.gdt_idt_offset = U32::new(0x1008)),
        ("GDT without wrappers", S::EBADSIG, |s| s.fault_wrapper_offset = U32::new(0)),
        ("wrappers without GDT", S::EBADSIG, |s| s.gdt_idt_offset = U32::new(0)),
        ("debug module", S::EBADSIG, |s| s.module_type = U32::new(1 << 31)),
        ("major SVN", S::EBADCALL, |s| s.svn_major = 2),
        ("minor SVN", S::EBADSIG, |s| s.svn_minor = 4),
        ("GDT behind the image", S::EBADSIG, |s| s.gdt_idt_offset = U32::new(0x8000)),
        ("wrappers behind the image", S::EBADSIG, |s| {
            s.fault_wrapper_offset = U32::new(0x8000 - 511)
        }),
        ("CPU", S::EUNSUPCPU, |s| s.cpuid_table = [U32::new(0xa06d0); 255]),
        ("no CPUs", S::EBADSIG, |s| s.cpuid_table_size = U32::new(0)),
        ("too much memory", S::ENOMEM, |s| s.num_global_data_pages = U16::new(0xffff)),
        ("handoff version too high", S::EBADHANDOFF, |s| {
            (s.module_hv, s.min_update_hv) = (U16::new(2), U16::new(1))
        }),
    ];
    let image = newer();
    let module = image.module();
    for (what, status, change) in rows {
        let mut sigstruct = image.sigstruct(&module);
        change(&mut sigstruct);
        sign(&mut sigstruct);
        let platform = boot(SimPlatform::builder().lps(2));
        let file = image.file(&sigstruct, &module);
        assert!(
            !findings(&platform, &file, Policy::default()).is_empty(),
            "{what}: preflight has no finding"
        );
        assert_recoverable(what, *status, &platform, &file, |_| {});
    }

    let mut unsigned = image.sigstruct(&module);
    unsigned.date = U32::new(0);
    let mut stranger = image.sigstruct(&module);
    stranger.modulus[383] ^= 1;
    for (what, sigstruct) in [("signature", unsigned), ("signer", stranger)] {
        let platform = boot(SimPlatform::builder().lps(2));
        let file = image.file(&sigstruct, &module);
        assert!(!findings(&platform, &file, Policy::default()).is_empty(), "{what}");
        assert_recoverable(what, S::EBADSIG, &platform, &file, |_| {});
    }
}

/// The last values that are still valid.
#[test]
fn install_accepts_a_sigstruct_at_the_limit_of_each_rule() {
    type Change = fn(&mut SeamSigstruct);
    let rows: &[(&str, Change)] = &[
        ("same SVN", |s| s.svn_minor = 5),
        ("GDT in the last page", |s| s.gdt_idt_offset = U32::new(0x7000)),
        ("wrappers at the very end", |s| s.fault_wrapper_offset = U32::new(0x8000 - 512)),
        ("neither", |s| (s.gdt_idt_offset, s.fault_wrapper_offset) = (U32::new(0), U32::new(0))),
        ("another stepping", |s| s.cpuid_table = [U32::new(0x806f0); 255]),
        ("fields without a check", |s| {
            (s.date, s.rip_offset, s.max_tdmrs) = (U32::new(9), U32::new(!0), U16::new(9))
        }),
    ];
    let image = newer();
    let module = image.module();
    for (what, change) in rows {
        let mut sigstruct = image.sigstruct(&module);
        change(&mut sigstruct);
        sign(&mut sigstruct);
        let platform = boot(SimPlatform::builder().lps(2));
        let file = image.file(&sigstruct, &module);
        assert_eq!(findings(&platform, &file, Policy::default()), [], "{what}");
        shut_down(&platform);
        let result = session(&platform, &file, Scenario::Update, |_| {});
        assert_eq!(result, (SeamldrStatus::SUCCESS, 0), "{what}");
        assert_eq!(platform.truth().module.unwrap().state, State::SysInitPending);
    }
}

/// Two rules are broken at once.
#[test]
fn of_two_broken_rules_the_first_one_decides() {
    use SeamldrStatus as S;
    let image = newer();
    let module = image.module();
    let spoiled = |change: fn(&mut SeamSigstruct)| {
        let mut sigstruct = image.sigstruct(&module);
        change(&mut sigstruct); // which makes the signature invalid
        image.file(&sigstruct, &module)
    };
    let rows = [
        ("major SVN before the signature", S::EBADCALL, spoiled(|s| s.svn_major = 3)),
        ("CPU before the signature", S::EUNSUPCPU, spoiled(|s| s.cpuid_table = [U32::new(1); 255])),
        (
            "signature before memory",
            S::EBADSIG,
            spoiled(|s| s.num_global_data_pages = U16::new(0xffff)),
        ),
    ];
    for (what, status, file) in rows {
        let platform = boot(SimPlatform::builder().lps(2));
        assert_recoverable(what, status, &platform, &file, |_| {});
    }
}

#[test]
fn a_session_accepts_each_lp_once() {
    let platform = boot(SimPlatform::builder().lps(3));
    shut_down(&platform);
    assert_eq!(call(&platform, 1, INSTALL, 0, 9), Ok((0, 0)));
    for _ in 0..3 {
        assert_eq!(
            call(&platform, 1, INSTALL, 0, 9),
            Ok((SeamldrStatus::EBADCALL.0, 0)),
            "repeated"
        );
    }
    assert_eq!(platform.truth().lps_in_session, 1);
    assert_eq!(
        call(&platform, 1, SYS_INIT, 0, 0),
        Err(Trap::VmFailInvalid),
        "the module is unreachable during a session"
    );
    assert_eq!(call(&platform, 0, INSTALL, 0, 9), Ok((0, 0)));
    assert_eq!(
        call(&platform, 2, INSTALL, 1, 9),
        Ok((SeamldrStatus::EBADPARAM.0, 0)),
        "the parameters of the last LP count"
    );
    assert_eq!(platform.truth().lps_in_session, 0);
}

#[test]
fn info_refreshes_remaining_updates_only_while_they_are_zero() {
    let platform = boot(SimPlatform::builder().lps(1).seamdb_size(2));
    let file = newer().build();
    shut_down(&platform);
    assert_eq!(session(&platform, &file, Scenario::Update, |_| {}).0, SeamldrStatus::SUCCESS);
    assert_eq!(platform.truth().remaining_updates, 0);
    let handoff = |platform: &SimPlatform| {
        let header =
            HandoffHeader { valid: 1, reserved: 0, hv: U16::new(0), size: U32::new(53386) };
        platform.with_model(|model| model.handoff()[..8].copy_from_slice(header.as_bytes()));
    };
    handoff(&platform);
    assert_eq!(session(&platform, &file, Scenario::Update, |_| {}), (SeamldrStatus::EBADCALL, 0));
    platform.with_model(|model| model.seamdb_mut().size = 5);
    assert_eq!(
        session(&platform, &file, Scenario::Update, |_| {}),
        (SeamldrStatus::EBADCALL, 0),
        "P-SEAMLDR remembers 0"
    );
    let (lp, lock) = (platform.lp(0), SpinLock::new());
    let mut buffer = SeamldrInfoBuffer::zeroed();
    let info = seamldr(&lp, &lock).info(&mut buffer).unwrap();
    assert_eq!((info.num_remaining_updates.get(), info.seamextend.svn().minor), (3, 6));
    assert_eq!(session(&platform, &file, Scenario::Update, |_| {}), (SeamldrStatus::SUCCESS, 0));
    assert_eq!(platform.truth().remaining_updates, 2);
}

#[test]
fn missing_entropy_costs_the_module_only_after_the_point_of_no_return() {
    let file = newer().build();
    let platform = boot(SimPlatform::builder().lps(2));
    platform.with_model(|model| model.config_mut().rdrand_ok = false);
    assert_recoverable("RDRAND", SeamldrStatus::ENOENTROPY, &platform, &file, |_| {});
    platform.with_model(|model| model.config_mut().rdrand_ok = true);
    platform.with_model(|model| model.seamdb_mut().insert_failures = 4);
    assert_eq!(
        session(&platform, &file, Scenario::Update, |_| {}),
        (SeamldrStatus::SUCCESS, 0),
        "the fifth attempt succeeds"
    );

    let platform = boot(SimPlatform::builder().lps(2));
    shut_down(&platform);
    platform.with_model(|model| model.seamdb_mut().insert_failures = 5);
    assert_eq!(session(&platform, &file, Scenario::Update, |_| {}), (SeamldrStatus::ENOENTROPY, 1));
    let truth = platform.truth();
    assert_eq!((truth.module, truth.svn.minor), (None, 6), "SEAMEXTEND keeps the new values");
}

#[test]
fn load_ends_all_tds_and_makes_tdx_usable_again() {
    let platform = boot(SimPlatform::builder().lps(2));
    let lower = TestImage { svn_minor: 1, ..TestImage::default() };
    assert_eq!(
        session(&platform, &lower.build(), Scenario::Load, |_| {}),
        (SeamldrStatus::SUCCESS, 0)
    );
    assert_eq!(platform.with_model(|model| model.handoff_header()).valid, 0);
    platform.bring_up().unwrap();
    let truth = platform.truth();
    assert_eq!((truth.module.unwrap().state, truth.tds_alive), (State::Ready, 0));
    assert_eq!(truth.remaining_updates, 63);
    platform.create_td().unwrap();
    assert_eq!(platform.truth().tds_alive, 1);
}

#[test]
fn info_and_seaminfo_write_only_to_valid_addresses() {
    let platform = boot(SimPlatform::builder().lps(6).sockets(2).fms(0xc06f2));
    let (lp, lock) = (platform.lp(3), SpinLock::new());
    let mut buffer = PSysInfoBuffer::zeroed();
    let sysinfo = seamldr(&lp, &lock).seam_info(&mut buffer).unwrap();
    assert_eq!((sysinfo.tot_num_lps.get(), sysinfo.sockets()), (6, &[U32::new(0xc06f2); 2][..]));
    let mut buffer = SeamldrInfoBuffer::zeroed();
    let info = seamldr(&lp, &lock).info(&mut buffer).unwrap();
    assert_eq!((info.major.get(), info.minor.get(), info.vendor.get()), (1, 5, 0x8086));
    assert_eq!((info.seamextend.seam_ready, info.seamextend.p_seamldr_ready), (1, 1));
    for (leaf, address) in
        [(0, 128), (0, 1), (3, 1024), (0, 0x20_0000_0000), (3, 1 << 46), (4, 0), (5, 0)]
    {
        let rax = 1 << 63 | leaf;
        assert_eq!(
            call(&platform, 3, rax, address, 9),
            Ok((SeamldrStatus::EBADPARAM.0, 9)),
            "leaf {leaf}, {address:#x}"
        );
    }
}

#[test]
fn a_shutdown_of_p_seamldr_is_final() {
    const SEAMLDR_SHUTDOWN: u64 = 0x8000000000000002;
    let platform = boot(SimPlatform::builder().lps(2));
    assert_eq!(call(&platform, 0, SEAMLDR_SHUTDOWN, 0, 0), Ok((0, 0)));
    assert_eq!(
        call(&platform, 0, SEAMLDR_SHUTDOWN, 0, 0),
        Ok((0, 0)),
        "one LP does not count twice"
    );
    assert_eq!(call(&platform, 1, INSTALL, 0, 9), Ok((SeamldrStatus::EBADCALL.0, 0)));
    assert_eq!(
        call(&platform, 1, SEAMLDR_SHUTDOWN, 0, 0),
        Ok((SeamldrStatus::EBADCALL.0, 0)),
        "the last LP is not the ACM's LP"
    );
    assert_eq!(call(&platform, 0, SEAMLDR_SHUTDOWN, 0, 0), Ok((0, 0)));
    assert_eq!(call(&platform, 0, SEAMLDR_SHUTDOWN, 0, 0), Err(Trap::VmFailInvalid));
    assert_eq!(call(&platform, 1, SYS_RD, 0, 0), Err(Trap::VmFailInvalid));
}

#[test]
fn a_trap_on_one_lp_does_not_affect_other_lps() {
    let platform = boot(SimPlatform::builder().lps(2));
    for trap in [Trap::GeneralProtection, Trap::UndefinedOpcode] {
        platform.with_model(|model| model.set_trap(1, Some(trap)));
        assert_eq!(call(&platform, 1, SYS_RD, 0, FieldId::MODULE_HV.0), Err(trap));
        assert!(call(&platform, 0, SYS_RD, 0, FieldId::MODULE_HV.0).is_ok());
    }
    platform.with_model(|model| model.set_trap(1, None));
    assert!(call(&platform, 1, SYS_RD, 0, FieldId::MODULE_HV.0).is_ok());
}
