//! Finds the reasons for a refusal before the running module is shut down.
//!
//! Linux checks the header of the file and shuts the running module down. Only then P-SEAMLDR
//! checks the image; if it refuses, the TDs are lost. Preflight checks the same rules before the
//! shutdown. It reports every reason for a refusal, with the value found and the value expected,
//! and every rule that it lacks a fact for.
//!
//! Every update needs preflight: [`preflight`] returns the [`PassedUpdate`] for
//! [`Update::new`](crate::update::Update::new). All other updates take the [`PassedImage`] of
//! [`preflight_image`].
//!
//! - [`facts`]: the known facts about the machine, from firmware, the processor, a catalogue or the
//!   operator.
//! - [`finding`]: a refusal, or an unknown.
//! - The rules, by subject: `image`, `platform`, `handoff`, [`space`], [`elf`].

pub mod elf;
pub mod facts;
pub mod finding;
mod handoff;
mod image;
mod platform;
pub mod space;
mod unknown;

pub use facts::{handoff_data_size, Facts, HandoffRange, SeamldrVersion, Sockets};
pub use finding::{FieldMismatch, Finding, Refusal, Unknown, Unknowns};

use core::fmt;

use crate::abi::{Scenario, SeamldrParamsBuffer, Svn};
use crate::crypto::{Crypto, Sha384Digest};
use crate::debug::debug_fields;
use crate::host::Host;
use crate::image::TdxImage;
use crate::params::{BuildError, InstallRequest};
use crate::shared_memory::SharedMemory;

/// The caller's decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Install the running module again. This uses up one of the remaining updates.
    pub allow_same_module: bool,
    /// Update although TDs in build then get wrong measurements and interrupted migrations fail.
    pub allow_damage: bool,
    /// Pass although these facts are unknown.
    pub allow_unknowns: Unknowns,
}

/// The error of preflight. Each reason went to the caller's `report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPassed {
    /// The number of reasons for a refusal.
    pub refusals: u32,
    /// The number of unknowns that the [`Policy`] does not allow.
    pub unknowns: u32,
}

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "preflight did not pass: refusals {}, unknowns {}", self.refusals, self.unknowns)
    }
}

impl core::error::Error for NotPassed {}

/// An image that passed [`preflight`] for an update of this machine.
/// [`Update::new`](crate::update::Update::new) takes it.
///
/// The update repeats some checks before the shutdown: the number of LPs, the running module's
/// MRSEAM and SVN, and that an update remains. The update does not compare a value that preflight
/// did not know.
#[derive(Clone, Copy)]
pub struct PassedUpdate<'a> {
    image: TdxImage<'a>,
    num_lps: Option<u32>,
    running_mrseam: Option<Sha384Digest>,
    running_svn: Option<Svn>,
    remaining_updates: Option<u32>,
    handoff_version: Option<u16>,
    avoid_sensitive: bool,
    memory: Option<SharedMemory>,
}

debug_fields! {
    PassedUpdate<'a>, image, num_lps, running_mrseam, running_svn, remaining_updates,
    handoff_version, avoid_sensitive, memory
}

