//! A reason against an update, and a question that nobody has answered: each with what to do.

use serde::Serialize;
use tdx_seamldr_core::preflight::{Finding, Refusal, Unknown, Unknowns};

/// What a reason is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// The host as it is now: the reason holds against every image.
    Host,
    /// The image is damaged, or not Intel's.
    File,
    /// The image is not for this processor, this P-SEAMLDR or the running module.
    Fit,
}

/// A reason why the update would fail, or must not begin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// A name that does not change between releases.
    pub code: &'static str,
    /// What was found and what was expected.
    pub message: String,
    /// What to do.
    pub advice: Option<String>,
    /// What the reason is about.
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

/// Tells what a refusal of preflight is about, and what to do beside what its message says.
fn of_refusal(refusal: &Refusal) -> (Scope, Option<&'static str>) {
    use Refusal as R;
    const AGAIN: Option<&str> = Some("get the file again from Intel, and compare its size");
    const OTHER: Option<&str> = Some("use an image that is made for this host");
    match refusal {
        R::LpsMissing { .. } => (Scope::Host, None),
        R::LpId { .. } => {
            (Scope::Host, Some("only a reboot with a new BIOS can change the module on this host"))
        }
        R::NoRemainingUpdates => (
            Scope::Host,
            Some("each update and each load since boot took one; move the TDs away, then reboot"),
        ),
        R::NoModule => (Scope::Host, Some("reboot; until then TDX cannot be used")),
        R::SeamldrWithoutHandoff { .. } => {
            (Scope::Host, Some("install a newer BIOS; this P-SEAMLDR cannot keep TDs"))
        }
        R::NotTdPreserving(_) => {
            (Scope::Host, Some("only a reboot with a new BIOS can change this module"))
        }
        R::SensitiveOperations(_) => (Scope::Host, None),
        R::MajorSvn { .. } | R::MinorSvn { .. } => {
            (Scope::Fit, Some("going back needs a reboot into a BIOS with the older module"))
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

/// A rule that could not be checked, and how the operator can take the responsibility.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Question {
    /// A name that does not change between releases.
    pub code: &'static str,
    /// What is not known.
    pub message: String,
    /// How to find out.
    pub advice: Option<String>,
    /// The option that takes the responsibility.
    pub option: String,
    /// Whether the operator took it.
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
}

impl Question {
    /// Whether the question is about TDs in build and interrupted migrations. The operator answers
    /// it for each update, or a hook does.
    #[must_use]
    pub fn is_about_tds(&self) -> bool {
        self.code == Unknown::SensitiveOperations.code()
    }
}

/// Tells how to find out what is not known.
fn advice_on(unknown: Unknown) -> Option<&'static str> {
    Some(match unknown {
        Unknown::SensitiveOperations => {
            "Linux does not stop an update while a TD is being built or migrated, and such a TD \
             would break: keep new TDs from starting and migrations from running, then vouch for \
             it; or let a pre-update hook do both"
        }
        Unknown::RunningSvn
        | Unknown::SameModule
        | Unknown::HandoffVersions
        | Unknown::HandoffData => {
            "the running module is in no table: give a newer table (--releases)"
        }
        Unknown::Memory => {
            "Linux does not tell where P-SEAMLDR lies; with an image of the running module in an \
             image folder both can be compared"
        }
        Unknown::RemainingUpdates | Unknown::SeamldrVersion => "run the command as root",
        Unknown::Lps | Unknown::LpIds => "the ACPI table APIC tells; run the command as root",
        Unknown::DebugUnlocked => "load the kernel module msr, and run the command as root",
        _ => return None,
    })
}

/// A finding of preflight.
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
            // What Intel's table asks for may be asked already.
            if !questions.contains(&question) {
                questions.push(question);
            }
        }
    }
}
