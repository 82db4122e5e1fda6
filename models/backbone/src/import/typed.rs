//! Rewrites that need to know types and ranks.

use super::opset::{FLATTENING, unflatten};
use crate::ir::{Attr, DType, Graph, Node};
use crate::shape::Facts;

/// Settles what opset 21 says by type or rank: `CastLike` becomes `Cast`, casts that change nothing become `Identity`,
/// softmaxes lose their flattening, and outputs of subgraphs get their type.
pub(super) fn resolve(graph: &mut Graph) {
    let facts = Facts::of_graph(graph);
    resolve_in(graph, &facts);
}

fn resolve_in(graph: &mut Graph, facts: &Facts) {
    let nodes = std::mem::take(&mut graph.nodes);
    for mut node in nodes {
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                resolve_in(inner, facts);
                for port in inner.outputs.iter_mut().filter(|p| p.shape.is_none()) {
                    port.dtype = facts.dtype(&port.name).unwrap_or(port.dtype);
                }
            }
        }
        if node.int(FLATTENING).is_some() {
            let rank = node.input(0).and_then(|x| facts.rank(x));
            graph.nodes.extend(unflatten(node, rank));
            continue;
        }
        if node.is("CastLike") {
            cast_like(&mut node, facts);
        }
        if node.is("Cast") && changes_nothing(&node, facts) {
            node.op = "Identity".into();
            node.attrs.clear();
        }
        graph.nodes.push(node);
    }
}

fn cast_like(node: &mut Node, facts: &Facts) {
    let Some(dtype) = node.input(1).and_then(|like| facts.dtype(like)) else { return };
    node.op = "Cast".into();
    node.inputs.truncate(1);
    node.attrs.clear();
    node.attrs.insert("to".into(), Attr::Int(dtype.onnx()));
}

fn changes_nothing(node: &Node, facts: &Facts) -> bool {
    let from = node.input(0).and_then(|x| facts.dtype(x)).map(DType::onnx);
    from.is_some() && from == node.int("to")
}
