//! `tdx-seamldr verify`: checks that the trusted signer signed exactly these images.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tdx_seamldr_core::{Sha384Digest, INTEL_PRODUCTION_SIGNER};
use tdx_seamldr_host::examine::{Examination, Kind, Problem, Signature, Verdict};
use tdx_seamldr_host::releases::parse_digest;
use tdx_seamldr_host::text::hex;

use crate::command::Run;
use crate::error::Error;
use crate::examined::{exit_of, report_each, FileReport};
use crate::exit::Exit;
use crate::file;
use crate::inspect::begin;
use crate::page::Page;

#[derive(clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    /// The images; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Trust this signer in place of Intel: the SHA-384 of the key's modulus in little-endian
    /// order, in hexadecimal digits
    #[arg(long, value_name = "SHA384", value_parser = parse_digest)]
    signer: Option<Sha384Digest>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// The end of the help.
const EXIT_STATUS: &str = "\
Exit status, the worst of all files:
  0  the trusted signer signed exactly this
  1  not genuine: the file is tampered, unsigned, signed by another key,
     or only a part of an image
  2  wrong usage
  3  unreadable: the file cannot be read, or is not an image";

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        let trusted = self.signer.unwrap_or(INTEL_PRODUCTION_SIGNER);
        report_each("verify", &self.files, self.json, (out, complaints), |_, found| {
            let report = Report::of(&found, &trusted);
            let exit = match (report.verified, found.verdict) {
                (true, _) => Exit::Done,
                // The operator trusts another key than Intel's.
                (false, Verdict::Genuine) => Exit::Refused,
                (false, verdict) => exit_of(verdict),
            };
            FileReport { text: report.table(&found), json: report, exit }
        })
    }

    fn json(&self) -> bool {
        self.json
    }

    fn check(&self) -> Result<(), String> {
        file::check_one_stdin(self.files.iter().map(PathBuf::as_path))
    }
}

/// A file in the JSON object.
#[derive(Serialize)]
struct Report {
    /// Whether the trusted signer signed exactly this.
    verified: bool,
    verdict: Verdict,
    summary: String,
    release: Option<String>,
    problems: Vec<Problem>,
    signature: Option<Signature>,
    signer: Option<String>,
    signer_sha384: Option<String>,
    signer_trusted: bool,
}

impl Report {
    fn of(found: &Examination, trusted: &Sha384Digest) -> Self {
        let sigstruct = found.sigstruct.as_ref();
        let signer_trusted = sigstruct.is_some_and(|sigstruct| sigstruct.signer_sha384 == *trusted);
        // A SIGSTRUCT without its module can have a valid signature.
        let is_whole = found.kind == Kind::Image
            && matches!(found.verdict, Verdict::Genuine | Verdict::AnotherKey);
        Self {
            verified: signer_trusted && is_whole,
            verdict: found.verdict,
            summary: found.to_string(),
            release: found.release.map(|release| release.to_string()),
            problems: found.problems.clone(),
            signature: sigstruct.map(|sigstruct| sigstruct.signature),
            signer: sigstruct.map(|sigstruct| sigstruct.signer.to_string()),
            signer_sha384: sigstruct.map(|sigstruct| hex(&sigstruct.signer_sha384)),
            signer_trusted,
        }
    }

    fn table(&self, found: &Examination) -> String {
        let mut page = Page::default();
        begin(&mut page, found);
        if let (Some(signer), Some(digest)) = (&self.signer, &self.signer_sha384) {
            let trusted = if self.signer_trusted { "trusted" } else { "not trusted" };
            page.row("signer", format_args!("{signer} ({trusted}), {digest}"));
        }
        page.row("result", if self.verified { "verified" } else { "NOT VERIFIED" });
        page.into_text()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signer_must_have_96_hexadecimal_digits() {
        assert_eq!(parse_digest(&hex(&INTEL_PRODUCTION_SIGNER)), Ok(INTEL_PRODUCTION_SIGNER));
        for wrong in ["", "c8", &"g".repeat(96), &"+1".repeat(48), &"é".repeat(48)] {
            assert!(parse_digest(wrong).is_err(), "{wrong}");
        }
    }
}
