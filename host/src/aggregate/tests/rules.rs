//! What holds of every rule, and what of the robust ones.

use proptest::prelude::*;

use super::*;
use crate::aggregate::robust::{Sorted, median, trimmed_mean};
use crate::aggregate::screen::Screen;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn equal_clients_give_that_client(seed: u64, clients in 1usize..8, rule in 0usize..4) {
        let parameters = layer("a.down", 2);
        let global = random(&mut rng(seed), &parameters, 1.0);
        let one = fleet(seed ^ 1, &parameters, 1, 0.3).remove(0);
        let names = (0..clients).map(|i| Contribution { client: format!("c{i}"), ..one.clone() });
        let contributions: Vec<_> = names.collect();
        let result = aggregate(&plan(RULES[rule]), &parameters, &global, contributions.as_slice()).unwrap();
        let (found, expected) = (sum(&global, &result.change), sum(&global, &one.change));
        prop_assert!(distance(&matrix(&found), &matrix(&expected)) <= 1e-6 * length(&matrix(&expected)));
        prop_assert!(RULES[rule] == Rule::Exact || close(&result.change, &one.change, 1e-6));
        let agree = |a: &f64| (a - 1.0).abs() < 1e-9;
        prop_assert!(result.report.agreement.values().all(agree));
        prop_assert_eq!(result.report.agreement.len(), if clients > 1 { parameters.len() } else { 0 });
    }

    #[test]
    fn every_client_counts_exactly_once(seed: u64, clients in 1usize..40) {
        // Client i changes coordinate i alone, by its own amount: what is lost or counted twice shows.
        let parameters = vec![parameter("head.out", "0", &[4, 10], Role::Factor)];
        let global = random(&mut rng(seed), &parameters, 1.0);
        let mut contributions = fleet(seed ^ 1, &parameters, clients, 1.0);
        for (i, client) in contributions.iter_mut().enumerate() {
            client.change[0].fill(0.0);
            client.change[0].as_slice_mut().unwrap()[i] = (i + 1) as f32;
        }
        let result = aggregate(&plan(Rule::Mean), &parameters, &global, contributions.as_slice()).unwrap();
        let total: u64 = contributions.iter().map(|c| c.examples).sum();
        for (i, &value) in result.change[0].iter().enumerate() {
            let expected = contributions.get(i).map_or(0.0, |c| (i + 1) as f64 * c.examples as f64 / total as f64);
            prop_assert!((f64::from(value) - expected).abs() < 1e-5);
        }
        let shares: f64 = result.report.clients.values().map(|c| c.weight).sum();
        prop_assert!((shares - 1.0).abs() < 1e-9);
        prop_assert_eq!(result.report.clients.len(), clients);
    }

    #[test]
    fn blocks_of_any_size_give_the_same(seed: u64, clients in 1usize..8, held in 1usize..600) {
        let parameters = layer("a.down", 3);
        let contributions = fleet(seed, &parameters, clients, 1.0);
        let plan = plan(Rule::Median);
        let source = |place, parameters| contributions.as_slice().change(place, parameters);
        let contributors = contributions.as_slice().contributors().unwrap();
        let screen = Screen::new(&plan, &parameters, contributors, &source).unwrap();
        let whole = Sorted::new(median).aggregate(&screen, 0..parameters.len()).unwrap();
        let parts = Sorted::holding(median, held).aggregate(&screen, 0..parameters.len()).unwrap();
        prop_assert_eq!(whole.change, parts.change);
        prop_assert_eq!(whole.agreement.len(), parts.agreement.len());
    }

    #[test]
    fn windows_of_any_size_give_the_same(seed: u64, clients in 1usize..6, values in 1usize..400, rule in 0usize..4) {
        let layers = ["a.down", "a.up", "b.down"];
        let parameters: Vec<Parameter> = layers.iter().flat_map(|name| layer(name, 2)).collect();
        let global = random(&mut rng(seed), &parameters, 1.0);
        let contributions = fleet(seed ^ 1, &parameters, clients, 1.0);
        let plan = AggregationPlan { clip: Some(2.0), outlier: Some(1.5), ..plan(RULES[rule]) };
        let global: Vec<&ArrayD<f32>> = global.iter().collect();
        let windowed = |values| aggregate_in_windows(&plan, &parameters, &global, contributions.as_slice(), values);
        let (whole, parts) = (windowed(usize::MAX).unwrap(), windowed(values).unwrap());
        prop_assert_eq!(&whole.change, &parts.change);
        prop_assert_eq!(&whole.report.clients, &parts.report.clients);
        prop_assert_eq!(&whole.report.agreement, &parts.report.agreement);
        prop_assert!(whole.report.clients.values().all(|c| c.clipped));
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-12 * a;
        prop_assert!(whole.report.truncation.zip(parts.report.truncation).is_none_or(|(a, b)| close(a, b)));
    }

    #[test]
    fn a_minority_that_flips_signs_is_outvoted(seed: u64, honest in 4usize..9) {
        let parameters = layer("a.down", 2);
        let global = random(&mut rng(seed), &parameters, 1.0);
        let truth = random(&mut rng(seed ^ 1), &parameters, 1.0);
        let attackers = (honest - 1) / 2;
        let mut contributions = fleet(seed ^ 2, &parameters, honest + attackers, 0.01);
        for (i, client) in contributions.iter_mut().enumerate() {
            let factor = if i < attackers { -50.0 } else { 1.0 };
            client.change = client.change.iter().zip(&truth).map(|(noise, t)| (noise + t) * factor).collect();
        }
        let share = attackers as f64 / contributions.len() as f64;
        for rule in [Rule::Median, Rule::TrimmedMean] {
            let plan = AggregationPlan { trim: share, ..plan(rule) };
            let result = aggregate(&plan, &parameters, &global, contributions.as_slice()).unwrap();
            prop_assert!(close(&result.change, &truth, 0.03), "{rule:?}");
        }
        let undefended = aggregate(&uniform(Rule::Mean), &parameters, &global, contributions.as_slice()).unwrap();
        prop_assert!(!close(&undefended.change, &truth, 0.3));
        let guarded = AggregationPlan { outlier: Some(3.0), ..plan(Rule::Mean) };
        let guarded = aggregate(&guarded, &parameters, &global, contributions.as_slice()).unwrap();
        prop_assert!(close(&guarded.change, &truth, 0.03));
        prop_assert_eq!(guarded.report.left_out.len(), attackers);
    }
}

