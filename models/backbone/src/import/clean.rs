//! Takes out what an exporter left over: identities and dead code.

use std::collections::{HashMap, HashSet};

use super::ImportError;
use super::transpose::fold_transposes;
use crate::ir::{Attr, Graph, Node, Weight};

/// Cleans `graph` and its subgraphs.
pub(super) fn clean(graph: &mut Graph) -> Result<(), ImportError> {
    drop_identities(graph, &mut HashMap::new());
    fold_transposes(graph)?;
    prune(graph);
    Ok(())
}

fn prune(graph: &mut Graph) {
    graph.prune();
    for inner in subgraphs(graph) {
        prune(inner);
    }
    // Values that only dead code in a subgraph read.
    graph.prune();
}

fn subgraphs(graph: &mut Graph) -> impl Iterator<Item = &mut Graph> {
    graph.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()).filter_map(|attr| match attr {
        Attr::Graph(inner) => Some(inner.as_mut()),
        _ => None,
    })
}

/// Whether `node` returns its input as it is when the model is not being trained.
fn is_identity(node: &Node, graph: &Graph) -> bool {
    let trains = |name: &str| graph.weights.get(name).and_then(Weight::to_i64s) != Some(vec![0]);
    let single = node.domain.is_empty() && node.output(1).is_none();
    match node.op.as_str() {
        "Identity" => single,
        "Dropout" => single && !node.input(2).is_some_and(trains),
        _ => false,
    }
}

/// `renamed` maps dropped values of the graphs around this one to the values that replace them, and does again on return:
/// another branch may use the same names.
fn drop_identities(graph: &mut Graph, renamed: &mut HashMap<String, String>) {
    let outputs: HashSet<String> = graph.outputs.iter().map(|p| p.name.clone()).collect();
    let mut dropped = Vec::new();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            if let Some(actual) = renamed.get(input) {
                *input = actual.clone();
            }
        }
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                drop_identities(inner, renamed);
            }
        }
        match (node.input(0), node.output(0)) {
            (Some(from), Some(to)) if is_identity(&node, graph) && !outputs.contains(to) => {
                renamed.insert(to.to_string(), from.to_string());
                dropped.push(to.to_string());
            }
            _ => kept.push(node),
        }
    }
    graph.nodes = kept;
    for port in &mut graph.outputs {
        if let Some(actual) = renamed.get(&port.name) {
            port.name = actual.clone();
        }
    }
    for name in &dropped {
        renamed.remove(name);
    }
}
