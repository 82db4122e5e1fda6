//! What is said when.

use fedtt_wire::message::{Chunk, End, Goal, Outcome};
use fedtt_wire::{Digest, Message, RunId, Topic};

use super::world::{BEGAN, Device, Host, name, plan, run_id};
use crate::local::Stepped;
use crate::round::kept::{Settled, Work};
use crate::round::{Event, LocalPolicy, Slot, What};

/// A device in the first round of a run, its model loaded.
fn begun() -> (Device, Host) {
    let (mut device, host) = (Device::new(LocalPolicy::default()), Host::new(9));
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    (device, host)
}

fn chunks(device: &mut Device) -> Vec<Chunk> {
    let chunk = |message| match message {
        Message::Chunk(chunk) => Some(chunk),
        _ => None,
    };
    device.said().into_iter().filter_map(chunk).collect()
}

fn work(device: &Device) -> Work {
    Work::decode(&device.disk[&(run_id(), Slot::Work)]).unwrap()
}

#[test]
fn a_connected_device_says_who_it_is() {
    let mut device = Device::new(LocalPolicy::default());
    device.event(Event::Connected);
    let (topic, message) = device.sent.remove(0);
    assert_eq!(topic, Topic::Presence(name()));
    assert!(matches!(message, Message::Presence(presence) if presence.online));
    let (topic, farewell) = device.participant.farewell();
    assert_eq!(topic, Topic::Presence(name()));
    assert!(!farewell.online);
}

#[test]
fn an_update_is_repeated_until_the_host_has_spoken() {
    let (mut device, host) = begun();
    device.work();
    let sent = chunks(&mut device);
    assert!(sent.len() > 2, "{}", sent.len());
    let digest = sent[0].parcel.digest;
    let (mut waits, mut last) = (Vec::new(), device.now);
    while waits.len() < 12 {
        let due = device.participant.due().unwrap();
        device.now = due - 1;
        device.event(Event::Tick);
        assert!(chunks(&mut device).is_empty(), "not yet");
        device.now = due;
        device.event(Event::Tick);
        let again = chunks(&mut device);
        // None where it was time to listen for rounds.
        if let Some(chunk) = again.first() {
            assert_eq!((again.len(), chunk), (1, &sent[sent.len() - 1]), "the last chunk alone");
            waits.push(due - last);
            last = due;
        }
    }
    assert!(waits[0] <= 5_000 && waits[11] >= 150_000 && waits[11] <= 300_000, "{waits:?}");

    let (topic, missing) = host.verdict(0, digest, Outcome::Missing(vec![0, 2]));
    device.message(topic, missing);
    let again = chunks(&mut device);
    assert_eq!(again, [sent[0].clone(), sent[2].clone()]);
    // A verdict on something else changes nothing.
    let (topic, other) = host.verdict(0, Digest::of(b"else"), Outcome::Accepted);
    device.message(topic, other);
    assert!(device.participant.due().is_some());
    let (topic, accepted) = host.verdict(0, digest, Outcome::Accepted);
    device.message(topic, accepted);
    device.now += 400_000;
    device.event(Event::Tick);
    assert!(chunks(&mut device).is_empty());
    assert!(work(&device).memory.residual.is_some());
}

#[test]
fn what_becomes_of_an_update_decides_what_is_kept() {
    let rejected = || Outcome::Rejected("outlying".into());
    let cases: [(Outcome, Settled, bool); 4] = [
        (Outcome::Accepted, Settled::Counted, true),
        (Outcome::Duplicate, Settled::Counted, true),
        (Outcome::Late, Settled::Late, false),
        (rejected(), Settled::Rejected, false),
    ];
    for (outcome, settled, adopted) in cases {
        let (mut device, host) = begun();
        device.work();
        let digest = chunks(&mut device)[0].parcel.digest;
        let (topic, verdict) = host.verdict(0, digest, outcome.clone());
        device.message(topic, verdict);
        let work = work(&device);
        assert_eq!(work.last.as_ref().unwrap().verdict, settled);
        assert_eq!(work.memory.residual.is_some(), adopted, "{outcome:?}");
        // The same round begun again: what may still count is delivered again, and nothing is trained twice.
        let mut again = host.manifest();
        again.attempt = 1;
        device.message(Topic::Round(run_id()), again);
        assert!(device.jobs.is_empty());
        assert_eq!(chunks(&mut device).is_empty(), settled == Settled::Rejected, "{outcome:?}");
    }
}

