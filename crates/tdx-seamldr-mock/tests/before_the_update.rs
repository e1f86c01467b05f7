//! Preflight's refusals, and the parameters for P-SEAMLDR: all before the shutdown.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    missing_docs
)]

mod support;

use support::*;
use tdx_seamldr_core::abi::{
    Scenario, SeamSigstruct, SeamldrParams, SeamldrStatus, Svn, TdxFeatures0, PAGE_SIZE,
};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::elf::{
    self, ElfRefusal, Rela, SectionHeader, R_X86_64_RELATIVE, SHT_RELA,
};
use tdx_seamldr_core::preflight::space::{Layout, Shortage};
use tdx_seamldr_core::preflight::{
    preflight, preflight_image, Facts, FieldMismatch, Finding, HandoffRange, NotPassed, Policy,
    Purpose, Refusal, Unknown,
};
use tdx_seamldr_core::{
    BuildError, Host, InstallRequest, NoCrypto, Part, Patience, PhysAddr, SeamcallBackend,
    SeamcallRegs, TdxImage, TdxVersion, Trap, INTEL_PRODUCTION_SIGNER,
};
use tdx_seamldr_mock::model::{HandoffForm, ModuleBuild, TdPhase};
use tdx_seamldr_mock::{
    released_images, run_stepped, sign, Fault, PageBuf, SimPlatform, TestImage,
};
use tdx_seamldr_verify::RustCrypto;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// Compiled again when the variable changes: `test_with` decides at compile time.
const _: Option<&str> = option_env!("TDX_MODULE_BINARIES");

fn refusals(platform: &SimPlatform, file: &PageBuf) -> Vec<Refusal> {
    let findings = findings(platform, file, Policy::default());
    findings
        .into_iter()
        .map(|finding| match finding {
            Finding::Refusal(refusal) => refusal,
            Finding::Unknown(unknown) => panic!("{unknown}"),
        })
        .collect()
}

#[test]
fn a_good_image_passes_on_a_platform_that_it_fits() {
    for format in ImageFormat::ALL {
        let platform = boot(SimPlatform::builder().lps(3));
        let image = TestImage { format, ..newer() };
        assert_eq!(findings(&platform, &image.build(), Policy::default()), []);
        assert_eq!(count(&platform, SHUTDOWN), 0);
        assert!(update_to(&platform, &image).is_updated());
    }
}

#[test_with::env(TDX_MODULE_BINARIES)]
#[test]
fn every_released_image_passes_on_a_platform_that_it_fits() {
    let images = released_images().unwrap().unwrap();
    for image in &images {
        // The oldest module of its line runs.
        let running =
            images.iter().find(|other| other.version.get(..3) == image.version.get(..3)).unwrap();
        let running = TdxImage::parse(running.bytes.as_bytes()).unwrap();
        let platform = SimPlatform::builder().fitting(&running).signer(INTEL_PRODUCTION_SIGNER);
        let platform = platform.boot(&running).unwrap();
        let policy = Policy { allow_same_module: true, ..Policy::default() };
        assert_eq!(findings(&platform, &image.bytes, policy), [], "{}", image.version);
    }
}

