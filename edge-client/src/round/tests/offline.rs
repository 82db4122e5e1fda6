//! Days without the broker.

use fedtt_wire::{Message, Topic};

use super::world::{Device, Host, plan, run_id};
use crate::round::{Event, LocalPolicy, Slot, What};

const DAY: u64 = 86_400_000;

/// A device that lost its connection while it trained, and has its work done; and its host.
fn cut_off() -> (Device, Host) {
    let (mut device, host) = (Device::new(LocalPolicy::default()), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    device.event(Event::Disconnected);
    device.work();
    device.sent.clear();
    (device, host)
}

#[test]
fn a_device_without_its_broker_for_days_keeps_its_work_and_delivers_it() {
    let (mut device, mut host) = cut_off();
    let kept = device.disk[&(run_id(), Slot::Work)].clone();
    let told = device.told.len();
    let (began, mut wakes) = (device.now, 0);
    while device.now < began + 10 * DAY {
        // As the daemon does: at the latest every 30 seconds, or when something is due.
        let due = device.participant.due().unwrap_or(u64::MAX).min(device.now + 30_000);
        device.now = due.max(device.now + 1);
        device.event(Event::Tick);
        // The link tries again and fails.
        if wakes % 2 == 0 {
            device.event(Event::Disconnected);
        }
        wakes += 1;
        if wakes % 5_000 == 0 {
            device.restart();
            device.event(Event::Disconnected);
        }
    }
    assert!(wakes <= 10 * 2 * 1440 + 10, "it sleeps between: {wakes}");
    assert!(device.sent.is_empty() && device.jobs.is_empty(), "nothing piles up for nobody");
    assert_eq!(device.told.len(), told);
    assert_eq!(device.disk.len(), 2);
    assert_eq!(device.disk[&(run_id(), Slot::Work)], kept, "its work is as it was");

    // The host still waits for this round: it hears of it, counts it and goes on.
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    let mut rounds = 0;
    while host.counted.is_empty() && rounds < 100 {
        rounds += 1;
        device.now = device.participant.due().unwrap().max(device.now);
        device.event(Event::Tick);
        for message in device.said() {
            for (topic, message) in host.hears(message) {
                device.message(topic, message);
            }
        }
    }
    assert_eq!((host.counted.len(), host.round), (1, 1));
    assert!(device.repeated.is_empty(), "it was trained once");
}

#[test]
fn a_device_that_is_back_after_days_takes_part_in_the_round_of_now() {
    let (mut device, mut host) = cut_off();
    device.now += 3 * DAY;
    let mut said = vec![(Topic::Plan(run_id()), Message::from(plan()))];
    said.extend(host.advance());
    said.extend(host.advance());
    device.event(Event::Connected);
    for (topic, message) in said {
        device.message(topic, message);
    }
    assert_eq!(device.tells(|what| matches!(what, What::Delivered { round: 0, .. })), 1);
    assert_eq!(device.jobs.last().unwrap().round, 2);
}
