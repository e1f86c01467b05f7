//! `tdx-seamldr apply`: replaces the running module by the one that the configuration names.

use std::io::Write;

use serde::Serialize;
use tdx_seamldr_host::config::Policy;

use super::update::Options;
use crate::command::Run;
use crate::error::Error;
use crate::exit::Exit;
use crate::output::{print, print_json};

/// Arguments of `apply`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Apply this policy instead of the configuration's: newest, a version, or a path
    #[arg(long, value_name = "POLICY")]
    policy: Option<Policy>,
    #[command(flatten)]
    options: Options,
}

/// What `apply` prints with `--json` if no policy is configured. Otherwise it prints the report of
/// the update.
#[derive(Serialize)]
struct NoPolicy {
    policy: Option<String>,
}

impl Run for Arguments {
    fn run(&self, out: &mut dyn Write, complaints: &mut dyn Write) -> Result<Exit, Error> {
        let root = self.options.host.root();
        let config = self.options.host.config(&root)?;
        // A path from the option is used as it is; one from the configuration starts at the root.
        let target = match (&self.policy, &config.policy) {
            (None, None) => return self.do_nothing(out),
            (Some(Policy::Newest), _) | (None, Some(Policy::Newest)) => None,
            (None, Some(Policy::File(path))) => {
                let path = path.to_str().ok_or_else(|| Error::NotUtf8(path.clone()))?;
                Some(root.path(path)?.display().to_string())
            }
            (Some(policy), _) | (None, Some(policy)) => Some(policy.to_string()),
        };
        self.options.update("apply", &root, &config, target.as_deref(), out, complaints)
    }

    fn json(&self) -> bool {
        self.options.host.json
    }
}

impl Arguments {
    fn do_nothing(&self, out: &mut dyn Write) -> Result<Exit, Error> {
        match self.json() {
            true => print_json(out, "apply", &NoPolicy { policy: None })?,
            false => print(out, "The configuration names no policy, so the module stays.")?,
        }
        Ok(Exit::Done)
    }
}
