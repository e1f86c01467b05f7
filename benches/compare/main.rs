//! Compares the times of the library with those of other software for the same work. `cargo xtask
//! bench-report` runs this.
//!
//! Each round measures every candidate once. The program prints the medians over all rounds, one
//! line each:
//!
//! ```text
//! verify VERSION BYTES RATIO      (of our time to OpenSSL's, in thousandths)
//! lock NAME THREADS TIME          (nanoseconds for each call)
//! ```
//!
//! The report also contains results of other machines. Put the printed lines into a file in
//! `elsewhere/`, below a line `machine WHICH`.

mod contention;
mod locks;
mod openssl;

use std::hint::black_box;
use std::time::Instant;

use anyhow::{ensure, Result};
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::released_images;

/// The number of rounds.
const ROUNDS: usize = 101;

fn main() -> Result<()> {
    verify()?;
    contention::run();
    Ok(())
}

/// Compares `verify` of each of Intel's images with OpenSSL's SHA-384 and RSA verification of the
/// same bytes.
fn verify() -> Result<()> {
    let openssl = openssl::OpenSsl::load()?;
    for image in released_images()?.unwrap_or_default() {
        let file = TdxImage::parse(image.bytes.as_bytes())?;
        let key = openssl.key(&file.sigstruct().modulus)?;
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let genuine = tdx_seamldr_verify::verify(black_box(&file)).is_genuine();
            let ours = begin.elapsed();
            let begin = Instant::now();
            let same = openssl.verify(&key, black_box(&file))?;
            let theirs = begin.elapsed();
            ratios.push(
                ours.as_nanos()
                    .saturating_mul(1000)
                    .checked_div(theirs.as_nanos())
                    .unwrap_or_default(),
            );
            ensure!(genuine && same, "{} is not genuine", image.version);
        }
        let bytes = image.bytes.as_bytes().len();
        println!("verify {} {bytes} {}", image.version, median(ratios));
    }
    Ok(())
}

/// Returns the median.
fn median<T: Ord + Copy + Default>(mut values: Vec<T>) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}
