//! Names, edges and what cleaning does.

use fedtt_backbone::export::to_model;
use fedtt_backbone::import;
use fedtt_backbone::ir::{Attr, DType};
use fedtt_backbone::prepare::prepare;
use fedtt_runtime::prost::Message;
use fedtt_runtime::proto::type_proto::Value as TypeValue;
use fedtt_runtime::proto::*;
use fedtt_runtime::{Engine, SessionOptions, TractEngine};
use ndarray::Array2;

use crate::build::*;

fn x_to_y(nodes: Vec<NodeProto>, constants: Vec<TensorProto>) -> ModelProto {
    model(17, graph(nodes, constants, vec![value("x", DType::F32, &[2, 3])], vec![value("y", DType::F32, &[-1, -1])]))
}

#[test]
fn nodes_are_sorted() {
    let nodes = vec![
        node("Neg", &["b"], &["y"], vec![]),
        node("Abs", &["a"], &["b"], vec![]),
        node("Relu", &["x"], &["a"], vec![]),
    ];
    assert_eq!(ops(&import(&x_to_y(nodes, vec![])).unwrap()), ["Relu", "Abs", "Neg"]);
}

#[test]
fn what_is_no_graph_is_refused() {
    let cycle = vec![node("Add", &["x", "y"], &["a"], vec![]), node("Neg", &["a"], &["y"], vec![])];
    assert!(refusal(&x_to_y(cycle, vec![])).contains("cycle"));
    let itself = vec![node("Neg", &["y"], &["y"], vec![])];
    assert!(refusal(&x_to_y(itself, vec![])).contains("cycle"));
    let twice = vec![node("Neg", &["x"], &["y"], vec![]), node("Abs", &["x"], &["y"], vec![])];
    assert!(refusal(&x_to_y(twice, vec![])).contains("`y` is made twice"));
    let unknown = vec![node("Neg", &["nothing"], &["y"], vec![])];
    assert!(refusal(&x_to_y(unknown, vec![])).contains("`nothing`"));
    assert!(refusal(&x_to_y(vec![], vec![])).contains("`y`"));
    let constants = vec![floats_tensor("y", &[1], &[1.0]), floats_tensor("y", &[1], &[1.0])];
    assert!(refusal(&x_to_y(vec![], constants)).contains("two constants named `y`"));
    let attrs = vec![int("axis", 0), int("axis", 1)];
    assert!(refusal(&x_to_y(vec![node("Softmax", &["x"], &["y"], attrs)], vec![])).contains("two attributes `axis`"));
}

