//! Products with weights kept in few bits.

use super::{Builder, Call, Grads, unbroadcast};
use crate::ir::{Attr, DType, Weight};
use crate::vjp::VjpError;

/// ONNX Runtime's `MatMulNBits`: Y = A W^T with W [N, K] in blocks of 4 or 8 bits along K.
///
/// dA = dY W, with W read from the same packed bytes through a blockwise `DequantizeLinear`.
pub(super) fn matmul_nbits(b: &mut Builder, call: &Call<'_>) -> Grads {
    let mut grads = vec![None; call.node.inputs.len()];
    if [1, 2, 3, 4].into_iter().any(|i| call.wants(i)) {
        return Err(call.error("its packed weights depend on an adapter; they must be constants"));
    }
    if call.wants(5) {
        grads[5] = Some(unbroadcast(b, call, call.dy()?, call.x(5)?)?);
    }
    if call.wants(0) {
        let packed = Packed::of(b, call)?;
        let k = packed.k;
        let padded = packed.blocks * packed.block;
        let weights = packed.dequantised(b, call)?;
        let mut grad = b.op("MatMul", &[call.dy()?, &weights], &[]);
        if padded != k {
            let (start, end, axis) = (b.ints(&[0]), b.ints(&[k as i64]), b.ints(&[-1]));
            grad = b.op("Slice", &[&grad, &start, &end, &axis], &[]);
        }
        grads[0] = Some(grad);
    }
    Ok(grads)
}

/// The layout of a node's weight.
struct Packed {
    n: usize,
    k: usize,
    block: usize,
    blocks: usize,
    dtype: DType,
}

impl Packed {
    fn of(b: &Builder, call: &Call<'_>) -> Result<Self, VjpError> {
        let size = |name: &str| {
            let value = call.node.int(name).and_then(|v| usize::try_from(v).ok()).filter(|&v| v > 0);
            value.ok_or_else(|| call.error(format!("attribute `{name}` is missing or not positive")))
        };
        let dtype = match call.node.int("bits").unwrap_or(4) {
            4 => DType::U4,
            8 => DType::U8,
            bits => return Err(call.error(format!("{bits}-bit weights have no rule; quantise to 4 or 8 bits"))),
        };
        if call.node.input(4).is_some() {
            return Err(call.error("group indices (g_idx) have no rule; quantise without reordering (no act_order)"));
        }
        let (n, k, block) = (size("N")?, size("K")?, size("block_size")?);
        let packed = Packed { n, k, block, blocks: k.div_ceil(block), dtype };
        let bytes = (packed.n * packed.blocks * block * dtype.bits()).div_ceil(8);
        let weight = constant(b, call, 1)?;
        if weight.byte_len() != bytes {
            let found = weight.byte_len();
            return Err(call.error(format!("its weight should have {bytes} bytes and has {found}")));
        }
        Ok(packed)
    }

    /// W [N, blocks * block_size] in the scales' float type.
    fn dequantised(&self, b: &mut Builder, call: &Call<'_>) -> Result<String, VjpError> {
        let (n, blocks) = (self.n, self.blocks);
        let data = constant(b, call, 1)?.data.clone();
        let weight = Weight { dtype: self.dtype, shape: vec![n, blocks * self.block], data };

        let scales = constant(b, call, 2)?;
        if scales.len() != n * blocks {
            return Err(call.error(format!("it should have {} scales and has {}", n * blocks, scales.len())));
        }
        let scales = Weight { shape: vec![n, blocks], ..scales.clone() };

        let zeros = match call.node.input(3) {
            None => vec![if self.dtype == DType::U4 { 0x88 } else { 0x80 }; self.zero_bytes()],
            Some(_) => self.repacked_zeros(call, constant(b, call, 3)?)?,
        };
        let zeros = Weight::raw(self.dtype, &[n, blocks], zeros);

        let weight = b.constant("packed", weight);
        let scales = b.constant("scales", scales);
        let zeros = b.constant("zeros", zeros);
        let attrs = [("axis", Attr::Int(1)), ("block_size", Attr::Int(self.block as i64))];
        Ok(b.op("DequantizeLinear", &[&weight, &scales, &zeros], &attrs))
    }

    fn zero_bytes(&self) -> usize {
        (self.n * self.blocks * self.dtype.bits()).div_ceil(8)
    }

    /// Zero points without the half byte that ends each row of an odd number of 4-bit ones.
    fn repacked_zeros(&self, call: &Call<'_>, zeros: &Weight) -> Result<Vec<u8>, VjpError> {
        if zeros.dtype != DType::U8 {
            return Err(call.error("float zero points have no rule; quantise with integer zero points"));
        }
        let bytes = zeros.bytes().map_err(|e| call.error(format!("its zero points cannot be read: {e}")))?;
        let row = (self.blocks * self.dtype.bits()).div_ceil(8);
        if bytes.len() != row * self.n {
            return Err(call.error(format!(
                "its zero points should have {} bytes and have {}",
                row * self.n,
                bytes.len()
            )));
        }
        if self.dtype == DType::U8 || self.blocks.is_multiple_of(2) {
            return Ok(bytes.to_vec());
        }
        let nibbles = bytes
            .chunks_exact(row)
            .flat_map(|row| row.iter().flat_map(|byte| [byte & 0x0f, byte >> 4]).take(self.blocks));
        let nibbles: Vec<u8> = nibbles.collect();
        Ok(nibbles.chunks(2).map(|pair| pair[0] | pair.get(1).copied().unwrap_or(0) << 4).collect())
    }
}

fn constant<'b>(b: &'b Builder, call: &Call<'_>, i: usize) -> Result<&'b Weight, VjpError> {
    let name = call.x(i)?;
    b.graph.weights.get(name).ok_or_else(|| call.error(format!("its input `{name}` must be a constant of the model")))
}