#[test]
fn examples_weigh_where_the_plan_says_so() {
    let parameters = vec![parameter("head.out", "bias", &[1], Role::Bias)];
    let client = |name: &str, examples, value| Contribution {
        client: name.into(),
        examples,
        change: vec![ArrayD::from_elem(IxDyn(&[1]), value)],
    };
    let contributions = vec![client("a", 30, 1.0), client("b", 10, 5.0)];
    let global = vec![ArrayD::zeros(IxDyn(&[1]))];
    let value = |plan| aggregate(&plan, &parameters, &global, contributions.as_slice()).unwrap().change[0][[0]];
    assert_eq!(value(plan(Rule::Mean)), 2.0);
    assert_eq!(value(uniform(Rule::Mean)), 3.0);
    assert_eq!(value(plan(Rule::Median)), 3.0);
}

#[test]
fn trimming_rounds_up_and_leaves_the_middle() {
    let ten: Vec<f64> = (0..10).map(f64::from).chain([]).collect();
    assert_eq!(trimmed_mean(&ten, 0.0), 4.5);
    assert_eq!(trimmed_mean(&[0.0, 1.0, 2.0, 30.0, 1000.0], 0.1), 11.0);
    assert_eq!(trimmed_mean(&[0.0, 1.0, 50.0], 0.49), 1.0);
    assert_eq!(trimmed_mean(&[0.0, 10.0], 0.4), 5.0);
    let thirty: Vec<f64> = (0..30)
        .map(|i| {
            if i < 3 {
                -1e9
            } else if i > 26 {
                1e3
            } else {
                1.0
            }
        })
        .collect();
    assert_eq!(trimmed_mean(&thirty, 0.1), 1.0);
    assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
}

#[test]
fn agreement_tells_unrelated_from_opposed_from_equal() {
    let parameters = vec![parameter("head.out", "0", &[64, 64], Role::Factor)];
    let global = random(&mut rng(0), &parameters, 1.0);
    let agreement = |contributions: &[Contribution]| {
        let result = aggregate(&uniform(Rule::Mean), &parameters, &global, contributions).unwrap();
        result.report.agreement["head.out.0"]
    };
    let unrelated = fleet(1, &parameters, 5, 1.0);
    assert!(agreement(&unrelated).abs() < 0.05);
    assert!(agreement(&unrelated[..2]).abs() < 0.05);
    let mut opposed = unrelated[..2].to_vec();
    opposed[1].change[0] = -&opposed[0].change[0];
    assert!((agreement(&opposed) + 1.0).abs() < 1e-6);
    let noisy: Vec<_> = unrelated
        .iter()
        .map(|c| Contribution { change: vec![&c.change[0] * 0.5 + &unrelated[0].change[0]], ..c.clone() })
        .collect();
    assert!((0.4..1.0).contains(&agreement(&noisy)));
}
