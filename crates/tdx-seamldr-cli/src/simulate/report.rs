//! What `simulate` prints at the end.

use serde::Serialize;
use tdx_seamldr_core::abi::SeamSigstruct;
use tdx_seamldr_core::preflight::Finding;
use tdx_seamldr_core::update::{Failure, Outcome};
use tdx_seamldr_host::text::hex;
use tdx_seamldr_host::Releases;

use crate::output::counted;

/// A module.
#[derive(Clone, Serialize)]
pub(super) struct Module {
    pub(super) svn: String,
    seamhash: String,
    /// The public release with this hash. Releases can have the same SVN.
    pub(super) release: Option<String>,
}

impl Module {
    pub(super) fn of(sigstruct: &SeamSigstruct) -> Self {
        let releases = Releases::built_in();
        let release = releases.by_mrseam(&sigstruct.seamhash);
        Self {
            svn: sigstruct.svn().to_string(),
            seamhash: hex(&sigstruct.seamhash),
            release: release.map(|release| release.version.to_string()),
        }
    }
}

/// One finding of parsing or preflight.
#[derive(Serialize)]
pub(super) struct Reason {
    pub(super) code: &'static str,
    pub(super) message: String,
}

impl From<Finding> for Reason {
    fn from(finding: Finding) -> Self {
        Self { code: finding.code(), message: finding.to_string() }
    }
}

/// The number of LPs that finished a stage.
#[derive(Serialize)]
pub(super) struct StageReport {
    pub(super) stage: String,
    pub(super) finished: u32,
}

/// The first failure of an update that had begun.
#[derive(Serialize)]
pub(super) struct FailureReport {
    stage: String,
    lp: u32,
    message: String,
    /// The update went on from it and succeeded.
    overcome: bool,
}

impl FailureReport {
    pub(super) fn of(outcome: &Outcome) -> Option<Self> {
        let Failure { stage, lp, cause } = outcome.failure?;
        let overcome = outcome.overcome().is_some();
        Some(Self { stage: stage.to_string(), lp, message: cause.to_string(), overcome })
    }
}

/// What `simulate` prints at the end.
#[derive(Serialize)]
pub(super) struct Report {
    pub(super) outcome: &'static str,
    pub(super) message: String,
    pub(super) from: Module,
    pub(super) to: Option<Module>,
    pub(super) version: Option<String>,
    pub(super) lps: u32,
    pub(super) sockets: u32,
    pub(super) cpu: String,
    pub(super) tds_before: usize,
    pub(super) tds_alive: usize,
    pub(super) tds_damaged: usize,
    pub(super) seamcalls: usize,
    pub(super) remaining_updates: u32,
    pub(super) rounds: u32,
    pub(super) reasons: Vec<Reason>,
    pub(super) notes: Vec<String>,
    pub(super) stages: Vec<StageReport>,
    pub(super) failure: Option<FailureReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) trace: Vec<String>,
}

impl Report {
    pub(super) fn conclusion(&self) -> String {
        let mut lines = self.trace.clone();
        lines.push(self.message.clone());
        let damaged = match self.tds_damaged {
            0 => String::new(),
            damaged => format!(", {damaged} with a wrong measurement"),
        };
        lines.push(format!(
            "{} of {} alive{damaged}, {}, {} left",
            self.tds_alive,
            counted(self.tds_before, "TD"),
            counted(self.seamcalls, "SEAMCALL"),
            counted(self.remaining_updates, "update")
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn a_release_is_named_by_its_hash_although_another_has_the_same_svn() {
        let releases = Releases::built_in();
        let mut sigstruct = SeamSigstruct::new_zeroed();
        for version in ["2.0.04", "2.0.05"] {
            let version = tdx_seamldr_host::parse_version(version).unwrap();
            let release = releases.by_version(version).unwrap();
            sigstruct.seamhash = release.mrseam;
            (sigstruct.svn_major, sigstruct.svn_minor) = (release.svn.major, release.svn.minor);
            let module = Module::of(&sigstruct);
            assert_eq!(module.svn, "3.4");
            assert_eq!(module.release, Some(version.to_string()));
        }
        sigstruct.seamhash[0] ^= 1;
        assert_eq!(Module::of(&sigstruct).release, None, "an SVN alone names no release");
    }
}