#[test]
fn each_refusal_names_the_found_and_the_required_value() {
    let svn = |major, minor| Svn { major, minor };
    let range = HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false };
    let field =
        |name, found, wanted| Refusal::SigstructField(FieldMismatch { name, found, wanted });
    type Change = fn(&mut SeamSigstruct);
    let rows: &[(&[Refusal], Change)] = &[
        (&[field("header_type", 7, 6)], |s| s.header_type = U32::new(7)),
        (&[field("attributes", 1 << 40, 0)], |s| s.attributes = U64::new(1 << 40)),
        (&[field("module_type", 2, 0)], |s| s.module_type = U32::new(2)),
        (&[Refusal::SigstructReserved { offset: 127, found: 1 }], |s| s.reserved0[87] = 1),
        (&[Refusal::SigstructReserved { offset: 980, found: 1 }], |s| s.reserved1[2] = 1),
        (&[Refusal::SigstructReserved { offset: 989, found: 1 }], |s| s.reserved2 = 1),
        (&[Refusal::SigstructReserved { offset: 1000, found: 1 }], |s| s.reserved3[0] = 1),
        (&[Refusal::CpuListLength(256)], |s| s.cpuid_table_size = U32::new(256)),
        (
            &[
                Refusal::HandoffVersionsReversed { min_update_hv: 1, module_hv: 0 },
                Refusal::HandoffVersion { running: range, min_update_hv: 1, module_hv: 0 },
            ],
            |s| s.min_update_hv = U16::new(1),
        ),
        (&[Refusal::HandoffVersion { running: range, min_update_hv: 1, module_hv: 2 }], |s| {
            (s.min_update_hv, s.module_hv) = (U16::new(1), U16::new(2));
        }),
        (&[Refusal::GdtOffsetMisaligned(0x1800)], |s| s.gdt_idt_offset = U32::new(0x1800)),
        (&[Refusal::GdtWithoutFaultWrapper { gdt_idt: 0x1000, fault_wrapper: 0 }], |s| {
            s.fault_wrapper_offset = U32::new(0);
        }),
        (&[Refusal::GdtOutside { found: 0x8000, limit: 0x7000 }], |s| {
            s.gdt_idt_offset = U32::new(0x8000)
        }),
        (&[Refusal::FaultWrapperOutside { found: 0x7e01, limit: 0x7e00 }], |s| {
            s.fault_wrapper_offset = U32::new(0x7e01);
        }),
        (&[Refusal::DebugModule], |s| s.module_type = U32::new(1 << 31)),
        (&[Refusal::MajorSvn { found: svn(2, 6), running: svn(1, 5) }], |s| s.svn_major = 2),
        (
            &[Refusal::MajorSvnZero, Refusal::MajorSvn { found: svn(0, 6), running: svn(1, 5) }],
            |s| s.svn_major = 0,
        ),
        (&[Refusal::MinorSvn { found: svn(1, 4), running: svn(1, 5) }], |s| s.svn_minor = 4),
        (
            &[
                Refusal::Cpu { socket: 0, cpuid: 0x806f8 },
                Refusal::Cpu { socket: 1, cpuid: 0x806f8 },
            ],
            |s| {
                s.cpuid_table = [U32::new(0xc06f0); 255];
            },
        ),
        (&[Refusal::NoCpuList], |s| s.cpuid_table_size = U32::new(0)),
    ];
    let image = newer();
    let module = image.module();
    let platform = boot(SimPlatform::builder().lps(2).sockets(2));
    for (expected, change) in rows {
        let mut sigstruct = image.sigstruct(&module);
        change(&mut sigstruct);
        sign(&mut sigstruct);
        assert_eq!(refusals(&platform, &image.file(&sigstruct, &module)), *expected);
    }
}

#[test]
fn preflight_reports_all_refusals_not_only_the_first() {
    let platform = boot(SimPlatform::builder().lps(3).offline(1).seamdb_size(1));
    let file = TestImage { svn_major: 3, cpus: vec![0xa06d0], ..newer() }.build();
    let codes: Vec<_> = refusals(&platform, &file).iter().map(Refusal::code).collect();
    assert_eq!(codes, ["lps-missing", "no-remaining-updates", "major-svn", "cpu"]);
    for refusal in refusals(&platform, &file) {
        assert!(refusal.to_string().len() > 20, "{refusal}");
    }
}

#[test]
fn preflight_refuses_damage_in_every_part_of_a_signed_image() {
    let platform = boot(SimPlatform::builder().lps(1));
    let image = newer();
    let module = image.module();
    let good = image.sigstruct(&module);
    let mut date = good;
    date.date = U32::new(1);
    assert_eq!(refusals(&platform, &image.file(&date, &module)), [Refusal::Signature]);
    let mut key = good;
    key.modulus[0] ^= 2;
    let codes: Vec<_> =
        refusals(&platform, &image.file(&key, &module)).iter().map(Refusal::code).collect();
    assert_eq!(codes, ["signer", "signature"]);
    let mut other = module.clone();
    other[6000] ^= 1;
    let found = refusals(&platform, &image.file(&good, &other));
    assert!(
        matches!(found[..], [Refusal::ImageHash { found: hash, wanted }] if hash != good.seamhash
            && wanted == good.seamhash),
        "{found:?}"
    );
    let parts = ImageParts { sigstruct: &[good.as_bytes(), &[0; 2049]].concat(), module: &module };
    let mut long = PageBuf::zeroed(parts.file_len().unwrap() / PAGE_SIZE);
    parts.write(ImageFormat::BlobV1, long.as_mut_bytes()).unwrap();
    assert_eq!(refusals(&platform, &long), [Refusal::SigstructPages(2)]);
}

