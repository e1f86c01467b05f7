//! Every reason for a refusal that can be known before anything is shut down.
//!
//! Linux checks the framing of a file and shuts the running module down; P-SEAMLDR then looks at the image for the first
//! time, and if it refuses, the TDs are gone. [`preflight`] asks the same questions beforehand. It reports every reason, each
//! with the value found and the value wanted, and says what it could not find out.

use core::fmt;

use crate::abi::{FieldId, PSysInfo, PSysInfoBuffer, SeamSigstruct, SeamldrInfo, SeamldrInfoBuffer, Svn};
use crate::abi::{TdxFeatures0, FMS_MASK, INTEL_VENDOR_ID, MAX_CPUID_ENTRIES, PAGE_SIZE};
use crate::debug::debug_fields;
use crate::elf::{self, ElfRefusal};
use crate::space::{Layout, Shortage};
use crate::update::Options;
use crate::{Crypto, Host, Lock, SeamcallBackend, Seamldr, SeamldrError, Sha384Digest};
use crate::{TdxError, TdxImage, TdxModule, TdxVersion};

/// Bytes in front of the handoff data.
const HANDOFF_HEADER: u32 = 8;

/// Bytes of the 32 fault wrappers in an image: one of 16 bytes for each exception vector.
const FAULT_WRAPPERS_SIZE: u32 = 32 * 16;

/// The handoff versions that a module writes and takes, as it was built. What P-SEAMLDR told it may be narrower; the module
/// then refuses to shut down, and nothing is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandoffRange {
    /// The highest.
    pub module_hv: u16,
    /// The lowest.
    pub min_update_hv: u16,
    /// The module writes its highest version only.
    pub no_downgrade: bool,
}

impl HandoffRange {
    /// The highest version that a running module with this range can write and the module of `new` can take.
    #[must_use]
    pub fn negotiate(&self, new: &SeamSigstruct) -> Option<u16> {
        let lowest_written = if self.no_downgrade { self.module_hv } else { self.min_update_hv };
        let common = self.module_hv.min(new.module_hv.get());
        (common >= lowest_written && common >= new.min_update_hv.get()).then_some(common)
    }
}

/// Bytes of handoff data that a module of this version leaves in version 0 or 1, as far as that is known: of the 1.5 modules, and of
/// the 2.0 modules up to 2.0.12.
#[must_use]
pub const fn handoff_data_size(version: TdxVersion) -> Option<u32> {
    match version {
        TdxVersion { major: 1, minor: 5, .. } => Some(53_391),
        TdxVersion { major: 2, minor: 0, update: 0..=12 } => Some(101_810),
        _ => None,
    }
}

/// Pages of handoff data of version 0 that a module with a later version takes, however many it has itself (facts 7.6).
const PAGES_OF_HV0: u32 = 25;

/// Whether the handoff data that the running module leaves in a version fits into the new module's pages. Where the version is not
/// known, it may be any that the new module takes.
fn check_handoff_pages(new: &SeamSigstruct, facts: &Facts<'_>, version: Option<u16>) -> Result<(), Finding> {
    let module_hv = new.module_hv.get();
    let room = |version| match version {
        0 if module_hv != 0 => PAGES_OF_HV0,
        _ => u32::from(new.num_handoff_pages.get()).saturating_add(1),
    };
    let [one, other] = [version.unwrap_or(new.min_update_hv.get()), version.unwrap_or(module_hv)].map(room);
    let (least, most) = (one.min(other), one.max(other));
    let wanted = facts.handoff_data.map(|data| data.saturating_add(HANDOFF_HEADER).div_ceil(4096));
    match wanted.or(facts.handoff_pages) {
        Some(pages) if pages <= least => Ok(()),
        Some(wanted) if wanted > most && facts.handoff_data.is_some() => {
            Err(Finding::Refusal(Refusal::HandoffPages { found: most, wanted }))
        }
        _ => Err(Finding::Unknown(Unknown::HandoffData)),
    }
}

