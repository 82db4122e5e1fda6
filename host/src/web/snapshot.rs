//! What the live page, the API and the metrics show. Whoever runs the federation fills it; nothing here reads the store.

use fedtt_wire::{DeviceName, RunId};
use serde::{Deserialize, Serialize};

use crate::record::{Refused, RunSummary};

/// All there is to see at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Unix milliseconds at which it was taken.
    pub time: u64,
    /// The fleet's name.
    pub fleet: String,
    /// Version of the host's program.
    pub version: String,
    /// The broker.
    pub broker: Broker,
    /// Runs, the newest first.
    pub runs: Vec<RunView>,
    /// Devices, by name.
    pub devices: Vec<DeviceView>,
    /// The last errors, the newest first.
    pub errors: Vec<Fault>,
    /// Errors since the start.
    pub errors_total: u64,
    /// Messages that belonged to no run.
    pub refused: Refused,
}

/// The broker devices and host meet at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Its address, without credentials.
    pub address: String,
    /// Whether it runs within the host.
    pub embedded: bool,
    /// Whether the host is connected to it.
    pub connected: bool,
}

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunView {
    /// How it stands.
    pub summary: RunSummary,
    /// The round going on; none where nothing is.
    pub current: Option<RoundView>,
    /// Quality of the global adapter: rounds trained, value; of all rounds or the last few hundred.
    pub quality: Vec<(u32, f64)>,
}

/// What a round waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// For devices.
    Selecting,
    /// For updates.
    Collecting,
    /// For `resume` or `step`.
    Resting,
}

/// The round going on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundView {
    /// From 0.
    pub round: u32,
    /// What it waits for.
    pub phase: Phase,
    /// Unix milliseconds since when.
    pub began: u64,
    /// Unix milliseconds of its end in any case.
    pub deadline: Option<u64>,
    /// Updates in.
    pub received: usize,
    /// Its devices: those asked, or while it waits for devices those it could ask.
    pub cohort: Vec<MemberView>,
    /// Devices it needs to begin.
    pub needed: usize,
    /// Unix milliseconds before which it does not begin, as it has failed before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub again: Option<u64>,
}

/// Where a device of the cohort is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MemberState {
    /// Nothing heard of it in this round.
    Asked,
    /// It gets the run's bundle first.
    Fetching,
    /// It reports progress.
    Training,
    /// Its update is in.
    Received,
    /// It does not take part.
    Declined,
}

/// A device of the cohort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberView {
    /// Its name.
    pub device: DeviceName,
    /// Where it is.
    pub state: MemberState,
    /// Steps done.
    pub step: u32,
    /// Of so many; 0 where unknown.
    pub steps: u32,
    /// Its training loss of late.
    pub loss: Option<f32>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Its name.
    pub name: DeviceName,
    /// Whether it is connected.
    pub online: bool,
    /// The groups it belongs to.
    pub labels: Vec<String>,
    /// What runs its graphs.
    pub engine: String,
    /// Version of its program.
    pub version: String,
    /// Examples it can train on.
    pub examples: u64,
    /// Why it takes part in nothing for now.
    pub problem: Option<String>,
    /// Unix milliseconds of its last message.
    pub last_seen: u64,
    /// Why it declined last, and in which run.
    pub last_refusal: Option<(RunId, String)>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Unix milliseconds.
    pub time: u64,
    /// Where: a device, a run, the broker.
    pub source: String,
    /// What, for people.
    pub message: String,
}
