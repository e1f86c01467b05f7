//! The catalogue: the public releases, and the images in the host's folders.

mod crypto;
mod image;
mod read;

use std::fs;
use std::path::{Path, PathBuf};

use tdx_seamldr_core::abi::TdxFeatures0;
use tdx_seamldr_core::TdxVersion;
use walkdir::WalkDir;

use crate::mapping::{parse_mapping, MappedRelease};
use crate::releases::{Release, Releases};
use crate::trust::check_trusted;

pub use image::{Image, VersionSource};
pub(crate) use read::text as read_text;
pub use read::{FileError, FileProblem};

/// The depth of the search for images below a folder.
const MAX_DEPTH: usize = 6;

/// The most files of a folder that are read.
const MAX_FILES: usize = 10_000;

/// The largest `mapping_file.json`, in bytes.
const MAX_MAPPING: u64 = 1 << 20;

/// The name of Intel's file with the minimum versions for each release.
const MAPPING_FILE: &str = "mapping_file.json";

/// The public releases, Intel's minimum versions for them, and the images of the host.
#[derive(Debug, Default)]
pub struct Catalogue {
    releases: Releases,
    mapped: Vec<MappedRelease>,
    images: Vec<Image>,
    problems: Vec<FileError>,
}

/// The requirements of a release, from the table of releases and all files `mapping_file.json`.
/// These files have no signature, so they can only make the rules stricter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minimums {
    /// The oldest running module that may be updated: the newest version that any source names.
    pub module: Option<TdxVersion>,
    /// The oldest P-SEAMLDR of each line, one list per source. P-SEAMLDR must be [new
    /// enough](is_new_enough) for every list. Empty if no source names one.
    pub seamldr: Vec<Vec<TdxVersion>>,
}

/// Whether P-SEAMLDR is at least the oldest of its line.
#[must_use]
pub fn is_new_enough(found: TdxVersion, oldest: &[TdxVersion]) -> bool {
    let is_same_line = |one: &TdxVersion| (one.major, one.minor) == (found.major, found.minor);
    oldest.iter().any(|one| is_same_line(one) && one.update <= found.update)
}

impl Minimums {
    fn add(&mut self, module: Option<TdxVersion>, seamldr: &[TdxVersion]) {
        self.module = self.module.max(module);
        if !seamldr.is_empty() && !self.seamldr.iter().any(|known| known == seamldr) {
            self.seamldr.push(seamldr.to_vec());
        }
    }

    /// Returns the oldest P-SEAMLDR of each line that is new enough for every source.
    #[must_use]
    pub fn oldest_seamldr(&self) -> Vec<TdxVersion> {
        let fits_all =
            |one: &TdxVersion| self.seamldr.iter().all(|oldest| is_new_enough(*one, oldest));
        let mut all: Vec<_> = self.seamldr.iter().flatten().copied().filter(fits_all).collect();
        all.sort_unstable();
        all.dedup_by_key(|one| (one.major, one.minor));
        all
    }
}

impl Catalogue {
    /// Returns a catalogue without images.
    #[must_use]
    pub fn new(releases: Releases) -> Self {
        Self { releases, ..Self::default() }
    }

