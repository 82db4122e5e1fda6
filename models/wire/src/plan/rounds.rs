//! Who takes part in a round, how long the host waits, how progress is measured.

use serde::{Deserialize, Serialize};

use super::{PlanError, within};

/// Who is asked to take part. Of `count` and `fraction` at most one is given; with neither, everyone present.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SelectionPlan {
    /// This many devices.
    pub count: Option<u32>,
    /// This share of the devices present.
    pub fraction: Option<f64>,
    /// Only devices that carry one of these labels; all if empty.
    pub labels: Vec<String>,
    /// A round waits until this many are present.
    pub min: u32,
    /// Devices asked for each one wanted, against those that drop out.
    pub over: f64,
}

/// A lower and an upper bound; by default, where absent, as the field says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Bounds {
    /// The lower.
    pub min: Option<u32>,
    /// The upper.
    pub max: Option<u32>,
}

/// When a round is over: as soon as `count.max` updates are in; after `time.min` as soon as `count.min` are; at `time.max`
/// in any case, failed with fewer than `count.min`. It does not begin before so many devices are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CollectionPlan {
    /// Updates. By default from half of the wanted to all of them.
    pub count: Bounds,
    /// Seconds. By default from 600 to 600.
    pub time: Bounds,
    /// A round that failed is begun again this many times before the run pauses.
    pub retries: u32,
}

/// How progress is measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EvaluationPlan {
    /// Whether devices measure the global adapter on examples they hold out.
    pub clients: bool,
    /// The share of its examples a device holds out.
    pub holdout: f64,
    /// Rounds between two evaluations.
    pub every: u32,
    /// The run ends after this many evaluations in a row without a lower loss.
    pub patience: Option<u32>,
}

impl Default for SelectionPlan {
    fn default() -> Self {
        SelectionPlan { count: None, fraction: None, labels: Vec::new(), min: 1, over: 1.0 }
    }
}

impl Default for CollectionPlan {
    fn default() -> Self {
        CollectionPlan { count: Bounds::default(), time: Bounds::default(), retries: 3 }
    }
}

impl Default for EvaluationPlan {
    fn default() -> Self {
        EvaluationPlan { clients: true, holdout: 0.2, every: 1, patience: None }
    }
}

impl SelectionPlan {
    /// Devices wanted of `present`.
    pub fn wanted(&self, present: usize) -> usize {
        match (self.count, self.fraction) {
            (Some(count), _) => present.min(count as usize),
            (None, Some(fraction)) => ((fraction * present as f64).round() as usize).clamp(1.min(present), present),
            (None, None) => present,
        }
    }

    /// Devices asked when `wanted` of `present` are.
    pub fn asked(&self, wanted: usize, present: usize) -> usize {
        ((wanted as f64 * self.over).ceil() as usize).clamp(wanted, present.max(wanted))
    }

    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        if self.count.is_some() && self.fraction.is_some() {
            return Err(PlanError::new("selection.count", "give a count or a fraction, not both"));
        }
        if self.count == Some(0) {
            return Err(PlanError::new("selection.count", "must be at least 1"));
        }
        if let Some(fraction) = self.fraction {
            within("selection.fraction", fraction, 1e-6, 1.0)?;
        }
        if self.min == 0 {
            return Err(PlanError::new("selection.min", "must be at least 1"));
        }
        if self.count.is_some_and(|count| count < self.min) {
            return Err(PlanError::new("selection.min", "is more than selection.count"));
        }
        within("selection.over", self.over, 1.0, 100.0)
    }
}

impl CollectionPlan {
    /// Fewest updates of a round that wants `wanted`.
    pub fn fewest(&self, wanted: usize) -> usize {
        self.count.min.map_or(wanted.div_ceil(2), |n| n as usize).max(1)
    }

    /// Fewest updates of any round.
    pub fn least(&self) -> usize {
        self.count.min.unwrap_or(1).max(1) as usize
    }

    /// Most updates of a round that wants `wanted`.
    pub fn most(&self, wanted: usize) -> usize {
        self.count.max.map_or(wanted, |n| (n as usize).min(wanted)).max(1)
    }

    /// Milliseconds before fewer than the most will do.
    pub fn shortest(&self) -> u64 {
        u64::from(self.time.min.unwrap_or_else(|| self.time.max.unwrap_or(600))) * 1000
    }

    /// Milliseconds after which the round ends in any case.
    pub fn longest(&self) -> u64 {
        u64::from(self.time.max.unwrap_or_else(|| self.time.min.unwrap_or(600).max(600))) * 1000
    }

    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        for (field, bounds) in [("collection.count", self.count), ("collection.time", self.time)] {
            if bounds.max == Some(0) {
                return Err(PlanError::new(field, "max must be at least 1"));
            }
            if let (Some(min), Some(max)) = (bounds.min, bounds.max)
                && min > max
            {
                return Err(PlanError::new(field, format!("min {min} is more than max {max}")));
            }
        }
        if self.longest() > 30 * 24 * 3_600_000 {
            return Err(PlanError::new("collection.time", "max is more than 30 days"));
        }
        Ok(())
    }
}

impl EvaluationPlan {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        within("evaluation.holdout", self.holdout, 0.0, 0.9)?;
        if self.every == 0 {
            return Err(PlanError::new("evaluation.every", "must be at least 1"));
        }
        if self.patience == Some(0) {
            return Err(PlanError::new("evaluation.patience", "must be at least 1"));
        }
        Ok(())
    }
}
