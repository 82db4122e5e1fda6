//! A device that cannot take part as things are on it, and whose examples become more.

use fedtt_wire::message::{Outcome, Presence};
use fedtt_wire::{Digest, Message, Topic};

use super::world::{BUNDLE, Device, Host, identity, name, plan, run_id};
use crate::round::{Event, LocalPolicy, What};

fn presence(change: impl FnOnce(&mut Presence)) -> Event {
    let mut presence = identity().presence;
    change(&mut presence);
    Event::Presence(Box::new(presence))
}

fn problem() -> Event {
    presence(|presence| (presence.problem, presence.bundles, presence.examples) = (Some("no disk".into()), vec![], 0))
}

/// The presences it published, drained with all it said.
fn announced(device: &mut Device) -> Vec<Presence> {
    let own = Topic::Presence(name());
    let presence = |(topic, message)| match message {
        Message::Presence(presence) if topic == own => Some(presence),
        _ => None,
    };
    device.sent.drain(..).filter_map(presence).collect()
}

#[test]
fn what_was_made_is_delivered_and_nothing_else_done_until_it_is_mended() {
    let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    device.work();
    let made = device.said();
    assert!(made.len() > 1);

    // The host heard nothing of it, and the next process cannot take part.
    device.restart();
    device.event(problem());
    device.event(Event::Connected);
    assert_eq!(announced(&mut device)[0].problem.as_deref(), Some("no disk"));
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.now += 10_000;
    device.event(Event::Tick);
    let said = device.said();
    assert!(matches!(said.last(), Some(Message::Chunk(_))), "{said:?}");
    let mut answers = Vec::new();
    for chunk in made {
        answers = host.hears(chunk);
    }
    for (topic, message) in answers {
        device.message(topic, message);
    }
    assert_eq!(device.tells(|what| matches!(what, What::Delivered { outcome: "counted", .. })), 1);

    // The next round is not for it, and is no longer once it is mended.
    let said = device.said();
    let [Message::Refusal(refusal)] = said.as_slice() else { panic!("{said:?}") };
    assert!(refusal.round == 1 && refusal.reason.contains("no disk"), "{refusal:?}");
    assert!(device.loading.is_empty() && device.jobs.is_empty() && device.offered.is_empty());
    device.event(presence(|_| {}));
    device.load();
    assert_eq!(device.jobs.iter().map(|job| job.round).collect::<Vec<_>>(), [1]);
    assert_eq!(device.offered.len(), 1);
}

#[test]
fn more_examples_are_announced_and_may_be_enough() {
    let (mut device, host) = (Device::new(LocalPolicy { min_examples: 12, ..LocalPolicy::default() }), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    assert!(device.jobs.is_empty());
    announced(&mut device);
    // Looked at, and the same.
    device.event(presence(|_| {}));
    assert!(announced(&mut device).is_empty());
    device.event(presence(|presence| presence.examples = 12));
    assert_eq!(announced(&mut device).iter().map(|presence| presence.examples).collect::<Vec<_>>(), [12]);
    let mut again = host.manifest();
    again.attempt = 1;
    device.message(Topic::Round(run_id()), again);
    assert_eq!(device.loading.len(), 1, "they are counted for the plan");
}

#[test]
fn work_that_goes_on_ends_well_whatever_is_found_meanwhile() {
    let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    device.event(problem());
    assert_eq!((device.jobs.len(), device.stopped.len()), (1, 0));
    device.work();
    for message in device.said() {
        host.hears(message);
    }
    assert_eq!(host.counted.len(), 1);
    let verdict = host.verdict(0, Digest::of(&host.counted[0]), Outcome::Accepted);
    device.message(verdict.0, verdict.1);
    assert_eq!(device.tells(|what| matches!(what, What::Delivered { outcome: "counted", .. })), 1);
}

#[test]
fn a_bundle_that_takes_anothers_place_serves_its_runs() {
    let (mut device, host) = (Device::new(LocalPolicy::default()), Host::new(9));
    let mut other = plan();
    other.plan.model.bundle = "b1".into();
    device.event(Event::Connected);
    device.message(Topic::Plan(run_id()), other);
    device.message(Topic::Round(run_id()), host.manifest());
    assert!(device.loading.is_empty());
    device.event(presence(|presence| presence.bundles = vec!["b1".into()]));
    let mut again = host.manifest();
    again.attempt = 1;
    device.message(Topic::Round(run_id()), again);
    assert_eq!(device.loading.len(), 1, "{BUNDLE} is another");
}
