//! What outlives the process: two files of each run, in the frame of a message, so that damage is seen.

use std::sync::Arc;

use fedtt_tt::OptimiserState;
use fedtt_wire::message::Goal;
use fedtt_wire::plan::Encoding;
use fedtt_wire::tensor::EncodedTensor;
use fedtt_wire::tensor::packed::Packed;
use fedtt_wire::{Digest, WireError, frame};
use ndarray::ArrayD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::local::LocalMemory;

/// Kinds of frame, beyond those of messages.
const STATE: u8 = 101;
const WORK: u8 = 102;

/// The global values of a run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) digest: Digest,
    pub(super) values: Arc<Vec<ArrayD<f32>>>,
}

/// What a device made for a run and keeps for it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Work {
    /// The plan it is for, as a digest: a run of the same name with another plan is another run.
    pub(super) plan: Option<Digest>,
    pub(super) memory: LocalMemory,
    pub(super) last: Option<Done>,
}

/// What is asked of a device, whatever the attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Task {
    pub(super) round: u32,
    pub(super) goal: Goal,
    /// The global state it begins with.
    pub(super) state: Digest,
}

/// The last finished work: never done again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Done {
    pub(super) task: Task,
    /// The last attempt it was delivered in.
    pub(super) attempt: u32,
    /// The update, as it is cut into chunks.
    pub(super) payload: Vec<u8>,
    /// Largest chunk.
    pub(super) chunk: usize,
    /// To be adopted once the update is counted; absent afterwards.
    pub(super) memory: Option<LocalMemory>,
    pub(super) verdict: Settled,
}

/// What became of an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Settled {
    /// Nothing yet.
    Open,
    Counted,
    Late,
    Rejected,
}

#[derive(Serialize, Deserialize)]
struct StoredState {
    digest: Digest,
    values: Stored,
}

#[derive(Serialize, Deserialize)]
struct StoredWork {
    plan: Option<Digest>,
    memory: StoredMemory,
    last: Option<StoredDone>,
}

#[derive(Serialize, Deserialize)]
struct StoredDone {
    task: Task,
    attempt: u32,
    payload: ByteBuf,
    chunk: usize,
    memory: Option<StoredMemory>,
    verdict: Settled,
}

#[derive(Serialize, Deserialize)]
struct StoredMemory {
    residual: Option<Stored>,
    moments: Option<StoredMoments>,
}

#[derive(Serialize, Deserialize)]
struct StoredMoments {
    step: u64,
    updates: Vec<u64>,
    first: Stored,
    second: Stored,
}

/// Tensors with their shapes, to the bit.
#[derive(Serialize, Deserialize)]
struct Stored(Vec<Vec<usize>>, Packed);

fn store(values: &[ArrayD<f32>]) -> Stored {
    let encode = |v: &ArrayD<f32>| EncodedTensor::encode(v.view(), Encoding::F32, Some(false));
    let shapes = values.iter().map(|v| v.shape().to_vec()).collect();
    Stored(shapes, Packed(values.iter().map(encode).collect()))
}

fn load(Stored(shapes, Packed(tensors)): &Stored) -> Result<Vec<ArrayD<f32>>, WireError> {
    if shapes.len() != tensors.len() {
        return Err(WireError::Count { expected: shapes.len(), found: tensors.len() });
    }
    shapes.iter().zip(tensors).map(|(shape, tensor)| tensor.decode("stored", shape)).collect()
}

fn read<T: DeserializeOwned>(kind: u8, what: &'static str, bytes: &[u8]) -> Result<T, WireError> {
    let (found, body) = frame::open(bytes, bytes.len())?;
    if found != kind {
        return Err(WireError::Kind(found));
    }
    frame::body(what, &body)
}

impl State {
    pub(super) fn new(values: Vec<ArrayD<f32>>) -> Self {
        State { digest: Digest::of_values(&values), values: Arc::new(values) }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        frame::encode(STATE, &StoredState { digest: self.digest, values: store(&self.values) }, 0)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let stored: StoredState = read(STATE, "state", bytes)?;
        let state = State::new(load(&stored.values)?);
        if state.digest != stored.digest {
            return Err(WireError::Checksum("state"));
        }
        Ok(state)
    }
}

impl StoredMemory {
    fn of(memory: &LocalMemory) -> Self {
        let moments = |m: &OptimiserState| StoredMoments {
            step: m.step,
            updates: m.updates.clone(),
            first: store(&m.first),
            second: store(&m.second),
        };
        StoredMemory { residual: memory.residual.as_deref().map(store), moments: memory.moments.as_ref().map(moments) }
    }

    fn load(&self) -> Result<LocalMemory, WireError> {
        let moments = |m: &StoredMoments| {
            let (first, second) = (load(&m.first)?, load(&m.second)?);
            Ok(OptimiserState { step: m.step, updates: m.updates.clone(), first, second })
        };
        Ok(LocalMemory {
            residual: self.residual.as_ref().map(load).transpose()?,
            moments: self.moments.as_ref().map(moments).transpose()?,
        })
    }
}

impl Work {
    pub(super) fn encode(&self) -> Result<Vec<u8>, WireError> {
        let last = self.last.as_ref().map(|done| StoredDone {
            task: done.task,
            attempt: done.attempt,
            payload: ByteBuf::from(done.payload.clone()),
            chunk: done.chunk,
            memory: done.memory.as_ref().map(StoredMemory::of),
            verdict: done.verdict,
        });
        frame::encode(WORK, &StoredWork { plan: self.plan, memory: StoredMemory::of(&self.memory), last }, 0)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let stored: StoredWork = read(WORK, "work", bytes)?;
        let done = |done: StoredDone| {
            Ok(Done {
                task: done.task,
                attempt: done.attempt,
                payload: done.payload.into_vec(),
                chunk: done.chunk.max(1),
                memory: done.memory.as_ref().map(StoredMemory::load).transpose()?,
                verdict: done.verdict,
            })
        };
        Ok(Work { plan: stored.plan, memory: stored.memory.load()?, last: stored.last.map(done).transpose()? })
    }
}
