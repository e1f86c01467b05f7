//! The SIGSTRUCT: its content, and whether its signature is valid.

use serde::Serialize;
use tdx_seamldr_core::abi::{SeamSigstruct, Svn, INTEL_VENDOR_ID, PAGE_SIZE};
use tdx_seamldr_core::{Sha384Digest, TdxVersion};
use tdx_seamldr_verify::{verify_sigstruct, Signer};
use zerocopy::FromBytes;

use super::{written, Examination, Kind, Verdict};
use crate::releases::Releases;

/// The state of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Signature {
    /// The signature is valid for the SIGSTRUCT and its key.
    Valid,
    /// The signature is not valid.
    Invalid,
    /// All bytes of the signature or of the key are zero.
    Missing,
}

/// The content of a SIGSTRUCT, which is proven only if the signature is valid and the signer is
/// trusted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SigstructFacts {
    /// The date of the signature, such as `2025-02-19`. `None` if the field is not a date.
    pub date: Option<String>,
    /// Whether the module is a debug module, which runs on unlocked platforms only.
    pub debug: bool,
    /// The security version.
    #[serde(serialize_with = "written::shown")]
    pub svn: Svn,
    /// The SHA-384 of the module that was signed.
    #[serde(serialize_with = "written::digest")]
    pub seamhash: Sha384Digest,
    /// The public release whose module has this SHA-384.
    #[serde(serialize_with = "written::optional")]
    pub release: Option<TdxVersion>,
    /// The highest handoff version.
    pub module_hv: u16,
    /// The lowest handoff version.
    pub min_update_hv: u16,
    /// Whether the module writes handoff data of its highest version only.
    pub no_downgrade: bool,
    /// The pages for handoff data, minus one.
    pub num_handoff_pages: u16,
    /// The CPUs that the module runs on, by CPUID.1:EAX.
    #[serde(serialize_with = "written::cpus")]
    pub cpus: Vec<u32>,
    /// The state of the signature.
    pub signature: Signature,
    /// The owner of the key.
    #[serde(serialize_with = "written::shown")]
    pub signer: Signer,
    /// The SHA-384 of the key's modulus in little-endian order.
    #[serde(serialize_with = "written::digest")]
    pub signer_sha384: Sha384Digest,
}

impl SigstructFacts {
    pub(super) fn of(sigstruct: &SeamSigstruct, releases: &Releases) -> Self {
        let verification = verify_sigstruct(sigstruct);
        let is_zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
        let signature = match verification.signature_valid {
            true => Signature::Valid,
            false if is_zero(&sigstruct.signature) || is_zero(&sigstruct.modulus) => {
                Signature::Missing
            }
            false => Signature::Invalid,
        };
        Self {
            date: iso_date(sigstruct.date.get()),
            debug: sigstruct.is_debug(),
            svn: sigstruct.svn(),
            seamhash: sigstruct.seamhash,
            release: releases.by_mrseam(&sigstruct.seamhash).map(|release| release.version),
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
            num_handoff_pages: sigstruct.num_handoff_pages.get(),
            cpus: sigstruct.cpus().iter().map(|cpu| cpu.get()).collect(),
            signature,
            signer: verification.signer,
            signer_sha384: *verification.signer.digest(),
        }
    }

    /// Returns the verdict on the SIGSTRUCT alone, [`Verdict::Genuine`] if Intel signed it.
    pub(super) fn verdict(&self) -> Verdict {
        match (self.signature, self.signer) {
            (Signature::Valid, Signer::IntelProduction) => Verdict::Genuine,
            (Signature::Valid, Signer::Unknown(_)) => Verdict::AnotherKey,
            (Signature::Invalid, _) => Verdict::Tampered,
            (Signature::Missing, _) => Verdict::Unsigned,
        }
    }
}

impl Examination {
    /// Adds the verdict on the SIGSTRUCT, and the problem if its signature is not valid.
    pub(super) fn judge_sigstruct(&mut self, sigstruct: SigstructFacts) {
        self.verdict = sigstruct.verdict();
        match (sigstruct.signature, sigstruct.signer) {
            (Signature::Valid, _) => {}
            (Signature::Missing, _) => {
                self.problem("signature", "the signature or its key is all zero bytes")
            }
            (Signature::Invalid, Signer::IntelProduction) => self.problem(
                "signature",
                "the SIGSTRUCT was changed after it was signed: Intel's signature does not hold",
            ),
            (Signature::Invalid, Signer::Unknown(_)) => self.problem(
                "signature",
                "the signature does not hold for the key in the SIGSTRUCT, which is not Intel's",
            ),
        }
        self.sigstruct = Some(sigstruct);
    }

