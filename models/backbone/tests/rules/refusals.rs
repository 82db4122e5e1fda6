//! What cannot be differentiated is refused by name, and only where a gradient must pass.

use fedtt_backbone::ir::{Attr, Builder, DType, Graph, Node, Port, PortDim};
use fedtt_backbone::shape::Facts;
use fedtt_backbone::vjp::{VjpError, check, differentiate};

fn builder() -> Builder {
    let shape = Some(vec![PortDim::Symbol("b".into()), PortDim::Known(4)]);
    let input = |name: &str| Port { name: name.into(), dtype: DType::F32, shape: shape.clone() };
    let graph = Graph { inputs: vec![input("x"), input("R")], ..Graph::default() };
    let facts = Facts::of_graph(&graph);
    Builder::new(graph, facts)
}

fn foreign(b: &mut Builder, domain: &str, op: &str, inputs: &[&str]) -> String {
    let output = b.fresh(op);
    b.push_node(Node {
        name: format!("/layer/{op}"),
        op: op.into(),
        domain: domain.into(),
        inputs: inputs.iter().map(|s| s.to_string()).collect(),
        outputs: vec![output.clone()],
        ..Node::default()
    });
    output
}

fn refused(b: &mut Builder, y: &str) -> VjpError {
    let wrt = ["x".to_string()];
    let found = check(&b.graph, &b.facts, &[y.to_string()], &wrt).unwrap_err();
    let same = differentiate(b, &[(y.to_string(), "R".to_string())], &wrt).unwrap_err();
    assert_eq!(found.to_string(), same.to_string());
    found
}

#[test]
fn fused_operators_are_refused_by_name() {
    for (domain, op) in [
        ("com.microsoft", "Attention"),
        ("com.microsoft", "SkipLayerNormalization"),
        ("com.microsoft", "BiasGelu"),
        ("com.microsoft", "GroupQueryAttention"),
        ("com.microsoft", "FusedMatMul"),
        ("", "SimplifiedLayerNormalization"),
    ] {
        let mut b = builder();
        let y = foreign(&mut b, domain, op, &["x"]);
        let error = refused(&mut b, &y);
        assert!(error.op.ends_with(op) && error.node == format!("/layer/{op}"), "{error}");
        assert!(error.message.contains("without fusion"), "{error}");
    }
}

#[test]
fn quantised_activations_are_refused_through_their_integers() {
    let mut b = builder();
    let outputs: Vec<String> = ["quantised", "scale", "zero"].iter().map(|s| s.to_string()).collect();
    b.push_node(Node {
        op: "DynamicQuantizeLinear".into(),
        inputs: vec!["x".into()],
        outputs: outputs.clone(),
        ..Node::default()
    });
    let product = foreign(&mut b, "", "MatMulInteger", &[&outputs[0], "w"]);
    let y = b.op("Cast", &[&product], &[("to", Attr::Int(1))]);
    let error = refused(&mut b, &y);
    assert_eq!(error.op, "DynamicQuantizeLinear");
    assert!(error.message.contains("MatMulInteger") && error.message.contains("weight-only"), "{error}");
}

#[test]
fn control_flow_and_unknown_operators_are_refused() {
    let mut b = builder();
    let y = foreign(&mut b, "", "Loop", &["", "", "x"]);
    assert!(refused(&mut b, &y).message.contains("control flow"));
    let mut b = builder();
    let y = foreign(&mut b, "", "MaxPool", &["x", "w"]);
    assert!(refused(&mut b, &y).message.contains("no rule"));
    let mut b = builder();
    let y = foreign(&mut b, "my.domain", "Magic", &["x"]);
    assert_eq!(refused(&mut b, &y).op, "my.domain::Magic");
}

#[test]
fn operators_off_the_path_are_left_alone() {
    let mut b = builder();
    let below = foreign(&mut b, "com.microsoft", "EmbedLayerNormalization", &["ids"]);
    let known = b.facts.get("x").cloned().unwrap();
    b.facts.set(&below, known);
    let shape = b.op("Shape", &["x"], &[]);
    let size = foreign(&mut b, "my.domain", "Stretch", &[&shape]);
    let sum = b.op("Add", &["x", &below], &[]);
    let y = b.op("Tanh", &[&sum], &[]);
    let _ = foreign(&mut b, "com.microsoft", "Attention", &[&y, &size]);
    let wrt = ["x".to_string()];
    let gradients = differentiate(&mut b, &[(y, "R".to_string())], &wrt).unwrap();
    assert!(gradients.contains_key("x"));
}

#[test]
fn the_backward_pass_stops_at_the_lowest_wanted_value() {
    let mut b = builder();
    let below = b.op("Exp", &["x"], &[]);
    let middle = b.op("Tanh", &[&below], &[]);
    let y = b.op("Sigmoid", &[&middle], &[]);
    let nodes = b.graph.nodes.len();
    let gradients = differentiate(&mut b, &[(y, "R".to_string())], std::slice::from_ref(&middle)).unwrap();
    assert!(gradients.contains_key(&middle));
    let reads_below = |node: &Node| node.inputs.contains(&below) || node.inputs.contains(&"x".to_string());
    assert!(!b.graph.nodes[nodes..].iter().any(reads_below));
}

#[test]
fn values_no_seed_depends_on_have_no_gradient() {
    let mut b = builder();
    let y = b.op("Tanh", &["x"], &[]);
    let sign = b.op("Sign", &["x"], &[]);
    let wrt = ["x".to_string()];
    assert!(differentiate(&mut b, &[(sign, "R".to_string())], &wrt).unwrap().is_empty());
    assert_eq!(differentiate(&mut b, &[(y, "R".to_string())], &wrt).unwrap().len(), 1);
}

#[test]
fn frozen_weights_are_read_as_they_are_and_equal_nodes_are_shared() {
    let mut b = builder();
    let w = b.constant("w", fedtt_backbone::ir::Weight::f32s(&[4, 4], &[0.1; 16]));
    let p = b.op("MatMul", &["x", &w], &[]);
    let q = b.op("MatMul", &["x", &w], &[]);
    let y = b.op("Mul", &[&p, &q], &[]);
    let nodes = b.graph.nodes.len();
    differentiate(&mut b, &[(y, "R".to_string())], &["x".to_string()]).unwrap();
    let added = &b.graph.nodes[nodes..];
    assert!(!added.iter().any(|node| node.op == "Transpose"));
    assert!(added.iter().filter(|node| node.inputs.contains(&w)).all(|node| node.is("Gemm")));
}