/// What is known about the platform and the module that runs on it.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// From SEAMLDR.INFO. Making that call also refreshes a remembered number of 0 remaining updates.
    pub info: &'a SeamldrInfo,
    /// From SEAMLDR.SEAMINFO.
    pub sysinfo: &'a PSysInfo,
    /// How many LPs are going to take part.
    pub num_lps: u32,
    /// TDX_FEATURES0 of the running module.
    pub features0: Option<TdxFeatures0>,
    /// Handoff versions of the running module.
    pub handoff: Option<HandoffRange>,
    /// Whether the platform is unlocked for debug modules: IA32_SGX_DEBUG_MODE (MSR 0x503) bit 1.
    pub debug_unlocked: Option<bool>,
    /// LPs that could share a socket's last-level cache: CPUID leaf 4, subleaf 3, EAX bits 25:14, plus 1.
    pub addressable_lps_per_socket: Option<u32>,
    /// Where the SEAM range begins: IA32_SEAMRR_PHYS_BASE (MSR 0x1400), bits 51:25.
    pub seamrr_base: Option<u64>,
    /// Bytes of handoff data that the running module is going to leave, without the header of 8 bytes, in the version that both
    /// modules have; see [`handoff_data_size`].
    pub handoff_data: Option<u32>,
    /// Pages that the running module has for its handoff data: it leaves no more than fits into them, with the header. Where the size
    /// itself is not known, this may be enough to know.
    pub handoff_pages: Option<u32>,
    /// TDs between TDH.MNG.INIT and TDH.MR.FINALIZE, and migrations with an interrupted step, as far as the embedder knows. It need
    /// not be known where the running module has UPDATE_COMPATIBILITY: such modules refuse to shut down because of them. But they do
    /// so only if the update's options ask them to, as those of [`options`](Self::options) do, and they do not know of the TDs that a
    /// module without it began.
    pub sensitive_operations: Option<u32>,
    /// The signer that P-SEAMLDR trusts: [`INTEL_PRODUCTION_SIGNER`](crate::INTEL_PRODUCTION_SIGNER), but for simulations.
    pub signer: &'a Sha384Digest,
}

debug_fields! {
    Facts<'a>, info, sysinfo, num_lps, features0, handoff, debug_unlocked, addressable_lps_per_socket,
    seamrr_base, handoff_data, handoff_pages, sensitive_operations, signer
}

impl<'a> Facts<'a> {
    /// What P-SEAMLDR says, and nothing else.
    #[must_use]
    pub const fn new(
        info: &'a SeamldrInfo,
        sysinfo: &'a PSysInfo,
        num_lps: u32,
        signer: &'a Sha384Digest,
    ) -> Self {
        Self {
            info,
            sysinfo,
            num_lps,
            features0: None,
            handoff: None,
            debug_unlocked: None,
            addressable_lps_per_socket: None,
            seamrr_base: None,
            handoff_data: None,
            handoff_pages: None,
            sensitive_operations: None,
            signer,
        }
    }

    /// Asks P-SEAMLDR and the running module. What the module does not say stays `None`, and so does what only the embedder can
    /// read or know.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR could not be asked; there is nothing to go by then.
    pub fn gather<B, L, H>(
        seamldr: &Seamldr<'_, B, L>,
        host: &H,
        info: &'a mut SeamldrInfoBuffer,
        sysinfo: &'a mut PSysInfoBuffer,
        signer: &'a Sha384Digest,
    ) -> Result<Self, SeamldrError>
    where
        B: SeamcallBackend + ?Sized,
        L: Lock + ?Sized,
        H: Host + ?Sized,
    {
        let module = TdxModule::new(seamldr.backend());
        let handoff = || {
            Ok::<_, TdxError>(HandoffRange {
                module_hv: module.read_u16(FieldId::MODULE_HV)?,
                min_update_hv: module.read_u16(FieldId::MIN_UPDATE_HV)?,
                no_downgrade: module.sys_rd(FieldId::NO_DOWNGRADE)?.value != 0,
            })
        };
        let (info, sysinfo) = (seamldr.info(host, info)?, seamldr.seam_info(host, sysinfo)?);
        let (features0, handoff) = (module.features0().ok(), handoff().ok());
        // In later versions the same module may leave another size.
        let is_size_known = handoff.is_none_or(|running| running.module_hv <= 1);
        let version = if is_size_known { module.version().ok() } else { None };
        let pages = module.read_u16(FieldId::NUM_HANDOFF_PAGES);
        Ok(Self {
            features0,
            handoff,
            handoff_data: version.and_then(handoff_data_size),
            // The first page is not counted.
            handoff_pages: pages.ok().map(|others| u32::from(others).saturating_add(1)),
            ..Self::new(info, sysinfo, host.num_lps(), signer)
        })
    }
}

impl Facts<'_> {
    /// The options for an update to this image that [`preflight`] has passed: handoff data in the highest version that both modules
    /// have, and no TD in build damaged, where the running module knows how to refuse.
    #[must_use]
    pub fn options(&self, image: &TdxImage<'_>) -> Options {
        Options {
            handoff_version: self.handoff.and_then(|running| running.negotiate(image.sigstruct())),
            avoid_compat_sensitive: self.refuses_sensitive_operations(),
            detect_compat_damage: false,
        }
    }

    /// Whether the running module can be asked to refuse to shut down because of what an update would damage.
    fn refuses_sensitive_operations(&self) -> bool {
        self.features0.is_some_and(|known| known.contains(TdxFeatures0::UPDATE_COMPATIBILITY))
    }
}

