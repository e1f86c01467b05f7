//! Findings about the image itself.

use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::preflight::space::Layout;
use tdx_seamldr_core::preflight::{FieldMismatch, Finding, Refusal, SeamldrVersion, Unknown};
use tdx_seamldr_core::Crypto;
use zerocopy::little_endian::{U16, U32, U64};

use crate::world::{after, no_elf, refused, unknown, World, BASE, MODULE, MODULUS, SIGNED, WORKS};

#[test]
fn wrong_field_of_the_sigstruct_is_refused() {
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
        assert_eq!(
            after(|world| change(&mut world.sigstruct)),
            refused(Refusal::SigstructField(mismatch))
        );
    }
}

#[test]
fn reserved_byte_that_is_not_zero_is_refused() {
    let reserved = |offset| refused(Refusal::SigstructReserved { offset, found: 1 });
    assert_eq!(after(|world| world.sigstruct.reserved0[87] = 1), reserved(127));
    let seven = refused(Refusal::SigstructReserved { offset: 126, found: 7 });
    assert_eq!(
        after(|world| (world.sigstruct.reserved0[86], world.sigstruct.reserved0[87]) = (7, 1)),
        seven
    );
    assert_eq!(after(|world| world.sigstruct.reserved1[0] = 1), reserved(978));
    assert_eq!(after(|world| world.sigstruct.reserved2 = 1), reserved(989));
    let by_loader = |major| {
        after(|world| {
            world.facts.p_seamldr = Some(SeamldrVersion { major, minor: 5 });
            world.sigstruct.reserved3[1] = 1;
        })
    };
    assert_eq!(by_loader(1), reserved(1001));
    assert_eq!(by_loader(2), []);
    assert_eq!(by_loader(3), []);
}

#[test]
fn malformed_sigstruct_is_refused() {
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
    assert_eq!(
        offsets(0x4000, 0x2000),
        refused(Refusal::GdtOutside { found: 0x4000, limit: 0x3000 })
    );
    let outside = Refusal::FaultWrapperOutside { found: 0x3e01, limit: 0x3e00 };
    assert_eq!(offsets(0x1000, 0x3e01), refused(outside));
}

#[test]
fn wrong_signer_signature_or_hash_is_refused() {
    let found = WORKS.sha384(&[&[7; MODULUS]]).unwrap();
    assert_eq!(
        after(|world| world.facts.signer = Some([0; 48])),
        refused(Refusal::Signer { found, wanted: [0; 48] })
    );
    let unsigned = |change: fn(&mut World)| {
        after(|world| {
            world.is_signed_again = false;
            change(world);
        })
    };
    assert_eq!(unsigned(|world| world.sigstruct.date = U32::new(1)), refused(Refusal::Signature));
    let findings = unsigned(|world| world.module[MODULE - 1] = 1);
    let wanted = WORKS.sha384(&[&World::good().module]).unwrap();
    assert!(
        matches!(
            findings[..],
            [Finding::Refusal(Refusal::ImageHash { found, wanted: signed })]
                if found != wanted && signed == wanted
        ),
        "{findings:?}"
    );
    let out_of_order = |length| after(|world| world.crypto.out_of_order = Some(length));
    assert_eq!(out_of_order(MODULUS), unknown(Unknown::Signer));
    assert_eq!(out_of_order(SIGNED), unknown(Unknown::Signature));
    assert_eq!(out_of_order(MODULE), unknown(Unknown::ImageHash));
}

#[test]
fn module_that_does_not_fit_into_the_seam_range_is_refused() {
    let mut world = World::good();
    world.sign();
    let size = u64::try_from(MODULE).unwrap();
    // P-SEAMLDR rounds 3 LPs up to 4, on each of 2 sockets.
    let layout = Layout::new(&world.sigstruct, size, 8, 0);
    let room = |bytes: u64| after(|world| world.facts.p_seamldr_base = Some(BASE + bytes));
    let need = layout.need();
    let few = Refusal::Memory { found: need - 1, wanted: need };
    assert_eq!(room(need - 1), refused(few));
    let Some(Finding::Refusal(Refusal::PageTables { found, wanted })) = room(need).pop() else {
        panic!("the estimate is too low")
    };
    assert!(found == need && wanted > need && wanted < need + 32 * 4096, "{wanted:#x}");
    assert_eq!(room(wanted - 1), refused(Refusal::PageTables { found: wanted - 1, wanted }));
    assert_eq!(room(wanted), []);
    assert_eq!(after(|world| world.module[0] = 0), no_elf());
}

#[test]
fn without_p_seamldrs_base_only_a_module_larger_than_the_seam_range_is_refused() {
    let need = Layout::new(&World::good().sigstruct, u64::try_from(MODULE).unwrap(), 8, 0).need();
    let range = |bytes: u64| {
        after(|world| {
            (world.facts.p_seamldr_base, world.facts.seamrr_end) = (None, Some(BASE + bytes));
        })
    };
    assert_eq!(range(need - 1), refused(Refusal::Memory { found: need - 1, wanted: need }));
    assert_eq!(range(need), unknown(Unknown::Memory));
    assert_eq!(range(64 << 20), unknown(Unknown::Memory));
    assert_eq!(after(|world| world.facts.seamrr_end = Some(BASE)), [], "P-SEAMLDR's base is known");
}

#[test]
fn image_of_the_2_0_line_is_refused_by_p_seamldr_1_5() {
    let on = |major, minor, version: u8| {
        after(|world| {
            world.facts.p_seamldr = Some(SeamldrVersion { major, minor });
            world.sigstruct.reserved3[3] = version;
        })
    };
    for version in [2, 3, 0xff] {
        let too_old = Refusal::SeamldrTooOld { found: SeamldrVersion { major: 1, minor: 5 } };
        assert_eq!(on(1, 5, version), refused(too_old));
        assert_eq!(on(2, 0, version), []);
    }
    assert_eq!(on(1, 5, 1), refused(Refusal::SigstructReserved { offset: 1003, found: 1 }));
    assert_eq!(on(1, 0xffff, 2).len(), 1, "2.0 is the first version that takes such an image");
    let both = after(|world| {
        world.facts.p_seamldr = Some(SeamldrVersion { major: 1, minor: 5 });
        (world.sigstruct.reserved3[0], world.sigstruct.reserved3[3]) = (7, 2);
    });
    assert_eq!(
        both.iter().map(Finding::code).collect::<Vec<_>>(),
        ["seamldr-too-old"],
        "reported once"
    );
}
