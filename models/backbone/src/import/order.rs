//! Whether names and edges form a graph, and its nodes in an order in which values are made before they are read.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::ImportError;
use crate::ir::{Attr, Graph};

/// Checks names and sorts the nodes of `graph` and its subgraphs.
pub(super) fn check(graph: &mut Graph) -> Result<(), ImportError> {
    check_in(graph, &mut HashSet::new())
}

/// `seen` holds the names of the graphs around this one, and does again on return.
fn check_in(graph: &mut Graph, seen: &mut HashSet<String>) -> Result<(), ImportError> {
    let weights = graph.weights.keys();
    let inputs = graph.inputs.iter().map(|p| &p.name);
    let made = graph.nodes.iter().flat_map(|n| &n.outputs).filter(|name| !name.is_empty());
    let own: Vec<String> = weights.chain(inputs).chain(made).cloned().collect();
    for name in &own {
        if !seen.insert(name.clone()) {
            return Err(ImportError::graph(&graph.name, format!("`{name}` is made twice")));
        }
    }
    for node in &graph.nodes {
        if let Some(value) = node.reads().into_iter().find(|value| !seen.contains(*value)) {
            return Err(ImportError::node(node, format!("reads `{value}`, which nothing makes")));
        }
    }
    if let Some(output) = graph.outputs.iter().find(|p| !seen.contains(&p.name)) {
        return Err(ImportError::graph(&graph.name, format!("its output `{}` is made by nothing", output.name)));
    }
    sort(graph)?;
    for attr in graph.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()) {
        if let Attr::Graph(inner) = attr {
            check_in(inner, seen)?;
        }
    }
    for name in &own {
        seen.remove(name);
    }
    Ok(())
}

/// Stable: nodes already in order stay where they are.
fn sort(graph: &mut Graph) -> Result<(), ImportError> {
    let producers = graph.producers();
    let mut waiting: Vec<usize> = Vec::with_capacity(graph.nodes.len());
    let mut readers: HashMap<usize, Vec<usize>> = HashMap::new();
    for (i, node) in graph.nodes.iter().enumerate() {
        let needed: HashSet<usize> = node.reads().iter().filter_map(|v| producers.get(v).copied()).collect();
        waiting.push(needed.len());
        for producer in needed {
            readers.entry(producer).or_default().push(i);
        }
    }
    let mut ready: BTreeSet<usize> = (0..waiting.len()).filter(|&i| waiting[i] == 0).collect();
    let mut order = Vec::with_capacity(waiting.len());
    while let Some(i) = ready.pop_first() {
        order.push(i);
        for &reader in readers.get(&i).into_iter().flatten() {
            waiting[reader] -= 1;
            if waiting[reader] == 0 {
                ready.insert(reader);
            }
        }
    }
    if order.len() < waiting.len() {
        let stuck = (0..waiting.len()).find(|&i| waiting[i] > 0).map_or("?", |i| graph.nodes[i].label());
        return Err(ImportError::graph(&graph.name, format!("has a cycle through node `{stuck}`")));
    }
    let mut nodes: Vec<_> = std::mem::take(&mut graph.nodes).into_iter().map(Some).collect();
    graph.nodes = order.into_iter().filter_map(|i| nodes[i].take()).collect();
    Ok(())
}
