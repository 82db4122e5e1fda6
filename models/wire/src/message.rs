//! What is said. Every message about a run names it, and its round: late ones are recognised.

use std::io::Read;

use fedtt_tt::TrainMask;
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::buffer::buffer;
use crate::digest::Digest;
use crate::error::WireError;
use crate::frame::{self, Opened};
use crate::layout::Layout;
use crate::names::{DeviceName, RunId};
use crate::plan::Plan;
use crate::seal::PublicKey;
use crate::tensor::EncodedTensor;

/// Largest message that is not about tensors, decompressed.
pub const SMALL: usize = 8 * 1024 * 1024;

/// Who is there. Retained; the last will says `online: false`. Of two, the one of the later session holds, within a session
/// the one of the later beat: what is published again by others than the device is told by it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether the device is connected.
    pub online: bool,
    /// Version of its program.
    pub version: String,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// What runs its graphs.
    pub engine: String,
    /// Hashes of the bundles it has.
    pub bundles: Vec<String>,
    /// Whether it gets bundles it lacks.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fetches: bool,
    /// Hashes of those that are coming in: it cannot take part in their runs yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fetching: Vec<String>,
    /// Examples it can train on.
    pub examples: u64,
    /// Why it takes part in nothing as things are on it, and looks again: a file it cannot read, a disk that is full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What it signs with; absent where nothing is signed, as among virtual devices.
    pub key: Option<PublicKey>,
    /// Its connection: each later one has a higher number.
    pub session: u64,
    /// How often it has announced itself in the session; the greatest number there is in the last will.
    pub beat: u64,
}

/// A run's beginning, for every device. Retained while the run goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunPlan {
    /// The run.
    pub run: RunId,
    /// Unix milliseconds of its beginning, which tells it from others of its name.
    pub began: u64,
    /// What it is.
    pub plan: Plan,
    /// The tensors of its global state.
    pub layout: Layout,
}

/// What is asked of a cohort.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Train, and measure the state first.
    Train,
    /// Only measure the state.
    Measure,
    /// Nothing: the run rests.
    Rest,
}

/// A payload that is published in chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Its chunks.
    pub chunks: u32,
}

/// The current round of a run. Retained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The run.
    pub run: RunId,
    /// Its beginning, as in its plan.
    pub began: u64,
    /// Grows with every manifest of the run: of two, the higher one holds.
    pub issued: u64,
    /// Its round, from 0.
    pub round: u32,
    /// Times the round was begun before.
    pub attempt: u32,
    /// What is asked.
    pub goal: Goal,
    /// Of whom.
    pub cohort: Vec<DeviceName>,
    /// What trains.
    pub mask: TrainMask,
    /// Fraction of the full learning rates.
    pub rate: f32,
    /// Digest of the global state the round begins with.
    pub state: Digest,
    /// Digest of the state the change is relative to, and the change; absent where there is none.
    pub change: Option<(Digest, Parcel)>,
    /// Seconds a device has.
    pub seconds: u64,
    /// Whose updates made this state out of the one before.
    pub counted: Vec<DeviceName>,
}

/// Part of a payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// The whole payload.
    pub parcel: Parcel,
    /// Which part, from 0.
    pub index: u32,
    /// Its bytes.
    pub data: ByteBuf,
}

/// What an adapter measured: on a device, on the examples it holds out; on the host, on its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Examples.
    pub examples: u64,
    /// Mean loss.
    pub loss: f64,
    /// "accuracy", "Pearson r" or "nats per token".
    pub metric: String,
    /// Its value.
    pub value: f64,
}

