//! Shared by `convert` and `pack`: makes, checks and writes an image.

use std::io::Write;
use std::path::Path;

use clap::ValueEnum;
use tdx_seamldr_core::abi::PAGE_SIZE;
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_host::examine::{examine, Verdict};
use tdx_seamldr_host::Releases;

use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{print, print_json};

/// A format, by its name on the command line.
#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum Format {
    /// tdx_blob, version 0x0100: Intel's releases
    V1,
    /// tdx_image, version 0x0200: Linux 7.2
    V2,
}

impl From<Format> for ImageFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::V1 => Self::BlobV1,
            Format::V2 => Self::ImageV2,
        }
    }
}

/// An image to make.
pub(crate) struct Made<'a> {
    /// The subcommand.
    pub(crate) command: &'static str,
    pub(crate) parts: ImageParts<'a>,
    pub(crate) format: ImageFormat,
    pub(crate) output: &'a Path,
    /// Also write an image that P-SEAMLDR will not load.
    pub(crate) allow_invalid: bool,
    pub(crate) json: bool,
    /// A further warning.
    pub(crate) warning: Option<String>,
}

/// The JSON object of `convert` and `pack`.
#[derive(serde::Serialize)]
struct Report {
    file: String,
    format: &'static str,
    length: usize,
    verdict: Verdict,
    release: Option<String>,
    warnings: Vec<String>,
}

/// Makes the image and writes it if signature and hash are valid. A key that is not Intel's causes
/// only a warning.
pub(crate) fn write(
    made: &Made<'_>,
    out: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Result<Exit, Error> {
    let mut bytes = vec![0; made.parts.file_len()?];
    made.parts.write(made.format, &mut bytes)?;
    let found = examine(&bytes, &Releases::built_in());
    let pages = made.parts.sigstruct.len().div_ceil(PAGE_SIZE);
    let fault = match found.verdict {
        Verdict::Genuine | Verdict::AnotherKey if pages > 1 => {
            Some(format!("the SIGSTRUCT area has {pages} pages, but SEAMLDR.INSTALL takes 1"))
        }
        Verdict::Genuine | Verdict::AnotherKey => None,
        _ => Some(found.to_string()),
    };
    let mut warnings = Vec::new();
    match fault {
        Some(fault) if made.allow_invalid => {
            warnings.push(format!("P-SEAMLDR will not load this image: {fault}"));
        }
        Some(fault) => return Err(Error::Invalid(fault)),
        None if found.verdict == Verdict::AnotherKey => warnings.push(found.to_string()),
        None => {}
    }
    warnings.extend(made.warning.clone());
    let to_stdout = file::is_stdout(made.output);
    if to_stdout {
        out.write_all(&bytes)?;
        out.flush()?;
    } else {
        file::write(made.output, &bytes)?;
    }
    // A report on standard error contains the warnings. Nothing else is printed there.
    if !(made.json && to_stdout) {
        for warning in &warnings {
            // A warning that cannot be written does not fail the command.
            let _ = writeln!(complaints, "tdx-seamldr: warning: {warning}");
        }
    }
    let summary: &mut dyn Write = if to_stdout { complaints } else { out };
    if made.json {
        let report = Report {
            file: made.output.display().to_string(),
            format: made.format.name(),
            length: bytes.len(),
            verdict: found.verdict,
            release: found.release.map(|release| release.to_string()),
            warnings,
        };
        print_json(summary, made.command, &report)?;
    } else {
        let name = if file::is_dash(made.output) {
            "standard output".to_owned()
        } else {
            file::shown(made.output)
        };
        print(summary, &format!("{name}: {}, {} bytes", made.format, bytes.len()))?;
        // All other findings on the image are warnings.
        if found.verdict == Verdict::Genuine {
            print(summary, &found.to_string())?;
        }
    }
    Ok(Exit::Done)
}
