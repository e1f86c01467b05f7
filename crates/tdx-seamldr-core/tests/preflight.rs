//! Each finding of preflight, by one change of an image and a platform that suit each other.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::type_complexity,
    missing_docs
)]

use tdx_seamldr_core::abi::{PSysInfo, SeamSigstruct, SeamldrInfo, TdxFeatures0, PAGE_SIZE};
use tdx_seamldr_core::elf::{ElfHeader, ElfRefusal, IDENT};
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::preflight::Policy;
use tdx_seamldr_core::preflight::{handoff_data_size, Refusal, Unknown, Verdict};
use tdx_seamldr_core::preflight::{preflight, preflight_image, Facts, FieldMismatch, Finding, HandoffRange};
use tdx_seamldr_core::space::Layout;
use tdx_seamldr_core::update::Options;
use tdx_seamldr_core::{Crypto, CryptoUnavailable, Sha384Digest, TdxImage, TdxVersion};
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros, IntoBytes};

/// A digest that is none, but changes with the bytes; and signatures that are the digest's own bytes.
struct Sums {
    /// What has this length cannot be hashed.
    out_of_order: Option<usize>,
}

impl Crypto for Sums {
    fn sha384(&self, parts: &[&[u8]]) -> Result<Sha384Digest, CryptoUnavailable> {
        if self.out_of_order == Some(parts.concat().len()) {
            return Err(CryptoUnavailable);
        }
        let mut digest = [0; 48];
        for (at, byte) in parts.concat().into_iter().enumerate() {
            digest[at % 48] = byte.wrapping_add(31u8.wrapping_mul(digest[at % 48]));
        }
        Ok(digest)
    }

    fn rsa3072_verify(
        &self,
        modulus: &[u8; 384],
        signature: &[u8; 384],
        digest: &Sha384Digest,
    ) -> Result<bool, CryptoUnavailable> {
        Ok(modulus[0] == 7 && signature.starts_with(digest))
    }
}

const WORKS: Sums = Sums { out_of_order: None };
const MODULUS: usize = 384;
const SIGNED: usize = 1276;
const MODULE: usize = 4 * PAGE_SIZE;
const BASE: u64 = 0x1_0000_0000;

/// Everything that preflight looks at.
struct World {
    sigstruct: SeamSigstruct,
    /// Pages of the SIGSTRUCT area beyond the first.
    more_sigstruct: usize,
    module: Vec<u8>,
    info: SeamldrInfo,
    sysinfo: PSysInfo,
    signer: Sha384Digest,
    num_lps: u32,
    features0: Option<TdxFeatures0>,
    handoff: Option<HandoffRange>,
    debug_unlocked: Option<bool>,
    addressable_lps_per_socket: Option<u32>,
    seamrr_base: Option<u64>,
    handoff_data: Option<u32>,
    handoff_pages: Option<u32>,
    sensitive_operations: Option<u32>,
    policy: Policy,
    crypto: Sums,
    /// The change comes before image and SIGSTRUCT are hashed and signed.
    is_signed_again: bool,
}

type Preflight<'p> = &'p dyn Fn(&TdxImage<'_>, &Facts<'_>, &Sums, Policy, &mut dyn FnMut(Finding)) -> Verdict;

