//! Takes out what an exporter left over: identities, transposed constants, dead code.

use std::collections::HashMap;

use super::ImportError;
use crate::ir::{Attr, Data, Graph, Node, Weight};

/// Bytes of weights kept in files that may be transposed in memory; beyond it they are read transposed by `Gemm`.
const TRANSPOSED_BYTES: usize = 1 << 30;

/// Cleans `graph` and its subgraphs.
pub(super) fn clean(graph: &mut Graph) -> Result<(), ImportError> {
    drop_identities(graph, &mut HashMap::new());
    fold_transposes(graph)?;
    prune(graph);
    Ok(())
}

fn prune(graph: &mut Graph) {
    graph.prune();
    for inner in subgraphs(graph) {
        prune(inner);
    }
    // Values that only dead code in a subgraph read.
    graph.prune();
}

fn subgraphs(graph: &mut Graph) -> impl Iterator<Item = &mut Graph> {
    graph.nodes.iter_mut().flat_map(|n| n.attrs.values_mut()).filter_map(|attr| match attr {
        Attr::Graph(inner) => Some(inner.as_mut()),
        _ => None,
    })
}

/// Whether `node` returns its input as it is when the model is not being trained.
fn is_identity(node: &Node, graph: &Graph) -> bool {
    let trains = |name: &str| graph.weights.get(name).and_then(Weight::to_i64s) != Some(vec![0]);
    match node.op.as_str() {
        "Identity" => node.domain.is_empty(),
        "Dropout" => node.domain.is_empty() && node.output(1).is_none() && !node.input(2).is_some_and(trains),
        _ => false,
    }
}

/// `renamed` maps dropped values of this graph and those around it to the values that replace them.
fn drop_identities(graph: &mut Graph, renamed: &mut HashMap<String, String>) {
    let outputs: Vec<String> = graph.outputs.iter().map(|p| p.name.clone()).collect();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            if let Some(actual) = renamed.get(input) {
                *input = actual.clone();
            }
        }
        for attr in node.attrs.values_mut() {
            if let Attr::Graph(inner) = attr {
                drop_identities(inner, renamed);
            }
        }
        match (node.input(0), node.output(0)) {
            (Some(from), Some(to)) if is_identity(&node, graph) && !outputs.iter().any(|o| o == to) => {
                renamed.insert(to.to_string(), from.to_string());
            }
            _ => kept.push(node),
        }
    }
    graph.nodes = kept;
    for port in &mut graph.outputs {
        if let Some(actual) = renamed.get(&port.name) {
            port.name = actual.clone();
        }
    }
}

/// Removes `Transpose` between a constant matrix and the products that read it, so that no engine holds a second,
/// transposed copy: a constant that nothing else reads is transposed once, here; one that is read both ways (embeddings
/// tied to the output projection) stays, and its products become `Gemm` with `transB`.
fn fold_transposes(graph: &mut Graph) -> Result<(), ImportError> {
    let mut budget = TRANSPOSED_BYTES;
    let mut taken: HashMap<String, String> = HashMap::new();
    let candidates: Vec<Node> = graph.nodes.iter().filter(|n| is_constant_transpose(n, graph)).cloned().collect();
    for transpose in candidates {
        let (Some(from), Some(to)) = (transpose.input(0), transpose.output(0)) else { continue };
        let readers = readers(graph, to);
        if graph.outputs.iter().any(|p| p.name == to) || !readers.iter().all(|&i| reads_as_matrix(&graph.nodes[i], to))
        {
            continue;
        }
        let alone = self::readers(graph, from).iter().all(|&i| is_constant_transpose(&graph.nodes[i], graph))
            && !graph.outputs.iter().any(|p| p.name == from);
        let weight = graph.weights[from].clone();
        let affordable = match weight.data {
            Data::Bytes(_) => true,
            Data::File { .. } => weight.byte_len() <= budget,
        };
        if !alone || !affordable {
            read_transposed(graph, &readers, from, to);
            continue;
        }
        if matches!(weight.data, Data::File { .. }) {
            budget -= weight.byte_len();
        }
        if let Some(known) = taken.get(from) {
            rename_inputs(graph, to, known);
            continue;
        }
        let transposed = transposed(from, &weight)?;
        graph.nodes.retain(|n| n.output(0) != Some(to));
        graph.weights.insert(to.to_string(), transposed);
        taken.insert(from.to_string(), to.to_string());
    }
    Ok(())
}

fn rename_inputs(graph: &mut Graph, from: &str, to: &str) {
    for input in graph.nodes.iter_mut().flat_map(|n| &mut n.inputs).filter(|input| *input == from) {
        *input = to.to_string();
    }
}

fn readers(graph: &Graph, value: &str) -> Vec<usize> {
    (0..graph.nodes.len()).filter(|&i| graph.nodes[i].reads().contains(&value)).collect()
}

fn is_constant_transpose(node: &Node, graph: &Graph) -> bool {
    node.is("Transpose")
        && node.input(0).and_then(|x| graph.weights.get(x)).is_some_and(|w| w.shape.len() == 2 && w.dtype.is_float())
        && node.ints("perm").is_none_or(|perm| perm == [1, 0])
}

/// Whether `node` reads `value` only as the right factor of a product.
fn reads_as_matrix(node: &Node, value: &str) -> bool {
    (node.is("MatMul") || node.is("Gemm"))
        && node.inputs.iter().enumerate().all(|(i, name)| (i == 1) == (name == value))
        && node.reads().iter().filter(|v| **v == value).count() == 1
}

/// Makes the products that read `to`, the transpose of the weight `from`, read `from` itself.
fn read_transposed(graph: &mut Graph, readers: &[usize], from: &str, to: &str) {
    let columns = graph.weights[from].shape[0] as i64;
    let depth = graph.weights[from].shape[1] as i64;
    let mut nodes = Vec::with_capacity(graph.nodes.len() + 4 * readers.len());
    for (i, mut node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        if !readers.contains(&i) {
            nodes.push(node);
            continue;
        }
        node.inputs[1] = from.to_string();
        if node.is("Gemm") {
            let transposed = 1 - node.int("transB").unwrap_or(0).clamp(0, 1);
            node.attrs.insert("transB".into(), Attr::Int(transposed));
            nodes.push(node);
            continue;
        }
        let output = node.outputs[0].clone();
        let part = |what: &str| format!("{output}~{what}");
        let make = |op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]| Node {
            name: if op == "Gemm" { node.name.clone() } else { String::new() },
            op: op.into(),
            inputs: inputs.iter().map(|s| s.to_string()).collect(),
            outputs: vec![output.into()],
            attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
            ..Node::default()
        };
        let x = node.inputs[0].clone();
        nodes.push(make("Reshape", &[&x, &part("rows_shape")], &part("rows"), &[]));
        nodes.push(make("Gemm", &[&part("rows"), from], &part("product"), &[("transB", Attr::Int(1))]));
        nodes.push(make("Shape", &[&x], &part("leading"), &[("end", Attr::Int(-1))]));
        let shape = [part("leading"), part("columns")];
        nodes.push(make("Concat", &[&shape[0], &shape[1]], &part("shape"), &[("axis", Attr::Int(0))]));
        nodes.push(make("Reshape", &[&part("product"), &part("shape")], &output, &[]));
        graph.weights.insert(part("rows_shape"), Weight::i64s(&[2], &[-1, depth]));
        graph.weights.insert(part("columns"), Weight::i64s(&[1], &[columns]));
    }
    graph.nodes = nodes;
    graph.nodes.retain(|n| n.output(0) != Some(to));
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
