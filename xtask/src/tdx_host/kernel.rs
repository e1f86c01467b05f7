//! The kernels of the tests, and their initramfs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{ensure, Context, Result};

use crate::debian::Debian;
use crate::initramfs;

/// The kernel's image, below the folder of its build.
const IMAGE: &str = "arch/x86/boot/bzImage";
/// The driver that offers the upload, below the same folder.
const DRIVER: &str = "drivers/virt/coco/tdx-host/tdx-host.ko";

/// A kernel that is a TDX host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kernel {
    /// Debian's source, small configuration.
    Plain,
    /// The same, with checks of locks, sleeping and memory.
    Watched,
    /// Built by the user.
    Own,
}

impl Kernel {
    /// Returns the kernel's folder below `build`. The root builds all kernels except
    /// [`Kernel::Own`].
    pub(super) const fn folder(self) -> &'static str {
        match self {
            Self::Plain => "tdx-host",
            Self::Watched => "tdx-host-debug",
            Self::Own => "tdx-host-own",
        }
    }

    /// Returns the path of the kernel's image for programs in the root.
    pub(super) fn image(self) -> String {
        format!("/build/{}/{IMAGE}", self.folder())
    }

    /// Returns the path of the initramfs for programs in the root.
    pub(super) fn initramfs(self) -> String {
        format!("/build/{}/initrd.gz", self.folder())
    }

    pub(super) fn is_built(self, debian: &Debian) -> bool {
        let folder = debian.path("build").join(self.folder());
        folder.join(IMAGE).exists() && folder.join(DRIVER).exists()
    }

    /// Whether the root has the kernel's source, to build modules.
    pub(super) const fn has_source(self) -> bool {
        matches!(self, Self::Plain | Self::Watched)
    }

    /// Builds the kernel from Debian's source.
    pub(super) fn prepare(self, debian: &Debian) -> Result<()> {
        let watch = if self == Self::Watched { "/build/watch.config" } else { "" };
        let script = format!(
            "exec bash /build/prepare-tdx-host.sh {} /build/kernel.config {watch}",
            self.folder()
        );
        debian.shell(&script).context("the kernel is not ready")
    }

    /// Takes the user's kernel from the folder where it was built.
    pub(super) fn own(debian: &Debian, build: &Path) -> Result<Self> {
        for file in [IMAGE, DRIVER] {
            let from = build.join(file);
            ensure!(
                from.is_file(),
                "{} does not exist; build the targets bzImage and {DRIVER} with \
                 examples/tdx-host/kernel.config",
                from.display()
            );
            debian.give(&from, &format!("{}/{file}", Self::Own.folder()))?;
        }
        Ok(Self::Own)
    }

    /// Makes the initramfs with these images, given by name below `/images` and content.
    pub(super) fn give_initramfs(
        self,
        debian: &Debian,
        images: &[(String, Vec<u8>)],
    ) -> Result<()> {
        let folder = self.begin_initramfs(debian, "initramfs")?;
        fs::create_dir_all(folder.join("images"))?;
        initramfs::copy(&initramfs::build_command()?, &folder.join("bin/tdx-seamldr"))?;
        if self.has_source() {
            initramfs::copy(&self.build_probe(debian)?, &folder.join("probe.ko"))?;
        }
        for (name, bytes) in images {
            let to = folder.join("images").join(name);
            fs::create_dir_all(to.parent().context("a folder")?)?;
            fs::write(&to, bytes).with_context(|| to.display().to_string())?;
        }
        if let Some(released) = tdx_seamldr_mock::released_images()? {
            initramfs::write_images(&released, &folder.join("images"))?;
            initramfs::write_repository(&released, &folder.join("images/intel"))?;
        }
        self.end_initramfs(debian, "initramfs", "initrd.gz")
    }

    /// Makes another initramfs from the one of [`Self::give_initramfs`], which must exist. The new
    /// one adds the folder `/kexec`: a program that starts this kernel again, the kernel's image,
    /// and an initramfs for it. Returns its path for programs in the root.
    pub(super) fn give_kexec(self, debian: &Debian) -> Result<String> {
        self.begin_initramfs(debian, "initramfs-after")?;
        self.end_initramfs(debian, "initramfs-after", "initrd-after.gz")?;
        let name = self.folder();
        debian.give(&super::example().join("kexec.c"), &format!("{name}/kexec.c"))?;
        debian.shell(&format!(
            "cd /build/{name}; rm -rf with-kexec; mkdir -p with-kexec/kexec; \
             gcc -static -O2 -o with-kexec/kexec/kexec kexec.c; \
             cp {IMAGE} initrd-after.gz with-kexec/kexec; \
             (cd with-kexec; find . | cpio -o -H newc --quiet | gzip -1) > with-kexec.gz; \
             cat initrd.gz with-kexec.gz > initrd-kexec.gz"
        ))?;
        Ok(format!("/build/{name}/initrd-kexec.gz"))
    }

    /// Makes another initramfs from the one of [`Self::give_initramfs`], which must exist. The new
    /// one adds an ssh server and Python. Returns its path for programs in the root.
    pub(super) fn give_ssh(self, debian: &Debian) -> Result<String> {
        debian.give(&super::example().join("ssh.sh"), "ssh.sh")?;
        debian.shell(&format!("exec bash /build/ssh.sh /build/{}", self.folder()))?;
        Ok(format!("/build/{}/initrd-ssh.gz", self.folder()))
    }

    /// Makes a folder with the files of every initramfs.
    fn begin_initramfs(self, debian: &Debian, name: &str) -> Result<PathBuf> {
        let place = debian.path("build").join(self.folder());
        let folder = place.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(folder.join("bin"))?;
        for file in ["init", "functions"] {
            initramfs::copy(&super::example().join(file), &folder.join(file))?;
        }
        initramfs::copy(&place.join(DRIVER), &folder.join("tdx-host.ko"))?;
        Ok(folder)
    }

    fn end_initramfs(self, debian: &Debian, from: &str, to: &str) -> Result<()> {
        let folder = self.folder();
        initramfs::pack(debian, &format!("{folder}/{from}"), &format!("{folder}/{to}"))
    }

    /// Builds the kernel module that tests the plugin.
    fn build_probe(self, debian: &Debian) -> Result<PathBuf> {
        let kernel = self.folder();
        let place = format!("build/{kernel}-probe");
        debian.give(&super::example().join("probe.c"), &format!("{kernel}-probe/probe.c"))?;
        fs::write(debian.path(&place).join("Kbuild"), "obj-m := probe.o\n")?;
        // The module uses the kernel's symbols. Their list exists only after a build of the
        // kernel's modules, so modpost must not fail without it.
        debian.shell(&format!(
            "exec make -s -C /build/source O=/build/{kernel} M=/{place} KBUILD_MODPOST_WARN=1 \
             modules"
        ))?;
        Ok(debian.path(&place).join("probe.ko"))
    }
}
