//! Negative indices of `GatherND`, which tract does not take, counted from the front.

use crate::ir::{Graph, Node, Weight};
use crate::shape::Facts;

/// Rewrites those that are known, into dimensions that are known.
pub(super) fn from_the_front(graph: &mut Graph) {
    if !graph.nodes.iter().any(|node| node.is("GatherND")) {
        return;
    }
    let facts = Facts::of_graph(graph);
    for mut node in std::mem::take(&mut graph.nodes) {
        if let Some(indices) = counted(&node, &facts) {
            let name = format!("{}~indices", node.outputs[0]);
            node.inputs[1].clone_from(&name);
            graph.weights.insert(name, indices);
        }
        graph.nodes.push(node);
    }
}

fn counted(node: &Node, facts: &Facts) -> Option<Weight> {
    if !node.is("GatherND") || node.int("batch_dims").unwrap_or(0) != 0 {
        return None;
    }
    node.output(0)?;
    let (data, indices) = (facts.shape(node.input(0)?)?, node.input(1)?);
    let shape: Option<Vec<usize>> =
        facts.shape(indices)?.iter().map(|size| size.as_known().and_then(|size| usize::try_from(size).ok())).collect();
    let (shape, mut values) = (shape?, facts.ints(indices)?);
    let depth = shape.last().copied().filter(|&depth| depth > 0)?;
    if shape.iter().product::<usize>() != values.len() || values.iter().all(|&index| index >= 0) {
        return None;
    }
    for (i, index) in values.iter_mut().enumerate().filter(|(_, index)| **index < 0) {
        *index = index.checked_add(data.get(i % depth)?.as_known()?)?;
    }
    Some(Weight::i64s(&shape, &values))
}