    /// Adds every image below a folder. Finds `.blob` and v2 files by their first bytes, under any
    /// name. Finds pairs of a module's binary and its SIGSTRUCT: `NAME.bin` or `NAME.so`, with
    /// `.sigstruct` in place of the extension or after it. Also reads `mapping_file.json` of
    /// Intel's repository. Links to folders are not followed. Other files are ignored; a damaged
    /// image becomes a [problem](Self::problems).
    pub fn add_folder(&mut self, folder: &Path) {
        let mut seen = 0_usize;
        for entry in WalkDir::new(folder).max_depth(MAX_DEPTH).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let path = error.path().unwrap_or(folder).to_owned();
                    self.problems.push(FileError::walk(path, &error));
                    continue;
                }
            };
            if fs::metadata(entry.path()).map_or(true, |data| !data.is_file()) {
                continue;
            }
            seen = seen.saturating_add(1);
            if seen > MAX_FILES {
                self.problems.push(FileError::new(folder, FileProblem::TooMany(MAX_FILES)));
                return;
            }
            if let Err(error) = self.add_found(entry.path()) {
                self.problems.push(error);
            }
        }
    }

    /// Adds a file of a folder if the file is an image or Intel's mapping.
    fn add_found(&mut self, path: &Path) -> Result<(), FileError> {
        if path.file_name().is_some_and(|name| name == MAPPING_FILE) {
            // Images have a signature. This file has none, so only root may be able to change it.
            check_trusted(path).map_err(|error| FileError::new(path, error))?;
            let text = read::text(path, MAX_MAPPING, MAPPING_FILE)?;
            let mapped = parse_mapping(&text).map_err(|error| FileError::new(path, error))?;
            for release in mapped {
                self.add_mapped(release, path);
            }
            return Ok(());
        }
        let bytes = match read::sigstruct_beside(path) {
            Some(sigstruct) => read::pair(path, &sigstruct)?,
            None => match read::if_image(path)? {
                Some(bytes) => bytes,
                None => return Ok(()),
            },
        };
        self.add(path, bytes)
    }

    /// Adds a file's entry for a release. If files contradict each other, all entries hold.
    fn add_mapped(&mut self, release: MappedRelease, path: &Path) {
        if self.mapped.contains(&release) {
            return;
        }
        if self.mapped(release.version).next().is_some() {
            let problem = FileProblem::Contradiction(release.version);
            self.problems.push(FileError::new(path, problem));
        }
        self.mapped.push(release);
    }

    fn add(&mut self, path: &Path, bytes: Vec<u8>) -> Result<(), FileError> {
        let image = Image::new(path.to_owned(), bytes, &self.releases)?;
        if let Some(same) = self.images.iter().find(|known| known.is_same_as(&image)) {
            return Err(FileError::new(path, FileProblem::Duplicate(same.path().to_owned())));
        }
        self.images.push(image);
        Ok(())
    }

    /// Adds one image: a file of either format, or a module's binary with its SIGSTRUCT beside it.
    /// Returns the index among the [images](Self::images). A genuine image that the catalogue
    /// already has stays unchanged.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not an image.
    pub fn add_file(&mut self, path: &Path) -> Result<usize, FileError> {
        let bytes = match read::sigstruct_beside(path) {
            Some(sigstruct) => read::pair(path, &sigstruct)?,
            None => read::image(path)?,
        };
        let image = Image::new(path.to_owned(), bytes, &self.releases)?;
        if let Some(same) = self.images.iter().position(|known| known.is_same_as(&image)) {
            return Ok(same);
        }
        self.images.push(image);
        Ok(self.images.len().saturating_sub(1))
    }

    /// Returns the table of releases.
    #[must_use]
    pub const fn releases(&self) -> &Releases {
        &self.releases
    }

    /// Returns the images, in the order of their folders and names.
    #[must_use]
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Returns the files that look like a part of the catalogue but are not usable, and why.
    #[must_use]
    pub fn problems(&self) -> &[FileError] {
        &self.problems
    }

    /// Returns the genuine image with the hash of this public release, if the catalogue has one.
    /// The version in a file's name does not count.
    #[must_use]
    pub fn image_of(&self, version: TdxVersion) -> Option<&Image> {
        let is_of_release = |image: &&Image| {
            image.version() == Some(version) && image.version_source() == Some(VersionSource::Hash)
        };
        self.images.iter().filter(is_of_release).find(|image| image.is_genuine())
    }

    /// Returns the public release with this version.
    #[must_use]
    pub fn release(&self, version: TdxVersion) -> Option<&Release> {
        self.releases.by_version(version)
    }

    /// Returns the requirements of a version.
    #[must_use]
    pub fn minimums(&self, version: TdxVersion) -> Minimums {
        let mut minimums = Minimums::default();
        if let Some(release) = self.release(version) {
            minimums.add(release.min_module, &release.min_seamldr);
        }
        for mapped in self.mapped(version) {
            minimums.add(Some(mapped.min_module), &mapped.min_seamldr);
        }
        minimums
    }

    /// Returns TDX_FEATURES0 of a public release: the bits that the table and every
    /// `mapping_file.json` name. `None` if the table does not have them: a file without a signature
    /// does not suffice.
    #[must_use]
    pub fn features0(&self, release: &Release) -> Option<TdxFeatures0> {
        let of_files = self.mapped(release.version).map(|mapped| mapped.features0);
        release.features0.map(|of_table| of_files.fold(of_table, TdxFeatures0::intersection))
    }

    /// Returns the entries of the files `mapping_file.json` for a version.
    fn mapped(&self, version: TdxVersion) -> impl Iterator<Item = &MappedRelease> {
        self.mapped.iter().filter(move |mapped| mapped.version == version)
    }
}

/// The default folders of images.
#[must_use]
pub fn default_folders() -> Vec<PathBuf> {
    vec![PathBuf::from("/usr/lib/firmware/intel/tdx"), PathBuf::from("/var/lib/tdx-seamldr/images")]
}
