//! `tdx-seamldr inspect`: shows what a file is, also a damaged file.

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tdx_seamldr_host::examine::{Examination, Kind, Signature, Verdict};
use tdx_seamldr_host::text::hex;

use crate::command::Run;
use crate::error::Error;
use crate::examined::{exit_of, report_each, yes_or_no, FileReport};
use crate::exit::Exit;
use crate::file;
use crate::page::Page;

#[derive(clap::Args)]
#[command(after_help = EXIT_STATUS)]
pub(crate) struct Arguments {
    /// The files; - is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// The end of the help.
const EXIT_STATUS: &str = "\
The first line is the verdict: genuine (Intel signed exactly this), tampered,
signed by another key, unsigned, only a part of an image, or not an image.

Exit status, the worst of all files:
  0  genuine
  1  not genuine, or only a part of an image
  2  wrong usage
  3  not an image, or not readable";

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        report_each("inspect", &self.files, self.json, (out, complaints), |_, found| {
            let (exit, summary) = (exit_of(found.verdict), found.to_string());
            FileReport { text: table(&found), json: Inspection { summary, found }, exit }
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
struct Inspection {
    /// The verdict in words.
    summary: String,
    #[serde(flatten)]
    found: Examination,
}

/// Adds the verdict, the problems that the verdict does not name, and the notes.
pub(crate) fn begin(page: &mut Page, found: &Examination) {
    page.row("verdict", found);
    for (number, problem) in found.problems.iter().enumerate() {
        let is_said = match found.verdict {
            Verdict::Tampered => number == 0,
            Verdict::AnotherKey => problem.code == "signer",
            _ => false,
        };
        if !is_said {
            page.row("problem", &problem.message);
        }
    }
    for note in &found.notes {
        page.row("note", note);
    }
}

fn table(found: &Examination) -> String {
    let mut page = Page::default();
    begin(&mut page, found);
    if found.kind != Kind::Image {
        page.row("kind", found.kind.words());
    }
    if let Some(image) = &found.image {
        page.row("format", format_args!("{} (version {})", image.format, image.format_version));
    }
    page.row("length", found.length);
    if let Some(image) = &found.image {
        page.row("SIGSTRUCT pages", image.sigstruct_pages);
        page.row("module pages", image.module_pages);
        page.row("checksum", image.checksum);
    }
    if let Some(module) = &found.module {
        page.row("SHA-384", hex(&module.sha384));
        if let Some(release) = module.release {
            page.row("", format_args!("the hash of TDX module {release}"));
        }
    }
    if let Some(sigstruct) = &found.sigstruct {
        let as_signed = found.module.as_ref().and_then(|module| module.as_signed);
        let signature = match sigstruct.signature {
            Signature::Valid if as_signed == Some(false) => "valid, but not for this module",
            Signature::Valid => "valid",
            Signature::Invalid => "NOT VALID: nothing below is proven",
            Signature::Missing => "MISSING: nothing below is proven",
        };
        page.row("signature", signature);
        page.row("key", sigstruct.signer);
        if as_signed == Some(true) {
            page.row("signed SHA-384", "the same");
        } else {
            page.row("signed SHA-384", hex(&sigstruct.seamhash));
            if let Some(release) = sigstruct.release {
                page.row("", format_args!("the hash of TDX module {release}"));
            }
        }
        page.row("date", sigstruct.date.as_deref().unwrap_or("not a date"));
        page.row("debug module", yes_or_no(sigstruct.debug));
        page.row("SVN", sigstruct.svn);
        let downgrade = if sigstruct.no_downgrade { ", writes the highest only" } else { "" };
        let (lowest, highest) = (sigstruct.min_update_hv, sigstruct.module_hv);
        page.row("handoff versions", format_args!("{lowest} to {highest}{downgrade}"));
        page.row("handoff pages", u32::from(sigstruct.num_handoff_pages).saturating_add(1));
        let cpus: Vec<_> = sigstruct.cpus.iter().map(|cpu| format!("{cpu:#010x}")).collect();
        page.row("CPUs", cpus.join(", "));
    }
    if !found.listed.is_empty() {
        page.row("lists", found.listed.join(", "));
    }
    page.into_text()
}
