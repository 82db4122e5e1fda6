//! What the device says is signed by it; what it hears is signed by its host, or is dropped.

use fedtt_link::{Publication, Will};
use fedtt_wire::message::{Presence, SMALL};
use fedtt_wire::{Message, PublicKey, Topic, Topics, WireError, seal};

use super::LEVEL;
use crate::identity::{Identity, IdentityError, Sessions};

/// Whom the device is, and whom it listens to.
pub(super) struct Trust {
    identity: Identity,
    sessions: Sessions,
    /// Presences published by this process.
    beats: u64,
    topics: Topics,
    host: Option<PublicKey>,
}

/// What became of a message that came in.
#[derive(Debug, PartialEq)]
pub(super) enum Opened<'a> {
    /// It is the host's.
    Frame(&'a [u8]),
    /// It says who the host is, which was not known until now: what came before may be listened to now.
    HostFound(PublicKey),
    /// Nothing to be done about it.
    Nothing,
    /// It is not the host's, and why.
    Forged(String),
}

impl Trust {
    /// Whom a device with this identity is to trust: the host it knows, or the one it is told, or else the first that says
    /// that it is.
    ///
    /// # Errors
    /// When the identity cannot be read or written, or another host is known than the one told.
    pub(super) fn new(identity: Identity, topics: Topics, told: Option<PublicKey>) -> Result<Self, IdentityError> {
        if let Some(key) = told {
            identity.pin_host(key)?;
        }
        let (sessions, host) = (identity.sessions()?, identity.host()?);
        Ok(Trust { identity, sessions, beats: 0, topics, host })
    }

    /// A message as it is published.
    ///
    /// # Errors
    /// When it has no CBOR form.
    pub(super) fn seal(&mut self, topic: &Topic, mut message: Message, retain: bool) -> Result<Publication, WireError> {
        if let Message::Presence(presence) = &mut message {
            self.beats += 1;
            let beat = if presence.online { self.beats } else { u64::MAX };
            sign_on(presence, &self.identity, self.sessions.current(), beat);
        }
        let topic = self.topics.name(topic);
        let payload = self.identity.key().seal(&topic, message.encode(LEVEL)?).into();
        Ok(Publication { topic, payload, retain })
    }

    /// What the broker is to say when a connection vanishes: the last word of its session.
    ///
    /// # Errors
    /// When it has no CBOR form.
    pub(super) fn will(&self, topic: &Topic, farewell: Presence) -> Result<Will, WireError> {
        let (identity, sessions, topic) = (self.identity.clone(), self.sessions.clone(), self.topics.name(topic));
        // The same each time but for a number.
        Message::from(farewell.clone()).encode(LEVEL)?;
        Ok(Will::new(move || {
            let mut farewell = farewell.clone();
            sign_on(&mut farewell, &identity, sessions.begin(), u64::MAX);
            let frame = Message::from(farewell).encode(LEVEL).unwrap_or_default();
            Publication { topic: topic.clone(), payload: identity.key().seal(&topic, frame).into(), retain: true }
        }))
    }

    /// What is in a message that came in at `topic`.
    ///
    /// # Errors
    /// When the host's key cannot be written down.
    pub(super) fn open<'a>(&mut self, topic: &str, payload: &'a [u8]) -> Result<Opened<'a>, IdentityError> {
        // What is empty clears something, and nobody signs it.
        if payload.is_empty() {
            return Ok(Opened::Frame(payload));
        }
        let introduces = self.topics.parse(topic) == Some(Topic::Host);
        let Some(host) = self.host else {
            return if introduces { self.meet(topic, payload) } else { Ok(Opened::Nothing) };
        };
        match host.open(topic, payload) {
            Ok(_) if introduces => Ok(Opened::Nothing),
            Ok(frame) => Ok(Opened::Frame(frame)),
            Err(error) => {
                let another = introduced(topic, payload).ok().filter(|_| introduces);
                Ok(Opened::Forged(another.map_or_else(|| error.to_string(), |key| another_host(key, host))))
            }
        }
    }

    /// The first host that says that it is.
    fn meet<'a>(&mut self, topic: &str, payload: &[u8]) -> Result<Opened<'a>, IdentityError> {
        match introduced(topic, payload) {
            Ok(key) => {
                self.identity.pin_host(key)?;
                self.host = Some(key);
                Ok(Opened::HostFound(key))
            }
            Err(error) => Ok(Opened::Forged(error.to_string())),
        }
    }
}

