//! Reads Intel's released images, if this machine has them.

use std::path::{Path, PathBuf};

use crate::PageBuf;

/// The environment variable that names the folder with Intel's released images (Intel's repository
/// `tdx-module-binaries`).
pub const RELEASED_IMAGES: &str = "TDX_MODULE_BINARIES";

/// One of Intel's released images. This project does not contain them.
#[derive(Clone, Debug)]
pub struct ReleasedImage {
    /// Path of the file.
    pub path: PathBuf,
    /// The version in the file name, e.g. `1.5.16`.
    pub version: String,
    /// Content of the file.
    pub bytes: PageBuf,
}

/// Returns Intel's released images below the folder that the environment variable
/// [`RELEASED_IMAGES`] names, sorted by version. If the variable is not set, prints a line to
/// standard error and returns `None`: a test then has nothing to test.
///
/// # Errors
///
/// The folder or a file cannot be read, or there are no images in it.
pub fn released_images() -> std::io::Result<Option<Vec<ReleasedImage>>> {
    let Some(folder) = std::env::var_os(RELEASED_IMAGES) else {
        eprintln!("skipped: {RELEASED_IMAGES} does not name a folder with Intel's released images");
        return Ok(None);
    };
    let mut images = Vec::new();
    collect(Path::new(&folder), &mut images)?;
    if images.is_empty() {
        let message = format!(
            "{RELEASED_IMAGES} names {}, but there are no images below it",
            Path::new(&folder).display()
        );
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, message));
    }
    images.sort_by(|one, other| one.version.cmp(&other.version));
    Ok(Some(images))
}

fn collect(folder: &Path, images: &mut Vec<ReleasedImage>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, images)?;
            continue;
        }
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        let version = name.strip_prefix("tdx_module_").map(str::to_owned);
        if let Some(version) =
            version.filter(|_| path.extension().is_some_and(|extension| extension == "blob"))
        {
            let bytes = PageBuf::copy_of(&std::fs::read(&path)?);
            images.push(ReleasedImage { path, version, bytes });
        }
    }
    Ok(())
}
