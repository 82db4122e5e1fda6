//! What a run leaves behind: one record per round, one per run. `rounds.jsonl` and `summary.json` hold them as they are.

use std::collections::BTreeMap;

pub use fedtt_wire::message::Measurement as Measured;
use fedtt_wire::names::{DeviceName, RunId};
use serde::{Deserialize, Serialize};

/// Bytes both ways, as seen by the devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// From devices to the broker.
    pub up: u64,
    /// From the broker to devices.
    pub down: u64,
}

/// What became of the messages of a round that were not aggregated, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Refused {
    /// After the round was over.
    pub late: u64,
    /// A second time.
    pub duplicate: u64,
    /// From a device that was not asked, or in another's name.
    pub foreign: u64,
    /// Not understood: truncated, of wrong shape, of an unknown version, over a limit.
    pub malformed: u64,
    /// Infinite, not a number, or out of proportion.
    pub outlying: u64,
    /// Not signed by the device in whose name it came, or that device is not trusted. Of no run.
    pub forged: u64,
    /// Signed, and said before something that is known already. Of no run.
    pub replayed: u64,
}

/// One device in one round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Contribution {
    /// Examples it trained on.
    pub examples: u64,
    /// Its share of the mean, 0 to 1.
    pub weight: f64,
    /// Norm of its change.
    pub norm: f64,
    /// Mean training loss.
    pub loss: f64,
    /// Seconds it trained.
    pub seconds: f64,
    /// Joules it took, where the board can tell.
    pub joules: Option<f64>,
    /// Tokens it trained on, without padding.
    pub tokens: u64,
    /// Its bytes in this round, MQTT overhead included.
    pub traffic: Traffic,
    /// Bytes of its update's payload.
    pub payload: u64,
    /// The global adapter it started from, on the examples it holds out.
    pub measured: Option<Measured>,
}

/// One round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RoundRecord {
    /// From 0.
    pub round: u32,
    /// Times it was begun.
    pub attempts: u32,
    /// Unix milliseconds of its beginning.
    pub began: u64,
    /// Seconds to its end.
    pub seconds: f64,
    /// Devices asked.
    pub cohort: usize,
    /// Values that trained.
    pub trained: u64,
    /// Those aggregated.
    pub contributions: BTreeMap<String, Contribution>,
    /// Those that were in and are not in the result, for being out of proportion.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left_out: BTreeMap<String, Contribution>,
    /// Devices asked that are not in the result, with the reasons: they refused, were away, or were left out.
    pub refusals: BTreeMap<String, String>,
    /// Messages not aggregated.
    pub refused: Refused,
    /// The adapter this round began with, on devices' held-out examples, weighted by their
    /// number, where none has more than ten times the examples of the device in the middle.
    pub before: Option<Measured>,
    /// The adapter this round ended with, on the host's own examples.
    pub after: Option<Measured>,
    /// Bytes of the round, all devices together.
    pub traffic: Traffic,
    /// Bytes of the change published to all.
    pub published: u64,
    /// Norm of the global change.
    pub norm: f64,
    /// Relative error of rounding, for `exact`.
    pub truncation: Option<f64>,
}

impl RoundRecord {
    /// All that were in, by device.
    pub fn all(&self) -> impl Iterator<Item = (&String, &Contribution)> {
        self.contributions.iter().chain(&self.left_out)
    }
}

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Its rounds go on.
    #[default]
    Running,
    /// The round going on is the last for now.
    Pausing,
    /// Waits for `resume` or `step`.
    Paused,
    /// All rounds are done, or it stopped early as planned.
    Finished,
    /// Stopped by the operator.
    Stopped,
}

impl Status {
    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Finished | Status::Stopped)
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// Its id.
    pub run: RunId,
    /// Its plan's name.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// Why, where that needs saying.
    pub reason: Option<String>,
    /// Rounds done.
    pub rounds_done: u32,
    /// Rounds planned.
    pub rounds: u32,
    /// Values of the adapter, and those that train at all.
    pub values: u64,
    /// Unix milliseconds of its beginning.
    pub began: u64,
    /// Unix milliseconds of its end.
    pub ended: Option<u64>,
    /// The round whose adapter measured best, and what it measured.
    pub best: Option<(u32, Measured)>,
    /// The last measurement.
    pub last: Option<Measured>,
    /// Bytes of all rounds and devices.
    pub traffic: Traffic,
    /// Updates aggregated.
    pub updates: u64,
    /// Messages not aggregated.
    pub refused: Refused,
    /// Devices that took part.
    pub devices: Vec<DeviceName>,
}

/// Whether of two values of a metric the lower one is the better.
pub fn less_is_better(metric: &str) -> bool {
    ["nats", "loss", "perplexity", "error"].iter().any(|word| metric.contains(word))
}
