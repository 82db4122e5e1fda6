//! Tensors as typed arrays (RFC 8746), plain or quantised.

mod data;
pub mod packed;

use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::error::WireError;
use crate::plan::Encoding;

pub use data::Data;

/// The values of one tensor, encoded. Its shape is the layout's; how several become CBOR is [`packed`]'s affair.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedTensor {
    /// The number format.
    pub encoding: Encoding,
    /// Whether bytes are grouped by significance: all lowest bytes first.
    pub shuffled: bool,
    /// What signed bytes are multiplied with; 1 for other formats.
    pub scale: f32,
    /// The bytes.
    pub data: Data,
}

impl EncodedTensor {
    /// Encodes values, in row-major order. `shuffled` is by default on for wide formats of mostly non-zero values.
    pub fn encode(values: ArrayViewD<'_, f32>, encoding: Encoding, shuffle: Option<bool>) -> Self {
        let values = values.as_standard_layout();
        let values = values.as_slice().expect("the standard layout is contiguous");
        let dense = || values.iter().filter(|x| **x == 0.0).count() * 2 < values.len();
        let shuffled = encoding.width() > 1 && shuffle.unwrap_or_else(dense);
        let mut scale = 1.0;
        let data = match encoding {
            Encoding::F32 => bytes(values, shuffled, |x| x.to_le_bytes()),
            Encoding::Bf16 => bytes(values, shuffled, |x| bf16::from_f32(x).to_le_bytes()),
            Encoding::F16 => bytes(values, shuffled, |x| f16::from_f32(x).to_le_bytes()),
            Encoding::Int8 => {
                let largest = values.iter().fold(0.0f32, |m, x| m.max(x.abs()));
                scale = if largest.is_finite() && largest > 0.0 { largest / 127.0 } else { 1.0 };
                let inverse = 1.0 / scale;
                // A scale so small that it has no inverse belongs to values that are zero for all purposes.
                let inverse = if inverse.is_finite() { inverse } else { 0.0 };
                bytes(values, false, |x| ((x * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).to_le_bytes())
            }
        };
        EncodedTensor { encoding, shuffled, scale, data: data.into() }
    }

    /// The narrowest encoding that keeps every bit: bfloat16 where all values fit, else binary32.
    pub fn lossless(values: ArrayViewD<'_, f32>) -> Self {
        let fits = values.iter().all(|&x| bf16::from_f32(x).to_f32().to_bits() == x.to_bits());
        EncodedTensor::encode(values, if fits { Encoding::Bf16 } else { Encoding::F32 }, None)
    }

    /// The values, of this shape.
    ///
    /// # Errors
    /// When the bytes are more or fewer than the shape needs, or a value is infinite or not a number.
    pub fn decode(&self, name: &str, shape: &[usize]) -> Result<ArrayD<f32>, WireError> {
        let refuse = |reason: String| WireError::Tensor { name: name.to_string(), reason };
        let width = self.encoding.width();
        let expected = shape.iter().try_fold(width, |n, &d| n.checked_mul(d));
        if expected != Some(self.data.len()) {
            return Err(refuse(format!("{} bytes for shape {shape:?} of {width}-byte values", self.data.len())));
        }
        let values = match self.encoding {
            Encoding::F32 => numbers(&self.data, self.shuffled, f32::from_le_bytes),
            Encoding::Bf16 => numbers(&self.data, self.shuffled, |b| bf16::from_le_bytes(b).to_f32()),
            Encoding::F16 => numbers(&self.data, self.shuffled, |b| f16::from_le_bytes(b).to_f32()),
            Encoding::Int8 => numbers(&self.data, false, |b| f32::from(i8::from_le_bytes(b)) * self.scale),
        };
        // Looked at to the end, which takes less time than to stop at the first.
        if !values.iter().fold(true, |all, x| all & x.is_finite()) {
            return Err(refuse("holds a value that is infinite or not a number".to_string()));
        }
        ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|e| refuse(e.to_string()))
    }
}

impl Encoding {
    /// Bytes of a value.
    pub fn width(self) -> usize {
        match self {
            Encoding::F32 => 4,
            Encoding::Bf16 | Encoding::F16 => 2,
            Encoding::Int8 => 1,
        }
    }
}

/// Little-endian bytes of values in row-major order.
pub(crate) fn binary32(values: ArrayViewD<'_, f32>) -> Vec<u8> {
    let values = values.as_standard_layout();
    bytes(values.as_slice().expect("the standard layout is contiguous"), false, |x| x.to_le_bytes())
}

/// Values as bytes, `a0 a1 b0 b1 ..`, or shuffled as `a0 b0 .. a1 b1 ..`.
fn bytes<const W: usize>(values: &[f32], shuffled: bool, of: impl Fn(f32) -> [u8; W]) -> Vec<u8> {
    let values = values.iter();
    match shuffled {
        false => values.map(|&x| of(x)).collect::<Vec<_>>().into_flattened(),
        true => {
            let mut bytes = Vec::with_capacity(values.len() * W);
            (0..W).for_each(|k| bytes.extend(values.clone().map(|&x| of(x)[k])));
            bytes
        }
    }
}

/// Values back from their bytes.
fn numbers<const W: usize>(bytes: &[u8], shuffled: bool, of: impl Fn([u8; W]) -> f32) -> Vec<f32> {
    let (whole, _) = bytes.as_chunks::<W>();
    if !shuffled {
        return whole.iter().map(|&b| of(b)).collect();
    }
    let count = whole.len();
    let lanes: [&[u8]; W] = std::array::from_fn(|k| &bytes[k * count..(k + 1) * count]);
    (0..count).map(|i| of(lanes.map(|lane| lane[i]))).collect()
}

#[cfg(test)]
mod tests;
