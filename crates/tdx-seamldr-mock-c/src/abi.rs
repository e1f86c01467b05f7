//! Intel's definitions for C: leaves, statuses and structures.

use tdx_seamldr_core::abi::SeamExtend;

/// SEAMLDR.INFO: describe P-SEAMLDR and the module. RCX: a tdx_sim_seamldr_info, aligned to 256
/// bytes.
pub const TDX_SIM_SEAMLDR_INFO: u64 = 0x8000_0000_0000_0000;
/// SEAMLDR.INSTALL: install a module. Each LP calls once. RCX: a tdx_sim_seamldr_params, aligned to
/// 4096 bytes. RDX becomes 0, or 1 for a failure that destroys the module.
pub const TDX_SIM_SEAMLDR_INSTALL: u64 = 0x8000_0000_0000_0001;
/// SEAMLDR.SHUTDOWN: shut P-SEAMLDR down. Each LP calls once.
pub const TDX_SIM_SEAMLDR_SHUTDOWN: u64 = 0x8000_0000_0000_0002;
/// SEAMLDR.SEAMINFO: copy the platform's table of 2048 bytes to the address in RCX.
pub const TDX_SIM_SEAMLDR_SEAMINFO: u64 = 0x8000_0000_0000_0003;
/// SEAMLDR.CLEANUP: wipe keys and caches. Each LP calls once, and again after EINTERRUPT. Only the
/// generation after 1.5.00 has it.
pub const TDX_SIM_SEAMLDR_CLEANUP: u64 = 0x8000_0000_0000_0004;

/// TDH.SYS.KEY.CONFIG: set up the module's key on one package.
pub const TDX_SIM_TDH_SYS_KEY_CONFIG: u64 = 31;
/// TDH.SYS.INFO: read the module's description in its older form.
pub const TDX_SIM_TDH_SYS_INFO: u64 = 32;
/// TDH.SYS.INIT: initialise the module, once.
pub const TDX_SIM_TDH_SYS_INIT: u64 = 33;
/// TDH.SYS.RD: read one metadata field. RDX: id of the field. R8 returns the value.
pub const TDX_SIM_TDH_SYS_RD: u64 = 34;
/// TDH.SYS.LP.INIT: initialise the module on the calling LP.
pub const TDX_SIM_TDH_SYS_LP_INIT: u64 = 35;
/// TDH.SYS.TDMR.INIT: initialise the next part of a TDMR.
pub const TDX_SIM_TDH_SYS_TDMR_INIT: u64 = 36;
/// TDH.SYS.RDALL: read all metadata fields.
pub const TDX_SIM_TDH_SYS_RDALL: u64 = 37;
/// TDH.SYS.LP.SHUTDOWN: does nothing.
pub const TDX_SIM_TDH_SYS_LP_SHUTDOWN: u64 = 44;
/// TDH.SYS.CONFIG: configure the module with TDMRs and a KeyID.
pub const TDX_SIM_TDH_SYS_CONFIG: u64 = 45;
/// TDH.SYS.SHUTDOWN: shut the module down and write handoff data. RCX: version of the handoff data.
pub const TDX_SIM_TDH_SYS_SHUTDOWN: u64 = 52;
/// TDH.SYS.UPDATE: restore the handoff data of the previous module.
pub const TDX_SIM_TDH_SYS_UPDATE: u64 = 53;

/// Field id of the highest handoff version of a module, for TDH.SYS.RD.
pub const TDX_SIM_FIELD_MODULE_HV: u64 = 0x8900_0001_0000_0000;
/// Field id of TDX_FEATURES0, for TDH.SYS.RD.
pub const TDX_SIM_FIELD_TDX_FEATURES0: u64 = 0x0a00_0003_0000_0008;

