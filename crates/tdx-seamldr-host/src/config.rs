//! The configuration `/etc/tdx-seamldr.toml`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Deserialize;
use tdx_seamldr_core::TdxVersion;

use crate::fact::{Absent, Reason};
use crate::root::Root;
use crate::trust::{check_trusted, NotTrusted};
use crate::version::parse_version;

/// The default file.
pub const DEFAULT_CONFIG: &str = "/etc/tdx-seamldr.toml";

/// The largest configuration, in bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// The shortest time limit for an update, in seconds. A shorter limit takes a normal update for one
/// that hangs.
pub const MIN_TIMEOUT: u64 = 10;

/// The keys of the configuration. The command has an option with the same name for each key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    /// Folders with images of TDX modules.
    pub image_dir: Option<Vec<PathBuf>>,
    /// A table of releases to use in place of the built-in one.
    pub releases: Option<PathBuf>,
    /// The folder for the record of updates.
    pub state_dir: Option<PathBuf>,
    /// The folder that holds `pre-update.d` and `post-update.d`.
    pub hooks_dir: Option<PathBuf>,
    /// Vouches that no TD is in build and no migration is interrupted during an update.
    pub no_td_launches: Option<bool>,
    /// Rules that may stay unchecked, by the names that a plan shows.
    pub accept: Option<Vec<String>>,
    /// Update although Intel's table requires a newer running module.
    pub allow_below_minimum: Option<bool>,
    /// Install the running module again.
    pub allow_same_module: Option<bool>,
    /// The most seconds that the kernel may take for an update: at least [`MIN_TIMEOUT`].
    pub timeout: Option<u64>,
    /// The module that the host runs after each boot. `None`: the module of the BIOS.
    pub policy: Option<Policy>,
}

/// The module that a host runs after each boot: `newest`, a version, or the path of an image.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Policy {
    /// The newest module that fits the host.
    Newest,
    /// This version.
    Version(TdxVersion),
    /// The image in this file. The path begins with `/`.
    File(PathBuf),
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match parse_version(text) {
            Ok(version) => Ok(Self::Version(version)),
            Err(_) if text == "newest" => Ok(Self::Newest),
            Err(_) if text.starts_with('/') => Ok(Self::File(text.into())),
            Err(_) => Err(format!(
                "policy is {text:?}, but should be newest, a version such as 1.5.16, or the path \
                 of an image that begins with /"
            )),
        }
    }
}

impl TryFrom<String> for Policy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Newest => f.write_str("newest"),
            Self::Version(version) => write!(f, "{version}"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the configuration cannot be read: {0}")]
    Read(Absent),
    /// Users other than root can change the file.
    #[error("the configuration is not used: {0}")]
    NotTrusted(#[from] NotTrusted),
    /// The file is not a valid configuration.
    #[error("{path}: {problem}")]
    Wrong {
        /// The file.
        path: String,
        /// What was found and what was expected.
        problem: String,
    },
}

impl Config {
    /// Reads a configuration below a root. The default file may be absent.
    ///
    /// # Errors
    ///
    /// The file cannot be read, users other than root can write it, or a value is wrong.
    pub fn read(root: &Root, path: Option<&str>) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(DEFAULT_CONFIG);
        let text = match root.read_text(file, MAX_CONFIG) {
            Ok(text) => text,
            Err(absent) if absent.reason == Reason::Missing && root.is_link(file) => {
                let problem =
                    "is a link that leads nowhere: remove it, or create what it names".to_owned();
                return Err(ConfigError::Read(Absent { problem, ..absent }));
            }
            Err(absent) if absent.reason == Reason::Missing && path.is_none() => {
                return Ok(Self::default())
            }
            Err(absent) => return Err(ConfigError::Read(absent)),
        };
        check_trusted(&root.path(file).map_err(ConfigError::Read)?)?;
        Self::parse(&text).map_err(|problem| ConfigError::Wrong { path: file.to_owned(), problem })
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let others = [&self.releases, &self.state_dir, &self.hooks_dir];
        self.image_dir.iter().flatten().chain(others.into_iter().flatten())
    }

    /// Reads the text of a configuration.
    ///
    /// # Errors
    ///
    /// The text is not TOML, has an unknown key or a wrong value; or a path does not begin with
    /// `/`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self =
            toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if let Some(found) = config.timeout.filter(|found| *found < MIN_TIMEOUT) {
            return Err(format!(
                "timeout is {found} seconds, but should be at least {MIN_TIMEOUT}"
            ));
        }
        let relative = config.paths().find(|path| !path.is_absolute());
        match relative.map(|path| format!("the path {path:?} must begin with /")) {
            Some(problem) => Err(problem),
            None => Ok(config),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_read_and_unknown_keys_are_refused() {
        let text = "image-dir = [\"/images\"]\nno-td-launches = true\naccept = \
                    [\"unknown-memory\"]\ntimeout = 60\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(config.image_dir.as_deref(), Some(&[PathBuf::from("/images")][..]));
        assert_eq!((config.no_td_launches, config.timeout), (Some(true), Some(60)));
        for (wrong, message) in [
            ("image_dir = []", "unknown field `image_dir`"),
            ("timeout = -1", "invalid value"),
            ("timeout = 9", "at least 10"),
            ("timeout = \"long\"", "invalid type"),
            ("state-dir = \"here\"", "must begin with /"),
            ("image-dir = [\"/a\", \"b\"]", "must begin with /"),
            ("[", "line 1"),
            ("policy = \"oldest\"", "should be newest, a version"),
            ("policy = \"image.blob\"", "should be newest, a version"),
            ("policy = 1.5", "invalid type"),
        ] {
            let error = Config::parse(wrong).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn policy_is_newest_a_version_or_a_path_and_displays_as_it_was_written() {
        for text in ["newest", "1.5.16", "/srv/tdx/module.blob"] {
            let config = Config::parse(&format!("policy = {text:?}")).unwrap();
            assert_eq!(config.policy.unwrap().to_string(), text);
        }
    }

    #[test]
    fn only_the_default_file_may_be_absent() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(Config::read(&root, None).unwrap(), Config::default());
        assert!(matches!(Config::read(&root, Some("/x.toml")), Err(ConfigError::Read(_))));
    }

    #[test]
    fn default_file_that_is_a_dangling_link_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("gone.toml", folder.path().join("etc/tdx-seamldr.toml"))
            .unwrap();
        let error = Config::read(&Root::new(folder.path()), None).unwrap_err();
        assert!(error.to_string().contains("link that leads nowhere"), "{error}");
    }

    #[test]
    fn file_that_others_can_write_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        let file = folder.path().join("etc/tdx-seamldr.toml");
        fs::create_dir(folder.path().join("etc")).unwrap();
        fs::write(&file, "timeout = 17\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(Config::read(&root, None).unwrap().timeout, Some(17));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(Config::read(&root, None), Err(ConfigError::NotTrusted(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,200}") {
            let _ = Config::parse(&text);
        }
    }
}
