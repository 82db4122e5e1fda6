//! From the changes clients made to the change of the global adapter. No I/O; the same contributions give the same
//! result, bit for bit.
//!
//! Contributions are walked in the order of client names, a few parameters at a time (`windows`): of all the values of all
//! clients those of one client and one window are in memory. Every walk goes through the guards (`screen`), so that no
//! rule sees a value that is not finite, a clipped change unclipped or a client twice.

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
mod windows;

use std::collections::BTreeMap;
use std::ops::Range;

use fedtt_tt::Parameter;
use fedtt_wire::plan::{AggregationPlan, Rule};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

pub use drift::{Drift, DriftHistory};
pub use schedule::{mask, pick};
pub use screen::Survey;
pub(crate) use screen::norm;
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

/// One who contributes, and what its values amount to.
#[derive(Clone, Debug, PartialEq)]
pub struct Contributor {
    /// The client's name.
    pub client: String,
    /// Examples it trained on.
    pub examples: u64,
    /// Of its change.
    pub survey: Survey,
}

/// Where contributions come from.
pub trait Contributions {
    /// Who contributes, in strictly ascending order of names.
    ///
    /// # Errors
    /// [`AggregateError::Source`] when that cannot be read.
    fn contributors(&self) -> Result<Vec<Contributor>, AggregateError>;

    /// The change of some of the parameters, by the contributor at a place in their list. May be asked for several times,
    /// each time with the same result.
    ///
    /// # Errors
    /// [`AggregateError::Source`] when it cannot be read.
    fn change(&self, contributor: usize, parameters: Range<usize>) -> Result<Vec<ArrayD<f32>>, AggregateError>;
}

impl Contributions for [Contribution] {
    fn contributors(&self) -> Result<Vec<Contributor>, AggregateError> {
        let contributor = |c: &Contribution| {
            let mut survey = Survey::default();
            c.change.iter().for_each(|values| survey.add(values));
            Contributor { client: c.client.clone(), examples: c.examples, survey }
        };
        Ok(self.iter().map(contributor).collect())
    }

    fn change(&self, contributor: usize, parameters: Range<usize>) -> Result<Vec<ArrayD<f32>>, AggregateError> {
        let change = self.get(contributor).and_then(|c| c.change.get(parameters));
        Ok(change.unwrap_or_default().to_vec())
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
    /// The source repeats or disorders clients.
    #[error("client `{client}` comes twice or out of order; contributors must be in the order of names")]
    Order {
        /// the client out of place
        client: String,
    },
    /// A change whose tensors are not those that train.
    #[error("client `{client}`, parameter `{parameter}`: found {found:?}, expected {expected:?}")]
    Shape {
        /// who
        client: String,
        /// which parameter
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
    global: &[&ArrayD<f32>],
    contributions: &(impl Contributions + ?Sized),
) -> Result<Aggregated, AggregateError> {
    aggregate_in_windows(plan, parameters, global, contributions, windows::VALUES)
}

fn aggregate_in_windows(
    plan: &AggregationPlan,
    parameters: &[Parameter],
    global: &[&ArrayD<f32>],
    contributions: &(impl Contributions + ?Sized),
    values: usize,
) -> Result<Aggregated, AggregateError> {
    let change = |contributor, parameters| contributions.change(contributor, parameters);
    let screen = Screen::new(plan, parameters, contributions.contributors()?, &change)?;
    let mut rule: Box<dyn WindowRule + '_> = match plan.rule {
        Rule::Mean => Box::new(mean::Plain),
        Rule::Exact => Box::new(exact::Exact::new(global)),
        Rule::Median => Box::new(robust::Sorted::new(robust::median)),
        Rule::TrimmedMean => Box::new(robust::Sorted::new(|sorted| robust::trimmed_mean(sorted, plan.trim))),
    };
    let (mut change, mut agreement) = (Vec::with_capacity(parameters.len()), BTreeMap::new());
    for window in windows::windows(parameters, values) {
        let outcome = rule.aggregate(&screen, window.clone())?;
        for ((parameter, values), agreed) in parameters[window].iter().zip(outcome.change).zip(outcome.agreement) {
            let values = values.mapv(|x| x as f32);
            if !values.iter().fold(true, |all, x| all & x.is_finite()) {
                return Err(AggregateError::NotFinite { parameter: parameter.name.clone() });
            }
            agreement.extend(agreed.map(|agreed| (parameter.name.clone(), agreed)));
            change.push(values);
        }
    }
    let truncation = rule.truncation();
    let (clients, left_out) = screen.verdict();
    let report = AggregationReport { agreement, truncation, norm: norm(&change), clients, left_out };
    Ok(Aggregated { change, report })
}

/// A rule, as it goes from window to window.
trait WindowRule {
    /// What becomes of the parameters of a window.
    fn aggregate(&mut self, screen: &Screen<'_>, window: Range<usize>) -> Result<Outcome, AggregateError>;

    /// After all windows: the relative error of rounding, where there is any.
    fn truncation(&self) -> Option<f64> {
        None
    }
}

/// What a rule makes of the contributions that count, of the parameters of a window.
struct Outcome {
    change: Vec<ArrayD<f64>>,
    agreement: Vec<Option<f64>>,
}
