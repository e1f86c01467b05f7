//! `cargo xtask c-header`: makes the C header of the simulated platform from its Rust sources.

use std::path::Path;

use anyhow::{ensure, Context, Result};

const CRATE: &str = "crates/tdx-seamldr-mock-c";
/// The path of the header below the workspace's folder.
pub(crate) const HEADER: &str = "crates/tdx-seamldr-mock-c/include/tdx_sim.h";

/// The sources of the header, in the header's order.
const SOURCES: [&str; 14] = [
    "version.rs",
    "status.rs",
    "number.rs",
    "registry.rs",
    "abi.rs",
    "platform.rs",
    "memory.rs",
    "call.rs",
    "trace.rs",
    "truth.rs",
    "change.rs",
    "td.rs",
    "fault.rs",
    "image.rs",
];

/// Writes the header, or with `check` compares it with the file.
pub(crate) fn run(check: bool) -> Result<()> {
    let path = crate::root().join(HEADER);
    let wanted = header(&crate::root().join(CRATE))?;
    if !check {
        std::fs::write(&path, wanted).context(HEADER)?;
        println!("{HEADER} written");
        return Ok(());
    }
    let found = std::fs::read_to_string(&path).context(HEADER)?;
    if let Some((number, found, wanted)) = first_difference(&found, &wanted) {
        eprintln!("{HEADER}, line {number}\n  is:        {found}\n  should be: {wanted}");
    }
    ensure!(found == wanted, "{HEADER} does not match its sources; run `cargo xtask c-header`");
    println!("{HEADER} matches its sources");
    Ok(())
}

/// Returns the text of the header, without a build.
fn header(folder: &Path) -> Result<String> {
    let config =
        cbindgen::Config::from_file(folder.join("cbindgen.toml")).map_err(anyhow::Error::msg)?;
    let sources =
        SOURCES.iter().fold(cbindgen::Builder::new().with_config(config), |builder, source| {
            builder.with_src(folder.join("src").join(source))
        });
    let mut header = Vec::new();
    sources.generate().context("the header cannot be made")?.write(&mut header);
    Ok(String::from_utf8(header)?.lines().map(in_words_of_c).collect())
}

/// Returns a line of the header, with its newline, in the form for C.
fn in_words_of_c(line: &str) -> String {
    if line == " * # Safety" {
        // The section "Safety" lists the caller's duties.
        return " * The caller guarantees:\n".to_owned();
    }
    constant(line)
}

/// Returns a line of the header, with its newline. Writes constants in hexadecimal digits with a C
/// type, to avoid warnings and match the specification.
fn constant(line: &str) -> String {
    let number = line.strip_prefix("#define ").and_then(|rest| rest.split_once(' '));
    match number.and_then(|(name, number)| {
        Some((name, number.trim_end_matches("ull").parse::<u64>().ok()?))
    }) {
        Some((name, number)) if number > u32::MAX.into() => {
            format!("#define {name} UINT64_C({number:#018x})\n")
        }
        Some((name, number)) if number > 0xffff_0000 => {
            format!("#define {name} UINT32_C({number:#x})\n")
        }
        _ => format!("{line}\n"),
    }
}

/// Returns the first line that differs, counted from 1. A missing line is empty.
fn first_difference<'a>(found: &'a str, wanted: &'a str) -> Option<(usize, &'a str, &'a str)> {
    let (mut found, mut wanted) = (found.lines(), wanted.lines());
    (1..).find_map(|number| match (found.next(), wanted.next()) {
        (None, None) => Some(None),
        (found, wanted) if found == wanted => None,
        (found, wanted) => {
            Some(Some((number, found.unwrap_or_default(), wanted.unwrap_or_default())))
        }
    })?
}