impl World {
    /// An image that suits the platform.
    fn good() -> Self {
        let mut header = ElfHeader::new_zeroed();
        header.e_ident[..IDENT.len()].copy_from_slice(&IDENT);
        let mut module = vec![0; MODULE];
        module[..size_of::<ElfHeader>()].copy_from_slice(header.as_bytes());
        let mut sigstruct = SeamSigstruct::new_zeroed();
        sigstruct.header_type = U32::new(6);
        sigstruct.header_length = U32::new(0xe1);
        sigstruct.header_version = U32::new(0x10000);
        sigstruct.module_vendor = U32::new(0x8086);
        sigstruct.size = U32::new(0x200);
        sigstruct.key_size = U32::new(0x60);
        sigstruct.modulus_size = U32::new(0x60);
        sigstruct.exponent_size = U32::new(1);
        sigstruct.exponent = U32::new(0x10001);
        sigstruct.modulus = [7; MODULUS];
        (sigstruct.svn_major, sigstruct.svn_minor) = (1, 5);
        (sigstruct.min_update_hv, sigstruct.module_hv) = (U16::new(1), U16::new(3));
        sigstruct.num_handoff_pages = U16::new(1);
        sigstruct.cpuid_table_size = U32::new(2);
        (sigstruct.cpuid_table[0], sigstruct.cpuid_table[1]) = (U32::new(0x806f0), U32::new(0xc06f0));

        let mut info = SeamldrInfo::new_zeroed();
        info.major = U16::new(1);
        info.num_remaining_updates = U32::new(1);
        info.seamextend.seam_ready = 1;
        (info.seamextend.tee_tcb_svn[0], info.seamextend.tee_tcb_svn[1]) = (5, 1);
        let mut sysinfo = PSysInfo::new_zeroed();
        (sysinfo.tot_num_lps, sysinfo.tot_num_sockets) = (U32::new(8), U32::new(2));
        (sysinfo.socket_cpuid[0], sysinfo.socket_cpuid[1]) = (U32::new(0x806f8), U32::new(0xc06f2));
        sysinfo.p_seamldr_base = U64::new(BASE + (32 << 20));
        Self {
            sigstruct,
            more_sigstruct: 0,
            module,
            info,
            sysinfo,
            signer: WORKS.sha384(&[&[7; MODULUS]]).unwrap(),
            num_lps: 8,
            features0: Some(TdxFeatures0::TD_PRESERVING | TdxFeatures0::UPDATE_COMPATIBILITY),
            handoff: Some(HandoffRange { module_hv: 2, min_update_hv: 0, no_downgrade: false }),
            debug_unlocked: None,
            addressable_lps_per_socket: Some(3),
            seamrr_base: Some(BASE),
            handoff_data: Some(8184),
            handoff_pages: Some(3),
            sensitive_operations: None,
            policy: Policy::default(),
            crypto: WORKS,
            is_signed_again: true,
        }
    }

    fn sign(&mut self) {
        self.sigstruct.seamhash = WORKS.sha384(&[&self.module]).unwrap();
        let digest = WORKS.sha384(&self.sigstruct.signed_parts()).unwrap();
        self.sigstruct.signature[..48].copy_from_slice(&digest);
    }

    fn check(&self) -> (Verdict, Vec<Finding>) {
        self.check_by(&preflight::<Sums>)
    }

    fn check_by(&self, preflight: Preflight<'_>) -> (Verdict, Vec<Finding>) {
        self.with(|image, facts| {
            let mut findings = Vec::new();
            let verdict =
                preflight(image, facts, &self.crypto, self.policy, &mut |finding| findings.push(finding));
            (verdict, findings)
        })
    }

    fn with<R>(&self, ask: impl FnOnce(&TdxImage<'_>, &Facts<'_>) -> R) -> R {
        let sigstruct =
            [self.sigstruct.as_bytes(), &vec![0; 2048 + self.more_sigstruct * PAGE_SIZE]].concat();
        let parts = ImageParts { sigstruct: &sigstruct, module: &self.module };
        let mut file = vec![0; parts.file_len().unwrap()];
        parts.write(ImageFormat::BlobV1, &mut file).unwrap();
        let image = TdxImage::parse(&file).unwrap();
        let facts = Facts {
            features0: self.features0,
            handoff: self.handoff,
            debug_unlocked: self.debug_unlocked,
            addressable_lps_per_socket: self.addressable_lps_per_socket,
            seamrr_base: self.seamrr_base,
            handoff_data: self.handoff_data,
            handoff_pages: self.handoff_pages,
            sensitive_operations: self.sensitive_operations,
            ..Facts::new(&self.info, &self.sysinfo, self.num_lps, &self.signer)
        };
        ask(&image, &facts)
    }
}

/// What preflight finds after this change.
fn after(change: impl FnOnce(&mut World)) -> Vec<Finding> {
    let mut world = World::good();
    world.sign();
    change(&mut world);
    if world.is_signed_again {
        world.sign();
    }
    let (verdict, findings) = world.check();
    let refusals = findings.iter().filter(|finding| matches!(finding, Finding::Refusal(_))).count();
    let counted = (usize::try_from(verdict.refusals), usize::try_from(verdict.unknowns));
    assert_eq!(counted, (Ok(refusals), Ok(findings.len() - refusals)));
    let unknowns_matter = refusals != findings.len() && !world.policy.allow_unknowns;
    assert_eq!(verdict.passed(), refusals == 0 && !unknowns_matter);
    findings
}

