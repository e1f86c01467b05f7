//! The initramfs of a kernel in QEMU: the command, and images.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use object::{Object, ObjectSection};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::ReleasedImage;

use crate::debian::Debian;
use crate::process::call;

/// The target of the command, for the machine in QEMU.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Adds busybox to the folder `from` below `build`, and packs the folder into the file `to` there.
pub(crate) fn pack(debian: &Debian, from: &str, to: &str) -> Result<()> {
    debian.shell(&format!(
        "cd /build/{from}; cp /usr/bin/busybox bin; ln -sf busybox bin/sh; chmod +x init; find . \
         | cpio -o -H newc --quiet | gzip -1 > /build/{to}",
    ))
}

pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Builds the command without shared libraries. Returns its path.
pub(crate) fn build_command() -> Result<PathBuf> {
    let folder = crate::target().join("static");
    call(
        crate::cargo()
            .args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-cli"])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&folder)
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
            .current_dir(crate::root()),
    )?;
    let command = folder.join(TARGET).join("release/tdx-seamldr");
    let data = fs::read(&command).with_context(|| command.display().to_string())?;
    ensure!(
        is_static(&data)?,
        "{} needs shared libraries, but should be static",
        command.display()
    );
    Ok(command)
}

/// Whether a program has no interpreter that loads shared libraries.
fn is_static(program: &[u8]) -> Result<bool> {
    let file = object::File::parse(program)?;
    let is_static = file.sections().all(|section| section.name() != Ok(".interp"));
    Ok(is_static)
}

/// Writes the images that the scenarios upload: Intel's, the same in the other format, and damaged
/// images.
pub(crate) fn write_images(images: &[ReleasedImage], folder: &Path) -> Result<()> {
    let released = |version: &str| {
        let image = images.iter().find(|image| image.version == version);
        image
            .map(|image| image.bytes.as_bytes())
            .with_context(|| format!("no image has version {version}"))
    };
    let converted = |version: &str| {
        let parts = TdxImage::parse(released(version)?)?.parts();
        let mut converted = vec![0; parts.file_len()?];
        parts.write(ImageFormat::ImageV2, &mut converted)?;
        anyhow::Ok(converted)
    };
    let flipped = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        if let Some(byte) = bytes.get_mut(0x40000) {
            *byte ^= 4;
        }
        bytes
    };
    let new = released("1.5.16")?;
    for version in ["1.5.05", "1.5.16", "2.0.08"] {
        fs::write(folder.join(version), released(version)?)?;
        fs::write(folder.join(format!("{version}.v2")), converted(version)?)?;
    }
    fs::write(folder.join("flipped"), flipped(new))?;
    fs::write(folder.join("flipped.v2"), flipped(&converted("1.5.16")?))?;
    fs::write(folder.join("truncated"), new.get(..new.len() / 2).context("half of it")?)?;
    Ok(())
}

/// Writes Intel's repository: `mapping_file.json`, and a folder of images for each line of
/// versions.
pub(crate) fn write_repository(images: &[ReleasedImage], folder: &Path) -> Result<()> {
    for image in images {
        let line = image.version.get(..3).context("a version like 1.5.16")?;
        let to = folder.join("joined_files").join(line);
        fs::create_dir_all(&to)?;
        copy(&image.path, &to.join(image.path.file_name().context("a name")?))?;
    }
    let first = images.first().context("an image")?;
    let mapping = first.path.ancestors().map(|parent| parent.join("mapping_file.json"));
    let mapping = mapping.into_iter().find(|file| file.is_file());
    copy(
        &mapping.context("mapping_file.json is not beside Intel's images")?,
        &folder.join("mapping_file.json"),
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn program_with_an_interpreter_is_not_static() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this).unwrap());
    }
}
