//! A platform's life: described, made, booted, freed.

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

/// A platform, and what belongs to it.
#[derive(Debug)]
pub(crate) struct Sim {
    pub(crate) platform: Platform<Box<SeamMemory>>,
    pub(crate) memory: HostMemory,
    pub(crate) tds: Tds,
    pub(crate) trace: Trace,
    /// SEAMCALLs that were begun.
    pub(crate) calls: u64,
}

impl Sim {
    pub(crate) fn new(platform: Platform<Box<SeamMemory>>) -> Self {
        let (memory, tds, trace) = (HostMemory::default(), Tds::new(), Trace::default());
        Self { platform, memory, tds, trace, calls: 0 }
    }

    /// An error if the platform has no such LP.
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
    /// 1.0, which cannot keep TDs.
    V10 = 1,
    /// The generation after 1.5.00, with SEAMLDR.CLEANUP.
    Newer = 2,
    /// 2.0.00, for processors that run 2.0 modules.
    V20 = 3,
}

enumeration!(TdxSimGeneration, "tdx_sim_generation", [V15, V10, Newer, V20]);

/// A tdx_sim_generation as C gives it: any number.
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
    /// Bytes.
    pub bytes: u64,
}

/// What a platform is made of. tdx_sim_platform_defaults() fills it in.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct TdxSimPlatform {
    /// sizeof(tdx_sim_platform), set by the caller.
    pub size: u32,
    /// LPs that firmware counts: P-SEAMLDR and the module wait for all of them. 1 to 1024; by
    /// default 4. The LPs have the numbers 0 to `num_lps` - 1.
    pub num_lps: u32,
    /// Sockets, 1 to 8; by default 1.
    pub num_sockets: u32,
    /// The generation of P-SEAMLDR; by default 1.5.00.
    pub generation: TdxSimGenerationNumber,
    /// CPUID.1:EAX of each socket; by default 0x806f8.
    pub socket_fms: [u32; 8],
    /// The x2APIC id of each LP, or NULL: evenly over the sockets. Only read while the platform is
    /// made.
    pub x2apic_ids: *const u32,
    /// How many x2APIC ids there are; 0 if `x2apic_ids` is NULL. More than `num_lps`: the platform
    /// has LPs that firmware does not count.
    pub num_x2apic_ids: u32,
    /// The x2APIC id of the LP on which SEAMLDR.SHUTDOWN has to end; by default that of LP 0, if
    /// this is 0xffffffff.
    pub acm_x2apicid: u32,
    /// Bits of physical addresses, KeyID bits included; at most 52, by default 46.
    pub max_pa: u32,
    /// KeyID bits, at the top of physical addresses; by default 6.
    pub keyid_bits: u32,
    /// The first KeyID that only TDs may use; by default 0x20.
    pub private_hkid_min: u64,
    /// Where the SEAM range begins: a multiple of its size.
    pub seamrr_base: u64,
    /// Bytes of the SEAM range: a power of two; by default 256 MiB.
    pub seamrr_size: u64,
    /// Bytes of P-SEAMLDR's own range, at the end of it; by default 4 MiB.
    pub p_seamldr_size: u64,
    /// LPs that can share a socket's last-level cache, by CPUID leaf 4; 0: as many as there are
    /// slots for LPs. How much memory a module needs depends on it.
    pub addressable_lps_per_socket: u32,
    /// Low bits of x2APIC ids that number the LPs of a package; 0xffffffff: as few as leave
    /// `num_sockets` packages.
    pub package_shift: u32,
    /// SHA-384 of the modulus of the key that P-SEAMLDR trusts; by default that of the test key,
    /// which tdx_sim_sign() uses.
    pub signer: [u8; 48],
    /// What RDRAND gives.
    pub rdrand_value: u64,
    /// SEAMOPS capabilities of each LP; by default 0x7f.
    pub seamops_capabilities: u64,
    /// Entries that the SEAM database has room for; by default 64.
    pub seamdb_size: u32,
    /// Entries in use; by default 0.
    pub seamdb_used: u32,
    /// Regions of convertible memory, at most 32, or NULL: from 1 MiB to 2 GiB, and from 4 GiB on
    /// without the SEAM range. Only read while the platform is made.
    pub cmrs: *const TdxSimCmr,
    /// How many regions there are; 0 if `cmrs` is NULL.
    pub num_cmrs: u32,
    /// RDRAND gives numbers; by default true.
    pub rdrand_ok: TdxSimBool,
    /// Debug modules may be installed (bit 1 of MSR 0x503); by default false.
    pub debug_unlocked: TdxSimBool,
    /// The processor has the erratum of IA32_VMX_BASIC bit 60: when P-SEAMLDR returns, the LP has
    /// no current VMCS; by default false.
    pub seamret_clears_vmcs: TdxSimBool,
    /// A full SEAM database answers with an error that P-SEAMLDR is not prepared for, so that
    /// SEAMLDR.INSTALL is fatal. The specifications leave it open; by default false: the
    /// answer is want of entropy.
    pub full_seamdb_is_fatal: TdxSimBool,
    /// A signature that is not below the modulus is reduced first, as one crypto library does; by
    /// default false: it is bad.
    pub accepts_large_signatures: TdxSimBool,
    /// The platform does not support SMRR2; by default false.
    pub smrr2_not_supported: TdxSimBool,
    /// TDX works without integrity; by default false.
    pub tdx_without_integrity: TdxSimBool,
    /// P-SEAMLDR reports itself as a debug build; by default false.
    pub seamldr_debug: TdxSimBool,
    /// 0.
    pub reserved: u32,
}