/// A field of the SIGSTRUCT that has one right value.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct FieldMismatch {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub found: u64,
    /// The right value.
    pub wanted: u64,
}

debug_fields! { FieldMismatch, found, wanted; name }

/// One reason why an update would be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The SIGSTRUCT area has this many pages, instead of 1.
    SigstructPages(u32),
    /// A field of the SIGSTRUCT is wrong.
    SigstructField(FieldMismatch),
    /// A reserved byte of the SIGSTRUCT is not zero.
    SigstructReserved {
        /// Its offset.
        offset: u32,
        /// Its value.
        found: u8,
    },
    /// The list of CPUs announces more entries than it has room for.
    CpuListLength(u32),
    /// The new module's lowest handoff version is above its highest.
    HandoffVersionsReversed {
        /// The lowest.
        min_update_hv: u16,
        /// The highest.
        module_hv: u16,
    },
    /// The offset of GDT and IDT is not a multiple of 4096.
    GdtOffsetMisaligned(u32),
    /// One of the offsets of GDT and fault wrappers is 0 and the other one is not.
    GdtWithoutFaultWrapper {
        /// Offset of GDT and IDT.
        gdt_idt: u32,
        /// Offset of the fault wrappers.
        fault_wrapper: u32,
    },
    /// GDT and IDT do not lie inside the image.
    GdtOutside {
        /// Their offset.
        found: u32,
        /// The highest offset possible.
        limit: u32,
    },
    /// The fault wrappers do not lie inside the image.
    FaultWrapperOutside {
        /// Their offset.
        found: u32,
        /// The highest offset possible.
        limit: u32,
    },
    /// The SIGSTRUCT was signed by another key; this is the digest of its modulus.
    Signer(Sha384Digest),
    /// The signature is not the signer's over this SIGSTRUCT.
    Signature,
    /// The image does not have the hash that was signed; this is the one it has.
    ImageHash(Sha384Digest),
    /// A debug module, on a platform that is not unlocked.
    DebugModule,
    /// The module has the major SVN 0: such modules preserve no TDs.
    MajorSvnZero,
    /// The module belongs to another line than the running one.
    MajorSvn {
        /// The image's.
        found: Svn,
        /// The running module's.
        running: Svn,
    },
    /// The module is older than the running one.
    MinorSvn {
        /// The image's.
        found: Svn,
        /// The running module's.
        running: Svn,
    },
    /// This socket's processor, given by CPUID.1:EAX, is not in the image's list.
    Cpu {
        /// The socket's number.
        socket: u32,
        /// Its processor.
        cpuid: u32,
    },
    /// A production module without a list of CPUs.
    NoCpuList,
    /// P-SEAMLDR can put no more modules in place before a reboot.
    NoRemainingUpdates,
    /// No module runs that could hand anything over.
    NoModule,
    /// P-SEAMLDR waits for every LP of the platform, but not all of them take part.
    LpsMissing {
        /// LPs that take part.
        found: u32,
        /// LPs of the platform.
        wanted: u32,
    },
    /// The running module cannot hand its TDs over.
    NotTdPreserving(TdxFeatures0),
    /// No handoff version suits both modules.
    HandoffVersion {
        /// What the running module writes.
        running: HandoffRange,
        /// The lowest that the new module takes.
        min_update_hv: u16,
        /// The highest that the new module takes.
        module_hv: u16,
    },
    /// The very module that runs already.
    SameModule,
    /// P-SEAMLDR has no room for the module.
    Memory {
        /// Bytes that there are.
        found: u64,
        /// Bytes that the module needs.
        wanted: u64,
    },
    /// P-SEAMLDR would find room for the module and then run out of it: its estimate of page tables is a little too low.
    PageTables,
    /// The image cannot be relocated.
    Elf(ElfRefusal),
    /// The new module does not take so many pages of handoff data.
    HandoffPages {
        /// The pages that it takes.
        found: u32,
        /// The pages that the data takes.
        wanted: u32,
    },
    /// So many TDs are in build, or migrations interrupted, and the running module does not see to it that no update comes in
    /// between: they would be damaged.
    SensitiveOperations(u32),
}

/// What could not be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unknown {
    /// The cryptography provider could not compute the signer's digest.
    Signer,
    /// The cryptography provider could not verify the signature.
    Signature,
    /// The cryptography provider could not hash the image.
    ImageHash,
    /// Whether the platform is unlocked for debug modules; asked for debug modules only.
    DebugUnlocked,
    /// What the running module can do.
    Features,
    /// Which handoff versions the running module writes.
    HandoffVersions,
    /// Whether the handoff data that the running module is going to leave fits into the new module's pages.
    HandoffData,
    /// Whether P-SEAMLDR has room for the module.
    Memory,
    /// Whether TDs are in build or migrations interrupted.
    SensitiveOperations,
}

