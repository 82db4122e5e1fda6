//! The guards: what every contribution passes before a rule sees it.

use std::collections::BTreeMap;
use std::ops::Range;

use fedtt_tt::Parameter;
use fedtt_wire::plan::{AggregationPlan, Rule, Weighting};
use ndarray::ArrayD;
use serde::{Deserialize, Serialize};

use super::{AggregateError, ClientShare, Contributor};

/// No change of an adapter is larger; products of such values over a whole train, squared, still fit an f64.
const LARGEST: f32 = 1e12;

/// What the values of a change amount to, taken in tensor by tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Survey {
    /// Tensors taken in.
    tensors: usize,
    /// Sum of the squares of all values.
    squares: f64,
    /// The first value that is not finite or too large, and the place of its tensor.
    odd: Option<(usize, f32)>,
}

impl Survey {
    /// Takes in the next tensor.
    pub fn add(&mut self, values: &ArrayD<f32>) {
        let values = values.as_standard_layout();
        let values = values.as_slice().expect("the standard layout is contiguous");
        self.squares += squares(values);
        let is_odd = |x: &f32| x.is_nan() || x.abs() > LARGEST;
        // Looked at to the end, which takes less time than to stop at the first.
        if self.odd.is_none() && values.iter().fold(false, |any, x| any | is_odd(x)) {
            self.odd = values.iter().find(|x| is_odd(x)).map(|x| (self.tensors, *x));
        }
        self.tensors += 1;
    }

    /// Euclidean norm of all values together.
    pub fn norm(&self) -> f64 {
        self.squares.sqrt()
    }

    /// What is wrong with a value, if anything is.
    fn refusal(&self, parameters: &[Parameter]) -> Option<String> {
        let (tensor, value) = self.odd?;
        let parameter = parameters.get(tensor).map_or("", |p| p.name.as_str());
        let what = if value.is_finite() { format!("{value:e}, out of all proportion") } else { value.to_string() };
        Some(format!("`{parameter}` holds {what}"))
    }
}

/// Sum of the squares, as eight sums that do not wait for each other.
pub(super) fn squares(values: &[f32]) -> f64 {
    let (eights, rest) = values.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, &x)| *sum += f64::from(x) * f64::from(x));
    }
    let rest: f64 = rest.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    sums.iter().sum::<f64>() + rest
}

/// A contribution that counts: part of its change, clipped; its tensors are contiguous.
pub(super) struct Kept {
    /// not yet divided by the sum of all
    pub(super) weight: f64,
    pub(super) change: Vec<ArrayD<f32>>,
}

/// A client that counts.
struct Client {
    /// among the contributors
    place: usize,
    name: String,
    weight: f64,
    norm: f64,
}

/// The change of some parameters by the contributor at a place.
type Source<'a> = dyn Fn(usize, Range<usize>) -> Result<Vec<ArrayD<f32>>, AggregateError> + 'a;

/// The guards around a source of contributions.
pub(super) struct Screen<'a> {
    clip: f64,
    pub(super) parameters: &'a [Parameter],
    source: &'a Source<'a>,
    clients: Vec<Client>,
    left_out: BTreeMap<String, String>,
}

/// Euclidean norm of all values together.
pub(crate) fn norm(tensors: &[ArrayD<f32>]) -> f64 {
    let mut survey = Survey::default();
    tensors.iter().for_each(|values| survey.add(values));
    survey.norm()
}

