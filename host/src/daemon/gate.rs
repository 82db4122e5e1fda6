//! What comes in is signed by the device at whose topic it is, and newer than what was there before, or goes no further; what
//! goes out is signed by the host.

use std::collections::BTreeMap;
use std::sync::Arc;

use fedtt_edge::damper::Damper;
use fedtt_link::Publication;
use fedtt_wire::message::{Greeting, Hello, Host, Presence, Refusal, SMALL};
use fedtt_wire::{DeviceName, Message, PublicKey, RunId, SigningKey, Topic, Topics, WireError, seal};

use crate::coordinator::{Input, Untrusted};
use crate::fleet::Devices;

/// Milliseconds between two answers to a device's hellos.
const GREET_EVERY: u64 = 1_000;
/// zstd level of small messages.
const LEVEL: i32 = 3;

/// Seals what goes out.
#[derive(Clone)]
pub(super) struct Sealer {
    topics: Topics,
    key: Arc<SigningKey>,
}

impl Sealer {
    pub(super) fn new(topics: Topics, key: Arc<SigningKey>) -> Self {
        Sealer { topics, key }
    }

    /// A message as it is published: sealed, save for what clears a topic.
    pub(super) fn seal(&self, topic: &Topic, frame: Vec<u8>, retain: bool) -> Publication {
        let topic = self.topics.name(topic);
        let payload = if frame.is_empty() { frame } else { self.key.seal(&topic, frame) };
        Publication { topic, payload: payload.into(), retain }
    }
}

/// Holds messages against the fleet's registry.
pub(super) struct Gate {
    sealer: Sealer,
    devices: Devices,
    /// Whether a device that was not enrolled is never trusted.
    enrolled_only: bool,
    /// The key, session and beat of the last presence.
    heard: BTreeMap<DeviceName, (PublicKey, u64, u64)>,
    greeted: BTreeMap<DeviceName, u64>,
    /// Of answers to what goes no further.
    answers: Damper,
}

/// Why a message goes no further.
struct Objection {
    kind: Untrusted,
    reason: String,
    /// Whether its sender may not know.
    answer: bool,
}

/// What is to be done about a message: something for the coordinator, something to say to its device.
pub(super) type Passed = (Option<Input>, Option<Publication>);

impl Gate {
    pub(super) fn new(sealer: Sealer, devices: Devices, enrolled_only: bool) -> Self {
        let (heard, greeted) = (BTreeMap::new(), BTreeMap::new());
        Gate { sealer, devices, enrolled_only, heard, greeted, answers: Damper::default() }
    }

    /// A message as it is published.
    pub(super) fn seal(&self, topic: &Topic, frame: Vec<u8>, retain: bool) -> Publication {
        self.sealer.seal(topic, frame, retain)
    }

    /// Who the host is, for all who do not know it yet.
    pub(super) fn introduction(&self) -> Option<Publication> {
        let host = Host { key: self.sealer.key.public(), version: env!("CARGO_PKG_VERSION").into() };
        self.say(&Topic::Host, host, true)
    }

    fn say(&self, topic: &Topic, message: impl Into<Message>, retain: bool) -> Option<Publication> {
        message.into().encode(LEVEL).ok().map(|frame| self.seal(topic, frame, retain))
    }

    /// Those who were put out of the fleet since the last time.
    pub(super) fn gone(&mut self) -> Vec<Input> {
        let gone = self.devices.take_gone().into_iter();
        gone.map(|device| {
            self.heard.remove(&device);
            self.greeted.remove(&device);
            Input::Gone { device }
        })
        .collect()
    }

    /// Makes what was learnt of devices last.
    ///
    /// # Errors
    /// When the database fails.
    pub(super) fn keep(&self) -> Result<(), crate::store::StoreError> {
        self.devices.keep()
    }

    /// Holds a message against the registry.
    pub(super) fn pass(&mut self, topic: Topic, payload: &[u8], now: u64) -> Passed {
        let (Topic::Presence(device) | Topic::Up(device)) = &topic else {
            return (Some(Input::Message { topic, payload: payload.to_vec() }), None);
        };
        // What clears a topic nobody signs: of a presence it is no more than silence, of all else nothing.
        if payload.is_empty() {
            let presence = matches!(topic, Topic::Presence(_));
            return (presence.then(|| Input::Message { topic, payload: Vec::new() }), None);
        }
        match self.check(device, &topic, payload, now) {
            Ok(Checked::Hello(hello)) => (None, self.greet(device, &hello, now)),
            Ok(Checked::Frame(frame)) => (Some(Input::Message { payload: frame.to_vec(), topic }), None),
            Err(objection) => self.object(device.clone(), objection, now),
        }
    }

