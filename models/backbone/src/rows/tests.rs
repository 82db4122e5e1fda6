#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use fedtt_runtime::{Engine, SessionOptions, Tensor, TractEngine};
use ndarray::{ArrayD, IxDyn};

use super::*;
use crate::export::to_model;
use crate::ir::{Port, PortDim, Weight};

/// A graph of `op inputs -> outputs` lines on inputs `x` [batch, sequence, 6], `y` [batch, sequence, 6], `m` [batch, 1, 6]
/// and `w` [6, 6], with some constants at hand.
fn graph(lines: &[&str], outputs: &[&str]) -> Graph {
    let node = |line: &&str| {
        let (made, outputs) = line.split_once(" -> ").unwrap();
        let mut words = made.split(' ');
        let op = words.next().unwrap();
        let attrs = match op {
            "Gelu" if made.ends_with("tanh") => BTreeMap::from([("approximate".into(), Attr::Str("tanh".into()))]),
            "LayerNormalization" => BTreeMap::from([("epsilon".into(), Attr::Float(1e-3))]),
            _ => BTreeMap::new(),
        };
        Node {
            op: op.into(),
            inputs: words.filter(|word| *word != "tanh").map(str::to_string).collect(),
            outputs: outputs.split(' ').map(str::to_string).collect(),
            attrs,
            ..Node::default()
        }
    };
    let symbol = |name: &str| PortDim::Symbol(name.into());
    let port = |name: &str, dims: Vec<PortDim>| Port { name: name.into(), dtype: DType::F32, shape: Some(dims) };
    let wide = || vec![symbol("batch"), symbol("sequence"), PortDim::Known(6)];
    let constants = [
        ("half", Weight::f32s(&[], &[0.5])),
        ("two", Weight::f32s(&[1], &[2.0])),
        ("three", Weight::f32s(&[], &[3.0])),
        ("gain", Weight::f32s(&[6], &[1.0, -0.5, 2.0, 0.3, 0.7, 1.5])),
        ("last", Weight::i64s(&[1], &[-1])),
        ("first", Weight::i64s(&[1], &[0])),
    ];
    Graph {
        nodes: lines.iter().map(node).collect(),
        weights: constants.into_iter().map(|(name, weight)| (name.to_string(), weight)).collect(),
        inputs: vec![
            port("x", wide()),
            port("y", wide()),
            port("m", vec![symbol("batch"), PortDim::Known(1), PortDim::Known(6)]),
            port("w", vec![PortDim::Known(6), PortDim::Known(6)]),
        ],
        outputs: outputs.iter().map(|name| Port { name: name.to_string(), dtype: DType::F32, shape: None }).collect(),
        ..Graph::default()
    }
}

fn fused(graph: &Graph, early: &[&str]) -> Graph {
    let mut graph = graph.clone();
    let facts = Facts::of_graph(&graph);
    fuse(&mut graph, &facts, &early.iter().map(|value| value.to_string()).collect());
    graph
}

fn operators(graph: &Graph) -> Vec<&str> {
    graph.nodes.iter().map(|node| node.op.as_str()).collect()
}

fn run(graph: &Graph) -> Vec<ArrayD<f32>> {
    let mut session = TractEngine::new(1).load(&to_model(graph, None).unwrap(), &SessionOptions::default()).unwrap();
    let filled = |shape: &[usize], seed: usize| {
        let mut i = seed;
        let mut next = || {
            i += 1;
            ((i * 7919) % 97) as f32 / 30.0 - 1.6
        };
        Tensor::F32(ArrayD::from_shape_simple_fn(IxDyn(shape), &mut next))
    };
    let feeds = [
        ("x", filled(&[2, 5, 6], 1)),
        ("y", filled(&[2, 5, 6], 2)),
        ("m", filled(&[2, 1, 6], 3)),
        ("w", filled(&[6, 6], 4)),
    ];
    let read = |name: &str| graph.nodes.iter().any(|node| node.reads().contains(&name));
    let feeds: Vec<(&str, &Tensor)> = feeds.iter().filter(|(name, _)| read(name)).map(|(name, t)| (*name, t)).collect();
    let outputs: Vec<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    session.run(&feeds, &outputs).unwrap().iter().map(|tensor| tensor.as_f32().unwrap().clone()).collect()
}