fn refused(refusal: Refusal) -> Vec<Finding> {
    vec![Finding::Refusal(refusal)]
}

fn unknown(unknown: Unknown) -> Vec<Finding> {
    vec![Finding::Unknown(unknown)]
}

#[test]
fn what_suits_is_not_refused() {
    assert_eq!(after(|_| ()), []);
    // The limits themselves.
    let limits: [fn(&mut World); 8] = [
        |world| world.info.seamextend.tee_tcb_svn[0] = 4,
        |world| world.sigstruct.min_update_hv = U16::new(2),
        |world| world.sigstruct.gdt_idt_offset = U32::new(3 * 4096),
        |world| world.sigstruct.module_hv = U16::new(1),
        |world| world.sigstruct.cpuid_table_size = U32::new(255),
        |world| world.handoff_data = Some(0),
        |world| world.num_lps = world.sysinfo.tot_num_lps.get(),
        |world| world.sigstruct.svn_minor = 255,
    ];
    for (number, limit) in limits.into_iter().enumerate() {
        let findings = after(|world| {
            limit(world);
            if world.sigstruct.gdt_idt_offset.get() != 0 {
                world.sigstruct.fault_wrapper_offset = U32::new(4 * 4096 - 512);
            }
        });
        assert_eq!(findings, [], "{number}");
    }
}

#[test]
fn each_field_of_the_sigstruct_has_one_right_value() {
    let rows: [(&str, fn(&mut SeamSigstruct), u64, u64); 12] = [
        ("header_type", |it| it.header_type = U32::new(7), 7, 6),
        ("header_length", |it| it.header_length = U32::new(0), 0, 0xe1),
        ("header_version", |it| it.header_version = U32::new(1), 1, 0x10000),
        ("key_size", |it| it.key_size = U32::new(0x61), 0x61, 0x60),
        ("exponent_size", |it| it.exponent_size = U32::new(2), 2, 1),
        ("modulus_size", |it| it.modulus_size = U32::new(0x5f), 0x5f, 0x60),
        ("module_vendor", |it| it.module_vendor = U32::new(0x8087), 0x8087, 0x8086),
        ("module_type", |it| it.module_type = U32::new(1), 1, 0),
        ("module_type", |it| it.module_type = U32::new(1 << 30), 1 << 30, 0),
        ("size", |it| it.size = U32::new(0x1ff), 0x1ff, 0x200),
        ("exponent", |it| it.exponent = U32::new(3), 3, 0x10001),
        ("attributes", |it| it.attributes = U64::new(1 << 40), 1 << 40, 0),
    ];
    for (name, change, found, wanted) in rows {
        let mismatch = FieldMismatch { name, found, wanted };
        assert_eq!(after(|world| change(&mut world.sigstruct)), refused(Refusal::SigstructField(mismatch)));
    }
}

#[test]
fn reserved_bytes_are_zero_but_for_those_that_new_loaders_know() {
    let reserved = |offset| refused(Refusal::SigstructReserved { offset, found: 1 });
    assert_eq!(after(|world| world.sigstruct.reserved0[87] = 1), reserved(127));
    let seven = refused(Refusal::SigstructReserved { offset: 126, found: 7 });
    assert_eq!(after(|world| (world.sigstruct.reserved0[86], world.sigstruct.reserved0[87]) = (7, 1)), seven);
    assert_eq!(after(|world| world.sigstruct.reserved1[0] = 1), reserved(978));
    assert_eq!(after(|world| world.sigstruct.reserved2 = 1), reserved(989));
    let by_loader = |major| {
        after(|world| {
            world.info.major = U16::new(major);
            world.sigstruct.reserved3[1] = 1;
        })
    };
    assert_eq!(by_loader(1), reserved(1001));
    assert_eq!(by_loader(0), reserved(1001));
    assert_eq!(by_loader(2), []);
    assert_eq!(by_loader(3), []);
}

