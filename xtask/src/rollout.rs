//! `cargo xtask rollout`: the roll-out over many hosts, by Ansible on hosts that are folders or
//! machines in QEMU, and the manifests for Kubernetes.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::document;
use crate::process::call;
use crate::tdx_host::hosts;

/// The document with the output of the playbook, and the place of it.
const DOCUMENT: &str = "docs/rolling-out.md";
const PLACE: &str = "roll-out";

pub(crate) fn run(write: bool, machines: Option<&Path>) -> Result<()> {
    let deploy = crate::root().join("deploy").canonicalize()?;
    let programs = environment(&deploy.join("requirements.txt"))?;
    if let Some(folder) = machines {
        return on_machines(&deploy.join("ansible"), &programs, folder);
    }
    on_folders(&deploy.join("ansible"), &programs, write)?;
    lint(&deploy.join("ansible"), &programs)?;
    manifests(&deploy.join("kubernetes"), &programs)
}

/// Makes a Python environment with the tools, and says where its programs are.
fn environment(requirements: &Path) -> Result<PathBuf> {
    let folder = crate::target().join("rollout");
    let programs = folder.join("python/bin");
    let stamp = folder.join("requirements.txt");
    let wanted = fs::read_to_string(requirements)?;
    if fs::read_to_string(&stamp).ok().as_ref() != Some(&wanted) {
        fs::create_dir_all(&folder)?;
        call(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder.join("python")))
            .context("Debian's package python3-venv has to be installed")?;
        call(
            Command::new(programs.join("pip"))
                .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
                .arg(requirements),
        )?;
        fs::write(&stamp, wanted)?;
    }
    Ok(programs.canonicalize()?)
}

/// Runs the playbook on hosts that are folders, and compares the document with its output.
fn on_folders(collection: &Path, programs: &Path, write: bool) -> Result<()> {
    call(
        crate::cargo()
            .args(["build", "--quiet", "--locked", "--release", "-p", "tdx-seamldr-cli"])
            .args(["--bins", "--example", "host-folder"])
            .current_dir(crate::root()),
    )?;
    let release = crate::target().join("release").canonicalize()?;
    let output = release.join("rollout-output.txt");
    // An earlier run's output must not pass for this one's.
    if output.exists() {
        fs::remove_file(&output)?;
    }
    test(
        tests(collection, programs, "test_roll_out")
            .env("TDX_SEAMLDR", release.join("tdx-seamldr"))
            .env("HOST_FOLDER", release.join("examples/host-folder"))
            .env("ROLL_OUT_OUTPUT", &output),
    )?;
    let text = fs::read_to_string(&output)?;
    let block = format!("```text\n{}\n```", text.trim());
    if write {
        return document::fill(DOCUMENT, PLACE, &block);
    }
    document::check(DOCUMENT, PLACE, &block)
        .context("`cargo xtask rollout --write` writes the output of the playbook into it")
}

/// Runs the playbook on machines in QEMU, with the kernel in this folder.
fn on_machines(collection: &Path, programs: &Path, folder: &Path) -> Result<()> {
    let hosts = hosts::start(folder)?;
    test(tests(collection, programs, "test_machines").env("MACHINES", hosts.reached.to_string()))
}

/// Returns the command that runs the tests of the playbook in a file.
fn tests(collection: &Path, programs: &Path, file: &str) -> Command {
    let mut python = Command::new(programs.join("python3"));
    python.args(["-B", "-m", "unittest", "--verbose", file]);
    python.current_dir(collection.join("tests"));
    python
}

fn test(tests: &mut Command) -> Result<()> {
    call(tests).context("the playbook does not do what it should")
}

/// Runs ansible-lint, which has to find the collection's own modules.
fn lint(collection: &Path, programs: &Path) -> Result<()> {
    let place = crate::target().join("rollout/collections");
    let built = crate::target().join("rollout/built");
    // An archive of an earlier version would be linted in place of this one.
    if built.exists() {
        fs::remove_dir_all(&built)?;
    }
    let galaxy = programs.join("ansible-galaxy");
    call(
        Command::new(&galaxy)
            .args(["collection", "build", "--force", "--output-path"])
            .arg(&built)
            .arg(collection),
    )?;
    let archive = fs::read_dir(&built)?.next().context("a collection")??.path();
    call(
        Command::new(&galaxy)
            .args(["collection", "install", "--offline", "--force", "-p"])
            .arg(&place)
            .arg(archive),
    )?;
    call(
        Command::new(programs.join("ansible-lint"))
            .args(["-q", "--nocolor", "--profile", "production", "--strict"])
            .current_dir(collection)
            .env("PATH", path_with(programs)?)
            .env("ANSIBLE_COLLECTIONS_PATH", place.canonicalize()?),
    )
}

/// The path with these programs first.
fn path_with(programs: &Path) -> Result<std::ffi::OsString> {
    let old = std::env::var_os("PATH").context("PATH")?;
    let all = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&old));
    Ok(std::env::join_paths(all)?)
}

/// Compares the manifests with Kubernetes' own schemas.
fn manifests(folder: &Path, programs: &Path) -> Result<()> {
    let mut files: Vec<PathBuf> = Vec::new();
    for part in ["base", "update"] {
        for file in fs::read_dir(folder.join(part))? {
            let file = file?.path();
            let is_manifest = file.extension().is_some_and(|extension| extension == "yaml");
            // kustomize's own file is no object of the API.
            if is_manifest && !file.ends_with("kustomization.yaml") {
                files.push(file);
            }
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "{} has no manifests", folder.display());
    let kustomized = Command::new("kubectl").arg("kustomize").arg(folder.join("base")).output();
    match kustomized {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            println!("skipped: kubectl is not installed; the files are checked one by one");
        }
        Err(error) => return Err(error).context("kubectl kustomize"),
        Ok(output) => {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.success(), "kubectl kustomize: {errors}");
            let rendered = crate::target().join("rollout/kustomized.yaml");
            fs::write(&rendered, output.stdout)?;
            files.push(rendered);
        }
    }
    let mut validate = Command::new(programs.join("kubernetes-validate"));
    call(validate.args(["--strict", "--quiet"]).args(files))
}
