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
    assert!(message.contains("functions"), "{message}");
    assert!(start.elapsed().as_secs() < 30);
}

/// `f0(c; g)` calls `f1(c; g = {4 Ifs with g as both branches})`, which calls `f2` likewise, and so on.
fn graphs_handed_on(levels: usize) -> ModelProto {
    let choose = |output: &str| {
        let branches = ["then_branch", "else_branch"].map(|name| reference(name, "g", 5)).into();
        node("If", &["c"], &[output], branches)
    };
    let body = |level: usize| {
        if level + 1 == levels {
            return vec![choose("y")];
        }
        let nodes = ["a", "b", "c", "d"].map(choose).into();
        let wider = graph(nodes, vec![], vec![], vec![value("a", DType::F32, &[2])]);
        vec![call(&format!("f{}", level + 1), &["c"], &["y"], vec![graph_attr("g", wider)])]
    };
    let functions = (0..levels).map(|level| function(&format!("f{level}"), &["c"], &["y"], &["g"], body(level)));
    let smallest = graph(vec![node("Neg", &["x"], &["n"], vec![])], vec![], vec![], vec![value("n", DType::F32, &[2])]);
    let mut model =
        with_functions(vec![call("f0", &["flag"], &["y"], vec![graph_attr("g", smallest)])], functions.collect());
    model.graph.as_mut().unwrap().input.push(value("flag", DType::Bool, &[]));
    model
}

#[test]
fn graphs_handed_from_function_to_function_are_counted() {
    let few = import(&graphs_handed_on(1)).unwrap();
    assert_eq!(ops(&few), ["If"]);
    let start = Instant::now();
    let message = refusal(&graphs_handed_on(8));
    assert!(message.contains("functions"), "{message}");
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn all_calls_of_a_function_read_one_copy_of_its_constants() {
    let shift = function(
        "shift",
        &["a"],
        &["b"],
        &[],
        vec![
            node("Constant", &[], &["by"], vec![tensor_attr("value", floats_tensor("", &[2], &[1.0, 10.0]))]),
            node("Add", &["a", "by"], &["b"], vec![]),
        ],
    );
    let nodes = vec![
        call("shift", &["x"], &["t"], vec![]),
        call("shift", &["t"], &["u"], vec![]),
        call("shift", &["u"], &["y"], vec![]),
    ];
    let model = with_functions(nodes, vec![shift]);
    assert_eq!(import(&model).unwrap().weights.len(), 1);
    assert_eq!(run(&model, &[1.0, 2.0]), arr1(&[4.0, 32.0]).into_dyn());
}

#[test]
fn a_constant_may_be_what_a_function_returns() {
    let value = tensor_attr("value", floats_tensor("", &[2], &[1.0, 10.0]));
    let one = function("one", &[], &["b"], &[], vec![node("Constant", &[], &["b"], vec![value])]);
    let nodes = vec![
        call("one", &[], &["s"], vec![]),
        call("one", &[], &["t"], vec![]),
        node("Sum", &["x", "s", "t"], &["y"], vec![]),
    ];
    assert_eq!(run(&with_functions(nodes, vec![one]), &[1.0, 2.0]), arr1(&[3.0, 22.0]).into_dyn());
}

/// A body of one megabyte, called a thousand times; a name of one megabyte, read a thousand times.
#[test]
fn what_calls_copy_is_counted() {
    let wide = function(
        "wide",
        &["a"],
        &["b"],
        &[],
        vec![
            node("Constant", &[], &["by"], vec![floats("value_floats", &vec![1.0; 1 << 18])]),
            node("Identity", &["a"], &["b"], vec![]),
        ],
    );
    let calls = (0..1000).map(|i| call("wide", &["x"], &[&format!("t{i}")], vec![])).collect();
    assert!(refusal(&with_functions(calls, vec![wide])).contains("MiB"));
    let body = (0..1000).map(|i| node("Neg", &["a"], &[&format!("t{i}")], vec![])).collect();
    let long = "n".repeat(1 << 20);
    let nodes = vec![node("Neg", &["x"], &[&long], vec![]), call("many", &[&long], &["y"], vec![])];
    assert!(refusal(&with_functions(nodes, vec![function("many", &["a"], &["t0"], &[], body)])).contains("MiB"));
}

#[test]
fn too_many_inputs_are_refused() {
    let model = with_functions(vec![call("scale", &["x", "x"], &["y"], vec![])], affine());
    assert!(refusal(&model).contains("more inputs"));
}
