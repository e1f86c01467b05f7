//! `cargo xtask versions`: tests the libraries with every set of features, and with the oldest and
//! the newest dependencies that their manifests allow.
//!
//! The task works in a copy of the workspace, so that Cargo.lock does not change.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::process::{call, printed};
use crate::public_api::LIBRARIES;

/// The version in the Linux 7.2 tree, which the core must support.
const OLDEST_ZEROCOPY: &str = "0.8.54";

pub(crate) fn run() -> Result<()> {
    let root = crate::root().canonicalize()?;
    let target = root.join("target/versions");
    features(&root)?;

    let oldest = Copy::new(&root, target.join("oldest"))?;
    // Only for direct dependencies: the manifests of other crates often allow versions that are too
    // old.
    oldest.cargo(crate::nightly("cargo").args([
        "update",
        "--quiet",
        "-Zdirect-minimal-versions",
    ]))?;
    let zerocopy = oldest.version("zerocopy")?;
    println!("the oldest dependencies: {zerocopy}");
    ensure!(
        is_version(&zerocopy, OLDEST_ZEROCOPY),
        "the oldest zerocopy should be {OLDEST_ZEROCOPY}, which Linux 7.2 has"
    );
    oldest.test()?;

    let newest = Copy::new(&root, target.join("newest"))?;
    newest.cargo(crate::cargo().args(["update", "--quiet"]))?;
    println!("the newest dependencies: {}", newest.version("zerocopy")?);
    newest.test()
}

/// Builds each set of features of each library alone, so that no other crate enables features.
fn features(root: &Path) -> Result<()> {
    let mut hack = crate::cargo();
    hack.args(["hack", "check", "--quiet", "--locked", "--feature-powerset"]);
    for library in LIBRARIES {
        hack.args(["-p", library]);
    }
    call(hack.env("RUSTFLAGS", "-D warnings").current_dir(root)).context(
        "`cargo hack` failed; if the command is missing: `cargo install --locked cargo-hack`",
    )?;
    println!("every set of features builds");
    Ok(())
}

/// A copy of the workspace's tracked files, with the libraries as its only members.
struct Copy {
    folder: PathBuf,
}

impl Copy {
    fn new(root: &Path, folder: PathBuf) -> Result<Self> {
        // Earlier build output is kept beside the copy.
        let copy = Self { folder };
        let _ = std::fs::remove_dir_all(copy.workspace());
        let files = printed(
            Command::new("git")
                .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
                .current_dir(root),
        )?;
        for file in files.split_terminator('\0') {
            let from = root.join(file);
            // The file was removed, but git still lists it.
            if !from.is_file() {
                continue;
            }
            let to = copy.workspace().join(file);
            std::fs::create_dir_all(to.parent().context("a folder")?)?;
            std::fs::copy(&from, &to).with_context(|| file.to_owned())?;
        }
        let manifest = copy.workspace().join("Cargo.toml");
        std::fs::write(
            &manifest,
            only_libraries(&std::fs::read_to_string(&manifest)?).context("no members")?,
        )?;
        Ok(copy)
    }

    fn workspace(&self) -> PathBuf {
        self.folder.join("workspace")
    }

    fn cargo(&self, command: &mut Command) -> Result<()> {
        command.env("CARGO_TARGET_DIR", self.folder.join("target"));
        call(command.current_dir(self.workspace()))
    }

    /// Returns the chosen version of a dependency.
    fn version(&self, name: &str) -> Result<String> {
        let tree = crate::cargo()
            .args([
                "tree",
                "--quiet",
                "-p",
                "tdx-seamldr-core",
                "-e",
                "normal",
                "--depth=1",
                "--prefix=none",
            ])
            .current_dir(self.workspace())
            .output()?;
        let tree = String::from_utf8(tree.stdout)?;
        let line = tree.lines().find(|line| line.split(' ').next() == Some(name));
        line.map(str::to_owned).with_context(|| format!("no {name} in the tree:\n{tree}"))
    }

    /// Tests the core and verification, and builds the other libraries.
    fn test(&self) -> Result<()> {
        let packages = LIBRARIES.iter().flat_map(|library| ["-p", library]);
        self.cargo(
            crate::cargo().args(["check", "--quiet", "--locked", "--all-features"]).args(packages),
        )?;
        let tested = ["-p", "tdx-seamldr-core", "-p", "tdx-seamldr-verify"];
        self.cargo(crate::cargo().args(["test", "--quiet", "--locked", "--lib"]).args(tested))
    }
}

/// Whether a line of `cargo tree` has this version: `zerocopy v0.8.54 (proc-macro)`.
fn is_version(line: &str, wanted: &str) -> bool {
    line.split(' ').nth(1).and_then(|version| version.strip_prefix('v')) == Some(wanted)
}

/// Returns the workspace's manifest with other members.
fn only_libraries(manifest: &str) -> Option<String> {
    let (before, rest) = manifest.split_once("members = [")?;
    let (_, after) = rest.split_once("default-members = [")?.1.split_once(']')?;
    let members = LIBRARIES.map(|library| format!("\"crates/{library}\"")).join(", ");
    Some(format!("{before}members = [{members}]{after}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn members_are_replaced_and_the_rest_stays() {
        let manifest =
            "[workspace]\nmembers = [\n  \"xtask\",\n]\ndefault-members = [\"cli\"]\n\n[profile]\n";
        let new = only_libraries(manifest).unwrap();
        assert!(new.starts_with("[workspace]\nmembers = [\"crates/tdx-seamldr-core\", "));
        assert!(new.ends_with("tdx-seamldr-cli\"]\n\n[profile]\n") && !new.contains("xtask"));
        assert_eq!(only_libraries("[package]"), None);
    }

    #[test]
    fn version_is_read_from_a_line_of_the_tree() {
        assert!(
            is_version("zerocopy v0.8.54", "0.8.54")
                && is_version("zerocopy v0.8.54 (*)", "0.8.54")
        );
        assert!(
            !is_version("zerocopy v0.8.5", "0.8.54") && !is_version("zerocopy v0.8.541", "0.8.54")
        );
    }
}
