//! What trains in a round.

use std::collections::{BTreeMap, BTreeSet};

use fedtt_tt::{CoreSchedule, Parameter, Role, TrainMask};
use fedtt_wire::plan::{CoreRule, SchedulePlan};

use super::DriftHistory;

/// What trains in `round` (from 0) of a run with these parameters (all of them). Biases and head train in round 0 and
/// every n-th after it, as the plan says.
pub fn mask(plan: &SchedulePlan, round: u64, parameters: &[Parameter], history: &DriftHistory) -> TrainMask {
    let every = |n: u32| n > 0 && round.is_multiple_of(u64::from(n));
    let cores = match plan.cores {
        CoreRule::All => CoreSchedule::All,
        CoreRule::EndsAndOne if plan.head < 2 => CoreSchedule::EndsAndOne { round },
        CoreRule::One if plan.head < 2 => CoreSchedule::One { round },
        CoreRule::EndsAndOne | CoreRule::One => in_turn(plan, round, parameters),
        CoreRule::Adaptive => pick(plan, round, parameters, history),
    };
    TrainMask { cores, biases: every(plan.biases), head: every(plan.head) }
}

/// The tensor trains: layer -> names of its cores in their order.
fn trains(parameters: &[Parameter]) -> BTreeMap<&str, Vec<&str>> {
    let mut trains: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for parameter in parameters.iter().filter(|p| matches!(p.role, Role::Core { .. })) {
        trains.entry(&parameter.layer).or_default().push(&parameter.name);
    }
    trains
}

/// Rounds from one in which the layer can train to the next.
fn period(plan: &SchedulePlan, layer: &str) -> u64 {
    if layer.starts_with("head.") { u64::from(plan.head.max(1)) } else { 1 }
}

/// `ends-and-one` or `one` where the head does not train in every round: its turns are counted in the rounds it trains
/// in. By the run's rounds, a head of 6 cores that trains in every 6th would always train the same.
fn in_turn(plan: &SchedulePlan, round: u64, parameters: &[Parameter]) -> CoreSchedule {
    let cores = trains(parameters).into_iter().map(|(layer, cores)| {
        let round = round / period(plan, layer);
        let turn = match plan.cores {
            CoreRule::One => CoreSchedule::One { round },
            _ => CoreSchedule::EndsAndOne { round },
        };
        let count = cores.len();
        (layer.to_string(), (0..count).filter(|&core| turn.trains(layer, core, count)).collect())
    });
    CoreSchedule::Listed { cores: cores.collect() }
}

/// Of every train the `count` cores on which clients agreed most when it was last measured. So that none starves, a core
/// that has not trained for two full cycles (2 ceil(d / count) of the rounds its layer trains in), or never, goes before,
/// the longest waiting first. Ties go to the lower core.
pub fn pick(plan: &SchedulePlan, round: u64, parameters: &[Parameter], history: &DriftHistory) -> CoreSchedule {
    let cores = trains(parameters).into_iter().map(|(layer, cores)| {
        let count = (plan.count as usize).clamp(1, cores.len());
        let patience = 2 * cores.len().div_ceil(count) as u64 * period(plan, layer);
        let mut order: Vec<(u64, f64, usize)> = cores
            .iter()
            .enumerate()
            .map(|(index, name)| match history.of(name) {
                None => (u64::MAX, 0.0, index),
                Some(drift) => {
                    let waited = round.saturating_sub(drift.round);
                    let overdue = if waited >= patience { waited } else { 0 };
                    (overdue, drift.agreement.unwrap_or(0.0), index)
                }
            })
            .collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then(b.1.total_cmp(&a.1)).then(a.2.cmp(&b.2)));
        let picked: BTreeSet<usize> = order[..count].iter().map(|&(_, _, index)| index).collect();
        (layer.to_string(), picked.into_iter().collect())
    });
    CoreSchedule::Listed { cores: cores.collect() }
}
