//! Operators that opset 21 lacks, as what they are made of.
//!
//! Source: their descriptions and function bodies in ONNX's `Operators.md`.

use std::collections::HashSet;

use super::ImportError;
use super::attention::attention;
use super::tensor::dtype;
use crate::ir::{Attr, Builder, DType, Graph, Node};
use crate::shape::Facts;

/// What one operator becomes. Says what is the matter where it cannot be taken apart.
type Parts = fn(&mut Builder, &Node) -> Result<(), &'static str>;

fn parts(node: &Node) -> Option<Parts> {
    let op = node.op.as_str();
    Some(match op {
        _ if !node.domain.is_empty() => return None,
        "Attention" => attention,
        "RMSNormalization" => rms_normalization,
        "RotaryEmbedding" => rotary_embedding,
        "Swish" => swish,
        _ => return None,
    })
}

/// Rewrites those that stand in `graph` itself; branches that are not taken may keep theirs.
pub(super) fn take_apart(graph: &mut Graph) -> Result<(), ImportError> {
    if graph.nodes.iter().all(|node| parts(node).is_none()) {
        return Ok(());
    }
    let before = Graph { nodes: std::mem::take(&mut graph.nodes), ..Graph::default() };
    let outputs = graph.outputs.iter().map(|port| port.name.clone());
    let read: HashSet<String> = before.nodes.iter().flat_map(Node::reads).map(str::to_string).chain(outputs).collect();
    let rest = std::mem::take(graph);
    let facts = Facts::of_graph(&rest);
    let mut b = Builder::new(rest, facts);
    b.reserve(&before);
    for mut node in before.nodes {
        let Some(take_apart) = parts(&node) else {
            b.push_node(node);
            continue;
        };
        let refuse = |node: &Node, problem: &str| ImportError::node(node, format!("{problem}: export for opset 21"));
        if node.outputs.iter().skip(1).any(|output| read.contains(output)) {
            return Err(refuse(&node, "returns more than its result, such as a key-value cache"));
        }
        node.outputs.truncate(1);
        take_apart(&mut b, &node).map_err(|problem| refuse(&node, problem))?;
    }
    *graph = b.graph;
    Ok(())
}

/// The names of a node's first `N` inputs and of its result.
pub(super) fn names<const N: usize>(node: &Node) -> Result<([&str; N], &str), &'static str> {
    let mut inputs = [""; N];
    for (i, input) in inputs.iter_mut().enumerate() {
        *input = node.input(i).ok_or("lacks an input")?;
    }
    Ok((inputs, node.output(0).ok_or("lacks its output")?))
}

/// The type that an attribute names; the type of `like` where it is not there.
pub(super) fn type_of(b: &Builder, node: &Node, attr: &str, like: &str) -> Result<DType, &'static str> {
    match node.int(attr).map(i32::try_from) {
        Some(number) => number.ok().and_then(|number| dtype("", number).ok()).ok_or("computes in a type unknown here"),
        None => b.facts.dtype(like).ok_or("computes in a type unknown here"),
    }
}

/// The last dimension of `value`.
pub(super) fn width(b: &Builder, value: &str) -> Result<i64, &'static str> {
    let last = b.facts.shape(value).and_then(|shape| shape.last()?.as_known());
    last.filter(|&width| width > 0).ok_or("reads a value whose last dimension is not known")
}

fn rms_normalization(b: &mut Builder, node: &Node) -> Result<(), &'static str> {
    let ([x, scale], y) = names(node)?;
    let rank = b.facts.rank(x).ok_or("reads a value of unknown rank")? as i64;
    let axis = node.int("axis").unwrap_or(-1);
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank).contains(&first) {
        return Err("has a wrong axis");
    }
    let made = b.facts.dtype(scale).ok_or("reads a value of unknown type")?;
    let inner = if node.int("stash_type").is_some() { type_of(b, node, "stash_type", x)? } else { DType::F32 };
    let wide = b.cast(x, inner);
    let squares = b.op("Mul", &[&wide, &wide], &[]);
    let axes: Vec<i64> = (first - rank..0).collect();
    let axes = b.ints(&axes);
    let mean = b.op("ReduceMean", &[&squares, &axes], &[("keepdims", Attr::Int(1))]);
    let epsilon = b.scalar(node.float("epsilon").unwrap_or(1e-5));
    let epsilon = b.cast(&epsilon, inner);
    let mean = b.op("Add", &[&mean, &epsilon], &[]);
    let root = b.op("Sqrt", &[&mean], &[]);
    let factor = b.op("Reciprocal", &[&root], &[]);
    let normal = b.op("Mul", &[&wide, &factor], &[]);
    let normal = b.cast(&normal, made);
    b.push("Mul", &[&normal, scale], &[y], &[]);
    Ok(())
}

