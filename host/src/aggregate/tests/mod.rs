#![allow(clippy::unwrap_used, clippy::panic)]

mod exact;
mod guards;
mod rules;
mod schedule;
mod server;

use fedtt_tt::tt::TtShape;
use fedtt_tt::{Parameter, Role, TtMatrix};
use fedtt_wire::plan::{AggregationPlan, Rule, Weighting};
use ndarray::{Array2, ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// As a run does it.
pub(super) fn aggregate(
    plan: &AggregationPlan,
    parameters: &[Parameter],
    global: &[ArrayD<f32>],
    contributions: &[Contribution],
) -> Result<Aggregated, AggregateError> {
    super::aggregate(plan, parameters, &global.iter().collect::<Vec<_>>(), contributions)
}

pub(super) const MODES: [usize; 4] = [4, 5, 5, 4];
pub(super) const CUT: usize = 2;

pub(super) fn plan(rule: Rule) -> AggregationPlan {
    AggregationPlan { rule, ..AggregationPlan::default() }
}

pub(super) fn parameter(layer: &str, suffix: &str, shape: &[usize], role: Role) -> Parameter {
    let name = format!("{layer}.{suffix}");
    Parameter { name, layer: layer.into(), shape: shape.to_vec(), role, trainable: true }
}

/// A train of modes [`MODES`] and the rank given, and a bias.
pub(super) fn layer(name: &str, rank: usize) -> Vec<Parameter> {
    let count = MODES.len();
    let core = |index: usize| {
        let left = if index == 0 { 1 } else { rank };
        let right = if index + 1 == count { 1 } else { rank };
        parameter(name, &format!("core.{index}"), &[left, MODES[index], right], Role::Core { index, count })
    };
    let bias = parameter(name, "bias", &[12], Role::Bias);
    (0..count).map(core).chain([bias]).collect()
}

pub(super) fn random(rng: &mut ChaCha8Rng, parameters: &[Parameter], size: f32) -> Vec<ArrayD<f32>> {
    let value = |rng: &mut ChaCha8Rng| (rng.random::<f32>() * 2.0 - 1.0) * size;
    parameters.iter().map(|p| ArrayD::from_shape_fn(IxDyn(&p.shape), |_| value(rng))).collect()
}

pub(super) fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// `clients` of random changes and numbers of examples.
pub(super) fn fleet(seed: u64, parameters: &[Parameter], clients: usize, size: f32) -> Vec<Contribution> {
    let mut rng = rng(seed);
    let client = |i: usize| Contribution {
        client: format!("client-{i:03}"),
        examples: rng.random_range(1..200),
        change: random(&mut rng, parameters, size),
    };
    (0..clients).map(client).collect()
}

pub(super) fn sum(a: &[ArrayD<f32>], b: &[ArrayD<f32>]) -> Vec<ArrayD<f32>> {
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

/// The matrix of the first [`MODES`].len() tensors.
pub(super) fn matrix(cores: &[ArrayD<f32>]) -> Array2<f64> {
    let cores = cores[..MODES.len()].iter().map(|c| c.mapv(f64::from).into_dimensionality().unwrap());
    TtMatrix::from_cores(cores.collect(), CUT).unwrap().dense()
}

pub(super) fn distance<'a>(a: impl IntoIterator<Item = &'a f64>, b: impl IntoIterator<Item = &'a f64>) -> f64 {
    a.into_iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt()
}

pub(super) fn length(a: &Array2<f64>) -> f64 {
    a.iter().map(|x| x * x).sum::<f64>().sqrt()
}

pub(super) fn close(a: &[ArrayD<f32>], b: &[ArrayD<f32>], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance))
}

/// The mean of the clients' matrices, by examples.
pub(super) fn mean_matrix(global: &[ArrayD<f32>], clients: &[Contribution]) -> Array2<f64> {
    let total: f64 = clients.iter().map(|c| c.examples as f64).sum();
    let (rows, columns) = matrix(global).dim();
    clients.iter().fold(Array2::zeros((rows, columns)), |mean, client| {
        mean + matrix(&sum(global, &client.change)) * (client.examples as f64 / total)
    })
}

pub(super) fn full_rank() -> usize {
    let shape = TtShape::new(fedtt_tt::modes::CutModes { modes: MODES.to_vec(), cut: CUT }, &[1, 1, 1]).unwrap();
    shape.rows()
}

pub(super) const RULES: [Rule; 4] = [Rule::Mean, Rule::Exact, Rule::Median, Rule::TrimmedMean];

pub(super) fn uniform(rule: Rule) -> AggregationPlan {
    AggregationPlan { weight: Weighting::Uniform, ..plan(rule) }
}
