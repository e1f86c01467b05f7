//! The plan: which image an update installs, why each other image is rejected, and what could not
//! be checked.

mod reason;
mod rules;
mod running;
mod select;
mod warnings;

use std::path::PathBuf;

use serde::Serialize;
use tdx_seamldr_core::preflight::Unknowns;
use tdx_seamldr_core::TdxVersion;

use crate::catalogue::Catalogue;
use crate::host::Host;

pub use reason::{Question, Reason, Scope};

/// What the operator wants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Which module.
    pub target: Target,
    /// The operator vouches that no TD is in build and no migration is interrupted until the
    /// update ends.
    pub no_td_launches: bool,
    /// Rules that may stay unchecked.
    pub accept: Unknowns,
    /// Install the running module again, which uses up one of the remaining updates.
    pub allow_same_module: bool,
    /// Update although Intel's table requires a newer running module.
    pub allow_below_minimum: bool,
}

/// Which module the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The newest module that fits the host.
    #[default]
    Newest,
    /// This version, from the catalogue.
    Version(TdxVersion),
    /// An image of the catalogue, by its index in the [images](Catalogue::images).
    Image(usize),
}

/// A plan for an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether an update is due, and whether it may begin.
    pub verdict: Verdict,
    /// The version of the running module, if the kernel shows it.
    pub running: Option<String>,
    /// Whether the table of releases has the running module.
    pub running_is_known: bool,
    /// The updates in order. Only the first one begins from the running module.
    pub steps: Vec<Step>,
    /// Why the update is refused.
    pub reasons: Vec<Reason>,
    /// What could not be checked, and the option that accepts the risk.
    pub questions: Vec<Question>,
    /// What the operator should know before the update.
    pub warnings: Vec<String>,
    /// Every image, with the reasons against it.
    pub candidates: Vec<Candidate>,
}

/// Whether an update is due, and whether it may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The update may begin.
    Ready,
    /// The update may begin as soon as the operator has answered the [questions](Plan::questions).
    Asks,
    /// The running module is the newest that fits, or the requested one.
    NothingToDo,
    /// The update must not begin, because it would fail.
    Refused,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The image, by its index in the catalogue's [images](Catalogue::images).
    pub image: usize,
    /// The file.
    pub file: PathBuf,
    /// The version that runs before the update.
    pub from: String,
    /// The version that runs after the update. `None` if the catalogue does not have the image's
    /// hash.
    pub to: Option<String>,
    /// The SHA-384 of the module in hexadecimal digits: MRSEAM in quotes.
    pub mrseam: String,
    /// The security version of the module, e.g. `1.11`.
    pub svn: String,
    /// The first bytes of TEE_TCB_SVN_2 in quotes: minor SVN and major SVN, in hexadecimal digits.
    pub tee_tcb_svn_2: String,
}

/// An image, and the reasons against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The file.
    pub file: PathBuf,
    /// The version, if the catalogue has it.
    pub version: Option<String>,
    /// The security version of the module, e.g. `1.11`.
    pub svn: String,
    /// Whether Intel signed exactly this file.
    pub genuine: bool,
    /// Whether the image is newer than the running module. `None` if unknown.
    pub newer: Option<bool>,
    /// The reasons against an update from the running module to this image on this host.
    pub reasons: Vec<Reason>,
    /// What could not be checked.
    pub questions: Vec<Question>,
}

impl Step {
    /// Returns the versions before and after, and the file, on one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let to = self.to.as_deref().unwrap_or("an unlisted module");
        format!("{} -> {to} from {}", self.from, self.file.display())
    }
}

impl Plan {
    /// Makes a plan. Reads no files: `host` and `catalogue` hold all facts.
    #[must_use]
    pub fn new(host: &Host, catalogue: &Catalogue, request: &Request) -> Self {
        select::plan(host, catalogue, request)
    }

    /// Returns the reasons against any update of a host, and what could not be checked. A plan adds
    /// the reasons of its image.
    #[must_use]
    pub fn about_host(host: &Host) -> (Vec<Reason>, Vec<Question>) {
        select::about_host(host)
    }

    /// Returns the questions that the operator has not answered.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter().filter(|question| !question.accepted)
    }
}
