//! Platforms: describe, create, boot, free.

use std::collections::BTreeSet;
use std::ffi::{c_char, c_void, CStr};
use std::ptr;

use tdx_seamldr_core::abi::Cmr;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::model::{Config, LoaderProfile, Platform, SeamDb, SeamMemory};
use tdx_seamldr_mock::vectors::platform_of_json;
use tdx_seamldr_mock::{boot, NotBooted, Tds, TEST_SIGNER};
use zerocopy::little_endian::U64;
use zerocopy::FromZeros;

use crate::memory::HostMemory;
use crate::number::{enumeration, flag, Enumeration, TdxSimBool};
use crate::pointer::Growing;
use crate::registry::{add, remove, with};
use crate::status::{guarded, Failure};
use crate::trace::Trace;
use crate::{pointer, TdxSim, TdxSimModuleState, TdxSimModuleStateNumber, TdxSimStatus};

/// A platform and its state in this library.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) platform: Platform<Box<SeamMemory>>,
    pub(crate) memory: HostMemory,
    pub(crate) tds: Tds,
    pub(crate) trace: Trace,
    /// Number of SEAMCALLs that were begun.
    pub(crate) calls: u64,
}

impl Sim {
    pub(crate) fn new(platform: Platform<Box<SeamMemory>>) -> Self {
        let (memory, tds, trace) = (HostMemory::default(), Tds::new(), Trace::default());
        Self { platform, memory, tds, trace, calls: 0 }
    }

    /// Returns an error if the platform has no such LP.
    pub(crate) fn known_lp(&self, lp: u32) -> Result<(), Failure> {
        let known = self.platform.x2apic_id(lp).is_some();
        known
            .then_some(())
            .ok_or_else(|| Failure::new(TdxSimStatus::UnknownLp, format!("there is no LP {lp}")))
    }
}

/// A generation of P-SEAMLDR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub enum TdxSimGeneration {
    /// 1.5.00, for processors that run 1.5 modules.
    V15 = 0,
    /// 1.0, which cannot preserve TDs.
    V10 = 1,
    /// The generation after 1.5.00, with SEAMLDR.CLEANUP.
    Newer = 2,
    /// 2.0.00, for processors that run 2.0 modules.
    V20 = 3,
}

enumeration!(TdxSimGeneration, "tdx_sim_generation", [V15, V10, Newer, V20]);

/// A tdx_sim_generation from C: any number.
pub type TdxSimGenerationNumber = u32;

impl TdxSimGeneration {
    const fn profile(self) -> LoaderProfile {
        match self {
            Self::V15 => LoaderProfile::V1_5_00,
            Self::V10 => LoaderProfile::V1_0,
            Self::Newer => LoaderProfile::NEWER,
            Self::V20 => LoaderProfile::V2_0_00,
        }
    }
}

