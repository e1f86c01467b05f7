//! The plan: which image comes next on this host, what speaks against each other one, and what
//! nobody could check.

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
    /// The operator vouches that no TD is in build and no migration interrupted until the update
    /// is over.
    pub no_td_launches: bool,
    /// Rules that may stay unchecked.
    pub accept: Unknowns,
    /// Install the running module again. This uses up one of the remaining updates.
    pub allow_same_module: bool,
    /// Update although Intel's table wants a newer running module first.
    pub allow_below_minimum: bool,
}

/// Which module the operator wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The newest that fits the host.
    #[default]
    Newest,
    /// This version, from the catalogue.
    Version(TdxVersion),
    /// This image of the catalogue, by its place among the [images](Catalogue::images).
    Image(usize),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Whether there is something to do, and whether it may be done.
    pub verdict: Verdict,
    /// The version that runs, if the kernel tells.
    pub running: Option<String>,
    /// Whether the table of releases has the running module.
    pub running_is_known: bool,
    /// The updates in order. Only the first one begins from the running module.
    pub steps: Vec<Step>,
    /// Why the update is refused.
    pub reasons: Vec<Reason>,
    /// What could not be checked, and which option takes the responsibility.
    pub questions: Vec<Question>,
    /// What the operator should know before.
    pub warnings: Vec<String>,
    /// Every image, with what speaks against it.
    pub candidates: Vec<Candidate>,
}

/// Whether there is something to do, and whether it may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// The update may begin.
    Ready,
    /// The update may begin as soon as the operator has answered the [questions](Plan::questions).
    Asks,
    /// The module that runs is the newest that fits, or the one that was asked for.
    NothingToDo,
    /// The update would fail, so it must not begin.
    Refused,
}

/// One update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The image, by its place among the catalogue's [images](Catalogue::images).
    pub image: usize,
    /// The file.
    pub file: PathBuf,
    /// The version that runs before.
    pub from: String,
    /// The version that runs afterwards. `None`: the catalogue does not know the image's hash.
    pub to: Option<String>,
    /// The SHA-384 of the module in hexadecimal digits: MRSEAM in quotes.
    pub mrseam: String,
    /// The security version of the module, e.g. `1.11`.
    pub svn: String,
    /// How TEE_TCB_SVN_2 of quotes begins: minor SVN and major SVN, in hexadecimal digits.
    pub tee_tcb_svn_2: String,
}

/// An image, and what speaks against it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The file.
    pub file: PathBuf,
    /// The version, if the catalogue knows it.
    pub version: Option<String>,
    /// The security version of the module, e.g. `1.11`.
    pub svn: String,
    /// Whether Intel signed exactly this file.
    pub genuine: bool,
    /// Whether it is newer than the running module. `None`: not known.
    pub newer: Option<bool>,
    /// What speaks against an update from the running module to this image on this host.
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
    /// Makes a plan. Reads nothing: `host` and `catalogue` hold all that was read.
    #[must_use]
    pub fn new(host: &Host, catalogue: &Catalogue, request: &Request) -> Self {
        select::plan(host, catalogue, request)
    }

    /// Returns what speaks against any update of a host, and what nobody could check of it. A plan
    /// has the same reasons, and those of its image.
    #[must_use]
    pub fn about_host(host: &Host) -> (Vec<Reason>, Vec<Question>) {
        select::about_host(host)
    }

    /// Returns the questions that the operator has not answered.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        self.questions.iter().filter(|question| !question.accepted)
    }
}
