//! How updates become the next global state.

use serde::{Deserialize, Serialize};

use super::{PlanError, at_least, within};

/// What becomes of the clients' factors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// Mean of every factor (FedTT).
    #[default]
    Mean,
    /// Mean of the matrices: trains are summed block by block and rounded back to their ranks.
    Exact,
    /// Median of every value over the clients; unweighted.
    Median,
    /// Mean of every value without the largest and the smallest `trim` of the clients; unweighted.
    TrimmedMean,
}

/// What a client counts in a mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weighting {
    /// Its number of examples.
    #[default]
    Examples,
    /// One.
    Uniform,
}

/// What is done with the aggregated change (Reddi et al. 2021, "Adaptive federated optimization").
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ServerOptimiser {
    /// It is added, times the rate.
    #[default]
    None,
    /// FedAvgM.
    Momentum,
    /// FedAdam.
    Adam,
    /// FedYogi.
    Yogi,
}

/// The server's optimiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServerPlan {
    /// Which.
    pub optimiser: ServerOptimiser,
    /// Its rate.
    pub rate: f32,
    /// Decay of the first moment, or the momentum.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub tau: f32,
}

/// How updates become the next global state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AggregationPlan {
    /// What becomes of the clients' factors.
    pub rule: Rule,
    /// What a client counts.
    pub weight: Weighting,
    /// Share of the clients cut off at either end by `trimmed-mean`.
    pub trim: f64,
    /// Largest norm of a client's change; larger ones are scaled down to it.
    pub clip: Option<f32>,
    /// A client whose change is longer than this many times the median of the round is left out.
    pub outlier: Option<f32>,
    /// What is done with the aggregated change.
    pub server: ServerPlan,
}

impl Default for ServerPlan {
    fn default() -> Self {
        ServerPlan { optimiser: ServerOptimiser::None, rate: 1.0, beta1: 0.9, beta2: 0.99, tau: 1e-3 }
    }
}

impl Default for AggregationPlan {
    fn default() -> Self {
        AggregationPlan {
            rule: Rule::Mean,
            weight: Weighting::Examples,
            trim: 0.1,
            clip: None,
            outlier: None,
            server: ServerPlan::default(),
        }
    }
}

impl AggregationPlan {
    pub(crate) fn validate(&self) -> Result<(), PlanError> {
        if !(0.0..0.5).contains(&self.trim) {
            return Err(PlanError::new("aggregation.trim", format!("{} is not within 0..0.5", self.trim)));
        }
        if let Some(clip) = self.clip {
            at_least("aggregation.clip", f64::from(clip), 1e-12)?;
        }
        if let Some(outlier) = self.outlier {
            at_least("aggregation.outlier", f64::from(outlier), 1.0)?;
        }
        at_least("aggregation.server.rate", f64::from(self.server.rate), 1e-12)?;
        within("aggregation.server.beta1", f64::from(self.server.beta1), 0.0, 0.9999)?;
        within("aggregation.server.beta2", f64::from(self.server.beta2), 0.0, 0.9999)?;
        at_least("aggregation.server.tau", f64::from(self.server.tau), 1e-12)
    }
}
