//! The example configuration and hooks work as their comments say. The guide for operators names
//! every code.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use tdx_seamldr_core::preflight::Unknown;
use tdx_seamldr_host::Config;

const PRE_UPDATE: &str = "pre-update.d/10-stop-td-launches";
const POST_UPDATE: &str = "post-update.d/10-start-td-launches";

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)
}

#[test]
fn example_configuration_has_only_defaults() {
    let text = fs::read_to_string(example("tdx-seamldr.toml")).unwrap();
    assert_eq!(Config::parse(&text), Ok(Config::default()));
}

#[test]
fn example_configuration_has_every_key() {
    let text = fs::read_to_string(example("tdx-seamldr.toml")).unwrap();
    let is_key = |line: &str| line.starts_with(|first: char| first.is_ascii_lowercase());
    let uncommented: Vec<_> = text
        .lines()
        .map(|line| line.strip_prefix('#').filter(|rest| is_key(rest)).unwrap_or(line))
        .collect();
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
        policy,
    } = Config::parse(&uncommented.join("\n")).unwrap();
    assert!(
        image_dir.is_some() && releases.is_some() && state_dir.is_some() && hooks_dir.is_some()
    );
    assert!(no_td_launches.is_some() && accept.is_some() && timeout.is_some());
    assert!(policy.is_some());
    assert!(allow_below_minimum.is_some() && allow_same_module.is_some());
}

/// A host with the two files that the hooks and the launcher of TDs share.
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

    /// Starts a launch as the comment of the hook describes. The launch ends when its input ends.
    fn launch(&self) -> Child {
        let script =
            "exec 9>>\"$1\"; flock --shared 9; test ! -e \"$2\" || exit 75; echo building; cat";
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

/// Returns the text of a file below `crates`.
fn source(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)).unwrap()
}

/// Returns the codes in a source: the first text after each mark, if the text has the form of a
/// code.
fn codes(source: &str, mark: &str) -> Vec<String> {
    let is_code = |text: &&str| {
        text.bytes().all(|byte| byte.is_ascii_lowercase() || b"-0123456789".contains(&byte))
    };
    let texts = source.split(mark).skip(1).filter_map(|behind| behind.split('"').nth(1));
    texts.filter(is_code).map(str::to_owned).collect()
}

#[test]
fn operating_guide_names_every_code_key_and_variable() {
    let guide = source("../docs/operating.md");
    let finding = source("tdx-seamldr-core/src/preflight/finding.rs");
    let host: Vec<_> = ["plan/rules.rs", "plan/select.rs", "update.rs", "config.rs"]
        .map(|file| source(&format!("tdx-seamldr-host/src/{file}")))
        .into();
    let mut names = codes(&finding, " => ");
    assert!(
        ["lps-missing", "gdt-outside"].iter().all(|code| names.iter().any(|name| name == code)),
        "{names:?}"
    );
    for source in &host {
        for mark in ["Reason::new(", "host_reason(", "const MODULE_MINIMUM"] {
            names.extend(codes(source, mark));
        }
    }
    assert!(
        ["module-minimum", "hooks"].iter().all(|code| names.iter().any(|name| name == code)),
        "{names:?}"
    );
    names.extend(Unknown::ALL.iter().map(|unknown| unknown.code().to_owned()));
    let outcomes = source("tdx-seamldr-host/src/update/outcome.rs");
    let (words, _) = outcomes.split_once("/// The end of an update, with advice.").unwrap();
    names.extend(codes(words, " => "));
    for name in names {
        assert!(guide.contains(&format!("`{name}`")), "docs/operating.md does not have {name}");
    }
    for source in &host {
        for variable in source.split('"').filter(|text| text.starts_with("TDX_SEAMLDR_")) {
            assert!(
                guide.contains(&format!("`{variable}`")),
                "docs/operating.md does not have {variable}"
            );
        }
    }
    for line in fs::read_to_string(example("tdx-seamldr.toml")).unwrap().lines() {
        let Some((key, _)) = line.strip_prefix('#').and_then(|line| line.split_once(" = ")) else {
            continue;
        };
        assert!(guide.contains(&format!("| `{key}` |")), "docs/operating.md does not have {key}");
    }
}
