//! AdamW against a reference written out, clipping, masks and resuming.

use fedtt_tt::optim::{Decay, Group, Optimiser, OptimiserConfig, OptimiserState, Rule, Schedule};
use ndarray::{ArrayD, IxDyn};
use rand::Rng;

use crate::support::{random_tensor, rng};

fn group(name: &str, shape: &[usize]) -> Group {
    Group { name: name.into(), shape: shape.to_vec(), decay: true, rate: 1.0, rule: Rule::AdamW }
}

fn vector(values: &[f32]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(IxDyn(&[values.len()]), values.to_vec()).unwrap()
}

fn step(
    optimiser: &mut Optimiser,
    values: &mut [ArrayD<f32>],
    gradients: &[ArrayD<f32>],
    mask: &[bool],
) -> fedtt_tt::optim::StepReport {
    let mut views: Vec<_> = values.iter_mut().map(|v| v.view_mut()).collect();
    optimiser.step(&mut views, gradients, mask).unwrap()
}

/// Three steps on one value, worked by hand for lr 0.1, betas 0.9 and 0.99, decay 0.5, no epsilon to speak of:
/// m and v start at 0, gradients are 1, 2, -1.
#[test]
fn three_steps_by_hand() {
    let config = OptimiserConfig {
        learning_rate: 0.1,
        beta2: 0.99,
        epsilon: 1e-12,
        weight_decay: 0.5,
        clip_norm: None,
        ..OptimiserConfig::default()
    };
    let mut optimiser = Optimiser::new(config, vec![group("w", &[1])]).unwrap();
    let mut values = [vector(&[1.0])];
    // 1: m = .1, v = .01; both corrections give 1: 1 * .95 - .1
    // 2: m = .29, v = .0499; m^ = .29/.19 = 1.526316, v^ = .0499/.0199 = 2.507538: .85 * .95 - .1 * 1.526316 / 1.583521
    // 3: m = .161, v = .059401; m^ = .161/.271 = .594096, v^ = .059401/.029701 = 1.999966
    let expected = [0.85, 0.711_112_4, 0.633_547_6];
    for (gradient, expected) in [1.0, 2.0, -1.0].into_iter().zip(expected) {
        let report = step(&mut optimiser, &mut values, &[vector(&[gradient])], &[true]);
        assert_eq!(report.learning_rate, 0.1);
        assert!((values[0][0] - expected).abs() < 1e-6, "{} against {expected}", values[0][0]);
    }
}

/// The textbook form in f64 over many steps, with schedule, clipping, decay and rates per group.
#[test]
fn follows_the_textbook_in_f64() {
    let schedule = Schedule { warmup_steps: 3, decay: Decay::Cosine, total_steps: Some(20), floor: 0.1 };
    let config = OptimiserConfig { weight_decay: 0.01, schedule, ..OptimiserConfig::default() };
    let groups = vec![group("a", &[2, 3]), Group { decay: false, rate: 0.5, ..group("b", &[4]) }];
    let mut optimiser = Optimiser::new(config, groups).unwrap();
    let rng = &mut rng(3);
    let mut values = vec![random_tensor::<f32>(&[2, 3], rng), random_tensor::<f32>(&[4], rng)];
    let mut reference: Vec<Vec<f64>> = values.iter().map(|v| v.iter().map(|&x| f64::from(x)).collect()).collect();
    let (mut first, mut second) = ([[0.0f64; 6]; 2], [[0.0f64; 6]; 2]);
    for t in 1..=20 {
        let gradients: Vec<ArrayD<f32>> = values.iter().map(|v| random_tensor::<f32>(v.shape(), rng)).collect();
        let norm = gradients.iter().flatten().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let clip = (1.0 / norm).min(1.0);
        let progress = (f64::from(t) - 4.0) / 17.0;
        let factor =
            if t <= 3 { f64::from(t) / 3.0 } else { 0.1 + 0.9 * 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()) };
        for (g, (decay, rate)) in [(0.01, 1.0), (0.0, 0.5)].into_iter().enumerate() {
            let rate = 5e-3 * factor * rate;
            for (i, &gradient) in gradients[g].iter().enumerate() {
                let gradient = f64::from(gradient) * clip;
                first[g][i] = 0.9 * first[g][i] + 0.1 * gradient;
                second[g][i] = 0.999 * second[g][i] + 0.001 * gradient * gradient;
                let corrected = second[g][i] / (1.0 - 0.999f64.powi(t));
                let update = first[g][i] / (1.0 - 0.9f64.powi(t)) / (corrected.sqrt() + 1e-8);
                reference[g][i] -= rate * decay * reference[g][i];
                reference[g][i] -= rate * update;
            }
        }
        let report = step(&mut optimiser, &mut values, &gradients, &[true, true]);
        assert_eq!(report.clipped, norm > 1.0);
        assert!((f64::from(report.gradient_norm) - norm).abs() < 1e-5);
    }
    for (value, expected) in values.iter().flatten().zip(reference.iter().flatten()) {
        assert!((f64::from(*value) - expected).abs() < 1e-5, "{value} against {expected}");
    }
}

