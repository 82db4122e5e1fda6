//! What goes into a participant and what comes out.

use std::sync::Arc;

use fedtt_tt::TrainMask;
use fedtt_wire::message::{Goal, Presence, RunPlan};
use fedtt_wire::{Digest, Layout, Message, RunId, Topic};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::Notice;
use crate::local::{LocalMemory, LocalResult, Stepped};

/// Something happened.
#[derive(Debug)]
pub enum Event {
    /// The broker is reached, and has our subscriptions.
    Connected,
    /// It no longer is.
    Disconnected,
    /// A message came in.
    Message {
        /// Where it was published.
        topic: Topic,
        /// What it says.
        message: Box<Message>,
    },
    /// A retained message was cleared, by whomever: nobody signs that.
    Cleared {
        /// Where it stood.
        topic: Topic,
    },
    /// What [`Effect::Prepare`] asked for.
    Prepared {
        /// The run.
        run: RunId,
        /// Or why the device cannot take part.
        outcome: Result<Prepared, String>,
    },
    /// What [`Effect::Look`] asked for.
    Looked {
        /// The run.
        run: RunId,
        /// Why the board may not train now, if it may not.
        objection: Option<String>,
    },
    /// A job waits for the board, or no longer does.
    Paused {
        /// Which job.
        job: u64,
        /// What it waits for; nothing any more if absent.
        reason: Option<String>,
    },
    /// A step of a job was done.
    Progressed {
        /// Which job.
        job: u64,
        /// How far it is.
        stepped: Stepped,
    },
    /// A job ended.
    Trained {
        /// Which.
        job: u64,
        /// Its result, or why there is none.
        outcome: Result<Box<LocalResult>, String>,
        /// Bytes the device has sent and received since it started.
        traffic: (u64, u64),
    },
    /// What [`Effect::Fetch`] asked for.
    Fetched {
        /// Which bundle.
        bundle: String,
        /// Or why it is not here.
        outcome: Result<(), String>,
    },
    /// What [`Effect::Adopt`] asked for.
    Adopted {
        /// The run.
        run: RunId,
        /// Rounds that led to the state.
        round: u32,
        /// Or why it is not used.
        outcome: Result<(), String>,
    },
    /// What the device works with, or what it says of itself, is this from now on. With a problem in it, it trains nothing.
    Presence(Box<Presence>),
    /// Time passed.
    Tick,
}

/// A global state to be used for prediction on this device.
#[derive(Clone, Debug)]
pub struct Adoption {
    /// The run with its plan.
    pub plan: Arc<RunPlan>,
    /// Rounds that led to it.
    pub round: u32,
    /// Digest of its values.
    pub digest: Digest,
    /// Its values, in the order of the layout.
    pub values: Arc<Vec<ArrayD<f32>>>,
}

/// A plan's model is loaded, and the device's examples are encoded for it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Its tensors.
    pub layout: Layout,
    /// The values a run of it begins with.
    pub initial: Vec<ArrayD<f32>>,
    /// Examples the device can train on.
    pub examples: u64,
}

/// Local work to be done.
#[derive(Clone, Debug)]
pub struct Job {
    /// Names it in events.
    pub id: u64,
    /// The run with its plan.
    pub plan: Arc<RunPlan>,
    /// The round.
    pub round: u32,
    /// What is asked.
    pub goal: Goal,
    /// What trains.
    pub mask: TrainMask,
    /// Fraction of the full learning rates.
    pub rate: f32,
    /// The global values.
    pub globals: Arc<Vec<ArrayD<f32>>>,
    /// What was kept of the rounds before.
    pub memory: LocalMemory,
}

/// A file of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The global values.
    State,
    /// What the device made, and what it keeps between rounds.
    Work,
}

/// Something to be done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Publish a message.
    Publish {
        /// Where.
        topic: Topic,
        /// What.
        message: Box<Message>,
        /// Whether the broker keeps it.
        retain: bool,
    },
    /// Subscribe to a filter.
    Subscribe(String),
    /// Unsubscribe from it.
    Unsubscribe(String),
    /// Load a plan's model and encode the device's examples for it; answered with [`Event::Prepared`].
    Prepare(Arc<RunPlan>),
    /// See whether the board may do a plan's work now; answered with [`Event::Looked`].
    Look(Arc<RunPlan>),
    /// Fetch a bundle by its hash; answered with [`Event::Fetched`].
    Fetch(String),
    /// Check a global state and use it from then on, once there is nothing else to do; answered with [`Event::Adopted`].
    Adopt(Adoption),
    /// Do local work; answered with [`Event::Trained`].
    Train(Box<Job>),
    /// Stop a job. Its end is of no interest.
    Stop(u64),
    /// Write a file, durably, before anything that follows.
    Save {
        /// The run.
        run: RunId,
        /// Which of its files.
        slot: Slot,
        /// The content.
        bytes: Vec<u8>,
    },
    /// Remove all files of a run.
    Forget(RunId),
    /// Put a file aside that is of no use.
    SetAside {
        /// The run.
        run: RunId,
        /// Which of its files.
        slot: Slot,
    },
    /// Write how far runs were followed, for [`Found::ledger`](super::Found::ledger). It has to last before what follows is done.
    Remember(Vec<u8>),
    /// Tell people.
    Tell(Notice),
}
