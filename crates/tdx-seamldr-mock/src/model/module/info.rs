//! TDH.SYS.INFO and TDH.SYS.RDALL: all information about the module at once.

use tdx_seamldr_core::abi::{FieldId, OperandId, TdxStatus};
use tdx_seamldr_core::SeamcallRegs;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromZeros as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::cpuid_rules::CPUID_CONFIGS;
use super::fields::{self, Reading, ATTRIBUTES_FIXED0, XFAM_FIXED1};
use super::{about, CallContext, Fatal, SeamMemory, TdxModule};

/// A configurable CPUID leaf: leaf, subleaf, and the bits of EAX, EBX, ECX and EDX.
type CpuidConfig = [U32; 6];

/// TDSYSINFO_STRUCT.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct TdSysInfo {
    attributes: U32,
    vendor: U32,
    build_date: U32,
    build_num: U16,
    minor: U16,
    major: U16,
    update: U16,
    internal: U16,
    reserved0: [u8; 10],
    max_tdmrs: U16,
    max_reserved_per_tdmr: U16,
    pamt_entry_size: U16,
    reserved1: [u8; 10],
    tdcs_base_size: U16,
    reserved2: [u8; 2],
    tdvps_base_size: U16,
    reserved3: [u8; 10],
    attributes_fixed0: U64,
    attributes_fixed1: U64,
    xfam_fixed0: U64,
    xfam_fixed1: U64,
    reserved4: [u8; 32],
    num_cpuid_configs: U32,
    cpuid_configs: [CpuidConfig; 12],
    reserved5: [u8; 604],
}

const INFO_SIZE: usize = size_of::<TdSysInfo>();
const _: () = assert!(INFO_SIZE == 1024);
/// Number of entries of the list of convertible memory.
const NUM_CMRS: u64 = 32;

impl TdxModule {
    pub(super) fn sys_info(
        &self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<(), TdxStatus> {
        /// Alignment of the list of convertible memory.
        const CMRS_ALIGNMENT: u64 = 512;
        let (size, count) = (regs.rdx, regs.r9);
        let invalid = |operand| Err(about(TdxStatus::OPERAND_INVALID, operand));
        (regs.rdx, regs.r9) = (0, 0);
        if !self.is_lp_initialized(context.lp) {
            return Err(TdxStatus::SYS_LP_INIT_NOT_DONE);
        }
        let info_size = u64::try_from(INFO_SIZE).unwrap_or(u64::MAX);
        if !self.is_shared(context, regs.rcx, info_size) {
            return invalid(OperandId::RCX);
        }
        if size < info_size {
            return invalid(OperandId::RDX);
        }
        // The module zeroes the first buffer before it checks the second one.
        let mut info = TdSysInfo::new_zeroed();
        context.host.write(regs.rcx, info.as_bytes());
        if !self.is_shared(context, regs.r8, CMRS_ALIGNMENT) {
            return invalid(OperandId::R8);
        }
        if count < NUM_CMRS {
            return invalid(OperandId::R9);
        }
        info.vendor = U32::new(0x8086);
        info.build_date = U32::new(self.build.build_date);
        info.build_num = U16::new(self.build.build_num);
        info.major = U16::new(self.build.version.major);
        info.minor = U16::new(self.build.version.minor);
        info.update = U16::new(self.build.version.update);
        info.internal = U16::new(self.build.internal_version);
        info.max_tdmrs = U16::new(64);
        info.max_reserved_per_tdmr = U16::new(16);
        info.pamt_entry_size = U16::new(16);
        (info.tdcs_base_size, info.tdvps_base_size) = (U16::new(0x6000), U16::new(0x6000));
        let view = self.view(context.memory);
        info.attributes_fixed0 = U64::new(ATTRIBUTES_FIXED0);
        (info.xfam_fixed0, info.xfam_fixed1) =
            (U64::new(view.xfam_fixed0()), U64::new(XFAM_FIXED1));
        info.num_cpuid_configs = U32::new(12);
        for (slot, config) in info.cpuid_configs.iter_mut().zip(&CPUID_CONFIGS) {
            let [eax, ebx, ecx, edx] = view.config_bits(config);
            *slot = [config.leaf, config.subleaf, eax, ebx, ecx, edx].map(U32::new);
        }
        context.host.write(regs.rcx, info.as_bytes());
        context.host.write(regs.r8, context.memory.mcheck_table.cmrs.as_bytes());
        (regs.rdx, regs.r9) = (info_size, NUM_CMRS);
        Ok(())
    }

    pub(super) fn sys_rdall(
        &self,
        regs: &mut SeamcallRegs,
        context: &mut CallContext<'_>,
    ) -> Result<TdxStatus, Fatal> {
        let from = regs.r8;
        regs.r8 = FieldId::NULL.0;
        if !self.is_lp_initialized(context.lp) {
            return Ok(TdxStatus::SYS_LP_INIT_NOT_DONE);
        }
        if !self.is_shared(context, regs.rdx, 4096) {
            return Ok(about(TdxStatus::OPERAND_INVALID, OperandId::RDX));
        }
        let SeamMemory { mcheck_table, sampled, handoff, page, .. } = &mut *context.memory;
        let view = self.view_of(mcheck_table, sampled, handoff);
        let first = match fields::element(&view, from)? {
            Reading::None => return Ok(TdxStatus::METADATA_FIELD_ID_INCORRECT),
            Reading::First(first) => first,
            Reading::Element { .. } => from,
        };
        // The list starts with its size and the number of sequences. A sequence starts with the id
        // of its first element, the elements of a field minus one, and the fields minus one. A word
        // for each element follows.
        page.fill(0);
        let mut list = List { page, at: 8 };
        let (mut sequences, mut header_at, mut elements, mut begin, mut before) =
            (0u16, 0, 0u64, 0, None);
        let mut id = first;
        while let Reading::Element { value, next, last_element } = fields::element(&view, id)? {
            if !before.is_some_and(|before| fields::follows(before, id)) {
                (header_at, elements, begin) = (list.at, 0, id);
                sequences = sequences.saturating_add(1);
                list.at = list.at.saturating_add(8);
            }
            let fields = elements.checked_div(last_element.saturating_add(1)).unwrap_or(0);
            list.put(header_at, &(begin | last_element << 34 | fields << 38).to_le_bytes());
            list.put(list.at, &value.to_le_bytes());
            list.at = list.at.saturating_add(8);
            elements = elements.saturating_add(1);
            before = Some(id);
            id = next;
        }
        let size = u16::try_from(list.at).unwrap_or(u16::MAX);
        list.put(0, &size.to_le_bytes());
        list.put(2, &sequences.to_le_bytes());
        context.host.write(regs.rdx, page);
        Ok(TdxStatus::SUCCESS)
    }
}

/// A list of metadata under construction.
struct List<'a> {
    page: &'a mut [u8; 4096],
    at: usize,
}

impl List<'_> {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        let slots = self.page.iter_mut().skip(at);
        slots.zip(bytes).for_each(|(slot, byte)| *slot = *byte);
    }
}