#[test]
fn preflight_refuses_a_module_that_needs_more_memory_than_there_is() {
    let platform = boot(SimPlatform::builder().lps(2));
    let module = newer().module();
    let with = |change: fn(&mut SeamSigstruct)| {
        let mut sigstruct = newer().sigstruct(&module);
        change(&mut sigstruct);
        sign(&mut sigstruct);
        refusals(&platform, &newer().file(&sigstruct, &module))
    };
    let [Refusal::Memory { found, wanted }] =
        with(|s| s.num_global_data_pages = U16::new(65535))[..]
    else {
        panic!("256 MiB of data were not refused");
    };
    assert!(found == 252 << 20 && wanted > found, "{found} {wanted}");
    assert_eq!(
        with(|s| s.num_handoff_pages = U16::new(12)),
        [Refusal::HandoffPages { found: 13, wanted: 14 }]
    );
    // The estimate of page tables is a few pages short. These modules fit by the estimate, but not
    // in fact.
    let mut sigstruct = newer().sigstruct(&module);
    let edge = (60000..65535u16).find(|pages| {
        sigstruct.num_global_data_pages = U16::new(*pages);
        let layout = Layout::new(&sigstruct, 0x8000, 4, 0);
        layout.need() <= 252 << 20 && layout.shortage(252 << 20) != Shortage::None
    });
    sigstruct.num_global_data_pages = U16::new(edge.unwrap());
    sign(&mut sigstruct);
    let found = refusals(&platform, &newer().file(&sigstruct, &module));
    assert!(
        matches!(found[..], [Refusal::PageTables { found, wanted }] if found < wanted),
        "{found:?}"
    );
}

