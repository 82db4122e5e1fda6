//! Products with the transpose of a constant.
//!
//! An engine would fold `Transpose(constant)` into a second, transposed copy of the weight. A weight that nothing else
//! reads is transposed here, once, and only that copy kept. A weight that is read both ways, such as embeddings tied
//! to the output projection, stays as it is, and its products read it transposed through `Gemm`.

use std::collections::HashMap;

use super::ImportError;
use crate::ir::{Attr, Data, Graph, Node, Weight};

/// Bytes of weights kept in files that may be transposed in memory; beyond it they are read through `Gemm`.
const TRANSPOSED_BYTES: usize = 1 << 30;

/// How a product comes to read a transposed weight.
enum Plan {
    /// This weight holds the transpose.
    Stored(String),
    /// Through `Gemm`, from the weight itself.
    Read(String),
}

/// Removes each `Transpose` between a constant matrix and products that read it as their right factor.
pub(super) fn fold_transposes(graph: &mut Graph) -> Result<(), ImportError> {
    let plans = plan(graph)?;
    if plans.is_empty() {
        return Ok(());
    }
    for node in std::mem::take(&mut graph.nodes) {
        if node.is("Transpose") && node.output(0).is_some_and(|to| plans.contains_key(to)) {
            continue;
        }
        match node.input(1).and_then(|factor| plans.get(factor)) {
            Some(Plan::Stored(weight)) => {
                let mut node = node;
                node.inputs[1] = weight.clone();
                graph.nodes.push(node);
            }
            Some(Plan::Read(weight)) => read_transposed(graph, node, weight),
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

/// A plan for the output of every `Transpose` that can go; adds the transposed weights to the graph.
fn plan(graph: &mut Graph) -> Result<HashMap<String, Plan>, ImportError> {
    let consumers = graph.consumers();
    let returned = |name: &str| graph.outputs.iter().any(|p| p.name == name);
    let readers = |name: &str| consumers.get(name).into_iter().flatten().map(|&i| &graph.nodes[i]);
    let folds = |node: &Node| {
        is_constant_transpose(node, graph)
            && node.output(0).is_some_and(|to| !returned(to) && readers(to).all(|reader| reads_as_matrix(reader, to)))
    };
    let mut plans = HashMap::new();
    let mut stored: HashMap<String, String> = HashMap::new();
    let mut budget = TRANSPOSED_BYTES;
    for node in graph.nodes.iter().filter(|node| folds(node)) {
        let (Some(from), Some(to)) = (node.input(0), node.output(0)) else { continue };
        if let Some(known) = stored.get(from) {
            plans.insert(to.to_string(), Plan::Stored(known.clone()));
            continue;
        }
        let weight = &graph.weights[from];
        let cost = if matches!(weight.data, Data::File { .. }) { weight.byte_len() } else { 0 };
        if cost > budget || returned(from) || !readers(from).all(folds) {
            plans.insert(to.to_string(), Plan::Read(from.to_string()));
            continue;
        }
        budget -= cost;
        stored.insert(from.to_string(), to.to_string());
        plans.insert(to.to_string(), Plan::Stored(to.to_string()));
    }
    for (from, to) in stored {
        if let Some(weight) = graph.weights.remove(&from) {
            graph.weights.insert(to, transposed(&from, &weight)?);
        }
    }
    Ok(plans)
}

fn is_constant_transpose(node: &Node, graph: &Graph) -> bool {
    node.is("Transpose")
        && node.outputs.len() == 1
        && node.input(0).and_then(|x| graph.weights.get(x)).is_some_and(|w| w.shape.len() == 2 && w.dtype.is_float())
        && node.ints("perm").is_none_or(|perm| perm == [1, 0])
}

/// Whether `node` reads `value` only as the right factor of a product.
fn reads_as_matrix(node: &Node, value: &str) -> bool {
    (node.is("MatMul") || node.is("Gemm"))
        && node.inputs.len() >= 2
        && node.outputs.len() == 1
        && node.inputs.iter().enumerate().all(|(i, name)| (i == 1) == (name == value))
}

/// Appends the product `node` with the transpose of `weight` as its right factor.
fn read_transposed(graph: &mut Graph, mut node: Node, weight: &str) {
    let shape = graph.weights.get(weight).map(|w| w.shape.clone()).unwrap_or_default();
    let [columns, depth] = shape[..] else { return };
    node.inputs[1] = weight.to_string();
    if node.is("Gemm") {
        let transposed = i64::from(node.int("transB").unwrap_or(0) == 0);
        node.attrs.insert("transB".into(), Attr::Int(transposed));
        graph.nodes.push(node);
        return;
    }
    let output = node.outputs[0].clone();
    let part = |what: &str| format!("{output}~{what}");
    let mut push = |op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]| {
        graph.nodes.push(Node {
            name: if op == "Gemm" { node.name.clone() } else { String::new() },
            op: op.into(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            ..Node::default()
        });
    };
    let x = &node.inputs[0];
    push("Reshape", &[x, &part("rows_shape")], &part("rows"), &[]);
    push("Gemm", &[&part("rows"), weight], &part("product"), &[("transB", Attr::Int(1))]);
    push("Shape", &[x], &part("leading"), &[("end", Attr::Int(-1))]);
    push("Concat", &[&part("leading"), &part("columns")], &part("shape"), &[("axis", Attr::Int(0))]);
    push("Reshape", &[&part("product"), &part("shape")], &output, &[]);
    graph.weights.insert(part("rows_shape"), Weight::i64s(&[2], &[-1, depth as i64]));
    graph.weights.insert(part("columns"), Weight::i64s(&[1], &[columns as i64]));
}

/// The matrix with its dimensions swapped, in memory.
fn transposed(name: &str, weight: &Weight) -> Result<Weight, ImportError> {
    let bytes = weight.bytes().map_err(|e| ImportError::tensor(name, e.to_string()))?;
    let (rows, columns, width) = (weight.shape[0], weight.shape[1], weight.dtype.bits() / 8);
    let mut out = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        for row in 0..rows {
            let at = (row * columns + column) * width;
            out.extend_from_slice(&bytes[at..at + width]);
        }
    }
    Ok(Weight::raw(weight.dtype, &[columns, rows], out))
}