#[test]
fn clipping_scales_to_the_limit() {
    let config = OptimiserConfig { clip_norm: Some(1.0), beta1: 0.0, ..OptimiserConfig::default() };
    let mut optimiser =
        Optimiser::new(config, vec![group("a", &[1]), group("b", &[1]), group("masked", &[1])]).unwrap();
    let mut values = [vector(&[0.0]), vector(&[0.0]), vector(&[0.0])];
    let gradients = [vector(&[3.0]), vector(&[4.0]), vector(&[1e6])];
    let report = step(&mut optimiser, &mut values, &gradients, &[true, true, false]);
    assert_eq!((report.gradient_norm, report.clipped), (5.0, true));
    assert!((optimiser.state().first[0][0] - 0.6).abs() < 1e-6);
    assert!((optimiser.state().first[1][0] - 0.8).abs() < 1e-6);
}

#[test]
fn masked_tensors_keep_value_moments_and_bias_correction() {
    let mut optimiser = Optimiser::new(OptimiserConfig::default(), vec![group("a", &[2]), group("b", &[2])]).unwrap();
    let mut values = [vector(&[1.0, 2.0]), vector(&[1.0, 2.0])];
    let gradients = [vector(&[0.1, -0.1]), vector(&[0.1, -0.1])];
    for _ in 0..4 {
        step(&mut optimiser, &mut values, &gradients, &[true, false]);
    }
    assert_eq!(values[1], vector(&[1.0, 2.0]));
    assert_eq!(optimiser.state().updates, [4, 0]);
    assert_eq!(optimiser.state().step, 4);
    let mut alone = Optimiser::new(OptimiserConfig::default(), vec![group("b", &[2])]).unwrap();
    let mut expected = [vector(&[1.0, 2.0])];
    step(&mut alone, &mut expected, &gradients[1..], &[true]);
    step(&mut optimiser, &mut values, &gradients, &[false, true]);
    assert_eq!(values[1], expected[0]);
}

#[test]
fn resumes_exactly_from_a_serialised_state() {
    let schedule = Schedule { warmup_steps: 2, decay: Decay::Linear, total_steps: Some(12), floor: 0.0 };
    let config = OptimiserConfig { weight_decay: 0.1, schedule, ..OptimiserConfig::default() };
    let groups = vec![group("a", &[3, 2]), group("b", &[5])];
    let rng = &mut rng(5);
    let gradients: Vec<Vec<ArrayD<f32>>> =
        (0..12).map(|_| vec![random_tensor(&[3, 2], rng), random_tensor(&[5], rng)]).collect();
    let masks: Vec<[bool; 2]> = (0..12).map(|_| [rng.random(), true]).collect();
    let start = vec![random_tensor::<f32>(&[3, 2], rng), random_tensor::<f32>(&[5], rng)];

    let mut whole = Optimiser::new(config.clone(), groups.clone()).unwrap();
    let mut expected = start.clone();
    for t in 0..12 {
        step(&mut whole, &mut expected, &gradients[t], &masks[t]);
    }

    let mut before = Optimiser::new(config.clone(), groups.clone()).unwrap();
    let mut values = start;
    for t in 0..7 {
        step(&mut before, &mut values, &gradients[t], &masks[t]);
    }
    let saved = serde_json::to_string(before.state()).unwrap();
    let state: OptimiserState = serde_json::from_str(&saved).unwrap();
    assert_eq!(&state, before.state());
    let mut after = Optimiser::new(config, groups).unwrap();
    after.restore(state).unwrap();
    for t in 7..12 {
        step(&mut after, &mut values, &gradients[t], &masks[t]);
    }
    assert_eq!(values, expected);
    assert_eq!(after.state(), whole.state());
}