#[test]
fn the_form_of_the_sigstruct_is_checked() {
    assert_eq!(after(|world| world.more_sigstruct = 1), refused(Refusal::SigstructPages(2)));
    let long_list = |world: &mut World| world.sigstruct.cpuid_table_size = U32::new(256);
    assert_eq!(after(long_list), refused(Refusal::CpuListLength(256)));
    let reversed = after(|world| world.sigstruct.min_update_hv = U16::new(4));
    let versions = Refusal::HandoffVersionsReversed { min_update_hv: 4, module_hv: 3 };
    assert_eq!(reversed.first(), Some(&Finding::Refusal(versions)));

    let offsets = |gdt_idt, fault_wrapper| {
        after(|world| {
            world.sigstruct.gdt_idt_offset = U32::new(gdt_idt);
            world.sigstruct.fault_wrapper_offset = U32::new(fault_wrapper);
        })
    };
    assert_eq!(offsets(0x1000, 0x2000), []);
    assert_eq!(offsets(0x1001, 0x2000), refused(Refusal::GdtOffsetMisaligned(0x1001)));
    for (gdt_idt, fault_wrapper) in [(0x1000, 0), (0, 0x1000)] {
        let alone = Refusal::GdtWithoutFaultWrapper { gdt_idt, fault_wrapper };
        assert_eq!(offsets(gdt_idt, fault_wrapper), refused(alone));
    }
    assert_eq!(offsets(0x4000, 0x2000), refused(Refusal::GdtOutside { found: 0x4000, limit: 0x3000 }));
    let outside = Refusal::FaultWrapperOutside { found: 0x3e01, limit: 0x3e00 };
    assert_eq!(offsets(0x1000, 0x3e01), refused(outside));
}

#[test]
fn signer_signature_and_hash_are_checked() {
    let found = WORKS.sha384(&[&[7; MODULUS]]).unwrap();
    assert_eq!(after(|world| world.signer[0] ^= 1), refused(Refusal::Signer(found)));
    let unsigned = |change: fn(&mut World)| {
        after(|world| {
            world.is_signed_again = false;
            change(world);
        })
    };
    assert_eq!(unsigned(|world| world.sigstruct.date = U32::new(1)), refused(Refusal::Signature));
    let findings = unsigned(|world| world.module[MODULE - 1] = 1);
    assert!(matches!(findings[..], [Finding::Refusal(Refusal::ImageHash(_))]), "{findings:?}");
    let out_of_order = |length| after(|world| world.crypto.out_of_order = Some(length));
    assert_eq!(out_of_order(MODULUS), unknown(Unknown::Signer));
    assert_eq!(out_of_order(SIGNED), unknown(Unknown::Signature));
    assert_eq!(out_of_order(MODULE), unknown(Unknown::ImageHash));
}

#[test]
fn debug_modules_need_an_unlocked_platform_and_no_list_of_cpus() {
    let debug = |unlocked| {
        after(|world| {
            world.sigstruct.module_type = U32::new(1 << 31);
            world.sigstruct.cpuid_table_size = U32::new(0);
            world.debug_unlocked = unlocked;
        })
    };
    assert_eq!(debug(Some(true)), []);
    assert_eq!(debug(Some(false)), refused(Refusal::DebugModule));
    assert_eq!(debug(None), unknown(Unknown::DebugUnlocked));
    assert_eq!(after(|world| world.sigstruct.cpuid_table_size = U32::new(0)), refused(Refusal::NoCpuList));
}

#[test]
fn the_security_version_stays_in_its_line_and_does_not_fall() {
    let after = |major, minor| {
        let findings = after(|world| {
            (world.sigstruct.svn_major, world.sigstruct.svn_minor) = (major, minor);
        });
        findings.iter().map(Finding::code).collect::<Vec<_>>()
    };
    assert_eq!(after(1, 4), ["minor-svn"]);
    assert_eq!(after(2, 4), ["major-svn"]);
    assert_eq!(after(0, 5), ["major-svn-zero", "major-svn"]);
    assert!(after(1, 6).is_empty());
}

#[test]
fn the_platform_is_checked() {
    assert_eq!(after(|world| world.info.seamextend.seam_ready = 0), refused(Refusal::NoModule));
    let none_left = after(|world| world.info.num_remaining_updates = U32::new(0));
    assert_eq!(none_left, refused(Refusal::NoRemainingUpdates));
    for found in [7, 9] {
        let missing = Refusal::LpsMissing { found, wanted: 8 };
        assert_eq!(after(|world| world.num_lps = found), refused(missing));
    }
    let features = TdxFeatures0::UPDATE_COMPATIBILITY;
    assert_eq!(after(|world| world.features0 = Some(features)), refused(Refusal::NotTdPreserving(features)));
    assert_eq!(
        after(|world| world.features0 = None),
        [Finding::Unknown(Unknown::Features), Finding::Unknown(Unknown::SensitiveOperations)]
    );
    let other_cpu = |world: &mut World| world.sysinfo.socket_cpuid[1] = U32::new(0x906f8);
    assert_eq!(after(other_cpu), refused(Refusal::Cpu { socket: 1, cpuid: 0x906f8 }));
}

