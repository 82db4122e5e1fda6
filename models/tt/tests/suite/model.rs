//! The set of all adapters and the head: names, order, gradients, masks, start values, loading.

use std::collections::{BTreeMap, HashMap};

use fedtt_tt::adapter::Bottleneck;
use fedtt_tt::config::{HeadConfig, HeadKind, Init, Method, Rank, Sites};
use fedtt_tt::optim::Rule;
use fedtt_tt::{AdapterConfig, AdapterSet, CoreSchedule, Error, HeadSize, Module, SiteKind, TrainMask, init, native};
use ndarray::{Array1, ArrayD, ArrayView2, Ix2};

use crate::support::{random_matrix, random_tensor, rng, sites};

fn set(config: &AdapterConfig) -> AdapterSet {
    AdapterSet::new(config, &sites(3, 24), Some(HeadSize { input: 24, outputs: 3 }), 9).unwrap()
}

fn with_tt_head() -> AdapterConfig {
    let head = HeadConfig { kind: HeadKind::Tt, ..HeadConfig::default() };
    AdapterConfig { bottleneck: 8, rank: Some(Rank::Uniform(3)), head, ..AdapterConfig::default() }
}

#[test]
fn names_of_parameters_and_graph_inputs() {
    let set = set(&with_tt_head());
    let names: Vec<String> = set.parameters().into_iter().map(|p| p.name).collect();
    assert_eq!(names[0], "block.0.attention.down.core.0");
    for expected in ["block.2.mlp.up.bias", "head.hidden.core.1", "head.hidden.bias", "head.out.0", "head.out.bias"] {
        assert!(names.iter().any(|n| n == expected), "{expected}");
    }
    assert_eq!(names.len(), set.values().len());
    let inputs: Vec<String> = set.graph_inputs().into_iter().map(|(name, _)| name).collect();
    let first = ["down.0", "down.1", "down.bias", "up.0", "up.1", "up.bias"].map(|n| format!("block.0.attention.{n}"));
    assert_eq!(inputs[..6], first);
    assert_eq!(
        inputs[inputs.len() - 5..],
        ["head.hidden.0", "head.hidden.1", "head.hidden.bias", "head.out.0", "head.out.bias"]
    );
    assert_eq!(inputs.len(), set.forms().iter().map(|(_, f)| f.tensors().len()).sum::<usize>() + 5);
}

#[test]
fn sites_and_depth_select() {
    let of = |method, sites, depth| {
        let set = set(&AdapterConfig { method, sites, depth, bottleneck: 8, ..AdapterConfig::default() });
        set.forms().into_iter().map(|(site, _)| (site.block, site.kind)).collect::<Vec<_>>()
    };
    use SiteKind::{Attention, Mlp, Query, Value};
    assert_eq!(of(Method::Tt, Sites::Both, Some(1)), [(2, Attention), (2, Mlp)]);
    assert_eq!(of(Method::Dense, Sites::Mlp, Some(2)), [(1, Mlp), (2, Mlp)]);
    assert_eq!(of(Method::Tt, Sites::Attention, None), [(0, Attention), (1, Attention), (2, Attention)]);
    assert_eq!(of(Method::Lora, Sites::Mlp, Some(1)), [(2, Query), (2, Value)]);
    assert_eq!(of(Method::TtLora, Sites::Both, Some(1)), [(2, Query), (2, Value)]);
    assert_eq!(of(Method::TtCore, Sites::Both, Some(1)), [(2, Query), (2, Value)]);
    assert_eq!(of(Method::Tt, Sites::Mlp, Some(9)).len(), 3);
}

#[test]
fn the_seed_decides_the_values_whatever_else_is_adapted() {
    let config = with_tt_head();
    assert_eq!(set(&config).tensors(), set(&config).tensors());
    let top = set(&AdapterConfig { depth: Some(1), ..config.clone() });
    let all = set(&config).tensors();
    assert!(top.tensors().iter().all(|(name, value)| all[name] == *value));
    let other = AdapterSet::new(&config, &sites(3, 24), Some(HeadSize { input: 24, outputs: 3 }), 10).unwrap();
    assert_ne!(other.tensors(), all);
}

