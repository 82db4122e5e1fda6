//! Branches that are always taken.

use std::collections::HashMap;

use super::{Fact, Facts};
use crate::ir::{Attr, Graph, Node};

/// Puts the branch taken in the place of each `If` whose condition is known, whatever the batch and length.
///
/// Values of the branch keep their names, unless another value has the same.
pub fn inline_known_branches(graph: &mut Graph) {
    if !graph.nodes.iter().any(|node| node.is("If")) {
        return;
    }
    let mut facts = Facts::of_given(graph, &HashMap::new());
    let mut names = HashMap::new();
    count_names(graph, &mut names);
    let mut pending = std::mem::take(&mut graph.nodes);
    pending.reverse();
    while let Some(mut node) = pending.pop() {
        let Some(mut branch) = taken_branch(&mut node, &facts) else {
            facts.infer_node(&node);
            graph.nodes.push(node);
            continue;
        };
        make_unique(&mut branch, &mut names);
        for (name, weight) in std::mem::take(&mut branch.weights) {
            facts.set(&name, Fact::of_weight(&weight));
            graph.weights.insert(name, weight);
        }
        let outputs = branch.outputs.into_iter().zip(node.outputs).filter(|(_, output)| !output.is_empty());
        let results = outputs.map(|(port, output)| Node {
            op: "Identity".into(),
            inputs: vec![port.name],
            outputs: vec![output],
            ..Node::default()
        });
        pending.extend(results.collect::<Vec<_>>().into_iter().rev());
        pending.extend(branch.nodes.into_iter().rev());
    }
}

/// The branch that an `If` takes, if its condition is known.
fn taken_branch(node: &mut Node, facts: &Facts) -> Option<Graph> {
    if !node.is("If") {
        return None;
    }
    let condition = *facts.ints(node.input(0)?)?.first()?;
    let name = if condition != 0 { "then_branch" } else { "else_branch" };
    match node.attrs.get(name) {
        Some(Attr::Graph(branch)) if branch.outputs.len() >= node.outputs.len() => {}
        _ => return None,
    }
    match node.attrs.remove(name) {
        Some(Attr::Graph(branch)) => Some(*branch),
        _ => None,
    }
}

/// How many graphs, `graph` and those within it, have a value of each name.
fn count_names(graph: &Graph, counts: &mut HashMap<String, usize>) {
    let inputs = graph.inputs.iter().map(|port| &port.name);
    for name in inputs.chain(own_names(graph)) {
        *counts.entry(name.clone()).or_default() += 1;
    }
    for attr in graph.nodes.iter().flat_map(|node| node.attrs.values()) {
        if let Attr::Graph(inner) = attr {
            count_names(inner, counts);
        }
    }
}

fn own_names(graph: &Graph) -> impl Iterator<Item = &String> {
    let made = graph.nodes.iter().flat_map(|node| &node.outputs).filter(|name| !name.is_empty());
    graph.weights.keys().chain(made)
}

/// Renames the values of `branch` of which `names` counts more than this one.
fn make_unique(branch: &mut Graph, names: &mut HashMap<String, usize>) {
    let mut renamed = HashMap::new();
    for name in own_names(branch) {
        if names.get(name) == Some(&1) {
            continue;
        }
        let mut unique = format!("{name}~");
        while names.contains_key(&unique) {
            unique.push('~');
        }
        names.insert(unique.clone(), 1);
        renamed.insert(name.clone(), unique);
    }
    if !renamed.is_empty() {
        rename(branch, &renamed);
    }
}

/// Renames values in `graph` and wherever the graphs within it read them.
fn rename(graph: &mut Graph, names: &HashMap<String, String>) {
    let rename_one = |name: &mut String| {
        if let Some(new) = names.get(name) {
            name.clone_from(new);
        }
    };
    let weights = std::mem::take(&mut graph.weights).into_iter();
    graph.weights = weights.map(|(name, weight)| (names.get(&name).unwrap_or(&name).clone(), weight)).collect();
    graph.outputs.iter_mut().for_each(|port| rename_one(&mut port.name));
    for node in &mut graph.nodes {
        node.inputs.iter_mut().chain(&mut node.outputs).for_each(rename_one);
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                rename(inner, names);
            }
        }
    }
}
