#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use fedtt_wire::message::{Outcome, Presence, Refusal, Update};
use fedtt_wire::plan::{Bounds, CoreRule, Encoding};
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::{Digest, Message, Plan, Topic, chunk};
use ndarray::ArrayD;

use super::{Command, What};
use crate::coordinator::{Coordinator, Input, Untrusted};
use crate::record::Status;
use crate::store::Store;

#[path = "away_tests.rs"]
mod away;
#[path = "batch_tests.rs"]
mod batch;
#[path = "bounds_tests.rs"]
mod bounds;
#[path = "test_fleet.rs"]
mod fleet;
#[path = "long_tests.rs"]
mod long;
#[path = "measuring_tests.rs"]
mod measuring;
#[path = "removing_tests.rs"]
mod removing;

use fleet::{Fleet, blueprint, device, plan};

#[test]
fn a_run_goes_through_its_rounds_and_leaves_nothing_retained() {
    let mut fleet = Fleet::new(plan(3), 3);
    let start = fleet.tensors(Topic::State);
    let layout = fleet.coordinator.runs()[&fleet.run].layout().clone();
    let mut values: Vec<ArrayD<f32>> = start.values(&layout).unwrap().into_iter().map(|(_, v)| v).collect();
    assert_eq!(Digest::of_values(&values), fleet.manifest().state);
    for round in 0..3 {
        assert_eq!(fleet.manifest().round, round);
        // Weighted by examples: (1*1 + 2*2 + 4*5) / 8
        for (i, (by, examples)) in [(1.0, 1), (2.0, 2), (4.0, 5)].into_iter().enumerate() {
            assert_eq!(fleet.deliver(i, fleet.update(i, by, examples)), Outcome::Accepted);
        }
        let change = fleet.tensors(Topic::Change);
        for (place, value) in change.values(&layout).unwrap() {
            assert!(value.iter().all(|x| (x - 25.0 / 8.0).abs() < 1e-5), "{value}");
            values[place] += &value;
        }
        assert_eq!(
            Digest::of_values(&values),
            fleet.manifest().state,
            "devices that follow the changes hold the state"
        );
        assert_eq!(fleet.manifest().counted, [device(0), device(1), device(2)]);
    }
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Measure);
    fleet.round(&[0.0, 0.0, 0.0]);
    assert_eq!(fleet.status(), Status::Finished);
    assert_eq!(fleet.retained, BTreeMap::new());
    assert!(fleet.ended);
    let changes = fleet.coordinator.store().begin().unwrap();
    let records = changes.records(&fleet.run).unwrap();
    assert_eq!(
        records.iter().map(|r| (r.round, r.contributions.len())).collect::<Vec<_>>(),
        [(0, 3), (1, 3), (2, 3), (3, 3)]
    );
}

