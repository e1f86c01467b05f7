//! Tests of the rendezvous. They are a separate file because loom's tests compile the rendezvous
//! without them.

use super::rendezvous::{Leg, Rendezvous};
use super::stage::Stage;

fn leg(stage: Stage, round: u32) -> Leg {
    Leg { stage, round }
}

#[test]
fn last_lp_to_acknowledge_moves_all_lps_on() {
    let rendezvous = Rendezvous::new(3);
    assert_eq!(rendezvous.acknowledge(false), None);
    assert_eq!(rendezvous.acknowledge(false), None);
    let all = rendezvous.acknowledge(false).unwrap();
    assert_eq!((all.leg(), all.acks(), all.failed()), (leg(Stage::Start, 0), 3, false));
    rendezvous.move_on(all, Some(leg(Stage::CpuInstall, 20)));
    let seen = rendezvous.load();
    assert_eq!((seen.leg(), seen.acks(), seen.is_over()), (leg(Stage::CpuInstall, 20), 0, false));
}

#[test]
fn failure_is_seen_at_once_and_ends_with_the_stage() {
    let rendezvous = Rendezvous::new(2);
    rendezvous.fail();
    assert!(rendezvous.load().failed());
    assert_eq!(rendezvous.acknowledge(false), None);
    let all = rendezvous.acknowledge(false).unwrap();
    assert!(all.failed());
    rendezvous.move_on(all, Some(leg(Stage::Start, 1)));
    assert!(!rendezvous.load().failed());
}

#[test]
fn last_acknowledgement_after_the_end_returns_no_snapshot() {
    let rendezvous = Rendezvous::new(1);
    let seen = rendezvous.load();
    assert!(rendezvous.end_if_still(seen));
    assert_eq!(rendezvous.acknowledge(false), None);
    assert!(rendezvous.load().is_over());
    let rendezvous = Rendezvous::new(1);
    let all = rendezvous.acknowledge(false).unwrap();
    rendezvous.move_on(all, None);
    assert!(rendezvous.load().is_over());
    assert_eq!(rendezvous.load().stage(), Stage::Start, "the stage of the end stays visible");
}

#[test]
fn giving_up_fails_after_progress() {
    let rendezvous = Rendezvous::new(2);
    let seen = rendezvous.load();
    assert_eq!(rendezvous.acknowledge(false), None);
    assert!(!rendezvous.end_if_still(seen));
    assert!(!rendezvous.load().is_over());
}

#[test]
fn rendezvous_has_room_for_1024_lps() {
    let rendezvous = Rendezvous::new(1024);
    assert!((0..1023).all(|_| rendezvous.acknowledge(false).is_none()));
    assert_eq!(rendezvous.acknowledge(false).unwrap().leg(), leg(Stage::Start, 0));
}

#[test]
fn rendezvous_that_is_over_stays_over() {
    let rendezvous = Rendezvous::new(2);
    let before = rendezvous.load();
    assert!(rendezvous.end_if_still(before));
    assert!(!rendezvous.end_if_still(before), "the word has changed");
    assert!(rendezvous.end_if_still(rendezvous.load()));
    assert!(rendezvous.load().is_over());
}

#[test]
fn every_leg_is_read_back_as_written() {
    for stage in Stage::ALL {
        for round in [0, 1, 15, 31] {
            let rendezvous = Rendezvous::new(1);
            let all = rendezvous.acknowledge(false).unwrap();
            rendezvous.move_on(all, Some(leg(stage, round)));
            let seen = rendezvous.load();
            assert_eq!(
                (seen.leg(), seen.stage(), seen.round(), seen.acks()),
                (leg(stage, round), stage, round, 0)
            );
            assert_eq!((seen.failed(), seen.is_over()), (false, stage == Stage::Done));
            rendezvous.fail();
            assert_eq!(rendezvous.load().leg(), leg(stage, round));
        }
    }
}

#[test]
fn acknowledge_after_giving_up_returns_no_snapshot() {
    let rendezvous = Rendezvous::new(2);
    assert_eq!((rendezvous.lps(), rendezvous.acknowledge(false)), (2, None));
    assert!(rendezvous.end_if_still(rendezvous.load()));
    assert_eq!(rendezvous.acknowledge(false), None);
    assert!(rendezvous.load().is_over());
    assert_eq!(rendezvous.load().leg(), leg(Stage::Start, 0));
}

#[test]
fn giving_up_fails_after_all_have_acknowledged() {
    let rendezvous = Rendezvous::new(2);
    rendezvous.acknowledge(false);
    let waits_on = rendezvous.load();
    let all = rendezvous.acknowledge(false).unwrap();
    assert!(!rendezvous.end_if_still(waits_on));
    assert!(!rendezvous.end_if_still(rendezvous.load()));
    rendezvous.move_on(all, Some(leg(Stage::Shutdown, 0)));
    assert_eq!(rendezvous.load().leg(), leg(Stage::Shutdown, 0));
}

#[test]
fn giving_up_fails_until_the_claiming_lp_acknowledges() {
    let rendezvous = Rendezvous::new(2);
    assert_eq!(rendezvous.acknowledge(false), None);
    let before = rendezvous.load();
    assert!(rendezvous.claim());
    assert_eq!(rendezvous.load().claims(), 1);
    assert!(!rendezvous.end_if_still(before) && !rendezvous.end_if_still(rendezvous.load()));
    let all = rendezvous.acknowledge(true).unwrap();
    assert_eq!((all.claims(), all.acks()), (0, 2));
}

#[test]
fn claim_fails_after_giving_up() {
    let rendezvous = Rendezvous::new(2);
    assert!(rendezvous.end_if_still(rendezvous.load()));
    assert!(!rendezvous.claim());
    let rendezvous = Rendezvous::new(1);
    assert!(rendezvous.end_at_start());
    assert!(!rendezvous.claim() && rendezvous.load().is_over());
}

#[test]
fn lp_that_arrives_after_the_start_does_not_end_the_update() {
    let rendezvous = Rendezvous::new(2);
    assert_eq!(rendezvous.acknowledge(false), None);
    let all = rendezvous.acknowledge(false).unwrap();
    assert!(!rendezvous.end_at_start(), "all LPs have acknowledged the start");
    rendezvous.move_on(all, Some(leg(Stage::Shutdown, 0)));
    assert!(rendezvous.claim() && !rendezvous.end_at_start(), "the shutdown is claimed");
    assert_eq!((rendezvous.load().claims(), rendezvous.load().is_over()), (1, false));
    let rendezvous = Rendezvous::new(2);
    assert_eq!(rendezvous.acknowledge(false), None);
    assert!(
        rendezvous.end_at_start() && rendezvous.end_at_start(),
        "a second call changes nothing"
    );
    assert!(rendezvous.load().is_over());
}

#[test]
fn lp_can_give_up_after_the_claiming_lp_acknowledged() {
    let rendezvous = Rendezvous::new(3);
    assert!(rendezvous.claim() && rendezvous.claim());
    assert_eq!((rendezvous.acknowledge(true), rendezvous.load().claims()), (None, 1));
    assert_eq!((rendezvous.acknowledge(true), rendezvous.load().claims()), (None, 0));
    assert!(rendezvous.end_if_still(rendezvous.load()));
}
