//! The global state as devices see it: what the plan's seed makes, and the changes that the host publishes.

use fedtt_wire::message::{Chunk, Manifest, Tensors};
use fedtt_wire::seal::SEAL;
use fedtt_wire::{Digest, Layout, Message, Topic, WireError, chunk::Assembly};
use ndarray::ArrayD;

/// The global state of one run. All virtual clients share it, as devices that miss nothing hold the same. Nor does such a
/// device ever ask for a whole state.
pub(super) struct Follower {
    layout: Layout,
    values: Vec<ArrayD<f32>>,
    digest: Digest,
    assembly: Option<Assembly>,
    pub(super) manifest: Option<Manifest>,
    /// Bytes every client has received so far, as MQTT packets.
    pub(super) received: u64,
    limit: usize,
}

/// Bytes of a QoS 1 publication of a frame on the socket, where it is sealed, and of its acknowledgement the other way (MQTT
/// 3.1.1, sections 3.3, 3.4). What clears a topic is empty and has no seal.
pub(super) fn packet(topic: &str, frame: usize) -> (u64, u64) {
    let sealed = if frame == 0 { 0 } else { frame + SEAL };
    let remaining = 2 + topic.len() + 2 + sealed;
    let length_bytes = match remaining {
        0..128 => 1,
        128..16_384 => 2,
        16_384..2_097_152 => 3,
        _ => 4,
    };
    ((1 + length_bytes + remaining) as u64, 4)
}

impl Follower {
    /// Devices that hold the first state, `values`.
    pub(super) fn new(layout: Layout, values: Vec<ArrayD<f32>>) -> Self {
        let digest = Digest::of_values(&values);
        let limit = layout.limit();
        Follower { layout, values, digest, assembly: None, manifest: None, received: 0, limit }
    }

    /// Takes in what the host published.
    pub(super) fn hear(&mut self, topic: &Topic, name: &str, payload: &[u8]) -> Result<(), WireError> {
        if matches!(topic, Topic::State(..)) {
            return Ok(());
        }
        self.received += packet(name, payload.len()).0;
        if payload.is_empty() {
            if matches!(topic, Topic::Round(_)) {
                self.manifest = None;
            }
            return Ok(());
        }
        match (topic, Message::decode(payload, self.limit.max(fedtt_wire::message::SMALL))?) {
            (Topic::Round(_), Message::Manifest(manifest)) => self.manifest = Some(manifest),
            (Topic::Change(..), Message::Chunk(chunk)) => self.take(chunk)?,
            _ => {}
        }
        Ok(())
    }

    /// The global values if they are those of `digest`.
    pub(super) fn state(&self, digest: &Digest) -> Option<&[ArrayD<f32>]> {
        (self.digest == *digest).then_some(self.values.as_slice())
    }

    fn take(&mut self, chunk: Chunk) -> Result<(), WireError> {
        if self.assembly.as_ref().is_none_or(|assembly| assembly.parcel() != &chunk.parcel) {
            self.assembly = Some(Assembly::new(chunk.parcel, self.limit)?);
        }
        let Some(assembly) = &mut self.assembly else { return Ok(()) };
        let Some(bytes) = assembly.add(chunk)? else { return Ok(()) };
        self.assembly = None;
        let Message::Tensors(tensors) = Message::decode(&bytes, self.limit)? else { return Ok(()) };
        if tensors.state == self.digest {
            // Published again.
            return Ok(());
        }
        self.apply(&tensors)
    }

    fn apply(&mut self, change: &Tensors) -> Result<(), WireError> {
        for (place, value) in change.values(&self.layout)? {
            self.values[place] += &value;
        }
        self.digest = Digest::of_values(&self.values);
        if self.digest == change.state { Ok(()) } else { Err(WireError::Checksum("global state")) }
    }
}
