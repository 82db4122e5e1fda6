//! When a device does not take part, it says why.

use fedtt_wire::message::RunPlan;
use fedtt_wire::{Message, Topic};

use super::world::{Device, Host, plan, run_id, values};
use crate::local::Stepped;
use crate::round::{Event, LocalPolicy, Prepared};

fn refusals(device: &mut Device) -> Vec<String> {
    let reason = |message| match message {
        Message::Refusal(refusal) => Some(refusal.reason),
        _ => None,
    };
    device.said().into_iter().filter_map(reason).collect()
}

fn announced(policy: LocalPolicy, plan: RunPlan) -> (Device, Host) {
    let (mut device, host) = (Device::new(policy), Host::new(9));
    device.event(Event::Connected);
    device.message(Topic::Plan(run_id()), plan);
    device.message(Topic::Round(run_id()), host.manifest());
    (device, host)
}

#[test]
fn plans_that_do_not_match_are_refused() {
    let mut bundle = plan();
    bundle.plan.model.bundle = "b1".into();
    let mut invalid = plan();
    invalid.plan.local.batch = 0;
    for (plan, part) in [(bundle, "does not have the plan's bundle b1"), (invalid, "`local.batch`")] {
        let (mut device, host) = announced(LocalPolicy::default(), plan);
        let said = refusals(&mut device);
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
        assert!(device.loading.is_empty() && device.jobs.is_empty());
        // Once for a manifest; again when the round is begun again, or for a host that has forgotten.
        device.message(Topic::Round(run_id()), host.manifest());
        assert!(refusals(&mut device).is_empty());
        let mut again = host.manifest();
        again.attempt = 1;
        device.message(Topic::Round(run_id()), again.clone());
        assert_eq!(refusals(&mut device).len(), 1);
        device.event(Event::Connected);
        device.message(Topic::Round(run_id()), again);
        assert_eq!(refusals(&mut device).len(), 1);
        // Nobody asks, nobody is told.
        let mut elsewhere = host.manifest();
        elsewhere.round = 1;
        elsewhere.cohort.clear();
        device.message(Topic::Round(run_id()), elsewhere);
        assert!(refusals(&mut device).is_empty());
    }
}

#[test]
fn models_that_do_not_match_are_refused() {
    let prepared = |change: fn(&mut Prepared)| {
        let mut prepared = Prepared { layout: plan().layout, initial: values(0), examples: 9 };
        change(&mut prepared);
        Ok(prepared)
    };
    let cases: [(Result<Prepared, String>, &str); 4] = [
        (Err("label \"x\" is none".into()), "label \"x\" is none"),
        (prepared(|p| p.layout.0[0].shape = vec![7]), "the host's tensor a [700] is a [7] here"),
        (prepared(|p| drop(p.layout.0.pop())), "the host's adapter has 2 tensors, this device's 1"),
        (prepared(|p| p.examples = 3), "3 examples; this device trains on at least 4"),
    ];
    for (outcome, part) in cases {
        let (mut device, _) = announced(LocalPolicy { min_examples: 4, ..LocalPolicy::default() }, plan());
        assert_eq!(device.loading.len(), 1);
        device.event(Event::Prepared { run: run_id(), outcome });
        let said = refusals(&mut device);
        assert!(said.len() == 1 && said[0].contains(part), "{said:?}");
        assert!(device.jobs.is_empty());
    }
}

#[test]
fn failed_work_is_a_refusal() {
    let (mut device, host) = announced(LocalPolicy::default(), plan());
    device.load();
    let job = device.jobs[0].id;
    device.event(Event::Trained { job, outcome: Err("the loss became NaN".into()), traffic: (0, 0) });
    assert_eq!(refusals(&mut device), ["the loss became NaN"]);
    device.jobs.clear();
    device.message(Topic::Round(run_id()), host.manifest());
    assert!(device.jobs.is_empty(), "the same would come of it");
}

#[test]
fn the_owner_of_a_device_has_the_last_word() {
    // The clock of the test stands at 22:13 UTC.
    let quiet = LocalPolicy { quiet: Some("22:00-23:00".parse().unwrap()), ..LocalPolicy::default() };
    let (mut device, _) = announced(quiet, plan());
    assert_eq!(refusals(&mut device), ["quiet hours, 22:00-23:00"]);

    let soon = LocalPolicy { quiet: Some("22:20-23:00".parse().unwrap()), ..LocalPolicy::default() };
    let (mut device, _) = announced(soon, plan());
    device.load();
    assert_eq!(device.jobs.len(), 1);
    device.now += 10 * 60_000;
    assert!(device.participant.due().unwrap() <= device.now);
    device.event(Event::Tick);
    assert_eq!(refusals(&mut device), ["quiet hours, 22:20-23:00"]);
    assert_eq!((device.jobs.len(), device.stopped.len()), (0, 1));

    let short = LocalPolicy { max_seconds: Some(30), ..LocalPolicy::default() };
    let (mut device, _) = announced(short, plan());
    device.load();
    let job = device.jobs[0].id;
    assert_eq!(device.participant.due(), Some(device.now + 30_000));
    device.now += 30_000;
    device.event(Event::Tick);
    let said = refusals(&mut device);
    assert_eq!(said, ["its work takes longer than the 30 s this device allows"]);
    device.event(Event::Progressed { job, stepped: Stepped { step: 1, steps: 2, loss: 0.0 } });
    assert!(device.said().is_empty());
}

#[test]
fn a_bound_that_is_none_stops_nothing() {
    let policy = LocalPolicy { max_seconds: Some(i64::MAX as u64), ..LocalPolicy::default() };
    let (mut device, _) = announced(policy, plan());
    device.load();
    device.event(Event::Tick);
    assert_eq!((device.jobs.len(), device.stopped.len()), (1, 0));
    assert!(refusals(&mut device).is_empty() && device.participant.due().is_some());
}
