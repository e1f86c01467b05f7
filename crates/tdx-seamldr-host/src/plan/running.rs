//! The module that runs now or before a later step, and the facts that follow from it.

use tdx_seamldr_core::abi::{SeamSigstruct, Svn, TdxFeatures0};
use tdx_seamldr_core::preflight::space::Layout;
use tdx_seamldr_core::preflight::{
    handoff_data_size, Facts, HandoffRange, SeamldrVersion, Sockets,
};
use tdx_seamldr_core::{Sha384Digest, TdxVersion};

use crate::catalogue::{Catalogue, Image};
use crate::fact::Reason;
use crate::host::{Host, Interface};
use crate::releases::{Platform, Release};

/// The highest handoff version whose size [`handoff_data_size`] knows.
const HIGHEST_SIZED_HV: u16 = 2;

/// The possible numbers of LPs in a module's layout: powers of two, at most 1,024 LPs on each of 8
/// sockets.
const LAYOUT_SIZES: u32 = 14;

/// A module, with the catalogue's data on its version.
#[derive(Clone, Copy, Debug)]
pub(super) struct Running<'c> {
    pub(super) version: TdxVersion,
    release: Option<&'c Release>,
    image: Option<&'c Image>,
}

impl<'c> Running<'c> {
    /// Returns the module of a version. A file's name does not prove that its image is this module.
    pub(super) fn of_version(version: TdxVersion, catalogue: &'c Catalogue) -> Self {
        Self { version, release: catalogue.release(version), image: catalogue.image_of(version) }
    }

    /// Returns the module of an image, after its installation.
    pub(super) fn of_image(
        image: &'c Image,
        version: TdxVersion,
        catalogue: &'c Catalogue,
    ) -> Self {
        Self {
            version,
            release: catalogue.releases().by_mrseam(image.mrseam()),
            image: Some(image),
        }
    }

    /// Whether the catalogue has a release or an image of this module.
    pub(super) const fn is_known(&self) -> bool {
        self.release.is_some() || self.image.is_some()
    }

    /// Whether the release or the image is for the processor of each socket.
    pub(super) fn is_for(&self, host: &Host) -> bool {
        let is_listed = |signature: u32| {
            let by_table = self.release.zip(Platform::of_processor(signature));
            by_table.is_some_and(|(release, platform)| release.platforms.contains(&platform))
                || self.sigstruct().is_some_and(|sigstruct| sigstruct.lists_cpu(signature))
        };
        host.signatures().into_iter().all(is_listed)
    }

    fn sigstruct(&self) -> Option<&'c SeamSigstruct> {
        Some(self.image?.parse().ok()?.sigstruct())
    }

    pub(super) fn svn(&self) -> Option<Svn> {
        self.release.map(|release| release.svn).or_else(|| self.sigstruct().map(SeamSigstruct::svn))
    }

    pub(super) fn mrseam(&self) -> Option<Sha384Digest> {
        self.release
            .map(|release| release.mrseam)
            .or_else(|| self.image.map(|image| *image.mrseam()))
    }

    pub(super) fn crypto_context(&self) -> Option<u32> {
        self.release?.crypto_context
    }

    fn handoff(&self) -> Option<HandoffRange> {
        let of_image = || {
            let sigstruct = self.sigstruct()?;
            Some(HandoffRange {
                module_hv: sigstruct.module_hv.get(),
                min_update_hv: sigstruct.min_update_hv.get(),
                no_downgrade: sigstruct.no_downgrade != 0,
            })
        };
        self.release.and_then(|release| release.handoff).or_else(of_image)
    }

    /// Whether an image needs at most the memory in the SEAM range that this module has, for any
    /// number of LPs.
    pub(super) fn leaves_room_for(&self, image: &Image) -> bool {
        let (Some(running), Ok(new)) = (self.image, image.parse()) else { return false };
        let Ok(running) = running.parse() else { return false };
        (0..=LAYOUT_SIZES).all(|size| {
            let need = |image: &tdx_seamldr_core::TdxImage<'_>| {
                let len = u64::try_from(image.module().len()).unwrap_or(u64::MAX);
                Layout::new(image.sigstruct(), len, 1 << size, 0)
            };
            let (running, new) = (need(&running), need(&new));
            new.need() <= running.need() && new.size() <= running.size()
        })
    }
}

