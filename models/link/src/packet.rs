//! MQTT packets, in the form the rest of the crate speaks of them.

use bytes::{Bytes, BytesMut};
use rumqttc::{
    ConnAck, Connect, ConnectReturnCode, Disconnect, Error, LastWill, Packet, PingReq, PubAck, Publish, QoS, Subscribe,
    SubscribeReasonCode, Unsubscribe,
};

use crate::{LinkConfig, LinkError, Publication};

/// What a broker says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    Welcome { session_present: bool },
    Refused(&'static str),
    Message { topic: String, payload: Bytes, retain: bool, id: Option<u16> },
    Published(u16),
    Subscribed { id: u16, granted: bool },
    Unsubscribed(u16),
    Pong,
}

/// What the greeting of a broker begins with.
pub(crate) const CONNACK: u8 = 0x20;

/// Payloads below this are copied out of the read buffer, which they would otherwise keep whole.
const COPIED: usize = 4096;

/// Takes the next packet off `stream`; none when it is not complete yet, with room made for the rest of it.
pub(crate) fn decode(stream: &mut BytesMut, max_packet: usize) -> Result<Option<Incoming>, String> {
    let packet = match Packet::read(stream, max_packet) {
        Ok(packet) => packet,
        Err(Error::InsufficientBytes(missing)) => {
            stream.reserve(missing);
            return Ok(None);
        }
        Err(Error::PayloadSizeLimitExceeded(bytes)) => {
            return Err(format!(
                "the broker sends a packet of {bytes} bytes, over the limit of {max_packet} (max_packet)"
            ));
        }
        Err(error) => return Err(format!("the broker does not speak MQTT 3.1.1: {error}")),
    };
    Ok(Some(match packet {
        Packet::ConnAck(ConnAck { session_present, code }) => match refusal(code) {
            Some(reason) => Incoming::Refused(reason),
            None => Incoming::Welcome { session_present },
        },
        Packet::Publish(Publish { qos: QoS::ExactlyOnce, .. }) => {
            return Err("the broker sends at QoS 2, which was not asked for".into());
        }
        Packet::Publish(Publish { topic, payload, retain, pkid, .. }) => Incoming::Message {
            topic,
            payload: if payload.len() < COPIED { Bytes::copy_from_slice(&payload) } else { payload },
            retain,
            id: (pkid != 0).then_some(pkid),
        },
        Packet::PubAck(ack) => Incoming::Published(ack.pkid),
        Packet::SubAck(ack) => Incoming::Subscribed {
            id: ack.pkid,
            granted: ack.return_codes.iter().all(|code| matches!(code, SubscribeReasonCode::Success(_))),
        },
        Packet::UnsubAck(ack) => Incoming::Unsubscribed(ack.pkid),
        Packet::PingResp => Incoming::Pong,
        other => return Err(format!("the broker sends what only a client may: {other:?}")),
    }))
}

fn refusal(code: ConnectReturnCode) -> Option<&'static str> {
    Some(match code {
        ConnectReturnCode::Success => return None,
        ConnectReturnCode::RefusedProtocolVersion => "it does not speak MQTT 3.1.1",
        ConnectReturnCode::BadClientId => "it does not accept our client id",
        ConnectReturnCode::ServiceUnavailable => "it is not available",
        ConnectReturnCode::BadUserNamePassword => "user name or password is wrong",
        ConnectReturnCode::NotAuthorized => "we are not authorised",
    })
}

/// Sizes are checked where things enter the link, so that nothing is too large to be written.
const SIZES_CHECKED: &str = "no packet is over MQTT's limit of 256 MiB: LinkConfig::check and Link::publish see to it";

fn write(packet: Packet, out: &mut BytesMut) {
    packet.write(out, usize::MAX).expect(SIZES_CHECKED);
}

pub(crate) fn connect(config: &LinkConfig, out: &mut BytesMut) {
    let mut connect = Connect::new(&config.client_id);
    connect.keep_alive = u16::try_from(config.keep_alive.as_secs()).unwrap_or(u16::MAX);
    connect.clean_session = !config.persistent;
    let will = config.will.as_ref().map(|will| will.make());
    connect.last_will = will.map(|w| LastWill::new(w.topic, w.payload.to_vec(), QoS::AtLeastOnce, w.retain));
    if let Some((user, password)) = config.credentials.as_ref().or(config.broker.credentials.as_ref()) {
        connect.set_login(user, password);
    }
    write(Packet::Connect(connect), out);
}

fn of(publication: &Publication, id: u16, again: bool) -> Publish {
    let Publication { topic, payload, retain } = publication;
    Publish {
        dup: again,
        qos: QoS::AtLeastOnce,
        retain: *retain,
        topic: topic.clone(),
        pkid: id,
        payload: payload.clone(),
    }
}

