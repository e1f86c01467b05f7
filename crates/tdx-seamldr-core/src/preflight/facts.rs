//! The facts about the machine and its running module. Each fact may be absent.

use crate::abi::{FieldId, PSysInfo, PSysInfoBuffer, SeamSigstruct, SeamldrFeatures0, SeamldrInfo};
use crate::abi::{SeamldrInfoBuffer, Svn, TdxFeatures0, MAX_SOCKETS};
use crate::crypto::{Sha384Digest, INTEL_PRODUCTION_SIGNER};
use crate::debug::debug_fields;
use crate::host::Host;
use crate::lock::Lock;
use crate::seamldr::{Seamldr, SeamldrError};
use crate::shared_memory::SharedMemory;
use crate::tdx_module::{TdxError, TdxModule, TdxVersion};

/// The handoff versions that a module writes and takes.
///
/// P-SEAMLDR may give the module narrower limits. The module then refuses a version outside them
/// before it shuts down, so no TD is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffRange {
    /// The highest version.
    pub module_hv: u16,
    /// The lowest version.
    pub min_update_hv: u16,
    /// The module writes its highest version only.
    pub no_downgrade: bool,
}

impl HandoffRange {
    /// The lowest version that the module writes.
    #[must_use]
    pub const fn lowest_written(&self) -> u16 {
        if self.no_downgrade {
            self.module_hv
        } else {
            self.min_update_hv
        }
    }

    /// Returns the highest version that a running module with this range writes and the module of
    /// `new` takes. `None` if there is no such version.
    #[must_use]
    pub fn negotiate(&self, new: &SeamSigstruct) -> Option<u16> {
        let common = self.module_hv.min(new.module_hv.get());
        (common >= self.lowest_written() && common >= new.min_update_hv.get()).then_some(common)
    }
}

/// Returns how many bytes of handoff data a module of this version leaves, in any handoff version
/// that it writes. `None`: no public source tells the size.
#[must_use]
pub const fn handoff_data_size(version: TdxVersion) -> Option<u32> {
    match version {
        TdxVersion { major: 1, minor: 5, update: 0..=25 }
        | TdxVersion { major: 2, minor: 0, update: 14 } => Some(53_391),
        TdxVersion { major: 2, minor: 0, update: 0..=12 } => Some(101_810),
        TdxVersion { major: 1, minor: 5, update: 28..=34 }
        | TdxVersion { major: 2, minor: 0, update: 16..=18 } => Some(57_336),
        _ => None,
    }
}

/// The processor signature (CPUID.1:EAX) of each socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sockets {
    signatures: [u32; MAX_SOCKETS],
    count: usize,
}

impl Sockets {
    /// Takes the signatures in the order of the sockets. `None` for no signature or more than
    /// [`MAX_SOCKETS`].
    #[must_use]
    pub fn new(signatures: &[u32]) -> Option<Self> {
        if signatures.is_empty() {
            return None;
        }
        let mut sockets = Self { count: signatures.len(), ..Self::default() };
        sockets.signatures.get_mut(..signatures.len())?.copy_from_slice(signatures);
        Some(sockets)
    }

    /// Returns the signatures, one for each socket.
    #[must_use]
    pub fn signatures(&self) -> &[u32] {
        self.signatures.get(..self.count).unwrap_or(&self.signatures)
    }
}

/// The version of P-SEAMLDR. It decides which images P-SEAMLDR takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeamldrVersion {
    /// The 1 of 1.5.
    pub major: u16,
    /// The 5 of 1.5.
    pub minor: u16,
}