// SAFETY: `repr(C)`, integers and pointers only, the first of them the size.
unsafe impl Growing for TdxSimPlatform {
    const NAME: &'static str = "tdx_sim_platform";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// Stands for what follows from the rest.
const AUTOMATIC: u32 = u32::MAX;

impl TdxSimPlatform {
    /// The platform that is made if nothing is changed.
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

    /// What it is made of, with these x2APIC ids; or with those that follow from the rest, which
    /// are then put there.
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

    /// The fewest low bits of x2APIC ids that leave as many packages as there are sockets, or
    /// fewer.
    fn shift_for(&self, ids: &[u32]) -> u32 {
        let sockets = usize::try_from(self.num_sockets).unwrap_or(usize::MAX);
        let packages = |shift: u32| ids.iter().map(|id| id >> shift).collect::<BTreeSet<_>>().len();
        (0..u32::BITS).find(|shift| packages(*shift) <= sockets).unwrap_or(0)
    }

    /// Makes it.
    fn make(&self, mut ids: Vec<u32>, cmrs: &[TdxSimCmr]) -> Result<Sim, Failure> {
        if self.reserved != 0 {
            return Err(Failure::argument("reserved is not 0"));
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

fn contradiction(error: impl std::fmt::Display) -> Failure {
    Failure::new(TdxSimStatus::Contradiction, error.to_string())
}

/// Fills in a platform of 4 LPs on one socket, with P-SEAMLDR 1.5.00, that trusts the test key.
///
/// Errors: NULL; UNALIGNED; BAD_SIZE.
///
/// # Safety
///
/// `platform` leads to a tdx_sim_platform with its `size` set that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_platform_defaults(platform: *mut TdxSimPlatform) -> TdxSimStatus {
    guarded(|| {
        let defaults = TdxSimPlatform::defaults()?;
        // SAFETY: this function's contract.
        unsafe { pointer::write_sized(platform, &defaults) }
    })
}

/// Makes a platform as its boot firmware leaves it: with P-SEAMLDR, and without a module, which
/// tdx_sim_boot() installs. On success `*sim` is the platform's handle, to be given to
/// tdx_sim_free() in the end; otherwise it becomes NULL.
///
/// Errors: NULL, UNALIGNED: if that is about `sim`, it is not set; BAD_SIZE; BAD_ARGUMENT: a field
/// has a value that it cannot have; CONTRADICTION: there is no such platform, e.g. two LPs have the
/// same x2APIC id; NO_ROOM: there is no memory, or handles have come to an end.
///
/// # Safety
///
/// `platform` leads to a tdx_sim_platform with its `size` set that may be read, its pointers to as
/// many values as it says, and `sim` to a pointer that may be written.
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

/// Makes a platform of a description: a JSON object with `platform` and `initial`, in the form that
/// the project's recordings have. The files README.md in the folders of
/// crates/tdx-seamldr-mock/vectors describe it. Beside what recordings have, `platform` may
/// have `loader_generation` ("1.0", "1.5.00", "newer" or "2.0.00"), `seamret_clears_vmcs`,
/// `full_seamdb_is_fatal` and `accepts_large_signatures`, and `initial.module` may have
/// `features0`. The platform can begin in any state. On success `*sim` is the platform's handle, to
/// be given to tdx_sim_free() in the end; otherwise it becomes NULL.
///
/// Errors: NULL, UNALIGNED: if that is about `sim`, it is not set; NOT_UTF8; BAD_DESCRIPTION: it is
/// not JSON, a field is missing, there is no field with a name, or there is no such platform, as
/// tdx_sim_last_error() says; NO_ROOM: there is no memory, or handles have come to an end.
///
/// # Safety
///
/// `description` leads to text with a NUL at its end, and `sim` to a pointer that may be written.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_create_from_json(
    description: *const c_char,
    sim: *mut *mut TdxSim,
) -> TdxSimStatus {
    guarded(|| {
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, ptr::null_mut()) }?;
        pointer::checked(description)?;
        // SAFETY: this function's contract, and it is not NULL.
        let text = unsafe { CStr::from_ptr(description) }.to_str().map_err(|error| {
            Failure::new(TdxSimStatus::NotUtf8, format!("the description is no text: {error}"))
        })?;
        let platform = platform_of_json(text)
            .map_err(|error| Failure::new(TdxSimStatus::BadDescription, error.to_string()))?;
        let handle = add(Sim::new(platform))?;
        // SAFETY: this function's contract.
        unsafe { pointer::write(sim, handle) }
    })
}

