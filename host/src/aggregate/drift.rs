//! How far clients agree, parameter by parameter, and what is remembered of it.

use std::collections::BTreeMap;

use fedtt_tt::Parameter;
use serde::{Deserialize, Serialize};

use super::AggregationReport;

/// The agreement of clients i of weights w_i (summing to 1) on a change D_i:
/// `(|sum w_i D_i|^2 / sum w_i |D_i|^2 - c) / (1 - c)` with `c = sum w_i^2`, the mean over pairs of clients of their
/// changes' inner product, relative to their mean square. 1 where all make the same change, 0 in the mean where changes
/// are unrelated, whatever their number (the mean of few unrelated changes is not small: that is what `c` takes out),
/// below 0 where they oppose each other. None for a single client or no change at all.
pub(super) fn agreement(square_of_mean: f64, mean_of_squares: f64, concentration: f64) -> Option<f64> {
    let comparable = mean_of_squares > 0.0 && concentration < 1.0 - 1e-9;
    comparable.then(|| (square_of_mean / mean_of_squares - concentration) / (1.0 - concentration))
}

/// What is known of a parameter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Drift {
    /// The round it trained in last.
    pub round: u64,
    /// The agreement measured last: in that round or in an earlier one.
    pub agreement: Option<f64>,
}

/// The last drift of every parameter that ever trained. Part of a run's persistent state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DriftHistory {
    by_parameter: BTreeMap<String, Drift>,
}

impl DriftHistory {
    /// Takes in a round in which `trained` trained. Only a part of the cores does in FedTT+, so what was measured of the
    /// others before is kept.
    pub fn record(&mut self, round: u64, trained: &[Parameter], report: &AggregationReport) {
        for parameter in trained {
            let drift = self.by_parameter.entry(parameter.name.clone()).or_default();
            drift.round = round;
            if let Some(agreement) = report.agreement.get(&parameter.name) {
                drift.agreement = Some(*agreement);
            }
        }
    }

    /// What is known of a parameter; none if it never trained.
    pub fn of(&self, parameter: &str) -> Option<Drift> {
        self.by_parameter.get(parameter).copied()
    }
}
