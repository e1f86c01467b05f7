//! The initramfs of the stock kernel: the scenarios, the driver, the command, the kernel's own
//! modules, and images.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tdx_seamldr_mock::released_images;

use crate::initramfs::{build_command, copy, write_images, write_repository};

/// The scripts in the example's folder. The kernel runs the first one.
const SCRIPTS: [(&str, &str); 4] = [
    ("scenarios.sh", "init"),
    ("driver.sh", "driver.sh"),
    ("command.sh", "command.sh"),
    ("firmware_upload.sh", "firmware_upload.sh"),
];
/// The versions that the simulated platform can start with.
const FIRST: [&str; 2] = ["1.5.05", "1.5.16"];

/// Fills the folder with all files except busybox. `modules` are the kernel's own modules.
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
