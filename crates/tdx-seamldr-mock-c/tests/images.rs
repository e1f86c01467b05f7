//! Images: make, sign and pack them, and check how firmware reacts to each field.
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

use std::ptr;

use support::{
    build, file, image, memory_of, parts, platform, update_memory, Sim, HOST, INSTALL, LPS,
};
use support::{SYS_INIT, SYS_SHUTDOWN};
use tdx_sim::TdxSimStatus::*;
use tdx_sim::*;

/// Makes an update with this memory. Returns RAX and RDX of the last INSTALL, and RAX of
/// TDH.SYS.INIT if INSTALL succeeded.
fn update(mut memory: Vec<u8>) -> (u64, u64, Option<u64>) {
    let sim = Sim::booted(&platform(), &image());
    assert_eq!(sim.map(HOST, &mut memory), Ok);
    sim.succeed(0, SYS_SHUTDOWN, 0);
    (0..LPS - 1).for_each(|lp| sim.succeed(lp, INSTALL, HOST));
    let regs = TdxSimRegs { rax: INSTALL, rcx: HOST, ..TdxSimRegs::default() };
    let (_, regs) = sim.call(LPS - 1, regs);
    (regs.rax, regs.rdx, (regs.rax == 0).then(|| sim.answer(0, SYS_INIT, 0)))
}

fn cpus(list: &[u32]) -> TdxSimImage {
    let mut image = image();
    image.num_cpus = list.len() as u32;
    image.cpus[..list.len()].copy_from_slice(list);
    image
}

#[test]
fn each_field_of_an_image_changes_the_answer_of_firmware() {
    let old = build(&image());
    let built_for_0 = TdxSimBuild { size: size_of::<TdxSimBuild>() as u32, ..old };
    for (image, expected) in [
        (image(), (0, 0, Some(0))),
        (TdxSimImage { pages: 496, ..image() }, (0, 0, Some(0))),
        (
            TdxSimImage { pages: 1, gdt_idt_offset: 0, fault_wrapper_offset: 0, ..image() },
            (0, 0, Some(0)),
        ),
        (TdxSimImage { svn_minor: 4, ..image() }, (TDX_SIM_SEAMLDR_EBADSIG, 0, None)),
        (TdxSimImage { svn_major: 2, ..image() }, (TDX_SIM_SEAMLDR_EBADCALL, 0, None)),
        (cpus(&[0x906f0]), (TDX_SIM_SEAMLDR_EUNSUPCPU, 0, None)),
        (cpus(&[]), (TDX_SIM_SEAMLDR_EBADSIG, 0, None)),
        (cpus(&[0x806f0; 255]), (0, 0, Some(0))),
        (TdxSimImage { debug: 1, ..image() }, (TDX_SIM_SEAMLDR_EBADSIG, 0, None)),
        (TdxSimImage { gdt_idt_offset: 0x8000, ..image() }, (TDX_SIM_SEAMLDR_EBADSIG, 0, None)),
        (
            TdxSimImage { fault_wrapper_offset: 0x7fff, ..image() },
            (TDX_SIM_SEAMLDR_EBADSIG, 0, None),
        ),
        (
            TdxSimImage { num_global_data_pages: 0xffff, ..image() },
            (TDX_SIM_SEAMLDR_ENOMEM, 0, None),
        ),
        (TdxSimImage { num_keyhole_pages: 0xffff, ..image() }, (0, 0, Some(0))),
        (
            TdxSimImage { module_hv: 1, min_update_hv: 1, ..image() },
            (TDX_SIM_SEAMLDR_EBADHANDOFF, 0, None),
        ),
        (TdxSimImage { seamhash_given: 1, ..image() }, (TDX_SIM_SEAMLDR_EBADHASH, 1, None)),
        (
            TdxSimImage { num_handoff_pages: 12, ..image() },
            (0, 0, Some(TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT)),
        ),
        (
            TdxSimImage { module_hv: 1, build: &built_for_0, ..image() },
            (0, 0, Some(TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT)),
        ),
    ] {
        assert_eq!(update(update_memory(&image)), expected, "{image:?}");
    }
}

#[test]
fn the_build_determines_the_module_and_without_one_the_svn_does() {
    let by_svn = Sim::booted(&platform(), &TdxSimImage { svn_minor: 0xb, ..image() });
    assert_eq!(by_svn.truth().version_update, 16, "1.5.16 has SVN 1.11");
    let default = build(&image());
    assert_eq!((default.version_major, default.version_minor, default.version_update), (1, 5, 5));
    let size = size_of::<TdxSimBuild>() as u32;
    let built = TdxSimBuild {
        size,
        version_update: 42,
        version_internal: 7,
        features0: 1 << 47,
        ..default
    };
    let sim = Sim::booted(&platform(), &TdxSimImage { build: &built, ..image() });
    let truth = sim.truth();
    assert_eq!((truth.version_update, truth.version_internal, truth.features0), (42, 7, 1 << 47));
}

