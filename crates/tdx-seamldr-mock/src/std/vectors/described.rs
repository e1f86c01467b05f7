//! Makes a platform from a recording's description.

use core::mem::offset_of;

use tdx_seamldr_core::abi::{Cmr, HandoffHeader, PSysInfo, SeamExtend, TdxFeatures0};
use tdx_seamldr_core::TdxVersion;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::format::{Handoff, Initial, ModuleDescription, Payload, PlatformDescription};
use crate::model::{Config, LoaderProfile, LoaderState, ModuleBuild, ModuleState, ModuleSysInfo};
use crate::model::{Platform, SeamDb, SeamMemory, SysInfo};
use crate::std::boot::{bring_up, CallFailed};
use crate::std::builder::seam_memory;
use crate::TEST_SIGNER;

/// No platform matches this description.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct DescriptionError(pub(crate) String);

fn not_reached(error: &CallFailed) -> DescriptionError {
    wrong(format!("the module does not reach its initial state: {error}"))
}

fn wrong(message: impl Into<String>) -> DescriptionError {
    DescriptionError(message.into())
}

pub(crate) type Described = Platform<Box<SeamMemory>>;

impl PlatformDescription {
    fn config(&self) -> Result<Config, DescriptionError> {
        let generation = self.loader_generation.as_deref().unwrap_or("1.5.00");
        let Some((_, mut profile)) =
            LoaderProfile::ALL.into_iter().find(|(name, _)| *name == generation)
        else {
            let known = LoaderProfile::ALL.map(|(name, _)| name).join(", ");
            return Err(wrong(format!(
                "loader_generation is {generation:?}, but should be one of {known}"
            )));
        };
        if let Some(identity) = &self.loader_identity {
            profile.build_date = identity.build_date;
            profile.build_num = identity.build_num;
            (profile.major, profile.minor) = (identity.major, identity.minor);
            profile.debug = identity.debug;
        }
        let mut signer = TEST_SIGNER;
        if let Some(key) = &self.signer_key_sha384 {
            let digest = <[u8; 48]>::try_from(&*key.0);
            signer = digest.map_err(|_| {
                wrong(format!("signer_key_sha384 has {} bytes, but should have 48", key.0.len()))
            })?;
        }
        let mut config =
            Config::new(1, 1, 0, signer, profile).map_err(|error| wrong(error.to_string()))?;
        if self.socket_fms.len() > 8
            || usize::try_from(self.num_sockets) != Ok(self.socket_fms.len())
        {
            let (fms, sockets) = (self.socket_fms.len(), self.num_sockets);
            return Err(wrong(format!(
                "socket_fms has {fms} entries for {sockets} sockets; there are up to 8"
            )));
        }
        for (slot, fms) in config.socket_fms.iter_mut().zip(&self.socket_fms) {
            *slot = u32::try_from(fms.0)
                .map_err(|_| wrong(format!("socket_fms has {:#x}, of more than 32 bits", fms.0)))?;
        }
        let first = self.lp_x2apic_ids.first().copied().unwrap_or(0);
        config.num_lps = self.num_lps;
        config.num_sockets = self.num_sockets;
        config.acm_x2apicid = self.acm_x2apicid.unwrap_or(first);
        config.max_pa = self.max_pa.unwrap_or(52);
        config.keyid_bits = self.keyid_bits;
        config.private_hkid_min = self.private_hkid_min.0;
        (config.seamrr_base, config.seamrr_size) = (self.seamrr_base.0, self.seamrr_size.0);
        config.p_seamldr_size = self.p_seamldr_range_size.map_or(4 << 20, |size| size.0);
        if self.p_seamldr_range_base.is_some_and(|base| base.0 != config.p_seamldr_base()) {
            return Err(wrong(
                "p_seamldr_range_base is not where the last part of the SEAM range begins",
            ));
        }
        config.addressable_lps_per_socket =
            self.addressable_lps_per_socket.unwrap_or(16).clamp(1, 1024);
        let slots = config.addressable_lps_per_socket.next_power_of_two();
        config.package_shift = self.pkg_id_shift.unwrap_or(slots.trailing_zeros());
        config.debug_unlocked = self.debug_unlocked;
        (config.rdrand_ok, config.rdrand_value) = (self.rdrand.ok, self.rdrand.value.0);
        config.seamops_capabilities =
            self.seamops_capabilities.map_or(0x7f, |capabilities| capabilities.0);
        config.seamret_clears_vmcs = self.seamret_clears_vmcs;
        config.full_seamdb_is_fatal = self.full_seamdb_is_fatal;
        config.accepts_large_signatures = self.accepts_large_signatures;
        config.check(&self.lp_x2apic_ids).map_err(|error| wrong(error.to_string()))?;
        Ok(config)
    }

