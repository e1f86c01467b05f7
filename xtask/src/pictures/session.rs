//! A recorded session of `plan` and `update`, drawn as a terminal.

use anyhow::{ensure, Result};
use tdx_seamldr_cli::picture::{number, Anchor, Font, Picture, Tone};

use crate::process::call;

/// The recording. Typed lines begin with `$ `. A test of the command compares it.
const RECORDING: &str = "docs/pictures/session.txt";

/// Records the session anew, on a host folder with Intel's images.
pub(super) fn record() -> Result<()> {
    ensure!(
        std::env::var_os("TDX_MODULE_BINARIES").is_some(),
        "a recording needs Intel's images: TDX_MODULE_BINARIES is not set"
    );
    // The test of the recording writes it.
    call(
        crate::cargo()
            .args(["test", "--quiet", "--locked", "-p", "tdx-seamldr-cli"])
            .args(["--test", "host", "recording::"])
            .env("TDX_SEAMLDR_RECORD", "1")
            .current_dir(crate::root()),
    )
}

const LINE: f64 = 17.0;
const TOP: f64 = 62.0;

pub(super) fn draw() -> Result<String> {
    let recording = super::source(RECORDING)?;
    let title = "A terminal session: plan, then update";
    let mut picture = Picture::new("session", 860.0, title);
    for (index, tone) in [Tone::Bad, Tone::Waits, Tone::Good].into_iter().enumerate() {
        picture.area((18.0 + 20.0 * number(index), 16.0, 12.0, 12.0), tone, None);
    }
    picture.text((430.0, 27.0), Anchor::Middle, Font::WORDS, Tone::Muted, title);
    picture.rule((0.0, 40.0), (860.0, 40.0));
    let mut y = TOP;
    for line in recording.lines() {
        let (font, tone) = match line {
            typed if typed.starts_with("$ ") => (Font::CODE.bold(), Tone::Loader),
            warning if warning.starts_with("note:") => (Font::CODE, Tone::Waits),
            _ => (Font::CODE, Tone::Plain),
        };
        if !line.is_empty() {
            picture.text((18.0, y), Anchor::Start, font.sized(11.5), tone, line);
        }
        y += LINE;
    }
    Ok(picture.finish(y + 2.0))
}
