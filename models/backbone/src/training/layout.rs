//! One session for training and evaluation: the backward pass inside `If(train)`.

use std::collections::{BTreeMap, HashSet};

use crate::ir::{Attr, DType, Graph, Node, Port, PortDim, Weight};

/// The boolean scalar input that switches the backward pass on.
pub const TRAIN: &str = "train";

/// What the values `forward` need, alone.
pub(super) fn forward_pass(graph: &Graph, forward: &[String]) -> Graph {
    let mut alone = graph.clone();
    alone.outputs.retain(|port| forward.contains(&port.name));
    alone.prune();
    alone
}

/// The values that the nodes of `graph` make.
pub(super) fn made(graph: &Graph) -> impl Iterator<Item = &str> {
    graph.nodes.iter().flat_map(|node| node.outputs.iter().map(String::as_str)).filter(|name| !name.is_empty())
}

/// The nodes that the values `forward` need, and those that they do not.
pub(super) fn passes<'a>(graph: &'a Graph, forward: &[String]) -> (Vec<&'a Node>, Vec<&'a Node>) {
    let alone = forward_pass(graph, forward);
    let early: HashSet<&str> = made(&alone).collect();
    graph.nodes.iter().partition(|node| node.outputs.iter().any(|output| early.contains(output.as_str())))
}

/// Moves every node that only `gradients` need into the then-branch of an `If` on [`TRAIN`].
pub(super) fn conditional(graph: &Graph, forward: &[String], gradients: &[String]) -> Graph {
    let (forward_nodes, backward_nodes) = passes(graph, forward);
    let [forward_nodes, backward_nodes] = [forward_nodes, backward_nodes].map(|n| n.into_iter().cloned().collect());
    let mut outer = graph.clone();
    outer.outputs.retain(|port| forward.contains(&port.name));

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
