//! What the kernel finds when it boots: the scenarios, the driver, the command, the kernel's own modules, and images.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};
use object::{Object, ObjectSection};
use tdx_seamldr_core::image::ImageFormat;
use tdx_seamldr_core::TdxImage;
use tdx_seamldr_mock::{released_images, ReleasedImage};

/// The target of the command. The machine that is booted has no other.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// The scripts, from the example's folder; the first is what the kernel runs.
const SCRIPTS: [(&str, &str); 4] = [
    ("scenarios.sh", "init"),
    ("driver.sh", "driver.sh"),
    ("command.sh", "command.sh"),
    ("firmware_upload.sh", "firmware_upload.sh"),
];
/// The versions that the simulated platform can begin with.
const FIRST: [&str; 2] = ["1.5.05", "1.5.16"];

/// Fills the folder with everything but busybox. `modules` are the kernel's.
pub(super) fn fill(folder: &Path, example: &Path, modules: &[PathBuf]) -> Result<()> {
    let images = released_images()?.context("the scenarios need Intel's images")?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    for name in ["bin", "images", "lib/firmware"] {
        fs::create_dir_all(folder.join(name))?;
    }
    for (from, to) in SCRIPTS {
        copy(&example.join(from), &folder.join(to))?;
    }
    for module in modules {
        copy(module, &folder.join(module.file_name().context("the name of a module")?))?;
    }
    copy(&build_command()?, &folder.join("bin/tdx-seamldr"))?;
    write_images(&images, &folder.join("images"))?;
    for version in FIRST {
        copy(&folder.join("images").join(version), &folder.join("lib/firmware").join(version))?;
    }
    write_repository(&images, &folder.join("images/intel"))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Builds the command so that it needs no shared libraries, and says where it is.
fn build_command() -> Result<PathBuf> {
    let folder = crate::target().join("static");
    let built = crate::cargo()
        .args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-cli", "--target", TARGET])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .current_dir(crate::root())
        .status()?;
    ensure!(built.success(), "the command was not built");
    let command = folder.join(TARGET).join("release/tdx-seamldr");
    let data = fs::read(&command).with_context(|| command.display().to_string())?;
    ensure!(is_static(&data)?, "{} needs shared libraries, which the initramfs has not", command.display());
    Ok(command)
}

/// Whether a program runs without an interpreter, which would load shared libraries.
fn is_static(program: &[u8]) -> Result<bool> {
    let file = object::File::parse(program)?;
    let is_static = file.sections().all(|section| section.name() != Ok(".interp"));
    Ok(is_static)
}

/// The images that the scenarios upload: Intel's, the same in the other format, and damaged ones.
fn write_images(images: &[ReleasedImage], folder: &Path) -> Result<()> {
    let released = |version: &str| {
        let image = images.iter().find(|image| image.version == version);
        image
            .map(|image| image.bytes.as_bytes())
            .with_context(|| format!("there is no image of version {version}"))
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

/// Intel's repository, as the command reads it: `mapping_file.json`, and the images in a folder for each line of versions.
fn write_repository(images: &[ReleasedImage], folder: &Path) -> Result<()> {
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
    fn a_program_with_an_interpreter_is_not_static() {
        let this = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(!is_static(&this).unwrap());
    }
}
