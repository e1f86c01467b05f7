//! Options shared by the subcommands for a host, and their defaults from the configuration.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use tdx_seamldr_core::preflight::{Unknown, Unknowns};
use tdx_seamldr_host::catalogue::default_folders;
use tdx_seamldr_host::config::MIN_TIMEOUT;
use tdx_seamldr_host::plan::{Request, Target};
use tdx_seamldr_host::record::DEFAULT_STATE_FOLDER;
use tdx_seamldr_host::update::{Settings, DEFAULT_HOOKS_FOLDER, DEFAULT_LIMIT};
use tdx_seamldr_host::{parse_version, Catalogue, Config, Releases, Root};

use crate::error::Error;

/// The host and its files.
#[derive(clap::Args)]
pub(super) struct HostOptions {
    /// Read and write below this folder instead of /, for containers and tests
    #[arg(long, value_name = "DIR", default_value = "/", hide_default_value = true)]
    root: PathBuf,
    /// Read this configuration instead of /etc/tdx-seamldr.toml
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(absolute))]
    config: Option<PathBuf>,
    /// Keep the record of updates in this folder
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(absolute))]
    state_dir: Option<PathBuf>,
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
}

/// The images and the releases.
#[derive(clap::Args)]
pub(super) struct CatalogueOptions {
    /// Look for images in this folder; may be given several times
    #[arg(long, value_name = "DIR")]
    image_dir: Vec<PathBuf>,
    /// Use this table of releases instead of the built-in one
    #[arg(long, value_name = "FILE")]
    releases: Option<PathBuf>,
}

/// The risks that the operator accepts.
#[derive(clap::Args)]
pub(super) struct RequestOptions {
    /// Vouch that no TD is in build and no migration runs until the update ends
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    no_td_launches: Option<bool>,
    /// Update although this rule cannot be checked; the plan shows the name of the rule
    #[arg(long, value_name = "UNKNOWN", value_delimiter = ',', value_parser = parse_unknown)]
    accept: Vec<Unknown>,
    /// Update although Intel's table requires a newer running module
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    allow_below_minimum: Option<bool>,
    /// Install the running module again; uses up one of the remaining updates
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    allow_same_module: Option<bool>,
}

/// Settings of an update.
#[derive(clap::Args)]
pub(super) struct UpdateOptions {
    /// Run the hooks in pre-update.d and post-update.d of this folder
    #[arg(long, value_name = "DIR", value_parser = PathBufValueParser::new().try_map(absolute))]
    hooks_dir: Option<PathBuf>,
    /// Wait at most this long for the kernel: 10 seconds or more
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(MIN_TIMEOUT..))]
    timeout: Option<u64>,
}

/// Refuses a relative path: paths start at the root, not at the current folder.
fn absolute(path: PathBuf) -> Result<PathBuf, &'static str> {
    if path.is_absolute() {
        Ok(path)
    } else {
        Err("the path must begin with /")
    }
}

/// Parses the name of an unknown, as plans show it.
fn parse_unknown(name: &str) -> Result<Unknown, String> {
    Unknown::ALL.into_iter().find(|unknown| unknown.code() == name).ok_or_else(|| {
        let names: Vec<_> = Unknown::ALL.iter().map(Unknown::code).collect();
        format!("expected one of {}", names.join(", "))
    })
}

impl HostOptions {
    pub(super) fn root(&self) -> Root {
        Root::new(&self.root)
    }

    /// Reads the configuration.
    pub(super) fn config(&self, root: &Root) -> Result<Config, Error> {
        let path = self.config.as_deref().map(text).transpose()?;
        Ok(Config::read(root, path)?)
    }

    /// Returns the folder of the record, as a path below the root.
    pub(super) fn state(&self, config: &Config) -> Result<String, Error> {
        below_root(self.state_dir.as_ref().or(config.state_dir.as_ref()), DEFAULT_STATE_FOLDER)
    }
}

/// Returns a folder below the root: the given one, else the default.
fn below_root(given: Option<&PathBuf>, default: &str) -> Result<String, Error> {
    Ok(given.map_or(Ok(default), |path| text(path))?.to_owned())
}

fn text(path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::NotUtf8(path.to_owned()))
}

impl CatalogueOptions {
    /// Reads the table of releases.
    pub(super) fn releases(&self, root: &Root, config: &Config) -> Result<Releases, Error> {
        let path = match (&self.releases, &config.releases) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => root.path(text(path)?)?,
            (None, None) => return Ok(Releases::built_in()),
        };
        Releases::read(&path)
            .map_err(|error| Error::Releases { path, problem: error.problem.to_string() })
    }

    /// Reads all images. Paths from options start at the current folder; paths from the
    /// configuration start at the root.
    pub(super) fn catalogue(&self, root: &Root, config: &Config) -> Result<Catalogue, Error> {
        let mut catalogue = Catalogue::new(self.releases(root, config)?);
        if !self.image_dir.is_empty() {
            for folder in &self.image_dir {
                catalogue.add_folder(folder);
            }
            return Ok(catalogue);
        }
        let defaults = default_folders();
        let is_default = config.image_dir.is_none();
        for folder in config.image_dir.as_deref().unwrap_or(&defaults) {
            let folder = text(folder)?;
            if is_default && !root.exists(folder) {
                continue;
            }
            catalogue.add_folder(&root.path(folder)?);
        }
        Ok(catalogue)
    }
}

impl RequestOptions {
    /// Makes a request for the newest module, a version, or a file. Adds the file to the catalogue.
    pub(super) fn request(
        &self,
        config: &Config,
        catalogue: &mut Catalogue,
        target: Option<&str>,
    ) -> Result<Request, Error> {
        let mut accept = Unknowns::NONE;
        for unknown in &self.accept {
            accept = accept.with(*unknown);
        }
        for name in config.accept.iter().flatten() {
            let unknown = parse_unknown(name)
                .map_err(|problem| Error::Accept { name: name.clone(), problem })?;
            accept = accept.with(unknown);
        }
        let target = match target {
            None => Target::Newest,
            Some(target) => match parse_version(target) {
                Ok(version) => Target::Version(version),
                Err(_) => Target::Image(catalogue.add_file(Path::new(target))?),
            },
        };
        Ok(Request {
            target,
            no_td_launches: self.no_td_launches.or(config.no_td_launches).unwrap_or(false),
            accept,
            allow_same_module: self.allow_same_module.or(config.allow_same_module).unwrap_or(false),
            allow_below_minimum: self
                .allow_below_minimum
                .or(config.allow_below_minimum)
                .unwrap_or(false),
        })
    }
}

impl UpdateOptions {
    pub(super) fn settings(
        &self,
        root: &Root,
        host: &HostOptions,
        config: &Config,
    ) -> Result<Settings, Error> {
        let given = self.hooks_dir.as_ref().or(config.hooks_dir.as_ref());
        let hooks = below_root(given, DEFAULT_HOOKS_FOLDER)?;
        // Only the default folder may be absent. A missing folder that the operator named is an
        // error.
        if given.is_some() && !root.is_folder(&hooks) {
            return Err(Error::HooksFolder(hooks));
        }
        Ok(Settings {
            hooks,
            state: host.state(config)?,
            limit: self.timeout.or(config.timeout).map_or(DEFAULT_LIMIT, Duration::from_secs),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknowns_have_the_names_that_plans_show() {
        assert_eq!(parse_unknown("unknown-memory"), Ok(Unknown::Memory));
        let error = parse_unknown("memory").unwrap_err();
        assert!(error.contains("unknown-memory"), "{error}");
    }
}