#[test]
fn the_identity_start_is_the_identity_and_the_published_start_is_not() {
    let methods = [
        (Method::Tt, true, true),
        (Method::Dense, true, true),
        (Method::TtLora, false, true),
        (Method::TtCore, false, false),
        (Method::Lora, false, false),
    ];
    // What a bottleneck leaves alone is x, what a branch leaves alone is 0; LoRA and a lone core know one start.
    for (method, bottleneck, told) in methods {
        for init in [Init::Identity, Init::Loretta] {
            let set = set(&AdapterConfig { method, init, bottleneck: 8, ..AdapterConfig::default() });
            for (_, adapter) in set.adapters() {
                let x = random_matrix::<f32>(4, 24, &mut rng(1));
                let y = native::adapter_forward(&adapter.form(), &adapter.graph_inputs(), x.view());
                let unchanged = if bottleneck { y == x } else { y.iter().all(|&v| v == 0.0) };
                assert_eq!(unchanged, init == Init::Identity || !told, "{method:?} {init:?}");
            }
        }
    }
}

/// A start near the identity adds a tenth of what the published start adds, and is zero nowhere.
#[test]
fn a_start_near_the_identity_is_a_tenth_of_the_published_one() {
    for method in [Method::Tt, Method::Dense] {
        let start = |init| set(&AdapterConfig { method, init, bottleneck: 8, ..AdapterConfig::default() });
        let (near, full) = (start(Init::Near), start(Init::Loretta));
        for ((_, near), (_, full)) in near.adapters().zip(full.adapters()) {
            let x = random_matrix::<f32>(4, 24, &mut rng(1));
            let added = |adapter: &dyn fedtt_tt::Adapter| {
                native::adapter_forward(&adapter.form(), &adapter.graph_inputs(), x.view()) - &x
            };
            let (near, full) = (added(near), added(full));
            assert!(near.iter().zip(&full).all(|(n, f)| (n - 0.1 * f).abs() < 1e-5 && *n != 0.0), "{method:?}");
        }
    }
}

/// Var W_ij = 1 / (in + out) over the ensemble of starts.
#[test]
fn the_published_start_has_the_published_variance() {
    let config = AdapterConfig { bias: false, ..AdapterConfig::default() };
    let rng = &mut rng(2);
    let mean_square: Array1<f64> = (0..200)
        .map(|_| {
            let adapter: Bottleneck<f64> = init::bottleneck(&config, 96, rng).unwrap();
            adapter.down.dense().mapv(|w| w * w).mean().unwrap()
        })
        .collect();
    let ratio = mean_square.mean().unwrap() * (96.0 + 64.0);
    assert!((0.8..1.25).contains(&ratio), "{ratio}");
}

/// The loss `sum over sites and head of <upstream, module(x)>` through the set's own map of names to gradients.
#[test]
fn pullback_by_name_is_each_modules_pullback() {
    let set = set(&with_tt_head());
    let rng = &mut rng(4);
    let x = random_matrix::<f32>(5, 24, rng);
    let mut by_name: HashMap<String, ArrayD<f32>> = HashMap::new();
    let mut expected = Vec::new();
    for (site, adapter) in set.adapters() {
        let (form, inputs) = (adapter.form(), adapter.graph_inputs());
        let upstream = random_matrix::<f32>(5, 24, rng);
        let gradients = native::adapter_backward(&form, &inputs, x.view(), upstream.view()).inputs;
        expected.extend(adapter.pullback(&gradients.iter().map(|g| g.view()).collect::<Vec<_>>()));
        let names = form.tensors().into_iter().map(|(name, _)| format!("{}.{name}", site.id));
        by_name.extend(names.zip(gradients));
    }
    let head = set.head().unwrap();
    let upstream = random_matrix::<f32>(5, 3, rng);
    let gradients = native::head_backward(&head.form(), &head.graph_inputs(), x.view(), upstream.view()).inputs;
    expected.extend(head.pullback(&gradients.iter().map(|g| g.view()).collect::<Vec<_>>()));
    by_name.extend(head.form().tensors().into_iter().map(|(name, _)| format!("head.{name}")).zip(gradients));

    assert_eq!(set.pullback(&by_name).unwrap(), expected);
    for (gradient, parameter) in expected.iter().zip(set.parameters()) {
        assert_eq!(gradient.shape(), parameter.shape);
    }

    let missing = by_name.remove("block.1.mlp.up.1").unwrap();
    assert_eq!(set.pullback(&by_name), Err(Error::Missing { name: "block.1.mlp.up.1".into() }));
    by_name.insert("block.1.mlp.up.1".into(), missing.t().to_owned());
    assert!(matches!(set.pullback(&by_name), Err(Error::Shape { .. })));
}