#[test]
fn what_must_not_count_is_counted_apart_and_named() {
    let mut fleet = Fleet::new(plan(2), 2);
    let good = fleet.update(0, 1.0, 10);
    let bad = |change: &dyn Fn(&mut Update)| {
        let mut update = good.clone();
        change(&mut update);
        update
    };
    let nan = |update: &mut Update| {
        let poisoned = ArrayD::from_elem(vec![update.tensors[0].data.len() / 4], f32::NAN);
        update.tensors[0] = EncodedTensor::encode(poisoned.view(), Encoding::F32, Some(false));
    };
    let cases: [(&str, Update); 8] = [
        ("another run of this name", bad(&|u| u.began += 1)),
        ("in the name of `d1`", bad(&|u| u.device = device(1))),
        ("another global state", bad(&|u| u.state = Digest::of(b"else"))),
        ("of round 7", bad(&|u| u.round = 7)),
        ("not a number", bad(&nan)),
        ("expected", bad(&|u| drop(u.tensors.pop()))),
        ("bytes for shape", bad(&|u| u.tensors[0].data = u.tensors[0].data[4..].to_vec().into())),
        ("0 examples", bad(&|u| u.examples = 0)),
    ];
    for (reason, update) in cases {
        match fleet.deliver(0, update) {
            Outcome::Rejected(said) => assert!(said.contains(reason), "{said}"),
            other => panic!("{reason}: {other:?}"),
        }
    }
    fleet.join(5, &[], "another bundle");
    let stranger = Update { device: device(5), ..good.clone() };
    assert!(matches!(fleet.deliver(5, stranger), Outcome::Rejected(reason) if reason.contains("cohort")));
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Accepted);
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Duplicate);
    assert_eq!(fleet.deliver(1, fleet.update(1, 3.0, 10)), Outcome::Accepted);
    assert_eq!(fleet.manifest().round, 1);
    assert_eq!(fleet.deliver(0, good.clone()), Outcome::Duplicate, "the answer may have been lost");
    fleet.round(&[1.0, 1.0]);
    assert_eq!(fleet.deliver(0, good), Outcome::Duplicate, "what counted is never called late");
    let refused = &fleet.coordinator.runs()[&fleet.run].summary().refused;
    assert_eq!((refused.foreign, refused.malformed, refused.outlying), (5, 3, 1));
    assert_eq!((refused.duplicate, refused.late), (3, 0));
    for garbage in [&b""[..], b"FT", b"FT\x02\x04aaaabbbb", b"FT\x01\x63aaaa", &[0xff; 40]] {
        fleet.send(Topic::Up(device(0)), garbage.to_vec());
    }
    assert_eq!(fleet.coordinator.refused().malformed, 5);
}

#[test]
fn a_host_that_is_restarted_before_every_message_ends_with_the_same_adapter() {
    let finish = |crash: bool| {
        let mut fleet = Fleet::new(Plan { rounds: 4, ..plan(3) }, 3);
        fleet.crash = crash;
        for round in 0..4 {
            fleet.round(&[round as f32, 0.5, -1.5]);
        }
        (fleet.manifest().state, fleet.coordinator.runs()[&fleet.run].summary().updates)
    };
    let undisturbed = finish(false);
    assert_eq!(undisturbed.1, 12);
    assert_eq!(finish(true), undisturbed);
}

#[test]
fn devices_that_left_with_a_broker_are_not_asked_and_those_there_get_time_to_say_so() {
    let mut fleet = Fleet::new(plan(3), 2);
    fleet.reconnect();
    [0, 2, 3, 4].into_iter().for_each(|i| fleet.join(i, &[], "bundle"));
    assert_eq!(fleet.coordinator.runs()[&fleet.run].collecting().map(|_| ()), None);
    fleet.wait(400);
    assert_eq!(fleet.manifest().cohort, [device(0), device(2), device(3), device(4)]);
}

#[test]
fn devices_put_out_of_the_fleet_are_waited_for_no_longer_and_what_was_forged_is_counted() {
    let mut fleet = Fleet::new(plan(2), 2);
    fleet.join(2, &[], "bundle");
    fleet.round(&[1.0, 1.0]);
    assert_eq!(fleet.manifest().cohort.len(), 3);
    let issued = fleet.manifest().issued;
    fleet.deliver(0, fleet.update(0, 1.0, 10));
    fleet.deliver(1, fleet.update(1, 1.0, 10));
    assert_eq!(fleet.manifest().round, 1);
    let forged = |kind| Input::Untrusted { device: device(2), kind, reason: "forged".into() };
    let inputs = vec![forged(Untrusted::Forged), forged(Untrusted::Replayed), Input::Gone { device: device(2) }];
    let effects = fleet.coordinator.handle(inputs, fleet.now + 1).unwrap();
    fleet.take(effects);
    assert_eq!(fleet.manifest().round, 2, "nothing is left to wait for");
    assert!(fleet.manifest().issued > issued);
    assert_eq!(fleet.manifest().cohort, [device(0), device(1)]);
    let refused = fleet.coordinator.refused();
    assert_eq!((refused.forged, refused.replayed), (1, 1));
}

