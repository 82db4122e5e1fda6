//! What never gets as far as a rule.

use super::*;

fn setting() -> (Vec<Parameter>, Vec<ArrayD<f32>>, Vec<Contribution>) {
    let parameters = layer("a.down", 2);
    let global = random(&mut rng(0), &parameters, 1.0);
    let contributions = fleet(1, &parameters, 5, 0.1);
    (parameters, global, contributions)
}

#[test]
fn values_that_are_not_finite_leave_their_client_out_of_every_rule() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        for rule in RULES {
            let (parameters, global, mut contributions) = setting();
            let honest = contributions[1..].to_vec();
            contributions[0].change[2].as_slice_mut().unwrap()[3] = bad;
            let result = aggregate(&plan(rule), &parameters, &global, contributions.as_slice()).unwrap();
            let expected = aggregate(&plan(rule), &parameters, &global, honest.as_slice()).unwrap();
            assert_eq!(result.change, expected.change);
            assert!(result.report.left_out["client-000"].starts_with("`a.down.core.2` holds"));
            assert!(!result.report.clients.contains_key("client-000"));
        }
    }
}

#[test]
fn with_nobody_left_the_first_reason_is_told() {
    let (parameters, global, mut contributions) = setting();
    contributions.iter_mut().for_each(|c| c.change[0].fill(f32::NAN));
    let error = aggregate(&plan(Rule::Mean), &parameters, &global, contributions.as_slice()).unwrap_err();
    let expected = "none of 5 contributions can be aggregated (client-000: `a.down.core.0` holds NaN)";
    assert_eq!(error.to_string(), expected);
    let error = aggregate(&plan(Rule::Exact), &parameters, &global, [].as_slice()).unwrap_err();
    assert!(matches!(error, AggregateError::Empty { seen: 0, .. }));
}

#[test]
fn long_changes_are_scaled_down_to_the_clip() {
    let (parameters, global, mut contributions) = setting();
    contributions[2].change.iter_mut().for_each(|c| c.mapv_inplace(|x| x * 1000.0));
    for rule in RULES {
        let plan = AggregationPlan { clip: Some(0.25), ..plan(rule) };
        let result = aggregate(&plan, &parameters, &global, contributions.as_slice()).unwrap();
        assert!(result.report.norm <= 0.2501, "{rule:?} {}", result.report.norm);
        let share = result.report.clients["client-002"];
        assert!(share.clipped && share.norm > 100.0);
    }
}

#[test]
fn a_change_out_of_proportion_is_left_out_and_a_pair_never_accuses_itself() {
    let (parameters, global, mut contributions) = setting();
    contributions[4].change.iter_mut().for_each(|c| c.mapv_inplace(|x| x * 20.0));
    let plan = AggregationPlan { outlier: Some(5.0), ..plan(Rule::Mean) };
    let result = aggregate(&plan, &parameters, &global, contributions.as_slice()).unwrap();
    assert_eq!(result.report.left_out.keys().collect::<Vec<_>>(), ["client-004"]);
    let result = aggregate(&plan, &parameters, &global, &contributions[3..]).unwrap();
    assert!(result.report.left_out.is_empty());
}

#[test]
fn clients_without_examples_count_only_where_examples_do_not() {
    let (parameters, global, mut contributions) = setting();
    contributions[0].examples = 0;
    let left_out = |plan: AggregationPlan| {
        aggregate(&plan, &parameters, &global, contributions.as_slice()).unwrap().report.left_out.len()
    };
    assert_eq!(left_out(plan(Rule::Mean)), 1);
    assert_eq!(left_out(uniform(Rule::Mean)), 0);
    assert_eq!(left_out(plan(Rule::Median)), 0);
}

#[test]
fn a_client_that_comes_twice_or_out_of_order_is_the_hosts_fault() {
    let (parameters, global, contributions) = setting();
    for order in [[0, 1, 1], [1, 0, 2]] {
        let walked: Vec<_> = order.iter().map(|&i| contributions[i].clone()).collect();
        let error = aggregate(&plan(Rule::Mean), &parameters, &global, walked.as_slice()).unwrap_err();
        assert!(matches!(error, AggregateError::Order { .. }));
    }
}

#[test]
fn wrong_shapes_name_client_and_parameter() {
    let (parameters, global, mut contributions) = setting();
    contributions[1].change[0] = ArrayD::zeros(IxDyn(&[1, 2, 2]));
    let error = aggregate(&plan(Rule::Mean), &parameters, &global, contributions.as_slice()).unwrap_err().to_string();
    assert_eq!(error, "client `client-001`, parameter `a.down.core.0`: found [1, 2, 2], expected [1, 4, 2]");
    contributions[1].change.pop();
    let error = aggregate(&plan(Rule::Mean), &parameters, &global, contributions.as_slice()).unwrap_err();
    assert!(matches!(error, AggregateError::Shape { .. }));
}