impl<'a> PassedUpdate<'a> {
    /// The image.
    #[must_use]
    pub const fn image(&self) -> &TdxImage<'a> {
        &self.image
    }

    /// The number of LPs that take part. `None` if preflight did not know it.
    #[must_use]
    pub const fn num_lps(&self) -> Option<u32> {
        self.num_lps
    }

    /// MRSEAM of the running module. `None` if preflight did not know it.
    #[must_use]
    pub const fn running_mrseam(&self) -> Option<&Sha384Digest> {
        self.running_mrseam.as_ref()
    }

    /// SVN of the running module. `None` if preflight did not know it.
    #[must_use]
    pub const fn running_svn(&self) -> Option<Svn> {
        self.running_svn
    }

    /// The number of updates that remain, with this one. `None` if preflight did not know it.
    #[must_use]
    pub const fn remaining_updates(&self) -> Option<u32> {
        self.remaining_updates
    }

    /// The highest handoff version that both modules support. The update asks the running module
    /// for handoff data in this version. `None` if preflight did not know the running module's
    /// versions. The update then asks for the highest version that the running module writes.
    #[must_use]
    pub const fn handoff_version(&self) -> Option<u16> {
        self.handoff_version
    }

    /// Whether the update asks the running module to refuse the shutdown while TDs are in build or
    /// migrations interrupted. True if the module has UPDATE_COMPATIBILITY and the policy does not
    /// allow the damage.
    #[must_use]
    pub const fn avoids_sensitive_operations(&self) -> bool {
        self.avoid_sensitive
    }

    pub(crate) fn request<H: Host + ?Sized>(
        &self,
        params: &'a mut SeamldrParamsBuffer,
        host: &H,
    ) -> Result<InstallRequest<'a>, BuildError> {
        InstallRequest::build_in(params, &self.image, Scenario::Update, host, self.memory.as_ref())
    }
}

/// The use of an image that passes [`preflight_image`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The module takes over handoff data, as a fallback or to
    /// [resume](crate::update::Update::resume) an update.
    TakeOver {
        /// The version of the handoff data. For a fallback this is
        /// [`PassedUpdate::handoff_version`]. `None` if it is unknown, for example because an
        /// update is resumed and no module answers.
        handoff_version: Option<u16>,
    },
    /// The module starts without TDs; existing TDs are lost. See
    /// [`Update::load`](crate::update::Update::load).
    Load,
}

impl Purpose {
    const fn scenario(self) -> Scenario {
        match self {
            Self::TakeOver { .. } => Scenario::Update,
            Self::Load => Scenario::Load,
        }
    }

    const fn handoff_version(self) -> Option<u16> {
        match self {
            Self::TakeOver { handoff_version } => handoff_version,
            Self::Load => None,
        }
    }
}

/// An image that passed [`preflight_image`].
#[derive(Clone, Copy, Debug)]
pub struct PassedImage<'a> {
    image: TdxImage<'a>,
    purpose: Purpose,
    memory: Option<SharedMemory>,
}

impl<'a> PassedImage<'a> {
    /// The image.
    #[must_use]
    pub const fn image(&self) -> &TdxImage<'a> {
        &self.image
    }

    /// Fills in `params` for this image. The result is for an update that resumes or loads, or for
    /// a fallback.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR cannot read the image or the parameters at their addresses.
    pub fn prepare<H: Host + ?Sized>(
        &self,
        params: &'a mut SeamldrParamsBuffer,
        host: &H,
    ) -> Result<PreparedImage<'a>, BuildError> {
        let scenario = self.purpose.scenario();
        let request =
            InstallRequest::build_in(params, &self.image, scenario, host, self.memory.as_ref())?;
        Ok(PreparedImage { request, handoff_version: self.purpose.handoff_version() })
    }
}

/// An image that passed [`preflight_image`], with its SEAMLDR_PARAMS.
#[derive(Clone, Copy, Debug)]
pub struct PreparedImage<'a> {
    request: InstallRequest<'a>,
    handoff_version: Option<u16>,
}

impl<'a> PreparedImage<'a> {
    /// Returns the request for SEAMLDR.INSTALL.
    #[must_use]
    pub const fn request(&self) -> &InstallRequest<'a> {
        &self.request
    }

    pub(crate) const fn handoff_version(&self) -> Option<u16> {
        self.handoff_version
    }
}