/// x times the sigmoid of alpha x.
fn swish(b: &mut Builder, node: &Node) -> Result<(), &'static str> {
    let ([x], y) = names(node)?;
    let alpha = node.float("alpha").unwrap_or(1.0);
    let mut scaled = x.to_string();
    if alpha != 1.0 {
        let alpha = b.scalar_like(alpha, x);
        scaled = b.op("Mul", &[x, &alpha], &[]);
    }
    let gate = b.op("Sigmoid", &[&scaled], &[]);
    b.push("Mul", &[x, &gate], &[y], &[]);
    Ok(())
}

fn rotary_embedding(b: &mut Builder, node: &Node) -> Result<(), &'static str> {
    let ([x, cosines, sines], y) = names(node)?;
    let heads = node.int("num_heads").unwrap_or(0);
    let (value, head_axis) = match b.facts.rank(x) {
        Some(4) => (x.to_string(), 1),
        Some(3) if heads > 0 => {
            let shape = b.ints(&[0, 0, heads, -1]);
            (b.op("Reshape", &[x, &shape], &[]), 2)
        }
        _ => return Err("does not read [batch, heads, sequence, width] or, with num_heads, [batch, sequence, width]"),
    };
    let all = width(b, &value)?;
    let turned = node.int("rotary_embedding_dim").filter(|&dim| dim != 0).unwrap_or(all);
    if turned % 2 != 0 || !(2..=all).contains(&turned) {
        return Err("turns a number of channels that does not fit");
    }
    let interleaved = node.int("interleaved").unwrap_or(0) != 0;
    let table = |b: &mut Builder, table: &str| {
        let rows = node.input(3).map(|positions| b.op("Gather", &[table, positions], &[]));
        let axes = b.ints(&[head_axis]);
        b.op("Unsqueeze", &[rows.as_deref().unwrap_or(table), &axes], &[])
    };
    let (cosines, sines) = (table(b, cosines), table(b, sines));
    let slice = |b: &mut Builder, start: i64, end: i64, step: i64| {
        let [start, end, axis, step] = [start, end, -1, step].map(|number| b.ints(&[number]));
        b.op("Slice", &[&value, &start, &end, &axis, &step], &[])
    };
    let (first, second) = if interleaved {
        (slice(b, 0, turned, 2), slice(b, 1, turned, 2))
    } else {
        (slice(b, 0, turned / 2, 1), slice(b, turned / 2, turned, 1))
    };
    let mut mixed = |op: &str, by_first: &str, by_second: &str| {
        let (first, second) = (b.op("Mul", &[&first, by_first], &[]), b.op("Mul", &[&second, by_second], &[]));
        b.op(op, &[&first, &second], &[])
    };
    let (real, imaginary) = (mixed("Sub", &cosines, &sines), mixed("Add", &sines, &cosines));
    let last = [("axis", Attr::Int(-1))];
    let mut pieces = vec![real, imaginary];
    if interleaved {
        let axes = b.ints(&[-1]);
        let pairs: Vec<String> = pieces.iter().map(|piece| b.op("Unsqueeze", &[piece, &axes], &[])).collect();
        let pairs = b.op("Concat", &[&pairs[0], &pairs[1]], &last);
        let shape = b.ints(&[0, 0, 0, turned]);
        pieces = vec![b.op("Reshape", &[&pairs, &shape], &[])];
    }
    if turned < all {
        pieces.push(slice(b, turned, all, 1));
    }
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    if head_axis == 1 {
        b.push("Concat", &pieces, &[y], &last);
    } else {
        let joined = b.op("Concat", &pieces, &last);
        let shape = b.ints(&[0, 0, -1]);
        b.push("Reshape", &[&joined, &shape], &[y], &[]);
    }
    Ok(())
}
