//! The file format of the recordings: one JSON object per line.

use serde::de::{Deserializer, Error as _, Unexpected, Visitor};
use serde::Deserialize;
use serde_json::Value;

/// A number: `"0x..."`, a JSON number, or `true` or `false` for 1 or 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Number(pub(crate) u64);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("a number, or a string of \"0x\" and up to 16 hexadecimal digits")
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number(value))
            }

            fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Number, E> {
                Ok(Number(value.into()))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Number, E> {
                let digits = text.strip_prefix("0x").filter(|digits| !digits.starts_with('+'));
                let value = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
                value.map(Number).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(AnyNumber)
    }
}

/// Bytes in hexadecimal digits, without trailing zeros.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// Returns the bytes with zeros appended up to `len`, or `None` if there are more than `len`.
    pub(crate) fn padded(&self, len: usize) -> Option<Vec<u8>> {
        let mut bytes = self.0.clone();
        (bytes.len() <= len).then(|| {
            bytes.resize(len, 0);
            bytes
        })
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let digits = text.as_bytes().chunks(2).map(|pair| {
            let pair = std::str::from_utf8(pair)
                .ok()
                .filter(|pair| pair.len() == 2 && !pair.starts_with('+'))?;
            u8::from_str_radix(pair, 16).ok()
        });
        let bytes = digits.collect::<Option<Vec<u8>>>();
        bytes.map(Self).ok_or_else(|| {
            D::Error::invalid_value(Unexpected::Str(&text), &"an even number of hexadecimal digits")
        })
    }
}

/// One string, or a list of strings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum Words {
    #[default]
    None,
    One(String),
    Many(Vec<String>),
}

impl Words {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        let words = match self {
            Self::None => &[],
            Self::One(only) => std::slice::from_ref(only),
            Self::Many(words) => words.as_slice(),
        };
        words.iter().map(String::as_str)
    }

    pub(crate) fn contains(&self, word: &str) -> bool {
        self.iter().any(|other| other == word)
    }
}

/// Behaviour of RDRAND.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rdrand {
    pub(crate) ok: bool,
    pub(crate) value: Number,
}

/// The processor's SEAM database.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeamDbState {
    pub(crate) size: u32,
    pub(crate) used: u32,
    #[serde(default)]
    pub(crate) insert_failures: u32,
}

/// What P-SEAMLDR reports about itself.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoaderIdentity {
    /// Always Intel's.
    #[serde(rename = "vendor")]
    pub(crate) _vendor: Option<Number>,
    pub(crate) build_date: u32,
    pub(crate) build_num: u16,
    pub(crate) minor: u16,
    pub(crate) major: u16,
    #[serde(default)]
    pub(crate) debug: bool,
}

/// A platform. Fields that only one kind of recording has are optional.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlatformDescription {
    pub(crate) num_lps: u32,
    pub(crate) lp_x2apic_ids: Vec<u32>,
    pub(crate) num_sockets: u32,
    pub(crate) socket_fms: Vec<Number>,
    pub(crate) keyid_bits: u32,
    pub(crate) private_hkid_min: Number,
    pub(crate) seamrr_base: Number,
    pub(crate) seamrr_size: Number,
    pub(crate) rdrand: Rdrand,
    pub(crate) max_pa: Option<u32>,
    pub(crate) acm_x2apicid: Option<u32>,
    pub(crate) p_seamldr_range_base: Option<Number>,
    pub(crate) p_seamldr_range_size: Option<Number>,
    pub(crate) addressable_lps_per_socket: Option<u32>,
    pub(crate) signer_key_sha384: Option<Bytes>,
    #[serde(default)]
    pub(crate) debug_unlocked: bool,
    pub(crate) seamdb: Option<SeamDbState>,
    pub(crate) mcheck_table_hex: Option<Bytes>,
    pub(crate) loader_identity: Option<LoaderIdentity>,
    /// Name of a generation of P-SEAMLDR; not in recordings.
    pub(crate) loader_generation: Option<String>,
    /// Whether the processor has the VMCS erratum; not in recordings.
    #[serde(default)]
    pub(crate) seamret_clears_vmcs: bool,
    /// How P-SEAMLDR treats a full SEAM database; not in recordings.
    #[serde(default)]
    pub(crate) full_seamdb_is_fatal: bool,
    /// How P-SEAMLDR treats a signature that is not below the modulus; not in recordings.
    #[serde(default)]
    pub(crate) accepts_large_signatures: bool,
    pub(crate) pkg_id_shift: Option<u32>,
    #[serde(default)]
    pub(crate) smrr2_not_supported: bool,
    #[serde(default)]
    pub(crate) tdx_without_integrity: bool,
    pub(crate) cmrs: Option<Vec<[Number; 2]>>,
    pub(crate) seamops_capabilities: Option<Number>,
    /// LP slots that P-SEAMLDR reserves. The module does not use this number here.
    #[serde(rename = "addressable_lps")]
    pub(crate) _addressable_lps: Option<u32>,
    /// Values of CPUID and MSRs.
    #[serde(rename = "cpu")]
    pub(crate) _cpu: Option<Value>,
}