#[test]
fn preflight_refuses_an_image_that_cannot_be_relocated() {
    let (section, index) = (1, 0);
    let rows: [(usize, u8, ElfRefusal); 8] = [
        (4, 1, ElfRefusal::Ident { found: *b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0" }),
        (
            0x28 + 2,
            1,
            ElfRefusal::SectionOutside { section: 0, found: 0x10040, limit: 0x8000 - 64 },
        ),
        (0x40 + 64 + 56, 0, ElfRefusal::EntrySize(1)),
        (
            0x40 + 64 + 16 + 2,
            1,
            ElfRefusal::RelocationOutside { section, index, found: 0x10100, limit: 0x8000 - 24 },
        ),
        (0x100 + 8, 1, ElfRefusal::RelocationType { section, index, found: 1 }),
        (
            0x118 + 2,
            1,
            ElfRefusal::TargetOutside { section, index: 1, found: 0x12800, limit: 0x8000 - 8 },
        ),
        (
            0x118 + 18,
            1,
            ElfRefusal::AddendOutside { section, index: 1, found: 0x10123, limit: 0x8000 - 1 },
        ),
        // The first relocation changes r_info of the second.
        (
            0x100 + 1,
            1,
            ElfRefusal::TargetInUse { section, index, found: 0x120, begin: 0x118, end: 0x130 },
        ),
    ];
    for (offset, value, expected) in rows {
        let platform = boot(SimPlatform::builder().lps(1));
        let mut module = newer().module();
        // The low byte of the first relocation's target, 0x220.
        module[0x100] = 0x20;
        module[offset] = value;
        let file = newer().file(&newer().sigstruct(&module), &module);
        assert_eq!(refusals(&platform, &file), [Refusal::Elf(expected)], "{offset:#x}");
        // P-SEAMLDR refuses the image only after the old module is gone.
        assert_eq!(rax(&platform, 0, SHUTDOWN, 0), Ok(0));
        let found = install_all(&platform, &file, Scenario::Update);
        assert_eq!(found, (SeamldrStatus::EBADPARAM, 1), "{offset:#x}");
    }
}

#[test]
fn data_between_two_relocation_tables_is_relocated() {
    const DATA: usize = 0x300;
    let addends: [u64; 2] = [0x1000, 0x2000];
    let mut module = newer().module();
    let mut put = |at: usize, bytes: &[u8]| module[at..][..bytes.len()].copy_from_slice(bytes);
    // The last relocation of the first table changes the first word; the second table changes the
    // next word.
    let relocation = |offset: usize, addend: u64| Rela {
        r_offset: U64::new(offset as u64),
        r_info: U64::new(R_X86_64_RELATIVE),
        r_addend: U64::new(addend),
    };
    put(0x118, relocation(DATA, addends[0]).as_bytes());
    put(0x400, relocation(DATA + 8, addends[1]).as_bytes());
    let mut section = SectionHeader::new_zeroed();
    section.sh_type = U32::new(SHT_RELA);
    section.sh_addr = U64::new(0x400);
    (section.sh_size, section.sh_entsize) = (U64::new(24), U64::new(24));
    put(0x40 + 2 * 64, section.as_bytes());
    put(60, &[3]);
    assert_eq!(elf::check(&module), Ok(()));

    let file = newer().file(&newer().sigstruct(&module), &module);
    let platform = boot(SimPlatform::builder().lps(1));
    assert_eq!(findings(&platform, &file, Policy::default()), []);
    let outcome = update_to_file(&platform, &file);
    assert!(outcome.is_updated(), "{outcome}");
    let code = platform.with_model(|model| model.code()[..module.len()].to_vec());
    let word = |at: usize| u64::from_le_bytes(code[at..][..8].try_into().unwrap());
    // The first relocation of the first table has the addend 0x123.
    let base = word(0x200) - 0x123;
    assert_eq!([word(DATA), word(DATA + 8)], addends.map(|addend| base + addend));
}

#[test]
fn tds_in_build_stop_an_update_unless_the_policy_allows_the_damage() {
    let platform = boot(SimPlatform::builder().lps(1));
    platform.create_td_in(TdPhase::Build).unwrap();
    platform.create_td_in(TdPhase::InterruptedMigration).unwrap();
    let file = newer().build();
    assert_eq!(refusals(&platform, &file), [Refusal::SensitiveOperations(2)]);
    assert_eq!(findings(&platform, &file, Policy { allow_damage: true, ..Policy::default() }), []);
}

#[test]
fn preflight_refuses_the_running_module_unless_the_policy_allows_it() {
    let platform = boot(SimPlatform::builder().lps(1));
    let same = TestImage::default().build();
    assert_eq!(refusals(&platform, &same), [Refusal::SameModule]);
    assert_eq!(
        findings(&platform, &same, Policy { allow_same_module: true, ..Policy::default() }),
        []
    );
}

/// Returns an image like the 2.0 modules: 25 pages of handoff data in version 0, and room for
/// `pages` pages.
fn with_connect(svn_minor: u8, pages: u16) -> TestImage {
    let build = ModuleBuild {
        version: TdxVersion { major: 2, minor: 0, update: 8 },
        handoff_form: HandoffForm::Connect,
        ..ModuleBuild::V1_5_01
    };
    TestImage {
        svn_minor,
        num_handoff_pages: pages - 1,
        module_build: Some(build),
        ..TestImage::default()
    }
}

#[test]
fn a_fallback_image_needs_room_for_the_handoff_data() {
    let platform = boot_from(SimPlatform::builder().lps(1), &with_connect(5, 25));
    // The image's own handoff data has another size than the running module's.
    let small = TestImage { num_handoff_pages: 13, ..newer() };
    let facts = platform.facts().unwrap();
    let found = |file: &PageBuf, handoff_version| {
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let mut found = Vec::new();
        let purpose = Purpose::TakeOver { handoff_version };
        let passed = preflight_image(
            &image,
            &facts,
            purpose,
            &RustCrypto,
            Policy::default(),
            &mut |finding| {
                found.push(finding);
            },
        );
        assert_eq!(passed.is_ok(), found.is_empty());
        found
    };
    let files = [with_connect(5, 25).build(), small.build()];
    assert_eq!(found(&files[0], Some(0)), []);
    let pages = Finding::Refusal(Refusal::HandoffPages { found: 14, wanted: 25 });
    assert_eq!(found(&files[1], Some(0)), [pages]);
    assert_eq!(found(&files[1], None), [pages]);
    let version = Refusal::HandoffDataVersion { found: 1, min_update_hv: 0, module_hv: 0 };
    assert_eq!(found(&files[0], Some(1)), [Finding::Refusal(version)]);

    // The update's own image is refused, so the fallback decides whether the TDs survive.
    let unsigned = with_connect(6, 25);
    let mut sigstruct = unsigned.sigstruct(&unsigned.module());
    sigstruct.signature[0] ^= 1;
    let unsigned = unsigned.file(&sigstruct, &unsigned.module());
    for (fallback, live_on) in files.iter().zip([true, false]) {
        let platform = boot_from(SimPlatform::builder().lps(1), &with_connect(5, 25));
        let fallbacks = std::slice::from_ref(fallback);
        let outcome =
            with_fallbacks(&platform, &unsigned, fallbacks, Options::default(), |update| {
                run_stepped(&platform, update, 1)
            });
        let truth = platform.truth();
        assert_eq!(
            (outcome.tds_live_on(), truth.tds_alive == truth.tds),
            (live_on, live_on),
            "{outcome}"
        );
    }
}

/// Returns a module of a handoff version whose size is unknown.
fn unmeasured(svn_minor: u8, num_handoff_pages: u16) -> TestImage {
    let version = TdxVersion { major: 2, minor: 0, update: 99 };
    let counting = counting(svn_minor);
    let build = counting.module_build.map(|build| ModuleBuild { version, ..build });
    TestImage { module_build: build, num_handoff_pages, ..counting }
}

#[test]
fn a_module_with_handoff_data_of_unknown_size_is_updated_if_all_its_pages_fit() {
    let platform = boot_from(SimPlatform::builder().lps(1), &unmeasured(5, 13));
    assert_eq!(findings(&platform, &unmeasured(6, 13).build(), Policy::default()), []);
    let unknown = Finding::Unknown(Unknown::HandoffData);
    assert_eq!(findings(&platform, &unmeasured(6, 12).build(), Policy::default()), [unknown]);
}

#[test]
fn facts_of_a_module_that_was_shut_down_are_unknown() {
    let platform = boot(SimPlatform::builder().lps(1));
    let status = tdx_seamldr_core::abi::TdxStatus::SYS_SHUTDOWN.0;
    platform.inject(Fault { times: u32::MAX, ..Fault::first(SYS_RD, returns(status)) });
    let open = findings(&platform, &newer().build(), Policy::default());
    let questions = [Unknown::Features, Unknown::HandoffVersions, Unknown::HandoffData];
    assert_eq!(open, questions.map(Finding::Unknown));
}

#[test]
fn preflight_reports_everything_that_it_cannot_check() {
    let debug = TestImage { debug: true, ..newer() }.build();
    let image = TdxImage::parse(debug.as_bytes()).unwrap();
    let mut unknown = Vec::new();
    let mut report = |finding| match finding {
        Finding::Unknown(question) => unknown.push(question),
        Finding::Refusal(refusal) => panic!("{refusal}"),
    };
    let result = preflight(&image, &Facts::new(), &NoCrypto, Policy::default(), &mut report);
    // Only images of the 2.0 line need the version of P-SEAMLDR. Only a load may need CLEANUP.
    let others = [Unknown::SeamldrVersion, Unknown::Cleanup];
    let mut expected: Vec<_> =
        Unknown::ALL.into_iter().filter(|unknown| !others.contains(unknown)).collect();
    assert_eq!(result.unwrap_err(), NotPassed { refusals: 0, unknowns: 16 });
    for question in unknown {
        let at = expected.iter().position(|expected| *expected == question).unwrap();
        expected.remove(at);
    }
    assert_eq!(expected, []);
}

#[test]
fn a_module_without_td_preserving_is_refused() {
    let facts = Facts {
        module_runs: Some(false),
        running_svn: Some(Svn { major: 0, minor: 0 }),
        features0: Some(TdxFeatures0::NO_RBP_MOD),
        ..Facts::new()
    };
    let file = newer().build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let mut codes = Vec::new();
    let result = preflight(&image, &facts, &NoCrypto, reckless(), &mut |finding| {
        if let Finding::Refusal(refusal) = finding {
            codes.push(refusal.code());
        }
    });
    assert_eq!(codes, ["no-module", "not-td-preserving", "major-svn"]);
    assert_eq!(result.unwrap_err(), NotPassed { refusals: 3, unknowns: 0 });
}

#[test]
fn handoff_versions_are_negotiated_to_the_highest_common_one() {
    let range = |min_update_hv, module_hv, no_downgrade| HandoffRange {
        module_hv,
        min_update_hv,
        no_downgrade,
    };
    let rows = [
        (range(0, 0, false), (0, 0), Some(0)),
        (range(0, 3, false), (1, 2), Some(2)),
        (range(0, 2, false), (1, 5), Some(2)),
        (range(0, 3, true), (1, 2), None),
        (range(0, 3, true), (1, 3), Some(3)),
        (range(2, 3, false), (0, 1), None),
        (range(0, 1, false), (2, 3), None),
    ];
    for (running, (min_update_hv, module_hv), expected) in rows {
        let mut new = SeamSigstruct::new_zeroed();
        (new.min_update_hv, new.module_hv) = (U16::new(min_update_hv), U16::new(module_hv));
        assert_eq!(
            running.negotiate(&new),
            expected,
            "{running:?} to {min_update_hv}..={module_hv}"
        );
    }
}

#[test]
fn parameters_contain_the_physical_address_of_every_page() {
    // With pages of 64 KiB the image begins in the middle of a page.
    for host_page_size in [4096, 16384, 65536] {
        let platform = boot(SimPlatform::builder().lps(1).host_page_size(host_page_size));
        let file = newer().build();
        let image = TdxImage::parse(file.as_bytes()).unwrap();
        let lp = platform.lp(0);
        let mut page = PageBuf::copy_of(&[0xff; PAGE_SIZE]);
        let request =
            InstallRequest::build(page.as_params(), &image, Scenario::Update, &lp).unwrap();
        let address = request.params().get();
        let params: SeamldrParams = page.as_params().0;
        assert_eq!(lp.phys_addr(page.as_bytes().as_ptr()), Some(address));
        assert_eq!(
            (params.version.get(), params.scenario.get(), params.reserved),
            (0, 1, [0; 104])
        );
        assert_eq!(
            lp.phys_addr(image.sigstruct_area().as_ptr()),
            Some(PhysAddr(params.sigstruct_pa.get()))
        );
        assert_eq!(params.num_module_pages.get(), 8);
        let mut listed = params.module_page_pa.iter().map(|address| PhysAddr(address.get()));
        for chunk in image.module().chunks(PAGE_SIZE) {
            let physical = listed.next().unwrap();
            assert_eq!(lp.phys_addr(chunk.as_ptr()), Some(physical));
            assert_ne!(
                physical.0,
                chunk.as_ptr().addr() as u64,
                "physical and virtual addresses differ"
            );
        }
        assert!(listed.all(|address| address == PhysAddr(0)));
        assert!(update_to(&platform, &newer()).is_updated());
    }
}

/// A host that returns no address, or a misaligned one, for one part.
struct OddHost {
    odd: *const u8,
    answer: Option<PhysAddr>,
}

// SAFETY: this backend makes no calls.
unsafe impl SeamcallBackend for OddHost {
    unsafe fn seamcall(&self, _: &mut SeamcallRegs) -> Result<(), Trap> {
        Err(Trap::UndefinedOpcode)
    }
}

// SAFETY: firmware never sees these addresses.
unsafe impl Host for OddHost {
    fn current_lp(&self) -> u32 {
        0
    }

    fn num_lps(&self) -> u32 {
        1
    }

    fn relax(&self) -> Patience {
        Patience::Wait
    }

    fn phys_addr(&self, address: *const u8) -> Option<PhysAddr> {
        if address == self.odd {
            self.answer
        } else {
            Some(PhysAddr(address.addr() as u64 ^ 1 << 45))
        }
    }
}

#[test]
fn prepare_names_a_page_without_an_address_or_with_a_misaligned_one() {
    let file = newer().build();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let mut page = PageBuf::zeroed(1);
    let parts = [
        (page.as_bytes().as_ptr(), Part::Params),
        (image.sigstruct_area().as_ptr(), Part::Sigstruct),
        (image.module().as_ptr(), Part::Module(0)),
        (image.module()[7 * PAGE_SIZE..].as_ptr(), Part::Module(7)),
    ];
    for (odd, part) in parts {
        let mut build = |answer| {
            let host = OddHost { odd, answer };
            InstallRequest::build(page.as_params(), &image, Scenario::Update, &host).unwrap_err()
        };
        assert_eq!(build(None), BuildError::NotMapped(part));
        assert_eq!(build(Some(PhysAddr(0x1200))), BuildError::Misaligned(part, PhysAddr(0x1200)));
    }
    let crooked = BuildError::Misaligned(Part::Module(7), PhysAddr(0x1200));
    let message =
        "page 7 of the module lies at physical address 0x1200, which is not a multiple of 4096";
    assert_eq!(crooked.to_string(), message);
}

#[test]
fn an_image_with_a_long_sigstruct_can_be_parsed_but_not_installed() {
    let parts = ImageParts { sigstruct: &[0; 4 * PAGE_SIZE], module: &[0; PAGE_SIZE] };
    let mut file = PageBuf::zeroed(6);
    parts.write(ImageFormat::BlobV1, file.as_mut_bytes()).unwrap();
    let image = TdxImage::parse(file.as_bytes()).unwrap();
    let host = OddHost { odd: std::ptr::null(), answer: None };
    let mut page = PageBuf::zeroed(1);
    let error =
        InstallRequest::build(page.as_params(), &image, Scenario::Update, &host).unwrap_err();
    assert_eq!(error, BuildError::SigstructTooLong(4));
}
