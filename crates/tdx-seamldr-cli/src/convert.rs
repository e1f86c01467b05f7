//! `tdx-seamldr convert` and `tdx-seamldr pack`: writing images.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use tdx_seamldr_core::image::{ImageFormat, ImageParts};
use tdx_seamldr_core::TdxImage;

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::output::{print, print_json};

/// A format, as it is named on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
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

#[derive(clap::Args)]
pub(crate) struct ConvertArguments {
    /// The image
    file: PathBuf,
    /// The format to write
    #[arg(long)]
    to: Format,
    /// The file to write; if it is standard output, all else goes to standard error
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
pub(crate) struct PackArguments {
    /// The module's binary, a number of whole 4 KiB pages
    #[arg(long, value_name = "BIN")]
    module: PathBuf,
    /// The SIGSTRUCT, at least 2048 bytes
    #[arg(long, value_name = "SIG")]
    sigstruct: PathBuf,
    /// The format to write
    #[arg(long)]
    format: Format,
    /// The file to write; if it is standard output, all else goes to standard error
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Run for ConvertArguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        file::check_output(&self.output, &[&self.file])?;
        let bytes = file::read(&self.file)?;
        let parts = file::parse(&self.file, &bytes)?.parts();
        write("convert", parts, self.to.into(), &self.output, self.json, out, complaints)
    }

    fn json(&self) -> bool {
        self.json
    }

    fn writes_to_stdout(&self) -> bool {
        file::is_stdout(&self.output)
    }
}

impl Run for PackArguments {
    fn check(&self) -> Result<(), String> {
        file::check_one_stdin([self.module.as_path(), &self.sigstruct])
    }

    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        file::check_output(&self.output, &[&self.module, &self.sigstruct])?;
        let (module, sigstruct) = (file::read(&self.module)?, file::read(&self.sigstruct)?);
        let parts = ImageParts { sigstruct: sigstruct.as_bytes(), module: module.as_bytes() };
        write("pack", parts, self.format.into(), &self.output, self.json, out, complaints)
    }

    fn json(&self) -> bool {
        self.json
    }

    fn writes_to_stdout(&self) -> bool {
        file::is_stdout(&self.output)
    }
}

/// What `convert` and `pack` print.
#[derive(serde::Serialize)]
struct Report {
    file: String,
    format: &'static str,
    length: usize,
}

fn write(
    command: &str,
    parts: ImageParts<'_>,
    format: ImageFormat,
    path: &Path,
    json: bool,
    out: &mut dyn Write,
    complaints: &mut dyn Write,
) -> Result<Exit, Error> {
    let mut bytes = vec![0; parts.file_len()?];
    parts.write(format, &mut bytes)?;
    let to_stdout = file::is_stdout(path);
    if to_stdout {
        out.write_all(&bytes)?;
        out.flush()?;
    } else {
        file::write(path, &bytes)?;
    }
    let image = TdxImage::parse(&bytes).map_err(|source| Error::Image { path: path.to_owned(), source })?;
    if !tdx_seamldr_verify::verify(&image).image_hash_matches {
        // A warning that cannot be written is no reason to fail.
        let _ = writeln!(complaints, "tdx-seamldr: warning: this is not the module that the SIGSTRUCT was made for: its hash is another one");
    }
    let summary: &mut dyn Write = if to_stdout { complaints } else { out };
    let report = Report { file: path.display().to_string(), format: format.name(), length: bytes.len() };
    let name = if file::is_dash(path) { "standard output".to_owned() } else { file::shown(path) };
    if json {
        print_json(summary, command, &report)?;
    } else {
        print(summary, &format!("{name}: {format}, {} bytes", report.length))?;
    }
    Ok(Exit::Done)
}
