//! A root of Debian's unstable distribution in a folder, to build kernels and run QEMU.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use crate::process::call;

/// Mounts the file systems that programs in the root need, only for this program, and executes it.
const ENTER: &str = "mount -t proc proc \"$1/proc\"; mount --bind /dev \"$1/dev\"; root=$1; \
                     shift; exec chroot \"$root\" \"$@\"";

/// A Debian root. Its folder `build` holds all build output.
pub(crate) struct Debian {
    folder: PathBuf,
}

impl Debian {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Returns the path outside of the root for a path inside.
    pub(crate) fn path(&self, inside: impl AsRef<Path>) -> PathBuf {
        self.folder.join(inside)
    }

    /// Makes the root if it does not exist.
    pub(crate) fn bootstrap(&self) -> Result<()> {
        if self.path("etc/debian_version").exists() {
            return Ok(());
        }
        // The packages come from this machine's own mirror.
        let targets = Command::new("apt-get")
            .args(["indextargets", "--format", "$(RELEASE) $(SITE)", "Created-By: Packages"])
            .output()
            .context("apt-get failed: this task needs a Debian machine")?;
        let targets = String::from_utf8_lossy(&targets.stdout).into_owned();
        let mirror = targets
            .lines()
            .filter_map(|line| line.split_once(' '))
            .find(|(release, _)| !release.contains('-'))
            .context("apt knows no mirror; does `apt-get update` work?")?
            .1;
        let status = Command::new("debootstrap")
            .args(["--variant=minbase", "--keyring=/usr/share/keyrings/debian-archive-keyring.gpg"])
            .args(["--include=ca-certificates", "sid"])
            .arg(&self.folder)
            .arg(mirror)
            .status();
        let status = status.context(
            "debootstrap cannot be run: install the Debian packages debootstrap and \
             debian-archive-keyring",
        )?;
        ensure!(status.success(), "debootstrap failed; run this task as root");
        // Proxies and similar settings.
        for file in fs::read_dir("/etc/apt/apt.conf.d")? {
            let file = file?;
            fs::copy(file.path(), self.path("etc/apt/apt.conf.d").join(file.file_name()))?;
        }
        // Services are not started.
        let policy = self.path("usr/sbin/policy-rc.d");
        fs::write(&policy, "#!/bin/sh\nexit 101\n")?;
        call(Command::new("chmod").arg("+x").arg(policy))
    }

    /// Copies a file to a place below `build`.
    pub(crate) fn give(&self, from: &Path, to: &str) -> Result<()> {
        let to = self.path("build").join(to);
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        Ok(())
    }

    /// Returns a command that runs a program in the root.
    pub(crate) fn program(&self, program: &str) -> Command {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-euc", ENTER, "sh"]).arg(&self.folder).arg(program);
        unshare
    }

    /// Runs a shell command in the root.
    pub(crate) fn shell(&self, command: &str) -> Result<()> {
        call(self.program("sh").args(["-euc", command]))
    }
}
