//! Whatever is lost, the host ends with the same updates.

use std::collections::VecDeque;

use fedtt_wire::{Digest, Message, Topic};
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::world::{Device, Host};
use crate::round::{Event, LocalPolicy};

const ROUNDS: u32 = 5;

/// What can go wrong.
#[derive(Clone, Copy, Default)]
struct Trouble {
    /// Of a message in either direction to be lost.
    loss: f64,
    /// To be delivered twice.
    twice: f64,
    /// For the order of messages under way to be another.
    disorder: f64,
    /// For the device's process to be killed between two events.
    death: f64,
}

/// Drives device and host until the run is over; returns the digests of what was counted.
fn play(device: &mut Device, host: &mut Host, trouble: Trouble, seed: u64) -> Vec<Digest> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut down: VecDeque<(Topic, Message)> = VecDeque::new();
    let connect = |device: &mut Device, host: &Host, down: &mut VecDeque<_>| {
        down.clear();
        down.extend(host.retained());
        device.event(Event::Connected)
    };
    let mut alive = connect(device, host, &mut down);
    for _ in 0..20_000 {
        if host.round >= ROUNDS && down.is_empty() {
            return host.counted.iter().map(|payload| Digest::of(payload)).collect();
        }
        if !alive || rng.random_bool(trouble.death) {
            device.restart();
            alive = connect(device, host, &mut down);
            continue;
        }
        for message in device.said() {
            if !rng.random_bool(trouble.loss) {
                down.extend(host.hears(message.clone()));
            }
            if rng.random_bool(trouble.twice) {
                down.extend(host.hears(message));
            }
        }
        if rng.random_bool(trouble.disorder) {
            down.make_contiguous().shuffle(&mut rng);
        }
        if let Some((topic, message)) = down.pop_front() {
            let states = device.filters.iter().any(|filter| filter.contains("/state/"));
            if matches!(topic, Topic::State(..)) && !states || rng.random_bool(trouble.loss) {
                continue;
            }
            if rng.random_bool(trouble.twice) {
                down.push_back((topic.clone(), message.clone()));
            }
            alive = device.message(topic, message);
        } else if !device.loading.is_empty() {
            alive = device.load();
        } else if !device.jobs.is_empty() {
            alive = device.work();
        } else {
            device.now = device.now.max(device.participant.due().unwrap());
            alive = device.event(Event::Tick);
            let announcements = device.participant.topics().announcements();
            if announcements.iter().filter(|filter| device.filters.remove(*filter)).count() > 0 {
                // To a new subscription the broker says again what it keeps.
                down.extend(host.retained());
            }
        }
    }
    panic!(
        "stuck in round {} of {ROUNDS}; told {:#?}",
        host.round,
        device.told.iter().rev().take(8).collect::<Vec<_>>()
    );
}

fn undisturbed() -> (Vec<Digest>, usize) {
    let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(ROUNDS));
    let counted = play(&mut device, &mut host, Trouble::default(), 0);
    assert_eq!(counted.len(), ROUNDS as usize);
    assert_eq!(host.snapshots, 0, "a fresh adapter and changes are enough");
    (counted, device.effects)
}

#[test]
fn power_lost_between_any_two_effects_costs_nothing() {
    let (expected, effects) = undisturbed();
    assert!(effects > 50, "{effects}");
    for limit in 0..effects {
        let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(ROUNDS));
        device.fails_after = Some(limit);
        let counted = play(&mut device, &mut host, Trouble::default(), limit as u64);
        assert_eq!(counted, expected, "power lost after {limit} effects");
        assert_eq!(device.repeated, [0u32; 0], "finished work was done again after {limit} effects");
    }
}

#[test]
fn loss_disorder_duplicates_and_death_cost_nothing() {
    let (expected, _) = undisturbed();
    let kinds = [
        Trouble { loss: 0.2, ..Trouble::default() },
        Trouble { twice: 0.3, ..Trouble::default() },
        Trouble { disorder: 0.5, ..Trouble::default() },
        Trouble { death: 0.05, ..Trouble::default() },
        Trouble { loss: 0.1, twice: 0.2, disorder: 0.3, death: 0.02 },
    ];
    for (kind, trouble) in kinds.into_iter().enumerate() {
        for seed in 0..30 {
            let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(ROUNDS));
            let counted = play(&mut device, &mut host, trouble, seed);
            assert_eq!(counted, expected, "trouble {kind}, seed {seed}");
            assert_eq!(device.repeated, [0u32; 0], "trouble {kind}, seed {seed}");
        }
    }
}

#[test]
fn what_a_broker_lost_is_asked_for_again_and_again() {
    let mut device = Device::new(LocalPolicy::default());
    device.event(Event::Connected);
    device.sent.clear();
    device.now += 200_000;
    device.event(Event::Tick);
    assert!(device.sent.is_empty() && device.filters.is_empty(), "too early");
    let host = Host::new(1);
    for turn in 0..3 {
        let due = device.participant.due().unwrap();
        assert!(due <= device.now + 600_000, "turn {turn}");
        device.now = due;
        device.event(Event::Tick);
        assert!(matches!(device.sent.as_slice(), [(Topic::Presence(_), Message::Presence(p))] if p.online));
        device.sent.clear();
        let announcements = device.participant.topics().announcements();
        assert!(announcements.iter().all(|filter| device.filters.remove(filter)), "turn {turn}");
    }
    // The answer to the new subscriptions: what was lost is there.
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    assert!(device.load() && device.work());
    assert!(device.said().iter().any(|message| matches!(message, Message::Chunk(_))));
}
