//! A fresh prefix with the library, and the build of C programs against it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{ensure, Context, Result};

use super::is_there;
use crate::process::{output, printed};
use crate::{cargo, root, target};

/// The flags for the header and all programs. All warnings are errors.
pub(super) const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Werror", "-pedantic"];

/// The prefix of the installed library.
pub(super) struct Prefix(PathBuf);

/// How a program links the library.
#[derive(Clone, Copy)]
pub(super) enum Linking {
    /// `pkg-config --libs`.
    Shared,
    /// Everything static: `pkg-config --static --libs`, with the static form of libgcc_s.
    Static,
    /// `pkg-config --static --libs` with the archive by its file name, because the shared library
    /// is in the same folder. The C library is shared, as valgrind and sanitizers require.
    Archive,
}

impl Prefix {
    /// Installs the library as the page for C programmers says.
    pub(super) fn install(folder: PathBuf) -> Result<Self> {
        output(
            cargo()
                .args(["cinstall", "--locked", "--profile", "capi", "-p", "tdx-seamldr-mock-c"])
                .arg("--prefix")
                .arg(&folder)
                .args(["--libdir", "lib"])
                .arg("--target-dir")
                .arg(target())
                .current_dir(root()),
        )
        .context("cargo-c is missing: cargo install cargo-c")?;
        Ok(Self(folder))
    }

    pub(super) fn library(&self, name: &str) -> PathBuf {
        self.0.join("lib").join(name)
    }

    /// Returns pkg-config's output for the library with these options.
    pub(super) fn pkg_config(&self, options: &[&str]) -> Result<Vec<String>> {
        let said = printed(
            Command::new("pkg-config")
                .args(options)
                .arg("tdx-sim")
                .env("PKG_CONFIG_PATH", self.library("pkgconfig"))
                .env("PKG_CONFIG_ALLOW_SYSTEM_CFLAGS", "1"),
        )?;
        Ok(said.split_whitespace().map(str::to_owned).collect())
    }

    /// Returns the arguments that link the library. They come after the sources.
    pub(super) fn linking(&self, linking: Linking) -> Result<Vec<String>> {
        Ok(match linking {
            Linking::Shared => self.pkg_config(&["--libs"])?,
            Linking::Static => {
                let libraries = self.static_libraries(&[("-lgcc_s", "-lgcc_eh")])?;
                ["-static".to_owned()].into_iter().chain(libraries).collect()
            }
            Linking::Archive => self.static_libraries(&[("-ltdx_sim", "-l:libtdx_sim.a")])?,
        })
    }

    /// Returns the output of `pkg-config --static --libs` with words replaced.
    fn static_libraries(&self, replaced: &[(&str, &str)]) -> Result<Vec<String>> {
        let mut arguments = self.pkg_config(&["--static", "--libs"])?;
        for argument in &mut arguments {
            if let Some((_, new)) = replaced.iter().find(|(old, _)| argument == old) {
                *argument = (*new).to_owned();
            }
        }
        Ok(arguments)
    }

    /// Returns a command for a program that finds the shared library.
    pub(super) fn program(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("LD_LIBRARY_PATH", self.0.join("lib"));
        command
    }

    /// Checks that the header alone compiles as C and C++ without a warning.
    pub(super) fn check_header(&self, folder: &Path) -> Result<()> {
        let source = folder.join("header.c");
        std::fs::write(&source, "#include <tdx_sim.h>\n#include <tdx_sim.h>\n")?;
        let flags = self.pkg_config(&["--cflags"])?;
        let mut checked = Vec::new();
        for (compiler, language, standards) in [
            ("gcc", "c", ["c99", "c11", "c2x"]),
            ("g++", "c++", ["c++11", "c++17", "c++20"]),
            ("clang", "c", ["c99", "c11", "c2x"]),
            ("clang++", "c++", ["c++11", "c++17", "c++20"]),
        ] {
            if !is_there(compiler) {
                ensure!(compiler.starts_with("clang"), "{compiler} is not installed");
                continue;
            }
            for standard in standards {
                let mut compile = Command::new(compiler);
                compile.args(WARNINGS).args([
                    "-fsyntax-only",
                    "-x",
                    language,
                    &format!("-std={standard}"),
                ]);
                output(compile.args(&flags).arg(&source))?;
            }
            checked.push(compiler);
        }
        println!("the header alone has no warning: {}", checked.join(", "));
        Ok(())
    }
}
