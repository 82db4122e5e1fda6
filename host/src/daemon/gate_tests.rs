#![allow(clippy::unwrap_used)]

use fedtt_wire::FleetName;
use fedtt_wire::message::Need;

use super::*;

fn name(name: &str) -> DeviceName {
    DeviceName::new(name).unwrap()
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn gate(devices: &Devices, enrolled_only: bool) -> Gate {
    let sealer = Sealer::new(Topics::new(&FleetName::new("f").unwrap()), Arc::new(key(1)));
    Gate::new(sealer, devices.clone(), enrolled_only)
}

fn presence(of: &SigningKey, session: u64, beat: u64) -> Presence {
    Presence { online: beat != u64::MAX, key: Some(of.public()), session, beat, ..Presence::default() }
}

/// What a device says, and where.
fn sealed(by: &SigningKey, topic: &Topic, message: impl Into<Message>) -> Vec<u8> {
    let topics = Topics::new(&FleetName::new("f").unwrap());
    by.seal(&topics.name(topic), message.into().encode(0).unwrap())
}

fn need() -> Need {
    Need { run: RunId::new("r1").unwrap(), state: fedtt_wire::Digest::of(b"") }
}

/// "passed", or the kind of refusal and its reason.
fn outcome(passed: Passed) -> String {
    match passed.0 {
        Some(Input::Message { .. }) => "passed".into(),
        Some(Input::Untrusted { kind, reason, .. }) => format!("{kind:?}: {reason}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn the_first_key_of_a_name_is_its_key_and_no_other_is_heard() {
    let devices = Devices::memory().unwrap();
    let mut gate = gate(&devices, false);
    let (good, evil) = (key(2), key(3));
    let (at, up) = (Topic::Presence(name("d1")), Topic::Up(name("d1")));
    let mut pass = |topic: &Topic, payload: &[u8]| outcome(gate.pass(topic.clone(), payload, 5_000));
    assert!(pass(&up, &sealed(&good, &up, need())).contains("has not said who it is"));
    assert!(pass(&at, &sealed(&evil, &at, presence(&good, 1, 1))).contains("signature"));
    assert_eq!(pass(&at, &sealed(&good, &at, presence(&good, 1, 1))), "passed");
    assert_eq!(pass(&up, &sealed(&good, &up, need())), "passed");
    assert_eq!(pass(&up, b""), "None", "nobody signs what is empty");
    assert!(pass(&at, &sealed(&evil, &at, presence(&evil, 9, 9))).contains("another key"));
    for payload in [
        sealed(&evil, &up, need()),
        sealed(&good, &Topic::Up(name("d2")), need()),
        sealed(&good, &at, need()),
        b"short".to_vec(),
        vec![0; 300],
    ] {
        assert!(pass(&up, &payload).starts_with("Forged"));
    }
    assert!(!devices.get(&name("d1")).unwrap().enrolled);
}

#[test]
fn old_presences_are_told_also_by_a_host_started_anew() {
    let devices = Devices::memory().unwrap();
    let (mut first, device) = (gate(&devices, false), key(2));
    let at = Topic::Presence(name("d1"));
    let said = |session, beat| sealed(&device, &at, presence(&device, session, beat));
    for (session, beat) in [(7, 1), (7, 2), (7, 2), (7, u64::MAX), (8, 1)] {
        assert_eq!(outcome(first.pass(at.clone(), &said(session, beat), 0)), "passed", "{session} {beat}");
    }
    for (session, beat) in [(7, 1), (7, u64::MAX), (8, 0)] {
        assert!(outcome(first.pass(at.clone(), &said(session, beat), 0)).starts_with("Replayed"), "{session} {beat}");
    }
    let mut second = gate(&devices, false);
    assert!(outcome(second.pass(at.clone(), &said(7, u64::MAX), 0)).starts_with("Replayed"));
    assert_eq!(outcome(second.pass(at.clone(), &said(8, 1), 0)), "passed");
}

#[test]
fn where_devices_are_enrolled_no_other_is_heard_and_the_revoked_are_out_at_once() {
    let devices = Devices::memory().unwrap();
    let (mut gate, device) = (gate(&devices, true), key(2));
    let at = Topic::Presence(name("d1"));
    let said = sealed(&device, &at, presence(&device, 1, 1));
    let (refused, answer) = gate.pass(at.clone(), &said, 0);
    assert!(outcome((refused, None)).contains("not enrolled"));
    let answer = answer.unwrap();
    assert_eq!(answer.topic, "fedtt/f/down/d1");
    key(1).public().open(&answer.topic, &answer.payload).unwrap();
    assert_eq!(devices.all(), []);
    devices.enrol(&name("d1"), device.public(), None, 1).unwrap();
    assert_eq!(outcome(gate.pass(at.clone(), &said, 0)), "passed");
    assert!(gate.gone().is_empty());
    devices.revoke(&name("d1"), 2).unwrap();
    assert!(matches!(gate.gone().as_slice(), [Input::Gone { device }] if device.as_str() == "d1"));
    assert!(outcome(gate.pass(at.clone(), &said, 0)).contains("revoked"));
    // Another board of that name.
    let other = key(4);
    devices.enrol(&name("d1"), other.public(), None, 3).unwrap();
    assert_eq!(outcome(gate.pass(at.clone(), &sealed(&other, &at, presence(&other, 0, 1)), 0)), "passed");
    assert!(outcome(gate.pass(at.clone(), &said, 0)).contains("another key"));
}

#[test]
fn hellos_are_answered_but_not_too_often() {
    let devices = Devices::memory().unwrap();
    let (mut gate, device, host) = (gate(&devices, false), key(2), key(1).public());
    let up = Topic::Up(name("d1"));
    let hello = |nonce| sealed(&device, &up, Hello { nonce, key: device.public() });
    let (input, answer) = gate.pass(up.clone(), &hello(7), 10_000);
    let answer = answer.unwrap();
    let frame = host.open(&answer.topic, &answer.payload).unwrap();
    let Message::Greeting(greeting) = Message::decode(frame, SMALL).unwrap() else { unreachable!() };
    assert_eq!((input.is_none(), greeting.nonce, greeting.time, answer.retain), (true, 7, 10_000, false));
    assert_eq!(gate.pass(up.clone(), &hello(8), 10_500).1, None);
    assert!(gate.pass(up.clone(), &hello(9), 11_600).1.is_some());
    assert!(devices.get(&name("d1")).is_some(), "a hello says who one is");
    let introduction = gate.introduction().unwrap();
    assert!(introduction.retain && introduction.topic == "fedtt/f/host");
    host.open(&introduction.topic, &introduction.payload).unwrap();
    let cleared = gate.seal(&Topic::Plan(RunId::new("r1").unwrap()), Vec::new(), true);
    assert!(cleared.payload.is_empty(), "what clears a topic is empty");
}