#[test]
fn operations_in_progress_count_unless_the_module_protects_them() {
    let with = |known, allow_damage| {
        after(|world| {
            world.features0 = Some(TdxFeatures0::TD_PRESERVING);
            world.sensitive_operations = known;
            world.policy.allow_damage = allow_damage;
        })
    };
    assert_eq!(with(Some(0), false), []);
    assert_eq!(with(Some(2), false), refused(Refusal::SensitiveOperations(2)));
    assert_eq!(with(None, false), unknown(Unknown::SensitiveOperations));
    assert_eq!(with(Some(2), true), []);
    let counted = after(|world| world.sensitive_operations = Some(2));
    assert_eq!(counted, refused(Refusal::SensitiveOperations(2)), "the module may not know of them");
}

#[test]
fn handoff_versions_and_pages_have_to_suit() {
    let running = HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false };
    let version = Refusal::HandoffVersion { running, min_update_hv: 1, module_hv: 3 };
    assert_eq!(after(|world| world.handoff = Some(running)), refused(version));
    assert_eq!(after(|world| world.handoff = None), unknown(Unknown::HandoffVersions));
    let pages = Refusal::HandoffPages { found: 2, wanted: 3 };
    assert_eq!(after(|world| world.handoff_data = Some(8185)), refused(pages));
}

#[test]
fn where_the_size_of_handoff_data_is_not_known_the_running_modules_pages_may_be_enough_to_know() {
    let with = |handoff_data, handoff_pages| {
        after(|world| (world.handoff_data, world.handoff_pages) = (handoff_data, handoff_pages))
    };
    assert_eq!(with(None, Some(2)), []);
    assert_eq!(with(None, Some(3)), unknown(Unknown::HandoffData));
    assert_eq!(with(None, None), unknown(Unknown::HandoffData));
    assert_eq!(with(Some(8184), Some(3)), [], "the size decides where it is known");
    let pages = Refusal::HandoffPages { found: 2, wanted: 3 };
    assert_eq!(with(Some(8185), Some(2)), refused(pages));
}