/// Something that preflight has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// The update would be refused.
    Refusal(Refusal),
    /// This could not be checked.
    Unknown(Unknown),
}

/// What the caller decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Install the module that runs already once more. It uses up one of the remaining updates.
    pub allow_same_module: bool,
    /// Go on although something could not be checked.
    pub allow_unknowns: bool,
    /// Update although TDs in build get wrong measurements and interrupted migrations fail.
    pub allow_damage: bool,
}

/// What preflight came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Reasons for a refusal.
    pub refusals: u32,
    /// Questions without an answer.
    pub unknowns: u32,
    /// They do not matter, by the caller's [`Policy`].
    pub unknowns_allowed: bool,
}

impl Verdict {
    /// Nothing speaks against the update, and everything could be checked that has to be, by the caller's [`Policy`].
    #[must_use]
    pub const fn passed(&self) -> bool {
        self.refusals == 0 && (self.unknowns == 0 || self.unknowns_allowed)
    }
}

/// Asks of this image, on this platform, what P-SEAMLDR and the new module will ask. Every finding goes to `report`.
///
/// That the CPU has no VMCS erratum is asked by [`Seamldr::new`], and the form of the file by [`TdxImage::parse`].
pub fn preflight<C: Crypto + ?Sized>(
    image: &TdxImage<'_>,
    facts: &Facts<'_>,
    crypto: &C,
    policy: Policy,
    report: &mut dyn FnMut(Finding),
) -> Verdict {
    let mut preflight = Preflight::new(policy, report);
    preflight.running_module(facts);
    preflight.image(image, facts, crypto);
    preflight.handoff(image.sigstruct(), facts);
    preflight.sensitive_operations(facts, policy);
    if facts.info.seamextend.mrseam == image.sigstruct().seamhash {
        preflight.refuse_if(!policy.allow_same_module, Refusal::SameModule);
    }
    preflight.verdict
}

/// The part of [`preflight`] that needs no running module: for an image to fall back on, and for one to
/// [resume](crate::update::Update::resume) an update with, when no module runs.
///
/// `handoff_version` is the version in which the handoff data is written, or is going to be: for an image to fall back on what the
/// update's [options](crate::update::Options::handoff_version) say. It is `None` where that is not known, as when an update is resumed
/// and no module can be asked. The image has to take this version, and to have room for as much handoff data as the facts tell of. What
/// they leave open about that is no finding here: there may be nobody to ask.
///
/// An image with the right signature and another's module would end the TDs that stand still: P-SEAMLDR looks at the module's hash
/// after it has let the old one go.
pub fn preflight_image<C: Crypto + ?Sized>(
    image: &TdxImage<'_>,
    facts: &Facts<'_>,
    handoff_version: Option<u16>,
    crypto: &C,
    policy: Policy,
    report: &mut dyn FnMut(Finding),
) -> Verdict {
    let mut preflight = Preflight::new(policy, report);
    preflight.image(image, facts, crypto);
    preflight.handoff_in(image.sigstruct(), facts, handoff_version);
    preflight.verdict
}

struct Preflight<'r> {
    report: &'r mut dyn FnMut(Finding),
    verdict: Verdict,
}

impl<'r> Preflight<'r> {
    fn new(policy: Policy, report: &'r mut dyn FnMut(Finding)) -> Self {
        let verdict = Verdict { refusals: 0, unknowns: 0, unknowns_allowed: policy.allow_unknowns };
        Self { report, verdict }
    }

