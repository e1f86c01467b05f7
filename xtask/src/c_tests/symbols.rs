//! Checks the exports of the installed libraries, and of a library that links the archive.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::prefix::Prefix;
use crate::c_header::HEADER;
use crate::process::{output, printed};
use crate::root;

/// With this option the linker exports none of the archive's names.
const KEPT_INSIDE: &str = "-Wl,--exclude-libs,libtdx_sim.a";
/// objcopy makes Rust's names local in the archive, for all users of the archive.
const MADE_LOCAL: [&str; 3] = ["--wildcard", "--localize-symbol=_R*", "--localize-symbol=rust_*"];

/// A library of a user, with one function.
const USER: &str = "\
#include <tdx_sim.h>
int user_makes_nothing(void);
int user_makes_nothing(void)
{
    tdx_sim *sim = NULL;

    return tdx_sim_create(NULL, &sim) == TDX_SIM_STATUS_NULL;
}
";
const FUNCTION: &str = "user_makes_nothing";

pub(super) fn check(prefix: &Prefix, folder: &Path) -> Result<()> {
    let shared = prefix.library("libtdx_sim.so");
    let version = env!("CARGO_PKG_VERSION");
    let soname = soname(&shared)?;
    ensure!(
        prefix.library(&soname).exists(),
        "the shared library has the SONAME {soname}, which was not installed"
    );
    let said = prefix.pkg_config(&["--modversion"])?;
    ensure!(said == [version], "pkg-config says version {said:?}, but it is {version}");

    let exported = exported(&shared)?;
    let header = std::fs::read_to_string(root().join(HEADER))?;
    for name in &exported {
        ensure!(
            header.contains(&format!("{name}(")),
            "the shared library exports {name}, which the header does not have"
        );
    }
    ensure!(exported.len() > 10, "the shared library exports only {exported:?}");

    let archive = prefix.library("libtdx_sim.a");
    let users = user_library(prefix, &archive, folder, &[KEPT_INSIDE])?;
    let kept = self::exported(&users)?;
    ensure!(
        kept == [FUNCTION],
        "a library that links the archive with {KEPT_INSIDE} exports {kept:?}"
    );
    let local = folder.join("libtdx_sim.a");
    output(Command::new("objcopy").args(MADE_LOCAL).arg(&archive).arg(&local))?;
    let with_ours = self::exported(&user_library(prefix, &local, folder, &[])?)?;
    let mut others = with_ours.iter().filter(|name| *name != FUNCTION && !exported.contains(name));
    ensure!(
        others.next().is_none(),
        "a library that links the archive after objcopy exports {with_ours:?}"
    );
    println!(
        "SONAME {soname}; the shared library exports the header's {} functions. A library that \
         links the archive exports its own function only with {KEPT_INSIDE}; and those of the \
         header, but no name of Rust, after objcopy.",
        exported.len()
    );
    sizes(prefix, &users, folder)
}

/// Builds the user's library, which links the archive.
fn user_library(
    prefix: &Prefix,
    archive: &Path,
    folder: &Path,
    options: &[&str],
) -> Result<PathBuf> {
    let (source, library) = (folder.join("user.c"), folder.join("libuser.so"));
    std::fs::write(&source, USER)?;
    let mut compile = Command::new("gcc");
    compile
        .args(["-std=c11", "-shared", "-fPIC", "-o"])
        .arg(&library)
        .args(prefix.pkg_config(&["--cflags"])?);
    output(compile.arg(&source).args(options).arg(archive).args(["-lpthread", "-ldl", "-lm"]))?;
    Ok(library)
}

fn soname(library: &Path) -> Result<String> {
    let dynamic = printed(Command::new("readelf").arg("--dynamic").arg(library))?;
    let line = dynamic.lines().find(|line| line.contains("(SONAME)"));
    let name = line.and_then(|line| line.split_once('[')?.1.strip_suffix(']'));
    Ok(name.with_context(|| format!("{} has no SONAME", library.display()))?.to_owned())
}

/// Returns the names that a shared library exports.
fn exported(library: &Path) -> Result<Vec<String>> {
    let symbols = printed(Command::new("nm").args(["--dynamic", "--defined-only"]).arg(library))?;
    Ok(symbols.lines().filter_map(|line| line.split(' ').next_back()).map(str::to_owned).collect())
}

/// Prints the sizes of the libraries, with and without debug information.
fn sizes(prefix: &Prefix, users: &Path, folder: &Path) -> Result<()> {
    let stripped = folder.join("stripped");
    for (what, option, file) in [
        ("shared library", "--strip-all", prefix.library("libtdx_sim.so")),
        ("archive", "--strip-unneeded", prefix.library("libtdx_sim.a")),
        ("a library that links the archive", "--strip-all", users.to_owned()),
    ] {
        let before = std::fs::metadata(&file)?.len();
        output(Command::new("strip").arg(option).arg("-o").arg(&stripped).arg(&file))?;
        println!(
            "{what}: {} KiB, stripped {} KiB",
            before / 1024,
            std::fs::metadata(&stripped)?.len() / 1024
        );
    }
    Ok(())
}
