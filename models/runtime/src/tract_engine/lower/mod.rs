//! Rewrites what tract lacks into what it has, before it reads the graph.

mod constants;
mod halves;
mod quantised;

use std::collections::HashSet;
use std::path::Path;

use prost::Message;

use super::proto::tensor_proto::DataType;
use super::proto::{GraphProto, ModelProto, NodeProto, attribute_proto::AttributeType};
use crate::Model;
use constants::Constants;
use halves::Widening;

/// Why a graph cannot be rewritten.
#[derive(Debug, thiserror::Error)]
pub enum LowerError {
    /// A constant's data is missing, misshapen or of a type the rewrite does not know.
    #[error("the constant `{name}` {reason}")]
    Constant {
        /// The constant.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A node asks for something neither tract nor the rewrite knows.
    #[error("the node `{node}` ({operator}) {reason}")]
    Node {
        /// The node, by its name or that of its first output.
        node: String,
        /// Its operator.
        operator: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Rewrites the nodes of `model` that tract lacks or gets wrong. `weights_dir` holds the model's external data.
///
/// # Errors
/// When a node to be rewritten is malformed or its constants cannot be read.
pub fn lower_for_tract(model: &mut ModelProto, weights_dir: Option<&Path>) -> Result<(), LowerError> {
    let Some(graph) = &mut model.graph else { return Ok(()) };
    let none = Constants::new(weights_dir);
    Widening { kinds: &[DataType::Float16, DataType::Bfloat16], constants: Some(&none) }.graph(graph)?;
    lower_graph(graph, &none)
}

/// `model` with float32 in place of bfloat16; none if it has no bfloat16, or is no model at all. Its weights stay as they are.
///
/// # Errors
/// When a constant within a node is malformed.
pub(crate) fn without_bfloat16(model: &Model) -> Result<Option<Model>, LowerError> {
    let Ok(mut proto) = ModelProto::decode(&model.bytes[..]) else { return Ok(None) };
    let Some(graph) = &mut proto.graph else { return Ok(None) };
    let found = Widening { kinds: &[DataType::Bfloat16], constants: None }.graph(graph)?;
    Ok(found.then(|| Model { bytes: proto.encode_to_vec(), weights_dir: model.weights_dir.clone() }))
}

fn lower_graph(graph: &mut GraphProto, outer: &Constants) -> Result<(), LowerError> {
    name_constant_nodes(graph);
    let constants = outer.with(&graph.initializer);
    let mut folded = Vec::new();
    let mut nodes = Vec::with_capacity(graph.node.len());
    for mut node in std::mem::take(&mut graph.node) {
        for branch in node.attribute.iter_mut().filter_map(|a| a.g.as_mut()) {
            lower_graph(branch, &constants)?;
        }
        match node.op_type.as_str() {
            "DequantizeLinear" if quantised::is_beyond_tract(&node, &constants) => {
                folded.push(quantised::dequantised(&node, &constants)?);
            }
            "MatMulNBits" => {
                let (weight, products) = quantised::product(&node, &constants)?;
                folded.push(weight);
                nodes.extend(products);
            }
            _ => nodes.push(node),
        }
    }
    graph.node = nodes;
    graph.initializer.extend(folded);
    drop_unused_constants(graph);
    Ok(())
}

/// Turns Constant nodes that hold a tensor into initialisers.
fn name_constant_nodes(graph: &mut GraphProto) {
    let initialisers = &mut graph.initializer;
    graph.node.retain_mut(|node| {
        let value = node.attribute.iter_mut().find(|a| node.op_type == "Constant" && a.name == "value");
        let (Some(mut tensor), Some(name)) = (value.and_then(|a| a.t.take()), node.output.first()) else { return true };
        tensor.name = name.clone();
        initialisers.push(tensor);
        false
    });
}

/// tract reads every constant, also those of types it does not know that only rewritten nodes used.
fn drop_unused_constants(graph: &mut GraphProto) {
    let mut used = HashSet::new();
    collect_names(graph, &mut used);
    graph.initializer.retain(|constant| used.contains(&constant.name));
}

fn collect_names(graph: &GraphProto, names: &mut HashSet<String>) {
    names.extend(graph.output.iter().map(|output| output.name.clone()));
    for node in &graph.node {
        names.extend(node.input.iter().cloned());
        for branch in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
            collect_names(branch, names);
        }
    }
}

/// The integer attribute `name` of `node`.
pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    node.attribute.iter().find(|a| a.name == name && a.r#type == AttributeType::Int as i32).map(|a| a.i)
}

fn refused(node: &NodeProto, reason: impl Into<String>) -> LowerError {
    let name = if node.name.is_empty() { node.output.first().cloned().unwrap_or_default() } else { node.name.clone() };
    LowerError::Node { node: name, operator: node.op_type.clone(), reason: reason.into() }
}