/// Fuses `graph` to the operators named, which have to give what it gives.
fn check(graph: &Graph, early: &[&str], expected: &[&str]) {
    let programs = fused(graph, early);
    assert_eq!(operators(&programs), expected, "{:#?}", programs.nodes);
    let facts = [graph, &programs].map(Facts::of_graph);
    for ((plain, program), port) in run(graph).iter().zip(run(&programs)).zip(&graph.outputs) {
        let off = (plain - &program).mapv(f32::abs).fold(0.0_f32, |a, &b| a.max(b));
        assert!(off < 2e-6, "{}: off by {off}", port.name);
        assert_eq!(facts[0].shape(&port.name), facts[1].shape(&port.name), "{}", port.name);
    }
}

#[test]
fn every_operator_is_what_it_was() {
    for op in
        ["Neg", "Abs", "Exp", "Erf", "Relu", "Sigmoid", "Sign", "Tanh", "Gelu", "HardSigmoid", "Softmax", "Reciprocal"]
    {
        check(&graph(&["Add x y -> s", &format!("{op} s -> z")], &["z"]), &[], &["Rows"]);
    }
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min"] {
        for other in ["y", "m", "gain", "half"] {
            check(&graph(&["Neg x -> s", &format!("{op} s {other} -> z")], &["z"]), &[], &["Rows"]);
            check(&graph(&["Neg x -> s", &format!("{op} {other} s -> z")], &["z"]), &[], &["Rows"]);
        }
    }
    for op in ["ReduceSum", "ReduceMean", "ReduceMax"] {
        check(&graph(&["Mul x y -> s", &format!("{op} s last -> z"), "Sub s z -> u"], &["z", "u"]), &[], &["Rows"]);
    }
    check(&graph(&["Add x m -> s", "Pow s two -> p", "Pow s three -> q", "Sub p q -> z"], &["z"]), &[], &["Rows"]);
    check(&graph(&["Add x m -> s", "Gelu s tanh -> z"], &["z"]), &[], &["Rows"]);
    check(&graph(&["Abs x -> s", "Sqrt s -> z"], &["z"]), &[], &["Rows"]);
}

#[test]
fn a_norm_returns_its_statistics() {
    let lines =
        ["Add x y -> s", "LayerNormalization s gain gain -> n mean scale", "Mul n scale -> z", "Sub z mean -> u"];
    check(&graph(&lines, &["s", "u", "scale"]), &[], &["Rows"]);
}

#[test]
fn a_guarded_softmax_is_one_program() {
    let lines = ["Add x m -> s", "Softmax s -> p", "IsNaN p -> b", "Where b half p -> z"];
    check(&graph(&lines, &["z"]), &[], &["Rows"]);
    // Where somebody else reads the truth value it is not a number.
    let lines = ["Add x m -> s", "IsNaN s -> b", "Where b half s -> z", "Not b -> c", "Where c half z -> u"];
    assert!(operators(&fused(&graph(&lines, &["u"]), &[])).contains(&"IsNaN"));
}

#[test]
fn what_runs_between_stays_between() {
    // The product needs `s`, and `z` the product: no program holds both.
    let lines = ["Add x y -> s", "Mul s half -> t", "MatMul t w -> p", "Add p s -> z", "Relu z -> u"];
    check(&graph(&lines, &["u"]), &[], &["Rows", "MatMul", "Rows"]);
    // Beside the product, what needs only `s` goes with it, though it comes later.
    let lines = ["Add x y -> s", "Neg s -> t", "MatMul t w -> p", "Mul s y -> a", "Exp a -> b", "Add p b -> z"];
    check(&graph(&lines, &["z"]), &[], &["Rows", "MatMul", "Add"]);
}

#[test]
fn passes_are_kept_apart() {
    let lines = ["Add x y -> s", "Relu s -> early", "Neg early -> t", "Exp t -> late"];
    let both = graph(&lines, &["early", "late"]);
    check(&both, &[], &["Rows"]);
    check(&both, &["s", "early"], &["Rows", "Rows"]);
}

#[test]
fn what_does_not_fit_is_left_alone() {
    // A sum over another axis, an operator by itself, rows of other shapes.
    let lines = ["ReduceSum x first -> a", "Neg y -> b", "Add a m -> c"];
    let plain = graph(&lines, &["b", "c"]);
    assert_eq!(operators(&fused(&plain, &[])), ["ReduceSum", "Neg", "Add"]);
}
