//! Work waits for the board, before it begins and on its way.

use fedtt_wire::{Message, Topic};

use super::world::{Device, Host, plan, run_id};
use crate::local::Stepped;
use crate::round::{Event, LocalPolicy, What};

const HOT: &str = "tj-thermal has 95 °C and must cool to 75";

/// A device asked to take part, whose board is looked at first.
fn asked(policy: LocalPolicy) -> (Device, Host) {
    let (mut device, host) = (Device::new(LocalPolicy { limited: true, ..policy }), Host::new(9));
    device.event(Event::Connected);
    device.message(Topic::Plan(run_id()), plan());
    device.message(Topic::Round(run_id()), host.manifest());
    (device, host)
}

fn looked(device: &mut Device, objection: Option<&str>) {
    device.event(Event::Looked { run: run_id(), objection: objection.map(str::to_string) });
}

/// Lets time pass up to what is due next.
fn wait(device: &mut Device) {
    device.now = device.participant.due().unwrap().max(device.now);
    device.event(Event::Tick);
}

fn refusals(device: &mut Device) -> Vec<String> {
    let said = device.said().into_iter();
    said.filter_map(|message| if let Message::Refusal(refusal) = message { Some(refusal.reason) } else { None })
        .collect()
}

fn held(device: &Device) -> usize {
    device.tells(|what| matches!(what, What::Held { reason, .. } if reason == HOT))
}

#[test]
fn nothing_is_loaded_or_trained_before_the_board_agrees() {
    let (mut device, _) = asked(LocalPolicy::default());
    assert_eq!((device.looks, device.loading.len(), device.jobs.len()), (1, 0, 0));
    looked(&mut device, None);
    assert_eq!(device.loading.len(), 1);
    // Loading took long: the board is looked at again.
    device.now += 10_000;
    device.load();
    assert_eq!((device.looks, device.jobs.len()), (2, 0));
    looked(&mut device, None);
    assert_eq!(device.jobs.len(), 1);
    assert!(device.work() && device.participant.due().is_some());
    assert_eq!(device.tells(|what| matches!(what, What::Held { .. } | What::Resumed { .. })), 0);
}

#[test]
fn a_hot_board_waits_until_it_has_cooled_and_then_takes_part() {
    let (mut device, _) = asked(LocalPolicy::default());
    looked(&mut device, Some(HOT));
    for looks in 2..6 {
        wait(&mut device);
        assert_eq!(device.looks, looks);
        looked(&mut device, Some(HOT));
    }
    assert_eq!((held(&device), refusals(&mut device).len()), (1, 0), "people are told once, the host not yet");
    wait(&mut device);
    looked(&mut device, None);
    assert_eq!(device.tells(|what| matches!(what, What::Resumed { round: 0 })), 1);
    device.load();
    assert_eq!(device.jobs.len(), 1);
}

#[test]
fn a_board_that_stays_hot_tells_the_host_before_the_round_is_over() {
    let (mut device, host) = asked(LocalPolicy::default());
    let began = device.now;
    looked(&mut device, Some(HOT));
    let mut said = Vec::new();
    while said.is_empty() && device.now < began + 60_000 {
        wait(&mut device);
        looked(&mut device, Some(HOT));
        said = refusals(&mut device);
    }
    assert_eq!(said, [HOT]);
    assert!((50_000..60_000).contains(&(device.now - began)), "of the 60 s of the round");
    let looks = device.looks;
    device.message(Topic::Round(run_id()), host.manifest());
    looked(&mut device, None);
    assert_eq!((device.looks, device.jobs.len() + device.loading.len()), (looks, 0), "said is said");
    assert!(device.participant.due().is_none_or(|due| due > device.now), "nothing is due at once, for ever");
}

#[test]
fn a_round_that_ends_while_a_board_waits_is_given_up() {
    let (mut device, mut host) = asked(LocalPolicy::default());
    looked(&mut device, Some(HOT));
    host.rounds = 0;
    device.message(Topic::Round(run_id()), host.manifest());
    assert_eq!(device.tells(|what| matches!(what, What::Stopped { round: 0 })), 1);
    assert!(refusals(&mut device).is_empty());
    let due = device.participant.due().unwrap();
    assert!(due > device.now + 60_000, "nothing is looked at any more");
}

#[test]
fn while_work_pauses_its_time_stands_still() {
    let short = LocalPolicy { max_seconds: Some(30), ..LocalPolicy::default() };
    let (mut device, _) = asked(short);
    looked(&mut device, None);
    device.load();
    let job = device.jobs[0].id;
    device.now += 20_000;
    device.event(Event::Paused { job, reason: Some(HOT.into()) });
    device.now += 3_600_000;
    device.event(Event::Tick);
    assert!(device.stopped.is_empty(), "an hour's pause is no work");
    device.event(Event::Paused { job, reason: None });
    let told = |what: &What| matches!(what, What::Paused { round: 0, .. } | What::Resumed { round: 0 });
    assert_eq!(device.tells(told), 2);
    device.now += 9_000;
    device.event(Event::Progressed { job, stepped: Stepped { step: 1, steps: 2, loss: 0.0 } });
    device.event(Event::Tick);
    assert!(device.stopped.is_empty());
    device.now += 1_000;
    device.event(Event::Tick);
    assert_eq!(device.stopped, [job]);
    assert_eq!(refusals(&mut device), ["its work takes longer than the 30 s this device allows"]);
}

#[test]
fn a_round_that_ends_in_a_pause_is_given_up() {
    let (mut device, mut host) = asked(LocalPolicy::default());
    looked(&mut device, None);
    device.load();
    let job = device.jobs[0].id;
    device.event(Event::Paused { job, reason: Some(HOT.into()) });
    host.rounds = 0;
    device.message(Topic::Round(run_id()), host.manifest());
    assert_eq!(device.stopped, [job]);
    device.event(Event::Paused { job, reason: None });
    assert_eq!(device.tells(|what| matches!(what, What::Resumed { .. })), 0);
}
