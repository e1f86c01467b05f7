//! Of the rendezvous, which loom's tests compile without these.

use super::rendezvous::{Leg, Rendezvous};
use super::Stage;

fn leg(stage: Stage, round: u32) -> Leg {
    Leg { stage, round }
}

#[test]
fn the_last_to_acknowledge_moves_all_on() {
    let rendezvous = Rendezvous::new(3);
    assert_eq!(rendezvous.acknowledge(), None);
    assert_eq!(rendezvous.acknowledge(), None);
    let all = rendezvous.acknowledge().unwrap();
    assert_eq!((all.leg(), all.acks(), all.failed()), (leg(Stage::Start, 0), 3, false));
    rendezvous.move_on(all, Some(leg(Stage::CpuInstall, 200)));
    let seen = rendezvous.load();
    assert_eq!((seen.leg(), seen.acks(), seen.is_over()), (leg(Stage::CpuInstall, 200), 0, false));
}

#[test]
fn a_failure_is_seen_at_once_and_does_not_outlive_the_stage() {
    let rendezvous = Rendezvous::new(2);
    rendezvous.fail();
    assert!(rendezvous.load().failed());
    assert_eq!(rendezvous.acknowledge(), None);
    let all = rendezvous.acknowledge().unwrap();
    assert!(all.failed());
    rendezvous.move_on(all, Some(leg(Stage::Start, 1)));
    assert!(!rendezvous.load().failed());
}

#[test]
fn after_the_end_nobody_moves_on() {
    let rendezvous = Rendezvous::new(1);
    let seen = rendezvous.load();
    assert!(rendezvous.end_if_still(seen));
    assert_eq!(rendezvous.acknowledge(), None);
    assert!(rendezvous.load().is_over());
    let rendezvous = Rendezvous::new(1);
    let all = rendezvous.acknowledge().unwrap();
    rendezvous.move_on(all, None);
    assert!(rendezvous.load().is_over());
    assert_eq!(rendezvous.load().stage(), Stage::Start, "where it ended stays to be seen");
}

#[test]
fn giving_up_loses_against_progress() {
    let rendezvous = Rendezvous::new(2);
    let seen = rendezvous.load();
    assert_eq!(rendezvous.acknowledge(), None);
    assert!(!rendezvous.end_if_still(seen));
    assert!(!rendezvous.load().is_over());
}

#[test]
fn a_thousand_lps_fit() {
    let rendezvous = Rendezvous::new(1024);
    assert!((0..1023).all(|_| rendezvous.acknowledge().is_none()));
    assert_eq!(rendezvous.acknowledge().unwrap().leg(), leg(Stage::Start, 0));
}
