//! `tdx-seamldr inspect`: what is in an image, damaged or not.

use std::fmt::Write as _;
use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tdx_seamldr_core::image::Checksum;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_verify::verify;

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{hex, print, print_json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image
    file: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, _: &mut dyn Write) -> Result<Exit, Error> {
        run(self, out)
    }

    fn json(&self) -> bool {
        self.json
    }
}

/// What `inspect` prints.
#[derive(Serialize)]
struct Inspection {
    format: &'static str,
    format_version: String,
    length: usize,
    sigstruct_pages: u32,
    module_pages: u32,
    checksum: &'static str,
    date: Option<String>,
    debug: bool,
    svn: String,
    seamhash: String,
    module_hv: u16,
    min_update_hv: u16,
    no_downgrade: bool,
    num_handoff_pages: u16,
    cpus: Vec<String>,
    signature: &'static str,
    signer: String,
    signer_sha384: String,
    image_hash: &'static str,
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Error> {
    let bytes = file::read(&arguments.file)?;
    let image = TdxImage::parse_without_checksum(bytes.as_bytes())
        .map_err(|source| Error::Image { path: arguments.file.clone(), source })?;
    let inspection = Inspection::of(&image);
    if arguments.json {
        print_json(out, "inspect", &inspection)?;
    } else {
        print(out, inspection.table().trim_end())?;
    }
    Ok(Exit::Done)
}

/// The word for a checksum.
pub(crate) fn checksum_word(checksum: Checksum) -> &'static str {
    match checksum {
        Checksum::Ok => "ok",
        Checksum::Zero => "zero",
        Checksum::Bad { .. } => "bad",
    }
}

/// The word for a signature.
pub(crate) fn signature_word(valid: bool) -> &'static str {
    if valid {
        "valid"
    } else {
        "invalid"
    }
}

/// The word for a hash.
pub(crate) fn hash_word(matches: bool) -> &'static str {
    if matches {
        "match"
    } else {
        "mismatch"
    }
}

/// YYYYMMDD in hexadecimal digits as an ISO date, if it is a date.
fn iso_date(bcd: u32) -> Option<String> {
    let digits = format!("{bcd:08x}");
    let (year, rest) = digits.split_at_checked(4)?;
    let (month, day) = rest.split_at_checked(2)?;
    // What is not a number counts as 0, which no date has.
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

impl Inspection {
    fn of(image: &TdxImage<'_>) -> Self {
        let sigstruct = image.sigstruct();
        let verification = verify(image);
        Self {
            format: image.format().name(),
            format_version: format!("{:#x}", image.format().version()),
            length: image.as_bytes().len(),
            sigstruct_pages: image.sigstruct_pages(),
            module_pages: image.module_pages(),
            checksum: checksum_word(image.checksum()),
            date: iso_date(sigstruct.date.get()),
            debug: sigstruct.is_debug(),
            svn: sigstruct.svn().to_string(),
            seamhash: hex(&sigstruct.seamhash),
            module_hv: sigstruct.module_hv.get(),
            min_update_hv: sigstruct.min_update_hv.get(),
            no_downgrade: sigstruct.no_downgrade != 0,
            num_handoff_pages: sigstruct.num_handoff_pages.get(),
            cpus: sigstruct.cpus().iter().map(|cpu| format!("{:#010x}", cpu.get())).collect(),
            signature: signature_word(verification.signature_valid),
            signer: verification.signer.to_string(),
            signer_sha384: hex(verification.signer.digest()),
            image_hash: hash_word(verification.image_hash_matches),
        }
    }

    fn table(&self) -> String {
        let mut table = String::new();
        let mut row = |name: &str, value: &dyn std::fmt::Display| {
            // Writing to a string does not fail.
            let _ = writeln!(table, "{name:<16} {value}");
        };
        row("format", &format_args!("{} (version {})", self.format, self.format_version));
        row("length", &self.length);
        row("SIGSTRUCT pages", &self.sigstruct_pages);
        row("module pages", &self.module_pages);
        row("checksum", &self.checksum);
        row("date", &self.date.as_deref().unwrap_or("not a date"));
        row("debug module", &if self.debug { "yes" } else { "no" });
        row("SVN", &self.svn);
        row("hash", &format_args!("{} ({})", self.seamhash, self.image_hash));
        let downgrade = if self.no_downgrade { ", writes the highest only" } else { "" };
        row("handoff versions", &format_args!("{} to {}{downgrade}", self.min_update_hv, self.module_hv));
        row("handoff pages", &(u32::from(self.num_handoff_pages).saturating_add(1)));
        row("CPUs", &self.cpus.join(", "));
        row("signature", &self.signature);
        row("signer", &self.signer);
        table
    }
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