/// The part of a module's system information page that P-SEAMLDR writes at the end of an
/// installation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToldVersions {
    pub(crate) module_hv: u16,
    pub(crate) min_update_hv: u16,
    pub(crate) no_downgrade: Number,
    pub(crate) num_handoff_pages: u16,
}

/// A module in the SEAM range.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleDescription {
    /// Always Intel's.
    #[serde(rename = "vendor")]
    pub(crate) _vendor: Option<Number>,
    pub(crate) build_date: u32,
    pub(crate) build_num: u16,
    pub(crate) major: u16,
    pub(crate) minor: u16,
    pub(crate) update: u16,
    pub(crate) internal: u16,
    pub(crate) built_module_hv: u16,
    pub(crate) built_min_update_hv: u16,
    pub(crate) built_no_downgrade: Number,
    pub(crate) sysinfo: ToldVersions,
    /// TDX_FEATURES0, if it differs from that of 1.5.01; not in recordings.
    pub(crate) features0: Option<Number>,
}

/// The handoff data after the header.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Payload {
    Own,
    Zero,
    Ones,
}

/// A handoff header and its data.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Handoff {
    pub(crate) valid: Number,
    pub(crate) hv: u16,
    pub(crate) size: Number,
    pub(crate) payload: Option<Payload>,
}

/// The state before the first call: of P-SEAMLDR, of a module, or of both.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Initial {
    pub(crate) seamextend: Option<Bytes>,
    #[serde(default)]
    pub(crate) module_range_initialized: bool,
    pub(crate) module_sysinfo: Option<ToldVersions>,
    #[serde(default)]
    pub(crate) num_remaining_updates: u32,
    #[serde(default = "yes")]
    pub(crate) entered_before: bool,
    pub(crate) handoff: Option<Handoff>,
    pub(crate) module: Option<ModuleDescription>,
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) lps_initialized: Vec<u32>,
    pub(crate) after: Option<ModuleAfter>,
    /// The fields of `seamextend`.
    #[serde(rename = "seamextend_fields")]
    pub(crate) _seamextend_fields: Option<Value>,
}

const fn yes() -> bool {
    true
}

/// A piece of the host's memory.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Piece {
    pub(crate) pa: Number,
    pub(crate) len: usize,
    pub(crate) hex: Option<Bytes>,
    pub(crate) file: Option<String>,
}

/// The parts that both kinds of recordings share. `A` is the observation after one call, `F` the
/// observation after all calls.
#[derive(Clone, Debug, Deserialize)]
#[serde(bound = "A: serde::de::DeserializeOwned, F: serde::de::DeserializeOwned")]
pub(crate) struct Vector<A, F> {
    pub(crate) platform: PlatformDescription,
    pub(crate) initial: Initial,
    #[serde(default)]
    pub(crate) memory: Vec<Piece>,
    #[serde(default)]
    pub(crate) assumes: Words,
    pub(crate) steps: Vec<Step<A>>,
    #[serde(rename = "final")]
    pub(crate) last: F,
}

/// A call, or an event outside of firmware.
#[derive(Clone, Debug)]
pub(crate) enum Step<A> {
    Call(Call<A>),
    Event(Event),
}

impl<'de, A: serde::de::DeserializeOwned> Deserialize<'de> for Step<A> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.get("op").is_some() {
            serde_json::from_value(value).map(Self::Event).map_err(D::Error::custom)
        } else {
            serde_json::from_value(value).map(Self::Call).map_err(D::Error::custom)
        }
    }
}

/// A SEAMCALL.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call<A> {
    pub(crate) lp: u32,
    pub(crate) rax: Number,
    #[serde(default)]
    pub(crate) rcx: Number,
    #[serde(default)]
    pub(crate) rdx: Number,
    #[serde(default)]
    pub(crate) r8: Number,
    #[serde(default)]
    pub(crate) r9: Number,
    #[serde(default)]
    pub(crate) r10: Number,
    pub(crate) expect: Expect,
    pub(crate) after: Option<A>,
}

/// Result of a call. A register that is not listed keeps its value.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    pub(crate) rax: Option<Number>,
    pub(crate) rcx: Option<Number>,
    pub(crate) rdx: Option<Number>,
    pub(crate) r8: Option<Number>,
    pub(crate) r9: Option<Number>,
    pub(crate) r10: Option<Number>,
    #[serde(default)]
    pub(crate) writes: Vec<Write>,
    #[serde(default)]
    pub(crate) fatal: bool,
}

/// Memory that a call wrote.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Write {
    pub(crate) pa: Number,
    #[serde(deserialize_with = "in_a_page")]
    pub(crate) len: usize,
    pub(crate) hex: Bytes,
}

/// Reads the length of a write. Firmware writes at most one page at a time.
fn in_a_page<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let len = u64::deserialize(deserializer)?;
    let in_a_page = usize::try_from(len).ok().filter(|len| *len <= 4096);
    in_a_page.ok_or_else(|| {
        D::Error::invalid_value(Unexpected::Unsigned(len), &"a length of up to 4096 bytes")
    })
}