#[test]
fn a_module_can_be_built_as_any_public_release() {
    let release = |major, minor, update| {
        // SAFETY: the structure is writable, and its size is set.
        support::filled(|build| unsafe { tdx_sim_release_build(major, minor, update, build) })
    };
    let (status, newest) = release(1, 5, 34);
    assert_eq!(status, Ok);
    assert_eq!(newest.generation, TdxSimModuleGeneration::V1534.number());
    let built = newest;
    let TdxSimBuild { module_hv, min_update_hv, no_downgrade, .. } = built;
    let with = TdxSimImage { build: &built, module_hv, min_update_hv, no_downgrade, ..image() };
    let sim = Sim::booted(&platform(), &with);
    assert_eq!((sim.truth().version_update, sim.truth().features0), (34, newest.features0));
    assert_eq!(release(1, 5, 2).0, BadArgument);
    assert_eq!(support::last_error(), "there is no public release 1.5.02");
}

#[test]
fn sign_signs_a_changed_sigstruct_and_updates_its_hash_on_request() {
    let (mut sigstruct, mut module) = parts(&image());
    // SAFETY: both are readable, and the SIGSTRUCT is writable.
    let sign = |sigstruct: &mut TdxSimSigstruct, module: *const u8, len| unsafe {
        tdx_sim_sign(sigstruct, module.cast(), len)
    };
    sigstruct.svn_minor = 9;
    assert_eq!(
        update(memory_of(&sigstruct, &module)).0,
        TDX_SIM_SEAMLDR_EBADSIG,
        "the SIGSTRUCT changed after it was signed"
    );
    assert_eq!(sign(&mut sigstruct, ptr::null(), 0), Ok);
    assert_eq!(update(memory_of(&sigstruct, &module)), (0, 0, Some(0)));
    module[0x3000] ^= 1;
    assert_eq!(update(memory_of(&sigstruct, &module)), (TDX_SIM_SEAMLDR_EBADHASH, 1, None));
    assert_eq!(sign(&mut sigstruct, module.as_ptr(), module.len()), Ok);
    assert_eq!(update(memory_of(&sigstruct, &module)), (0, 0, Some(0)));
    module.fill(0x90);
    assert_eq!(sign(&mut sigstruct, module.as_ptr(), module.len()), Ok);
    assert_eq!(
        update(memory_of(&sigstruct, &module)),
        (TDX_SIM_SEAMLDR_EBADPARAM, 1, None),
        "the module is not an ELF file"
    );
    assert_eq!(sign(&mut sigstruct, module.as_ptr(), 0), Ok, "the hash of zero bytes");
    assert_eq!(sigstruct.seamhash[..4], [0x38, 0xb0, 0x60, 0xa7]);
}

#[test]
fn files_of_both_formats_boot_and_differ_only_in_their_headers() {
    let [v1, v2] =
        [TdxSimImageFormat::V1, TdxSimImageFormat::V2].map(|format| file(&image(), format));
    assert_eq!((v1.len(), v2.len()), (10 * 4096, 10 * 4096));
    assert_eq!((&v1[..2], &v2[..2]), (&[0, 1][..], &[0, 2][..]));
    assert_eq!(v1[4096..], v2[4096..]);
    let (sigstruct, module) = parts(&image());
    for (format, wanted) in [(TdxSimImageFormat::V1, &v1), (TdxSimImageFormat::V2, &v2)] {
        let (mut packed, mut needed) = (vec![7; wanted.len() + 1], 0);
        let (target, len) = (packed.as_mut_ptr().cast(), packed.len());
        let (source, number) = (module.as_ptr().cast(), format.number());
        // SAFETY: all pointers point to the given number of bytes.
        let status = unsafe {
            tdx_sim_pack(number, &sigstruct, source, module.len(), target, len, &mut needed)
        };
        assert_eq!((status, needed, packed[needed]), (Ok, wanted.len(), 7));
        assert_eq!(packed[..needed], wanted[..]);
        assert_eq!(Sim::of(&platform()).unwrap().boot(wanted, TdxSimModuleState::Ready), Ok);
    }
}

