//! Runs the fuzz targets on all seeds and on all earlier findings.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::sync::LazyLock;

use tdx_seamldr_worlds::fuzz::seeds::{findings, seeds, Seed};
use tdx_seamldr_worlds::fuzz::TARGETS;

/// Runs inputs of a target, and names those that panic.
fn run<'a>(target: &str, inputs: impl IntoIterator<Item = &'a Seed>) {
    let run = TARGETS.iter().find(|known| known.name == target).unwrap().run;
    let panicking = |input: &&Seed| catch_unwind(AssertUnwindSafe(|| run(&input.bytes))).is_err();
    let failed: Vec<&String> =
        inputs.into_iter().filter(panicking).map(|input| &input.name).collect();
    assert!(failed.is_empty(), "{target}: {failed:?}");
}

/// All seeds that need no external files.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx-seamldr-mock/vectors");
    seeds(&recordings, &[]).unwrap()
});

/// Runs the seeds of a target.
fn run_seeds(target: &str) {
    let own: Vec<_> = SEEDS.iter().filter(|seed| seed.target == target).collect();
    assert!(own.len() > 3, "{target} has only the common seeds");
    run(target, own);
}

#[test]
fn names_of_seeds_are_unique() {
    let names: BTreeSet<_> = SEEDS.iter().map(|seed| (seed.target, &seed.name)).collect();
    assert_eq!(
        names.len(),
        SEEDS.len(),
        "two seeds with one name would share a file in the corpus"
    );
}

#[test]
fn image_files_parse_and_write_back_unchanged() {
    run_seeds("image");
}

#[test]
fn parameters_contain_every_page_or_the_error_names_the_first_bad_one() {
    run_seeds("params_roundtrip");
}

#[test]
fn preflight_and_p_seamldr_agree_about_sigstructs() {
    run_seeds("sigstruct");
}

#[test]
fn files_of_a_host_are_read_or_refused_with_a_description() {
    run_seeds("host_tree");
}

#[test]
fn statuses_pass_through_every_decoder_unchanged() {
    run_seeds("status");
}

#[test]
fn scripts_on_the_model_give_the_same_answers_twice() {
    run_seeds("vector");
}

#[test]
fn updates_end_and_their_outcomes_are_true() {
    run_seeds("update_ops");
}

#[test]
fn the_command_prints_json_about_any_file() {
    run_seeds("cli_json");
}

#[test]
fn every_log_and_every_status_has_an_explanation() {
    run_seeds("explain_log");
}

#[test]
fn files_of_an_operator_are_read_or_refused_with_a_description() {
    run_seeds("operator_files");
}

#[test]
fn any_code_behind_seamcall_can_be_followed() {
    run_seeds("decode_instruction");
}

#[test]
fn options_of_the_plugin_are_read_or_refused_with_a_description() {
    run_seeds("plugin_options");
}

/// The least number of findings, so that none is lost.
const FINDINGS: usize = 13;

#[test]
fn earlier_findings_no_longer_panic() {
    let found = findings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings")).unwrap();
    assert!(found.len() >= FINDINGS, "{} findings", found.len());
    for target in TARGETS {
        run(target.name, found.iter().filter(|finding| finding.target == target.name));
    }
}