/// Checks this image and this machine by the rules that P-SEAMLDR and the new module apply in an
/// update. Reports every finding to `report`, also the unknowns that `policy` allows.
/// [`Policy::allow_damage`] and [`Policy::allow_same_module`] each turn a check off.
///
/// [`Seamldr::new`](crate::Seamldr::new) checks for the VMCS erratum, and [`TdxImage::parse`] the
/// form of the file.
///
/// # Errors
///
/// There is a reason for a refusal, or an unknown that `policy` does not allow.
pub fn preflight<'a, C: Crypto + ?Sized>(
    image: &TdxImage<'a>,
    facts: &Facts,
    crypto: &C,
    policy: Policy,
    report: &mut dyn FnMut(Finding),
) -> Result<PassedUpdate<'a>, NotPassed> {
    let mut findings = Findings::new(policy, report);
    let sigstruct = image.sigstruct();
    platform::check_running_module(&mut findings, facts);
    check_image(&mut findings, image, facts, Scenario::Update, crypto);
    handoff::check(&mut findings, sigstruct, facts);
    platform::check_sensitive_operations(&mut findings, facts, policy);
    if !policy.allow_same_module {
        platform::check_same_module(&mut findings, sigstruct, facts);
    }
    findings.end()?;
    Ok(PassedUpdate {
        image: *image,
        num_lps: facts.num_lps,
        running_mrseam: facts.running_mrseam,
        running_svn: facts.running_svn,
        remaining_updates: facts.remaining_updates,
        handoff_version: facts.handoff.and_then(|running| running.negotiate(sigstruct)),
        avoid_sensitive: facts.module_counts_sensitive_operations() && !policy.allow_damage,
        memory: facts.shared_memory,
    })
}

/// Checks this machine by the rules that do not depend on the image. The running module must be
/// able to hand its TDs over, every LP must take part, and an update must remain. Reports every
/// finding to `report`. [`preflight`] checks these rules too.
///
/// # Errors
///
/// There is a reason for a refusal, or an unknown that `policy` does not allow.
pub fn check_host(
    facts: &Facts,
    policy: Policy,
    report: &mut dyn FnMut(Finding),
) -> Result<(), NotPassed> {
    let mut findings = Findings::new(policy, report);
    platform::check_running_module(&mut findings, facts);
    platform::check_lps(&mut findings, facts);
    platform::check_remaining_updates(&mut findings, facts);
    findings.end()
}

/// Checks this image and this machine by the rules that P-SEAMLDR applies when the image is
/// installed for `purpose`. No module needs to run. Reports every finding to `report`, also the
/// unknowns that `policy` allows.
///
/// For [`Purpose::TakeOver`] a module must be in place, running or shut down. The image must take
/// the version of the handoff data and have room for the data. An absent fact about the handoff
/// data is no finding: after a shutdown no module can answer.
///
/// P-SEAMLDR checks the module's hash (firmware rule 8.5.33) after it has destroyed the old module.
/// An image with a valid signature and another module would therefore end all TDs. This function
/// finds such an image first.
///
/// # Errors
///
/// There is a reason for a refusal, or an unknown that `policy` does not allow.
pub fn preflight_image<'a, C: Crypto + ?Sized>(
    image: &TdxImage<'a>,
    facts: &Facts,
    purpose: Purpose,
    crypto: &C,
    policy: Policy,
    report: &mut dyn FnMut(Finding),
) -> Result<PassedImage<'a>, NotPassed> {
    let mut findings = Findings::new(policy, report);
    check_image(&mut findings, image, facts, purpose.scenario(), crypto);
    if let Purpose::TakeOver { handoff_version } = purpose {
        // firmware rule 8.5.12
        findings.refuse_if(facts.module_in_place == Some(false), Refusal::NoModule);
        handoff::check_taking(&mut findings, image.sigstruct(), facts, handoff_version);
    }
    findings.end()?;
    Ok(PassedImage { image: *image, purpose, memory: facts.shared_memory })
}

