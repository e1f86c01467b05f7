//! `tdx-seamldr inspect`: what a file is, whatever its state.

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
use crate::output::Table;

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
  3  no image, or not readable";

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

/// What `--json` prints of a file.
#[derive(Serialize)]
struct Inspection {
    /// The verdict in words.
    summary: String,
    #[serde(flatten)]
    found: Examination,
}

/// Adds the verdict, the problems and the notes.
pub(crate) fn begin(table: &mut Table, found: &Examination) {
    table.row("verdict", found);
    // The line of this verdict has the first problem.
    let said = usize::from(found.verdict == Verdict::Tampered);
    for problem in found.problems.iter().skip(said) {
        table.row("problem", &problem.message);
    }
    for note in &found.notes {
        table.row("note", note);
    }
}

fn table(found: &Examination) -> String {
    let mut table = Table::default();
    begin(&mut table, found);
    if found.kind != Kind::Image {
        table.row("kind", found.kind.words());
    }
    if let Some(image) = &found.image {
        table.row("format", format_args!("{} (version {})", image.format, image.format_version));
    }
    table.row("length", found.length);
    if let Some(image) = &found.image {
        table.row("SIGSTRUCT pages", image.sigstruct_pages);
        table.row("module pages", image.module_pages);
        table.row("checksum", image.checksum);
    }
    if let Some(module) = &found.module {
        table.row("SHA-384", hex(&module.sha384));
        if let Some(release) = module.release {
            table.row("", format_args!("that of TDX module {release}"));
        }
    }
    if let Some(sigstruct) = &found.sigstruct {
        let signature = match sigstruct.signature {
            Signature::Valid => "valid",
            Signature::Invalid => "NOT VALID: nothing below is proven",
            Signature::Missing => "MISSING: nothing below is proven",
        };
        table.row("signature", signature);
        table.row("signer", sigstruct.signer);
        if found.module.as_ref().is_some_and(|module| module.as_signed == Some(true)) {
            table.row("signed SHA-384", "the same");
        } else {
            table.row("signed SHA-384", hex(&sigstruct.seamhash));
            if let Some(release) = sigstruct.release {
                table.row("", format_args!("that of TDX module {release}"));
            }
        }
        table.row("date", sigstruct.date.as_deref().unwrap_or("not a date"));
        table.row("debug module", yes_or_no(sigstruct.debug));
        table.row("SVN", sigstruct.svn);
        let downgrade = if sigstruct.no_downgrade { ", writes the highest only" } else { "" };
        let (lowest, highest) = (sigstruct.min_update_hv, sigstruct.module_hv);
        table.row("handoff versions", format_args!("{lowest} to {highest}{downgrade}"));
        table.row("handoff pages", u32::from(sigstruct.num_handoff_pages).saturating_add(1));
        let cpus: Vec<_> = sigstruct.cpus.iter().map(|cpu| format!("{cpu:#010x}")).collect();
        table.row("CPUs", cpus.join(", "));
    }
    if !found.listed.is_empty() {
        table.row("lists", found.listed.join(", "));
    }
    table.lines().to_owned()
}