#[test]
fn what_has_no_place_is_refused_by_name() {
    let plain = || x_to_y(vec![node("Neg", &["x"], &["y"], vec![])], vec![]);
    let mut training = plain();
    training.training_info.push(TrainingInfoProto::default());
    assert!(refusal(&training).contains("training"));
    let mut sparse = plain();
    let values = Some(floats_tensor("holes", &[1], &[1.0]));
    sparse
        .graph
        .as_mut()
        .unwrap()
        .sparse_initializer
        .push(SparseTensorProto { values, ..SparseTensorProto::default() });
    assert!(refusal(&sparse).contains("`holes`: is sparse"));
    let mut sequence = plain();
    sequence.graph.as_mut().unwrap().input[0].r#type = Some(TypeProto::default());
    assert!(refusal(&sequence).contains("`x`: is a sequence"));
    let mut untyped = plain();
    untyped.graph.as_mut().unwrap().input[0].r#type = None;
    assert!(refusal(&untyped).contains("`x`"));
    let mut strings = plain();
    if let Some(TypeValue::TensorType(t)) =
        strings.graph.as_mut().unwrap().input[0].r#type.as_mut().unwrap().value.as_mut()
    {
        t.elem_type = 8;
    }
    assert!(refusal(&strings).contains("strings"));
    let list = AttributeProto { name: "parts".into(), r#type: 9, ..AttributeProto::default() };
    assert!(refusal(&x_to_y(vec![node("Neg", &["x"], &["y"], vec![list])], vec![])).contains("`parts`"));
    let mut empty = plain();
    empty.graph.as_mut().unwrap().output.clear();
    assert!(refusal(&empty).contains("no outputs"));
    assert!(refusal(&ModelProto { graph: None, ..plain() }).contains("no graph"));
}

#[test]
fn identities_go_but_outputs_keep_their_names() {
    let nodes = vec![
        node("Identity", &["x"], &["a"], vec![]),
        node("Dropout", &["a"], &["b"], vec![]),
        node("Neg", &["b"], &["c"], vec![]),
        node("Identity", &["c"], &["y"], vec![]),
        node("Abs", &["x"], &["dead"], vec![]),
    ];
    let graph = import(&x_to_y(nodes, vec![floats_tensor("unused", &[1], &[1.0])])).unwrap();
    assert_eq!(ops(&graph), ["Neg", "Identity"]);
    assert_eq!(graph.nodes[0].inputs, ["x"]);
    assert_eq!(graph.outputs[0].name, "y");
    assert!(graph.weights.is_empty());
}

#[test]
fn casts_that_change_nothing_go_and_cast_like_says_its_type() {
    let nodes = vec![
        node("Cast", &["x"], &["a"], vec![int("to", 1)]),
        node("CastLike", &["a", "half"], &["b"], vec![]),
        node("CastLike", &["b", "x"], &["c"], vec![]),
        node("Neg", &["c"], &["y"], vec![]),
    ];
    let half = TensorProto { name: "half".into(), data_type: 10, int32_data: vec![0], ..TensorProto::default() };
    let graph = import(&x_to_y(nodes, vec![half])).unwrap();
    assert_eq!(ops(&graph), ["Cast", "Cast", "Neg"]);
    let types: Vec<_> = graph.nodes.iter().filter_map(|n| n.int("to")).collect();
    assert_eq!(types, [10, 1]);
    assert_eq!(graph.nodes[0].inputs, ["x"]);
}

fn run(graph: &fedtt_backbone::ir::Graph) -> Vec<f32> {
    let mut session = TractEngine::new(1).load(&to_model(graph, None).unwrap(), &SessionOptions::default()).unwrap();
    let x = Array2::from_shape_fn((2, 3), |(i, j)| (i * 3 + j) as f32).into_dyn();
    session.run(&[("x", &x.into())], &["y"]).unwrap()[0].as_f32().unwrap().iter().copied().collect()
}

/// W [2,3] read by `MatMul(x, W^T)`.
fn transposed_product(others: Vec<NodeProto>) -> ModelProto {
    let mut nodes = vec![node("Transpose", &["w"], &["t"], vec![ints("perm", &[1, 0])])];
    nodes.extend(others);
    x_to_y(nodes, vec![floats_tensor("w", &[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, 2.0])])
}

#[test]
fn a_constant_only_read_transposed_is_stored_transposed() {
    let graph = import(&transposed_product(vec![node("MatMul", &["x", "t"], &["y"], vec![])])).unwrap();
    assert_eq!(ops(&graph), ["MatMul"]);
    assert_eq!(graph.weights.len(), 1);
    let weight = &graph.weights[graph.nodes[0].input(1).unwrap()];
    assert_eq!(weight.shape, [3, 2]);
    assert_eq!(weight.to_f32s().unwrap(), [1.0, 0.0, 0.0, 1.0, 0.0, 2.0]);
    assert_eq!(run(&graph), [0.0, 5.0, 3.0, 14.0]);
}

#[test]
fn a_constant_read_both_ways_is_held_once() {
    let others = vec![
        node("MatMul", &["x", "t"], &["p"], vec![]),
        node("Constant", &[], &["row"], vec![int("value_int", 1)]),
        node("Gather", &["w", "row"], &["g"], vec![]),
        node("ReduceSum", &["g"], &["s"], vec![int("keepdims", 0)]),
        node("Add", &["p", "s"], &["y"], vec![]),
    ];
    let graph = import(&transposed_product(others)).unwrap();
    assert!(!ops(&graph).contains(&"Transpose") && !ops(&graph).contains(&"MatMul"));
    let gemm = graph.nodes.iter().find(|n| n.op == "Gemm").unwrap();
    assert_eq!((gemm.input(1), gemm.int("transB")), (Some("w"), Some(1)));
    assert_eq!(graph.weights.values().filter(|w| w.dtype == DType::F32).count(), 1);
    assert_eq!(run(&graph), [3.0, 8.0, 6.0, 17.0]);
}

#[test]
fn a_transposed_constant_that_is_returned_stays() {
    let mut model = transposed_product(vec![node("MatMul", &["x", "t"], &["y"], vec![])]);
    model.graph.as_mut().unwrap().output.push(value("t", DType::F32, &[3, 2]));
    assert_eq!(ops(&import(&model).unwrap()), ["Transpose", "MatMul"]);
}

/// `y = If(c) { -t } else { w }` with t = |x| and w captured.
fn conditional() -> ModelProto {
    let branch =
        |node: NodeProto, name: &str| graph(vec![node], vec![], vec![], vec![value(name, DType::F32, &[2, 3])]);
    let attrs = vec![
        graph_attr("then_branch", branch(node("Neg", &["t"], &["r"], vec![]), "r")),
        graph_attr("else_branch", branch(node("Identity", &["w"], &["r"], vec![]), "r")),
    ];
    let nodes = vec![
        node("Identity", &["x"], &["i"], vec![]),
        node("Abs", &["i"], &["a"], vec![]),
        node("Identity", &["a"], &["t"], vec![]),
        node("If", &["c"], &["y"], attrs),
    ];
    let mut model = x_to_y(nodes, vec![floats_tensor("w", &[2, 3], &[7.0; 6])]);
    model.graph.as_mut().unwrap().input.push(value("c", DType::Bool, &[]));
    model
}

#[test]
fn branches_keep_what_they_capture() {
    let graph = import(&conditional()).unwrap();
    assert_eq!(ops(&graph), ["Abs", "If"]);
    assert!(graph.weights.contains_key("w"));
    let Attr::Graph(then) = &graph.nodes[1].attrs["then_branch"] else { panic!() };
    assert_eq!(then.nodes[0].inputs, ["a"]);
    let again = import::from_bytes(&to_model(&graph, None).unwrap().bytes, "m.onnx".as_ref()).unwrap();
    assert_eq!(format!("{graph:?}"), format!("{again:?}"));
}

/// `y = If(c) { t = x; t + t } else { t = -x; |t| }`: one name in both branches.
#[test]
fn sibling_branches_may_use_the_same_names() {
    let branch = |first: &str, second: NodeProto| {
        let nodes = vec![node(first, &["x"], &["t"], vec![]), second];
        graph(nodes, vec![], vec![], vec![value("r", DType::F32, &[2, 3])])
    };
    let attrs = vec![
        graph_attr("else_branch", branch("Identity", node("Add", &["t", "t"], &["r"], vec![]))),
        graph_attr("then_branch", branch("Neg", node("Abs", &["t"], &["r"], vec![]))),
    ];
    let mut model = x_to_y(vec![node("If", &["c"], &["y"], attrs)], vec![]);
    model.graph.as_mut().unwrap().input.push(value("c", DType::Bool, &[]));
    let imported = import(&model).unwrap();
    let inner = |name: &str| {
        let Attr::Graph(graph) = &imported.nodes[0].attrs[name] else { panic!() };
        graph.nodes.iter().map(|n| (n.op.as_str(), n.inputs.clone())).collect::<Vec<_>>()
    };
    assert_eq!(inner("else_branch"), [("Add", vec!["x".to_string(), "x".to_string()])]);
    assert_eq!(inner("then_branch"), [("Neg", vec!["x".to_string()]), ("Abs", vec!["t".to_string()])]);
}

/// `y = If(rows of x == 2) { x^T W } else { x W }`: what is inlined is cleaned like the rest.
#[test]
fn a_branch_that_is_always_taken_is_no_branch() {
    let product = |name: &str, nodes: Vec<NodeProto>| {
        graph_attr(name, graph(nodes, vec![], vec![], vec![value("r", DType::F32, &[-1, -1])]))
    };
    let attrs = vec![
        product(
            "then_branch",
            vec![
                node("Identity", &["x"], &["i"], vec![]),
                node("Transpose", &["w"], &["t"], vec![ints("perm", &[1, 0])]),
                node("MatMul", &["i", "t"], &["r"], vec![]),
            ],
        ),
        product("else_branch", vec![node("Neg", &["x"], &["r"], vec![])]),
    ];
    let nodes = vec![
        node("Shape", &["x"], &["shape"], vec![]),
        node("Gather", &["shape", "zero"], &["rows"], vec![]),
        node("Equal", &["rows", "two"], &["c"], vec![]),
        node("If", &["c"], &["p"], attrs),
        node("Abs", &["p"], &["y"], vec![]),
    ];
    let constants = vec![
        ints_tensor("zero", &[], &[0]),
        ints_tensor("two", &[], &[2]),
        floats_tensor("w", &[2, 3], &[1.0, 0.0, 0.0, 0.0, 1.0, -2.0]),
    ];
    let graph = import(&x_to_y(nodes, constants)).unwrap();
    assert_eq!(ops(&graph), ["MatMul", "Abs"]);
    assert_eq!(run(&graph), [0.0, 3.0, 3.0, 6.0]);
}

#[test]
fn branches_may_leave_types_to_the_engine() {
    let mut model = conditional();
    for attribute in &mut model.graph.as_mut().unwrap().node[3].attribute {
        attribute.g.as_mut().unwrap().output[0].r#type = None;
    }
    let written = to_model(&import(&model).unwrap(), None).unwrap();
    let written = ModelProto::decode(&written.bytes[..]).unwrap().graph.unwrap();
    let branches = written.node[1].attribute.iter().map(|a| a.g.as_ref().unwrap());
    assert!(branches.flat_map(|g| &g.output).all(|o| o.r#type.is_none()));
    assert!(written.output[0].r#type.is_some());
}

#[test]
fn a_branch_may_not_hide_an_outer_value() {
    let mut model = conditional();
    let attribute = &mut model.graph.as_mut().unwrap().node[3].attribute[0];
    let branch = attribute.g.as_mut().unwrap();
    branch.node[0].output[0] = "a".into();
    branch.output[0].name = "a".into();
    assert!(refusal(&model).contains("`a` is made twice"));
}

#[test]
fn deep_nesting_is_refused() {
    let mut inner =
        graph(vec![node("Neg", &["x"], &["r0"], vec![])], vec![], vec![], vec![value("r0", DType::F32, &[])]);
    for depth in 1..30 {
        let name = format!("r{depth}");
        let nodes = vec![node("If", &["c"], &[&name], vec![graph_attr("then_branch", inner)])];
        inner = graph(nodes, vec![], vec![], vec![value(&name, DType::F32, &[])]);
    }
    let nodes = vec![node("If", &["c"], &["y"], vec![graph_attr("then_branch", inner)])];
    assert!(refusal(&x_to_y(nodes, vec![])).contains("deep"));
}

#[test]
fn where_no_sites_are_found_unknown_operators_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let prepared = |operator: NodeProto| {
        let nodes = vec![
            node("MatMul", &["x", "w"], &["a"], vec![]),
            operator,
            node("Det", &["w"], &["constant"], vec![]),
            node("Add", &["b", "constant"], &["y"], vec![]),
        ];
        let model = x_to_y(nodes, vec![floats_tensor("w", &[3, 3], &[1.0; 9])]);
        std::fs::write(&path, model.encode_to_vec()).unwrap();
        prepare(&path, None).map(|_| ()).unwrap_err().to_string()
    };
    let known = prepared(node("Neg", &["a"], &["b"], vec![]));
    assert!(known.contains("no adapter site") && !known.contains("Det"), "{known}");
    let unknown = prepared(node("MaxUnpool", &["w", "a"], &["b"], vec![]));
    assert!(unknown.contains("no adapter site") && unknown.contains("MaxUnpool"), "{unknown}");
    let fused = NodeProto { domain: "com.microsoft".into(), ..node("BiasSoftmax", &["w", "a"], &["b"], vec![]) };
    let fused = prepared(fused);
    assert!(fused.contains("com.microsoft::BiasSoftmax") && fused.contains("without fusion"), "{fused}");
}