    /// Adds that the key is not Intel's, as the last problem.
    pub(super) fn judge_signer(&mut self) {
        let Some(sigstruct) = &self.sigstruct else { return };
        if sigstruct.signature == Signature::Valid && sigstruct.signer != Signer::IntelProduction {
            self.problem("signer", "the key is not the one that signs Intel's released modules");
        }
    }

    /// Checks the rest of the SIGSTRUCT's page, which no signature covers.
    pub(super) fn judge_padding(&mut self, sigstruct_area: &[u8]) {
        let padding = sigstruct_area.get(SeamSigstruct::SIZE..).unwrap_or_default();
        if padding.iter().any(|byte| *byte != 0) {
            self.tampered("sigstruct-padding", "the bytes after the SIGSTRUCT are not zero");
        }
    }

    /// Adds a problem that shows a change after the signature.
    pub(super) fn tampered(&mut self, code: &'static str, message: impl Into<String>) {
        self.problem(code, message);
        if !matches!(self.verdict, Verdict::Unsigned | Verdict::NotAnImage) {
            self.verdict = Verdict::Tampered;
        }
    }
}

/// Returns the SIGSTRUCT at the start of these bytes, if most of its constant fields are right.
pub(super) fn find(bytes: &[u8]) -> Option<&SeamSigstruct> {
    let (sigstruct, _) = SeamSigstruct::ref_from_prefix(bytes).ok()?;
    let fields = [
        (sigstruct.header_type.get(), 6),
        (sigstruct.header_length.get(), 0xe1),
        (sigstruct.header_version.get(), 0x10000),
        (sigstruct.module_vendor.get(), INTEL_VENDOR_ID),
        (sigstruct.size.get(), 0x200),
        (sigstruct.key_size.get(), 0x60),
        (sigstruct.modulus_size.get(), 0x60),
        (sigstruct.exponent_size.get(), 1),
    ];
    let right = fields.iter().filter(|(found, wanted)| found == wanted).count();
    (right >= 6).then_some(sigstruct)
}

/// Examines a SIGSTRUCT without its module.
pub(super) fn examine(bytes: &[u8], sigstruct: &SeamSigstruct, releases: &Releases) -> Examination {
    let mut found = Examination::new(Verdict::Part, Kind::Sigstruct, bytes.len());
    let facts = SigstructFacts::of(sigstruct, releases);
    let release = facts.release;
    found.judge_sigstruct(facts);
    found.judge_padding(bytes.get(..PAGE_SIZE).unwrap_or(bytes));
    if let Some(more) = bytes.len().checked_sub(PAGE_SIZE).filter(|more| *more != 0) {
        found.tampered("trailing-bytes", format!("{more} bytes follow the page of the SIGSTRUCT"));
    }
    if found.verdict == Verdict::Genuine {
        (found.verdict, found.release) = (Verdict::Part, release);
        found.note("Intel's signature of the SIGSTRUCT holds");
    }
    found
}

/// Returns a date of eight hexadecimal digits, YYYYMMDD, as an ISO date. `None` if the digits are
/// not a date.
#[must_use]
pub fn iso_date(bcd: u32) -> Option<String> {
    let digits = format!("{bcd:08x}");
    let (year, rest) = digits.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    // Digits that are not a number count as 0, which no date has.
    let [y, m, d] = [year, month, day].map(|text| text.parse::<u32>().unwrap_or(0));
    let leap = y.is_multiple_of(4) && (!y.is_multiple_of(100) || y.is_multiple_of(400));
    let days = match m {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => 0,
    };
    (y != 0 && (1..=days).contains(&d)).then(|| format!("{year}-{month}-{day}"))
}

#[cfg(test)]
mod tests {
    use super::iso_date;

    #[test]
    fn only_dates_are_shown_as_dates() {
        assert_eq!(iso_date(0x20250219).as_deref(), Some("2025-02-19"));
        for number in [0, 0x00000101, 0x20251319, 0x20250019, 0x20250200, 0x2025021a, u32::MAX] {
            assert_eq!(iso_date(number), None, "{number:x}");
        }
    }

    #[test]
    fn months_have_their_days_and_some_years_one_more() {
        let last_and_next = [
            (0x20250131, 0x20250132),
            (0x20250228, 0x20250229),
            (0x20240229, 0x20240230),
            (0x20000229, 0x20000230),
            (0x21000228, 0x21000229),
            (0x20250331, 0x20250332),
            (0x20250430, 0x20250431),
            (0x20250531, 0x20250532),
            (0x20250630, 0x20250631),
            (0x20250731, 0x20250732),
            (0x20250831, 0x20250832),
            (0x20250930, 0x20250931),
            (0x20251031, 0x20251032),
            (0x20251130, 0x20251131),
            (0x20251231, 0x20251232),
        ];
        for (last, next) in last_and_next {
            assert!(iso_date(last).is_some(), "{last:x}");
            assert_eq!(iso_date(next), None, "{next:x}");
        }
    }
}