#[test]
fn the_layout_of_values_and_gradients_does_not_matter() {
    let rng = &mut rng(6);
    let (value, gradient) = (random_tensor::<f32>(&[3, 4], rng), random_tensor::<f32>(&[3, 4], rng));
    let transposed = |a: &ArrayD<f32>| a.t().as_standard_layout().into_owned();
    let mut rows = Optimiser::new(OptimiserConfig::default(), vec![group("a", &[3, 4])]).unwrap();
    let mut columns = rows.clone();
    let mut by_rows = [value.clone()];
    step(&mut rows, &mut by_rows, std::slice::from_ref(&gradient), &[true]);
    let mut by_columns = transposed(&value);
    let gradient = transposed(&gradient).reversed_axes();
    columns.step(&mut [by_columns.view_mut().reversed_axes()], &[gradient], &[true]).unwrap();
    assert_eq!(by_columns, transposed(&by_rows[0]));
    assert_eq!(rows.state(), columns.state());
}

#[test]
fn bad_input_changes_nothing_and_is_named() {
    let mut optimiser = Optimiser::new(OptimiserConfig::default(), vec![group("a", &[1]), group("b", &[1])]).unwrap();
    let mut values = [vector(&[1.0]), vector(&[1.0])];
    let mut views: Vec<_> = values.iter_mut().map(|v| v.view_mut()).collect();
    let bad = [vector(&[1.0]), vector(&[f32::NAN])];
    let message = optimiser.step(&mut views, &bad, &[true, true]).unwrap_err().to_string();
    assert!(message.contains("gradient of b"), "{message}");
    assert!(optimiser.step(&mut views, &bad[..1], &[true, true]).is_err());
    assert!(optimiser.step(&mut views, &[vector(&[1.0]), vector(&[1.0, 2.0])], &[true, true]).is_err());
    assert_eq!(optimiser.state().step, 0);
    assert_eq!(values, [vector(&[1.0]), vector(&[1.0])]);
    let other = Optimiser::new(OptimiserConfig::default(), vec![group("a", &[2]), group("b", &[1])]).unwrap();
    assert!(optimiser.restore(other.state().clone()).is_err());
    let invalid = OptimiserConfig { beta1: 1.0, ..OptimiserConfig::default() };
    assert!(Optimiser::new(invalid, Vec::new()).unwrap_err().to_string().contains("beta1"));
}

/// Muon's steps have one size whatever the gradients', follow their common direction, and leave what is masked alone.
#[test]
fn muon_moves_matrices_by_the_rate_whatever_the_gradients_size() {
    let config = OptimiserConfig { learning_rate: 0.1, clip_norm: None, ..OptimiserConfig::default() };
    let matrix = |name: &str| Group { rule: Rule::Muon, ..group(name, &[2, 3, 6]) };
    let mut optimiser = Optimiser::new(config, vec![matrix("small"), matrix("large"), matrix("masked")]).unwrap();
    let gradient = random_tensor::<f32>(&[2, 3, 6], &mut rng(5));
    let mut values =
        [ArrayD::zeros(IxDyn(&[2, 3, 6])), ArrayD::zeros(IxDyn(&[2, 3, 6])), ArrayD::zeros(IxDyn(&[2, 3, 6]))];
    let gradients = [&gradient * 1e-3, &gradient * 1e3, gradient.clone()];
    step(&mut optimiser, &mut values, &gradients, &[true, true, false]);
    assert!((&values[0] - &values[1]).iter().all(|x| x.abs() < 1e-4), "by direction alone");
    let size = (values[0].iter().map(|x| x * x).sum::<f32>() / 36.0).sqrt();
    assert!((0.07..0.12).contains(&size), "the root mean square of a step is about the rate: {size}");
    assert!((&values[0] * &gradient).sum() < 0.0, "downhill");
    assert!(values[2].iter().all(|&x| x == 0.0));
    assert!(optimiser.state().second.iter().flatten().all(|&x| x == 0.0), "it has no second moment");

    // The same state, values and gradients make the same step.
    let mut resumed =
        Optimiser::new(optimiser.config().clone(), vec![matrix("small"), matrix("large"), matrix("masked")]).unwrap();
    resumed.restore(optimiser.state().clone()).unwrap();
    let mut copies = values.clone();
    step(&mut optimiser, &mut values, &gradients, &[true; 3]);
    step(&mut resumed, &mut copies, &gradients, &[true; 3]);
    assert_eq!(values, copies);
}
