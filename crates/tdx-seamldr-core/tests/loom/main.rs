//! The rendezvous, with all orders in which LPs can meet: the very source of the library, over loom's atomics.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, missing_docs, unreachable_pub, dead_code)]

mod update;

use update::{explore, Stage};

#[test]
fn two_lps_go_through_all_stages_in_every_order() {
    explore(2, Stage::RunUpdate, None);
}

#[test]
fn three_lps_go_through_three_stages_in_every_order() {
    explore(3, Stage::CpuInstall, None);
}

#[test]
fn a_failing_lp_stops_two_at_each_stage_in_every_order() {
    for stage in [Stage::Start, Stage::Shutdown, Stage::CpuInstall, Stage::CpuInit, Stage::RunUpdate] {
        for lp in 0..2 {
            explore(2, Stage::RunUpdate, Some((lp, stage)));
        }
    }
}

#[test]
fn a_failing_lp_stops_three_in_every_order() {
    for stage in [Stage::Start, Stage::Shutdown] {
        explore(3, Stage::CpuInstall, Some((1, stage)));
    }
}