    fn platform_table(&self, config: &Config) -> Result<PSysInfo, DescriptionError> {
        let mut table = config.platform_table();
        if let Some(bytes) = &self.mcheck_table_hex {
            let bytes = bytes.padded(2048).and_then(|bytes| PSysInfo::read_from_bytes(&bytes).ok());
            table = bytes.ok_or_else(|| wrong("mcheck_table_hex has more than 2048 bytes"))?;
        }
        if let Some(cmrs) = &self.cmrs {
            if cmrs.len() > table.cmrs.len() {
                return Err(wrong(format!(
                    "there are {} CMRs, but should be up to 32",
                    cmrs.len()
                )));
            }
            table.cmrs.zero();
            for (slot, [base, size]) in table.cmrs.iter_mut().zip(cmrs) {
                *slot = Cmr { base: U64::new(base.0), size: U64::new(size.0) };
            }
        }
        table.smrr2_not_supported |= u8::from(self.smrr2_not_supported);
        table.tdx_without_integrity |= u8::from(self.tdx_without_integrity);
        Ok(table)
    }
}

impl ModuleDescription {
    pub(crate) fn build(&self) -> ModuleBuild {
        let features0 = self.features0.map(|bits| TdxFeatures0::from_bits_retain(bits.0));
        ModuleBuild {
            version: TdxVersion { major: self.major, minor: self.minor, update: self.update },
            internal_version: self.internal,
            build_date: self.build_date,
            build_num: self.build_num,
            module_hv: self.built_module_hv,
            min_update_hv: self.built_min_update_hv,
            no_downgrade: self.built_no_downgrade.0 != 0,
            features0: features0.unwrap_or(ModuleBuild::V1_5_01.features0),
            ..ModuleBuild::V1_5_01
        }
    }

    pub(crate) fn told(&self, config: &Config) -> SysInfo {
        SysInfo {
            module_hv: self.sysinfo.module_hv,
            min_update_hv: self.sysinfo.min_update_hv,
            no_downgrade: self.sysinfo.no_downgrade.0 != 0,
            num_handoff_pages: self.sysinfo.num_handoff_pages,
            tot_num_lps: config.num_lps,
            num_packages: config.num_sockets,
        }
    }
}

/// Returns a handoff header for the platform's memory.
fn header(handoff: &Handoff) -> Result<HandoffHeader, DescriptionError> {
    let size = u32::try_from(handoff.size.0);
    Ok(HandoffHeader {
        valid: u8::try_from(handoff.valid.0)
            .map_err(|_| wrong("a handoff's valid flag has more than 8 bits"))?,
        reserved: 0,
        hv: U16::new(handoff.hv),
        size: U32::new(size.map_err(|_| wrong("a handoff's size has more than 32 bits"))?),
    })
}

/// Writes a handoff header and its data into the platform's memory.
pub(crate) fn put_handoff(
    platform: &mut Described,
    handoff: &Handoff,
) -> Result<(), DescriptionError> {
    let pages =
        platform.module().map_or(0, |module| usize::from(module.sysinfo().num_handoff_pages));
    let area = pages.saturating_add(1).saturating_mul(4096);
    let filler = match handoff.payload {
        None => None,
        Some(Payload::Zero) => Some(vec![0; area]),
        Some(Payload::Ones) => Some(vec![0xff; area]),
        Some(Payload::Own) => Some(own_payload(platform)?),
    };
    let header = header(handoff)?;
    let bytes = platform.handoff();
    for (slot, byte) in bytes.iter_mut().zip(filler.iter().flatten()) {
        *slot = *byte;
    }
    bytes.iter_mut().zip(header.as_bytes()).for_each(|(slot, byte)| *slot = *byte);
    Ok(())
}

/// Returns the handoff data that the platform's module leaves if it is brought up and shut down.
fn own_payload(platform: &Described) -> Result<Vec<u8>, DescriptionError> {
    let Some(module) = platform.module() else {
        return Err(wrong("a handoff with the payload \"own\", but no module"));
    };
    let build = *module.build();
    let mut other = platform.clone();
    let all: Vec<u32> = (0..platform.config().num_lps).collect();
    // The data depends neither on the platform nor on what the module was built for. So use a
    // platform that the module accepts, and no deviations of LPs.
    other.restore_lps();
    let config = other.config_mut();
    (config.rdrand_ok, config.rdrand_value) = (true, 1);
    (config.seamdb_getref_error, config.pconfig_error) = (0, 0);
    config.seamops_capabilities = 0x7f;
    let config = *config;
    other.set_lps((0..).map_while(|lp| platform.x2apic_id(lp)));
    *other.platform_table_mut() = config.platform_table();
    let fitting = SysInfo {
        module_hv: build.module_hv,
        min_update_hv: build.min_update_hv,
        no_downgrade: build.no_downgrade,
        num_handoff_pages: 31,
        tot_num_lps: config.num_lps,
        num_packages: config.num_sockets,
    };
    other.put_module(build, fitting, false);
    bring_up(&mut other, &all, ModuleState::Shutdown).map_err(|error| not_reached(&error))?;
    Ok(other.handoff().to_vec())
}