    /// What P-SEAMLDR asks of an image and of the platform.
    fn image<C: Crypto + ?Sized>(&mut self, image: &TdxImage<'_>, facts: &Facts<'_>, crypto: &C) {
        let sigstruct = image.sigstruct();
        self.platform(facts);
        self.sigstruct_form(image, facts);
        self.signer(sigstruct, facts, crypto);
        self.fitness(sigstruct, facts);
        self.ranges(image);
        self.cpus(sigstruct, facts);
        self.signature(sigstruct, crypto);
        self.memory(image, facts);
        self.image_hash(image, crypto);
        if let Err(refusal) = elf::check(image.module()) {
            self.refuse(Refusal::Elf(refusal)); // step 34
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.verdict.refusals = self.verdict.refusals.saturating_add(1);
        (self.report)(Finding::Refusal(refusal));
    }

    fn refuse_if(&mut self, refused: bool, refusal: Refusal) {
        if refused {
            self.refuse(refusal);
        }
    }

    fn find(&mut self, finding: Finding) {
        match finding {
            Finding::Refusal(refusal) => self.refuse(refusal),
            Finding::Unknown(unknown) => self.unknown(unknown),
        }
    }

    fn unknown(&mut self, unknown: Unknown) {
        self.verdict.unknowns = self.verdict.unknowns.saturating_add(1);
        (self.report)(Finding::Unknown(unknown));
    }

    /// Whether there is a module that can hand its TDs over.
    fn running_module(&mut self, facts: &Facts<'_>) {
        self.refuse_if(facts.info.seamextend.seam_ready == 0, Refusal::NoModule);
        match facts.features0 {
            None => self.unknown(Unknown::Features),
            Some(features) => self.refuse_if(
                !features.contains(TdxFeatures0::TD_PRESERVING),
                Refusal::NotTdPreserving(features),
            ),
        }
    }

    /// What does not depend on the image.
    fn platform(&mut self, facts: &Facts<'_>) {
        let wanted = facts.sysinfo.tot_num_lps.get();
        self.refuse_if(facts.num_lps != wanted, Refusal::LpsMissing { found: facts.num_lps, wanted });
        self.refuse_if(facts.info.num_remaining_updates.get() == 0, Refusal::NoRemainingUpdates);
    }

    /// SEAMLDR.INSTALL, steps 13 to 18.
    fn sigstruct_form(&mut self, image: &TdxImage<'_>, facts: &Facts<'_>) {
        let sigstruct = image.sigstruct();
        self.refuse_if(image.sigstruct_pages() != 1, Refusal::SigstructPages(image.sigstruct_pages()));

        // The 2.0 modules use what 1.5 calls reserved3, and 2.0 loaders take it.
        let reserved3: &[u8] = if facts.info.major.get() < 2 { &sigstruct.reserved3 } else { &[] };
        let reserved: [(u32, &[u8]); 4] = [
            (40, &sigstruct.reserved0),
            (978, &sigstruct.reserved1),
            (989, core::slice::from_ref(&sigstruct.reserved2)),
            (1000, reserved3),
        ];
        for (start, bytes) in reserved {
            if let Some((offset, &found)) = (start..u32::MAX).zip(bytes).find(|(_, byte)| **byte != 0) {
                self.refuse(Refusal::SigstructReserved { offset, found });
            }
        }

        let module_type = sigstruct.module_type.get() & !SeamSigstruct::MODULE_TYPE_DEBUG;
        let fields = [
            ("header_type", sigstruct.header_type.get(), 6),
            ("header_length", sigstruct.header_length.get(), 0xe1),
            ("header_version", sigstruct.header_version.get(), 0x10000),
            ("key_size", sigstruct.key_size.get(), 0x60),
            ("exponent_size", sigstruct.exponent_size.get(), 1),
            ("modulus_size", sigstruct.modulus_size.get(), 0x60),
            ("module_vendor", sigstruct.module_vendor.get(), INTEL_VENDOR_ID),
            ("module_type", module_type, 0),
            ("size", sigstruct.size.get(), 0x200),
            ("exponent", sigstruct.exponent.get(), 0x10001),
        ];
        for (name, found, wanted) in fields {
            self.field(name, found.into(), wanted.into());
        }
        self.field("attributes", sigstruct.attributes.get(), 0);

        let entries = sigstruct.cpuid_table_size.get();
        let too_many = usize::try_from(entries).map_or(true, |entries| entries > MAX_CPUID_ENTRIES);
        self.refuse_if(too_many, Refusal::CpuListLength(entries));

        let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
        self.refuse_if(
            min_update_hv > module_hv,
            Refusal::HandoffVersionsReversed { min_update_hv, module_hv },
        );
        let (gdt_idt, fault_wrapper) = (sigstruct.gdt_idt_offset.get(), sigstruct.fault_wrapper_offset.get());
        self.refuse_if(gdt_idt % 4096 != 0, Refusal::GdtOffsetMisaligned(gdt_idt));
        self.refuse_if(
            (gdt_idt == 0) != (fault_wrapper == 0),
            Refusal::GdtWithoutFaultWrapper { gdt_idt, fault_wrapper },
        );
    }

    fn field(&mut self, name: &'static str, found: u64, wanted: u64) {
        self.refuse_if(found != wanted, Refusal::SigstructField(FieldMismatch { name, found, wanted }));
    }

    /// Step 19.
    fn signer<C: Crypto + ?Sized>(&mut self, sigstruct: &SeamSigstruct, facts: &Facts<'_>, crypto: &C) {
        match crypto.sha384(&[&sigstruct.modulus]) {
            Ok(found) => self.refuse_if(found != *facts.signer, Refusal::Signer(found)),
            Err(_) => self.unknown(Unknown::Signer),
        }
    }

    /// Steps 20 to 23: debug modules and security versions.
    fn fitness(&mut self, sigstruct: &SeamSigstruct, facts: &Facts<'_>) {
        if sigstruct.is_debug() {
            match facts.debug_unlocked {
                None => self.unknown(Unknown::DebugUnlocked),
                Some(unlocked) => self.refuse_if(!unlocked, Refusal::DebugModule),
            }
        }
        let (found, running) = (sigstruct.svn(), facts.info.seamextend.svn());
        self.refuse_if(found.major == 0, Refusal::MajorSvnZero);
        if found.major != running.major {
            self.refuse(Refusal::MajorSvn { found, running });
        } else {
            self.refuse_if(found.minor < running.minor, Refusal::MinorSvn { found, running });
        }
    }

    /// Step 24: GDT and fault wrappers inside the image.
    fn ranges(&mut self, image: &TdxImage<'_>) {
        let size = u32::try_from(image.module().len()).unwrap_or(u32::MAX);
        let limit = size.saturating_sub(u32::try_from(PAGE_SIZE).unwrap_or(u32::MAX));
        let found = image.sigstruct().gdt_idt_offset.get();
        self.refuse_if(found > limit, Refusal::GdtOutside { found, limit });
        let limit = size.saturating_sub(FAULT_WRAPPERS_SIZE);
        let found = image.sigstruct().fault_wrapper_offset.get();
        self.refuse_if(found > limit, Refusal::FaultWrapperOutside { found, limit });
    }

    /// Steps 25 and 26.
    fn cpus(&mut self, sigstruct: &SeamSigstruct, facts: &Facts<'_>) {
        if sigstruct.cpus().is_empty() {
            return self.refuse_if(!sigstruct.is_debug(), Refusal::NoCpuList);
        }
        for (socket, cpuid) in (0..u32::MAX).zip(facts.sysinfo.sockets()) {
            let cpuid = cpuid.get();
            self.refuse_if(!sigstruct.lists_cpu(cpuid), Refusal::Cpu { socket, cpuid });
        }
    }

    /// Step 27.
    fn signature<C: Crypto + ?Sized>(&mut self, sigstruct: &SeamSigstruct, crypto: &C) {
        let verified = crypto
            .sha384(&sigstruct.signed_parts())
            .and_then(|digest| crypto.rsa3072_verify(&sigstruct.modulus, &sigstruct.signature, &digest));
        match verified {
            Ok(valid) => self.refuse_if(!valid, Refusal::Signature),
            Err(_) => self.unknown(Unknown::Signature),
        }
    }

    /// Step 31, as far as it is known before there is handoff data.
    fn handoff(&mut self, sigstruct: &SeamSigstruct, facts: &Facts<'_>) {
        match facts.handoff {
            None => self.unknown(Unknown::HandoffVersions),
            Some(running) => self.handoff_version(sigstruct, running),
        }
        let common = facts.handoff.and_then(|running| running.negotiate(sigstruct));
        if let Err(finding) = check_handoff_pages(sigstruct, facts, common) {
            self.find(finding);
        }
    }

    /// The same of handoff data in this version, without what is not known.
    fn handoff_in(&mut self, sigstruct: &SeamSigstruct, facts: &Facts<'_>, version: Option<u16>) {
        if let Some(written) = version {
            let only = HandoffRange { module_hv: written, min_update_hv: written, no_downgrade: false };
            self.handoff_version(sigstruct, only);
        }
        let version = version.or_else(|| facts.handoff.and_then(|running| running.negotiate(sigstruct)));
        if let Err(Finding::Refusal(refusal)) = check_handoff_pages(sigstruct, facts, version) {
            self.refuse(refusal);
        }
    }

    /// Whether one version at least that is written is taken.
    fn handoff_version(&mut self, sigstruct: &SeamSigstruct, running: HandoffRange) {
        let (min_update_hv, module_hv) = (sigstruct.min_update_hv.get(), sigstruct.module_hv.get());
        self.refuse_if(
            running.negotiate(sigstruct).is_none(),
            Refusal::HandoffVersion { running, min_update_hv, module_hv },
        );
    }

    /// Steps 29 and 32.
    fn memory(&mut self, image: &TdxImage<'_>, facts: &Facts<'_>) {
        let (Some(addressable), Some(base)) = (facts.addressable_lps_per_socket, facts.seamrr_base) else {
            return self.unknown(Unknown::Memory);
        };
        let sockets = facts.sysinfo.tot_num_sockets.get();
        let lps = addressable.checked_next_power_of_two().unwrap_or(u32::MAX).saturating_mul(sockets);
        let size = u64::try_from(image.module().len()).unwrap_or(u64::MAX);
        let layout = Layout::new(image.sigstruct(), size, lps, 0);
        let (found, wanted) = (facts.sysinfo.p_seamldr_base.get().saturating_sub(base), layout.need());
        if found < wanted {
            self.refuse(Refusal::Memory { found, wanted });
        } else {
            self.refuse_if(layout.shortage(found) != Shortage::None, Refusal::PageTables);
        }
    }

    /// A module with UPDATE_COMPATIBILITY counts by itself, for whoever asks it to, but not the TDs that an older module began.
    fn sensitive_operations(&mut self, facts: &Facts<'_>, policy: Policy) {
        if policy.allow_damage {
            return;
        }
        let counts = facts.refuses_sensitive_operations();
        match facts.sensitive_operations {
            None if counts => {}
            None => self.unknown(Unknown::SensitiveOperations),
            Some(count) => self.refuse_if(count != 0, Refusal::SensitiveOperations(count)),
        }
    }

    /// Step 33.
    fn image_hash<C: Crypto + ?Sized>(&mut self, image: &TdxImage<'_>, crypto: &C) {
        match crypto.sha384(&[image.module()]) {
            Ok(found) => {
                self.refuse_if(found != image.sigstruct().seamhash, Refusal::ImageHash(found));
            }
            Err(_) => self.unknown(Unknown::ImageHash),
        }
    }
}

impl Refusal {
    /// A name for the reason that does not change from release to release.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::SigstructPages(_) => "sigstruct-pages",
            Self::SigstructField(_) => "sigstruct-field",
            Self::SigstructReserved { .. } => "sigstruct-reserved-not-zero",
            Self::CpuListLength(_) => "cpu-list-length",
            Self::HandoffVersionsReversed { .. } => "handoff-versions-reversed",
            Self::GdtOffsetMisaligned(_) => "gdt-offset-misaligned",
            Self::GdtWithoutFaultWrapper { .. } => "gdt-without-fault-wrapper",
            Self::GdtOutside { .. } => "gdt-outside",
            Self::FaultWrapperOutside { .. } => "fault-wrapper-outside",
            Self::Signer(_) => "signer",
            Self::Signature => "signature",
            Self::ImageHash(_) => "image-hash",
            Self::DebugModule => "debug-module",
            Self::MajorSvnZero => "major-svn-zero",
            Self::MajorSvn { .. } => "major-svn",
            Self::MinorSvn { .. } => "minor-svn",
            Self::Cpu { .. } => "cpu",
            Self::NoCpuList => "no-cpu-list",
            Self::NoRemainingUpdates => "no-remaining-updates",
            Self::NoModule => "no-module",
            Self::LpsMissing { .. } => "lps-missing",
            Self::NotTdPreserving(_) => "not-td-preserving",
            Self::HandoffVersion { .. } => "handoff-version",
            Self::SameModule => "same-module",
            Self::Memory { .. } => "memory",
            Self::PageTables => "page-tables",
            Self::Elf(_) => "elf",
            Self::HandoffPages { .. } => "handoff-pages",
            Self::SensitiveOperations(_) => "sensitive-operations",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SigstructPages(found) => {
                write!(f, "the SIGSTRUCT area has {found} pages, but P-SEAMLDR takes 1")
            }
            Self::SigstructField(FieldMismatch { name, found, wanted }) => {
                write!(f, "the SIGSTRUCT's {name} is {found:#x}, but should be {wanted:#x}")
            }
            Self::SigstructReserved { offset, found } => write!(
                f,
                "the reserved byte at offset {offset} of the SIGSTRUCT is {found:#04x}, but should be 0"
            ),
            Self::CpuListLength(found) => {
                write!(f, "the SIGSTRUCT's list of CPUs announces {found} entries, but has room for 255")
            }
            Self::HandoffVersionsReversed { min_update_hv, module_hv } => write!(
                f,
                "the SIGSTRUCT's lowest handoff version is {min_update_hv}, above its highest, {module_hv}"
            ),
            Self::GdtOffsetMisaligned(found) => {
                write!(f, "the SIGSTRUCT's offset of the GDT is {found:#x}, but should be a multiple of 4096")
            }
            Self::GdtWithoutFaultWrapper { gdt_idt, fault_wrapper } => write!(
                f,
                "the SIGSTRUCT's offsets of GDT ({gdt_idt:#x}) and fault wrappers ({fault_wrapper:#x}) should both be 0 or neither"
            ),
            Self::GdtOutside { found, limit } => {
                write!(f, "the GDT lies at offset {found:#x} of the image, but should lie at {limit:#x} at most")
            }
            Self::FaultWrapperOutside { found, limit } => write!(
                f,
                "the fault wrappers lie at offset {found:#x} of the image, but should lie at {limit:#x} at most"
            ),
            Self::Signer(found) => {
                f.write_str("the image is signed by a key that P-SEAMLDR does not trust (SHA-384 of its modulus: ")?;
                hex(f, found)?;
                f.write_str(")")
            }
            Self::Signature => f.write_str("the signature is not valid: the SIGSTRUCT was changed after it was signed"),
            Self::ImageHash(found) => {
                f.write_str("the module was changed after it was signed: its SHA-384 is ")?;
                hex(f, found)
            }
            Self::DebugModule => {
                f.write_str("this is a debug module, and the platform is not unlocked for debugging")
            }
            Self::MajorSvnZero => {
                f.write_str("the image's SVN begins with 0, and such modules cannot take TDs over")
            }
            Self::MajorSvn { found, running } => write!(
                f,
                "the image's SVN is {found} and the running module's {running}: the first number has to be the same"
            ),
            Self::MinorSvn { found, running } => {
                write!(f, "the image's SVN is {found}, below the running module's, {running}: no downgrades")
            }
            Self::Cpu { socket, cpuid } => write!(
                f,
                "the processor {:#010x} of socket {socket} is not in the image's list of CPUs",
                cpuid & FMS_MASK
            ),
            Self::NoCpuList => f.write_str("the image has no list of CPUs, which a production module needs"),
            Self::NoRemainingUpdates => {
                f.write_str("no updates remain before the next reboot (0 left, 1 needed)")
            }
            Self::NoModule => f.write_str("no module runs that could hand its TDs over"),
            Self::LpsMissing { found, wanted } => write!(
                f,
                "{found} logical processors would take part, but the platform has {wanted}: bring all of them online"
            ),
            Self::NotTdPreserving(features) => write!(
                f,
                "the running module cannot hand its TDs over: TDX_FEATURES0 is {:#x}, without bit 1",
                features.bits()
            ),
            Self::HandoffVersion { running, min_update_hv, module_hv } => write!(
                f,
                "the running module writes handoff versions {} to {}, but the image takes {min_update_hv} to {module_hv}",
                if running.no_downgrade { running.module_hv } else { running.min_update_hv },
                running.module_hv
            ),
            Self::SameModule => f.write_str("this very module runs already"),
            Self::Memory { found, wanted } => {
                write!(f, "the module needs {wanted} bytes of the SEAM range, but there are {found}")
            }
            Self::PageTables => {
                f.write_str("the module fits into the SEAM range only if its page tables are left out: give it more room")
            }
            Self::Elf(refusal) => write!(f, "the module cannot be relocated: {refusal}"),
            Self::HandoffPages { found, wanted } => {
                write!(f, "the image has room for {found} pages of handoff data, but the running module leaves {wanted}")
            }
            Self::SensitiveOperations(count) => write!(
                f,
                "{count} TDs are in build or migrations interrupted, which an update may damage: wait"
            ),
        }
    }
}

