//! Damaged images: a wrong header, a missing end, or extra bytes.

use tdx_seamldr_core::abi::PAGE_SIZE;
use tdx_seamldr_core::image::{ImageError, ImageFormat};
use tdx_seamldr_core::TdxImage;

use super::{image, sigstruct, Examination, Kind, SigstructFacts, Verdict};
use crate::releases::Releases;

/// The signature of an image's header.
const SIGNATURE: &[u8] = b"TDX-BLOB";

/// Examines bytes that break this rule of an image. `None` if they do not look like an image.
pub(super) fn examine(bytes: &[u8], error: ImageError, releases: &Releases) -> Option<Examination> {
    let format = signature_format(bytes);
    let area = bytes.get(PAGE_SIZE..).unwrap_or_default();
    let sigstruct = sigstruct::find(area);
    // The parser checks the signature after the length, so header and file agree in their length.
    if format.is_none() && sigstruct.is_none() && !matches!(error, ImageError::Signature { .. }) {
        return None;
    }
    // The position of the header's signature shows the format, for any version number.
    let error =
        format.and_then(|format| TdxImage::parse_only(format, bytes).err()).unwrap_or(error);
    let announced = format.and_then(|format| announced(bytes, format));
    let facts = sigstruct.map(|sigstruct| SigstructFacts::of(sigstruct, releases));

    let mut found = Examination::new(Verdict::Unsigned, Kind::DamagedImage, bytes.len());
    if let Some(facts) = facts.clone() {
        found.judge_sigstruct(facts);
        let (page, module) = area.split_at_checked(PAGE_SIZE).unwrap_or((area, &[]));
        found.judge_padding(page);
        if !module.is_empty() {
            found.judge_module(module, releases);
        }
        if found.module.as_ref().is_some_and(|module| module.as_signed == Some(true)) {
            return Some(wrong_header(found, error));
        }
    }
    match announced {
        Some(announced) if announced < bytes.len() => {
            Some(too_long(bytes, announced, releases).unwrap_or_else(|| wrong_header(found, error)))
        }
        Some(announced) if announced > bytes.len() => Some(cut(bytes.len(), announced, facts)),
        _ => Some(wrong_header(found, error)),
    }
}

/// Returns the format, from the position of the header's signature.
pub(crate) fn signature_format(bytes: &[u8]) -> Option<ImageFormat> {
    let is_signature_at =
        |at: usize| bytes.get(at..).is_some_and(|rest: &[u8]| rest.starts_with(SIGNATURE));
    let places = [(8, ImageFormat::BlobV1), (4, ImageFormat::ImageV2)];
    places.into_iter().find(|(at, _)| is_signature_at(*at)).map(|(_, format)| format)
}

/// Returns the length that the header announces, in bytes.
fn announced(bytes: &[u8], format: ImageFormat) -> Option<usize> {
    let field = |at: usize| {
        let field = bytes.get(at..)?.first_chunk()?;
        usize::try_from(u32::from_le_bytes(*field)).ok()
    };
    match format {
        ImageFormat::BlobV1 => field(16),
        ImageFormat::ImageV2 => {
            field(12)?.checked_add(field(16)?)?.checked_add(1)?.checked_mul(PAGE_SIZE)
        }
    }
}

/// The header breaks a rule. The bytes after it may be valid.
fn wrong_header(mut found: Examination, error: ImageError) -> Examination {
    let holds = found.verdict;
    found.tampered(error.code(), error.to_string());
    match holds {
        Verdict::Genuine => found.note("the SIGSTRUCT and the module after the header are genuine"),
        Verdict::AnotherKey => {
            found.note("the SIGSTRUCT and the module after the header belong together");
        }
        _ => {}
    }
    found.note_advice();
    found
}

/// Bytes follow the image. `None` if no image comes before them.
fn too_long(bytes: &[u8], announced: usize, releases: &Releases) -> Option<Examination> {
    let whole = TdxImage::parse_without_checksum(bytes.get(..announced)?).ok()?;
    let mut found = image::examine(&whole, releases);
    let more = bytes.len().saturating_sub(announced);
    let follow =
        if more == 1 { "1 byte follows".to_owned() } else { format!("{more} bytes follow") };
    let message = match found.verdict {
        Verdict::Genuine => format!("{follow} the image; without that the file would be genuine"),
        _ => format!("{follow} the image"),
    };
    (found.kind, found.release, found.length) = (Kind::DamagedImage, None, bytes.len());
    found.tampered("trailing-bytes", message);
    found.note_advice();
    Some(found)
}

/// The end of the image is missing.
fn cut(length: usize, announced: usize, facts: Option<SigstructFacts>) -> Examination {
    let mut found = Examination::new(Verdict::Part, Kind::CutImage, length);
    if let Some(facts) = facts {
        let release = facts.release;
        found.judge_sigstruct(facts);
        match found.verdict {
            Verdict::Genuine => {
                (found.verdict, found.release) = (Verdict::Part, release);
                found
                    .note("Intel's signature of the SIGSTRUCT holds; the module cannot be checked");
            }
            // The hash of the module cannot be checked.
            Verdict::AnotherKey => found.verdict = Verdict::Part,
            _ => {}
        }
    }
    found.problem(
        "cut",
        format!("the file has {length} bytes, but its header announces {announced}"),
    );
    found.note_advice();
    found
}
