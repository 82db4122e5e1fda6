//! What trains when.

use std::collections::BTreeMap;

use fedtt_tt::CoreSchedule;
use fedtt_wire::plan::{CoreRule, SchedulePlan};

use super::*;

fn adaptive(count: u32, head: u32) -> SchedulePlan {
    SchedulePlan { cores: CoreRule::Adaptive, count, head, ..SchedulePlan::default() }
}

fn listed(schedule: &CoreSchedule) -> &BTreeMap<String, Vec<usize>> {
    match schedule {
        CoreSchedule::Listed { cores } => cores,
        other => panic!("{other:?}"),
    }
}

/// A report in which clients agree on core i of every layer by `agreements[i]`.
fn report(trained: &[Parameter], agreements: [f64; 4]) -> AggregationReport {
    let agreement = trained.iter().filter_map(|p| match p.role {
        Role::Core { index, .. } => Some((p.name.clone(), agreements[index])),
        _ => None,
    });
    AggregationReport { agreement: agreement.collect(), ..AggregationReport::default() }
}

#[test]
fn the_cores_clients_agree_on_train_and_none_starves() {
    let parameters = [layer("a.down", 2), layer("head.hidden", 2)].concat();
    for (count, head, least_favourite) in [(1, 1, 8), (2, 1, 8), (1, 3, 8)] {
        let plan = adaptive(count, head);
        let mut history = DriftHistory::default();
        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        let rounds = 120 * u64::from(head);
        for round in 0..rounds {
            let mask = mask(&plan, round, &parameters, &history);
            assert_eq!(mask, super::super::mask(&plan, round, &parameters, &history));
            let trained: Vec<_> = parameters.iter().filter(|p| mask.trains(p)).cloned().collect();
            for layer in listed(&mask.cores).values() {
                assert_eq!(layer.len(), count as usize);
            }
            for parameter in &trained {
                *times.entry(parameter.name.clone()).or_default() += 1;
            }
            history.record(round, &trained, &report(&trained, [0.1, 0.9, 0.3, 0.2]));
        }
        for layer in ["a.down", "head.hidden"] {
            let trained = |core: usize| times[&format!("{layer}.core.{core}")];
            assert!(trained(1) > 2 * trained(0), "{times:?}");
            assert!((0..4).all(|core| trained(core) >= least_favourite), "{times:?}");
        }
    }
}

#[test]
fn what_was_measured_is_kept_while_a_core_does_not_train() {
    let parameters = layer("a.down", 2);
    let mut history = DriftHistory::default();
    history.record(3, &parameters, &report(&parameters, [0.1, 0.9, 0.3, 0.2]));
    history.record(4, &parameters[..1], &report(&parameters[..1], [0.5, 0.0, 0.0, 0.0]));
    history.record(5, &parameters[..1], &AggregationReport::default());
    assert_eq!(history.of("a.down.core.0"), Some(Drift { round: 5, agreement: Some(0.5) }));
    assert_eq!(history.of("a.down.core.1"), Some(Drift { round: 3, agreement: Some(0.9) }));
    assert_eq!(history.of("b.down.core.1"), None);
    let picked = pick(&adaptive(2, 1), 6, &parameters, &history);
    assert_eq!(listed(&picked)["a.down"], [0, 1]);
}

#[test]
fn biases_and_head_train_every_nth_round() {
    let parameters = [layer("a.down", 2), layer("head.hidden", 2)].concat();
    let plan = SchedulePlan { biases: 3, head: 0, ..SchedulePlan::default() };
    for round in 0..9 {
        let mask = mask(&plan, round, &parameters, &DriftHistory::default());
        assert_eq!((mask.biases, mask.head), (round % 3 == 0, false));
        assert_eq!(mask.cores, CoreSchedule::All);
    }
}

#[test]
fn a_head_that_trains_rarely_still_takes_all_its_cores_in_turn() {
    let parameters = [layer("a.down", 2), layer("head.hidden", 2)].concat();
    for rule in [CoreRule::One, CoreRule::EndsAndOne] {
        let plan = SchedulePlan { cores: rule, head: 4, ..SchedulePlan::default() };
        let mut trained: Vec<String> = Vec::new();
        for round in 0..16 {
            let mask = mask(&plan, round, &parameters, &DriftHistory::default());
            let adapter = parameters.iter().filter(|p| p.layer == "a.down" && mask.trains(p)).map(|p| &p.name);
            let usual = match rule {
                CoreRule::One => CoreSchedule::One { round },
                _ => CoreSchedule::EndsAndOne { round },
            };
            let expected = (0..4).filter(|&core| usual.trains("a.down", core, 4)).count() + 1;
            assert_eq!(adapter.count(), expected);
            trained.extend(parameters.iter().filter(|p| mask.trains(p)).map(|p| p.name.clone()));
        }
        assert!(parameters.iter().all(|p| trained.contains(&p.name)), "{rule:?}");
    }
}
