//! The guards: what every contribution passes before a rule sees it.

use std::collections::BTreeMap;

use fedtt_tt::Parameter;
use fedtt_wire::plan::{AggregationPlan, Rule, Weighting};
use ndarray::ArrayD;

use super::{AggregateError, ClientShare, Contribution, Visit};

/// No change of an adapter is larger; products of such values over a whole train, squared, still fit an f64.
const LARGEST: f32 = 1e12;

/// A contribution that counts, clipped; its tensors are contiguous.
pub(super) struct Kept {
    /// not yet divided by the sum of all
    pub(super) weight: f64,
    pub(super) change: Vec<ArrayD<f32>>,
}

/// What a walk found.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Screened {
    /// who counts, with their shares
    pub(super) clients: BTreeMap<String, ClientShare>,
    /// who does not, and why
    pub(super) left_out: BTreeMap<String, String>,
}

/// The guards around a source of contributions.
pub(super) struct Screen<'a> {
    plan: &'a AggregationPlan,
    pub(super) parameters: &'a [Parameter],
    source: &'a dyn Fn(&mut Visit<'_>) -> Result<(), AggregateError>,
    /// longest change that is not out of proportion
    longest: f64,
}

/// Euclidean norm of all values together.
pub(super) fn norm(tensors: &[ArrayD<f32>]) -> f64 {
    tensors.iter().flatten().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
}

fn refusal(parameters: &[Parameter], change: &[ArrayD<f32>]) -> Option<String> {
    let (parameter, value) = parameters.iter().zip(change).find_map(|(parameter, values)| {
        let value = values.iter().find(|x| !x.is_finite() || x.abs() > LARGEST)?;
        Some((parameter, value))
    })?;
    let what = if value.is_finite() { format!("{value:e}, out of all proportion") } else { value.to_string() };
    Some(format!("`{}` holds {what}", parameter.name))
}

impl<'a> Screen<'a> {
    /// With `outlier` set this walks once, for the median of the norms.
    pub(super) fn new(
        plan: &'a AggregationPlan,
        parameters: &'a [Parameter],
        source: &'a dyn Fn(&mut Visit<'_>) -> Result<(), AggregateError>,
    ) -> Result<Self, AggregateError> {
        let mut screen = Screen { plan, parameters, source, longest: f64::INFINITY };
        if let Some(factor) = plan.outlier {
            let mut norms: Vec<f64> = screen.walk(|_| Ok(()))?.clients.values().map(|c| c.norm).collect();
            norms.sort_unstable_by(f64::total_cmp);
            let median = super::robust::median(&norms);
            if median > 0.0 {
                screen.longest = f64::from(factor) * median;
            }
        }
        Ok(screen)
    }

    /// Hands every contribution that counts to `visit`; at least one does.
    pub(super) fn walk(
        &self,
        mut visit: impl FnMut(Kept) -> Result<(), AggregateError>,
    ) -> Result<Screened, AggregateError> {
        let mut screened = Screened::default();
        let mut last: Option<String> = None;
        let mut total = 0.0;
        (self.source)(&mut |contribution| {
            if last.as_ref().is_some_and(|last| *last >= contribution.client) {
                return Err(AggregateError::Order { client: contribution.client });
            }
            last = Some(contribution.client.clone());
            self.check_shapes(&contribution)?;
            let Contribution { client, examples, change } = contribution;
            match self.judge(examples, change) {
                Err(reason) => {
                    screened.left_out.insert(client, reason);
                    Ok(())
                }
                Ok((kept, norm, clipped)) => {
                    total += kept.weight;
                    screened.clients.insert(client, ClientShare { norm, weight: kept.weight, clipped });
                    visit(kept)
                }
            }
        })?;
        if screened.clients.is_empty() {
            let first = screened.left_out.iter().next();
            let reason = first.map_or("there were none".into(), |(client, reason)| format!("{client}: {reason}"));
            return Err(AggregateError::Empty { seen: screened.left_out.len(), reason });
        }
        screened.clients.values_mut().for_each(|client| client.weight /= total);
        Ok(screened)
    }

    /// The contribution as it counts with its norm and whether it was clipped; or why it does not.
    fn judge(&self, examples: u64, mut change: Vec<ArrayD<f32>>) -> Result<(Kept, f64, bool), String> {
        if let Some(reason) = refusal(self.parameters, &change) {
            return Err(reason);
        }
        let by_examples = self.plan.weight == Weighting::Examples && matches!(self.plan.rule, Rule::Mean | Rule::Exact);
        if by_examples && examples == 0 {
            return Err("trained on no examples, by which clients are weighted".into());
        }
        let norm = norm(&change);
        if norm > self.longest {
            return Err(format!("norm {norm:.3e} is beyond {:.3e}, the limit by the round's median", self.longest));
        }
        let clip = self.plan.clip.map_or(f64::INFINITY, f64::from);
        for tensor in &mut change {
            if norm > clip {
                tensor.mapv_inplace(|x| (f64::from(x) * (clip / norm)) as f32);
            }
            if !tensor.is_standard_layout() {
                *tensor = tensor.as_standard_layout().into_owned();
            }
        }
        let weight = if by_examples { examples as f64 } else { 1.0 };
        Ok((Kept { weight, change }, norm, norm > clip))
    }

    fn check_shapes(&self, contribution: &Contribution) -> Result<(), AggregateError> {
        let shape = |parameter: &str, found: &[usize], expected: &[usize]| AggregateError::Shape {
            client: contribution.client.clone(),
            parameter: parameter.to_string(),
            found: found.to_vec(),
            expected: expected.to_vec(),
        };
        let (found, expected) = (contribution.change.len(), self.parameters.len());
        if found != expected {
            return Err(shape("number of tensors", &[found], &[expected]));
        }
        let mut pairs = self.parameters.iter().zip(&contribution.change);
        match pairs.find(|(parameter, values)| parameter.shape != values.shape()) {
            Some((parameter, values)) => Err(shape(&parameter.name, values.shape(), &parameter.shape)),
            None => Ok(()),
        }
    }
}