fn another_host(found: PublicKey, known: PublicKey) -> String {
    format!("a host of key {found} says it is this fleet's, which has {known}; `fedtt-edge enroll` follows another")
}

fn sign_on(presence: &mut Presence, identity: &Identity, session: u64, beat: u64) {
    (presence.key, presence.session, presence.beat) = (Some(identity.key().public()), session, beat);
}

/// The key of a host that says who it is, if it has that key.
fn introduced(topic: &str, payload: &[u8]) -> Result<PublicKey, WireError> {
    match Message::decode(seal::unsealed(payload)?.0, SMALL)? {
        Message::Host(host) => host.key.open(topic, payload).map(|_| host.key),
        other => Err(WireError::Body { what: "host", reason: format!("it is a {}", other.what()) }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use fedtt_wire::message::Host;
    use fedtt_wire::{DeviceName, FleetName, SigningKey};

    use super::*;

    const AT: &str = "fedtt/f/host";
    const DOWN: &str = "fedtt/f/down/d1";

    fn trust(state: &std::path::Path, told: Option<PublicKey>) -> Result<Trust, IdentityError> {
        let topics = Topics::new(&FleetName::new("f").unwrap());
        Trust::new(Identity::open(state).unwrap(), topics, told)
    }

    fn host(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32]).unwrap()
    }

    fn introduction(of: &SigningKey, by: &SigningKey) -> Vec<u8> {
        let host = Host { key: of.public(), version: "0".into() };
        by.seal(AT, Message::from(host).encode(0).unwrap())
    }

    #[test]
    fn the_first_host_is_listened_to_and_no_other_also_later() {
        let state = tempfile::tempdir().unwrap();
        let (good, evil) = (host(1), host(2));
        let mut device = trust(state.path(), None).unwrap();
        assert_eq!(device.open(DOWN, &good.seal(DOWN, b"early".to_vec())).unwrap(), Opened::Nothing);
        assert!(matches!(device.open(AT, &introduction(&good, &evil)).unwrap(), Opened::Forged(_)));
        assert_eq!(device.open(AT, &introduction(&good, &good)).unwrap(), Opened::HostFound(good.public()));
        assert_eq!(device.open(AT, &introduction(&good, &good)).unwrap(), Opened::Nothing);
        for mut device in
            [device, trust(state.path(), None).unwrap(), trust(state.path(), Some(good.public())).unwrap()]
        {
            let said = good.seal(DOWN, b"frame".to_vec());
            assert_eq!(device.open(DOWN, &said).unwrap(), Opened::Frame(b"frame"));
            assert_eq!(device.open(DOWN, b"").unwrap(), Opened::Frame(b""));
            for (topic, forged) in [
                (DOWN, evil.seal(DOWN, b"frame".to_vec())),
                ("fedtt/f/down/d2", said.clone()),
                (DOWN, b"short".to_vec()),
                (AT, introduction(&evil, &evil)),
            ] {
                let opened = device.open(topic, &forged).unwrap();
                assert!(matches!(opened, Opened::Forged(_)), "{opened:?}");
            }
        }
        let other = trust(state.path(), Some(evil.public())).err().unwrap().to_string();
        assert!(other.contains("host.pub"), "{other}");
    }

    #[test]
    fn of_presences_the_later_is_told_and_the_will_is_the_last_of_its_session() {
        let state = tempfile::tempdir().unwrap();
        let mut device = trust(state.path(), None).unwrap();
        let key = device.identity.key().public();
        let topic = Topic::Presence(DeviceName::new("d1").unwrap());
        let will = device.will(&topic, Presence::default()).unwrap();
        let mut said = Vec::new();
        for _ in 0..2 {
            let last = will.make();
            for _ in 0..2 {
                let online = Presence { online: true, ..Presence::default() };
                said.push(device.seal(&topic, online.into(), true).unwrap());
            }
            said.push(last);
        }
        // A process started anew.
        said.push(trust(state.path(), None).unwrap().will(&topic, Presence::default()).unwrap().make());
        let read = |publication: &Publication| {
            let frame = key.open(&publication.topic, &publication.payload).unwrap();
            let Message::Presence(presence) = Message::decode(frame, SMALL).unwrap() else { unreachable!() };
            assert_eq!(presence.key, Some(key));
            (presence.session, presence.beat)
        };
        let order: Vec<(u64, u64)> = said.iter().map(read).collect();
        assert!(order.len() == 7 && order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
}