/// What a device made of a round. A payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The run.
    pub run: RunId,
    /// Its beginning, as in its plan.
    pub began: u64,
    /// The round.
    pub round: u32,
    /// Digest of the global state it began with.
    pub state: Digest,
    /// Who made it.
    pub device: DeviceName,
    /// Examples it trained on.
    pub examples: u64,
    /// Optimiser steps.
    pub steps: u32,
    /// Tokens in their examples, without padding.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// Mean training loss.
    pub loss: f64,
    /// Seconds it took.
    pub seconds: f64,
    /// Joules it took, where the board can tell.
    pub joules: Option<f64>,
    /// The state it began with, measured.
    pub measured: Option<Measurement>,
    /// Bytes the device has sent since it started, MQTT overhead included.
    pub sent: u64,
    /// Bytes it has received.
    pub received: u64,
    /// Values of the tensors that trained, or their change, in the order of the layout; empty if nothing was to train.
    #[serde(with = "crate::tensor::packed")]
    pub tensors: Vec<EncodedTensor>,
}

/// What changed of the global state, or all of it. A payload.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tensors {
    /// The run.
    pub run: RunId,
    /// Digest of the state it leads to.
    pub state: Digest,
    /// Places in the layout, ascending.
    pub places: Vec<u32>,
    /// Their values, or what is to be added to them.
    #[serde(with = "crate::tensor::packed")]
    pub tensors: Vec<EncodedTensor>,
}

/// What the host says to an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It is stored and counts.
    Accepted,
    /// It was there already; it counts once.
    Duplicate,
    /// The round is over.
    Late,
    /// It does not count; repeating it will not help.
    Rejected(String),
    /// These chunks of it are missing.
    Missing(Vec<u32>),
}

/// What the host says to an update.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// The payload's digest.
    pub update: Digest,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// How far a device is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// Steps done.
    pub step: u32,
    /// Of so many.
    pub steps: u32,
    /// Loss of late.
    pub loss: f32,
}

/// A device does not take part, in a round or a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The run.
    pub run: RunId,
    /// The round.
    pub round: u32,
    /// Why, for people.
    pub reason: String,
    /// Unix milliseconds until which it holds, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// A device lacks the global state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Need {
    /// The run.
    pub run: RunId,
    /// Digest of the state.
    pub state: Digest,
}

/// A device asks whether it is heard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Any number, to know the answer by.
    pub nonce: u64,
    /// What the device signs with.
    pub key: PublicKey,
}

/// The host heard a device's hello, and takes its messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// The hello's.
    pub nonce: u64,
    /// Unix milliseconds, by the host's clock.
    pub time: u64,
    /// Version of the host's program.
    pub version: String,
}

/// Who the host is. Retained, and signed with the key it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// What it signs with.
    pub key: PublicKey,
    /// Version of its program.
    pub version: String,
}

/// A run is over, for good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// The run.
    pub run: RunId,
    /// Its beginning, as in its plan.
    pub began: u64,
}

macro_rules! messages {
    ($($(#[$doc:meta])* $kind:literal $name:ident $what:literal),* $(,)?) => {
        /// Any message.
        // One at a time is in hand; a box would only be in the way.
        #[allow(clippy::large_enum_variant)]
        #[derive(Clone, Debug, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($name),)*
        }

        impl Message {
            /// As bytes, compressed at `level` where that helps.
            ///
            /// # Errors
            /// When it has no CBOR form.
            pub fn encode(&self, level: i32) -> Result<Vec<u8>, WireError> {
                // A chunk's data is compressed already.
                let level = if matches!(self, Message::Chunk(_)) { 0 } else { level };
                let frame = self.room();
                match self {
                    $(Message::$name(body) => frame::encode_into(frame, $kind, body, level),)*
                }
            }

            /// The same of a message that is needed no more: a long one is given up as soon as it is written.
            ///
            /// # Errors
            /// When it has no CBOR form.
            pub fn into_bytes(self, level: i32) -> Result<Vec<u8>, WireError> {
                let frame = self.room();
                match self {
                    $(Message::$name(body) => frame::encode_into(frame, $kind, body, level),)*
                }
            }

            /// From bytes, decompressed to at most `limit`.
            ///
            /// # Errors
            /// When they are no message, of another version, damaged or too large.
            pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, WireError> {
                let (kind, cbor) = frame::open(bytes, limit)?;
                Ok(match kind {
                    $($kind => Message::$name(frame::body($what, &cbor)?),)*
                    other => return Err(WireError::Kind(other)),
                })
            }

            /// From bytes that are read as they are needed, decompressed to at most `limit`: for messages too long to be held
            /// twice.
            ///
            /// # Errors
            /// As [`Message::decode`] has them; [`WireError::Source`] when `source` fails.
            pub fn read(source: impl Read, limit: usize) -> Result<Self, WireError> {
                let mut frame = Opened::new(source, limit)?;
                let message = match frame.kind() {
                    $($kind => frame.body($what).map(Message::$name),)*
                    other => Err(WireError::Kind(other)),
                };
                frame.end(message)
            }

            /// What it is, for people.
            pub fn what(&self) -> &'static str {
                match self {
                    $(Message::$name(_) => $what,)*
                }
            }
        }

        $(impl From<$name> for Message {
            fn from(body: $name) -> Self {
                Message::$name(body)
            }
        })*
    };
}

