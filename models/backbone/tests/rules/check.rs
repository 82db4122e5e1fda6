//! Builds a case's graph, differentiates it, runs it, and compares with central differences.

use std::collections::HashMap;

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::{Builder, DType, Graph, Port, PortDim};
use fedtt_backbone::shape::Facts;
use fedtt_backbone::vjp::differentiate;
use fedtt_runtime::{Engine, SessionOptions, Tensor};
use ndarray::ArrayD;

/// What the graph says of its inputs' dimensions, from most to least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Knowledge {
    /// Numbers.
    Known,
    /// Names; equal extents have equal names.
    Symbols,
    /// Nothing but the rank.
    Unknown,
}

/// Where a case's inputs lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Range {
    /// Between -1.5 and 1.5, away from 0.
    Signed,
    /// Between 0.4 and 2.
    Positive,
}

/// An operator applied to float inputs.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) inputs: Vec<Vec<usize>>,
    pub(crate) range: Range,
    /// The least knowledge of shapes under which the rule works.
    pub(crate) least: Knowledge,
    /// Builds the function of the inputs `x0`, `x1`, ... and returns its result.
    pub(crate) build: fn(&mut Builder) -> String,
}

fn port(name: &str, shape: &[usize], knowledge: Knowledge) -> Port {
    let dim = |&d: &usize| match (knowledge, d) {
        (Knowledge::Known, _) | (Knowledge::Symbols, 1) => PortDim::Known(d),
        (Knowledge::Symbols, _) => PortDim::Symbol(format!("d{d}")),
        (Knowledge::Unknown, _) => PortDim::Unknown,
    };
    Port { name: name.to_string(), dtype: DType::F32, shape: Some(shape.iter().map(dim).collect()) }
}

/// The case's graph and the name of its result.
pub(crate) fn forward(case: &Case, knowledge: Knowledge) -> (Graph, String) {
    let inputs = case.inputs.iter().enumerate();
    let graph = Graph {
        name: case.name.to_string(),
        inputs: inputs.map(|(i, shape)| port(&format!("x{i}"), shape, knowledge)).collect(),
        ..Graph::default()
    };
    let facts = Facts::of_graph(&graph);
    let mut b = Builder::new(graph, facts);
    let y = (case.build)(&mut b);
    b.graph.outputs.push(Port { name: y.clone(), dtype: DType::F32, shape: None });
    (b.graph, y)
}

/// Distinct numbers in a scrambled order, the i-th tensor's between those of the others.
fn values(i: usize, shape: &[usize], range: Range) -> ArrayD<f32> {
    let n: usize = shape.iter().product();
    let step =
        (1..=n).rev().find(|s| (*s == 1 || !n.is_multiple_of(*s)) && *s * 3 < n * 2 && gcd(*s, n) == 1).unwrap_or(1);
    let value = |k: usize| {
        let at = ((k * step) % n) as f32 / n as f32 + 0.37 * i as f32 / n as f32;
        match range {
            Range::Signed => {
                let v = 2.8 * at - 1.4;
                if v.abs() < 0.06 { v + 0.11 } else { v }
            }
            Range::Positive => 0.4 + 1.6 * at,
        }
    };
    ArrayD::from_shape_vec(shape.to_vec(), (0..n).map(value).collect()).unwrap()
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn weighted_sum(y: &Tensor, r: &ArrayD<f32>) -> f64 {
    let y = y.as_f32().unwrap();
    y.iter().zip(r).map(|(&y, &r)| f64::from(y) * f64::from(r)).sum()
}

/// Compares the derived gradients of `sum(y * R)` with central differences of order 4.
pub(crate) fn check(case: &Case, knowledge: Knowledge, engine: &dyn Engine) -> Result<(), String> {
    const STEP: f32 = 0.01;
    const TOLERANCE: f64 = 1e-3;
    let options = SessionOptions { threads: 1, low_memory: true };
    let (graph, y) = forward(case, knowledge);
    let names: Vec<String> = graph.inputs.iter().map(|p| p.name.clone()).collect();
    let mut inputs: Vec<Tensor> =
        case.inputs.iter().enumerate().map(|(i, shape)| values(i, shape, case.range).into()).collect();

    let model = to_model(&graph, None).map_err(|e| e.to_string())?;
    let mut plain = engine.load(&model, &options).map_err(|e| format!("forward: {e}"))?;
    let mut evaluate = |inputs: &[Tensor]| {
        let feeds: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(inputs).collect();
        plain.run(&feeds, &[&y]).map_err(|e| format!("forward: {e}")).map(|mut out| out.remove(0))
    };
    let at_inputs = evaluate(&inputs)?;
    let r = values(5, at_inputs.shape(), Range::Signed);

    let (derived, gradients) = backward(&graph, &y, at_inputs.shape(), knowledge, &names)?;
    let model = to_model(&derived, None).map_err(|e| e.to_string())?;
    let mut session = engine.load(&model, &options).map_err(|e| format!("backward: {e}"))?;
    let seed = Tensor::from(r.clone());
    let mut feeds: Vec<(&str, &Tensor)> = names.iter().map(String::as_str).zip(&inputs).collect();
    feeds.push(("R", &seed));
    let outputs: Vec<&str> = names.iter().map(|name| gradients[name].as_str()).collect();
    let derived = session.run(&feeds, &outputs).map_err(|e| format!("backward: {e}"))?;

    for (i, name) in names.iter().enumerate() {
        let gradient = derived[i].as_f32().ok_or("a gradient is not of floats")?.clone();
        if gradient.shape() != case.inputs[i] {
            return Err(format!("the gradient of {name} has shape {:?}", gradient.shape()));
        }
        let largest = gradient.iter().fold(1.0, |m: f64, g| m.max(f64::from(g.abs())));
        for (k, &found) in gradient.iter().enumerate() {
            let mut slope = 0.0;
            for (shift, weight) in [(-2.0, 1.0), (-1.0, -8.0), (1.0, 8.0), (2.0, -1.0)] {
                let original = inputs[i].clone();
                let mut shifted = original.as_f32().unwrap().clone();
                *shifted.iter_mut().nth(k).unwrap() += shift * STEP;
                inputs[i] = shifted.into();
                slope += weight * weighted_sum(&evaluate(&inputs)?, &r) / (12.0 * f64::from(STEP));
                inputs[i] = original;
            }
            let error = (slope - f64::from(found)).abs();
            if error.is_nan() || error > TOLERANCE * largest {
                return Err(format!("d {name}[{k}] is {found}, should be {slope}"));
            }
        }
    }
    Ok(())
}

/// The graph with its backward pass seeded by an input `R`, and the gradients' names.
fn backward(
    graph: &Graph,
    y: &str,
    shape: &[usize],
    knowledge: Knowledge,
    names: &[String],
) -> Result<(Graph, HashMap<String, String>), String> {
    let mut graph = graph.clone();
    graph.inputs.push(port("R", shape, knowledge));
    graph.outputs.clear();
    let facts = Facts::of_graph(&graph);
    let mut b = Builder::new(graph, facts);
    let gradients = differentiate(&mut b, &[(y.to_string(), "R".to_string())], names).map_err(|e| e.to_string())?;
    for name in names {
        let gradient = gradients.get(name).ok_or_else(|| format!("no gradient of {name}"))?;
        if b.facts.rank(gradient).is_none() {
            return Err(format!("the rank of the gradient of {name} is not inferred"));
        }
        b.graph.outputs.push(Port { name: gradient.clone(), dtype: DType::F32, shape: None });
    }
    b.graph.prune();
    Ok((b.graph, gradients))
}
