//! Tests of the rendezvous in all orders of the LPs' steps. They compile the library's source with
//! loom's atomics.
//!
//! At the beginning of a stage the LPs share only one word, which names the stage. So one test for
//! each stage covers an update.
#![allow(missing_docs, unreachable_pub, dead_code)]

mod update;

use update::{claim, explore, give_up, turn_away, two_claims, Failure, Stage};

const WORK: [Stage; 5] =
    [Stage::Start, Stage::Shutdown, Stage::CpuInstall, Stage::CpuInit, Stage::RunUpdate];

#[test]
fn two_lps_pass_each_stage_in_every_order() {
    WORK.into_iter().for_each(|stage| explore(2, stage, None));
}

#[test]
fn three_lps_pass_each_stage_in_every_order() {
    WORK.into_iter().for_each(|stage| explore(3, stage, None));
}

#[test]
fn one_of_two_lps_fails_at_each_stage_in_every_order() {
    for stage in WORK {
        (0..2).for_each(|lp| explore(2, stage, Some(Failure { lp, another_round: true })));
        (0..2).for_each(|lp| explore(2, stage, Some(Failure { lp, another_round: false })));
    }
}

#[test]
fn one_of_three_lps_fails_at_each_stage_in_every_order() {
    // All LPs except the first do the same, so one of them represents all.
    for stage in WORK {
        explore(3, stage, Some(Failure { lp: 1, another_round: false }));
    }
    explore(3, Stage::CpuInstall, Some(Failure { lp: 1, another_round: true }));
}

#[test]
fn lp_gives_up_while_another_works_in_every_order() {
    WORK.into_iter().for_each(give_up);
}

/// The stages with a call that cannot be undone.
const CLAIMED: [Stage; 3] = [Stage::Shutdown, Stage::CpuInstall, Stage::RunUpdate];

#[test]
fn claimed_call_is_made_before_an_lp_gives_up_or_never() {
    for stage in CLAIMED {
        claim(stage, false);
        claim(stage, true);
    }
}

#[test]
fn each_of_two_claimed_calls_is_made_before_an_lp_gives_up_or_never() {
    two_claims(Stage::CpuInstall);
}

#[test]
fn lp_that_is_turned_away_ends_the_update_before_the_claim_or_never() {
    turn_away();
}