#[test]
fn the_order_of_arrival_does_not_matter() {
    let state = |order: [usize; 3]| {
        let mut fleet = Fleet::new(plan(3), 3);
        for i in order {
            let update = fleet.update(i, [0.1, 0.7, 1e-7][i], [3, 5, 7][i]);
            fleet.deliver(i, update);
        }
        fleet.manifest().state
    };
    assert_eq!(state([0, 1, 2]), state([2, 0, 1]));
}

#[test]
fn operators_pause_step_resume_and_stop() {
    let mut fleet = Fleet::new(plan(1), 1);
    fleet.command(Command::Pause);
    assert_eq!(fleet.status(), Status::Pausing);
    fleet.round(&[1.0]);
    assert_eq!((fleet.status(), fleet.manifest().goal), (Status::Paused, fedtt_wire::message::Goal::Rest));
    fleet.wait(1_000_000);
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Rest);
    fleet.command(Command::Step);
    assert_eq!((fleet.status(), fleet.manifest().round), (Status::Running, 1));
    fleet.round(&[1.0]);
    assert_eq!(fleet.status(), Status::Paused);
    fleet.command(Command::Resume);
    fleet.round(&[1.0]);
    assert_eq!(fleet.manifest().round, 3);
    fleet.command(Command::Stop);
    assert_eq!((fleet.status(), fleet.retained.len()), (Status::Stopped, 0));
    let error = fleet.coordinator.command(fleet.run.as_str(), Command::Resume, 0).unwrap_err().to_string();
    assert!(error.contains("test-1 is stopped"), "{error}");
    assert!(fleet.coordinator.command("none", Command::Stop, 0).is_err());
}

#[test]
fn a_round_that_fails_while_its_run_pauses_is_not_begun_again() {
    let mut fleet = Fleet::new(plan(1), 1);
    fleet.command(Command::Pause);
    fleet.wait(61_000);
    assert_eq!((fleet.status(), fleet.manifest().goal), (Status::Paused, fedtt_wire::message::Goal::Rest));
    fleet.wait(1_000_000);
    assert_eq!(fleet.manifest().goal, fedtt_wire::message::Goal::Rest);
    fleet.command(Command::Resume);
    assert_eq!((fleet.status(), fleet.manifest().round, fleet.manifest().attempt), (Status::Running, 0, 0));
    fleet.round(&[1.0]);
    assert_eq!(fleet.manifest().round, 1);
}

#[test]
fn a_round_waits_for_the_fewest_updates_it_may_end_with() {
    let mut few = Plan { rounds: 1, ..plan(1) };
    few.selection.fraction = Some(0.1);
    few.collection.count = Bounds { min: Some(3), max: None };
    let mut fleet = Fleet::new(few, 2);
    fleet.wait(61_000);
    let waiting = fleet.events.iter().any(|e| matches!(e, What::Waiting { present: 2, needed: 3 }));
    assert!(waiting && !fleet.events.iter().any(|e| matches!(e, What::RoundBegan { .. })), "{:?}", fleet.events);
    fleet.join(2, &[], "bundle");
    fleet.wait(1);
    assert!(fleet.events.iter().any(|e| matches!(e, What::RoundBegan { cohort: 3, .. })), "{:?}", fleet.events);
    let mut wrong = plan(1);
    wrong.selection.count = Some(2);
    wrong.collection.count = Bounds { min: Some(3), max: None };
    assert!(wrong.validate().unwrap_err().to_string().contains("collection.count"));
}