/// Returns the facts of a host on which `running` runs after `steps` updates. `vouched` means that
/// no TD is in build and no migration is interrupted.
pub(super) fn facts(
    host: &Host,
    running: Option<&Running<'_>>,
    catalogue: &Catalogue,
    steps: u32,
    vouched: bool,
) -> Facts {
    let mut facts = Facts::new();
    add_processor(&mut facts, host);
    facts.p_seamldr = value(&host.seamldr)
        .map(|version| SeamldrVersion { major: version.major, minor: version.minor });
    facts.remaining_updates =
        value(&host.remaining_updates).map(|remaining| remaining.saturating_sub(steps));
    facts.module_runs = match &host.module {
        Ok(_) => Some(true),
        Err(absent) if absent.reason == Reason::NoDevice => Some(false),
        Err(_) => None,
    };
    facts.module_in_place = facts.module_runs;
    facts.features0 =
        host.interface.as_ref().ok().map(|interface| features(*interface, running, catalogue));
    facts.sensitive_operations = vouched.then_some(0);
    facts.num_lps = host.online.as_ref().ok().map(|online| online.value.len());
    facts.platform_lps = platform_lps(host);
    facts.highest_x2apic_id = value(&host.platform).map(|platform| platform.highest_x2apic_id);
    facts.sockets = Sockets::new(&host.signatures());
    let Some(running) = running else { return facts };
    facts.running_svn = running.svn();
    facts.running_mrseam = running.mrseam();
    facts.handoff = running.handoff();
    if facts.handoff.is_some_and(|handoff| handoff.module_hv <= HIGHEST_SIZED_HV) {
        facts.handoff_data = handoff_data_size(running.version);
    }
    let pages = running.sigstruct().map(|sigstruct| u32::from(sigstruct.num_handoff_pages.get()));
    facts.handoff_pages = pages.map(|others| others.saturating_add(1));
    facts
}

/// Returns how many LPs P-SEAMLDR waits for. Without the MADT the kernel's list gives the minimum:
/// an LP of this list that is offline is missing in any case.
fn platform_lps(host: &Host) -> Option<u32> {
    let of_madt = value(&host.platform).map(|platform| platform.enabled);
    let of_kernel = || {
        let present = host.present.as_ref().ok()?.value.len();
        let online = host.online.as_ref().ok()?.value.len();
        (present > online).then_some(present)
    };
    of_madt.or_else(of_kernel)
}

/// Fills in the facts from MSRs and CPUID.
#[cfg(target_arch = "x86_64")]
fn add_processor(facts: &mut Facts, host: &Host) {
    use tdx_seamldr_x86_64::{addressable_lps, debug_unlocked, SeamRange};
    facts.debug_unlocked = value(&host.debug_mode).map(debug_unlocked);
    facts.addressable_lps_per_socket =
        value(&host.cache_leaf).and_then(|[eax, ..]| addressable_lps(eax));
    let range = value(&host.seamrr_base).zip(value(&host.seamrr_mask));
    if let Some(range) = range.and_then(|(base, mask)| SeamRange::from_msrs(base, mask)) {
        facts.seamrr_base = Some(range.base);
        facts.seamrr_end = Some(range.base.saturating_add(range.size));
    }
}

/// Only x86_64 has TDX.
#[cfg(not(target_arch = "x86_64"))]
fn add_processor(_: &mut Facts, _: &Host) {}

/// Returns the features of the running module that matter to an update. Linux offers the upload
/// only if the module is TD-preserving. UPDATE_COMPATIBILITY does not protect TDs on Linux 7.2,
/// which never asks the module to refuse a shutdown that damages TDs.
fn features(
    interface: Interface,
    running: Option<&Running<'_>>,
    catalogue: &Catalogue,
) -> TdxFeatures0 {
    let known = running.and_then(|running| catalogue.features0(running.release?));
    match (interface, known) {
        (Interface::Folder, Some(features)) => features | TdxFeatures0::TD_PRESERVING,
        _ => TdxFeatures0::TD_PRESERVING,
    }
}

fn value<T: Copy>(fact: &crate::fact::Fact<T>) -> Option<T> {
    fact.as_ref().ok().map(|found| found.value)
}