/// P-SEAMLDR: a parameter is wrong, the leaf is unknown, or the image cannot be relocated.
pub const TDX_SIM_SEAMLDR_EBADPARAM: u64 = 0x8000_0000_0000_0000;
/// P-SEAMLDR: the call comes at the wrong time, no update remains, or the major SVN differs.
pub const TDX_SIM_SEAMLDR_EBADCALL: u64 = 0x8000_0000_0000_0003;
/// P-SEAMLDR: the handoff data is missing, too large, or of a version that the new module does not
/// accept.
pub const TDX_SIM_SEAMLDR_EBADHANDOFF: u64 = 0x8000_0000_0000_0004;
/// P-SEAMLDR: keys or caches are dirty; call SEAMLDR.CLEANUP first.
pub const TDX_SIM_SEAMLDR_ECLEANUPREQ: u64 = 0x8000_0000_0000_0005;
/// P-SEAMLDR: the major SVN of the image is 0, or differs from the running module's.
pub const TDX_SIM_SEAMLDR_EUNSUPPORTED: u64 = 0x8000_0000_0000_0006;
/// P-SEAMLDR: the module does not fit into the SEAM range.
pub const TDX_SIM_SEAMLDR_ENOMEM: u64 = 0x8000_0000_0001_0002;
/// P-SEAMLDR: the x2APIC id is out of range, or RDRAND failed at the first entry.
pub const TDX_SIM_SEAMLDR_EUNSPECERR: u64 = 0x8000_0000_0001_0003;
/// P-SEAMLDR: a processor is not in the image's list of CPUs.
pub const TDX_SIM_SEAMLDR_EUNSUPCPU: u64 = 0x8000_0000_0001_0004;
/// P-SEAMLDR: a field of the SIGSTRUCT, the signer, the SVN or the signature is invalid.
pub const TDX_SIM_SEAMLDR_EBADSIG: u64 = 0x8000_0000_0002_0000;
/// P-SEAMLDR: the hash of the module is not the signed one.
pub const TDX_SIM_SEAMLDR_EBADHASH: u64 = 0x8000_0000_0002_0001;
/// P-SEAMLDR: an interrupt is pending; call again.
pub const TDX_SIM_SEAMLDR_EINTERRUPT: u64 = 0x8000_0000_0003_0000;
/// P-SEAMLDR: RDRAND failed.
pub const TDX_SIM_SEAMLDR_ENOENTROPY: u64 = 0x8000_0000_0003_0001;

/// Module: an operand is invalid. The low 32 bits name the operand.
pub const TDX_SIM_TDX_OPERAND_INVALID: u64 = 0xc000_0100_0000_0000;
/// Module: another LP is inside the module, or holds its global lock.
pub const TDX_SIM_TDX_SYS_BUSY: u64 = 0x8000_0202_0000_0000;
/// Module: RDRAND failed.
pub const TDX_SIM_TDX_RND_NO_ENTROPY: u64 = 0x8000_0203_0000_0000;
/// Module: the module is already initialised.
pub const TDX_SIM_TDX_SYS_INIT_NOT_PENDING: u64 = 0xc000_0500_0000_0000;
/// Module: this LP is not initialised.
pub const TDX_SIM_TDX_SYS_LP_INIT_NOT_DONE: u64 = 0xc000_0502_0000_0000;
/// Module: this LP is already initialised.
pub const TDX_SIM_TDX_SYS_LP_INIT_DONE: u64 = 0xc000_0503_0000_0000;
/// Module: the module is not ready for this call.
pub const TDX_SIM_TDX_SYS_NOT_READY: u64 = 0xc000_0505_0000_0000;
/// Module: the module was shut down.
pub const TDX_SIM_TDX_SYS_SHUTDOWN: u64 = 0xc000_0506_0000_0000;
/// Module: the module is in another state, or an LP is not initialised.
pub const TDX_SIM_TDX_SYS_STATE_INCORRECT: u64 = 0xc000_0508_0000_0000;
/// Module: there is no handoff data, or the module does not accept its version.
pub const TDX_SIM_TDX_SYS_INVALID_HANDOFF: u64 = 0xc000_0509_0000_0000;
/// Module: the handoff versions or pages in the SIGSTRUCT differ from the module's own.
pub const TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT: u64 = 0xc000_050a_0000_0000;
/// Module: the module does not wait for LPs.
pub const TDX_SIM_TDX_SYS_LP_INIT_NOT_PENDING: u64 = 0xc000_050b_0000_0000;
/// Module: SEAMOPS capabilities are missing, or differ between LPs.
pub const TDX_SIM_TDX_INCOMPATIBLE_SEAM_CAPABILITIES: u64 = 0xc000_050d_0000_0000;
/// Module: TDs are in build, or a migration is interrupted. Bits 15:0: reason; bits 31:16: number.
pub const TDX_SIM_TDX_UPDATE_COMPATIBILITY_SENSITIVE: u64 = 0x8000_0512_0000_0000;
/// Module: an MSR differs between LPs. The low 32 bits are its number.
pub const TDX_SIM_TDX_INCONSISTENT_MSR: u64 = 0xc000_0920_0000_0000;