/// A region of convertible memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TdxSimCmr {
    /// Physical address.
    pub base: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// The configuration of a platform. tdx_sim_platform_defaults() fills it in.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimPlatform {
    /// sizeof(tdx_sim_platform), set by the caller.
    pub size: u32,
    /// Number of LPs that firmware counts. P-SEAMLDR and the module wait for all of them. 1 to
    /// 1024; default 4. LPs have the numbers 0 to `num_lps` - 1.
    pub num_lps: u32,
    /// Number of sockets, 1 to 8; default 1.
    pub num_sockets: u32,
    /// Generation of P-SEAMLDR; default 1.5.00.
    pub generation: TdxSimGenerationNumber,
    /// CPUID.1:EAX of each socket; default 0x806f8.
    pub socket_fms: [u32; 8],
    /// x2APIC id of each LP. NULL: spread evenly over the sockets. Read only while the platform is
    /// created.
    pub x2apic_ids: *const u32,
    /// Number of x2APIC ids; 0 if `x2apic_ids` is NULL. More than `num_lps`: the platform has LPs
    /// that firmware does not count.
    pub num_x2apic_ids: u32,
    /// x2APIC id of the LP that has to call SEAMLDR.SHUTDOWN last; default 0xffffffff: that of LP
    /// 0.
    pub acm_x2apicid: u32,
    /// Width of physical addresses in bits, including the KeyID bits; at most 52, default 46.
    pub max_pa: u32,
    /// Number of KeyID bits, at the top of physical addresses; default 6.
    pub keyid_bits: u32,
    /// The first private KeyID: KeyIDs from here on belong to TDs; default 0x20.
    pub private_hkid_min: u64,
    /// Base address of the SEAM range, a multiple of its size.
    pub seamrr_base: u64,
    /// Size of the SEAM range in bytes, a power of two; default 256 MiB.
    pub seamrr_size: u64,
    /// Size in bytes of P-SEAMLDR's own range, at the end of the SEAM range; default 4 MiB.
    pub p_seamldr_size: u64,
    /// Number of LPs that could share a socket's last-level cache, from CPUID leaf 4; 0: the
    /// number of LP slots. The memory that a module needs depends on it.
    pub addressable_lps_per_socket: u32,
    /// Number of low bits of x2APIC ids that number the LPs of a package; 0xffffffff: as few as
    /// leave `num_sockets` packages.
    pub package_shift: u32,
    /// SHA-384 of the modulus of the key that P-SEAMLDR trusts; default: the test key of
    /// tdx_sim_sign().
    pub signer: [u8; 48],
    /// The number that RDRAND returns.
    pub rdrand_value: u64,
    /// SEAMOPS capabilities of each LP; default 0x7f.
    pub seamops_capabilities: u64,
    /// Number of entries of the SEAM database; default 64.
    pub seamdb_size: u32,
    /// Number of used entries; default 0.
    pub seamdb_used: u32,
    /// Regions of convertible memory, at most 32. NULL: from 1 MiB to 2 GiB, and from 4 GiB on
    /// without the SEAM range. Read only while the platform is created.
    pub cmrs: *const TdxSimCmr,
    /// Number of regions; 0 if `cmrs` is NULL.
    pub num_cmrs: u32,
    /// Whether RDRAND succeeds; default true.
    pub rdrand_ok: TdxSimBool,
    /// Whether debug modules may be installed (bit 1 of MSR 0x503); default false.
    pub debug_unlocked: TdxSimBool,
    /// Whether the processor has the erratum of IA32_VMX_BASIC bit 60: when P-SEAMLDR returns, the
    /// LP has no current VMCS; default false.
    pub seamret_clears_vmcs: TdxSimBool,
    /// Whether a full SEAM database returns an error that is fatal to P-SEAMLDR, so that
    /// SEAMLDR.INSTALL is fatal; default false: it looks like a lack of entropy. The
    /// specifications leave this open.
    pub full_seamdb_is_fatal: TdxSimBool,
    /// Whether P-SEAMLDR reduces a signature that is not below the modulus, as one crypto library
    /// does; default false: P-SEAMLDR rejects it.
    pub accepts_large_signatures: TdxSimBool,
    /// Whether the platform does not support SMRR2; default false.
    pub smrr2_not_supported: TdxSimBool,
    /// Whether TDX works without integrity; default false.
    pub tdx_without_integrity: TdxSimBool,
    /// Whether P-SEAMLDR reports a debug build; default false.
    pub seamldr_debug: TdxSimBool,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, integers and pointers only, the first of them the size.