#[test]
fn a_frozen_factor_needs_no_gradient() {
    let set = set(&AdapterConfig { method: Method::FfaLora, ..AdapterConfig::default() });
    let inputs = set.graph_inputs();
    let is_a = |name: &str| name.ends_with(".map.0");
    let gradients: HashMap<String, ArrayD<f32>> = inputs.into_iter().filter(|(name, _)| !is_a(name)).collect();
    let found = set.pullback(&gradients).unwrap();
    for ((parameter, gradient), trains) in set.parameters().iter().zip(&found).zip(set.mask(&TrainMask::default())) {
        assert_eq!(trains, !is_a(&parameter.name));
        assert!(trains || gradient.iter().all(|&g| g == 0.0));
    }
}

#[test]
fn masks_pick_cores_biases_and_head() {
    let set = set(&with_tt_head());
    let trained = |mask: TrainMask| -> Vec<String> {
        let parameters = set.parameters();
        parameters.into_iter().zip(set.mask(&mask)).filter(|(_, trains)| *trains).map(|(p, _)| p.name).collect()
    };
    let one = trained(TrainMask { cores: CoreSchedule::One { round: 1 }, biases: false, head: false });
    assert_eq!(one.len(), 12);
    assert!(one.iter().all(|name| name.ends_with(".core.1")));
    let cores = BTreeMap::from([("block.0.mlp.down".to_string(), vec![0, 2]), ("head.hidden".to_string(), vec![1])]);
    let listed = trained(TrainMask { cores: CoreSchedule::Listed { cores }, biases: false, head: true });
    let expected = [
        "block.0.mlp.down.core.0",
        "block.0.mlp.down.core.2",
        "head.hidden.core.1",
        "head.hidden.bias",
        "head.out.0",
        "head.out.bias",
    ];
    assert_eq!(listed, expected);
    let written =
        serde_json::to_string(&TrainMask { cores: CoreSchedule::One { round: 3 }, ..Default::default() }).unwrap();
    assert_eq!(written, r#"{"cores":{"schedule":"one","round":3},"biases":true,"head":true}"#);
}

#[test]
fn every_core_has_its_turn() {
    for count in 2..8 {
        let turns = |schedule: fn(u64) -> CoreSchedule| -> Vec<usize> {
            (0..count).map(|core| (0..count as u64).filter(|&t| schedule(t).trains("l", core, count)).count()).collect()
        };
        assert!(turns(|round| CoreSchedule::One { round }).iter().all(|&n| n == 1));
        let ends = turns(|round| CoreSchedule::EndsAndOne { round });
        assert!(ends.iter().all(|&n| n >= 1) && ends[0] == count && ends[count - 1] == count);
    }
}

#[test]
fn tensors_round_trip_and_bad_ones_change_nothing() {
    let config = with_tt_head();
    let source = set(&config);
    let mut target = AdapterSet::new(&config, &sites(3, 24), Some(HeadSize { input: 24, outputs: 3 }), 1).unwrap();
    let before = target.tensors();
    let mut tensors = source.tensors();
    let removed = tensors.remove("head.out.0").unwrap();
    assert_eq!(target.load(&tensors), Err(Error::Missing { name: "head.out.0".into() }));
    tensors.insert("head.out.0".into(), removed.t().to_owned());
    assert!(matches!(target.load(&tensors), Err(Error::Shape { .. })));
    tensors.insert("head.out.0".into(), removed.mapv(|_| f32::NAN));
    assert_eq!(target.load(&tensors), Err(Error::NotFinite { name: "head.out.0".into() }));
    tensors.insert("head.out.0".into(), removed);
    tensors.insert("head.out.1".into(), random_tensor(&[2], &mut rng(0)));
    assert_eq!(target.load(&tensors), Err(Error::Unknown { name: "head.out.1".into() }));
    assert_eq!(target.tensors(), before);
    tensors.remove("head.out.1");
    target.load(&tensors).unwrap();
    assert_eq!(target.tensors(), source.tensors());
    let some = BTreeMap::from([("head.out.bias".to_string(), random_tensor::<f32>(&[3], &mut rng(8)))]);
    target.load_some(&some).unwrap();
    assert_eq!(target.tensors()["head.out.bias"], some["head.out.bias"]);
    assert_eq!(target.tensors()["head.out.0"], source.tensors()["head.out.0"]);
}

#[test]
fn extra_tensors_are_trained_as_they_are() {
    let mut set = set(&with_tt_head());
    let gain = random_tensor::<f32>(&[24], &mut rng(6));
    set.add_extra("norm.3.weight", gain.clone());
    assert_eq!(set.graph_inputs().last().unwrap(), &("norm.3.weight".to_string(), gain.clone()));
    assert_eq!(set.parameters().last().unwrap().name, "norm.3.weight");
    let gradients: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
    assert_eq!(set.pullback(&gradients).unwrap().last().unwrap(), &gain);
    assert!(set.mask(&TrainMask::default()).last().unwrap());
    assert!(!set.groups(1.0, Rule::AdamW).last().unwrap().decay);
}

/// The whole loop without a graph: one bottleneck fits a linear target.
#[test]
fn training_natively_lowers_the_loss() {
    use fedtt_tt::optim::{Optimiser, OptimiserConfig};
    let config = AdapterConfig { bottleneck: 8, sites: Sites::Mlp, depth: Some(1), ..AdapterConfig::default() };
    let mut set = AdapterSet::new(&config, &sites(1, 24), None, 0).unwrap();
    let mut optimiser = Optimiser::new(OptimiserConfig::default(), set.groups(1.0, Rule::AdamW)).unwrap();
    let mask = set.mask(&TrainMask::default());
    let rng = &mut rng(12);
    let x = random_matrix::<f32>(32, 24, rng);
    let target = &x + &x.dot(&(random_matrix::<f32>(24, 2, rng).dot(&random_matrix(2, 24, rng)) * 0.3));
    let mut losses = Vec::new();
    for _ in 0..300 {
        let (site, form) = set.forms().remove(0);
        let (names, inputs): (Vec<String>, Vec<ArrayD<f32>>) = set.graph_inputs().into_iter().unzip();
        assert!(names[0].starts_with(&site.id));
        assert!(inputs[0].view().into_dimensionality::<Ix2>().is_ok_and(|l: ArrayView2<f32>| l.nrows() == 24));
        let error = native::adapter_forward(&form, &inputs, x.view()) - &target;
        losses.push(error.mapv(|e| e * e).mean().unwrap());
        let gradients = native::adapter_backward(&form, &inputs, x.view(), (error / 384.0).view()).inputs;
        let gradients = set.pullback(&names.into_iter().zip(gradients).collect()).unwrap();
        optimiser.step(&mut set.values_mut(), &gradients, &mask).unwrap();
    }
    assert!(losses[299] < 0.3 * losses[0], "{} to {}", losses[0], losses[299]);
}

/// What devices send of a core between two frozen ones is linear in the update: its average is the average of the updates.
#[test]
fn the_average_of_cores_is_the_average_of_their_updates() {
    let config = AdapterConfig { method: Method::TtCore, rank: Some(Rank::Uniform(5)), ..AdapterConfig::default() };
    let fresh = set(&config);
    let names: Vec<String> = fresh.parameters().into_iter().filter(|p| p.trainable).map(|p| p.name).collect();
    assert_eq!(names.iter().filter(|name| !name.starts_with("head.")).count(), 6, "one core for each of 6 sites");
    let update = |set: &AdapterSet| {
        let inputs: HashMap<String, ArrayD<f32>> = set.graph_inputs().into_iter().collect();
        let factor = |i: usize| {
            let name = format!("{}.map.{i}", set.forms()[0].0.id);
            inputs[&name].view().into_dimensionality::<Ix2>().unwrap().to_owned()
        };
        (factor(0), factor(2), factor(0).dot(&factor(1)).dot(&factor(2)))
    };
    let trained = |seed| {
        let mut set = fresh.clone();
        let parameters = set.parameters();
        for (parameter, mut value) in parameters.iter().zip(set.values_mut()).filter(|(p, _)| p.trainable) {
            value.assign(&random_tensor::<f32>(&parameter.shape, &mut rng(seed)));
        }
        set
    };
    let clients = [trained(1), trained(2), trained(3)];
    let mut mean = fresh.clone();
    for (i, mut value) in mean.values_mut().into_iter().enumerate() {
        let total = clients.iter().fold(ArrayD::zeros(value.shape()), |sum: ArrayD<f32>, set| sum + &set.values()[i]);
        value.assign(&(total / 3.0));
    }
    let (left, right, of_mean) = update(&mean);
    let mean_of = clients.iter().map(|set| update(set).2).fold(of_mean.clone() * 0.0, |sum, update| sum + update) / 3.0;
    assert!((of_mean - mean_of).iter().all(|x| x.abs() < 1e-5));
    for gram in [left.t().dot(&left), right.dot(&right.t())] {
        assert!(
            (gram - ndarray::Array2::<f32>::eye(5)).iter().all(|x| x.abs() < 1e-6),
            "the frozen cores are orthonormal"
        );
    }
}

/// A rank beyond the widths is cut to them.
#[test]
fn a_lone_core_is_no_wider_than_the_projection() {
    let config = AdapterConfig { method: Method::TtCore, rank: Some(Rank::Uniform(1000)), ..AdapterConfig::default() };
    assert_eq!(set(&config).parameters()[1].shape, [24, 24]);
}
