//! Which nodes lie between the values wanted and the values seeded.

use std::collections::{BTreeSet, HashSet};

use super::call::VjpError;
use super::support::{Support, computes_quantised, support};
use crate::ir::{Graph, Node};
use crate::shape::Facts;

/// The part of a graph that gradients pass through.
pub(crate) struct Path {
    /// Indices of the nodes to differentiate, in graph order.
    pub(crate) nodes: Vec<usize>,
    carriers: HashSet<String>,
}

impl Path {
    /// Follows gradients from the `seeds` back to the `wrt` values.
    pub(crate) fn between(graph: &Graph, facts: &Facts, seeds: &[String], wrt: &[String]) -> Self {
        let mut carriers: HashSet<String> = wrt.iter().cloned().collect();
        for node in &graph.nodes {
            if matches!(support(node), Support::Stops) || !node.reads().iter().any(|r| carriers.contains(*r)) {
                continue;
            }
            let quantises = computes_quantised(node);
            let flows = |value: &&String| quantises || facts.dtype(value).is_none_or(|dtype| dtype.is_float());
            carriers.extend(node.outputs.iter().filter(|o| !o.is_empty()).filter(flows).cloned());
        }

        let mut needed: HashSet<&str> = seeds.iter().map(String::as_str).collect();
        let mut nodes = Vec::new();
        for (index, node) in graph.nodes.iter().enumerate().rev() {
            let reached = node.outputs.iter().any(|o| needed.contains(o.as_str()) && carriers.contains(o));
            let upstream: Vec<&str> = node.reads().into_iter().filter(|r| carriers.contains(*r)).collect();
            if reached && !upstream.is_empty() && !matches!(support(node), Support::Stops) {
                needed.extend(upstream);
                nodes.push(index);
            }
        }
        nodes.reverse();
        Path { nodes, carriers }
    }

    /// Whether the cotangent of `value` is needed if a node of the path reads it.
    pub(crate) fn carries_gradient(&self, value: &str) -> bool {
        self.carriers.contains(value)
    }

    /// Refuses the first node of the path whose operator has no rule, naming the others with it.
    pub(crate) fn check(&self, graph: &Graph) -> Result<(), VjpError> {
        let refusals = self.nodes.iter().filter_map(|&i| {
            let node = &graph.nodes[i];
            match support(node) {
                Support::Refused(advice) => Some((node, advice)),
                _ => None,
            }
        });
        let refusals: Vec<(&Node, &str)> = refusals.collect();
        let Some((first, advice)) = refusals.first() else { return Ok(()) };
        let name = first.op_name();
        let others: BTreeSet<String> = refusals.iter().map(|(n, _)| n.op_name()).filter(|op| *op != name).collect();
        let mut message = advice.to_string();
        if !others.is_empty() {
            let list = others.into_iter().collect::<Vec<_>>().join(", ");
            message.push_str(&format!(" (also without a rule on the path: {list})"));
        }
        Err(VjpError::at(first, message))
    }
}

/// Checks that every operator between the `wrt` values and the `seeds` has a rule, without appending anything.
///
/// # Errors
/// Names the first node whose operator has none, and what to do.
pub fn check(graph: &Graph, facts: &Facts, seeds: &[String], wrt: &[String]) -> Result<(), VjpError> {
    Path::between(graph, facts, seeds, wrt).check(graph)
}
