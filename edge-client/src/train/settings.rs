//! How a run goes.

use fedtt_tt::AdapterConfig;
use fedtt_tt::optim::{OptimiserConfig, Rule, Schedule};
use serde::{Deserialize, Serialize};

pub use fedtt_tt::optim::Decay;

/// Everything that decides the outcome of a run, apart from backbone, data and engine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainSettings {
    /// The adapters and the head.
    pub adapter: AdapterConfig,
    /// Whether the backbone's norm gains, from the lowest adapted block up, train as well.
    pub train_norms: bool,
    /// Passes over the data.
    pub epochs: usize,
    /// Examples in a batch.
    pub batch: usize,
    /// Batches whose gradients make one step.
    pub accumulate: usize,
    /// Longest text, in tokens.
    pub max_length: usize,
    /// How the adapters' matrices are trained; by their method if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimiser: Option<Rule>,
    /// Full learning rate of the adapters.
    pub rate: f32,
    /// Full learning rate of the head.
    pub head_rate: f32,
    /// Share of the steps over which the rate rises to its full value.
    pub warmup: f32,
    /// What follows.
    pub decay: Decay,
    /// Share of the rate left at the end.
    pub floor: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of a step's gradients; 0 for no limit.
    pub clip: f32,
    /// Seeds initial values, order and held-out examples.
    pub seed: u64,
    /// Held-out evaluations in an epoch.
    pub evaluations: usize,
    /// Stop after this many held-out evaluations in a row without a new best.
    pub patience: Option<usize>,
    /// Leave off after this many steps in all, to be continued; not part of what the run is.
    #[serde(skip)]
    pub stop_after: Option<u64>,
}

impl Default for TrainSettings {
    fn default() -> Self {
        TrainSettings {
            adapter: AdapterConfig::default(),
            train_norms: false,
            epochs: 3,
            batch: 16,
            accumulate: 1,
            max_length: 128,
            optimiser: None,
            rate: 5e-3,
            head_rate: 2e-2,
            warmup: 0.06,
            decay: Decay::Linear,
            floor: 0.0,
            weight_decay: 0.0,
            clip: 1.0,
            seed: 0,
            evaluations: 1,
            patience: None,
            stop_after: None,
        }
    }
}

impl TrainSettings {
    /// The optimiser's settings for epochs of `steps`.
    pub fn optimiser(&self, steps: u64) -> OptimiserConfig {
        let total = steps * self.epochs as u64;
        let warmup = (f64::from(self.warmup) * total as f64).round() as u64;
        let schedule = Schedule {
            warmup_steps: warmup.min(total),
            decay: self.decay,
            total_steps: Some(total),
            floor: self.floor,
        };
        OptimiserConfig {
            learning_rate: self.rate,
            weight_decay: self.weight_decay,
            clip_norm: (self.clip > 0.0).then_some(self.clip),
            schedule,
            ..OptimiserConfig::default()
        }
    }

    /// A hash of these settings and the data's `fingerprint`: runs that share it do the same steps.
    pub(crate) fn identity(&self, fingerprint: &str) -> String {
        let settings = serde_json::to_string(self).expect("settings are plain values");
        fedtt_wire::Digest::of(format!("{settings}\n{fingerprint}").as_bytes()).to_string()
    }
}
