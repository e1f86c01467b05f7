//! `cargo xtask c-recorded`: makes a table in C from the recordings of Linux 7.2, for the program
//! in examples/c/linux-7.2.

use std::fmt::Write as _;

use anyhow::{ensure, Context, Result};
use serde_json::Value;
use tdx_seamldr_core::abi::{SeamldrLeaf, TdxLeaf};
use tdx_seamldr_core::Trap;

use crate::root;

const RECORDINGS: &str = "crates/tdx-seamldr-mock/vectors/linux-7.2/scenarios.jsonl";
const TABLE: &str = "examples/c/linux-7.2/recorded.h";

const HEAD: &str = "\
/*
 * The recordings of Linux 7.2, one line for each run; struct recorded in run.h names the columns.
 *
 * Made from crates/tdx-seamldr-mock/vectors/linux-7.2/scenarios.jsonl by `cargo xtask \
                    c-recorded`; do not edit.
 * SPDX-License-Identifier: MIT OR Apache-2.0
 */
static const struct recorded RECORDED[] = {
";

/// Writes the table, or with `check` compares it with the file.
pub(crate) fn run(check: bool) -> Result<()> {
    let path = root().join(TABLE);
    let wanted = table()?;
    if check {
        let found = std::fs::read_to_string(&path).with_context(|| TABLE)?;
        ensure!(
            found == wanted,
            "{TABLE} does not match the recordings; run `cargo xtask c-recorded`"
        );
        println!("{TABLE} matches the recordings");
    } else {
        std::fs::write(&path, wanted).with_context(|| TABLE)?;
        println!("{TABLE} written");
    }
    Ok(())
}

fn table() -> Result<String> {
    let text = std::fs::read_to_string(root().join(RECORDINGS)).with_context(|| RECORDINGS)?;
    let mut table = HEAD.to_owned();
    for (number, line) in (1..).zip(text.lines()) {
        let here = || format!("{RECORDINGS}:{number}");
        let run: Value = serde_json::from_str(line).with_context(here)?;
        writeln!(table, "    {},", row(&run).with_context(here)?)?;
    }
    table.push_str("};\n");
    Ok(table)
}

/// Returns a line of the table, in the order of `struct recorded`.
fn row(run: &Value) -> Result<String> {
    let uploads = run.get("uploads").and_then(Value::as_array).context("no uploads")?;
    let last = uploads.last().map_or_else(|| run.get("final"), |upload| upload.get("truth"));
    ensure!(
        integer(run, "/initial/old_min_update_hv")? == 0,
        "the table has no lowest handoff version"
    );
    let returned =
        |upload: usize| uploads.get(upload).map_or(Ok(0), |upload| integer(upload, "/ret"));
    Ok(format!(
        "{{\"{}\", {}, {}, {}, {}, {{{}, {}, {}}}, {}, {}, {}, {}, {}, {}}}",
        word(run, "/scenario")?,
        integer(run, "/cpus")?,
        integer(run, "/platform_lps")?,
        word(run, "/mode")?.to_uppercase().replace('-', "_"),
        flag(run, "/erratum")?,
        integer(run, "/initial/old_handoff_version")?,
        integer(run, "/initial/remaining_updates")?,
        integer(run, "/initial/seamdb/used")?,
        returned(0)?,
        returned(1)?,
        first_failure(run.get("first_failure").unwrap_or(&Value::Null))?,
        ending(last.context("no truth")?)?,
        recovery(run)?,
        ending(run.get("final").context("no final")?)?,
    ))
}

/// Returns `{leaf, status, RDX}` of the first failed call. If the instruction failed or never
/// returned, the status is Linux's word for VMfailInvalid.
fn first_failure(call: &Value) -> Result<String> {
    if call.is_null() {
        return Ok("{0, 0, 0}".to_owned());
    }
    let name = word(call, "/leaf")?;
    let leaf = match SeamldrLeaf::ALL.into_iter().find(|leaf| leaf.name() == name) {
        Some(leaf) => leaf.rax(),
        None => tdx_leaf(name)?.rax(0),
    };
    let hexadecimal = |pointer: &str| match call.pointer(pointer).and_then(Value::as_str) {
        None => Ok(None),
        Some(text) => {
            u64::from_str_radix(text.trim_start_matches("0x"), 16).map(Some).context("no number")
        }
    };
    let status = hexadecimal("/rax")?.unwrap_or(Trap::VmFailInvalid.status().0);
    Ok(format!("{{{leaf:#x}, {status:#x}, {}}}", hexadecimal("/rdx")?.unwrap_or(0)))
}

fn tdx_leaf(name: &str) -> Result<TdxLeaf> {
    let mut leaves = (0..256).map(TdxLeaf);
    let is_it =
        |leaf: &TdxLeaf| leaf.name().and_then(|full| full.strip_prefix("TDH.")) == Some(name);
    leaves.find(is_it).with_context(|| format!("no leaf {name}"))
}

/// `{fate, state, SEAM_READY, {handoff}, LPs in the session, remaining updates, SEAMDB entries, LPs
/// initialised}`.
fn ending(truth: &Value) -> Result<String> {
    let fate = word(truth, "/tds")?.to_uppercase().replace(' ', "_");
    let state = match truth.pointer("/module_state").and_then(Value::as_str) {
        None => "NONE",
        Some("SYSINIT_PENDING") => "SYS_INIT_PENDING",
        Some("SYSINIT_DONE") => "SYS_INIT_DONE",
        Some("SYS_READY") => "READY",
        Some("SYS_SHUTDOWN") => "SHUTDOWN",
        Some(other) => anyhow::bail!("no module state {other}"),
    };
    let initialised = truth.pointer("/lps_initialised").and_then(Value::as_array);
    let initialised = initialised.into_iter().flatten().filter(|lp| lp.as_u64() == Some(1)).count();
    Ok(format!(
        "{{{fate}, TDX_SIM_MODULE_STATE_{state}, {}, {{{}, {}, {}}}, {}, {}, {}, {initialised}}}",
        integer(truth, "/seam_ready")?,
        integer(truth, "/handoff/valid")?,
        integer(truth, "/handoff/hv")?,
        integer(truth, "/handoff/size")?,
        integer(truth, "/lps_in_install_session")?,
        integer(truth, "/remaining_updates_remembered")?,
        integer(truth, "/seamdb_used")?,
    ))
}

/// Returns what more rounds can save.
fn recovery(run: &Value) -> Result<&'static str> {
    let of = |pointer: &str| run.pointer(pointer).and_then(Value::as_bool);
    Ok(match (of("/recoverable"), of("/module_only_by_load")) {
        (None, _) => "NOT_TRIED",
        (Some(true), _) => "SAVED",
        (Some(false), Some(true)) => "MODULE_ONLY",
        (Some(false), _) => "NOTHING",
    })
}

fn word<'a>(value: &'a Value, pointer: &str) -> Result<&'a str> {
    value.pointer(pointer).and_then(Value::as_str).with_context(|| format!("no text {pointer}"))
}

fn integer(value: &Value, pointer: &str) -> Result<i64> {
    value.pointer(pointer).and_then(Value::as_i64).with_context(|| format!("no number {pointer}"))
}

fn flag(value: &Value, pointer: &str) -> Result<bool> {
    value.pointer(pointer).and_then(Value::as_bool).with_context(|| format!("no flag {pointer}"))
}