/// An event outside of firmware.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Event {
    ModuleHandoff(Handoff),
    Handoff(Handoff),
    Install { scenario: String, module: ModuleDescription },
    Set(Box<Set>),
}

/// The LPs that a change affects.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Lps {
    One(u32),
    Named(String),
}

/// The change.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Set {
    pub(crate) rdrand_ok: Option<bool>,
    pub(crate) rdrand_value: Option<Number>,
    pub(crate) seamdb_insert_failures: Option<u32>,
    pub(crate) debug_unlocked: Option<bool>,
    pub(crate) busy_lp: Option<u32>,
    pub(crate) busy: Option<bool>,
    pub(crate) global_lock: Option<String>,
    pub(crate) tdmr_lock: Option<u32>,
    pub(crate) held: Option<bool>,
    pub(crate) seamops_capabilities: Option<Number>,
    pub(crate) seamdb_getref_error: Option<u32>,
    pub(crate) pconfig_error: Option<u32>,
    pub(crate) lp: Option<Lps>,
    pub(crate) msr: Option<Number>,
    pub(crate) xor: Option<Number>,
    pub(crate) cpuid: Option<Number>,
    pub(crate) subleaf: Option<Number>,
    pub(crate) reg: Option<String>,
    pub(crate) restore: Option<bool>,
}

/// Effects of one call on the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SeamDbEffects {
    pub(crate) clears: u32,
    pub(crate) insert_attempts: u32,
    pub(crate) used: u32,
}

/// Observations of P-SEAMLDR after a call. Optional fields are present if the call had this effect.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoaderAfter {
    pub(crate) seam_ready: u8,
    pub(crate) num_remaining_updates: u32,
    pub(crate) lps_in_session: u32,
    pub(crate) seamextend: Option<Bytes>,
    pub(crate) vmclear_pa: Option<Number>,
    pub(crate) seamdb: Option<SeamDbEffects>,
}

/// A handoff header, as a module reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HandoffAfter {
    pub(crate) valid: Number,
    pub(crate) hv: u16,
    pub(crate) size: u32,
}

/// Observations of a module after a call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleAfter {
    pub(crate) sys_state: String,
    pub(crate) num_init_lps: u32,
    pub(crate) lp_is_init: Vec<Number>,
    pub(crate) handoff: HandoffAfter,
}

/// SVN of the module in SEAMEXTEND.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SvnAfter {
    pub(crate) major: u8,
    pub(crate) minor: u8,
}

/// A module's system information page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SysInfoAfter {
    pub(crate) code_rgn_base: Number,
    pub(crate) code_rgn_size: Number,
    pub(crate) data_rgn_base: Number,
    pub(crate) data_rgn_size: Number,
    pub(crate) stack_rgn_base: Number,
    pub(crate) stack_rgn_size: Number,
    pub(crate) keyhole_rgn_base: Number,
    pub(crate) keyhole_rgn_size: Number,
    pub(crate) keyhole_edit_rgn_base: Number,
    pub(crate) keyhole_edit_rgn_size: Number,
    pub(crate) num_stack_pages: Number,
    pub(crate) num_tls_pages: Number,
    pub(crate) module_hv: u16,
    pub(crate) min_update_hv: u16,
    pub(crate) no_downgrade: u8,
    pub(crate) num_handoff_pages: u16,
    pub(crate) mcheck_copy: bool,
}

/// Observations of P-SEAMLDR after the last call. After a fatal error they are the only ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoaderFinal {
    #[serde(default)]
    pub(crate) fatal: bool,
    pub(crate) seamextend: Option<Bytes>,
    /// The fields of `seamextend`.
    #[serde(rename = "fields")]
    pub(crate) _fields: Option<Value>,
    pub(crate) seam_ready: Option<u8>,
    pub(crate) svn: Option<SvnAfter>,
    pub(crate) num_remaining_updates: Option<u32>,
    pub(crate) update_bitmap: Option<Vec<u32>>,
    pub(crate) shutdown_bitmap: Option<Vec<u32>>,
    pub(crate) lps_in_session: Option<u32>,
    pub(crate) lps_in_shutdown: Option<u32>,
    pub(crate) module_range_initialized: Option<bool>,
    pub(crate) seamdb_used: Option<u32>,
    pub(crate) module_sysinfo: Option<SysInfoAfter>,
    pub(crate) handoff: Option<HandoffAfter>,
    pub(crate) code_region_sha384: Option<Bytes>,
}

/// Observations of a module after the last call. After a fatal error they are the only ones.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ModuleFinal {
    #[serde(default)]
    pub(crate) fatal: bool,
    pub(crate) sys_state: Option<String>,
    pub(crate) num_init_lps: Option<u32>,
    pub(crate) lp_is_init: Option<Vec<Number>>,
    pub(crate) handoff: Option<HandoffAfter>,
    pub(crate) pkg_config_bitmap: Option<Number>,
    pub(crate) num_init_pkgs: Option<u32>,
    pub(crate) num_tdmrs: Option<u32>,
    pub(crate) global_hkid: Option<u16>,
}