/// Bytes of a publication as a packet.
pub(crate) fn size(publication: &Publication) -> usize {
    of(publication, 1, false).size()
}

pub(crate) fn publish(publication: &Publication, id: u16, again: bool, out: &mut BytesMut) {
    write(Packet::Publish(of(publication, id, again)), out);
}

pub(crate) fn acknowledge(id: u16, out: &mut BytesMut) {
    write(Packet::PubAck(PubAck::new(id)), out);
}

pub(crate) fn subscribe(filter: &str, id: u16, out: &mut BytesMut) {
    let mut subscribe = Subscribe::new(filter, QoS::AtLeastOnce);
    subscribe.pkid = id;
    write(Packet::Subscribe(subscribe), out);
}

pub(crate) fn unsubscribe(filter: &str, id: u16, out: &mut BytesMut) {
    let mut unsubscribe = Unsubscribe::new(filter);
    unsubscribe.pkid = id;
    write(Packet::Unsubscribe(unsubscribe), out);
}

pub(crate) fn ping(out: &mut BytesMut) {
    // As types of their own: `Packet` has the two without content as well, and writes the same bytes.
    PingReq.write(out).expect(SIZES_CHECKED);
}

pub(crate) fn disconnect(out: &mut BytesMut) {
    Disconnect.write(out).expect(SIZES_CHECKED);
}

fn check_text(text: &str) -> Result<(), &'static str> {
    match text {
        "" => Err("it is empty"),
        _ if text.contains('\0') => Err("it contains NUL"),
        _ if text.len() > usize::from(u16::MAX) => Err("it has more than 65535 bytes"),
        _ => Ok(()),
    }
}

pub(crate) fn check_topic(topic: &str) -> Result<(), LinkError> {
    let valid = check_text(topic)
        .and_then(|()| rumqttc::valid_topic(topic).then_some(()).ok_or("a topic has no wildcards (`+`, `#`)"));
    valid.map_err(|problem| LinkError::Topic { topic: topic.into(), problem })
}

pub(crate) fn check_filter(filter: &str) -> Result<(), LinkError> {
    let valid = check_text(filter).and_then(|()| {
        rumqttc::valid_filter(filter).then_some(()).ok_or("a wildcard fills a whole level, and `#` is the last")
    });
    valid.map_err(|problem| LinkError::Topic { topic: filter.into(), problem })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use rand::{Rng, SeedableRng};

    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written_however_it_is_cut() {
        let publication = Publication { topic: "a/b".into(), payload: vec![7; 9000].into(), retain: true };
        let mut whole = BytesMut::new();
        publish(&publication, 513, false, &mut whole);
        assert_eq!(whole.len(), size(&publication));
        ping(&mut whole);
        for cut in [1, 2, 3, 5, 10, 8999, whole.len()] {
            let mut stream = BytesMut::from(&whole[..cut.min(size(&publication) - 1)]);
            assert_eq!(decode(&mut stream, 10_000).unwrap(), None);
            stream.extend_from_slice(&whole[stream.len()..size(&publication)]);
            let Some(Incoming::Message { topic, payload, retain, id }) = decode(&mut stream, 10_000).unwrap() else {
                panic!("no message");
            };
            assert_eq!((topic.as_str(), payload, retain, id), ("a/b", publication.payload.clone(), true, Some(513)));
            assert!(stream.is_empty());
        }
    }

    #[test]
    fn what_is_announced_too_large_is_refused_before_it_is_read() {
        let mut stream = BytesMut::from(&[0x32, 0xff, 0xff, 0xff, 0x7f][..]);
        let message = decode(&mut stream, 1000).unwrap_err();
        assert!(message.contains("268435455") && message.contains("max_packet"), "{message}");
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_read_and_never_panic() {
        let mut random = rand::rngs::StdRng::seed_from_u64(3);
        for _ in 0..200_000 {
            let length = random.random_range(2..24);
            let mut bytes: Vec<u8> = (0..length).map(|_| random.random()).collect();
            bytes[1] = random.random_range(0..length as u8);
            let mut stream = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut stream, 64) {}
        }
    }

    #[test]
    fn topics_and_filters_are_told_apart() {
        check_topic("fedtt/v1/run/x").unwrap();
        check_filter("fedtt/+/run/#").unwrap();
        for topic in ["", "a/+/b", "a/#", "a\0b", &"x".repeat(70_000)] {
            check_topic(topic).unwrap_err();
        }
        for filter in ["", "a/b+", "#/a", "a\0b"] {
            check_filter(filter).unwrap_err();
        }
    }
}
