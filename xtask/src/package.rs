//! `cargo xtask package`: the packages for Debian and for distributions with rpm, in
//! target/package.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::process::call;
use crate::{cargo, cli_docs, initramfs, root, target};

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
    fs::copy(initramfs::build_command()?, folder.join("bin/tdx-seamldr"))?;
    cli_docs::run(&folder.join("docs"))?;
    for (name, libraries) in LIBRARY_FOLDERS {
        call(
            cargo()
                .current_dir(root())
                .args(["cinstall", "--locked", "--profile", "capi", "-p", LIBRARY])
                .args(["--prefix", "/usr", "--libdir", libraries, "--destdir"])
                .arg(folder.join(name)),
        )?;
        let library = folder.join(name).join(libraries.trim_start_matches('/'));
        let shared = library.join("libtdx_sim.so").canonicalize()?;
        call(Command::new("strip").arg("--strip-unneeded").arg(shared))?;
        call(Command::new("strip").arg("--strip-debug").arg(library.join("libtdx_sim.a")))?;
    }
    for package in [COMMAND, LIBRARY] {
        let mut deb = cargo();
        deb.args(["deb", "--no-build", "--no-strip", "-p", package, "-o"]).arg(&folder);
        call(deb.current_dir(root()))?;
        let mut rpm = cargo();
        rpm.args(["generate-rpm", "-p", &format!("crates/{package}"), "-o"]).arg(&folder);
        call(rpm.current_dir(root()))?;
    }
    list(&folder)?;
    if test {
        call(Command::new("sh").arg("packaging/test.sh").arg(&folder).current_dir(root()))?;
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