/// SEAMLDR.INSTALL: discard all TDs.
pub const TDX_SIM_SCENARIO_LOAD: u32 = 0;
/// SEAMLDR.INSTALL: keep the handoff data of the module that was shut down.
pub const TDX_SIM_SCENARIO_UPDATE: u32 = 1;

/// The most pages of a module.
pub const TDX_SIM_MAX_MODULE_PAGES: usize = 496;

/// The most CPUs in the list of a SIGSTRUCT.
pub const TDX_SIM_MAX_CPUS: usize = 255;

/// Size of the area for handoff data in bytes, including its header.
pub const TDX_SIM_HANDOFF_SIZE: usize = 131_072;

/// SEAMLDR_PARAMS, the parameters of SEAMLDR.INSTALL. The address has to be a multiple of 4096.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimSeamldrParams {
    /// 0.
    pub version: u32,
    /// TDX_SIM_SCENARIO_LOAD or TDX_SIM_SCENARIO_UPDATE.
    pub scenario: u32,
    /// Physical address of the SIGSTRUCT, a multiple of 4096.
    pub sigstruct_pa: u64,
    /// 0.
    pub reserved: [u8; 104],
    /// Number of pages of the module.
    pub num_module_pages: u64,
    /// Physical address of each page of the module, a multiple of 4096.
    pub module_page_pa: [u64; TDX_SIM_MAX_MODULE_PAGES],
}

/// SEAMEXTEND: the installed module, as the processor attests it. 136 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimSeamextend {
    /// 0x1ff if a module was installed, 0 without a module.
    pub valid: u64,
    /// Byte 0: minor SVN; byte 1: major SVN.
    pub tee_tcb_svn: [u8; 16],
    /// SHA-384 of the module.
    pub mrseam: [u8; 48],
    /// SHA-384 of the signer; 0 for Intel's own modules.
    pub mrsigner: [u8; 48],
    /// Attributes of the module.
    pub attributes: u64,
    /// 1 while the module can be called.
    pub seam_ready: u8,
    /// Not 0 if the system is being debugged.
    pub system_under_debug: u8,
    /// 1 while P-SEAMLDR can be called.
    pub p_seamldr_ready: u8,
    /// Reserved.
    pub reserved: [u8; 5],
}

impl From<SeamExtend> for TdxSimSeamextend {
    fn from(register: SeamExtend) -> Self {
        let SeamExtend {
            tee_tcb_svn,
            mrseam,
            mrsigner,
            seam_ready,
            system_under_debug,
            p_seamldr_ready,
            ..
        } = register;
        Self {
            valid: register.valid.get(),
            tee_tcb_svn,
            mrseam,
            mrsigner,
            attributes: register.attributes.get(),
            seam_ready,
            system_under_debug,
            p_seamldr_ready,
            reserved: register.reserved,
        }
    }
}

impl From<TdxSimSeamextend> for SeamExtend {
    fn from(register: TdxSimSeamextend) -> Self {
        let TdxSimSeamextend { tee_tcb_svn, mrseam, mrsigner, reserved, .. } = register;
        let TdxSimSeamextend { seam_ready, system_under_debug, p_seamldr_ready, .. } = register;
        Self {
            valid: register.valid.into(),
            tee_tcb_svn,
            mrseam,
            mrsigner,
            attributes: register.attributes.into(),
            seam_ready,
            system_under_debug,
            p_seamldr_ready,
            reserved,
        }
    }
}

/// SEAMLDR_INFO, the result of SEAMLDR.INFO. The address has to be a multiple of 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimSeamldrInfo {
    /// 0.
    pub version: u32,
    /// Bit 31: P-SEAMLDR is a debug build.
    pub attributes: u32,
    /// 0x8086.
    pub vendor: u32,
    /// Build date, YYYYMMDD, a decimal number.
    pub build_date: u32,
    /// Build number.
    pub build_num: u16,
    /// Minor version.
    pub minor: u16,
    /// Major version.
    pub major: u16,
    /// Update version.
    pub update: u16,
    /// x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last.
    pub acm_x2apicid: u32,
    /// Modules that P-SEAMLDR can still install.
    pub num_remaining_updates: u32,
    /// A copy of the register.
    pub seamextend: TdxSimSeamextend,
    /// Bit 1: there is SEAMLDR.CLEANUP.
    pub features0: u64,
    /// Reserved.
    pub reserved: [u8; 80],
}

