//! Embedding tables stored in few bits: rows are picked first and made floats after, so that no run unpacks a whole
//! table to read a few of its rows.

use std::collections::HashMap;

use crate::ir::{Attr, Graph, Node};

/// Rewrites `Gather(Cast(table))` and `Gather(DequantizeLinear(table))` over rows, where the scale is one for the whole
/// table or one per column.
pub(super) fn pick_before_unpacking(graph: &mut Graph) {
    let unpacks = |node: &Node| node.is("Cast") || node.is("DequantizeLinear");
    let unpacked: HashMap<String, Node> = graph
        .nodes
        .iter()
        .filter(|node| unpacks(node) && node.inputs.iter().all(|x| x.is_empty() || graph.weights.contains_key(x)))
        .filter_map(|node| Some((node.output(0)?.to_string(), node.clone())))
        .collect();
    let mut nodes = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        let picked = node.is("Gather") && node.int("axis").unwrap_or(0) == 0;
        let source = node.input(0).and_then(|table| unpacked.get(table)).filter(|_| picked);
        let Some(unpack) = source.and_then(|unpack| by_column(graph, unpack)) else {
            nodes.push(node);
            continue;
        };
        let (table, rows) = (unpack.inputs[0].clone(), format!("{}.packed", node.outputs[0]));
        let unpack = Node {
            name: node.name.clone(),
            inputs: [std::slice::from_ref(&rows), &unpack.inputs[1..]].concat(),
            outputs: std::mem::replace(&mut node.outputs, vec![rows]),
            ..unpack.clone()
        };
        node.inputs[0] = table;
        nodes.extend([node, unpack]);
    }
    graph.nodes = nodes;
}

/// The node as it unpacks picked rows, whose last axis is the table's; `None` if its scale goes by row or by block.
fn by_column(graph: &Graph, unpack: &Node) -> Option<Node> {
    let rank = |name: Option<&str>| name.and_then(|name| graph.weights.get(name)).map(|weight| weight.shape.len());
    let mut unpack = unpack.clone();
    if unpack.is("Cast") {
        return (rank(unpack.input(0)) >= Some(1)).then_some(unpack);
    }
    if rank(unpack.input(0)) != Some(2) || unpack.int("block_size").unwrap_or(0) != 0 {
        return None;
    }
    match (rank(unpack.input(1))?, unpack.int("axis").unwrap_or(1)) {
        (0, _) => {}
        (1, 1 | -1) => drop(unpack.attrs.insert("axis".into(), Attr::Int(-1))),
        _ => return None,
    }
    Some(unpack)
}