#[test]
fn where_the_handoff_version_is_not_known_either_it_may_be_any_that_the_image_takes() {
    let with = |min_update_hv, handoff_data, handoff_pages| {
        let findings = after(|world| {
            world.sigstruct.min_update_hv = U16::new(min_update_hv);
            (world.handoff, world.handoff_data, world.handoff_pages) = (None, handoff_data, handoff_pages);
        });
        assert_eq!(findings[0], Finding::Unknown(Unknown::HandoffVersions));
        findings[1..].to_vec()
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    assert_eq!(with(1, Some(2 * 4096 - 8), None), []);
    assert_eq!(with(1, Some(2 * 4096 - 7), None), pages(2, 3));
    // Of version 0 it takes 25.
    assert_eq!(with(0, Some(2 * 4096 - 8), None), []);
    assert_eq!(with(0, Some(2 * 4096 - 7), None), unknown(Unknown::HandoffData));
    assert_eq!(with(0, Some(25 * 4096 - 8), None), unknown(Unknown::HandoffData));
    assert_eq!(with(0, Some(25 * 4096 - 7), None), pages(25, 26));
    assert_eq!(with(0, None, Some(2)), []);
    assert_eq!(with(0, None, Some(3)), unknown(Unknown::HandoffData));
}

#[test]
fn a_module_takes_25_pages_of_the_oldest_handoff_version_when_it_has_a_later_one() {
    let with = |handoff_data, running_hv, module_hv| {
        after(|world| {
            world.handoff =
                Some(HandoffRange { module_hv: running_hv, min_update_hv: 0, no_downgrade: false });
            (world.sigstruct.min_update_hv, world.sigstruct.module_hv) = (U16::new(0), U16::new(module_hv));
            world.sigstruct.num_handoff_pages = U16::new(13);
            world.handoff_data = Some(handoff_data);
        })
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    assert_eq!(with(25 * 4096 - 8, 0, 1), []);
    assert_eq!(with(25 * 4096 - 7, 0, 1), pages(25, 26));
    assert_eq!(with(25 * 4096 - 8, 0, 0), pages(14, 25), "it has no later one");
    assert_eq!(with(25 * 4096 - 8, 1, 1), pages(14, 25), "the later one is handed over");
    let own_pages = |module_hv| {
        after(|world| {
            world.handoff = Some(HandoffRange { module_hv: 0, min_update_hv: 0, no_downgrade: false });
            (world.sigstruct.min_update_hv, world.sigstruct.module_hv) = (U16::new(0), U16::new(module_hv));
            world.sigstruct.num_handoff_pages = U16::new(25);
            world.handoff_data = Some(25 * 4096 - 7);
        })
    };
    assert_eq!(own_pages(0), []);
    assert_eq!(own_pages(1), pages(25, 26), "its own pages do not count then");
}

#[test]
fn the_options_are_what_both_modules_know_and_damage_nothing() {
    let options = |change: &dyn Fn(&mut World)| {
        let mut world = World::good();
        change(&mut world);
        world.with(|image, facts| facts.options(image))
    };
    let both =
        Options { handoff_version: Some(2), avoid_compat_sensitive: true, detect_compat_damage: false };
    assert_eq!(options(&|_| ()), both);
    assert_eq!(options(&|world| world.handoff = None), Options { handoff_version: None, ..both });
    let lower = Options { handoff_version: Some(1), ..both };
    assert_eq!(options(&|world| world.sigstruct.module_hv = U16::new(1)), lower);
    let nobody_to_ask = Options { avoid_compat_sensitive: false, ..both };
    assert_eq!(options(&|world| world.features0 = None), nobody_to_ask);
    let without = options(&|world| world.features0 = Some(TdxFeatures0::TD_PRESERVING));
    assert_eq!(without, nobody_to_ask);
}

#[test]
fn the_highest_common_handoff_version_is_negotiated() {
    let range =
        |module_hv, min_update_hv, no_downgrade| HandoffRange { module_hv, min_update_hv, no_downgrade };
    let mut new = SeamSigstruct::new_zeroed();
    (new.min_update_hv, new.module_hv) = (U16::new(2), U16::new(5));
    assert_eq!(range(7, 0, false).negotiate(&new), Some(5));
    assert_eq!(range(4, 0, false).negotiate(&new), Some(4));
    assert_eq!(range(2, 2, false).negotiate(&new), Some(2));
    assert_eq!(range(1, 0, false).negotiate(&new), None, "the new module takes none of its versions");
    assert_eq!(range(7, 6, false).negotiate(&new), None, "it writes none of the new module's");
    assert_eq!(range(7, 0, true).negotiate(&new), None, "it writes 7 only");
    assert_eq!(range(5, 0, true).negotiate(&new), Some(5));
}

#[test]
fn the_seam_range_has_to_have_room() {
    let mut world = World::good();
    world.sign();
    let size = u64::try_from(MODULE).unwrap();
    // 3 LPs are counted as 4, on each of 2 sockets.
    let layout = Layout::new(&world.sigstruct, size, 8, 0);
    let room = |bytes: u64| after(|world| world.sysinfo.p_seamldr_base = U64::new(BASE + bytes));
    let need = layout.need();
    let few = Refusal::Memory { found: need - 1, wanted: need };
    assert_eq!(room(need - 1), refused(few));
    assert_eq!(room(need), refused(Refusal::PageTables), "the estimate is too low");
    assert_eq!(room(need + (1 << 20)), []);
    assert_eq!(after(|world| world.seamrr_base = None), unknown(Unknown::Memory));
    assert_eq!(after(|world| world.addressable_lps_per_socket = None), unknown(Unknown::Memory));
    assert_eq!(after(|world| world.module[0] = 0), refused(Refusal::Elf(ElfRefusal::Ident)));
}

#[test]
fn an_image_for_a_module_that_stands_still_is_asked_nothing_of_a_running_one() {
    let alone = |change: fn(&mut World)| {
        let mut world = World::good();
        // As after a shutdown.
        world.features0 = None;
        world.handoff = None;
        world.handoff_data = None;
        change(&mut world);
        world.sign();
        let (verdict, findings) = world.check_by(&|image, facts, crypto, policy, report| {
            preflight_image(image, facts, None, crypto, policy, report)
        });
        assert_eq!(verdict.passed(), findings.is_empty());
        findings
    };
    assert_eq!(alone(|_| ()), []);
    assert_eq!(alone(|world| world.info.seamextend.mrseam = [0; 48]), []);
    assert_eq!(alone(|world| world.sigstruct.svn_minor = 4).len(), 1);
    assert_eq!(alone(|world| world.num_lps = 7), refused(Refusal::LpsMissing { found: 7, wanted: 8 }));
    assert_eq!(alone(|world| world.module[0] = 0), refused(Refusal::Elf(ElfRefusal::Ident)));
    assert_eq!(alone(|world| world.crypto.out_of_order = Some(SIGNED)), unknown(Unknown::Signature));
}

#[test]
fn an_image_to_fall_back_on_takes_the_handoff_data_that_there_is_going_to_be() {
    let alone = |version, change: &dyn Fn(&mut World)| {
        let mut world = World::good();
        change(&mut world);
        world.sign();
        let (verdict, findings) = world.check_by(&|image, facts, crypto, policy, report| {
            preflight_image(image, facts, version, crypto, policy, report)
        });
        assert_eq!(verdict.passed(), findings.is_empty());
        findings
    };
    let takes = |version| {
        let running = HandoffRange { module_hv: version, min_update_hv: version, no_downgrade: false };
        (alone(Some(version), &|_| ()), Refusal::HandoffVersion { running, min_update_hv: 1, module_hv: 3 })
    };
    for version in [0, 4] {
        let (found, refusal) = takes(version);
        assert_eq!(found, refused(refusal));
    }
    for version in [1, 2, 3] {
        assert_eq!(takes(version).0, []);
    }
    assert_eq!(alone(None, &|world| world.sigstruct.min_update_hv = U16::new(3)), [], "whatever it is");

    // As many bytes of data, from a module of versions 0 to 2 to one of 0 to 3 with 2 pages.
    let with = |version, handoff_data, handoff_pages| {
        alone(version, &|world| {
            world.sigstruct.min_update_hv = U16::new(0);
            (world.handoff_data, world.handoff_pages) = (handoff_data, handoff_pages);
        })
    };
    let pages = |found, wanted| refused(Refusal::HandoffPages { found, wanted });
    let (fits, too_long) = (Some(2 * 4096 - 8), Some(2 * 4096 - 7));
    assert_eq!(with(Some(2), fits, None), []);
    assert_eq!(with(Some(2), too_long, None), pages(2, 3));
    assert_eq!(with(None, too_long, None), pages(2, 3), "2 is what both have");
    assert_eq!(with(Some(0), too_long, None), [], "version 0 has room for 25");
    assert_eq!(with(Some(0), Some(25 * 4096 - 7), None), pages(25, 26));
    // What is not known is nothing against it.
    assert_eq!(with(Some(2), None, Some(3)), []);
    assert_eq!(with(Some(2), None, None), []);
    assert_eq!(with(None, None, None), []);
}

#[test]
fn the_same_module_once_more_is_a_question_of_policy() {
    let same = |allow_same_module| {
        after(|world| {
            world.info.seamextend.mrseam = world.sigstruct.seamhash;
            world.policy.allow_same_module = allow_same_module;
        })
    };
    assert_eq!(same(false), refused(Refusal::SameModule));
    assert_eq!(same(true), []);
}

#[test]
fn questions_without_an_answer_are_a_question_of_policy() {
    for allow_unknowns in [false, true] {
        let findings = after(|world| {
            world.policy.allow_unknowns = allow_unknowns;
            (world.handoff_data, world.handoff_pages) = (None, None);
        });
        assert_eq!(findings, unknown(Unknown::HandoffData));
        let findings = after(|world| {
            world.policy.allow_unknowns = allow_unknowns;
            (world.handoff_data, world.handoff_pages) = (None, None);
            world.num_lps = 1;
        });
        assert_eq!(findings.len(), 2);
    }
}

#[test]
fn the_size_of_handoff_data_is_known_of_some_versions() {
    let size = |major, minor, update| handoff_data_size(TdxVersion { major, minor, update });
    assert_eq!((size(1, 5, 0), size(1, 5, 99)), (Some(53_391), Some(53_391)));
    assert_eq!((size(2, 0, 12), size(2, 0, 13)), (Some(101_810), None));
    assert_eq!((size(1, 4, 0), size(2, 1, 0)), (None, None));
}