/// SIGSTRUCT: the signed properties of a module. 2048 bytes. Misaligned numbers are arrays of
/// bytes, little-endian.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimSigstruct {
    /// 6.
    pub header_type: u32,
    /// 0xe1.
    pub header_length: u32,
    /// 0x10000.
    pub header_version: u32,
    /// Bit 31: a debug module.
    pub module_type: u32,
    /// 0x8086.
    pub module_vendor: u32,
    /// YYYYMMDD, one hexadecimal digit each.
    pub date: u32,
    /// Size of this structure in words of 32 bits: 0x200.
    pub words: u32,
    /// Size of the key in words: 0x60.
    pub key_words: u32,
    /// Size of the modulus in words: 0x60.
    pub modulus_words: u32,
    /// Size of the exponent in words: 1.
    pub exponent_words: u32,
    /// 0.
    pub reserved0: [u8; 88],
    /// Modulus of the key, little-endian.
    pub modulus: [u8; 384],
    /// Exponent of the key: 0x10001.
    pub exponent: u32,
    /// Signature, little-endian.
    pub signature: [u8; 384],
    /// SHA-384 of the module.
    pub seamhash: [u8; 48],
    /// Minor SVN.
    pub svn_minor: u8,
    /// Major SVN.
    pub svn_major: u8,
    /// 0.
    pub attributes: [u8; 8],
    /// Offset of the module's entry point.
    pub rip_offset: [u8; 4],
    /// Stack pages of each LP, minus one.
    pub num_stack_pages: u8,
    /// Thread-local pages of each LP, minus one.
    pub num_tls_pages: u8,
    /// Keyhole pages of each LP, minus one.
    pub num_keyhole_pages: u16,
    /// Global data pages, minus one.
    pub num_global_data_pages: u16,
    /// Highest number of TDMRs.
    pub max_tdmrs: u16,
    /// Highest number of reserved areas of a TDMR.
    pub max_reserved_per_tdmr: u16,
    /// Bytes of a PAMT entry for 4 KiB.
    pub pamt_4k_entry_size: u16,
    /// Bytes of a PAMT entry for 2 MiB.
    pub pamt_2m_entry_size: u16,
    /// Bytes of a PAMT entry for 1 GiB.
    pub pamt_1g_entry_size: u16,
    /// 0.
    pub reserved1: [u8; 6],
    /// Highest handoff version.
    pub module_hv: u16,
    /// Lowest handoff version.
    pub min_update_hv: u16,
    /// Not 0: the module writes its highest handoff version only.
    pub no_downgrade: u8,
    /// 0.
    pub reserved2: u8,
    /// Pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// Offset of the GDT and the IDT in the module, a multiple of 4096; or 0.
    pub gdt_idt_offset: u32,
    /// Offset of the fault wrappers in the module, or 0.
    pub fault_wrapper_offset: u32,
    /// 0.
    pub reserved3: [u8; 24],
    /// Entries in the list of CPUs.
    pub num_cpus: u32,
    /// CPUs that the module runs on: CPUID.1:EAX without the stepping.
    pub cpus: [u32; TDX_SIM_MAX_CPUS],
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;
    use tdx_seamldr_core::abi::{
        FieldId, Scenario, SeamSigstruct, SeamldrInfo, SeamldrLeaf, SeamldrParams,
    };
    use tdx_seamldr_core::abi::{
        SeamldrStatus, TdxLeaf, TdxStatus, MAX_CPUID_ENTRIES, MAX_MODULE_PAGES,
    };
    use tdx_seamldr_mock::model::HANDOFF_STORAGE;

    #[test]
    fn constants_equal_those_of_the_library() {
        let seamldr_leaves = [
            TDX_SIM_SEAMLDR_INFO,
            TDX_SIM_SEAMLDR_INSTALL,
            TDX_SIM_SEAMLDR_SHUTDOWN,
            TDX_SIM_SEAMLDR_SEAMINFO,
            TDX_SIM_SEAMLDR_CLEANUP,
        ];
        assert_eq!(seamldr_leaves, SeamldrLeaf::ALL.map(SeamldrLeaf::rax));
        for (number, leaf) in [
            (TDX_SIM_TDH_SYS_KEY_CONFIG, TdxLeaf::SYS_KEY_CONFIG),
            (TDX_SIM_TDH_SYS_INFO, TdxLeaf::SYS_INFO),
            (TDX_SIM_TDH_SYS_INIT, TdxLeaf::SYS_INIT),
            (TDX_SIM_TDH_SYS_RD, TdxLeaf::SYS_RD),
            (TDX_SIM_TDH_SYS_LP_INIT, TdxLeaf::SYS_LP_INIT),
            (TDX_SIM_TDH_SYS_TDMR_INIT, TdxLeaf::SYS_TDMR_INIT),
            (TDX_SIM_TDH_SYS_RDALL, TdxLeaf::SYS_RDALL),
            (TDX_SIM_TDH_SYS_LP_SHUTDOWN, TdxLeaf::SYS_LP_SHUTDOWN),
            (TDX_SIM_TDH_SYS_CONFIG, TdxLeaf::SYS_CONFIG),
            (TDX_SIM_TDH_SYS_SHUTDOWN, TdxLeaf::SYS_SHUTDOWN),
            (TDX_SIM_TDH_SYS_UPDATE, TdxLeaf::SYS_UPDATE),
        ] {
            assert_eq!(number, leaf.rax(0));
        }
        let seamldr = [
            TDX_SIM_SEAMLDR_EBADPARAM,
            TDX_SIM_SEAMLDR_EBADCALL,
            TDX_SIM_SEAMLDR_EBADHANDOFF,
            TDX_SIM_SEAMLDR_ECLEANUPREQ,
            TDX_SIM_SEAMLDR_EUNSUPPORTED,
            TDX_SIM_SEAMLDR_ENOMEM,
            TDX_SIM_SEAMLDR_EUNSPECERR,
            TDX_SIM_SEAMLDR_EUNSUPCPU,
            TDX_SIM_SEAMLDR_EBADSIG,
            TDX_SIM_SEAMLDR_EBADHASH,
            TDX_SIM_SEAMLDR_EINTERRUPT,
            TDX_SIM_SEAMLDR_ENOENTROPY,
        ];
        assert!(SeamldrStatus::TABLE.iter().skip(1).map(|row| row.status.0).eq(seamldr));
        for (number, status) in [
            (TDX_SIM_TDX_OPERAND_INVALID, TdxStatus::OPERAND_INVALID),
            (TDX_SIM_TDX_SYS_BUSY, TdxStatus::SYS_BUSY),
            (TDX_SIM_TDX_RND_NO_ENTROPY, TdxStatus::RND_NO_ENTROPY),
            (TDX_SIM_TDX_SYS_INIT_NOT_PENDING, TdxStatus::SYS_INIT_NOT_PENDING),
            (TDX_SIM_TDX_SYS_LP_INIT_NOT_DONE, TdxStatus::SYS_LP_INIT_NOT_DONE),
            (TDX_SIM_TDX_SYS_LP_INIT_DONE, TdxStatus::SYS_LP_INIT_DONE),
            (TDX_SIM_TDX_SYS_NOT_READY, TdxStatus::SYS_NOT_READY),
            (TDX_SIM_TDX_SYS_SHUTDOWN, TdxStatus::SYS_SHUTDOWN),
            (TDX_SIM_TDX_SYS_STATE_INCORRECT, TdxStatus::SYS_STATE_INCORRECT),
            (TDX_SIM_TDX_SYS_INVALID_HANDOFF, TdxStatus::SYS_INVALID_HANDOFF),
            (TDX_SIM_TDX_SYS_INCOMPATIBLE_SIGSTRUCT, TdxStatus::SYS_INCOMPATIBLE_SIGSTRUCT),
            (TDX_SIM_TDX_SYS_LP_INIT_NOT_PENDING, TdxStatus::SYS_LP_INIT_NOT_PENDING),
            (TDX_SIM_TDX_INCOMPATIBLE_SEAM_CAPABILITIES, TdxStatus::INCOMPATIBLE_SEAM_CAPABILITIES),
            (TDX_SIM_TDX_UPDATE_COMPATIBILITY_SENSITIVE, TdxStatus::UPDATE_COMPATIBILITY_SENSITIVE),
            (TDX_SIM_TDX_INCONSISTENT_MSR, TdxStatus::INCONSISTENT_MSR),
        ] {
            assert_eq!(number, status.0);
        }
        assert_eq!(TDX_SIM_FIELD_MODULE_HV, FieldId::MODULE_HV.0);
        assert_eq!(TDX_SIM_FIELD_TDX_FEATURES0, FieldId::TDX_FEATURES0.0);
        assert_eq!(TDX_SIM_SCENARIO_LOAD, Scenario::Load.value());
        assert_eq!(TDX_SIM_SCENARIO_UPDATE, Scenario::Update.value());
        assert_eq!(TDX_SIM_MAX_MODULE_PAGES, MAX_MODULE_PAGES);
        assert_eq!(TDX_SIM_MAX_CPUS, MAX_CPUID_ENTRIES);
        assert_eq!(TDX_SIM_HANDOFF_SIZE, HANDOFF_STORAGE);
    }

    /// Asserts equal sizes, and equal offsets of these fields.
    macro_rules! same_layout {
        ($ours:ty, $theirs:ty, $($field:ident = $their_field:ident),* $(,)?) => {
            assert_eq!(size_of::<$ours>(), size_of::<$theirs>());
            $(assert_eq!(offset_of!($ours, $field), offset_of!($theirs, $their_field),
                stringify!($field));)*
        };
    }

    #[test]
    fn structures_have_the_layout_of_the_library() {
        same_layout!(
            TdxSimSeamldrParams,
            SeamldrParams,
            version = version,
            scenario = scenario,
            sigstruct_pa = sigstruct_pa,
            reserved = reserved,
            num_module_pages = num_module_pages,
            module_page_pa = module_page_pa
        );
        same_layout!(
            TdxSimSeamextend,
            SeamExtend,
            valid = valid,
            tee_tcb_svn = tee_tcb_svn,
            mrseam = mrseam,
            mrsigner = mrsigner,
            attributes = attributes,
            seam_ready = seam_ready,
            system_under_debug = system_under_debug,
            p_seamldr_ready = p_seamldr_ready,
            reserved = reserved
        );
        same_layout!(
            TdxSimSeamldrInfo,
            SeamldrInfo,
            version = version,
            attributes = attributes,
            vendor = vendor,
            build_date = build_date,
            build_num = build_num,
            minor = minor,
            major = major,
            update = update,
            acm_x2apicid = acm_x2apicid,
            num_remaining_updates = num_remaining_updates,
            seamextend = seamextend,
            features0 = features0,
            reserved = reserved
        );
        same_layout!(
            TdxSimSigstruct,
            SeamSigstruct,
            header_type = header_type,
            header_length = header_length,
            header_version = header_version,
            module_type = module_type,
            module_vendor = module_vendor,
            date = date,
            words = size,
            key_words = key_size,
            modulus_words = modulus_size,
            exponent_words = exponent_size,
            reserved0 = reserved0,
            modulus = modulus,
            exponent = exponent,
            signature = signature,
            seamhash = seamhash,
            svn_minor = svn_minor,
            svn_major = svn_major,
            attributes = attributes,
            rip_offset = rip_offset,
            num_stack_pages = num_stack_pages,
            num_tls_pages = num_tls_pages,
            num_keyhole_pages = num_keyhole_pages,
            num_global_data_pages = num_global_data_pages,
            max_tdmrs = max_tdmrs,
            max_reserved_per_tdmr = max_reserved_per_tdmr,
            pamt_4k_entry_size = pamt_4k_entry_size,
            pamt_2m_entry_size = pamt_2m_entry_size,
            pamt_1g_entry_size = pamt_1g_entry_size,
            reserved1 = reserved1,
            module_hv = module_hv,
            min_update_hv = min_update_hv,
            no_downgrade = no_downgrade,
            reserved2 = reserved2,
            num_handoff_pages = num_handoff_pages,
            gdt_idt_offset = gdt_idt_offset,
            fault_wrapper_offset = fault_wrapper_offset,
            reserved3 = reserved3,
            num_cpus = cpuid_table_size,
            cpus = cpuid_table
        );
    }
}
