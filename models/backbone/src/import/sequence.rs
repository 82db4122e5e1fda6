//! Pieces of a split taken from a sequence, as slices.
//!
//! The dynamo exporter writes `chunk` and `split` as `SplitToSequence` and `SequenceAt` where its optimiser is off.

use std::collections::HashMap;

use crate::ir::{Attr, Graph, Node, Weight};

/// Rewrites each `SequenceAt(SplitToSequence(x))` of known sizes and position as a `Slice` of x.
pub(super) fn take_apart(graph: &mut Graph) {
    let splits: HashMap<String, Node> = graph
        .nodes
        .iter()
        .filter(|node| node.is("SplitToSequence"))
        .filter_map(|node| Some((node.output(0)?.to_string(), node.clone())))
        .collect();
    if splits.is_empty() {
        return;
    }
    for mut node in std::mem::take(&mut graph.nodes) {
        if let Some((x, range, axis)) = piece(&node, &splits, graph) {
            let output = node.output(0).unwrap_or_default().to_string();
            node.op = "Slice".into();
            node.inputs = vec![x];
            for (what, value) in [("start", range.0), ("end", range.1), ("axis", axis)] {
                let name = format!("{output}~{what}");
                graph.weights.insert(name.clone(), Weight::i64s(&[1], &[value]));
                node.inputs.push(name);
            }
        }
        graph.nodes.push(node);
    }
}

/// What `node` takes from a split: the split value, start and end along the axis, the axis.
fn piece(node: &Node, splits: &HashMap<String, Node>, graph: &Graph) -> Option<(String, (i64, i64), i64)> {
    if !node.is("SequenceAt") {
        return None;
    }
    let split = splits.get(node.input(0)?)?;
    let constant = |name: &str| graph.weights.get(name).filter(|w| w.shape.len() <= 1);
    let position = usize::try_from(*constant(node.input(1)?)?.to_i64s()?.first()?).ok()?;
    let sizes = constant(split.input(1)?)?;
    let lengths = sizes.to_i64s()?;
    let range = if sizes.shape.is_empty() {
        let size = *lengths.first()?;
        let start = size.checked_mul(position as i64)?;
        (start, start.checked_add(size)?)
    } else {
        let start = lengths.get(..position)?.iter().try_fold(0i64, |sum, n| sum.checked_add(*n))?;
        (start, start.checked_add(*lengths.get(position)?)?)
    };
    let axis = match split.attrs.get("axis") {
        Some(Attr::Int(axis)) => *axis,
        _ => 0,
    };
    Some((split.input(0)?.to_string(), range, axis))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// One `SequenceAt` at `position` of a split along the last axis into `sizes`.
    fn taken(sizes: Weight, position: i64) -> Graph {
        let node = |op: &str, inputs: [&str; 2], output: &str, attrs: Vec<(String, Attr)>| Node {
            op: op.into(),
            inputs: inputs.map(str::to_string).to_vec(),
            outputs: vec![output.into()],
            attrs: attrs.into_iter().collect(),
            ..Node::default()
        };
        let mut graph = Graph {
            nodes: vec![
                node("SplitToSequence", ["x", "sizes"], "parts", vec![("axis".into(), Attr::Int(-1))]),
                node("SequenceAt", ["parts", "at"], "y", Vec::new()),
            ],
            ..Graph::default()
        };
        graph.weights.insert("sizes".into(), sizes);
        graph.weights.insert("at".into(), Weight::i64s(&[], &[position]));
        take_apart(&mut graph);
        graph
    }

    fn bounds(graph: &Graph) -> Vec<i64> {
        let slice = graph.nodes.iter().find(|n| n.is("Slice")).unwrap();
        assert_eq!(slice.inputs[0], "x");
        slice.inputs[1..].iter().flat_map(|name| graph.weights[name].to_i64s().unwrap()).collect()
    }

    #[test]
    fn equal_chunks_and_stated_lengths_become_slices() {
        assert_eq!(bounds(&taken(Weight::i64s(&[], &[64]), 1)), [64, 128, -1]);
        assert_eq!(bounds(&taken(Weight::i64s(&[3], &[8, 4, 2]), 2)), [12, 14, -1]);
    }

    #[test]
    fn a_position_beyond_the_lengths_is_left_alone() {
        assert!(taken(Weight::i64s(&[2], &[8, 4]), 2).nodes.iter().any(|n| n.is("SequenceAt")));
        assert!(taken(Weight::i64s(&[], &[64]), -1).nodes.iter().any(|n| n.is("SequenceAt")));
    }
}
