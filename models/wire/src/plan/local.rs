//! What a device does in a round.

use fedtt_tt::optim::{Decay, Rule};
use serde::{Deserialize, Serialize};

use super::{PlanError, at_least, within};

/// What becomes of the optimiser's moments between a device's rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Moments {
    /// They start at zero.
    #[default]
    Fresh,
    /// They are kept on the device.
    Carry,
}

/// What a device does in a round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LocalPlan {
    /// Optimiser steps.
    pub steps: u32,
    /// Instead: passes over the device's examples.
    pub epochs: Option<f64>,
    /// Examples in a batch.
    pub batch: usize,
    /// How the adapters' matrices are trained; by their method if absent. Biases and the head are trained by AdamW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optimiser: Option<Rule>,
    /// Full learning rate of the adapters; by the adapters' method if absent.
    pub rate: Option<f32>,
    /// Full learning rate of the head.
    pub head_rate: f32,
    /// Rounds over which the rates rise to their full value.
    pub warmup: u32,
    /// How they fall afterwards, over the rounds.
    pub decay: Decay,
    /// Share of them left in the last round.
    pub floor: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// Largest global norm of a step's gradients; 0 for no limit.
    pub clip: f32,
    /// Added to the root of the second moment, by Muon to the root mean square of the first. Gradients far below it move values little; with 1e-8 the smallest moves
    /// them as far as the largest, also those of a device with one class, whose adjusted loss is next to nothing.
    pub epsilon: f32,
    /// Weight of the proximal term mu/2 |w - w_global|^2 (FedProx, Li et al. 2020).
    pub prox: f32,
    /// What becomes of the optimiser's moments.
    pub moments: Moments,
    /// How much of a device's own mix of classes is taken out of its loss: its logits are trained with this times the
    /// logarithm of each class's share added (Menon et al. 2021). 0 for none, 1 for all.
    pub logit_adjustment: f32,
    /// How far the classes of a device are evened out in its batches: they are drawn in proportion to n^(1 - this) of a class's
    /// n examples. 0 for as they are, 1 for all alike. The logit adjustment is of the mix that is drawn.
    pub class_balance: f32,
}

impl Default for LocalPlan {
    fn default() -> Self {
        LocalPlan {
            steps: 10,
            epochs: None,
            batch: 16,
            optimiser: None,
            rate: None,
            head_rate: 5e-3,
            warmup: 0,
            decay: Decay::Constant,
            floor: 0.1,
            weight_decay: 0.0,
            clip: 1.0,
            epsilon: 1e-8,
            prox: 0.0,
            moments: Moments::Fresh,
            logit_adjustment: 0.0,
            class_balance: 0.0,
        }
    }
}

impl LocalPlan {
    /// Steps of a device with `examples`.
    pub fn steps_of(&self, examples: usize) -> u32 {
        match self.epochs {
            None => self.steps,
            Some(epochs) => (epochs * examples as f64 / self.batch as f64).ceil().clamp(1.0, 1e9) as u32,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        if self.steps == 0 || self.steps > 1_000_000 {
            return Err(PlanError::new("local.steps", format!("{} is not within 1..=1000000", self.steps)));
        }
        if let Some(epochs) = self.epochs {
            within("local.epochs", epochs, 1e-3, 1e4)?;
        }
        if !(1..=4096).contains(&self.batch) {
            return Err(PlanError::new("local.batch", format!("{} is not within 1..=4096", self.batch)));
        }
        if let Some(rate) = self.rate {
            at_least("local.rate", f64::from(rate), 1e-12)?;
        }
        at_least("local.head_rate", f64::from(self.head_rate), 1e-12)?;
        within("local.floor", f64::from(self.floor), 0.0, 1.0)?;
        at_least("local.weight_decay", f64::from(self.weight_decay), 0.0)?;
        at_least("local.clip", f64::from(self.clip), 0.0)?;
        within("local.epsilon", f64::from(self.epsilon), 1e-12, 1.0)?;
        at_least("local.prox", f64::from(self.prox), 0.0)?;
        within("local.logit_adjustment", f64::from(self.logit_adjustment), 0.0, 4.0)?;
        within("local.class_balance", f64::from(self.class_balance), 0.0, 1.0)
    }
}