#[test]
fn a_later_manifest_settles_an_update_whose_verdict_was_lost() {
    for counted in [true, false] {
        let (mut device, mut host) = begun();
        device.work();
        host.advance();
        let mut manifest = host.manifest();
        if !counted {
            manifest.counted.clear();
        }
        device.message(Topic::Round(run_id()), manifest);
        let work = work(&device);
        let expected = if counted { Settled::Counted } else { Settled::Late };
        assert_eq!((work.last.unwrap().verdict, work.memory.residual.is_some()), (expected, counted));
    }
    // Two rounds later nobody says: what coding had left over before may have been counted, and is not sent again.
    let (mut device, mut host) = begun();
    device.work();
    host.advance();
    host.advance();
    device.message(Topic::Round(run_id()), host.manifest());
    let work = work(&device);
    assert_eq!((work.last.unwrap().verdict, work.memory.residual.is_some()), (Settled::Late, true));
}

#[test]
fn a_round_that_is_over_is_not_trained_on() {
    let (mut device, mut host) = begun();
    let job = device.jobs[0].clone();
    assert_eq!((job.round, job.goal, job.rate), (0, Goal::Train, 1.0));
    for (topic, message) in host.advance() {
        device.message(topic, message);
    }
    assert_eq!(device.stopped, [job.id]);
    assert_eq!(device.jobs.len(), 1);
    assert_eq!(*device.jobs[0].globals, host.values);
    // Its result comes too late.
    let outcome = Err("stopped".into());
    device.event(Event::Trained { job: job.id, outcome, traffic: (0, 0) });
    assert!(device.said().is_empty() && device.jobs.len() == 1);
    // The run rests: nothing to do.
    let mut rest = host.manifest();
    rest.goal = Goal::Rest;
    device.message(Topic::Round(run_id()), rest);
    assert!(device.jobs.is_empty() && device.stopped.len() == 2);
}

#[test]
fn the_same_round_begun_again_does_not_start_the_work_over() {
    let (mut device, host) = begun();
    let mut again = host.manifest();
    again.attempt = 2;
    device.message(Topic::Round(run_id()), again);
    assert!(device.stopped.is_empty() && device.jobs.len() == 1);
}

#[test]
fn progress_is_reported_now_and_then() {
    let (mut device, _) = begun();
    let job = device.jobs[0].id;
    let mut said = 0;
    for step in 1..=100 {
        device.now += 400;
        device.event(Event::Progressed { job, stepped: Stepped { step, steps: 100, loss: 0.5 } });
        said += device.said().len();
    }
    assert_eq!(said, 7, "40 seconds");
}

#[test]
fn changes_are_followed_by_those_who_are_not_asked() {
    let (mut device, mut host) = begun();
    device.work();
    device.said();
    for round in 1..4 {
        let mut said = host.advance();
        let (topic, Message::Manifest(mut manifest)) = said.pop().unwrap() else { panic!() };
        manifest.cohort.clear();
        if round == 2 {
            // The manifest overtakes the change.
            device.message(topic, manifest);
        } else {
            said.push((topic, manifest.into()));
        }
        for (topic, message) in said {
            device.message(topic, message);
        }
    }
    assert!(device.jobs.is_empty() && device.said().is_empty());
    for (topic, message) in host.advance() {
        device.message(topic, message);
    }
    assert_eq!(*device.jobs[0].globals, host.values);
    assert_eq!(host.snapshots, 0);
}

