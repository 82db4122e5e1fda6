//! `If`.

use std::collections::BTreeSet;

use super::{Dim, Fact, Facts};
use crate::ir::{Attr, Graph, Node};

/// What both branches of an `If` agree on, or all of the taken one if the condition is known.
pub(super) fn branches(facts: &mut Facts, node: &Node) -> Option<Vec<Fact>> {
    let condition = node.input(0).and_then(|name| facts.ints(name)).and_then(|value| value.first().copied());
    let branch = |name: &str| match node.attrs.get(name) {
        Some(Attr::Graph(graph)) => Some(graph),
        _ => None,
    };
    match condition {
        Some(0) => Some(outputs(facts, branch("else_branch")?)),
        Some(_) => Some(outputs(facts, branch("then_branch")?)),
        None => {
            let taken = outputs(facts, branch("then_branch")?);
            let other = outputs(facts, branch("else_branch")?);
            let pairs = taken.into_iter().zip(other).enumerate();
            Some(pairs.map(|(i, (a, b))| join(a, b, node.output(i).unwrap_or("?"))).collect())
        }
    }
}

/// Facts of a subgraph's outputs; its own values leave no trace.
fn outputs(facts: &mut Facts, graph: &Graph) -> Vec<Fact> {
    let nodes = graph.nodes.iter().flat_map(|node| &node.outputs);
    let own: BTreeSet<&String> = graph.weights.keys().chain(nodes).filter(|name| !name.is_empty()).collect();
    let shadowed: Vec<Option<Fact>> = own.iter().map(|name| facts.facts.remove(*name)).collect();
    for (name, weight) in &graph.weights {
        facts.set(name, Fact::of_weight(weight));
    }
    for node in &graph.nodes {
        facts.infer_node(node);
    }
    let result = graph.outputs.iter().map(|port| facts.get(&port.name).cloned().unwrap_or_default()).collect();
    for (name, fact) in own.into_iter().zip(shadowed) {
        match fact {
            Some(fact) => facts.facts.insert(name.clone(), fact),
            None => facts.facts.remove(name),
        };
    }
    result
}

fn join(a: Fact, b: Fact, output: &str) -> Fact {
    let shape = a.shape.zip(b.shape).filter(|(a, b)| a.len() == b.len()).map(|(a, b)| {
        let dims = a.into_iter().zip(b).enumerate();
        dims.map(|(axis, (a, b))| if a == b { a } else { Dim::unknown(&format!("{output}.{axis}")) }).collect()
    });
    Fact {
        dtype: a.dtype.filter(|_| a.dtype == b.dtype),
        shape,
        value: a.value.filter(|value| Some(value) == b.value.as_ref()),
    }
}
