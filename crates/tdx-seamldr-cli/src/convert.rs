//! `tdx-seamldr convert`: writes an image in the other format.

use std::io::Write;
use std::path::PathBuf;

use tdx_seamldr_core::image::Checksum;
use tdx_seamldr_core::TdxImage;

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::write::{self, Format, Made};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image; - is standard input
    file: PathBuf,
    /// The format to write
    #[arg(long)]
    to: Format,
    /// The file to write; - is standard output, and messages then go to standard error
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Write the image even if P-SEAMLDR will not load it
    #[arg(long)]
    allow_invalid: bool,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        file::check_output(&self.output, &[&self.file])?;
        let bytes = file::read(&self.file)?;
        let image = TdxImage::parse_without_checksum(bytes.as_bytes())
            .map_err(|source| Error::Image { path: self.file.clone(), source })?;
        let made = Made {
            command: "convert",
            parts: image.parts(),
            format: self.to.into(),
            output: &self.output,
            allow_invalid: self.allow_invalid,
            json: self.json,
            warning: matches!(image.checksum(), Checksum::Bad { .. }).then(|| {
                format!(
                    "{}: the checksum is wrong, but is right in the new file",
                    file::shown(&self.file)
                )
            }),
        };
        write::write(&made, out, complaints)
    }

    fn json(&self) -> bool {
        self.json
    }

    fn writes_to_stdout(&self) -> bool {
        file::is_stdout(&self.output)
    }
}
