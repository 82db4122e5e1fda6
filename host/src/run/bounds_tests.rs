//! What neither a plan nor a device can drive beyond bounds: packets, retained messages, events, reasons; and traffic, of which
//! every byte counts once.

use fedtt_wire::message::Refusal;

use super::*;
use crate::coordinator::{Limits, RequestError};

fn started(plan: Plan, limits: Limits) -> Result<(), String> {
    let mut coordinator = Coordinator::open(Store::memory().unwrap(), 0).unwrap().within(limits);
    let outcome = coordinator.start(plan, blueprint(), None, 0).map(drop).map_err(|e| e.to_string());
    let runs = coordinator.handle(Vec::new(), 1).unwrap();
    assert_eq!(outcome.is_err(), coordinator.runs().is_empty() && runs.is_empty(), "nothing is left of it, nor said");
    outcome
}

#[test]
fn a_run_beyond_what_the_broker_takes_is_refused_and_not_published() {
    let limits = Limits { packet: 64 << 10, chunks: 16 };
    let chunk = |chunk| {
        let mut plan = plan(1);
        plan.wire.chunk = chunk;
        plan
    };
    started(chunk(60 << 10), limits).unwrap();
    let refused = started(chunk(64 << 10), limits).unwrap_err();
    assert!(
        refused.contains("`wire.chunk`") && refused.contains("65536") && refused.contains("max_packet"),
        "{refused}"
    );

    let mut many = chunk(1024);
    many.adapter.method = fedtt_tt::config::Method::Dense;
    many.adapter.bottleneck = 2500;
    let refused = started(many.clone(), limits).unwrap_err();
    let least = refused.split("it has to be ").nth(1).and_then(|rest| rest.split(' ').next()).unwrap();
    many.wire.chunk = least.parse().unwrap();
    started(many, limits).unwrap();

    let mut wordy = chunk(1024);
    wordy.model.labels = (0..2000u32).map(|i| Digest::of(&i.to_le_bytes()).to_string()).collect();
    let blueprint_labels = started(wordy, limits).unwrap_err();
    assert!(blueprint_labels.contains("too many labels"), "{blueprint_labels}");
}

#[test]
fn a_packet_of_the_largest_chunk_a_plan_may_ask_for_is_understood() {
    let mut plan = plan(1);
    plan.wire.chunk = 64 << 20;
    let mut coordinator = Coordinator::open(Store::memory().unwrap(), 0).unwrap();
    let refused = coordinator.start(plan.clone(), blueprint(), None, 0);
    assert!(matches!(refused, Err(RequestError::Plan(_))));
    plan.wire.chunk = 4 << 20;
    coordinator.start(plan, blueprint(), None, 0).unwrap();
}

#[test]
fn a_device_that_sends_nonsense_without_end_is_counted_and_told_of_a_few_times_a_round() {
    let mut fleet = Fleet::new(plan(2), 2);
    let told = |fleet: &Fleet| fleet.events.iter().filter(|what| matches!(what, What::Refused { .. })).count();
    let bad = Update { examples: 0, ..fleet.update(0, 1.0, 10) };
    for _ in 0..50 {
        assert!(matches!(fleet.deliver(0, bad.clone()), Outcome::Rejected(_)));
    }
    assert_eq!((told(&fleet), fleet.coordinator.runs()[&fleet.run].summary().refused.malformed), (32, 50));
    for i in 0..400 {
        let stranger = Update { device: device(10 + i), ..fleet.update(0, 1.0, 10) };
        (0..4).for_each(|_| drop(fleet.deliver(10 + i, stranger.clone())));
    }
    assert_eq!((told(&fleet), fleet.coordinator.runs()[&fleet.run].summary().refused.foreign), (1000, 1600));
    fleet.round(&[1.0, 1.0]);
    let bad = Update { examples: 0, ..fleet.update(0, 1.0, 10) };
    fleet.deliver(0, bad);
    assert_eq!(told(&fleet), 1001, "of the next round again");
}

#[test]
fn many_refusals_come_to_a_few_reasons() {
    let mut fleet = Fleet::new(plan(40), 40);
    for i in 0..40 {
        let reason = if i < 30 { "the label is unknown".to_string() } else { format!("{i} {}", "too hot ".repeat(60)) };
        let refusal = Refusal { run: fleet.run.clone(), round: 0, reason, until: None };
        fleet.send(Topic::Up(device(i)), Message::from(refusal).encode(3).unwrap());
    }
    let failed = fleet.events.iter().find_map(|what| match what {
        What::RoundFailed { reason } => Some(reason.clone()),
        _ => None,
    });
    let failed = failed.unwrap();
    assert!(failed.contains("the label is unknown") && failed.len() < 1500, "{failed}");
}

#[test]
fn what_a_device_sent_is_counted_by_one_of_the_runs_that_go_on() {
    let mut fleet = Fleet::new(plan(1), 1);
    let first = fleet.run.clone();
    let (second, _) = fleet.coordinator.start(plan(1), blueprint(), None, 0).unwrap();
    let effects = fleet.coordinator.handle(Vec::new(), fleet.now).unwrap();
    fleet.take(effects);
    let mut sent = 0;
    for run in [&first, &second, &first, &second] {
        fleet.run = run.clone();
        sent += 1_000_000;
        let update = Update { sent, received: sent / 2, ..fleet.update(0, 1.0, 10) };
        assert_eq!(fleet.deliver(0, update), Outcome::Accepted);
    }
    let traffic = |run| fleet.coordinator.runs()[run].summary().traffic;
    let (up, down) = (traffic(&first).up + traffic(&second).up, traffic(&first).down + traffic(&second).down);
    assert_eq!(down, sent / 2);
    assert!((sent..sent + 50_000).contains(&up), "{up}");
}
