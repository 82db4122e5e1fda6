//! float16 graphs as float32 ones: CPUs compute in float32 anyway, and sums lose less.

use super::LowerError;
use super::constants::Constants;
use crate::tract_engine::proto::tensor_proto::DataType;
use crate::tract_engine::proto::type_proto::Value;
use crate::tract_engine::proto::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// Widens every float16 constant, cast, input and output of `graph` and of its branches. The node that widens or
/// narrows becomes a cast of float32 to itself, which tract drops.
pub(super) fn widen(graph: &mut GraphProto, weights: &Constants) -> Result<(), LowerError> {
    for constant in &mut graph.initializer {
        widen_constant(constant, weights)?;
    }
    for info in graph.input.iter_mut().chain(&mut graph.output) {
        widen_type(info);
    }
    for node in &mut graph.node {
        widen_node(node, weights)?;
    }
    Ok(())
}

fn is_half(kind: i64) -> bool {
    kind == DataType::Float16 as i64 || kind == DataType::Bfloat16 as i64
}

fn widen_node(node: &mut NodeProto, weights: &Constants) -> Result<(), LowerError> {
    let names_a_type = |name: &str| matches!(name, "to" | "dtype" | "stash_type");
    for attribute in &mut node.attribute {
        if names_a_type(&attribute.name) && is_half(attribute.i) {
            attribute.i = DataType::Float as i64;
        }
        if let Some(tensor) = &mut attribute.t {
            widen_constant(tensor, weights)?;
        }
        if let Some(branch) = &mut attribute.g {
            widen(branch, weights)?;
        }
    }
    Ok(())
}

fn widen_constant(constant: &mut TensorProto, weights: &Constants) -> Result<(), LowerError> {
    if is_half(i64::from(constant.data_type)) {
        let values = weights.floats(constant)?;
        *constant = TensorProto {
            name: std::mem::take(&mut constant.name),
            dims: std::mem::take(&mut constant.dims),
            data_type: DataType::Float as i32,
            raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ..TensorProto::default()
        };
    }
    Ok(())
}

fn widen_type(info: &mut ValueInfoProto) {
    if let Some(Value::TensorType(tensor)) = info.r#type.as_mut().and_then(|t| t.value.as_mut())
        && is_half(i64::from(tensor.elem_type))
    {
        tensor.elem_type = DataType::Float as i32;
    }
}
