//! Model-local functions.

use std::time::Instant;

use fedtt_backbone::export::to_model;
use fedtt_backbone::ir::DType;
use fedtt_runtime::proto::{FunctionProto, ModelProto, NodeProto};
use fedtt_runtime::{Engine, SessionOptions, TractEngine};
use ndarray::{ArrayD, arr1};

use crate::build::*;

fn with_functions(nodes: Vec<NodeProto>, functions: Vec<FunctionProto>) -> ModelProto {
    let graph = graph(nodes, vec![], vec![value("x", DType::F32, &[2])], vec![value("y", DType::F32, &[2])]);
    ModelProto { functions, ..model(17, graph) }
}

fn constant(attr: &str, value: f32) -> NodeProto {
    node(
        "Constant",
        &[],
        &["c"],
        vec![if value.is_nan() { reference("value_float", attr, 1) } else { float(attr, value) }],
    )
}

/// `affine(x; slope) = x * slope + 1`, which calls `scale(x; by) = x * by`.
fn affine() -> Vec<FunctionProto> {
    let scale = function(
        "scale",
        &["x"],
        &["y"],
        &["by"],
        vec![constant("by", f32::NAN), node("Mul", &["x", "c"], &["y"], vec![])],
    );
    let affine = function(
        "affine",
        &["x", "unused"],
        &["y", "spare"],
        &["slope"],
        vec![
            call("scale", &["x"], &["t"], vec![reference("by", "slope", 1)]),
            constant("value_float", 1.0),
            node("Add", &["t", "c"], &["y"], vec![]),
            node("Neg", &["y"], &["spare"], vec![]),
        ],
    );
    vec![affine, scale]
}

fn run(model: &ModelProto, x: &[f32]) -> ArrayD<f32> {
    let graph = import(model).unwrap();
    assert!(graph.nodes.iter().all(|n| n.domain.is_empty()));
    let mut session = TractEngine::new(1).load(&to_model(&graph, None).unwrap(), &SessionOptions::default()).unwrap();
    let y = session.run(&[("x", &arr1(x).into_dyn().into())], &["y"]).unwrap();
    y[0].as_f32().unwrap().clone()
}

#[test]
fn nested_calls_with_attributes_are_inlined_apart() {
    let nodes = vec![
        call("affine", &["x"], &["a"], vec![float("slope", 3.0)]),
        call("affine", &["a", ""], &["y", ""], vec![float("slope", -2.0)]),
    ];
    let y = run(&with_functions(nodes, affine()), &[1.0, 2.0]);
    assert_eq!(y, arr1(&[-7.0, -13.0]).into_dyn());
}

#[test]
fn a_function_may_return_what_it_is_given() {
    let pass = function("pass", &["a"], &["a"], &[], vec![]);
    let nodes = vec![call("pass", &["x"], &["t"], vec![]), node("Neg", &["t"], &["y"], vec![])];
    assert_eq!(run(&with_functions(nodes, vec![pass]), &[1.0, 2.0]), arr1(&[-1.0, -2.0]).into_dyn());
}

#[test]
fn a_functions_own_opset_counts() {
    let mut squeeze = function(
        "squeeze",
        &["a"],
        &["b"],
        &[],
        vec![
            node("Unsqueeze", &["a"], &["t"], vec![ints("axes", &[0])]),
            node("Squeeze", &["t"], &["b"], vec![ints("axes", &[0])]),
        ],
    );
    squeeze.opset_import[0].version = 11;
    let nodes = vec![call("squeeze", &["x"], &["y"], vec![])];
    assert_eq!(run(&with_functions(nodes, vec![squeeze]), &[1.0, 2.0]), arr1(&[1.0, 2.0]).into_dyn());
}

#[test]
fn recursion_is_refused() {
    let ping = function("ping", &["a"], &["b"], &[], vec![call("pong", &["a"], &["b"], vec![])]);
    let pong = function("pong", &["a"], &["b"], &[], vec![call("ping", &["a"], &["b"], vec![])]);
    let model = with_functions(vec![call("ping", &["x"], &["y"], vec![])], vec![ping, pong]);
    assert!(refusal(&model).contains("calls itself"));
}

#[test]
fn a_doubling_of_doublings_is_refused_soon() {
    let double = |i: usize| {
        let inner = format!("f{}", i + 1);
        function(
            &format!("f{i}"),
            &["a"],
            &["b"],
            &[],
            vec![call(&inner, &["a"], &["t"], vec![]), call(&inner, &["t"], &["b"], vec![])],
        )
    };
    let mut functions: Vec<_> = (0..22).map(double).collect();
    functions.push(function("f22", &["a"], &["b"], &[], vec![node("Neg", &["a"], &["b"], vec![])]));
    let start = Instant::now();
    let message = refusal(&with_functions(vec![call("f0", &["x"], &["y"], vec![])], functions));
    assert!(message.contains("nodes"), "{message}");
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn too_many_inputs_are_refused() {
    let model = with_functions(vec![call("scale", &["x", "x"], &["y"], vec![])], affine());
    assert!(refusal(&model).contains("more inputs"));
}
