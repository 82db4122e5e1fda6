//! What outlives the process: two files of each run, in the frame of a message, so that damage is seen.

use std::sync::Arc;

use fedtt_wire::message::Goal;
use fedtt_wire::{Digest, WireError, frame};
use ndarray::ArrayD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

use crate::local::{LocalMemory, Stored, StoredMemory};

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
        frame::encode(STATE, &StoredState { digest: self.digest, values: Stored::of(&self.values) }, 0)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let stored: StoredState = read(STATE, "state", bytes)?;
        let state = State::new(stored.values.load()?);
        if state.digest != stored.digest {
            return Err(WireError::Checksum("state"));
        }
        Ok(state)
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

/// The file of a run whose first update waits for a verdict; and whether such a file's update still does.
#[cfg(test)]
pub(crate) mod stored {
    use super::{Done, Goal, Settled, Task, Work};
    use fedtt_wire::Digest;

    pub(crate) fn open_update(payload: &[u8]) -> Vec<u8> {
        let task = Task { round: 0, goal: Goal::Train, state: Digest::of(b"") };
        let (payload, verdict) = (payload.to_vec(), Settled::Open);
        let last = Done { task, attempt: 0, payload, chunk: 1024, memory: None, verdict };
        Work { last: Some(last), ..Work::default() }.encode().unwrap_or_default()
    }

    pub(crate) fn is_open(bytes: &[u8]) -> bool {
        Work::decode(bytes).is_ok_and(|work| work.last.is_some_and(|done| done.verdict == Settled::Open))
    }
}