#[test]
fn a_device_that_lacks_the_state_asks_for_it() {
    let (mut device, mut host) = (Device::new(LocalPolicy::default()), Host::new(9));
    host.advance();
    host.advance();
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    assert!(device.filters.contains("fedtt/f/run/r1/state/+"));
    let said = device.said();
    let Message::Need(need) = &said[0] else { panic!("{said:?}") };
    assert_eq!(need.state, host.digest());
    device.now = device.participant.due().unwrap();
    device.event(Event::Tick);
    assert_eq!(device.said(), said, "asked again");

    // What the broker kept of another round is no answer, nor is one that was tampered with.
    let mut other = Host::new(9);
    for (topic, message) in other.snapshot() {
        device.message(topic, message);
    }
    assert!(device.jobs.is_empty());
    for (topic, message) in host.snapshot().into_iter().rev() {
        device.message(topic.clone(), message.clone());
    }
    assert_eq!(*device.jobs[0].globals, host.values);
    assert!(device.filters.is_empty());
    assert!(device.disk.contains_key(&(run_id(), Slot::State)));
}

#[test]
fn a_change_that_does_not_come_or_does_not_fit_is_replaced_by_the_whole_state() {
    for spoilt in [false, true] {
        let (mut device, mut host) = begun();
        device.work();
        device.said();
        let said = host.advance();
        let manifest = said.last().unwrap().clone();
        if spoilt {
            // The change of a host that computed something else: whole, but it leads elsewhere.
            let Message::Manifest(mut manifest) = manifest.1 else { panic!() };
            manifest.state = Digest::of(b"elsewhere");
            device.message(manifest_topic(), manifest);
            for (topic, message) in host.changes() {
                device.message(topic, message);
            }
        } else {
            device.message(manifest.0, manifest.1);
            assert!(device.said().is_empty(), "the change may be on its way");
            device.now = device.participant.due().unwrap();
            device.event(Event::Tick);
        }
        let said = device.said();
        assert!(matches!(said.as_slice(), [Message::Need(_)]), "{spoilt}: {said:?}");
    }
}

fn manifest_topic() -> Topic {
    Topic::Round(run_id())
}

#[test]
fn foreign_and_malformed_messages_are_named_and_change_nothing() {
    let (mut device, host) = begun();
    let jobs = device.jobs.len();
    let elsewhere = RunId::new("other").unwrap();
    let chunk = Chunk {
        run: run_id(),
        round: 0,
        parcel: fedtt_wire::chunk::parcel(&[0; 10], 5),
        index: 7,
        data: vec![0; 5].into(),
    };
    let huge =
        Chunk { parcel: fedtt_wire::message::Parcel { size: 1 << 40, ..chunk.parcel }, index: 0, ..chunk.clone() };
    let strange: Vec<(Topic, Message)> = vec![
        (Topic::Round(elsewhere.clone()), host.manifest().into()),
        (Topic::Plan(elsewhere), plan().into()),
        (Topic::Round(run_id()), plan().into()),
        (Topic::Down(name()), host.manifest().into()),
        (Topic::Change(run_id(), 7), chunk.clone().into()),
        (Topic::Change(run_id(), 1), chunk.into()),
        (Topic::Change(run_id(), 0), huge.into()),
        (Topic::Up(name()), host.manifest().into()),
    ];
    for (i, (topic, message)) in strange.into_iter().enumerate() {
        device.message(topic, message);
        assert_eq!(device.tells(|what| matches!(what, What::Ignored { .. })), i + 1);
    }
    assert_eq!(device.jobs.len(), jobs);
    assert!(device.said().is_empty());
}

#[test]
fn a_run_that_is_over_leaves_nothing_behind() {
    let (mut device, _) = begun();
    device.work();
    assert!(!device.disk.is_empty());
    device.message(Topic::Plan(run_id()), End { run: run_id(), began: BEGAN });
    assert!(device.disk.is_empty());
    device.said();
    device.now += 400_000;
    device.event(Event::Tick);
    assert!(device.said().is_empty());
}

