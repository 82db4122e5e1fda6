//! Nodes replaced by what they are known to make.

use std::collections::{HashMap, HashSet};

use super::Facts;
use crate::ir::{Attr, DType, Graph, Node, Weight};

/// Replaces nodes whose outputs are integers (or booleans) known from `facts` by weights, and each `If` whose condition
/// is known by the branch taken; then drops what nothing reads any more.
///
/// What the graph computes stays the same for all sizes the facts hold for: for every batch and length if they are
/// [`Facts::of_graph`]'s, for one if numbers were put for the symbols. Graph outputs keep the nodes that make them.
pub fn fold_constants(graph: &mut Graph, facts: &Facts) {
    let outputs: HashSet<String> = graph.outputs.iter().map(|port| port.name.clone()).collect();
    let mut taken: HashSet<String> = graph.weights.keys().cloned().collect();
    taken.extend(graph.inputs.iter().map(|port| port.name.clone()));
    taken.extend(graph.nodes.iter().flat_map(|node| node.outputs.iter().cloned()));
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for node in std::mem::take(&mut graph.nodes) {
        let returned = node.outputs.iter().any(|output| outputs.contains(output));
        match known_outputs(&node, facts) {
            Some(weights) if !returned => graph.weights.extend(weights),
            _ => match taken_branch(&node, facts) {
                Some(branch) => inline(branch, &node, graph, &mut kept, &mut taken),
                None => kept.push(node),
            },
        }
    }
    graph.nodes = kept;
    graph.prune();
}

/// The outputs as weights, if every element of each is a known integer.
fn known_outputs(node: &Node, facts: &Facts) -> Option<Vec<(String, Weight)>> {
    let outputs = node.outputs.iter().filter(|output| !output.is_empty());
    let weight = |name: &String| Some((name.clone(), known_weight(name, facts)?));
    let weights: Vec<_> = outputs.map(weight).collect::<Option<_>>()?;
    (!weights.is_empty()).then_some(weights)
}

fn known_weight(name: &str, facts: &Facts) -> Option<Weight> {
    let shape = facts.shape_at(name, &HashMap::new())?;
    let values = facts.ints(name)?;
    if shape.iter().try_fold(1usize, |len, &size| len.checked_mul(size))? != values.len() {
        return None;
    }
    match facts.dtype(name)? {
        DType::I64 => Some(Weight::i64s(&shape, &values)),
        DType::I32 => {
            let narrow = values.iter().map(|&v| i32::try_from(v).map(i32::to_le_bytes)).collect::<Result<Vec<_>, _>>();
            Some(Weight::raw(DType::I32, &shape, narrow.ok()?.concat()))
        }
        DType::Bool => Some(Weight::raw(DType::Bool, &shape, values.iter().map(|&v| u8::from(v != 0)).collect())),
        _ => None,
    }
}

/// The branch an `If` takes, if its condition is known.
fn taken_branch<'a>(node: &'a Node, facts: &Facts) -> Option<&'a Graph> {
    if !node.is("If") {
        return None;
    }
    let condition = *facts.ints(node.input(0)?)?.first()?;
    match node.attrs.get(if condition != 0 { "then_branch" } else { "else_branch" }) {
        Some(Attr::Graph(branch)) if branch.outputs.len() >= node.outputs.len() => Some(branch),
        _ => None,
    }
}

/// Puts a branch's nodes and weights in the place of the `If`, under names no other value has.
fn inline(branch: &Graph, node: &Node, graph: &mut Graph, nodes: &mut Vec<Node>, taken: &mut HashSet<String>) {
    let mut names: HashMap<String, String> = HashMap::new();
    let own = branch.weights.keys().chain(branch.nodes.iter().flat_map(|inner| &inner.outputs));
    for name in own.filter(|name| !name.is_empty()) {
        let mut unique = name.clone();
        while !taken.insert(unique.clone()) {
            unique.push('~');
        }
        names.insert(name.clone(), unique);
    }
    let renamed = |name: &String| names.get(name).unwrap_or(name).clone();
    graph.weights.extend(branch.weights.iter().map(|(name, weight)| (renamed(name), weight.clone())));
    for inner in &branch.nodes {
        let mut inner = inner.clone();
        inner.outputs = inner.outputs.iter().map(renamed).collect();
        rename_reads(&mut inner, &names);
        nodes.push(inner);
    }
    for (port, output) in branch.outputs.iter().zip(&node.outputs).filter(|(_, output)| !output.is_empty()) {
        nodes.push(Node {
            op: "Identity".to_string(),
            inputs: vec![renamed(&port.name)],
            outputs: vec![output.clone()],
            ..Node::default()
        });
    }
}

/// Makes a node and the subgraphs in it read values by their new names.
fn rename_reads(node: &mut Node, names: &HashMap<String, String>) {
    let rename = |name: &mut String| {
        if let Some(new) = names.get(name) {
            *name = new.clone();
        }
    };
    node.inputs.iter_mut().for_each(rename);
    for attr in node.attrs.values_mut() {
        if let Attr::Graph(inner) = attr {
            let mut visible = names.clone();
            let own = inner.weights.keys().chain(inner.nodes.iter().flat_map(|node| &node.outputs));
            own.for_each(|name| {
                visible.remove(name);
            });
            inner.nodes.iter_mut().for_each(|node| rename_reads(node, &visible));
            inner.outputs.iter_mut().for_each(|port| {
                if let Some(new) = visible.get(&port.name) {
                    port.name = new.clone();
                }
            });
        }
    }
}
