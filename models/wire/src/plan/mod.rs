//! What a run is: the plan an operator writes, the host validates and every device receives.

mod aggregation;
mod coding;
mod local;
mod rounds;
mod schedule;

use fedtt_tt::AdapterConfig;
use serde::{Deserialize, Serialize};

pub use aggregation::{AggregationPlan, Rule, ServerOptimiser, ServerPlan, Weighting};
pub use coding::{Coding, Encoding, WirePlan};
pub use local::{LocalPlan, Moments};
pub use rounds::{Bounds, CollectionPlan, EvaluationPlan, SelectionPlan};
pub use schedule::{CoreRule, SchedulePlan};

/// A setting of a plan is out of range or contradicts another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plan setting `{field}`: {reason}")]
pub struct PlanError {
    /// Where it stands in the plan.
    pub field: String,
    /// What is wrong and what would be right.
    pub reason: String,
}

impl PlanError {
    pub(crate) fn new(field: &str, reason: impl Into<String>) -> Self {
        PlanError { field: field.to_string(), reason: reason.into() }
    }
}

/// A run, from the backbone it adapts to how its rounds go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan {
    /// For people.
    pub name: String,
    /// Rounds to train.
    pub rounds: u32,
    /// Seeds initial values, selection and every device's order of examples.
    pub seed: u64,
    /// What is adapted and to what task.
    pub model: ModelPlan,
    /// The adapters and the head.
    pub adapter: AdapterConfig,
    /// What trains in which round.
    pub schedule: SchedulePlan,
    /// What a device does in a round.
    pub local: LocalPlan,
    /// Who takes part.
    pub selection: SelectionPlan,
    /// How long the host waits for whom.
    pub collection: CollectionPlan,
    /// How updates become the next global state.
    pub aggregation: AggregationPlan,
    /// How tensors are encoded.
    pub wire: WirePlan,
    /// How progress is measured.
    pub evaluation: EvaluationPlan,
}

/// What is learnt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// One of several classes.
    #[default]
    Classify,
    /// A number.
    Regress,
    /// The next token.
    Lm,
}

/// What is adapted and to what task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelPlan {
    /// Hash of the bundle; in a plan file its folder, or `embedded`.
    pub bundle: String,
    /// What is learnt.
    pub task: Task,
    /// The classes, in the order of the head's outputs.
    pub labels: Vec<String>,
    /// Mean and deviation of the target; for regression.
    pub scale: Option<(f32, f32)>,
    /// mean, cls or last; as the bundle says if absent.
    pub pooling: Option<String>,
    /// Longest text, in tokens.
    pub max_length: usize,
    /// Whether the gains of the backbone's norms train as well.
    pub train_norms: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            name: "run".into(),
            rounds: 10,
            seed: 0,
            model: ModelPlan::default(),
            adapter: AdapterConfig::default(),
            schedule: SchedulePlan::default(),
            local: LocalPlan::default(),
            selection: SelectionPlan::default(),
            collection: CollectionPlan::default(),
            aggregation: AggregationPlan::default(),
            wire: WirePlan::default(),
            evaluation: EvaluationPlan::default(),
        }
    }
}

impl Default for ModelPlan {
    fn default() -> Self {
        ModelPlan {
            bundle: "embedded".into(),
            task: Task::Classify,
            labels: Vec::new(),
            scale: None,
            pooling: None,
            max_length: 128,
            train_norms: false,
        }
    }
}

impl Plan {
    /// Checks every setting that can be judged without a backbone.
    ///
    /// # Errors
    /// The first setting that is out of range or contradicts another.
    pub fn validate(&self) -> Result<(), PlanError> {
        if self.name.is_empty() || self.name.len() > 200 {
            return Err(PlanError::new("name", "needs 1 to 200 characters"));
        }
        if !(1..=1_000_000).contains(&self.rounds) {
            return Err(PlanError::new("rounds", format!("{} is not within 1..=1000000", self.rounds)));
        }
        self.model.validate()?;
        self.adapter.validate().map_err(|e| PlanError::new("adapter", e.to_string()))?;
        self.schedule.validate()?;
        self.local.validate()?;
        if self.local.logit_adjustment > 0.0 && (self.model.task != Task::Classify || !self.adapter.head.bias) {
            let reason = "needs model.task = \"classify\" and adapter.head.bias = true; or leave it at 0";
            return Err(PlanError::new("local.logit_adjustment", reason));
        }
        if self.local.class_balance > 0.0 && self.model.task != Task::Classify {
            return Err(PlanError::new("local.class_balance", "needs model.task = \"classify\"; or leave it at 0"));
        }
        self.selection.validate()?;
        self.collection.validate()?;
        if let (Some(count), Some(min)) = (self.selection.count, self.collection.count.min)
            && count < min
        {
            return Err(PlanError::new("collection.count", format!("min {min} is more than selection.count, {count}")));
        }
        self.aggregation.validate()?;
        self.wire.validate()?;
        self.evaluation.validate()
    }

    /// Devices that must be there before a round begins.
    pub fn fewest_present(&self) -> usize {
        self.collection.least().max(self.selection.min as usize)
    }
}

impl ModelPlan {
    fn validate(&self) -> Result<(), PlanError> {
        if self.task == Task::Classify {
            if self.labels.len() < 2 {
                let reason = "a classifier needs at least two labels, in an order all devices share";
                return Err(PlanError::new("model.labels", reason));
            }
            if let Some(twice) = self.labels.iter().enumerate().find(|(i, l)| self.labels[..*i].contains(l)) {
                return Err(PlanError::new("model.labels", format!("`{}` stands there twice", twice.1)));
            }
            if self.labels.len() > 65_536 {
                return Err(PlanError::new("model.labels", "more than 65536 classes"));
            }
        } else if !self.labels.is_empty() {
            return Err(PlanError::new("model.labels", "only a classifier has labels"));
        }
        if self.scale.is_some_and(|(mean, deviation)| !mean.is_finite() || !deviation.is_finite() || deviation <= 0.0) {
            return Err(PlanError::new("model.scale", "needs a finite mean and a deviation above 0"));
        }
        if self.pooling.as_deref().is_some_and(|p| !["mean", "cls", "last"].contains(&p)) {
            return Err(PlanError::new("model.pooling", "is not mean, cls or last"));
        }
        if !(2..=65_536).contains(&self.max_length) {
            return Err(PlanError::new("model.max_length", format!("{} is not within 2..=65536", self.max_length)));
        }
        Ok(())
    }
}

/// `value` if it is finite and at least `least`; else an error naming `field`.
pub(crate) fn at_least(field: &str, value: f64, least: f64) -> Result<(), PlanError> {
    if value.is_finite() && value >= least {
        return Ok(());
    }
    Err(PlanError::new(field, format!("{value} is not a finite number of at least {least}")))
}

/// `value` if it is within `low..=high`; else an error naming `field`.
pub(crate) fn within(field: &str, value: f64, low: f64, high: f64) -> Result<(), PlanError> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(PlanError::new(field, format!("{value} is not within {low}..={high}")))
}

#[cfg(test)]
mod tests;
