//! One node of an older opset as nodes of opset 21.
//!
//! Only operators whose meaning or form changed between opsets 11 and 21 appear here; all others are kept as they are.
//! Sources: the version notes of each operator in ONNX's `Changelog.md`.

use std::ops::RangeInclusive;

use super::ImportError;
use crate::ir::{Attr, Graph, Node, Weight};

/// Opsets whose models are understood. Those above 21 only widen types and add operators.
pub(super) const SUPPORTED: RangeInclusive<i64> = 11..=26;

/// Marks a softmax of opset 11 or 12, which works on the input flattened to two dimensions at `axis`.
pub(super) const FLATTENING: &str = "~flattening";

/// Appends `node`, written for opset `from`, to `graph` in the form it has in opset 21.
pub(super) fn upgrade(mut node: Node, from: i64, graph: &mut Graph) -> Result<(), ImportError> {
    if !node.domain.is_empty() {
        graph.nodes.push(node);
        return Ok(());
    }
    match node.op.as_str() {
        "Squeeze" | "Unsqueeze" | "ReduceSum" if from < 13 => attr_to_input(&mut node, "axes", graph),
        "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2" | "ReduceLogSum"
        | "ReduceLogSumExp" | "ReduceSumSquare"
            if from < 18 =>
        {
            attr_to_input(&mut node, "axes", graph);
        }
        "Split" => {
            if from < 13 {
                attr_to_input(&mut node, "split", graph);
            }
            if from < 18 && node.input(1).is_none() {
                node.attrs.insert("num_outputs".into(), Attr::Int(node.outputs.len() as i64));
            }
        }
        "Softmax" | "LogSoftmax" | "Hardmax" if from < 13 => {
            node.attrs.entry("axis".into()).or_insert(Attr::Int(1));
            node.attrs.insert(FLATTENING.into(), Attr::Int(1));
        }
        "Dropout" if from < 12 => node = identity_of(node)?,
        "GridSample" if from < 20 => {
            let renamed = match node.str("mode") {
                Some("bilinear") | None => "linear",
                Some("bicubic") => "cubic",
                Some(_) => "nearest",
            };
            node.attrs.insert("mode".into(), Attr::Str(renamed.into()));
        }
        // Before opset 13 sizes came with empty scales.
        "Resize" if from < 13 && node.input(3).is_some() => node.inputs[2].clear(),
        "RoiAlign" if from < 16 => {
            node.attrs.insert("coordinate_transformation_mode".into(), Attr::Str("output_half_pixel".into()));
        }
        "BatchNormalization" if from < 14 && node.outputs.iter().filter(|o| !o.is_empty()).count() > 1 => {
            return Err(ImportError::node(&node, "is in its training form: export the model in evaluation mode"));
        }
        "GroupNormalization" if from < 21 => return Err(changed(&node, 21)),
        "DFT" if from < 20 => return Err(changed(&node, 20)),
        "DequantizeLinear" if from > 22 && node.int("output_dtype").unwrap_or(0) != 0 => {
            return Err(ImportError::node(&node, "sets output_dtype, which opset 21 lacks: export for opset 21"));
        }
        _ => {}
    }
    graph.nodes.push(node);
    Ok(())
}

fn changed(node: &Node, opset: i64) -> ImportError {
    ImportError::node(node, format!("changed its meaning at opset {opset}: export for opset {opset} or higher"))
}

/// Moves an integer-list attribute to the second input.
fn attr_to_input(node: &mut Node, attr: &str, graph: &mut Graph) {
    let Some(Attr::Ints(values)) = node.attrs.remove(attr) else { return };
    let mut name = format!("{}~{attr}", node.outputs.first().map_or("", String::as_str));
    while graph.weights.contains_key(&name) {
        name.push('~');
    }
    node.inputs.truncate(1);
    node.inputs.push(name.clone());
    graph.weights.insert(name, Weight::i64s(&[values.len()], &values));
}

fn identity_of(node: Node) -> Result<Node, ImportError> {
    if node.output(1).is_some() {
        return Err(ImportError::node(&node, "returns its mask: export the model in evaluation mode"));
    }
    let (inputs, outputs) = (node.inputs.into_iter().take(1).collect(), node.outputs.into_iter().take(1).collect());
    Ok(Node { name: node.name, op: "Identity".into(), inputs, outputs, ..Node::default() })
}

/// The same result without [`FLATTENING`], for an input whose rank is `rank`, if known.
pub(super) fn unflatten(mut node: Node, rank: Option<usize>) -> Vec<Node> {
    node.attrs.remove(FLATTENING);
    if node.outputs.len() != 1 {
        return vec![node];
    }
    let axis = node.int("axis").unwrap_or(1);
    let last = axis == -1 || rank.is_some_and(|rank| axis == rank as i64 - 1);
    let (Some(input), Some(output)) = (node.input(0), node.output(0)) else {
        return vec![node];
    };
    if last {
        node.attrs.insert("axis".into(), Attr::Int(-1));
        return vec![node];
    }
    let (input, output) = (input.to_string(), output.to_string());
    let part = |what: &str| format!("{output}~{what}");
    let make = |op: &str, inputs: &[&str], output: &str, attrs: &[(&str, Attr)]| Node {
        op: op.into(),
        inputs: inputs.iter().map(|s| s.to_string()).collect(),
        outputs: vec![output.into()],
        attrs: attrs.iter().map(|(k, v)| (k.to_string(), v.clone())).collect(),
        ..Node::default()
    };
    let flatten = make("Flatten", &[&input], &part("flat"), &[("axis", Attr::Int(axis))]);
    let shape = make("Shape", &[&input], &part("shape"), &[]);
    let reshape = make("Reshape", &[&part("rows"), &part("shape")], &output, &[]);
    node.inputs = vec![part("flat")];
    node.outputs = vec![part("rows")];
    node.attrs.insert("axis".into(), Attr::Int(-1));
    vec![flatten, node, shape, reshape]
}
