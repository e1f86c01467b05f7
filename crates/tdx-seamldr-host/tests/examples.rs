//! The example configuration and the example hooks work as their comments say.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tdx_seamldr_host::Config;

const PRE_UPDATE: &str = "pre-update.d/10-stop-td-launches";
const POST_UPDATE: &str = "post-update.d/10-start-td-launches";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn example_configuration_changes_nothing_as_it_is() {
    let text = fs::read_to_string(example("tdx-seamldr.toml")).unwrap();
    assert_eq!(Config::parse(&text), Ok(Config::default()));
}

#[test]
fn example_configuration_has_every_key() {
    let text = fs::read_to_string(example("tdx-seamldr.toml")).unwrap();
    let is_key = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase());
    let uncommented: Vec<_> =
        text.lines().map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line)).collect();
    let Config {
        image_dir,
        releases,
        state_dir,
        hooks_dir,
        no_td_launches,
        accept,
        allow_below_minimum,
        allow_same_module,
        timeout,
    } = Config::parse(&uncommented.join("\n")).unwrap();
    assert!(image_dir.is_some() && releases.is_some() && state_dir.is_some() && hooks_dir.is_some());
    assert!(no_td_launches.is_some() && accept.is_some() && timeout.is_some());
    assert!(allow_below_minimum.is_some() && allow_same_module.is_some());
}

/// A site with the two files that the hooks and the launcher share.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn stopped(&self) -> PathBuf {
        self.0.path().join("td-launches-stopped")
    }

    fn lock(&self) -> PathBuf {
        self.0.path().join("td-launches.lock")
    }

    fn hook(&self, name: &str, outcome: &str) -> Output {
        Command::new(example("hooks").join(name))
            .env("TD_LAUNCHES_STOPPED", self.stopped())
            .env("TD_LAUNCHES_LOCK", self.lock())
            .env("TD_LAUNCHES_WAIT", "1")
            .env("TDX_SEAMLDR_OUTCOME", outcome)
            .output()
            .unwrap()
    }

    /// A launch as the comment of the hook describes it. It is in the middle until its input ends.
    fn launch(&self) -> Child {
        let script = "exec 9>>\"$1\"; flock --shared 9; test ! -e \"$2\" || exit 75; echo building; cat";
        Command::new("sh")
            .args(["-c", script, "launcher"])
            .args([self.lock(), self.stopped()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

fn vouches(output: &Output) -> bool {
    String::from_utf8_lossy(&output.stdout).lines().any(|line| line == "vouch no-td-launches")
}

#[test]
fn pre_update_hook_stops_launches_and_vouches() {
    let site = Site::new();
    let output = site.hook(PRE_UPDATE, "");
    assert!(output.status.success() && vouches(&output), "{output:?}");
    assert_eq!(site.launch().wait_with_output().unwrap().status.code(), Some(75));
}

#[test]
fn pre_update_hook_fails_while_a_td_is_in_build() {
    let site = Site::new();
    let mut launch = site.launch();
    let mut line = [0; 9];
    std::io::Read::read_exact(launch.stdout.as_mut().unwrap(), &mut line).unwrap();
    assert_eq!(&line, b"building\n");
    let output = site.hook(PRE_UPDATE, "");
    assert!(!output.status.success() && !vouches(&output), "{output:?}");
    assert!(launch.wait_with_output().unwrap().status.success());
    assert!(vouches(&site.hook(PRE_UPDATE, "")));
}

#[test]
fn post_update_hook_starts_launches_unless_the_tds_are_lost() {
    let site = Site::new();
    for (outcome, goes_on) in [
        ("updated", true),
        ("refused", true),
        ("aborted", true),
        ("failed-kept", true),
        ("lost", false),
        ("unknown", false),
    ] {
        assert!(site.hook(PRE_UPDATE, "").status.success());
        assert!(site.hook(POST_UPDATE, outcome).status.success());
        assert_eq!(!site.stopped().exists(), goes_on, "{outcome}");
    }
}