messages! {
    /// Who is there.
    1 Presence "presence",
    /// A run's beginning.
    2 RunPlan "plan",
    /// A run's current round.
    3 Manifest "manifest",
    /// Part of a payload.
    4 Chunk "chunk",
    /// What a device made of a round.
    5 Update "update",
    /// A global state or its change.
    6 Tensors "tensors",
    /// What the host says to an update.
    7 Verdict "verdict",
    /// How far a device is.
    8 Progress "progress",
    /// A device does not take part.
    9 Refusal "refusal",
    /// A device lacks the state.
    10 Need "need",
    /// A device asks whether it is heard.
    11 Hello "hello",
    /// It is.
    12 Greeting "greeting",
    /// Who the host is.
    13 Host "host",
    /// A run is over.
    14 End "end",
}

fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Bytes of a frame beside its data, and of a seal: at most, where there are few tensors.
const AROUND: usize = 4096;

impl Message {
    /// What it is written to: where it is about to be long, with room for all of it.
    fn room(&self) -> Vec<u8> {
        let of = |tensors: &[EncodedTensor]| tensors.iter().map(|tensor| tensor.data.len()).sum();
        let data: usize = match self {
            Message::Chunk(chunk) => chunk.data.len(),
            Message::Update(Update { tensors, .. }) | Message::Tensors(Tensors { tensors, .. }) => of(tensors),
            _ => return Vec::new(),
        };
        buffer(data + AROUND)
    }
}

impl Update {
    /// Its tensors' values, in the order of `trained`, places in `layout`.
    ///
    /// # Errors
    /// When number, shape or a value is not as it must be.
    pub fn values(&self, layout: &Layout, trained: &[u32]) -> Result<Vec<ArrayD<f32>>, WireError> {
        decode_all(&self.tensors, layout, trained)
    }
}

impl Tensors {
    /// The values and their places.
    ///
    /// # Errors
    /// When a place is not in the layout or out of order, or a tensor does not fit its place.
    pub fn values(&self, layout: &Layout) -> Result<Vec<(usize, ArrayD<f32>)>, WireError> {
        if !self.places.is_sorted_by(|a, b| a < b) {
            return Err(WireError::Body { what: "tensors", reason: "places do not ascend".into() });
        }
        let values = decode_all(&self.tensors, layout, &self.places)?;
        Ok(self.places.iter().map(|&place| place as usize).zip(values).collect())
    }
}

fn decode_all(tensors: &[EncodedTensor], layout: &Layout, places: &[u32]) -> Result<Vec<ArrayD<f32>>, WireError> {
    if tensors.len() != places.len() {
        return Err(WireError::Count { expected: places.len(), found: tensors.len() });
    }
    let decode = |(tensor, &place): (&EncodedTensor, &u32)| match layout.0.get(place as usize) {
        Some(entry) => tensor.decode(&entry.name, &entry.shape),
        None => Err(WireError::Tensor { name: format!("#{place}"), reason: "is not in the layout".into() }),
    };
    tensors.iter().zip(places).map(decode).collect()
}