impl core::fmt::Display for SeamldrVersion {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// The facts about the machine and its running module.
///
/// [`gather`](Self::gather) fills in the facts that firmware knows. The caller adds facts from the
/// processor, a catalogue of releases or the operator. Preflight reports an
/// [`Unknown`](super::Unknown) if a rule needs an absent fact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The version of P-SEAMLDR. Source: SEAMLDR_INFO, offsets 18 and 20; Linux shows it as
    /// `seamldr_version`.
    pub p_seamldr: Option<SeamldrVersion>,
    /// The features of P-SEAMLDR. Source: SEAMLDR_INFO, offset 168.
    pub seamldr_features: Option<SeamldrFeatures0>,
    /// How many more modules P-SEAMLDR can install before a reboot. Source: SEAMLDR_INFO, offset
    /// 28, or Linux's `num_remaining_updates`. If P-SEAMLDR remembers 0, SEAMLDR.INFO makes it read
    /// the number again.
    pub remaining_updates: Option<u32>,
    /// Whether a module runs. Source: SEAMEXTEND.seam_ready in SEAMLDR_INFO, or the version that
    /// Linux shows.
    pub module_runs: Option<bool>,
    /// Whether P-SEAMLDR has a module in place, running or shut down. Source: SEAMEXTEND.valid in
    /// SEAMLDR_INFO.
    pub module_in_place: Option<bool>,
    /// Whether keys and caches are clean: no module was installed since boot, or since the last
    /// SEAMLDR.CLEANUP ended. Only a load over a P-SEAMLDR with that leaf needs this. Source: the
    /// host.
    pub keys_are_clean: Option<bool>,
    /// The SVN of the running module. Source: SEAMEXTEND in SEAMLDR_INFO, or a catalogue of
    /// releases.
    pub running_svn: Option<Svn>,
    /// MRSEAM, the SHA-384 of the running module. Source: SEAMEXTEND in SEAMLDR_INFO, or a
    /// catalogue of releases.
    pub running_mrseam: Option<Sha384Digest>,
    /// TDX_FEATURES0 of the running module. Source: TDH.SYS.RD, or a catalogue of releases.
    pub features0: Option<TdxFeatures0>,
    /// The handoff versions of the running module. Source: TDH.SYS.RD, or a catalogue of releases.
    pub handoff: Option<HandoffRange>,
    /// Bytes of handoff data that the running module leaves in the version that both modules
    /// support, without the header of 8 bytes. Source: [`handoff_data_size`].
    pub handoff_data: Option<u32>,
    /// Pages that the running module has for its handoff data and the header. Source: TDH.SYS.RD,
    /// or a catalogue of releases. Preflight uses this if [`handoff_data`](Self::handoff_data) is
    /// absent.
    pub handoff_pages: Option<u32>,
    /// TDs between TDH.MNG.INIT and TDH.MR.FINALIZE plus migrations with an interrupted step.
    /// Source: the hypervisor or the operator. A module with UPDATE_COMPATIBILITY counts them
    /// itself, except TDs that a module without the feature began.
    pub sensitive_operations: Option<u32>,
    /// LPs that take part in the update. Source: the host.
    pub num_lps: Option<u32>,
    /// LPs that P-SEAMLDR waits for. Source: P_SYSINFO, offset 8, or the enabled LPs of the ACPI
    /// MADT.
    pub platform_lps: Option<u32>,
    /// The highest x2APIC ID of an LP. Source: CPUID leaf 0x1F, or the ACPI MADT.
    pub highest_x2apic_id: Option<u32>,
    /// The processor signature of each socket. Source: P_SYSINFO, offset 16, or CPUID leaf 1 on
    /// each socket.
    pub sockets: Option<Sockets>,
    /// Whether the platform is unlocked for debug modules. Source: IA32_SGX_DEBUG_MODE (MSR 0x503)
    /// bit 1.
    pub debug_unlocked: Option<bool>,
    /// LPs that could share a socket's last-level cache. Source: CPUID leaf 4, subleaf 3, EAX bits
    /// 25:14, plus 1.
    pub addressable_lps_per_socket: Option<u32>,
    /// The first byte of the SEAM range. Source: IA32_SEAMRR_PHYS_BASE (MSR 0x1400), bits 51:25.
    pub seamrr_base: Option<u64>,
    /// The first byte after the SEAM range. P-SEAMLDR's own range lies before it, so a module that
    /// needs more room is refused also if [`p_seamldr_base`](Self::p_seamldr_base) is absent.
    /// Source: IA32_SEAMRR_PHYS_MASK (MSR 0x1401).
    pub seamrr_end: Option<u64>,
    /// The first byte of P-SEAMLDR's own range, which ends the space for modules. Source:
    /// P_SYSINFO, offset 48.
    pub p_seamldr_base: Option<u64>,
    /// The memory that P-SEAMLDR reads. Source: the processor. If this is absent, preflight
    /// reports no unknown, because P-SEAMLDR can read the memory that a kernel allocates.
    pub shared_memory: Option<SharedMemory>,
    /// The SHA-384 of the signer's key that P-SEAMLDR trusts. [`Facts::new`] fills in Intel's. A
    /// simulation has another signer.
    pub signer: Option<Sha384Digest>,
}

debug_fields! {
    Facts, p_seamldr, seamldr_features, remaining_updates, module_runs, module_in_place,
    keys_are_clean, running_svn, running_mrseam, features0, handoff, handoff_data, handoff_pages,
    sensitive_operations, num_lps, platform_lps, highest_x2apic_id, sockets, debug_unlocked,
    addressable_lps_per_socket, seamrr_base, seamrr_end, p_seamldr_base, shared_memory, signer
}

impl Default for Facts {
    fn default() -> Self {
        Self::new()
    }
}

