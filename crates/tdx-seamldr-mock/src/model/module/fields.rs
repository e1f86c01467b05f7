//! TDH.SYS.RD: the metadata fields of module 1.5.01, in order, and one field of later modules that
//! Linux 7.2 reads.
//!
//! Fields about capabilities of processor and module have recorded values. Fields about this
//! platform and this module are read from them.

use tdx_seamldr_core::abi::{FieldId, HandoffHeader, PSysInfo, TdxFeatures0};

use super::cpuid_rules::{self, CpuidConfig, CPUID_CONFIGS};
use super::enumeration::Sampled;
use super::{Fatal, ModuleBuild, ModuleGeneration, SysInfo};

/// The sources of field values.
pub(super) struct View<'a> {
    pub(super) build: &'a ModuleBuild,
    pub(super) told: &'a SysInfo,
    pub(super) platform: &'a PSysInfo,
    /// The processor's registers, as TDH.SYS.INIT read them.
    pub(super) sampled: &'a Sampled,
    pub(super) header: HandoffHeader,
    pub(super) features0: TdxFeatures0,
}

/// A field: one element, or several with ascending codes.
struct Field {
    /// Id of the first element.
    id: u64,
    elements: usize,
    /// Number of elements of one field, minus one.
    last_element: u64,
    value: Value,
}