unsafe impl Growing for TdxSimPlatform {
    const NAME: &'static str = "tdx_sim_platform";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Stands for a value that is derived from other fields.
const AUTOMATIC: u32 = u32::MAX;

impl TdxSimPlatform {
    /// Returns the default configuration.
    fn defaults() -> Result<Self, Failure> {
        let config = Config::new(4, 1, 0x806f8, TEST_SIGNER, LoaderProfile::V1_5_00)
            .map_err(contradiction)?;
        Ok(Self {
            size: 0,
            num_lps: config.num_lps,
            num_sockets: config.num_sockets,
            generation: TdxSimGeneration::V15.number(),
            socket_fms: config.socket_fms,
            x2apic_ids: ptr::null(),
            num_x2apic_ids: 0,
            acm_x2apicid: AUTOMATIC,
            max_pa: config.max_pa,
            keyid_bits: config.keyid_bits,
            private_hkid_min: config.private_hkid_min,
            seamrr_base: config.seamrr_base,
            seamrr_size: config.seamrr_size,
            p_seamldr_size: config.p_seamldr_size,
            addressable_lps_per_socket: 0,
            package_shift: AUTOMATIC,
            signer: config.signer,
            rdrand_value: config.rdrand_value,
            seamops_capabilities: config.seamops_capabilities,
            seamdb_size: 64,
            seamdb_used: 0,
            cmrs: ptr::null(),
            num_cmrs: 0,
            rdrand_ok: config.rdrand_ok.into(),
            debug_unlocked: 0,
            seamret_clears_vmcs: 0,
            full_seamdb_is_fatal: 0,
            accepts_large_signatures: 0,
            smrr2_not_supported: 0,
            tdx_without_integrity: 0,
            seamldr_debug: 0,
            reserved: 0,
        })
    }

    /// Returns the simulation's configuration. If `ids` is empty, puts the default x2APIC ids
    /// there.
    fn config(&self, ids: &mut Vec<u32>) -> Result<Config, Failure> {
        let [first, ..] = self.socket_fms;
        let mut profile = TdxSimGeneration::of_number(self.generation)?.profile();
        profile.debug = flag(self.seamldr_debug, "seamldr_debug")?;
        let mut config = if ids.is_empty() {
            let config = Config::new(self.num_lps, self.num_sockets, first, self.signer, profile);
            let config = config.map_err(contradiction)?;
            ids.extend(config.x2apic_ids());
            config
        } else {
            let mut config =
                Config::new(1, 1, first, self.signer, profile).map_err(contradiction)?;
            (config.num_lps, config.num_sockets) = (self.num_lps, self.num_sockets);
            let slots =
                self.num_lps.div_ceil(self.num_sockets.max(1)).clamp(1, 1024).next_power_of_two();
            config.addressable_lps_per_socket = slots;
            config.package_shift = self.shift_for(ids);
            config
        };
        config.socket_fms = self.socket_fms;
        config.acm_x2apicid = match self.acm_x2apicid {
            AUTOMATIC => ids.first().copied().unwrap_or(0),
            id => id,
        };
        (config.max_pa, config.keyid_bits) = (self.max_pa, self.keyid_bits);
        config.private_hkid_min = self.private_hkid_min;
        (config.seamrr_base, config.seamrr_size) = (self.seamrr_base, self.seamrr_size);
        config.p_seamldr_size = self.p_seamldr_size;
        if self.addressable_lps_per_socket != 0 {
            config.addressable_lps_per_socket = self.addressable_lps_per_socket;
        }
        if self.package_shift != AUTOMATIC {
            config.package_shift = self.package_shift;
        }
        config.rdrand_value = self.rdrand_value;
        config.seamops_capabilities = self.seamops_capabilities;
        config.rdrand_ok = flag(self.rdrand_ok, "rdrand_ok")?;
        config.debug_unlocked = flag(self.debug_unlocked, "debug_unlocked")?;
        config.seamret_clears_vmcs = flag(self.seamret_clears_vmcs, "seamret_clears_vmcs")?;
        config.full_seamdb_is_fatal = flag(self.full_seamdb_is_fatal, "full_seamdb_is_fatal")?;
        config.accepts_large_signatures =
            flag(self.accepts_large_signatures, "accepts_large_signatures")?;
        config.check(ids).map_err(contradiction)?;
        Ok(config)
    }

    /// Returns the smallest shift that leaves at most `num_sockets` packages.
    fn shift_for(&self, ids: &[u32]) -> u32 {
        let sockets = usize::try_from(self.num_sockets).unwrap_or(usize::MAX);
        let packages = |shift: u32| ids.iter().map(|id| id >> shift).collect::<BTreeSet<_>>().len();
        (0..u32::BITS).find(|shift| packages(*shift) <= sockets).unwrap_or(0)
    }