/// Boots a platform that has no module yet. Firmware loads the module of an image, by all of
/// P-SEAMLDR's checks; then a kernel initialises it on all LPs that firmware counts, until it is in
/// the state `until`. TDX_SIM_MODULE_STATE_READY: TDs can run.
/// TDX_SIM_MODULE_STATE_SYS_INIT_PENDING: the kernel has still to begin. `file` is a file with an
/// image, of either format, as tdx_sim_image_file() makes it, or one of Intel's. It is only read in
/// this call.
///
/// Faults that are planned do not strike these calls, they are not in the trace, and RDRAND gives
/// numbers meanwhile.
///
/// Errors: NULL; BAD_HANDLE; REENTRANT; BAD_ARGUMENT: `until` is no state that a module can be in;
/// BAD_IMAGE; CONTRADICTION: there is a module already, or an LP is in a call; REFUSED: firmware
/// refused a call, as tdx_sim_last_error() says. What was done before stays so then.
///
/// # Safety
///
/// `file` leads to `file_size` bytes that may be read.
#[no_mangle]
pub unsafe extern "C" fn tdx_sim_boot(
    sim: *mut TdxSim,
    file: *const c_void,
    file_size: usize,
    until: TdxSimModuleStateNumber,
) -> TdxSimStatus {
    guarded(|| {
        let state = TdxSimModuleState::of_number(until)?.state();
        let state = state.ok_or_else(|| Failure::argument("until is TDX_SIM_MODULE_STATE_NONE"))?;
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

/// Frees a platform. If it is inside a SEAMCALL, that one is waited for; one that is delayed ends
/// with BAD_HANDLE. Then all memory that was mapped belongs to the caller alone again, and no
/// callback is called any more.
///
/// Errors: NULL; BAD_HANDLE: also if it was freed before; REENTRANT.
#[no_mangle]
pub extern "C" fn tdx_sim_free(sim: *mut TdxSim) -> TdxSimStatus {
    guarded(|| remove(sim))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A platform of two LPs without a module.
    pub(crate) fn sim() -> Sim {
        let platform = TdxSimPlatform { num_lps: 2, ..TdxSimPlatform::defaults().unwrap() };
        platform.make(Vec::new(), &[]).unwrap()
    }

    #[test]
    fn the_generations_are_those_of_the_simulation() {
        let profiles = TdxSimGeneration::ALL.iter().map(|generation| generation.profile());
        let all = LoaderProfile::ALL.map(|(_, profile)| profile);
        assert_eq!(profiles.clone().count(), all.len());
        assert!(profiles.into_iter().all(|profile| all.contains(&profile)));
    }
}
