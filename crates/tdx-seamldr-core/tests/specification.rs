//! Numbers and structures, copied from the specification a second time. Those of the library must
//! be the same.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::cast_possible_truncation,
    missing_docs
)]

use tdx_seamldr_core::abi::{
    FieldId, HandoffHeader, OperandId, PSysInfo, Scenario, SeamSigstruct, SeamldrFeatures0,
    SeamldrInfo,
};
use tdx_seamldr_core::abi::{SeamldrLeaf, SeamldrParams, Svn, TdxFeatures0, TdxLeaf, TdxStatus};
use zerocopy::FromBytes;

/// Returns `count` bytes in which no two words are the same: each byte is the low byte of its
/// offset plus three times the high byte.
fn bytes(count: usize) -> Vec<u8> {
    (0..count).map(|offset| (offset % 256 + offset / 256 * 3) as u8).collect()
}

/// Returns the number at this offset of [`bytes`].
fn at(offset: usize, size: usize) -> u64 {
    let bytes = bytes(offset + size);
    bytes[offset..].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// Returns the array at this offset of [`bytes`].
fn array<const N: usize>(offset: usize) -> [u8; N] {
    bytes(offset + N)[offset..].try_into().unwrap()
}

#[test]
fn leaf_numbers_match_the_specification() {
    let leaves = SeamldrLeaf::ALL.map(|leaf| (leaf.name(), leaf.rax()));
    let expected = [
        ("SEAMLDR.INFO", 0x8000000000000000),
        ("SEAMLDR.INSTALL", 0x8000000000000001),
        ("SEAMLDR.SHUTDOWN", 0x8000000000000002),
        ("SEAMLDR.SEAMINFO", 0x8000000000000003),
        ("SEAMLDR.CLEANUP", 0x8000000000000004),
    ];
    assert_eq!(leaves, expected);
    let leaves: Vec<_> = TdxLeaf::TABLE.iter().map(|(leaf, name)| (*name, leaf.rax(0))).collect();
    let expected = [
        ("TDH.SYS.KEY.CONFIG", 31),
        ("TDH.SYS.INFO", 32),
        ("TDH.SYS.INIT", 33),
        ("TDH.SYS.RD", 34),
        ("TDH.SYS.LP.INIT", 35),
        ("TDH.SYS.TDMR.INIT", 36),
        ("TDH.SYS.RDALL", 37),
        ("TDH.SYS.LP.SHUTDOWN", 44),
        ("TDH.SYS.CONFIG", 45),
        ("TDH.SYS.SHUTDOWN", 52),
        ("TDH.SYS.UPDATE", 53),
        ("TDH.SYS.DISABLE", 69),
    ];
    assert_eq!(leaves, expected);
}

#[test]
fn feature_bits_match_the_specification() {
    type F = TdxFeatures0;
    let bits = [
        (0, F::TD_MIGRATION),
        (1, F::TD_PRESERVING),
        (2, F::SERVICE_TD),
        (3, F::TDG_VP_RD_WR),
        (4, F::RELAXED_MEM_MNG),
        (5, F::CPUID_GUEST_CONTROL),
        (7, F::TD_PARTITIONING),
        (8, F::LOCAL_ATTESTATION),
        (9, F::TD_ENTRY_ENHANCEMENTS),
        (10, F::HOST_PRIORITY_LOCKS),
        (11, F::CONFIG_IA32_ARCH_CAPABILITIES),
        (16, F::PENDING_EPT_VIOLATION_V2),
        (17, F::FMS_CONFIG),
        (18, F::NO_RBP_MOD),
        (19, F::L2_TLB_INVD_OPT),
        (20, F::TOPOLOGY_ENUM),
        (23, F::CLFLUSH_BEFORE_ALLOC),
        (36, F::DYNAMIC_PAMT),
        (47, F::UPDATE_COMPATIBILITY),
        (53, F::SYS_DISABLE),
    ];
    for (bit, feature) in bits {
        assert_eq!(feature.bits(), 1 << bit, "{feature:?}");
    }
    assert_eq!((SeamldrFeatures0::S4_MIG_API.bits(), SeamldrFeatures0::CLEANUP.bits()), (1, 2));
}

#[test]
fn metadata_field_ids_match_the_specification() {
    let fields: Vec<_> = FieldId::TABLE.iter().map(|row| (row.name, row.id.0)).collect();
    let expected = [
        ("VENDOR_ID", 0x0800000200000000),
        ("BUILD_DATE", 0x8800000200000001),
        ("BUILD_NUM", 0x8800000100000002),
        ("MINOR_VERSION", 0x0800000100000003),
        ("MAJOR_VERSION", 0x0800000100000004),
        ("UPDATE_VERSION", 0x0800000100000005),
        ("INTERNAL_VERSION", 0x0800000100000006),
        ("MODULE_HV", 0x8900000100000000),
        ("MIN_UPDATE_HV", 0x8900000100000001),
        ("NO_DOWNGRADE", 0x8900000000000002),
        ("NUM_HANDOFF_PAGES", 0x8900000100000003),
        ("HANDOFF_DATA_VALID", 0x8900000000000004),
        ("HANDOFF_DATA_HV", 0x8900000100000005),
        ("HANDOFF_DATA_SIZE", 0x8900000200000006),
        ("SYS_ATTRIBUTES", 0x0A00000200000000),
        ("NUM_TDX_FEATURES", 0x0A00000000000001),
        ("TDX_FEATURES0", 0x0A00000300000008),
        ("MAX_TDMRS", 0x9100000100000008),
        ("MAX_RESERVED_PER_TDMR", 0x9100000100000009),
        ("PAMT_4K_ENTRY_SIZE", 0x9100000100000010),
        ("PAMT_2M_ENTRY_SIZE", 0x9100000100000011),
        ("PAMT_1G_ENTRY_SIZE", 0x9100000100000012),
        ("PAMT_PAGE_BITMAP_ENTRY_BITS", 0x9100000100000013),
        ("TDR_BASE_SIZE", 0x9800000100000000),
        ("TDCS_BASE_SIZE", 0x9800000100000100),
        ("TDVPS_BASE_SIZE", 0x9800000100000200),
        ("NUM_PKGS", 0x0000000200000000),
        ("PKG_FMS", 0x0000000200000001),
        ("NULL", u64::MAX),
    ];
    assert_eq!(fields, expected);
}

#[test]
fn module_status_words_match_the_specification() {
    let words = [
        ("SUCCESS", 0),
        ("NON_RECOVERABLE_VCPU", 0x4000000100000000),
        ("NON_RECOVERABLE_TD", 0x6000000200000000),
        ("NON_RECOVERABLE_TD_LINUX", 0x4000000200000000),
        ("INTERRUPTED_RESUMABLE", 0x8000000300000000),
        ("INTERRUPTED_RESTARTABLE", 0x8000000400000000),
        ("OPERAND_INVALID", 0xC000010000000000),
        ("OPERAND_ADDR_RANGE_ERROR", 0xC000010100000000),
        ("OPERAND_BUSY", 0x8000020000000000),
        ("SYS_BUSY", 0x8000020200000000),
        ("RND_NO_ENTROPY", 0x8000020300000000),
        ("SYS_INIT_NOT_PENDING", 0xC000050000000000),
        ("SYS_LP_INIT_NOT_DONE", 0xC000050200000000),
        ("SYS_LP_INIT_DONE", 0xC000050300000000),
        ("SYS_NOT_READY", 0xC000050500000000),
        ("SYS_SHUTDOWN", 0xC000050600000000),
        ("SYS_KEY_CONFIG_NOT_PENDING", 0xC000050700000000),
        ("SYS_STATE_INCORRECT", 0xC000050800000000),
        ("SYS_INVALID_HANDOFF", 0xC000050900000000),
        ("SYS_INCOMPATIBLE_SIGSTRUCT", 0xC000050A00000000),
        ("SYS_LP_INIT_NOT_PENDING", 0xC000050B00000000),
        ("SYS_CONFIG_NOT_PENDING", 0xC000050C00000000),
        ("INCOMPATIBLE_SEAM_CAPABILITIES", 0xC000050D00000000),
        ("CRYPTO_SELF_TEST_FAILED", 0xC000051100000000),
        ("UPDATE_COMPATIBILITY_SENSITIVE", 0x8000051200000000),
        ("INCORRECT_CPUID_VALUE", 0xC000090000000000),
        ("LIMIT_CPUID_MAXVAL_SET", 0xC000090100000000),
        ("INCONSISTENT_CPUID_FIELD", 0xC000090200000000),
        ("INVALID_PKG_ID", 0xC000090600000000),
        ("CPUID_LEAF_NOT_SUPPORTED", 0xC000090800000000),
        ("SMRR_NOT_LOCKED", 0xC000091000000000),
        ("SMRR_NOT_SUPPORTED", 0xC000091400000000),
        ("INCONSISTENT_MSR", 0xC000092000000000),
        ("INCORRECT_MSR_VALUE", 0xC000092100000000),
        ("KEY_GENERATION_FAILED", 0x8000080000000000),
        ("KEY_CONFIGURED", 0x0000081500000000),
        ("METADATA_FIRST_FIELD_ID_IN_CONTEXT", 0x00000C0B00000000),
        ("SEAMCALL_VMFAILINVALID", 0x8000FF00FFFF0000),
        ("SEAMCALL_GP", 0x8000FF000000000D),
        ("SEAMCALL_UD", 0x8000FF0000000006),
    ];
    for (name, word) in words {
        assert_eq!(TdxStatus(word).name(), Some(name), "{word:#x}");
        let found: Vec<_> = TdxStatus::TABLE.iter().filter(|row| row.name == name).collect();
        assert!(matches!(found[..], [row] if row.status.0 == word), "{name}");
    }
}

#[test]
fn operand_ids_match_the_specification() {
    let operands: Vec<_> = OperandId::TABLE.iter().map(|(id, name)| (*name, id.0)).collect();
    let expected = [
        ("RAX", 0),
        ("RCX", 1),
        ("RDX", 2),
        ("R8", 8),
        ("R9", 9),
        ("R10", 10),
        ("TDR", 0x80),
        ("SEPT", 0x92),
        ("TD EPOCH", 0xA9),
    ];
    assert_eq!(operands, expected);
}

#[test]
fn layout_of_seamldr_info_matches_the_specification() {
    let info = SeamldrInfo::read_from_bytes(&bytes(256)).unwrap();
    let numbers = [
        (info.version.get(), 0),
        (info.attributes.get(), 4),
        (info.vendor.get(), 8),
        (info.build_date.get(), 12),
        (info.acm_x2apicid.get(), 24),
        (info.num_remaining_updates.get(), 28),
    ];
    assert!(
        numbers.iter().all(|(number, offset)| u64::from(*number) == at(*offset, 4)),
        "{numbers:x?}"
    );
    let numbers = [
        (info.build_num.get(), 16),
        (info.minor.get(), 18),
        (info.major.get(), 20),
        (info.update.get(), 22),
    ];
    assert!(
        numbers.iter().all(|(number, offset)| u64::from(*number) == at(*offset, 2)),
        "{numbers:x?}"
    );
    assert_eq!((info.features0.get(), info.features().bits()), (at(168, 8), at(168, 8)));

    let module = info.seamextend;
    assert_eq!((module.valid.get(), module.attributes.get()), (at(32, 8), at(152, 8)));
    assert_eq!(module.tee_tcb_svn, array(40));
    assert_eq!(module.svn(), Svn { minor: 40, major: 41 });
    assert_eq!((module.mrseam, module.mrsigner), (array(56), array(104)));
    let flags = [module.seam_ready, module.system_under_debug, module.p_seamldr_ready];
    assert_eq!(flags, [160, 161, 162]);
}

#[test]
fn layout_of_seamldr_params_matches_the_specification() {
    assert_eq!((Scenario::Load.value(), Scenario::Update.value()), (0, 1));
    let params = SeamldrParams::read_from_bytes(&bytes(4096)).unwrap();
    assert_eq!(
        [params.version, params.scenario].map(|it| u64::from(it.get())),
        [at(0, 4), at(4, 4)]
    );
    assert_eq!((params.sigstruct_pa.get(), params.num_module_pages.get()), (at(8, 8), at(120, 8)));
    assert_eq!((params.reserved, params.module_page_pa.len()), (array(16), 496));
    for (page, address) in params.module_page_pa.iter().enumerate() {
        assert_eq!(address.get(), at(128 + 8 * page, 8));
    }
}

#[test]
fn layout_of_the_handoff_header_matches_the_specification() {
    let header = HandoffHeader::read_from_bytes(&bytes(8)).unwrap();
    assert_eq!((header.valid, header.reserved), (0, 1));
    assert_eq!((u64::from(header.hv.get()), u64::from(header.size.get())), (at(2, 2), at(4, 4)));
}

#[test]
fn layout_of_p_sysinfo_matches_the_specification() {
    let table = PSysInfo::read_from_bytes(&bytes(2048)).unwrap();
    assert_eq!(table.version.get(), at(0, 8));
    let counts = [table.tot_num_lps, table.tot_num_sockets].map(|count| u64::from(count.get()));
    assert_eq!(counts, [at(8, 4), at(12, 4)]);
    let cpus = table.socket_cpuid.map(|cpuid| u64::from(cpuid.get()));
    assert_eq!(cpus, std::array::from_fn(|socket| at(16 + 4 * socket, 4)));
    assert_eq!((table.p_seamldr_base.get(), table.p_seamldr_size.get()), (at(48, 8), at(56, 8)));
    assert_eq!((table.smrr2_not_supported, table.tdx_without_integrity), (64, 65));
    assert_eq!(table.cmrs.len(), 32);
    // The table of CMRs begins at a multiple of 128 bytes.
    for (number, cmr) in table.cmrs.iter().enumerate() {
        let offset = 128 + 16 * number;
        assert_eq!((cmr.base.get(), cmr.size.get()), (at(offset, 8), at(offset + 8, 8)));
    }
}

#[test]
fn layout_of_the_sigstruct_matches_the_specification() {
    let it = SeamSigstruct::read_from_bytes(&bytes(2048)).unwrap();
    let words = [
        (it.header_type, 0),
        (it.header_length, 4),
        (it.header_version, 8),
        (it.module_type, 12),
        (it.module_vendor, 16),
        (it.date, 20),
        (it.size, 24),
        (it.key_size, 28),
        (it.modulus_size, 32),
        (it.exponent_size, 36),
        (it.exponent, 512),
        (it.rip_offset, 958),
        (it.gdt_idt_offset, 992),
        (it.fault_wrapper_offset, 996),
        (it.cpuid_table_size, 1024),
        (it.cpuid_table[0], 1028),
        (it.cpuid_table[254], 2044),
    ];
    for (number, offset) in words {
        assert_eq!(u64::from(number.get()), at(offset, 4), "{offset}");
    }
    let halves = [
        (it.num_keyhole_pages, 964),
        (it.num_global_data_pages, 966),
        (it.max_tdmrs, 968),
        (it.max_reserved_per_tdmr, 970),
        (it.pamt_4k_entry_size, 972),
        (it.pamt_2m_entry_size, 974),
        (it.pamt_1g_entry_size, 976),
        (it.module_hv, 984),
        (it.min_update_hv, 986),
        (it.num_handoff_pages, 990),
    ];
    for (number, offset) in halves {
        assert_eq!(u64::from(number.get()), at(offset, 2), "{offset}");
    }
    let single = [
        (it.svn_minor, 948),
        (it.svn_major, 949),
        (it.num_stack_pages, 962),
        (it.num_tls_pages, 963),
        (it.no_downgrade, 988),
        (it.reserved2, 989),
    ];
    for (number, offset) in single {
        assert_eq!(u64::from(number), at(offset, 1), "{offset}");
    }
    assert_eq!(it.attributes.get(), at(950, 8));
    assert_eq!((it.modulus, it.signature, it.seamhash), (array(128), array(516), array(900)));
    assert_eq!((it.reserved0, it.reserved1, it.reserved3), (array(40), array(978), array(1000)));
}