    /// Creates the platform.
    fn make(&self, mut ids: Vec<u32>, cmrs: &[TdxSimCmr]) -> Result<Sim, Failure> {
        if self.reserved != 0 {
            return Err(Failure::argument("reserved is not 0; set it to 0"));
        }
        let config = self.config(&mut ids)?;
        let seamdb = SeamDb { size: self.seamdb_size, used: self.seamdb_used, insert_failures: 0 };
        seamdb.check().map_err(contradiction)?;
        let memory = SeamMemory::new_box_zeroed().map_err(|_| TdxSimStatus::NoRoom)?;
        let mut platform = Platform::new(config, seamdb, memory);
        platform.set_lps(ids);
        let table = platform.platform_table_mut();
        if cmrs.len() > table.cmrs.len() {
            let (found, most) = (cmrs.len(), table.cmrs.len());
            return Err(Failure::argument(format!(
                "num_cmrs is {found}, but should be at most {most}"
            )));
        }
        if !cmrs.is_empty() {
            table.cmrs.zero();
        }
        for (slot, cmr) in table.cmrs.iter_mut().zip(cmrs) {
            *slot = Cmr { base: U64::new(cmr.base), size: U64::new(cmr.bytes) };
        }
        table.smrr2_not_supported = flag(self.smrr2_not_supported, "smrr2_not_supported")?.into();
        table.tdx_without_integrity =
            flag(self.tdx_without_integrity, "tdx_without_integrity")?.into();
        Ok(Sim::new(platform))
    }
}

pub(crate) fn contradiction(error: impl std::fmt::Display) -> Failure {
    Failure::new(TdxSimStatus::Contradiction, error.to_string())
}

/// Fills in a platform of 4 LPs on 1 socket, with P-SEAMLDR 1.5.00 that trusts the test key.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE.
///
/// # Safety
///
/// `platform` points to a writable tdx_sim_platform whose `size` is set.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_platform_defaults(platform: *mut TdxSimPlatform) -> TdxSimStatus {
    guarded(|| {
        let defaults = TdxSimPlatform::defaults()?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(platform, &defaults) }
    })
}

/// Creates a platform as boot firmware leaves it: with P-SEAMLDR, without a module. tdx_sim_boot()
/// installs a module. On success `*sim` is the handle of the platform; free it with tdx_sim_free().
/// On failure `*sim` is NULL.
///
/// Errors: NULL, UNALIGNED: `*sim` is not set if `sim` itself is wrong; BAD_SIZE; BAD_ARGUMENT: a
/// field has an invalid value; CONTRADICTION: fields contradict each other, e.g. two LPs have the
/// same x2APIC id; NO_ROOM: no memory or no handle is left.
///
/// # Safety
///
/// `platform` points to a readable tdx_sim_platform whose `size` is set, and the pointers in it to
/// the given number of readable values. `sim` points to a writable pointer.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_create(
    platform: *const TdxSimPlatform,
    sim: *mut *mut TdxSim,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, ptr::null_mut()) }?;
        // SAFETY: this function's contract.
        let platform = unsafe { pointer::read_sized(platform) }?;
        let count = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        // SAFETY: this function's contract.
        let ids = unsafe { pointer::copy_in(platform.x2apic_ids, count(platform.num_x2apic_ids)) }?;
        // SAFETY: this function's contract.
        let cmrs = unsafe { pointer::copy_in(platform.cmrs, count(platform.num_cmrs)) }?;
        let handle = add(platform.make(ids, &cmrs)?)?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, handle) }
    })
}

