//! Quantised weights that tract lacks, 4-bit ones and those with a scale per block, or gets wrong: for blocks of 32 its
//! MatMulNBits rounds the scales to float16.

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
    Ok(constant_of(node.output.first().cloned().unwrap_or_default(), &weight.dims, &data))
}

/// The float32 weight [K, N] of a MatMulNBits node (com.microsoft) and the nodes that use it: x W + bias, with
/// W\[k, n\] = (q\[n, k\] - zero point) * scale, `bits` bits each, one scale for `block_size` entries of a row of q.
pub(super) fn product(node: &NodeProto, constants: &Constants) -> Result<(TensorProto, Vec<NodeProto>), LowerError> {
    let size = |name: &str| {
        let value = int(node, name).and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0);
        value.ok_or_else(|| refused(node, format!("needs the attribute {name}")))
    };
    let input = |at: usize| node.input.get(at).filter(|name| !name.is_empty());
    let constant = |at: usize, what: &str| {
        let found = input(at).and_then(|name| constants.get(name));
        found.ok_or_else(|| refused(node, format!("needs {what} as a constant")))
    };
    let (k, n, block) = (size("K")?, size("N")?, size("block_size")?);
    let bits = int(node, "bits").unwrap_or(4);
    if !matches!(bits, 2 | 4 | 8) {
        return Err(refused(node, format!("has {bits} bits where 2, 4 and 8 are known")));
    }
    if input(4).is_some() {
        return Err(refused(node, "has a group index (g_idx), which is not known"));
    }
    let bits = bits as usize;
    let per_byte = 8 / bits;
    let unpack = |bytes: &[i32], at: usize| (bytes[at / per_byte] >> (bits * (at % per_byte))) & ((1 << bits) - 1);
    let blocks = k.div_ceil(block);
    let (row_bytes, zero_bytes) = (blocks * block.div_ceil(per_byte), blocks.div_ceil(per_byte));
    let expect = |what: &str, found: usize, needed: Option<usize>| match needed {
        Some(needed) if needed == found => Ok(()),
        _ => Err(refused(node, format!("has {found} {what}, which its shape does not need"))),
    };
    let packed = constants.integers(constant(1, "the packed weight")?)?;
    expect("bytes of weight", packed.len(), n.checked_mul(row_bytes))?;
    let scales = constants.floats(constant(2, "the scales")?)?;
    expect("scales", scales.len(), n.checked_mul(blocks))?;
    let zeros: Vec<f32> = match input(3) {
        None => vec![(1 << (bits - 1)) as f32; scales.len()],
        Some(_) => {
            let tensor = constant(3, "the zero points")?;
            if tensor.data_type == DataType::Uint8 as i32 {
                let bytes = constants.integers(tensor)?;
                expect("bytes of zero points", bytes.len(), n.checked_mul(zero_bytes))?;
                let row = |row: usize| bytes[row * zero_bytes..][..zero_bytes].to_vec();
                (0..n).flat_map(|r| (0..blocks).map(move |b| (r, b))).map(|(r, b)| unpack(&row(r), b) as f32).collect()
            } else {
                constants.floats(tensor)?
            }
        }
    };
    expect("zero points", zeros.len(), Some(scales.len()))?;

    let mut weight = vec![0.0; k * n];
    for (row, bytes) in packed.chunks_exact(row_bytes).enumerate() {
        for at in 0..k {
            let group = row * blocks + at / block;
            weight[at * n + row] = (unpack(bytes, at) as f32 - zeros[group]) * scales[group];
        }
    }
    let output = node.output.first().cloned().unwrap_or_default();
    let weight = constant_of(format!("{output}.weight"), &[k as i64, n as i64], &weight);
    let operator = |op: &str, suffix: &str, inputs: [String; 2], output: String| NodeProto {
        name: format!("{}.{suffix}", if node.name.is_empty() { &output } else { &node.name }),
        op_type: op.into(),
        input: inputs.to_vec(),
        output: vec![output],
        ..NodeProto::default()
    };
    let x = input(0).cloned().ok_or_else(|| refused(node, "has no input"))?;
    let nodes = match input(5) {
        None => vec![operator("MatMul", "product", [x, weight.name.clone()], output)],
        Some(bias) => {
            let plain = format!("{output}.product");
            vec![
                operator("MatMul", "product", [x, weight.name.clone()], plain.clone()),
                operator("Add", "bias", [plain, bias.clone()], output),
            ]
        }
    };
    Ok((weight, nodes))
}

fn constant_of(name: String, dims: &[i64], values: &[f32]) -> TensorProto {
    TensorProto {
        name,
        dims: dims.to_vec(),
        data_type: DataType::Float as i32,
        raw_data: values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ..TensorProto::default()
    }
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