impl Facts {
    /// Returns facts of which only the signer is known: Intel's production key, which every
    /// P-SEAMLDR of Intel trusts.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            p_seamldr: None,
            seamldr_features: None,
            remaining_updates: None,
            module_runs: None,
            module_in_place: None,
            keys_are_clean: None,
            running_svn: None,
            running_mrseam: None,
            features0: None,
            handoff: None,
            handoff_data: None,
            handoff_pages: None,
            sensitive_operations: None,
            num_lps: None,
            platform_lps: None,
            highest_x2apic_id: None,
            sockets: None,
            debug_unlocked: None,
            addressable_lps_per_socket: None,
            seamrr_base: None,
            seamrr_end: None,
            p_seamldr_base: None,
            shared_memory: None,
            signer: Some(INTEL_PRODUCTION_SIGNER),
        }
    }

    /// Fills in the facts that P-SEAMLDR and the running module know. A fact without an answer
    /// keeps its old value, so begin with new facts after an update. P-SEAMLDR writes to the
    /// buffers.
    ///
    /// # Errors
    ///
    /// SEAMLDR.INFO or SEAMLDR.SEAMINFO failed.
    pub fn gather<H: Host + ?Sized, L: Lock + ?Sized>(
        &mut self,
        seamldr: &Seamldr<'_, H, L>,
        info: &mut SeamldrInfoBuffer,
        sysinfo: &mut PSysInfoBuffer,
    ) -> Result<(), SeamldrError> {
        self.add_info(seamldr.info(info)?);
        self.add_sysinfo(seamldr.seam_info(sysinfo)?);
        self.num_lps = Some(seamldr.host().num_lps());
        self.add_module(&TdxModule::new(seamldr.host()));
        Ok(())
    }

    /// Fills in the facts that SEAMLDR_INFO holds. SVN and MRSEAM stay as they were if P-SEAMLDR
    /// has no module in place.
    pub fn add_info(&mut self, info: &SeamldrInfo) {
        let is_in_place = info.seamextend.valid.get() != 0;
        self.p_seamldr = Some(SeamldrVersion { major: info.major.get(), minor: info.minor.get() });
        self.seamldr_features = Some(info.features());
        self.remaining_updates = Some(info.num_remaining_updates.get());
        self.module_runs = Some(info.seamextend.seam_ready != 0);
        self.module_in_place = Some(is_in_place);
        if is_in_place {
            self.running_svn = Some(info.seamextend.svn());
            self.running_mrseam = Some(info.seamextend.mrseam);
        }
    }

    /// Fills in the facts that P_SYSINFO holds.
    pub fn add_sysinfo(&mut self, sysinfo: &PSysInfo) {
        self.platform_lps = Some(sysinfo.tot_num_lps.get());
        self.p_seamldr_base = Some(sysinfo.p_seamldr_base.get());
        let mut sockets = Sockets { count: sysinfo.sockets().len(), ..Sockets::default() };
        for (signature, cpuid) in sockets.signatures.iter_mut().zip(sysinfo.sockets()) {
            *signature = cpuid.get();
        }
        // Every platform has a socket. With 0 sockets firmware did not fill in the table.
        if sockets.count != 0 {
            self.sockets = Some(sockets);
        }
    }

    /// Fills in the facts that the running module answers to TDH.SYS.RD.
    fn add_module<H: Host + ?Sized>(&mut self, module: &TdxModule<'_, H>) {
        let handoff = || {
            Ok::<_, TdxError>(HandoffRange {
                module_hv: module.read_u16(FieldId::MODULE_HV)?,
                min_update_hv: module.read_u16(FieldId::MIN_UPDATE_HV)?,
                no_downgrade: module.sys_rd(FieldId::NO_DOWNGRADE)?.value != 0,
            })
        };
        self.features0 = module.features0().ok().or(self.features0);
        self.handoff = handoff().ok().or(self.handoff);
        // The table of sizes does not cover later handoff versions.
        let is_size_known = self.handoff.is_none_or(|running| running.module_hv <= 1);
        let version = if is_size_known { module.version().ok() } else { None };
        self.handoff_data = version.and_then(handoff_data_size).or(self.handoff_data);
        // The field does not count the first page.
        let others = module.read_u16(FieldId::NUM_HANDOFF_PAGES);
        let pages = others.ok().map(|others| u32::from(others).saturating_add(1));
        self.handoff_pages = pages.or(self.handoff_pages);
    }

    /// Whether the running module can refuse the shutdown because an update would damage TDs
    /// (UPDATE_COMPATIBILITY).
    pub(super) fn module_counts_sensitive_operations(&self) -> bool {
        self.features0.is_some_and(|known| known.contains(TdxFeatures0::UPDATE_COMPATIBILITY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_keep_up_to_eight_signatures() {
        assert_eq!(Sockets::new(&[1, 2]).unwrap().signatures(), [1, 2]);
        assert_eq!(Sockets::new(&[7; MAX_SOCKETS]).unwrap().signatures().len(), MAX_SOCKETS);
        assert_eq!((Sockets::new(&[7; MAX_SOCKETS + 1]), Sockets::new(&[])), (None, None));
    }
}
