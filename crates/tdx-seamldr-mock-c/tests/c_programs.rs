//! The programs in C, and what only C can do wrong, compiled by the system's compilers and linked
//! with the libraries.
#![cfg(unix)]
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::as_conversions
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const C: [&str; 2] = ["cc", "-std=c11"];
const CPP: [&str; 2] = ["g++", "-std=c++11"];

/// What the example prints.
const PRINTED: &str = "\
TDH.SYS.SHUTDOWN on LP 0
SEAMLDR.INSTALL on LP 0
SEAMLDR.INSTALL on LP 1
SEAMLDR.INSTALL on LP 2
SEAMLDR.INSTALL on LP 3
TDH.SYS.INIT on LP 0
TDH.SYS.LP.INIT on LP 0
TDH.SYS.LP.INIT on LP 1
TDH.SYS.LP.INIT on LP 2
TDH.SYS.LP.INIT on LP 3
TDH.SYS.UPDATE on LP 0
module 1.5.06, 1 of 1 TDs alive
";

/// The output of a command that has to succeed.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    output
}

/// Whether there is such a compiler. If not, that is said.
fn is_there(compiler: &str) -> bool {
    let there = Command::new(compiler)
        .arg("--version")
        .output()
        .is_ok_and(|output| output.status.success());
    if !there {
        eprintln!("skipped: there is no compiler {compiler}");
    }
    there
}

/// The static and the shared library, as Cargo builds them for everybody.
fn libraries() -> [PathBuf; 2] {
    let mut build = Command::new(env!("CARGO"));
    build.args([
        "build",
        "--quiet",
        "--package",
        env!("CARGO_PKG_NAME"),
        "--message-format",
        "json",
    ]);
    build.current_dir(env!("CARGO_MANIFEST_DIR"));
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    let messages = String::from_utf8(run(&mut build).stdout).unwrap();
    let messages =
        messages.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let files: Vec<PathBuf> = messages
        .filter(|message| {
            message["target"]["name"] == "tdx_sim" && message["reason"] == "compiler-artifact"
        })
        .flat_map(|message| message["filenames"].as_array().unwrap().clone())
        .map(|file| file.as_str().unwrap().into())
        .collect();
    ["a", std::env::consts::DLL_EXTENSION].map(|extension| {
        let found =
            files.iter().find(|file| file.extension().is_some_and(|found| found == extension));
        found.unwrap_or_else(|| panic!("no .{extension} in {files:?}")).clone()
    })
}

/// A program, and how what it prints ends.
struct Program<'a> {
    name: &'a str,
    sources: &'a [&'a str],
    ends: &'a str,
}

const UPDATE: Program<'_> =
    Program { name: "update", sources: &["../../examples/c/update.c"], ends: PRINTED };
const INTERFACE: Program<'_> = Program {
    name: "interface",
    sources: &["tests/c/interface.c"],
    ends: "0 expectations were not met\n",
};
const LINUX: Program<'_> = Program {
    name: "linux-7.2",
    sources: &[
        "../../examples/c/linux-7.2/host.c",
        "../../examples/c/linux-7.2/linux.c",
        "../../examples/c/linux-7.2/main.c",
        "../../examples/c/linux-7.2/server.c",
        "../../examples/c/linux-7.2/setup.c",
    ],
    ends: "64 scenarios in 323 runs: 64 end as recorded, 0 differ\n",
};

/// Compiles a program, links it, runs it, and looks at what it prints.
fn compile_and_run(
    program: &Program<'_>,
    [compiler, standard]: [&str; 2],
    library: &Path,
    name: &str,
) {
    let (sources, ends) = (program.sources, program.ends);
    let name = &format!("{}-{name}", program.name);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compile = Command::new(compiler);
    compile
        .args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-I"])
        .arg(here.join("include"));
    if compiler == CPP[0] {
        compile.args(["-x", "c++"]);
    }
    compile
        .args(sources.iter().map(|source| here.join(source)))
        .args(["-x", "none", "-o"])
        .arg(&program);
    let folder = library.parent().unwrap();
    if library.extension().is_some_and(|extension| extension == "a") {
        compile.arg(library).args(["-lpthread", "-ldl", "-lm"]);
    } else {
        compile.arg("-L").arg(folder).arg("-ltdx_sim");
    }
    run(&mut compile);
    let output =
        run(Command::new(&program).env("LD_LIBRARY_PATH", folder).env("DYLD_LIBRARY_PATH", folder));
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.ends_with(ends), "{name} prints\n{printed}");
}

#[test]
fn the_programs_run_with_the_static_and_with_the_shared_library() {
    if is_there(C[0]) {
        let [archive, shared] = libraries();
        for program in [UPDATE, INTERFACE] {
            compile_and_run(&program, C, &archive, "static");
            compile_and_run(&program, C, &shared, "shared");
        }
    }
}

#[test]
fn program_in_the_readme_of_the_crate_runs() {
    let (_, rest) = include_str!("../README.md").split_once("```c\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("readme.c");
    std::fs::write(&source, program).unwrap();
    if is_there(C[0]) {
        let sources: &[&str] = &[source.to_str().unwrap()];
        let program = Program { name: "readme", sources, ends: "" };
        compile_and_run(&program, C, &libraries()[0], "static");
    }
}

#[test]
fn each_recorded_run_of_linux_ends_as_recorded_through_the_c_interface() {
    if is_there(C[0]) {
        compile_and_run(&LINUX, C, &libraries()[0], "static");
    }
}

#[test]
fn the_programs_and_the_header_are_cpp_too() {
    if is_there(CPP[0]) {
        let [archive, shared] = libraries();
        for program in [UPDATE, INTERFACE] {
            compile_and_run(&program, CPP, &archive, "static-cpp");
            compile_and_run(&program, CPP, &shared, "shared-cpp");
        }
    }
}

#[test]
fn the_header_has_all_that_the_libraries_export() {
    let nm = Command::new("nm").args(["--dynamic", "--defined-only"]).arg(&libraries()[1]).output();
    let Some(output) = nm.ok().filter(|output| output.status.success()) else {
        eprintln!("skipped: there is no nm that shows what a library exports");
        return;
    };
    let header = include_str!("../include/tdx_sim.h");
    let symbols = String::from_utf8(output.stdout).unwrap();
    let ours: Vec<_> = symbols
        .lines()
        .filter_map(|line| line.split(' ').next_back())
        .filter(|name| name.starts_with("tdx_"))
        .collect();
    assert!(ours.len() > 10, "{symbols}");
    for name in ours {
        assert!(header.contains(&format!("{name}(")), "{name} is not in the header");
    }
}