/// Creates a platform from a description: a JSON object with `platform` and `initial`, in the form
/// of the project's recordings. The files README.md in the folders of
/// crates/tdx-seamldr-mock/vectors describe the form. The platform can begin in any state.
///
/// `platform` may also have `loader_generation` ("1.0", "1.5.00", "newer" or "2.0.00"),
/// `seamret_clears_vmcs`, `full_seamdb_is_fatal` and `accepts_large_signatures`. `initial.module`
/// may also have `features0`.
///
/// On success `*sim` is the handle of the platform; free it with tdx_sim_free(). On failure `*sim`
/// is NULL.
///
/// Errors: NULL, UNALIGNED: `*sim` is not set if `sim` itself is wrong; NOT_UTF8; BAD_DESCRIPTION:
/// the text is not JSON, a field is missing or unknown, or fields contradict each other;
/// tdx_sim_last_error() says which; NO_ROOM: no memory or no handle is left.
///
/// # Safety
///
/// `description` points to text that ends with NUL. `sim` points to a writable pointer.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_create_from_json(
    description: *const c_char,
    sim: *mut *mut TdxSim,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, ptr::null_mut()) }?;
        pointer::checked(description)?;
        // SAFETY: this function's contract; `description` is not NULL.
        let text = unsafe { CStr::from_ptr(description) }.to_str().map_err(|error| {
            Failure::new(TdxSimStatus::NotUtf8, format!("the description is not UTF-8: {error}"))
        })?;
        let platform = platform_of_json(text)
            .map_err(|error| Failure::new(TdxSimStatus::BadDescription, error.to_string()))?;
        let handle = add(Sim::new(platform))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, handle) }
    })
}

/// Boots a platform that has no module. Firmware loads the module of an image with all checks of
/// P-SEAMLDR. Then a kernel initialises the module on all LPs that firmware counts, until the
/// module reaches the state `until`. TDX_SIM_MODULE_STATE_READY: TDs can run.
/// TDX_SIM_MODULE_STATE_SYS_INIT_PENDING: the kernel has not begun.
///
/// `file` is an image file of either format, from tdx_sim_image_file() or from Intel. It is read
/// only during this call. Planned faults do not affect the boot, its calls are not in the trace,
/// and RDRAND succeeds.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `until` is not a state of a module;
/// BAD_IMAGE; CONTRADICTION: there is already a module, or an LP is inside a call; REFUSED:
/// firmware refused a call, see tdx_sim_last_error(). The effects of earlier calls remain.
///
/// # Safety
///
/// `file` points to `file_size` readable bytes.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_boot(
    sim: *mut TdxSim,
    file: *const c_void,
    file_size: usize,
    until: TdxSimModuleStateNumber,
) -> TdxSimStatus {
    guarded(|| {
        let state = TdxSimModuleState::of_number(until)?.state();
        let state = state.ok_or_else(|| {
            Failure::argument(
                "until is TDX_SIM_MODULE_STATE_NONE, but should be a state of a module",
            )
        })?;
        if file.is_null() {
            return Err(TdxSimStatus::Null.into());
        }
        // SAFETY: this function's contract.
        let bytes = unsafe { pointer::copy_in(file.cast::<u8>(), file_size) }?;
        let image = TdxImage::parse(&bytes)
            .map_err(|error| Failure::new(TdxSimStatus::BadImage, error.to_string()))?;
        with(sim, |sim| {
            boot(&mut sim.platform, &image, state).map_err(|error| {
                let status = match error {
                    NotBooted::Call(_) => TdxSimStatus::Refused,
                    NotBooted::Pages(_) => TdxSimStatus::BadImage,
                    _ => TdxSimStatus::Contradiction,
                };
                Failure::new(status, error.to_string())
            })
        })
    })
}

/// Frees a platform. Waits for a SEAMCALL that is in progress; a delayed one ends with BAD_HANDLE.
/// After this call the library uses neither mapped memory nor callbacks.
///
/// Errors: NULL; BAD_HANDLE: also if the platform was freed before; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_free(sim: *mut TdxSim) -> TdxSimStatus {
    guarded(|| remove(sim))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Returns a platform of 2 LPs without a module.
    pub(crate) fn sim() -> Sim {
        let platform = TdxSimPlatform { num_lps: 2, ..TdxSimPlatform::defaults().unwrap() };
        platform.make(Vec::new(), &[]).unwrap()
    }

    #[test]
    fn generations_equal_those_of_the_simulation() {
        let profiles = TdxSimGeneration::ALL.iter().map(|generation| generation.profile());
        let all = LoaderProfile::ALL.map(|(_, profile)| profile);
        assert_eq!(profiles.clone().count(), all.len());
        assert!(profiles.into_iter().all(|profile| all.contains(&profile)));
    }
}