impl<'a> Screen<'a> {
    /// Judges the contributors; at least one counts.
    pub(super) fn new(
        plan: &AggregationPlan,
        parameters: &'a [Parameter],
        contributors: Vec<Contributor>,
        source: &'a Source<'a>,
    ) -> Result<Self, AggregateError> {
        if let Some(pair) = contributors.windows(2).find(|pair| pair[0].client >= pair[1].client) {
            return Err(AggregateError::Order { client: pair[1].client.clone() });
        }
        let by_examples = plan.weight == Weighting::Examples && matches!(plan.rule, Rule::Mean | Rule::Exact);
        let objection = |c: &Contributor| {
            let idle = by_examples && c.examples == 0;
            let idle = idle.then(|| "trained on no examples, by which clients are weighted".to_string());
            c.survey.refusal(parameters).or(idle)
        };
        let (mut clients, mut left_out) = (Vec::new(), BTreeMap::new());
        for (place, contributor) in contributors.into_iter().enumerate() {
            match objection(&contributor) {
                Some(reason) => drop(left_out.insert(contributor.client, reason)),
                None => clients.push(Client {
                    place,
                    weight: if by_examples { contributor.examples as f64 } else { 1.0 },
                    norm: contributor.survey.norm(),
                    name: contributor.client,
                }),
            }
        }
        if let Some(factor) = plan.outlier {
            let mut norms: Vec<f64> = clients.iter().map(|client| client.norm).collect();
            norms.sort_unstable_by(f64::total_cmp);
            let median = super::robust::median(&norms);
            let longest = if median > 0.0 { f64::from(factor) * median } else { f64::INFINITY };
            clients.retain(|Client { name, norm, .. }| {
                if *norm > longest {
                    let reason = format!("norm {norm:.3e} is beyond {longest:.3e}, the limit by the round's median");
                    left_out.insert(name.clone(), reason);
                }
                *norm <= longest
            });
        }
        if clients.is_empty() {
            let first = left_out.iter().next();
            let reason = first.map_or("there were none".into(), |(client, reason)| format!("{client}: {reason}"));
            return Err(AggregateError::Empty { seen: left_out.len(), reason });
        }
        let clip = plan.clip.map_or(f64::INFINITY, f64::from);
        Ok(Screen { clip, parameters, source, clients, left_out })
    }

    /// How many count.
    pub(super) fn count(&self) -> usize {
        self.clients.len()
    }

    /// Sum of the weights of those that count.
    pub(super) fn total(&self) -> f64 {
        self.clients.iter().map(|client| client.weight).sum()
    }

    /// Hands a window of every contribution that counts to `visit`.
    pub(super) fn walk(
        &self,
        window: Range<usize>,
        mut visit: impl FnMut(Kept) -> Result<(), AggregateError>,
    ) -> Result<(), AggregateError> {
        for client in &self.clients {
            let mut change = (self.source)(client.place, window.clone())?;
            self.check_shapes(client, &self.parameters[window.clone()], &change)?;
            for tensor in &mut change {
                if client.norm > self.clip {
                    tensor.mapv_inplace(|x| (f64::from(x) * (self.clip / client.norm)) as f32);
                }
                if !tensor.is_standard_layout() {
                    *tensor = tensor.as_standard_layout().into_owned();
                }
            }
            visit(Kept { weight: client.weight, change })?;
        }
        Ok(())
    }

    fn check_shapes(
        &self,
        client: &Client,
        parameters: &[Parameter],
        change: &[ArrayD<f32>],
    ) -> Result<(), AggregateError> {
        let nothing: &[usize] = &[];
        for (i, parameter) in parameters.iter().enumerate() {
            let found = change.get(i).map_or(nothing, |values| values.shape());
            if i >= change.len() || found != parameter.shape {
                return Err(AggregateError::Shape {
                    client: client.name.clone(),
                    parameter: parameter.name.clone(),
                    found: found.to_vec(),
                    expected: parameter.shape.clone(),
                });
            }
        }
        Ok(())
    }

    /// Who counts, with their shares, and who does not, and why.
    pub(super) fn verdict(self) -> (BTreeMap<String, ClientShare>, BTreeMap<String, String>) {
        let total = self.total();
        let share = |client: Client| {
            let Client { name, weight, norm, .. } = client;
            (name, ClientShare { norm, weight: weight / total, clipped: norm > self.clip })
        };
        (self.clients.into_iter().map(share).collect(), self.left_out)
    }
}
