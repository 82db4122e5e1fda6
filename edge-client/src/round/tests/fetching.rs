//! Bundles a device lacks are fetched, and global states are handed on to be used.

use fedtt_wire::message::Refusal;
use fedtt_wire::{Message, Topic};

use super::world::{Device, Host, name, plan, run_id};
use crate::round::{Event, LocalPolicy, What};

fn refusals(said: Vec<Message>) -> Vec<Refusal> {
    let refusal = |message| if let Message::Refusal(refusal) = message { Some(refusal) } else { None };
    said.into_iter().filter_map(refusal).collect()
}

/// A device that is asked for a run whose bundle it lacks and may fetch.
fn asked() -> (Device, Host) {
    let (mut device, host) = (Device::new(LocalPolicy { fetch: true, ..LocalPolicy::default() }), Host::new(9));
    let mut plan = plan();
    plan.plan.model.bundle = "b1".into();
    device.event(Event::Connected);
    device.message(Topic::Plan(run_id()), plan);
    assert!(device.fetching.is_empty(), "nobody has asked");
    device.message(Topic::Round(run_id()), host.manifest());
    (device, host)
}

/// The bundles it last said to be fetching.
fn told(device: &Device) -> Vec<String> {
    let last = device.sent.iter().rev().find_map(|(topic, message)| match message {
        Message::Presence(presence) if *topic == Topic::Presence(name()) => Some(presence.fetching.clone()),
        _ => None,
    });
    last.unwrap()
}

fn fetched(device: &mut Device, outcome: Result<(), &str>) {
    device.event(Event::Fetched { bundle: "b1".into(), outcome: outcome.map_err(String::from) });
}

#[test]
fn a_bundle_it_lacks_is_fetched_once_it_is_asked_for() {
    let (mut device, host) = asked();
    assert_eq!(device.fetching, ["b1"]);
    assert_eq!(device.tells(|what| matches!(what, What::FetchingBundle { have: 0, .. })), 1);
    device.message(Topic::Round(run_id()), host.manifest());
    device.event(Event::Connected);
    device.message(Topic::Round(run_id()), host.manifest());
    assert_eq!(device.fetching, ["b1"], "not twice at a time");
    assert_eq!(told(&device), ["b1"]);
    assert!(refusals(device.said()).is_empty() && device.loading.is_empty());

    device.sent.clear();
    fetched(&mut device, Ok(()));
    let announced = device.sent.iter().any(|(topic, message)| match message {
        Message::Presence(presence) => {
            *topic == Topic::Presence(name()) && presence.bundles.contains(&"b1".to_string())
        }
        _ => false,
    });
    assert!(announced && told(&device).is_empty(), "{:?}", device.sent);
    assert_eq!(device.loading.len(), 1);
    device.load();
    assert_eq!(device.jobs.len(), 1);
}

#[test]
fn a_bundle_that_cannot_be_had_is_a_refusal_and_tried_again_in_the_next_round() {
    let (mut device, host) = asked();
    fetched(&mut device, Err("answers 404"));
    assert!(told(&device).is_empty());
    let said = refusals(device.said());
    assert!(said.len() == 1 && said[0].reason.contains("b1") && said[0].reason.contains("404"), "{said:?}");
    device.message(Topic::Round(run_id()), host.manifest());
    assert_eq!(device.fetching, ["b1"], "this round is refused");
    let mut again = host.manifest();
    again.attempt = 1;
    again.issued += 1;
    device.message(Topic::Round(run_id()), again);
    assert_eq!(device.fetching, ["b1", "b1"]);
    // Of another run, or of none any more.
    device.event(Event::Fetched { bundle: "b2".into(), outcome: Ok(()) });
    assert!(device.loading.is_empty());
    fetched(&mut device, Ok(()));
    assert_eq!(device.loading.len(), 1);
}

#[test]
fn each_global_state_is_handed_on_once_and_a_bad_one_is_told_to_the_host() {
    let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    assert!(device.offered.is_empty(), "fresh adapters know nothing");
    device.work();
    for message in device.said() {
        for (topic, message) in host.hears(message) {
            device.message(topic, message);
        }
    }
    assert_eq!(device.offered, [(1, host.digest())]);
    device.message(Topic::Round(run_id()), host.manifest());
    assert_eq!(device.offered.len(), 1);
    device.said();

    device.event(Event::Adopted { run: run_id(), round: 1, outcome: Err("its loss is worse".into()) });
    let said = refusals(device.said());
    assert!(said.len() == 1 && said[0].round == 0 && said[0].reason.contains("its loss is worse"), "{said:?}");
    assert_eq!(device.tells(|what| matches!(what, What::NotAdopted { round: 1, .. })), 1);
    assert_eq!(device.jobs.len(), 1, "it trains on all the same");
    device.event(Event::Adopted { run: run_id(), round: 1, outcome: Ok(()) });
    assert_eq!(device.tells(|what| matches!(what, What::Adopted { round: 1 })), 1);

    // After a restart what is on the disk is offered again: it may not have got through.
    device.restart();
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    assert_eq!(device.offered.len(), 2);
}