enum Value {
    /// The same value for every element.
    Always(u64),
    /// One value for each element.
    Listed(&'static [u64]),
    /// Read from the platform.
    Read(fn(&View<'_>, usize) -> u64),
    /// Number of processors that the module can present to a TD on this platform.
    NumAllowedFms,
    /// The processors that the module can present to a TD on this platform.
    AllowedFms,
}

const fn always(id: u64, value: u64) -> Field {
    Field { id, elements: 1, last_element: 0, value: Value::Always(value) }
}

const fn listed(id: u64, values: &'static [u64]) -> Field {
    Field { id, elements: values.len(), last_element: 0, value: Value::Listed(values) }
}

const fn read(id: FieldId, value: fn(&View<'_>, usize) -> u64) -> Field {
    Field { id: id.0, elements: 1, last_element: 0, value: Value::Read(value) }
}

const fn read_each(id: u64, elements: usize, value: fn(&View<'_>, usize) -> u64) -> Field {
    Field { id, elements, last_element: 0, value: Value::Read(value) }
}

/// Attributes that a TD may have, and extended features that a TD has to have.
pub(super) const ATTRIBUTES_FIXED0: u64 = 0x8000000070000001;
pub(super) const XFAM_FIXED1: u64 = 3;

impl View<'_> {
    /// Iterates over the fields that this module has.
    fn fields(&self) -> impl Iterator<Item = &'static Field> {
        let newer = self.build.generation >= ModuleGeneration::V1_5_05;
        FIELDS.iter().filter(move |field| newer || field.id != MAX_VCPUS_PER_TD)
    }

    /// Returns the extended features that a TD may have.
    pub(super) fn xfam_fixed0(&self) -> u64 {
        cpuid_rules::td_states(self.sampled.cpuid(0xd, 0), self.sampled.cpuid(0xd, 1))
    }

    /// Returns the configurable bits of a CPUID leaf.
    pub(super) fn config_bits(&self, config: &CpuidConfig) -> [u32; 4] {
        config.bits(self.sampled.cpuid(config.leaf, config.subleaf))
    }
}

/// The most virtual CPUs of a TD. 1.5.01 does not have this field.
const MAX_VCPUS_PER_TD: u64 = 0x9900000100000008;

const FIELDS: &[Field] = &[
    read(FieldId::NUM_PKGS, |view, _| view.platform.tot_num_sockets.get().into()),
    read_each(FieldId::PKG_FMS.0, 8, |view, package| {
        view.platform.sockets().get(package).map_or(0, |fms| fms.get().into())
    }),
    always(FieldId::VENDOR_ID.0, 0x8086),
    read(FieldId::BUILD_DATE, |view, _| view.build.build_date.into()),
    read(FieldId::BUILD_NUM, |view, _| view.build.build_num.into()),
    read(FieldId::MINOR_VERSION, |view, _| view.build.version.minor.into()),
    read(FieldId::MAJOR_VERSION, |view, _| view.build.version.major.into()),
    read(FieldId::UPDATE_VERSION, |view, _| view.build.version.update.into()),
    read(FieldId::INTERNAL_VERSION, |view, _| view.build.internal_version.into()),
    // The next three fields are build-time values, whatever P-SEAMLDR told the module.
    read(FieldId::MODULE_HV, |view, _| view.build.module_hv.into()),
    read(FieldId::MIN_UPDATE_HV, |view, _| view.build.min_update_hv.into()),
    read(FieldId::NO_DOWNGRADE, |view, _| view.build.no_downgrade.into()),
    read(FieldId::NUM_HANDOFF_PAGES, |view, _| view.told.num_handoff_pages.into()),
    // The bytes in memory, valid or not.
    read(FieldId::HANDOFF_DATA_VALID, |view, _| view.header.valid.into()),
    read(FieldId::HANDOFF_DATA_HV, |view, _| view.header.hv.get().into()),
    read(FieldId::HANDOFF_DATA_SIZE, |view, _| view.header.size.get().into()),
    always(FieldId::SYS_ATTRIBUTES.0, 0),
    always(FieldId::NUM_TDX_FEATURES.0, 1),
    read(FieldId::TDX_FEATURES0, |view, _| view.features0.bits()),
    // Convertible memory: number of entries, then base and size of each.
    always(0x9000000100000000, 32),
    read_each(0x9000000300000080, 32, |view, index| {
        view.platform.cmrs.get(index).map_or(0, |cmr| cmr.base.get())
    }),
    read_each(0x9000000300000100, 32, |view, index| {
        view.platform.cmrs.get(index).map_or(0, |cmr| cmr.size.get())
    }),
    always(FieldId::MAX_TDMRS.0, 64),
    always(FieldId::MAX_RESERVED_PER_TDMR.0, 16),
    always(FieldId::PAMT_4K_ENTRY_SIZE.0, 16),
    always(FieldId::PAMT_2M_ENTRY_SIZE.0, 16),
    always(FieldId::PAMT_1G_ENTRY_SIZE.0, 16),
    // Sizes of the structures that describe a TD and its virtual CPUs.
    always(FieldId::TDR_BASE_SIZE.0, 0x1000),
    always(FieldId::TDCS_BASE_SIZE.0, 0x6000),
    always(0x9800000100000101, 0x1000),
    always(FieldId::TDVPS_BASE_SIZE.0, 0x6000),
    always(0x9800000100000201, 0x3000),
    // What the host can configure for a TD.
    read_each(0x1900000300000000, 4, |view, index| match index {
        0 => ATTRIBUTES_FIXED0,
        2 => view.xfam_fixed0(),
        3 => XFAM_FIXED1,
        _ => 0,
    }),
    always(0x9900000100000004, 12),
    always(0x9900000300000006, 7),
    always(0x9900000300000007, 0),
    always(MAX_VCPUS_PER_TD, 576),
    // CPUID leaves, and their configurable bits.
    read_each(0x9900000300000400, 32, |_, index| {
        CPUID_CONFIGS
            .get(index)
            .map_or(u64::MAX, |config| cpuid_rules::pair(config.leaf, config.subleaf))
    }),
    Field {
        id: 0x9900000300000500,
        elements: 64,
        last_element: 1,
        // Unlike TDH.SYS.INFO, without bits that depend on the processor.
        value: Value::Read(|_, index| {
            let direct = CPUID_CONFIGS.get(index >> 1).map_or([0; 4], |config| config.direct);
            cpuid_rules::halves(direct).get(index & 1).copied().unwrap_or(0)
        }),
    },
    always(0x9900000300000600, 0x1180010),
    Field { id: 0x9900000100000800, elements: 1, last_element: 0, value: Value::NumAllowedFms },
    always(0x9900000100000801, 0),
    Field { id: 0x9900000300000810, elements: 128, last_element: 0, value: Value::AllowedFms },
    // Migration and service TDs.
    always(0xa000000300000000, 0),
    always(0x2000000100000001, 0),
    always(0x2000000100000002, 0),
    always(0x2000000100000003, 0),
    always(0x2000000100000004, 0),
    always(0xa000000100000010, 0x200),
    always(0xa000000000000020, 3),
    always(0xa000000000000021, 2),
    always(0xa000000000000022, 5),
    always(0xa100000100000000, 1),
    listed(0xa100000300000001, &[0x7ff00000001, 0]),
    always(0xa200000100000000, 0x807f),
    listed(0xa200000300000001, &[1, 0, 3, 0, 7, 0]),
];

/// Processors (family and model of CPUID.1:EAX) that 1.5.01 knows, oldest first. The stepping is
/// the highest that the module presents to a TD on a newer processor. The steppings of the second
/// and third are inferred.
const KNOWN_PROCESSORS: [u64; 4] = [0x806f8, 0xc06f2, 0xa06f0, 0xa06d1];

/// Returns the processors that the module can present to a TD, the platform's own first. Returns
/// none if the module does not know the platform's processor.
fn allowed_fms(view: &View<'_>) -> (u64, &'static [u64]) {
    let [own, ..] = view.sampled.cpuid(0x1, cpuid_rules::NONE);
    let own = u64::from(own);
    let position = KNOWN_PROCESSORS.iter().position(|known| (known ^ own) & !0xf == 0);
    (own, position.and_then(|older| KNOWN_PROCESSORS.get(..=older)).unwrap_or_default())
}

impl Field {
    fn read(&self, view: &View<'_>, index: usize) -> Result<u64, Fatal> {
        let (own, known) = match self.value {
            Value::Always(value) => return Ok(value),
            Value::Listed(values) => return Ok(values.get(index).copied().unwrap_or(0)),
            Value::Read(read) => return Ok(read(view, index)),
            Value::NumAllowedFms | Value::AllowedFms => allowed_fms(view),
        };
        let Some((_, older)) = known.split_last() else { return Err(Fatal) };
        Ok(match (&self.value, index.checked_sub(1)) {
            (Value::NumAllowedFms, _) => u64::try_from(known.len()).unwrap_or(0),
            (_, None) => own,
            (_, Some(index)) => older.iter().rev().nth(index).copied().unwrap_or(0),
        })
    }
}

/// Returns class and code of an element id. They identify the element; other bits do not matter.
fn key(id: u64) -> (u8, u64) {
    let id = FieldId(id);
    (id.class(), id.field_code().into())
}

/// Returns whether a list packs an element behind another: it has the next code and the same size.
pub(super) fn follows(before: u64, id: u64) -> bool {
    let ((class_before, code_before), (class, code)) = (key(before), key(id));
    let size = |id: u64| FieldId(id).element_size();
    class_before == class && code_before.checked_add(1) == Some(code) && size(before) == size(id)
}

/// Bits of an id that have to be 0.
const RESERVED: u64 = 1 << 62 | 1 << 55 | 7 << 47 | 0x1fff << 34 | 0xff << 24;
/// The context bits of an id. The null id may have any context.
const CONTEXT: u64 = 7 << 52;

/// Result of TDH.SYS.RD.
pub(super) enum Reading {
    /// The id was the null id. Contains the first id.
    First(u64),
    /// There is no such field.
    None,
    /// An element, the id of the next element, and a description of the field.
    Element {
        value: u64,
        next: u64,
        /// Number of elements of one field, minus one.
        last_element: u64,
    },
}

/// Reads an element.
pub(super) fn element(view: &View<'_>, id: u64) -> Result<Reading, Fatal> {
    if id | CONTEXT == FieldId::NULL.0 {
        return Ok(Reading::First(FIELDS.first().map_or(FieldId::NULL.0, |field| field.id)));
    }
    if id & RESERVED != 0 {
        return Ok(Reading::None);
    }
    let (class, code) = key(id);
    let mut fields = view.fields();
    let found = fields.find_map(|field| {
        let (of_class, first) = key(field.id);
        let index = usize::try_from(code.checked_sub(first)?).ok()?;
        (of_class == class && index < field.elements).then_some((field, index))
    });
    let Some((field, index)) = found else { return Ok(Reading::None) };
    let value = field.read(view, index)?;
    // Within a field, the next id keeps the irrelevant bits of this id.
    let next = if index.saturating_add(1) < field.elements {
        id.wrapping_add(1)
    } else {
        fields.next().map_or(FieldId::NULL.0, |field| field.id)
    };
    Ok(Reading::Element { value, next, last_element: field.last_element })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_355_elements_with_unique_class_and_code() {
        let mut keys: Vec<_> = FIELDS
            .iter()
            .flat_map(|field| (0..field.elements as u64).map(move |index| key(field.id + index)))
            .collect();
        assert_eq!(keys.len(), 355);
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), 355);
    }
}