/// Checks the rules of P-SEAMLDR for the image and the machine.
fn check_image<C: Crypto + ?Sized>(
    findings: &mut Findings<'_>,
    image: &TdxImage<'_>,
    facts: &Facts,
    scenario: Scenario,
    crypto: &C,
) {
    let sigstruct = image.sigstruct();
    platform::check_lps(findings, facts);
    if scenario == Scenario::Update {
        platform::check_remaining_updates(findings, facts);
    }
    image::check_form(findings, image, facts);
    image::check_signer(findings, sigstruct, facts, crypto);
    platform::check_debug(findings, sigstruct, facts);
    match scenario {
        Scenario::Update => platform::check_svn(findings, sigstruct, facts),
        Scenario::Load => platform::check_cleanup(findings, sigstruct, facts),
    }
    image::check_ranges(findings, image);
    platform::check_sockets(findings, sigstruct, facts);
    image::check_signature(findings, sigstruct, crypto);
    space::check(findings, image, facts);
    image::check_hash(findings, image, crypto);
    if let Err(refusal) = elf::check(image.module()) {
        findings.refuse(Refusal::Elf(refusal)); // firmware rule 8.5.34
    }
}

/// Counts the findings on their way to the caller.
struct Findings<'r> {
    report: &'r mut dyn FnMut(Finding),
    allowed: Unknowns,
    found: NotPassed,
}

impl<'r> Findings<'r> {
    fn new(policy: Policy, report: &'r mut dyn FnMut(Finding)) -> Self {
        Self {
            report,
            allowed: policy.allow_unknowns,
            found: NotPassed { refusals: 0, unknowns: 0 },
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.found.refusals = self.found.refusals.saturating_add(1);
        (self.report)(Finding::Refusal(refusal));
    }

    fn refuse_if(&mut self, refused: bool, refusal: Refusal) {
        if refused {
            self.refuse(refusal);
        }
    }

    fn unknown(&mut self, unknown: Unknown) {
        if !self.allowed.contains(unknown) {
            self.found.unknowns = self.found.unknowns.saturating_add(1);
        }
        (self.report)(Finding::Unknown(unknown));
    }

    /// Returns the fact that a rule needs. Reports an unknown if the fact is absent.
    fn known<T>(&mut self, fact: Option<T>, unknown: Unknown) -> Option<T> {
        if fact.is_none() {
            self.unknown(unknown);
        }
        fact
    }

    const fn end(self) -> Result<(), NotPassed> {
        match self.found {
            NotPassed { refusals: 0, unknowns: 0 } => Ok(()),
            found => Err(found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::TdxFeatures0;

    /// A machine that can be updated.
    fn machine() -> Facts {
        let mut facts = Facts::new();
        facts.module_runs = Some(true);
        facts.features0 = Some(TdxFeatures0::TD_PRESERVING);
        facts.num_lps = Some(4);
        facts.platform_lps = Some(4);
        facts.highest_x2apic_id = Some(3);
        facts.remaining_updates = Some(1);
        facts
    }

    #[test]
    fn check_host_reports_each_reason_against_any_image() {
        let found = |facts: &Facts| {
            let mut last = None;
            let result = check_host(facts, Policy::default(), &mut |finding| last = Some(finding));
            assert_eq!(result.is_ok(), last.is_none());
            last
        };
        assert_eq!(found(&machine()), None);
        let offline = Facts { num_lps: Some(3), ..machine() };
        let missing = Refusal::LpsMissing { found: 3, wanted: 4 };
        assert_eq!(found(&offline), Some(Finding::Refusal(missing)));
        let gone = Facts { module_runs: Some(false), ..machine() };
        assert_eq!(found(&gone), Some(Finding::Refusal(Refusal::NoModule)));
        let used_up = Facts { remaining_updates: Some(0), ..machine() };
        assert_eq!(found(&used_up), Some(Finding::Refusal(Refusal::NoRemainingUpdates)));
        let hidden = Facts { remaining_updates: None, ..machine() };
        assert_eq!(found(&hidden), Some(Finding::Unknown(Unknown::RemainingUpdates)));
    }
}
