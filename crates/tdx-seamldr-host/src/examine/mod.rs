//! Examines a file: what it is, and whether Intel signed exactly these bytes.
//!
//! [`examine`] takes any bytes. It recognises images of a TDX module (whole, cut or damaged), parts
//! of an image, and files that people mistake for images.

mod damaged;
mod image;
mod kind;
mod other;
mod sigstruct;
#[cfg(test)]
mod tests;
mod verdict;
mod written;

use serde::Serialize;
use tdx_seamldr_core::{TdxImage, TdxVersion};

use crate::releases::Releases;

pub(crate) use damaged::signature_format;
pub use image::{Layout, ModuleFacts};
pub use kind::Kind;
pub use sigstruct::{iso_date, Signature, SigstructFacts};
pub use verdict::Verdict;

/// Why a file is not genuine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// A name that does not change between releases. Rules of preflight and of the image's header
    /// have the same name there.
    pub code: &'static str,
    /// What was found and what was expected. Text from the file is escaped.
    pub message: String,
}

/// The result of [`examine`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Examination {
    /// Whether Intel signed exactly this file.
    pub verdict: Verdict,
    /// What the file is.
    pub kind: Kind,
    /// The public release of a genuine image or of its part. `None` if the table does not have it,
    /// or the file does not prove it.
    #[serde(serialize_with = "written::optional")]
    pub release: Option<TdxVersion>,
    /// Why the file is not genuine, the most important first. Empty for genuine images.
    pub problems: Vec<Problem>,
    /// Further facts and advice. Text from the file is escaped.
    pub notes: Vec<String>,
    /// The length of the file in bytes.
    pub length: usize,
    /// The layout of an image, if its header is valid.
    pub image: Option<Layout>,
    /// The content of the SIGSTRUCT, which is proven only if the signature is valid.
    pub sigstruct: Option<SigstructFacts>,
    /// The module's binary, if the file has all of it.
    pub module: Option<ModuleFacts>,
    /// The versions that a `mapping_file.json` lists, escaped.
    pub listed: Vec<String>,
}

/// Examines the bytes of a file.
///
/// The verdict is [`Genuine`](Verdict::Genuine) only if all rules of the format hold, Intel's
/// signature holds, and the module's hash is the one that was signed.
#[must_use]
pub fn examine(bytes: &[u8], releases: &Releases) -> Examination {
    let mut found = match TdxImage::parse_without_checksum(bytes) {
        Ok(image) => image::examine(&image, releases),
        Err(error) => damaged::examine(bytes, error, releases)
            .unwrap_or_else(|| other::examine(bytes, releases)),
    };
    found.judge_signer();
    found
}

impl Examination {
    /// Returns an examination without findings.
    fn new(verdict: Verdict, kind: Kind, length: usize) -> Self {
        Self {
            verdict,
            kind,
            release: None,
            problems: Vec::new(),
            notes: Vec::new(),
            length,
            image: None,
            sigstruct: None,
            module: None,
            listed: Vec::new(),
        }
    }

    fn problem(&mut self, code: &'static str, message: impl Into<String>) {
        self.problems.push(Problem { code, message: message.into() });
    }

    fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Whether the SIGSTRUCT is for a debug module, which runs on unlocked platforms only.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.sigstruct.as_ref().is_some_and(|sigstruct| sigstruct.debug)
    }
}
