//! `cargo xtask package`: the packages for Debian and for distributions with rpm, in
//! target/package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::{cargo, cli_docs, root, target};

/// The compiler's target of the static command.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The crates with packages, and the folder that `cargo cinstall` fills for each of its kinds of
/// package.
const COMMAND: &str = "tdx-seamldr-cli";
const LIBRARY: &str = "tdx-seamldr-mock-c";
const LIBRARY_FOLDERS: [(&str, &str); 2] =
    [("tdx-sim-deb", "/usr/lib/x86_64-linux-gnu"), ("tdx-sim-rpm", "/usr/lib64")];

/// Builds all packages. With `test`, installs, uses and removes them: on Debian, as root.
pub(crate) fn run(test: bool) -> Result<()> {
    let folder = target().join("package");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir_all(folder.join("bin"))?;
    let folder = folder.canonicalize()?;

    // One file without libraries runs on each distribution.
    succeed(
        cargo()
            .args(["build", "--locked", "--release", "-p", COMMAND, "--target", TARGET])
            .env("RUSTFLAGS", "-C target-feature=+crt-static")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
            .env("CARGO_PROFILE_RELEASE_STRIP", "symbols"),
    )?;
    let built = target().join(TARGET).join("release/tdx-seamldr");
    fs::copy(&built, folder.join("bin/tdx-seamldr")).context("the static command")?;
    cli_docs::run(&folder.join("docs"))?;
    for (name, libraries) in LIBRARY_FOLDERS {
        succeed(
            cargo()
                .args(["cinstall", "--locked", "--profile", "capi", "-p", LIBRARY])
                .args(["--prefix", "/usr", "--libdir", libraries, "--destdir"])
                .arg(folder.join(name)),
        )?;
    }
    for package in [COMMAND, LIBRARY] {
        succeed(
            cargo().args(["deb", "--no-build", "--no-strip", "-p", package, "-o"]).arg(&folder),
        )?;
        let manifest = format!("crates/{package}");
        succeed(cargo().args(["generate-rpm", "-p", &manifest, "-o"]).arg(&folder))?;
    }
    list(&folder)?;
    if test {
        succeed(Command::new("sh").arg("packaging/test.sh").arg(&folder))?;
    }
    Ok(())
}

fn list(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|kind| kind == "deb" || kind == "rpm") {
            println!("{}: {} bytes", path.display(), path.metadata()?.len());
        }
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<()> {
    let status = command
        .current_dir(root())
        .status()
        .with_context(|| format!("{command:?} cannot be run"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
