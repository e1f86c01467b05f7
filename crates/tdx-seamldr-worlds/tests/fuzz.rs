//! The fuzz targets over what fuzzing begins with, and over every input that it has found something
//! with.
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

/// All first inputs that need nobody else's files.
static SEEDS: LazyLock<Vec<Seed>> = LazyLock::new(|| {
    let recordings = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tdx-seamldr-mock/vectors");
    seeds(&recordings, &[]).unwrap()
});

/// Those of a target.
fn run_seeds(target: &str) {
    let own: Vec<_> = SEEDS.iter().filter(|seed| seed.target == target).collect();
    assert!(own.len() > 3, "{target} has no inputs of its own");
    run(target, own);
}

#[test]
fn no_seed_has_the_name_of_another() {
    let names: BTreeSet<_> = SEEDS.iter().map(|seed| (seed.target, &seed.name)).collect();
    assert_eq!(names.len(), SEEDS.len(), "it would take its place in the corpus");
}

#[test]
fn images_are_parsed_written_and_asked_about() {
    run_seeds("image");
}

#[test]
fn parameters_name_every_page_or_the_first_that_cannot_be_named() {
    run_seeds("params_roundtrip");
}

#[test]
fn preflight_and_p_seamldr_agree_about_sigstructs() {
    run_seeds("sigstruct");
}

#[test]
fn files_of_a_host_are_read_or_refused_in_words() {
    run_seeds("host_tree");
}

#[test]
fn status_words_come_through_every_decoder() {
    run_seeds("status");
}

#[test]
fn sessions_on_the_model_have_the_same_answers_twice() {
    run_seeds("vector");
}

#[test]
fn updates_end_as_their_outcomes_say() {
    run_seeds("update_ops");
}

#[test]
fn the_command_prints_json_about_any_file() {
    run_seeds("cli_json");
}

#[test]
fn any_log_and_any_word_has_an_explanation() {
    run_seeds("explain_log");
}

#[test]
fn files_of_an_operator_are_read_or_refused_in_words() {
    run_seeds("operator_files");
}

#[test]
fn any_code_behind_seamcall_is_followed() {
    run_seeds("decode_instruction");
}

#[test]
fn options_of_the_plugin_are_read_or_refused_in_words() {
    run_seeds("plugin_options");
}

/// How many inputs were findings, at least: none is lost.
const FINDINGS: usize = 11;

#[test]
fn what_was_found_once_is_not_found_again() {
    let found = findings(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/findings")).unwrap();
    assert!(found.len() >= FINDINGS, "{} findings", found.len());
    for target in TARGETS {
        run(target.name, found.iter().filter(|finding| finding.target == target.name));
    }
}
