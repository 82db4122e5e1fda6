//! The server's optimiser: the aggregated change taken as a gradient (Reddi et al. 2021, "Adaptive federated
//! optimization", algorithm 2; FedAvgM: Hsu et al. 2019).

use std::collections::BTreeMap;

use fedtt_tt::Parameter;
use fedtt_wire::plan::{ServerOptimiser, ServerPlan};
use ndarray::{ArrayD, Zip};
use serde::{Deserialize, Serialize};

/// Moments of one parameter.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Moments {
    first: ArrayD<f32>,
    second: ArrayD<f32>,
}

/// The moments of every parameter that ever trained. Part of a run's persistent state.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ServerState {
    by_parameter: BTreeMap<String, Moments>,
}

impl ServerState {
    /// What to add to the global values of `parameters`, those that trained, given the aggregated `change` of each (D):
    ///
    /// - none: `rate D`
    /// - momentum: `m = beta1 m + D`, `rate m`
    /// - Adam, Yogi: `m = beta1 m + (1 - beta1) D`, `rate m / (sqrt(v) + tau)`, with v from tau^2 on by
    ///   `v = beta2 v + (1 - beta2) D^2` or `v = v - (1 - beta2) D^2 sign(v - D^2)`
    ///
    /// Moments of parameters that did not train stay as they are.
    pub fn apply(
        &mut self,
        plan: &ServerPlan,
        parameters: &[Parameter],
        mut change: Vec<ArrayD<f32>>,
    ) -> Vec<ArrayD<f32>> {
        for (parameter, change) in parameters.iter().zip(&mut change) {
            if plan.optimiser == ServerOptimiser::None {
                change.mapv_inplace(|x| x * plan.rate);
                continue;
            }
            let fresh = || Moments {
                first: ArrayD::zeros(change.raw_dim()),
                second: ArrayD::from_elem(change.raw_dim(), plan.tau * plan.tau),
            };
            let moments = self.by_parameter.entry(parameter.name.clone()).or_insert_with(fresh);
            if moments.first.shape() != change.shape() {
                *moments = fresh();
            }
            Zip::from(change).and(&mut moments.first).and(&mut moments.second).for_each(|x, first, second| {
                *x = step(plan, f64::from(*x), first, second);
            });
        }
        change
    }
}

fn step(plan: &ServerPlan, change: f64, first: &mut f32, second: &mut f32) -> f32 {
    let (beta1, beta2, tau, rate) =
        (f64::from(plan.beta1), f64::from(plan.beta2), f64::from(plan.tau), f64::from(plan.rate));
    if plan.optimiser == ServerOptimiser::Momentum {
        let m = beta1 * f64::from(*first) + change;
        *first = m as f32;
        return (rate * m) as f32;
    }
    let (m, v) = (f64::from(*first), f64::from(*second));
    let square = change * change;
    let m = beta1 * m + (1.0 - beta1) * change;
    let v = match plan.optimiser {
        ServerOptimiser::Yogi if v > square => v - (1.0 - beta2) * square,
        ServerOptimiser::Yogi if v < square => v + (1.0 - beta2) * square,
        ServerOptimiser::Yogi => v,
        _ => beta2 * v + (1.0 - beta2) * square,
    };
    *first = m as f32;
    *second = v as f32;
    (rate * m / (v.sqrt() + tau)) as f32
}
