//! Projections whose output is added to the residual stream.

use std::collections::HashSet;

use super::View;
use crate::ir::Node;

/// A projection that feeds the residual stream.
pub(super) struct Residual<'a> {
    /// The projection.
    pub(super) projection: &'a Node,
    /// Its output, bias included.
    pub(super) tensor: &'a str,
    /// The sum with the stream.
    pub(super) sum: &'a str,
    /// Whether attention lies between the stream below and this projection.
    pub(super) attends: bool,
}

/// Operators a projection's output may pass through on its way to the residual sum, as long as whatever else they
/// read is constant or comes from that output too. Norms, decomposed or not, are made of these; activations are not.
const PASSES: &[&str] = &[
    "Add",
    "Sub",
    "Mul",
    "Div",
    "Pow",
    "Sqrt",
    "Reciprocal",
    "Neg",
    "Abs",
    "Clip",
    "Max",
    "Min",
    "ReduceMean",
    "ReduceSum",
    "Cast",
    "Identity",
    "Dropout",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "LayerNormalization",
    "Where",
];

/// Finds them all, in the order the graph computes their sums.
pub(super) fn residuals<'a>(view: &View<'a>) -> Vec<Residual<'a>> {
    let mut found: Vec<Residual<'a>> = Vec::new();
    for node in view.graph.nodes.iter().filter(|node| view.is_projection(node)) {
        let Some(tensor) = view.with_bias(node) else { continue };
        if let Some(sum) = residual_sum(view, tensor) {
            found.push(Residual { projection: node, tensor, sum, attends: false });
        }
    }
    let sums: HashSet<&str> = found.iter().map(|r| r.sum).collect();
    for residual in &mut found {
        residual.attends = residual.projection.input(0).is_some_and(|x| attention_above(view, x, &sums));
    }
    found.sort_by_key(|r| (view.producers.get(r.sum), view.producers.get(r.tensor)));
    drop_projected_streams(view, &mut found);
    drop_embeddings(view, &mut found);
    found
}

/// Drops what attention alone is added to: the stream itself, projected to the width that a block of MobileBERT works at. To the
/// sum of attention and MLP of a parallel block the stream is added yet.
fn drop_projected_streams(view: &View<'_>, found: &mut Vec<Residual<'_>>) {
    let attended: HashSet<&str> = found.iter().filter(|r| r.attends).map(|r| r.sum).collect();
    let is_stream = |sum: &str| attended.contains(sum) && !view.readers(sum).any(|node| node.is("Add"));
    found.retain(|r| r.attends || !is_stream(r.sum));
}

/// Drops what is added before the first attention reads the sum: embeddings that are projected and then added to positions.
/// The MLP of a parallel block may come before its attention, which does not read its sum.
fn drop_embeddings<'a>(view: &View<'a>, found: &mut Vec<Residual<'a>>) {
    let Some(first) = found.iter().position(|r| r.attends) else { return };
    let read = found[first].projection.input(0).map(|context| view.behind(context)).unwrap_or_default();
    let mut index = 0;
    found.retain(|r| {
        index += 1;
        index > first || !read.contains(r.sum)
    });
}

/// The `Add` that joins `tensor` with the stream, if everything that reads `tensor` leads to that one.
pub(super) fn residual_sum<'a>(view: &View<'a>, tensor: &'a str) -> Option<&'a str> {
    let mut derived: HashSet<&str> = HashSet::from([tensor]);
    let mut pending: Vec<usize> = view.consumers.get(tensor)?.clone();
    let mut seen: HashSet<usize> = HashSet::new();
    let mut sum = None;
    // In index order, which is topological, so that every derived operand of a node is known when it is looked at.
    while let Some(at) = pending.iter().enumerate().min_by_key(|(_, node)| **node).map(|(at, _)| at) {
        let index = pending.swap_remove(at);
        if !seen.insert(index) {
            continue;
        }
        let node = &view.graph.nodes[index];
        if node.is("Shape") || node.is("Size") {
            continue;
        }
        if !(node.domain.is_empty() && PASSES.contains(&node.op.as_str())) {
            return None;
        }
        let foreign = node.inputs.iter().find(|value| {
            let is_data = view.facts.dtype(value).is_none_or(|t| t.is_float());
            !value.is_empty() && is_data && !derived.contains(value.as_str()) && !view.is_constant(value)
        });
        let output = node.output(0)?;
        match foreign {
            None => {
                derived.insert(output);
                pending.extend(view.consumers.get(output).into_iter().flatten());
            }
            Some(other) if node.is("Add") && view.width(other) == view.width(tensor) => {
                if sum.is_some_and(|sum| sum != output) {
                    return None;
                }
                sum = Some(output);
            }
            Some(_) => return None,
        }
    }
    sum
}

/// Whether a `Softmax` lies between `value` and the residual sums below it.
fn attention_above(view: &View<'_>, value: &str, sums: &HashSet<&str>) -> bool {
    let mut pending = vec![value];
    let mut seen = HashSet::new();
    while let Some(value) = pending.pop() {
        if sums.contains(value) || !seen.insert(value) {
            continue;
        }
        let Some(node) = view.producer(value) else { continue };
        if node.is("Softmax") {
            return true;
        }
        pending.extend(
            node.inputs.iter().map(String::as_str).filter(|v| view.facts.dtype(v).is_none_or(|t| t.is_float())),
        );
    }
    false
}