    fn object(&mut self, device: DeviceName, objection: Objection, now: u64) -> Passed {
        let Objection { kind, reason, answer } = objection;
        let answer = answer && self.answers.pass(&format!("{device}: {reason}"), now).is_some();
        let told = RunId::new("unknown").ok().filter(|_| answer).and_then(|run| {
            let refusal = Refusal { run, round: 0, reason: reason.clone(), until: None };
            self.say(&Topic::Down(device.clone()), refusal, false)
        });
        (Some(Input::Untrusted { device, kind, reason }), told)
    }

    fn greet(&mut self, device: &DeviceName, hello: &Hello, now: u64) -> Option<Publication> {
        let last = self.greeted.insert(device.clone(), now);
        if last.is_some_and(|last| (last..last + GREET_EVERY).contains(&now)) {
            return None;
        }
        let greeting = Greeting { nonce: hello.nonce, time: now, version: env!("CARGO_PKG_VERSION").into() };
        self.say(&Topic::Down(device.clone()), greeting, false)
    }

    fn check<'a>(
        &mut self,
        device: &DeviceName,
        topic: &Topic,
        payload: &'a [u8],
        now: u64,
    ) -> Result<Checked<'a>, Objection> {
        let name = self.sealer.topics.name(topic);
        let presence = matches!(topic, Topic::Presence(_));
        let forged = |reason: String, answer| Objection { kind: Untrusted::Forged, reason, answer };
        let frame = match self.devices.standing(device) {
            Some(known) if known.revoked => return Err(forged("it is revoked".into(), presence)),
            Some(known) if self.enrolled_only && !known.enrolled => return Err(forged(not_enrolled(device), presence)),
            Some(known) => known.key.open(&name, payload).map_err(|error| {
                let another = introduced(&name, payload).is_ok();
                let other = another_key(device, known.enrolled);
                let old = matches!(error, WireError::Version { .. });
                forged(if another { other } else { error.to_string() }, another || old)
            })?,
            None => {
                let key = introduced(&name, payload).map_err(|error| {
                    let old = matches!(error, WireError::Version { .. });
                    forged(error.to_string(), old)
                })?;
                if self.enrolled_only {
                    return Err(forged(not_enrolled(device), true));
                }
                self.devices.pin(device, key, now / 1000).map_err(|error| forged(error.to_string(), true))?;
                seal::unsealed(payload).map_err(|error| forged(error.to_string(), false))?.0
            }
        };
        if presence {
            self.order(device, frame)?;
        } else if let Ok(Message::Hello(hello)) = hello(frame) {
            return Ok(Checked::Hello(hello));
        }
        Ok(Checked::Frame(frame))
    }

    /// Of two presences the one of the later session holds, within a session the one of the later beat.
    fn order(&mut self, device: &DeviceName, frame: &[u8]) -> Result<(), Objection> {
        // What is none is counted further on.
        let Ok(Message::Presence(Presence { session, beat, .. })) = Message::decode(frame, SMALL) else {
            return Ok(());
        };
        let Some(known) = self.devices.standing(device) else { return Ok(()) };
        let last = match self.heard.get(device) {
            Some((key, session, beat)) if *key == known.key => (*session, *beat),
            _ => (known.session, 0),
        };
        if (session, beat) < last {
            let reason = "a presence of before, after which there was another".into();
            return Err(Objection { kind: Untrusted::Replayed, reason, answer: false });
        }
        self.heard.insert(device.clone(), (known.key, session, beat));
        self.devices.heard(device, session);
        Ok(())
    }
}

enum Checked<'a> {
    Frame(&'a [u8]),
    Hello(Hello),
}

fn another_key(device: &DeviceName, enrolled: bool) -> String {
    let advice = if enrolled { "enroll" } else { "forget" };
    format!("it comes with another key than before: `fedtt device {advice} {device}` if the board was replaced")
}

fn not_enrolled(device: &DeviceName) -> String {
    format!("it is not enrolled: `fedtt device enroll {device}` (or `enrolled_only = false` in host.toml)")
}

/// A hello, told by its kind: other messages are not looked into here.
fn hello(frame: &[u8]) -> Result<Message, WireError> {
    const HELLO: u8 = 11;
    match frame.get(3).map(|kind| kind & 127) {
        Some(HELLO) => Message::decode(frame, SMALL),
        _ => Err(WireError::Kind(0)),
    }
}

/// The key of a device that says who it is, if it has that key.
fn introduced(topic: &str, payload: &[u8]) -> Result<PublicKey, WireError> {
    let unknown = |reason: &str| WireError::Body { what: "a device the host does not know", reason: reason.into() };
    let key = match Message::decode(seal::unsealed(payload)?.0, SMALL)? {
        Message::Presence(presence) => presence.key,
        Message::Hello(hello) => Some(hello.key),
        _ => return Err(unknown("it has not said who it is")),
    };
    let key = key.ok_or_else(|| unknown("it says who it is without a key"))?;
    key.open(topic, payload).map(|_| key)
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
