//! Older opsets against opset 21: the same results on an engine that knows both.

use fedtt_backbone::export::to_model;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::ModelProto;
use fedtt_runtime::{Engine, Model, SessionOptions, Tensor, TractEngine};
use ndarray::ArrayD;

use crate::build::*;

fn run(model: &Model, outputs: &[&str]) -> Vec<Tensor> {
    let x = ArrayD::from_shape_fn(vec![2, 3, 4], |i| ((i[0] * 31 + i[1] * 7 + i[2] * 3) % 11) as f32 * 0.3 - 1.0);
    let mut session = TractEngine::new(1).load(model, &SessionOptions::default()).unwrap();
    session.run(&[("x", &x.into())], outputs).unwrap()
}

/// Imports `old`, checks that both forms give the same, and returns the operators of the new one.
fn same(old: &ModelProto) -> Vec<String> {
    let graph = import(old).unwrap();
    let outputs: Vec<&str> = graph.outputs.iter().map(|p| p.name.as_str()).collect();
    let before = run(&Model { bytes: old.encode_to_vec(), weights_dir: None }, &outputs);
    let after = run(&to_model(&graph, None).unwrap(), &outputs);
    for (before, after) in before.iter().zip(&after) {
        let (before, after) = (before.as_f32().unwrap(), after.as_f32().unwrap());
        assert_eq!(before.shape(), after.shape());
        assert!(before.iter().zip(after).all(|(a, b)| (a - b).abs() < 1e-6), "{before} {after}");
    }
    ops(&graph).iter().map(|s| s.to_string()).collect()
}

#[test]
fn axes_become_inputs() {
    let reduce = |op: &str, opset| {
        single(opset, node(op, &["x"], &["y"], vec![ints("axes", &[-1]), int("keepdims", 0)]), vec![])
    };
    for (op, opset) in [("ReduceSum", 11), ("ReduceMean", 13), ("ReduceMax", 17), ("ReduceSumSquare", 14)] {
        let model = reduce(op, opset);
        same(&model);
        let graph = import(&model).unwrap();
        let node = &graph.nodes[0];
        assert!(!node.attrs.contains_key("axes"), "{op}");
        assert_eq!(graph.weights[node.input(1).unwrap()].to_i64s().unwrap(), [-1], "{op}");
        assert_eq!(node.int("keepdims"), Some(0));
    }
    assert_eq!(
        same(&single(11, node("Unsqueeze", &["x"], &["y"], vec![ints("axes", &[0, 2])]), vec![])),
        ["Unsqueeze"]
    );
    let squeeze = single(12, node("Unsqueeze", &["x"], &["t"], vec![ints("axes", &[1])]), vec![]);
    let mut squeeze = squeeze;
    let inner = squeeze.graph.as_mut().unwrap();
    inner.node.push(node("Squeeze", &["t"], &["y"], vec![ints("axes", &[1])]));
    inner.output[0].name = "y".into();
    assert_eq!(same(&squeeze), ["Unsqueeze", "Squeeze"]);
}

#[test]
fn a_reduction_over_everything_stays_one() {
    let model = single(17, node("ReduceMean", &["x"], &["y"], vec![int("keepdims", 0)]), vec![]);
    same(&model);
    assert!(import(&model).unwrap().nodes[0].input(1).is_none());
}

#[test]
fn split_says_its_sizes_or_its_number() {
    let sizes = single(11, node("Split", &["x"], &["a", "b"], vec![int("axis", 2), ints("split", &[1, 3])]), vec![]);
    same(&sizes);
    let graph = import(&sizes).unwrap();
    assert_eq!(graph.weights[graph.nodes[0].input(1).unwrap()].to_i64s().unwrap(), [1, 3]);
    assert_eq!(graph.nodes[0].int("num_outputs"), None);
    let even = single(17, node("Split", &["x"], &["a", "b"], vec![int("axis", 2)]), vec![]);
    let graph = import(&even).unwrap();
    assert_eq!(graph.nodes[0].int("num_outputs"), Some(2));
    let sized = single(
        13,
        node("Split", &["x", "s"], &["a", "b"], vec![int("axis", 2)]),
        vec![ints_tensor("s", &[2], &[3, 1])],
    );
    assert_eq!(import(&sized).unwrap().nodes[0].int("num_outputs"), None);
    same(&sized);
}

#[test]
fn old_softmax_flattens_unless_its_axis_is_the_last() {
    let softmax = |attrs| single(11, node("Softmax", &["x"], &["y"], attrs), vec![]);
    assert_eq!(same(&softmax(vec![int("axis", -1)])), ["Softmax"]);
    assert_eq!(same(&softmax(vec![])), ["Flatten", "Softmax", "Shape", "Reshape"]);
    assert_eq!(same(&softmax(vec![int("axis", 0)])), ["Flatten", "Softmax", "Shape", "Reshape"]);
    same(&softmax(vec![int("axis", 2)]));
    let new = single(13, node("Softmax", &["x"], &["y"], vec![int("axis", 1)]), vec![]);
    assert_eq!(same(&new), ["Softmax"]);
    assert_eq!(import(&new).unwrap().nodes[0].int("axis"), Some(1));
}

#[test]
fn a_resize_to_sizes_drops_its_empty_scales() {
    let constants = vec![
        floats_tensor("roi", &[0], &[]),
        floats_tensor("scales", &[0], &[]),
        ints_tensor("sizes", &[3], &[2, 3, 8]),
    ];
    let model = single(11, node("Resize", &["x", "roi", "scales", "sizes"], &["y"], vec![]), constants);
    let graph = import(&model).unwrap();
    assert_eq!(graph.nodes[0].inputs, ["x", "roi", "", "sizes"]);
    assert!(!graph.weights.contains_key("scales"));
}

#[test]
fn dropout_goes() {
    let mut model = single(11, node("Dropout", &["x"], &["t"], vec![float("ratio", 0.1)]), vec![]);
    let inner = model.graph.as_mut().unwrap();
    inner.node.push(node("Neg", &["t"], &["y"], vec![]));
    inner.output[0].name = "y".into();
    assert_eq!(same(&model), ["Neg"]);
}

#[test]
fn opsets_outside_the_range_are_refused() {
    let relu = |opset| single(opset, node("Relu", &["x"], &["y"], vec![]), vec![]);
    assert!(import(&relu(11)).is_ok() && import(&relu(26)).is_ok());
    for opset in [-1, 0, 10, 27, i64::MAX] {
        assert!(refusal(&relu(opset)).contains(&format!("opset {opset}")));
    }
    let mut none = relu(17);
    none.opset_import.clear();
    assert!(refusal(&none).contains("opset"));
}

#[test]
fn operators_with_another_meaning_are_refused_by_name() {
    let norm = single(18, node("GroupNormalization", &["x", "x", "x"], &["y"], vec![]), vec![]);
    assert!(refusal(&norm).contains("GroupNormalization"));
}
