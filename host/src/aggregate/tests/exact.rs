//! Means of matrices.

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn with_one_core_the_mean_of_the_products_is_the_product_of_the_means(
        seed: u64, clients in 1usize..9, index in 0usize..4,
    ) {
        let parameters = layer("a.down", 3);
        let global = random(&mut rng(seed), &parameters, 1.0);
        let trained = vec![parameters[index].clone()];
        let contributions = fleet(seed ^ 1, &trained, clients, 1.0);
        let values = vec![global[index].clone()];
        let result = aggregate(&plan(Rule::Mean), &trained, &values, contributions.as_slice()).unwrap();

        let whole = |change: &ArrayD<f32>| {
            let mut cores = global.clone();
            cores[index] += change;
            matrix(&cores)
        };
        let total: f64 = contributions.iter().map(|c| c.examples as f64).sum();
        let (rows, columns) = matrix(&global).dim();
        let products = contributions.iter().fold(Array2::zeros((rows, columns)), |mean, client| {
            mean + whole(&client.change[0]) * (client.examples as f64 / total)
        });
        prop_assert!(distance(&products, &whole(&result.change[0])) <= 1e-6 * length(&products));
    }

    #[test]
    fn exact_is_the_dense_mean_where_the_ranks_suffice(seed: u64, clients in 1usize..12, size in 0.01f32..2.0) {
        let parameters = layer("a.down", full_rank());
        let global = random(&mut rng(seed), &parameters, 0.5);
        let contributions = fleet(seed ^ 1, &parameters, clients, size);
        let result = aggregate(&plan(Rule::Exact), &parameters, &global, contributions.as_slice()).unwrap();
        let expected = mean_matrix(&global, &contributions);
        let found = matrix(&sum(&global, &result.change));
        prop_assert!(distance(&expected, &found) <= 1e-5 * length(&expected));
        prop_assert!(result.report.truncation.unwrap() < 1e-6);
    }

    #[test]
    fn the_error_reported_is_near_the_real_one(seed: u64, clients in 2usize..20) {
        let parameters = layer("a.down", 3);
        let global = random(&mut rng(seed), &parameters, 1.0);
        let contributions = fleet(seed ^ 1, &parameters, clients, 0.3);
        let result = aggregate(&plan(Rule::Exact), &parameters, &global, contributions.as_slice()).unwrap();
        let expected = mean_matrix(&global, &contributions);
        let error = distance(&expected, &matrix(&sum(&global, &result.change))) / length(&expected);
        let reported = result.report.truncation.unwrap();
        prop_assert!((0.8 * error..1.4 * error).contains(&reported), "{error} {reported}");
    }

    #[test]
    fn the_cores_move_as_the_plain_mean_moves_them_up_to_the_second_order(seed: u64, clients in 2usize..8) {
        let parameters = layer("a.down", 2);
        let global = random(&mut rng(seed), &parameters, 1.0);
        let gap = |size: f32| {
            let contributions = fleet(seed ^ 1, &parameters, clients, size);
            let result = |rule| aggregate(&plan(rule), &parameters, &global, contributions.as_slice()).unwrap().change;
            let (exact, mean) = (result(Rule::Exact), result(Rule::Mean));
            let wide = |change: Vec<ArrayD<f32>>| -> Vec<f64> { change.iter().flatten().map(|&x| f64::from(x)).collect() };
            let (exact, mean) = (wide(exact), wide(mean));
            distance(&exact, &mean) / distance(&mean, &vec![0.0; mean.len()])
        };
        // A tenth of the change leaves a tenth of the gap, less where a bond is nearly singular.
        let (near, far) = (gap(1e-3), gap(1e-2));
        prop_assert!(near <= 0.5 * far + 1e-3, "{near} {far}");
    }
}

#[test]
fn exact_is_nearer_to_the_mean_of_the_matrices_than_the_mean_of_the_cores() {
    let parameters = layer("a.down", 3);
    let global = random(&mut rng(7), &parameters, 1.0);
    let contributions = fleet(8, &parameters, 6, 0.5);
    let expected = mean_matrix(&global, &contributions);
    let error = |rule| {
        let result = aggregate(&plan(rule), &parameters, &global, contributions.as_slice()).unwrap();
        distance(&expected, &matrix(&sum(&global, &result.change)))
    };
    assert!(error(Rule::Exact) < 0.8 * error(Rule::Mean), "{} {}", error(Rule::Exact), error(Rule::Mean));
}

#[test]
fn equal_clients_give_that_clients_cores_and_not_just_its_matrix() {
    let parameters = layer("a.down", 3);
    let global = random(&mut rng(9), &parameters, 1.0);
    let one = fleet(10, &parameters, 1, 0.3).remove(0);
    let clients: Vec<_> = (0..5).map(|i| Contribution { client: format!("c{i}"), ..one.clone() }).collect();
    let result = aggregate(&plan(Rule::Exact), &parameters, &global, clients.as_slice()).unwrap();
    assert!(close(&result.change, &one.change, 1e-5));
}

#[test]
fn a_train_that_cancels_out_can_still_learn() {
    let parameters = layer("a.up", 3);
    let mut global = random(&mut rng(1), &parameters, 1.0);
    global[3].fill(0.0);
    let mut contributions = fleet(2, &parameters[3..4], 1, 1.0);
    let mut opposite = contributions[0].clone();
    opposite.client = "client-001".into();
    opposite.change[0].mapv_inplace(|x| -x);
    contributions.push(opposite);
    for client in &mut contributions {
        client.examples = 5;
        let last = client.change.remove(0);
        client.change = parameters.iter().map(|p| ArrayD::zeros(IxDyn(&p.shape))).collect();
        client.change[3] = last;
    }
    let result = aggregate(&plan(Rule::Exact), &parameters, &global, contributions.as_slice()).unwrap();
    let after = sum(&global, &result.change);
    assert!(length(&matrix(&after)) < 1e-6);
    // Any last core that could be reached before can be reached now: the other cores span as many directions.
    for (before, after) in global[..3].iter().zip(&after) {
        let difference = (before - after).iter().map(|x| x.abs()).fold(0.0, f32::max);
        assert!(difference < 1e-4, "{difference}");
    }
}

#[test]
fn layers_of_which_a_core_is_frozen_take_the_plain_mean() {
    let parameters: Vec<Parameter> = layer("a.down", 3).into_iter().skip(1).collect();
    let global = random(&mut rng(3), &parameters, 1.0);
    let contributions = fleet(4, &parameters, 5, 0.5);
    let result = |rule| aggregate(&plan(rule), &parameters, &global, contributions.as_slice()).unwrap();
    assert_eq!(result(Rule::Exact).change, result(Rule::Mean).change);
}