#[test]
fn an_invalid_image_gives_an_error_that_names_the_field() {
    let wrong_build = TdxSimBuild { handoff_form: 4, ..build(&image()) };
    let sized = |build: TdxSimBuild| TdxSimBuild { size: size_of::<TdxSimBuild>() as u32, ..build };
    let (form, flag) =
        (sized(wrong_build), sized(TdxSimBuild { no_downgrade: 2, ..build(&image()) }));
    let unsized_ = TdxSimBuild { size: 0, ..form };
    let generation = sized(TdxSimBuild { generation: 4, ..build(&image()) });
    for (image, status, says) in [
        (TdxSimImage { pages: 0, ..image() }, BadArgument, "pages is 0"),
        (TdxSimImage { pages: 497, ..image() }, BadArgument, "pages is 497"),
        (TdxSimImage { num_cpus: 256, ..image() }, BadArgument, "num_cpus is 256"),
        (TdxSimImage { debug: 2, ..image() }, BadArgument, "debug is 2"),
        (TdxSimImage { no_downgrade: 255, ..image() }, BadArgument, "no_downgrade is 255"),
        (TdxSimImage { seamhash_given: 3, ..image() }, BadArgument, "seamhash_given is 3"),
        (TdxSimImage { reserved: [0, 1], ..image() }, BadArgument, "reserved"),
        (TdxSimImage { size: 0, ..image() }, BadSize, "tdx_sim_image.size is 0"),
        (TdxSimImage { build: &form, ..image() }, BadArgument, "4 is not a tdx_sim_handoff_form"),
        (TdxSimImage { build: &flag, ..image() }, BadArgument, "no_downgrade is 2"),
        (
            TdxSimImage { build: &generation, ..image() },
            BadArgument,
            "4 is not a tdx_sim_module_generation",
        ),
        (TdxSimImage { build: &unsized_, ..image() }, BadSize, "tdx_sim_build.size is 0"),
    ] {
        let mut needed = 77;
        // SAFETY: the function writes only the number.
        let found = unsafe { tdx_sim_image_file(&image, 1, ptr::null_mut(), 0, &mut needed) };
        assert_eq!((found, needed), (status, 77), "{says}");
        assert!(support::last_error().contains(says), "{}", support::last_error());
    }
    for format in [0, 3, 0x100, u32::MAX] {
        // SAFETY: the function writes nothing.
        let status =
            unsafe { tdx_sim_image_file(&image(), format, ptr::null_mut(), 0, ptr::null_mut()) };
        assert_eq!(status, BadArgument);
    }
}

#[test]
fn buffers_that_are_too_small_are_not_written() {
    let (sigstruct, module) = parts(&image());
    let mut small = vec![0x77u8; 8 * 4096 - 1];
    let (start, len) = (small.as_mut_ptr(), small.len());
    let (mut needed, mut copy) = (0, sigstruct);
    // SAFETY: the buffers have these numbers of writable bytes.
    let statuses = unsafe {
        [
            tdx_sim_make_image(&image(), &mut copy, start.cast(), len),
            tdx_sim_image_file(&image(), 1, start.cast(), len, &mut needed),
            tdx_sim_pack(
                2,
                &sigstruct,
                module.as_ptr().cast(),
                module.len(),
                start.cast(),
                len,
                &mut needed,
            ),
        ]
    };
    assert_eq!((statuses, needed), ([BufferTooSmall; 3], 10 * 4096));
    assert!(small.iter().all(|byte| *byte == 0x77));
    for len in [0, 1, 4095, 497 * 4096] {
        let module = vec![0u8; len];
        let source = module.as_ptr().cast();
        // SAFETY: the slice is readable.
        let status =
            unsafe { tdx_sim_pack(1, &sigstruct, source, len, ptr::null_mut(), 0, &mut needed) };
        assert_eq!(status, BadLength, "{len}");
    }
}

#[test]
fn boot_fails_for_a_file_that_is_not_an_image_or_that_firmware_refuses() {
    let good = file(&image(), TdxSimImageFormat::V1);
    let sim = Sim::of(&platform()).unwrap();
    for bad in [&good[..0], &good[..100], &good[..good.len() - 1]] {
        assert_eq!(sim.boot(bad, TdxSimModuleState::Ready), BadImage);
    }
    let untrusted = Sim::of(&TdxSimPlatform { signer: [1; 48], ..platform() }).unwrap();
    assert_eq!(untrusted.boot(&good, TdxSimModuleState::Ready), Refused);
    assert_eq!(support::last_error(), "SEAMLDR.INSTALL on LP 3 gives EBADSIG");
    assert_eq!(sim.boot(&good, TdxSimModuleState::None), BadArgument);
    // SAFETY: the file is readable.
    let boot = |until| unsafe { tdx_sim_boot(sim.0, good.as_ptr().cast(), good.len(), until) };
    assert_eq!([6, u32::MAX].map(boot), [BadArgument; 2]);
    assert_eq!(
        [(); 2].map(|()| boot(TdxSimModuleState::Ready.number())),
        [Ok, Contradiction],
        "once"
    );
}
