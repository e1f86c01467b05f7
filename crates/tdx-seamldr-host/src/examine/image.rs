//! An image with a valid header, and its module.

use serde::Serialize;
use tdx_seamldr_core::abi::PAGE_SIZE;
use tdx_seamldr_core::image::{Checksum, ImageError, ImageFormat};
use tdx_seamldr_core::{Crypto, Sha384Digest, TdxImage, TdxVersion};
use tdx_seamldr_verify::RustCrypto;

use super::{written, Examination, Kind, Signature, SigstructFacts, Verdict};
use crate::releases::Releases;

/// The layout of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Layout {
    /// The format.
    #[serde(serialize_with = "written::shown")]
    pub format: ImageFormat,
    /// The version number of the format, such as `0x100`.
    pub format_version: String,
    /// The pages of the SIGSTRUCT area.
    pub sigstruct_pages: u32,
    /// The pages of the module's binary.
    pub module_pages: u32,
    /// The result of the checksum: `ok`, `bad`, or `zero` for v2, whose rule is not published.
    pub checksum: &'static str,
}

/// The binary of a module.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleFacts {
    /// The SHA-384 over whole pages, which quotes show as MRSEAM.
    #[serde(serialize_with = "written::digest")]
    pub sha384: Sha384Digest,
    /// The public release whose module has this SHA-384.
    #[serde(serialize_with = "written::optional")]
    pub release: Option<TdxVersion>,
    /// Whether the SIGSTRUCT of the file has the hash of this module. `None` if the file has no
    /// SIGSTRUCT.
    pub as_signed: Option<bool>,
}

impl ModuleFacts {
    /// Hashes a module, filled up with zeros to whole pages.
    pub(super) fn of(module: &[u8], signed: Option<&Sha384Digest>, releases: &Releases) -> Self {
        let padded = module.len().checked_next_multiple_of(PAGE_SIZE).unwrap_or(module.len());
        let padding = [0; PAGE_SIZE].get(..padded.saturating_sub(module.len())).unwrap_or_default();
        // This provider never fails.
        let sha384 = RustCrypto.sha384(&[module, padding]).unwrap_or([0; 48]);
        Self {
            sha384,
            release: releases.by_mrseam(&sha384).map(|release| release.version),
            as_signed: signed.map(|signed| *signed == sha384),
        }
    }
}

impl Examination {
    /// Adds the findings on the module after the SIGSTRUCT.
    pub(super) fn judge_module(&mut self, module: &[u8], releases: &Releases) {
        let Some(sigstruct) = &self.sigstruct else { return };
        let facts = ModuleFacts::of(module, Some(&sigstruct.seamhash), releases);
        if facts.as_signed == Some(false) {
            let message = match (sigstruct.signature, sigstruct.release) {
                (Signature::Valid, Some(release)) => {
                    format!("the module was changed after it was signed as TDX module {release}")
                }
                (Signature::Valid, None) => "the module was changed after it was signed".to_owned(),
                _ => "the module is not the one that the SIGSTRUCT was made for".to_owned(),
            };
            self.tampered("image-hash", message);
        }
        self.module = Some(facts);
    }
}

pub(super) fn examine(image: &TdxImage<'_>, releases: &Releases) -> Examination {
    let mut found = Examination::new(Verdict::Unsigned, Kind::Image, image.as_bytes().len());
    found.judge_sigstruct(SigstructFacts::of(image.sigstruct(), releases));
    found.judge_module(image.module(), releases);
    found.judge_padding(image.sigstruct_area());
    let checksum = image.checksum();
    found.image = Some(Layout {
        format: image.format(),
        format_version: format!("{:#x}", image.format().version()),
        sigstruct_pages: image.sigstruct_pages(),
        module_pages: image.module_pages(),
        checksum: match checksum {
            Checksum::Ok => "ok",
            Checksum::Zero => "zero",
            Checksum::Bad { .. } => "bad",
        },
    });
    match (checksum, image.format()) {
        (Checksum::Bad { found: field, wanted }, ImageFormat::BlobV1) => {
            let error = ImageError::Checksum { found: field, wanted };
            found.tampered(error.code(), error.to_string());
        }
        (Checksum::Bad { .. }, ImageFormat::ImageV2) => {
            found.note(
                "the checksum does not follow the rule of v1; the rule of v2 is not published",
            );
        }
        (Checksum::Ok | Checksum::Zero, _) => {}
    }
    if image.sigstruct_pages() > 1 {
        let pages = image.sigstruct_pages();
        found.note(format!("the SIGSTRUCT area has {pages} pages, but SEAMLDR.INSTALL takes 1"));
    }
    if found.verdict == Verdict::Genuine {
        found.release = found.module.as_ref().and_then(|module| module.release);
    }
    found
}
