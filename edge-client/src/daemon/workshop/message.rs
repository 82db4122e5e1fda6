//! What a device and the process that trains for it say to each other: CBOR behind its length, over a pair of sockets.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use fedtt_runtime::EngineConfig;
use fedtt_tt::TrainMask;
use fedtt_wire::message::{Goal, Measurement, RunPlan};
use fedtt_wire::tensor::packed::Packed;
use fedtt_wire::{DeviceName, Digest, Layout, RunId, WireError};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::super::{Data, Settings};
use crate::local::{LocalResult, Stepped, Stored, StoredMemory};
use crate::round::{Adoption, Job, Prepared};
use crate::source::Available;

/// What local work is done with.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(in crate::daemon) struct Place {
    pub(in crate::daemon) device: DeviceName,
    pub(in crate::daemon) sources: Vec<Available>,
    pub(in crate::daemon) data: Data,
    pub(in crate::daemon) engine: EngineConfig,
    pub(in crate::daemon) state: PathBuf,
}

impl Place {
    pub(in crate::daemon) fn of(settings: &Settings) -> Self {
        Place {
            device: settings.name.clone(),
            sources: settings.sources.clone(),
            data: settings.data.clone(),
            engine: settings.engine.clone(),
            state: settings.state.clone(),
        }
    }
}

/// What the device asks for. All but `Place`, `Go` and `Forget` are answered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Asked {
    /// First of all.
    Place(Place),
    Need(RunPlan),
    Prepare(RunPlan),
    Train(StoredJob),
    /// To [`Answer::Step`]: whether to do the step.
    Go(bool),
    Adopt(StoredAdoption),
    Forget(RunId),
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Need(u64),
    Prepared(Result<StoredPrepared, String>),
    /// It is about to do a step.
    Step,
    Stepped {
        step: u32,
        steps: u32,
        loss: f32,
    },
    Trained(Result<Box<StoredResult>, String>),
    Adopted(Result<(), String>),
    /// Something panicked. Unless an answer follows, these were its last words.
    Panicked(String),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredPrepared {
    layout: Layout,
    initial: Stored,
    examples: u64,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredJob {
    id: u64,
    plan: RunPlan,
    round: u32,
    goal: Goal,
    mask: TrainMask,
    rate: f32,
    globals: Stored,
    memory: StoredMemory,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredAdoption {
    plan: RunPlan,
    round: u32,
    digest: Digest,
    values: Stored,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct StoredResult {
    tensors: Packed,
    examples: u64,
    steps: u32,
    tokens: u64,
    joules: Option<f64>,
    loss: f64,
    seconds: f64,
    measured: Option<Measurement>,
    memory: StoredMemory,
}

impl StoredPrepared {
    pub(super) fn of(prepared: Prepared) -> Self {
        let Prepared { layout, initial, examples } = prepared;
        StoredPrepared { layout, initial: Stored::of(&initial), examples }
    }

    pub(super) fn load(self) -> Result<Prepared, WireError> {
        Ok(Prepared { layout: self.layout, initial: self.initial.load()?, examples: self.examples })
    }
}

impl StoredJob {
    pub(super) fn of(job: &Job) -> Self {
        StoredJob {
            id: job.id,
            plan: job.plan.as_ref().clone(),
            round: job.round,
            goal: job.goal,
            mask: job.mask.clone(),
            rate: job.rate,
            globals: Stored::of(&job.globals),
            memory: StoredMemory::of(&job.memory),
        }
    }

    pub(super) fn load(self) -> Result<Job, WireError> {
        Ok(Job {
            id: self.id,
            plan: Arc::new(self.plan),
            round: self.round,
            goal: self.goal,
            mask: self.mask,
            rate: self.rate,
            globals: Arc::new(self.globals.load()?),
            memory: self.memory.load()?,
        })
    }
}

impl StoredAdoption {
    pub(super) fn of(adoption: &Adoption) -> Self {
        let Adoption { plan, round, digest, values } = adoption;
        let plan = plan.as_ref().clone();
        StoredAdoption { plan, round: *round, digest: *digest, values: Stored::of(values) }
    }

    pub(super) fn load(self) -> Result<Adoption, WireError> {
        let values = Arc::new(self.values.load()?);
        Ok(Adoption { plan: Arc::new(self.plan), round: self.round, digest: self.digest, values })
    }
}

impl StoredResult {
    pub(super) fn of(result: LocalResult) -> Self {
        StoredResult {
            memory: StoredMemory::of(&result.memory),
            tensors: Packed(result.tensors),
            examples: result.examples,
            steps: result.steps,
            tokens: result.tokens,
            joules: result.joules,
            loss: result.loss,
            seconds: result.seconds,
            measured: result.measured,
        }
    }

    pub(super) fn load(self) -> Result<LocalResult, WireError> {
        Ok(LocalResult {
            memory: self.memory.load()?,
            tensors: self.tensors.0,
            examples: self.examples,
            steps: self.steps,
            tokens: self.tokens,
            joules: self.joules,
            loss: self.loss,
            seconds: self.seconds,
            measured: self.measured,
        })
    }
}

impl From<Stepped> for Answer {
    fn from(Stepped { step, steps, loss }: Stepped) -> Self {
        Answer::Stepped { step, steps, loss }
    }
}

/// Writes a message in one go.
pub(super) fn write(mut to: impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 8];
    ciborium::into_writer(message, &mut bytes).map_err(io::Error::other)?;
    let length = bytes.len() as u64 - 8;
    bytes[..8].copy_from_slice(&length.to_le_bytes());
    to.write_all(&bytes)
}

/// Reads a message.
pub(super) fn read<T: DeserializeOwned>(mut from: impl Read) -> io::Result<T> {
    let mut length = [0; 8];
    from.read_exact(&mut length)?;
    let mut bytes = Vec::new();
    let length = u64::from_le_bytes(length);
    if from.take(length).read_to_end(&mut bytes)? as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    ciborium::from_reader(bytes.as_slice()).map_err(io::Error::other)
}
