//! Devices that are away, or take part in nothing, while a round goes on.

use super::*;
use crate::record::RoundRecord;

const PATIENCE: u64 = 60_000;

/// A round of three devices that may take ten minutes, with the updates of two.
fn begun() -> Fleet {
    let mut plan = plan(3);
    plan.collection.time = Bounds { min: None, max: Some(600) };
    let mut fleet = Fleet::new(plan, 3);
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    fleet.deliver(1, fleet.update(1, 3.0, 1));
    fleet
}

fn say(fleet: &mut Fleet, i: usize, presence: Presence) {
    let payload = Message::from(Presence { bundles: vec!["bundle".into()], ..presence }).encode(3).unwrap();
    fleet.send(Topic::Presence(device(i)), payload);
}

fn leave(fleet: &mut Fleet, i: usize) {
    say(fleet, i, Presence::default());
}

fn record(fleet: &Fleet) -> RoundRecord {
    fleet.coordinator.store().begin().unwrap().record(&fleet.run, 0).unwrap().unwrap()
}

#[test]
fn a_device_that_vanishes_is_waited_for_a_minute() {
    let mut fleet = begun();
    leave(&mut fleet, 2);
    fleet.wait(PATIENCE - 1);
    assert_eq!(fleet.manifest().round, 0);
    fleet.wait(1);
    let record = record(&fleet);
    assert_eq!((record.contributions.len(), record.refusals["d2"].as_str()), (2, "away when the round ended"));
}

#[test]
fn one_that_comes_back_in_time_counts_and_one_that_is_back_is_waited_for() {
    let mut fleet = begun();
    leave(&mut fleet, 2);
    fleet.wait(PATIENCE - 10);
    fleet.join(2, &[], "bundle");
    fleet.wait(PATIENCE);
    leave(&mut fleet, 2);
    fleet.wait(PATIENCE - 10);
    assert_eq!(fleet.manifest().round, 0);
    assert_eq!(fleet.deliver(2, fleet.update(2, 5.0, 1)), Outcome::Accepted);
    let record = record(&fleet);
    assert_eq!((record.contributions.len(), record.refusals.len()), (3, 0));
}

#[test]
fn with_too_few_others_it_is_waited_for_as_long_as_the_plan_says() {
    let mut plan = plan(3);
    plan.collection.time = Bounds { min: None, max: Some(600) };
    let mut fleet = Fleet::new(plan, 3);
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    (1..3).for_each(|i| leave(&mut fleet, i));
    fleet.wait(599_000);
    assert_eq!((fleet.manifest().round, fleet.manifest().attempt), (0, 0));
    fleet.join(1, &[], "bundle");
    assert_eq!(fleet.deliver(1, fleet.update(1, 1.0, 1)), Outcome::Accepted);
    assert_eq!(record(&fleet).refusals.keys().collect::<Vec<_>>(), ["d2"]);
}

#[test]
fn one_that_says_what_is_wrong_with_it_begins_no_round_and_holds_none_up() {
    let mut fleet = begun();
    let problem = Some("cannot read reports.tsv".repeat(100));
    say(&mut fleet, 2, Presence { online: true, problem, ..Presence::default() });
    assert_eq!(fleet.coordinator.devices()[&device(2)].presence.problem.as_ref().unwrap().len(), 500);
    fleet.wait(PATIENCE);
    assert_eq!(record(&fleet).contributions.len(), 2);
    let waits = |fleet: &Fleet| fleet.events.last() == Some(&What::Waiting { present: 2, needed: 3 });
    assert!(waits(&fleet), "{:?}", fleet.events.last());
    fleet.join(2, &[], "bundle");
    assert_eq!(fleet.manifest().cohort, [device(0), device(1), device(2)]);
}

#[test]
fn the_last_measurement_waits_for_devices_as_long_as_a_round() {
    let mut fleet = Fleet::new(Plan { rounds: 1, ..plan(2) }, 2);
    (0..2).for_each(|i| {
        fleet.deliver(i, fleet.update(i, 1.0, 1));
        leave(&mut fleet, i);
    });
    assert_eq!(fleet.status(), Status::Running);
    let failed = |fleet: &Fleet| fleet.events.iter().any(|e| matches!(e, What::RoundFailed { .. }));
    fleet.wait(PATIENCE - 1_000);
    assert_eq!(fleet.status(), Status::Running);
    fleet.wait(2_000);
    let summary = fleet.coordinator.runs()[&fleet.run].summary();
    assert_eq!((summary.status, failed(&fleet)), (Status::Finished, false));
    assert!(summary.reason.as_ref().unwrap().contains("could not be measured: 0 of 2 devices"), "{summary:?}");
}
