//! Every reason for a refusal that can be known before the running module is shut down.
//!
//! Linux checks the framing of a file and shuts the running module down. P-SEAMLDR then looks at the image for the first time,
//! and if it refuses, the TDs are gone. Preflight asks the same questions beforehand. It reports every reason, each with the value
//! found and the value wanted, and every question that no fact answers.
//!
//! An update cannot be made without it: [`preflight`] returns the [`PassedUpdate`] that [`Update::new`](crate::update::Update::new)
//! takes, and [`preflight_image`] the [`PassedImage`] that everything else installs.
//!
//! - [`facts`]: what is known of the machine, filled in by whoever knows it.
//! - [`finding`]: a refusal, or an unknown.
//! - The rules, by subject: `image`, `platform`, `handoff`, [`space`], [`elf`].

pub mod elf;
pub mod facts;
pub mod finding;
mod handoff;
mod image;
mod platform;
pub mod space;

pub use facts::{handoff_data_size, Facts, HandoffRange, SeamldrVersion, Sockets};
pub use finding::{FieldMismatch, Finding, Refusal, Unknown, Unknowns};

use core::fmt;

use crate::abi::{Scenario, SeamldrParams, Svn};
use crate::crypto::{Crypto, Sha384Digest};
use crate::debug::debug_fields;
use crate::host::Host;
use crate::image::TdxImage;
use crate::params::{BuildError, InstallRequest};
use crate::shared_memory::SharedMemory;

/// What the caller decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Install the module that runs already once more. It uses up one of the remaining updates.
    pub allow_same_module: bool,
    /// Update although TDs in build get wrong measurements and interrupted migrations fail.
    pub allow_damage: bool,
    /// Go on although these questions have no answer.
    pub allow_unknowns: Unknowns,
}

/// Preflight did not pass. Each reason went to the caller's `report`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotPassed {
    /// How many reasons there are for a refusal.
    pub refusals: u32,
    /// How many questions have no answer and are not allowed by the [`Policy`].
    pub unknowns: u32,
}

impl fmt::Display for NotPassed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "preflight did not pass: refusals {}, questions without an answer {}",
            self.refusals, self.unknowns
        )
    }
}

impl core::error::Error for NotPassed {}

/// An image that passed [`preflight`] for an update of the machine as it was then. [`Update::new`](crate::update::Update::new)
/// makes the update from it. While all LPs stand still, the update looks once more whether the machine is the same: the number of LPs,
/// MRSEAM and SVN of the running module, and that an update remains. What was unknown to preflight is not compared.
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
    PassedUpdate<'a>, image, num_lps, running_mrseam, running_svn, remaining_updates, handoff_version, avoid_sensitive, memory
}

impl<'a> PassedUpdate<'a> {
    /// The image.
    #[must_use]
    pub const fn image(&self) -> &TdxImage<'a> {
        &self.image
    }

    /// LPs that take part; `None` if that was unknown, which the policy allowed.
    #[must_use]
    pub const fn num_lps(&self) -> Option<u32> {
        self.num_lps
    }

    /// MRSEAM of the module that runs; `None` if it was unknown.
    #[must_use]
    pub const fn running_mrseam(&self) -> Option<&Sha384Digest> {
        self.running_mrseam.as_ref()
    }

    /// SVN of the module that runs; `None` if it was unknown.
    #[must_use]
    pub const fn running_svn(&self) -> Option<Svn> {
        self.running_svn
    }

    /// Updates that remain, this one included; `None` if it was unknown.
    #[must_use]
    pub const fn remaining_updates(&self) -> Option<u32> {
        self.remaining_updates
    }

    /// The highest handoff version that both modules have, in which the running module writes its handoff data. `None` if its
    /// versions were unknown: the update then asks for the highest that the running module writes.
    #[must_use]
    pub const fn handoff_version(&self) -> Option<u16> {
        self.handoff_version
    }

    /// Whether the running module is to refuse to shut down while TDs are in build or migrations interrupted: if it can, and the
    /// policy does not allow the damage.
    #[must_use]
    pub const fn avoids_sensitive_operations(&self) -> bool {
        self.avoid_sensitive
    }

    pub(crate) fn request<H: Host + ?Sized>(
        &self,
        params: &'a mut SeamldrParams,
        host: &H,
    ) -> Result<InstallRequest<'a>, BuildError> {
        InstallRequest::build_in(params, &self.image, Scenario::Update, host, self.memory.as_ref())
    }
}

/// What an image is to be installed for, if not for an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The module takes handoff data over: an image to fall back on, or to [resume](crate::update::Update::resume) an update with.
    TakeOver {
        /// The version of the handoff data: [`PassedUpdate::handoff_version`] for an image to fall back on. `None` if it is unknown,
        /// as when an update is resumed and no module can be asked.
        handoff_version: Option<u16>,
    },
    /// The module comes up without TDs, which are lost: [`Update::load`](crate::update::Update::load).
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

    /// Fills in `params` for this image: for an update that resumes or loads, or to fall back on.
    ///
    /// # Errors
    ///
    /// P-SEAMLDR cannot read the image or the parameters where they lie.
    pub fn prepare<H: Host + ?Sized>(
        &self,
        params: &'a mut SeamldrParams,
        host: &H,
    ) -> Result<PreparedImage<'a>, BuildError> {
        let scenario = self.purpose.scenario();
        let request = InstallRequest::build_in(params, &self.image, scenario, host, self.memory.as_ref())?;
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
    /// What SEAMLDR.INSTALL is called with.
    #[must_use]
    pub const fn request(&self) -> &InstallRequest<'a> {
        &self.request
    }

    pub(crate) const fn handoff_version(&self) -> Option<u16> {
        self.handoff_version
    }
}

/// Asks of this image, on this machine, what P-SEAMLDR and the new module will ask in an update. Every finding goes to `report`, those
/// included that `policy` allows.
///
/// [`Seamldr::new`](crate::Seamldr::new) asks for the VMCS erratum, and [`TdxImage::parse`] for the form of the file.
///
/// # Errors
///
/// There is a reason for a refusal, or a question without an answer that `policy` does not allow.
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

/// Asks of this image, on this machine, what P-SEAMLDR will ask when the image is installed for `purpose`. No module has to run. Every
/// finding goes to `report`, those included that `policy` allows.
///
/// For [`Purpose::TakeOver`] the image has to take the version of the handoff data and to have room for as much as the facts tell of.
/// What the facts leave open about the handoff data is no finding: there may be nobody to ask.
///
/// P-SEAMLDR looks at the module's hash after it has destroyed the old module, so an image with a valid signature and another
/// image's module would cost the TDs. This finds it.
///
/// # Errors
///
/// There is a reason for a refusal, or a question without an answer that `policy` does not allow.
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
        handoff::check_taking(&mut findings, image.sigstruct(), facts, handoff_version);
    }
    findings.end()?;
    Ok(PassedImage { image: *image, purpose, memory: facts.shared_memory })
}

/// What P-SEAMLDR asks of an image and of the machine.
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
    if scenario == Scenario::Update {
        platform::check_svn(findings, sigstruct, facts);
    }
    image::check_ranges(findings, image);
    platform::check_sockets(findings, sigstruct, facts);
    image::check_signature(findings, sigstruct, crypto);
    space::check(findings, image, facts);
    image::check_hash(findings, image, crypto);
    if let Err(refusal) = elf::check(image.module()) {
        findings.refuse(Refusal::Elf(refusal)); // step 34
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
        Self { report, allowed: policy.allow_unknowns, found: NotPassed { refusals: 0, unknowns: 0 } }
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

    /// The fact that a rule needs; an unknown if it is absent.
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
