//! Chains of element-wise operators and reductions along the last axis made into one operator each, for engines that run
//! row programs ([`fedtt_runtime::rows`]).
//!
//! Every node that a program could hold starts as a group of its own. A group takes in the group that makes one of its inputs
//! if their values have the same rows, unless something between the two would then have to run both before and after them.
//! Groups of more than one node become programs.

mod groups;
mod shape;
mod translate;

use std::collections::{HashMap, HashSet};

use fedtt_runtime::rows::{DOMAIN, OPERATOR, PROGRAM};

use crate::ir::{Attr, DType, Graph, Node};
use crate::shape::Facts;

use groups::Groups;
use shape::rows_of;
use translate::Translation;

#[cfg(test)]
mod tests;

/// Fuses within the nodes that make the values `early` and within all others, never across: what only the backward pass needs
/// stays there.
pub(crate) fn fuse(graph: &mut Graph, facts: &Facts, early: &HashSet<String>) {
    let consumers = graph.consumers();
    let rows = graph.nodes.iter().map(|node| rows_of(node, graph, facts, &consumers)).collect();
    let is_early: Vec<bool> =
        graph.nodes.iter().map(|node| node.outputs.iter().any(|output| early.contains(output))).collect();
    let mut groups = Groups::new(graph, &consumers, rows);
    (0..graph.nodes.len()).for_each(|node| groups.take_in_makers(node, &is_early));
    let order = groups.order();
    let returned: HashSet<&str> = graph.outputs.iter().map(|port| port.name.as_str()).collect();
    let fused = order.iter().flat_map(|members| made_of(graph, facts, members, &consumers, &returned)).collect();
    graph.nodes = fused;
    graph.prune();
}

/// The nodes that take the place of a group.
fn made_of(
    graph: &Graph,
    facts: &Facts,
    members: &[usize],
    consumers: &HashMap<&str, Vec<usize>>,
    returned: &HashSet<&str>,
) -> Vec<Node> {
    let nodes: Vec<&Node> = members.iter().map(|&i| &graph.nodes[i]).collect();
    let is_read_outside = |value: &str| {
        returned.contains(value)
            || consumers.get(value).is_some_and(|readers| readers.iter().any(|i| !members.contains(i)))
    };
    let plain = || nodes.iter().map(|&node| node.clone()).collect();
    if nodes.len() == 1 {
        return plain();
    }
    let mut translation = Translation::new(graph);
    for node in &nodes {
        if translation.add(node).is_none() {
            return plain();
        }
    }
    let made = nodes.iter().flat_map(|node| &node.outputs).filter(|output| !output.is_empty());
    let outputs: Vec<String> = made.filter(|output| is_read_outside(output)).cloned().collect();
    let Some((inputs, program)) = translation.finish(&outputs) else { return plain() };
    // Truth values do not cross a program's border.
    if inputs.iter().chain(&outputs).any(|value| facts.dtype(value) != Some(DType::F32)) {
        return plain();
    }
    vec![Node {
        name: nodes.last().map(|node| node.label().to_string()).unwrap_or_default(),
        op: OPERATOR.into(),
        domain: DOMAIN.into(),
        inputs,
        outputs,
        attrs: [(PROGRAM.to_string(), Attr::Str(program.to_string()))].into(),
    }]
}