#[test]
fn a_clock_that_is_set_back_makes_no_round_longer() {
    let mut fleet = Fleet::new(plan(2), 2);
    let failed = |fleet: &Fleet| fleet.events.iter().filter(|e| matches!(e, What::RoundFailed { .. })).count();
    fleet.now = 10_000_000;
    fleet.wait(1);
    fleet.wait(5_001);
    assert_eq!((failed(&fleet), fleet.manifest().attempt), (1, 1));
    fleet.now = 5_000;
    fleet.wait(1);
    fleet.wait(60_001);
    assert_eq!(failed(&fleet), 2, "in the usual time");
    assert_eq!(fleet.manifest().attempt, 1);
    let mut fleet = Fleet::new(plan(2), 2);
    fleet.now = 10_000_000;
    fleet.wait(1);
    fleet.now = 0;
    fleet.wait(1);
    fleet.wait(300_001);
    assert_eq!(fleet.manifest().attempt, 1, "after no more than the longest pause");
}

#[test]
fn quiet_hours_of_all_devices_pause_no_run() {
    let mut fleet = Fleet::new(plan(2), 2);
    let morning = 8 * 3_600_000;
    let mut attempts = 0;
    while fleet.now < morning {
        for i in 0..2 {
            let reason = "quiet hours".into();
            let refusal = Refusal { run: fleet.run.clone(), round: 0, reason, until: Some(morning) };
            fleet.send(Topic::Up(device(i)), Message::from(refusal).encode(3).unwrap());
        }
        attempts += 1;
        assert_eq!(fleet.status(), Status::Running, "{attempts}");
        fleet.wait(300_001);
    }
    assert!((90..=100).contains(&attempts), "{attempts}");
    for retry in 1..=3 {
        fleet.wait(60_001);
        assert_eq!(fleet.status(), Status::Running, "only failures of another kind count: {retry}");
        fleet.wait(300_001);
    }
    fleet.round(&[1.0, 3.0]);
    assert_eq!(fleet.manifest().round, 1);
}

#[test]
fn a_round_closes_with_enough_and_fails_with_too_few() {
    let mut fleet = Fleet::new(plan(4), 4);
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    fleet.wait(59_000);
    assert_eq!(fleet.manifest().round, 0);
    fleet.wait(2_000);
    assert!(fleet.events.iter().any(|e| matches!(e, What::RoundFailed { reason } if reason.contains("2 needed"))));
    fleet.wait(6_000);
    assert_eq!((fleet.manifest().round, fleet.manifest().attempt), (0, 1));
    assert_eq!(
        fleet.deliver(0, fleet.update(0, 1.0, 1)),
        Outcome::Duplicate,
        "finished work counts in the next attempt"
    );
    fleet.deliver(1, fleet.update(1, 1.0, 1));
    fleet.wait(61_000);
    assert_eq!(fleet.manifest().round, 1);
    for attempt in 1..=4 {
        fleet.wait(61_000);
        fleet.wait(5_000 * attempt + 1);
    }
    assert_eq!(fleet.status(), Status::Paused);
    let reason = fleet.coordinator.runs()[&fleet.run].summary().reason.clone().unwrap();
    assert!(reason.contains("round 2 failed 4 times"), "{reason}");
}

#[test]
fn refusals_are_not_waited_for() {
    let mut fleet = Fleet::new(plan(3), 3);
    let refusal = Refusal { run: fleet.run.clone(), round: 0, reason: "quiet hours".into(), until: None };
    fleet.send(Topic::Up(device(2)), Message::from(refusal).encode(3).unwrap());
    fleet.deliver(0, fleet.update(0, 1.0, 1));
    fleet.deliver(1, fleet.update(1, 1.0, 1));
    assert_eq!(fleet.manifest().round, 1);
    let device = &fleet.coordinator.devices()[&device(2)];
    assert_eq!(device.last_refusal.as_ref().unwrap().1, "quiet hours");
}

