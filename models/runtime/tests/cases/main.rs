//! One suite of cases, forward and as gradients need them, over every engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;

mod compute;
mod gradients;
mod sessions;
mod shapes;
mod weights;

use common::{Graph, engines};
use fedtt_runtime::{SessionOptions, Tensor};

/// A graph, what goes in and what must come out.
struct Case {
    name: &'static str,
    graph: Graph,
    inputs: Vec<(&'static str, Tensor)>,
    outputs: Vec<(&'static str, Tensor)>,
}

fn case(
    name: &'static str,
    graph: Graph,
    inputs: Vec<(&'static str, Tensor)>,
    outputs: Vec<(&'static str, Tensor)>,
) -> Case {
    let graph = outputs.iter().fold(graph, |graph, (name, _)| graph.output(name));
    Case { name, graph, inputs, outputs }
}

#[test]
fn every_engine_gives_the_exact_result() {
    let cases: Vec<Case> = compute::products()
        .into_iter()
        .chain(compute::normalisation())
        .chain(compute::activations())
        .chain(weights::weights())
        .collect();
    check(cases);
}

#[test]
fn every_engine_runs_what_masks_and_shapes_need() {
    let cases: Vec<Case> = shapes::shapes().into_iter().chain(shapes::indices()).chain(shapes::conditions()).collect();
    check(cases);
}

#[test]
fn every_engine_runs_what_gradients_need() {
    check(gradients::gradients());
}

fn check(cases: Vec<Case>) {
    let mut failures = Vec::new();
    for under_test in engines() {
        let engine = &under_test.engine;
        for case in &cases {
            if let Err(reason) = run(case, &**engine, under_test.tolerance) {
                failures.push(format!("{} on {}: {reason}", case.name, engine.name()));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
}

fn run(case: &Case, engine: &dyn fedtt_runtime::Engine, tolerance: f32) -> Result<(), String> {
    let model = case.graph.model();
    let inputs: Vec<(&str, &Tensor)> = case.inputs.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let names: Vec<&str> = case.outputs.iter().map(|(name, _)| *name).collect();
    for low_memory in [true, false] {
        let options = SessionOptions { low_memory, ..SessionOptions::default() };
        let mut session = engine.load(&model, &options).map_err(|e| e.to_string())?;
        let found = session.run(&inputs, &names).map_err(|e| e.to_string())?;
        for ((name, expected), found) in case.outputs.iter().zip(&found) {
            same(found, expected, tolerance).map_err(|reason| format!("{name}: {reason}"))?;
        }
    }
    Ok(())
}

/// Floats within `tolerance` of the largest entry, everything else equal.
fn same(found: &Tensor, expected: &Tensor, tolerance: f32) -> Result<(), String> {
    if found.shape() != expected.shape() {
        return Err(format!("shape {:?}, expected {:?}", found.shape(), expected.shape()));
    }
    match (found, expected) {
        (Tensor::F32(f), Tensor::F32(e)) => {
            let scale = e.iter().fold(1.0_f32, |m, x| m.max(x.abs()));
            let off = f.iter().zip(e).map(|(f, e)| if f == e { 0.0 } else { (f - e).abs() });
            let worst = off.fold(0.0, |m: f32, d| if d.is_nan() { f32::INFINITY } else { m.max(d) });
            if worst <= tolerance * scale { Ok(()) } else { Err(format!("off by {worst}: {f:?}, expected {e:?}")) }
        }
        _ if found == expected => Ok(()),
        _ => Err(format!("{found:?}, expected {expected:?}")),
    }
}

/// `a` [m, k] times `b` [k, n].
fn product(a: &[f32], b: &[f32], m: usize, k: usize, n: usize) -> Vec<f32> {
    let entry =
        |i: usize, j: usize| (0..k).map(|l| f64::from(a[i * k + l]) * f64::from(b[l * n + j])).sum::<f64>() as f32;
    (0..m * n).map(|at| entry(at / n, at % n)).collect()
}

fn transposed(a: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| a[(at % rows) * columns + at / rows]).collect()
}
