//! `tdx-seamldr pack`: makes an image from its parts.

use std::borrow::Cow;
use std::io::Write;
use std::path::{Path, PathBuf};

use tdx_seamldr_core::abi::{SeamSigstruct, PAGE_SIZE};
use tdx_seamldr_core::image::ImageParts;
use tdx_seamldr_core::Crypto;
use tdx_seamldr_verify::RustCrypto;
use zerocopy::FromBytes;

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::write::{self, Format, Made};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The module's binary, such as intel_tdx_module.so; - is standard input
    #[arg(long, value_name = "BIN")]
    module: PathBuf,
    /// The SIGSTRUCT, 2048 to 4096 bytes; - is standard input [default: BIN.sigstruct]
    #[arg(long, value_name = "SIG")]
    sigstruct: Option<PathBuf>,
    /// The format to write
    #[arg(long)]
    format: Format,
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

impl Arguments {
    /// Returns the path of the SIGSTRUCT. The default is beside the module, as Intel ships it.
    fn sigstruct(&self) -> Cow<'_, Path> {
        match &self.sigstruct {
            Some(path) => path.into(),
            None => {
                let mut name = self.module.clone().into_os_string();
                name.push(".sigstruct");
                PathBuf::from(name).into()
            }
        }
    }
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        let sigstruct_path = self.sigstruct();
        file::check_output(&self.output, &[&self.module, &sigstruct_path])?;
        let (module, sigstruct) = (file::read(&self.module)?, file::read(&sigstruct_path)?);
        let sigstruct = sigstruct.as_bytes();
        let padded = padded(module.as_bytes(), sigstruct);
        let made = Made {
            command: "pack",
            parts: ImageParts { sigstruct, module: padded.as_deref().unwrap_or(module.as_bytes()) },
            format: self.format.into(),
            output: &self.output,
            allow_invalid: self.allow_invalid,
            json: self.json,
            warning: None,
        };
        write::write(&made, out, complaints)
    }

    fn json(&self) -> bool {
        self.json
    }

    fn check(&self) -> Result<(), String> {
        if file::is_dash(&self.module) && self.sigstruct.is_none() {
            return Err("a module from standard input needs --sigstruct".to_owned());
        }
        file::check_one_stdin([self.module.as_path(), &self.sigstruct()])
    }

    fn writes_to_stdout(&self) -> bool {
        file::is_stdout(&self.output)
    }
}

/// Returns the module, filled up with zeros to whole pages. `None` if the module has whole pages,
/// or the filled module does not have the signed hash.
fn padded(module: &[u8], sigstruct: &[u8]) -> Option<Vec<u8>> {
    let len =
        module.len().checked_next_multiple_of(PAGE_SIZE).filter(|len| *len != module.len())?;
    let (sigstruct, _) = SeamSigstruct::ref_from_prefix(sigstruct).ok()?;
    let mut padded = module.to_vec();
    padded.resize(len, 0);
    (RustCrypto.sha384(&[&padded]) == Ok(sigstruct.seamhash)).then_some(padded)
}