/// Whoever holds the broker clears what is retained, and publishes once more what the host once said.
#[test]
fn what_the_host_said_before_makes_nobody_train_again() {
    for restart in [false, true] {
        let (mut device, mut host) = begun();
        let mut old = host.retained();
        device.work();
        for (topic, message) in host.advance() {
            old.push((topic.clone(), message.clone()));
            device.message(topic, message);
        }
        assert_eq!(device.jobs.len(), 1);
        device.work();
        // Nobody signs what is empty: it costs nothing.
        let disk = device.disk.clone();
        for topic in [Topic::Plan(run_id()), manifest_topic(), Topic::Change(run_id(), 0)] {
            device.event(Event::Cleared { topic });
        }
        assert_eq!(device.disk, disk);
        // The operator lets the run rest.
        let mut rest = host.manifest();
        (rest.goal, rest.cohort, rest.issued) = (Goal::Rest, vec![], rest.issued + 1);
        device.message(manifest_topic(), rest.clone());
        let replay = |device: &mut Device, old: &[(Topic, Message)]| {
            if restart {
                device.restart();
                device.event(Event::Connected);
            }
            for (topic, message) in old.iter().chain(old.iter().rev()).cloned() {
                device.message(topic, message);
            }
            device.load();
        };
        replay(&mut device, &old);
        assert!(device.jobs.is_empty(), "of a run that goes on");
        assert_eq!(device.disk, disk);
        // It goes on: what is new is done, an old order to rest is not.
        for (topic, message) in host.advance() {
            device.message(topic, message);
        }
        device.load();
        device.message(manifest_topic(), rest);
        assert_eq!(device.jobs.len(), 1);
        device.message(Topic::Plan(run_id()), End { run: run_id(), began: BEGAN - 1 });
        assert_eq!(device.jobs.len(), 1, "the end of another run of this name");
        device.message(Topic::Plan(run_id()), End { run: run_id(), began: BEGAN });
        assert!(device.jobs.is_empty() && device.disk.is_empty());
        old.extend(host.retained());
        replay(&mut device, &old);
        assert!(device.jobs.is_empty() && device.loading.is_empty() && device.disk.is_empty(), "of a run that is over");
    }
}

#[test]
fn another_plan_under_the_same_name_is_another_run() {
    let (mut device, host) = begun();
    device.work();
    device.said();
    device.restart();
    device.event(Event::Connected);
    let mut other = plan();
    other.plan.seed = 1;
    other.began += 1;
    device.message(Topic::Plan(run_id()), other);
    assert!(device.disk.is_empty());
    device.message(Topic::Round(run_id()), host.manifest());
    assert!(device.loading.is_empty(), "a manifest of the run before");
    let mut manifest = host.manifest();
    manifest.began += 1;
    device.message(Topic::Round(run_id()), manifest);
    device.load();
    assert_eq!(device.jobs.len(), 1, "the work of the other run does not count");
}

#[test]
fn damaged_files_are_put_aside() {
    let (mut device, host) = begun();
    device.work();
    for bytes in device.disk.values_mut() {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    }
    device.restart();
    assert!(device.disk.is_empty());
    assert_eq!(device.tells(|what| matches!(what, What::SetAside { .. })), 2);
    device.event(Event::Connected);
    for (topic, message) in host.retained() {
        device.message(topic, message);
    }
    device.load();
    assert_eq!(device.jobs.len(), 1);
}

#[test]
fn a_run_nobody_announces_is_forgotten() {
    let (mut device, _) = begun();
    device.work();
    device.restart();
    device.event(Event::Connected);
    device.now += 3_599_000;
    device.event(Event::Tick);
    assert!(!device.disk.is_empty());
    device.now += 2_000;
    device.event(Event::Tick);
    assert!(device.disk.is_empty());
}