/// Returns the state with this name.
pub(crate) fn state_named(name: &str) -> Result<ModuleState, DescriptionError> {
    let known = ModuleState::ALL.into_iter().find(|(_, known)| *known == name);
    known.map(|(state, _)| state).ok_or_else(|| {
        let known = ModuleState::ALL.map(|(_, name)| name).join(", ");
        wrong(format!("the state of the module is {name:?}, but should be one of {known}"))
    })
}

/// Checks that the parts of a state do not contradict each other.
fn consistent(initial: &Initial) -> Result<(), DescriptionError> {
    let ready = initial
        .seamextend
        .as_ref()
        .map(|bytes| bytes.0.get(offset_of!(SeamExtend, seam_ready)) == Some(&1));
    let Some(module) = &initial.module else {
        if initial.state.is_some() || !initial.lps_initialized.is_empty() {
            return Err(wrong("initial has state or lps_initialized, but no module"));
        }
        if ready == Some(true) && initial.module_sysinfo.is_none() {
            return Err(wrong(
                "SEAM_READY in seamextend is 1, but there is neither module nor module_sysinfo",
            ));
        }
        return Ok(());
    };
    if ready == Some(false) {
        return Err(wrong(
            "SEAM_READY in seamextend is not 1, but there is a module; P-SEAMLDR sets it to 1 \
             when it has installed one",
        ));
    }
    if initial.module_sysinfo.is_some_and(|told| told != module.sysinfo) {
        return Err(wrong(
            "module.sysinfo and module_sysinfo both say what the module was told, and differ",
        ));
    }
    let lps = &initial.lps_initialized;
    if let Some(lp) =
        lps.iter().enumerate().find(|(place, lp)| lps.iter().take(*place).any(|other| other == *lp))
    {
        return Err(wrong(format!("lps_initialized has LP {} twice", lp.1)));
    }
    let pending = ModuleState::SysInitPending;
    let state = initial.state.as_deref().map_or(Ok(pending), state_named)?;
    if state == pending && !lps.is_empty() {
        return Err(wrong(
            "lps_initialized has LPs, but the state of the module is SYSINIT_PENDING, in which \
             none is",
        ));
    }
    Ok(())
}

/// Makes the platform in the described state.
pub(crate) fn platform(
    description: &PlatformDescription,
    initial: &Initial,
) -> Result<Described, DescriptionError> {
    let config = description.config()?;
    consistent(initial)?;
    let seamdb =
        description.seamdb.map_or(SeamDb { size: 64, used: 0, insert_failures: 0 }, |state| {
            SeamDb { size: state.size, used: state.used, insert_failures: state.insert_failures }
        });
    seamdb.check().map_err(|error| wrong(error.to_string()))?;
    let memory = seam_memory().map_err(|error| wrong(error.to_string()))?;
    let mut platform = Platform::new(config, seamdb, memory);
    platform.set_lps(description.lp_x2apic_ids.iter().copied());
    *platform.platform_table_mut() = description.platform_table(&config)?;
    let mut seamextend = SeamExtend::new_zeroed();
    seamextend.p_seamldr_ready = 1;
    if let Some(bytes) = &initial.seamextend {
        let bytes = bytes.padded(136).and_then(|bytes| SeamExtend::read_from_bytes(&bytes).ok());
        seamextend = bytes.ok_or_else(|| wrong("seamextend has more than 136 bytes"))?;
    }
    let told = initial.module.as_ref().map(|module| module.sysinfo).or(initial.module_sysinfo);
    platform.restore_loader(&LoaderState {
        seamextend,
        entered: initial.entered_before,
        num_remaining_updates: initial.num_remaining_updates,
        module_range_initialized: initial.module_range_initialized,
        sysinfo: told.map(|told| ModuleSysInfo {
            module_hv: told.module_hv,
            min_update_hv: told.min_update_hv,
            no_downgrade: u8::from(told.no_downgrade.0 != 0),
            num_handoff_pages: told.num_handoff_pages,
            ..ModuleSysInfo::default()
        }),
    });
    if let Some(module) = &initial.module {
        let state =
            initial.state.as_deref().map_or(Ok(ModuleState::SysInitPending), state_named)?;
        platform.put_module(module.build(), module.told(&config), false);
        bring_up(&mut platform, &initial.lps_initialized, state)
            .map_err(|error| not_reached(&error))?;
    }
    if let Some(handoff) = &initial.handoff {
        put_handoff(&mut platform, handoff)?;
    }
    Ok(platform)
}