#[test]
fn cohorts_hold_only_devices_that_fit() {
    let mut wanted = plan(2);
    wanted.selection.labels = vec!["north".into()];
    let mut fleet = Fleet::new(wanted, 1);
    fleet.join(1, &["north"], "bundle");
    fleet.join(2, &["north"], "another bundle");
    assert!(!fleet.retained.contains_key(&format!("{:?}", Topic::Round(fleet.run.clone()))));
    fleet.join(3, &["south", "north"], "bundle");
    assert_eq!(fleet.manifest().cohort, [device(1), device(3)]);
}

#[test]
fn the_same_token_starts_a_run_once() {
    let mut fleet = Fleet::new(plan(1), 1);
    let again = fleet.coordinator.start(plan(1), blueprint(), Some("token"), 5).unwrap();
    assert_eq!(again, (fleet.run.clone(), false));
    let other = fleet.coordinator.start(plan(1), blueprint(), None, 5).unwrap();
    assert_eq!((other.0.as_str(), other.1), ("test-2", true));
}

#[test]
fn a_plan_goes_out_with_its_rate() {
    let mut asked = plan(1);
    let said = |fleet: &Fleet| {
        let bytes = &fleet.retained[&format!("{:?}", Topic::Plan(fleet.run.clone()))];
        let Message::RunPlan(said) = Message::decode(bytes, 1 << 20).unwrap() else { panic!("no plan") };
        said.plan.local.rate
    };
    assert_eq!(said(&Fleet::new(asked.clone(), 1)), Some(5e-3), "a tensor train's usual rate");
    asked.local.rate = Some(0.25);
    assert_eq!(said(&Fleet::new(asked, 1)), Some(0.25));
}

#[test]
fn lost_chunks_are_asked_for() {
    let mut fleet = Fleet::new(plan(1), 1);
    let update = fleet.update(0, 1.0, 1);
    let payload = Message::from(update).encode(3).unwrap();
    let chunks = chunk::split(&fleet.run.clone(), 0, &payload, payload.len() / 5);
    assert!(chunks.len() > 3);
    let mut send = |i: usize| {
        fleet.send(Topic::Up(device(0)), Message::from(chunks[i].clone()).encode(3).unwrap());
        fleet.verdicts.pop().map(|(_, verdict)| verdict.outcome)
    };
    let last = chunks.len() - 1;
    (1..last).filter(|&i| i != 2).for_each(|i| assert_eq!(send(i), None));
    assert_eq!(send(last), Some(Outcome::Missing(vec![0, 2])));
    assert_eq!(send(0), None);
    assert_eq!(send(2), Some(Outcome::Accepted));
}

#[test]
fn with_one_core_only_its_bytes_travel() {
    let mut one = plan(1);
    one.schedule.cores = CoreRule::One;
    one.schedule.biases = 0;
    one.schedule.head = 0;
    let mut fleet = Fleet::new(one, 1);
    let layers = fleet.coordinator.runs()[&fleet.run].parameters().iter().map(|p| p.layer.clone());
    let trains = layers.filter(|layer| !layer.starts_with("head")).collect::<std::collections::BTreeSet<_>>().len();
    assert_eq!(fleet.update(0, 1.0, 1).tensors.len(), trains);
    fleet.round(&[1.0]);
    assert_eq!(fleet.tensors(Topic::Change).places.len(), trains);
}

#[test]
fn a_device_that_gets_the_bundle_first_is_told_of_once() {
    let mut fleet = Fleet::new(plan(1), 1);
    let say = |fleet: &mut Fleet, fetching: &[&str]| {
        let fetching = fetching.iter().map(ToString::to_string).collect();
        let presence = Presence { online: true, fetches: true, fetching, ..Presence::default() };
        fleet.send(Topic::Presence(device(0)), Message::from(presence).encode(3).unwrap());
    };
    for fetching in [&["bundle"][..], &["bundle", "other"], &[], &["other"], &["bundle"]] {
        say(&mut fleet, fetching);
    }
    let told = |what: &&What| matches!(what, What::Fetching { device } if device == "d0");
    assert_eq!(fleet.events.iter().filter(told).count(), 2);
}
