//! From the changes clients made to the change of the global adapter. No I/O; the same contributions give the same
//! result, bit for bit.
//!
//! Contributions are walked in the order of client names, as often as a rule needs, one in memory at a time. Every walk
//! goes through the guards (`screen`), so that no rule sees a value that is not finite, a clipped change unclipped or a
//! client twice.

mod drift;
mod exact;
mod gauge;
mod mean;
mod robust;
mod schedule;
mod screen;
mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fedtt_tt::Parameter;
use fedtt_wire::plan::{AggregationPlan, Rule};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

pub use drift::{Drift, DriftHistory};
pub use schedule::{mask, pick};
pub use server::ServerState;

use screen::Screen;

/// One client's change of the parameters that train, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Contribution {
    /// The client's name.
    pub client: String,
    /// Examples it trained on.
    pub examples: u64,
    /// Its values minus the global ones it started from.
    pub change: Vec<ArrayD<f32>>,
}

/// What a walk over contributions hands each of them to.
pub type Visit<'a> = dyn FnMut(Contribution) -> Result<(), AggregateError> + 'a;

/// Where contributions come from. May be walked several times, each time with the same result.
pub trait Contributions {
    /// Hands every contribution to `visit`, in strictly ascending order of client names.
    ///
    /// # Errors
    /// [`AggregateError::Source`] when one cannot be read; whatever `visit` returns.
    fn each(&self, visit: &mut Visit<'_>) -> Result<(), AggregateError>;
}

impl Contributions for [Contribution] {
    fn each(&self, visit: &mut Visit<'_>) -> Result<(), AggregateError> {
        self.iter().cloned().try_for_each(visit)
    }
}

/// Why there is no aggregate. All are faults of the host or of what it stored; a client's fault is reported instead
/// ([`AggregationReport::left_out`]).
#[derive(Debug, thiserror::Error)]
pub enum AggregateError {
    /// Nobody is left after the guards.
    #[error("none of {seen} contributions can be aggregated ({reason})")]
    Empty {
        /// contributions walked
        seen: usize,
        /// the first refusal, or that there was none
        reason: String,
    },
    /// The walk repeats or disorders clients.
    #[error("client `{client}` comes twice or out of order; contributions must be walked in the order of names")]
    Order {
        /// the client out of place
        client: String,
    },
    /// A change whose tensors are not those that train.
    #[error("client `{client}`, parameter `{parameter}`: found {found:?}, expected {expected:?}")]
    Shape {
        /// who
        client: String,
        /// which parameter, or that there are too few or too many
        parameter: String,
        /// dimensions found
        found: Vec<usize>,
        /// dimensions expected
        expected: Vec<usize>,
    },
    /// The result is infinite or not a number.
    #[error("the aggregate of `{parameter}` is not finite; set aggregation.clip or aggregation.outlier")]
    NotFinite {
        /// which parameter
        parameter: String,
    },
    /// Two walks over the same contributions differ.
    #[error("the contributions changed while they were aggregated")]
    Changed,
    /// A tensor train that does not fit together.
    #[error("layer `{layer}`")]
    Train {
        /// which layer
        layer: String,
        /// why
        source: fedtt_tt::Error,
    },
    /// A contribution cannot be read.
    #[error("contribution of `{client}` cannot be read")]
    Source {
        /// whose
        client: String,
        /// why
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// What a client counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClientShare {
    /// Norm of its change, before clipping.
    pub norm: f64,
    /// Its share of the mean, 0 to 1.
    pub weight: f64,
    /// Whether its change was scaled down.
    pub clipped: bool,
}

/// How an aggregate came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AggregationReport {
    /// The clients that count.
    pub clients: BTreeMap<String, ClientShare>,
    /// The clients left out, with reasons.
    pub left_out: BTreeMap<String, String>,
    /// For `exact`: the Frobenius norm of what rounding cut off, estimated, relative to the mean matrices, all layers
    /// together.
    pub truncation: Option<f64>,
    /// By parameter: how far clients agree on its change ([`DriftHistory`]). Absent where there is nothing to compare.
    pub agreement: BTreeMap<String, f64>,
    /// Norm of the aggregated change.
    pub norm: f64,
}

/// The aggregate of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregated {
    /// Of the parameters that train, in their order: to be added to the global values.
    pub change: Vec<ArrayD<f32>>,
    /// How it came about.
    pub report: AggregationReport,
}

/// Aggregates the contributions of a round by the plan's rule. `parameters` are those that train in it, `global` their
/// values when it began.
///
/// # Errors
/// [`AggregateError`]; a client that is refused is no error as long as another remains.
pub fn aggregate(
    plan: &AggregationPlan,
    parameters: &[Parameter],
    global: &[ArrayD<f32>],
    contributions: &(impl Contributions + ?Sized),
) -> Result<Aggregated, AggregateError> {
    let walk = |visit: &mut Visit<'_>| contributions.each(visit);
    let screen = Screen::new(plan, parameters, &walk)?;
    let outcome = match plan.rule {
        Rule::Mean => mean::aggregate(&screen)?,
        Rule::Exact => exact::aggregate(&screen, global)?,
        Rule::Median => robust::aggregate(&screen, robust::median)?,
        Rule::TrimmedMean => {
            let trim = plan.trim;
            robust::aggregate(&screen, move |sorted| robust::trimmed_mean(sorted, trim))?
        }
    };
    let change: Vec<ArrayD<f32>> = outcome.change.iter().map(|c| c.mapv(|x| x as f32)).collect();
    if let Some((parameter, _)) = parameters.iter().zip(&change).find(|(_, c)| c.iter().any(|x| !x.is_finite())) {
        return Err(AggregateError::NotFinite { parameter: parameter.name.clone() });
    }
    let agreement = parameters.iter().zip(outcome.agreement).filter_map(|(p, a)| Some((p.name.clone(), a?)));
    let report = AggregationReport {
        agreement: agreement.collect(),
        truncation: outcome.truncation,
        norm: screen::norm(&change),
        clients: outcome.screened.clients,
        left_out: outcome.screened.left_out,
    };
    Ok(Aggregated { change, report })
}

/// What a rule makes of the contributions that count.
struct Outcome {
    change: Vec<ArrayD<f64>>,
    /// by parameter, in their order
    agreement: Vec<Option<f64>>,
    truncation: Option<f64>,
    screened: screen::Screened,
}