impl core::error::Error for Refusal {}

fn hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl Unknown {
    /// A name for the question that does not change from release to release.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Signer => "unknown-signer",
            Self::Signature => "unknown-signature",
            Self::ImageHash => "unknown-image-hash",
            Self::DebugUnlocked => "unknown-debug-unlocked",
            Self::Features => "unknown-features",
            Self::HandoffVersions => "unknown-handoff-versions",
            Self::HandoffData => "unknown-handoff-data",
            Self::Memory => "unknown-memory",
            Self::SensitiveOperations => "unknown-sensitive-operations",
        }
    }
}

impl fmt::Display for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signer => "the signer could not be checked",
            Self::Signature => "the signature could not be checked",
            Self::ImageHash => "the module's hash could not be checked",
            Self::DebugUnlocked => "it is not known whether the platform is unlocked for debugging",
            Self::Features => "it is not known what the running module can do",
            Self::HandoffVersions => "it is not known which handoff versions the running module writes",
            Self::HandoffData => "it is not known how much handoff data the running module is going to leave",
            Self::Memory => "it is not known whether the SEAM range has room for the module",
            Self::SensitiveOperations => "it is not known whether TDs are in build or migrations interrupted",
        })
    }
}

impl core::error::Error for Unknown {}

impl Finding {
    /// A name for the finding that does not change from release to release.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Refusal(refusal) => refusal.code(),
            Self::Unknown(unknown) => unknown.code(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refusal(refusal) => refusal.fmt(f),
            Self::Unknown(unknown) => unknown.fmt(f),
        }
    }
}
