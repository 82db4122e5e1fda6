//! Just enough of MQTT 3.1.1's framing to tell publications apart.

/// The bytes of the packet `stream` begins with, once its length can be read.
pub(super) fn length(stream: &[u8]) -> Option<usize> {
    let mut remaining = 0;
    for (place, byte) in stream.iter().skip(1).take(4).enumerate() {
        remaining |= usize::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some(2 + place + remaining);
        }
    }
    None
}

/// Where things are in a PUBLISH packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish {
    /// At QoS 1 and 2.
    pub(super) id: Option<u16>,
    /// Where the length of the topic stands.
    pub(super) body: usize,
    /// Where the payload begins.
    pub(super) payload: usize,
}

/// Reads a complete packet as a PUBLISH, if it is one.
pub(super) fn publish(packet: &[u8]) -> Option<Publish> {
    if packet.first()? >> 4 != 3 {
        return None;
    }
    let body = 2 + packet.iter().skip(1).take_while(|byte| *byte & 0x80 != 0).count();
    let topic = packet.get(body..body + 2)?;
    let after_topic = body + 2 + usize::from(u16::from_be_bytes([topic[0], topic[1]]));
    let has_id = packet[0] & 0b110 != 0;
    let id = match has_id {
        true => packet.get(after_topic..after_topic + 2).map(|id| u16::from_be_bytes([id[0], id[1]])),
        false => None,
    };
    Some(Publish { id, body, payload: after_topic + if has_id { 2 } else { 0 } })
}

/// The same publication at QoS 0: a packet nobody acknowledges.
pub(super) fn without_id(packet: &[u8], publish: &Publish) -> Vec<u8> {
    let topic_end = publish.payload - if publish.id.is_some() { 2 } else { 0 };
    let mut remaining = topic_end - publish.body + packet.len() - publish.payload;
    let mut copy = vec![packet[0] & 0xf1];
    loop {
        let low = (remaining & 0x7f) as u8;
        remaining >>= 7;
        copy.push(if remaining > 0 { low | 0x80 } else { low });
        if remaining == 0 {
            break;
        }
    }
    copy.extend_from_slice(&packet[publish.body..topic_end]);
    copy.extend_from_slice(&packet[publish.payload..]);
    copy
}

/// The PUBACK of an id.
pub(super) fn puback(id: u16) -> Vec<u8> {
    let [high, low] = id.to_be_bytes();
    vec![0x40, 2, high, low]
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn publications_are_recognised_and_copied() {
        let mut packet = vec![0x33, 0x87, 0x01, 0, 1, b't', 2, 1];
        packet.extend([9; 130]);
        assert_eq!(length(&packet[..2]), None);
        assert_eq!(length(&packet), Some(packet.len()));
        let found = publish(&packet).unwrap();
        assert_eq!(found, Publish { id: Some(513), body: 3, payload: 8 });
        let copy = without_id(&packet, &found);
        assert_eq!(length(&copy), Some(copy.len()));
        assert_eq!(copy[..6], [0x31, 0x85, 0x01, 0, 1, b't']);
        assert_eq!(publish(&copy).unwrap(), Publish { id: None, body: 3, payload: 6 });
        assert_eq!(publish(&puback(513)), None);
    }
}
