//! One session for training and evaluation: the backward pass inside `If(train)`.

use std::collections::{BTreeMap, HashSet};

use crate::ir::{Attr, DType, Graph, Node, Port, PortDim, Weight};

/// The boolean scalar input that switches the backward pass on.
pub const TRAIN: &str = "train";

/// Moves every node that only `gradients` need into the then-branch of an `If` on [`TRAIN`].
pub(super) fn conditional(graph: &Graph, forward: &[String], gradients: &[String]) -> Graph {
    let mut outer = graph.clone();
    outer.outputs.retain(|port| forward.contains(&port.name));
    let mut kept = outer.clone();
    kept.prune();
    let forward_values: HashSet<&str> = kept.nodes.iter().flat_map(|n| n.outputs.iter().map(String::as_str)).collect();
    let is_forward = |node: &Node| node.outputs.iter().any(|o| forward_values.contains(o.as_str()));
    let (forward_nodes, backward_nodes): (Vec<Node>, Vec<Node>) = graph.nodes.iter().cloned().partition(is_forward);

    let inner = |gradient: &String| Port { name: format!("{gradient}.then"), dtype: DType::F32, shape: None };
    let mut then = Graph { name: "backward".into(), nodes: backward_nodes, ..Graph::default() };
    for node in &mut then.nodes {
        for output in &mut node.outputs {
            if gradients.contains(output) {
                *output = format!("{output}.then");
            }
        }
    }
    then.outputs = gradients.iter().map(inner).collect();

    let mut otherwise = Graph { name: "evaluation".into(), ..Graph::default() };
    for gradient in gradients {
        let name = format!("{gradient}.else");
        otherwise.nodes.push(Node {
            op: "Constant".into(),
            outputs: vec![name.clone()],
            attrs: BTreeMap::from([("value".to_string(), Attr::Tensor(Weight::f32s(&[0], &[])))]),
            ..Node::default()
        });
        otherwise.outputs.push(Port { name, dtype: DType::F32, shape: None });
    }

    outer.nodes = forward_nodes;
    outer.nodes.push(Node {
        name: "backward".into(),
        op: "If".into(),
        inputs: vec![TRAIN.into()],
        outputs: gradients.to_vec(),
        attrs: BTreeMap::from([
            ("then_branch".to_string(), Attr::Graph(Box::new(then))),
            ("else_branch".to_string(), Attr::Graph(Box::new(otherwise))),
        ]),
        ..Node::default()
    });
    outer.inputs.push(Port { name: TRAIN.into(), dtype: DType::Bool, shape: Some(Vec::<PortDim>::new()) });
    outer.outputs.extend(gradients.iter().map(|name| Port { name: name.clone(), dtype: DType::F32, shape: None }));
    outer
}
