//! The server's optimisers against their formulas.

use fedtt_wire::plan::{ServerOptimiser, ServerPlan};

use super::*;

fn one() -> Vec<Parameter> {
    vec![parameter("head.out", "bias", &[1], Role::Bias)]
}

fn run(plan: &ServerPlan, changes: &[f32]) -> Vec<f64> {
    let mut state = ServerState::default();
    let step = |&x: &f32| state.apply(plan, &one(), vec![ArrayD::from_elem(IxDyn(&[1]), x)])[0][[0]];
    changes.iter().map(step).map(f64::from).collect()
}

fn server(optimiser: ServerOptimiser) -> ServerPlan {
    ServerPlan { optimiser, rate: 0.5, beta1: 0.9, beta2: 0.99, tau: 1e-2 }
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= 1e-5 * expected.abs(), "{found} {expected}");
    }
}

#[test]
fn without_an_optimiser_the_change_is_scaled() {
    assert_close(&run(&server(ServerOptimiser::None), &[1.0, -2.0]), &[0.5, -1.0]);
}

#[test]
fn momentum_gathers() {
    assert_close(&run(&server(ServerOptimiser::Momentum), &[1.0, -2.0]), &[0.5, 0.5 * (0.9 - 2.0)]);
}

#[test]
fn adam_and_yogi_differ_in_how_the_second_moment_moves() {
    let changes = [0.3, -0.2, 0.001];
    for (optimiser, second) in [
        (ServerOptimiser::Adam, (|v, s| 0.99 * v + 0.01 * s) as fn(f64, f64) -> f64),
        (ServerOptimiser::Yogi, |v, s| v - 0.01 * s * f64::signum(v - s)),
    ] {
        let (mut m, mut v) = (0.0, 1e-4);
        let expected: Vec<f64> = changes
            .iter()
            .map(|&x| {
                let x = f64::from(x);
                m = 0.9 * m + 0.1 * x;
                v = second(v, x * x);
                0.5 * m / (v.sqrt() + 1e-2)
            })
            .collect();
        assert_close(&run(&server(optimiser), &changes), &expected);
    }
}

#[test]
fn only_what_trained_moves_and_the_state_survives_storing() {
    let both = [one(), vec![parameter("head.out", "0", &[2], Role::Factor)]].concat();
    let plan = server(ServerOptimiser::Momentum);
    let change =
        |n: usize| -> Vec<ArrayD<f32>> { both[..n].iter().map(|p| ArrayD::from_elem(IxDyn(&p.shape), 1.0)).collect() };
    let mut state = ServerState::default();
    state.apply(&plan, &both, change(2));
    state.apply(&plan, &both[..1], change(1));
    let stored = serde_json::to_string(&state).unwrap();
    let mut state: ServerState = serde_json::from_str(&stored).unwrap();
    let result = state.apply(&plan, &both, change(2));
    let third = 0.5 * (1.0 + 0.9 + 0.81);
    assert!((result[0][[0]] - third).abs() < 1e-6);
    assert!((result[1][[0]] - 0.5 * 1.9).abs() < 1e-6);
}
