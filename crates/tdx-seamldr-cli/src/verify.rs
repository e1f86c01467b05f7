//! `tdx-seamldr verify`: did Intel sign exactly this?

use std::io::Write;
use std::path::PathBuf;

use serde::Serialize;
use tdx_seamldr_core::{Sha384Digest, INTEL_PRODUCTION_SIGNER};

use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::file;
use crate::inspect::{checksum_word, hash_word, signature_word};
use crate::output::{hex, print, print_json};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The image
    file: PathBuf,
    /// Trust this signer instead of Intel: SHA-384 of the key's modulus in little-endian order, in hexadecimal digits
    #[arg(long, value_name = "SHA384", value_parser = parse_digest)]
    signer: Option<Sha384Digest>,
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

/// What `verify` prints.
#[derive(Serialize)]
struct Report {
    verified: bool,
    signature: &'static str,
    signer: String,
    signer_sha384: String,
    signer_trusted: bool,
    image_hash: &'static str,
    padding: &'static str,
    checksum: &'static str,
}

fn parse_digest(text: &str) -> Result<Sha384Digest, String> {
    let wrong = || format!("found {} characters, wanted 96 hexadecimal digits", text.chars().count());
    let mut digest = [0; 48];
    if text.len() != 96 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    for (slot, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
        *slot = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
    }
    Ok(digest)
}

fn run(arguments: &Arguments, out: &mut dyn Write) -> Result<Exit, Error> {
    let bytes = file::read(&arguments.file)?;
    let image = file::parse(&arguments.file, &bytes)?;
    let verification = tdx_seamldr_verify::verify(&image);
    let trusted = arguments.signer.unwrap_or(INTEL_PRODUCTION_SIGNER);
    let report = Report {
        verified: verification.is_signed_by(&trusted),
        signature: signature_word(verification.signature_valid),
        signer: verification.signer.to_string(),
        signer_sha384: hex(verification.signer.digest()),
        signer_trusted: *verification.signer.digest() == trusted,
        image_hash: hash_word(verification.image_hash_matches),
        padding: if verification.padding_zero { "zero" } else { "not-zero" },
        checksum: checksum_word(image.checksum()),
    };
    if arguments.json {
        print_json(out, "verify", &report)?;
    } else {
        print(out, &report.lines())?;
    }
    Ok(if report.verified { Exit::Done } else { Exit::Refused })
}

impl Report {
    fn lines(&self) -> String {
        let trusted = if self.signer_trusted { "trusted" } else { "not trusted" };
        format!(
            "signature  {}\nsigner     {} ({trusted}), {}\nhash       {}\npadding    {}\nchecksum   {}\n{}",
            self.signature,
            self.signer,
            self.signer_sha384,
            self.image_hash,
            self.padding,
            self.checksum,
            if self.verified { "verified" } else { "NOT VERIFIED" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signer_is_96_hexadecimal_digits() {
        assert_eq!(parse_digest(&hex(&INTEL_PRODUCTION_SIGNER)), Ok(INTEL_PRODUCTION_SIGNER));
        for wrong in ["", "c8", &"g".repeat(96), &"+1".repeat(48), &"é".repeat(48)] {
            assert!(parse_digest(wrong).is_err(), "{wrong}");
        }
    }
}
