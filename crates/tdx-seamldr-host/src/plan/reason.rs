//! A reason against an update and an open question, each with advice.

use serde::Serialize;
use tdx_seamldr_core::preflight::{Finding, Refusal, Unknown, Unknowns};

/// The subject of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The host: the reason holds against every image.
    Host,
    /// The file: the image is damaged, or not Intel's.
    File,
    /// The match: the image is not for this processor, this P-SEAMLDR or the running module.
    Fit,
}

/// A reason why the update would fail, or must not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A stable name, the same in all releases.
    pub code: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
    /// The subject of the reason.
    pub scope: Scope,
}

impl Reason {
    pub(super) fn new(scope: Scope, code: &'static str, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), advice: None, scope }
    }

    pub(super) fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

impl From<Refusal> for Reason {
    fn from(refusal: Refusal) -> Self {
        let (scope, advice) = of_refusal(&refusal);
        Self {
            code: refusal.code(),
            message: refusal.to_string(),
            advice: advice.map(str::to_owned),
            scope,
        }
    }
}

/// Returns the subject of a refusal of preflight, and advice beyond its message.
fn of_refusal(refusal: &Refusal) -> (Scope, Option<&'static str>) {
    use Refusal as R;
    const AGAIN: Option<&str> = Some("download the file again from Intel, and compare its size");
    const OTHER: Option<&str> = Some("use an image for this host");
    match refusal {
        R::LpsMissing { .. } | R::SensitiveOperations(_) => (Scope::Host, None),
        R::LpId { .. } => {
            (Scope::Host, Some("only a reboot with a new BIOS can change the module on this host"))
        }
        R::NoRemainingUpdates => (
            Scope::Host,
            Some(
                "each update and each load since boot used one; move the TDs to another host, \
                 then reboot",
            ),
        ),
        R::NoModule => (Scope::Host, Some("reboot; until then TDX cannot be used")),
        R::SeamldrWithoutHandoff { .. } => {
            (Scope::Host, Some("install a newer BIOS; this P-SEAMLDR cannot keep TDs"))
        }
        R::NotTdPreserving(_) => {
            (Scope::Host, Some("only a reboot with a new BIOS can change this module"))
        }
        R::MajorSvn { .. } | R::MinorSvn { .. } => {
            (Scope::Fit, Some("reboot into a BIOS with the older module to go back"))
        }
        R::HandoffVersion { .. } | R::HandoffDataVersion { .. } | R::HandoffPages { .. } => {
            (Scope::Fit, Some("this module can only be loaded at boot"))
        }
        R::Memory { .. } | R::PageTables { .. } => {
            (Scope::Fit, Some("a BIOS option or a newer BIOS may give SEAM a larger range"))
        }
        R::SeamldrTooOld { .. } => (Scope::Fit, None),
        R::Cpu { .. } | R::CleanupRequired { .. } | R::DebugModule => (Scope::Fit, OTHER),
        R::SameModule => {
            (Scope::Fit, Some("there is nothing to do; --allow-same-module installs it again"))
        }
        R::Signer { .. } => (Scope::File, Some("use an image that Intel signed")),
        _ => (Scope::File, AGAIN),
    }
}

/// A rule that could not be checked, and how the operator can accept the risk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// A stable name, the same in all releases.
    pub code: &'static str,
    /// Which fact is unknown.
    pub message: String,
    /// How to find the fact.
    pub advice: Option<String>,
    /// The option that accepts the risk.
    pub option: String,
    /// Whether the operator gave the option.
    pub accepted: bool,
}

impl Question {
    pub(super) fn new(unknown: Unknown, accepted: Unknowns) -> Self {
        let option = match unknown {
            Unknown::SensitiveOperations => "--no-td-launches".to_owned(),
            _ => format!("--accept {}", unknown.code()),
        };
        Self {
            code: unknown.code(),
            message: unknown.to_string(),
            advice: advice_on(unknown).map(str::to_owned),
            option,
            accepted: accepted.contains(unknown),
        }
    }

    /// Whether the question is about TDs in build and interrupted migrations. The operator or a
    /// hook answers it for each update.
    #[must_use]
    pub fn is_about_tds(&self) -> bool {
        self.code == Unknown::SensitiveOperations.code()
    }
}

/// Returns how to find an unknown fact.
fn advice_on(unknown: Unknown) -> Option<&'static str> {
    Some(match unknown {
        Unknown::SensitiveOperations => {
            "Linux does not stop an update while a TD is in build or in migration, and the update \
             would break this TD: stop launches and migrations, then vouch for it; or let a \
             pre-update hook do both"
        }
        Unknown::RunningSvn
        | Unknown::SameModule
        | Unknown::HandoffVersions
        | Unknown::HandoffData => {
            "the running module is not in the table of releases: give a newer table (--releases)"
        }
        Unknown::Memory => {
            "Linux does not show where P-SEAMLDR lies: put an image of the running module into an \
             image folder to compare the sizes"
        }
        Unknown::RemainingUpdates | Unknown::SeamldrVersion => "run the command as root",
        Unknown::Lps | Unknown::LpIds => "the ACPI table APIC shows it; run the command as root",
        Unknown::DebugUnlocked => "load the kernel module msr, and run the command as root",
        _ => return None,
    })
}

/// Adds a finding of preflight to the reasons or to the questions.
pub(super) fn sort(
    finding: Finding,
    accepted: Unknowns,
    reasons: &mut Vec<Reason>,
    questions: &mut Vec<Question>,
) {
    match finding {
        Finding::Refusal(refusal) => reasons.push(refusal.into()),
        Finding::Unknown(unknown) => {
            let question = Question::new(unknown, accepted);
            // The rules of Intel's table may have added the same question already.
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
    }
}
