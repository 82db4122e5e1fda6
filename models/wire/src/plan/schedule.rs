//! What trains in which round.

use serde::{Deserialize, Serialize};

use super::PlanError;

/// Which cores of each tensor train are trained in a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CoreRule {
    /// All (FedTT).
    #[default]
    All,
    /// The first, the last, and one of the inner cores in turn (FedTT+).
    EndsAndOne,
    /// One in turn, so that the mean of that core is the mean of the matrices (FedTT+).
    One,
    /// In every train the `count` cores on which clients agree most: by the size of their mean change against its spread.
    Adaptive,
}

/// What trains in which round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchedulePlan {
    /// Which cores.
    pub cores: CoreRule,
    /// Cores of each train that `adaptive` picks.
    pub count: u32,
    /// The adapters' biases train in every n-th round; never with 0.
    pub biases: u32,
    /// The head trains in every n-th round; never with 0.
    pub head: u32,
}

impl Default for SchedulePlan {
    fn default() -> Self {
        SchedulePlan { cores: CoreRule::All, count: 1, biases: 1, head: 1 }
    }
}

impl SchedulePlan {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        if !(1..=64).contains(&self.count) {
            return Err(PlanError::new("schedule.count", format!("{} is not within 1..=64", self.count)));
        }
        Ok(())
    }
}
