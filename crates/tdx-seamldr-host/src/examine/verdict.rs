//! The verdict, and the summary line.

use std::fmt;

use serde::Serialize;

use super::Examination;

/// Whether Intel signed exactly this file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// An image as Intel signed it.
    Genuine,
    /// The signature is not valid, the module does not have the signed hash, or unsigned bytes
    /// break a rule.
    Tampered,
    /// Signature and hash are valid, but the key is not Intel's.
    AnotherKey,
    /// The file has no signature.
    Unsigned,
    /// A part of an image that passed all possible checks.
    Part,
    /// Neither an image of a TDX module nor a part of one.
    NotAnImage,
}

impl Verdict {
    /// Returns the verdict in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Genuine => "genuine",
            Self::Tampered => "tampered",
            Self::AnotherKey => "signed by another key",
            Self::Unsigned => "unsigned",
            Self::Part => "only a part",
            Self::NotAnImage => "not an image",
        }
    }
}

/// One line: the verdict and its grounds.
impl fmt::Display for Examination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verdict.words())?;
        match self.verdict {
            Verdict::Genuine => match self.release {
                Some(release) => write!(f, ": TDX module {release}, signed by Intel")?,
                None => {
                    f.write_str(": signed by Intel, but not in the table of public releases")?
                }
            },
            Verdict::Tampered => {
                if let Some(problem) = self.problems.first() {
                    write!(f, ": {}", problem.message)?;
                }
            }
            Verdict::AnotherKey => {
                f.write_str(": signature and hash hold, but the key is not Intel's")?
            }
            Verdict::Unsigned => f.write_str(": the file has no signature")?,
            Verdict::Part => {
                write!(f, ": {}", self.kind.words())?;
                match self.release {
                    Some(release) => write!(f, " of TDX module {release}")?,
                    None if self.sigstruct.is_some() || self.module.is_some() => {
                        f.write_str(", of no release in the table")?;
                    }
                    None => {}
                }
            }
            Verdict::NotAnImage => return write!(f, ": {}", self.kind.words()),
        }
        f.write_str(if self.is_debug() { "; a debug module" } else { "" })
    }
}
