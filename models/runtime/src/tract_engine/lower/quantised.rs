//! Quantised weights that tract cannot dequantise: 4-bit ones and those with a scale per block.

use super::constants::{Constants, dimensions, integer_bits};
use super::{LowerError, int, refused};
use crate::tract_engine::proto::tensor_proto::DataType;
use crate::tract_engine::proto::{NodeProto, TensorProto};

/// Whether a DequantizeLinear node is one that tract lacks: 4-bit values, blocks, or a scale that is not float32.
pub(super) fn is_beyond_tract(node: &NodeProto, constants: &Constants) -> bool {
    let kind = |at: usize| {
        let tensor = node.input.get(at).and_then(|name| constants.get(name))?;
        DataType::try_from(tensor.data_type).ok()
    };
    int(node, "block_size").unwrap_or(0) != 0
        || kind(0).and_then(integer_bits) == Some(4)
        || kind(1).is_some_and(|k| k != DataType::Float)
}

/// The constant a DequantizeLinear node computes, under the name of its output: (q - zero point) * scale, with one
/// scale for all, for each entry of an axis, or for each block of `block_size` along the axis (opset 21).
pub(super) fn dequantised(node: &NodeProto, constants: &Constants) -> Result<TensorProto, LowerError> {
    let constant = |at: usize, what: &str| {
        let name = node.input.get(at).map(String::as_str).unwrap_or_default();
        constants.get(name).ok_or_else(|| refused(node, format!("needs {what} as a constant, `{name}` is none")))
    };
    let (weight, scale) = (constant(0, "the quantised tensor")?, constant(1, "the scale")?);
    let zero_point = match node.input.get(2).filter(|name| !name.is_empty()) {
        Some(_) => Some(constants.integers(constant(2, "the zero point")?)?),
        None => None,
    };
    let (values, scales) = (constants.integers(weight)?, constants.floats(scale)?);
    let (shape, scale_shape) = (dimensions(weight)?, dimensions(scale)?);
    let rank = shape.len() as i64;
    let axis = int(node, "axis").unwrap_or(1);
    let axis = if axis < 0 { axis + rank } else { axis };
    let block = int(node, "block_size").unwrap_or(0);

    let groups = if scales.len() == 1 && block == 0 {
        Groups { inner: 1, along: 1, block: 1, per_outer: 0, inner_scales: 0 }
    } else {
        let at = usize::try_from(axis).ok().filter(|at| *at < shape.len());
        let at = at.ok_or_else(|| refused(node, format!("has the axis {axis} on a tensor of shape {shape:?}")))?;
        let inner: usize = shape[at + 1..].iter().product();
        if block == 0 {
            if scale_shape != [shape[at]] {
                return Err(refused(node, format!("has scales of shape {scale_shape:?} for axis {at} of {shape:?}")));
            }
            Groups { inner, along: shape[at], block: 1, per_outer: 0, inner_scales: 0 }
        } else {
            let block = usize::try_from(block).map_err(|_| refused(node, format!("has the block size {block}")))?;
            let mut expected = shape.clone();
            expected[at] = shape[at].div_ceil(block);
            if scale_shape != expected {
                return Err(refused(
                    node,
                    format!("has scales of shape {scale_shape:?} where {expected:?} are needed"),
                ));
            }
            Groups { inner, along: shape[at], block, per_outer: expected[at] * inner, inner_scales: inner }
        }
    };
    if zero_point.as_ref().is_some_and(|z| z.len() != scales.len()) {
        return Err(refused(node, "has not as many zero points as scales"));
    }
    let dequantise = |(at, q): (usize, &i32)| {
        let group = groups.of(at);
        (q - zero_point.as_ref().map_or(0, |z| z[group])) as f32 * scales[group]
    };
    let data: Vec<f32> = values.iter().enumerate().map(dequantise).collect();
    let mut result = TensorProto {
        name: node.output.first().cloned().unwrap_or_default(),
        dims: weight.dims.clone(),
        ..TensorProto::default()
    };
    match DataType::try_from(scale.data_type) {
        // The result has the scale's type.
        Ok(DataType::Float16) => {
            result.data_type = DataType::Float16 as i32;
            result.raw_data = data.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect();
        }
        _ => {
            result.data_type = DataType::Float as i32;
            result.raw_data = data.iter().flat_map(|x| x.to_le_bytes()).collect();
        }
    }
    Ok(result)
}

/// Which scale an element has, from its place in the tensor [outer, along, inner].
struct Groups {
    inner: usize,
    along: usize,
    block: usize,
    /// Scales for one outer index; 0 where all outer indices share theirs.
    per_outer: usize,
    /// Scales along the inner axes; 0 where they share theirs.
    inner_scales: usize,
}

impl Groups {
    fn of(&self, at: usize) -> usize {
        let (inner, rest) = (at % self.inner, at / self.inner);
        let (along, outer) = (rest % self.along, rest / self.along);
        let scale_along = (along / self.block) * self.inner_scales.max(1);
        outer * self.per_outer + scale_along + if self.inner_scales > 0 { inner } else { 0 }
    }
}
